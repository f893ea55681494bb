//! What is wrong in a manifest, where exactly, and what would be right.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use serde::Serialize;

/// Most errors told of one file; one more says that there are others.
pub const ERRORS_MAX: usize = 200;

/// Most errors looked for in one file: a file of nothing but errors must not cost many times its size.
pub(crate) const PROBLEMS_MAX: usize = 5 * ERRORS_MAX;

/// Most characters of a user's text that an error repeats.
const QUOTED_CHARS_MAX: usize = 60;

/// A place in a file; both count from 1, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The character in the line.
    pub column: usize,
}

impl Position {
    /// The first character of a file.
    pub const START: Self = Self { line: 1, column: 1 };
}

/// What kind of thing is wrong, for programs: whether the object itself is, or what it refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub enum Reason {
    /// The object is not what its kind allows.
    #[default]
    Invalid,
    /// It refers to something that is not there.
    RefNotFound,
    /// It refers to something that is there and has errors.
    RefInvalid,
    /// It refers to something that is not there or does not grant it; which of the two is not said.
    RefNotPermitted,
    /// The object is good in a cluster, and an agent without an operator refuses it.
    NotStandalone,
}

/// The kind of what an object refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Referred {
    /// A `Backend` of its namespace.
    Backend,
    /// A `ClusterBackend`.
    ClusterBackend,
    /// The labels of a `Namespace`.
    Namespace,
}

/// One error or warning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ManifestError {
    /// Name of the file.
    pub file: Arc<str>,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The object, as `Backend fab12/search`; empty where it is not known.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub object: String,
    /// Path of the field, as `spec.routes[1].backendRefs[0].name`; empty where it is the whole document.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub field: String,
    /// What kind of thing is wrong.
    pub reason: Reason,
    /// The kind of what is referred to and not found, not known or not good; `None` where that is not what is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refers_to: Option<Referred>,
    /// What is wrong, in a few words.
    pub message: String,
    /// What was found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub found: Option<String>,
    /// What is allowed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed: Option<String>,
    /// The nearest thing that would be right.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suggestion: Option<String>,
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: ", printable(&self.file), self.line, self.column)?;
        if !self.object.is_empty() {
            write!(f, "{}: ", printable(&self.object))?;
        }
        f.write_str(&self.words())
    }
}

impl ManifestError {
    /// Returns it without its place and its object, for where these are known: field, message, what was found and what is
    /// allowed.
    pub fn words(&self) -> String {
        let mut words = String::new();
        if !self.field.is_empty() {
            words.push_str(&printable(&self.field));
            words.push_str(": ");
        }
        words.push_str(&printable(&self.message));
        // Writing to a String cannot fail.
        if let Some(found) = &self.found {
            _ = write!(words, "; found {}", printable(found));
        }
        if let Some(allowed) = &self.allowed {
            _ = write!(words, "; allowed: {}", printable(allowed));
        }
        if let Some(suggestion) = &self.suggestion {
            _ = write!(words, "; help: did you mean `{}`?", printable(suggestion));
        }
        words
    }
}

/// An error before it is known whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) position: Position,
    pub(crate) field: String,
    pub(crate) reason: Reason,
    pub(crate) refers_to: Option<Referred>,
    pub(crate) message: String,
    pub(crate) found: Option<Box<str>>,
    pub(crate) allowed: Option<Box<str>>,
    pub(crate) suggestion: Option<Box<str>>,
}

impl Problem {
    pub(crate) fn new(position: Position, field: &str, message: impl Into<String>) -> Self {
        Self {
            position,
            field: field.trim_start_matches('.').to_owned(),
            reason: Reason::Invalid,
            refers_to: None,
            message: message.into(),
            found: None,
            allowed: None,
            suggestion: None,
        }
    }

    pub(crate) fn found(self, found: impl Into<String>) -> Self {
        Self { found: Some(found.into().into_boxed_str()), ..self }
    }

    pub(crate) fn allowed(self, allowed: impl Into<String>) -> Self {
        Self { allowed: Some(allowed.into().into_boxed_str()), ..self }
    }

    pub(crate) fn refers_to(self, kind: Referred) -> Self {
        Self { refers_to: Some(kind), ..self }
    }

    pub(crate) fn suggestion(self, suggestion: Option<impl Into<String>>) -> Self {
        Self { suggestion: suggestion.map(|text| text.into().into_boxed_str()), ..self }
    }

    /// Returns the error, now that it is known whose it is.
    pub(crate) fn of(self, file: &Arc<str>, object: &str) -> ManifestError {
        ManifestError {
            file: Arc::clone(file),
            line: self.position.line,
            column: self.position.column,
            object: object.to_owned(),
            field: self.field,
            reason: self.reason,
            refers_to: self.refers_to,
            message: self.message,
            found: self.found.map(String::from),
            allowed: self.allowed.map(String::from),
            suggestion: self.suggestion.map(String::from),
        }
    }
}

/// Returns the text shortened, with nothing in it that a terminal would act on.
pub(crate) fn shortened(text: &str) -> String {
    let quoted = quoted(text);
    quoted[1..quoted.len() - 1].to_owned()
}

/// Returns the text in double quotes, shortened, with nothing in it that a terminal would act on.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for (index, character) in text.chars().enumerate() {
        if index == QUOTED_CHARS_MAX {
            out.push('…');
            break;
        }
        push_printable(&mut out, character);
    }
    out.push('"');
    out
}

/// Returns the text with control characters escaped: whatever it is, some of it is the user's.
fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    text.chars().for_each(|character| push_printable(&mut out, character));
    out
}

fn push_printable(out: &mut String, character: char) {
    let reorders = matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if character.is_control() || reorders {
        // Writing to a String cannot fail.
        _ = write!(out, "{}", character.escape_unicode());
    } else {
        out.push(character);
    }
}

/// Returns the names in back-quotes, for `allowed`.
pub(crate) fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<String> = names.into_iter().map(|name| format!("`{name}`")).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_reads_as_one_line_with_its_place_first() {
        let error = Problem::new(Position { line: 3, column: 7 }, ".spec.type", "unknown value")
            .found(quoted("Elastic\u{1b}[31m"))
            .allowed("`HTTP`")
            .suggestion(Some("HTTP"))
            .of(&"a\n.yaml".into(), "Backend default/x");
        assert_eq!(
            error.to_string(),
            "a\\u{a}.yaml:3:7: Backend default/x: spec.type: unknown value; found \"Elastic\\u{1b}[31m\"; allowed: `HTTP`; \
             help: did you mean `HTTP`?"
        );
        assert_eq!(
            error.words(),
            "spec.type: unknown value; found \"Elastic\\u{1b}[31m\"; allowed: `HTTP`; help: did you mean `HTTP`?"
        );
    }

    #[test]
    fn long_text_is_shortened() {
        assert_eq!(quoted(&"ä".repeat(100)).chars().count(), 63);
    }
}
