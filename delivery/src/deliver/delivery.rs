//! The loop of one delivery. See [`super`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::batches::{Bounds, Formed, Former, LeftFor, Names, Work, rebuild};
use super::breaker::Blame;
use super::budget::{Budget, Share};
use super::dead_letters::DeadLetters;
use super::deliveries::{Deliveries, Order};
use super::failover::{Following, news};
use super::give_up::{GivenUp, asked};
use super::group::Group;
use super::life::{Parted, reordered};
use super::pace::Ticket;
use super::status::DeliveryStatus;
use super::target::Target;
use super::unanswered::Unanswered;
use super::{DeliverySpec, RESOLVED_RANGES_MAX, SAVE_PERIOD};
use crate::backend::{Fault, FaultKind, Items, OutBatch, Traits};
use crate::log::{DeliveryKey, Log, Plan, Progress};
use crate::settings::{Durability, WhenBehind};

/// What a delivery stands on.
#[derive(Debug)]
pub(super) struct Ground {
    pub(super) log: Log,
    pub(super) names: Names,
    pub(super) budget: Budget,
    pub(super) dead_letters: Arc<DeadLetters>,
    pub(super) status: Arc<DeliveryStatus>,
    /// Turns true when what is held shall go out without waiting to fill up.
    pub(super) hurry: watch::Receiver<bool>,
    /// What it is told to do; a change ends this run of it.
    pub(super) orders: watch::Receiver<Order>,
    pub(super) deliveries: Arc<Deliveries>,
    /// Running time of the log at which a removed reference gives up what it still holds.
    pub(super) drain_until_ms: Option<u64>,
    /// Whether it may not use its backend any more.
    pub(super) revoked: bool,
    /// Set where the delivery is a job: it ends where its range ends.
    pub(super) job: Option<JobGround>,
    /// Set where only the first healthy delivery of its route sends.
    pub(super) group: Option<Arc<Group>>,
    /// Its reference was removed and others of this group have what it holds: it sends nothing.
    pub(super) released: Option<Arc<Group>>,
    /// What its group has to deliver from here on is to be its business too, and could not be made that yet.
    pub(super) earlier: Option<u64>,
    /// Whether its backend was well before this order, or nothing is known of it.
    pub(super) was_well: bool,
    /// What was sent and not answered.
    pub(super) unanswered: Unanswered,
}

/// What a job has that a delivery of the configuration has not.
#[derive(Debug)]
pub(super) struct JobGround {
    /// Names its cursor.
    pub(super) key: DeliveryKey,
    /// Whether it reads dead letters.
    pub(super) letters: bool,
}

/// One attempt that came to its end.
pub(super) struct Landed {
    pub(super) work: Work,
    pub(super) batch: OutBatch,
    pub(super) result: Result<Items, Fault>,
    pub(super) ticket: Ticket,
    pub(super) latency: Duration,
    /// Bytes of the budget, given back with it.
    _share: Share,
}

pub(super) type Flights = FuturesUnordered<BoxFuture<'static, Landed>>;

/// One delivery at run time.
#[expect(clippy::struct_excessive_bools, reason = "independent facts; an enum of their products says less")]
pub(super) struct Delivery {
    pub(super) target: Target,
    pub(super) ground: Ground,
    pub(super) key: DeliveryKey,
    pub(super) progress: Progress,
    pub(super) former: Former,
    /// Ranges that were tried, or planned before a restart, by their first sequence.
    pub(super) retry: BTreeMap<u64, Work>,
    pub(super) dirty_since: Option<Instant>,
    /// Bytes of the batches that came back since the last save.
    pub(super) dirty_bytes: usize,
    /// Bytes of them that are saved and not safe from power loss.
    pub(super) unsynced_bytes: usize,
    /// How often damage of the log was met when its ledger was made whole.
    pub(super) damage_counted: u64,
    /// After a log that could not be read: when to make it whole again.
    pub(super) damage_not_before: Option<Instant>,
    pub(super) synced_at: Instant,
    /// Progress was saved, and would not survive power loss yet.
    pub(super) unsynced: bool,
    /// A removed reference that came to its end; nothing is saved any more.
    pub(super) ended: bool,
    /// The backend lost its place and must be opened at the last mark before anything is sent.
    pub(super) reopen: bool,
    /// What was saved last, of a backend that commits what was saved so that it survives power loss: what others may count
    /// on, and where to go back to when a commit fails.
    pub(super) kept: Progress,
    /// A backend that commits took something that it has not committed for good.
    pub(super) uncommitted: bool,
    /// Bytes of events that it has delivered and that are not shown yet.
    pub(super) delivered_bytes: u64,
    /// After a save that failed: when to try again.
    pub(super) save_not_before: Option<Instant>,
    /// Changes when the log is full and wants what is resolved saved now.
    pub(super) asks: watch::Receiver<u64>,
    /// The log waits for the next save.
    pub(super) pressed: bool,
    pub(super) given_up: GivenUp,
    pub(super) following: Option<Following>,
    budget_short: bool,
    /// When the destination took something last.
    pub(super) taken_at: Option<Instant>,
    /// The last attempt was of events that were never tried.
    began_last: bool,
}

/// Most ranges that wait to be tried again while others are begun in between.
const ASIDE_MAX: usize = 8;

/// Most sequences of one range that was begun before and has no plan: a gap may be all of a backlog.
const GAP_EVENTS_MAX: usize = 4096;

/// How long a delivery waits for bytes of the budget before it looks again.
const BUDGET_PERIOD: Duration = Duration::from_millis(50);

/// How often a delivery that drains looks whether its time is over.
pub(super) const DRAIN_LOOK_PERIOD: Duration = Duration::from_secs(1);

impl Delivery {
    pub(super) fn new(spec: DeliverySpec, ground: Ground, progress: Progress, seed: u64) -> Self {
        let mut progress = progress;
        give_other_keys(&mut progress, spec.backend.traits(), &ground);
        let (retry, from) = begun(&progress, &ground);
        let end = progress.removed.map_or(u64::MAX, |removed| removed.end_seq);
        let of_spec = || DeliveryKey { route: spec.route.clone(), backend_uid: spec.backend_uid.clone() };
        let key = ground.job.as_ref().map_or_else(of_spec, |job| job.key.clone());
        ground.log.reached(&key, progress.cursor);
        ground.log.passed(&key, progress.cursor);
        let mut spec = spec;
        if ground.job.is_some() {
            // What somebody asked for again is not given up for want of room.
            spec.when_behind = WhenBehind::Block;
        }
        ground.log.set_when_behind(&key, spec.when_behind);
        Self {
            asks: ground.log.asks(),
            pressed: false,
            given_up: GivenUp::default(),
            following: ground.group.as_deref().or(ground.released.as_deref()).map(Following::new),
            key,
            former: Former::new(ground.names.clone(), &ground.log, from, end),
            kept: progress.clone(),
            uncommitted: false,
            delivered_bytes: 0,
            save_not_before: None,
            progress,
            retry,
            // The first save makes sure that what the journal showed survives power loss; until then nothing is freed.
            dirty_since: Some(Instant::now()),
            dirty_bytes: 0,
            unsynced_bytes: 0,
            damage_counted: 0,
            damage_not_before: None,
            synced_at: Instant::now(),
            unsynced: true,
            ended: false,
            reopen: false,
            budget_short: false,
            taken_at: None,
            began_last: false,
            target: Target::new(spec, seed, ground.was_well),
            ground,
        }
    }

    /// Delivers until told to stop, or otherwise; then lets what is under way land, commits and saves.
    pub(super) async fn run(mut self, stop: CancellationToken) -> Parted {
        if !self.open_backend(&stop).await {
            return self.part().await;
        }
        let mut flights = Flights::new();
        loop {
            self.tell_group(flights.len());
            self.follow(flights.is_empty()).await;
            self.launch(&mut flights).await;
            if self.drained(flights.is_empty()).await {
                break;
            }
            if self.save_due(&flights) {
                self.save(&mut flights, false).await;
                continue;
            }
            let wake = self.wake_at(&flights);
            let may_read = self.may_begin() && !self.holding_back(&flights);
            let follows = self.awaits_others(flights.is_empty());
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = reordered(&mut self.ground.orders) => break,
                () = asked(&mut self.asks) => self.make_room(Some(&mut flights)).await,
                Some(landed) = flights.next(), if !flights.is_empty() => self.settle(landed, flights.len()).await,
                () = news(&mut self.following, follows) => {}
                () = self.former.wait(), if may_read => {}
                changed = self.ground.hurry.changed() => if changed.is_err() { break },
                () = sleep_until(wake.unwrap_or_else(far)), if wake.is_some() => self.woken(),
            }
        }
        self.land(&mut flights).await;
        // A backend without its place has nothing to commit: what it may hold is cut at the next start.
        if !self.ended && !self.reopen {
            self.save(&mut flights, true).await;
        }
        self.part().await
    }

    fn holding_back(&self, flights: &Flights) -> bool {
        self.drain_is_over()
            || !self.target.permits(Instant::now())
            || self.budget_short
            || self.commit_waits(flights)
            || self.earlier_is_due()
            || !self.may_send()
    }

    /// A backend that commits does so between batches, so that its mark is exactly what was reported delivered; and before
    /// more is sent where what it took last tells whether it is well.
    fn commit_waits(&self, flights: &Flights) -> bool {
        let due = self.pressed || self.save_is_ripe();
        self.target.traits.commits && ((!flights.is_empty() && due) || self.is_on_trial())
    }

    fn woken(&mut self) {
        self.budget_short = false;
    }

    /// Whether ranges may be begun that were never tried: not past what an ordered backend must have first, and not while
    /// the record of what is resolved above the cursor is full.
    fn may_begin(&self) -> bool {
        (self.retry.is_empty() || !self.target.traits.ordered) && !self.is_record_full()
    }

    /// Whether no more ranges can be resolved above the cursor.
    pub(super) fn is_record_full(&self) -> bool {
        // Letters that other redrives resolved lie between those of this one.
        self.progress.resolved.len() >= RESOLVED_RANGES_MAX && !self.redrives()
    }

    /// Whether what it delivers are dead letters.
    pub(super) fn redrives(&self) -> bool {
        self.ground.job.as_ref().is_some_and(|job| job.letters)
    }

    /// Returns the range to try again first: the first of all where order counts, else the first whose wait is over.
    fn due(&self, now: Instant) -> Option<u64> {
        let is_due = |work: &Work| work.not_before.is_none_or(|at| at <= now);
        let looked_at = if self.target.traits.ordered { 1 } else { usize::MAX };
        self.retry.iter().take(looked_at).find(|(_, work)| is_due(work)).map(|(first, _)| *first)
    }

    fn wake_at(&self, flights: &Flights) -> Option<Instant> {
        let may_save = !self.reopen && (!self.target.traits.commits || flights.is_empty());
        let not_before = |at: Instant| self.save_not_before.map_or(at, |earliest| at.max(earliest));
        let save = self.dirty_since.filter(|_| may_save).map(|since| not_before(since + SAVE_PERIOD));
        let sync = self.sync_at().filter(|_| self.unsynced && may_save).map(not_before);
        let budget = self.budget_short.then(|| Instant::now() + BUDGET_PERIOD);
        let drain = self.ground.drain_until_ms.map(|_| Instant::now() + DRAIN_LOOK_PERIOD);
        let ripe = self.former.ripe_at(self.target.spec.settings.batch_wait_max);
        let forming = ripe.filter(|_| !self.holding_back(flights));
        let earlier = self.earlier_at().filter(|_| flights.is_empty());
        let follow = self.follow_at(flights.is_empty()).into_iter().chain(earlier).min();
        let now = Instant::now();
        let due = self.retry.values().filter_map(|work| work.not_before).filter(|at| *at > now).min();
        let damage = self.damage_not_before.filter(|at| *at > now);
        [self.target.wake_at(now), due, save, sync, budget, forming, drain, follow, damage].into_iter().flatten().min()
    }

    /// Sends whatever may be sent now.
    async fn launch(&mut self, flights: &mut Flights) {
        while !self.holding_back(flights) && self.has_place().await {
            let aside = if self.sets_aside() { self.next_new().await } else { None };
            self.began_last = aside.is_some();
            let next = match aside {
                Some(next) => Some(next),
                None => match self.next_retry().await {
                    Ok(Some(next)) => Some(next),
                    Ok(None) if self.may_begin() => self.next_new().await,
                    Ok(None) => None,
                    Err(fault) => {
                        self.failed(&fault, Blame::Local);
                        return;
                    }
                },
            };
            let Some((work, batch)) = next else { return };
            let Ok(share) = self.ground.budget.take(batch.payload_bytes()) else {
                self.retry.insert(work.first, work);
                self.budget_short = true;
                return;
            };
            // What is planned is tried: a plan that is found says that its batch may have been taken.
            if !self.enters(flights.is_empty()) || !self.plan(&work).await {
                self.retry.insert(work.first, work);
                return;
            }
            let ticket = self.target.begin(Instant::now(), &batch);
            self.ground.status.breaker(self.target.breaker.state());
            flights.push(self.send(work, batch, (ticket, share)));
            self.ground.status.attempt(flights.len(), self.target.pace.in_flight_max());
        }
    }

    /// Whether something else is tried before the range that is due: the destination has answered that it takes nothing of that
    /// one, which says little of others. Else one batch that is never taken would be all that is ever sent.
    fn sets_aside(&self) -> bool {
        let first = self.due(Instant::now()).and_then(|first| self.retry.get(&first));
        let is_refused = first.is_some_and(|work| work.refused_at.is_some());
        let may = self.may_begin() && !self.target.traits.ordered && self.retry.len() < ASIDE_MAX;
        is_refused && may && !self.began_last
    }

    async fn next_retry(&mut self) -> Result<Option<(Work, OutBatch)>, Fault> {
        while let Some(mut work) = self.due(Instant::now()).and_then(|first| self.retry.remove(&first)) {
            if let Some(batch) = work.take_kept(&self.progress) {
                return Ok(Some((work, batch)));
            }
            match rebuild(&self.ground.names, &self.ground.log, &mut work, &self.progress).await {
                Ok(Some(batch)) => return Ok(Some((work, batch))),
                Ok(None) => self.resolved(&work),
                Err(error) => {
                    self.retry.insert(work.first, work);
                    return Err(Fault::new(FaultKind::Local, error));
                }
            }
        }
        Ok(None)
    }

    async fn next_new(&mut self) -> Option<(Work, OutBatch)> {
        loop {
            let bounds = Bounds {
                bytes: self.target.pace.batch_bytes(),
                events: self.target.batch_events_max(),
                now: *self.ground.hurry.borrow(),
            };
            match self.former.form(bounds, self.target.spec.settings.batch_wait_max, &self.progress).await {
                Ok(Formed::Batch(formed)) => return Some(*formed),
                Ok(Formed::Nothing(first, end)) => {
                    self.progress.resolve(first, end);
                    self.dirty_since.get_or_insert_with(Instant::now);
                    // Much was looked at, and there is more: orders and saves come in between.
                    if self.former.has_more() {
                        return None;
                    }
                }
                Ok(Formed::Wait) => return None,
                Err(error) => {
                    self.former.restart();
                    self.failed(&Fault::new(FaultKind::Local, error), Blame::Local);
                    return None;
                }
            }
        }
    }

    /// Writes a batch down before its first attempt, where the backend recognises a repeat by its key.
    async fn plan(&mut self, work: &Work) -> bool {
        let traits = self.target.traits;
        let known = self.progress.plans.iter().any(|plan| plan.key == work.key && !is_other(plan, traits));
        if !traits.keyed || known {
            return true;
        }
        let (first, end, key, encoding) = (work.first, work.end, work.key.clone(), traits.encoding);
        self.progress.plans.retain(|plan| plan.key != key);
        self.progress.plans.push(Plan { first, end, key, encoding });
        let sync = self.ground.log.durability() == Durability::Disk;
        match self.ground.log.save(&self.key, &self.progress, sync).await {
            Ok(()) => true,
            Err(error) => {
                self.progress.plans.retain(|plan| plan.key != work.key);
                self.failed(&Fault::new(FaultKind::Local, error), Blame::Local);
                false
            }
        }
    }

    fn send(&self, work: Work, batch: OutBatch, (ticket, share): (Ticket, Share)) -> BoxFuture<'static, Landed> {
        let (backend, timeout) = (self.target.spec.backend.clone(), self.target.spec.settings.timeout);
        Box::pin(async move {
            let begun = Instant::now();
            let result = match tokio::time::timeout(timeout, backend.send(&batch)).await {
                Ok(result) => result,
                Err(_) => Err(Fault::new(FaultKind::Timeout, format_args!("no answer within {timeout:?}"))),
            };
            Landed { work, batch, result, ticket, latency: begun.elapsed(), _share: share }
        })
    }
}

/// Whether the bytes of a batch would not be those it was planned with.
fn is_other(plan: &Plan, traits: Traits) -> bool {
    traits.keyed && plan.encoding != 0 && plan.encoding != traits.encoding
}

/// A batch whose bytes would not be those that were sent under its key gets another key: it may come twice, and what a
/// destination knows by a key is never taken for something else.
fn give_other_keys(progress: &mut Progress, traits: Traits, ground: &Ground) {
    let mut batches = 0;
    for plan in progress.plans.iter_mut().filter(|plan| is_other(plan, traits)) {
        plan.key = ground.other_name((plan.first, plan.end), "encoded");
        batches += 1;
    }
    if batches > 0 {
        ground.status.unknown(batches);
        tracing::warn!(
            route = %ground.names.route, batches,
            "encoding was changed under batches whose outcome is unknown; they are sent again under other keys"
        );
    }
}

/// Returns what was begun and is not resolved, and where new batches begin: behind everything that was ever begun.
pub(super) fn begun(progress: &Progress, ground: &Ground) -> (BTreeMap<u64, Work>, u64) {
    let plans = progress.plans.iter().map(|plan| (plan.first, Work::again(plan.first, plan.end, plan.key.clone())));
    let mut retry: BTreeMap<u64, Work> = plans.collect();
    go_on_with_left(&mut retry, progress, ground);
    let from = fill_gaps(&mut retry, progress.cursor, ground);
    (retry, from)
}

/// What was left behind before goes on being that: under its plan's key where it has one.
fn go_on_with_left(retry: &mut BTreeMap<u64, Work>, progress: &Progress, ground: &Ground) {
    for left in &progress.left {
        let overlaps = retry.range(..left.end).next_back().is_some_and(|(_, work)| work.end > left.first);
        let planned = retry.get_mut(&left.first).filter(|work| work.end == left.end);
        let left_for = Some(LeftFor { counted: Duration::from_millis(left.for_ms), seen: Instant::now() });
        match planned {
            Some(work) => work.left = left_for,
            None if overlaps => {}
            None => {
                let key = ground.other_name((left.first, left.end), "left");
                retry.insert(left.first, Work { left: left_for, ..Work::again(left.first, left.end, key) });
            }
        }
    }
}

/// What lies between two plans was begun and never planned again (halves, leftovers), or the process died before: it is
/// sent as ranges of their own. Returns where new batches begin: behind everything that was ever begun.
fn fill_gaps(retry: &mut BTreeMap<u64, Work>, cursor: u64, ground: &Ground) -> u64 {
    let mut at = cursor;
    let mut gaps = Vec::new();
    for work in retry.values() {
        if work.first > at {
            gaps.push((at, work.first));
        }
        at = at.max(work.end);
    }
    let pieces = gaps.into_iter().flat_map(|(first, end)| {
        (first..end).step_by(GAP_EVENTS_MAX).map(move |first| (first, end.min(first + GAP_EVENTS_MAX as u64)))
    });
    for (first, end) in pieces {
        let key = ground.other_name((first, end), "gap");
        retry.insert(first, Work::again(first, end, key));
    }
    at
}

fn far() -> Instant {
    Instant::now() + Duration::from_hours(24)
}
