//! What came back becomes progress.

use std::time::Duration;

use tokio::time::Instant;

use super::PROBE_BYTES;
use super::batches::{Kept, LeftFor, Work, halve};
use super::breaker::Blame;
use super::dead_letters::{Refused, Unkept};
use super::delivery::{Delivery, Landed};
use super::pace::Signal;
use super::target::signal_of;
use crate::backend::{Fault, FaultKind, Items, OutBatch, Outcome};
use crate::ledger::BreakerState;
use crate::log::Left;
use crate::settings::OnUndeliverable;

/// How long events may be refused that siblings of theirs are taken without, by a backend that is well; counted in running
/// time, over restarts. Then they are dead letters. Of a backend that takes nothing meanwhile nobody knows whether it would:
/// time counts up to what it took last. Where order counts, and where no more can be begun beside them, all time counts.
const LEFT_BEHIND_MAX: Duration = Duration::from_secs(600);

/// The reason under which events are counted that the dead letters had no room for.
const DEAD_LETTERS_FULL: &str = "dead_letters_full";

/// Attempts in a row without an answer in time after which a batch is halved, for it may not fit through in its time.
const TIMEOUTS_MAX: u32 = 3;

/// Whether a destination answered, and may answer otherwise for another batch.
fn is_answer(fault: &Fault) -> bool {
    matches!(fault.kind, FaultKind::Throttled | FaultKind::Broken)
}

/// Why events are dropped whose backend may not be used any more, where the dead letters have no room for them.
pub(super) const REVOKED: &str = "revoked";

/// Whether some items were not taken now.
fn leaves_some(items: &Items) -> bool {
    match items {
        Items::All(outcome) => *outcome == Outcome::Retry,
        Items::Each(outcomes) => outcomes.contains(&Outcome::Retry),
    }
}

/// What the items of a batch came to.
#[derive(Default)]
struct Tally {
    delivered: u64,
    duplicates: u64,
    retry: u64,
    late: u64,
    delivered_bytes: usize,
}

impl Delivery {
    pub(super) async fn settle(&mut self, landed: Landed, in_flight: usize) {
        let Landed { work, batch, result, ticket, latency, .. } = landed;
        let signal = match &result {
            Ok(items) if leaves_some(items) => Signal::Throttled,
            Ok(_) => Signal::Smooth,
            Err(fault) => signal_of(fault),
        };
        // What a destination leaves behind again and again says nothing of how much it may be given.
        let signal = if work.left.is_some() && signal == Signal::Throttled { Signal::Nothing } else { signal };
        self.target.landed(ticket, signal, latency);
        let mut delivered_bytes = 0;
        match result {
            Ok(items) if self.given_up.reaches(&work) => delivered_bytes = self.settle_each(work, &batch, items).await,
            Ok(Items::All(Outcome::Delivered)) => {
                self.progress.delivered += batch.len() as u64;
                delivered_bytes = batch.payload_bytes();
                self.resolved(&work);
                self.succeeded();
            }
            Ok(Items::All(Outcome::Duplicate)) => {
                self.progress.duplicates += batch.len() as u64;
                self.resolved(&work);
                self.succeeded();
            }
            Ok(items) => delivered_bytes = self.settle_each(work, &batch, items).await,
            Err(fault) if fault.kind == FaultKind::TooLarge => self.split(work, &batch, &fault).await,
            Err(fault) => self.again(work, &batch, &fault).await,
        }
        self.dirty_since.get_or_insert_with(Instant::now);
        self.dirty_bytes += batch.payload_bytes();
        self.ground.status.landed(in_flight, self.target.pace.in_flight_max());
        self.delivered_bytes += delivered_bytes as u64;
        self.ground.log.reached(&self.key, self.progress.cursor);
        if !self.target.traits.commits {
            self.note_passed();
            self.show();
        }
    }

    /// Shows how far it has come, and the bytes of that with it.
    pub(super) fn show(&mut self) {
        self.ground.status.show(&self.progress);
        self.ground.status.delivered(std::mem::take(&mut self.delivered_bytes));
    }

    /// Every member of a range has come to its end.
    pub(super) fn resolved(&mut self, work: &Work) {
        self.progress.resolve(work.first, work.end);
        self.progress.plans.retain(|plan| plan.key != work.key);
        if !self.progress.left.is_empty() {
            self.progress.left.retain(|left| left.first < work.first || left.end > work.end);
        }
        self.dirty_since.get_or_insert_with(Instant::now);
    }

    /// The backend took something. Of one that commits that says that it is well when it has committed: one whose commits
    /// hang would be well for ever and move nothing.
    fn succeeded(&mut self) {
        self.taken_at = Some(Instant::now());
        if self.target.traits.commits {
            self.uncommitted = true;
        } else {
            self.target.succeeded();
        }
        self.flows();
    }

    /// What the backend took is committed for good.
    pub(super) fn committed(&mut self) {
        if std::mem::take(&mut self.uncommitted) {
            self.target.succeeded();
            self.flows();
        }
    }

    fn flows(&mut self) {
        self.ground.status.breaker(self.target.breaker.state());
        if self.is_healthy() && self.ground.status.succeeded() {
            tracing::info!(route = %self.target.spec.route, backend = %self.target.spec.backend_name, "backend takes events again");
        }
    }

    /// Notes a fault of the backend as a whole, or of this machine: one line when that is a change, and a wait.
    pub(super) fn failed(&mut self, fault: &Fault, blame: Blame) -> Duration {
        let was_closed = self.target.breaker.state() == BreakerState::Closed;
        let wait = self.target.failed(fault, blame);
        let state = self.target.breaker.state();
        // A probe that fails is no news, however many there are.
        if self.ground.status.breaker(state) && state == BreakerState::Open && was_closed {
            tracing::warn!(
                route = %self.target.spec.route, backend = %self.target.spec.backend_name, kind = fault.kind.as_str(), error = %fault,
                ?wait, "circuit breaker opened; nothing is tried until then"
            );
        }
        if self.ground.status.failed(fault) {
            tracing::warn!(
                route = %self.target.spec.route, backend = %self.target.spec.backend_name, kind = fault.kind.as_str(), error = %fault,
                "backend does not take events; holding them"
            );
        }
        wait
    }

    async fn settle_each(&mut self, work: Work, batch: &OutBatch, items: Items) -> usize {
        let outcomes = match items {
            Items::All(outcome) => vec![outcome; batch.len()],
            Items::Each(outcomes) if outcomes.len() == batch.len() => outcomes,
            Items::Each(outcomes) => {
                let text = format!("{} outcomes for {} events", outcomes.len(), batch.len());
                self.again(work, batch, &Fault::new(FaultKind::Broken, text)).await;
                return 0;
            }
        };
        let mut tally = Tally::default();
        let mut refused = Vec::new();
        let mut resolved = Vec::with_capacity(batch.len());
        // What stands between two members is none of this delivery's: resolved with the first of them, so that ranges meet.
        let redrives = self.redrives();
        let ends = work.members.iter().skip(1).copied().chain([work.end]);
        for (((event, outcome), seq), end) in batch.events().zip(&outcomes).zip(&work.members).zip(ends) {
            if self.given_up.holds(*seq) {
                tally.late += u64::from(matches!(outcome, Outcome::Delivered | Outcome::Duplicate));
                tally.retry += u64::from(*outcome == Outcome::Retry);
                continue;
            }
            match outcome {
                Outcome::Delivered => {
                    tally.delivered += 1;
                    tally.delivered_bytes += event.bytes.len();
                }
                Outcome::Duplicate => tally.duplicates += 1,
                Outcome::Retry => {
                    tally.retry += 1;
                    continue;
                }
                Outcome::Rejected(reason) => {
                    refused.push(Refused { seq: *seq, event, reason });
                    continue;
                }
            }
            resolved.push((*seq, if redrives { *seq + 1 } else { end }));
        }
        self.progress.resolve_each(&resolved);
        let unkept = self.reject(&refused).await;
        self.progress.delivered += tally.delivered;
        self.progress.duplicates += tally.duplicates;
        self.ground.status.late(tally.late);
        match (tally.retry, unkept) {
            (0, 0) => {
                self.resolved(&work);
                self.succeeded();
            }
            (0, unkept) => {
                // The destination has answered for all of it.
                self.succeeded();
                self.put_off(Work { left: None, ..work }, unkept);
            }
            (left, _) => {
                // As a rule what was not taken is all that is left.
                let plain = refused.is_empty() && !self.given_up.reaches(&work);
                let is_left = |(outcome, seq): (&Outcome, &u64)| {
                    if plain { *outcome == Outcome::Retry } else { !self.progress.is_resolved(*seq) }
                };
                let is_left: Vec<bool> = outcomes.iter().zip(&work.members).map(is_left).collect();
                self.leave(work, batch, (left, &is_left)).await;
            }
        }
        tally.delivered_bytes
    }

    /// Keeps what is left of a batch in memory while there is room: sending it again then reads nothing.
    fn keep_left(&self, work: &mut Work, batch: &OutBatch, (members, is_left): (&[u64], &[bool])) {
        let lengths = batch.events().map(|event| event.bytes.len());
        let bytes = lengths.zip(is_left).filter(|(_, left)| **left).map(|(length, _)| length).sum();
        let Some(share) = self.ground.budget.keep(bytes) else { return };
        let left = members.iter().copied().zip(is_left).filter(|(_, left)| **left).map(|(seq, _)| seq).collect();
        work.kept = Some(Box::new(Kept { batch: batch.part(is_left, work.key.clone()), members: left, _share: share }));
    }

    /// Some events of a batch were not taken, or all of them: they wait and are sent again alone. The destination is not
    /// blamed for what it leaves behind while it takes the rest.
    async fn leave(&mut self, mut work: Work, batch: &OutBatch, (left, is_left): (u64, &[bool])) {
        let text = format!("{left} of {} events were not taken now", batch.len());
        let fault = Fault::new(FaultKind::Throttled, text);
        if left as usize == batch.len() && work.left.is_none() {
            return self.again(work, batch, &fault).await;
        }
        if left as usize == batch.len() {
            if self.gave_up(&mut work, batch, &fault).await {
                return;
            }
        } else {
            self.succeeded();
        }
        self.ground.status.left(&fault);
        // What is left of a batch is another one: other members, another key.
        let key = if left as usize == batch.len() {
            work.key.clone()
        } else {
            self.progress.plans.retain(|plan| plan.key != work.key);
            format!("{}p{left}", work.key).into()
        };
        let now = Instant::now();
        let not_before = Some(now + self.target.breaker.pause_after(work.attempts));
        let left_for = work.left.or(Some(LeftFor { counted: Duration::ZERO, seen: now }));
        let members = std::mem::take(&mut work.members);
        let mut rest = Work { key, attempts: work.attempts + 1, left: left_for, not_before, ..work };
        self.keep_left(&mut rest, batch, (&members, is_left));
        self.note_left(&rest);
        self.retry.insert(rest.first, rest);
    }

    /// All that is left of a batch is given up for good and cannot be a dead letter now: it waits by itself and is sent again.
    fn put_off(&mut self, mut work: Work, unkept: u64) {
        let text = format!("{unkept} dead letters cannot be kept now; their events are sent again");
        self.ground.status.left(&Fault::new(FaultKind::Local, text));
        if work.members.iter().any(|seq| self.progress.is_resolved(*seq)) {
            self.progress.plans.retain(|plan| plan.key != work.key);
            work.key = self.ground.other_name((work.first, work.end), "refused");
        }
        work.not_before = Some(Instant::now() + self.target.breaker.pause_after(work.attempts));
        work.attempts = work.attempts.saturating_add(1);
        (work.members, work.kept) = (Vec::new(), None);
        self.progress.left.retain(|left| left.first < work.first || left.end > work.end);
        self.note_left(&work);
        self.retry.insert(work.first, work);
    }

    /// Gives events up for good: they are dead letters, or dropped. Returns how many must be sent again: those whose letter
    /// cannot be written now, and of a redrive those for whose new letter there is no room.
    async fn reject(&mut self, refused: &[Refused<'_>]) -> u64 {
        let Some(one) = refused.first() else { return 0 };
        let spec = &self.target.spec;
        let (route, backend, again) = (spec.route.clone(), spec.backend_name.clone(), self.redrives());
        let is_first = self.progress.rejected + self.progress.dropped.values().sum::<u64>() == 0;
        let (kept, unkept, otherwise) = match spec.settings.on_undeliverable {
            OnUndeliverable::Drop => (0, None, "undeliverable"),
            OnUndeliverable::DeadLetter => {
                let (kept, unkept) = self.ground.dead_letters.keep(refused, (&route, &backend), again).await;
                (kept, unkept, self.reason_without_room())
            }
        };
        self.progress.rejected += kept as u64;
        refused[..kept].iter().for_each(|one| self.ground.status.rejected(one.reason));
        let waits = again || unkept == Some(Unkept::Fault);
        let rest = if waits { refused.len() - kept } else { 0 };
        if kept < refused.len() && !waits {
            let bytes = refused[kept..].iter().map(|one| one.event.bytes.len() as u64).sum();
            self.progress.drop_events(otherwise, (refused.len() - kept) as u64, bytes);
        }
        for one in &refused[..refused.len() - rest] {
            self.progress.resolve(one.seq, one.seq + 1);
        }
        if is_first && rest < refused.len() {
            let reason = one.reason;
            tracing::warn!(%route, %backend, reason, "first event refused for good; such events go to the dead letters");
        }
        rest as u64
    }

    /// Returns how many events the dead letters had no room for.
    pub(super) fn without_room(&self) -> u64 {
        self.progress.dropped.get(self.reason_without_room()).copied().unwrap_or(0)
    }

    /// Returns why an event is dropped that the dead letters have no room for.
    fn reason_without_room(&self) -> &'static str {
        if self.ground.revoked { REVOKED } else { DEAD_LETTERS_FULL }
    }

    /// Gives a whole batch up; returns whether that is the end of it.
    pub(super) async fn reject_all(&mut self, work: &Work, batch: &OutBatch, reason: &str) -> bool {
        let refused = |(event, seq): (_, &u64)| Refused { seq: *seq, event, reason };
        let held = |(_, seq): &(_, &u64)| !self.given_up.holds(**seq);
        let refused: Vec<_> = batch.events().zip(&work.members).filter(held).map(refused).collect();
        let ended = self.reject(&refused).await == 0;
        if ended {
            self.resolved(work);
        }
        ended
    }

    /// The batch is too large for the backend: two halves, or an event that never fits.
    async fn split(&mut self, work: Work, batch: &OutBatch, fault: &Fault) {
        self.note_unanswered(&work, fault);
        if let Some((left, right)) = halve(&work) {
            self.progress.plans.retain(|plan| plan.key != work.key);
            self.retry.insert(left.first, left);
            self.retry.insert(right.first, right);
            return;
        }
        if !self.reject_all(&work, batch, &fault.message).await {
            self.put_off(work, 1);
        }
    }

    /// Writes down what was left behind, so that its time goes on over a restart.
    fn note_left(&mut self, work: &Work) {
        let Some(left_for) = work.left else { return };
        let (first, end) = (work.first, work.end);
        let noted = &mut self.progress.left;
        noted.retain(|left| left.first < first || left.end > end);
        let at = noted.partition_point(|left| left.first < first);
        noted.insert(at, Left { first, end, for_ms: left_for.counted.as_millis() as u64 });
    }

    /// Notes that a batch may be there. What one that commits did not commit it takes back when it is opened again.
    fn note_unanswered(&mut self, work: &Work, fault: &Fault) {
        if fault.may_be_there && !self.target.traits.commits {
            self.ground.unanswered.answered(&self.progress);
            self.ground.unanswered.note(work.first, work.end);
        }
    }

    async fn again(&mut self, mut work: Work, batch: &OutBatch, fault: &Fault) {
        self.note_unanswered(&work, fault);
        let now = Instant::now();
        let is_left = self.is_left(&work, fault);
        if is_left {
            work.left.get_or_insert(LeftFor { counted: Duration::ZERO, seen: now });
            self.ground.status.left(fault);
        } else {
            self.failed(fault, Blame::Destination);
        }
        if self.gave_up(&mut work, batch, fault).await {
            return;
        }
        work.refused_at = is_answer(fault).then_some(now);
        work.timeouts = if fault.kind == FaultKind::Timeout { work.timeouts + 1 } else { 0 };
        if work.timeouts >= TIMEOUTS_MAX && batch.payload_bytes() > PROBE_BYTES {
            self.ground.status.unknown(1);
            return self.split(work, batch, fault).await;
        }
        work.not_before = is_left.then(|| now + self.target.breaker.pause_after(work.attempts));
        work.attempts += 1;
        work.members = Vec::new();
        self.note_left(&work);
        self.retry.insert(work.first, work);
    }

    /// Whether a batch is refused as a whole by a destination that takes others: it waits by itself then, and the destination is
    /// not blamed for it.
    fn is_left(&self, work: &Work, fault: &Fault) -> bool {
        let is_asked_to_wait = fault.retry_after.is_some();
        let is_passed = work.refused_at.is_some_and(|at| self.taken_at.is_some_and(|taken| taken > at));
        !self.target.traits.ordered && is_answer(fault) && !is_asked_to_wait && (work.left.is_some() || is_passed)
    }

    /// Gives a batch up that was tried often enough, or was left behind for too long by a destination that is well; returns
    /// whether it did, or will once its dead letters can be kept.
    async fn gave_up(&mut self, work: &mut Work, batch: &OutBatch, fault: &Fault) -> bool {
        let attempts = work.attempts + 1;
        let exhausted = self.target.spec.settings.attempts_max.is_some_and(|max| attempts >= max);
        let ordered = self.target.traits.ordered;
        let closed = self.target.breaker.closed_since();
        // Where the record of what is resolved above the cursor is full, nothing else is tried before them either.
        let alone = ordered || self.is_record_full();
        let well = closed.map(|(since, taken)| (since, if alone { Instant::now() } else { taken }));
        let left_behind = work.left.as_mut().is_some_and(|left| {
            left.count(well);
            left.counted >= LEFT_BEHIND_MAX
        });
        let give_up = exhausted || (left_behind && well.is_some());
        if !give_up {
            return false;
        }
        if !self.reject_all(work, batch, &format!("given up after {attempts} attempts: {fault}")).await {
            let work = std::mem::replace(work, Work::again(0, 0, "".into()));
            let unkept = work.members.iter().filter(|seq| !self.progress.is_resolved(**seq)).count();
            self.put_off(work, unkept as u64);
        }
        true
    }
}
