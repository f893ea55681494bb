//! The world into a verdict per object and a slice per place: a node, or a pod with a sidecar. Pure: the time is handed in.
//!
//! Expected flow: [`Renderer::render`] looks at what was touched. A *scope* is what is compiled together: the Backends and
//! pipelines of a namespace with every `ClusterBackend`, or the kinds of the cluster (the empty name). Scopes that were
//! touched are compiled again; then the slices of the places that take part in them, or were touched themselves, are made anew.
//!
//! # Guarantees
//! - The answer is that of a renderer that saw the world for the first time, but for pods that ended.
//! - A pipeline that does not compile, or whose destination does not, is served as its last good version. Destinations of
//!   that version are served as they stand where they compile, else as they stood in it. A `ClusterBackend` that is gone, or
//!   does not grant the namespace any more, is not served: what was granted ends at once. Of one that is there and grants nothing
//!   agents are told so, for what they hold for it.
//! - What newly names a Secret waits until that was read, [`SECRETS_WAITED_MAX`] at most, and with it all of its scope; what was served
//!   before is served meanwhile, and verdicts say so. Nobody else waits.
//! - A slice holds pipelines that take something of a pod on the node (or did within [`ENDED_KEPT`], or of which the node's
//!   agent still holds events), what these need, and nothing else: no other tenant's object, Secret, pod or namespace.
//! - The slice of a sidecar holds the pipeline that its pod asked for, if that takes events of the pod, and Backends and Secrets of
//!   the pod's namespace. No `ClusterBackend`, and nothing of one: a route that has one leads to the agent of the node as a whole.
//! - A slice that is the same is the same `Arc`.
//!
//! # Limits
//! A slice of more than [`SLICE_BYTES_MAX`] leaves out the largest pipelines of the namespace that has most in it, until the rest fits;
//! their verdicts say so. A tenant that takes too much costs itself, unless others take more.

mod scope;
mod slice;
mod unit;
mod verdict;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use spillway_crds::served::ANSWER_BYTES_MAX;

use crate::hub::Slice;
use crate::place;
use crate::tickets::Tickets;
use crate::world::{ObjectKey, Pod, SecretName, Touched, World};
use scope::Scope;
use slice::Whose;
pub use unit::Use;
pub use verdict::{Verdict, Why};

/// How long what a pod was stays known after its end.
pub const ENDED_KEPT: SignedDuration = SignedDuration::from_mins(10);

/// Most bytes of the manifests of a slice and the values of Secrets that they name: an answer also holds pods.
pub const SLICE_BYTES_MAX: usize = ANSWER_BYTES_MAX / 2;

/// How long what names Secrets that were not read yet is not served, but what was served before. They are told as absent when they
/// cannot be read for as long.
pub const SECRETS_WAITED_MAX: SignedDuration = SignedDuration::from_secs(15);

/// The name of the scope of the kinds of the cluster.
const OF_THE_CLUSTER: &str = "";

/// The pipelines of which the agent of each place holds events, as far as it is believed.
pub type Holding = BTreeMap<Arc<str>, BTreeSet<ObjectKey>>;

/// What rendering gives.
#[derive(Debug, Default)]
pub struct Rendered {
    /// Every object that was compiled again.
    pub verdicts: BTreeMap<ObjectKey, Verdict>,
    /// Objects that are gone.
    pub gone: BTreeSet<ObjectKey>,
    /// Objects that came to a place, left one, or are another version there.
    pub moved: BTreeSet<ObjectKey>,
    /// When something changes by time alone.
    pub again: Option<Timestamp>,
}

/// Renders, and remembers what it rendered.
#[derive(Debug)]
pub struct Renderer {
    tickets: Tickets,
    scopes: BTreeMap<Arc<str>, Scope>,
    slices: BTreeMap<Arc<str>, Arc<Slice>>,
    /// The scopes of which the slice of a place holds something.
    parts: BTreeMap<Arc<str>, BTreeSet<Arc<str>>>,
    /// Pods that ended, by node, and until when they are known.
    ended: BTreeMap<Arc<str>, Vec<(Arc<Pod>, Timestamp)>>,
    holding: Holding,
    too_large: BTreeMap<Arc<str>, BTreeSet<ObjectKey>>,
    /// How many scopes were compiled, ever.
    compiled: u64,
    /// Most bytes of the manifests of a slice and the values that they name.
    limit: usize,
}

impl Renderer {
    /// Returns one that has rendered nothing yet, and gives out `tickets`.
    pub fn new(tickets: Tickets) -> Self {
        Self {
            tickets,
            scopes: BTreeMap::new(),
            slices: BTreeMap::new(),
            parts: BTreeMap::new(),
            ended: BTreeMap::new(),
            holding: Holding::new(),
            too_large: BTreeMap::new(),
            compiled: 0,
            limit: SLICE_BYTES_MAX,
        }
    }

    /// Renders what was touched.
    pub fn render(&mut self, world: &World, touched: Touched, holding: Holding, now: Timestamp) -> Rendered {
        let mut rendered = Rendered::default();
        let scopes = self.scopes_of(world, &touched, now);
        let mut places = self.places_of(touched, holding, now);
        for name in &scopes {
            let before = self.scopes.remove(name);
            let keys: Vec<ObjectKey> = before.iter().flat_map(|before| before.verdicts.keys().cloned()).collect();
            let scope = Scope::compile(name, world, before, now);
            self.compiled += 1;
            rendered.gone.extend(keys.into_iter().filter(|key| !scope.verdicts.contains_key(key)));
            rendered.verdicts.extend(scope.verdicts.iter().map(|(key, verdict)| (key.clone(), verdict.clone())));
            if !scope.verdicts.is_empty() {
                self.scopes.insert(name.clone(), scope);
            }
        }
        places.extend(self.places_in(world, &scopes));
        self.count_uses(&mut rendered);
        for place in places {
            self.slice(world, &place, &mut rendered);
        }
        let waits = self.scopes.values().filter_map(Scope::waits_until);
        rendered.again = self.ended.values().flatten().map(|(_, until)| *until).chain(waits).min();
        rendered
    }

    /// Returns the slice of every place that has one.
    pub fn slices(&self) -> &BTreeMap<Arc<str>, Arc<Slice>> {
        &self.slices
    }

    /// Returns the Secrets that are named by what is served or would be, each with the keys that are.
    pub fn secrets(&self) -> BTreeMap<SecretName, BTreeSet<String>> {
        let mut named: BTreeMap<SecretName, BTreeSet<String>> = BTreeMap::new();
        for (name, key) in self.scopes.values().flat_map(Scope::secrets) {
            named.entry(name.clone()).or_default().insert(key.clone());
        }
        named
    }

    /// Returns the verdict of an object.
    pub fn verdict(&self, key: &ObjectKey) -> Option<&Verdict> {
        self.scopes.get(&key.namespace)?.verdicts.get(key)
    }

    /// Returns every verdict.
    pub fn verdicts(&self) -> impl Iterator<Item = (&ObjectKey, &Verdict)> {
        self.scopes.values().flat_map(|scope| &scope.verdicts)
    }

    /// Returns how many scopes were compiled so far.
    pub fn compiled(&self) -> u64 {
        self.compiled
    }

    /// Takes note of what agents hold and which pods ended; returns the places whose slices this may change.
    fn places_of(&mut self, touched: Touched, holding: Holding, now: Timestamp) -> BTreeSet<Arc<str>> {
        let mut places = touched.places;
        for (node, pods) in &mut self.ended {
            let before = pods.len();
            pods.retain(|(_, until)| *until > now);
            if pods.len() < before {
                places.insert(node.clone());
            }
        }
        self.ended.retain(|_, pods| !pods.is_empty());
        for pod in touched.ended {
            let until = now.saturating_add(ENDED_KEPT).unwrap_or(now);
            self.ended.entry(pod.node.clone()).or_default().push((pod, until));
        }
        let all: BTreeSet<&Arc<str>> = self.holding.keys().chain(holding.keys()).collect();
        places.extend(all.into_iter().filter(|place| self.holding.get(*place) != holding.get(*place)).cloned());
        self.holding = holding;
        places
    }

    /// Returns the scopes that are to be compiled again.
    fn scopes_of(&self, world: &World, touched: &Touched, now: Timestamp) -> BTreeSet<Arc<str>> {
        let mut scopes: BTreeSet<Arc<str>> = touched.objects.iter().map(|key| key.namespace.clone()).collect();
        scopes.extend(touched.stored.iter().map(|key| key.namespace.clone()));
        let of_cluster = touched.objects.iter().filter(|key| key.kind == spillway_crds::kinds::Kind::ClusterBackend);
        for key in of_cluster {
            // Who refers to it, or would: a name that is not there yet is referred to as well.
            let uses = self.scopes.iter().filter(|(_, scope)| scope.refers_to(key)).map(|(name, _)| name.clone());
            scopes.extend(uses);
        }
        for namespace in &touched.namespaces {
            scopes.extend(self.scopes.get(namespace).filter(|scope| scope.uses_cluster()).map(|_| namespace.clone()));
            scopes.extend(self.scopes.contains_key(OF_THE_CLUSTER).then(|| OF_THE_CLUSTER.into()));
        }
        let reads = |scope: &Scope| scope.secrets().any(|(name, _)| touched.secrets.contains(name));
        scopes.extend(self.scopes.iter().filter(|(_, scope)| reads(scope)).map(|(name, _)| name.clone()));
        let is_over = |scope: &Scope| scope.waits_until().is_some_and(|until| until <= now);
        scopes.extend(self.scopes.iter().filter(|(_, scope)| is_over(scope)).map(|(name, _)| name.clone()));
        if self.scopes.is_empty() {
            scopes.extend(world.objects().map(|(key, _)| key.namespace.clone()));
        }
        scopes
    }

    /// Returns the places that have, or had, something to do with one of these scopes.
    fn places_in(&self, world: &World, scopes: &BTreeSet<Arc<str>>) -> BTreeSet<Arc<str>> {
        if scopes.is_empty() {
            return BTreeSet::new();
        }
        let sidecars = scopes.iter().flat_map(|scope| world.sidecars_in(scope)).cloned();
        let served = self.slices.keys().filter(|place| !place::is_pod(place)).cloned();
        let nodes = world.node_names().into_iter().chain(served);
        if scopes.contains(OF_THE_CLUSTER) {
            return nodes.chain(sidecars).collect();
        }
        let has = |node: &Arc<str>| {
            let of_scope = |pod: &Arc<Pod>| scopes.contains(&pod.facts.namespace);
            let ended = self.ended.get(node).into_iter().flatten().map(|(pod, _)| pod);
            world.pods_on(node).chain(ended).any(of_scope)
                || self.parts.get(node).is_some_and(|parts| !parts.is_disjoint(scopes))
                || self.holding.contains_key(node)
        };
        nodes.filter(has).chain(sidecars).collect()
    }

    /// Counts the pipelines of each destination, as every one of them may have changed it.
    fn count_uses(&mut self, rendered: &mut Rendered) {
        if rendered.verdicts.is_empty() && rendered.gone.is_empty() {
            return;
        }
        let mut counts: BTreeMap<ObjectKey, u32> = BTreeMap::new();
        for (key, verdict) in self.scopes.values().flat_map(|scope| &scope.verdicts) {
            let used: BTreeSet<ObjectKey> = verdict.uses.iter().map(|one| one.key(&key.namespace)).collect();
            used.into_iter().for_each(|key| *counts.entry(key).or_default() += 1);
        }
        let all = self.scopes.values_mut().flat_map(|scope| &mut scope.verdicts);
        for (key, verdict) in all.filter(|(key, _)| !key.kind.is_pipeline()) {
            let used_by = counts.get(key).copied().unwrap_or_default();
            if verdict.used_by != used_by {
                verdict.used_by = used_by;
                rendered.verdicts.insert(key.clone(), verdict.clone());
            }
        }
    }

    /// Returns the objects of which the slice of a place is about to hold another version, or none.
    fn moved(&self, place: &Arc<str>, after: Option<&Slice>) -> BTreeSet<ObjectKey> {
        let nothing = BTreeMap::new();
        let before = self.slices.get(place).map_or(&nothing, |slice| &*slice.objects);
        let after = after.map_or(&nothing, |slice| &*slice.objects);
        let changed = before.iter().filter(|(label, edition)| after.get(*label) != Some(edition));
        let came = after.iter().filter(|(label, _)| !before.contains_key(*label));
        changed.chain(came).filter_map(|(label, _)| ObjectKey::of_label(label)).collect()
    }

    /// Makes the slice of a place, and says of pipelines when they do not fit into it any more, or fit again.
    fn slice(&mut self, world: &World, place: &Arc<str>, rendered: &mut Rendered) {
        let (nothing, is_sidecar) = (BTreeSet::new(), place::is_pod(place));
        let holding = self.holding.get(place).unwrap_or(&nothing);
        let pods: Vec<&Arc<Pod>> = if is_sidecar {
            world.pod_at(place).into_iter().collect()
        } else {
            let ended = self.ended.get(place).into_iter().flatten().map(|(pod, _)| pod);
            world.pods_on(place).chain(ended).collect()
        };
        let whose = Whose { pods: &pods, holding, is_sidecar };
        let mut made = slice::make(&self.scopes, world, &whose, self.limit);
        made.slice.tickets = Some(self.tickets.of_node(place));
        let is_there = world.nodes().contains_key(place) || !pods.is_empty();
        rendered.moved.extend(self.moved(place, is_there.then_some(&made.slice)));
        self.parts.insert(place.clone(), made.scopes);
        if is_there {
            let same = self.slices.get(place).is_some_and(|before| **before == made.slice);
            if !same {
                self.slices.insert(place.clone(), Arc::new(made.slice));
            }
        } else {
            self.slices.remove(place);
            self.parts.remove(place);
        }
        let before = self.too_large.remove(place).unwrap_or_default();
        if !made.left_out.is_empty() {
            self.too_large.insert(place.clone(), made.left_out.clone());
        }
        // A scope that was compiled again does not know it any more.
        for key in before.union(&made.left_out) {
            let is_left_out = self.too_large.values().any(|keys| keys.contains(key));
            let verdict = self.scopes.get_mut(&key.namespace).and_then(|scope| scope.verdicts.get_mut(key));
            let Some(verdict) = verdict else { continue };
            if is_left_out && verdict.accepted.is_ok() {
                verdict.accepted = Err(slice::too_large());
            } else if !is_left_out && verdict.accepted == Err(slice::too_large()) {
                verdict.accepted = Ok(());
            } else {
                continue;
            }
            rendered.verdicts.insert(key.clone(), verdict.clone());
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
