//! A file of tests, read and checked like a manifest.

use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use serde_json::{Value as Json, json};
use spillway_delivery::event::{EVENT_BYTES_MAX, Origin};
use spillway_delivery::json::{normalize_into, validate_object};
use spillway_delivery::transform::FieldPath;

use super::expect::Expected;
use super::{Test, TestFile};
use crate::manifest::check::check;
use crate::manifest::error::{Position, Problem};
use crate::manifest::scalar::Scalar;
use crate::manifest::tree::{self, Node, Value};
use crate::manifest::{Document, ManifestError};

/// An event, where it comes from, and what is expected of it.
#[derive(Debug)]
pub(super) struct Given {
    pub(super) event: Vec<u8>,
    pub(super) origin: Arc<Origin>,
    /// How long it comes after the one before.
    pub(super) after: Duration,
    pub(super) expected: Expected,
}

/// What a file may hold.
static SCHEMA: LazyLock<Json> = LazyLock::new(|| {
    let text = || json!({"type": "string", "minLength": 1, "maxLength": 1024});
    let texts = || json!({"type": "array", "maxItems": 128, "items": text()});
    let some = || json!({"type": "array", "minItems": 1, "maxItems": 128, "items": text()});
    let anything = || json!({"x-kubernetes-preserve-unknown-fields": true});
    let map = || json!({"type": "object", "additionalProperties": {"type": "string", "maxLength": 4096}});
    let owner = json!({"type": "object", "properties": {"kind": text(), "name": text()}});
    let mut origin = json!({"type": "object", "properties": {"labels": map(), "annotations": map(), "owner": owner}});
    for field in
        ["namespace", "pod", "podUID", "container", "node", "app", "appVersion", "siteID", "instanceID", "source"]
    {
        origin["properties"][field] = text();
    }
    let expect = json!({"type": "object", "minProperties": 1, "properties": {
        "dropped": {"type": "boolean"}, "routes": texts(), "event": anything(),
        "fields": {"type": "object", "minProperties": 1, "additionalProperties": anything()}, "absent": some(),
    }});
    let event = json!({"type": "object", "required": ["expect"], "properties": {
        "event": anything(), "json": {"type": "string", "minLength": 2}, "origin": origin, "expect": expect,
        "afterSeconds": {"type": "integer", "minimum": 0, "maximum": 86_400},
    }});
    let test = json!({"type": "object", "required": ["name", "pipeline", "events"], "properties": {
        "name": text(), "pipeline": text(), "origin": origin,
        "events": {"type": "array", "minItems": 1, "maxItems": 1000, "items": event},
    }});
    json!({"type": "object", "required": ["tests"], "properties": {
        "manifests": texts(), "tests": {"type": "array", "minItems": 1, "maxItems": 1000, "items": test},
    }})
});

/// Reads a file of tests; what is wrong in it, all of it, otherwise.
pub fn read(document: &Document) -> Result<TestFile, Vec<ManifestError>> {
    let mut problems = Vec::new();
    let mut roots = Vec::new();
    for read in tree::read(&document.text) {
        problems.extend(read.problems);
        roots.extend(read.root);
    }
    let file = match &roots[..] {
        [root] => whole(document, root, &mut problems),
        [] if problems.is_empty() => {
            problems.push(Problem::new(Position::START, "", "a file of tests holds `tests`").found("nothing"));
            None
        }
        [] => None,
        [_, second, ..] => {
            problems.push(Problem::new(second.position, "", "a file of tests is one document"));
            None
        }
    };
    match file {
        Some(file) if problems.is_empty() => Ok(file),
        _ => Err(problems.into_iter().map(|problem| problem.of(&document.file, "")).collect()),
    }
}

fn whole(document: &Document, root: &Node, problems: &mut Vec<Problem>) -> Option<TestFile> {
    let before = problems.len();
    let value = check(root, &SCHEMA, "", problems);
    if problems.len() > before {
        return None;
    }
    let manifests = root.get("manifests").map(Node::items).unwrap_or_default();
    let manifests = manifests.iter().filter_map(Node::text).map(PathBuf::from).collect();
    let nodes = root.get("tests").map(Node::items).unwrap_or_default();
    let values = value["tests"].as_array().into_iter().flatten();
    let tests = nodes.iter().zip(values).enumerate().map(|(index, (node, value))| {
        let field = format!("tests[{index}]");
        test(&field, node, value, problems)
    });
    let tests = tests.collect();
    Some(TestFile { file: document.file.clone(), manifests, tests })
}

fn test(field: &str, node: &Node, value: &Json, problems: &mut Vec<Problem>) -> Test {
    let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
    let events = node.get("events").map(Node::items).unwrap_or_default();
    let given = events.iter().zip(value["events"].as_array().into_iter().flatten()).enumerate();
    let given = given.filter_map(|(number, (event, value_of))| {
        let field = format!("{field}.events[{number}]");
        // That of an event stands in for that of its test.
        let origin = origin(value_of.get("origin").or_else(|| value.get("origin")));
        let after = Duration::from_secs(value_of["afterSeconds"].as_u64().unwrap_or(0));
        let event_bytes = bytes(&field, event, problems)?;
        Some(Given { event: event_bytes, origin, after, expected: expected(&field, event, problems) })
    });
    Test {
        given: given.collect(),
        name: text("name"),
        position: node.position,
        pipeline: text("pipeline"),
        pipeline_position: node.at("pipeline"),
    }
}

/// Returns an origin, written as conditions name its fields.
fn origin(value: Option<&Json>) -> Arc<Origin> {
    let mut value = value.cloned().unwrap_or_else(|| json!({}));
    for (member, stored) in [("kind", "ownerKind"), ("name", "ownerName")] {
        if let Some(text) = value["owner"].get(member).cloned() {
            value[stored] = text;
        }
    }
    Origin::from_json(value.to_string().as_bytes()).unwrap_or_default()
}

/// Returns the event as a source would hand it over.
fn bytes(field: &str, node: &Node, problems: &mut Vec<Problem>) -> Option<Vec<u8>> {
    let (place, text) = match (node.get("event"), node.get("json")) {
        (Some(event), None) => (event, json_of(event)),
        (None, Some(text)) => (text, text.text().unwrap_or_default().to_owned()),
        _ => {
            let problem = Problem::new(node.position, field, "must have one of `event` and `json`");
            problems.push(problem.allowed("`event`, an object, or `json`, a text that is one"));
            return None;
        }
    };
    let refused = match validate_object(text.as_bytes()) {
        Ok(_) if text.len() > EVENT_BYTES_MAX => format!("an event has at most {EVENT_BYTES_MAX} bytes"),
        Ok(info) => {
            let mut event = Vec::with_capacity(text.len());
            normalize_into(&text.as_bytes()[info.start..info.end], &mut event);
            return Some(event);
        }
        Err(error) => format!("not an event: {error}"),
    };
    problems.push(Problem::new(place.position, field, refused).found(place.described()).allowed("a JSON object"));
    None
}

fn expected(field: &str, node: &Node, problems: &mut Vec<Problem>) -> Expected {
    let Some(node) = node.get("expect") else { return Expected::default() };
    let dropped = node.get("dropped").and_then(|node| match node.value {
        Value::Scalar { scalar: Scalar::Bool(dropped), .. } => Some(dropped),
        _ => None,
    });
    let others = ["routes", "event", "fields", "absent"].into_iter().find_map(|name| node.entry(name));
    if let (Some(true), Some(other)) = (dropped, others) {
        let message = "an event that is dropped has no routes and no fields";
        problems.push(Problem::new(other.position, &format!("{field}.expect.{}", other.key), message));
    }
    for (name, value) in ["event", "fields"].into_iter().filter_map(|name| Some((name, node.get(name)?))) {
        if let Err(error) = serde_json::from_str::<Json>(&json_of(value)) {
            let problem = Problem::new(value.position, &format!("{field}.expect.{name}"), format!("no JSON: {error}"));
            problems.push(problem.allowed("numbers that are finite"));
        }
    }
    let list = |name: &str| node.get(name).map(Node::items);
    let mut path = |text: &str, position: Position, name: &str| match FieldPath::parse(text) {
        Ok(path) => Some(path),
        Err(error) => {
            problems.push(Problem::new(position, &format!("{field}.expect.{name}"), error.to_string()));
            None
        }
    };
    let fields = node.get("fields").map(Node::entries).unwrap_or_default();
    let fields =
        fields.iter().filter_map(|entry| Some((path(&entry.key, entry.position, "fields")?, value_of(&entry.node))));
    let fields = fields.collect();
    let absent = list("absent").unwrap_or_default().iter();
    let absent = absent.filter_map(|item| path(item.text()?, item.position, "absent")).collect();
    let routes = list("routes")
        .map(|items| items.iter().filter_map(|item| Some((item.text()?.to_owned(), item.position))).collect());
    Expected { dropped, routes, event: node.get("event").map(value_of), fields, absent }
}

fn value_of(node: &Node) -> Json {
    serde_json::from_str(&json_of(node)).unwrap_or_default()
}

/// Returns a value as JSON; a number keeps its digits.
fn json_of(node: &Node) -> String {
    match &node.value {
        Value::Map(entries) => {
            let members = entries.iter().map(|entry| format!("{}:{}", Json::from(&*entry.key), json_of(&entry.node)));
            format!("{{{}}}", members.collect::<Vec<_>>().join(","))
        }
        Value::List(items) => format!("[{}]", items.iter().map(json_of).collect::<Vec<_>>().join(",")),
        Value::Scalar { scalar: Scalar::Null, .. } => "null".into(),
        Value::Scalar { scalar: Scalar::Bool(value), .. } => value.to_string(),
        Value::Scalar { scalar: Scalar::Integer(value), .. } => value.to_string(),
        Value::Scalar { text, scalar: Scalar::Float(value) } => {
            let is_number = serde_json::from_str::<serde_json::Number>(text).is_ok();
            // What is not finite stays what it is, which is no JSON: it is refused, and becomes nothing else.
            if is_number || !value.is_finite() { text.clone() } else { Json::from(*value).to_string() }
        }
        Value::Scalar { text, scalar: Scalar::Text } => Json::from(&**text).to_string(),
    }
}
