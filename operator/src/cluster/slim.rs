//! Objects of Kubernetes as far as they are read: everything else is passed over while they are decoded, so that a page of a
//! listing costs a part of its size on the wire. What managed which field is the larger half of most objects.
//!
//! # It must not know
//! What is made of them.

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::{LimitRange, Namespace, Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};
use kube::api::ApiResource;
use kube::core::{DynamicResourceScope, ObjectMeta, Resource};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

/// An object of ours.
#[derive(Deserialize, Clone, Debug, Default)]
pub struct SlimObject {
    /// `metadata`.
    #[serde(default, deserialize_with = "metadata")]
    pub metadata: ObjectMeta,
    /// `spec`; null where it has none.
    #[serde(default)]
    pub spec: Value,
    /// `status`; null where it has none.
    #[serde(default)]
    pub status: Value,
}

/// A last good version.
#[derive(Deserialize, Clone, Debug, Default)]
pub struct SlimRevision {
    /// `metadata`.
    #[serde(default, deserialize_with = "metadata")]
    pub metadata: ObjectMeta,
    /// `data` as it is written; `None` where it has none. Whoever may make such an object writes into it what they like: it is read
    /// apart, so that one that cannot be read does not end a listing of all.
    #[serde(default)]
    pub data: Option<Box<RawValue>>,
}

/// A namespace.
#[derive(Deserialize, Clone, Debug, Default)]
pub struct SlimNamespace {
    /// `metadata`.
    #[serde(default, deserialize_with = "metadata")]
    pub metadata: ObjectMeta,
}

/// A limit range.
#[derive(Deserialize, Clone, Debug, Default)]
pub struct SlimLimitRange {
    /// `metadata`.
    #[serde(default, deserialize_with = "metadata")]
    pub metadata: ObjectMeta,
    /// `spec`; null where it has none.
    #[serde(default)]
    pub spec: Value,
}

/// A pod.
#[derive(Deserialize, Clone, Debug, Default)]
pub struct SlimPod {
    /// `metadata`.
    #[serde(default, deserialize_with = "metadata")]
    pub metadata: ObjectMeta,
    /// `spec`.
    #[serde(default)]
    pub spec: SlimPodSpec,
    /// `status`.
    #[serde(default)]
    pub status: SlimPodStatus,
}

/// What a pod is to be.
#[derive(Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct SlimPodSpec {
    /// `spec.nodeName`; empty before it is scheduled.
    pub node_name: String,
    /// `spec.serviceAccountName`.
    pub service_account_name: String,
    /// `spec.hostNetwork`.
    pub host_network: bool,
    /// `spec.nodeSelector`.
    pub node_selector: Option<BTreeMap<String, String>>,
    /// `spec.os`.
    pub os: Option<SlimContainer>,
    /// `spec.containers`.
    pub containers: Vec<SlimContainer>,
    /// `spec.initContainers`.
    pub init_containers: Option<Vec<SlimContainer>>,
}

/// A container, or what else has a name.
#[derive(Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct SlimContainer {
    /// `name`.
    pub name: String,
    /// `restartPolicy`, of an init container that is a sidecar.
    pub restart_policy: Option<String>,
    /// `ports`.
    pub ports: Option<Vec<SlimPort>>,
}

/// A port that a container says it listens at.
#[derive(Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct SlimPort {
    /// `containerPort`.
    pub container_port: i64,
    /// `protocol`; TCP where it says none.
    pub protocol: Option<String>,
}

/// What became of a pod.
#[derive(Deserialize, Clone, Debug, Default)]
#[serde(default)]
pub struct SlimPodStatus {
    /// `status.phase`.
    pub phase: String,
}

/// A node.
#[derive(Deserialize, Clone, Debug, Default)]
pub struct SlimNode {
    /// `metadata`.
    #[serde(default, deserialize_with = "metadata")]
    pub metadata: ObjectMeta,
    #[serde(default)]
    status: SlimNodeStatus,
}

#[derive(Deserialize, Clone, Debug, Default)]
#[serde(default)]
struct SlimNodeStatus {
    conditions: Vec<SlimCondition>,
}

#[derive(Deserialize, Clone, Debug, Default)]
#[serde(default)]
struct SlimCondition {
    r#type: String,
    status: String,
}

/// Of `metadata` what is looked at.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct SlimMeta {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    generation: Option<i64>,
    resource_version: Option<String>,
    creation_timestamp: Option<Time>,
    deletion_timestamp: Option<Time>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
    owner_references: Option<Vec<OwnerReference>>,
}

impl SlimNode {
    /// Returns whether the node says that it is ready.
    pub fn is_ready(&self) -> bool {
        self.status.conditions.iter().any(|condition| condition.r#type == "Ready" && condition.status == "True")
    }
}

fn metadata<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    let slim = SlimMeta::deserialize(deserializer)?;
    Ok(ObjectMeta {
        name: slim.name,
        namespace: slim.namespace,
        uid: slim.uid,
        generation: slim.generation,
        resource_version: slim.resource_version,
        creation_timestamp: slim.creation_timestamp,
        deletion_timestamp: slim.deletion_timestamp,
        labels: slim.labels,
        annotations: slim.annotations,
        owner_references: slim.owner_references,
        ..ObjectMeta::default()
    })
}

/// Lends a slim type the names of the full one.
macro_rules! named_as {
    ($slim:ty, $full:ty) => {
        impl Resource for $slim {
            type DynamicType = ();
            type Scope = <$full as Resource>::Scope;

            fn kind((): &()) -> Cow<'_, str> {
                <$full as Resource>::kind(&())
            }

            fn group((): &()) -> Cow<'_, str> {
                <$full as Resource>::group(&())
            }

            fn version((): &()) -> Cow<'_, str> {
                <$full as Resource>::version(&())
            }

            fn plural((): &()) -> Cow<'_, str> {
                <$full as Resource>::plural(&())
            }

            fn meta(&self) -> &ObjectMeta {
                &self.metadata
            }

            fn meta_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }
    };
}

named_as!(SlimRevision, ControllerRevision);
named_as!(SlimNamespace, Namespace);
named_as!(SlimLimitRange, LimitRange);
named_as!(SlimPod, Pod);
named_as!(SlimNode, Node);

impl Resource for SlimObject {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(of: &ApiResource) -> Cow<'_, str> {
        of.kind.as_str().into()
    }

    fn group(of: &ApiResource) -> Cow<'_, str> {
        of.group.as_str().into()
    }

    fn version(of: &ApiResource) -> Cow<'_, str> {
        of.version.as_str().into()
    }

    fn plural(of: &ApiResource) -> Cow<'_, str> {
        of.plural.as_str().into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_managed_which_field_is_passed_over_and_what_is_looked_at_is_not() {
        let read = json!({"name": "a", "namespace": "n", "uid": "u", "generation": 3, "resourceVersion": "7",
            "creationTimestamp": "2026-01-02T03:04:05Z", "deletionTimestamp": "2026-01-02T03:04:06Z", "labels": {"x": "y"}, "annotations": {"x": "z"},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Job", "name": "j", "uid": "o", "controller": true}]});
        let mut object = json!({"metadata": read, "spec": {"a": 1}});
        object["metadata"]["managedFields"] = json!([{"manager": "m", "fieldsV1": {"f:spec": {}}}]);
        object["metadata"]["finalizers"] = json!(["f"]);
        let slim: SlimObject = serde_json::from_value(object).unwrap();
        assert_eq!(serde_json::to_value(&slim.metadata).unwrap(), read);
        assert_eq!((slim.spec, slim.status), (json!({"a": 1}), Value::Null));
    }

    #[test]
    fn a_last_good_version_that_cannot_be_read_ends_no_listing() {
        let deep = format!("{}{}", "[".repeat(1000), "]".repeat(1000));
        assert!(serde_json::from_str::<Value>(&deep).is_err(), "as a tree it is an error, and the listing with it");
        let item = |name: &str, data: &str| format!(r#"{{"metadata":{{"name":"{name}"}},"data":{data}}}"#);
        let items = [item("a", &deep), item("b", r#"{"generation":1,"texts":[]}"#), item("c", "null")].join(",");
        let list =
            format!(r#"{{"kind":"ControllerRevisionList","apiVersion":"apps/v1","metadata":{{}},"items":[{items}]}}"#);
        let list: kube::core::ObjectList<SlimRevision> = serde_json::from_str(&list).unwrap();
        let names = list.items.iter().map(|item| (item.metadata.name.as_deref().unwrap(), item.data.is_some()));
        assert_eq!(names.collect::<Vec<_>>(), [("a", true), ("b", true), ("c", false)]);
        let event = format!(r#"{{"type":"ADDED","object":{}}}"#, item("a", &deep));
        let event: kube::core::WatchEvent<SlimRevision> = serde_json::from_str(&event).unwrap();
        assert!(matches!(event, kube::core::WatchEvent::Added(one) if one.data.is_some()));
    }

    #[test]
    fn what_a_slim_object_lacks_is_empty() {
        let pod: SlimPod = serde_json::from_value(json!({})).unwrap();
        assert_eq!((pod.metadata.name, &*pod.spec.node_name, &*pod.status.phase), (None, "", ""));
    }

    #[test]
    fn a_node_is_ready_when_it_says_so() {
        let node = |status: &str| -> SlimNode {
            serde_json::from_value(json!({"metadata": {"name": "n"}, "status": {"conditions": [
                {"type": "MemoryPressure", "status": "False"}, {"type": "Ready", "status": status}]}}))
            .unwrap()
        };
        assert!(node("True").is_ready());
        assert!(!node("False").is_ready() && !node("Unknown").is_ready() && !SlimNode::default().is_ready());
    }
}
