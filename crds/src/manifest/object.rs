//! A document as an object: whose it is, of which kind, under which name, and its `spec` with defaults.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use serde_json::{Value as Json, json};

use super::check::{check, matches};
use super::error::{Position, Problem, listed, quoted, shortened};
use super::nearest::nearest;
use super::tree::Node;
use crate::crd;
use crate::kinds::selector::VALUE_PATTERN;
use crate::kinds::{CLUSTER, GROUP, LABEL_PATTERN, NAME_PATTERN, VERSION};

/// The namespace of an object that names none, as in a standalone run and as `kubectl` is set by default.
pub(crate) const NAMESPACE_DEFAULT: &str = "default";

/// Longest name of any object of Kubernetes.
const NAME_BYTES_MAX: usize = 253;

/// Longest name of a namespace.
const NAMESPACE_BYTES_MAX: usize = 63;

/// The schema of each kind with what an API server adds to it: names of the object and its type.
static SCHEMAS: LazyLock<BTreeMap<&'static str, Json>> =
    LazyLock::new(|| crd::kind_names().filter_map(|kind| Some((kind, whole(crd::schema(kind)?)))).collect());

/// As much of the schema of a namespace as is looked at.
static NAMESPACE: LazyLock<Json> = LazyLock::new(|| {
    let mut schema = whole(&json!({"type": "object"}));
    schema["required"] = json!(["metadata"]);
    schema["properties"]["spec"] = json!({"x-kubernetes-preserve-unknown-fields": true});
    schema["properties"]["metadata"]["properties"]["name"] =
        json!({"type": "string", "minLength": 1, "maxLength": 63, "pattern": LABEL_PATTERN});
    schema
});

/// One object of a kind of ours.
#[derive(Debug)]
pub(crate) struct Object {
    pub(crate) file: Arc<str>,
    pub(crate) kind: &'static str,
    /// Its namespace; [`CLUSTER`] where the kind has none.
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// The tree it was read from, for places.
    pub(crate) root: Node,
    /// Its `spec` with defaults; `None` when something is wrong in the object.
    pub(crate) spec: Option<Json>,
}

impl Object {
    /// Returns it as errors name it.
    pub(crate) fn label(&self) -> String {
        labelled(self.kind, &self.namespace, &self.name)
    }

    /// Returns its namespace and name.
    pub(crate) fn key(&self) -> (String, String) {
        (self.namespace.clone(), self.name.clone())
    }

    /// Returns what names it for good: `<namespace>.<name>`.
    pub(crate) fn uid(&self) -> Arc<str> {
        format!("{}.{}", self.namespace, self.name).into()
    }

    /// Returns where its name is written.
    pub(crate) fn position(&self) -> Position {
        self.root.at("metadata.name")
    }
}

/// What a document is.
#[derive(Debug)]
pub(crate) enum Class {
    /// An object of ours, of this kind.
    Ours(&'static str),
    /// A list of objects.
    List,
    /// A namespace, whose labels are of use.
    Namespace,
    /// An object of somebody else's, named `apiVersion kind`.
    Foreign(String),
}

/// Returns what a document is, or why it is nothing.
pub(crate) fn classify(root: &Node) -> Result<Class, Vec<Problem>> {
    if !root.is_map() {
        let problem = Problem::new(root.position, "", "a manifest must be an object").found(root.described());
        return Err(vec![problem.allowed("an object with `apiVersion`, `kind`, `metadata` and `spec`")]);
    }
    let mut problems = Vec::new();
    let version = type_field(root, "apiVersion", &mut problems);
    let kind = type_field(root, "kind", &mut problems);
    let (Some(version), Some(kind)) = (version, kind) else { return Err(problems) };
    if (version, kind) == ("v1", "List") {
        return Ok(Class::List);
    }
    if (version, kind) == ("v1", "Namespace") {
        return Ok(Class::Namespace);
    }
    let ours = format!("{GROUP}/{VERSION}");
    let group = version.split('/').next().unwrap_or_default();
    if version == ours {
        return match crd::kind_names().find(|name| *name == kind) {
            Some(kind) => Ok(Class::Ours(kind)),
            None => Err(vec![unknown(root, "kind", kind, &crd::kind_names().collect::<Vec<_>>())]),
        };
    }
    // A slip in the group or the version must not pass for somebody else's object.
    let slip = nearest(group, [GROUP]).is_some() && crd::kind_names().any(|name| name.eq_ignore_ascii_case(kind));
    if group == GROUP || slip {
        return Err(vec![unknown(root, "apiVersion", version, &[&ours]).suggestion(Some(ours))]);
    }
    Ok(Class::Foreign(quoted(&format!("{version} {kind}"))))
}

fn type_field<'a>(root: &'a Node, name: &str, problems: &mut Vec<Problem>) -> Option<&'a str> {
    let Some(node) = root.get(name) else {
        let names = root.keys();
        let mut problem = Problem::new(root.position, name, "missing field");
        if let Some(slip) = nearest(name, names) {
            problem = problem.found(quoted(slip)).suggestion(Some(name));
        }
        problems.push(problem);
        return None;
    };
    let text = node.text();
    if text.is_none() {
        problems.push(Problem::new(node.position, name, "wrong type").found(node.described()).allowed("text"));
    }
    text
}

fn unknown(root: &Node, field: &str, found: &str, names: &[&str]) -> Problem {
    Problem::new(root.at(field), field, format!("unknown {field}"))
        .found(quoted(found))
        .allowed(listed(names.iter().copied()))
        .suggestion(nearest(found, names.iter().copied()))
}

/// Returns the object and adds what is wrong in it; `None` when it has no usable name.
pub(crate) fn read(file: &Arc<str>, kind: &'static str, root: Node, problems: &mut Vec<Problem>) -> Option<Object> {
    let before = problems.len();
    let mut value = SCHEMAS.get(kind).map(|schema| check(&root, schema, "", problems)).unwrap_or_default();
    if crd::is_of_the_cluster(kind)
        && let Some(namespace) = root.get("metadata").and_then(|metadata| metadata.entry("namespace"))
    {
        let message = format!("a {kind} belongs to the cluster and has no namespace");
        problems
            .push(Problem::new(namespace.position, "metadata.namespace", message).found(namespace.node.described()));
    }
    check_keys(&root, problems);
    let spec = (problems.len() == before).then(|| value["spec"].take());
    let (namespace, name) = identity(kind, &root)?;
    Some(Object { file: Arc::clone(file), kind, namespace, name, root, spec })
}

/// Adds the keys of labels and annotations that no API server takes.
fn check_keys(root: &Node, problems: &mut Vec<Problem>) {
    for map in ["labels", "annotations"] {
        let entries = root.get("metadata").and_then(|metadata| metadata.get(map)).into_iter().flat_map(Node::entries);
        for entry in entries.filter(|entry| !is_key(&entry.key)) {
            let field = format!("metadata.{map}.{}", shortened(&entry.key));
            let problem = Problem::new(entry.position, &field, "not of the form that is needed");
            let allowed =
                "a name of at most 63 letters, digits, `-`, `_` and `.`, or a domain name, `/` and such a name";
            problems.push(problem.found(quoted(&entry.key)).allowed(allowed));
        }
    }
}

fn is_key(key: &str) -> bool {
    let (prefix, name) = key.split_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    prefix.is_none_or(|prefix| prefix.len() <= NAME_BYTES_MAX && matches(NAME_PATTERN, prefix))
        && name.len() <= 63
        && !name.is_empty()
        && matches(VALUE_PATTERN, name)
}

/// Returns the name and the labels of a namespace and adds what is wrong in it.
pub(crate) fn read_namespace(root: &Node, problems: &mut Vec<Problem>) -> Option<(String, BTreeMap<String, String>)> {
    let before = problems.len();
    let value = check(root, &NAMESPACE, "", problems);
    check_keys(root, problems);
    let labels = value["metadata"]["labels"].as_object().into_iter().flatten();
    let labels = labels.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect();
    let name = value["metadata"]["name"].as_str().filter(|_| problems.len() == before);
    name.map(|name| (name.to_owned(), labels))
}

/// Returns the object's name as errors show it, as far as it has one.
pub(crate) fn label(kind: &str, root: &Node) -> String {
    match identity(kind, root) {
        Some((namespace, name)) => labelled(kind, &namespace, &name),
        None => kind.to_owned(),
    }
}

/// Returns an object of a kind of ours as errors name it.
pub(crate) fn labelled(kind: &str, namespace: &str, name: &str) -> String {
    // A name that is too long for any object is told with its error, not with every error.
    let name = if name.len() <= NAME_BYTES_MAX { name.to_owned() } else { shortened(name) };
    match namespace {
        CLUSTER => format!("{kind} {name}"),
        _ if namespace.len() <= NAMESPACE_BYTES_MAX => format!("{kind} {namespace}/{name}"),
        _ => format!("{kind} {}/{name}", shortened(namespace)),
    }
}

fn identity(kind: &str, root: &Node) -> Option<(String, String)> {
    let metadata = root.get("metadata")?;
    let namespace = match metadata.get("namespace").and_then(Node::text) {
        _ if crd::is_of_the_cluster(kind) => CLUSTER,
        Some(CLUSTER) => "",
        Some(namespace) => namespace,
        None => NAMESPACE_DEFAULT,
    };
    Some((namespace.to_owned(), metadata.get("name")?.text()?.to_owned()))
}

/// Adds to a CRD's schema what every object has.
fn whole(schema: &Json) -> Json {
    let text = || json!({"type": "string"});
    let anything = || json!({"x-kubernetes-preserve-unknown-fields": true});
    let texts = || json!({"type": "object", "additionalProperties": {"type": "string"}});
    let value = json!({"type": "string", "maxLength": 63, "pattern": VALUE_PATTERN});
    let labels = json!({"type": "object", "additionalProperties": value});
    let name =
        |max: usize, pattern: &str| json!({"type": "string", "minLength": 1, "maxLength": max, "pattern": pattern});
    let mut properties = json!({
        "name": name(NAME_BYTES_MAX, NAME_PATTERN), "namespace": name(63, LABEL_PATTERN),
        "labels": labels, "annotations": texts(),
    });
    for kept_by_the_server in [
        "uid",
        "resourceVersion",
        "generation",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "ownerReferences",
        "finalizers",
        "managedFields",
        "selfLink",
    ] {
        properties[kept_by_the_server] = anything();
    }
    let mut whole = schema.clone();
    whole["required"] = json!(["apiVersion", "kind", "metadata", "spec"]);
    whole["properties"]["apiVersion"] = text();
    whole["properties"]["kind"] = text();
    whole["properties"]["metadata"] = json!({"type": "object", "required": ["name"], "properties": properties});
    whole["properties"]["status"] = anything();
    whole
}
