//! What became of one object: what its status is made of, besides what agents say.

use crate::world::LastGood;

use super::unit::Use;

/// Why something does not hold: one word of the catalogue of reasons, and words for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Why {
    /// The word.
    pub reason: Reason,
    /// Field, what was found, what is allowed; no file, no line, no value of a Secret.
    pub message: String,
}

/// Why an object is not run as it stands, or not yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Its own text does not compile.
    Invalid,
    /// What it needs does not fit into the configuration of a node.
    TooLarge,
    /// A Backend that it refers to is not there.
    BackendNotFound,
    /// A Backend that it refers to is there and does not compile.
    BackendInvalid,
    /// A `ClusterBackend` that it refers to does not grant its namespace.
    RefNotPermitted,
    /// A Secret that it names is not there, or cannot be read.
    SecretNotFound,
    /// A Secret that it names lacks the key.
    SecretKeyNotFound,
    /// A Secret that it names was not looked for yet.
    Pending,
}

/// What became of one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The `metadata.generation` that this is about.
    pub generation: i64,
    /// Whether its own text can be run.
    pub accepted: Result<(), Why>,
    /// Whether what it refers to is there and allowed.
    pub resolved: Result<(), Why>,
    /// The generation that agents are given: its own, that of the last good version, or none.
    pub served: Option<i64>,
    /// Whether it says that it is suspended.
    pub is_suspended: bool,
    /// The references of a pipeline's routes, in their order.
    pub uses: Vec<Use>,
    /// How many pipelines refer to a destination.
    pub used_by: u32,
    /// The last good version that is to be kept now; `None` where it is kept already, or there is none.
    pub keep: Option<LastGood>,
}

impl Why {
    pub(super) fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}
