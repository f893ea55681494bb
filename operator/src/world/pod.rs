//! A pod, as far as it is looked at.
//!
//! # Limits
//! What made it, and why it can be given no sidecar, is held for every pod; names among that once.

use std::sync::Arc;

use spillway_crds::inject::{self, INJECTED};
use spillway_crds::served::PodFacts;

use crate::place;
use crate::texts::held;

/// One pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pod {
    /// What selection and origin need.
    pub facts: Arc<PodFacts>,
    /// The node it runs on; empty before it is scheduled.
    pub node: Arc<str>,
    /// Its service account.
    pub service_account: Arc<str>,
    /// `metadata.uid`; differs from that of the facts for a static pod.
    pub uid: Arc<str>,
    /// What it has of a sidecar.
    pub carried: Carried,
}

/// What a pod has of a sidecar, and what would become of it if it were created again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Carried {
    /// Whether a container of it is called as our sidecar is, and runs as one does.
    pub is_there: bool,
    /// What that was made of, in a word.
    pub revision: Option<Arc<str>>,
    /// Why a pod like this is given none.
    pub barred: Option<inject::Reason>,
    /// When it was created, by the clock of the API server: Unix time in seconds.
    pub created: i64,
    /// Whether it is being deleted.
    pub is_going: bool,
    /// What made it and would make another in its place.
    pub maker: Option<Arc<Maker>>,
}

/// The controller that a pod names in its `ownerReferences`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Maker {
    /// Group and version.
    pub api_version: Arc<str>,
    /// Its kind.
    pub kind: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// `metadata.uid`.
    pub uid: Arc<str>,
}

impl Pod {
    /// Returns the pipeline that the sidecar of the pod runs, as long as it has one.
    pub fn sidecar(&self) -> Option<&str> {
        self.facts.annotations.get(INJECTED).filter(|_| !self.facts.has_ended)
    }

    /// Returns the place of its sidecar.
    pub(super) fn place(&self) -> Option<Arc<str>> {
        let PodFacts { namespace, name, .. } = &*self.facts;
        self.sidecar().map(|_| held(&place::of_pod(namespace, name)))
    }
}
