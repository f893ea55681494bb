//! Settings of the transform that joins lines.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::manifest::rules;

/// Settings of a transform of type `Multiline`.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[x_kube(validation = rules::start_pattern_or_presets())]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MultilineSpec {
    /// What begins an event: a line in which this is found, in the syntax of RE2, at most 1024 characters; all lines up to the next
    /// such line belong to it. Default: none, where `presets` is there. Example: `^\d{4}-`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub start_pattern: Option<String>,

    /// Whose stack traces are joined, each with the line before it: `Java`, `Python`, `Go`, or several of them; every other line
    /// is an event. Default: none, where `startPattern` is there. Example: `[Java, Python]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 3), extend("x-kubernetes-list-type" = "set"))]
    pub presets: Vec<PresetSpec>,

    /// How long an event waits for its next line once everything that is there was read, in milliseconds. Default: 1000.
    #[serde(default = "default_max_wait_milliseconds")]
    #[schemars(range(min = 100, max = 60_000))]
    pub max_wait_milliseconds: u64,

    /// The most lines of one event; what is more begins another one, counted. Default: 500.
    #[serde(default = "default_max_lines")]
    #[schemars(range(min = 2, max = 10_000))]
    pub max_lines: u32,

    /// The most bytes of text of one event; what is more begins another one, counted. Default: 65536 (64 KiB).
    #[serde(default = "default_max_bytes")]
    #[schemars(range(min = 1024, max = 131_072))]
    pub max_bytes: u32,
}

fn default_max_wait_milliseconds() -> u64 {
    1_000
}

fn default_max_lines() -> u32 {
    500
}

fn default_max_bytes() -> u32 {
    65_536
}

/// Stack traces that are known.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum PresetSpec {
    /// `at` and `Caused by:`.
    Java,
    /// `Traceback (most recent call last):`.
    Python,
    /// `panic:` and `goroutine 1 [running]:`.
    Go,
}
