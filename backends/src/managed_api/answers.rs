//! What a managed service answers, item by item. No I/O.
//!
//! | answer | outcome |
//! | --- | --- |
//! | 2xx without a list | delivered, all of it; a 207 without one is `Broken` |
//! | 2xx, 400 or 422 with a list | each item of the list by its code; the others delivered (2xx), or to be sent again |
//! | anything else | as with `HTTP` |
//!
//! A list is the answer itself, or its members `errors`, `items` and `results`, as many as there are; an item is
//! `{index, code, message}`. A code is a status or a word:
//!
//! | code | outcome |
//! | --- | --- |
//! | 2xx, `ok`, `accepted` | delivered |
//! | 409, `duplicate`, `already_exists` | duplicate: success |
//! | 401, 403, 408, 425, 429, 5xx, `throttled`, `rate_limited`, `unavailable`, `timeout`, `internal` | to be sent again |
//! | anything else | rejected, with code and message |
//!
//! When nothing but refusals for now came back, the fault is that of the service as a whole: `Throttled`, `Retry-After`
//! honoured. An answer that names an event that was not sent, or whose `accepted` does not account for every event, is
//! `Broken`: nobody can vouch for any of it. So is a success that begins as JSON and is none, and one that does not end in
//! time. One that is longer than what is read of it halves the batch, for a smaller one has a shorter answer.

use std::ops::RangeInclusive;

use reqwest::header::RETRY_AFTER;
use serde_json::Value;
use spillway_delivery::backend::{Fault, FaultKind, Items, Outcome};
use spillway_delivery::clock::UnixNanos;

use crate::answer::{one_line, parse_retry_after};
use crate::http::encode::{Asked, verdict};
use crate::http_client::Answer;

/// Most bytes of an answer's body that are read.
pub(super) const ANSWER_BYTES_MAX: usize = 4 << 20;

/// Members of an answer that hold its items.
const LISTS: [&str; 3] = ["errors", "items", "results"];

/// Returns what became of a batch.
pub(crate) fn read(answer: &Answer, events: usize, now: UnixNanos) -> Result<Items, Fault> {
    let status = answer.status;
    if !matches!(status, 200..=299 | 400 | 422) {
        return verdict(answer, Asked { events, keyed: true }, now);
    }
    let body = if status < 300 { vouched(answer, events)? } else { parsed(&answer.body).unwrap_or_default() };
    let lists = body.as_array().into_iter().chain(LISTS.iter().filter_map(|name| body.get(name)?.as_array()));
    let list: Vec<&Value> = lists.flatten().collect();
    if list.is_empty() {
        return match status {
            207 => Err(Fault::new(FaultKind::Broken, "http 207 without a list of items")),
            200..=299 => accounted(&body, events..=events).map(|()| Items::All(Outcome::Delivered)),
            _ => verdict(answer, Asked { events, keyed: true }, now),
        };
    }
    let taken = status < 300;
    let mut listed: Vec<Option<Outcome>> = vec![None; events];
    for item in list {
        let index = item["index"].as_u64().and_then(|index| usize::try_from(index).ok());
        let Some(outcome) = index.and_then(|index| listed.get_mut(index)) else {
            return Err(Fault::new(FaultKind::Broken, format_args!("http {status} names an event that was not sent")));
        };
        let now = outcome_of(item);
        *outcome = Some(outcome.take().map_or(now.clone(), |before| worse(before, now)));
    }
    let unlisted = if taken { Outcome::Delivered } else { Outcome::Retry };
    let outcomes: Vec<Outcome> = listed.into_iter().map(|outcome| outcome.unwrap_or(unlisted.clone())).collect();
    if taken {
        let count = |wanted: &Outcome| outcomes.iter().filter(|outcome| *outcome == wanted).count();
        let delivered = count(&Outcome::Delivered);
        accounted(&body, delivered..=delivered + count(&Outcome::Duplicate))?;
    }
    if outcomes.iter().all(|outcome| *outcome == Outcome::Retry) {
        let mut fault = Fault::new(FaultKind::Throttled, format_args!("http {status}: no event was taken now"));
        fault.retry_after = answer.header(RETRY_AFTER).and_then(|text| parse_retry_after(text, now));
        return Err(fault);
    }
    Ok(Items::Each(outcomes))
}

/// Returns what counts of an event that is listed more than once: whatever speaks against it.
fn worse(before: Outcome, now: Outcome) -> Outcome {
    match (before, now) {
        (refused @ Outcome::Rejected(_), _) | (_, refused @ Outcome::Rejected(_)) => refused,
        (Outcome::Retry, _) | (_, Outcome::Retry) => Outcome::Retry,
        (_, now) => now,
    }
}

/// Returns the body of a success; `Null` when it says nothing. A part of one, or a damaged one, may hide what was refused.
fn vouched(answer: &Answer, events: usize) -> Result<Value, Fault> {
    let status = answer.status;
    if !answer.whole && answer.body.len() >= ANSWER_BYTES_MAX {
        let kind = if events > 1 { FaultKind::TooLarge } else { FaultKind::Broken };
        let text = format_args!("http {status} with an answer of more than {ANSWER_BYTES_MAX} bytes");
        return Err(Fault::new(kind, text).maybe_there(true));
    }
    if !answer.whole {
        return Err(Fault::new(FaultKind::Broken, format_args!("http {status} with an answer that does not end")));
    }
    match (parsed(&answer.body), answer.body.trim_ascii_start().first()) {
        (Some(body), _) => Ok(body),
        (None, Some(b'{' | b'[')) => {
            Err(Fault::new(FaultKind::Broken, format_args!("http {status} with an answer that is damaged JSON")))
        }
        (None, _) => Ok(Value::Null),
    }
}

fn parsed(body: &[u8]) -> Option<Value> {
    serde_json::from_slice(body).ok()
}

/// Fails when `accepted` is told and is not what the items leave; whether it counts duplicates is the service's affair.
fn accounted(body: &Value, expected: RangeInclusive<usize>) -> Result<(), Fault> {
    match body["accepted"].as_u64().map(|accepted| usize::try_from(accepted).unwrap_or(usize::MAX)) {
        Some(accepted) if !expected.contains(&accepted) => {
            let text = format!("the answer accepts {accepted} events where its items leave {}", expected.end());
            Err(Fault::new(FaultKind::Broken, text))
        }
        _ => Ok(()),
    }
}

fn outcome_of(item: &Value) -> Outcome {
    let code = match &item["code"] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match code.parse::<u16>() {
        Ok(200..=299) => return Outcome::Delivered,
        Ok(409) => return Outcome::Duplicate,
        Ok(401 | 403 | 408 | 425 | 429 | 500..=599) => return Outcome::Retry,
        Ok(_) => {}
        Err(_) => match &*code.to_ascii_lowercase() {
            "ok" | "accepted" => return Outcome::Delivered,
            "duplicate" | "already_exists" => return Outcome::Duplicate,
            "throttled" | "rate_limited" | "unavailable" | "timeout" | "internal" => return Outcome::Retry,
            _ => {}
        },
    }
    let message = item["message"].as_str().unwrap_or_default();
    Outcome::Rejected(one_line(format!("{code}: {message}").as_bytes()).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::header::{HeaderMap, HeaderValue};

    fn ask(status: u16, body: &str, events: usize) -> Result<Items, Fault> {
        let headers = [(RETRY_AFTER, HeaderValue::from_static("7"))].into_iter().collect();
        read(&Answer { status, headers, body: body.into(), whole: true }, events, 0)
    }

    fn rejected(reason: &str) -> Outcome {
        Outcome::Rejected(reason.into())
    }

    #[test]
    fn a_success_that_hides_refusals_is_unpacked() {
        let list = r#"[{"index":1,"code":"too_large","message":"at most\n1 MiB"},{"index":2,"code":429},{"index":3,"code":"409"}]"#;
        let expected = Ok(Items::Each(vec![
            Outcome::Delivered,
            rejected("too_large: at most 1 MiB"),
            Outcome::Retry,
            Outcome::Duplicate,
        ]));
        assert_eq!(ask(207, list, 4), expected);
        assert_eq!(ask(200, &format!(r#"{{"accepted":1,"refused":3,"errors":{list}}}"#), 4), expected);
        assert_eq!(ask(202, &format!(r#"{{"items":{list}}}"#), 4), expected);
    }

    #[test]
    fn every_list_of_an_answer_counts() {
        let body = r#"{"errors":[],"results":[{"index":1,"code":429},{"index":2,"code":"ok"}]}"#;
        let expected = Items::Each(vec![Outcome::Delivered, Outcome::Retry, Outcome::Delivered]);
        assert_eq!(ask(200, body, 3), Ok(expected.clone()));
        let body = r#"{"errors":[{"index":1,"code":429}],"items":[{"index":1,"code":200},{"index":0,"code":200}]}"#;
        assert_eq!(ask(200, body, 3), Ok(expected), "what speaks against an event counts");
    }

    #[test]
    fn a_success_without_a_list_is_all_of_it() {
        for body in ["", "ok", "{}", r#"{"accepted":3}"#, r#"{"errors":[]}"#, "[]", r#"{"errors":false}"#] {
            assert_eq!(ask(202, body, 3), Ok(Items::All(Outcome::Delivered)), "{body}");
        }
    }

    #[test]
    fn a_part_of_a_success_proves_nothing() {
        let part = |bytes: usize, events| {
            let body = b"[".repeat(bytes);
            read(&Answer { status: 200, headers: HeaderMap::new(), body, whole: false }, events, 0).unwrap_err().kind
        };
        assert_eq!((part(ANSWER_BYTES_MAX, 2), part(ANSWER_BYTES_MAX, 1)), (FaultKind::TooLarge, FaultKind::Broken));
        assert_eq!((part(0, 2), part(9, 2)), (FaultKind::Broken, FaultKind::Broken), "the same batch, under its key");
    }

    #[test]
    fn an_answer_that_cannot_be_vouched_for_is_broken() {
        for (status, body) in [
            (207, ""),
            (207, "{}"),
            (202, r#"{"accepted":2}"#),
            (207, r#"{"accepted":3,"errors":[{"index":0,"code":400}]}"#),
            (207, r#"[{"index":3,"code":400}]"#),
            (207, r#"[{"index":-1,"code":400}]"#),
            (207, r#"[{"code":400}]"#),
            (207, "[1]"),
            (200, r#"{"accepted":1,"errors":[{"index":0,"#),
            (202, " [{\"index\":0,\"code\":400}"),
            (200, "{} more"),
            (200, "[\u{fffd}"),
            (207, r#"[{"index":18446744073709551616,"code":400}]"#),
        ] {
            assert_eq!(ask(status, body, 3).unwrap_err().kind, FaultKind::Broken, "{status} {body}");
        }
    }

    #[test]
    fn a_refusal_of_the_whole_that_names_items_sends_the_others_again() {
        let body = r#"{"code":"invalid","errors":[{"index":1,"code":"invalid_json","message":"x"}]}"#;
        let expected = Items::Each(vec![Outcome::Retry, rejected("invalid_json: x"), Outcome::Retry]);
        assert_eq!(ask(400, body, 3), Ok(expected));
        assert_eq!(ask(400, "no", 3).unwrap_err().kind, FaultKind::TooLarge);
        assert_eq!(ask(400, "no", 1), Ok(Items::All(rejected("HTTP 400: no"))));
    }

    #[test]
    fn throttling_of_the_whole_and_of_each_item_is_the_same() {
        for (status, body) in [(429, ""), (207, r#"[{"index":0,"code":429},{"index":1,"code":"rate_limited"}]"#)] {
            let fault = ask(status, body, 2).unwrap_err();
            let wait = Some(std::time::Duration::from_secs(7));
            assert_eq!((fault.kind, fault.retry_after), (FaultKind::Throttled, wait), "{status}");
        }
    }
}
