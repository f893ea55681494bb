//! What `ManagedAPI` adds to `HTTP`.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use spillway_backends::{BackendSettings, build};
use spillway_delivery::backend::{Backend, FaultKind, Items, Outcome};

use tokio::time::timeout;

use crate::batches::{batch, context, event, secret};
use crate::destinations::parse;
use crate::server::{Reply, Server};

const CANARY: &str = "canary-51d0";

fn backend(directory: &Path, server: &Server) -> Arc<dyn Backend> {
    secret(directory, "api", "token", CANARY);
    let token = serde_json::json!({"name": "api", "key": "token"});
    let url = format!("http://{}/eu/", server.address);
    let settings = parse(serde_json::json!({"url": url, "tokenSecretRef": token}));
    build(&BackendSettings::ManagedApi(settings), context(directory)).unwrap()
}

#[tokio::test]
async fn one_event_and_several_go_their_own_ways_under_the_token() {
    let server = Server::start(|_, _| Reply::with(202, "", r#"{"accepted":1}"#)).await;
    let directory = tempfile::tempdir().unwrap();
    let backend = backend(directory.path(), &server);
    assert_eq!(backend.send(&batch(0..1)).await, Ok(Items::All(Outcome::Delivered)));
    let fault = backend.send(&batch(1..3)).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Broken, "one of two is not all: {fault}");
    let seen = server.seen();
    assert_eq!(seen[0].line, "POST /eu/v1/ingest/events HTTP/1.1");
    assert_eq!(seen[0].body, event(0).into_bytes());
    assert_eq!(seen[1].line, "POST /eu/v1/ingest/events:batch HTTP/1.1");
    assert_eq!(seen[1].body, format!("[{},{}]", event(1), event(2)).into_bytes());
    for (request, key) in seen.iter().zip(["key-0-1", "key-1-3"]) {
        assert_eq!(request.header("authorization"), Some(format!("Bearer {CANARY}").as_str()));
        assert_eq!(request.header("content-type"), Some("application/json"));
        assert_eq!(request.header("idempotency-key"), Some(key));
    }
}

#[tokio::test]
async fn a_success_that_hides_refusals_is_unpacked() {
    let answer = r#"{"accepted":2,"refused":2,"errors":[
        {"index":1,"code":"event_too_large","message":"at most 1 KiB"},
        {"index":3,"code":429,"message":"later"}]}"#;
    for status in [200, 207] {
        let server = Server::start(move |_, _| Reply::with(status, "", answer)).await;
        let directory = tempfile::tempdir().unwrap();
        let expected = vec![
            Outcome::Delivered,
            Outcome::Rejected("event_too_large: at most 1 KiB".into()),
            Outcome::Delivered,
            Outcome::Retry,
        ];
        assert_eq!(backend(directory.path(), &server).send(&batch(0..4)).await, Ok(Items::Each(expected)));
    }
}

#[tokio::test]
async fn a_refusal_of_every_event_of_a_full_batch_is_read_to_its_end() {
    let items: Vec<String> =
        (0..1000).map(|index| format!(r#"{{"index":{index},"code":400,"message":"{}"}}"#, "x".repeat(1000))).collect();
    let answer = format!("[{}]", items.join(","));
    let server = Server::start(move |_, _| Reply::with(207, "", &answer)).await;
    let directory = tempfile::tempdir().unwrap();
    let backend = backend(directory.path(), &server);
    assert_eq!(backend.traits().batch_events_max, Some(1000));
    let Ok(Items::Each(outcomes)) = backend.send(&batch(0..1000)).await else { panic!("no items") };
    assert!(
        outcomes.iter().all(|outcome| matches!(outcome, Outcome::Rejected(reason) if reason.starts_with("400: x")))
    );
}

#[tokio::test]
async fn a_success_too_long_to_be_read_halves_the_batch_down_to_one_event() {
    let item = format!(r#"{{"index":0,"code":400,"message":"{}"}},"#, "x".repeat(1 << 20));
    let answer = format!("[{}{}]", item.repeat(4), &item[..item.len() - 1]);
    let server = Server::start(move |_, _| Reply::with(200, "", &answer)).await;
    let directory = tempfile::tempdir().unwrap();
    let backend = backend(directory.path(), &server);
    assert_eq!(backend.send(&batch(0..2)).await.unwrap_err().kind, FaultKind::TooLarge);
    assert_eq!(backend.send(&batch(0..1)).await.unwrap_err().kind, FaultKind::Broken, "no event is lost to it");
}

#[tokio::test(start_paused = true)]
async fn a_success_that_is_cut_slow_or_damaged_proves_nothing() {
    const LIST: &[u8] = br#"[{"index":0,"code":400,"message":"no"}]"#;
    let head = |length: usize| format!("HTTP/1.1 200 x\r\ncontent-length: {length}\r\n\r\n").into_bytes();
    for (what, reply) in [
        ("cut", Reply::BytesAndClose([head(LIST.len()), LIST[..20].to_vec()].concat())),
        (
            "cut at a chunk",
            Reply::BytesAndClose(b"HTTP/1.1 200 x\r\ntransfer-encoding: chunked\r\n\r\n1\r\n[\r\n".to_vec()),
        ),
        ("without length", Reply::BytesAndClose([b"HTTP/1.1 200 x\r\n\r\n".to_vec(), LIST[..20].to_vec()].concat())),
        ("stuck", Reply::Bytes(head(LIST.len()))),
        ("dripping", Reply::Drip(head(LIST.len()), LIST.to_vec())),
        ("damaged", Reply::with(200, "", &String::from_utf8_lossy(&LIST[..20]))),
    ] {
        let server = Server::start(move |_, _| reply.clone()).await;
        let directory = tempfile::tempdir().unwrap();
        let fault = backend(directory.path(), &server).send(&batch(0..2)).await.unwrap_err();
        assert!(matches!(fault.kind, FaultKind::Broken | FaultKind::Unreachable), "{what}: {fault:?}");
    }
}

#[tokio::test]
async fn after_a_failure_the_service_is_asked_how_it_is() {
    let server = Server::start(|number, _| match number {
        0 => Reply::status(500),
        1 => Reply::with(503, "retry-after: 9\r\n", ""),
        2 => Reply::Reset,
        3 => Reply::status(200),
        _ => Reply::status(202),
    })
    .await;
    let directory = tempfile::tempdir().unwrap();
    let backend = backend(directory.path(), &server);
    let mut faults = Vec::new();
    for _ in 0..3 {
        faults.push(backend.send(&batch(0..2)).await.unwrap_err());
    }
    let kinds: Vec<_> = faults.iter().map(|fault| fault.kind).collect();
    assert_eq!(kinds, [FaultKind::Broken, FaultKind::Throttled, FaultKind::Unreachable]);
    assert_eq!(faults[1].retry_after.map(|wait| wait.as_secs()), Some(9));
    assert_eq!(backend.send(&batch(0..2)).await, Ok(Items::All(Outcome::Delivered)));
    assert_eq!(backend.send(&batch(2..4)).await, Ok(Items::All(Outcome::Delivered)));
    let lines: Vec<_> = server.seen().iter().map(|request| request.line.clone()).collect();
    let (post, get) = ("POST /eu/v1/ingest/events:batch HTTP/1.1", "GET /eu/health HTTP/1.1");
    assert_eq!(lines, [post, get, get, get, post, post]);
    for fault in faults {
        assert!(!format!("{fault:?} {fault} {backend:?}").contains(CANARY));
    }
}

#[tokio::test]
async fn a_service_that_did_not_answer_is_asked_how_it_is() {
    let server = Server::start(|number, _| if number == 0 { Reply::Silence } else { Reply::status(202) }).await;
    let directory = tempfile::tempdir().unwrap();
    let backend = backend(directory.path(), &server);
    assert!(timeout(Duration::from_millis(300), backend.send(&batch(0..2))).await.is_err());
    assert_eq!(backend.send(&batch(0..2)).await, Ok(Items::All(Outcome::Delivered)));
    assert!(server.seen()[1].line.starts_with("GET /eu/health "));
}

#[tokio::test]
async fn a_service_that_keeps_its_health_path_to_itself_is_not_held_up_by_it() {
    for status in [301, 400, 401, 403] {
        let server = Server::start(move |number, request| match number {
            0 => Reply::status(500),
            _ if request.line.starts_with("GET") => Reply::status(status),
            _ => Reply::status(202),
        })
        .await;
        let directory = tempfile::tempdir().unwrap();
        let backend = backend(directory.path(), &server);
        assert_eq!(backend.send(&batch(0..2)).await.unwrap_err().kind, FaultKind::Broken);
        assert_eq!(backend.send(&batch(0..2)).await, Ok(Items::All(Outcome::Delivered)), "{status}");
    }
}

#[tokio::test]
async fn a_service_without_a_health_path_is_not_held_up_by_it() {
    let server = Server::start(|number, request| match number {
        0 => Reply::status(503),
        1 => Reply::status(500),
        _ if request.line.starts_with("GET") => Reply::status(404),
        _ => Reply::status(202),
    })
    .await;
    let directory = tempfile::tempdir().unwrap();
    let backend = backend(directory.path(), &server);
    assert_eq!(backend.send(&batch(0..2)).await.unwrap_err().kind, FaultKind::Throttled);
    assert_eq!(backend.send(&batch(0..2)).await.unwrap_err().kind, FaultKind::Broken, "a busy service is not unwell");
    assert_eq!(backend.send(&batch(0..2)).await, Ok(Items::All(Outcome::Delivered)));
}
