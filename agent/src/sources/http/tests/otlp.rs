//! OTLP over the same sockets: answers in the encoding of the request, and whether to send again.

use std::time::Duration;

use serde_json::{Value as Json, json};
use spillway_delivery::event::EVENT_BYTES_MAX;
use spillway_delivery::intake::{RefusalReason, SubmitError};

use super::{Answer, Server, request};
use crate::sources::otlp::{Signal, to_protobuf};

const JSON: &str = "application/json";
const PROTOBUF: &str = "application/x-protobuf";

fn logs(messages: &[&str]) -> Vec<u8> {
    let records: Vec<Json> = messages.iter().map(|text| json!({"body": {"stringValue": text}})).collect();
    json!({"resourceLogs": [{"scopeLogs": [{"logRecords": records}]}]}).to_string().into_bytes()
}

async fn post(server: &Server, path: &str, content_type: &str, body: &[u8]) -> Answer {
    server.send(&request(path, &format!("content-type: {content_type}\r\n"), body)).await
}

#[tokio::test]
async fn a_request_is_answered_in_its_encoding_once_it_is_kept() {
    let server = Server::start().await;
    let request = logs(&["a", "b"]);
    let wire = to_protobuf(Signal::Logs, &request).unwrap();
    for (content_type, body) in [("application/json; charset=utf-8", &request), (PROTOBUF, &wire)] {
        let answer = post(&server, "/v1/logs", content_type, body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.header("content-type"), content_type.split(';').next());
        let kept = server.recorder.payloads();
        let [kept] = &kept[..] else { panic!("{kept:?}") };
        assert_eq!(kept.lines().count(), 2);
        assert!(kept.contains(r#""message":"b""#));
    }
    let large = logs(&[&"x".repeat(EVENT_BYTES_MAX), "b"]);
    let answer = post(&server, "/v1/logs", JSON, &large).await;
    let told = answer.json();
    assert_eq!((answer.status, &told["partialSuccess"]["rejectedLogRecords"]), (200, &json!("1")), "{told}");
    let answer = post(&server, "/v1/logs", PROTOBUF, &to_protobuf(Signal::Logs, &large).unwrap()).await;
    // Field 1, a message, of which field 1 is the number 1.
    let bytes = answer.body.as_bytes();
    assert_eq!((answer.status, bytes[0], &bytes[2..4]), (200, 0x0a, &[0x08, 1][..]), "{answer:?}");
    assert_eq!(server.recorder.payloads().len(), 2);
    // Nothing at all is nothing to keep.
    assert_eq!(post(&server, "/v1/traces", PROTOBUF, b"").await.status, 200);
    assert!(server.recorder.payloads().is_empty());
}

#[tokio::test]
async fn what_is_refused_says_whether_to_send_it_again() {
    let server = Server::start().await;
    let refused =
        |reason| SubmitError::Refused { pipeline: "jobs".into(), reason, retry_after: Duration::from_secs(1) };
    for (error, status, code) in [
        (refused(RefusalReason::Full), 429, 8),
        (refused(RefusalReason::NoSpace), 503, 14),
        (SubmitError::Unknown { pipeline: "jobs".into() }, 503, 14),
    ] {
        let is_unknown = matches!(error, SubmitError::Unknown { .. });
        server.recorder.answer(error);
        let answer = post(&server, "/v1/logs", JSON, &logs(&["a"])).await;
        assert_eq!((answer.status, &answer.json()["code"]), (status, &json!(code)), "{answer:?}");
        assert_eq!(answer.header("retry-after").is_some(), !is_unknown, "{answer:?}");
    }
    for (path, content_type, body, status) in [
        ("/v1/logs", "text/plain", &b"x"[..], 415),
        ("/v1/logs", PROTOBUF, b"\x0a\xff", 400),
        ("/v1/metrics", JSON, b"{", 400),
    ] {
        let answer = post(&server, path, content_type, body).await;
        assert_eq!(answer.status, status, "{answer:?}");
    }
    let answer = post(&server, "/v1/logs", PROTOBUF, b"\x0a\xff").await;
    assert_eq!(answer.body.as_bytes()[..2], [0x08, 3], "google.rpc.Status: {answer:?}");
    assert!(server.recorder.payloads().is_empty());
}
