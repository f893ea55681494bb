//! When the oldest event was received that a delivery still holds.
//!
//! # Guarantees
//! The answer is the receipt of that event's frame, or one at most [`NEAR_NANOS`] before it. Only where the sparse index
//! leaves more than that open are frames read, from the entry before the event on.

use super::Log;
use super::reader::{Given, ReadError, read_disk};
use crate::clock::UnixNanos;
use crate::log::Frame;
use crate::log::journal::Progress;

/// How much older than it is an answer may be, in nanoseconds: status is asked for many times a second, and reading
/// frames for a few milliseconds more of truth costs more than delivering them.
const NEAR_NANOS: i64 = 1_000_000_000;

/// What lies between two entries of the index, where the route has events.
struct Stretch {
    seq: u64,
    end: u64,
    /// The route's bit in the masks of its frames.
    bit: usize,
    received: UnixNanos,
    /// Receipt of the first frame behind it; `None` at the end of what is indexed.
    next_received: Option<UnixNanos>,
}

impl Log {
    /// Returns when the first event of a route was received that `progress` has not resolved; `None` without one. Blocks.
    pub fn oldest_held(&self, route: &str, progress: &Progress) -> Result<Option<UnixNanos>, ReadError> {
        let (stretches, newest) = self.stretches_above(route, progress.cursor);
        let in_memory = self.oldest_in_memory(route, progress);
        if let Some(near) = near(&stretches, progress.cursor, (newest, in_memory)) {
            return Ok(Some(near));
        }
        for stretch in &stretches {
            let found = self.oldest_of(stretch, progress)?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(in_memory)
    }

    /// The receipt of the first event that no file holds.
    fn oldest_in_memory(&self, route: &str, progress: &Progress) -> Option<UnixNanos> {
        let shared = self.shared();
        let mut above = shared.in_memory().filter(|frame| frame.end_seq() > progress.cursor);
        above.find(|frame| holds(frame, frame.bit(route), progress)).map(|frame| frame.received)
    }

    /// The stretches that end above `cursor`, and the newest receipt that the memory tail knows.
    fn stretches_above(&self, route: &str, cursor: u64) -> (Vec<Stretch>, Option<UnixNanos>) {
        let shared = self.shared();
        let infos: Vec<_> = shared.segments.values().filter(|info| info.summary.end_seq > cursor).cloned().collect();
        let newest = shared.tail.back().map(|frame| frame.received);
        drop(shared);
        let mut found: Vec<Stretch> = Vec::new();
        for info in infos {
            let index = &info.summary.index;
            if let Some((last, first)) = found.last_mut().zip(index.first()) {
                last.next_received.get_or_insert(first.received);
            }
            let Some(bit) = info.route(route) else { continue };
            let events = |tallies: &[crate::log::state::Tally]| tallies.get(bit).map_or(0, |tally| tally.events);
            for (place, entry) in index.iter().enumerate() {
                let next = index.get(place + 1);
                let end = next.map_or(info.summary.end_seq, |next| next.seq);
                let after = next.map_or_else(|| events(&info.summary.tallies), |next| events(&next.before));
                if end > cursor && after > events(&entry.before) {
                    let next_received = next.map(|next| next.received);
                    found.push(Stretch { seq: entry.seq, end, bit, received: entry.received, next_received });
                }
            }
        }
        (found, newest)
    }

    fn oldest_of(&self, stretch: &Stretch, progress: &Progress) -> Result<Option<UnixNanos>, ReadError> {
        let (mut at, mut open) = (stretch.seq, None);
        while at < stretch.end {
            let read = read_disk(self, at, stretch.end, open.take()).map_err(ReadError::Io)?;
            let Given::Frames(frames) = read.given else { break };
            open = read.open;
            if let Some(frame) = frames.iter().find(|frame| holds(frame, 1 << stretch.bit, progress)) {
                return Ok(Some(frame.received));
            }
            at = frames.last().map_or(stretch.end, |last| last.end_seq());
        }
        Ok(None)
    }
}

/// Returns whether a frame has an event with this bit in its mask that is not resolved.
fn holds(frame: &Frame, bit: u64, progress: &Progress) -> bool {
    let mut seqs = frame.first_seq..frame.end_seq();
    seqs.any(|seq| frame.masks.get((seq - frame.first_seq) as usize) & bit != 0 && !progress.is_resolved(seq))
}

/// The receipt of the first stretch, where the event cannot be much younger: it is in that stretch, or, where the cursor
/// has passed all of the route's events there, in the first one above the cursor, or in memory where there is none.
fn near(
    stretches: &[Stretch],
    cursor: u64,
    (newest, in_memory): (Option<UnixNanos>, Option<UnixNanos>),
) -> Option<UnixNanos> {
    let first = stretches.first()?;
    let above = stretches.iter().find(|stretch| stretch.seq >= cursor);
    let last = above.or(stretches.last())?;
    let latest = last.next_received.or(newest)?.max(in_memory.filter(|_| above.is_none()).unwrap_or(UnixNanos::MIN));
    (0..=NEAR_NANOS).contains(&(latest - first.received)).then_some(first.received)
}
