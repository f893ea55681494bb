//! What became of one object: what its status is made of, besides what agents say.

use std::sync::Arc;

use super::unit::Use;
use crate::reason::Reason;
use crate::world::LastGood;

/// Why something does not hold: one word of the catalogue of reasons, and words for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Why {
    /// The word.
    pub reason: Reason,
    /// Field, what was found, what is allowed; no file, no line, no value of a Secret.
    pub message: String,
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
    pub uses: Box<[Use]>,
    /// How many pipelines refer to a destination.
    pub used_by: u32,
    /// The last good version that is to be kept now; `None` where it is kept already, or there is none.
    pub keep: Option<Arc<LastGood>>,
}

impl Why {
    pub(super) fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}
