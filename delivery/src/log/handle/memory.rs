//! What only memory holds, as readers and reservations see it, and how far every delivery has passed for good.
//!
//! # Guarantees
//! A frame that no file holds stays in the memory tail, whoever reads. It counts against the quota and the free-space floor
//! with the bytes it would take, so that it can be spilled at any time.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::{Log, Shared};
use crate::log::core::{LogCore, Spilled};
use crate::log::frame::Frame;
use crate::log::journal::{DeliveryKey, Progress};
use crate::log::recovery::Recovered;

/// What only memory holds.
#[derive(Debug, Default)]
pub(super) struct InMemory {
    /// The first sequence that no file holds.
    pub(super) start: u64,
    bytes: usize,
    /// What it would take on disk.
    pub(super) disk_bytes: u64,
    spilled: Spilled,
    /// Whether positions moved that no file knows of.
    positions_moved: bool,
    /// Below, a delivery never reads again, whatever fails.
    passed: BTreeMap<DeliveryKey, u64>,
}

impl InMemory {
    /// Returns what a writer holds.
    pub(super) fn of(core: &LogCore) -> Self {
        let mut memory = Self::default();
        memory.update(core);
        memory
    }

    /// Takes over what the writer holds now.
    pub(super) fn update(&mut self, core: &LogCore) {
        self.start = core.memory_start();
        self.bytes = core.memory_bytes();
        self.disk_bytes = core.memory_disk_bytes();
        self.spilled = core.spilled();
        self.positions_moved = core.positions_moved();
    }

    /// Returns whether there is something to look after.
    pub(super) fn is_busy(&self) -> bool {
        self.disk_bytes > 0 || self.positions_moved
    }

    /// Notes that a delivery may read from `seq` on again.
    pub(super) fn goes_back(&mut self, key: &DeliveryKey, seq: u64) {
        if let Some(passed) = self.passed.get_mut(key) {
            *passed = (*passed).min(seq);
        }
    }

    /// Forgets a delivery that has come to its end.
    pub(super) fn forget(&mut self, key: &DeliveryKey) {
        self.passed.remove(key);
    }

    /// Returns (bytes held, frames spilled, their payload bytes).
    pub(super) fn figures(&self) -> (u64, u64, u64) {
        (self.bytes as u64, self.spilled.frames, self.spilled.bytes)
    }
}

impl Shared {
    /// Returns the bytes that count against the quota.
    pub(super) fn used_bytes(&self) -> u64 {
        self.disk_bytes + self.memory.disk_bytes
    }

    /// Returns whether next to nothing of the quota is left.
    pub(super) fn is_full(&self) -> bool {
        self.used_bytes() + self.reserved >= self.settings.bytes_max / 100 * 99
    }

    /// Returns the sequence below which no delivery reads again. Where data is kept for replay nobody is past it.
    pub(super) fn passed_low(&self) -> u64 {
        if !self.settings.retain.is_zero() {
            return 0;
        }
        let passed = |(key, floor): (&DeliveryKey, &u64)| self.memory.passed.get(key).copied().unwrap_or(0).max(*floor);
        self.floors.iter().map(passed).min().unwrap_or(0)
    }

    /// Returns the frames with events that no file holds, oldest first.
    pub(super) fn in_memory(&self) -> impl Iterator<Item = &Arc<Frame>> {
        in_memory(&self.tail, self.memory.start)
    }
}

fn in_memory(tail: &VecDeque<Arc<Frame>>, start: u64) -> impl Iterator<Item = &Arc<Frame>> {
    tail.range(tail.partition_point(|frame| frame.first_seq < start)..)
}

impl Log {
    /// Notes that a delivery never reads below `seq` again, whatever fails.
    pub fn passed(&self, key: &DeliveryKey, seq: u64) {
        let mut shared = self.shared();
        match shared.memory.passed.get_mut(key) {
            Some(passed) => *passed = (*passed).max(seq),
            None => drop(shared.memory.passed.insert(key.clone(), seq)),
        }
    }

    /// Returns whether a file holds events: only then does anything wait for cursors that survive power loss.
    pub(crate) fn holds_files(&self) -> bool {
        self.shared().segments.values().any(|info| info.data_end > info.data_start)
    }
}

/// Returns how many events a process took with it that somebody still needed: those that stand below a cursor or in a plan,
/// and in no file. Events that nothing names are not known to anybody.
pub(super) fn lost_events(found: &Recovered, saved: &BTreeMap<DeliveryKey, Progress>) -> u64 {
    if !found.in_memory {
        return 0;
    }
    let named = saved.values().map(Progress::seq_min).max().unwrap_or(0);
    let missing = |progress: &Progress| {
        let end = progress.removed.map_or(named, |removed| named.min(removed.end_seq));
        let from = progress.cursor.max(found.end_seq);
        let had = progress.resolved.iter().map(|(start, to)| (*to).min(end).saturating_sub((*start).max(from)));
        end.saturating_sub(from).saturating_sub(had.sum())
    };
    saved.values().map(missing).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Plan;

    #[test]
    fn what_is_named_and_in_no_file_is_lost_where_somebody_needed_it() {
        let key = |name: &str| DeliveryKey { route: "r".into(), backend_uid: name.into() };
        let at = |cursor| Progress { cursor, ..Progress::default() };
        let found = |end_seq| Recovered { in_memory: true, end_seq, ..Recovered::default() };
        let saved = |all: Vec<Progress>| (0..).zip(all).map(|(id, one)| (key(&format!("{id}")), one)).collect();
        assert_eq!(lost_events(&found(1), &saved(vec![at(50), at(50)])), 0, "all had everything");
        assert_eq!(lost_events(&found(1), &saved(vec![at(50), at(30)])), 20);
        assert_eq!(lost_events(&found(40), &saved(vec![at(50), at(30)])), 10, "files have the rest");
        assert_eq!(lost_events(&found(60), &saved(vec![at(50), at(30)])), 0);
        let plans = vec![Plan { first: 50, end: 55, key: "k".into(), encoding: 0 }];
        let planned = Progress { plans, resolved: vec![(52, 53)], ..at(50) };
        assert_eq!(lost_events(&found(1), &saved(vec![planned])), 4);
        let disk = Recovered { in_memory: false, ..found(1) };
        assert_eq!(lost_events(&disk, &saved(vec![at(50), at(30)])), 0);
    }
}
