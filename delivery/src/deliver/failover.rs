//! A delivery among others of its route, of which the first healthy one sends (see [`super::group`]).
//!
//! # Guarantees
//! - One that stands by reads and sends nothing. It takes what others resolved as resolved, so that it keeps no segments and
//!   its held events are those that no member has resolved; what it takes is counted by scanning the log, as `elsewhere`.
//! - It takes before it sends, and while nothing of its own is under way: an outcome of its own is never counted twice.
//! - A batch that was planned and of which others resolved a part is another batch with another key; no key ever names two.
//! - Where others got events of a batch that was sent here and never answered, both may have them: such batches are counted, as
//!   `unknown`, also where events have ids, since nobody compares those of two backends.
//!
//! # Limits
//! Besides that it takes every [`FOLLOW_PERIOD`] while others resolve. It takes no more ranges than leave half of
//! [`RESOLVED_RANGES_MAX`] free: what lies between may be sent twice.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::batches::{Work, key_again};
use super::breaker::Blame;
use super::delivery::{Delivery, Flights, Ground};
use super::group::{Done, Group, Health, Stand};
use super::life::begin_earlier;
use super::{RESOLVED_RANGES_MAX, SAVE_PERIOD};
use crate::backend::{Fault, FaultKind};
use crate::ledger::BreakerState;
use crate::log::{Log, Progress, ReadError};

/// How often a delivery that does not send takes what others resolved.
const FOLLOW_PERIOD: Duration = Duration::from_secs(1);

/// What a delivery knows of its group.
#[derive(Debug)]
pub(super) struct Following {
    news: watch::Receiver<()>,
    done: watch::Receiver<()>,
    /// Up to when it has what others resolved, as the group counts.
    seen: u64,
    not_before: Instant,
    /// When what its group had before it began is to be made its business, where that could not be done before.
    earlier_at: Instant,
}

impl Following {
    pub(super) fn new(group: &Group) -> Self {
        let (news, done) = group.changes();
        let now = Instant::now();
        Self { news, done, seen: 0, not_before: now, earlier_at: now + FOLLOW_PERIOD }
    }
}

/// Resolves when something has changed in the group; with `done` also when others resolved something.
///
/// # Cancel safety
/// May be cancelled at any time.
pub(super) async fn news(following: &mut Option<Following>, done: bool) {
    let Some(following) = following else { return std::future::pending().await };
    let changed = tokio::select! {
        changed = following.news.changed() => changed,
        changed = following.done.changed(), if done => changed,
    };
    if changed.is_err() {
        // The delivery holds the group itself.
        std::future::pending::<()>().await;
    }
}

impl Ground {
    /// Returns a name for a range that was begun before: no other range has it.
    pub(super) fn other_name(&self, range: (u64, u64), what: &str) -> Arc<str> {
        let number = self.deliveries.names_given.fetch_add(1, Ordering::Relaxed);
        key_again(&self.names, self.log.incarnation(), range, &format!("{what}{number:x}"))
    }
}

impl Delivery {
    fn stand(&self) -> Stand {
        self.ground.group.as_ref().map_or(Stand::Sends, |group| group.stand(&self.key.backend_uid))
    }

    /// Whether its place in the group lets it send.
    pub(super) fn may_send(&self) -> bool {
        self.stand() == Stand::Sends
    }

    /// Notes in the group that an attempt begins; returns whether it may.
    pub(super) fn enters(&mut self, idle: bool) -> bool {
        let (uid, is_healthy) = (self.key.backend_uid.clone(), self.is_healthy());
        let (Some(group), Some(following)) = (&self.ground.group, &mut self.following) else { return true };
        let stale = idle && is_healthy && group.takes(&uid) && group.newest(&uid) > following.seen;
        if stale {
            following.not_before = Instant::now();
        }
        !stale && group.enter(&uid)
    }

    pub(super) fn is_healthy(&self) -> bool {
        // Others of its route go on in the place of one that may not.
        self.target.breaker.state() == BreakerState::Closed && !self.ground.revoked
    }

    /// Whether events came to an end here that others cannot count on yet, and that can still be written down.
    fn owes(&self) -> bool {
        let can = !self.reopen && self.save_not_before.is_none_or(|earliest| earliest <= Instant::now());
        can && self.ground.group.is_some() && self.progress.outcomes() != self.kept.outcomes()
    }

    /// Whether others go on here, or are about to, and wait for what came to its end.
    pub(super) fn gives_way(&self) -> bool {
        self.owes() && (!self.is_healthy() || self.stand() == Stand::By)
    }

    /// Tells the group how this delivery is.
    pub(super) fn tell_group(&mut self, under_way: usize) {
        let owes = self.owes();
        let unwell = if owes { Health::Leaving } else { Health::Ill };
        let health = if self.is_healthy() { Health::Well } else { unwell };
        self.tell_group_that(health, under_way.max(usize::from(owes)));
    }

    pub(super) fn tell_group_that(&mut self, health: Health, under_way: usize) {
        let Some(group) = &self.ground.group else { return };
        let uid = &self.key.backend_uid;
        // What is not saved a process that dies forgets; what a backend has and did not commit may be cut again.
        group.note(uid, health, under_way, &self.kept);
        self.ground.log.set_spare(&self.key.route, group.spare());
        let by = group.stand(uid) == Stand::By;
        self.ground.status.stand(by);
        if by {
            self.former.park();
        }
    }

    /// Whether what others resolve is to be taken although nothing is to be sent.
    pub(super) fn awaits_others(&self, idle: bool) -> bool {
        if self.ground.released.is_some() {
            return true;
        }
        let (Some(group), Some(following)) = (&self.ground.group, &self.following) else { return false };
        let uid = &self.key.backend_uid;
        let leads = group.stand(uid) == Stand::Sends && self.is_healthy();
        idle && !leads && group.takes(uid) && group.newest(uid) <= following.seen
    }

    /// Returns when it will take what others resolved, where there is something.
    pub(super) fn follow_at(&self, idle: bool) -> Option<Instant> {
        let (group, following) = (self.ground.group.as_ref()?, self.following.as_ref()?);
        let uid = &self.key.backend_uid;
        (idle && group.takes(uid) && group.newest(uid) > following.seen).then_some(following.not_before)
    }

    /// Returns when what its group had before it began is to be made its business, where it is not.
    pub(super) fn earlier_at(&self) -> Option<Instant> {
        self.ground.earlier?;
        self.following.as_ref().map(|following| following.earlier_at)
    }

    /// Whether that is due: nothing may be under way then.
    pub(super) fn earlier_is_due(&self) -> bool {
        self.earlier_at().is_some_and(|at| at <= Instant::now())
    }

    /// Makes what its group had before it began its business, where that could not be written down when it came.
    async fn begin_earlier(&mut self) {
        let Some(from) = self.ground.earlier else { return };
        if let Some(following) = &mut self.following {
            following.earlier_at = Instant::now() + FOLLOW_PERIOD;
        }
        // Where a backend stands that commits is written down with what it has.
        if self.target.traits.commits && self.dirty_since.is_some() {
            self.save(&mut Flights::new(), true).await;
        }
        if self.target.traits.commits && (self.dirty_since.is_some() || self.reopen) {
            return;
        }
        match begin_earlier(&self.ground.log, &self.key, &mut self.progress, from).await {
            Ok(()) => {
                self.ground.earlier = None;
                self.kept.clone_from(&self.progress);
                self.begin_anew();
                tracing::info!(route = %self.key.route, backend = %self.target.spec.backend_name, "what the route held before is its business, too");
            }
            Err(why) => tracing::debug!(route = %self.key.route, why, "what a route held before stays with others"),
        }
    }

    /// Takes what others resolved, where that is due.
    pub(super) async fn follow(&mut self, idle: bool) {
        if idle && self.earlier_is_due() {
            self.begin_earlier().await;
        }
        let now = Instant::now();
        let Some(due) = self.follow_at(idle) else { return };
        let sends = self.may_send() && self.target.permits(now);
        if sends || due <= now || self.pressed || *self.ground.hurry.borrow() {
            self.take_over().await;
        }
    }

    /// Does what a delivery without a place can do for its group: it takes what others resolved, and saves that.
    pub(super) async fn attend(&mut self) {
        self.follow(true).await;
        if self.attend_at().is_some_and(|at| at <= Instant::now()) {
            self.store(true).await;
        }
    }

    /// Returns when it has to do that.
    pub(super) fn attend_at(&self) -> Option<Instant> {
        self.ground.group.as_ref()?;
        let save = self.dirty_since.map(|since| since + SAVE_PERIOD);
        let save = save.map(|at| self.save_not_before.map_or(at, |earliest| at.max(earliest)));
        [self.follow_at(true), self.earlier_at(), save].into_iter().flatten().min()
    }

    /// Takes what others resolved. Nothing may be under way.
    pub(super) async fn take_over(&mut self) {
        let (Some(group), Some(following)) = (&self.ground.group, &mut self.following) else { return };
        if !group.takes(&self.key.backend_uid) {
            return;
        }
        following.not_before = Instant::now() + FOLLOW_PERIOD;
        let (seen, others) = group.others(&self.key.backend_uid);
        let fresh = fresh(&self.progress, &others);
        if !fresh.is_empty() {
            let (log, route, ranges) = (self.ground.log.clone(), self.key.route.clone(), fresh.clone());
            let counted = tokio::task::spawn_blocking(move || count(&log, &route, &ranges)).await;
            let Ok(Ok(events)) = counted else {
                let fault = Fault::new(FaultKind::Local, "what other backends of the route have cannot be counted now");
                self.failed(&fault, Blame::Local);
                return;
            };
            self.taken(&fresh, events);
        }
        if let Some(following) = &mut self.following {
            following.seen = seen;
        }
    }

    /// After its progress went back to what was synced: what was taken since is taken again.
    pub(super) fn takes_again(&mut self) {
        if let Some(following) = &mut self.following {
            following.seen = 0;
        }
    }

    fn taken(&mut self, fresh: &[(u64, u64)], events: u64) {
        self.ground.unanswered.answered(&self.progress);
        let unknown = self.ground.unanswered.moved(|first, end| touches(fresh, first, end));
        fresh.iter().for_each(|(from, to)| self.progress.resolve(*from, *to));
        self.progress.elsewhere += events;
        self.progress.plans.retain(|plan| !touches(fresh, plan.first, plan.end));
        if unknown > 0 {
            self.ground.status.unknown(unknown);
            tracing::info!(
                route = %self.key.route, backend = %self.target.spec.backend_name, batches = unknown,
                "another backend got events of batches that were tried here without an answer; both may have them"
            );
        }
        let mut left = std::mem::take(&mut self.progress.left);
        left.retain(|left| !self.progress.has_all(left.first, left.end));
        self.progress.left = left;
        for (first, mut work) in std::mem::take(&mut self.retry) {
            if self.progress.has_all(work.first, work.end) {
                continue;
            }
            if touches(fresh, work.first, work.end) {
                let key = self.ground.other_name((work.first, work.end), "taken");
                work = Work { key, members: Vec::new(), kept: None, ..work };
            }
            self.retry.insert(first, work);
        }
        let cursor = self.progress.cursor;
        self.former.rewind(self.former.first().max(cursor));
        self.dirty_since.get_or_insert_with(Instant::now);
        self.ground.log.reached(&self.key, cursor);
        if !self.target.traits.commits {
            self.ground.status.show(&self.progress);
        }
    }

    /// Whether another delivery of a group that goes away is to end before this one gives up what it holds.
    pub(super) fn ends_later(&self) -> bool {
        self.ground.group.as_ref().is_some_and(|group| !group.is_first(&self.key.backend_uid))
    }

    /// Returns up to where it may give up what it holds for a backfill alone: not within a batch that was planned.
    pub(super) fn spare_below(&self, below: u64) -> u64 {
        let spare = self.ground.group.as_ref().and_then(|group| group.spare());
        let Some((_, have)) = spare.filter(|(uid, _)| *uid == self.key.backend_uid) else { return 0 };
        let to = below.min(have);
        match self.progress.plans.iter().find(|plan| plan.first < to && to < plan.end) {
            Some(plan) if plan.end <= have => plan.end,
            Some(plan) => plan.first,
            None => to,
        }
    }
}

fn count(log: &Log, route: &str, ranges: &[(u64, u64)]) -> Result<u64, ReadError> {
    let census = log.census();
    ranges.iter().try_fold(0, |sum, (from, to)| Ok(sum + log.count_events(&census, route, *from, *to)?.0))
}

/// Returns what others have and `own` has not: ranges, apart.
fn fresh(own: &Progress, others: &[Done]) -> Vec<(u64, u64)> {
    let mut all = Progress { cursor: own.cursor, resolved: own.resolved.clone(), ..Progress::default() };
    let mut fresh = Vec::new();
    for (from, to) in others.iter().flat_map(Done::ranges) {
        if all.resolved.len() >= RESOLVED_RANGES_MAX / 2 {
            break;
        }
        let mut at = from.max(all.cursor);
        let first = all.resolved.partition_point(|(_, end)| *end <= at);
        for (start, end) in all.resolved[first..].iter().take_while(|(start, _)| *start < to) {
            if at < *start {
                fresh.push((at, *start));
            }
            at = at.max(*end);
        }
        if at < to {
            fresh.push((at, to));
        }
        all.resolve(from, to);
    }
    fresh.sort_unstable();
    fresh
}

/// Whether any of the ranges, ascending and apart, meets `[first, end)`.
fn touches(ranges: &[(u64, u64)], first: u64, end: u64) -> bool {
    let at = ranges.partition_point(|(_, to)| *to <= first);
    ranges.get(at).is_some_and(|(from, _)| *from < end)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn progress(seqs: &BTreeSet<u64>) -> Progress {
        let mut progress = Progress { began: Some(0), ..Progress::default() };
        seqs.iter().for_each(|seq| progress.resolve(*seq, seq + 1));
        progress
    }

    proptest! {
        #[test]
        fn what_is_fresh_is_what_others_have_and_oneself_has_not_each_once(
            own in prop::collection::btree_set(0_u64..40, 0..30),
            others in prop::collection::vec(prop::collection::btree_set(0_u64..40, 0..30), 0..4),
        ) {
            let done: Vec<Done> = others.iter().map(|seqs| Done::of(&progress(seqs))).collect();
            let ranges = fresh(&progress(&own), &done);
            prop_assert!(ranges.windows(2).all(|pair| pair[0].1 <= pair[1].0));
            let listed: Vec<u64> = ranges.iter().flat_map(|(from, to)| *from..*to).collect();
            let expected: Vec<u64> =
                others.iter().flatten().copied().collect::<BTreeSet<_>>().difference(&own).copied().collect();
            prop_assert_eq!(&listed, &expected);
            for seqs in &others {
                let (list, known): (Vec<u64>, bool) = (seqs.iter().copied().collect(), !seqs.is_disjoint(&own));
                prop_assert_eq!(progress(&own).is_any_resolved(&list), known);
            }
            for seq in 0..41 {
                prop_assert_eq!(progress(&own).is_resolved(seq), own.contains(&seq));
            }
            for first in 0..40 {
                for end in first + 1..40 {
                    let all = (first..end).all(|seq| own.contains(&seq));
                    prop_assert_eq!(progress(&own).has_all(first, end), all);
                    prop_assert_eq!(touches(&ranges, first, end), (first..end).any(|seq| listed.contains(&seq)));
                }
            }
        }
    }
}
