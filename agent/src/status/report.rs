//! What `/v1/status` serves and `status` reads: one type, so that they cannot differ.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use spillway_delivery::clock::UnixNanos;
use spillway_delivery::ledger::{PipelineReport, UnclaimedLog};

use crate::config::state::ConfigReport;

/// The agent at one moment.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusReport {
    /// Version of the agent.
    pub version: String,
    /// The agent's id, drawn once per data directory.
    #[serde(rename = "agentID")]
    pub agent_id: String,
    /// When the process started, wall time.
    pub started: UnixNanos,
    /// When this was read, wall time.
    pub now: UnixNanos,
    /// Where the process is in its life.
    pub phase: Phase,
    /// Why it is not ready, in words; empty when it is.
    pub not_ready: Vec<String>,
    /// Where it listens.
    pub listeners: Vec<Listener>,
    /// The ledger.
    pub pipelines: Vec<PipelineReport>,
    /// What became of the configuration.
    #[serde(default)]
    pub config: ConfigReport,
    /// Manifests that are not run, and why.
    pub excluded: Vec<Excluded>,
    /// Logs in the data directory that no pipeline claims.
    #[serde(default)]
    pub unclaimed_logs: Vec<UnclaimedLog>,
    /// Where data comes from.
    pub sources: Vec<Source>,
}

/// Where a process is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Phase {
    /// Logs are opened and listeners bound; nothing is taken yet.
    Starting,
    /// Everything is open.
    Running,
    /// Told to stop: nothing is taken, what is held is delivered as far as the deadline allows.
    Draining,
}

/// One listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Listener {
    /// What for (`http`, `admin`).
    pub name: String,
    /// Address and port as bound.
    pub address: String,
    /// Whether it speaks TLS and asks for the token.
    pub secured: bool,
}

/// One manifest that is not run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Excluded {
    /// Kind, namespace and name, or the file when it has none.
    pub object: String,
    /// Why, each with its place.
    pub errors: Vec<String>,
    /// Whether the last good version runs on.
    #[serde(default)]
    pub kept: bool,
}

/// One source with what it counted since the start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// Which (`http`, `containerLogs`).
    pub name: String,
    /// What it counted.
    pub counts: BTreeMap<String, u64>,
}
