//! What servers of bulk requests do wrong, and what the `Elasticsearch` backend makes of it. The server is made by hand.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use spillway_backends::{BackendSettings, build};
use spillway_delivery::backend::{Backend, Fault, FaultKind, Items, Outcome};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{Instant, timeout};

use crate::batches::{batch, context, secret};
use crate::bulk;
use crate::destinations::parse;
use crate::server::{Reply, Server};

fn backend(directory: &Path, settings: serde_json::Value) -> Arc<dyn Backend> {
    build(&BackendSettings::Elasticsearch(parse(settings)), context(directory)).unwrap()
}

fn at(servers: &[&Server]) -> serde_json::Value {
    let urls: Vec<String> = servers.iter().map(|server| format!("http://{}", server.address)).collect();
    serde_json::json!({"urls": urls, "index": "jobs-{date}", "createTemplate": false})
}

async fn send_to(reply: Reply) -> Result<Items, Fault> {
    let server = Server::start(move |_, _| reply.clone()).await;
    let directory = tempfile::tempdir().unwrap();
    backend(directory.path(), at(&[&server])).send(&batch(0..3)).await
}

#[tokio::test]
async fn each_document_is_created_under_the_id_of_its_event() {
    let server = bulk::start(|_| 201).await;
    let directory = tempfile::tempdir().unwrap();
    let backend = backend(directory.path(), at(&[&server]));
    assert_eq!(backend.send(&batch(0..3)).await, Ok(Items::All(Outcome::Delivered)));
    let request = &server.seen()[0];
    assert!(request.line.starts_with("POST /_bulk?filter_path="), "{}", request.line);
    assert_eq!(request.header("content-type"), Some("application/x-ndjson"));
    let documents = bulk::documents(&server);
    assert_eq!(documents[2].0, "jobs-2026-11-23");
    assert_eq!(documents[2].1, "0000000000000007-2");
}

#[tokio::test]
async fn items_are_told_apart_and_only_the_busy_ones_come_again() {
    let server = bulk::start(|(_, id, _)| match id.bytes().last().unwrap() {
        b'1' => 409,
        b'2' => 429,
        b'3' => 400,
        _ => 201,
    })
    .await;
    let directory = tempfile::tempdir().unwrap();
    let sent = backend(directory.path(), at(&[&server])).send(&batch(0..5)).await;
    let reason = "400 made_up_exception: status 400 of 0000000000000007-3";
    let rejected = Outcome::Rejected(reason.into());
    let expected = vec![Outcome::Delivered, Outcome::Duplicate, Outcome::Retry, rejected, Outcome::Delivered];
    assert_eq!(sent, Ok(Items::Each(expected)));
}

#[tokio::test]
async fn every_answer_that_is_none_is_a_fault() {
    let ok = |body: &str| Reply::with(200, "", body);
    for (what, reply) in [
        ("empty", ok("")),
        ("text", ok("OK")),
        ("another object", ok("{\"acknowledged\":true}")),
        ("no items", ok("{\"errors\":false,\"items\":[]}")),
        ("ids of others", ok(&format!("{{\"items\":[{}]}}", [r#"{"create":{"_id":"x","status":201}}"#; 3].join(",")))),
        ("html", Reply::with(200, "content-type: text/html\r\n", "<html>login</html>")),
        ("reset", Reply::Reset),
        ("cut", Reply::BytesAndClose(b"HTTP/1.1 200 x\r\ncontent-length: 100\r\n\r\n{\"items\":[".to_vec())),
        ("no content", Reply::status(204)),
    ] {
        let fault = send_to(reply).await.unwrap_err();
        assert!(matches!(fault.kind, FaultKind::Broken | FaultKind::Unreachable), "{what}: {fault:?}");
    }
}

#[tokio::test]
async fn an_answer_without_end_is_left_and_the_batch_halved() {
    let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    let chunk = [b"10000\r\n".to_vec(), vec![b' '; 65536], b"\r\n".to_vec()].concat();
    let endless = Reply::Endless(head, chunk);
    assert_eq!(send_to(endless.clone()).await.unwrap_err().kind, FaultKind::TooLarge);
    let server = Server::start(move |_, _| endless.clone()).await;
    let directory = tempfile::tempdir().unwrap();
    let alone = backend(directory.path(), at(&[&server])).send(&batch(0..1)).await.unwrap_err();
    assert_eq!(alone.kind, FaultKind::Broken, "one event is never lost to a server that lies: {alone}");
}

#[tokio::test]
async fn refusals_of_a_request_have_their_kind() {
    for (status, kind) in [(413, FaultKind::TooLarge), (403, FaultKind::Unauthorized)] {
        assert_eq!(send_to(Reply::with(status, "", "plain text")).await.unwrap_err().kind, kind, "{status}");
    }
}

#[tokio::test]
async fn nodes_are_asked_in_turn_and_a_dead_one_is_passed_over() {
    let (one, two) = (bulk::start(|_| 201).await, bulk::start(|_| 201).await);
    let directory = tempfile::tempdir().unwrap();
    let both = backend(directory.path(), at(&[&one, &two]));
    for start in 0..4 {
        both.send(&batch(start..start + 1)).await.unwrap();
    }
    assert_eq!((one.seen().len(), two.seen().len()), (2, 2));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut settings = at(&[&one]);
    let dead = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    settings["urls"] = serde_json::json!([dead, settings["urls"][0]]);
    let half = backend(directory.path(), settings);
    for start in 0..3 {
        assert_eq!(half.send(&batch(start..start + 1)).await, Ok(Items::All(Outcome::Delivered)));
    }
    assert_eq!(one.seen().len(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_takes_requests_and_never_answers_costs_one_attempt_and_then_one_at_a_time() {
    let (silent, good) = (Server::start(|_, _| Reply::Silence).await, bulk::start(|_| 201).await);
    let directory = tempfile::tempdir().unwrap();
    let both = backend(directory.path(), at(&[&silent, &good]));
    let attempt = |start| {
        let both = both.clone();
        async move { timeout(Duration::from_secs(10), both.send(&batch(start..start + 1))).await }
    };
    assert!(attempt(0).await.is_err());
    for start in 0..8 {
        assert_eq!(attempt(start).await, Ok(Ok(Items::All(Outcome::Delivered))));
    }
    assert_eq!((silent.seen().len(), good.seen().len()), (1, 8), "it is asked last");
    tokio::time::advance(Duration::from_secs(31)).await;
    let four = futures_util::future::join_all((0..4).map(attempt)).await;
    let delivered = four.iter().filter(|sent| sent.is_ok()).count();
    assert_eq!((delivered, silent.seen().len()), (3, 2), "{four:?}");
}

#[tokio::test(start_paused = true)]
async fn a_host_that_drops_what_is_sent_to_it_is_passed_over() {
    // Nobody accepts, and there is no room for one more: the kernel drops what asks for it.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let hole = socket.listen(1).unwrap();
    let address = hole.local_addr().unwrap();
    let _full = (TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap());
    let good = bulk::start(|_| 201).await;
    let directory = tempfile::tempdir().unwrap();
    let mut settings = at(&[&good]);
    settings["urls"] = serde_json::json!([format!("http://{address}"), settings["urls"][0]]);
    let both = backend(directory.path(), settings.clone());
    for (start, seconds) in [(0, 10), (1, 0), (2, 0), (3, 0)] {
        let begun = Instant::now();
        assert_eq!(both.send(&batch(start..start + 1)).await, Ok(Items::All(Outcome::Delivered)));
        assert_eq!(begun.elapsed().as_secs(), seconds, "request {start}");
    }
    settings["urls"] = serde_json::json!([format!("http://{address}")]);
    let fault = backend(directory.path(), settings).send(&batch(0..1)).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Unreachable, "{fault}");
}

#[tokio::test]
async fn credentials_are_read_at_each_use() {
    let server = bulk::start(|_| 201).await;
    let directory = tempfile::tempdir().unwrap();
    let reference = serde_json::json!({"name": "es", "key": "secret"});
    secret(directory.path(), "es", "secret", "open sesame");
    let mut settings = at(&[&server]);
    settings["auth"] = serde_json::json!({"basic": {"username": "Aladdin", "passwordSecretRef": reference}});
    let basic = backend(directory.path(), settings.clone());
    basic.send(&batch(0..1)).await.unwrap();
    secret(directory.path(), "es", "secret", "other");
    basic.send(&batch(1..2)).await.unwrap();
    settings["auth"] = serde_json::json!({"apiKeySecretRef": reference});
    backend(directory.path(), settings).send(&batch(2..3)).await.unwrap();
    let sent: Vec<_> =
        server.seen().iter().map(|request| request.header("authorization").unwrap().to_owned()).collect();
    assert_eq!(sent, ["Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==", "Basic QWxhZGRpbjpvdGhlcg==", "ApiKey other"]);
}

#[tokio::test]
async fn a_template_is_made_although_a_proxy_takes_out_what_names_the_product() {
    let server = Server::start(move |_, request| match request.line.split(' ').next().unwrap() {
        "GET" => Reply::with(404, "", "{}"),
        "PUT" if String::from_utf8_lossy(&request.body).contains("flat_object") => Reply::with(
            400,
            "",
            r#"{"error":{"type":"mapper_parsing_exception","reason":"No handler for type [flat_object] declared on field [labels]"}}"#,
        ),
        "PUT" => Reply::with(200, "", "{}"),
        _ => bulk::reply(request, &|_| 201),
    })
    .await;
    let directory = tempfile::tempdir().unwrap();
    let mut settings = at(&[&server]);
    settings["createTemplate"] = true.into();
    let backend = backend(directory.path(), settings);
    for start in 0..2 {
        assert_eq!(backend.send(&batch(start..start + 1)).await, Ok(Items::All(Outcome::Delivered)));
    }
    let seen = server.seen();
    let methods: Vec<_> = seen.iter().map(|request| request.line.split(' ').next().unwrap()).collect();
    assert_eq!(methods, ["GET", "PUT", "PUT", "POST", "POST"]);
    assert!(String::from_utf8_lossy(&seen[2].body).contains("flattened"));
}

/// A server that knows templates: answers `get` and `put` for them, and creates every document.
async fn with_templates(get: (u16, &'static str), put: u16, product: &'static str) -> Server {
    Server::start(move |_, request| match request.line.split(' ').next().unwrap() {
        "GET" => Reply::with(get.0, product, get.1),
        "PUT" => Reply::with(put, "", r#"{"error":{"type":"security_exception","reason":"not you"}}"#),
        _ => bulk::reply(request, &|_| 201),
    })
    .await
}

#[tokio::test]
async fn the_index_template_is_made_once_before_the_first_document() {
    const NEW: &str = r#"{"index_templates":[{"index_template":{"version":9}}]}"#;
    for (get, put, product, lines, flattened) in [
        ((404, ""), 200, "x-elastic-product: Elasticsearch\r\n", 3, Some("flattened")),
        ((404, ""), 200, "", 3, Some("flat_object")),
        ((200, NEW), 200, "", 2, None),
        ((403, "{}"), 200, "", 2, None),
        ((405, "text"), 200, "", 2, None),
        ((404, ""), 403, "", 3, Some("flat_object")),
        ((404, ""), 400, "", 3, Some("flat_object")),
    ] {
        let server = with_templates(get, put, product).await;
        let directory = tempfile::tempdir().unwrap();
        let mut settings = at(&[&server]);
        settings["createTemplate"] = true.into();
        let backend = backend(directory.path(), settings);
        for start in 0..2 {
            let sent = backend.send(&batch(start..start + 1)).await;
            assert_eq!(sent, Ok(Items::All(Outcome::Delivered)), "{get:?} {put}");
        }
        let seen = server.seen();
        assert_eq!(seen.len(), lines + 1, "{get:?} {put}");
        assert_eq!(seen[0].line, "GET /_index_template/spillway-begins-jobs- HTTP/1.1");
        let body: Option<serde_json::Value> =
            seen.iter().find(|r| r.line.starts_with("PUT")).map(|r| serde_json::from_slice(&r.body).unwrap());
        let labels = body.as_ref().map(|body| {
            let member = &body["template"]["mappings"]["properties"]["_spillway"]["properties"];
            member["origin"]["properties"]["labels"]["type"].as_str().unwrap()
        });
        assert_eq!(labels, flattened);
    }
}

#[tokio::test]
async fn no_document_goes_before_a_template_that_cannot_be_asked_about() {
    for (status, kind) in [(401, FaultKind::Unauthorized), (503, FaultKind::Throttled), (500, FaultKind::Broken)] {
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = calls.clone();
        let server = Server::start(move |_, request| {
            if request.line.starts_with("GET") && counted.fetch_add(1, Ordering::Relaxed) == 0 {
                return Reply::status(status);
            }
            bulk::reply(request, &|_| 201)
        })
        .await;
        let directory = tempfile::tempdir().unwrap();
        let mut settings = at(&[&server]);
        settings["createTemplate"] = true.into();
        let backend = backend(directory.path(), settings);
        assert_eq!(backend.send(&batch(0..1)).await.unwrap_err().kind, kind);
        assert_eq!(server.seen().len(), 1);
        assert_eq!(backend.send(&batch(0..1)).await, Ok(Items::All(Outcome::Delivered)));
    }
}
