//! What is refused, and in which words.

use std::time::Duration;

use serde_json::json;
use spillway_delivery::event::EVENT_BYTES_MAX;
use spillway_delivery::intake::RefusalReason;

use super::*;

/// An object nested `depth` deep.
fn nested(depth: usize) -> String {
    format!("{}{}{}", "{\"a\":".repeat(depth - 1), "{}", "}".repeat(depth - 1))
}

#[tokio::test]
async fn bad_events_are_refused_alone_and_named() {
    let server = Server::start().await;
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(EVENT_BYTES_MAX));
    let deep = nested(10_000);
    for (bad, code, words) in [
        ("{\"a\" 1}", "malformed", "line 2, column 6: expected `:`, found `1`"),
        ("{\"a\":1", "malformed", "line 2, column 7: unexpected end of input"),
        ("{\"a\":1}}", "malformed", "line 2, column 8: unexpected text after the object, found `}`"),
        ("nonsense", "not_an_object", "line 2, column 1: expected an object, found `n`"),
        ("[1]", "not_an_object", "line 2, column 1: expected an object, found `[`"),
        ("17", "not_an_object", "found `1`"),
        ("{\"a\":\"\u{e9}\0\"}", "malformed", "line 2, column 8: control character in a string, found byte 0x00"),
        (&deep, "too_deep", "nested deeper than 128"),
        (&large, "event_too_large", "at most 1048576"),
    ] {
        let body = format!("{{\"first\":1}}\n{bad}\n\n{{\"last\":1}}");
        let answer = server.post("", body.as_bytes()).await;
        assert_eq!(answer.status, 207, "{answer:?}");
        let json = answer.json();
        assert_eq!((&json["accepted"], &json["refused"]), (&json!(2), &json!(1)));
        let error = &json["errors"][0];
        assert_eq!((&error["index"], &error["code"]), (&json!(1), &json!(code)), "{json}");
        assert!(error["message"].as_str().unwrap().contains(words), "{json}");
        assert_eq!(server.recorder.payloads(), ["{\"first\":1}\n{\"last\":1}\n"]);
    }
    assert_eq!(server.stats.refused_events().map(|(_, count)| count).sum::<u64>(), 9);
    assert_eq!(server.answered(207), 9);
}

#[tokio::test]
async fn invalid_utf8_is_refused_alone() {
    let server = Server::start().await;
    let answer = server.post("", b"{\"a\":1}\n{\"a\":\"\xff\"}\n").await;
    let error = &answer.json()["errors"][0];
    assert_eq!((answer.status, &error["code"]), (207, &json!("invalid_utf8")));
    assert_eq!(error["message"], json!("line 2, column 7: invalid UTF-8, found byte 0xFF"));
}

#[tokio::test]
async fn the_list_of_refused_events_is_bounded_and_the_count_is_not() {
    let server = Server::start().await;
    let body = format!("{{}}\n{}", "x\n".repeat(5000));
    let json = server.post("", body.as_bytes()).await.json();
    assert_eq!((&json["accepted"], &json["refused"]), (&json!(1), &json!(5000)));
    assert_eq!(json["errors"].as_array().unwrap().len(), 100);
    assert_eq!(json["errors"][99]["index"], json!(100));
}

#[tokio::test]
async fn a_body_without_any_event_names_line_and_column() {
    let server = Server::start().await;
    for (body, code, line, column, message) in [
        ("", "empty_body", 1, 1, "line 1, column 1: the body is empty"),
        (" \n\t ", "empty_body", 1, 1, "expected a JSON object, an array of them, or NDJSON"),
        ("{\"a\":tru}", "malformed", 1, 6, "line 1, column 6: expected a value, found `t`"),
        ("{\n  \"a\": 1\n  \"b\": 2\n}", "malformed", 3, 3, "line 3, column 3: expected `,` or `}`, found `\"`"),
        ("[{\"a\":1},\n {\"b\" 2}]", "malformed", 2, 7, "expected `:`, found `2`"),
        ("[{\"a\":1}", "malformed", 1, 9, "unexpected end of input"),
        ("[{}] x", "malformed", 1, 6, "unexpected text after the array, found `x`"),
        ("[1,2]", "not_an_object", 1, 2, "expected an object, found `1`"),
        ("\u{feff}{}", "malformed", 1, 1, "expected an object, found byte 0xEF"),
        ("\0", "malformed", 1, 1, "found byte 0x00"),
    ] {
        let answer = server.post("", body.as_bytes()).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, code), "{body:?} {answer:?}");
        let json = answer.json();
        assert_eq!((&json["line"], &json["column"]), (&json!(line), &json!(column)), "{body:?} {json}");
        assert!(json["message"].as_str().unwrap().contains(message), "{body:?} {json}");
    }
    let deep_array = format!("[{}]", nested(10_000));
    let answer = server.post("", deep_array.as_bytes()).await;
    assert_eq!((answer.status, answer.code().as_str()), (400, "too_deep"));
    assert!(server.recorder.take().is_empty());
}

#[tokio::test]
async fn an_event_that_is_too_large_is_413_and_names_the_limit() {
    let server = Server::start().await;
    let exact = format!("{{\"a\":\"{}\"}}", "x".repeat(EVENT_BYTES_MAX - 8));
    assert_eq!(server.post("", exact.as_bytes()).await.status, 202);
    for body in [format!(" {exact} x"), exact.replace("{\"a\"", "{\"ab\""), exact.replace("{\"a\"", "{\n\n\"a\"")] {
        let answer = server.post("", body.as_bytes()).await;
        assert_eq!((answer.status, answer.code().as_str()), (413, "event_too_large"));
        assert_eq!(answer.json()["limit"], json!(EVENT_BYTES_MAX));
    }
}

#[tokio::test]
async fn what_the_intake_says_is_what_the_client_hears() {
    let server = Server::start().await;
    let refused = |reason, retry_after| SubmitError::Refused { pipeline: "jobs".into(), reason, retry_after };
    let (none, more) = (Duration::ZERO, Duration::from_millis(2_001));
    for (error, status, code, retry_after) in [
        (refused(RefusalReason::Full, more), 429, "full", Some("3")),
        (refused(RefusalReason::NoSpace, none), 503, "no_space", Some("1")),
        (refused(RefusalReason::Faulted, none), 503, "faulted", Some("1")),
        (refused(RefusalReason::Suspended, none), 503, "suspended", Some("1")),
        (refused(RefusalReason::Stopping, none), 503, "stopping", Some("1")),
        (SubmitError::KeyReused, 422, "key_reused", None),
        (SubmitError::Unknown { pipeline: "jobs".into() }, 500, "unknown", None),
    ] {
        server.recorder.answer(error);
        let answer = server.post("idempotency-key: k\r\n", b"{}").await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code));
        assert_eq!(answer.header("retry-after"), retry_after, "{code}");
        assert_eq!(server.answered(status), server.answered(status).max(1));
    }
    assert_eq!(server.stats.accepted_events(), 0);
    assert!(server.recorder.take().is_empty());
}

#[tokio::test]
async fn wrong_methods_paths_keys_and_encodings_are_told_in_json() {
    let server = Server::start().await;
    let get = server.send(b"GET /v1/events HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!((get.status, get.code().as_str(), get.header("allow")), (405, "method_not_allowed", Some("post")));
    let delete = server.send(b"DELETE /v1/ingest/events:batch HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!((delete.status, delete.header("allow")), (405, Some("post")));
    for path in ["/", "/v1/events/", "/v1/other", "/livez", "/v1/ingest/events:other"] {
        let answer = server.send(&request(path, "", b"{}")).await;
        assert_eq!((answer.status, answer.code().as_str()), (404, "not_found"), "{path}");
    }
    let long = format!("idempotency-key: {}\r\n", "k".repeat(257));
    for headers in ["idempotency-key: \r\n", "idempotency-key: a b\r\n", "idempotency-key: \u{e9}\r\n", &long] {
        let answer = server.post(headers, b"{}").await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_key"), "{headers}");
    }
    let longest = format!("idempotency-key: {}\r\n", "k".repeat(256));
    assert_eq!(server.post(&longest, b"{}").await.status, 202);
    for headers in ["br", "gzip, zstd", "gzip\r\ncontent-encoding: gzip", "deflate"] {
        let answer = server.post(&format!("content-encoding: {headers}\r\n"), b"{}").await;
        assert_eq!((answer.status, answer.code().as_str()), (415, "unsupported_encoding"), "{headers}");
        assert_eq!(answer.header("accept-encoding"), Some("gzip, zstd, identity"));
    }
}

#[tokio::test]
async fn a_body_that_is_not_what_its_encoding_says_is_400() {
    let server = Server::start().await;
    let mut flipped = gzip(b"{\"a\":1}\n");
    let end = flipped.len() - 6;
    flipped[end] ^= 1;
    let (cut_gzip, cut_zstd) = (gzip(b"{\"a\":1}\n"), zstd(b"{\"a\":1}\n"));
    for (coding, body) in [
        ("gzip", b"{\"a\":1}\n".to_vec()),
        ("gzip", cut_gzip[..cut_gzip.len() - 1].to_vec()),
        ("gzip", [gzip(b"{}\n"), b"trailing".to_vec()].concat()),
        ("gzip", flipped),
        ("gzip", Vec::new()),
        ("zstd", b"{\"a\":1}\n".to_vec()),
        ("zstd", cut_zstd[..cut_zstd.len() - 1].to_vec()),
        ("zstd", cut_zstd[..5].to_vec()),
        ("zstd", [zstd(b"{}\n"), b"trailing".to_vec()].concat()),
        ("zstd", gzip(b"{}\n")),
    ] {
        let answer = server.post(&format!("content-encoding: {coding}\r\n"), &body).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "malformed_encoding"), "{coding} {body:?}");
    }
    assert!(server.recorder.take().is_empty());
}
