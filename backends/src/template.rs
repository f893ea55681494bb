//! Templates: text with placeholders `{…}` that events fill. Parsed and checked here; `render` fills them.
//!
//! | word | value |
//! | --- | --- |
//! | `{date}`, `{hour}` | of receipt, UTC |
//! | `{namespace}`, `{pipeline}`, `{route}` | of the pipeline |
//! | `{id}` | the name that the backend gives (of a batch, of an event) |
//! | `{origin.FIELD}`, `{origin.labels["x"]}`, `{origin.annotations["x"]}` | who made the event |
//! | `{event.PATH}` | a field of the event: a string, a number or a bool |
//!
//! Which words and which characters a template may hold is the backend's [`Grammar`].
//!
//! # Guarantees
//! - What comes with an event stands behind a prefix that no event can choose.
//! - What is rendered holds only characters of the grammar, and no value begins with a dot: it cannot leave its prefix.
//!   An event whose values break that is refused with a reason on one line.
//!
//! # Must not know
//! What a rendered text is used for.
//!
//! # Limits
//! The grammar's bytes of text and value; [`EVENT_KEYS_MAX`] keys of a path, each of [`KEY_BYTES_MAX`] bytes.

#[cfg(feature = "client")]
mod render;

use std::fmt;

#[cfg(feature = "client")]
pub use render::{Renderer, Values};

/// Most keys on the path of an `{event.…}`.
const EVENT_KEYS_MAX: usize = 8;

/// Most bytes of one of those keys.
const KEY_BYTES_MAX: usize = 128;

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

/// What the templates of one backend may hold.
#[derive(Debug)]
pub struct Grammar {
    /// Most bytes of the text.
    pub text_bytes_max: usize,
    /// Most bytes of one rendered value.
    pub value_bytes_max: usize,
    /// Whether `{id}` may stand in it.
    pub takes_id: bool,
    /// Whether `{event.…}` may stand in it.
    pub takes_event: bool,
    /// Whether values are turned to lower case (ASCII) first.
    pub lowers: bool,
    /// Whether a byte may stand in a literal.
    pub literal: fn(u8) -> bool,
    /// The same in words.
    pub literal_allowed: &'static str,
    /// Whether a byte may stand in a value.
    pub value: fn(u8) -> bool,
    /// What is rendered, for reasons: `part of a path`.
    pub noun: &'static str,
}

/// One piece of a template.
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
    /// The name that the backend gives.
    Id,
    /// A plain field of the origin.
    Origin(String),
    /// A label of the origin.
    Label(String),
    /// An annotation of the origin.
    Annotation(String),
    /// A field of the event, by its path.
    Event(Vec<String>),
}

/// A parsed template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    pieces: Vec<Piece>,
}

/// Why a template is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// Empty, too long or too deep.
    #[error("is empty, too long or too deep")]
    Size,
    /// A brace without its partner.
    #[error("has a brace without its partner")]
    Brace,
    /// A placeholder that is not known here.
    #[error("{{{0}}} is not known")]
    Unknown(String),
    /// A literal that may not stand here.
    #[error("{0:?} cannot stand in it")]
    Literal(String),
    /// A value of an event first.
    #[error("{{{0}}} stands before any prefix that an event cannot choose")]
    Prefix(String),
}

impl TemplateError {
    /// Returns what is allowed instead.
    pub fn allowed(&self, grammar: &Grammar) -> String {
        match self {
            Self::Size => format!("1 to {} bytes", grammar.text_bytes_max),
            Self::Brace => "braces only around a placeholder".into(),
            Self::Unknown(_) => {
                let id = if grammar.takes_id { "{id}, " } else { "" };
                let event = if grammar.takes_event { "{event.FIELD}, " } else { "" };
                let fields = ORIGIN_FIELDS.join(", ");
                format!(
                    "{{date}}, {{hour}}, {{namespace}}, {{pipeline}}, {{route}}, {id}{event}{{origin.FIELD}} with FIELD \
                     one of {fields}, labels[\"x\"], annotations[\"x\"]"
                )
            }
            Self::Literal(_) => grammar.literal_allowed.into(),
            Self::Prefix(_) => "a literal or a word about the pipeline or the time before the first {origin.…} or \
                                {event.…}"
                .into(),
        }
    }
}

impl Template {
    /// Parses `text`, checks it against `grammar`.
    pub fn parse(text: &str, grammar: &Grammar) -> Result<Self, TemplateError> {
        if text.is_empty() || text.len() > grammar.text_bytes_max {
            return Err(TemplateError::Size);
        }
        let mut pieces = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let end = rest.find(['{', '}']).unwrap_or(rest.len());
            let (literal, after) = rest.split_at(end);
            if !literal.bytes().all(grammar.literal) {
                return Err(TemplateError::Literal(literal.into()));
            }
            if !literal.is_empty() {
                pieces.push(Piece::Literal(literal.into()));
            }
            let Some(placeholder) = after.strip_prefix('{') else {
                if after.is_empty() {
                    break;
                }
                return Err(TemplateError::Brace);
            };
            let (name, behind) = placeholder.split_once('}').ok_or(TemplateError::Brace)?;
            pieces.push(Piece::parse(name, grammar)?);
            rest = behind;
        }
        match pieces.first() {
            Some(first) if first.comes_with_an_event() => Err(TemplateError::Prefix(first.to_string())),
            _ => Ok(Self { pieces }),
        }
    }

    /// Returns the pieces, in order.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// Returns whether a field of the event has a say.
    pub fn depends_on_event(&self) -> bool {
        self.pieces.iter().any(|piece| matches!(piece, Piece::Event(_)))
    }

    /// Returns whether `{id}` stands in it.
    pub fn has_id(&self) -> bool {
        self.pieces.contains(&Piece::Id)
    }
}

impl Piece {
    /// Returns whether the value comes from the origin.
    pub fn is_of_origin(&self) -> bool {
        matches!(self, Self::Origin(_) | Self::Label(_) | Self::Annotation(_))
    }

    /// Returns whether who sends an event, or what is in it, chooses the value.
    pub fn comes_with_an_event(&self) -> bool {
        self.is_of_origin() || matches!(self, Self::Event(_))
    }

    /// Returns whether the value is the same for every event of a delivery.
    pub fn is_fixed(&self) -> bool {
        matches!(self, Self::Literal(_) | Self::Namespace | Self::Pipeline | Self::Route)
    }

    /// Parses what stands between braces.
    pub(crate) fn parse(name: &str, grammar: &Grammar) -> Result<Self, TemplateError> {
        let piece = match name {
            "date" => Some(Self::Date),
            "hour" => Some(Self::Hour),
            "namespace" => Some(Self::Namespace),
            "pipeline" => Some(Self::Pipeline),
            "route" => Some(Self::Route),
            "id" if grammar.takes_id => Some(Self::Id),
            _ => match name.split_once('.') {
                Some(("origin", field)) => Self::origin(field),
                Some(("event", path)) if grammar.takes_event => Self::event(path),
                _ => None,
            },
        };
        piece.ok_or_else(|| TemplateError::Unknown(name.into()))
    }

    fn origin(field: &str) -> Option<Self> {
        let key = |rest: &str| {
            let key = rest.strip_prefix("[\"")?.strip_suffix("\"]")?;
            let plain = key.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/".contains(&b));
            (!key.is_empty() && plain).then(|| key.to_owned())
        };
        if ORIGIN_FIELDS.contains(&field) {
            Some(Self::Origin(field.into()))
        } else if let Some(rest) = field.strip_prefix("labels") {
            key(rest).map(Self::Label)
        } else if let Some(rest) = field.strip_prefix("annotations") {
            key(rest).map(Self::Annotation)
        } else {
            None
        }
    }

    fn event(path: &str) -> Option<Self> {
        let plain = |key: &str| {
            (1..=KEY_BYTES_MAX).contains(&key.len())
                && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-@".contains(&b))
        };
        let keys: Vec<String> = path.split('.').map(str::to_owned).collect();
        (keys.len() <= EVENT_KEYS_MAX && keys.iter().all(|key| plain(key))).then_some(Self::Event(keys))
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
            Self::Id => f.write_str("id"),
            Self::Origin(field) => write!(f, "origin.{field}"),
            Self::Label(key) => write!(f, "origin.labels[{key:?}]"),
            Self::Annotation(key) => write!(f, "origin.annotations[{key:?}]"),
            Self::Event(keys) => write!(f, "event.{}", keys.join(".")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Grammar = Grammar {
        text_bytes_max: 64,
        value_bytes_max: 255,
        takes_id: true,
        takes_event: true,
        lowers: false,
        literal: |b| b.is_ascii_alphanumeric() || b"-/".contains(&b),
        literal_allowed: "letters, digits, '-', '/'",
        value: |b| b.is_ascii_alphanumeric(),
        noun: "part of a test",
    };

    const FEW: Grammar = Grammar { takes_id: false, takes_event: false, ..ALL };

    #[test]
    fn every_word_is_taken_where_the_grammar_has_it() {
        for (text, in_few) in [
            ("{date}", true),
            ("{hour}/{namespace}{pipeline}-{route}", true),
            ("a{origin.pod}", true),
            (r#"a{origin.labels["a.b/c"]}{origin.annotations["x"]}"#, true),
            ("{id}", false),
            ("a/{event.kind}", false),
            ("a{event.a.b_c.@d}", false),
        ] {
            let template = Template::parse(text, &ALL).unwrap();
            let shown: String = template
                .pieces()
                .iter()
                .map(|piece| match piece {
                    Piece::Literal(text) => text.clone(),
                    piece => format!("{{{piece}}}"),
                })
                .collect();
            assert_eq!(shown, text);
            assert_eq!(Template::parse(text, &FEW).is_ok(), in_few, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_what_is_allowed() {
        for (text, allowed) in [
            ("", "1 to 64 bytes"),
            (&*"a".repeat(65), "1 to 64 bytes"),
            ("{date", "braces only"),
            ("date}", "braces only"),
            ("a{}", "{id}, {event.FIELD}, {origin.FIELD}"),
            ("{nope}", "podUID"),
            ("a{origin.labels}", "labels"),
            ("a{origin.labels[x]}", "labels"),
            ("a{origin.nope}", "labels"),
            ("a{event.}", "{event.FIELD}"),
            ("a{event.a..b}", "{event.FIELD}"),
            ("a{event.a/b}", "{event.FIELD}"),
            ("a{event.a.b.c.d.e.f.g.h.i}", "{event.FIELD}"),
            ("a b", "letters"),
            ("a\n", "letters"),
            ("ä", "letters"),
            ("{origin.pod}/x", "before the first"),
            ("{event.x}{date}", "before the first"),
        ] {
            let error = Template::parse(text, &ALL).unwrap_err();
            assert!(error.allowed(&ALL).contains(allowed), "{text:?}: {error}; {}", error.allowed(&ALL));
        }
    }

    #[test]
    fn every_origin_field_can_be_named() {
        for field in ORIGIN_FIELDS {
            let template = Template::parse(&format!("x/{{origin.{field}}}/y"), &FEW).unwrap();
            assert!(template.pieces()[1].is_of_origin());
        }
    }

    #[cfg(feature = "client")]
    #[test]
    fn the_origin_fields_are_those_of_the_engine() {
        let names: Vec<_> = spillway_delivery::event::OriginField::NAMES.iter().map(|(name, _)| *name).collect();
        assert_eq!(ORIGIN_FIELDS.to_vec(), names);
    }
}
