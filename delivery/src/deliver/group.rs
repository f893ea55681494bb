//! Deliveries of one route of which the first healthy one sends: what they know of each other.
//!
//! A route with [`Strategy::FirstHealthy`] is a group of ordinary deliveries, one per reference, each with its own cursor,
//! plans and keys. Only what is said here passes between them.
//!
//! # Guarantees
//! - A member sends while no better one is healthy. One that is healthy again begins, beyond the one batch that proved it,
//!   when the worse ones have nothing under way: what they resolved last is told together with that, under one lock.
//! - What a member says is resolved is true for good: it is saved, and of a backend that commits it is synced.
//! - A member whose health is gone hands over when it has said what it resolved, as far as it still can say it.
//! - Which member leads changes once per change of health, and each such change is counted and told once.
//!
//! # Must not know
//! Events, batches, the log.
//!
//! # Limits
//! A few dozen bytes per range that a member has resolved above its cursor, of which there are at most
//! [`super::RESOLVED_RANGES_MAX`] each; [`DEPARTED_MAX`] members that left are remembered until the others have what they
//! resolved.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::ledger::FailoverReport;
use crate::log::Progress;
use crate::settings::{Failback, Strategy};

/// Most members that left and whose outcomes are still told.
const DEPARTED_MAX: usize = 16;

/// What a member has resolved: `[from, cursor)` and ranges above.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Done {
    from: u64,
    cursor: u64,
    ranges: Vec<(u64, u64)>,
}

impl Done {
    /// Returns what a delivery may say it has resolved: nothing from before it began.
    pub(super) fn of(progress: &Progress) -> Self {
        Self { from: first_own(progress), cursor: progress.cursor, ranges: progress.resolved.clone() }
    }

    /// Returns that of it which survives power loss, of a delivery whose cursor was synced last at `synced`.
    pub(super) fn up_to(progress: &Progress, synced: u64) -> Self {
        if progress.cursor <= synced {
            return Self::of(progress);
        }
        let from = first_own(progress);
        Self { from, cursor: synced.max(from), ranges: Vec::new() }
    }

    /// Returns the ranges, ascending.
    pub(super) fn ranges(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let below = (self.from < self.cursor).then_some((self.from, self.cursor));
        below.into_iter().chain(self.ranges.iter().copied())
    }

    fn has(&self, (from, to): (u64, u64)) -> bool {
        let from = from.max(self.cursor);
        from >= to || self.ranges.iter().any(|(start, end)| *start <= from && to <= *end)
    }

    fn end(&self) -> u64 {
        self.ranges.last().map_or(self.cursor, |(_, end)| *end)
    }

    fn is(&self, progress: &Progress) -> bool {
        self.from == first_own(progress) && self.cursor == progress.cursor && self.ranges == progress.resolved
    }
}

/// How a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Health {
    /// It takes what it is given.
    Well,
    /// Not any more; what it took while it was well it will say next. Until then it keeps its place.
    Leaving,
    /// It does not.
    Ill,
}

/// Returns where what a delivery has resolved begins. One that does not know says nothing of what lies below its cursor.
fn first_own(progress: &Progress) -> u64 {
    progress.began.unwrap_or(progress.cursor)
}

/// What a member may do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stand {
    /// It sends, or probes.
    Sends,
    /// It leads, and waits for what worse ones have under way.
    Waits,
    /// A better one is healthy.
    By,
}

#[derive(Debug)]
struct Member {
    uid: Arc<str>,
    name: Arc<str>,
    healthy: bool,
    /// It may send nothing any more.
    is_barred: bool,
    under_way: usize,
    done: Done,
    /// When `done` changed last, as the group counts.
    stamp: u64,
}

#[derive(Debug, Default)]
struct State {
    failback: Failback,
    /// The references, best first.
    order: Vec<Arc<str>>,
    /// Those that run, best first.
    members: Vec<Member>,
    departed: Vec<(u64, Done)>,
    stamp: u64,
    /// Who led last.
    lead: Option<Arc<str>>,
    none_told: bool,
    failovers: BTreeMap<(Arc<str>, Arc<str>), u64>,
}

/// Why another member leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    Health,
    Edit,
}

/// The members of one route.
#[derive(Debug)]
pub(super) struct Group {
    pipeline: Arc<str>,
    route: Arc<str>,
    state: Mutex<State>,
    /// Changes with what a member may do.
    news: watch::Sender<()>,
    /// Changes with what members have resolved.
    done: watch::Sender<()>,
}

impl Group {
    pub(super) fn new(pipeline: &Arc<str>, route: &Arc<str>) -> Arc<Self> {
        let (news, done) = (watch::channel(()).0, watch::channel(()).0);
        Arc::new(Self { pipeline: pipeline.clone(), route: route.clone(), state: Mutex::default(), news, done })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns what changes with what a member may do, and with what members have resolved.
    pub(super) fn changes(&self) -> (watch::Receiver<()>, watch::Receiver<()>) {
        (self.news.subscribe(), self.done.subscribe())
    }

    /// Says which references there are, best first, and what happens after a recovery.
    pub(super) fn arrange(&self, failback: Failback, order: Vec<Arc<str>>) {
        let mut state = self.state();
        if state.failback == failback && state.order == order {
            return;
        }
        state.failback = failback;
        state.order = order;
        state.sort();
        self.lead(&mut state, Cause::Edit);
        drop(state);
        self.news.send_replace(());
        self.done.send_replace(());
    }

    /// Adds a member that begins, which is taken to be healthy; one that begins anew is what it was.
    pub(super) fn seat(&self, uid: &Arc<str>, name: &Arc<str>, done: Done) {
        let mut state = self.state();
        state.stamp += 1;
        let healthy = state.member(uid).is_none_or(|member| member.healthy);
        state.members.retain(|member| member.uid != *uid);
        let (uid, name, stamp) = (uid.clone(), name.clone(), state.stamp);
        state.members.push(Member { uid, name, healthy, is_barred: false, under_way: 0, done, stamp });
        state.sort();
        self.lead(&mut state, Cause::Edit);
        drop(state);
        self.news.send_replace(());
        self.done.send_replace(());
    }

    /// Keeps the place of a member that comes, unless it is there: nobody sends what it has, or before it.
    pub(super) fn reserve(&self, uid: &Arc<str>, name: &Arc<str>, done: Done) {
        if !self.state().members.iter().any(|member| member.uid == *uid) {
            self.seat(uid, name, done);
        }
    }

    /// Takes a member out; what it resolved stays told until the others have it.
    pub(super) fn unseat(&self, uid: &str, done: Done) {
        let mut state = self.state();
        let before = state.members.len();
        state.members.retain(|member| *member.uid != *uid);
        if state.members.len() == before {
            return;
        }
        // Whoever leads now knows it before it begins.
        state.remember(done);
        self.lead(&mut state, Cause::Edit);
        drop(state);
        self.news.send_replace(());
        self.done.send_replace(());
    }

    /// Takes note of what somebody resolved who is gone.
    pub(super) fn remember(&self, done: Done) {
        self.state().remember(done);
    }

    /// Returns what a member may do now.
    pub(super) fn stand(&self, uid: &str) -> Stand {
        self.state().stand(uid)
    }

    /// Whether a member takes what others resolved as resolved.
    pub(super) fn takes(&self, uid: &str) -> bool {
        self.state().takes(uid)
    }

    /// Takes note that a member may send nothing any more, until it is seated anew.
    pub(super) fn bar(&self, uid: &str) {
        self.state().member(uid).into_iter().for_each(|member| member.is_barred = true);
    }

    /// Whether a member is the best that is there, of those that may send while there are any: the others wait for what these do.
    pub(super) fn is_first(&self, uid: &str) -> bool {
        let state = self.state();
        let first = state.members.iter().find(|member| !member.is_barred).or(state.members.first());
        first.is_none_or(|first| *first.uid == *uid)
    }

    /// Notes that a member begins an attempt; returns whether it may.
    pub(super) fn enter(&self, uid: &str) -> bool {
        let mut state = self.state();
        if state.stand(uid) != Stand::Sends {
            return false;
        }
        if let Some(member) = state.member(uid) {
            member.under_way += 1;
        }
        true
    }

    /// Notes how a member is, what it has under way or cannot say yet, and what it has resolved.
    pub(super) fn note(&self, uid: &str, health: Health, under_way: usize, progress: &Progress) {
        let mut state = self.state();
        let stamp = state.stamp + 1;
        let Some(member) = state.member(uid) else { return };
        let healthy = health == Health::Well || (health == Health::Leaving && member.healthy);
        let turned = std::mem::replace(&mut member.healthy, healthy) != healthy;
        let landed = std::mem::replace(&mut member.under_way, under_way) > 0 && under_way == 0;
        let resolved = !member.done.is(progress);
        if resolved {
            member.done = Done::of(progress);
            member.stamp = stamp;
            state.stamp = stamp;
            let low = state.members.iter().map(|member| member.done.cursor).min().unwrap_or(0);
            state.departed.retain(|(_, done)| done.end() > low);
        }
        if turned {
            self.lead(&mut state, Cause::Health);
        }
        drop(state);
        if turned || landed {
            self.news.send_replace(());
        }
        if resolved {
            self.done.send_replace(());
        }
    }

    /// Returns when others resolved something last, as the group counts.
    pub(super) fn newest(&self, uid: &str) -> u64 {
        self.state().newest(uid)
    }

    /// Returns what others have resolved, and as of when.
    pub(super) fn others(&self, uid: &str) -> (u64, Vec<Done>) {
        let state = self.state();
        let others = state.members.iter().filter(|member| *member.uid != *uid).map(|member| member.done.clone());
        let others = others.chain(state.departed.iter().map(|(_, done)| done.clone())).collect();
        (state.newest(uid), others)
    }

    /// Whether all that take what others resolved say that they have what one did that left.
    pub(super) fn has_taken(&self, done: &Done) -> bool {
        let state = self.state();
        let mut takers = state.members.iter().filter(|member| state.takes(&member.uid));
        takers.all(|member| done.ranges().all(|range| member.done.has(range)))
    }

    /// Returns who holds events for a backfill, and below which sequence nothing else is held by it.
    pub(super) fn spare(&self) -> Option<(Arc<str>, u64)> {
        let state = self.state();
        let first = state.members.first().filter(|first| !state.takes(&first.uid))?;
        let mut all = Progress { cursor: first.done.cursor, ..Progress::default() };
        let departed = state.departed.iter().map(|(_, done)| done);
        let every = state.members.iter().map(|member| &member.done).chain(departed);
        every.flat_map(Done::ranges).for_each(|(from, to)| all.resolve(from, to));
        Some((first.uid.clone(), all.cursor))
    }

    /// Returns the name of the one that leads, and how often another took its place because of its health.
    pub(super) fn report(&self) -> (Option<Arc<str>>, Vec<FailoverReport>) {
        let state = self.state();
        let failovers = state.failovers.iter().map(|((from, to), times)| FailoverReport {
            from: from.clone(),
            to: to.clone(),
            times: *times,
        });
        (state.leader().map(|member| member.name.clone()), failovers.collect())
    }

    /// Looks who leads now.
    fn lead(&self, state: &mut State, cause: Cause) {
        let leader = state.leader().map(|leader| (leader.uid.clone(), leader.name.clone()));
        let Some((uid, to)) = leader else {
            if !state.none_told && !state.members.is_empty() && cause == Cause::Health {
                tracing::warn!(pipeline = %self.pipeline, route = %self.route, "no backend of the route is healthy; each is tried");
            }
            state.none_told = true;
            return;
        };
        state.none_told = false;
        let before = state.lead.replace(uid.clone());
        let Some(before) = before.filter(|before| *before != uid && cause == Cause::Health) else { return };
        let Some(from) = state.members.iter().find(|member| member.uid == before) else { return };
        let (from, better) = (from.name.clone(), state.rank(&uid) < state.rank(&before));
        let event = if better { "failback: a better backend is healthy again" } else { "failover" };
        tracing::warn!(pipeline = %self.pipeline, route = %self.route, %from, %to, failback = ?state.failback, "{event}");
        *state.failovers.entry((from, to)).or_default() += 1;
    }
}

impl State {
    fn remember(&mut self, done: Done) {
        self.stamp += 1;
        self.departed.push((self.stamp, done));
        if self.departed.len() > DEPARTED_MAX {
            self.departed.remove(0);
        }
    }

    fn member(&mut self, uid: &str) -> Option<&mut Member> {
        self.members.iter_mut().find(|member| *member.uid == *uid)
    }

    fn rank(&self, uid: &str) -> usize {
        self.order.iter().position(|known| **known == *uid).unwrap_or(self.order.len())
    }

    fn sort(&mut self) {
        let order = std::mem::take(&mut self.order);
        self.members.sort_by_key(|member| {
            (order.iter().position(|uid| *uid == member.uid).unwrap_or(order.len()), member.uid.clone())
        });
        self.order = order;
    }

    fn leader(&self) -> Option<&Member> {
        self.members.iter().find(|member| member.healthy)
    }

    fn takes(&self, uid: &str) -> bool {
        match self.failback {
            Failback::Leave => true,
            Failback::Backfill => self.members.first().is_some_and(|first| *first.uid != *uid),
        }
    }

    fn newest(&self, uid: &str) -> u64 {
        let members = self.members.iter().filter(|member| *member.uid != *uid).map(|member| member.stamp);
        members.chain(self.departed.iter().map(|(stamp, _)| *stamp)).max().unwrap_or(0)
    }

    fn stand(&self, uid: &str) -> Stand {
        let Some(at) = self.members.iter().position(|member| *member.uid == *uid) else { return Stand::Sends };
        let (better, worse) = (&self.members[..at], &self.members[at + 1..]);
        if better.iter().any(|member| member.healthy) {
            return Stand::By;
        }
        let waits = self.members[at].healthy && self.takes(uid) && worse.iter().any(|member| member.under_way > 0);
        if waits { Stand::Waits } else { Stand::Sends }
    }
}

/// The groups of one pipeline, by route.
#[derive(Debug, Default)]
pub(crate) struct Groups(Mutex<BTreeMap<Arc<str>, Arc<Group>>>);

impl Groups {
    fn map(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Arc<Group>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the name of the backend of a route that leads, and how often another took over.
    pub(crate) fn report(&self, route: &str) -> (Option<Arc<str>>, Vec<FailoverReport>) {
        self.find(route).map(|group| group.report()).unwrap_or_default()
    }

    /// Returns the group of a route.
    pub(super) fn find(&self, route: &str) -> Option<Arc<Group>> {
        self.map().get(route).cloned()
    }

    /// Brings the groups to what settings say: those of other routes are forgotten here, and go on where they drain.
    pub(super) fn arrange(&self, settings: &crate::settings::PipelineSettings, groups: Vec<Arc<Group>>) {
        let mut map: BTreeMap<_, _> = groups.into_iter().map(|group| (group.route.clone(), group)).collect();
        for route in &settings.routes {
            let Strategy::FirstHealthy(failback) = route.strategy else { continue };
            if let Some(group) = map.get(&route.name) {
                group.arrange(failback, route.backends.iter().map(|backend| backend.uid.clone()).collect());
            }
        }
        std::mem::swap(&mut *self.map(), &mut map);
    }
}

#[cfg(test)]
mod tests;
