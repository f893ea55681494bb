//! Templates filled with the values of events. No I/O.

use std::ops::Range;

use spillway_delivery::clock::{UnixNanos, write_rfc3339};
use spillway_delivery::event::{Origin, OriginField};
use spillway_delivery::json::{Found, Paths, Value};

use super::{Grammar, Piece, Template};

/// Most characters of a value that a reason repeats.
const SHOWN_CHARS_MAX: usize = 64;

/// What a template is filled from.
#[derive(Debug, Clone, Copy)]
pub struct Values<'a> {
    /// The namespace of the pipeline.
    pub namespace: &'a str,
    /// The pipeline.
    pub pipeline: &'a str,
    /// The route.
    pub route: &'a str,
    /// What the backend calls it; empty where the grammar takes no `{id}`.
    pub id: &'a str,
    /// Who made the event.
    pub origin: &'a Origin,
    /// When it was received.
    pub received: UnixNanos,
    /// The event, a valid JSON object; `{}` where the grammar takes no `{event.…}`.
    pub event: &'a [u8],
}

/// A template made ready to be filled many times.
#[derive(Debug)]
pub struct Renderer {
    grammar: &'static Grammar,
    /// Each piece, and where its value is among what `paths` finds.
    pieces: Vec<(Piece, Option<usize>)>,
    paths: Paths,
    depends_on_event: bool,
    depends_on_origin: bool,
}

impl Renderer {
    /// Returns `template`, ready.
    pub fn new(template: &Template, grammar: &'static Grammar) -> Self {
        let paths = Paths::new(template.pieces().iter().filter_map(|piece| match piece {
            Piece::Event(keys) => Some(keys.as_slice()),
            _ => None,
        }));
        let slot = |piece: &Piece| match piece {
            Piece::Event(keys) => paths.slot(keys),
            _ => None,
        };
        let pieces = template.pieces().iter().map(|piece| (piece.clone(), slot(piece))).collect();
        let depends_on_origin = template.pieces().iter().any(Piece::is_of_origin);
        Self { grammar, pieces, depends_on_event: template.depends_on_event(), depends_on_origin, paths }
    }

    /// Returns whether events of one origin and hour may be rendered differently.
    pub fn depends_on_event(&self) -> bool {
        self.depends_on_event
    }

    /// Returns whether events of one hour may be rendered differently by their origin.
    pub fn depends_on_origin(&self) -> bool {
        self.depends_on_origin
    }

    /// Appends the filled template to `out`, or says in one line why it cannot be; `out` then holds a part of it.
    pub fn render(&self, values: &Values<'_>, out: &mut String) -> Result<(), String> {
        let mut found = Vec::new();
        if self.depends_on_event {
            found.resize(self.paths.slots(), Found::default());
            self.paths.find(values.event, &mut found);
        }
        for (piece, slot) in &self.pieces {
            let field = slot.and_then(|slot| found.get(slot)).and_then(|found| found.of(values.event));
            self.grammar.render(piece, values, field, out)?;
        }
        Ok(())
    }
}

impl Grammar {
    /// Appends the value of one piece to `out`; `field` is what the event holds at the path of an `{event.…}`.
    pub fn render(
        &self,
        piece: &Piece,
        values: &Values<'_>,
        field: Option<&[u8]>,
        out: &mut String,
    ) -> Result<(), String> {
        let of_origin = |field: Option<OriginField>| field.and_then(|field| values.origin.get(&field));
        let value = match piece {
            Piece::Literal(text) => {
                out.push_str(text);
                return Ok(());
            }
            Piece::Date => return push_time(out, values.received, 0..10),
            Piece::Hour => return push_time(out, values.received, 11..13),
            Piece::Namespace => Some(values.namespace),
            Piece::Pipeline => Some(values.pipeline),
            Piece::Route => Some(values.route),
            Piece::Id => Some(values.id),
            Piece::Origin(name) => of_origin(OriginField::by_name(name)),
            Piece::Label(key) => of_origin(Some(OriginField::Label(key.as_str().into()))),
            Piece::Annotation(key) => of_origin(Some(OriginField::Annotation(key.as_str().into()))),
            Piece::Event(_) => return self.push_field(piece, field, out),
        };
        self.push(piece, value.unwrap_or_default(), out)
    }

    fn push_field(&self, piece: &Piece, field: Option<&[u8]>, out: &mut String) -> Result<(), String> {
        let Some(field) = field else {
            return self.push(piece, "", out);
        };
        match Value::read(field) {
            Value::String(text) => self.push(piece, &String::from_utf8_lossy(&text.unescape()), out),
            Value::Number(_) | Value::Bool(_) => self.push(piece, &String::from_utf8_lossy(field), out),
            Value::Null => self.push(piece, "", out),
            Value::Array(_) | Value::Object(_) => Err(format!("{{{piece}}} is neither a string, a number nor a bool")),
        }
    }

    fn push(&self, piece: &Piece, value: &str, out: &mut String) -> Result<(), String> {
        if value.is_empty() {
            return Err(format!("{{{piece}}} has no value"));
        }
        if value.len() > self.value_bytes_max {
            return Err(format!("{{{piece}}} is longer than {} bytes", self.value_bytes_max));
        }
        let start = out.len();
        out.push_str(value);
        if self.lowers {
            out[start..].make_ascii_lowercase();
        }
        if !out[start..].bytes().all(self.value) || value.starts_with('.') {
            out.truncate(start);
            let shown: String = value.chars().take(SHOWN_CHARS_MAX).collect();
            // Debug form: what would break the line is escaped.
            return Err(format!("{{{piece}}} is {shown:?}, which cannot be {}", self.noun));
        }
        Ok(())
    }
}

fn push_time(out: &mut String, received: UnixNanos, part: Range<usize>) -> Result<(), String> {
    let mut text = Vec::with_capacity(30);
    write_rfc3339(&mut text, received);
    let part = text.get(part).and_then(|part| std::str::from_utf8(part).ok());
    out.push_str(part.ok_or("the time of receipt has no date")?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use spillway_delivery::event::OriginBuilder;

    static GRAMMAR: Grammar = Grammar {
        text_bytes_max: 128,
        value_bytes_max: 20,
        takes_id: true,
        takes_event: true,
        lowers: true,
        literal: |b| b.is_ascii_alphanumeric() || b"-".contains(&b),
        literal_allowed: "letters, digits, '-'",
        value: |b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b),
        noun: "part of a test",
    };

    fn render(template: &str, event: &str) -> Result<String, String> {
        let origin = OriginBuilder { app: Some("Web".into()), ..OriginBuilder::default() }.build();
        let values = Values {
            namespace: "fab12",
            pipeline: "jobs",
            route: "all",
            id: "1-2",
            origin: &origin,
            received: 1_700_000_000_000_000_000,
            event: event.as_bytes(),
        };
        let mut out = String::new();
        let template = Template::parse(template, &GRAMMAR).map_err(|error| error.to_string())?;
        Renderer::new(&template, &GRAMMAR).render(&values, &mut out).map(|()| out)
    }

    #[test]
    fn every_word_has_its_value() {
        let event = r#"{"kind":"Done","n":{"x":12,"y":true},"z":null,"kind2":"\u0061"}"#;
        for (template, rendered) in [
            ("{date}-{hour}", "2023-11-14-22"),
            ("{namespace}-{pipeline}-{route}-{id}", "fab12-jobs-all-1-2"),
            ("x-{origin.app}", "x-web"),
            ("x-{event.kind}-{event.n.x}-{event.n.y}-{event.kind2}", "x-done-12-true-a"),
            ("Ax", "Ax"),
        ] {
            assert_eq!(render(template, event), Ok(rendered.to_owned()), "{template}");
        }
    }

    #[test]
    fn values_that_would_leave_are_refused_on_one_line() {
        let long = format!("\"{}\"", "a".repeat(21));
        for value in [
            "\"..\"",
            "\".a\"",
            "\"../x\"",
            "\"a/b\"",
            "\"a\\nb\"",
            "\"a\\u0000\"",
            "\"a\\u001b[31m\"",
            "\"\"",
            "null",
            "{}",
            "[1]",
            "1e+5",
            "\"\u{e4}\"",
            "\"a b\"",
            "\"a\\\"b\"",
            &long,
        ] {
            let reason = render("x-{event.v}", &format!("{{\"v\":{value}}}")).unwrap_err();
            assert!(reason.starts_with("{event.v} "), "{value}: {reason}");
            assert!(!reason.chars().any(char::is_control), "{value}: {reason:?}");
        }
        for template in ["x-{event.v}", "x-{event.v.w}", "x-{origin.pod}", r#"x-{origin.labels["v"]}"#] {
            assert!(render(template, "{}").unwrap_err().ends_with("has no value"), "{template}");
        }
    }
}
