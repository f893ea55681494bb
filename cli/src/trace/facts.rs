//! What there is on the way of a pod's lines, read once.

use std::collections::BTreeMap;

use anyhow::anyhow;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::jiff::Timestamp;

use crate::cli::TraceFlags;
use crate::cluster::{Cluster, Found};
use crate::exit::Failure;
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
    /// When this was read, by the clock here.
    pub now: Timestamp,
    /// The pod.
    pub pod: Found<Pod>,
    /// The node it runs on; absent before it runs on one.
    pub node: Found<Node>,
    /// The agents on that node.
    pub agents: Found<Vec<Pod>>,
    /// The Lease of the controller.
    pub lease: Found<Lease>,
    /// The labels of its namespace.
    pub labels: Found<BTreeMap<String, String>>,
    /// The pipelines of its namespace, and of the cluster.
    pub pipelines: Vec<Object>,
    /// The one pipeline that is followed, where it is one.
    pub followed: Option<String>,
    /// The destinations of its namespace, and of the cluster.
    pub backends: Vec<Object>,
    /// The kinds that could not be listed, and why.
    pub unseen: Vec<(Kind, String)>,
}

impl Facts {
    /// Returns the pod as people write it.
    pub fn pod_name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// Returns why objects of a kind could not be listed.
    pub fn why_unseen(&self, kind: Kind) -> Option<&str> {
        self.unseen.iter().find(|(unseen, _)| *unseen == kind).map(|(_, why)| why.as_str())
    }

    /// Follows the pipeline of that name alone.
    fn follow(&mut self, name: &str) -> Result<(), Failure> {
        self.pipelines.retain(|one| one.name == name);
        if self.pipelines.is_empty() {
            let unseen = self.unseen.iter().filter(|(kind, _)| kind.is_pipeline());
            let unseen = unseen.map(|(kind, why)| format!("of {} nothing is seen: {why}", kind.plural()));
            let place =
                format!("there is no pipeline {name}, neither of namespace {} nor of the cluster", self.namespace);
            let words: Vec<String> = std::iter::once(place).chain(unseen).collect();
            return Err(Failure::new(anyhow!(words.join("; "))));
        }
        // It is found, and there are no others.
        self.unseen.retain(|(kind, _)| !kind.is_pipeline());
        self.followed = Some(name.to_owned());
        Ok(())
    }
}

/// Reads what there is.
pub async fn read(cluster: &Cluster, flags: &TraceFlags) -> Result<Facts, Failure> {
    let mut facts = Facts {
        namespace: cluster.namespace.clone(),
        name: flags.pod.clone(),
        system_namespace: flags.system_namespace.clone(),
        now: Timestamp::now(),
        pod: cluster.pod(&flags.pod).await,
        node: Found::Absent,
        agents: Found::Absent,
        lease: Found::Absent,
        labels: cluster.labels(&cluster.namespace).await,
        pipelines: Vec::new(),
        followed: None,
        backends: Vec::new(),
        unseen: Vec::new(),
    };
    let node = match &facts.pod {
        Found::There(pod) => pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        Found::Absent | Found::Unknown(_) => return Ok(facts),
    };
    if let Some(node) = node {
        facts.node = cluster.node(&node).await;
        facts.agents = cluster.agents(&flags.system_namespace, &node).await;
    }
    facts.lease = cluster.lease(&flags.system_namespace).await;
    facts.now = Timestamp::now();
    for kind in Kind::ALL {
        let into = if kind.is_pipeline() { &mut facts.pipelines } else { &mut facts.backends };
        match cluster.objects(kind, Some(&cluster.namespace)).await {
            Found::There(objects) => into.extend(objects),
            Found::Absent => {
                facts.unseen.push((kind, format!("the cluster has no {}: is Spillway installed?", kind.plural())));
            }
            Found::Unknown(why) => facts.unseen.push((kind, why)),
        }
    }
    if let Some(name) = &flags.pipeline {
        facts.follow(name)?;
    }
    Ok(facts)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{taking, well};
    use super::*;
    use crate::objects::recorded;

    #[test]
    fn a_pipeline_to_follow_is_found_or_it_is_said_where_it_was_looked_for() {
        let unseen = |kind: Kind| (kind, format!("{} is forbidden", kind.plural()));
        let facts =
            || Facts { unseen: vec![unseen(Kind::ClusterMonitoringPipeline), unseen(Kind::ClusterBackend)], ..well() };
        let error = facts().follow("jbos").unwrap_err().to_string();
        assert!(
            error.starts_with("there is no pipeline jbos, neither of namespace fab12 nor of the cluster"),
            "{error}"
        );
        assert!(
            error.ends_with("; of clustermonitoringpipelines nothing is seen: clustermonitoringpipelines is forbidden")
        );
        let mut found = facts();
        found.pipelines.push(recorded(Kind::ClusterMonitoringPipeline, taking()));
        found.pipelines[1].name = "other".to_owned();
        found.follow("jobs").unwrap();
        assert_eq!((found.pipelines.len(), found.followed.as_deref()), (1, Some("jobs")));
        assert_eq!(found.unseen, [unseen(Kind::ClusterBackend)]);
    }
}
