//! The one door out: what every destination implements, and what the engine guarantees it.
//!
//! # Expected flow
//! [`Backend::open`] once with the mark of the last commit, then [`Backend::send`] for batch after batch, up to
//! `in_flight_max` at a time ([`Traits::ordered`]: one at a time), [`Backend::commit`] whenever the cursor shall be made
//! durable, [`Backend::close`] at the end. A backend that was closed may be opened again.
//!
//! # The engine guarantees
//! - A batch is never empty; its events are in the order of the log; a retry of a planned batch has the same members, the
//!   same bytes and the same [`OutBatch::key`].
//! - Back-off, `Retry-After`, timeouts, concurrency, the ledger, cursors and dead letters are its business: a backend
//!   encodes and sends, once, and tells the truth about each item.
//! - `send` may be cancelled at any await (timeout, shutdown). What was then on its way counts as unknown, and the batch
//!   is sent again.
//!
//! # A backend guarantees
//! - It never reports `Delivered` for what it cannot vouch for; with [`Traits::commits`] it vouches only at `commit`.
//! - Nothing secret is in a [`Fault`].
//! - It never panics on what the other side says.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;

mod out_batch;

pub use out_batch::{EventTail, Form, OutBatch, OutBatchBuilder, OutEvent, OutRun, Pieces};

/// What became of one item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The destination has it.
    Delivered,
    /// The destination had it already; counts as success.
    Duplicate,
    /// Not taken now; the same item may be taken later.
    Retry,
    /// Never will be taken; the text says why, in one line, nothing secret in it.
    Rejected(Box<str>),
}

/// What became of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Items {
    /// The same for every item.
    All(Outcome),
    /// One outcome per item, in the batch's order.
    Each(Vec<Outcome>),
}

/// Whose fault a failed attempt is: policy is data, not text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FaultKind {
    /// No connection: refused, reset, name not found, TLS not agreed.
    Unreachable,
    /// No answer in time.
    Timeout,
    /// The destination asks for less (429, 503, queue full).
    Throttled,
    /// Credentials refused (401, 403).
    Unauthorized,
    /// The destination is broken (500 and the like) or answers what it must not.
    Broken,
    /// The batch is too large for it: the engine halves it.
    TooLarge,
    /// This machine does not connect there: its rules forbid the address.
    Forbidden,
    /// This machine: disk full, file not writable, bad configuration.
    Local,
}

impl FaultKind {
    /// Returns the kind as metric label and status state.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::Throttled => "throttled",
            Self::Unauthorized => "unauthorized",
            Self::Broken => "broken",
            Self::TooLarge => "too_large",
            Self::Forbidden => "forbidden",
            Self::Local => "local",
        }
    }
}

/// Why an attempt failed as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Whose fault, and so what to do.
    pub kind: FaultKind,
    /// One line for people: lower case, no final period, nothing secret, at most 256 bytes.
    pub message: Box<str>,
    /// How long the destination asked to be left alone.
    pub retry_after: Option<Duration>,
    /// Whether the destination may have taken the batch, or some of it, all the same: it was sent, and no answer says that it
    /// was refused.
    pub may_be_there: bool,
}

impl Fault {
    /// Returns a fault; `message` is cut to one line of 256 bytes. Without an answer in time, and with one that is broken, the
    /// batch may be there; with the other kinds it is not, unless it is said.
    pub fn new(kind: FaultKind, message: impl fmt::Display) -> Self {
        let may_be_there = matches!(kind, FaultKind::Timeout | FaultKind::Broken);
        Self { kind, message: one_line(&message.to_string()).into(), retry_after: None, may_be_there }
    }

    /// Returns the fault of an attempt that the destination may have taken, or not.
    #[must_use]
    pub fn maybe_there(self, may_be_there: bool) -> Self {
        Self { may_be_there, ..self }
    }
}

/// Returns `text` without control characters, cut to 256 bytes.
pub(crate) fn one_line(text: &str) -> String {
    let mut line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if line.len() > 256 {
        let end = (0..=256).rev().find(|&end| line.is_char_boundary(end)).unwrap_or(0);
        line.truncate(end);
    }
    line
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

/// Where a backend stood at a commit, opaque to the engine, stored with the cursor; at most 64 KiB.
pub type Mark = Bytes;

/// What the engine must know of a backend.
#[expect(clippy::struct_excessive_bools, reason = "independent facts; each backend names those that hold")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traits {
    /// Keeps the order of the log: the engine sends one batch at a time.
    pub ordered: bool,
    /// The destination recognises a repeat by [`OutBatch::key`]: the batch is planned durably before its first attempt.
    pub keyed: bool,
    /// How the bytes of a batch are made, and what they are called, as a number: another one, and the same batch under the
    /// same key would be other bytes. 0: always in the same way. Counts where [`Traits::keyed`] holds.
    pub encoding: u64,
    /// Delivery is provisional until [`Backend::commit`] returned a mark.
    pub commits: bool,
    /// On this machine, so that a small batch costs no more per event: none waits to fill up.
    pub local: bool,
    /// Most events of one batch, whatever the settings say; `None` leaves it to them.
    pub batch_events_max: Option<usize>,
}

/// A destination. One required method.
pub trait Backend: Send + Sync + fmt::Debug + 'static {
    /// Sends one batch, once, and says what became of it. `Err` is a fault of the attempt as a whole: nothing is known to
    /// have been taken.
    ///
    /// # Cancel safety
    /// May be cancelled at any await; the engine then sends the same batch again.
    fn send<'a>(&'a self, batch: &'a OutBatch) -> BoxFuture<'a, Result<Items, Fault>>;

    /// Returns what the engine must know; the same for the whole life.
    fn traits(&self) -> Traits {
        Traits::default()
    }

    /// Goes back to where `mark` says; what came after it will be sent again. `None` at the very first start.
    fn open(&self, mark: Option<Mark>) -> BoxFuture<'_, Result<(), Fault>> {
        drop(mark);
        Box::pin(async { Ok(()) })
    }

    /// Makes everything delivered so far durable and returns where that is.
    fn commit(&self) -> BoxFuture<'_, Result<Option<Mark>, Fault>> {
        Box::pin(async { Ok(None) })
    }

    /// Returns where everything delivered so far stands, written but not necessarily safe from power loss; what a log at
    /// level `Process` asks for between its syncs. Cheap where it can be.
    fn checkpoint(&self) -> BoxFuture<'_, Result<Option<Mark>, Fault>> {
        self.commit()
    }

    /// Says goodbye: closes what is open. After the last commit.
    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}

/// Who a backend works for: one delivery of one agent. Names files and keys, so that two never meet.
#[derive(Debug, Clone)]
pub struct DeliveryName {
    /// The namespace of the pipeline.
    pub namespace: Arc<str>,
    /// The pipeline.
    pub pipeline: Arc<str>,
    /// Its route.
    pub route: Arc<str>,
    /// The backend as the route names it.
    pub backend: Arc<str>,
    /// The agent: random, drawn once per data directory.
    pub agent: Arc<str>,
}
