//! What servers do wrong, and what the `HTTP` backend makes of it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use spillway_backends::{BackendSettings, BuildContext, build};
use spillway_delivery::backend::{Backend, Fault, FaultKind, Items, Outcome};
use spillway_delivery::settings::Metadata;
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::batches::{batch, context, secret};
use crate::destinations::parse;
use crate::log::{Log, logged_to};
use crate::server::{Reply, Server};

const CANARY: &str = "canary-8c1f";

fn http(directory: &Path, settings: serde_json::Value) -> Arc<dyn Backend> {
    build(&BackendSettings::Http(parse(settings)), context(directory)).unwrap()
}

async fn send_to(reply: Reply) -> Result<Items, Fault> {
    let server = Server::start(move |_, _| reply.clone()).await;
    let directory = tempfile::tempdir().unwrap();
    http(directory.path(), serde_json::json!({"url": server.url()})).send(&batch(0..3)).await
}

#[tokio::test]
async fn the_request_is_what_the_settings_say() {
    let server = Server::start(|_, _| Reply::status(200)).await;
    let directory = tempfile::tempdir().unwrap();
    secret(directory.path(), "api", "token", "one\n");
    let settings = serde_json::json!({
        "url": format!("{}?site=fab12", server.url()), "method": "PUT", "compression": "Gzip",
        "headers": [{"name": "X-Site", "value": "fab12"}],
        "auth": {"bearer": {"tokenSecretRef": {"name": "api", "key": "token"}}},
    });
    let backend = http(directory.path(), settings);
    backend.send(&batch(0..3)).await.unwrap();
    secret(directory.path(), "api", "token", "other\n");
    backend.send(&batch(3..6)).await.unwrap();
    let seen = server.seen();
    assert_eq!(seen[0].line, "PUT /in?site=fab12 HTTP/1.1");
    for (name, value) in [
        ("x-site", "fab12"),
        ("content-type", "application/x-ndjson"),
        ("content-encoding", "gzip"),
        ("idempotency-key", "key-0-3"),
        ("authorization", "Bearer one"),
        ("user-agent", concat!("spillway/", env!("CARGO_PKG_VERSION"))),
    ] {
        assert_eq!(seen[0].header(name), Some(value), "{name}");
    }
    assert_eq!(seen[1].header("authorization"), Some("Bearer other"), "a rotated secret is used at once");
}

#[tokio::test]
async fn an_array_is_one_request_and_an_object_is_one_event() {
    let directory = tempfile::tempdir().unwrap();
    for metadata in [Metadata::None, Metadata::Full] {
        let server = Server::start(|_, _| Reply::status(200)).await;
        let settings = serde_json::json!({"url": server.url(), "format": "JSONArray"});
        let context = BuildContext { metadata, ..context(directory.path()) };
        let backend = build(&BackendSettings::Http(parse(settings)), context).unwrap();
        assert!(backend.traits().keyed);
        backend.send(&batch(0..3)).await.unwrap();
        let seen = server.seen();
        assert_eq!((seen.len(), seen[0].header("content-type")), (1, Some("application/json")));
        let events: Vec<serde_json::Value> = serde_json::from_slice(&seen[0].body).unwrap();
        assert_eq!(events.len(), 3);
        assert_eq!(events[2].get("_spillway").is_some(), metadata == Metadata::Full);
    }
    let server = Server::start(|_, _| Reply::status(200)).await;
    let backend = http(directory.path(), serde_json::json!({"url": server.url(), "format": "JSONObject"}));
    assert!(!backend.traits().keyed && backend.traits().batch_events_max == Some(16));
    backend.send(&batch(0..3)).await.unwrap();
    let seen = server.seen();
    let keys: Vec<_> = seen.iter().map(|request| request.header("idempotency-key").unwrap()).collect();
    assert_eq!(keys, ["0000000000000007-0", "0000000000000007-1", "0000000000000007-2"]);
    assert_eq!(seen[1].body, crate::batches::event(1).into_bytes());
    assert_eq!(seen[1].header("content-type"), Some("application/json"));
}

#[tokio::test]
async fn each_event_of_its_own_request_has_its_own_outcome() {
    let server = Server::start(|_, request| match request.header("idempotency-key").unwrap() {
        "0000000000000007-1" => Reply::with(422, "", "no such job"),
        "0000000000000007-2" => Reply::status(500),
        "0000000000000007-3" => Reply::with(413, "", ""),
        "0000000000000007-5" => Reply::status(429),
        _ => Reply::status(202),
    })
    .await;
    let directory = tempfile::tempdir().unwrap();
    let backend = http(directory.path(), serde_json::json!({"url": server.url(), "format": "JSONObject"}));
    let expected = vec![
        Outcome::Delivered,
        Outcome::Rejected("HTTP 422: no such job".into()),
        Outcome::Retry,
        Outcome::Rejected("HTTP 413".into()),
        Outcome::Delivered,
        Outcome::Retry,
        Outcome::Retry,
    ];
    assert_eq!(backend.send(&batch(0..7)).await, Ok(Items::Each(expected)));
    assert_eq!(server.seen().len(), 6, "a server that asks for less gets no more of this batch");
    let fault = backend.send(&batch(5..7)).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Throttled, "nothing was taken: the fault is the backend's");
}

#[tokio::test]
async fn a_batch_of_single_requests_that_is_cut_off_goes_on_where_it_was() {
    let server = Server::start(|number, _| if number == 5 { Reply::Silence } else { Reply::status(200) }).await;
    let directory = tempfile::tempdir().unwrap();
    let backend = http(directory.path(), serde_json::json!({"url": server.url(), "format": "JSONObject"}));
    assert!(timeout(Duration::from_millis(500), backend.send(&batch(0..10))).await.is_err());
    assert_eq!(backend.send(&batch(0..10)).await, Ok(Items::Each(vec![Outcome::Delivered; 10])));
    let mut count = std::collections::BTreeMap::new();
    for request in server.seen() {
        *count.entry(request.header("idempotency-key").unwrap().to_owned()).or_insert(0) += 1;
    }
    let again: Vec<_> = count.iter().filter(|(_, count)| **count > 1).map(|(key, _)| key.as_str()).collect();
    assert_eq!((count.len(), again), (10, vec!["0000000000000007-5"]), "only the one without an answer is repeated");
    assert_eq!(backend.send(&batch(0..1)).await, Ok(Items::Each(vec![Outcome::Delivered])));
    assert_eq!(server.seen().len(), 12, "a finished batch is not remembered");
}

#[tokio::test]
async fn basic_and_header_auth_and_no_key_when_off() {
    let server = Server::start(|_, _| Reply::status(200)).await;
    let directory = tempfile::tempdir().unwrap();
    secret(directory.path(), "api", "pw", "open sesame");
    let reference = serde_json::json!({"name": "api", "key": "pw"});
    for auth in [
        serde_json::json!({"basic": {"username": "Aladdin", "passwordSecretRef": reference}}),
        serde_json::json!({"header": {"name": "X-API-Key", "valueSecretRef": reference}}),
    ] {
        let settings = serde_json::json!({"url": server.url(), "auth": auth, "idempotencyKey": false});
        let backend = http(directory.path(), settings);
        assert!(!backend.traits().keyed);
        backend.send(&batch(0..1)).await.unwrap();
    }
    let seen = server.seen();
    assert_eq!(seen[0].header("authorization"), Some("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="));
    assert_eq!(seen[1].header("x-api-key"), Some("open sesame"));
    assert!(seen.iter().all(|request| request.header("idempotency-key").is_none()));
}

#[tokio::test]
async fn a_bad_item_is_found_by_halving() {
    let server = Server::start(|_, request| {
        if request.lines().iter().any(|line| line.contains("\"n\":5,")) {
            Reply::with(400, "", "event 5 is\r\nbad")
        } else {
            Reply::status(200)
        }
    })
    .await;
    let directory = tempfile::tempdir().unwrap();
    let backend = http(directory.path(), serde_json::json!({"url": server.url()}));
    // What the engine does with `TooLarge`.
    let mut left = vec![(0u64, 8u64)];
    let mut rejected = Vec::new();
    while let Some((start, end)) = left.pop() {
        match backend.send(&batch(start..end)).await {
            Ok(Items::All(Outcome::Delivered)) => {}
            Ok(Items::All(Outcome::Rejected(reason))) => rejected.push((start, end, reason)),
            Err(fault) if fault.kind == FaultKind::TooLarge => {
                let middle = start.midpoint(end);
                left.extend([(start, middle), (middle, end)]);
            }
            other => panic!("{start}..{end}: {other:?}"),
        }
    }
    assert_eq!(rejected, [(5, 6, "HTTP 400: event 5 is  bad".into())]);
}

#[tokio::test]
async fn a_batch_that_is_too_large_is_told_apart() {
    assert_eq!(send_to(Reply::with(413, "", "text")).await.unwrap_err().kind, FaultKind::TooLarge);
}

#[tokio::test]
async fn answers_that_are_no_answers_are_faults() {
    let text = |text: &str| text.as_bytes().to_vec();
    for (what, reply) in [
        ("reset", Reply::Reset),
        ("closed", Reply::BytesAndClose(Vec::new())),
        ("garbage", Reply::BytesAndClose(vec![0xff; 5000])),
        ("another protocol", Reply::BytesAndClose(text("SSH-2.0-OpenSSH_9.9\r\n"))),
        ("half a head", Reply::BytesAndClose(text("HTTP/1.1 200 OK\r\ncontent-le"))),
        ("shorter than told", Reply::BytesAndClose(text("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort"))),
        ("a broken chunk", Reply::BytesAndClose(text("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"))),
        (
            "two lengths",
            Reply::BytesAndClose(text("HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab")),
        ),
        ("a head without end", Reply::Endless(text("HTTP/1.1 200 OK\r\n"), text("x-more: yes\r\n"))),
    ] {
        let fault = send_to(reply).await.unwrap_err();
        assert!(matches!(fault.kind, FaultKind::Broken | FaultKind::Unreachable), "{what}: {fault:?}");
    }
}

#[tokio::test]
async fn an_answer_of_any_size_is_not_read_to_its_end() {
    let head = b"HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n".to_vec();
    let huge = Reply::Endless(head, vec![b'x'; 64 << 10]);
    assert_eq!(send_to(huge).await, Ok(Items::All(Outcome::Delivered)), "the status is the answer");
    let head = b"HTTP/1.1 500 x\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    let endless = Reply::Endless(head, b"5\r\nhello\r\n".to_vec());
    assert_eq!(send_to(endless).await.unwrap_err().kind, FaultKind::Broken);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_never_comes_does_not_hold_the_batch() {
    let stuck = Reply::Bytes(b"HTTP/1.1 202 x\r\ncontent-length: 10\r\n\r\nhalf".to_vec());
    assert_eq!(send_to(stuck).await, Ok(Items::All(Outcome::Delivered)));
}

#[tokio::test]
async fn a_server_that_never_answers_is_left_by_the_engine() {
    let server = Server::start(|number, _| if number == 0 { Reply::Silence } else { Reply::status(200) }).await;
    let directory = tempfile::tempdir().unwrap();
    let backend = http(directory.path(), serde_json::json!({"url": server.url()}));
    let timed = timeout(Duration::from_millis(300), backend.send(&batch(0..3))).await;
    assert!(timed.is_err());
    assert_eq!(backend.send(&batch(0..3)).await, Ok(Items::All(Outcome::Delivered)));
    let seen = server.seen();
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[0].header("idempotency-key"), seen[1].header("idempotency-key"));
    assert_eq!(seen[0].body, seen[1].body);
}

#[tokio::test]
async fn nobody_there_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    let directory = tempfile::tempdir().unwrap();
    let fault = http(directory.path(), serde_json::json!({ "url": url })).send(&batch(0..1)).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Unreachable, "{fault}");
    let unknown = serde_json::json!({"url": "http://no-such-host.invalid/"});
    let fault = http(directory.path(), unknown).send(&batch(0..1)).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Unreachable, "{fault}");
}

#[tokio::test]
async fn secrets_are_in_no_fault_no_log_and_no_debug_output() {
    let log = Log::default();
    let guard = logged_to(&log);
    let directory = tempfile::tempdir().unwrap();
    let reference = serde_json::json!({"name": "api", "key": "token"});
    let mut told = String::new();
    for value in [CANARY.to_owned(), format!("{CANARY}\nX: y"), format!("{CANARY}\0")] {
        secret(directory.path(), "api", "token", &value);
        for auth in [
            serde_json::json!({"bearer": {"tokenSecretRef": reference}}),
            serde_json::json!({"basic": {"username": "u", "passwordSecretRef": reference}}),
            serde_json::json!({"header": {"name": "X-API-Key", "valueSecretRef": reference}}),
        ] {
            for reply in
                [Reply::status(401), Reply::with(302, &format!("location: /?{CANARY}\r\n"), CANARY), Reply::Reset]
            {
                let server = Server::start(move |_, _| reply.clone()).await;
                let settings = serde_json::json!({"url": format!("{}?key={CANARY}", server.url()), "auth": auth});
                let backend = http(directory.path(), settings);
                let fault = backend.send(&batch(0..2)).await.unwrap_err();
                told += &[fault.to_string(), format!("{fault:?} {backend:?}\n")].concat();
            }
        }
    }
    // A CA that is no CA, and a port nobody listens on.
    for url in [format!("https://127.0.0.1:1/?key={CANARY}"), format!("http://127.0.0.1:1/?key={CANARY}")] {
        let mut settings = serde_json::json!({ "url": url });
        if url.starts_with("https") {
            settings["tls"] = serde_json::json!({ "caSecretRef": reference });
        }
        let backend = http(directory.path(), settings);
        let fault = backend.send(&batch(0..2)).await.unwrap_err();
        told += &[fault.to_string(), format!("{fault:?} {backend:?}\n")].concat();
    }
    drop(guard);
    assert!(told.contains("api/token") && told.contains("401"), "{told}");
    assert!(!told.contains(CANARY), "{told}");
    assert_eq!(log.lines_with(&[CANARY]), [""; 0]);
}
