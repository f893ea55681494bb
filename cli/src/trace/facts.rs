//! What there is on the way of a pod's lines, read once.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, Pod};

use crate::cli::TraceFlags;
use crate::cluster::{Cluster, Found};
use crate::objects::Object;
use spillway_crds::kinds::Kind;

/// What was read.
#[derive(Debug)]
pub struct Facts {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub name: String,
    /// The namespace of the operator and its agents.
    pub system_namespace: String,
    /// The pod.
    pub pod: Found<Pod>,
    /// The node it runs on; absent before it runs on one.
    pub node: Found<Node>,
    /// The agents on that node.
    pub agents: Found<Vec<Pod>>,
    /// The labels of its namespace.
    pub labels: Found<BTreeMap<String, String>>,
    /// The pipelines of its namespace, and of the cluster.
    pub pipelines: Vec<Object>,
    /// The destinations of its namespace, and of the cluster.
    pub backends: Vec<Object>,
    /// What could not be listed, and why.
    pub unseen: Vec<String>,
}

impl Facts {
    /// Returns the pod as people write it.
    pub fn pod_name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

/// Reads what there is.
pub async fn read(cluster: &Cluster, flags: &TraceFlags) -> Facts {
    let mut facts = Facts {
        namespace: cluster.namespace.clone(),
        name: flags.pod.clone(),
        system_namespace: flags.system_namespace.clone(),
        pod: cluster.pod(&flags.pod).await,
        node: Found::Absent,
        agents: Found::Absent,
        labels: cluster.labels(&cluster.namespace).await,
        pipelines: Vec::new(),
        backends: Vec::new(),
        unseen: Vec::new(),
    };
    let node = match &facts.pod {
        Found::There(pod) => pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        Found::Absent | Found::Unknown(_) => return facts,
    };
    if let Some(node) = node {
        facts.node = cluster.node(&node).await;
        facts.agents = cluster.agents(&flags.system_namespace, &node).await;
    }
    for kind in [Kind::MonitoringPipeline, Kind::ClusterMonitoringPipeline, Kind::Backend, Kind::ClusterBackend] {
        let into = match kind {
            Kind::MonitoringPipeline | Kind::ClusterMonitoringPipeline => &mut facts.pipelines,
            Kind::Backend | Kind::ClusterBackend => &mut facts.backends,
        };
        match cluster.objects(kind, Some(&cluster.namespace)).await {
            Found::There(objects) => into.extend(objects),
            Found::Absent => facts.unseen.push(format!("the cluster has no {}: is Spillway installed?", kind.plural())),
            Found::Unknown(why) => facts.unseen.push(why),
        }
    }
    facts.pipelines.retain(|one| flags.pipeline.as_ref().is_none_or(|name| one.name == *name));
    facts
}
