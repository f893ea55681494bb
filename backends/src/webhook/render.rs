//! Bodies from a template and an event, by copying slices of the event. No I/O.

use bytes::Bytes;
use spillway_delivery::backend::{OutBatch, OutEvent};
use spillway_delivery::clock::write_rfc3339;
use spillway_delivery::event::OriginField;
use spillway_delivery::json::{Found, Paths, Value, write_escaped, write_string};

use super::template::{BODY_BYTES_MAX, Part, Word};
use crate::template::Piece;

/// A template made ready to be filled many times.
#[derive(Debug)]
pub(super) struct Renderer {
    parts: Vec<Part>,
    paths: Paths,
}

impl Renderer {
    pub(super) fn new(parts: Vec<Part>) -> Self {
        let paths = Paths::new(parts.iter().filter_map(|part| match part {
            Part::Place(Word::Shared(Piece::Event(keys)), _) => Some(keys.as_slice()),
            _ => None,
        }));
        Self { parts, paths }
    }

    /// Returns the body for one event, or why it can have none.
    pub(super) fn render(&self, batch: &OutBatch, event: &OutEvent<'_>) -> Result<Bytes, Box<str>> {
        let mut found = vec![Found::Absent; self.paths.slots()];
        self.paths.find(event.bytes, &mut found);
        let mut out = Vec::with_capacity(512);
        for part in &self.parts {
            match part {
                Part::Literal(text) => out.extend_from_slice(text.as_bytes()),
                Part::Place(Word::Event, in_string) => write_json(&mut out, Some(event.bytes), *in_string),
                Part::Place(Word::Shared(Piece::Event(keys)), in_string) => {
                    let value = self.paths.slot(keys).and_then(|slot| found[slot].of(event.bytes));
                    write_json(&mut out, value, *in_string);
                }
                Part::Place(word, in_string) => {
                    write_text(&mut out, text_of(word, batch, event).as_deref(), *in_string);
                }
            }
            if out.len() > BODY_BYTES_MAX {
                return Err(format!("the rendered body is larger than {BODY_BYTES_MAX} bytes").into());
            }
        }
        Ok(out.into())
    }
}

/// Writes a value of the event: as it is, or as part of a string. What is not there is `null`, in a string nothing.
fn write_json(out: &mut Vec<u8>, value: Option<&[u8]>, in_string: bool) {
    match (value, in_string) {
        (Some(value), false) => out.extend_from_slice(value),
        (None, false) => out.extend_from_slice(b"null"),
        (None, true) => {}
        (Some(value), true) => match (Value::read(value), value) {
            (Value::Null, _) => {}
            // What stands between the quotes there may stand between quotes here.
            (Value::String(_), [b'"', inside @ .., b'"']) => out.extend_from_slice(inside),
            _ => write_escaped(out, &String::from_utf8_lossy(value)),
        },
    }
}

fn write_text(out: &mut Vec<u8>, text: Option<&str>, in_string: bool) {
    match (text, in_string) {
        (Some(text), true) => write_escaped(out, text),
        (Some(text), false) => write_string(out, text),
        (None, true) => {}
        (None, false) => out.extend_from_slice(b"null"),
    }
}

fn text_of(word: &Word, batch: &OutBatch, event: &OutEvent<'_>) -> Option<String> {
    let time = |part: std::ops::Range<usize>| {
        let mut text = Vec::with_capacity(30);
        write_rfc3339(&mut text, event.received);
        text.get(part).map(|part| String::from_utf8_lossy(part).into_owned())
    };
    let origin = |field: &OriginField| event.origin.get(field).map(str::to_owned);
    match word {
        Word::Received => time(0..30),
        Word::Shared(Piece::Date) => time(0..10),
        Word::Shared(Piece::Hour) => time(11..13),
        Word::Shared(Piece::Namespace) => Some(batch.namespace().to_string()),
        Word::Shared(Piece::Pipeline) => Some(batch.pipeline().to_string()),
        Word::Shared(Piece::Route) => Some(batch.route().to_string()),
        Word::Shared(Piece::Id) => Some(event.id.to_string()),
        Word::Shared(Piece::Origin(field)) => OriginField::by_name(field).as_ref().and_then(origin),
        Word::Shared(Piece::Label(key)) => origin(&OriginField::Label(key.as_str().into())),
        Word::Shared(Piece::Annotation(key)) => origin(&OriginField::Annotation(key.as_str().into())),
        Word::Event | Word::Shared(Piece::Literal(_) | Piece::Event(_)) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::webhook::template::parse;
    use spillway_delivery::backend::OutBatchBuilder;
    use spillway_delivery::event::OriginBuilder;
    use std::sync::Arc;

    fn rendered(template: &str, event: &str) -> String {
        let mut builder = OutBatchBuilder::new(&"fab12".into(), &"jobs".into(), &"errors".into());
        let origin = OriginBuilder { pod: Some("etch-\"07\"".into()), ..OriginBuilder::default() }.build();
        builder.begin_chunk(Bytes::from(event.to_owned()), origin, 7, 1_795_428_000_000_000_000);
        builder.push(10, 0, event.len() as u32);
        let batch = builder.build("k");
        let event = batch.events().next().unwrap();
        let body = Renderer::new(parse(template).unwrap()).render(&batch, &event).unwrap();
        let text = String::from_utf8(body.to_vec()).unwrap();
        serde_json::from_str::<serde::de::IgnoredAny>(&text).expect(&text);
        text
    }

    #[test]
    fn values_are_written_as_their_place_wants_them() {
        let event = r#"{"s":"a \"b\" \\ \u0001","n":-1.50,"t":true,"z":null,"o":{"x":["1",2]}}"#;
        for (place, alone, inside) in [
            ("event.s", r#""a \"b\" \\ \u0001""#, r#""a \"b\" \\ \u0001""#),
            ("event.n", "-1.50", r#""-1.50""#),
            ("event.t", "true", r#""true""#),
            ("event.z", "null", r#""""#),
            ("event.nope", "null", r#""""#),
            ("event.n.x", "null", r#""""#),
            ("event.o", r#"{"x":["1",2]}"#, r#""{\"x\":[\"1\",2]}""#),
            ("origin.pod", r#""etch-\"07\"""#, r#""etch-\"07\"""#),
            ("origin.node", "null", r#""""#),
            ("id", r#""0000000000000007-a""#, r#""0000000000000007-a""#),
            ("pipeline", r#""jobs""#, r#""jobs""#),
            ("date", r#""2026-11-23""#, r#""2026-11-23""#),
            ("received", r#""2026-11-23T10:00:00.000000000Z""#, r#""2026-11-23T10:00:00.000000000Z""#),
        ] {
            assert_eq!(rendered(&format!("{{{place}}}"), event), alone, "{place}");
            assert_eq!(rendered(&format!("\"{{{place}}}\""), event), inside, "{place}");
        }
        assert_eq!(rendered(r#"{"all": {event}}"#, event), format!(r#"{{"all": {event}}}"#));
    }

    #[test]
    fn no_event_breaks_out_of_its_place() {
        let template = r#"{"text": "{event.a} by {event.b}", "raw": {event.c}}"#;
        for value in ["\"}],\"x\":[{\"", "\\", "\\\"", "\n\r\u{0}", "{id}", "ä\u{2028}"] {
            let event = serde_json::json!({"a": value, "b": {"c": value}, "c": value}).to_string();
            let body: serde_json::Value = serde_json::from_str(&rendered(template, &event)).unwrap();
            assert_eq!(body.as_object().unwrap().len(), 2);
            assert_eq!(body["raw"], value);
            assert!(body["text"].as_str().unwrap().starts_with(value));
        }
    }

    #[test]
    fn a_body_that_grows_too_large_is_refused() {
        let long = format!("{{\"a\":\"{}\"}}", "x".repeat(1 << 20));
        let mut builder = OutBatchBuilder::new(&"n".into(), &"p".into(), &"r".into());
        builder.begin_chunk(Bytes::from(long.clone()), Arc::default(), 7, 0);
        builder.push(1, 0, long.len() as u32);
        let batch = builder.build("k");
        let renderer = Renderer::new(parse(&format!("[{}0]", "{event},".repeat(9))).unwrap());
        assert!(renderer.render(&batch, &batch.events().next().unwrap()).is_err());
    }
}
