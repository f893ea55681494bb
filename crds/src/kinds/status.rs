//! The status of every kind: observed generation, conditions, and a few states; no figures that change all the time.
//!
//! The default in the CRD says that every condition is `Unknown`, so that nothing that waits for readiness takes a new
//! object for a finished one before a controller saw it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::NAME_PATTERN;
use super::monitoring_pipeline::BackendRefKind;

/// Most of those whose pods are evicted at a time for one pipeline. Its type says so, too.
pub const RECREATIONS_MAX: u32 = 16;

/// Most backends that the status of a pipeline names.
const BACKENDS_MAX: u32 = 64;

/// What the controller saw and made of a pipeline.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PipelineStatus {
    /// The `metadata.generation` that this status speaks of; -1 before the first look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = -1, max = 9_007_199_254_740_991_i64))]
    pub observed_generation: Option<i64>,

    /// The state in named conditions, at most 16: `Accepted` (the spec can be run), `ResolvedRefs` (what it refers to is
    /// there and allowed), `Programmed` (the agents run it), `DataFlowing` (events arrive and leave), and `Ready`, which
    /// sums them up.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"])
    )]
    pub conditions: Vec<StatusCondition>,

    /// On how many agents the pipeline is to run, and does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agents: Option<AgentCounts>,

    /// How the backends of the routes are, at most 64; those that are not `Healthy` come first. States only: figures are
    /// metrics.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = BACKENDS_MAX),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["route", "name"])
    )]
    pub backends: Vec<BackendState>,

    /// Of pods that asked for a sidecar with this pipeline, those that have none or an outdated one; absent while there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sidecars: Option<SidecarCounts>,
}

/// What the controller saw and made of a destination.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct BackendStatus {
    /// The `metadata.generation` that this status speaks of; -1 before the first look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = -1, max = 9_007_199_254_740_991_i64))]
    pub observed_generation: Option<i64>,

    /// The state in named conditions, at most 16: `Accepted` (the spec can be used), `ResolvedRefs` (the Secrets it names
    /// are there), `Reachable` (the agents that send to it reach it), and `Ready`, which sums them up.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"])
    )]
    pub conditions: Vec<StatusCondition>,

    /// How many pipelines refer to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub pipelines: Option<u32>,
}

/// On how many agents a pipeline is to run, and does.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct AgentCounts {
    /// Agents that are to run it: those on nodes that are ready, seen in the last five minutes.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub desired: u32,

    /// Agents that said that they run it as it is now.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub programmed: u32,

    /// Agents that refused it.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub failing: u32,
}

/// Of pods that asked for a sidecar, those that do not have what they asked for.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SidecarCounts {
    /// Pods that have none.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub missing: u32,

    /// Pods that have one of another version or pipeline.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub outdated: u32,

    /// Whose pods are evicted, each noted here before its first pod is, at most 16: a pod that comes back without an up-to-date
    /// sidecar is told, and not evicted again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = RECREATIONS_MAX),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["uid"])
    )]
    pub recreations: Vec<Recreation>,
}

/// What has its pods evicted, so that it makes them anew.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Recreation {
    /// Its kind. Example: `ReplicaSet`.
    #[schemars(length(min = 1, max = 63))]
    pub kind: String,

    /// Name of what made the pods. Example: `web-5d4f8c7b9`.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,

    /// Its `metadata.uid`.
    #[schemars(length(min = 1, max = 128))]
    pub uid: String,

    /// What sidecars are made of, in a word: another makes another attempt.
    #[schemars(length(min = 1, max = 32))]
    pub revision: String,

    /// When the youngest pod that is to be evicted was created, RFC 3339: younger ones came back.
    #[schemars(length(min = 1, max = 64), extend("format" = "date-time"))]
    pub youngest: String,

    /// Since when, RFC 3339.
    #[schemars(length(min = 1, max = 64), extend("format" = "date-time"))]
    pub since: String,
}

/// How one backend of one route is.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct BackendState {
    /// Name of the route.
    #[schemars(length(min = 1, max = 63))]
    pub route: String,

    /// Kind of the object that the route refers to. Default: `Backend`.
    #[serde(default)]
    pub kind: BackendRefKind,

    /// Name of the object that the route refers to.
    #[schemars(length(min = 1, max = 63), regex(pattern = NAME_PATTERN))]
    pub name: String,

    /// Its state, the worst that an agent says: `Healthy` (it takes what is sent, or nothing was to be sent), `Retrying`
    /// (attempts fail, others are made), `Unreachable` (so many failed that it is left alone for a while) or `Unknown`.
    pub state: BackendHealth,

    /// How many agents say so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub agents: Option<u32>,

    /// Since when it is in this state, RFC 3339. Example: `2026-01-02T03:04:05Z`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), extend("format" = "date-time"))]
    pub since: Option<String>,
}

/// The states of a backend.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackendHealth {
    /// It takes what is sent, or nothing was to be sent.
    Healthy,
    /// Attempts fail, others are made.
    Retrying,
    /// So many attempts failed that it is left alone for a while.
    Unreachable,
    /// Nobody said.
    Unknown,
}

/// One aspect of the state, as Kubernetes defines conditions.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct StatusCondition {
    /// Name of the condition in CamelCase. Example: `Ready`.
    #[schemars(
        length(min = 1, max = 316),
        regex(pattern = r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z]([A-Za-z0-9]*)$")
    )]
    pub r#type: String,

    /// Whether the condition holds: `True`, `False` or `Unknown`.
    pub status: ConditionStatus,

    /// The `metadata.generation` that this condition speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub observed_generation: Option<i64>,

    /// When `status` last changed, RFC 3339. Example: `2026-01-02T03:04:05Z`.
    #[schemars(length(min = 1, max = 64), extend("format" = "date-time"))]
    pub last_transition_time: String,

    /// Why, in one CamelCase word of the documented catalogue. Example: `Pending`.
    #[schemars(length(min = 1, max = 1024), regex(pattern = "^[A-Za-z]([A-Za-z0-9]*)$"))]
    pub reason: String,

    /// Why, in words for people.
    #[schemars(length(max = 32_768))]
    pub message: String,
}

/// Whether a condition holds.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// Not known.
    Unknown,
}

/// The conditions of a pipeline, the one that sums up first.
pub(crate) const OF_PIPELINES: [&str; 5] = ["Ready", "Accepted", "ResolvedRefs", "Programmed", "DataFlowing"];

/// The conditions of a destination, the one that sums up first.
pub(crate) const OF_BACKENDS: [&str; 4] = ["Ready", "Accepted", "ResolvedRefs", "Reachable"];

/// Returns the status of an object with these conditions that no controller has seen.
pub(crate) fn pending(conditions: &[&str]) -> Value {
    let unknown = |condition: &&str| {
        json!({
            "type": condition, "status": "Unknown", "reason": "Pending", "message": "waiting for the controller",
            "lastTransitionTime": "1970-01-01T00:00:00Z",
        })
    };
    json!({"observedGeneration": -1, "conditions": conditions.iter().map(unknown).collect::<Vec<_>>()})
}
