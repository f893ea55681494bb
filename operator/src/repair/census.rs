//! Which pods of a namespace asked for a sidecar, and what each has.

use std::collections::BTreeMap;
use std::sync::Arc;

use spillway_crds::inject::{DEFAULT_LABEL, INJECT, INJECTED, Reason};
use spillway_crds::kinds::Kind;

use super::Made;
use crate::world::{Maker, ObjectKey, Pod, World};

/// The label that our own pods have, and its value; none of them is given a sidecar.
const PART_OF: (&str, &str) = ("app.kubernetes.io/part-of", "spillway");

/// What a pod has of what it asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum State {
    /// Its sidecar, as they are made now.
    Current,
    /// One that was made otherwise, or for another pipeline.
    Outdated,
    /// None; with why it would be given none if it were created again, where that is so.
    Missing(Option<Reason>),
}

/// A pod that asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) uid: Arc<str>,
    pub(super) name: Arc<str>,
    /// Unix time in seconds, by the clock of the API server.
    pub(super) created: i64,
    pub(super) state: State,
}

/// The pods of one maker.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Family {
    /// What made them; `None` for a pod that nobody made.
    pub(super) maker: Option<Arc<Maker>>,
    /// Oldest first.
    pub(super) pods: Vec<Seen>,
}

/// The pods that asked for one pipeline, by `metadata.uid` of what made them, or of themselves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Coverage {
    pub(super) families: BTreeMap<Arc<str>, Family>,
}

impl State {
    /// Returns whether making the pod anew would help.
    pub(super) fn is_mendable(self) -> bool {
        matches!(self, Self::Outdated | Self::Missing(None))
    }
}

impl Family {
    /// Returns the pods that lack something.
    pub(super) fn faulty(&self) -> impl Iterator<Item = &Seen> {
        self.pods.iter().filter(|pod| pod.state != State::Current)
    }
}

impl Coverage {
    /// Returns how many asked.
    pub(super) fn asked(&self) -> usize {
        self.families.values().map(|family| family.pods.len()).sum()
    }

    /// Returns the pods that lack something.
    pub(super) fn faulty(&self) -> impl Iterator<Item = &Seen> {
        self.families.values().flat_map(Family::faulty)
    }

    /// Returns how many are in such a state.
    pub(super) fn count(&self, is_one: impl Fn(State) -> bool) -> usize {
        self.faulty().filter(|pod| is_one(pod.state)).count()
    }
}

/// Counts the pods of a namespace that asked, by the pipeline that they asked for, be it there or not.
pub(super) fn of(world: &World, namespace: &str, made: Option<&Made>) -> BTreeMap<ObjectKey, Coverage> {
    let default = world.labels(namespace).and_then(|labels| labels.get(DEFAULT_LABEL)).map(String::as_str);
    let mut all: BTreeMap<ObjectKey, Coverage> = BTreeMap::new();
    for pod in world.pods_in(namespace) {
        let Some(asked) = asked(pod, default) else { continue };
        let key = ObjectKey::new(Kind::MonitoringPipeline, namespace, asked);
        let state = state(pod, asked, world.object_of(&key).is_some(), made);
        let maker = pod.carried.maker.as_ref();
        let uid = maker.map_or(&pod.uid, |maker| &maker.uid);
        let family = all.entry(key).or_default().families.entry(Arc::clone(uid)).or_default();
        family.maker = maker.cloned();
        let (uid, name) = (Arc::clone(&pod.uid), Arc::clone(&pod.facts.name));
        family.pods.push(Seen { uid, name, created: pod.carried.created, state });
    }
    for family in all.values_mut().flat_map(|coverage| coverage.families.values_mut()) {
        family.pods.sort_by(|one, other| (one.created, &one.uid).cmp(&(other.created, &other.uid)));
    }
    all
}

/// Returns the pipeline that a pod asked for, as long as it matters.
fn asked<'a>(pod: &'a Pod, default: Option<&'a str>) -> Option<&'a str> {
    let annotations = &pod.facts.annotations;
    let carried = || annotations.get(INJECTED).filter(|_| pod.carried.is_there);
    let asked = annotations.get(INJECT).or(default).or_else(carried)?;
    let is_over = pod.facts.has_ended || pod.carried.is_going;
    // A kubelet's picture of its own file, which no webhook is asked about.
    let is_picture = pod.carried.barred == Some(Reason::MirrorPod);
    let is_ours = pod.facts.labels.get(PART_OF.0) == Some(PART_OF.1);
    (asked != "false" && !is_over && !is_picture && !is_ours).then_some(asked)
}

fn state(pod: &Pod, asked: &str, is_pipeline: bool, made: Option<&Made>) -> State {
    let annotations = &pod.facts.annotations;
    if pod.carried.is_there {
        let is_current = made.is_none_or(|made| pod.carried.revision.as_ref() == Some(&made.revision));
        let is_meant = annotations.get(INJECTED) == Some(asked);
        return if is_meant && is_current { State::Current } else { State::Outdated };
    }
    let unknown = || (!is_pipeline).then_some(Reason::UnknownPipeline);
    let refused = || made.and_then(|made| made.settings.refuses(annotations.iter()));
    State::Missing(pod.carried.barred.or_else(unknown).or_else(refused))
}
