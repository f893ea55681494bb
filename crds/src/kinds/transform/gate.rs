//! Settings of transforms that drop events by what came before.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::OnErrorSpec;
use crate::manifest::rules;

/// Settings of a transform of type `Sample`.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[x_kube(validation = rules::keep_at_most_out_of())]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SampleSpec {
    /// How many events are kept of `outOf`; the others are dropped. Example: `1`.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub keep: u32,

    /// Of how many. Example: `100`.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub out_of: u32,

    /// All events with the same value of this expression over `event.<path>` and `origin.<field>` are kept or dropped together, on
    /// every agent; without it events take turns. At most 1024 characters. Example: `event.trace_id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub key_expression: Option<String>,

    /// Condition over `event.<path>` and `origin.<field>`, at most 1024 characters; an event for which it does not hold, or cannot
    /// be evaluated, goes on. Default: all are looked at. Example: `event.level == "debug"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub when: Option<String>,

    /// What becomes of an event for which `keyExpression` has no value: `Keep` (it goes on) or `Drop` (it is dropped). It is counted
    /// in either case. Default: `Keep`.
    #[serde(default)]
    pub on_error: OnErrorSpec,
}

/// Settings of a transform of type `RateLimit`.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RateLimitSpec {
    /// How many events a second go on, on each agent, in the long run; what is more is dropped. Example: `5000`.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub events_per_second: u32,

    /// How many events go on at once after a rest. Default: as many as `eventsPerSecond`. Example: `20000`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000_000))]
    pub burst_events: Option<u32>,

    /// Each value of this expression over `event.<path>` and `origin.<field>` has a limit of its own; without it there is one for
    /// all. At most 1024 characters. Example: `origin.pod`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub key_expression: Option<String>,

    /// How many values have a limit of their own at a time; all further ones share one, counted. Default: 10000.
    #[serde(default = "default_max_keys")]
    #[schemars(range(min = 1, max = 100_000))]
    pub max_keys: u32,

    /// Condition over `event.<path>` and `origin.<field>`, at most 1024 characters; an event for which it does not hold, or cannot
    /// be evaluated, goes on. Default: all are looked at. Example: `event.level == "debug"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub when: Option<String>,

    /// What becomes of an event for which `keyExpression` has no value: `Keep` (it goes on) or `Drop` (it is dropped). It is counted
    /// in either case. Default: `Keep`.
    #[serde(default)]
    pub on_error: OnErrorSpec,
}

/// Settings of a transform of type `Deduplicate`.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeduplicateSpec {
    /// An event is dropped when another one with the same values of these fields went on before, on the same agent. 1 to 32 fields,
    /// as a condition writes them behind `event.`. Example: `[message, code]`.
    #[schemars(length(min = 1, max = 32), inner(length(min = 1, max = 256)), extend("x-kubernetes-list-type" = "set"))]
    pub fields: Vec<String>,

    /// Events with different values of this expression over `event.<path>` and `origin.<field>` are never the same. At most 1024
    /// characters. Default: none, the fields alone count. Example: `origin.pod`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub key_expression: Option<String>,

    /// For how long an event that went on is remembered. Default: 60.
    #[serde(default = "default_window_seconds")]
    #[schemars(range(min = 1, max = 86_400))]
    pub window_seconds: u32,

    /// How many events are remembered at a time; the oldest is forgotten before its time where there are more, counted. Default:
    /// 10000.
    #[serde(default = "default_max_keys")]
    #[schemars(range(min = 1, max = 100_000))]
    pub max_keys: u32,

    /// Condition over `event.<path>` and `origin.<field>`, at most 1024 characters; an event for which it does not hold, or cannot
    /// be evaluated, goes on. Default: all are looked at. Example: `has(event.code)`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub when: Option<String>,

    /// What becomes of an event that has none of `fields`, or for which `keyExpression` has no value: `Keep` (it goes on) or `Drop`
    /// (it is dropped). It is counted in either case. Default: `Keep`.
    #[serde(default)]
    pub on_error: OnErrorSpec,
}

fn default_max_keys() -> u32 {
    10_000
}

fn default_window_seconds() -> u32 {
    60
}
