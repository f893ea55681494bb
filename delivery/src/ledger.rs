//! The conservation ledger, as it is told: figures read at one moment, for metrics, status and people.
//!
//! Per delivery: `routed = delivered + duplicates + rejected + elsewhere + dropped + held`. Per pipeline:
//! `accepted = dropped + unrouted + routed_any`, where `dropped` is what its transforms did not pass on. `held` is counted by scanning the log's masks against the cursor, never by
//! subtraction, so [`DeliveryReport::imbalance_events`] can tell the truth: it is 0, or something was counted twice or lost.
//! Counts are of the whole life of the log, across restarts.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::clock::UnixNanos;

/// One pipeline at one moment.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PipelineReport {
    /// The namespace of the manifest.
    pub namespace: Arc<str>,
    /// The name of the manifest.
    pub name: Arc<str>,
    /// Key of the log's directory.
    pub uid: Arc<str>,
    /// Whether it is told to rest.
    pub suspended: bool,
    /// Whether its manifest is gone: nothing is taken, what is held drains.
    #[serde(default)]
    pub removed: bool,
    /// Events that were accepted.
    pub accepted_events: u64,
    /// Accepted events that a transform dropped.
    #[serde(default)]
    pub dropped_events: u64,
    /// Accepted events that no route wanted; dropped, counted.
    pub unrouted_events: u64,
    /// Accepted events that at least one route wanted.
    pub routed_events: u64,
    /// Requests refused since the start, by reason (`full`, `no_space`, `faulted`, `suspended`).
    pub refused_requests: BTreeMap<String, u64>,
    /// Its log.
    pub log: LogReport,
    /// Its transforms, in their order.
    #[serde(default)]
    pub transforms: Vec<TransformReport>,
    /// Its routes.
    pub routes: Vec<RouteReport>,
    /// Its deliveries, those that drain included.
    pub deliveries: Vec<DeliveryReport>,
    /// Its dead letters.
    pub dead_letters: DeadLettersReport,
    /// Its redrives and replays, those that are over included.
    pub jobs: Vec<JobReport>,
}

/// What a job is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum JobState {
    /// Not begun yet in this process.
    #[default]
    Waiting,
    /// Sending.
    Running,
    /// The last attempt failed; trying again.
    Retrying,
    /// Over: everything that was selected is resolved.
    Done,
    /// Over: it was told to end.
    Cancelled,
    /// Over: it can have its backend no more.
    Failed,
}

/// One redrive or replay at one moment: `selected = delivered + duplicates + rejected + dropped + held`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JobReport {
    /// Its id.
    pub id: String,
    /// `redrive` or `replay`.
    pub kind: String,
    /// What it is doing.
    pub state: JobState,
    /// The route whose events it sends.
    pub route: String,
    /// The backend it sends to.
    pub backend: String,
    /// What kind of backend; empty when it does not run.
    pub backend_type: String,
    /// When it was asked for, wall time.
    pub created: UnixNanos,
    /// When it was over, wall time.
    pub ended: Option<UnixNanos>,
    /// First sequence of its range.
    pub from_seq: u64,
    /// Behind the last one.
    pub end_seq: u64,
    /// Events that were there when it began.
    pub selected_events: u64,
    /// Events the backend has.
    pub delivered_events: u64,
    /// Events it had already.
    pub duplicate_events: u64,
    /// Events it refused for good: dead letters.
    pub rejected_events: u64,
    /// Events given up.
    pub dropped_events: u64,
    /// Events still to be sent; of a job that was cancelled or failed, those that were not.
    pub held_events: u64,
    /// `selected - delivered - duplicates - rejected - dropped - held`: 0.
    pub imbalance_events: i64,
    /// Attempts since the start.
    pub attempts: u64,
    /// The last fault, in one line, while it tries again; of a job that failed, why.
    pub last_error: Option<String>,
}

/// The dead letters of one pipeline at one moment: `kept = redriven + rejected again + dropped + held`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeadLettersReport {
    /// Letters ever kept.
    pub kept_events: u64,
    /// Letters that are there, counted by scanning.
    pub held_events: u64,
    /// When the oldest of them was rejected, about.
    pub oldest_held: Option<UnixNanos>,
    /// Letters whose event a backend has now.
    pub redriven_events: u64,
    /// Letters that were redriven and refused again: a new letter took their place.
    pub rejected_again_events: u64,
    /// Letters given up, by reason (`purged`, `damaged`).
    pub dropped_events: BTreeMap<String, u64>,
    /// Bytes on disk.
    pub bytes: u64,
    /// Most bytes on disk.
    pub bytes_max: u64,
    /// `kept - redriven - rejected again - dropped - held`: 0.
    pub imbalance_events: i64,
}

/// A log that no pipeline claims.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UnclaimedLog {
    /// The name of its directory in `spool`: that of the pipeline it was.
    pub name: String,
    /// Bytes on disk.
    pub bytes: u64,
}

/// One log at one moment.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogReport {
    /// `ok`, or what is wrong (`full`, `no_space`, `faulted`).
    pub state: String,
    /// Bytes on disk.
    pub bytes: u64,
    /// Most bytes on disk.
    pub bytes_max: u64,
    /// Files on disk.
    pub segments: u64,
    /// First sequence still there.
    pub first_seq: u64,
    /// Sequence the next event will get.
    pub next_seq: u64,
    /// Syncs since the start.
    pub syncs: u64,
    /// Bytes of frames that no file holds (level `Memory`).
    #[serde(default)]
    pub memory_bytes: u64,
    /// Frames spilled since the start (level `Memory`).
    #[serde(default)]
    pub spilled_frames: u64,
    /// Their payload bytes.
    #[serde(default)]
    pub spilled_bytes: u64,
    /// Events that are known to be lost with the process before (level `Memory`).
    #[serde(default)]
    pub lost_events: u64,
    /// Failed writes and syncs since the start.
    pub failures: u64,
    /// Damaged records and segments met, set aside and counted.
    pub damaged: u64,
    /// Idempotency keys forgotten before their ten minutes were over, since the start.
    #[serde(default)]
    pub forgotten_keys: u64,
    /// Positions of sources that were not kept because there were too many, since the start.
    #[serde(default)]
    pub left_out_positions: u64,
    /// The last failure, in one line.
    pub last_error: Option<String>,
}

/// One transform at one moment; all figures since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TransformReport {
    /// Its name.
    pub name: Arc<str>,
    /// What it does (`Set`, `Drop`, …).
    pub r#type: String,
    /// Events that came to it.
    pub in_events: u64,
    /// Events it passed on with other bytes.
    pub changed_events: u64,
    /// Events it did not pass on.
    pub dropped_events: u64,
    /// Events for which it could not do all it is told, by reason; they were passed on unless they are among the dropped.
    pub failed_events: BTreeMap<String, u64>,
}

/// One route at one moment.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteReport {
    /// Its name.
    pub name: Arc<str>,
    /// Events whose mask holds it.
    pub routed_events: u64,
    /// Conditions that could not be evaluated and so were false, since the start, by reason.
    pub condition_errors: BTreeMap<String, u64>,
    /// Of a route whose first healthy backend gets the events: which one that is now; absent when none is.
    #[serde(default)]
    pub active: Option<Arc<str>>,
    /// How often another backend took over because of their health, since the start.
    #[serde(default)]
    pub failovers: Vec<FailoverReport>,
}

/// How often one backend took over from another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FailoverReport {
    /// The backend that led before.
    pub from: Arc<str>,
    /// The backend that leads since.
    pub to: Arc<str>,
    /// How often.
    pub times: u64,
}

/// What a delivery is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DeliveryState {
    /// Nothing is wrong: sending, or nothing to send.
    #[default]
    Healthy,
    /// The last attempt failed; trying again.
    Retrying,
    /// Its reference was removed; delivering what is left.
    Draining,
    /// Told to rest.
    Suspended,
    /// A better backend of its route is healthy and gets the events.
    Standby,
}

/// Where a circuit breaker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum BreakerState {
    /// Attempts flow.
    #[default]
    Closed,
    /// Nothing is tried until its time is over.
    Open,
    /// One attempt at a time decides.
    HalfOpen,
}

impl BreakerState {
    /// Every state.
    pub const ALL: [Self; 3] = [Self::Closed, Self::Open, Self::HalfOpen];

    /// Returns the state as metric label and in status.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// One circuit breaker at one moment.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BreakerReport {
    /// Where it stands.
    pub state: BreakerState,
    /// Since when, wall time.
    pub since: UnixNanos,
    /// How often it came to each state since the start (`open`, `half_open`, `closed`).
    pub changes: BTreeMap<String, u64>,
}

/// One delivery at one moment.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeliveryReport {
    /// The route it reads.
    pub route: Arc<str>,
    /// The backend as the route names it.
    pub backend: Arc<str>,
    /// What kind of backend (`Filesystem`, `HTTP`, …).
    pub backend_type: Arc<str>,
    /// What it is doing.
    pub state: DeliveryState,
    /// Since when, wall time.
    pub since: UnixNanos,
    /// Its circuit breaker.
    pub breaker: BreakerReport,
    /// Events routed to it.
    pub routed_events: u64,
    /// Events the backend has.
    pub delivered_events: u64,
    /// Events the backend had already.
    pub duplicate_events: u64,
    /// Events the backend refused for good and that went to the dead letters.
    pub rejected_events: u64,
    /// Of them those since the start, by reason: what differs from event to event is left out, and what comes after the first
    /// 16 reasons counts as `other`.
    pub rejections: BTreeMap<String, u64>,
    /// Events that another backend of its route got in its place.
    #[serde(default)]
    pub elsewhere_events: u64,
    /// Events given up, by reason.
    pub dropped_events: BTreeMap<String, u64>,
    /// Their payload bytes, by reason; 0 where damage took them.
    pub dropped_bytes: BTreeMap<String, u64>,
    /// Events counted as dropped for which the backend's answer came later, since the start: it has them all the same.
    pub late_events: u64,
    /// Batches that were sent and not answered, and went elsewhere, since the start: to another backend of the route, or under
    /// other keys, since their encoding was edited. They may be there twice.
    #[serde(default)]
    pub unknown_batches: u64,
    /// Events still to be delivered, counted by scanning.
    pub held_events: u64,
    /// Their payload bytes.
    pub held_bytes: u64,
    /// Time of receipt of the oldest held event.
    pub oldest_held: Option<UnixNanos>,
    /// When the log will be full because of this delivery, at the rate of the last two minutes; absent when it does not fall
    /// behind.
    pub seconds_until_full: Option<u64>,
    /// `routed - delivered - duplicates - rejected - elsewhere - dropped - held`: 0.
    pub imbalance_events: i64,
    /// Attempts since the start.
    pub attempts: u64,
    /// Attempts that failed as a whole, since the start, by kind of fault.
    pub faults: BTreeMap<String, u64>,
    /// Bytes of events delivered since the start.
    pub delivered_bytes: u64,
    /// Batches under way.
    pub in_flight: u64,
    /// How many may be under way now: what the destination bears, within its settings.
    pub in_flight_limit: u64,
    /// The last fault, in one line.
    pub last_error: Option<String>,
}
