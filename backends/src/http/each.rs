//! One request per event, for endpoints that take one at a time.
//!
//! # Guarantees
//! - The events of a batch go one after the other, in order: at most `maxInFlight` requests are under way at once, and
//!   the setting means what it says.
//! - What was answered is not asked again: a batch that is cut off half-way (a timeout, say) goes on where it was when it
//!   comes again in the same process, so a slow server costs time and never the same work twice.
//! - One event that the server fails at does not hold up the others: the batch goes on, until [`BROKEN_MAX`] of it failed.
//!
//! # Limits
//! [`BATCH_EVENTS_MAX`] events per batch, so that several are under way and one ends well within its timeout. The memory
//! of answered events is that of [`REMEMBERED_MAX`] ids.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use spillway_delivery::backend::{Fault, FaultKind, Items, OutBatch, Outcome};
use spillway_delivery::event::EventId;

/// Most events of one batch: with 30 s per attempt each answer may take nearly 2 s.
pub(crate) const BATCH_EVENTS_MAX: usize = 16;

/// Most events whose answer is remembered: 64 batches, as many as can be under way.
const REMEMBERED_MAX: usize = 64 * BATCH_EVENTS_MAX;

/// Answers of a broken server after which the rest of a batch is left for the next attempt.
const BROKEN_MAX: usize = 3;

/// The events that were delivered in batches that did not come to their end.
#[derive(Debug, Default)]
pub(crate) struct Each {
    delivered: Mutex<BTreeSet<EventId>>,
}

impl Each {
    /// Sends each event of `batch` by `ask` with its body of `bodies`; a body that cannot be made rejects its event.
    ///
    /// # Cancel safety
    /// What was answered is remembered.
    pub(crate) async fn send<'a>(
        &self,
        batch: &OutBatch,
        bodies: impl Iterator<Item = Result<Bytes, Box<str>>> + Send,
        ask: impl Fn(EventId, Bytes) -> BoxFuture<'a, Result<Outcome, Fault>> + Send + Sync,
    ) -> Result<Items, Fault> {
        let mut outcomes = Vec::with_capacity(batch.len());
        let (mut last, mut broken) = (None, 0);
        for (id, body) in batch.events().map(|event| event.id).collect::<Vec<_>>().into_iter().zip(bodies) {
            let outcome = match body {
                _ if self.lock().contains(&id) => Ok(Outcome::Delivered),
                Ok(body) => ask(id, body).await,
                Err(reason) => Ok(Outcome::Rejected(reason)),
            };
            match outcome {
                Ok(outcome) => {
                    if outcome == Outcome::Delivered {
                        self.remember(id);
                    }
                    outcomes.push(outcome);
                }
                Err(fault) => {
                    broken += usize::from(fault.kind == FaultKind::Broken);
                    let goes_on = fault.kind == FaultKind::Broken && broken < BROKEN_MAX;
                    last = Some(fault);
                    outcomes.push(Outcome::Retry);
                    if !goes_on {
                        break;
                    }
                }
            }
        }
        self.forget(batch);
        match last {
            Some(fault) if outcomes.iter().all(|outcome| *outcome == Outcome::Retry) => Err(fault),
            _ => {
                outcomes.resize(batch.len(), Outcome::Retry);
                Ok(Items::Each(outcomes))
            }
        }
    }

    fn remember(&self, id: EventId) {
        let mut delivered = self.lock();
        if delivered.len() >= REMEMBERED_MAX {
            delivered.clear();
        }
        delivered.insert(id);
    }

    fn forget(&self, batch: &OutBatch) {
        let mut delivered = self.lock();
        for event in batch.events() {
            delivered.remove(&event.id);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<EventId>> {
        self.delivered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
