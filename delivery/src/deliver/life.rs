//! The life of a delivery over the orders it gets: it delivers, rests, drains, and goes over to another backend.
//!
//! # Guarantees
//! - Between two orders nothing is under way: what was sent has landed or timed out, progress is saved, and only then the
//!   next backend is opened at the same mark. Cursor, plans and figures go over.
//! - A backend that two orders share is neither closed nor made anew, so that its connections stay.
//! - A backend that was not well is not taken to be well because an order came: the next attempt decides, and its group goes
//!   on without it until then.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::deliveries::{Order, Task};
use super::delivery::{Delivery, Flights, Ground};
use super::group::{Done, Group};
use super::{DeliverySpec, gone};
use crate::ledger::{BreakerState, DeliveryState};
use crate::log::{DeliveryKey, Log, Progress};

/// How long what is under way may take to land where an order is for at once: what a backend that is well needs.
const AT_ONCE_MAX: Duration = Duration::from_millis(250);

/// What is left when a delivery does not go on as it was.
pub(super) struct Parted {
    /// What it stands on.
    pub(super) ground: Ground,
    /// What it has resolved.
    pub(super) progress: Progress,
    /// Whether it has come to its end and is forgotten.
    pub(super) ended: bool,
}

/// Which kind of backend a delivery had last.
#[derive(Debug, Default)]
pub(super) struct BackendKind(Option<Arc<str>>);

impl BackendKind {
    /// Notes what comes. Where another kind of backend stood means nothing to it; that one was gone for a while says nothing.
    pub(super) fn turn(&mut self, spec: &DeliverySpec, progress: &mut Progress) {
        if &*spec.backend_type == gone::TYPE {
            return;
        }
        let before = self.0.replace(spec.backend_type.clone());
        if before.is_some_and(|before| before != spec.backend_type) {
            progress.mark = None;
        }
    }
}

/// Obeys the orders of `ground` until the process stops, or the delivery has come to its end.
pub(super) async fn run(mut ground: Ground, key: DeliveryKey, mut progress: Progress, stop: CancellationToken) {
    let seed = ground.log.incarnation() ^ xxhash_rust::xxh3::xxh3_64(key.route.as_bytes());
    let mut kind = BackendKind::default();
    loop {
        let order = ground.orders.borrow_and_update().clone();
        kind.turn(&order.spec, &mut progress);
        prepare(&mut ground, &key, &mut progress, &order).await;
        let parted = match order.task {
            Task::Rest => rest(ground, progress, &stop).await,
            Task::Deliver | Task::Drain { .. } => {
                Delivery::new(order.spec, ground, progress, seed).run(stop.clone()).await
            }
        };
        // Orders end with the engine.
        let goes_on = parted.ground.orders.has_changed().unwrap_or(false);
        if let Some(group) = parted.ground.group.as_ref().filter(|_| parted.ended) {
            leave(&parted.ground.log, &key, group, &parted.progress);
        }
        if parted.ended || stop.is_cancelled() || !goes_on {
            return;
        }
        (ground, progress) = (parted.ground, parted.progress);
    }
}

/// Takes its seat in the group that the order names, and leaves any other.
async fn sit(ground: &mut Ground, key: &DeliveryKey, progress: &mut Progress, order: &Order) {
    let released = matches!(order.task, Task::Drain { released: true, .. });
    ground.released = order.seat.as_ref().filter(|_| released).map(|seat| seat.group.clone());
    let seat = order.seat.as_ref().filter(|_| !released && !matches!(order.task, Task::Rest));
    ground.earlier = None;
    // Stored with what it saves next: a process that finds it gone knows whose business its events are.
    progress.grouped = order.seat.is_some();
    let is_other = |group: &Arc<Group>| !seat.is_some_and(|seat| Arc::ptr_eq(&seat.group, group));
    if let Some(group) = ground.group.take_if(|group| is_other(group)) {
        leave(&ground.log, key, &group, progress);
    }
    if let Some(seat) = seat {
        let begun = begin_earlier(&ground.log, key, progress, seat.from).await;
        ground.earlier = begun.is_err().then_some(seat.from);
        if let Err(why) = begun {
            tracing::warn!(route = %key.route, why, "what a route held before a backend was added to it stays with others; trying again");
        }
        seat.group.seat(&key.backend_uid, &order.spec.backend_name, Done::of(progress));
        ground.group = Some(seat.group.clone());
    }
}

fn leave(log: &Log, key: &DeliveryKey, group: &Arc<Group>, progress: &Progress) {
    group.unseat(&key.backend_uid, Done::of(progress));
    log.set_spare(&key.route, group.spare());
}

/// What its group had to deliver before this delivery began is its business from now on, for good: others may leave it to
/// this one at once.
pub(super) async fn begin_earlier(
    log: &Log,
    key: &DeliveryKey,
    progress: &mut Progress,
    from: u64,
) -> Result<(), String> {
    let Some(began) = progress.began.filter(|began| *began > from) else { return Ok(()) };
    // Nothing of it may go any more.
    log.set_floor(key, from);
    let (reader, route) = (log.clone(), key.route.clone());
    let count = move || reader.count_events(&reader.census(), &route, from, began);
    let Ok(Ok((events, _))) = tokio::task::spawn_blocking(count).await else {
        return Err("it cannot be read now".into());
    };
    let mut earlier = Progress { cursor: from, began: Some(from), ..progress.clone() };
    earlier.resolve(began, progress.cursor);
    earlier.routed_before -= events as i64;
    log.save(key, &earlier, true).await.map_err(|error| error.to_string())?;
    *progress = earlier;
    Ok(())
}

async fn prepare(ground: &mut Ground, key: &DeliveryKey, progress: &mut Progress, order: &Order) {
    sit(ground, key, progress, order).await;
    (ground.drain_until_ms, ground.revoked) = (None, false);
    ground.status.bind(&order.spec);
    // What rested says nothing of its backend, and what goes on at once has another one.
    ground.was_well |= order.at_once || matches!(order.task, Task::Rest);
    let breaker = if ground.was_well { BreakerState::Closed } else { BreakerState::HalfOpen };
    match &order.task {
        Task::Deliver => {
            progress.removed = None;
            ground.status.saved(progress.cursor);
            ground.status.enter(DeliveryState::Healthy, breaker);
        }
        Task::Rest => {
            progress.removed = None;
            // A drain of the process does not wait for what rests, or for a backend that may be gone.
            ground.status.saved(u64::MAX);
            ground.status.enter(DeliveryState::Suspended, breaker);
        }
        Task::Drain { removed, within, revoked, .. } => {
            // Orders between this and the last may have been passed over: the latest says all.
            progress.removed = Some(*removed);
            ground.drain_until_ms = Some(removed.since_ms + within.as_millis() as u64);
            ground.revoked = *revoked;
            ground.group.iter().filter(|_| *revoked).for_each(|group| group.bar(&key.backend_uid));
            ground.status.saved(u64::MAX);
            ground.status.enter(DeliveryState::Draining, breaker);
            if let Err(error) = ground.log.save(key, progress, true).await {
                tracing::warn!(%error, "could not note when a reference was removed; its time begins anew at the next start");
            }
            tracing::info!(
                pipeline = %ground.names.pipeline, route = %key.route, backend = %order.spec.backend_uid,
                released = ground.released.is_some(), revoked = ground.revoked,
                "reference removed; delivering what is left, or leaving it to the others of its route, or giving it up where it was revoked"
            );
        }
    }
    ground.status.show(progress);
}

/// Resolves when there is another order.
///
/// # Cancel safety
/// May be cancelled at any time; the order stays.
pub(super) async fn reordered(orders: &mut watch::Receiver<Order>) {
    match orders.changed().await {
        Ok(()) => orders.mark_changed(),
        // The engine is gone; its stop is what counts.
        Err(_) => std::future::pending().await,
    }
}

async fn rest(mut ground: Ground, progress: Progress, stop: &CancellationToken) -> Parted {
    tokio::select! {
        () = stop.cancelled() => {}
        () = reordered(&mut ground.orders) => {}
    }
    Parted { ground, progress, ended: false }
}

impl Delivery {
    /// Waits for what is under way, and not for long where the order that came is for at once: then it counts as not answered.
    pub(super) async fn land(&mut self, flights: &mut Flights) {
        // Such an order may come while this one is being carried out. It is heard by a receiver of its own, so that it stays new
        // for the loop that obeys it.
        let mut heard = self.ground.orders.clone();
        let mut until = None;
        loop {
            let orders = &self.ground.orders;
            if orders.has_changed().unwrap_or(false) && orders.borrow().at_once {
                until.get_or_insert_with(|| Instant::now() + AT_ONCE_MAX);
            }
            let landed = tokio::select! {
                biased;
                landed = flights.next() => landed,
                () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => break,
                // No order comes any more once the engine is gone.
                Ok(()) = heard.changed() => continue,
            };
            let Some(landed) = landed else { break };
            self.settle(landed, flights.len()).await;
            self.tell_group(flights.len());
        }
        let unknown = flights.len() as u64;
        flights.clear();
        if until.is_some() {
            // What comes next is another destination.
            self.ground.unanswered.answered(&self.progress);
            self.ground.status.unknown(unknown + self.ground.unanswered.take_all());
        }
    }
}
