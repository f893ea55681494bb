//! What is compiled together, and what came of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use spillway_crds::kinds::CLUSTER;
use spillway_crds::manifest::Reason as Cause;
use spillway_crds::served::{Revoked, SECRET_VALUE_BYTES_MAX};
use spillway_crds::{Compiled, Document, ManifestError, Namespaces, PipelinePlan, compile_with};

use super::unit::{BackendUnit, Common, Head, PipelineUnit, Use};
use super::verdict::{Verdict, Why};
use super::{OF_THE_CLUSTER, SECRETS_WAITED_MAX};
use crate::reason::Reason;
use crate::texts::held;
use crate::world::{LastGood, Manifest, ObjectKey, SecretName, SecretValue, World};
use spillway_crds::kinds::Kind;

/// The type of destinations that are folders of the machine.
const FOLDERS: &str = "Filesystem";

/// Most errors of one object that a message tells.
const ERRORS_TOLD_MAX: usize = 5;

/// A namespace, or the kinds of the cluster, compiled.
#[derive(Debug, Default)]
pub(super) struct Scope {
    /// What is served.
    served: Units,
    /// What is to be served when the Secrets that it names have been read.
    next: Option<Box<Next>>,
    /// What became of each object of this scope.
    pub(super) verdicts: BTreeMap<ObjectKey, Verdict>,
    /// The `ClusterBackend`s that something of it refers to, or did when it was good last; there or not.
    cluster: BTreeSet<ObjectKey>,
    /// Those of them that are there and grant its namespace nothing.
    pub(super) revoked: Box<[Revoked]>,
}

/// What can be served of a scope.
#[derive(Debug, Default)]
struct Units {
    pipelines: Box<[PipelineUnit]>,
    /// The destinations that they may refer to, in the order of their keys.
    backends: Box<[BackendUnit]>,
}

/// What waits for Secrets.
#[derive(Debug)]
struct Next {
    units: Units,
    since: Timestamp,
}

/// Texts by the object they are of.
type Texts = BTreeMap<ObjectKey, Arc<str>>;

impl Scope {
    /// Compiles the scope of that name, which was `before`.
    pub(super) fn compile(name: &str, world: &World, before: Option<Self>, now: Timestamp) -> Self {
        let own = own(name, world);
        let heads: BTreeMap<&ObjectKey, Head> =
            own.iter().filter_map(|(key, manifest)| Some((*key, Head::of(&manifest.text)?))).collect();
        let uses: BTreeMap<&ObjectKey, Vec<Use>> = heads.iter().map(|(key, head)| (*key, head.uses())).collect();
        let mut texts: Texts = own.iter().map(|(key, manifest)| ((*key).clone(), manifest.text.clone())).collect();
        let referred = uses.iter().flat_map(|(key, uses)| uses.iter().map(|one| one.key(&key.namespace)));
        let of_good = own.values().filter_map(|manifest| manifest.last_good.as_ref()).flat_map(|good| &good.texts);
        let of_good = of_good.filter_map(|text| Head::of(text)).map(|head| head.key);
        let cluster: BTreeSet<ObjectKey> =
            referred.chain(of_good).filter(|key| key.kind == Kind::ClusterBackend).collect();
        texts.extend(cluster.iter().filter_map(|key| Some((key.clone(), world.object_of(key)?.text.clone()))));
        let namespaces = namespaces(name, world);
        let current = compile_with(&documents(&texts), namespaces.clone());
        let revoked = revoked(name, &cluster, &namespaces, world);
        let mut scope = Self { cluster, revoked, ..Self::default() };
        let units = match effective(&own, &texts, &current, world) {
            None => Units::of(&texts, &current),
            Some(served) => Units::of(&served, &compile_with(&documents(&served), namespaces)),
        };
        scope.serve(units, before, world, now);
        let verdict = |(key, manifest): (&&ObjectKey, &&Manifest)| {
            ((*key).clone(), scope.verdict((key, manifest), (&heads, &uses), &current, world))
        };
        scope.verdicts = own.iter().map(verdict).collect();
        scope.note_good(&own, &texts, &current);
        scope
    }

    /// Returns the pipelines that are served.
    pub(super) fn pipelines(&self) -> &[PipelineUnit] {
        &self.served.pipelines
    }

    /// Returns the destination of that key as it is served.
    pub(super) fn backend(&self, key: &ObjectKey) -> Option<&BackendUnit> {
        self.served.backend(key)
    }

    /// Returns the Secrets that its destinations name, or will, each with a key.
    pub(super) fn secrets(&self) -> impl Iterator<Item = &(SecretName, String)> {
        self.served.secrets().chain(self.next.iter().flat_map(|next| next.units.secrets()))
    }

    /// Returns until when it waits for Secrets at the latest, if it does.
    pub(super) fn waits_until(&self) -> Option<Timestamp> {
        self.next.as_ref().map(|next| next.since.saturating_add(SECRETS_WAITED_MAX).unwrap_or(next.since))
    }

    /// Serves `units`, or what was served before while a Secret that they name has not been read; not for longer than
    /// [`SECRETS_WAITED_MAX`]. What was never served waits for nothing.
    fn serve(&mut self, units: Units, before: Option<Self>, world: &World, now: Timestamp) {
        let is_read = |(name, key): &(SecretName, String)| match world.secret(name) {
            Some(Some(data)) => data.values.get(key) != Some(&SecretValue::NotKept),
            Some(None) => true,
            None => false,
        };
        let before = before.filter(|_| !units.secrets().all(is_read));
        let Some(Self { served, next, .. }) = before else {
            self.served = units;
            return;
        };
        let since = next.map_or(now, |next| next.since);
        if now.duration_since(since) < SECRETS_WAITED_MAX {
            (self.served, self.next) = (served, Some(Box::new(Next { units, since })));
        } else {
            self.served = units;
        }
    }

    /// Returns whether something of it refers to that `ClusterBackend`, be it there or not.
    pub(super) fn refers_to(&self, key: &ObjectKey) -> bool {
        self.cluster.contains(key)
    }

    /// Returns whether what it is depends on grants, and so on the labels of its namespace.
    pub(super) fn uses_cluster(&self) -> bool {
        !self.cluster.is_empty()
    }

    fn verdict(
        &self,
        (key, manifest): (&ObjectKey, &Manifest),
        (heads, uses): (&BTreeMap<&ObjectKey, Head>, &BTreeMap<&ObjectKey, Vec<Use>>),
        current: &Compiled,
        world: &World,
    ) -> Verdict {
        let label = key.label();
        let errors: Vec<&ManifestError> = current.errors.iter().filter(|error| *error.file == *label).collect();
        let is_own = |error: &&&ManifestError| error.reason == Cause::Invalid;
        let own: Vec<&ManifestError> = errors.iter().filter(is_own).copied().collect();
        let references: Vec<&ManifestError> = errors.iter().filter(|error| !is_own(error)).copied().collect();
        let served = if key.kind.is_pipeline() {
            self.pipelines().iter().find(|unit| unit.common.key == *key).map(|unit| unit.common.generation)
        } else {
            self.backend(key).map(|unit| unit.common.generation)
        };
        let wanted = self.next.as_ref().map_or(&self.served, |next| &next.units);
        let uses: Box<[Use]> = uses.get(key).map(|uses| uses.as_slice().into()).unwrap_or_default();
        let backends: Vec<&BackendUnit> = if key.kind.is_pipeline() {
            uses.iter().filter_map(|one| wanted.backend(&one.key(&key.namespace))).collect()
        } else {
            wanted.backend(key).into_iter().collect()
        };
        let resolved = match references.first() {
            Some(first) => Err(Why::new(reason(first.reason), told(&references))),
            None => secrets_of(&backends, world, key),
        };
        Verdict {
            generation: manifest.generation,
            accepted: if own.is_empty() { Ok(()) } else { Err(Why::new(Reason::Invalid, told(&own))) },
            resolved,
            served,
            is_suspended: heads.get(key).is_some_and(Head::is_suspended),
            uses,
            used_by: 0,
            keep: None,
        }
    }

    /// Says which last good versions are to be kept: of pipelines that compile as they stand, where another is kept.
    fn note_good(&mut self, own: &BTreeMap<&ObjectKey, &Manifest>, texts: &Texts, current: &Compiled) {
        let good: BTreeSet<ObjectKey> = current.pipelines.iter().map(key_of).collect();
        for (key, manifest) in own.iter().filter(|(key, _)| good.contains(**key)) {
            let Some(verdict) = self.verdicts.get_mut(*key) else { continue };
            let used: BTreeSet<ObjectKey> = verdict.uses.iter().map(|one| one.key(&key.namespace)).collect();
            let mut kept = vec![manifest.text.clone()];
            kept.extend(used.iter().filter_map(|key| texts.get(key).cloned()));
            let now = LastGood { generation: manifest.generation, texts: kept };
            verdict.keep = (manifest.last_good.as_deref() != Some(&now)).then(|| Arc::new(now));
        }
    }
}

impl Units {
    /// Keeps of what was compiled what serving needs.
    fn of(texts: &Texts, compiled: &Compiled) -> Self {
        let by_uid: BTreeMap<String, (&ObjectKey, &Arc<str>)> = texts
            .iter()
            .filter(|(key, _)| !key.kind.is_pipeline())
            .map(|(key, text)| (key.uid(), (key, text)))
            .collect();
        let backends = compiled.backends.iter().filter_map(|plan| {
            let (key, text) = by_uid.get(&*plan.uid)?;
            Some((*key, BackendUnit::new(&Head::of(text)?, text, plan)))
        });
        let backends = backends.collect::<BTreeMap<_, _>>().into_values().collect();
        // What leads to a folder of the node, too: that of a pod is gone with the pod.
        let folders = compiled.backends.iter().filter(|plan| plan.settings.type_name() == FOLDERS);
        let folders: BTreeSet<&ObjectKey> =
            folders.filter_map(|plan| by_uid.get(&*plan.uid)).map(|(key, _)| *key).collect();
        let is_of_the_node = |key: &ObjectKey| key.kind == Kind::ClusterBackend || folders.contains(key);
        let pipelines = compiled.pipelines.iter().filter_map(|plan| {
            let text = texts.get(&key_of(plan))?;
            Some(PipelineUnit::new(&Head::of(text)?, text, plan, is_of_the_node))
        });
        Self { pipelines: pipelines.collect(), backends }
    }

    fn backend(&self, key: &ObjectKey) -> Option<&BackendUnit> {
        let place = self.backends.binary_search_by(|unit| unit.common.key.cmp(key)).ok()?;
        self.backends.get(place)
    }

    fn secrets(&self) -> impl Iterator<Item = &(SecretName, String)> {
        self.backends.iter().flat_map(|unit| unit.secrets.iter())
    }
}

/// Returns the objects of a scope.
fn own<'a>(name: &str, world: &'a World) -> BTreeMap<&'a ObjectKey, &'a Manifest> {
    let kinds = if name == OF_THE_CLUSTER {
        [Kind::ClusterBackend, Kind::ClusterMonitoringPipeline]
    } else {
        [Kind::Backend, Kind::MonitoringPipeline]
    };
    kinds.into_iter().flat_map(|kind| world.objects_in(kind, name)).collect()
}

fn namespaces(name: &str, world: &World) -> Namespaces {
    let mut known = Namespaces::default();
    if name == OF_THE_CLUSTER {
        world.namespaces().for_each(|(name, labels)| known.insert(name, labels.clone()));
    } else if let Some(labels) = world.labels(name) {
        known.insert(name, labels.clone());
    }
    known
}

/// Returns what pipelines of a namespace may not deliver to, be it that they never might. Those of the cluster need no grant.
fn revoked(name: &str, cluster: &BTreeSet<ObjectKey>, namespaces: &Namespaces, world: &World) -> Box<[Revoked]> {
    if name == OF_THE_CLUSTER {
        return Box::default();
    }
    let refuses = |key: &&ObjectKey| {
        let standing = world.object_of(key).and_then(|manifest| Head::of(&manifest.text));
        standing.is_some_and(|standing| standing.refuses(name, namespaces))
    };
    let revoked = |key: &ObjectKey| Revoked { namespace: held(name), backend: Arc::clone(&key.name) };
    cluster.iter().filter(refuses).map(revoked).collect()
}

fn documents(texts: &Texts) -> Vec<Document> {
    texts.iter().map(|(key, text)| Document::new(&key.label(), &**text)).collect()
}

/// Returns the texts that are served where some object is not good: pipelines as they were good last, with the destinations
/// that are not good as they were then, the newest of these where pipelines differ. `None` where everything is good as it
/// stands. Whether what was good last is allowed now is for the compiler to say.
fn effective(own: &BTreeMap<&ObjectKey, &Manifest>, texts: &Texts, current: &Compiled, world: &World) -> Option<Texts> {
    let good: BTreeSet<ObjectKey> = current.pipelines.iter().map(key_of).collect();
    let good_backends: BTreeSet<&str> = current.backends.iter().map(|plan| &*plan.uid).collect();
    let bad = own.iter().filter(|(key, _)| key.kind.is_pipeline() && !good.contains(**key));
    let mut effective: Option<Texts> = None;
    let mut newest: BTreeMap<ObjectKey, i64> = BTreeMap::new();
    for (key, manifest) in bad {
        let texts = effective.get_or_insert_with(|| texts.clone());
        texts.remove(*key);
        let Some(last) = &manifest.last_good else { continue };
        for (head, text) in last.texts.iter().filter_map(|text| Some((Head::of(text)?, text))) {
            let of = head.key.clone();
            if of == **key {
                texts.insert(of, text.clone());
                continue;
            }
            let is_newer = newest.get(&of).is_none_or(|known| head.generation > *known);
            if of.kind.is_pipeline() || good_backends.contains(of.uid().as_str()) || !is_newer {
                continue;
            }
            let generation = head.generation;
            let text = match of.kind {
                Kind::Backend if of.namespace == key.namespace => text.clone(),
                // What is granted is said by the object of now; one that is gone grants nothing.
                Kind::ClusterBackend => match world.object_of(&of) {
                    Some(standing) => head.granting_as(Head::of(&standing.text).as_ref()),
                    None => continue,
                },
                _ => continue,
            };
            texts.insert(of.clone(), text);
            newest.insert(of, generation);
        }
    }
    effective
}

/// Returns the key of a pipeline that compiled.
fn key_of(plan: &PipelinePlan) -> ObjectKey {
    match &*plan.settings.namespace {
        CLUSTER => ObjectKey::new(Kind::ClusterMonitoringPipeline, OF_THE_CLUSTER, &plan.settings.name),
        namespace => ObjectKey::new(Kind::MonitoringPipeline, namespace, &plan.settings.name),
    }
}

fn reason(cause: Cause) -> Reason {
    match cause {
        // What is for an agent without an operator is not asked for here.
        Cause::Invalid | Cause::NotStandalone => Reason::Invalid,
        Cause::RefNotFound => Reason::BackendNotFound,
        Cause::RefInvalid => Reason::BackendInvalid,
        Cause::RefNotPermitted => Reason::RefNotPermitted,
    }
}

fn told(errors: &[&ManifestError]) -> String {
    let first: Vec<String> = errors.iter().take(ERRORS_TOLD_MAX).map(|error| error.words()).collect();
    let more = errors.len().saturating_sub(ERRORS_TOLD_MAX);
    let rest = if more == 0 { String::new() } else { format!("; and {more} more") };
    format!("{}{rest}", first.join("; "))
}

/// Says whether the Secrets that destinations name are there. Those of a destination of the cluster are named to who looks
/// after the cluster alone.
fn secrets_of(backends: &[&BackendUnit], world: &World, of: &ObjectKey) -> Result<(), Why> {
    for unit in backends {
        let Common { key: backend, label, .. } = &unit.common;
        let is_hidden = backend.kind == Kind::ClusterBackend && !of.kind.is_of_the_cluster();
        for (name, key) in &unit.secrets {
            let secret = if is_hidden { "a Secret".to_owned() } else { format!("Secret {}/{}", name.0, name.1) };
            let (reason, what) = match world.secret(name).map(|data| data.map(|data| data.values.get(key))) {
                Some(Some(Some(SecretValue::Kept(_)))) => continue,
                Some(Some(Some(SecretValue::TooLarge(_)))) if is_hidden => {
                    (Reason::SecretTooLarge, "has a value that is too large".to_owned())
                }
                Some(Some(Some(SecretValue::TooLarge(bytes)))) => {
                    let most = SECRET_VALUE_BYTES_MAX;
                    (
                        Reason::SecretTooLarge,
                        format!("has {bytes} bytes under the key `{key}`; allowed: at most {most}"),
                    )
                }
                Some(Some(None)) if is_hidden => (Reason::SecretKeyNotFound, "lacks a key".to_owned()),
                Some(Some(None)) => (Reason::SecretKeyNotFound, format!("has no key `{key}`")),
                Some(None) => (Reason::SecretNotFound, "is not there, or may not be read".to_owned()),
                None | Some(Some(Some(SecretValue::NotKept))) => (Reason::Pending, "is being read".to_owned()),
            };
            return Err(Why::new(reason, format!("{label}: {secret} {what}")));
        }
    }
    Ok(())
}
