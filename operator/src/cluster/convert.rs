//! Objects of Kubernetes into what the world knows of them: pure, so that every odd object is a test.
//!
//! An object that lacks what Kubernetes always gives (a name, a uid) is passed over; nothing in an object makes this panic.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde::Deserialize;
use serde_json::{Value, json};
use spillway_crds::inject::{self, AUTHORITIES, CONTAINER, INJECT, INJECTED, PORTS, REVISION};
use spillway_crds::kinds::labels::Labels;
use spillway_crds::kinds::status::{BackendStatus, PipelineStatus, Recreation, StatusCondition};
use spillway_crds::served::{Owner, PodFacts};

use super::GROUP;
use super::slim::{SlimContainer, SlimObject, SlimPod, SlimPodSpec, SlimPort, SlimRevision};
use crate::texts::held;
use crate::world::{Carried, LastGood, Maker, Manifest, ObjectKey, Pod};
use spillway_crds::kinds::Kind;

/// The annotation in which the kubelet gives a static pod the uid that its paths have.
const STATIC_UID: &str = "kubernetes.io/config.hash";

/// The label that a `ReplicaSet` of a Deployment, and its pods, have.
const TEMPLATE_HASH: &str = "pod-template-hash";

/// The phases of a pod whose containers will not run again; that of one whose node is away is another.
const ENDED: [&str; 2] = ["Succeeded", "Failed"];

/// The label of a last good version: the kind of its pipeline.
pub const KIND_LABEL: &str = "spillway.dev/last-good-of";

/// The annotation of a last good version: the name of its pipeline.
pub const NAME_ANNOTATION: &str = "spillway.dev/pipeline";

/// The status of an object of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ObjectStatus {
    /// Of a pipeline.
    Pipeline(PipelineStatus),
    /// Of a destination.
    Backend(BackendStatus),
}

/// The status of an object of ours as it is kept and written: JSON, a part of the size of what is read from it. Those of one
/// kind that say the same are the same text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusText(Arc<str>);

impl ObjectStatus {
    /// Returns what it says.
    pub fn conditions(&self) -> &[StatusCondition] {
        match self {
            Self::Pipeline(status) => &status.conditions,
            Self::Backend(status) => &status.conditions,
        }
    }

    /// Returns it as it is kept.
    pub fn to_text(&self) -> StatusText {
        let text = match self {
            Self::Pipeline(status) => serde_json::to_string(status),
            Self::Backend(status) => serde_json::to_string(status),
        };
        StatusText(text.unwrap_or_else(|_| "{}".to_owned()).into())
    }
}

impl StatusText {
    /// Returns what stands in it, of an object of `kind`.
    pub fn read(&self, kind: Kind) -> ObjectStatus {
        if kind.is_pipeline() {
            ObjectStatus::Pipeline(serde_json::from_str(&self.0).unwrap_or_default())
        } else {
            ObjectStatus::Backend(serde_json::from_str(&self.0).unwrap_or_default())
        }
    }

    /// Returns whose pods are evicted, of a pipeline.
    pub fn recreations(&self) -> Vec<Recreation> {
        if !self.0.contains("\"recreations\"") {
            return Vec::new();
        }
        let status: PipelineStatus = serde_json::from_str(&self.0).unwrap_or_default();
        status.sidecars.map(|counts| counts.recreations).unwrap_or_default()
    }

    /// Returns it as a part of what is sent.
    pub fn to_json(&self) -> Value {
        serde_json::from_str(&self.0).unwrap_or(Value::Null)
    }
}

/// An object's namespace and name.
pub type Place = (Arc<str>, Arc<str>);

/// A stored last good version of a pipeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The object it stands in.
    pub place: Place,
    /// `metadata.uid` of the pipeline that owns it: the name of one tells nothing of whose it is.
    pub owner: Arc<str>,
    /// When that was made, Unix time in seconds: of two the later one counts. One object is written once a second at most.
    pub made: i64,
    /// What was good.
    pub good: Arc<LastGood>,
}

/// What the object of a last good version holds.
#[derive(Deserialize)]
struct StoredData {
    generation: i64,
    texts: Vec<Value>,
}

/// Returns the key of an object of `kind`; `None` where it has no name.
pub fn key(kind: Kind, metadata: &ObjectMeta) -> Option<ObjectKey> {
    Some(ObjectKey::new(kind, metadata.namespace.as_deref().unwrap_or_default(), metadata.name.as_deref()?))
}

/// Returns what an object of ours says, without its last good version.
pub fn manifest(kind: Kind, object: &mut SlimObject) -> Option<Manifest> {
    let spec = std::mem::take(&mut object.spec);
    let metadata = &object.metadata;
    let generation = metadata.generation.unwrap_or_default();
    let mut shown = json!({"name": metadata.name.as_deref()?, "generation": generation});
    if let Some(namespace) = &metadata.namespace {
        shown["namespace"] = json!(namespace);
    }
    let text = json!({
        "apiVersion": format!("{GROUP}/v1alpha1"), "kind": kind.name(), "metadata": shown,
        "spec": if spec.is_null() { json!({}) } else { spec },
    });
    Some(Manifest { uid: metadata.uid.as_deref()?.into(), generation, text: held(&text.to_string()), last_good: None })
}

/// Returns what stands in the `status` of an object of ours; that of one without, or with one that we do not understand, is empty.
pub fn status(kind: Kind, status: Value) -> ObjectStatus {
    match kind {
        Kind::MonitoringPipeline | Kind::ClusterMonitoringPipeline => {
            ObjectStatus::Pipeline(serde_json::from_value(status).unwrap_or_default())
        }
        Kind::Backend | Kind::ClusterBackend => {
            ObjectStatus::Backend(serde_json::from_value(status).unwrap_or_default())
        }
    }
}

/// Returns of which pipeline an object holds a last good version, and where it stands; `None` for one that is not ours.
pub fn stored_of(metadata: &ObjectMeta) -> Option<(ObjectKey, Place)> {
    let kind = Kind::of_name(metadata.labels.as_ref()?.get(KIND_LABEL)?).filter(|kind| kind.is_pipeline())?;
    let name = metadata.annotations.as_ref()?.get(NAME_ANNOTATION)?;
    let own = metadata.namespace.as_deref()?;
    let namespace = if kind == Kind::MonitoringPipeline { own } else { "" };
    Some((ObjectKey::new(kind, namespace, name), (held(own), metadata.name.as_deref()?.into())))
}

/// Returns the last good version of `of` that the object at `place` holds; `None` for one that is not understood, or that no
/// pipeline of that name owns. One of ours always has an owner.
pub fn stored(of: &ObjectKey, place: Place, revision: &SlimRevision) -> Option<Stored> {
    let is_owner = |owner: &&OwnerReference| {
        let group = owner.api_version.split_once('/').map(|(group, _)| group);
        (group, owner.kind.as_str(), owner.name.as_str()) == (Some(GROUP), of.kind.name(), &*of.name)
    };
    let owner = revision.metadata.owner_references.iter().flatten().find(is_owner);
    let data = revision.data.as_deref().map(|data| serde_json::from_str::<StoredData>(data.get()));
    let (Some(owner), Some(Ok(data))) = (owner, data) else {
        let (namespace, name) = (&*place.0, &*place.1);
        tracing::warn!(
            namespace,
            name,
            of = of.label(),
            "a ControllerRevision is no last good version; it is passed over"
        );
        return None;
    };
    let texts = data.texts.iter().map(|text| held(&text.to_string())).collect();
    Some(Stored {
        place,
        owner: held(&owner.uid),
        made: revision.metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second()),
        good: Arc::new(LastGood { generation: data.generation, texts }),
    })
}

/// Returns what selection and origin need of the pod of that `metadata.uid`; `None` for one without a name.
pub fn pod(uid: Arc<str>, pod: &SlimPod) -> Option<Pod> {
    let (metadata, carried) = (&pod.metadata, carried(pod));
    let labels: Labels = metadata.labels.iter().flatten().map(|(key, value)| (held(key), held(value))).collect();
    let annotations = metadata.annotations.as_ref();
    let of_static = annotations.and_then(|annotations| annotations.get(STATIC_UID));
    let facts = PodFacts {
        uid: of_static.map_or_else(|| Arc::clone(&uid), |of_static| of_static.as_str().into()),
        namespace: held(metadata.namespace.as_deref()?),
        name: metadata.name.as_deref()?.into(),
        has_ended: ENDED.contains(&pod.status.phase.as_str()),
        owner: owner(metadata.owner_references.as_deref().unwrap_or_default(), &labels),
        annotations: annotations.map(|all| own_annotations(all, carried.is_there)).unwrap_or_default(),
        labels,
    };
    let SlimPodSpec { node_name, service_account_name, .. } = &pod.spec;
    Some(Pod { facts: facts.into(), node: held(node_name), service_account: held(service_account_name), uid, carried })
}

/// Returns what a pod has of a sidecar.
fn carried(pod: &SlimPod) -> Carried {
    let (metadata, spec) = (&pod.metadata, &pod.spec);
    let annotation = |key: &str| metadata.annotations.as_ref().and_then(|all| all.get(key));
    let init = || spec.init_containers.iter().flatten();
    let is_sidecar = |one: &SlimContainer| one.name == CONTAINER && one.restart_policy.as_deref() == Some("Always");
    let is_there = init().any(is_sidecar) && annotation(INJECTED).is_some();
    let selected = spec.node_selector.as_ref().and_then(|labels| labels.get("kubernetes.io/os"));
    let systems = [selected, spec.os.as_ref().map(|os| &os.name)];
    let barred = if annotation(STATIC_UID).is_some() {
        Some(inject::Reason::MirrorPod)
    } else if spec.host_network {
        Some(inject::Reason::HostNetwork)
    } else if systems.into_iter().flatten().any(|name| name != "linux") {
        Some(inject::Reason::OperatingSystem)
    } else if init().chain(&spec.containers).any(clashes) {
        Some(inject::Reason::PortTaken)
    } else {
        let is_taken = !is_there && init().chain(&spec.containers).any(|one| one.name == CONTAINER);
        is_taken.then_some(inject::Reason::NameTaken)
    };
    let controller = metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true));
    let maker = controller.map(|owner| Maker {
        api_version: held(&owner.api_version),
        kind: held(&owner.kind),
        name: held(&owner.name),
        uid: held(&owner.uid),
    });
    Carried {
        is_there,
        revision: annotation(REVISION).map(|text| held(text)),
        barred,
        created: metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second()),
        is_going: metadata.deletion_timestamp.is_some(),
        maker: maker.map(Arc::new),
    }
}

/// Returns whether a container, other than a sidecar, listens where a sidecar does.
fn clashes(container: &SlimContainer) -> bool {
    let is_tcp = |port: &&SlimPort| port.protocol.as_deref().unwrap_or("TCP") == "TCP";
    let mut ports = container.ports.iter().flatten().filter(is_tcp);
    container.name != CONTAINER && ports.any(|port| PORTS.iter().any(|ours| i64::from(*ours) == port.container_port))
}

/// Returns the annotations of our group, but for those that no agent needs: certificates are for the pod's kubelet, and what a
/// sidecar was made of is for us. What a sidecar runs is written by whoever may write the pod: it counts where the pod has a
/// sidecar, and asked for the same, if it asked itself.
fn own_annotations(all: &BTreeMap<String, String>, has_sidecar: bool) -> Labels {
    let get = |key: &str| all.get(key).map(String::as_str);
    let asked = get(INJECT);
    let is_meant = has_sidecar && asked.is_none_or(|asked| get(INJECTED) == Some(asked));
    let is_ours = |key: &str| match key {
        AUTHORITIES | REVISION => false,
        INJECTED => is_meant,
        key => key.starts_with("spillway.dev/"),
    };
    let ours = all.iter().filter(|(key, _)| is_ours(key));
    ours.map(|(key, value)| (held(key), held(value))).collect()
}

/// Returns what made a pod. The name of a `ReplicaSet` of a Deployment ends in the hash that its pods have as a label, and
/// that of a Job of a `CronJob` in the minute it was due: the rest is the name of what made that, and no request is needed.
fn owner(owners: &[OwnerReference], labels: &Labels) -> Option<Owner> {
    let controller = owners.iter().find(|owner| owner.controller == Some(true))?;
    let named = |kind: &str, name: &str| Some(Owner { kind: held(kind), name: held(name) });
    match controller.kind.as_str() {
        "ReplicaSet" => {
            let hash = labels.get(TEMPLATE_HASH).map(|hash| format!("-{hash}"));
            match hash.and_then(|hash| controller.name.strip_suffix(&hash).map(str::to_owned)) {
                Some(deployment) => named("Deployment", &deployment),
                None => named("ReplicaSet", &controller.name),
            }
        }
        "Job" => match controller.name.rsplit_once('-') {
            Some((cron, minute)) if minute.len() >= 8 && minute.bytes().all(|byte| byte.is_ascii_digit()) => {
                named("CronJob", cron)
            }
            _ => named("Job", &controller.name),
        },
        kind => named(kind, &controller.name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(json: Value) -> SlimObject {
        serde_json::from_value(json).unwrap()
    }

    fn slim(json: Value) -> SlimPod {
        serde_json::from_value(json).unwrap()
    }

    fn read_pod(slim: &SlimPod) -> Option<Pod> {
        pod("u".into(), slim)
    }

    fn read(revision: &SlimRevision) -> Option<(ObjectKey, Stored)> {
        let (of, place) = stored_of(&revision.metadata)?;
        let stored = stored(&of, place, revision)?;
        Some((of, stored))
    }

    #[test]
    fn what_is_served_is_the_spec_and_what_names_it() {
        let mut object = object(json!({
            "apiVersion": "spillway.dev/v1alpha1", "kind": "Backend",
            "metadata": {"name": "a", "namespace": "n", "uid": "u", "generation": 3, "labels": {"x": "y"},
                         "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "…"}},
            "spec": {"type": "Stdout"}, "status": {"observedGeneration": 2},
        }));
        let manifest = manifest(Kind::Backend, &mut object).unwrap();
        assert_eq!(
            &*manifest.text,
            r#"{"apiVersion":"spillway.dev/v1alpha1","kind":"Backend","metadata":{"generation":3,"name":"a","namespace":"n"},"spec":{"type":"Stdout"}}"#
        );
        assert_eq!((manifest.generation, &*manifest.uid), (3, "u"));
        let ObjectStatus::Backend(status) = status(Kind::Backend, object.status) else { panic!("a backend") };
        assert_eq!(status.observed_generation, Some(2));
        let compiled = spillway_crds::compile(&[spillway_crds::Document::new("Backend n/a", &*manifest.text)]);
        assert!(compiled.errors.is_empty() && compiled.backends.len() == 1, "{:?}", compiled.errors);
    }

    #[test]
    fn a_status_that_is_not_understood_is_empty() {
        for odd in [json!({"conditions": 7}), Value::Null] {
            assert_eq!(status(Kind::MonitoringPipeline, odd), ObjectStatus::Pipeline(PipelineStatus::default()));
        }
    }

    #[test]
    fn the_owner_is_the_deployment_and_not_its_replica_set() {
        let owned = |kind: &str, name: &str, labels: Value| {
            let pod = slim(json!({"metadata": {"name": "p", "namespace": "n", "uid": "u", "labels": labels,
                "ownerReferences": [{"apiVersion": "v1", "kind": kind, "name": name, "uid": "o", "controller": true}]}}));
            let Owner { kind, name } = read_pod(&pod).unwrap().facts.owner.clone().unwrap();
            format!("{kind}/{name}")
        };
        let hashed = json!({"pod-template-hash": "7d4f"});
        assert_eq!(owned("ReplicaSet", "web-7d4f", hashed.clone()), "Deployment/web");
        assert_eq!(owned("ReplicaSet", "web-7d4f", json!({})), "ReplicaSet/web-7d4f");
        assert_eq!(owned("ReplicaSet", "web", hashed), "ReplicaSet/web");
        assert_eq!(owned("Job", "nightly-29384756", json!({})), "CronJob/nightly");
        assert_eq!(owned("Job", "import-42", json!({})), "Job/import-42");
        assert_eq!(owned("DaemonSet", "logs", json!({})), "DaemonSet/logs");
    }

    #[test]
    fn a_static_pod_is_known_by_the_uid_of_its_paths() {
        let pod = slim(json!({"metadata": {"name": "etcd", "namespace": "kube-system", "uid": "mirror",
            "annotations": {"kubernetes.io/config.hash": "abc", "spillway.dev/logs": "false", "other": "x", AUTHORITIES: "PEM", REVISION: "r"}},
            "spec": {"nodeName": "n1", "serviceAccountName": "default", "containers": [{"name": "x"}]}}));
        let pod = read_pod(&pod).unwrap();
        assert_eq!((&*pod.facts.uid, &*pod.uid, &*pod.node), ("abc", "u", "n1"));
        assert_eq!(pod.facts.annotations.iter().collect::<Vec<_>>(), [("spillway.dev/logs", "false")]);
        assert!(read_pod(&SlimPod::default()).is_none());
    }

    #[test]
    fn what_a_sidecar_runs_counts_where_there_is_one_and_the_pod_asked_for_it() {
        let sidecar = json!([{"name": "spillway", "restartPolicy": "Always"}]);
        let runs = |asks: Option<&str>, init: &Value| {
            let annotations = json!({INJECTED: "jobs", INJECT: asks});
            let annotations: BTreeMap<&str, &Value> = annotations
                .as_object()
                .unwrap()
                .iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(k, v)| (&**k, v))
                .collect();
            let pod = slim(json!({"metadata": {"name": "p", "namespace": "n", "uid": "u", "annotations": annotations},
                "spec": {"nodeName": "n1", "initContainers": init}}));
            let pod = read_pod(&pod).unwrap();
            (pod.sidecar().map(str::to_owned), pod.carried.is_there)
        };
        let jobs = Some("jobs".to_owned());
        assert_eq!(runs(Some("jobs"), &sidecar), (jobs.clone(), true));
        assert_eq!(runs(None, &sidecar), (jobs, true), "its namespace asked");
        assert_eq!(runs(Some("other"), &sidecar), (None, true));
        assert_eq!(runs(Some("false"), &sidecar), (None, true));
        for init in [json!([]), json!([{"name": "spillway"}]), json!([{"name": "x", "restartPolicy": "Always"}])] {
            assert_eq!(runs(Some("jobs"), &init), (None, false), "{init}");
            assert_eq!(runs(None, &init), (None, false), "{init}");
        }
    }

    #[test]
    fn a_pod_has_ended_when_none_of_its_containers_runs_again() {
        let ended = |status: Value| {
            let metadata =
                json!({"name": "p", "namespace": "n", "uid": "u", "deletionTimestamp": "2026-01-01T00:00:00Z"});
            read_pod(&slim(json!({"metadata": metadata, "status": status}))).unwrap().facts.has_ended
        };
        assert!(ended(json!({"phase": "Succeeded"})) && ended(json!({"phase": "Failed"})));
        // One that is being deleted still sends what it has.
        for running in
            [json!({}), json!({"phase": "Pending"}), json!({"phase": "Running"}), json!({"phase": "Unknown"})]
        {
            assert!(!ended(running.clone()), "{running}");
        }
    }

    #[test]
    fn a_last_good_version_is_known_by_its_label_and_annotation_and_by_who_owns_it() {
        let owned_by = |kind: &str, owner: Value, data: Value| -> SlimRevision {
            serde_json::from_value(json!({"metadata": {"name": "jobs-1", "namespace": "n", "ownerReferences": [owner],
                "labels": {KIND_LABEL: kind}, "annotations": {NAME_ANNOTATION: "jobs"}}, "revision": 4, "data": data}))
            .unwrap()
        };
        let owner = |api_version: &str, kind: &str, name: &str| json!({"apiVersion": api_version, "kind": kind, "name": name, "uid": "u"});
        let ours = owner("spillway.dev/v1alpha1", "MonitoringPipeline", "jobs");
        let revision = |kind: &str, data: Value| owned_by(kind, ours.clone(), data);
        let data = json!({"generation": 4, "texts": [{"kind": "x"}]});
        let (of, good) = read(&revision("MonitoringPipeline", data)).unwrap();
        assert_eq!(of, ObjectKey::new(Kind::MonitoringPipeline, "n", "jobs"));
        assert_eq!(*good.good, LastGood { generation: 4, texts: vec![r#"{"kind":"x"}"#.into()] });
        assert_eq!(&*good.owner, "u");
        for other in [
            owner("spillway.dev/v1alpha1", "MonitoringPipeline", "other"),
            owner("spillway.dev/v1alpha1", "ClusterMonitoringPipeline", "jobs"),
            owner("apps/v1", "MonitoringPipeline", "jobs"),
        ] {
            let data = json!({"generation": 4, "texts": []});
            assert!(read(&owned_by("MonitoringPipeline", other.clone(), data)).is_none(), "{other}");
        }
        assert!(read(&revision("Other", json!({"generation": 4, "texts": []}))).is_none());
        assert!(read(&revision("MonitoringPipeline", json!({"other": true}))).is_none());
        assert!(read(&SlimRevision::default()).is_none());
    }

    #[test]
    fn a_last_good_version_shares_the_texts_of_what_stands() {
        let metadata = json!({"name": "a", "namespace": "n", "uid": "u", "generation": 3});
        let mut object = object(json!({"metadata": metadata, "spec": {"x": 1}}));
        let standing = manifest(Kind::MonitoringPipeline, &mut object).unwrap();
        let of = ObjectKey::new(Kind::MonitoringPipeline, "n", "a");
        let owner =
            json!({"apiVersion": "spillway.dev/v1alpha1", "kind": "MonitoringPipeline", "name": "a", "uid": "u"});
        let data = json!({"generation": 3, "texts": [serde_json::from_str::<Value>(&standing.text).unwrap()]});
        let revision = json!({"metadata": {"ownerReferences": [owner]}, "data": data});
        let kept = stored(&of, ("n".into(), "a-1".into()), &serde_json::from_value(revision).unwrap());
        assert!(Arc::ptr_eq(&kept.unwrap().good.texts[0], &standing.text));
    }
}
