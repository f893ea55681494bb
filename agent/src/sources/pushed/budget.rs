//! The memory that all senders of a listener share.
//!
//! Guarantees: what is leased is given back by a drop, and nobody has more than its share. Must not know: what it is for.

use std::sync::Arc;
use std::time::Duration;

use spillway_delivery::event::BATCH_EVENTS_MAX;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How long who needs more waits for it.
pub(crate) const BUDGET_TIMEOUT: Duration = Duration::from_secs(1);

/// What an event costs beside its bytes until the log has it: where it ends, and the routes that want it.
pub(crate) const EVENT_EXTRA_BYTES: usize = 4 + 8;

/// Most bytes of that for all bodies in memory: what one body of as many events as there may be needs.
pub(crate) const EVENTS_EXTRA_BYTES_MAX: usize = BATCH_EVENTS_MAX * EVENT_EXTRA_BYTES;

/// Why there is no memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoRoom {
    /// It is more than one sender ever has.
    Share,
    /// The sender has as much under way.
    ShareNow,
    /// All together have as much under way.
    Now,
}

/// The memory.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    bytes: Arc<Semaphore>,
    events: Arc<Semaphore>,
    share_bytes_max: usize,
}

impl Budget {
    /// Returns a budget of `bytes`, of which a sender with a share of its own has at most `share_bytes_max`.
    pub(crate) fn new(bytes: usize, share_bytes_max: usize) -> Self {
        let [bytes, events] = [bytes, EVENTS_EXTRA_BYTES_MAX].map(|bytes| Arc::new(Semaphore::new(bytes)));
        Self { bytes, events, share_bytes_max }
    }

    /// Returns how many bytes are left.
    #[cfg(test)]
    pub(crate) fn free_bytes(&self) -> usize {
        self.bytes.available_permits()
    }

    /// Returns a lease of nothing yet; of what it takes, as much is taken from `share`, the sender's own part.
    pub(crate) fn lease(&self, share: Option<Arc<Semaphore>>) -> Lease {
        let share = share.map(|share| (share, None));
        let (budget, events, share_bytes_max) = (self.bytes.clone(), self.events.clone(), self.share_bytes_max);
        Lease { budget, held: None, share, share_bytes_max, events, held_events: None }
    }
}

/// A part of the budget, given back when dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    budget: Arc<Semaphore>,
    held: Option<OwnedSemaphorePermit>,
    share: Option<(Arc<Semaphore>, Option<OwnedSemaphorePermit>)>,
    share_bytes_max: usize,
    events: Arc<Semaphore>,
    held_events: Option<OwnedSemaphorePermit>,
}

impl Lease {
    /// Takes `bytes` more, waiting at most [`BUDGET_TIMEOUT`] for each of the two. Says which was not there.
    ///
    /// # Cancel safety
    /// Nothing is taken by a call that did not return.
    pub(crate) async fn grow(&mut self, bytes: usize) -> Result<(), NoRoom> {
        let mut of_share = None;
        if let Some((share, held)) = &self.share {
            let own = held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
            if own + bytes > self.share_bytes_max {
                return Err(NoRoom::Share);
            }
            of_share = Some(acquire(share, bytes).await.ok_or(NoRoom::ShareNow)?);
        }
        let more = acquire(&self.budget, bytes).await.ok_or(NoRoom::Now)?;
        merge(&mut self.held, more);
        if let (Some((_, held)), Some(more)) = (&mut self.share, of_share) {
            merge(held, more);
        }
        Ok(())
    }

    /// Takes what `events` cost beside their bytes, in the same way; once, and last of all, so that nobody who holds some of
    /// it waits for more.
    pub(crate) async fn hold_events(&mut self, events: usize) -> Result<(), NoRoom> {
        self.held_events = Some(acquire(&self.events, events * EVENT_EXTRA_BYTES).await.ok_or(NoRoom::Now)?);
        Ok(())
    }
}

async fn acquire(budget: &Arc<Semaphore>, bytes: usize) -> Option<OwnedSemaphorePermit> {
    let bytes = u32::try_from(bytes).ok()?;
    tokio::time::timeout(BUDGET_TIMEOUT, budget.clone().acquire_many_owned(bytes)).await.ok()?.ok()
}

fn merge(held: &mut Option<OwnedSemaphorePermit>, more: OwnedSemaphorePermit) {
    match held {
        Some(held) => held.merge(more),
        None => *held = Some(more),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: usize = 100;
    const SHARE: usize = 25;

    #[tokio::test(start_paused = true)]
    async fn a_lease_is_given_back_and_waits_for_its_turn() {
        let budget = Budget::new(10, 10);
        let mut first = budget.lease(None);
        first.grow(4).await.unwrap();
        first.grow(5).await.unwrap();
        assert_eq!(budget.lease(None).grow(2).await, Err(NoRoom::Now));
        drop(first);
        budget.lease(None).grow(10).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn what_events_cost_beside_their_bytes_has_a_bound_of_its_own() {
        let budget = Budget::new(BYTES, SHARE);
        let (mut first, mut second) = (budget.lease(None), budget.lease(None));
        first.grow(BYTES / 2).await.unwrap();
        second.grow(BYTES / 2).await.unwrap();
        first.hold_events(BATCH_EVENTS_MAX).await.unwrap();
        assert_eq!(second.hold_events(1).await, Err(NoRoom::Now));
        drop(first);
        second.hold_events(BATCH_EVENTS_MAX).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn one_sender_takes_its_own_part_and_no_more() {
        let budget = Budget::new(BYTES, SHARE);
        let [one, other] = [(); 2].map(|()| Some(Arc::new(Semaphore::new(SHARE))));
        let mut first = budget.lease(one.clone());
        first.grow(SHARE - 1).await.unwrap();
        assert_eq!(first.grow(2).await, Err(NoRoom::Share), "it will never fit");
        assert_eq!(budget.lease(one.clone()).grow(2).await, Err(NoRoom::ShareNow), "it will when the first is gone");
        budget.lease(other).grow(SHARE).await.unwrap();
        // What the whole has no room for is given back to the part.
        let mut all = budget.lease(None);
        all.grow(BYTES - SHARE).await.unwrap();
        drop(first);
        let mut second = budget.lease(one.clone());
        all.grow(1).await.unwrap();
        assert_eq!(second.grow(SHARE).await, Err(NoRoom::Now));
        assert_eq!(one.unwrap().available_permits(), SHARE);
    }
}
