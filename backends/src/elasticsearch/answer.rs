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
//! | its index is no data stream, where one is required | retry | somebody may make a template or the stream |
//! | no index made now: blocked in the cluster, no shard left | retry | somebody may free disk, raise the limit, delete others |
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
use super::streams::REQUIRED;
use crate::answer::one_line;

mod usual;

/// Bytes of an answer besides those that grow with the request: one reason may repeat a whole value.
const BYTES_BASE: usize = 256 << 10;

/// Bytes of an answer per item: id, status, and an error of usual length.
const BYTES_PER_ITEM: usize = 512;

/// What servers say when an index would have one shard more than the cluster may.
const SHARDS_FULL: &str = "this action would add";

/// What a server says that was told to make no plain index, and would have made one, or was to write to one.
const STREAM_MISSING: [&str; 2] = ["the index creation request requires a data stream", REQUIRED];

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
    /// Whether each was refused because its index is no data stream.
    pub(super) has_no_stream: bool,
}

impl Verdict {
    fn all(outcome: Outcome) -> Self {
        Self { items: Items::All(outcome), waiting: None, has_no_stream: false }
    }
}

/// Returns what an answer means.
pub(super) fn verdict(status: u16, body: &[u8], ids: &[EventId]) -> Result<Verdict, Fault> {
    let kind = match status {
        200..=299 => return items(body, ids),
        // No handler for the path: the URL is wrong, and not an event.
        400 if is_flat(body) => FaultKind::Broken,
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
    }
    .maybe_there(status >= 500 && kind == FaultKind::Broken))
}

/// Returns whether the error of a body is a mere text: what a server says that has no handler for a path. Errors of requests and of
/// documents are objects.
fn is_flat(body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Body<'a> {
        #[serde(borrow)]
        error: std::borrow::Cow<'a, str>,
    }
    serde_json::from_slice::<Body<'_>>(body).is_ok_and(|body| !body.error.is_empty())
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
    /// How many were refused because their index is no data stream.
    streamless_count: usize,
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
            streamless_count: 0,
            id_text: Vec::with_capacity(EventId::TEXT_BYTES_MAX),
        }
    }

    /// Returns what it comes to, once there is an outcome for every document.
    fn verdict(self) -> Result<Verdict, Fault> {
        match self.whole {
            _ if self.plain => Ok(Verdict::all(Outcome::Delivered)),
            Some(fault) if self.whole_count == self.outcomes.len() => Err(fault),
            _ => {
                let has_no_stream = self.streamless_count == self.outcomes.len();
                Ok(Verdict { items: Items::Each(self.outcomes), waiting: self.waiting, has_no_stream })
            }
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
        let wants_stream = status == 404 && STREAM_MISSING.iter().any(|text| error.reason.contains(text));
        let whole = match (status, &*error.kind) {
            _ if wants_stream => None,
            (500.., _) => Some(FaultKind::Broken),
            (401, _) | (403, "security_exception") => Some(FaultKind::Unauthorized),
            (408 | 429, _) => None,
            _ if error.can_be_mended() => None,
            _ => return Outcome::Rejected(format!("{status} {error}").into()),
        };
        self.streamless_count += usize::from(wants_stream);
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
    /// Whether it is the state of an index or of the cluster that somebody mends, and not the document.
    fn can_be_mended(&self) -> bool {
        match &*self.kind {
            "index_closed_exception"
            | "cluster_block_exception"
            | "index_create_block_exception"
            | "index_not_found_exception" => true,
            // Elasticsearch calls it the one, OpenSearch the other, and both call much else so.
            "validation_exception" | "illegal_argument_exception" => self.reason.contains(SHARDS_FULL),
            _ => false,
        }
    }

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
mod tests;
