//! JSON Patch (RFC 6902) as far as it is needed: `add`.
//!
//! # Guarantees
//! The same operations have the same bytes.

use serde::Serialize;
use serde_json::Value;

/// Adds a value at a path: a member of an object, or an entry of an array.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Add {
    op: &'static str,
    path: String,
    value: Value,
}

impl Add {
    pub(super) fn new(path: &str, value: Value) -> Self {
        Self { op: "add", path: path.to_owned(), value }
    }

    /// Returns the path.
    pub fn path(&self) -> &str {
        &self.path
    }
}

/// Returns `key` as a part of a path.
pub(super) fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

/// Applies operations to a document. Returns `None`, and leaves the document half changed, where a path leads nowhere.
pub fn apply(document: &mut Value, patch: &[Add]) -> Option<()> {
    patch.iter().try_for_each(|Add { path, value, .. }| {
        let (parent, last) = path.rsplit_once('/')?;
        match document.pointer_mut(parent)? {
            Value::Object(members) => {
                members.insert(last.replace("~1", "/").replace("~0", "~"), value.clone());
            }
            Value::Array(entries) if last == "-" => entries.push(value.clone()),
            Value::Array(entries) => {
                let place = last.parse().ok().filter(|place| *place <= entries.len())?;
                entries.insert(place, value.clone());
            }
            _ => return None,
        }
        Some(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn members_and_entries_are_added_where_the_path_says() {
        let mut document = json!({"a": {"x/y~z": 1}, "b": [1, 2]});
        let patch = [
            Add::new(&format!("/a/{}", escaped("p/q~r")), json!("new")),
            Add::new("/a/x~1y~0z", json!(2)),
            Add::new("/b/0", json!(0)),
            Add::new("/b/-", json!(3)),
            Add::new("/c", json!([])),
        ];
        apply(&mut document, &patch).unwrap();
        assert_eq!(document, json!({"a": {"x/y~z": 2, "p/q~r": "new"}, "b": [0, 1, 2, 3], "c": []}));
        for path in ["/none/x", "/b/9", "/b/x", "/a/p~1q~0r/x"] {
            assert_eq!(apply(&mut document, &[Add::new(path, json!(1))]), None, "{path}");
        }
    }
}
