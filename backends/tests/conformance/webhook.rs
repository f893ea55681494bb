//! What `Webhook` adds to `HTTP`.

use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::hmac;
use spillway_backends::{BackendSettings, build};
use spillway_delivery::backend::{Backend, FaultKind, Items, Outcome};

use crate::batches::{NOW, batch, batch_of, context, pod, secret};
use crate::destinations::parse;
use crate::server::{Received, Reply, Server};

const CANARY: &str = "canary-77b2";

fn backend(directory: &Path, settings: serde_json::Value) -> Arc<dyn Backend> {
    build(&BackendSettings::Webhook(parse(settings)), context(directory)).unwrap()
}

/// As a receiver would: over the bytes that came.
fn is_signed(request: &Received, secret: &str) -> bool {
    let time = request.header("x-spillway-timestamp").unwrap();
    let hex = request.header("x-spillway-signature").unwrap().strip_prefix("sha256=").unwrap();
    let tag: Vec<u8> = (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
    let signed = [time.as_bytes(), b".", &request.body].concat();
    hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), &signed, &tag).is_ok()
}

#[tokio::test]
async fn each_request_is_signed_with_the_key_as_it_is_then() {
    let server = Server::start(|_, _| Reply::status(200)).await;
    let directory = tempfile::tempdir().unwrap();
    let reference = serde_json::json!({"name": "hook", "key": "key"});
    let settings = serde_json::json!({"url": server.url(), "signature": {"secretRef": reference}});
    let backend = backend(directory.path(), settings);
    let fault = backend.send(&batch(0..2)).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Local, "the key is not there: {fault}");
    secret(directory.path(), "hook", "key", "\n");
    assert_eq!(backend.send(&batch(0..2)).await.unwrap_err().kind, FaultKind::Local, "the key is empty");
    assert_eq!(server.seen().len(), 0, "nothing goes out unsigned");
    secret(directory.path(), "hook", "key", "first");
    backend.send(&batch(0..2)).await.unwrap();
    secret(directory.path(), "hook", "key", "second-one");
    backend.send(&batch(2..3)).await.unwrap();
    let seen = server.seen();
    assert!(is_signed(&seen[0], "first") && is_signed(&seen[1], "first") && is_signed(&seen[2], "second-one"));
    assert!(!is_signed(&seen[2], "first"));
    assert_eq!(seen[0].header("x-spillway-timestamp"), Some((NOW / 1_000_000_000).to_string().as_str()));
    assert_ne!(seen[0].header("x-spillway-signature"), seen[1].header("x-spillway-signature"));
}

#[tokio::test]
async fn an_alert_is_made_of_an_event() {
    let server = Server::start(|_, _| Reply::status(200)).await;
    let directory = tempfile::tempdir().unwrap();
    let body = r#"[{"labels": {"alertname": "JobFailed", "pod": "{origin.pod}"}, "annotations": {"n": "{event.n}", "more": {event.text}}, "startsAt": {received}}]"#;
    let settings = serde_json::json!({
        "url": server.url(), "body": body, "headers": [{"name": "Content-Type", "value": "application/vnd.alerts+json"}],
    });
    let backend = backend(directory.path(), settings);
    let outcome = backend.send(&batch_of(&[(pod("etch-07"), vec![4])], "k")).await;
    assert_eq!(outcome, Ok(Items::Each(vec![Outcome::Delivered])));
    let seen = server.seen();
    let alerts: serde_json::Value = serde_json::from_slice(&seen[0].body).unwrap();
    assert_eq!(alerts[0]["labels"]["pod"], "etch-07");
    assert_eq!(alerts[0]["annotations"]["n"], "4");
    assert_eq!(alerts[0]["annotations"]["more"], "xxxx");
    assert_eq!(alerts[0]["startsAt"], "2026-11-23T10:00:04.000000000Z");
    assert_eq!(seen[0].header("content-type"), Some("application/vnd.alerts+json"));
    assert_eq!(seen[0].header("idempotency-key"), Some("0000000000000007-4"));
}

#[tokio::test]
async fn nothing_secret_is_in_a_fault_or_in_debug_output() {
    let directory = tempfile::tempdir().unwrap();
    secret(directory.path(), "hook", "key", CANARY);
    let reference = serde_json::json!({"name": "hook", "key": "key"});
    for reply in [Reply::status(401), Reply::with(302, &format!("location: /?{CANARY}\r\n"), CANARY), Reply::Reset] {
        let server = Server::start(move |_, _| reply.clone()).await;
        let settings = serde_json::json!({
            "url": format!("{}?key={CANARY}", server.url()),
            "headers": [{"name": "X-Site", "value": "fab12"}],
            "signature": {"secretRef": reference},
            "auth": {"header": {"name": "X-API-Key", "valueSecretRef": reference}},
        });
        let backend = backend(directory.path(), settings);
        let fault = backend.send(&batch(0..2)).await.unwrap_err();
        let told = format!("{fault} {fault:?} {backend:?}");
        assert!(!told.contains(CANARY), "{told}");
    }
}
