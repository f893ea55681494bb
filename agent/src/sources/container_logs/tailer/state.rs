//! What the tailer knows: what is wanted, pods and their containers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use spillway_crds::Reach;
use spillway_crds::kinds::selector::LabelSelector;
use spillway_delivery::event::{Origin, OriginBuilder};

use super::super::StartAt;
use super::super::layout::PodFacts;
use super::pods::Known;

/// What one input of a pipeline wants.
#[derive(Debug, Clone)]
pub(in super::super) struct Want {
    /// The pipeline, by its place in the list.
    pub(in super::super) pipeline: usize,
    /// The namespaces.
    pub(in super::super) namespaces: Reach,
    /// The containers by name, empty for every one.
    pub(in super::super) containers: Vec<String>,
    /// The pods, by what is told of them.
    pub(in super::super) pod_selector: LabelSelector,
    /// Where files are begun that were there before the pipeline.
    pub(in super::super) start_at: StartAt,
}

impl Want {
    /// Returns whether any container of the pod may be wanted.
    pub(super) fn takes_pod(&self, facts: &PodFacts) -> bool {
        self.namespaces.takes(&facts.namespace)
    }

    /// Returns whether a container is wanted, as far as its path says.
    pub(super) fn takes(&self, facts: &PodFacts, container: &str) -> bool {
        self.takes_pod(facts) && (self.containers.is_empty() || self.containers.iter().any(|name| name == container))
    }
}

/// Returns who makes the events of a container.
pub(super) fn origin(facts: &PodFacts, container: &str, node: Option<&str>, known: &Known) -> Arc<Origin> {
    let told = match known {
        Known::Told(told) => Some(told),
        Known::Path | Known::NotYet | Known::Silent => None,
    };
    let owner = told.and_then(|told| told.owner.as_ref());
    OriginBuilder {
        namespace: Some(facts.namespace.to_string()),
        pod: Some(facts.pod.to_string()),
        pod_uid: Some(facts.uid.to_string()),
        container: Some(container.to_owned()),
        node: node.map(str::to_owned),
        source: Some("container-logs".to_owned()),
        owner_kind: owner.map(|owner| owner.kind.to_string()),
        owner_name: owner.map(|owner| owner.name.to_string()),
        labels: told.map(|told| told.labels.to_map()).unwrap_or_default(),
        annotations: told.map(|told| told.annotations.to_map()).unwrap_or_default(),
        ..OriginBuilder::default()
    }
    .build()
}

/// The pods whose directories are there, or whose files are still read.
#[derive(Debug, Default)]
pub(super) struct Pods {
    /// Containers by the pod's directory and their own.
    pub(super) names: BTreeMap<Arc<str>, BTreeMap<Arc<str>, u32>>,
    /// Pods whose directories could not be listed since the start.
    pub(super) unlisted: BTreeSet<Arc<str>>,
}

impl Pods {
    /// Adds a container of a pod that is known.
    pub(super) fn add(&mut self, pod: &Arc<str>, name: Arc<str>, key: u32) {
        self.names.entry(pod.clone()).or_default().insert(name, key);
    }

    /// Forgets the containers that are `followed` no more.
    pub(super) fn forget_left(&mut self, followed: impl Fn(u32) -> bool) {
        for containers in self.names.values_mut() {
            containers.retain(|_, key| followed(*key));
        }
    }

    /// Forgets pods of which no container is left and whose directory is not `there`.
    pub(super) fn retain(&mut self, there: impl Fn(&str) -> bool) {
        self.names.retain(|name, containers| !containers.is_empty() || there(name));
    }
}
