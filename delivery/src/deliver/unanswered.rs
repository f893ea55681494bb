//! Batches that were sent and of which no answer told what became of them: their destination may have them.
//!
//! # Guarantees
//! - What another backend of the route got of such a batch is told once, whether or not the destination knows repeats by a key.
//! - A later answer for all of a batch takes it out.
//!
//! # Must not know
//! Why there was no answer, and what a batch is called.
//!
//! # Limits
//! [`BATCHES_MAX`] at once; beyond that two neighbours count as one. It is in memory: of what an earlier process sent only
//! batches that were planned are known.

use crate::log::{Plan, Progress};

/// Most batches: a delivery has at most as many as it had under way, and an edit or two more.
const BATCHES_MAX: usize = 1024;

/// Ranges of sequences, by their first one.
#[derive(Debug, Default)]
pub(super) struct Unanswered(Vec<(u64, u64)>);

impl Unanswered {
    /// Returns what an earlier process planned, and so tried.
    pub(super) fn of_plans(plans: &[Plan]) -> Self {
        let mut all = Self::default();
        plans.iter().for_each(|plan| all.note(plan.first, plan.end));
        all
    }

    /// Notes a batch. One that is part of another is that one's; one that has others in it stands for them.
    pub(super) fn note(&mut self, first: u64, end: u64) {
        if self.0.iter().any(|(from, to)| *from <= first && end <= *to) {
            return;
        }
        self.0.retain(|(from, to)| *from < first || end < *to);
        let at = self.0.partition_point(|(from, _)| *from < first);
        self.0.insert(at, (first, end));
        if self.0.len() > BATCHES_MAX {
            let (_, to) = self.0.remove(1);
            self.0[0].1 = self.0[0].1.max(to);
        }
    }

    /// Forgets batches of which everything was answered for.
    pub(super) fn answered(&mut self, progress: &Progress) {
        self.0.retain(|(first, end)| !progress.has_all(*first, *end));
    }

    /// Takes out the batches of which others have something; returns how many these are.
    pub(super) fn moved(&mut self, touches: impl Fn(u64, u64) -> bool) -> u64 {
        let before = self.0.len();
        self.0.retain(|(first, end)| !touches(*first, *end));
        (before - self.0.len()) as u64
    }

    /// Takes out all; returns how many these are.
    pub(super) fn take_all(&mut self) -> u64 {
        std::mem::take(&mut self.0).len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_told_once_whatever_is_made_of_it() {
        let mut all = Unanswered::default();
        for (first, end) in [(10, 20), (0, 10), (10, 15), (10, 20), (30, 40)] {
            all.note(first, end);
        }
        assert_eq!(all.0, [(0, 10), (10, 20), (30, 40)], "a half is its batch's");
        all.answered(&Progress { cursor: 10, resolved: vec![(10, 19)], ..Progress::default() });
        assert_eq!(all.0, [(10, 20), (30, 40)], "one event of it is still open");
        assert_eq!(all.moved(|first, end| first <= 19 && 19 < end), 1);
        assert_eq!(all.moved(|_, end| end <= 20), 0);
        all.note(25, 45);
        assert_eq!((all.take_all(), all.take_all()), (1, 0), "one that has another in it stands for it");
    }

    #[test]
    fn at_the_limit_neighbours_count_as_one_and_none_is_lost() {
        let mut all = Unanswered::default();
        (0..=BATCHES_MAX as u64).for_each(|batch| all.note(batch * 10, batch * 10 + 5));
        assert_eq!((all.0.len(), all.0[0]), (BATCHES_MAX, (0, 15)));
        assert_eq!(all.moved(|first, end| first <= 12 && 12 < end), 1);
    }
}
