//! What the tailer knows: pipelines and what waits in them, pods and their containers.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use spillway_crds::Reach;
use spillway_crds::kinds::selector::LabelSelector;
use spillway_delivery::event::{Origin, OriginBuilder};

use super::super::StartAt;
use super::super::container::Container;
use super::super::layout::PodFacts;
use super::super::position::{MARKER, is_container};
use super::IN_FLIGHT_MAX;
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

/// A pipeline and what waits in it.
#[derive(Debug)]
pub(super) struct Lane {
    /// Recovered positions of containers that were not found yet.
    pub(super) positions: HashMap<Bytes, Bytes>,
    /// Whether it never saw the files of this node before.
    pub(super) is_first_start: bool,
    /// Whether it has yet to note that it saw them.
    pub(super) marks: bool,
    /// Positions to forget: their containers are gone for good.
    pub(super) farewells: VecDeque<Bytes>,
    /// Seats whose first position has yet to be kept.
    pub(super) announcing: usize,
    /// Seats that wait for their turn.
    pub(super) ready: VecDeque<(u32, usize)>,
    /// Batches on their way.
    pub(super) in_flight: usize,
}

/// What a lane does next.
pub(super) enum Next {
    /// Nothing.
    Nothing,
    /// Forgets a container.
    Forget(Bytes),
    /// Notes that the node's files were seen.
    Mark,
    /// Lets a seat read.
    Seat(u32, usize),
}

impl Lane {
    /// Returns a lane that recovered `positions`.
    pub(super) fn new(positions: Vec<(Bytes, Bytes)>) -> Self {
        let is_first_start = !positions.iter().any(|(source, _)| source == MARKER);
        let positions = positions.into_iter().filter(|(source, _)| is_container(source)).collect();
        Self {
            positions,
            is_first_start,
            marks: false,
            farewells: VecDeque::new(),
            announcing: 0,
            ready: VecDeque::new(),
            in_flight: 0,
        }
    }

    /// Returns whether another batch may be under way.
    pub(super) fn may_send(&self) -> bool {
        self.in_flight < IN_FLIGHT_MAX
    }

    /// Returns what is next.
    pub(super) fn next(&mut self) -> Next {
        if let Some(source) = self.farewells.pop_front() {
            return Next::Forget(source);
        }
        if self.marks && self.announcing == 0 {
            self.marks = false;
            return Next::Mark;
        }
        self.ready.pop_front().map_or(Next::Nothing, |(key, seat)| Next::Seat(key, seat))
    }
}

/// The pods whose directories are there, or whose files are still read.
#[derive(Debug, Default)]
pub(super) struct Pods {
    /// Containers by the pod's directory and their own.
    pub(super) names: BTreeMap<Arc<str>, BTreeMap<Arc<str>, u32>>,
    /// Pods whose directories could not be listed since the start.
    pub(super) unlisted: BTreeSet<Arc<str>>,
    containers: BTreeMap<u32, Container>,
    key_next: u32,
}

impl Pods {
    /// Returns a container.
    pub(super) fn container(&mut self, key: u32) -> Option<&mut Container> {
        self.containers.get_mut(&key)
    }

    /// Returns every container.
    pub(super) fn containers(&self) -> impl Iterator<Item = &Container> {
        self.containers.values()
    }

    /// Returns how many containers there are.
    pub(super) fn len(&self) -> usize {
        self.containers.len()
    }

    /// Adds a container of a pod that is known.
    pub(super) fn add(&mut self, pod: &Arc<str>, name: Arc<str>, container: Container) -> u32 {
        self.key_next += 1;
        self.names.entry(pod.clone()).or_default().insert(name, self.key_next);
        self.containers.insert(self.key_next, container);
        self.key_next
    }

    /// Forgets a container that everybody has left, and its pod when it was the last.
    pub(super) fn remove(&mut self, key: u32) {
        self.containers.remove(&key);
        for containers in self.names.values_mut() {
            containers.retain(|_, known| *known != key);
        }
    }

    /// Forgets pods of which no container is left and whose directory is not `there`.
    pub(super) fn retain(&mut self, there: impl Fn(&str) -> bool) {
        self.names.retain(|name, containers| !containers.is_empty() || there(name));
    }

    /// Returns the keys of every container.
    pub(super) fn keys(&self) -> Vec<u32> {
        self.containers.keys().copied().collect()
    }
}
