//! The batch that is being made of messages.
//!
//! Guarantees: memory is leased before it is there. Must not know: who sends, and where batches end.

use spillway_delivery::event::Arenas;
use tokio::time::Instant;

use super::decode::{self, About, Decoded, event_bytes_max};
use super::limits::BATCH_FIRST_BYTES;
use crate::sources::pushed::budget::{Budget, Lease, NoRoom};

/// A batch that is not ended.
pub(super) struct Batch {
    /// Its events, each with its line break.
    pub(super) payload: Vec<u8>,
    /// Where each ends.
    pub(super) ends: Vec<u32>,
    /// When its first message came.
    pub(super) since: Option<Instant>,
    /// To be kept until the events are gone.
    pub(super) lease: Lease,
}

impl Batch {
    /// Returns an empty batch.
    pub(super) fn new(budget: &Budget) -> Self {
        Self { payload: Vec::new(), ends: Vec::new(), since: None, lease: budget.lease(None) }
    }

    /// Returns whether no event is in it.
    pub(super) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Returns whether it has so many bytes or events.
    pub(super) fn has(&self, bytes: usize, events: usize) -> bool {
        self.payload.len() >= bytes || self.ends.len() >= events
    }

    /// Makes room for the event of a message of so many bytes.
    pub(super) async fn make_room(&mut self, message_bytes: usize, arenas: &Arenas) -> Result<(), NoRoom> {
        let payload = &mut self.payload;
        let needed = payload.len() + event_bytes_max(message_bytes);
        if needed <= payload.capacity() {
            return Ok(());
        }
        let capacity = needed.max(2 * payload.capacity()).max(BATCH_FIRST_BYTES);
        self.lease.grow(capacity - payload.capacity()).await?;
        if payload.capacity() == 0 {
            *payload = arenas.take(capacity);
        } else {
            payload.reserve_exact(capacity - payload.len());
        }
        Ok(())
    }

    /// Adds the event of a message for which there is room.
    pub(super) fn push(&mut self, message: &[u8], about: &About<'_>) -> Decoded {
        self.since.get_or_insert_with(Instant::now);
        let decoded = decode::decode(message, about, &mut self.payload);
        self.ends.push(self.payload.len() as u32);
        decoded
    }
}
