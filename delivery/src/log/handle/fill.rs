//! When a log will be full at the present rate: a moving estimate per delivery.
//!
//! A delivery's backlog is what the log holds from its cursor on, in the bytes it takes on disk. It is noted at most every [`SAMPLE_PERIOD`], the
//! last [`SAMPLES_MAX`] times: two minutes. What counts is whether the **lowest** backlog of the newer half lies above that
//! of the older half: a delivery that keeps up comes back to next to nothing between batches, however much is under way,
//! and so has no estimate; one that falls behind has one after eight seconds.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::{Log, Shared};
use crate::log::journal::DeliveryKey;

/// How often a backlog is noted.
const SAMPLE_PERIOD: Duration = Duration::from_secs(2);

/// Most samples kept.
const SAMPLES_MAX: usize = 60;

/// Growth between the halves below which nothing fills.
const GROWTH_BYTES_MIN: u64 = 4 << 10;

/// Longest time that is told; what takes longer does not fill.
const LEFT_MAX: Duration = Duration::from_hours(24 * 365);

/// The latest backlogs of one delivery.
#[derive(Debug, Default)]
pub(super) struct Fill {
    samples: VecDeque<(Instant, u64)>,
}

impl Fill {
    fn due(&self, now: Instant) -> bool {
        self.samples.back().is_none_or(|(at, _)| *at + SAMPLE_PERIOD <= now)
    }

    fn note(&mut self, now: Instant, backlog: u64) {
        let window = SAMPLE_PERIOD * SAMPLES_MAX as u32;
        while self.samples.front().is_some_and(|(at, _)| *at + window < now || self.samples.len() == SAMPLES_MAX) {
            self.samples.pop_front();
        }
        self.samples.push_back((now, backlog));
    }

    /// Returns when `room` more bytes will be used; `None` when nothing fills.
    fn left(&self, room: u64) -> Option<Duration> {
        let half = self.samples.len() / 2;
        if half < 2 {
            return None;
        }
        let lowest = |from, to| self.samples.range(from..to).min_by_key(|(_, backlog)| *backlog);
        let (older, newer) = (lowest(0, half)?, lowest(half, self.samples.len())?);
        let grown = newer.1.checked_sub(older.1).filter(|grown| *grown >= GROWTH_BYTES_MIN)?;
        let seconds = room as f64 / grown as f64 * newer.0.duration_since(older.0).as_secs_f64();
        Duration::try_from_secs_f64(seconds).ok().filter(|left| *left <= LEFT_MAX)
    }
}

/// Notes every delivery's backlog, where that is due.
pub(super) fn note_backlogs(shared: &mut Shared) {
    let now = Instant::now();
    if !shared.fills.values().all(|fill| fill.due(now)) {
        return;
    }
    let keys: Vec<DeliveryKey> = shared.floors.keys().cloned().collect();
    shared.fills.retain(|key, _| keys.contains(key));
    for key in keys {
        let backlog = backlog(shared, shared.reached(&key));
        shared.fills.entry(key).or_default().note(now, backlog);
    }
}

impl Log {
    /// Returns the seconds until the log is full because of one delivery, at the rate of the last two minutes; `None` when it
    /// does not fall behind.
    pub fn seconds_until_full(&self, key: &DeliveryKey) -> Option<u64> {
        let options = &self.inner.options;
        let mut shared = self.shared();
        note_backlogs(&mut shared);
        let backlog = backlog(&shared, shared.reached(key));
        let quota = shared.settings.bytes_max.saturating_sub(backlog);
        let others = shared.used_bytes().saturating_sub(backlog);
        let volume = shared.free_bytes.saturating_sub(options.free_bytes_min).saturating_add(others);
        shared.fills.get(key)?.left(quota.min(volume)).map(|left| left.as_secs())
    }
}

/// Returns the bytes that count against the quota from `seq` on; within a segment in proportion to its events.
fn backlog(shared: &Shared, seq: u64) -> u64 {
    let above = shared.segments.values().rev().take_while(|info| info.summary.end_seq > seq);
    let held = shared.in_memory().filter(|frame| frame.end_seq() > seq).map(|frame| frame.disk_bytes());
    let on_disk = above
        .map(|info| {
            let (events, held) = (info.summary.end_seq - info.base_seq, info.summary.end_seq - seq.max(info.base_seq));
            (info.bytes as f64 * held as f64 / events.max(1) as f64) as u64
        })
        .sum::<u64>();
    on_disk + held.sum::<u64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(backlogs: impl IntoIterator<Item = u64>) -> Fill {
        let (start, mut fill) = (Instant::now(), Fill::default());
        for (index, backlog) in backlogs.into_iter().enumerate() {
            fill.note(start + SAMPLE_PERIOD * index as u32, backlog);
        }
        fill
    }

    #[test]
    fn a_steady_backlog_fills_in_proportion() {
        // 1 MiB every two seconds, 100 MiB left.
        let left = fill((0..20).map(|sample| sample << 20)).left(100 << 20).unwrap();
        assert_eq!(left.as_secs(), 200);
        assert_eq!(fill((0..500).map(|sample| sample << 20)).left(100 << 20).unwrap().as_secs(), 200);
    }

    #[test]
    fn what_comes_back_to_nothing_or_shrinks_does_not_fill() {
        assert_eq!(fill((0..60).map(|sample| (sample % 7) << 20)).left(1 << 30), None);
        assert_eq!(fill((0..60).map(|sample| (60 - sample) << 20)).left(1 << 30), None);
        assert_eq!(fill([0, 1 << 20, 2 << 20]).left(1 << 30), None, "too few to tell");
        assert_eq!(fill((0..60).map(|sample| sample * 10)).left(1 << 30), None, "a trickle");
    }

    #[test]
    fn samples_are_bounded_and_old_ones_forgotten() {
        let mut fill = fill((0..500).map(|sample| sample << 20));
        assert_eq!(fill.samples.len(), SAMPLES_MAX);
        let later = fill.samples.back().unwrap().0 + Duration::from_hours(1);
        assert!(fill.due(later));
        fill.note(later, 600 << 20);
        assert_eq!(fill.left(1 << 30), None);
    }
}
