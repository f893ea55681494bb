//! Why a backend refused events for good, in groups: a reason without what differs from event to event.
//!
//! Limits: [`REASONS_MAX`] groups of at most [`REASON_CHARS_MAX`] characters; whatever comes then counts under `other`.
//! What stands between quotes or brackets is left out, so that no event's content becomes a label of a metric.

use std::collections::BTreeMap;

/// Most groups told apart since the start.
const REASONS_MAX: usize = 16;

/// Most characters of a group's name.
const REASON_CHARS_MAX: usize = 80;

/// What counts what has no group of its own.
const OTHER: &str = "other";

/// Counts by group.
#[derive(Debug, Clone, Default)]
pub(super) struct Reasons {
    counts: BTreeMap<String, u64>,
}

impl Reasons {
    /// Counts one event.
    pub(super) fn count(&mut self, reason: &str) {
        let group = clean(reason);
        let known = self.counts.contains_key(&group) || self.counts.len() < REASONS_MAX;
        *self.counts.entry(if known { group } else { OTHER.into() }).or_default() += 1;
    }

    /// Returns the counts.
    pub(super) fn counts(&self) -> &BTreeMap<String, u64> {
        &self.counts
    }
}

/// Returns the group of a reason: quoted and bracketed parts and whatever holds a longer number become `…`.
pub(super) fn clean(reason: &str) -> String {
    let mut words: Vec<String> = Vec::new();
    for word in without_quoted(reason).split_whitespace() {
        let word = if is_particular(word) { "…" } else { word };
        if words.last().is_none_or(|last| last != word) {
            words.push(word.to_owned());
        }
    }
    let text = words.join(" ");
    let cut: String = text.chars().take(REASON_CHARS_MAX).collect();
    if cut.is_empty() { OTHER.into() } else { cut.trim_end().into() }
}

/// Whether a word names one event, address or moment: it holds a digit and is not a short number such as a status code.
fn is_particular(word: &str) -> bool {
    let word = word.trim_end_matches([',', '.', ':', ';', ')']).trim_start_matches('(');
    let short = word.len() <= 3 && word.bytes().all(|byte| byte.is_ascii_digit());
    !short && word.bytes().any(|byte| byte.is_ascii_digit())
}

fn without_quoted(reason: &str) -> String {
    let mut out = String::with_capacity(reason.len());
    let mut until: Option<char> = None;
    for c in reason.chars() {
        match until {
            Some(end) if c == end => until = None,
            Some(_) => {}
            None => {
                let within_word = out.chars().next_back().is_some_and(char::is_alphanumeric);
                until = match c {
                    '"' | '`' => Some(c),
                    '\'' if !within_word => Some(c),
                    '[' => Some(']'),
                    '{' => Some('}'),
                    _ => None,
                };
                match until {
                    Some(_) => out.push('…'),
                    None if c.is_control() => out.push(' '),
                    None => out.push(c),
                }
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_that_differ_by_the_event_are_one_group() {
        for (reason, group) in [
            (
                "400: failed to parse field [n] of type [long] in document with id 'abc-1'. Preview of field's value: 'x'",
                "400: failed to parse field … of type … in document with id …. Preview of field's value: …",
            ),
            ("event 4f2a-17 is\ttoo large:   1048577 bytes", "event … is too large: … bytes"),
            ("status 422", "status 422"),
            ("", "other"),
            ("{\"password\":\"hunter2\"}", "…"),
        ] {
            assert_eq!(clean(reason), group.chars().take(REASON_CHARS_MAX).collect::<String>(), "{reason}");
        }
    }

    #[test]
    fn groups_are_bounded() {
        let mut reasons = Reasons::default();
        for index in 0..100u8 {
            reasons.count(&"x".repeat(usize::from(index) + 1));
        }
        reasons.count("x");
        assert_eq!((reasons.counts().len(), reasons.counts()["x"], reasons.counts()[OTHER]), (REASONS_MAX + 1, 2, 84));
        assert!(reasons.counts().keys().all(|group| group.chars().count() <= REASON_CHARS_MAX));
    }
}
