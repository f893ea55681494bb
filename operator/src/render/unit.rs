//! One object as it is served: its text, and what selection, Secrets and status need to know of it. No tree is kept.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Deserialize as _;
use serde_json::{Value, json};
use spillway_crds::kinds::backend::AllowedNamespaces;
use spillway_crds::kinds::monitoring_pipeline::BackendRefKind;
use spillway_crds::kinds::selector::LabelSelector;
use spillway_crds::served::NODE_AGENT;
use spillway_crds::{BackendPlan, Input, Namespaces, PipelinePlan, Reach};
use xxhash_rust::xxh3::xxh3_64;

use crate::hub::Edition;
use crate::texts::held;
use crate::world::{ObjectKey, Pod, SecretName};
use spillway_crds::kinds::Kind;

/// What every served object has.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Common {
    pub(super) key: ObjectKey,
    /// As errors name it.
    pub(super) label: Arc<str>,
    pub(super) generation: i64,
    pub(super) text: Arc<str>,
    /// What tells its text from others.
    hash: u64,
    /// The keys of labels of namespaces that its selectors speak of.
    pub(super) speaks_of: Box<[String]>,
}

/// A destination as it is served.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BackendUnit {
    pub(super) common: Common,
    /// The Secrets it names, each with a key.
    pub(super) secrets: Box<[(SecretName, String)]>,
}

/// A pipeline as it is served.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PipelineUnit {
    pub(super) common: Common,
    /// The namespaces whose data it takes; `None` for its own alone, as of nearly all.
    reach: Option<Box<Reach>>,
    inputs: Box<[Takes]>,
    /// The destinations of its routes.
    backends: Box<[ObjectKey]>,
    /// What differs for a sidecar.
    for_sidecars: Option<Box<ForSidecars>>,
}

/// A pipeline as sidecars run it: routes with a destination that is for the agent of the node lead there.
#[derive(Debug, PartialEq, Eq)]
struct ForSidecars {
    text: Arc<str>,
    /// The destinations of the other routes.
    backends: Box<[ObjectKey]>,
}

/// What one input takes.
#[derive(Debug, PartialEq, Eq)]
enum Takes {
    /// What these pods push.
    Events(LabelSelector),
    /// The logs of these pods.
    Logs(LabelSelector),
}

/// The text of an object, read for what stands in it.
pub(super) struct Head {
    root: Value,
    pub(super) key: ObjectKey,
    pub(super) generation: i64,
}

/// One reference of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Use {
    /// Name of the route.
    pub route: Arc<str>,
    /// Kind of the object that it refers to.
    pub kind: BackendRefKind,
    /// Name of the object that it refers to.
    pub name: Arc<str>,
}

impl Head {
    /// Returns what stands in a text; `None` when that is no object of ours.
    pub(super) fn of(text: &str) -> Option<Self> {
        let root: Value = serde_json::from_str(text).ok()?;
        let kind = Kind::of_name(root["kind"].as_str()?)?;
        let metadata = &root["metadata"];
        let namespace = if kind.is_of_the_cluster() { "" } else { metadata["namespace"].as_str()? };
        let key = ObjectKey::new(kind, namespace, metadata["name"].as_str()?);
        let generation = metadata["generation"].as_i64().unwrap_or_default();
        Some(Self { root, key, generation })
    }

    /// Returns whether the object says that it is suspended.
    pub(super) fn is_suspended(&self) -> bool {
        self.root["spec"]["suspend"].as_bool().unwrap_or_default()
    }

    /// Returns the references of its routes that can be read, good or not, in their order.
    pub(super) fn uses(&self) -> Vec<Use> {
        let routes = self.root["spec"]["routes"].as_array();
        routes.into_iter().flatten().flat_map(|route| self.uses_of(route)).collect()
    }

    /// Returns the references of a route.
    fn uses_of(&self, route: &Value) -> Vec<Use> {
        let one = |reference: &Value| {
            let kind = match reference["kind"].as_str() {
                _ if self.key.kind.is_of_the_cluster() => BackendRefKind::ClusterBackend,
                None | Some("Backend") => BackendRefKind::Backend,
                Some("ClusterBackend") => BackendRefKind::ClusterBackend,
                Some(_) => return None,
            };
            Some(Use { route: held(route["name"].as_str()?), kind, name: held(reference["name"].as_str()?) })
        };
        route["backendRefs"].as_array().into_iter().flatten().filter_map(one).collect()
    }

    /// Returns it as sidecars run it, where that is not as it is.
    fn for_sidecars(&self, is_of_the_node: impl Fn(&ObjectKey) -> bool) -> Option<Box<ForSidecars>> {
        let is_one = |one: &Use| is_of_the_node(&one.key(&self.key.namespace));
        if !self.uses().iter().any(is_one) {
            return None;
        }
        let mut root = self.root.clone();
        let mut backends = BTreeSet::new();
        for route in root["spec"]["routes"].as_array_mut()? {
            let keys: Vec<ObjectKey> = self.uses_of(route).iter().map(|one| one.key(&self.key.namespace)).collect();
            if !keys.iter().any(&is_of_the_node) {
                backends.extend(keys);
                continue;
            }
            let drops = |value: &Value| value["whenBehind"] == "DropOldest";
            let references = route["backendRefs"].as_array().map(Vec::as_slice).unwrap_or_default();
            let all_drop = drops(route) || references.iter().all(drops);
            let mut to_node = json!({"kind": "ClusterBackend", "name": NODE_AGENT});
            if all_drop {
                to_node["whenBehind"] = json!("DropOldest");
            }
            let route = route.as_object_mut()?;
            // How destinations share the work is for who has them.
            for member in ["strategy", "failback", "whenBehind"] {
                route.remove(member);
            }
            route.insert("backendRefs".to_owned(), json!([to_node]));
        }
        let text = held(&root.to_string());
        Some(Box::new(ForSidecars { text, backends: backends.into_iter().collect() }))
    }

    /// Returns the text with the grants of another version, or with none where that has none that can be read.
    pub(super) fn granting_as(mut self, other: Option<&Self>) -> Arc<str> {
        let grants = other.map(|other| &other.root["spec"]["allowedNamespaces"]);
        let grants = grants.filter(|grants| AllowedNamespaces::deserialize(*grants).is_ok());
        self.root["spec"]["allowedNamespaces"] = grants.cloned().unwrap_or_else(|| json!({}));
        self.root.to_string().into()
    }

    /// Returns whether it says which namespaces it grants, and that one is not among them.
    pub(super) fn refuses(&self, namespace: &str, namespaces: &Namespaces) -> bool {
        let grants = Option::<AllowedNamespaces>::deserialize(&self.root["spec"]["allowedNamespaces"]);
        match grants.map(Option::unwrap_or_default) {
            Ok(AllowedNamespaces { selector: Some(selector) }) => namespaces.takes(&selector, namespace) == Some(false),
            Ok(AllowedNamespaces { selector: None }) => true,
            // What cannot be read says nothing of what was meant.
            Err(_) => false,
        }
    }

    /// Returns the keys of labels of namespaces that its selectors speak of.
    fn speaks_of(&self) -> Box<[String]> {
        let spec = &self.root["spec"];
        let of = [&spec["namespaceSelector"], &spec["allowedNamespaces"]["selector"]];
        let selectors = of.into_iter().filter_map(|selector| LabelSelector::deserialize(selector).ok());
        let keys: BTreeSet<String> = selectors
            .flat_map(|selector| {
                let expressions = selector.match_expressions.into_iter().map(|expression| expression.key);
                let keys: Vec<String> = selector.match_labels.iter().map(|(key, _)| key.to_owned()).collect();
                keys.into_iter().chain(expressions)
            })
            .collect();
        keys.into_iter().collect()
    }

    fn common(&self, text: &Arc<str>) -> Common {
        Common {
            key: self.key.clone(),
            label: self.key.label().into(),
            generation: self.generation,
            text: Arc::clone(text),
            hash: xxh3_64(text.as_bytes()),
            speaks_of: self.speaks_of(),
        }
    }
}

impl Common {
    /// Returns which edition of its object it is.
    pub(super) fn edition(&self) -> Edition {
        Edition { generation: self.generation, hash: self.hash }
    }
}

impl BackendUnit {
    pub(super) fn new(head: &Head, text: &Arc<str>, plan: &BackendPlan) -> Self {
        let secret = |namespace: &Arc<str>| {
            let keys = plan.settings.secrets().into_iter();
            keys.map(|secret| ((Arc::clone(namespace), secret.name.into()), secret.key)).collect::<BTreeSet<_>>()
        };
        let secrets = plan.secret_namespace.as_ref().map(secret).unwrap_or_default();
        Self { common: head.common(text), secrets: secrets.into_iter().collect() }
    }
}

impl PipelineUnit {
    /// Returns the pipeline of a plan, some of whose destinations are for the agent of the node.
    pub(super) fn new(
        head: &Head,
        text: &Arc<str>,
        plan: &PipelinePlan,
        is_of_the_node: impl Fn(&ObjectKey) -> bool,
    ) -> Self {
        let inputs = plan.inputs.iter().filter_map(|input| match input {
            Input::Events(events) => Some(Takes::Events(small(&events.pod_selector))),
            Input::ContainerLogs(logs) => Some(Takes::Logs(small(&logs.pod_selector))),
            // Of a machine: agents of nodes read none.
            Input::Files(_) => None,
        });
        let references = head.uses().into_iter().map(|one| one.key(&head.key.namespace));
        let is_elsewhere = plan.namespaces != Reach::of(&head.key.namespace);
        Self {
            common: head.common(text),
            reach: is_elsewhere.then(|| Box::new(plan.namespaces.clone())),
            inputs: inputs.collect(),
            backends: references.collect::<BTreeSet<_>>().into_iter().collect(),
            for_sidecars: head.for_sidecars(is_of_the_node),
        }
    }

    /// Returns the destinations that an agent delivers to by itself.
    pub(super) fn backends_for(&self, is_sidecar: bool) -> &[ObjectKey] {
        let other = self.for_sidecars.as_ref().filter(|_| is_sidecar);
        other.map_or(&self.backends, |other| &other.backends)
    }

    /// Returns its text as an agent is served it.
    pub(super) fn text_for(&self, is_sidecar: bool) -> &Arc<str> {
        let other = self.for_sidecars.as_ref().filter(|_| is_sidecar);
        other.map_or(&self.common.text, |other| &other.text)
    }

    /// Returns whether sidecars hand something of it to the agent of the node.
    pub(super) fn leads_to_the_node(&self) -> bool {
        self.for_sidecars.is_some()
    }

    /// Returns whether it takes data of that namespace.
    pub(super) fn reaches(&self, namespace: &str) -> bool {
        match &self.reach {
            Some(reach) => reach.takes(namespace),
            None => *self.common.key.namespace == *namespace,
        }
    }

    /// Returns whether pods push something to it.
    pub(super) fn takes_events(&self) -> bool {
        self.inputs.iter().any(|input| matches!(input, Takes::Events(_)))
    }

    /// Returns whether the pod asked for it, as a sidecar is to run it, and an input takes what that pushes.
    pub(super) fn is_asked_for(&self, pod: &Pod) -> bool {
        let takes = |input: &Takes| matches!(input, Takes::Events(selector) if selector.matches(&pod.facts.labels));
        pod.sidecar() == Some(&*self.common.key.name) && self.inputs.iter().any(takes)
    }

    /// Returns whether an input takes something of the pod, whose namespace is one that the pipeline takes.
    pub(super) fn selects(&self, pod: &Pod) -> bool {
        let keeps_logs_out = pod.facts.keeps_logs_out();
        self.inputs.iter().any(|input| match input {
            Takes::Events(selector) => selector.matches(&pod.facts.labels),
            Takes::Logs(selector) => !keeps_logs_out && selector.matches(&pod.facts.labels),
        })
    }
}

/// Returns the selector without room to grow, its texts held with those of pods.
fn small(selector: &LabelSelector) -> LabelSelector {
    LabelSelector {
        match_labels: selector.match_labels.held_by(held),
        match_expressions: selector.match_expressions.clone(),
    }
}

impl Use {
    /// Returns what it names, in a pipeline of that namespace (empty: of the cluster).
    pub(crate) fn key(&self, namespace: &str) -> ObjectKey {
        match self.kind {
            BackendRefKind::Backend => ObjectKey::new(Kind::Backend, namespace, &self.name),
            BackendRefKind::ClusterBackend => ObjectKey::new(Kind::ClusterBackend, "", &self.name),
        }
    }
}
