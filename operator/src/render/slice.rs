//! What the agent of one place is to run and to know: chosen from scopes by the pods there are, or by the one it sits in.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use spillway_crds::served::{Configuration, NODE_AGENT_MANIFEST, PodFacts, Pods, ServedSecret, Version};
use xxhash_rust::xxh3::Xxh3;

use super::scope::Scope;
use super::unit::{BackendUnit, Common, PipelineUnit};
use super::verdict::Why;
use super::{OF_THE_CLUSTER, SLICE_BYTES_MAX};
use crate::hub::Slice;
use crate::reason::Reason;
use crate::texts::held;
use crate::world::{ObjectKey, Pod, SecretName, SecretValue, World};

/// Whose slice it is.
pub(super) struct Whose<'a> {
    /// The pods of a node, or the one of a sidecar.
    pub(super) pods: &'a [&'a Arc<Pod>],
    /// The pipelines of which its agent holds events.
    pub(super) holding: &'a BTreeSet<ObjectKey>,
    pub(super) is_sidecar: bool,
}

/// A slice that was made.
pub(super) struct Made {
    pub(super) slice: Slice,
    /// The scopes it holds something of.
    pub(super) scopes: BTreeSet<Arc<str>>,
    /// The pipelines that did not fit.
    pub(super) left_out: BTreeSet<ObjectKey>,
}

/// Returns why a pipeline is left out for its size.
pub(super) fn too_large() -> Why {
    let message = format!(
        "the configuration of a node that it belongs to would be more than {} MiB of manifests and values of \
         Secrets; split the pipeline, or select fewer pods",
        SLICE_BYTES_MAX >> 20
    );
    Why::new(Reason::TooLarge, message)
}

/// Makes a slice.
pub(super) fn make(scopes: &BTreeMap<Arc<str>, Scope>, world: &World, whose: &Whose<'_>, limit: usize) -> Made {
    let pods = whose.pods;
    let mut chosen = choose(scopes, whose);
    let left_out = leave_out(&mut chosen, (scopes, world), whose.is_sidecar, limit);
    let mut backends: BTreeMap<&ObjectKey, &BackendUnit> = BTreeMap::new();
    for (name, pipeline) in &chosen {
        let keys = pipeline.backends_for(whose.is_sidecar).iter();
        backends.extend(keys.filter_map(|key| Some((key, scopes.get(*name)?.backend(key)?))));
    }
    let common = || backends.values().map(|unit| &unit.common).chain(chosen.iter().map(|(_, unit)| &unit.common));
    let namespaces = labels(common(), world, pods, &chosen);
    let secrets = secrets(backends.values().copied(), world);
    let objects = common().map(|common| (Arc::clone(&common.label), common.edition())).collect();
    let of_backends = backends.values().map(|unit| (&unit.common.label, &unit.common.text));
    let of_pipelines = chosen.iter().map(|(_, unit)| (&unit.common.label, unit.text_for(whose.is_sidecar)));
    let mut manifests: Vec<(&Arc<str>, &Arc<str>)> = of_backends.chain(of_pipelines).collect();
    manifests.sort();
    let mut manifests: Vec<Arc<str>> = manifests.into_iter().map(|(_, text)| Arc::clone(text)).collect();
    if whose.is_sidecar && chosen.iter().any(|(_, unit)| unit.leads_to_the_node()) {
        manifests.push(held(NODE_AGENT_MANIFEST));
    }
    let mut configuration = Configuration {
        version: Version::default(),
        manifests,
        namespaces,
        secrets,
        tickets: BTreeMap::new(),
        revoked: Vec::new(),
        // A sidecar takes events of its own pod alone.
        token_keys: world.token_keys().filter(|_| !whose.is_sidecar && takes_events(&chosen)).cloned(),
    };
    let told = if whose.is_sidecar { BTreeSet::new() } else { namespaces_of(whose) };
    let refused: Vec<(&Arc<str>, &Scope)> = told
        .into_iter()
        .filter_map(|name| scopes.get_key_value(name))
        .filter(|(_, scope)| !scope.revoked.is_empty())
        .collect();
    configuration.revoked = refused.iter().flat_map(|(_, scope)| scope.revoked.iter().cloned()).collect();
    configuration.version.hash = hash(&configuration);
    let slice = Slice { configuration, pods: facts(whose, &chosen, world), objects: Arc::new(objects), tickets: None };
    let names = chosen.into_iter().map(|(name, _)| name).chain(refused.into_iter().map(|(name, _)| name));
    let scopes = names.map(Arc::clone).collect();
    Made { slice, scopes, left_out }
}

/// A pipeline and the scope it is of.
type Chosen<'a> = Vec<(&'a Arc<str>, &'a PipelineUnit)>;

fn takes_events(chosen: &Chosen<'_>) -> bool {
    chosen.iter().any(|(_, unit)| unit.takes_events())
}

fn choose<'a>(scopes: &'a BTreeMap<Arc<str>, Scope>, whose: &Whose<'_>) -> Chosen<'a> {
    let Whose { pods, holding, is_sidecar } = *whose;
    let mut by_namespace: BTreeMap<&str, Vec<&Pod>> = BTreeMap::new();
    for pod in pods {
        by_namespace.entry(&pod.facts.namespace).or_default().push(pod);
    }
    let mut names = namespaces_of(whose);
    names.extend((!is_sidecar).then_some(OF_THE_CLUSTER));
    let mut chosen = Vec::new();
    for (name, scope) in names.into_iter().filter_map(|name| scopes.get_key_value(name)) {
        let takes = |unit: &PipelineUnit| {
            let pods = by_namespace.iter().filter(|(namespace, _)| unit.reaches(namespace));
            holding.contains(&unit.common.key)
                || pods
                    .flat_map(|(_, pods)| pods)
                    .any(|pod| if is_sidecar { unit.is_asked_for(pod) } else { unit.selects(pod) })
        };
        chosen.extend(scope.pipelines().iter().filter(|unit| takes(unit)).map(|unit| (name, unit)));
    }
    chosen
}

/// Returns the namespaces of which there is a pod, or of which a pipeline holds something.
fn namespaces_of<'a>(whose: &Whose<'a>) -> BTreeSet<&'a str> {
    let of_pods = whose.pods.iter().map(|pod| &*pod.facts.namespace);
    of_pods.chain(whose.holding.iter().map(|key| &*key.namespace)).collect()
}

/// Takes pipelines out until the rest fits: of the namespace that has most in it the largest. Each counts with its destinations and
/// the values that these name, so that no order of edits lets one tenant push out another that takes less.
fn leave_out(
    chosen: &mut Chosen<'_>,
    (scopes, world): (&BTreeMap<Arc<str>, Scope>, &World),
    is_sidecar: bool,
    limit: usize,
) -> BTreeSet<ObjectKey> {
    let of_secret = |(name, key): &(SecretName, String)| match world.secret(name).flatten()?.values.get(key)? {
        SecretValue::Kept(value) => Some(value.len()),
        SecretValue::TooLarge(_) | SecretValue::NotKept => None,
    };
    let size = |(name, unit): &(&Arc<str>, &PipelineUnit)| {
        let backends = unit.backends_for(is_sidecar).iter().filter_map(|key| scopes.get(*name)?.backend(key));
        let of_backend = |backend: &BackendUnit| {
            backend.common.text.len() + backend.secrets.iter().filter_map(of_secret).sum::<usize>()
        };
        unit.text_for(is_sidecar).len() + backends.map(of_backend).sum::<usize>()
    };
    let mut sizes: Vec<usize> = chosen.iter().map(size).collect();
    let mut bytes: usize = sizes.iter().sum();
    let mut left_out = BTreeSet::new();
    while bytes > limit {
        let mut by_scope: BTreeMap<&str, usize> = BTreeMap::new();
        for ((name, _), size) in chosen.iter().zip(&sizes) {
            *by_scope.entry(name).or_default() += size;
        }
        let Some((most, _)) = by_scope.into_iter().max_by_key(|(_, size)| *size) else { break };
        let own = chosen.iter().zip(&sizes).enumerate().filter(|(_, ((name, _), _))| ***name == *most);
        let Some((place, _)) = own.max_by_key(|(_, (_, size))| **size) else { break };
        left_out.insert(chosen.remove(place).1.common.key.clone());
        bytes -= sizes.remove(place);
    }
    left_out
}

/// Returns the labels that selectors speak of, of namespaces that the slice is about.
fn labels<'a>(
    commons: impl Iterator<Item = &'a Common>,
    world: &World,
    pods: &[&Arc<Pod>],
    chosen: &Chosen<'_>,
) -> BTreeMap<String, BTreeMap<String, String>> {
    let speaks_of: BTreeSet<&String> = commons.flat_map(|common| common.speaks_of.iter()).collect();
    if speaks_of.is_empty() {
        return BTreeMap::new();
    }
    let of_pods = pods.iter().map(|pod| &*pod.facts.namespace);
    let of_pipelines = chosen.iter().map(|(name, _)| &***name).filter(|name| *name != OF_THE_CLUSTER);
    let is_taken = |namespace: &&str| {
        chosen.iter().any(|(name, unit)| &***name == *namespace || (name.is_empty() && unit.reaches(namespace)))
    };
    let names: BTreeSet<&str> = of_pods.filter(is_taken).chain(of_pipelines).collect();
    let known = names.into_iter().filter_map(|name| Some((name, world.labels(name)?)));
    let wanted = known.map(|(name, labels)| {
        let spoken = labels.iter().filter(|(key, _)| speaks_of.contains(key));
        (name.to_owned(), spoken.map(|(key, value)| (key.clone(), value.clone())).collect())
    });
    wanted.collect()
}

fn secrets<'a>(backends: impl Iterator<Item = &'a BackendUnit>, world: &World) -> Vec<ServedSecret> {
    let named: BTreeSet<&(SecretName, String)> = backends.flat_map(|unit| unit.secrets.iter()).collect();
    let served = named.into_iter().filter_map(|(name, key)| {
        let data = world.secret(name)??;
        let SecretValue::Kept(value) = data.values.get(key)? else { return None };
        let (namespace, name) = (name.0.to_string(), name.1.to_string());
        Some(ServedSecret {
            namespace,
            name,
            key: key.clone(),
            version: data.version.to_string(),
            value: value.clone(),
        })
    });
    served.collect()
}

/// Returns what is known of the pods that a pipeline of the slice could take something of. Those that are there come first; a sidecar knows its own.
fn facts(whose: &Whose<'_>, chosen: &Chosen<'_>, world: &World) -> Pods {
    let is_about = |pod: &Pod| whose.is_sidecar || chosen.iter().any(|(_, unit)| unit.reaches(&pod.facts.namespace));
    // By its name, too: an annotation that any pod may have says the uid of static ones, and none is to hide another one.
    let mut known: BTreeMap<[&str; 3], Arc<PodFacts>> = BTreeMap::new();
    for pod in whose.pods.iter().filter(|pod| is_about(pod)) {
        let PodFacts { uid, namespace, name, .. } = &*pod.facts;
        known.entry([uid, namespace, name]).or_insert_with(|| match world.pod(&pod.uid) {
            Some(_) => pod.facts.clone(),
            None => Arc::new(PodFacts { has_ended: true, ..PodFacts::clone(&pod.facts) }),
        });
    }
    let mut hasher = Xxh3::new();
    for facts in known.values() {
        let PodFacts { uid, namespace, name, labels, annotations, has_ended, owner } = &**facts;
        let owner = owner.as_ref().map(|owner| (&owner.kind, &owner.name));
        hasher.update(format!("{:?}", (uid, namespace, name, labels, annotations, has_ended, owner)).as_bytes());
    }
    Pods { hash: format!("{:032x}", hasher.digest128()), pods: known.into_values().collect() }
}

/// Returns what names the content of a configuration: everything but the values of Secrets, whose versions count.
fn hash(configuration: &Configuration) -> String {
    let mut hasher = Xxh3::new();
    let mut part = |text: &str| {
        hasher.update(&text.len().to_le_bytes());
        hasher.update(text.as_bytes());
    };
    configuration.manifests.iter().for_each(|text| part(text));
    part(&format!("{:?}", configuration.namespaces));
    for ServedSecret { namespace, name, key, version, value: _ } in &configuration.secrets {
        [namespace, name, key, version].into_iter().for_each(|text| part(text));
    }
    if !configuration.revoked.is_empty() {
        part(&format!("{:?}", configuration.revoked));
    }
    configuration.token_keys.iter().for_each(|keys| [&keys.issuer, &keys.keys].into_iter().for_each(|text| part(text)));
    format!("{:032x}", hasher.digest128())
}
