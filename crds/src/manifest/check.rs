//! A tree against a structural schema: every unknown field, wrong type, missing field, value out of bounds, duplicate
//! name and broken rule, each with its place. The schema is the CRD's own, so a bound is written once.
//!
//! What comes out is the same value as JSON with the schema's defaults filled in, as an API server would store it; where
//! something is wrong the value is of no use and must be left out.

use std::collections::HashMap;

use regex_automata::nfa::thompson::{self, pikevm::PikeVM};
use regex_automata::util::syntax;
use serde_json::{Map, Value as Json};

use super::error::{PROBLEMS_MAX, Position, Problem, listed, quoted, shortened};
use super::nearest::nearest;
use super::rules;
use super::scalar::Scalar;
use super::tree::{Node, Value};

/// Returns the node as JSON with defaults, and adds what is wrong to `problems`.
pub(crate) fn check(node: &Node, schema: &Json, field: &str, problems: &mut Vec<Problem>) -> Json {
    let mut checker = Checker { field: field.to_owned(), problems };
    checker.value(node, schema)
}

struct Checker<'a> {
    field: String,
    problems: &'a mut Vec<Problem>,
}

impl Checker<'_> {
    fn value(&mut self, node: &Node, schema: &Json) -> Json {
        if schema.get("x-kubernetes-preserve-unknown-fields") == Some(&Json::Bool(true)) {
            return Json::Null;
        }
        if node.is_null()
            && let Some(default) = schema.get("default")
        {
            return filled(default.clone(), schema);
        }
        match (schema["type"].as_str().unwrap_or_default(), &node.value) {
            ("object", Value::Map(_)) => self.object(node, schema),
            ("array", Value::List(items)) => self.list(node, items, schema),
            ("string", Value::Scalar { text, scalar: Scalar::Text }) => {
                self.text(node, text, schema);
                Json::String(text.clone())
            }
            ("boolean", Value::Scalar { scalar: Scalar::Bool(value), .. }) => Json::Bool(*value),
            ("integer", Value::Scalar { scalar: Scalar::Integer(value), .. }) => self.integer(node, *value, schema),
            ("integer", Value::Scalar { scalar: Scalar::Float(value), .. })
                if value.fract() == 0.0 && value.abs() < 9e15 =>
            {
                self.integer(node, *value as i64, schema)
            }
            (expected, _) => {
                let suggestion = quoting(node, expected, schema);
                let problem = self.problem(node.position, "wrong type").found(node.described());
                self.tell(problem.allowed(allowed(schema)).suggestion(suggestion));
                Json::Null
            }
        }
    }

    fn object(&mut self, node: &Node, schema: &Json) -> Json {
        let Value::Map(entries) = &node.value else { return Json::Null };
        let problems_before = self.problems.len();
        let no_properties = Map::new();
        let properties = schema["properties"].as_object().unwrap_or(&no_properties);
        let additional = schema.get("additionalProperties").filter(|schema| schema.is_object());
        let mut object = Map::new();
        for entry in entries {
            let Some(schema) = properties.get(&entry.key).or(additional) else {
                self.unknown(entry.position, &entry.key, properties);
                continue;
            };
            let value = self.inside(&format!(".{}", entry.key), |checker| checker.value(&entry.node, schema));
            object.insert(entry.key.clone(), value);
        }
        self.count(node, entries.len(), schema, ["minProperties", "maxProperties"]);
        self.missing(node, schema, properties, &object);
        let object = filled(Json::Object(object), schema);
        if self.problems.len() == problems_before {
            self.rules(node, schema, &object);
        }
        object
    }

    fn unknown(&mut self, at: Position, key: &str, properties: &Map<String, Json>) {
        if self.problems.len() >= PROBLEMS_MAX {
            return; // Looking for the nearest name takes its time.
        }
        let names = || properties.keys().map(String::as_str);
        let allowed = if properties.is_empty() { "no fields".to_owned() } else { listed(names()) };
        let field = format!("{}.{}", self.field, shortened(key));
        self.tell(
            Problem::new(at, &field, "unknown field")
                .found(quoted(key))
                .allowed(allowed)
                .suggestion(nearest(key, names())),
        );
    }

    fn missing(&mut self, node: &Node, schema: &Json, properties: &Map<String, Json>, object: &Map<String, Json>) {
        let required = schema["required"].as_array().map_or(&[][..], Vec::as_slice);
        for name in required.iter().filter_map(Json::as_str).filter(|name| !object.contains_key(*name)) {
            let field = format!("{}.{name}", self.field);
            let allowed = properties.get(name).map(allowed).unwrap_or_default();
            self.tell(Problem::new(node.position, &field, "missing field").allowed(allowed));
        }
    }

    fn list(&mut self, node: &Node, items: &[Node], schema: &Json) -> Json {
        self.count(node, items.len(), schema, ["minItems", "maxItems"]);
        let mut values = Vec::with_capacity(items.len().min(1024));
        for (index, item) in items.iter().enumerate() {
            values.push(self.inside(&format!("[{index}]"), |checker| checker.value(item, &schema["items"])));
        }
        self.duplicates(items, &values, schema);
        Json::Array(values)
    }

    /// Tells items of a `set`, or of a `map` by its keys, that are there twice.
    fn duplicates(&mut self, items: &[Node], values: &[Json], schema: &Json) {
        let keys: Vec<&str> = match schema["x-kubernetes-list-type"].as_str() {
            Some("map") => {
                schema["x-kubernetes-list-map-keys"].as_array().into_iter().flatten().filter_map(Json::as_str).collect()
            }
            Some("set") => Vec::new(),
            _ => return,
        };
        let mut first: HashMap<String, usize> = HashMap::new();
        for (index, (item, value)) in items.iter().zip(values).enumerate() {
            let parts: Vec<&Json> =
                if keys.is_empty() { vec![value] } else { keys.iter().map(|key| &value[*key]).collect() };
            if parts.iter().any(|part| part.is_null()) {
                continue; // Said already.
            }
            let identity = parts
                .iter()
                .map(|part| part.as_str().map_or_else(|| part.to_string(), str::to_owned))
                .collect::<Vec<_>>()
                .join(" ");
            if let Some(earlier) = first.get(&identity) {
                let at = keys.last().and_then(|key| item.get(key)).map_or(item.position, |node| node.position);
                let name = keys.last().map(|key| format!(".{key}")).unwrap_or_default();
                let field = format!("{}[{index}]{name}", self.field);
                let message = format!("duplicate of item [{earlier}] of the list");
                self.tell(Problem::new(at, &field, message).found(quoted(&identity)));
            } else {
                first.insert(identity, index);
            }
        }
    }

    fn text(&mut self, node: &Node, text: &str, schema: &Json) {
        if let Some(values) = schema["enum"].as_array() {
            let names = || values.iter().filter_map(Json::as_str);
            if !names().any(|name| name == text) {
                let problem = self.problem(node.position, "unknown value").found(quoted(text));
                self.tell(problem.allowed(listed(names())).suggestion(nearest(text, names())));
            }
            return;
        }
        let chars = text.chars().count() as u64;
        let within = schema["minLength"].as_u64().is_none_or(|min| chars >= min)
            && schema["maxLength"].as_u64().is_none_or(|max| chars <= max);
        if !within {
            let problem = self.problem(node.position, "wrong length");
            self.tell(problem.found(format!("{chars} characters")).allowed(allowed(schema)));
        } else if schema["pattern"].as_str().is_some_and(|pattern| !matches(pattern, text)) {
            let problem = self.problem(node.position, "not of the form that is needed");
            self.tell(problem.found(quoted(text)).allowed(allowed(schema)));
        }
    }

    fn integer(&mut self, node: &Node, value: i64, schema: &Json) -> Json {
        let within = schema["minimum"].as_i64().is_none_or(|min| value >= min)
            && schema["maximum"].as_i64().is_none_or(|max| value <= max);
        if !within {
            let problem = self.problem(node.position, "out of bounds").found(value.to_string());
            self.tell(problem.allowed(allowed(schema)));
        }
        value.into()
    }

    fn count(&mut self, node: &Node, count: usize, schema: &Json, [min, max]: [&str; 2]) {
        let count = count as u64;
        if schema[min].as_u64().is_some_and(|min| count < min) || schema[max].as_u64().is_some_and(|max| count > max) {
            let problem = self.problem(node.position, "out of bounds").found(count.to_string());
            self.tell(problem.allowed(allowed(schema)));
        }
    }

    fn rules(&mut self, node: &Node, schema: &Json, object: &Json) {
        let texts = schema["x-kubernetes-validations"].as_array().into_iter().flatten();
        for check in texts.filter_map(|rule| rules::find(rule["rule"].as_str()?)) {
            if check.holds(object) {
                continue;
            }
            let name = check.field();
            let at = node.entry(name).map_or(node.position, |entry| entry.position);
            let field = if name.is_empty() { self.field.clone() } else { format!("{}.{name}", self.field) };
            let kind = object.get("type").or_else(|| object.get("operator")).and_then(Json::as_str);
            let mut problem = Problem::new(at, &field, check.message());
            problem.found = kind.map(|kind| format!("'{kind}'").into());
            self.tell(problem);
        }
    }

    fn tell(&mut self, problem: Problem) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(problem);
        }
    }

    fn problem(&self, at: Position, message: &str) -> Problem {
        Problem::new(at, &self.field, message)
    }

    fn inside<T>(&mut self, part: &str, inner: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.field.len();
        self.field.push_str(part);
        let out = inner(self);
        self.field.truncate(length);
        out
    }
}

/// Fills in the defaults of absent fields, at every depth below what a default brings.
fn filled(value: Json, schema: &Json) -> Json {
    let Json::Object(mut object) = value else { return value };
    for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
        if let Some(default) = schema.get("default")
            && !object.contains_key(name)
        {
            object.insert(name.clone(), filled(default.clone(), schema));
        }
    }
    Json::Object(object)
}

/// Returns what the schema allows, in words.
fn allowed(schema: &Json) -> String {
    let range = |min: &str, max: &str| match (schema[min].as_i64().filter(|min| *min != 0), schema[max].as_i64()) {
        (Some(min), Some(max)) => format!(" of {min} to {max}"),
        (None, Some(max)) => format!(" of at most {max}"),
        (Some(min), None) => format!(" of at least {min}"),
        (None, None) => String::new(),
    };
    match schema["type"].as_str().unwrap_or_default() {
        "string" => {
            if let Some(values) = schema["enum"].as_array() {
                return listed(values.iter().filter_map(Json::as_str));
            }
            let form = schema["pattern"].as_str().map(|pattern| format!(" matching {pattern}")).unwrap_or_default();
            match range("minLength", "maxLength").as_str() {
                "" => format!("text{form}"),
                range => format!("text{range} characters{form}"),
            }
        }
        "integer" => match (schema["minimum"].as_i64(), schema["maximum"].as_i64()) {
            (Some(min), Some(max)) => format!("an integer from {min} to {max}"),
            _ => "an integer".to_owned(),
        },
        "boolean" => "`true` or `false`".to_owned(),
        "array" => format!("a list{} items", range("minItems", "maxItems")),
        "object" => match schema["properties"].as_object().filter(|properties| !properties.is_empty()) {
            Some(properties) => {
                let word = if schema["maxProperties"] == 1 { "exactly one of" } else { "an object with" };
                format!("{word} {}", listed(properties.keys().map(String::as_str)))
            }
            None => format!("an object{}", range("minProperties", "maxProperties")),
        },
        _ => String::new(),
    }
}

/// Returns how the value would have the expected type: in quotes, in brackets, or as an empty object.
fn quoting(node: &Node, expected: &str, schema: &Json) -> Option<String> {
    match (&node.value, expected) {
        (Value::Scalar { scalar: Scalar::Null, .. }, "object") => Some("{}".to_owned()),
        (Value::Scalar { scalar: Scalar::Null, .. }, _) => None,
        (Value::Scalar { text, .. }, "string") => match schema["enum"].as_array() {
            Some(values) => nearest(text, values.iter().filter_map(Json::as_str)).map(str::to_owned),
            None => Some(quoted(text)),
        },
        (Value::Scalar { text, scalar: Scalar::Text }, "integer" | "boolean") => {
            let fits = match super::scalar::plain(text) {
                Scalar::Integer(_) => expected == "integer",
                Scalar::Bool(_) => expected == "boolean",
                _ => false,
            };
            fits.then(|| text.clone())
        }
        (Value::Scalar { text, scalar: Scalar::Text }, "array") if schema["items"]["type"] == "string" => {
            Some(format!("[{}]", shortened(text)))
        }
        (Value::Map(_), "array") => Some("- ".to_owned()),
        _ => None,
    }
}

/// Returns whether the pattern is found in the text, as Kubernetes looks for it (RE2, unanchored, ASCII classes).
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    regex(pattern).is_some_and(|regex| regex.is_match(&mut regex.create_cache(), text))
}

/// Returns the compiled pattern, `None` if it is none; a test proves that every pattern of the CRDs is one.
pub(crate) fn regex(pattern: &str) -> Option<PikeVM> {
    PikeVM::builder()
        .syntax(syntax::Config::new().unicode(false).utf8(false))
        .thompson(thompson::Config::new().utf8(false))
        .build(pattern)
        .ok()
}

#[cfg(test)]
mod tests;
