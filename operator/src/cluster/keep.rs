//! Our own small objects: what is made once and found again, and the last good versions of pipelines.
//!
//! | object | holds | who reads it |
//! | --- | --- | --- |
//! | Secret `spillway-ca` | our CA and its successor ([`succession`](crate::succession)) | the replicas of the controller |
//! | `ConfigMap` `spillway-ca` | the certificates alone ([`authority`](super::authority)) | agents, as a mounted file |
//! | Secret `spillway-agent-state` | 32 random bytes that encrypt what agents keep on disk | agents, as a mounted file |
//! | `ControllerRevision`s | the last good version of a pipeline, owned by it | the replicas of the controller |
//!
//! # Guarantees
//! - Two replicas that make an object at the same time end with one and the same.
//! - What is there is never made anew: a damaged one is an error in words.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::ByteString;
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use kube::Client;
use kube::api::{Api, DeleteParams, ObjectMeta, PatchParams, PostParams};
use serde_json::json;
use xxhash_rust::xxh3::xxh3_64;

use super::convert::{KIND_LABEL, NAME_ANNOTATION};
use super::{FIELD_MANAGER, GROUP};
use crate::world::{LastGood, ObjectKey};

/// The Secret and the `ConfigMap` of our CA.
pub const CA: &str = "spillway-ca";

/// The Secret of the key that agents encrypt with.
pub const AGENT_STATE: &str = "spillway-agent-state";

/// The label that says whose an object is.
pub(super) const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", FIELD_MANAGER);

/// Returns a Secret, made with `make` where it is not there.
pub async fn secret(
    client: &Client,
    namespace: &str,
    name: &str,
    make: impl FnOnce() -> BTreeMap<String, Vec<u8>>,
) -> kube::Result<Secret> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    if let Some(found) = api.get_opt(name).await? {
        return Ok(found);
    }
    let secret = Secret {
        metadata: own_metadata(name),
        type_: Some("Opaque".to_owned()),
        data: Some(make().into_iter().map(|(key, value)| (key, ByteString(value))).collect()),
        ..Secret::default()
    };
    let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
    match api.create(&params, &secret).await {
        Ok(made) => {
            tracing::info!(namespace, name, "made a Secret");
            Ok(made)
        }
        // Another replica was faster.
        Err(kube::Error::Api(status)) if status.code == 409 => api.get(name).await,
        Err(error) => Err(error),
    }
}

/// A last good version that is to be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keep {
    /// The pipeline's `metadata.uid`.
    pub uid: Arc<str>,
    /// What was good.
    pub good: Arc<LastGood>,
    /// The names of the objects that hold earlier ones.
    pub before: Vec<String>,
}

/// Keeps a last good version of a pipeline, and removes the ones before it. That of a pipeline of the cluster stands in
/// `own`, the namespace of the operator.
pub async fn good(client: Client, own: String, key: ObjectKey, keep: Keep) -> kube::Result<()> {
    let namespace = if key.kind.is_of_the_cluster() { &*own } else { &*key.namespace };
    let api: Api<ControllerRevision> = Api::namespaced(client, namespace);
    let revision = revision(&key, &keep.uid, &keep.good);
    let name = revision.metadata.name.clone().unwrap_or_default();
    let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
    match api.create(&params, &revision).await {
        Ok(_) => {}
        // The same content under the same name.
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        Err(error) => return Err(error),
    }
    for old in keep.before.iter().filter(|old| **old != name) {
        match api.delete(old, &DeleteParams::default()).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Returns the object that holds a last good version. Its content cannot be changed later, so its name follows from it.
fn revision(key: &ObjectKey, uid: &str, good: &LastGood) -> ControllerRevision {
    let texts = good.texts.iter().map(|text| serde_json::from_str(text).unwrap_or_else(|_| json!({})));
    let data = json!({"generation": good.generation, "texts": texts.collect::<Vec<_>>()});
    let kind = key.kind.name();
    let hash = xxh3_64(format!("{kind}/{uid}/{data}").as_bytes());
    ControllerRevision {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash:016x}", key.name)),
            labels: Some(BTreeMap::from([
                (MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned()),
                (KIND_LABEL.to_owned(), kind.to_owned()),
            ])),
            annotations: Some(BTreeMap::from([(NAME_ANNOTATION.to_owned(), key.name.to_string())])),
            owner_references: Some(vec![OwnerReference {
                api_version: format!("{GROUP}/v1alpha1"),
                kind: kind.to_owned(),
                name: key.name.to_string(),
                uid: uid.to_owned(),
                controller: Some(true),
                ..OwnerReference::default()
            }]),
            ..ObjectMeta::default()
        },
        revision: good.generation.max(1),
        data: Some(RawExtension(data)),
    }
}

fn own_metadata(name: &str) -> ObjectMeta {
    let labels = BTreeMap::from([(MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned())]);
    ObjectMeta { name: Some(name.to_owned()), labels: Some(labels), ..ObjectMeta::default() }
}

/// Returns how our fields are applied.
pub(super) fn applying() -> PatchParams {
    PatchParams::apply(FIELD_MANAGER).force()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::convert::{stored, stored_of};
    use spillway_crds::kinds::Kind;

    #[test]
    fn what_is_kept_is_found_again_and_its_name_follows_from_it() {
        let key = ObjectKey::new(Kind::MonitoringPipeline, "n", "jobs");
        let good = LastGood { generation: 4, texts: vec![r#"{"kind":"MonitoringPipeline"}"#.into()] };
        let mut kept = revision(&key, "u", &good);
        kept.metadata.namespace = Some("n".to_owned());
        let (of, place) = stored_of(&kept.metadata).unwrap();
        let read = serde_json::from_value(serde_json::to_value(&kept).unwrap()).unwrap();
        let found = stored(&of, place, &read).unwrap();
        assert_eq!((&of, &*found.good, &*found.owner), (&key, &good, "u"));
        let other = LastGood { generation: 5, ..good.clone() };
        assert_ne!(revision(&key, "u", &other).metadata.name, kept.metadata.name);
        assert_ne!(revision(&key, "v", &good).metadata.name, kept.metadata.name, "another pipeline of that name");
    }
}
