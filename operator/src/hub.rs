//! Slices given out and reports taken in: what stands between rendering and serving. No network, no clock of its own.
//!
//! # Guarantees
//! - A slice whose content is the same keeps its [`Version`](spillway_crds::served::Version); one that changed gets the next
//!   generation of the epoch.
//! - Who waits for a node is woken when the slice or the pods of that node change, and by nothing else.
//! - Only who leads gives out anything.

use std::collections::BTreeMap;
use std::sync::Arc;

use spillway_crds::served::{Configuration, Pods};

/// What a node is to run and to know. The version's epoch and generation are the hub's to set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Slice {
    /// The configuration; its `version.hash` names its content.
    pub configuration: Configuration,
    /// The pods.
    pub pods: Pods,
    /// What of it is served: objects as errors name them, with their generations.
    pub objects: BTreeMap<Arc<str>, i64>,
}
