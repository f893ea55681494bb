//! Room in a log: what a batch sets aside, why it may not, and what the log asks of its deliveries at quota.
//!
//! At its quota, or at the free-space floor of its volume, a log refuses a batch and **asks**: every delivery saves what it
//! has resolved, and one that drops its oldest ([`WhenBehind::DropOldest`]) gives up what lies below
//! [`Log::give_up_below`]. That sequence is computed anew each time it is looked at, from the largest batch that found no
//! room: the ends of as many of the oldest sealed segments as must go, none of them still held by a delivery that blocks,
//! and nothing at all where all of them together would not make the room. What a delivery holds for a backfill alone
//! ([`Log::set_spare`]) stops nobody: it is asked for in the same way. So nothing is given up ahead of need (no
//! high-water mark), and what is given up is right to a segment. The price is that a batch waits for one durable save and
//! one removed segment: [`Refused::room_soon`] says when that is worth it.
//!
//! Limits: a batch waits at most [`ROOM_WAIT_MAX`]; deliveries are asked at most once per [`ROOM_ASK_PERIOD`], and whenever
//! the committer has freed or sealed something.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::futures::Notified;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Log, Refused, Reservation, Shared};
use crate::intake::RefusalReason;
use crate::log::journal::DeliveryKey;
use crate::settings::WhenBehind;

/// How long a batch waits for room that a delivery can make: longer than a sync of a slow disk and the removal of a
/// segment, shorter than a client's patience.
pub(crate) const ROOM_WAIT_MAX: Duration = Duration::from_secs(2);

/// How often the deliveries of a full log are asked to make room.
pub(crate) const ROOM_ASK_PERIOD: Duration = Duration::from_millis(100);

/// What is known of the room in a log beyond its bytes.
#[derive(Debug, Default)]
pub(super) struct Room {
    /// Deliveries that give up their oldest rather than stop intake.
    yielding: BTreeSet<DeliveryKey>,
    /// How far each delivery has come, saved or not.
    reached: BTreeMap<DeliveryKey, u64>,
    /// By route: which delivery holds everything below a sequence for a backfill alone, so that it stops nobody.
    spare: BTreeMap<Arc<str>, (Arc<str>, u64)>,
    /// The largest batch that found no room, and when it was refused last.
    pressing: Option<(u64, Instant)>,
    asked_at: Option<Instant>,
    /// Set when what must go stands in the segment being written.
    seal: bool,
    /// Whether segments went since the volume last said that it is full.
    freed_in_trouble: bool,
}

impl Room {
    /// Forgets a delivery that has come to its end.
    pub(super) fn forget(&mut self, key: &DeliveryKey) {
        self.yielding.remove(key);
        self.reached.remove(key);
    }

    /// Notes that there may be room now, or more to ask for.
    pub(super) fn changed(&mut self) {
        self.asked_at = None;
    }

    /// Returns whether a batch found no room lately.
    pub(super) fn is_pressed(&self) -> bool {
        self.pressing.is_some()
    }

    /// Notes that segments went.
    pub(super) fn freed(&mut self) {
        self.freed_in_trouble = true;
    }

    /// Notes that a write failed.
    pub(super) fn write_failed(&mut self) {
        self.freed_in_trouble = false;
    }
}

/// What must be given up.
struct Demand {
    /// Everything below, by the deliveries that yield.
    below: u64,
    /// Whether the segment being written must be sealed first.
    seal: bool,
}

impl Log {
    /// Sets bytes aside for one batch, or says why not; nothing is kept then.
    pub fn reserve(&self, bytes: u64) -> Result<Reservation, Refused> {
        let mut shared = self.shared();
        let wanted = shared.reserved + bytes;
        let Some(reason) = self.refusal(&shared, wanted) else {
            self.note_refusal(&mut shared, None);
            shared.reserved = wanted;
            if shared.room.pressing.is_some_and(|(pressing, _)| pressing <= bytes) {
                shared.room.pressing = None;
            }
            drop(shared);
            return Ok(Reservation { log: self.clone(), bytes });
        };
        let room_soon = self.press(&mut shared, reason, bytes);
        if !room_soon {
            self.note_refusal(&mut shared, Some(reason));
        }
        self.want_free(&mut shared);
        Err(Refused { reason, maybe_kept: false, room_soon })
    }

    fn refusal(&self, shared: &Shared, wanted: u64) -> Option<RefusalReason> {
        let options = &self.inner.options;
        if shared.closed {
            Some(RefusalReason::Stopping)
        } else if shared.trouble.is_some() {
            shared.trouble
        } else if shared.free_bytes.saturating_sub(wanted + shared.memory.disk_bytes) < options.free_bytes_min {
            Some(RefusalReason::NoSpace)
        } else {
            (shared.used_bytes() + wanted > shared.settings.bytes_max).then_some(RefusalReason::Full)
        }
    }

    fn note_refusal(&self, shared: &mut Shared, refusal: Option<RefusalReason>) {
        let before = std::mem::replace(&mut shared.refusing, refusal);
        let dir = self.inner.options.dir.display();
        match (before, refusal) {
            (before, Some(reason)) if before != refusal => {
                tracing::warn!(%dir, reason = reason.as_str(), bytes = shared.used_bytes(), "log refuses new events");
            }
            (Some(before), None) => tracing::info!(%dir, before = before.as_str(), "log takes events again"),
            _ => {}
        }
    }

    pub(super) fn want_free(&self, shared: &mut Shared) {
        shared.free_wanted = true;
        shared.seal_wanted = true;
        self.inner.work.notify_one();
    }

    /// Asks the deliveries to make room; returns whether they can.
    fn press(&self, shared: &mut Shared, reason: RefusalReason, bytes: u64) -> bool {
        if !matches!(reason, RefusalReason::Full | RefusalReason::NoSpace) {
            return false;
        }
        if bytes > shared.settings.bytes_max {
            return false;
        }
        let now = Instant::now();
        let largest = pressing(shared, now).max(bytes);
        shared.room.pressing = Some((largest, now));
        if shared.room.asked_at.is_none_or(|at| at + ROOM_ASK_PERIOD <= now) {
            shared.room.asked_at = Some(now);
            self.inner.asks.send_modify(|round| *round += 1);
        }
        if shared.room.yielding.is_empty() && shared.room.spare.is_empty() {
            return false;
        }
        let demand = self.demand(shared);
        shared.room.seal |= demand.as_ref().is_some_and(|demand| demand.seal);
        demand.is_some()
    }

    /// How many bytes must go before what presses fits.
    pub(super) fn lacking(&self, shared: &Shared) -> u64 {
        let options = &self.inner.options;
        let wanted = shared.reserved + pressing(shared, Instant::now());
        if wanted == shared.reserved {
            return 0;
        }
        let quota = (shared.used_bytes() + wanted).saturating_sub(shared.settings.bytes_max);
        let floor = (options.free_bytes_min + wanted + shared.memory.disk_bytes).saturating_sub(shared.free_bytes);
        // A volume that said it is full does not say by how much: one segment at a time, then it is tried.
        let refused = shared.trouble == Some(RefusalReason::NoSpace) && !shared.room.freed_in_trouble;
        quota.max(floor).max(u64::from(refused))
    }

    /// Which of the oldest segments must go, where no delivery that blocks holds them; `None` when that is not enough.
    fn demand(&self, shared: &Shared) -> Option<Demand> {
        let mut lacking = self.lacking(shared);
        let block = blocking_low(shared);
        let mut demand = Demand { below: 0, seal: false };
        for info in shared.segments.values().filter(|info| info.data_end > info.data_start) {
            if lacking == 0 || info.summary.end_seq > block {
                break;
            }
            lacking = lacking.saturating_sub(info.bytes);
            match info.sealed_ms {
                Some(_) => demand.below = info.summary.end_seq,
                None => demand.seal = true,
            }
        }
        (lacking == 0).then_some(demand)
    }

    /// Returns the sequence below which a delivery that drops its oldest must give up what it holds, now; 0 for nothing.
    pub fn give_up_below(&self) -> u64 {
        let shared = self.shared();
        self.demand(&shared).map_or(0, |demand| demand.below)
    }

    /// Says what a delivery does at quota. One that never said blocks.
    pub fn set_when_behind(&self, key: &DeliveryKey, when_behind: WhenBehind) {
        let mut shared = self.shared();
        match when_behind {
            WhenBehind::Block => drop(shared.room.yielding.remove(key)),
            WhenBehind::DropOldest => drop(shared.room.yielding.insert(key.clone())),
        }
    }

    /// Says which delivery of a route holds everything below a sequence for a backfill alone: others have it.
    pub(crate) fn set_spare(&self, route: &Arc<str>, spare: Option<(Arc<str>, u64)>) {
        let mut shared = self.shared();
        match spare {
            Some(spare) => drop(shared.room.spare.insert(route.clone(), spare)),
            None => drop(shared.room.spare.remove(route)),
        }
    }

    /// Notes how far a delivery has come, before that is saved.
    pub fn reached(&self, key: &DeliveryKey, cursor: u64) {
        let mut shared = self.shared();
        match shared.room.reached.get_mut(key) {
            Some(reached) => *reached = cursor,
            None => drop(shared.room.reached.insert(key.clone(), cursor)),
        }
    }

    /// Returns what changes whenever the deliveries are asked to make room.
    pub fn asks(&self) -> watch::Receiver<u64> {
        self.inner.asks.subscribe()
    }

    /// Returns what resolves when there may be room: segments went, one was sealed, or a trouble is over, since this call.
    pub(crate) fn freed(&self) -> Notified<'_> {
        self.inner.room.notified()
    }

    /// Resolves when bytes were freed or a trouble is over, or after a second.
    pub async fn room(&self) {
        drop(tokio::time::timeout(Duration::from_secs(1), self.freed()).await);
    }
}

impl Shared {
    /// Returns where a delivery stands, saved or not; what it holds for a backfill alone does not count.
    pub(super) fn reached(&self, key: &DeliveryKey) -> u64 {
        let floor = self.floors.get(key).copied().unwrap_or(0);
        let spare =
            self.room.spare.get(&key.route).filter(|(uid, _)| *uid == key.backend_uid).map_or(0, |(_, seq)| *seq);
        self.room.reached.get(key).copied().unwrap_or(0).max(floor).max(spare)
    }
}

/// The largest batch that waits for room, as far as is known.
fn pressing(shared: &Shared, now: Instant) -> u64 {
    shared.room.pressing.filter(|(_, at)| *at + ROOM_WAIT_MAX > now).map_or(0, |(bytes, _)| bytes)
}

/// Returns where the slowest delivery stands that blocks.
fn blocking_low(shared: &Shared) -> u64 {
    let blocking = shared.floors.keys().filter(|key| !shared.room.yielding.contains(*key));
    blocking.map(|key| shared.reached(key)).min().unwrap_or(u64::MAX)
}

/// Returns whether the segment being written shall be sealed: all of it was delivered, or must be given up.
pub(super) fn seal_frees(shared: &mut Shared) -> bool {
    let yields = std::mem::take(&mut shared.room.seal);
    let low = if yields { blocking_low(shared) } else { shared.floors.values().copied().min().unwrap_or(0) };
    shared
        .segments
        .values()
        .next_back()
        .is_some_and(|info| info.summary.end_seq <= low && info.data_end > info.data_start)
}
