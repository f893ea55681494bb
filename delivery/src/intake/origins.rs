//! The origins of a pipeline: what a source knows, and what the manifest adds where that is absent.
//!
//! A source gives one origin to every pipeline. Each pipeline merges its own, so one call of the intake, and with it one
//! reservation over all logs, serves pipelines that add different things.
//!
//! # Limits
//! [`ORIGINS_MAX`] merged origins, the last used ones. Where the manifest adds nothing, none is made.

use std::sync::{Arc, Mutex, PoisonError};

use crate::event::{Origin, OriginBuilder};

/// Most merged origins a pipeline remembers: a node of 110 pods with two containers each has 220. At 1 KiB and two forms
/// of each that is 512 KiB.
const ORIGINS_MAX: usize = 256;

/// What a pipeline makes of the origins that come to it.
#[derive(Debug)]
pub(super) struct Origins {
    /// What the manifest adds, `None` when that is nothing.
    added: Option<OriginBuilder>,
    /// What came and what was made of it, the last used first. An origin in here cannot be freed, so its address is its own.
    recent: Mutex<Vec<(Arc<Origin>, Arc<Origin>)>>,
}

impl Origins {
    /// Returns the origins of a pipeline whose manifest adds `added`.
    pub(super) fn new(added: &OriginBuilder) -> Self {
        Self { added: (!added.is_empty()).then(|| added.clone()), recent: Mutex::default() }
    }

    /// Returns `known` with what the manifest adds. Allocates only for an origin that was not there lately.
    pub(super) fn merged(&self, known: &Arc<Origin>) -> Arc<Origin> {
        let Some(added) = &self.added else {
            return known.clone();
        };
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let same = recent.iter().position(|(from, _)| Arc::ptr_eq(from, known));
        let found = same.or_else(|| recent.iter().position(|(from, _)| from.json() == known.json()));
        if let Some(index) = found {
            recent[..=index].rotate_right(1);
            recent[0].0.clone_from(known);
        } else {
            recent.truncate(ORIGINS_MAX - 1);
            recent.insert(0, (known.clone(), known.fields().filled_from(added).build()));
        }
        recent[0].1.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str) -> Arc<Origin> {
        OriginBuilder { pod: Some(name.to_owned()), ..OriginBuilder::default() }.build()
    }

    fn site() -> Origins {
        Origins::new(&OriginBuilder { site_id: Some("fab12".into()), ..OriginBuilder::default() })
    }

    #[test]
    fn an_origin_to_which_nothing_is_added_passes_untouched() {
        let origins = Origins::new(&OriginBuilder::default());
        let known = pod("a");
        assert!(Arc::ptr_eq(&origins.merged(&known), &known));
        assert!(origins.recent.lock().unwrap().is_empty());
    }

    #[test]
    fn an_origin_is_merged_once() {
        let origins = site();
        let first = origins.merged(&pod("a"));
        assert_eq!(&first.json()[..], br#"{"pod":"a","siteID":"fab12"}"#);
        let known = pod("a");
        for _ in 0..3 {
            assert!(Arc::ptr_eq(&origins.merged(&known), &first), "by its JSON, then by its address");
        }
        assert_eq!(origins.recent.lock().unwrap().len(), 1);
    }

    #[test]
    fn the_last_used_origins_are_remembered() {
        let origins = site();
        let kept = pod("kept");
        let first = origins.merged(&kept);
        for number in 0..ORIGINS_MAX * 2 {
            let merged = origins.merged(&pod(&number.to_string()));
            assert_eq!(merged.fields().pod, Some(number.to_string()));
            assert!(Arc::ptr_eq(&origins.merged(&kept), &first));
        }
        assert_eq!(origins.recent.lock().unwrap().len(), ORIGINS_MAX);
        for number in 0..ORIGINS_MAX {
            origins.merged(&pod(&number.to_string()));
        }
        assert!(!Arc::ptr_eq(&origins.merged(&kept), &first), "what was not used is forgotten");
    }
}
