//! The batch that is being made of a connection's lines.
//!
//! Guarantees: memory is leased before it is there. Must not know: who sends, and where batches end.

use spillway_delivery::event::Arenas;
use tokio::time::Instant;
use xxhash_rust::xxh3::Xxh3;

use super::limits::BATCH_FIRST_BYTES;
use crate::sources::pushed::budget::{Budget, Lease, NoRoom};
use crate::sources::pushed::events::Events;

/// A batch that is not ended.
pub(super) struct Batch {
    /// Its events, and what is wrong with others.
    pub(super) events: Events,
    /// When its first line came.
    pub(super) since: Option<Instant>,
    /// Bytes of its lines.
    pub(super) bytes: usize,
    hash: Box<Xxh3>,
    lease: Lease,
}

impl Batch {
    /// Returns an empty batch.
    pub(super) fn new(budget: &Budget) -> Self {
        Self { events: Events::default(), since: None, bytes: 0, hash: Box::default(), lease: budget.lease(None) }
    }

    /// Returns whether no line is in it.
    pub(super) fn is_empty(&self) -> bool {
        self.since.is_none()
    }

    /// Makes room for a line of so many bytes.
    pub(super) async fn make_room(&mut self, bytes: usize, arenas: &Arenas) -> Result<(), NoRoom> {
        let payload = &mut self.events.payload;
        // An event is never longer than its line.
        let needed = payload.len() + bytes + 1;
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

    /// Adds a line for which there is room.
    pub(super) fn push(&mut self, line: &[u8], number: u64) {
        self.begin(line.len());
        self.hash.update(line);
        self.hash.update(b"\n");
        self.events.push_line(line, number as usize);
    }

    /// Adds that a line was too long.
    pub(super) fn push_too_large(&mut self, bytes: usize, number: u64) {
        self.begin(0);
        self.hash.update(&(bytes as u64).to_le_bytes());
        self.events.push_too_large(bytes, number as usize);
    }

    /// Returns what tells the lines of two batches apart.
    pub(super) fn digest(&self) -> u128 {
        self.hash.digest128()
    }

    /// Ends the batch. The second is to be kept until the first is gone.
    pub(super) fn end(self) -> (Events, Lease) {
        (self.events, self.lease)
    }

    fn begin(&mut self, bytes: usize) {
        self.since.get_or_insert_with(Instant::now);
        self.bytes += bytes + 1;
    }
}
