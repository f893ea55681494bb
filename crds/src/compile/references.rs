//! What the routes of a pipeline refer to: Backends of its own namespace, or those of the cluster that grant it.
//!
//! Guarantees: what is told of a `ClusterBackend` that does not grant the namespace is what is told of one that is not
//! there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use spillway_delivery::settings::BackendRefSettings;

use super::namespaces::Namespaces;
use super::{BackendPlan, Key};
use crate::kinds::CLUSTER;
use crate::kinds::monitoring_pipeline::{BackendRefKind, BackendRefSpec};
use crate::kinds::selector::LabelSelector;
use crate::manifest::error::{Position, Problem, Reason, Referred, listed, quoted};
use crate::manifest::nearest::nearest;
use crate::manifest::object::Object;

/// Most names that an error lists.
const LISTED_MAX: usize = 20;

/// What there is to refer to, by namespace and name; destinations of the cluster stand under [`CLUSTER`].
pub(super) struct Targets<'a> {
    pub(super) good: &'a BTreeMap<Key, BackendPlan>,
    pub(super) excluded: &'a BTreeSet<Key>,
    /// Whom each `ClusterBackend` grants; `None` is nobody.
    pub(super) grants: &'a BTreeMap<Key, Option<LabelSelector>>,
    pub(super) namespaces: &'a Namespaces,
}

impl Targets<'_> {
    /// Returns what the reference names, or why it names nothing; the place is left open.
    pub(super) fn resolve(&self, object: &Object, reference: &BackendRefSpec) -> Result<BackendRefSettings, Problem> {
        match reference.kind {
            BackendRefKind::Backend => self.own(&object.namespace, &reference.name),
            BackendRefKind::ClusterBackend if object.namespace == CLUSTER => self.own(CLUSTER, &reference.name),
            BackendRefKind::ClusterBackend => self.granted(&object.namespace, &reference.name),
        }
    }

    /// Returns the destination of that name that is the namespace's, or the cluster's, own.
    fn own(&self, namespace: &str, name: &str) -> Result<BackendRefSettings, Problem> {
        let key = (namespace.to_owned(), name.to_owned());
        if let Some(plan) = self.good.get(&key) {
            return Ok(settings(plan));
        }
        let kind = if namespace == CLUSTER { Referred::ClusterBackend } else { Referred::Backend };
        if self.excluded.contains(&key) {
            return Err(problem("the backend is there but has errors", name, Reason::RefInvalid).refers_to(kind));
        }
        let every = || self.good.keys().chain(self.excluded);
        let near: Vec<&str> = every().filter(|(of, _)| of == namespace).map(|(_, name)| name.as_str()).collect();
        let is_elsewhere = || every().any(|(of, known)| known == name && of != CLUSTER);
        let message = match namespace {
            CLUSTER => "no such ClusterBackend".to_owned(),
            _ if self.is_granted(namespace, name) == Some(true) => format!(
                "no such backend in namespace {namespace}; a ClusterBackend of this name is named with `kind: ClusterBackend`"
            ),
            _ if is_elsewhere() => {
                format!("no such backend in namespace {namespace}; a reference reaches only its own namespace")
            }
            _ => format!("no such backend in namespace {namespace}"),
        };
        Err(with_names(problem(&message, name, Reason::RefNotFound).refers_to(kind), name, &near))
    }

    /// Returns the destination of the cluster of that name, if it grants the namespace.
    fn granted(&self, namespace: &str, name: &str) -> Result<BackendRefSettings, Problem> {
        let is_granted = self.is_granted(namespace, name);
        if let Some(plan) = self.good.get(&(CLUSTER.to_owned(), name.to_owned())).filter(|_| is_granted == Some(true)) {
            return Ok(settings(plan));
        }
        if is_granted.is_none() {
            let message = format!(
                "the labels of namespace {namespace} are not known, and the ClusterBackend grants namespaces by labels"
            );
            let allowed = format!("a manifest of kind `Namespace` with the name `{namespace}` and its labels");
            let problem = problem(&message, name, Reason::RefNotPermitted).refers_to(Referred::Namespace);
            return Err(problem.allowed(allowed));
        }
        let granting = self.grants.keys().filter(|(_, name)| self.is_granted(namespace, name) == Some(true));
        let near: Vec<&str> = granting.map(|(_, name)| name.as_str()).collect();
        let message = format!("no ClusterBackend of this name grants namespace {namespace}");
        let allowed = "a ClusterBackend whose `spec.allowedNamespaces` takes the namespace";
        let problem = problem(&message, name, Reason::RefNotPermitted).refers_to(Referred::ClusterBackend);
        Err(with_names(problem.allowed(allowed), name, &near))
    }

    /// Returns whether the `ClusterBackend` grants the namespace; `None` when that hangs on labels that are not known.
    fn is_granted(&self, namespace: &str, name: &str) -> Option<bool> {
        match self.grants.get(&(CLUSTER.to_owned(), name.to_owned())) {
            Some(Some(selector)) => self.namespaces.takes(selector, namespace),
            Some(None) | None => Some(false),
        }
    }
}

fn settings(plan: &BackendPlan) -> BackendRefSettings {
    let (uid, name) = (Arc::clone(&plan.uid), Arc::clone(&plan.name));
    BackendRefSettings { uid, name, ..BackendRefSettings::default() }
}

fn problem(message: &str, name: &str, reason: Reason) -> Problem {
    Problem { reason, ..Problem::new(Position::START, "", message).found(quoted(name)) }
}

fn with_names(problem: Problem, name: &str, near: &[&str]) -> Problem {
    let problem = problem.suggestion(nearest(name, near.iter().copied()));
    match near {
        [] => problem,
        _ => problem.allowed(listed(near.iter().copied().take(LISTED_MAX))),
    }
}
