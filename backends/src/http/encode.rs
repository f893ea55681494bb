//! Requests and answers of the `HTTP` backend, without any I/O.
//!
//! What a status means (the body of an answer never changes it, but for 207):
//!
//! | status | outcome | why |
//! | --- | --- | --- |
//! | 2xx | delivered | |
//! | 207 | each event as its list says, as with `ManagedAPI`; without one that accounts for every event `TooLarge`, of one `Broken` | some were refused |
//! | 400, 422, and 409 without `idempotencyKey` | a batch of one: rejected with the answer's text; more: `TooLarge` | the engine halves the batch until the bad item is alone |
//! | 409 with `idempotencyKey` | `Throttled` | an earlier attempt under this key is still being worked on |
//! | 401, 403 | `Unauthorized` | a secret may be rotated any moment |
//! | 408 | `Timeout` | |
//! | 413 | `TooLarge` | |
//! | 425, 429, 503 | `Throttled`, with `Retry-After` | |
//! | anything else, 3xx included | `Broken` | the endpoint as a whole is wrong or unwell: retried, never dropped |

use reqwest::header::RETRY_AFTER;
use spillway_delivery::backend::{Fault, FaultKind, Form, Items, OutBatch, Outcome};
use spillway_delivery::clock::UnixNanos;
use spillway_delivery::settings::Metadata;

use super::settings::HttpFormat;
use crate::answer::{one_line, parse_retry_after};
use crate::http_client::Answer;
use crate::managed_api::answers;
use crate::settings::Compression;

/// Returns what the body of a request is.
pub(super) fn content_type(format: HttpFormat) -> &'static str {
    match format {
        HttpFormat::Ndjson => "application/x-ndjson",
        HttpFormat::JsonArray | HttpFormat::JsonObject => "application/json",
    }
}

/// Returns how the body of a request is packed, as its header says.
pub(crate) fn content_encoding(compression: Compression) -> Option<&'static str> {
    match compression {
        Compression::None => None,
        Compression::Gzip => Some("gzip"),
        Compression::Zstd => Some("zstd"),
    }
}

/// Returns how a batch is written, the same for every attempt; of one event per request all of them are lines.
pub(super) fn form(format: HttpFormat) -> Form {
    match format {
        HttpFormat::JsonArray => Form::Array,
        HttpFormat::Ndjson | HttpFormat::JsonObject => Form::Lines,
    }
}

/// Returns the body before compression.
pub(super) fn body(batch: &OutBatch, format: HttpFormat, metadata: Metadata) -> Vec<u8> {
    let mut out = Vec::new();
    match form(format) {
        Form::Lines => batch.write_ndjson(&mut out, metadata),
        Form::Array => batch.write_json_array(&mut out, metadata),
    }
    out
}

/// What was asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    /// How many events the batch has.
    pub(crate) events: usize,
    /// Whether the request had an `Idempotency-Key`.
    pub(crate) keyed: bool,
}

/// Returns what became of the batch.
pub(crate) fn verdict(answer: &Answer, asked: Asked, now: UnixNanos) -> Result<Items, Fault> {
    let status = answer.status;
    let kind = match status {
        207 => return each(answer, asked.events, now),
        200..=299 => return Ok(Items::All(Outcome::Delivered)),
        409 if asked.keyed => FaultKind::Throttled,
        400 | 409 | 422 if asked.events == 1 => {
            return Ok(Items::All(Outcome::Rejected(reason(status, &answer.body).into())));
        }
        400 | 409 | 413 | 422 => FaultKind::TooLarge,
        401 | 403 => FaultKind::Unauthorized,
        408 => FaultKind::Timeout,
        425 | 429 | 503 => FaultKind::Throttled,
        _ => FaultKind::Broken,
    };
    let message = match status {
        300..=399 => format!("http {status}: redirects are not followed"),
        _ => format!("http {status}"),
    };
    let mut fault = Fault::new(kind, message).maybe_there(status >= 500 && kind == FaultKind::Broken);
    if kind == FaultKind::Throttled {
        fault.retry_after = answer.header(RETRY_AFTER).and_then(|text| parse_retry_after(text, now));
    }
    Err(fault)
}

/// Returns what a 207 says of each event. One that does not account for every event says of none that it was taken: half of them
/// may have a shorter list.
fn each(answer: &Answer, events: usize, now: UnixNanos) -> Result<Items, Fault> {
    answers::read(answer, events, now).map_err(|fault| match fault.kind {
        FaultKind::Broken if events > 1 => Fault { kind: FaultKind::TooLarge, ..fault },
        _ => fault,
    })
}

/// Returns what became of one event that was a request of its own.
pub(crate) fn verdict_of_one(answer: &Answer, keyed: bool, now: UnixNanos) -> Result<Outcome, Fault> {
    match verdict(answer, Asked { events: 1, keyed }, now) {
        Ok(Items::All(outcome)) => Ok(outcome),
        Ok(Items::Each(mut outcomes)) => Ok(outcomes.pop().unwrap_or(Outcome::Retry)),
        Err(fault) if fault.kind == FaultKind::TooLarge => {
            Ok(Outcome::Rejected(reason(answer.status, &answer.body).into()))
        }
        Err(fault) => Err(fault),
    }
}

/// Returns `HTTP 400: <beginning of the answer>` on one line.
pub(crate) fn reason(status: u16, text: &[u8]) -> String {
    match &*one_line(text) {
        "" => format!("HTTP {status}"),
        line => format!("HTTP {status}: {line}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::header::{HeaderMap, HeaderValue};

    fn ask(status: u16, events: usize, keyed: bool) -> Result<Items, Fault> {
        verdict(&answer(status), Asked { events, keyed }, 0)
    }

    fn answer(status: u16) -> Answer {
        let headers = [(RETRY_AFTER, HeaderValue::from_static("7"))].into_iter().collect();
        Answer { status, headers, body: b"bad\r\n\x1b[31mline".to_vec(), whole: true }
    }

    #[test]
    fn one_event_alone_is_never_too_large_for_another_try() {
        for status in [400, 413, 422] {
            let reason = format!("HTTP {status}: bad   [31mline").into();
            assert_eq!(verdict_of_one(&answer(status), true, 0), Ok(Outcome::Rejected(reason)));
        }
        assert_eq!(verdict_of_one(&answer(204), true, 0), Ok(Outcome::Delivered));
        assert_eq!(verdict_of_one(&answer(409), true, 0).unwrap_err().kind, FaultKind::Throttled);
        assert_eq!(verdict_of_one(&answer(500), true, 0).unwrap_err().kind, FaultKind::Broken);
    }

    #[test]
    fn every_status_has_one_meaning() {
        for status in [200, 201, 202, 204, 299] {
            assert_eq!(ask(status, 3, true), Ok(Items::All(Outcome::Delivered)));
        }
        for (status, kind) in [
            (301, FaultKind::Broken),
            (308, FaultKind::Broken),
            (400, FaultKind::TooLarge),
            (401, FaultKind::Unauthorized),
            (403, FaultKind::Unauthorized),
            (404, FaultKind::Broken),
            (405, FaultKind::Broken),
            (408, FaultKind::Timeout),
            (409, FaultKind::Throttled),
            (413, FaultKind::TooLarge),
            (415, FaultKind::Broken),
            (422, FaultKind::TooLarge),
            (425, FaultKind::Throttled),
            (429, FaultKind::Throttled),
            (500, FaultKind::Broken),
            (502, FaultKind::Broken),
            (503, FaultKind::Throttled),
            (504, FaultKind::Broken),
            (999, FaultKind::Broken),
            (101, FaultKind::Broken),
        ] {
            let fault = ask(status, 3, true).unwrap_err();
            assert_eq!(fault.kind, kind, "{status}");
            assert_eq!(fault.retry_after.is_some(), kind == FaultKind::Throttled, "{status}");
            assert!(fault.message.contains(&status.to_string()), "{status}");
            assert_eq!(fault.may_be_there, matches!(status, 500 | 502 | 504 | 999), "{status}");
        }
        assert_eq!(ask(409, 3, false).unwrap_err().kind, FaultKind::TooLarge);
    }

    #[test]
    fn a_207_says_what_became_of_each() {
        let said = |text: &str, events| {
            let answer = Answer { status: 207, headers: HeaderMap::new(), body: text.as_bytes().to_vec(), whole: true };
            verdict(&answer, Asked { events, keyed: false }, 0)
        };
        let list = r#"{"accepted": 1, "refused": 1, "errors": [{"index": 1, "code": "event_too_large", "message": "1048577"}]}"#;
        let refused = Outcome::Rejected("event_too_large: 1048577".into());
        assert_eq!(said(list, 2), Ok(Items::Each(vec![Outcome::Delivered, refused])));
        // A list that was cut, or none.
        for text in [list, "", "<multistatus/>"] {
            assert_eq!(said(text, 500).unwrap_err().kind, FaultKind::TooLarge, "{text}");
        }
        assert_eq!(said("", 1).unwrap_err().kind, FaultKind::Broken);
    }

    #[test]
    fn one_bad_item_is_rejected_with_the_answer_on_one_line() {
        for status in [400, 422] {
            let reason = format!("HTTP {status}: bad   [31mline").into();
            assert_eq!(ask(status, 1, true), Ok(Items::All(Outcome::Rejected(reason))));
        }
        assert_eq!(reason(400, b" \n "), "HTTP 400");
    }
}
