//! Letters as people look at them first: grouped by route, backend and the gist of the reason.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::letter::{Letter, gist};
use crate::clock::UnixNanos;
use crate::event::EventId;

/// Most groups of one pipeline; letters of further ones are counted together.
pub const GROUPS_MAX: usize = 256;

/// Letters that are alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Group {
    /// Their route.
    pub route: String,
    /// The backend that refused them.
    pub backend: String,
    /// Why, numbers and ids written `#`.
    pub reason: String,
    /// How many.
    pub count: u64,
    /// When the first of them was rejected.
    pub oldest: UnixNanos,
    /// When the last of them was rejected.
    pub newest: UnixNanos,
    /// The last of them.
    pub example: EventId,
}

/// The letters of one pipeline, grouped.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Groups {
    /// The pipeline: `<namespace>.<name>`.
    pub pipeline: String,
    /// The groups, the largest first.
    pub groups: Vec<Group>,
    /// Letters beyond [`GROUPS_MAX`] groups.
    pub ungrouped: u64,
    /// All letters.
    pub count: u64,
}

/// Gathers groups.
#[derive(Debug, Default)]
pub(super) struct Grouping {
    groups: BTreeMap<(String, String, String), Group>,
    ungrouped: u64,
    count: u64,
}

impl Grouping {
    pub(super) fn add(&mut self, letter: &Letter<'_>, rejected: UnixNanos) {
        self.count += 1;
        let key = (letter.route.to_string(), letter.backend.to_string(), gist(&letter.reason));
        let full = self.groups.len() >= GROUPS_MAX;
        let group = match self.groups.entry(key) {
            std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::btree_map::Entry::Vacant(_) if full => {
                self.ungrouped += 1;
                return;
            }
            std::collections::btree_map::Entry::Vacant(new) => {
                let (route, backend, reason) = new.key().clone();
                let example = letter.id;
                new.insert(Group { route, backend, reason, count: 0, oldest: rejected, newest: rejected, example })
            }
        };
        group.count += 1;
        group.oldest = group.oldest.min(rejected);
        group.newest = group.newest.max(rejected);
        group.example = letter.id;
    }

    pub(super) fn finish(self, pipeline: &str) -> Groups {
        let mut groups: Vec<Group> = self.groups.into_values().collect();
        groups.sort_by_key(|group| std::cmp::Reverse(group.count));
        Groups { pipeline: pipeline.to_owned(), groups, ungrouped: self.ungrouped, count: self.count }
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;

    #[test]
    fn groups_are_bounded_and_nothing_is_uncounted() {
        let mut grouping = Grouping::default();
        for number in 0..1000u64 {
            let reason = format!("reason {}", "x".repeat(number as usize % 300));
            let letter = Letter {
                reason: reason.into(),
                route: Cow::Borrowed("all"),
                backend: Cow::Borrowed("b"),
                id: EventId { incarnation: 1, seq: number },
                received: 0,
                event: b"{}",
            };
            grouping.add(&letter, number as i64);
        }
        let groups = grouping.finish("ns.p");
        assert_eq!(groups.groups.len(), GROUPS_MAX);
        assert_eq!(groups.groups.iter().map(|group| group.count).sum::<u64>() + groups.ungrouped, 1000);
        let first = &groups.groups[0];
        assert_eq!((first.count, first.oldest, first.newest, first.example.seq), (4, 0, 900, 900));
    }
}
