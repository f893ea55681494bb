//! The template of a file's path: what of [`Template`] it may hold, and how it falls into directories and a file.
//!
//! Guarantees that a parsed path renders to at least one component, that `{origin.…}` stands behind a prefix of literals
//! or of values an event cannot choose, and that its literals are plain components themselves.

use crate::template::{Grammar, Piece, Template, TemplateError};

/// Most components of a path.
const COMPONENTS_MAX: usize = 16;

/// What the path of a file may hold.
pub(super) static GRAMMAR: Grammar = Grammar {
    text_bytes_max: 512,
    value_bytes_max: 255,
    takes_id: false,
    takes_event: false,
    lowers: false,
    literal: |b| is_plain(b) || b == b'/',
    literal_allowed: "letters, digits and ._@+=:,~-, 1 to 16 components that are not empty and do not begin with '.'",
    value: is_plain,
    noun: "part of a path",
};

/// Returns whether `text` can be a component of a path: 1 to 255 bytes of `[A-Za-z0-9._@+=:,~-]`, no leading dot.
pub(super) fn is_plain_component(text: &str) -> bool {
    (1..=255).contains(&text.len()) && !text.starts_with('.') && text.bytes().all(is_plain)
}

fn is_plain(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"._@+=:,~-".contains(&b)
}

/// A parsed path: components, each of at least one piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PathTemplate {
    /// The directories and, last, the file.
    pub(super) components: Vec<Vec<Piece>>,
    /// The end of the file's name from its extension on (`.ndjson`, `.ndjson.gz`), taken off the last component.
    pub(super) extension: String,
}

impl PathTemplate {
    /// Parses and checks `text`.
    pub(super) fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut components = split(&Template::parse(text, &GRAMMAR)?);
        if components.len() > COMPONENTS_MAX {
            return Err(TemplateError::Size);
        }
        for pieces in &components {
            let literal_start = match pieces.first() {
                None => return Err(TemplateError::Literal(String::new())),
                Some(Piece::Literal(literal)) => literal.as_str(),
                Some(_) => "",
            };
            if literal_start.starts_with('.') {
                return Err(TemplateError::Literal(literal_start.into()));
            }
        }
        let extension = take_extension(&mut components);
        Ok(Self { components, extension })
    }

    /// Returns whether a value that comes with the event decides where it goes.
    #[cfg(feature = "client")]
    pub(super) fn depends_on_origin(&self) -> bool {
        self.components.iter().flatten().any(Piece::is_of_origin)
    }
}

/// Splits at every `/`, which stands in literals only.
fn split(template: &Template) -> Vec<Vec<Piece>> {
    let mut components = Vec::new();
    let mut pieces = Vec::new();
    for piece in template.pieces() {
        let Piece::Literal(text) = piece else {
            pieces.push(piece.clone());
            continue;
        };
        for (index, part) in text.split('/').enumerate() {
            if index > 0 {
                components.push(std::mem::take(&mut pieces));
            }
            if !part.is_empty() {
                pieces.push(Piece::Literal(part.into()));
            }
        }
    }
    components.push(pieces);
    components
}

/// Returns `name` without what says how it is packed.
pub(super) fn without_packing(name: &str) -> &str {
    [".gz", ".zst"].iter().find_map(|packed| name.strip_suffix(packed)).unwrap_or(name)
}

/// Takes the extension off the last component: from the last dot of its literal end on, a `.gz` behind it included. A
/// name that would be nothing but an extension keeps it.
fn take_extension(components: &mut [Vec<Piece>]) -> String {
    let Some(pieces) = components.last_mut() else {
        return String::new();
    };
    let alone = pieces.len() == 1;
    let Some(Piece::Literal(tail)) = pieces.last_mut() else {
        return String::new();
    };
    let base = without_packing(tail);
    let at = base.rfind('.').unwrap_or(base.len());
    if alone && at == 0 {
        return String::new();
    }
    let extension = tail.split_off(at);
    if tail.is_empty() {
        pieces.pop();
    }
    extension
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_extension_comes_from_the_template_alone() {
        for (text, extension) in [
            ("{namespace}/{date}.ndjson", ".ndjson"),
            ("x/{date}.ndjson.gz", ".ndjson.gz"),
            ("x/{date}.ndjson.zst", ".ndjson.zst"),
            ("events.v1.ndjson", ".ndjson"),
            ("events", ""),
            ("events/{date}", ""),
            ("events.gz", ".gz"),
        ] {
            assert_eq!(PathTemplate::parse(text).unwrap().extension, extension, "{text}");
        }
    }

    #[test]
    fn templates_that_could_leave_are_refused() {
        for text in [
            "",
            "/abs",
            "a//b",
            "a/",
            "../x",
            "a/../b",
            "a/.hidden",
            ".x",
            "a b",
            "a\0",
            "a\nb",
            "{date",
            "date}",
            "{}",
            "{nope}",
            "{event.x}",
            "{id}",
            "{origin.nope}",
            "{origin.labels}",
            "{origin.labels[x]}",
            "{origin.pod}/x",
            "{origin.pod}.ndjson",
            "a/{date}/%2e%2e",
            "ä",
        ] {
            assert!(PathTemplate::parse(text).is_err(), "{text:?}");
        }
        assert!(PathTemplate::parse(&"a/".repeat(300)).is_err());
        assert!(PathTemplate::parse(&vec!["a"; 17].join("/")).is_err());
    }

    #[test]
    fn a_slash_in_the_key_of_a_label_divides_nothing() {
        let path = PathTemplate::parse(r#"x/{origin.labels["a.b/c"]}-{date}/y"#).unwrap();
        assert_eq!(path.components.len(), 3);
        assert_eq!(path.components[1].len(), 3);
    }
}
