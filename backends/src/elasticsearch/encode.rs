//! Events to the lines of a bulk request. No I/O, and no tree of values: bytes are copied and spliced.
//!
//! Two lines per event: `{"create":{"_index":"…","_id":"…"}}`, and the event with `@timestamp`, where it has none, and
//! `_spillway`, as the metadata says. The name of an index holds only characters that need no escape.

use std::collections::BTreeSet;

use memchr::memchr2;
use memchr::memmem::Finder;
use spillway_delivery::backend::{Form, OutBatch, OutEvent, OutRun};
use spillway_delivery::clock::{UnixNanos, write_rfc3339};
use spillway_delivery::event::{Arenas, EventId};
use spillway_delivery::json::{Found, Paths, Value};
use spillway_delivery::settings::Metadata;

use crate::template::{Renderer, Values};

/// Most bytes of the name of an index (the servers' own bound).
const INDEX_BYTES_MAX: usize = 255;

/// Bytes of an action besides the name of the index, and of `@timestamp`.
const ACTION_BYTES_MAX: usize = 160;

/// Nanoseconds of an hour: what `{date}` and `{hour}` are made of changes with it.
const HOUR_NANOS: i64 = 3_600_000_000_000;

/// A bulk request, and which events of the batch are in it.
#[derive(Debug, Default)]
pub(super) struct Bulk {
    /// The body.
    pub(super) body: Vec<u8>,
    /// One id per document, in order.
    pub(super) ids: Vec<EventId>,
    /// Per event of the batch: `None` when it is in the body, else why it is not.
    pub(super) left_out: Vec<Option<LeftOut>>,
    /// The names of the indices, where they are asked for.
    pub(super) indices: BTreeSet<String>,
}

/// Why an event is not in a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum LeftOut {
    /// It never can be.
    Refused(Box<str>),
    /// Nothing is sent to its index now.
    Waits,
}

/// Turns batches into requests.
#[derive(Debug)]
pub(super) struct Encoder {
    index: Renderer,
    metadata: Metadata,
    times: Times,
    /// Whether the names of indices are asked for.
    lists: bool,
}

impl Encoder {
    pub(super) fn new(index: Renderer, metadata: Metadata) -> Self {
        Self { index, metadata, times: Times::new(), lists: false }
    }

    /// Returns one whose requests tell the names of their indices.
    pub(super) fn listing(self, lists: bool) -> Self {
        Self { lists, ..self }
    }

    /// Whether all events of an hour go to one index.
    pub(super) fn has_one_index(&self) -> bool {
        !self.index.depends_on_event() && !self.index.depends_on_origin()
    }

    /// Returns the request for a batch, its body in memory of `bodies`: the same bytes for the same batch.
    pub(super) fn bulk(&self, batch: &OutBatch, bodies: &Arenas) -> Bulk {
        self.bulk_without(batch, bodies, |_| false)
    }

    /// Returns the same without the events of indices that wait.
    pub(super) fn bulk_without(&self, batch: &OutBatch, bodies: &Arenas, waits: impl Fn(&str) -> bool) -> Bulk {
        let room = batch.encoded_bytes(Form::Lines, self.metadata) + batch.len() * (ACTION_BYTES_MAX + 32);
        let mut bulk = Bulk {
            body: bodies.take(room),
            ids: Vec::with_capacity(batch.len()),
            left_out: Vec::with_capacity(batch.len()),
            indices: BTreeSet::new(),
        };
        let mut index = Index::default();
        let mut member = Vec::with_capacity(64);
        for run in batch.runs() {
            let tail = run.tail(self.metadata);
            let mut received = Vec::with_capacity(32);
            write_rfc3339(&mut received, run.received());
            for event in run.events() {
                let left_out = match self.place(batch, &run, &event, &mut index) {
                    Err(reason) => Some(LeftOut::Refused(reason.into())),
                    Ok(()) => waits(&index.name).then_some(LeftOut::Waits),
                };
                bulk.left_out.push(left_out);
                if bulk.left_out.last().is_some_and(Option::is_some) {
                    continue;
                }
                if self.lists && !bulk.indices.contains(&index.name) {
                    bulk.indices.insert(index.name.clone());
                }
                let body = &mut bulk.body;
                body.extend_from_slice(index.action(event.id));
                EventId::write_seq(event.id.seq, body);
                body.extend_from_slice(b"\"}}\n");
                member.clear();
                self.times.write_member(event.bytes, &received, &mut member);
                event.write_line(body, &tail, &member);
                bulk.ids.push(event.id);
            }
        }
        bulk
    }

    /// Renders the name of the event's index, unless it is that of the event before.
    fn place(&self, batch: &OutBatch, run: &OutRun<'_>, event: &OutEvent<'_>, index: &mut Index) -> Result<(), String> {
        let of = (std::sync::Arc::as_ptr(run.origin()) as usize, run.received().div_euclid(HOUR_NANOS));
        let of = if self.index.depends_on_origin() { of } else { (0, of.1) };
        if !self.index.depends_on_event() && index.of == Some(of) {
            return Ok(());
        }
        index.of = None;
        index.action_of = None;
        index.name.clear();
        let values = Values {
            namespace: batch.namespace(),
            pipeline: batch.pipeline(),
            route: batch.route(),
            id: "",
            origin: run.origin(),
            received: run.received(),
            event: event.bytes,
        };
        self.index.render(&values, &mut index.name)?;
        if index.name.len() > INDEX_BYTES_MAX {
            return Err(format!("the name of the index is longer than {INDEX_BYTES_MAX} bytes"));
        }
        index.of = Some(of);
        Ok(())
    }
}

/// Finds the times an event carries.
#[derive(Debug)]
struct Times {
    paths: Paths,
    timestamp_slot: Option<usize>,
    time_slot: Option<usize>,
    /// A key as it is written without escapes.
    time_key: Finder<'static>,
}

impl Times {
    fn new() -> Self {
        let paths = Paths::new([["@timestamp"], ["time"]]);
        Self {
            timestamp_slot: paths.slot(&["@timestamp"]),
            time_slot: paths.slot(&["time"]),
            paths,
            time_key: Finder::new("\"time\""),
        }
    }

    /// Appends the member `@timestamp` for an event that has none: its `time` where that is one, else when it was received.
    fn write_member(&self, event: &[u8], received: &[u8], out: &mut Vec<u8>) {
        let mut found = [Found::default(); 4];
        if self.may_have_one(event) {
            self.paths.find(event, &mut found);
        }
        let at = |slot: Option<usize>| slot.and_then(|slot| found.get(slot)).copied().unwrap_or_default();
        if at(self.timestamp_slot) != Found::Absent {
            return;
        }
        out.extend_from_slice(b"\"@timestamp\":");
        match at(self.time_slot).of(event).filter(|time| is_timestamp(time)) {
            Some(time) => out.extend_from_slice(time),
            None => {
                out.push(b'"');
                out.extend_from_slice(received);
                out.push(b'"');
            }
        }
    }

    /// Returns whether a walk over the event could find a time: an event without the one key, without the `@` of the other and
    /// without any escape has neither, and two searches cost a third of the walk.
    fn may_have_one(&self, event: &[u8]) -> bool {
        self.time_key.find(event).is_some() || memchr2(b'@', b'\\', event).is_some()
    }
}

/// The name of the index of the event before, and of which origin and hour it is.
#[derive(Debug, Default)]
struct Index {
    name: String,
    of: Option<(usize, UnixNanos)>,
    /// The action line up to the sequence in the id, and of which incarnation it is, while the name is the same.
    action: Vec<u8>,
    action_of: Option<u64>,
}

impl Index {
    /// Returns the beginning of an event's action line.
    fn action(&mut self, id: EventId) -> &[u8] {
        if self.action_of.replace(id.incarnation) != Some(id.incarnation) {
            self.action.clear();
            self.action.extend_from_slice(b"{\"create\":{\"_index\":\"");
            self.action.extend_from_slice(self.name.as_bytes());
            self.action.extend_from_slice(b"\",\"_id\":\"");
            id.write_incarnation(&mut self.action);
        }
        &self.action
    }
}

/// Returns whether a JSON value is a time that every version of the servers takes: RFC 3339 with at most nine digits of a
/// second, from 1970 to 2261 (what fits nanoseconds in 64 bits).
fn is_timestamp(value: &[u8]) -> bool {
    let Value::String(text) = Value::read(value) else {
        return false;
    };
    let text = text.unescape();
    let shaped = text.len() <= 35
        && text.len() >= 20
        && (b"1970"..=b"2261").contains(&&[text[0], text[1], text[2], text[3]])
        && text[10] == b'T'
        && (text.ends_with(b"Z") || matches!(text[text.len() - 6], b'+' | b'-'))
        && text.iter().all(|b| b.is_ascii_digit() || b"-:.TZ+".contains(b));
    shaped && std::str::from_utf8(&text).is_ok_and(|text| text.parse::<jiff::Timestamp>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use spillway_delivery::backend::OutBatchBuilder;
    use spillway_delivery::event::OriginBuilder;

    use crate::elasticsearch::settings::GRAMMAR;
    use crate::template::Template;

    fn batch(events: &[&str]) -> OutBatch {
        let mut builder = OutBatchBuilder::new(&"fab12".into(), &"jobs".into(), &"all".into());
        for (seq, event) in events.iter().enumerate() {
            let origin = OriginBuilder { app: Some("Web".into()), ..OriginBuilder::default() }.build();
            builder.begin_chunk(Bytes::from((*event).to_owned()), origin, 1, 1_700_000_000_000_000_000);
            builder.push(seq as u64, 0, event.len() as u32);
        }
        builder.build("k")
    }

    fn encoder(index: &str, metadata: Metadata) -> Encoder {
        Encoder::new(Renderer::new(&Template::parse(index, &GRAMMAR).unwrap(), &GRAMMAR), metadata)
    }

    fn lines(bulk: &Bulk) -> Vec<serde_json::Value> {
        assert!(bulk.body.ends_with(b"\n"));
        let text = std::str::from_utf8(&bulk.body).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn each_event_is_an_action_and_a_document() {
        let bulk = encoder("{pipeline}-{origin.app}-{date}", Metadata::Full)
            .bulk(&batch(&[r#"{"a":1}"#, "{}"]), &Arenas::default());
        let lines = lines(&bulk);
        assert_eq!(lines.len(), 4);
        assert_eq!(lines[0]["create"]["_index"], "jobs-web-2023-11-14");
        assert_eq!(lines[0]["create"]["_id"], "0000000000000001-0");
        assert_eq!((&lines[1]["a"], &lines[1]["_spillway"]["pipeline"]), (&1.into(), &"jobs".into()));
        assert_eq!(lines[3]["@timestamp"], "2023-11-14T22:13:20.000000000Z");
        assert_eq!(bulk.ids[1].to_string(), "0000000000000001-1");
    }

    #[test]
    fn the_id_in_the_action_is_that_in_the_document_over_incarnations() {
        let mut builder = OutBatchBuilder::new(&"fab12".into(), &"jobs".into(), &"all".into());
        for (seq, incarnation) in [(1, 7), (2, 7), (3, 8), (4, 7)] {
            builder.begin_chunk(Bytes::from_static(b"{}"), OriginBuilder::default().build(), incarnation, 1);
            builder.push(seq, 0, 2);
        }
        let bulk = encoder("jobs", Metadata::Full).bulk(&builder.build("k"), &Arenas::default());
        let lines = lines(&bulk);
        let said: Vec<_> = lines.iter().step_by(2).map(|line| &line["create"]["_id"]).collect();
        let documents: Vec<_> = lines.iter().skip(1).step_by(2).map(|line| &line["_spillway"]["id"]).collect();
        assert_eq!(said, documents);
        assert_eq!(said[1..], ["0000000000000007-2", "0000000000000008-3", "0000000000000007-4"]);
    }

    #[test]
    fn the_timestamp_is_its_own_or_its_time_or_that_of_receipt() {
        let received = "2023-11-14T22:13:20.000000000Z";
        for (event, timestamp) in [
            (r#"{"@timestamp":"yesterday"}"#, "yesterday"),
            (r#"{"time":"2026-11-24T01:02:03.123456789Z"}"#, "2026-11-24T01:02:03.123456789Z"),
            (r#"{"time":"2026-11-24T01:02:03+02:00","x":{"@timestamp":1}}"#, "2026-11-24T01:02:03+02:00"),
            (r#"{"time":"2026-02-31T01:02:03Z"}"#, received),
            (r#"{"time":"2026-11-24 01:02:03Z"}"#, received),
            (r#"{"time":"1969-12-31T23:59:59Z"}"#, received),
            (r#"{"time":"9999-12-31T23:59:59Z"}"#, received),
            (r#"{"time":"2026-11-24T01:02:03.1234567890Z"}"#, received),
            (r#"{"time":1700000000}"#, received),
            (r#"{"time":null}"#, received),
            (r#"{"time":""}"#, received),
            (r#"{"x":{"time":"2026-11-24T01:02:03Z"}}"#, received),
            (r#"{"x":"time"}"#, received),
            (r#"{"\u0074ime":"2026-11-24T01:02:03Z"}"#, "2026-11-24T01:02:03Z"),
            (r#"{"\u0040timestamp":"yesterday"}"#, "yesterday"),
            ("{}", received),
        ] {
            for metadata in [Metadata::Full, Metadata::None] {
                let lines = lines(&encoder("x", metadata).bulk(&batch(&[event]), &Arenas::default()));
                assert_eq!(lines[1]["@timestamp"], timestamp, "{event}");
                assert_eq!(lines[1].get("_spillway").is_some(), metadata == Metadata::Full);
            }
        }
    }

    #[test]
    fn events_that_have_no_index_are_refused_alone() {
        let events = [r#"{"kind":"a"}"#, r#"{"kind":"../x"}"#, "{}", r#"{"kind":"B","time":1}"#, r#"{"kind":"a,b"}"#];
        let bulk = encoder("jobs-{event.kind}", Metadata::Full).bulk(&batch(&events), &Arenas::default());
        let lines = lines(&bulk);
        let names: Vec<_> = lines.iter().step_by(2).map(|line| line["create"]["_index"].as_str().unwrap()).collect();
        assert_eq!(names, ["jobs-a", "jobs-b"]);
        let refused: Vec<bool> = bulk.left_out.iter().map(Option::is_some).collect();
        assert_eq!(refused, [false, true, true, false, true]);
        assert!(bulk.indices.is_empty());
    }

    #[test]
    fn indices_are_told_and_events_of_some_may_be_left_out() {
        let events = [r#"{"kind":"a"}"#, r#"{"kind":"../x"}"#, r#"{"kind":"b"}"#, r#"{"kind":"a"}"#];
        let encoder = encoder("jobs-{event.kind}", Metadata::Full).listing(true);
        let indices = |bulk: &Bulk| bulk.indices.iter().cloned().collect::<Vec<_>>().join(" ");
        let bulk = encoder.bulk(&batch(&events), &Arenas::default());
        assert_eq!((indices(&bulk).as_str(), bulk.ids.len(), encoder.has_one_index()), ("jobs-a jobs-b", 3, false));
        let bulk = encoder.bulk_without(&batch(&events), &Arenas::default(), |name| name == "jobs-a");
        assert_eq!((indices(&bulk).as_str(), bulk.ids.len()), ("jobs-b", 1));
        let waits: Vec<bool> = bulk.left_out.iter().map(|one| *one == Some(LeftOut::Waits)).collect();
        assert_eq!(waits, [true, false, false, true]);
    }

    #[test]
    fn an_event_cannot_write_lines_of_its_own() {
        // What the log holds is one line; an index from a field holds no quote and no break.
        let event = r#"{"kind":"a\"}}\n{\"delete\":{\"_index\":\"x\"}}"}"#;
        let bulk = encoder("jobs-{event.kind}", Metadata::Full).bulk(&batch(&[event]), &Arenas::default());
        assert!(bulk.body.is_empty() && bulk.left_out[0].is_some());
    }

    #[test]
    fn the_room_made_is_enough() {
        let event = r#"{"kind":"a"}"#;
        let batch = batch(&[event; 50]);
        let bulk = encoder(&"x".repeat(32), Metadata::Full).bulk(&batch, &Arenas::default());
        assert!(bulk.body.len() <= batch.encoded_bytes(Form::Lines, Metadata::Full) + 50 * (ACTION_BYTES_MAX + 32));
    }
}
