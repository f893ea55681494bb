//! What the settings of all backends share.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The common face of every backend's settings.
pub trait Settings: fmt::Debug + Send + Sync {
    /// Returns the name users write as `type`.
    fn type_name(&self) -> &'static str;

    /// Returns the name of the member that holds the settings.
    fn member_name(&self) -> &'static str;

    /// Returns what is wrong beyond what the schema can say.
    fn validate(&self) -> Vec<Problem>;

    /// Makes the backend. No connection is opened and no file touched yet.
    #[cfg(feature = "client")]
    fn build(
        &self,
        context: crate::BuildContext,
    ) -> Result<std::sync::Arc<dyn spillway_delivery::backend::Backend>, crate::BuildError>;
}

/// Returns the secret keys that settings name: whatever stands in a member whose name ends in `SecretRef`.
pub(crate) fn secrets_in(settings: &impl Serialize) -> Vec<SecretKeyRef> {
    fn walk(value: &serde_json::Value, found: &mut Vec<SecretKeyRef>) {
        match value {
            serde_json::Value::Object(members) => {
                for (name, member) in members {
                    if is_secret_member(name) {
                        found.extend(SecretKeyRef::deserialize(member));
                    } else {
                        walk(member, found);
                    }
                }
            }
            serde_json::Value::Array(list) => list.iter().for_each(|member| walk(member, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    walk(&serde_json::to_value(settings).unwrap_or_default(), &mut found);
    found
}

/// Returns whether a member of that name names a key of a Secret.
pub fn is_secret_member(name: &str) -> bool {
    name == "secretRef" || name.ends_with("SecretRef")
}

/// One thing that is wrong in the settings of a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The field, relative to the settings (`headers[1].name`).
    pub path: String,
    /// What is wrong, with what was found.
    pub message: String,
    /// What is allowed.
    pub allowed: String,
}

impl Problem {
    /// Returns the problem.
    pub fn new(path: impl Into<String>, message: impl Into<String>, allowed: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into(), allowed: allowed.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; allowed: {}", self.path, self.message, self.allowed)
    }
}

/// One key of a Secret of the backend's namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretKeyRef {
    /// Name of the Secret; outside Kubernetes a folder below the agent's secrets directory.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$"))]
    pub name: String,
    /// Key within the Secret; outside Kubernetes a file in that folder.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[A-Za-z0-9_-][A-Za-z0-9._-]*$"))]
    pub key: String,
}

impl SecretKeyRef {
    /// Returns whether name and key are such that they can be one path component each.
    pub fn is_well_formed(&self) -> bool {
        let name_byte = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let (name, key) = (self.name.as_bytes(), self.key.as_bytes());
        let name_ok = (1..=253).contains(&name.len())
            && name.iter().all(|&b| name_byte(b) || b == b'.' || b == b'-')
            && name.first().copied().is_some_and(name_byte)
            && name.last().copied().is_some_and(name_byte);
        name_ok
            && (1..=253).contains(&key.len())
            && key.iter().all(|&b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
            && key.first() != Some(&b'.')
    }

    /// Adds a problem to `problems` when the reference cannot be looked up.
    pub(crate) fn check(&self, path: &str, problems: &mut Vec<Problem>) {
        if !self.is_well_formed() {
            problems.push(Problem::new(
                path,
                "is not the name and key of a secret",
                "name: lower-case letters, digits, '.', '-'; key: letters, digits, '.', '-', '_', not beginning with '.'",
            ));
        }
    }
}

/// How what is written is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum Compression {
    /// As it is.
    #[default]
    None,
    /// As gzip.
    Gzip,
    /// As zstd.
    Zstd,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every place of a schema that holds a reference to a secret.
    fn references(schema: &serde_json::Value, name: &str, found: &mut Vec<String>) {
        match schema {
            serde_json::Value::Object(members) => {
                let is_one = |value: &serde_json::Value| value == "#/$defs/SecretKeyRef";
                if members.get("$ref").is_some_and(is_one) {
                    found.push(name.to_owned());
                }
                for (member, below) in members {
                    let name = if matches!(&**member, "anyOf" | "items") { name } else { member };
                    references(below, name, found);
                }
            }
            serde_json::Value::Array(list) => list.iter().for_each(|below| references(below, name, found)),
            _ => {}
        }
    }

    macro_rules! schemas {
        ($(#[doc = $what:literal] $module:ident: $variant:ident($settings:ident) as $type:literal in $member:literal, $need:ident;)*) => {
            [$(schemars::schema_for!(crate::$settings).to_value()),*]
        };
    }

    #[test]
    fn every_reference_to_a_secret_is_known_by_its_name() {
        let mut found = Vec::new();
        for schema in crate::backend_list!(schemas) {
            references(&schema, "", &mut found);
        }
        assert!(found.len() >= 10, "{found:?}");
        assert_eq!(found.iter().find(|name| !is_secret_member(name)), None);
    }

    #[test]
    fn a_secret_reference_is_one_component_each() {
        for (name, key, fine) in [
            ("api", "token", true),
            ("a.b-c", "ca.crt", true),
            ("..", "token", false),
            ("a/b", "token", false),
            ("", "token", false),
            ("api", "..data", false),
            ("api", "a/b", false),
            ("Api", "token", false),
            ("api", "a\0", false),
        ] {
            let reference = SecretKeyRef { name: name.into(), key: key.into() };
            assert_eq!(reference.is_well_formed(), fine, "{name}/{key}");
        }
    }
}
