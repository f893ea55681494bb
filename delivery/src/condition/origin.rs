//! The names below `origin`.

use super::{ConditionError, nearest};
use crate::event::OriginField;

/// Returns the field that `keys` name below `origin`; the error has no place yet.
pub(super) fn field(keys: &[String]) -> Result<OriginField, ConditionError> {
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    match keys[..] {
        [] => Err(ConditionError::new("`origin` alone is not a value: name a field of it, like `origin.pod`")),
        ["labels", key] => Ok(OriginField::Label(key.into())),
        ["annotations", key] => Ok(OriginField::Annotation(key.into())),
        ["labels" | "annotations"] => {
            Err(ConditionError::new(format!("`origin.{0}` needs a key, like `origin.{0}[\"app\"]`", keys[0])))
        }
        ["owner"] => Err(ConditionError::new("`origin.owner` needs `.kind` or `.name`")),
        _ => plain(&keys),
    }
}

fn plain(keys: &[&str]) -> Result<OriginField, ConditionError> {
    let name = keys.join(".");
    if let Some(field) = OriginField::by_name(&name) {
        return Ok(field);
    }
    let names = OriginField::NAMES.iter().map(|(name, _)| *name);
    let string = (1..keys.len()).map(|length| keys[..length].join(".")).find(|start| is_string(start));
    if let Some(start) = string {
        return Err(ConditionError::new(format!("`origin.{start}` is a string and has no fields")));
    }
    let suggestion = nearest(&name, names.chain(["labels", "annotations"])).map(|name| format!("origin.{name}"));
    Err(ConditionError::new(format!("unknown field `origin.{name}`")).suggest(suggestion))
}

fn is_string(start: &str) -> bool {
    OriginField::by_name(start).is_some() || start.starts_with("labels.") || start.starts_with("annotations.")
}

/// Returns the field as users write it.
pub(super) fn name(field: &OriginField) -> String {
    match field {
        OriginField::Label(key) => format!("origin.labels[{key:?}]"),
        OriginField::Annotation(key) => format!("origin.annotations[{key:?}]"),
        _ => {
            let known = OriginField::NAMES.iter().find(|(_, known)| known == field);
            format!("origin.{}", known.map_or("", |(name, _)| name))
        }
    }
}
