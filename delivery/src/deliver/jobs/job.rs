//! What a job is, as it is stored and as it is told.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::clock::UnixNanos;
use crate::deliver::dead_letters::{ROUTE, Selection};
use crate::log::{DeliveryKey, Progress, Removed};

/// What distinguishes the key of a job from that of a delivery: no backend's uid begins so.
const KEY_PREFIX: &str = "job:";

/// What a job reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum JobKind {
    /// Dead letters of one route and backend.
    Redrive,
    /// A range of the log, with the mask of one route.
    Replay,
}

/// How a job came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum JobEnd {
    /// Everything that was selected is resolved.
    Done,
    /// It was told to end, or can have its backend no more.
    Cancelled,
}

/// A bounded delivery beside those of the configuration. What it has resolved is a cursor in the log it reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Job {
    /// Unique within the agent: 8 hexadecimal digits.
    pub id: String,
    /// What it reads.
    pub kind: JobKind,
    /// When it was asked for, wall time.
    pub created: UnixNanos,
    /// The route whose events it sends.
    pub route: Arc<str>,
    /// The backend it sends to, as a route names it.
    pub backend: Arc<str>,
    /// Which letters, of a redrive.
    #[serde(default)]
    pub selection: Selection,
    /// First sequence of its log.
    pub from: u64,
    /// Behind its last sequence.
    pub end: u64,
    /// Events that were there when it began.
    pub selected: u64,
    /// Set when it was told to end.
    #[serde(default)]
    pub cancelled: bool,
    /// Why it ends, where nobody told it to.
    #[serde(default)]
    pub fails_for: Option<String>,
    /// What became of it, when it is over.
    #[serde(default)]
    pub outcome: Option<Outcome>,
}

/// What became of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// How it ended.
    pub end: JobEnd,
    /// When, wall time.
    pub ended: UnixNanos,
    /// Events the backend has.
    pub delivered: u64,
    /// Events it had already.
    pub duplicates: u64,
    /// Events it refused for good: dead letters.
    pub rejected: u64,
    /// Events given up.
    pub dropped: u64,
    /// Why it ended with events left, where nobody told it to.
    #[serde(default)]
    pub reason: Option<String>,
}

impl Job {
    /// Names its cursor.
    pub(in crate::deliver) fn key(&self) -> DeliveryKey {
        let route = match self.kind {
            JobKind::Redrive => ROUTE.into(),
            JobKind::Replay => self.route.clone(),
        };
        DeliveryKey { route, backend_uid: format!("{KEY_PREFIX}{}", self.id).into() }
    }

    /// Returns where it begins.
    pub(in crate::deliver) fn beginning(&self, running_ms: u64) -> Progress {
        let removed = Some(Removed { since_ms: running_ms, end_seq: self.end });
        Progress { cursor: self.from, removed, ..Progress::default() }
    }

    /// Whether it is to end before everything is resolved.
    pub(in crate::deliver) fn is_told_to_end(&self) -> bool {
        self.cancelled || self.fails_for.is_some()
    }

    /// Whether two jobs could mean the same letter.
    pub(in crate::deliver) fn shares_letters(&self, other: &Selection) -> bool {
        self.kind == JobKind::Redrive
            && self.outcome.is_none()
            && (&self.selection.route, &self.selection.backend) == (&other.route, &other.backend)
    }
}

/// Whether a key is that of a job.
pub(in crate::deliver) fn is_job(key: &DeliveryKey) -> bool {
    key.backend_uid.starts_with(KEY_PREFIX)
}
