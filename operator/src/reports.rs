//! What agents said last: what status is made of, and what renderings are told about held events.
//!
//! # Guarantees
//! - One [`Report`] per node, the newest; a report is what one agent said in one ask, whole.
//! - [`Report::objects`] is what the operator gave out under the version that the agent names, not what the agent claims.
//!
//! # It must not know
//! How reports arrive, who forwarded them, which objects there are now.
//!
//! # Limits
//! One report per node, each at most an ask of [`ASK_BYTES_MAX`](spillway_crds::served::ASK_BYTES_MAX), and one per pod with a sidecar,
//! each at most one of [`SIDECAR_ASK_BYTES_MAX`](spillway_crds::served::SIDECAR_ASK_BYTES_MAX).

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use spillway_crds::served::{BackendReport, FORBIDDEN, Held, Refused, Version};

use crate::hub::Objects;

/// For how long after it was heard an agent counts.
pub const HEARD: SignedDuration = SignedDuration::from_mins(5);

/// The newest report of every node that has one, by the node's name.
pub type Reports = BTreeMap<Arc<str>, Report>;

/// What the agent of one node said last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// `metadata.uid` of the agent's pod.
    pub pod_uid: Arc<str>,
    /// When it was heard last, be it that it asked or that its question is still open.
    pub seen: Timestamp,
    /// The version that it runs, where that is one this leader gave out; `None` when it runs nothing or something else.
    pub running: Option<Version>,
    /// What of ours that version serves. Empty without one.
    pub objects: Arc<Objects>,
    /// What of it the agent does not run.
    pub refused: Vec<Refused>,
    /// How backends of its routes are that are not healthy.
    pub backends: Vec<BackendReport>,
    /// The pipelines of which it says that it still holds events.
    pub holding: Vec<Held>,
    /// The hash of the authorities it trusts; `None` where it does not say.
    pub authorities: Option<String>,
}

impl Report {
    /// Returns whether the agent was heard a short time before `now`, so that it counts.
    pub fn counts(&self, now: Timestamp) -> bool {
        now.duration_since(self.seen) < HEARD
    }

    /// Returns whether `after` says something else of what it runs: the time, the words of an error and whom it trusts make no
    /// difference.
    pub fn differs(&self, after: &Self) -> bool {
        let Self { pod_uid, seen: _, running, objects, refused, backends, holding, authorities: _ } = after;
        let said = (&self.pod_uid, &self.running, &self.refused, &self.holding);
        said != (pod_uid, running, refused, holding)
            || !(Arc::ptr_eq(&self.objects, objects) || self.objects == *objects)
            || !self.backends.iter().map(state).eq(backends.iter().map(state))
    }
}

fn state(report: &BackendReport) -> impl PartialEq {
    let BackendReport { object, route, backend, state, fault, error: _, since_unix_seconds } = report;
    let is_forbidden = fault == FORBIDDEN;
    (object.clone(), route.clone(), backend.clone(), *state, is_forbidden, *since_unix_seconds)
}
