//! What all senders at one listener share, and how what they sent is kept.
//!
//! # Expected flow
//! A batch is offered to the pipelines until they have it. Who sent it is not read from meanwhile: a sender of syslog is told
//! nothing, so that its own queue is the only place where its messages are safe.
//!
//! # Guarantees
//! - Only a stop gives up a batch. What is in it then is counted as lost, and told.
//! - A listener without a pipeline waits as for one that takes nothing now.
//!
//! # Caveats
//! With several pipelines of which one log fails after another took a batch, it is offered again: the first may have it twice.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use spillway_delivery::clock::Clock;
use spillway_delivery::event::Arenas;
use spillway_delivery::intake::SubmitError;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::batch::Batch;
use super::decode::{Decoded, Malformed};
use super::limits::{BATCHES_BYTES_MAX, LONG_BYTES_MAX, Limit, RETRY_EVERY_MAX, RETRY_EVERY_MIN, TOLD_EVERY};
use super::stats::{Figure, Now, SyslogStats};
use crate::sources::pushed::budget::Budget;
use crate::sources::pushed::own_pod::OwnPod;
use crate::sources::pushed::sender::{Sender, Way};
use crate::sources::pushed::targets::{Door, PushTargets, Submission, select};

/// Who sends.
pub(super) enum Senders {
    /// Whoever gets here.
    Anybody(Sender),
    /// The pod that this is the sidecar of.
    OwnPod(OwnPod, PushTargets),
}

impl Senders {
    /// Returns whoever gets here.
    pub(super) fn anybody() -> Self {
        Self::Anybody(Sender::anybody(Way::Syslog, Way::Syslog.as_str()))
    }
}

/// What every sender needs.
pub(super) struct Shared {
    /// As metrics and the agent's log name it.
    pub(super) listener: &'static str,
    pub(super) door: Box<dyn Door>,
    pub(super) clock: Clock,
    pub(super) stats: Arc<SyslogStats>,
    senders: Senders,
    /// For messages longer than a read buffer.
    pub(super) long: Budget,
    /// For batches.
    pub(super) batches: Budget,
    pub(super) arenas: Arenas,
    told: Mutex<[Option<Instant>; 3]>,
}

/// What is told in the agent's log, each at most once in [`TOLD_EVERY`].
#[derive(Debug, Clone, Copy)]
enum Told {
    Malformed,
    Waiting,
    Lost,
}

/// Why a batch is not kept.
struct Refusal {
    code: &'static str,
    message: String,
    retry_after: Duration,
}

impl Refusal {
    fn of(error: &SubmitError) -> Self {
        let (code, retry_after) = match error {
            SubmitError::Refused { reason, retry_after, .. } => (reason.as_str(), *retry_after),
            SubmitError::Unknown { .. } => ("unknown", RETRY_EVERY_MAX),
            // Batches of syslog have no keys.
            SubmitError::KeyReused => ("key_reused", RETRY_EVERY_MAX),
        };
        Self { code, message: error.to_string(), retry_after }
    }
}

impl Shared {
    /// Returns what senders through `door` need.
    pub(super) fn new(
        listener: &'static str,
        door: Box<dyn Door>,
        (clock, stats): (Clock, Arc<SyslogStats>),
        senders: Senders,
    ) -> Self {
        let (long, batches) = (Budget::new(LONG_BYTES_MAX, 0), Budget::new(BATCHES_BYTES_MAX, 0));
        let (arenas, told) = (Arenas::default(), Mutex::default());
        Self { listener, door, clock, stats, senders, long, batches, arenas, told }
    }

    /// Counts a connection, as open until what is returned is dropped.
    pub(super) fn opened(&self) -> Now {
        self.stats.add(Figure::Connections, 1);
        self.stats.now(Figure::OpenConnections)
    }

    /// Counts what was wrong with a message, and tells of it.
    pub(super) fn decoded(&self, decoded: Decoded) {
        for one in decoded.malformed() {
            self.stats.add_kind(one, 1);
            if one == Malformed::TooLong {
                self.stats.limited(Limit::MessageBytes);
            }
        }
        if decoded != Decoded::default() && self.may_tell(Told::Malformed) {
            let why = decoded.malformed().next().map(Malformed::as_str);
            tracing::warn!(listener = self.listener, why, "malformed messages");
        }
    }

    /// Has the pipelines keep a batch, however long they take; returns whether they did. Only a stop ends the wait.
    pub(super) async fn keep(&self, batch: Batch, stop: &CancellationToken) -> bool {
        let Batch { payload, ends, lease, .. } = batch;
        let (events, bytes) = (ends.len() as u64, payload.len() as u64);
        let payload = self.arenas.seal(payload);
        let submission = Submission { payload, ends, received: self.clock.now(), key: None };
        let mut waiting = None;
        loop {
            let Err(refusal) = self.offer(&submission).await else { break };
            if stop.is_cancelled() {
                self.lost(events, &refusal);
                return false;
            }
            if waiting.is_none() {
                waiting = Some(self.stats.now(Figure::WaitingSenders));
                self.stats.refused(refusal.code);
                if self.may_tell(Told::Waiting) {
                    tracing::warn!(listener = self.listener, why = refusal.message, "senders wait");
                }
            }
            let pause = refusal.retry_after.clamp(RETRY_EVERY_MIN, RETRY_EVERY_MAX);
            stop.run_until_cancelled(tokio::time::sleep(pause)).await;
        }
        drop(lease);
        for (figure, by) in [(Figure::Batches, 1), (Figure::AcceptedEvents, events), (Figure::AcceptedBytes, bytes)] {
            self.stats.add(figure, by);
        }
        true
    }

    async fn offer(&self, submission: &Submission) -> Result<(), Refusal> {
        let early = |message: &str| Refusal { code: "starting", message: message.into(), retry_after: RETRY_EVERY_MAX };
        let sender = match &self.senders {
            Senders::Anybody(sender) => sender.clone(),
            Senders::OwnPod(pod, targets) => pod.sender(Way::Syslog, targets).map_err(early)?,
        };
        let selection = select(&self.door.names(&sender), None).map_err(|why| Refusal {
            code: why.code,
            message: why.message,
            retry_after: RETRY_EVERY_MAX,
        })?;
        let submitted = self.door.submit(&sender, selection, submission.clone()).await;
        submitted.map(drop).map_err(|error| Refusal::of(&error))
    }

    fn lost(&self, events: u64, why: &Refusal) {
        self.stats.add(Figure::LostEvents, events);
        self.stats.refused(why.code);
        if self.may_tell(Told::Lost) {
            tracing::warn!(listener = self.listener, events, why = why.message, "messages are lost");
        }
    }

    fn may_tell(&self, what: Told) -> bool {
        let told = &mut self.told.lock().unwrap_or_else(PoisonError::into_inner)[what as usize];
        let may = told.is_none_or(|told| told.elapsed() >= TOLD_EVERY);
        if may {
            *told = Some(Instant::now());
        }
        may
    }
}
