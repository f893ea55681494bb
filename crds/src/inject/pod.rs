//! As much of a pod as is read, and its class of service.
//!
//! # Guarantees
//! What is not read here is passed over: a pod of an API newer than this is read as well.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::quantity::Quantity;
use super::sidecar::{CONTAINER, PORTS};

/// A pod.
#[derive(Debug, Deserialize)]
pub(super) struct Pod {
    pub(super) metadata: Metadata,
    pub(super) spec: Spec,
}

#[derive(Debug, Deserialize)]
pub(super) struct Metadata {
    #[serde(default)]
    pub(super) annotations: Option<BTreeMap<String, Option<String>>>,
}

/// What runs in it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Spec {
    pub(super) containers: Vec<Container>,
    #[serde(default)]
    pub(super) init_containers: Option<Vec<Container>>,
    #[serde(default)]
    pub(super) volumes: Option<Vec<Named>>,
    #[serde(default)]
    pub(super) host_network: Option<bool>,
    #[serde(default)]
    resources: Option<Resources>,
    #[serde(default)]
    os: Option<Named>,
    #[serde(default)]
    node_selector: Option<BTreeMap<String, Option<String>>>,
}

/// A container.
#[derive(Debug, Deserialize)]
pub(super) struct Container {
    pub(super) name: String,
    #[serde(default)]
    pub(super) args: Option<Vec<String>>,
    #[serde(default)]
    pub(super) env: Option<Vec<Named>>,
    #[serde(default)]
    ports: Option<Vec<Port>>,
    #[serde(default)]
    resources: Option<Resources>,
}

/// A port that a container says it listens at.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Port {
    #[serde(default)]
    container_port: Option<i64>,
    #[serde(default)]
    protocol: Option<String>,
}

/// Anything with a name.
#[derive(Debug, Deserialize)]
pub(super) struct Named {
    pub(super) name: String,
}

#[derive(Debug, Default, Deserialize)]
struct Resources {
    #[serde(default)]
    requests: Option<BTreeMap<String, Value>>,
    #[serde(default)]
    limits: Option<BTreeMap<String, Value>>,
}

/// The class of service of a pod: in which order the kubelet evicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// Every container is given what it is limited to.
    Guaranteed,
    /// Something is asked for.
    Burstable,
    /// Nothing is.
    BestEffort,
}

impl Pod {
    /// Reads a pod with at least one container.
    pub(super) fn read(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok().filter(|pod: &Self| !pod.spec.containers.is_empty())
    }

    pub(super) fn annotations(&self) -> &BTreeMap<String, Option<String>> {
        static NONE: BTreeMap<String, Option<String>> = BTreeMap::new();
        self.metadata.annotations.as_ref().unwrap_or(&NONE)
    }

    pub(super) fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations().get(key).map(|value| value.as_deref().unwrap_or_default())
    }
}

impl Spec {
    /// Returns whether amounts are given for the pod as a whole, which its containers share.
    pub(super) fn shares_resources(&self) -> bool {
        let given = |amounts: &Option<BTreeMap<String, Value>>| amounts.as_ref().is_some_and(|all| !all.is_empty());
        self.resources.as_ref().is_some_and(|own| given(&own.requests) || given(&own.limits))
    }

    /// Returns a container and its port, where that is one that the sidecar needs: containers of a pod share its ports.
    pub(super) fn clash(&self) -> Option<(&str, i64)> {
        let all = self.containers.iter().chain(self.init_containers.iter().flatten());
        let mut clashes = all.filter(|one| one.name != CONTAINER).filter_map(|one| {
            let ports = one.ports.iter().flatten().filter(|port| port.protocol.as_deref().unwrap_or("TCP") == "TCP");
            let mut ports = ports.filter_map(|port| port.container_port);
            Some((&*one.name, ports.find(|port| PORTS.iter().any(|ours| i64::from(*ours) == *port))?))
        });
        clashes.next()
    }

    pub(super) fn is_of_another_system(&self) -> bool {
        let selected = self.node_selector.as_ref().and_then(|labels| labels.get("kubernetes.io/os")?.as_deref());
        let named = self.os.as_ref().map(|os| &*os.name);
        [selected, named].into_iter().flatten().any(|name| name != "linux")
    }

    /// Returns the class; `None` where an amount cannot be read.
    pub(super) fn class(&self) -> Option<Class> {
        let all = self.containers.iter().chain(self.init_containers.iter().flatten());
        let none = Resources::default();
        let each: Vec<&Resources> = match self.resources.as_ref().filter(|_| self.shares_resources()) {
            Some(own) => vec![own],
            None => all.map(|one| one.resources.as_ref().unwrap_or(&none)).collect(),
        };
        let (mut asks, mut is_guaranteed) = (false, true);
        for name in ["cpu", "memory"] {
            let (mut requested, mut limited) = (Quantity::default(), Quantity::default());
            for one in &each {
                let limit = amount(one.limits.as_ref(), name)?;
                // An API server takes a limit for a request that is not there.
                let request = amount(one.requests.as_ref(), name)?.or(limit).unwrap_or_default();
                is_guaranteed &= limit.is_some_and(|limit| limit > Quantity::default());
                let limit = limit.unwrap_or_default();
                asks |= limit > Quantity::default() || request > Quantity::default();
                (requested, limited) = (requested.plus(request), limited.plus(limit));
            }
            is_guaranteed &= requested == limited;
        }
        Some(match (asks, is_guaranteed) {
            (false, _) => Class::BestEffort,
            (true, true) => Class::Guaranteed,
            (true, false) => Class::Burstable,
        })
    }
}

/// Returns an amount, if it is there; `None` where it cannot be read.
#[expect(clippy::option_option, reason = "absent and unreadable are told apart")]
fn amount(amounts: Option<&BTreeMap<String, Value>>, name: &str) -> Option<Option<Quantity>> {
    match amounts.and_then(|amounts| amounts.get(name)) {
        None | Some(Value::Null) => Some(None),
        Some(value) => Quantity::of_value(value).map(Some),
    }
}
