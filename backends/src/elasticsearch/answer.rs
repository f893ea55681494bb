//! Answers to bulk requests become outcomes. No I/O; one walk over the bytes, no tree of values.
//!
//! An answer in the very form that the servers write is compared (`usual`), any other is parsed; both mean the same.
//!
//! Of the request as a whole:
//!
//! | status | outcome | why |
//! | --- | --- | --- |
//! | 2xx | each item's own, below | |
//! | 400 with an error of the server's own | one document: rejected; more: `TooLarge` | halved until the bad one is alone |
//! | 413 | `TooLarge` | |
//! | 401, 403 | `Unauthorized` | a secret may be rotated any moment |
//! | 408 | `Timeout` | |
//! | 429, 503 | `Throttled`, with `Retry-After` | |
//! | anything else, 3xx included | `Broken` | |
//!
//! Of an item:
//!
//! | status | outcome | why |
//! | --- | --- | --- |
//! | 200, 201 | delivered | |
//! | 409 | duplicate | an earlier attempt created it: the id is the event's |
//! | 408, 429, 5xx | retry | the server asks for less, or is unwell |
//! | closed, blocked or missing index; no permission for it | retry | somebody may open, unblock, make or permit it |
//! | any other | rejected, with the server's reason | the same bytes fail again |
//!
//! When every item was refused by the server as a whole (5xx, no permission) the request is a fault, which the engine counts
//! against the destination. What is busy, closed or blocked is not: other indices may do well. How long such items are
//! tried again is the engine's business; why they wait is told beside them.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use spillway_delivery::backend::{Fault, FaultKind, Items, Outcome};
use spillway_delivery::event::EventId;

use super::encode::Bulk;
use crate::answer::one_line;

mod usual;

/// Bytes of an answer besides those that grow with the request: one reason may repeat a whole value.
const BYTES_BASE: usize = 256 << 10;

/// Bytes of an answer per item: id, status, and an error of usual length.
const BYTES_PER_ITEM: usize = 512;

/// Most bytes of any answer.
const BYTES_MAX: usize = 8 << 20;

/// Returns how much of the answer to a request is read: what honest servers need, within [`BYTES_MAX`].
pub(super) fn bytes_max(bulk: &Bulk) -> usize {
    (BYTES_BASE + bulk.ids.len() * BYTES_PER_ITEM + bulk.body.len()).min(BYTES_MAX)
}

/// What became of the documents of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    /// By the request as a whole, or each.
    pub(super) items: Items,
    /// Why the first that shall be tried again was not taken, on one line.
    pub(super) waiting: Option<String>,
}

impl Verdict {
    fn all(outcome: Outcome) -> Self {
        Self { items: Items::All(outcome), waiting: None }
    }
}

/// Returns what an answer means.
pub(super) fn verdict(status: u16, body: &[u8], ids: &[EventId]) -> Result<Verdict, Fault> {
    let kind = match status {
        200..=299 => return items(body, ids),
        400 => match server_error(body) {
            Some(reason) if ids.len() == 1 => {
                return Ok(Verdict::all(Outcome::Rejected(format!("HTTP 400: {reason}").into())));
            }
            Some(_) => FaultKind::TooLarge,
            // Not the server: something in front of it that does not like the request.
            None => FaultKind::Broken,
        },
        413 => FaultKind::TooLarge,
        401 | 403 => FaultKind::Unauthorized,
        408 => FaultKind::Timeout,
        429 | 503 => FaultKind::Throttled,
        _ => FaultKind::Broken,
    };
    let said = server_error(body).unwrap_or_else(|| one_line(body));
    Err(match (status, &*said) {
        (300..=399, _) => Fault::new(kind, format_args!("http {status}: redirects are not followed")),
        (_, "") => Fault::new(kind, format_args!("http {status}")),
        (_, said) => Fault::new(kind, format_args!("http {status}: {said}")),
    })
}

/// Returns the error of a body that is one of the server's own, on one line.
pub(super) fn server_error(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Body<'a> {
        #[serde(borrow)]
        error: &'a RawValue,
    }
    let body: Body<'_> = serde_json::from_slice(body).ok()?;
    Some(ItemError::read(body.error).to_string())
}

fn items(body: &[u8], ids: &[EventId]) -> Result<Verdict, Fault> {
    let mut found = Found::new(ids);
    if usual::read(body, &mut found) { found.verdict() } else { parsed(body, ids) }
}

fn parsed(body: &[u8], ids: &[EventId]) -> Result<Verdict, Fault> {
    let mut found = Found::new(ids);
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let read = Answer(&mut found).deserialize(&mut deserializer).and_then(|()| deserializer.end());
    if let Err(error) = read {
        let said = if body.is_empty() { "it is empty".to_owned() } else { error.to_string() };
        return Err(Fault::new(
            FaultKind::Broken,
            format_args!("answer cannot be read: {}", one_line(said.as_bytes())),
        ));
    }
    if found.outcomes.len() != ids.len() {
        let text = format!("answer has {} items for {} documents", found.outcomes.len(), ids.len());
        return Err(Fault::new(FaultKind::Broken, text));
    }
    found.verdict()
}

/// What a walk over the items has found.
struct Found<'i> {
    ids: &'i [EventId],
    outcomes: Vec<Outcome>,
    /// Every one was delivered.
    plain: bool,
    /// Why the first that shall be tried again was not taken.
    waiting: Option<String>,
    /// The first refusal by the server as a whole, and how many there are.
    whole: Option<Fault>,
    whole_count: usize,
    /// The id of the item being read, as it was sent.
    id_text: Vec<u8>,
}

impl<'i> Found<'i> {
    fn new(ids: &'i [EventId]) -> Self {
        Self {
            ids,
            outcomes: Vec::with_capacity(ids.len()),
            plain: true,
            waiting: None,
            whole: None,
            whole_count: 0,
            id_text: Vec::with_capacity(EventId::TEXT_BYTES_MAX),
        }
    }

    /// Returns what it comes to, once there is an outcome for every document.
    fn verdict(self) -> Result<Verdict, Fault> {
        match self.whole {
            _ if self.plain => Ok(Verdict::all(Outcome::Delivered)),
            Some(fault) if self.whole_count == self.outcomes.len() => Err(fault),
            _ => Ok(Verdict { items: Items::Each(self.outcomes), waiting: self.waiting }),
        }
    }

    /// Takes an item that was parsed, if it is that of the next document.
    fn take_parsed(&mut self, item: &Item<'_>) -> Result<(), String> {
        let place = self.outcomes.len();
        let Some(id) = self.ids.get(place) else {
            return Err(format!("it has more than {} items", self.ids.len()));
        };
        self.id_text.clear();
        id.write(&mut self.id_text);
        if *item.id.as_bytes() != *self.id_text {
            return Err(format!("its item {place} is of another document"));
        }
        self.take(item.status, item.error)
    }

    /// Takes what became of the next document.
    fn take(&mut self, status: u16, error: Option<&RawValue>) -> Result<(), String> {
        let outcome = match status {
            200 | 201 => Outcome::Delivered,
            409 => Outcome::Duplicate,
            400..=599 => self.refusal(status, error),
            _ => return Err(format!("its item {} has the status {status}", self.outcomes.len())),
        };
        self.plain &= outcome == Outcome::Delivered;
        self.outcomes.push(outcome);
        Ok(())
    }

    fn refusal(&mut self, status: u16, error: Option<&RawValue>) -> Outcome {
        if matches!(status, 408 | 429) && self.waiting.is_some() {
            // Whatever it says, it means the same, and one reason is told.
            return Outcome::Retry;
        }
        let error = error.map(ItemError::read).unwrap_or_default();
        let whole = match (status, &*error.kind) {
            (500.., _) => Some(FaultKind::Broken),
            (401, _) | (403, "security_exception") => Some(FaultKind::Unauthorized),
            (408 | 429, _)
            | (_, "index_closed_exception" | "cluster_block_exception" | "index_not_found_exception") => None,
            _ => return Outcome::Rejected(format!("{status} {error}").into()),
        };
        if let Some(kind) = whole {
            self.whole_count += 1;
            self.whole.get_or_insert_with(|| Fault::new(kind, format_args!("{status} {error}")));
        }
        self.waiting.get_or_insert_with(|| format!("{status} {error}"));
        Outcome::Retry
    }
}

/// One item of an answer, whatever the operation is called.
#[derive(Deserialize)]
struct Item<'a> {
    #[serde(rename = "_id", borrow)]
    id: std::borrow::Cow<'a, str>,
    status: u16,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

/// Why an item or a request was refused: an object, or only a text, as old servers and proxies say it.
#[derive(Default)]
struct ItemError {
    kind: String,
    reason: String,
    cause: String,
}

impl ItemError {
    fn read(raw: &RawValue) -> Self {
        #[derive(Deserialize)]
        struct Object {
            #[serde(default, rename = "type")]
            kind: String,
            #[serde(default)]
            reason: String,
            #[serde(default)]
            caused_by: Option<Cause>,
        }
        #[derive(Deserialize)]
        struct Cause {
            #[serde(default)]
            reason: Option<String>,
        }
        if let Ok(object) = serde_json::from_str::<Object>(raw.get()) {
            let cause = object.caused_by.and_then(|cause| cause.reason).unwrap_or_default();
            return Self { kind: object.kind, reason: object.reason, cause };
        }
        let reason = serde_json::from_str::<String>(raw.get()).unwrap_or_else(|_| raw.get().to_owned());
        Self { reason, ..Self::default() }
    }
}

impl fmt::Display for ItemError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [&*self.kind, &*self.reason, &*self.cause].map(|part| one_line(part.as_bytes()));
        let mut parts = parts.iter().filter(|part| !part.is_empty());
        if let Some(first) = parts.next() {
            f.write_str(first)?;
        }
        parts.try_for_each(|part| write!(f, ": {part}"))
    }
}

/// Reads `{…, "items": [{"create": {…}}, …], …}`.
struct Answer<'f, 'i>(&'f mut Found<'i>);

impl<'de> DeserializeSeed<'de> for Answer<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Answer<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the answer to a bulk request")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            if key == "items" {
                map.next_value_seed(ItemList(self.0))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

struct ItemList<'f, 'i>(&'f mut Found<'i>);

impl<'de> DeserializeSeed<'de> for ItemList<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for ItemList<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of items")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while let Some(Operation(item)) = seq.next_element()? {
            self.0.take_parsed(&item).map_err(A::Error::custom)?;
        }
        Ok(())
    }
}

/// An item under the name of its operation, the one member of its object.
struct Operation<'a>(Item<'a>);

impl<'de> Deserialize<'de> for Operation<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct One;
        impl<'de> Visitor<'de> for One {
            type Value = Operation<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an item under the name of its operation")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let item = map.next_entry::<IgnoredAny, Item<'de>>()?;
                let (_, item) = item.ok_or_else(|| A::Error::custom("an item without an operation"))?;
                match map.next_key::<IgnoredAny>()? {
                    None => Ok(Operation(item)),
                    Some(_) => Err(A::Error::custom("an item of two operations")),
                }
            }
        }
        deserializer.deserialize_map(One)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(count: usize) -> Vec<EventId> {
        (0..count as u64).map(|seq| EventId { incarnation: 1, seq }).collect()
    }

    /// Returns the verdict on an answer in which the ids are written `i0`, `i1`, ….
    fn heard(status: u16, body: &str, ids: &[EventId]) -> Result<Verdict, Fault> {
        verdict(status, body.replace("\"_id\":\"i", "\"_id\":\"0000000000000001-").as_bytes(), ids)
    }

    fn ask(items: &[(&str, u16, &str)], documents: usize) -> Result<Items, Fault> {
        let items: Vec<String> = items
            .iter()
            .map(|(id, status, error)| {
                let error = if error.is_empty() { String::new() } else { format!(",\"error\":{error}") };
                format!("{{\"create\":{{\"_index\":\"x\",\"_id\":\"{id}\",\"status\":{status}{error}}}}}")
            })
            .collect();
        let body = format!("{{\"took\":1,\"errors\":false,\"items\":[{}]}}", items.join(","));
        heard(200, &body, &ids(documents)).map(|verdict| verdict.items)
    }

    fn each(items: &[(&str, u16, &str)]) -> Vec<Outcome> {
        match ask(items, items.len()) {
            Ok(Items::Each(outcomes)) => outcomes,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_status_of_an_item_has_one_meaning() {
        for (status, kind, outcome) in [
            (409, "version_conflict_engine_exception", Outcome::Duplicate),
            (429, "es_rejected_execution_exception", Outcome::Retry),
            (429, "cluster_block_exception", Outcome::Retry),
            (503, "unavailable_shards_exception", Outcome::Retry),
            (500, "", Outcome::Retry),
            (408, "", Outcome::Retry),
            (400, "index_closed_exception", Outcome::Retry),
            (403, "cluster_block_exception", Outcome::Retry),
            (403, "security_exception", Outcome::Retry),
            (404, "index_not_found_exception", Outcome::Retry),
            (400, "document_parsing_exception", Outcome::Rejected("400 document_parsing_exception: no: why".into())),
            (400, "mapper_parsing_exception", Outcome::Rejected("400 mapper_parsing_exception: no: why".into())),
            (404, "", Outcome::Rejected("404 no: why".into())),
            (403, "other_exception", Outcome::Rejected("403 other_exception: no: why".into())),
        ] {
            let error = format!(r#"{{"type":"{kind}","reason":"no","caused_by":{{"type":"x","reason":"why"}}}}"#);
            assert_eq!(each(&[("i0", 201, ""), ("i1", status, &error)])[1], outcome, "{status} {kind}");
        }
        assert_eq!(ask(&[("i0", 201, ""), ("i1", 201, "")], 2), Ok(Items::All(Outcome::Delivered)));
    }

    #[test]
    fn reasons_are_one_line_whatever_form_they_have() {
        for (error, reason) in [
            (r#""text\nonly""#, "400 text only"),
            ("7", "400 7"),
            ("null", "400 "),
            (r#"{"type":"t"}"#, "400 t"),
            (r#"{"type":"t","reason":null}"#, r#"400 {"type":"t","reason":null}"#),
            (r#"{"reason":"a\u001b[31mb"}"#, "400 a [31mb"),
        ] {
            let outcomes = each(&[("i0", 201, ""), ("i1", 400, error)]);
            assert_eq!(outcomes[1], Outcome::Rejected(reason.into()), "{error}");
        }
    }

    #[test]
    fn all_refused_by_the_server_as_a_whole_is_a_fault_that_says_why() {
        for (status, kind, expected) in [
            (503, "unavailable_shards_exception", Some(FaultKind::Broken)),
            (500, "x", Some(FaultKind::Broken)),
            (403, "security_exception", Some(FaultKind::Unauthorized)),
            (429, "es_rejected_execution_exception", None),
            (400, "index_closed_exception", None),
        ] {
            let error = format!(r#"{{"type":"{kind}","reason":"because"}}"#);
            match (ask(&[("i0", status, &error), ("i1", status, &error)], 2), expected) {
                (Err(fault), Some(expected)) => {
                    assert_eq!(fault.kind, expected, "{kind}");
                    assert!(fault.message.contains("because"), "{fault}");
                }
                (Ok(items), None) => assert_eq!(items, Items::Each(vec![Outcome::Retry; 2]), "{kind}"),
                (other, _) => panic!("{kind}: {other:?}"),
            }
            let mixed = ask(&[("i0", status, &error), ("i1", 201, "")], 2);
            assert_eq!(mixed, Ok(Items::Each(vec![Outcome::Retry, Outcome::Delivered])), "{kind}");
        }
        let busy = |id: &str, reason: &str| {
            format!(r#"{{"create":{{"_id":"{id}","status":429,"error":{{"type":"t","reason":"{reason}"}}}}}}"#)
        };
        let answer = format!(r#"{{"items":[{},{}]}}"#, busy("i0", r"busy\nnow"), busy("i1", "later"));
        assert_eq!(heard(200, &answer, &ids(2)).unwrap().waiting.as_deref(), Some("429 t: busy now"));
    }

    #[test]
    fn answers_that_lie_or_break_off_are_faults() {
        let two = ids(2);
        let good =
            r#"{"errors":false,"items":[{"create":{"_id":"i0","status":201}},{"create":{"_id":"i1","status":201}}]}"#;
        assert!(heard(200, good, &two).is_ok());
        for cut in 0..good.len() {
            assert!(heard(200, &good[..cut], &two).is_err(), "{cut}");
        }
        for body in [
            "",
            "OK",
            "[]",
            "{}",
            "null",
            r#"{"errors":false}"#,
            r#"{"items":{}}"#,
            r#"{"items":[]}"#,
            r#"{"items":[{"create":{"_id":"i0","status":201}}]}"#,
            r#"{"items":[{"create":{"_id":"i1","status":201}},{"create":{"_id":"i0","status":201}}]}"#,
            r#"{"items":[{"create":{"_id":"i0","status":201}},{"create":{"_id":"i0","status":201}}]}"#,
            r#"{"items":[{"create":{"_id":"i0"}},{"create":{"_id":"i1","status":201}}]}"#,
            r#"{"items":[{"create":{"_id":"i0","status":0}},{"create":{"_id":"i1","status":201}}]}"#,
            r#"{"items":[{"create":{"_id":"i0","status":"201"}},{"create":{"_id":"i1","status":201}}]}"#,
            r#"{"items":[{"create":{"status":201}},{"create":{"status":201}}]}"#,
            r#"{"items":[{},{}]}"#,
            r#"{"items":[{"a":{"_id":"i0","status":201},"b":{"_id":"i1","status":201}}]}"#,
            r#"{"items":[{"create":{"_id":"i0","status":201}},{"create":{"_id":"i1","status":201}}]} more"#,
        ] {
            let fault = heard(200, body, &two).unwrap_err();
            assert_eq!(fault.kind, FaultKind::Broken, "{body}");
            assert!(fault.message.contains("answer"), "{body}: {fault}");
        }
        let three = ask(&[("i0", 201, ""), ("i1", 201, ""), ("i2", 201, "")], 2).unwrap_err();
        assert!(three.message.contains("more than 2 items"), "{three}");
    }

    #[test]
    fn every_status_of_a_request_has_one_meaning() {
        let own = br#"{"error":{"type":"illegal_argument_exception","reason":"bad\nline"},"status":400}"#;
        for (status, body, kind) in [
            (301, &b""[..], FaultKind::Broken),
            (400, own, FaultKind::TooLarge),
            (400, b"<html>plain HTTP request sent to HTTPS port</html>", FaultKind::Broken),
            (401, b"Unauthorized", FaultKind::Unauthorized),
            (403, own, FaultKind::Unauthorized),
            (404, b"", FaultKind::Broken),
            (408, b"", FaultKind::Timeout),
            (413, b"", FaultKind::TooLarge),
            (429, own, FaultKind::Throttled),
            (502, b"<html>", FaultKind::Broken),
            (503, b"", FaultKind::Throttled),
            (999, b"", FaultKind::Broken),
        ] {
            let fault = verdict(status, body, &ids(2)).unwrap_err();
            assert_eq!(fault.kind, kind, "{status}");
            assert!(fault.message.starts_with(&format!("http {status}")), "{fault}");
        }
        let reason = "HTTP 400: illegal_argument_exception: bad line";
        assert_eq!(verdict(400, own, &ids(1)), Ok(Verdict::all(Outcome::Rejected(reason.into()))));
        assert_eq!(verdict(400, b"", &ids(1)).unwrap_err().kind, FaultKind::Broken);
    }
}
