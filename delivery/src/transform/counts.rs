//! What transforms did, counted: for one batch, and since the start.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Failure;

/// What one transform did to the events of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Events that came to it.
    pub events: u64,
    /// Events it wrote anew and passed on; a field may have had the value that it was set to.
    pub changed: u64,
    /// Events it did not pass on.
    pub dropped: u64,
    /// Events for which it could not do all it is told, by [`Failure`]; one each, the first.
    pub failed: [u64; Failure::ALL.len()],
}

impl Counts {
    /// Counts a group of `lines` that a source made one event of; each line came as an event.
    pub fn group(&mut self, lines: u32) {
        self.events += u64::from(lines);
        self.changed += u64::from(lines > 1);
    }

    /// Counts an event, or a group, that met a limit.
    pub fn too_large(&mut self) {
        self.failed[Failure::TooLarge as usize] += 1;
    }

    /// Counts an event.
    pub(super) fn event(&mut self, changed: bool, failure: Option<Failure>) {
        self.events += 1;
        self.changed += u64::from(changed);
        if let Some(failure) = failure {
            self.failed[failure as usize] += 1;
        }
    }

    /// Counts an event that is not passed on.
    pub(super) fn dropped_event(&mut self, failure: Option<Failure>) {
        self.event(false, failure);
        self.dropped += 1;
    }
}

/// The same since the start.
#[derive(Debug, Default)]
pub(super) struct Counters {
    events: AtomicU64,
    changed: AtomicU64,
    dropped: AtomicU64,
    failed: [AtomicU64; Failure::ALL.len()],
}

impl Counters {
    /// Adds what was done to a batch.
    pub(super) fn add(&self, counts: &Counts) {
        let add = |counter: &AtomicU64, count: u64| {
            counter.fetch_add(count, Ordering::Relaxed);
        };
        add(&self.events, counts.events);
        add(&self.changed, counts.changed);
        add(&self.dropped, counts.dropped);
        self.failed.iter().zip(counts.failed).for_each(|(counter, count)| add(counter, count));
    }

    /// Returns what was counted.
    pub(super) fn counts(&self) -> Counts {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut failed = [0; Failure::ALL.len()];
        failed.iter_mut().zip(&self.failed).for_each(|(count, counter)| *count = of(counter));
        Counts { events: of(&self.events), changed: of(&self.changed), dropped: of(&self.dropped), failed }
    }
}

impl Counts {
    /// Returns the failures that happened, by their labels.
    pub(crate) fn failures(&self) -> BTreeMap<String, u64> {
        let all = Failure::ALL.iter().map(|failure| (failure.as_str().to_owned(), self.failed[*failure as usize]));
        all.filter(|(_, count)| *count > 0).collect()
    }
}
