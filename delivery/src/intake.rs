//! The one door in.
//!
//! # Expected flow
//! A source makes a [`Batch`], knows which pipelines want it (selection is decided once per origin and cached by the
//! source), and calls [`Intake::submit`]. Each pipeline fills the origin from its manifest and runs its transforms, the masks
//! are computed, bytes are reserved in every log that takes it, it is appended to each, and the call returns when every log
//! has it at its level.
//!
//! # Guarantees
//! - `Ok` means: every event is in every log, at the level that log promises, as the transforms of its pipeline made it; one
//!   that they dropped, or that no route wants, is counted there in its place.
//! - [`SubmitError::Refused`] and [`SubmitError::KeyReused`] mean: nothing was kept anywhere.
//! - A repeat of a request with the same key and body within [`KEY_LIFE`] is answered alike and kept once per log.
//!
//! # Errors
//! [`SubmitError::Unknown`] when a log failed after another took the batch: repeat it with the same key.
//!
//! # Cancel safety
//! Once polled, the batch may be kept although the caller went away: a client that got no answer repeats with its key.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::event::Batch;

mod mask;
mod origins;
mod pipeline;
mod shaping;
mod submit;
#[cfg(test)]
mod tests;
mod trial;
mod version;

pub use pipeline::Pipeline;
pub use trial::{Trial, Tried};
pub(crate) use version::Version;

/// How long a key is remembered, in running time.
pub const KEY_LIFE: Duration = Duration::from_secs(600);

/// The door.
#[derive(Debug, Clone, Copy, Default)]
pub struct Intake;

/// What was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    /// How many events.
    pub events: u64,
    /// Whether every log had them already, under the same key.
    pub repeated: bool,
}

/// Why nothing was kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RefusalReason {
    /// The log is at its quota and a delivery that blocks has not read it.
    Full,
    /// The volume is at its free-space floor, or said so.
    NoSpace,
    /// The log cannot be written now.
    Faulted,
    /// The pipeline is told to rest.
    Suspended,
    /// The process is going down.
    Stopping,
    /// Its manifest is gone.
    Removed,
}

impl RefusalReason {
    /// Every reason, in the order of its number.
    pub const ALL: [Self; 6] =
        [Self::Full, Self::NoSpace, Self::Faulted, Self::Suspended, Self::Stopping, Self::Removed];

    /// Returns the reason as metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::NoSpace => "no_space",
            Self::Faulted => "faulted",
            Self::Suspended => "suspended",
            Self::Stopping => "stopping",
            Self::Removed => "removed",
        }
    }
}

/// Why a batch was not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SubmitError {
    /// Nothing was kept in any log; the same request may be taken later.
    Refused {
        /// The first pipeline that refused.
        pipeline: Arc<str>,
        /// Why.
        reason: RefusalReason,
        /// When to try again.
        retry_after: Duration,
    },
    /// The key came before with another body. Nothing was kept.
    KeyReused,
    /// A log failed after another took it: repeat with the same key.
    Unknown {
        /// The pipeline whose log failed.
        pipeline: Arc<str>,
    },
}

impl fmt::Display for SubmitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { pipeline, reason, .. } => {
                let why = match reason {
                    RefusalReason::Full => "its log is full",
                    RefusalReason::NoSpace => "its volume has no free space",
                    RefusalReason::Faulted => "its log cannot be written",
                    RefusalReason::Suspended => "it is suspended",
                    RefusalReason::Stopping => "the agent is stopping",
                    RefusalReason::Removed => "it was removed",
                };
                write!(f, "pipeline {pipeline} takes nothing now: {why}; nothing was kept")
            }
            Self::KeyReused => f.write_str("the idempotency key came before with another body; nothing was kept"),
            Self::Unknown { pipeline } => {
                write!(
                    f,
                    "the log of pipeline {pipeline} failed after another took the events; repeat with the same key"
                )
            }
        }
    }
}

impl std::error::Error for SubmitError {}

impl Intake {
    /// Takes `batch` into the log of each of `pipelines`, or into none. See the module header.
    pub async fn submit(&self, pipelines: &[Arc<Pipeline>], batch: Batch) -> Result<Accepted, SubmitError> {
        submit::submit(pipelines, batch, None).await
    }

    /// Takes `batch` into the log of one pipeline for one of its routes, whatever the conditions of its routes say: who sends has
    /// asked them. A route that is not there takes nothing for now; a pipeline that is suspended keeps it.
    pub async fn submit_to_route(
        &self,
        pipeline: &Arc<Pipeline>,
        route: &str,
        batch: Batch,
    ) -> Result<Accepted, SubmitError> {
        submit::submit(std::slice::from_ref(pipeline), batch, Some(route)).await
    }
}
