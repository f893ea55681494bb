//! What became of the configuration, for status and metrics.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use spillway_crds::served::Version;
use spillway_delivery::clock::UnixNanos;
use xxhash_rust::xxh3::Xxh3;

use super::diff::Units;

/// How a reading of the manifests ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReloadResult {
    /// Everything the manifests say runs.
    Applied,
    /// Something was refused: what was good runs, older versions of the rest run on.
    Refused,
    /// Nothing was to be done.
    Unchanged,
}

impl ReloadResult {
    /// Every result.
    pub const ALL: [Self; 3] = [Self::Applied, Self::Refused, Self::Unchanged];

    /// Returns the result as a label of a metric.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Refused => "refused",
            Self::Unchanged => "unchanged",
        }
    }
}

/// The configuration at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConfigReport {
    /// How often what runs has changed since the start of the process; 1 after the start.
    pub generation: u64,
    /// Of what runs: equal for equal pipelines and backends in two agents of one version.
    pub hash: String,
    /// Readings since the start, by result (`applied`, `refused`, `unchanged`).
    pub reloads: BTreeMap<String, u64>,
    /// When everything that the manifests said ran for the last time, wall time.
    pub last_success: Option<UnixNanos>,
    /// When something changed for the last time, wall time.
    pub last_change: Option<UnixNanos>,
    /// What the operator serves; absent when manifests come from files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub served: Option<ServedReport>,
}

/// What comes from the operator, at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServedReport {
    /// Where it is asked for.
    pub operator: String,
    /// Whether the last question was answered.
    pub is_connected: bool,
    /// Since when that is so, wall time.
    pub since: Option<UnixNanos>,
    /// The configuration that runs, as the operator counts.
    pub running: Option<Version>,
    /// Whether there is a configuration, or the operator said that there is none.
    pub is_settled: bool,
    /// Why the last question was not answered.
    pub last_error: Option<String>,
    /// Questions answered since the start.
    pub answers: u64,
    /// Questions not answered since the start.
    pub failures: u64,
    /// Pods of this node that are known; absent before the operator told of any.
    pub pods: Option<u64>,
}

impl ConfigReport {
    /// Takes note of a reading that changed `changes` pipelines.
    pub fn note(&mut self, result: ReloadResult, changes: usize, running: &Units, now: UnixNanos) {
        if self.reloads.is_empty() {
            self.reloads = ReloadResult::ALL.iter().map(|result| (result.as_str().to_owned(), 0)).collect();
        }
        *self.reloads.entry(result.as_str().to_owned()).or_default() += 1;
        if result != ReloadResult::Refused {
            self.last_success = Some(now);
        }
        if changes > 0 {
            self.generation += 1;
            self.last_change = Some(now);
            self.hash = hash(running);
        }
    }
}

fn hash(running: &Units) -> String {
    let mut hash = Xxh3::new();
    for unit in running.values() {
        hash.update(format!("{:?}{:?}", unit.plan, unit.backends).as_bytes());
    }
    format!("{:016x}", hash.digest())
}
