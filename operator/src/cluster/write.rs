//! Status, written with one field manager.

use kube::Client;
use kube::api::{Api, DynamicObject, Patch};
use serde_json::json;

use super::GROUP;
use super::convert::StatusText;
use super::keep::applying;
use super::watch::resource;
use crate::world::ObjectKey;

/// Writes the status of an object.
pub async fn status(client: Client, key: ObjectKey, status: StatusText) -> kube::Result<()> {
    let resource = resource(key.kind);
    let api: Api<DynamicObject> = if key.kind.is_of_the_cluster() {
        Api::all_with(client, &resource)
    } else {
        Api::namespaced_with(client, &key.namespace, &resource)
    };
    let object = json!({
        "apiVersion": format!("{GROUP}/v1alpha1"), "kind": key.kind.name(),
        "metadata": {"name": &*key.name}, "status": status.to_json(),
    });
    api.patch_status(&key.name, &applying(), &Patch::Apply(object)).await.map(drop)
}
