//! Texts that many places hold (names, labels, manifests), each of them once.
//!
//! # Guarantees
//! - Equal texts are one [`Arc`] for as long as somebody holds it.
//! - What nobody holds any more is forgotten before there are twice as many entries as texts that are held.
//!
//! # It must not know
//! What a text means. Values of Secrets are never given to it.
//!
//! # Limits
//! One set for the process, behind one lock that is held for a look-up.

use std::collections::HashSet;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

/// Fewest entries that are looked through for what nobody holds.
const CLEARED_MIN: usize = 1024;

/// All of them; see the module.
static TEXTS: LazyLock<Mutex<Texts>> = LazyLock::new(Mutex::default);

#[derive(Debug, Default)]
struct Texts {
    all: HashSet<Arc<str>>,
    /// How many entries there may be before it is looked for what nobody holds.
    room: usize,
}

/// Returns the text as everybody holds it.
pub fn held(text: &str) -> Arc<str> {
    TEXTS.lock().unwrap_or_else(PoisonError::into_inner).held(text)
}

impl Texts {
    fn held(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.all.get(text) {
            return Arc::clone(known);
        }
        if self.all.len() >= self.room {
            self.all.retain(|text| Arc::strong_count(text) > 1);
            self.room = (self.all.len() * 2).max(CLEARED_MIN);
            self.all.shrink_to(self.room);
        }
        let text: Arc<str> = text.into();
        self.all.insert(Arc::clone(&text));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_are_one() {
        let (one, other) = (held("a text of this test"), held(&format!("a text of {} test", "this")));
        assert!(Arc::ptr_eq(&one, &other));
        assert!(!Arc::ptr_eq(&one, &held("another text of this test")));
    }

    #[test]
    fn what_nobody_holds_is_forgotten_and_what_somebody_holds_is_not() {
        let mut texts = Texts::default();
        let kept: Vec<Arc<str>> = (0..10).map(|number| texts.held(&format!("kept {number}"))).collect();
        for number in 0..CLEARED_MIN * 10 {
            texts.held(&format!("passing {number}"));
            assert!(texts.all.len() <= CLEARED_MIN);
        }
        for (number, kept) in kept.iter().enumerate() {
            assert!(Arc::ptr_eq(kept, &texts.held(&format!("kept {number}"))));
        }
    }
}
