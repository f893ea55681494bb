//! The status of every kind: observed generation and conditions.
//!
//! The default in the CRD says `Ready` is `Unknown`, so that nothing that waits for readiness takes a new object for a
//! finished one before a controller saw it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// What the controller saw and made of the object.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The `metadata.generation` that this status speaks of; -1 before the first look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = -1, max = 9_007_199_254_740_991_i64))]
    pub observed_generation: Option<i64>,

    /// The state in named conditions, at most 16. `Ready` sums them up.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"])
    )]
    pub conditions: Vec<StatusCondition>,
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

/// Returns the status of an object that no controller has seen.
pub(crate) fn pending() -> Value {
    json!({
        "observedGeneration": -1,
        "conditions": [{
            "type": "Ready", "status": "Unknown", "reason": "Pending", "message": "waiting for the controller",
            "lastTransitionTime": "1970-01-01T00:00:00Z",
        }],
    })
}
