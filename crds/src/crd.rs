//! The CRDs, generated from the kinds in the form Kubernetes accepts: structural, bounded, described.
//!
//! The committed files lie beside this crate's `Cargo.toml`; a test compares them with [`crd_yaml`].
//!
//! One rule for lists without a list type of their own: items with a required `name` are a map by `name` (so that two
//! people can own two items), any other list is atomic.

use std::sync::LazyLock;

use kube::CustomResourceExt;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::kinds::{Backend, ClusterBackend, ClusterMonitoringPipeline, MonitoringPipeline, status};
use crate::manifest::rules::{self, Check};

/// First line of each file.
const HEADER: &str = "# Generated from the types in crds/src/kinds by `cargo xtask generate`. Do not edit.\n";

/// Where the schema of the one version is in a CRD.
const SCHEMA: &str = "/spec/versions/0/schema/openAPIV3Schema";

static DEFINITIONS: LazyLock<[Value; 4]> = LazyLock::new(|| {
    [
        pipeline(&MonitoringPipeline::crd()),
        destination(&Backend::crd()),
        only_cluster_backends(pipeline(&ClusterMonitoringPipeline::crd())),
        destination(&ClusterBackend::crd()),
    ]
});

/// Returns each CRD: its file name and its YAML.
pub fn crd_yaml() -> Vec<(String, String)> {
    DEFINITIONS
        .iter()
        .map(|definition| {
            let name = definition["spec"]["names"]["plural"].as_str().unwrap_or_default();
            let yaml = serde_saphyr::to_string(definition).expect("a CRD is maps, lists and plain values");
            (format!("{name}.spillway.dev.yaml"), format!("{HEADER}{yaml}"))
        })
        .collect()
}

/// Returns each CRD as JSON, in the order of [`crd_yaml`].
pub fn definitions() -> &'static [Value] {
    &*DEFINITIONS
}

/// Returns the places below `spec` where a destination of that kind names a key of a Secret, such as
/// `http.auth.bearer.tokenSecretRef`, by name.
pub fn secret_references(kind: &str) -> Vec<String> {
    fn walk(schema: &Value, place: &str, found: &mut Vec<String>) {
        for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
            let place = if place.is_empty() { name.clone() } else { format!("{place}.{name}") };
            if spillway_backends::is_secret_member(name) {
                found.push(place);
            } else {
                walk(inner, &place, found);
            }
        }
    }
    let mut found = Vec::new();
    walk(schema(kind).map_or(&Value::Null, |schema| &schema["properties"]["spec"]), "", &mut found);
    found.sort();
    found
}

/// Returns the names of the kinds.
pub(crate) fn kind_names() -> impl Iterator<Item = &'static str> {
    DEFINITIONS.iter().filter_map(|definition| definition["spec"]["names"]["kind"].as_str())
}

/// Returns whether objects of a kind belong to the cluster and to no namespace.
pub(crate) fn is_of_the_cluster(kind: &str) -> bool {
    let mut definitions = DEFINITIONS.iter();
    definitions.any(|one| one["spec"]["names"]["kind"] == kind && one["spec"]["scope"] == "Cluster")
}

/// Returns the schema of a kind.
pub(crate) fn schema(kind: &str) -> Option<&'static Value> {
    DEFINITIONS.iter().find(|definition| definition["spec"]["names"]["kind"] == kind)?.pointer(SCHEMA)
}

fn pipeline(crd: &impl Serialize) -> Value {
    const TRANSFORM: &str = "/properties/spec/properties/transforms/items";
    let mut definition = definition(crd, &status::OF_PIPELINES);
    let rules: Vec<_> = rules::members_of_transforms().map(Check::rule).collect();
    let transform = schema_of(&mut definition).pointer_mut(TRANSFORM).expect("a pipeline has transforms");
    transform["x-kubernetes-validations"] = json!(rules);
    definition
}

fn destination(crd: &impl Serialize) -> Value {
    let mut definition = definition(crd, &status::OF_BACKENDS);
    let rules: Vec<_> = rules::members_of_backends().map(Check::rule).collect();
    schema_of(&mut definition)["properties"]["spec"]["x-kubernetes-validations"] = json!(rules);
    definition
}

/// Returns what every kind has in common; `conditions` are those of its status.
fn definition(crd: &impl Serialize, conditions: &[&str]) -> Value {
    let mut definition = serde_json::to_value(crd).expect("a CRD is maps, lists and plain values");
    let schema = schema_of(&mut definition);
    structural(schema);
    schema["properties"]["status"]["default"] = status::pending(conditions);
    schema["properties"]["status"]["description"] = json!("What the controller saw and made of the object.");
    schema["properties"]["spec"]["description"] = json!("What is wanted.");
    definition
}

/// The routes of a pipeline of the cluster name destinations of the cluster alone, and so does its status.
fn only_cluster_backends(mut definition: Value) -> Value {
    const KINDS: [&str; 2] = [
        "/properties/spec/properties/routes/items/properties/backendRefs/items/properties/kind",
        "/properties/status/properties/backends/items/properties/kind",
    ];
    for place in KINDS {
        let kind = schema_of(&mut definition).pointer_mut(place).expect("a pipeline has routes with references");
        kind["enum"] = json!(["ClusterBackend"]);
        kind["default"] = json!("ClusterBackend");
        kind["description"] = json!("Kind of the object referred to: `ClusterBackend`. Default: `ClusterBackend`.");
    }
    definition
}

fn schema_of(definition: &mut Value) -> &mut Value {
    definition.pointer_mut(SCHEMA).expect("a CRD has a version with a schema")
}

/// Rewrites a schema, and those inside it, into what Kubernetes accepts and people read.
fn structural(schema: &mut Value) {
    let Some(object) = schema.as_object_mut() else { return };
    // `null` is never a value of ours: absent fields are absent, and those with a default get it.
    object.remove("nullable");
    object.remove("title");
    if object.get("additionalProperties") == Some(&Value::Bool(false)) {
        object.remove("additionalProperties");
    }
    if let Some(Value::String(description)) = object.get_mut("description") {
        *description = reflowed(description);
    }
    say_default(object);
    for bound in ["minimum", "maximum"] {
        if let Some(number) = object.get_mut(bound) {
            whole(number);
        }
    }
    match object.get("type").and_then(Value::as_str) {
        Some("integer") => set_integer_format(object),
        Some("array") => set_list_type(object),
        _ => {}
    }
    for inner in ["items", "additionalProperties"] {
        if let Some(schema) = object.get_mut(inner) {
            structural(schema);
        }
    }
    for schema in object.get_mut("properties").and_then(Value::as_object_mut).into_iter().flat_map(Map::values_mut) {
        structural(schema);
    }
}

/// Adds the default to the description of a field that has one and does not say so.
fn say_default(object: &mut Map<String, Value>) {
    let said = match object.get("default") {
        Some(Value::String(text)) if !text.is_empty() => format!(" Default: `{text}`."),
        Some(default @ (Value::Bool(_) | Value::Number(_) | Value::Array(_))) => format!(" Default: `{default}`."),
        _ => return,
    };
    if let Some(Value::String(description)) = object.get_mut("description")
        && !description.contains("Default")
    {
        description.push_str(&said);
    }
}

/// Joins the lines of a paragraph.
fn reflowed(description: &str) -> String {
    let paragraphs =
        description.split("\n\n").map(|paragraph| paragraph.split_whitespace().collect::<Vec<_>>().join(" "));
    paragraphs.collect::<Vec<_>>().join("\n\n")
}

/// A bound of an integer is an integer; the Kubernetes types hold it as a float.
fn whole(number: &mut Value) {
    if let Some(float) = number.as_f64()
        && float.fract() == 0.0
        && float.abs() <= 9_007_199_254_740_992.0
    {
        *number = Value::from(float as i64);
    }
}

/// Kubernetes has no unsigned integers: the bounds say what is not negative.
fn set_integer_format(schema: &mut Map<String, Value>) {
    let narrow = schema.get("maximum").and_then(Value::as_i64).is_some_and(|max| max <= i64::from(i32::MAX));
    schema.insert("format".to_owned(), json!(if narrow { "int32" } else { "int64" }));
}

fn set_list_type(schema: &mut Map<String, Value>) {
    if schema.contains_key("x-kubernetes-list-type") {
        return;
    }
    let named = schema["items"]["required"].as_array().is_some_and(|required| required.contains(&json!("name")));
    if named {
        schema.insert("x-kubernetes-list-type".to_owned(), json!("map"));
        schema.insert("x-kubernetes-list-map-keys".to_owned(), json!(["name"]));
    } else {
        schema.insert("x-kubernetes-list-type".to_owned(), json!("atomic"));
    }
}

#[cfg(test)]
mod tests;
