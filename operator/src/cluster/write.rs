//! Status, written with one field manager.

use kube::Client;
use kube::api::{Api, DynamicObject, Patch};
use serde_json::{Value, json};

use super::GROUP;
use super::convert::ObjectStatus;
use super::keep::applying;
use super::watch::resource;
use crate::world::ObjectKey;

/// Writes the status of an object.
pub async fn status(client: Client, key: ObjectKey, status: ObjectStatus) -> kube::Result<()> {
    let resource = resource(key.kind);
    let api: Api<DynamicObject> = if key.kind.is_of_the_cluster() {
        Api::all_with(client, &resource)
    } else {
        Api::namespaced_with(client, &key.namespace, &resource)
    };
    let status = match status {
        ObjectStatus::Pipeline(status) => serde_json::to_value(status),
        ObjectStatus::Backend(status) => serde_json::to_value(status),
    };
    let object = json!({
        "apiVersion": format!("{GROUP}/v1alpha1"), "kind": key.kind.name(),
        "metadata": {"name": &*key.name}, "status": status.unwrap_or(Value::Null),
    });
    api.patch_status(&key.name, &applying(), &Patch::Apply(object)).await.map(drop)
}
