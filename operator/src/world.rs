//! What the cluster holds that concerns us, as far as we need it: no type of Kubernetes, no call, no clock.
//!
//! [`World::apply`] takes one [`Change`] after the other, in the order the watches gave them, and remembers what it touched
//! until [`World::take_touched`]: rendering looks at that and at nothing else.
//!
//! # Limits
//! One entry per object of ours, namespace, pod, node and named Secret; of a pod only what selection and origin need.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use spillway_crds::served::PodFacts;

/// The kinds of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `Backend`.
    Backend,
    /// `ClusterBackend`.
    ClusterBackend,
    /// `MonitoringPipeline`.
    MonitoringPipeline,
    /// `ClusterMonitoringPipeline`.
    ClusterMonitoringPipeline,
}

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
    pub last_good: Option<LastGood>,
}

/// A version of a pipeline that could be run, with what it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastGood {
    /// The generation of the pipeline.
    pub generation: i64,
    /// The pipeline and the backends it referred to, each as [`Manifest::text`].
    pub texts: Vec<Arc<str>>,
}

/// One pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pod {
    /// What selection and origin need.
    pub facts: PodFacts,
    /// The node it runs on; empty before it is scheduled.
    pub node: Arc<str>,
    /// Its service account.
    pub service_account: Arc<str>,
    /// `metadata.uid`; differs from that of the facts for a static pod.
    pub uid: Arc<str>,
}

/// What a Secret held when it was read last.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SecretData {
    /// Changes whenever a value may have changed.
    pub version: Arc<str>,
    /// The values by key.
    pub values: BTreeMap<String, Vec<u8>>,
}

/// A Secret's namespace and name.
pub type SecretName = (Arc<str>, Arc<str>);

/// One thing that changed; `None` where it is gone.
#[derive(Debug, Clone)]
pub enum Change {
    /// An object of ours.
    Object(ObjectKey, Option<Manifest>),
    /// A namespace, with its labels.
    Namespace(Arc<str>, Option<BTreeMap<String, String>>),
    /// A pod, by `metadata.uid`.
    Pod(Arc<str>, Option<Pod>),
    /// A node, and whether it is ready.
    Node(Arc<str>, Option<bool>),
    /// A Secret that was looked for.
    Secret(SecretName, Option<SecretData>),
}

/// What changes touched.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Touched {
    /// Namespaces of which an object, a label, a Secret changed; the empty name stands for the kinds of the cluster.
    pub namespaces: BTreeSet<Arc<str>>,
    /// Nodes of which a pod came, went or changed its facts, or whose readiness changed.
    pub nodes: BTreeSet<Arc<str>>,
}

/// What the cluster holds that concerns us.
#[derive(Debug, Default)]
pub struct World {
    objects: BTreeMap<ObjectKey, Manifest>,
    namespaces: BTreeMap<Arc<str>, BTreeMap<String, String>>,
    pods: BTreeMap<Arc<str>, Pod>,
    nodes: BTreeMap<Arc<str>, bool>,
    secrets: BTreeMap<SecretName, Option<SecretData>>,
    touched: Touched,
}

impl fmt::Debug for SecretData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretData(version {}, {} keys, values not shown)", self.version, self.values.len())
    }
}
