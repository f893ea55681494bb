//! Pods that asked for a sidecar and have none, or an outdated one: counted, told, and evicted where a pipeline says so. Pure: the
//! time is handed in, and what is to be written comes out.
//!
//! Expected flow: the controller has [`Repair::look`] count after each change, asks [`Repair::sidecars`] for what the status of a
//! pipeline says of it and [`Repair::news`] for what is to be told of the makers of such pods, and once that status stands in the
//! cluster, [`Repair::next`] for a pod to evict. What came of it goes into [`Repair::done`].
//!
//! # Guarantees
//! - A pod is evicted only where its pipeline says `Recreate`, the administrator enabled it, and its maker is of a kind that makes
//!   another at once ([`MAKERS`]); never one that would be given no sidecar either, or whose fault is younger than the wait.
//! - It never loops. Whose pods are evicted stands in the status of the pipeline before the first of them is, with the creation
//!   time of the youngest pod that is meant: a younger one came back. Where one came back without an up-to-date sidecar, no pod of
//!   that maker is evicted until sidecars are made otherwise; a restart of ours, or another leader, changes nothing about that.
//! - One eviction at a time, [`APART`] apart, in the whole cluster; of one maker the next follows when one came back well. One that a
//!   disruption budget forbids is asked for again later, and never forced.
//!
//! # It must not know
//! The API server, the clock.
//!
//! # Limits
//! [`RECREATIONS_MAX`](spillway_crds::kinds::status::RECREATIONS_MAX) makers at a time for a pipeline; those that came back without
//! count, so that a webhook that does nothing stops the whole of it. [`MAKERS_TOLD_MAX`] makers of a pipeline are told in Events,
//! others are counted.

mod attempts;
mod census;
mod stats;
mod telling;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use spillway_crds::inject::Settings;
use spillway_crds::kinds::Kind;
use spillway_crds::kinds::status::Recreation;

use crate::world::{ObjectKey, Touched, World};
use census::Coverage;
pub use stats::RepairStats;
pub use telling::{About, Cause, Sidecars, Told};

/// The least time between two evictions.
pub const APART: SignedDuration = SignedDuration::from_secs(10);

/// How long a pod whose eviction was refused rests at first; twice as long each time.
pub const REST: SignedDuration = SignedDuration::from_secs(5);

/// How long such a pod rests at most.
pub const REST_MAX: SignedDuration = SignedDuration::from_mins(5);

/// How long whose pods were evicted is remembered where no pod of it is there any more to tell whether that mended anything.
pub const FORGOTTEN_AFTER: SignedDuration = SignedDuration::from_hours(24);

/// Most makers of the pods of one pipeline that are told in Events.
pub const MAKERS_TOLD_MAX: usize = 32;

/// The kinds that make a pod anew at once, and lose nothing by it but what the pod was doing. A Job counts it as a failure.
pub const MAKERS: [&str; 4] = ["ReplicaSet", "StatefulSet", "DaemonSet", "ReplicationController"];

/// The namespaces of the system, whose pods no webhook of ours is asked about.
const OF_THE_SYSTEM: [&str; 2] = ["kube-system", "kube-node-lease"];

/// What sidecars are made of.
#[derive(Debug, PartialEq, Eq)]
pub struct Made {
    /// The settings.
    pub settings: Settings,
    /// The same in a word.
    pub revision: Arc<str>,
}

/// How pods are repaired in this installation.
#[derive(Debug, Clone)]
pub struct Rules {
    /// The namespace of ours, whose pods are given no sidecars.
    pub namespace: Arc<str>,
    /// Whether pods may be evicted at all.
    pub recreates: bool,
    /// How long a pod, and what sidecars are made of, must have been as they are.
    pub after: SignedDuration,
}

/// A pod to be evicted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Eviction {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub pod: Arc<str>,
    /// `metadata.uid`: another pod of that name is left alone.
    pub uid: Arc<str>,
    /// `metadata.uid` of its maker.
    pub maker: Arc<str>,
}

/// What came of an eviction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// The pod is being deleted.
    Evicted,
    /// A disruption budget forbids it now.
    Held,
    /// It was gone, or is another one.
    Gone,
    /// The API server did not take it.
    Failed,
}

/// See the module.
#[derive(Debug)]
pub struct Repair {
    rules: Rules,
    /// What sidecars are made of, and since when this process knows.
    made: Option<(Arc<Made>, Timestamp)>,
    is_new: bool,
    covered: BTreeMap<ObjectKey, Coverage>,
    /// What was told of makers of the pods of each pipeline, in this term.
    told: BTreeMap<ObjectKey, BTreeMap<Arc<str>, Cause>>,
    attempts: attempts::Attempts,
    stats: RepairStats,
}

/// What a pipeline wants done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remediation {
    /// To tell.
    Tell,
    /// To tell, and to recreate.
    Recreate,
}

impl Repair {
    /// Returns one that has seen nothing.
    pub fn new(rules: Rules, stats: RepairStats) -> Self {
        Self {
            rules,
            made: None,
            is_new: false,
            covered: BTreeMap::new(),
            told: BTreeMap::new(),
            attempts: attempts::Attempts::default(),
            stats,
        }
    }

    /// Takes note of what sidecars are made of.
    pub fn made_of(&mut self, made: Option<Arc<Made>>, now: Timestamp) {
        if self.made.as_ref().map(|(known, _)| known) != made.as_ref() {
            self.made = made.map(|made| (made, now));
            self.is_new = true;
        }
    }

    /// Forgets what was told and asked for: it was not by us, or long ago.
    pub fn begin_term(&mut self) {
        self.told.clear();
        self.attempts.begin_term();
    }

    /// Counts anew where something changed; returns the pipelines of which something else is to be said.
    pub fn look(&mut self, world: &World, touched: &Touched) -> BTreeSet<ObjectKey> {
        let is_new = std::mem::take(&mut self.is_new);
        let namespaces: BTreeSet<Arc<str>> = if is_new {
            world.namespaces().map(|(name, _)| name).cloned().collect()
        } else {
            let of_pipelines = touched.objects.iter().filter(|key| key.kind == Kind::MonitoringPipeline);
            let of_pipelines = of_pipelines.map(|key| &key.namespace);
            touched.asking.iter().chain(&touched.namespaces).chain(of_pipelines).cloned().collect()
        };
        let mut moved = BTreeSet::new();
        for namespace in namespaces {
            moved.extend(self.look_at(world, &namespace));
        }
        if is_new {
            // Also where no count moved: what is to be recreated depends on what sidecars are made of, and since when.
            moved.extend(self.covered.keys().cloned());
        }
        if !moved.is_empty() {
            self.stats.count(&self.covered);
        }
        moved
    }

    fn look_at(&mut self, world: &World, namespace: &str) -> BTreeSet<ObjectKey> {
        let is_ours = *namespace == *self.rules.namespace || OF_THE_SYSTEM.contains(&namespace);
        let made = self.made.as_ref().map(|(made, _)| &**made);
        let counted = if is_ours { BTreeMap::new() } else { census::of(world, namespace, made) };
        let first = ObjectKey::new(Kind::MonitoringPipeline, namespace, "");
        let known = self.covered.range(first.clone()..);
        let of_namespace = |key: &ObjectKey| (key.kind, &key.namespace) == (first.kind, &first.namespace);
        let known: Vec<ObjectKey> = known.map(|(key, _)| key).take_while(|key| of_namespace(key)).cloned().collect();
        let mut moved = BTreeSet::new();
        for key in known.into_iter().filter(|key| !counted.contains_key(key)) {
            self.covered.remove(&key);
            moved.insert(key);
        }
        for (key, coverage) in counted {
            if self.covered.get(&key) != Some(&coverage) {
                self.covered.insert(key.clone(), coverage);
                moved.insert(key);
            }
        }
        moved
    }

    /// Returns whether what sidecars are made of has been as it is for so long that the webhook makes them so, too; else, when that
    /// will be.
    fn settled(&self, now: Timestamp) -> Result<&Arc<str>, Option<Timestamp>> {
        let (made, since) = self.made.as_ref().ok_or(None)?;
        let then = later(*since, self.rules.after);
        if then <= now { Ok(&made.revision) } else { Err(Some(then)) }
    }
}

impl Outcome {
    /// Returns the word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Evicted => "evicted",
            Self::Held => "held",
            Self::Gone => "gone",
            Self::Failed => "failed",
        }
    }
}

fn later(from: Timestamp, after: SignedDuration) -> Timestamp {
    from.saturating_add(after).unwrap_or(Timestamp::MAX)
}

/// Returns the creation time of the youngest pod that an attempt means, Unix time in seconds.
fn youngest(recreation: &Recreation) -> i64 {
    recreation.youngest.parse().map_or(i64::MIN, Timestamp::as_second)
}

#[cfg(test)]
mod tests;
