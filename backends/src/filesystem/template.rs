//! The template of a file's path: parsed and checked here, rendered with the values of events by `encode.rs`.
//!
//! Guarantees that a parsed template renders to at least one component, that `{origin.…}` stands behind a prefix of
//! literals or of values an event cannot choose, and that its literals are plain components themselves.

use std::fmt;

/// Most bytes of a template.
const TEMPLATE_BYTES_MAX: usize = 512;

/// Most components of a template.
const COMPONENTS_MAX: usize = 16;

/// The plain fields of an origin that a template may name, as in API.md.
const ORIGIN_FIELDS: [&str; 12] = [
    "namespace",
    "pod",
    "podUID",
    "container",
    "node",
    "app",
    "appVersion",
    "siteID",
    "instanceID",
    "source",
    "owner.kind",
    "owner.name",
];

/// Returns whether `text` can be a component of a path: 1 to 255 bytes of `[A-Za-z0-9._@+=:,~-]`, no leading dot.
pub(crate) fn is_plain_component(text: &str) -> bool {
    (1..=255).contains(&text.len()) && !text.starts_with('.') && is_plain(text)
}

/// Returns whether `text` holds allowed characters only.
pub(crate) fn is_plain(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._@+=:,~-".contains(&b))
}

/// One piece of a component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Text as it stands.
    Literal(String),
    /// The date of receipt, UTC: `2026-11-23`.
    Date,
    /// The hour of receipt, UTC: `07`.
    Hour,
    /// The namespace of the pipeline.
    Namespace,
    /// The pipeline.
    Pipeline,
    /// The route.
    Route,
    /// A plain field of the origin.
    Origin(String),
    /// A label of the origin.
    Label(String),
    /// An annotation of the origin.
    Annotation(String),
}

/// A parsed template: components, each of at least one piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// The directories and, last, the file.
    pub(crate) components: Vec<Vec<Piece>>,
    /// The end of the file's name from its extension on (`.ndjson`, `.ndjson.gz`), taken off the last component.
    pub(crate) extension: String,
}

/// Why a template is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// Empty, too long or too deep.
    #[error("is empty, longer than 512 bytes or deeper than 16 components")]
    Size,
    /// A brace without its partner.
    #[error("has a brace without its partner")]
    Brace,
    /// A placeholder nobody knows.
    #[error("{{{0}}} is not known")]
    Unknown(String),
    /// A literal that is not a plain part of a path.
    #[error("{0:?} cannot be part of a path")]
    Literal(String),
    /// `{origin.…}` first.
    #[error("{{{0}}} stands before any prefix that an event cannot choose")]
    Prefix(String),
}

impl TemplateError {
    /// Returns what is allowed instead.
    pub fn allowed(&self) -> String {
        match self {
            Self::Size => "1 to 512 bytes, 1 to 16 components".into(),
            Self::Brace => "braces only around a placeholder".into(),
            Self::Unknown(_) => format!(
                "{{date}}, {{hour}}, {{namespace}}, {{pipeline}}, {{route}}, {{origin.FIELD}} with FIELD one of {}, \
                 labels[\"x\"], annotations[\"x\"]",
                ORIGIN_FIELDS.join(", ")
            ),
            Self::Literal(_) => {
                "letters, digits and ._@+=:,~-, components that are not empty and do not begin with '.'".into()
            }
            Self::Prefix(_) => {
                "a literal, {date}, {hour}, {namespace}, {pipeline} or {route} before the first {origin.…}".into()
            }
        }
    }
}

impl Template {
    /// Parses and checks `text`.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        if text.is_empty() || text.len() > TEMPLATE_BYTES_MAX {
            return Err(TemplateError::Size);
        }
        let mut components = split(text)?;
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
        check_prefix(&components)?;
        let extension = take_extension(&mut components);
        Ok(Self { components, extension })
    }

    /// Returns whether a value that comes with the event decides where it goes.
    pub fn depends_on_origin(&self) -> bool {
        self.components.iter().flatten().any(Piece::is_of_origin)
    }
}

impl Piece {
    /// Returns whether the value comes from the origin.
    pub(crate) fn is_of_origin(&self) -> bool {
        matches!(self, Self::Origin(_) | Self::Label(_) | Self::Annotation(_))
    }

    /// Returns whether the value is the same for every event of a delivery.
    #[cfg(feature = "client")]
    pub(crate) fn is_fixed(&self) -> bool {
        matches!(self, Self::Literal(_) | Self::Namespace | Self::Pipeline | Self::Route)
    }

    fn parse(name: &str) -> Result<Self, TemplateError> {
        let key = |rest: &str| {
            let key = rest.strip_prefix("[\"")?.strip_suffix("\"]")?;
            (!key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/".contains(&b)))
                .then(|| key.to_owned())
        };
        let unknown = || TemplateError::Unknown(name.into());
        match name {
            "date" => Ok(Self::Date),
            "hour" => Ok(Self::Hour),
            "namespace" => Ok(Self::Namespace),
            "pipeline" => Ok(Self::Pipeline),
            "route" => Ok(Self::Route),
            _ => {
                let field = name.strip_prefix("origin.").ok_or_else(unknown)?;
                if ORIGIN_FIELDS.contains(&field) {
                    Ok(Self::Origin(field.into()))
                } else if let Some(rest) = field.strip_prefix("labels") {
                    key(rest).map(Self::Label).ok_or_else(unknown)
                } else if let Some(rest) = field.strip_prefix("annotations") {
                    key(rest).map(Self::Annotation).ok_or_else(unknown)
                } else {
                    Err(unknown())
                }
            }
        }
    }
}

impl fmt::Display for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(text) => f.write_str(text),
            Self::Date => f.write_str("date"),
            Self::Hour => f.write_str("hour"),
            Self::Namespace => f.write_str("namespace"),
            Self::Pipeline => f.write_str("pipeline"),
            Self::Route => f.write_str("route"),
            Self::Origin(field) => write!(f, "origin.{field}"),
            Self::Label(key) => write!(f, "origin.labels[{key:?}]"),
            Self::Annotation(key) => write!(f, "origin.annotations[{key:?}]"),
        }
    }
}

/// Splits at `/` outside of placeholders.
fn split(text: &str) -> Result<Vec<Vec<Piece>>, TemplateError> {
    let mut components = vec![Vec::new()];
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(['{', '}', '/']).unwrap_or(rest.len());
        let (literal, after) = rest.split_at(end);
        if !is_plain(literal) {
            return Err(TemplateError::Literal(literal.into()));
        }
        let pieces = components.last_mut().ok_or(TemplateError::Size)?;
        if !literal.is_empty() {
            pieces.push(Piece::Literal(literal.into()));
        }
        rest = match after.bytes().next() {
            None => break,
            Some(b'/') => {
                components.push(Vec::new());
                &after[1..]
            }
            Some(b'{') => {
                let close = after.find('}').ok_or(TemplateError::Brace)?;
                pieces.push(Piece::parse(&after[1..close])?);
                &after[close + 1..]
            }
            Some(_) => return Err(TemplateError::Brace),
        };
    }
    Ok(components)
}

fn check_prefix(components: &[Vec<Piece>]) -> Result<(), TemplateError> {
    match components.iter().flatten().next() {
        Some(first) if first.is_of_origin() => Err(TemplateError::Prefix(first.to_string())),
        _ => Ok(()),
    }
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
    let base = tail.strip_suffix(".gz").unwrap_or(tail);
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
            ("events.v1.ndjson", ".ndjson"),
            ("events", ""),
            ("events/{date}", ""),
            ("events.gz", ".gz"),
        ] {
            assert_eq!(Template::parse(text).unwrap().extension, extension, "{text}");
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
            assert!(Template::parse(text).is_err(), "{text:?}");
        }
        assert!(Template::parse(&"a/".repeat(300)).is_err());
        assert!(Template::parse(&vec!["a"; 17].join("/")).is_err());
    }

    #[test]
    fn every_origin_field_can_be_named() {
        for field in ORIGIN_FIELDS.iter().map(|field| (*field).to_owned()).chain([r#"labels["a.b/c"]"#.to_owned()]) {
            let template = Template::parse(&format!("x/{{origin.{field}}}/y")).unwrap();
            assert!(template.depends_on_origin());
        }
    }

    #[cfg(feature = "client")]
    #[test]
    fn the_origin_fields_are_those_of_the_engine() {
        let names: Vec<_> = spillway_delivery::event::OriginField::NAMES.iter().map(|(name, _)| *name).collect();
        assert_eq!(ORIGIN_FIELDS.to_vec(), names);
    }
}
