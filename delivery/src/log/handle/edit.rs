//! Edits of a log that stays open, and the end of one that goes.
//!
//! # Guarantees
//! An edit has a place in the queue: what was queued before it is written under the old table and level, what is queued
//! behind it under the new ones. It needs no room and no working disk.

use std::io;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::{Answer, KeyClaim, Log, Pending, Refused, Reservation, Shared, Waiting};
use crate::intake::RefusalReason;
use crate::log::core::CoreEdit;
use crate::log::journal::{DeliveryKey, JournalError, Progress, Removed};
use crate::settings::{Durability, LogSettings};

/// An edit in the queue.
#[derive(Debug)]
pub(super) struct Order {
    /// Behind so many queued batches.
    after: u64,
    pub(super) edit: CoreEdit,
    settings: LogSettings,
    pub(super) reply: oneshot::Sender<u64>,
}

/// A batch in the queue, for whoever wants to know when it has reached the log's level.
#[derive(Debug)]
pub(crate) struct Receipt {
    reply: oneshot::Receiver<Result<(), Refused>>,
    reservation: Reservation,
}

impl Receipt {
    /// Returns when the batch has reached the log's level.
    ///
    /// # Cancel safety
    /// The batch may be kept although the caller went away.
    pub(crate) async fn wait(self) -> Result<(), Refused> {
        let result = self.reply.await;
        drop(self.reservation);
        result.unwrap_or(Err(Refused { reason: RefusalReason::Stopping, maybe_kept: true, room_soon: false }))
    }
}

impl Log {
    /// Queues a batch whose bytes were reserved, with the claim of its key. It is kept although its sender goes away.
    pub(crate) fn enqueue(&self, reservation: Reservation, pending: Pending, claim: Option<KeyClaim>) -> Receipt {
        let (reply, receipt) = oneshot::channel();
        let mut shared = self.shared();
        shared.queue.push_back(Waiting { pending, bytes: reservation.bytes, answer: Answer { reply, claim } });
        shared.queued += 1;
        drop(shared);
        self.inner.work.notify_one();
        Receipt { reply: receipt, reservation }
    }

    /// Queues an edit: other routes, other settings. The answer is the sequence it begins at; none comes when the log has
    /// ended.
    pub fn edit(&self, routes: Arc<[Arc<str>]>, settings: &LogSettings) -> oneshot::Receiver<u64> {
        let (reply, begun) = oneshot::channel();
        let edit = CoreEdit { routes, durability: settings.durability, bytes_max: settings.bytes_max };
        let mut shared = self.shared();
        let after = shared.queued;
        shared.edits.push_back(Order { after, edit, settings: settings.clone(), reply });
        drop(shared);
        self.inner.work.notify_one();
        begun
    }

    /// Saves what several deliveries have resolved, for good, by one sync.
    pub(crate) async fn save_all(&self, all: Vec<(DeliveryKey, Progress)>) -> Result<(), JournalError> {
        let Some(seq) = all.iter().map(|(_, progress)| progress.seq_min()).max() else { return Ok(()) };
        if self.durability() != Durability::Memory {
            self.sync_to(seq).await.map_err(JournalError::Write)?;
        }
        let floors: Vec<_> = all.iter().map(|(key, progress)| (key.clone(), progress.cursor)).collect();
        let log = self.clone();
        let saved = tokio::task::spawn_blocking(move || {
            let mut journal = log.journal();
            all.iter().try_for_each(|(key, progress)| journal.save(key, progress, false))?;
            journal.sync()
        });
        saved.await.unwrap_or_else(|error| Err(JournalError::Write(io::Error::other(error))))?;
        floors.iter().for_each(|(key, cursor)| self.set_floor(key, *cursor));
        Ok(())
    }

    /// Stores that references are removed, or are not any more, at the log's level: by one sync, however many they are.
    pub(crate) async fn set_removed(
        &self,
        keys: Vec<DeliveryKey>,
        removed: Option<Removed>,
    ) -> Result<(), JournalError> {
        if keys.is_empty() {
            return Ok(());
        }
        let sync = self.durability() == Durability::Disk;
        let log = self.clone();
        let stored = tokio::task::spawn_blocking(move || {
            let mut journal = log.journal();
            // What one says stands for itself: a failure keeps none from the others.
            let noted = keys.iter().map(|key| journal.set_removed(key, removed, false));
            noted.fold(Ok(()), Result::and)?;
            if sync { journal.sync() } else { Ok(()) }
        });
        stored.await.unwrap_or_else(|error| Err(JournalError::Write(io::Error::other(error))))
    }

    /// Ends the committer, which writes what is queued first, and waits for its end.
    pub(crate) async fn end(&self) {
        self.inner.stop.cancel();
        self.inner.ended.cancelled().await;
    }
}

impl Shared {
    /// Returns the edit that stands before the next batch, its settings taken over.
    pub(super) fn take_edit(&mut self) -> Option<Order> {
        let order = self.edits.pop_front_if(|order| order.after <= self.taken)?;
        self.settings = order.settings.clone();
        let unsynced = self.unsynced && self.settings.durability != Durability::Process;
        let unwritten = self.memory.disk_bytes > 0 && self.settings.durability != Durability::Memory;
        if unsynced || unwritten {
            self.sync_wanted = u64::MAX;
        }
        // Retention or quota may have shrunk.
        self.free_wanted = true;
        Some(order)
    }

    /// Returns how many batches may be taken before the next edit.
    pub(super) fn until_edit(&self) -> u64 {
        self.edits.front().map_or(u64::MAX, |order| order.after - self.taken)
    }
}
