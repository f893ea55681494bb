//! What came back becomes progress.

use std::time::Duration;

use tokio::time::Instant;

use super::PROBE_BYTES;
use super::batches::{Work, halve};
use super::delivery::{Delivery, Landed};
use crate::backend::{Fault, FaultKind, Items, OutBatch, OutEvent, Outcome};

/// How long events may be refused that siblings of theirs were taken without: then they are dead letters.
const LEFT_BEHIND_MAX: Duration = Duration::from_secs(600);

/// What the items of a batch came to.
#[derive(Default)]
struct Tally {
    delivered: u64,
    duplicates: u64,
    retry: u64,
    delivered_bytes: usize,
}

impl Delivery {
    pub(super) async fn settle(&mut self, landed: Landed, in_flight: usize) {
        let Landed { work, batch, result, .. } = landed;
        let mut delivered_bytes = 0;
        match result {
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
        self.ground.status.landed(in_flight, delivered_bytes);
        if !self.traits.commits {
            self.ground.status.show(&self.progress);
        }
    }

    /// Every member of a range has come to its end.
    pub(super) fn resolved(&mut self, work: &Work) {
        self.progress.resolve(work.first, work.end);
        self.progress.plans.retain(|plan| plan.key != work.key);
        self.dirty_since.get_or_insert_with(Instant::now);
    }

    fn succeeded(&mut self) {
        self.backoff.succeeded();
        self.wait_until = None;
        self.probing = false;
        self.batch_bytes = (self.batch_bytes * 4).min(self.spec.settings.batch_bytes_max);
        if self.ground.status.succeeded() {
            tracing::info!(route = %self.key.route, backend = %self.spec.backend_name, "backend takes events again");
        }
    }

    /// Notes a fault of the backend as a whole: one line when that is a change, and a wait.
    pub(super) fn failed(&mut self, fault: &Fault) -> Duration {
        let wait = self.backoff.failed(fault.retry_after);
        self.wait_until = Some(Instant::now() + wait);
        self.probing = true;
        self.batch_bytes = PROBE_BYTES.min(self.spec.settings.batch_bytes_max);
        if self.ground.status.failed(fault) {
            tracing::warn!(
                route = %self.key.route, backend = %self.spec.backend_name, kind = fault.kind.as_str(), error = %fault,
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
        for (event, outcome) in batch.events().zip(outcomes) {
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
                Outcome::Rejected(reason) => self.reject(event, &reason).await,
            }
            self.progress.resolve(event.id.seq, event.id.seq + 1);
        }
        self.progress.delivered += tally.delivered;
        self.progress.duplicates += tally.duplicates;
        let all_waiting = tally.retry as usize == batch.len();
        if tally.retry == 0 {
            self.resolved(&work);
        } else {
            // What is left is another batch: other members, another key.
            self.progress.plans.retain(|plan| plan.key != work.key);
            let key = if all_waiting { work.key.clone() } else { format!("{}p{}", work.key, tally.retry).into() };
            let left_since = work.left_since.or((!all_waiting).then(Instant::now));
            let rest = Work { key, attempts: work.attempts + 1, left_since, members: Vec::new(), ..work };
            self.retry.insert(rest.first, rest);
        }
        if tally.retry > 0 {
            let text = format!("{} of {} events were not taken now", tally.retry, batch.len());
            self.failed(&Fault::new(FaultKind::Throttled, text));
        } else {
            self.succeeded();
        }
        tally.delivered_bytes
    }

    async fn reject(&mut self, event: OutEvent<'_>, reason: &str) {
        let kept = self.ground.dead_letters.keep(event, &self.spec.backend_name, &self.key.route, reason).await;
        if kept {
            self.progress.rejected += 1;
        } else {
            *self.progress.dropped.entry("dead_letters_full".into()).or_default() += 1;
        }
        if self.progress.rejected + self.progress.dropped.values().sum::<u64>() == 1 {
            tracing::warn!(
                route = %self.key.route, backend = %self.spec.backend_name, reason,
                "first event refused for good; such events go to the dead letters"
            );
        }
    }

    /// The batch is too large for the backend: two halves, or an event that never fits.
    async fn split(&mut self, work: Work, batch: &OutBatch, fault: &Fault) {
        if let Some((left, right)) = halve(&work) {
            self.progress.plans.retain(|plan| plan.key != work.key);
            self.retry.insert(left.first, left);
            self.retry.insert(right.first, right);
            return;
        }
        for event in batch.events() {
            self.reject(event, fault.message.as_ref()).await;
        }
        self.resolved(&work);
    }

    async fn again(&mut self, mut work: Work, batch: &OutBatch, fault: &Fault) {
        work.attempts += 1;
        self.failed(fault);
        let exhausted = self.spec.settings.attempts_max.is_some_and(|max| work.attempts >= max);
        let left_behind = work.left_since.is_some_and(|since| since.elapsed() >= LEFT_BEHIND_MAX);
        if exhausted || left_behind {
            for event in batch.events() {
                self.reject(event, &format!("given up after {} attempts: {fault}", work.attempts)).await;
            }
            self.resolved(&work);
            return;
        }
        work.members = Vec::new();
        self.retry.insert(work.first, work);
    }
}
