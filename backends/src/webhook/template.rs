//! The template of a body: JSON with placeholders, parsed and checked here, rendered by `render`.
//!
//! A placeholder is `{` and a letter up to `}`, which no JSON has outside of a string; inside of one, `\u007b` is a brace
//! that begins none. Whether a placeholder stands in a string decides how its value is written.
//!
//! Guarantees that a parsed template is JSON whatever its placeholders stand for.

use crate::template::{Grammar, Piece, TemplateError};

/// Most bytes of a template.
pub(super) const TEMPLATE_BYTES_MAX: usize = 16 << 10;
/// Most placeholders of a template.
const PLACES_MAX: usize = 128;
/// Most bytes of a rendered body.
pub(super) const BODY_BYTES_MAX: usize = 8 << 20;

/// The words of the shared templates that may stand in a body; here the rest is JSON's business.
static GRAMMAR: Grammar = Grammar {
    text_bytes_max: TEMPLATE_BYTES_MAX,
    value_bytes_max: BODY_BYTES_MAX,
    takes_id: true,
    takes_event: true,
    lowers: false,
    literal: |_| true,
    literal_allowed: "JSON",
    value: |_| true,
    noun: "part of a body",
};

/// What a placeholder stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Word {
    /// The whole event.
    Event,
    /// The time of receipt.
    Received,
    /// A word that every template has.
    Shared(Piece),
}

/// One part of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// Text as it stands.
    Literal(String),
    /// A value, and whether it stands in a string.
    Place(Word, bool),
}

/// Parses and checks `text`; the error says what is wrong and what is allowed.
pub(super) fn parse(text: &str) -> Result<Vec<Part>, (String, String)> {
    if text.is_empty() || text.len() > TEMPLATE_BYTES_MAX {
        let message = "is empty or too long".to_owned();
        return Err((message, format!("1 to {TEMPLATE_BYTES_MAX} bytes")));
    }
    let mut parts = Vec::new();
    let (mut literal, mut in_string, mut places) = (String::new(), false, 0);
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let mut width = first.len_utf8();
        let behind = &rest[width..];
        match first {
            '\\' if in_string => width += behind.chars().next().map_or(0, char::len_utf8),
            '"' => in_string = !in_string,
            '{' if behind.starts_with(|c: char| c.is_ascii_alphabetic()) => {
                let (name, after) = behind.split_once('}').ok_or_else(|| refused(&TemplateError::Brace))?;
                if !literal.is_empty() {
                    parts.push(Part::Literal(std::mem::take(&mut literal)));
                }
                parts.push(Part::Place(word(name)?, in_string));
                places += 1;
                rest = after;
                continue;
            }
            _ => {}
        }
        literal.push_str(&rest[..width]);
        rest = &rest[width..];
    }
    if !literal.is_empty() {
        parts.push(Part::Literal(literal));
    }
    if places > PLACES_MAX {
        return Err((format!("has {places} placeholders"), format!("at most {PLACES_MAX}")));
    }
    check_json(&parts)?;
    Ok(parts)
}

fn word(name: &str) -> Result<Word, (String, String)> {
    match name {
        "event" => Ok(Word::Event),
        "received" => Ok(Word::Received),
        _ => Piece::parse(name, &GRAMMAR).map(Word::Shared).map_err(|error| refused(&error)),
    }
}

fn refused(error: &TemplateError) -> (String, String) {
    (error.to_string(), format!("{{event}}, {{received}}, {}", error.allowed(&GRAMMAR)))
}

/// Fills every place with two kinds of value: what is JSON with both (a number is no key, a text stands beside no digit) is
/// JSON with any.
fn check_json(parts: &[Part]) -> Result<(), (String, String)> {
    for value in ["0", "\"\""] {
        let filled = parts.iter().map(|part| match part {
            Part::Literal(text) => text.as_str(),
            Part::Place(_, true) => "",
            Part::Place(_, false) => value,
        });
        let filled: String = filled.collect();
        if let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(&filled) {
            let message = format!("is not JSON once its placeholders are filled: {error}");
            return Err((message, "JSON; a placeholder stands in a string or for a whole value".to_owned()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_knows_whether_it_stands_in_a_string() {
        let parts = parse(r#"{"a": "x {event.a.b}\" {id}", "n": {event.n}, "all":{event}, "t":{received}}"#).unwrap();
        let places: Vec<_> = parts
            .iter()
            .filter_map(|part| match part {
                Part::Place(word, in_string) => Some((word.clone(), *in_string)),
                Part::Literal(_) => None,
            })
            .collect();
        let event = |keys: &[&str]| Word::Shared(Piece::Event(keys.iter().map(|key| (*key).to_owned()).collect()));
        assert_eq!(
            places,
            [
                (event(&["a", "b"]), true),
                (Word::Shared(Piece::Id), true),
                (event(&["n"]), false),
                (Word::Event, false),
                (Word::Received, false),
            ]
        );
    }

    #[test]
    fn a_label_may_stand_in_a_string_with_its_quotes() {
        let parts = parse(r#"["{origin.labels["app.kubernetes.io/name"]}"]"#).unwrap();
        assert_eq!(parts[1], Part::Place(Word::Shared(Piece::Label("app.kubernetes.io/name".into())), true));
    }

    #[test]
    fn what_would_not_be_json_is_refused() {
        for text in [
            "",
            "{",
            "{event",
            "plain text",
            r#"{"a": {event.a} {event.b}}"#,
            r"{{event.a}: 1}",
            r#"{"a": "{event.a}}"#,
            r#"{"a": {nope}}"#,
            r#"{"a": "{event.}"}"#,
            r#"{"a": "{origin.nope}"}"#,
            r#"{"a": 1{event.a}}"#,
            r#"{"a": "\{event.a}"}"#,
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(parse(&format!("[{}0]", "{id},".repeat(129))).is_err());
        assert!(parse(&format!("\"{}\"", "x".repeat(TEMPLATE_BYTES_MAX))).is_err());
        assert!(parse(r#"{"{event.key}": "\u007bevent}", "b": "\\{id}"}"#).is_ok());
    }
}
