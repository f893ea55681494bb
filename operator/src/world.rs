//! What the cluster holds that concerns us, as far as we need it: no type of Kubernetes, no call, no clock.
//!
//! [`World::apply`] takes one [`Change`] after the other, in the order the watches gave them, and remembers what it touched
//! until [`World::take_touched`]: rendering looks at that and at nothing else.
//!
//! # Guarantees
//! - What comes again unchanged touches nothing: a watch that begins anew costs no rendering.
//! - Names are held once ([`held`]).
//!
//! # Limits
//! One entry per object of ours, namespace, pod (thrice), node and named Secret; of a pod only what selection and origin need, and
//! nothing before it is scheduled; of a Secret the values that are named, each of at most [`SECRET_VALUE_BYTES_MAX`].

mod pod;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::mem;
use std::ops::Bound;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use spillway_crds::inject::{DEFAULT_LABEL, INJECT, INJECTED};
use spillway_crds::kinds::{CLUSTER, Kind};
use spillway_crds::served::{LOGS_MARK, MarkedBy, SECRET_VALUE_BYTES_MAX, TokenKeys, logs_mark};

use crate::place;
use crate::texts::held;
pub use pod::{Carried, Maker, Pod};

/// Names one object of ours.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace; empty for a kind of the cluster.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

/// One object of ours as it stands in the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// `metadata.uid`.
    pub uid: Arc<str>,
    /// `metadata.generation`.
    pub generation: i64,
    /// `apiVersion`, `kind`, `metadata` (namespace, name, generation) and `spec` as JSON, sorted; what an agent is served.
    pub text: Arc<str>,
    /// The last version of it that was good, where one is kept: that of a pipeline holds its backends, too.
    pub last_good: Option<Arc<LastGood>>,
}

/// A version of a pipeline that could be run, with what it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastGood {
    /// The generation of the pipeline.
    pub generation: i64,
    /// The pipeline and the backends it referred to, each as [`Manifest::text`].
    pub texts: Vec<Arc<str>>,
}

/// What a Secret held when it was read last.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SecretData {
    /// Changes whenever a value may have changed.
    pub version: Arc<str>,
    /// Its keys, each with what is known of the value.
    pub values: BTreeMap<String, SecretValue>,
}

/// What is known of one value of a Secret.
#[derive(Clone, PartialEq, Eq)]
pub enum SecretValue {
    /// It was asked for: the value in base64, as all who are served it share it.
    Kept(Arc<str>),
    /// It has so many bytes, more than are served.
    TooLarge(usize),
    /// Nobody named it when the Secret was read.
    NotKept,
}

/// A Secret's namespace and name.
pub type SecretName = (Arc<str>, Arc<str>);

/// One thing that changed; `None` where it is gone.
#[derive(Debug, Clone)]
pub enum Change {
    /// An object of ours.
    Object(ObjectKey, Option<Manifest>),
    /// The last good version that is kept of an object of ours.
    LastGood(ObjectKey, Option<Arc<LastGood>>),
    /// A namespace, with its labels.
    Namespace(Arc<str>, Option<BTreeMap<String, String>>),
    /// A pod, by `metadata.uid`.
    Pod(Arc<str>, Option<Pod>),
    /// A node, and whether it is ready.
    Node(Arc<str>, Option<bool>),
    /// A Secret that was looked for.
    Secret(SecretName, Option<SecretData>),
    /// What tokens of pods are verified with.
    TokenKeys(Arc<TokenKeys>),
}

/// What changes touched.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Touched {
    /// Objects of ours that came, went or are another version.
    pub objects: BTreeSet<ObjectKey>,
    /// Objects of ours of which another last good version is kept, and nothing else changed.
    pub stored: BTreeSet<ObjectKey>,
    /// Namespaces that came, went or have other labels.
    pub namespaces: BTreeSet<Arc<str>>,
    /// Nodes of which a pod came, went or changed its facts, or whose readiness changed; pods with a sidecar that did.
    pub places: BTreeSet<Arc<str>>,
    /// Namespaces in which a pod that asks for a sidecar came, went or changed.
    pub asking: BTreeSet<Arc<str>>,
    /// Secrets that are there, or not, or hold something else than before.
    pub secrets: BTreeSet<SecretName>,
    /// Pods that are gone, or as they were before their labels changed.
    pub ended: Vec<Arc<Pod>>,
}

/// What the cluster holds that concerns us.
#[derive(Debug, Default)]
pub struct World {
    objects: BTreeMap<ObjectKey, Manifest>,
    namespaces: BTreeMap<Arc<str>, BTreeMap<String, String>>,
    pods: BTreeMap<Arc<str>, Arc<Pod>>,
    /// The pods of each node, by `metadata.uid`.
    by_node: BTreeMap<Arc<str>, BTreeMap<Arc<str>, Arc<Pod>>>,
    /// The pods of each namespace, by `metadata.uid`.
    by_namespace: BTreeMap<Arc<str>, BTreeMap<Arc<str>, Arc<Pod>>>,
    /// The pods that have a sidecar, by its place: each by `metadata.uid`.
    sidecars: BTreeMap<Arc<str>, Arc<str>>,
    nodes: BTreeMap<Arc<str>, bool>,
    secrets: BTreeMap<SecretName, Option<SecretData>>,
    token_keys: Option<Arc<TokenKeys>>,
    touched: Touched,
}

impl World {
    /// Takes one change.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Object(key, manifest) => self.object(key, manifest),
            Change::LastGood(key, good) => {
                if let Some(known) = self.objects.get_mut(&key).filter(|known| known.last_good != good) {
                    known.last_good = good;
                    self.touched.stored.insert(key);
                }
            }
            Change::Namespace(name, labels) => {
                if replaced(&mut self.namespaces, &name, labels) {
                    self.touched.namespaces.insert(name);
                }
            }
            Change::Pod(uid, pod) => self.pod_change(uid, pod),
            Change::Node(name, is_ready) => {
                if replaced(&mut self.nodes, &name, is_ready) {
                    self.touched.places.insert(name);
                }
            }
            Change::Secret(name, data) => {
                if self.secrets.get(&name) != Some(&data) {
                    self.secrets.insert(name.clone(), data);
                    self.touched.secrets.insert(name);
                }
            }
            Change::TokenKeys(keys) => {
                if self.token_keys.as_ref() != Some(&keys) {
                    self.token_keys = Some(keys);
                    self.touched.places.extend(self.node_names());
                }
            }
        }
    }

    /// Forgets a Secret that nothing names any more, so that it counts as one that was never looked for.
    pub fn forget_secret(&mut self, name: &SecretName) {
        self.secrets.remove(name);
    }

    /// Returns what was touched since the last call.
    pub fn take_touched(&mut self) -> Touched {
        mem::take(&mut self.touched)
    }

    /// Returns the object of that key.
    pub fn object_of(&self, key: &ObjectKey) -> Option<&Manifest> {
        self.objects.get(key)
    }

    /// Returns every object of ours, by kind, namespace and name.
    pub fn objects(&self) -> impl Iterator<Item = (&ObjectKey, &Manifest)> {
        self.objects.iter()
    }

    /// Returns the objects of a kind in a namespace, by name.
    pub fn objects_in(&self, kind: Kind, namespace: &str) -> impl Iterator<Item = (&ObjectKey, &Manifest)> {
        let from = ObjectKey::new(kind, namespace, "");
        let namespace = Arc::clone(&from.namespace);
        self.objects.range(from..).take_while(move |(key, _)| key.kind == kind && key.namespace == namespace)
    }

    /// Returns the labels of a namespace; `None` when there is none.
    pub fn labels(&self, namespace: &str) -> Option<&BTreeMap<String, String>> {
        self.namespaces.get(namespace)
    }

    /// Returns every namespace with its labels.
    pub fn namespaces(&self) -> impl Iterator<Item = (&Arc<str>, &BTreeMap<String, String>)> {
        self.namespaces.iter()
    }

    /// Returns every node that is there, and whether it is ready.
    pub fn nodes(&self) -> &BTreeMap<Arc<str>, bool> {
        &self.nodes
    }

    /// Returns every node that is there or has a pod.
    pub fn node_names(&self) -> BTreeSet<Arc<str>> {
        self.nodes.keys().chain(self.by_node.keys()).cloned().collect()
    }

    /// Returns the pod of that `metadata.uid`.
    pub fn pod(&self, uid: &str) -> Option<&Arc<Pod>> {
        self.pods.get(uid)
    }

    /// Returns the pods on a node.
    pub fn pods_on(&self, node: &str) -> impl Iterator<Item = &Arc<Pod>> {
        self.by_node.get(node).into_iter().flat_map(BTreeMap::values)
    }

    /// Returns the pods of a namespace.
    pub fn pods_in(&self, namespace: &str) -> impl Iterator<Item = &Arc<Pod>> {
        self.by_namespace.get(namespace).into_iter().flat_map(BTreeMap::values)
    }

    /// Returns the place of each agent that is live, by its pod's `metadata.uid`: of those of nodes, which are the pods of a
    /// service account, and of sidecars.
    pub fn agents(&self, namespace: &str, account: &str) -> BTreeMap<Arc<str>, Arc<str>> {
        let is_one = |pod: &&Arc<Pod>| *pod.service_account == *account && *pod.facts.namespace == *namespace;
        let of_pods = self.sidecars.iter().map(|(place, uid)| (uid.clone(), place.clone()));
        let of_nodes = self.pods.values().filter(is_one).map(|pod| (pod.uid.clone(), pod.node.clone()));
        of_pods.chain(of_nodes).collect()
    }

    /// Returns the pod whose sidecar has that place.
    pub fn pod_at(&self, place: &str) -> Option<&Arc<Pod>> {
        self.pods.get(self.sidecars.get(place)?)
    }

    /// Returns the places of the sidecars in a namespace.
    pub fn sidecars_in(&self, namespace: &str) -> impl Iterator<Item = &Arc<str>> {
        let first = place::of_pod(namespace, "");
        let from = self.sidecars.range::<str, _>((Bound::Included(&*first), Bound::Unbounded));
        from.map(|(place, _)| place).take_while(move |place| place.starts_with(&*first))
    }

    /// Returns what a Secret holds: `None` when it was not looked for, `Some(None)` when it is not there.
    pub fn secret(&self, name: &SecretName) -> Option<Option<&SecretData>> {
        self.secrets.get(name).map(Option::as_ref)
    }

    /// Returns what tokens of pods are verified with.
    pub fn token_keys(&self) -> Option<&Arc<TokenKeys>> {
        self.token_keys.as_ref()
    }

    /// Returns the names of the Secrets that were looked for.
    pub fn secret_names(&self) -> impl Iterator<Item = &SecretName> {
        self.secrets.keys()
    }

    fn object(&mut self, key: ObjectKey, manifest: Option<Manifest>) {
        let known = self.objects.get(&key);
        let Some(manifest) = manifest else {
            if self.objects.remove(&key).is_some() {
                self.touched.objects.insert(key);
            }
            return;
        };
        match known {
            Some(known) if *known == manifest => return,
            Some(known) if is_same_version(known, &manifest) => self.touched.stored.insert(key.clone()),
            _ => self.touched.objects.insert(key.clone()),
        };
        self.objects.insert(key, manifest);
    }

    fn pod_change(&mut self, uid: Arc<str>, pod: Option<Pod>) {
        let known = self.pods.get(&uid).map(Arc::clone);
        let pod = pod.filter(|pod| !pod.node.is_empty()).map(Self::with_mark);
        if known.as_deref() != pod.as_ref() {
            self.note_sidecar(&uid, known.as_deref(), pod.as_ref());
            let asking = [known.as_deref(), pod.as_ref()].into_iter().flatten().filter(|pod| self.asks(pod));
            let asking: Vec<Arc<str>> = asking.map(|pod| Arc::clone(&pod.facts.namespace)).collect();
            self.touched.asking.extend(asking);
        }
        match (known, pod) {
            (Some(known), Some(pod)) if *known == pod => {}
            (known, Some(pod)) => {
                let pod = Arc::new(pod);
                match known {
                    Some(known) if known.node != pod.node => self.unplace(&uid, &known),
                    // What selected it by its old labels may still have lines of it to read.
                    Some(known) if known.facts.labels != pod.facts.labels => self.touched.ended.push(known),
                    _ => {}
                }
                self.touched.places.insert(Arc::clone(&pod.node));
                for (index, key) in [(&mut self.by_node, &pod.node), (&mut self.by_namespace, &pod.facts.namespace)] {
                    index.entry(Arc::clone(key)).or_default().insert(Arc::clone(&uid), Arc::clone(&pod));
                }
                self.pods.insert(uid, pod);
            }
            (Some(known), None) => {
                self.pods.remove(&uid);
                self.unplace(&uid, &known);
            }
            (None, None) => {}
        }
    }

    fn unplace(&mut self, uid: &Arc<str>, pod: &Arc<Pod>) {
        for (index, key) in [(&mut self.by_node, &pod.node), (&mut self.by_namespace, &pod.facts.namespace)] {
            if let Some(pods) = index.get_mut(key) {
                pods.remove(uid);
                if pods.is_empty() {
                    index.remove(key);
                }
            }
        }
        self.touched.places.insert(Arc::clone(&pod.node));
        self.touched.ended.push(Arc::clone(pod));
    }

    /// Returns whether a pod says something of sidecars, or its namespace does.
    fn asks(&self, pod: &Pod) -> bool {
        let says = |key| pod.facts.annotations.get(key).is_some();
        let of_namespace = self.namespaces.get(&pod.facts.namespace).is_some_and(|all| all.contains_key(DEFAULT_LABEL));
        says(INJECT) || says(INJECTED) || of_namespace
    }

    /// Keeps the list of sidecars, where a pod becomes another one.
    fn note_sidecar(&mut self, uid: &Arc<str>, before: Option<&Pod>, after: Option<&Pod>) {
        if let Some(place) = before.and_then(Pod::place) {
            // A pod of the same name may have come already.
            if self.sidecars.get(&place) == Some(uid) {
                self.sidecars.remove(&place);
            }
            self.touched.places.insert(place);
        }
        if let Some(place) = after.and_then(Pod::place) {
            self.sidecars.insert(Arc::clone(&place), Arc::clone(uid));
            self.touched.places.insert(place);
        }
    }

    /// Returns the pod with a label that keeps logs out as an annotation.
    fn with_mark(mut pod: Pod) -> Pod {
        if let Some((MarkedBy::Label, mark)) = logs_mark(&pod.facts.annotations, &pod.facts.labels) {
            let mark = mark.to_owned();
            Arc::make_mut(&mut pod.facts).annotations.insert(LOGS_MARK, &mark);
        }
        pod
    }
}

/// Puts, or removes, and returns whether that changed anything.
fn replaced<V: PartialEq>(map: &mut BTreeMap<Arc<str>, V>, key: &Arc<str>, value: Option<V>) -> bool {
    if map.get(key) == value.as_ref() {
        return false;
    }
    match value {
        Some(value) => drop(map.insert(Arc::clone(key), value)),
        None => drop(map.remove(key)),
    }
    true
}

fn is_same_version(known: &Manifest, new: &Manifest) -> bool {
    (&known.uid, known.generation, &known.text) == (&new.uid, new.generation, &new.text)
}

impl ObjectKey {
    /// Returns a key; the namespace of a kind of the cluster is empty.
    pub fn new(kind: Kind, namespace: &str, name: &str) -> Self {
        Self { kind, namespace: held(namespace), name: held(name) }
    }

    /// Returns the object as errors name it: `Backend fab12/search`, `ClusterBackend lake`.
    pub fn label(&self) -> String {
        let Self { kind, namespace, name } = self;
        match &**namespace {
            "" => format!("{} {name}", kind.name()),
            namespace => format!("{} {namespace}/{name}", kind.name()),
        }
    }

    /// Returns the key of an object as errors name it.
    pub fn of_label(label: &str) -> Option<Self> {
        let (kind, name) = label.split_once(' ')?;
        let (namespace, name) = name.split_once('/').unwrap_or(("", name));
        Some(Self::new(Kind::of_name(kind)?, namespace, name))
    }

    /// Returns what names it for good, `<namespace>.<name>`, as logs and agents do.
    pub fn uid(&self) -> String {
        let namespace = if self.namespace.is_empty() { CLUSTER } else { &self.namespace };
        format!("{namespace}.{}", self.name)
    }
}

impl SecretData {
    /// Returns what is kept of a Secret of which these keys are `named`: their values, and of the others that they are there.
    pub fn of(version: &str, all: impl IntoIterator<Item = (String, Vec<u8>)>, named: &BTreeSet<String>) -> Self {
        let known = |key: &str, value: Vec<u8>| match value.len() {
            _ if !named.contains(key) => SecretValue::NotKept,
            bytes if bytes > SECRET_VALUE_BYTES_MAX => SecretValue::TooLarge(bytes),
            _ => SecretValue::Kept(STANDARD.encode(value).into()),
        };
        let values = all.into_iter().map(|(key, value)| {
            let value = known(&key, value);
            (key, value)
        });
        Self { version: version.into(), values: values.collect() }
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretValue(not shown)")
    }
}

impl fmt::Debug for SecretData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretData(version {}, {} keys, values not shown)", self.version, self.values.len())
    }
}

#[cfg(test)]
mod tests;
