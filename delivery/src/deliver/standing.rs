//! How deliveries stand, without their figures: cheap enough to ask every second.
//!
//! Guarantees: no log is read, nothing waits. What holds events is never left out; what holds none may be named where its
//! cursor lags behind events of other routes.

use std::sync::Arc;

use super::Engine;
use crate::backend::FaultKind;
use crate::clock::UnixNanos;
use crate::ledger::{BreakerState, DeliveryState};
use crate::settings::PipelineUid;

/// How one delivery stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Namespace of its pipeline.
    pub namespace: Arc<str>,
    /// Name of its pipeline.
    pub pipeline: Arc<str>,
    /// The route it reads.
    pub route: Arc<str>,
    /// Names its backend for good.
    pub backend_uid: Arc<str>,
    /// What it is doing.
    pub state: DeliveryState,
    /// Since when, wall time.
    pub since: UnixNanos,
    /// Where its circuit breaker stands.
    pub breaker: BreakerState,
    /// The kind of the last fault.
    pub fault: Option<FaultKind>,
    /// The last fault, in one line.
    pub last_error: Option<String>,
}

impl Engine {
    /// Returns how every delivery stands, in the order of the pipelines.
    pub fn standings(&self) -> Vec<Standing> {
        let pipelines = self.pipelines();
        let of = |pipeline: &Arc<crate::intake::Pipeline>| pipeline.standings();
        pipelines.iter().flat_map(of).collect()
    }

    /// Returns the pipelines that hold events for a delivery.
    pub fn holding(&self) -> Vec<PipelineUid> {
        let pipelines = self.pipelines();
        pipelines.iter().filter(|pipeline| pipeline.holds()).map(|pipeline| pipeline.uid().clone()).collect()
    }
}
