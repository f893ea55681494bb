//! What a delivery does when its log is full: it saves what it has resolved and, where its reference says `DropOldest`,
//! gives up its oldest events. What it holds for a backfill alone, since another backend of its route has it, goes first and
//! whatever the reference says, counted apart.
//!
//! Guarantees: the cursor behind what was given up and the count of it are one durable save; what is given up is counted
//! once, by scanning the log, and exactly: an answer that comes late for it is told apart ([`DeliveryStatus::late`]) and
//! counts nowhere else. A batch that was planned under a key is given up whole or not at all, so that no key ever names two
//! batches; at most one batch more than asked for goes with it. A backend that commits is brought to a mark first, so that
//! what it has is counted delivered and nothing else is.
//!
//! Must not know: why the log is full, and who else reads it.
//!
//! [`DeliveryStatus::late`]: super::status::DeliveryStatus::late

use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::batches::Work;
use super::delivery::{Delivery, Flights};
use super::status;
use crate::backend::{Fault, FaultKind};
use crate::settings::WhenBehind;

/// The reason under which events are counted that were given up at quota.
pub(super) const QUOTA: &str = "quota";

/// The reason under which events are counted that were held for a backfill alone and given up at quota.
pub(super) const BACKFILL: &str = "backfill";

/// How long an attempt under way at a backend that commits may still take before it is abandoned.
const LANDING_MAX: Duration = Duration::from_millis(200);

/// How often it is told that events are given up.
const TELL_PERIOD: Duration = Duration::from_mins(1);

/// What was given up.
#[derive(Debug, Default)]
pub(super) struct GivenUp {
    /// Events below were given up unless they were resolved: an answer for them counts no more.
    below: u64,
    told: Option<Instant>,
}

impl GivenUp {
    /// Returns whether the event was given up, asked for one that was under way.
    pub(super) fn holds(&self, seq: u64) -> bool {
        seq < self.below
    }

    /// Returns whether any event of a batch was given up.
    pub(super) fn reaches(&self, work: &Work) -> bool {
        work.members.first().is_some_and(|seq| self.holds(*seq))
    }
}

/// Returns when the log asks for room.
///
/// # Cancel safety
/// May be cancelled at any time.
pub(super) async fn asked(asks: &mut watch::Receiver<u64>) {
    if asks.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

impl Delivery {
    /// Does what the log asks. Without `flights` the backend has no place: nothing is under way.
    pub(super) async fn make_room(&mut self, flights: Option<&mut Flights>) {
        if flights.as_ref().is_none_or(|flights| flights.is_empty()) {
            self.take_over().await;
        }
        let below = self.ground.log.give_up_below();
        let spare = self.spare_below(below);
        let mut flights = flights;
        let mut gave_up = false;
        if spare > self.progress.cursor {
            self.give_up((spare, BACKFILL), flights.as_deref_mut()).await;
            gave_up = true;
        }
        // What stands by gives up nothing: the one that sends does, and this one takes that over.
        if self.target.spec.when_behind == WhenBehind::DropOldest && below > self.progress.cursor && self.may_send() {
            self.give_up((self.behind_plans(below), QUOTA), flights.as_deref_mut()).await;
            gave_up = true;
        }
        if gave_up {
            return;
        }
        let unsaved = self.dirty_since.is_some() || self.unsynced;
        // One that lost its place saves nothing by itself until it has it again.
        if unsaved && flights.is_none_or(|flights| self.reopen && flights.is_empty()) {
            return self.store(true).await;
        }
        self.pressed = unsaved;
    }

    async fn give_up(&mut self, (to, reason): (u64, &str), flights: Option<&mut Flights>) {
        if let Some(flights) = flights.filter(|_| self.target.traits.commits) {
            self.fix_mark(flights).await;
        }
        let (log, route, progress) = (self.ground.log.clone(), self.key.route.clone(), self.progress.clone());
        let scan = move || status::unresolved(&log, &log.census(), &route, &progress, to);
        let Ok(Ok((events, bytes))) = tokio::task::spawn_blocking(scan).await else {
            tracing::warn!(route = %self.key.route, "what a full log holds cannot be read now; nothing is given up");
            return;
        };
        self.progress.drop_events(reason, events, bytes);
        self.pass(to);
        self.tell(events, bytes, reason);
        self.store(true).await;
    }

    /// Moves behind `to` with everything that lies before it.
    fn pass(&mut self, to: u64) {
        self.progress.resolve(self.progress.cursor, to);
        let cursor = self.progress.cursor;
        self.progress.plans.retain(|plan| plan.end > cursor);
        self.progress.left.retain(|left| left.end > cursor);
        self.progress.left.iter_mut().for_each(|left| left.first = left.first.max(cursor));
        for (_, mut work) in std::mem::take(&mut self.retry).into_iter().filter(|(_, work)| work.end > cursor) {
            if work.first < cursor {
                work.first = cursor;
                work.members.clear();
            }
            self.retry.insert(work.first, work);
        }
        if self.former.first() < cursor {
            self.former.rewind(cursor);
        }
        if !self.target.traits.commits {
            self.given_up.below = to;
            self.ground.status.show(&self.progress);
        }
        self.dirty_since.get_or_insert_with(Instant::now);
        self.ground.log.reached(&self.key, cursor);
    }

    /// Returns `below`, or the end of the planned batch that reaches over it.
    fn behind_plans(&self, below: u64) -> u64 {
        let mut to = below;
        while let Some(plan) = self.progress.plans.iter().find(|plan| plan.first < to && to < plan.end) {
            to = plan.end;
        }
        to
    }

    /// Brings a backend that commits to where its mark says what it has.
    async fn fix_mark(&mut self, flights: &mut Flights) {
        let patience = Instant::now() + LANDING_MAX;
        while let Ok(Some(landed)) = timeout_at(patience, flights.next()).await {
            self.settle(landed, flights.len()).await;
        }
        if !flights.is_empty() {
            // Dropped with it is the attempt: the backend goes back to its mark, so nothing of it counts.
            (0..flights.len()).for_each(|_| self.target.breaker.landed());
            flights.clear();
            self.rewind(&Fault::new(FaultKind::Timeout, "abandoned an attempt, for the log is full"));
        } else if !self.reopen {
            match self.mark(true).await {
                Ok(mark) => self.progress.mark = mark,
                Err(fault) => self.rewind(&fault),
            }
        }
    }

    fn tell(&mut self, events: u64, bytes: u64, reason: &str) {
        if events == 0 || self.given_up.told.is_some_and(|at| at.elapsed() < TELL_PERIOD) {
            return;
        }
        self.given_up.told = Some(Instant::now());
        tracing::warn!(
            route = %self.key.route, backend = %self.target.spec.backend_name, events, bytes, reason,
            total = self.progress.dropped.get(reason), "too far behind for a full log; its oldest events are dropped"
        );
    }
}
