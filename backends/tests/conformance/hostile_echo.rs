//! Servers that repeat what they were sent: nothing secret of it shows in what any backend says.
//!
//! Each type with each way to prove who one is, against a server that repeats headers, body and URL in whatever it says.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use spillway_delivery::backend::Backend;

use crate::batches::{batch, secret};
use crate::bulk;
use crate::log::{Log, logged_to};
use crate::over_http;
use crate::server::{Received, Reply, Server};

/// Stands in every secret. It is long: what shows a part of it is found by [`PARTS`].
const CANARY: &str = "canary-8c1f\"/+ü&:of-nobody";

/// Parts of the canary, as it is and encoded; of `Basic` as well.
const PARTS: [&str; 6] = ["canary", "8c1f", "of-nobody", "Y2FuYXJ5", "dTpjYW5hcn", "b2Ytbm9ib2R5"];

/// Returns every way to prove who one is, as settings that are added: `(type, settings)`.
fn ways() -> Vec<(&'static str, serde_json::Value)> {
    let reference = serde_json::json!({"name": "echo", "key": "canary"});
    let bearer = serde_json::json!({"auth": {"bearer": {"tokenSecretRef": reference}}});
    let basic = serde_json::json!({"auth": {"basic": {"username": "u", "passwordSecretRef": reference}}});
    let header = serde_json::json!({"auth": {"header": {"name": "X-API-Key", "valueSecretRef": reference}}});
    let signed = serde_json::json!({"signature": {"secretRef": reference}});
    let api_key = serde_json::json!({"auth": {"apiKeySecretRef": reference}});
    let keys = serde_json::json!({"credentials": {
        "accessKeyIDSecretRef": {"name": "echo", "key": "word"}, "secretAccessKeySecretRef": reference,
        "sessionTokenSecretRef": reference,
    }});
    vec![
        ("Elasticsearch", basic.clone()),
        ("Elasticsearch", api_key),
        ("HTTP", bearer.clone()),
        ("HTTP", basic),
        ("HTTP", header),
        ("ManagedAPI", serde_json::json!({"tokenSecretRef": reference})),
        ("S3", keys),
        ("Webhook", bearer),
        ("Webhook", signed),
    ]
}

fn backend(what: &str, root: &Path, base: &str, way: &serde_json::Value) -> Arc<dyn Backend> {
    let mut settings = over_http::settings(what, root, base);
    settings.as_object_mut().unwrap().extend(way.as_object().unwrap().clone());
    if matches!(what, "HTTP" | "Webhook") {
        settings["url"] = format!("{base}/hooks/canary-8c1f-of-nobody/?key=canary-8c1f").into();
    }
    let in_path = format!("{base}/canary-8c1f-of-nobody");
    if what == "ManagedAPI" {
        settings["url"] = in_path.clone().into();
    }
    if what == "Elasticsearch" {
        settings["createTemplate"] = true.into();
        settings["urls"] = serde_json::json!([in_path]);
    }
    over_http::backend(what, root, settings)
}

/// Says all of a request, and what a server may know besides, behind `pad` characters: where a text is cut, a part of
/// something stands.
fn all_of(request: &Received, pad: usize) -> String {
    let headers: Vec<String> = request.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    let body = String::from_utf8_lossy(&request.body);
    // First what is secret: the rest is cut off.
    let secret = headers.iter().filter(|line| line.to_lowercase().contains("auth") || line.contains("canary"));
    let secret: Vec<&str> = secret.map(String::as_str).collect();
    format!("{}{CANARY} {} {} {} {body}", ".".repeat(pad), secret.join(" "), request.line, headers.join(" "))
}

/// Returns the answer in one of the forms in which servers refuse.
fn refusal(form: &str, status: u16, request: &Received, pad: usize) -> Reply {
    let said = all_of(request, pad);
    let line: String = said.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let error = serde_json::json!({"type": said, "reason": said, "caused_by": {"reason": said}});
    match form {
        "plain text" => Reply::with(status, "", &said),
        "status line" => Reply::Bytes(format!("HTTP/1.1 {status} {line}\r\ncontent-length: 0\r\n\r\n").into_bytes()),
        "headers" => Reply::with(status, &format!("location: /{line}\r\nretry-after: {line}\r\n"), ""),
        "JSON" => {
            Reply::with(status, "", &serde_json::json!({"error": error, "message": said, "code": said}).to_string())
        }
        "XML" => {
            // A key's id is a plain word, such as a store's code and region are.
            let word = if request.header("x-amz-date").is_some() { "canary8c1fofnobody" } else { "Odd" };
            let xml = format!("<Error><Code>{word}</Code><Message>{}</Message></Error>", said.replace('<', ""));
            Reply::with(status, &format!("content-type: application/xml\r\nx-amz-bucket-region: {word}\r\n"), &xml)
        }
        "items" | "busy items" => {
            let item_status = if form == "items" { 400 } else { 429 };
            let item = if request.line.starts_with("POST /_bulk") {
                let id = bulk::documents_of(request)[0].1.clone();
                serde_json::json!({"create": {"_id": id, "status": item_status, "error": error}})
            } else {
                serde_json::json!({"index": 0, "code": said, "message": said})
            };
            Reply::with(status, "", &serde_json::json!({"errors": [item], "items": [item]}).to_string())
        }
        _ => Reply::BytesAndClose(line.into_bytes()),
    }
}

/// Returns every form with every status, and how much stands in front.
fn cases() -> Vec<(&'static str, u16, usize)> {
    let forms = ["plain text", "status line", "headers", "JSON", "XML", "items", "busy items", "no HTTP"];
    let answers = [(200, 0), (400, 0), (401, 0), (403, 0), (500, 0), (500, 170), (400, 185), (400, 195)];
    forms.into_iter().flat_map(|form| answers.map(|(status, pad)| (form, status, pad))).collect()
}

#[tokio::test]
async fn a_server_that_repeats_what_it_was_sent_shows_nothing_secret() {
    let log = Log::default();
    let _guard = logged_to(&log);
    let root = tempfile::tempdir().unwrap();
    secret(root.path(), "echo", "word", "canary8c1fofnobody");
    let (mut told, mut hidden) = (String::new(), std::collections::BTreeSet::new());
    for (what, way) in ways() {
        for (number, (form, status, pad)) in cases().into_iter().enumerate() {
            // An API key is `<id>:<key>`, or it is not.
            let value = if number % 2 == 0 { CANARY.to_owned() } else { format!("id7:{CANARY}") };
            secret(root.path(), "echo", "canary", &value);
            let server = Server::start(move |_, request| refusal(form, status, request, pad)).await;
            let backend = backend(what, root.path(), &format!("http://{}", server.address), &way);
            let sent = backend.send(&batch(0..1)).await;
            let shown = sent.as_ref().err().map(ToString::to_string);
            let said = format!("{shown:?} {sent:?} {backend:?}");
            if said.contains("(secret)") {
                hidden.insert(what);
            }
            writeln!(told, "{what} {form} {status} {pad}: {said}").unwrap();
            backend.close().await;
        }
    }
    for part in PARTS {
        let found: Vec<&str> = told.lines().filter(|line| line.contains(part)).take(3).collect();
        assert!(found.is_empty(), "{part}: {found:#?}");
    }
    assert_eq!(hidden, over_http::TYPES.into_iter().collect(), "every type has been led into temptation");
    assert_eq!(log.lines_with(&PARTS), [""; 0]);
    assert!(!log.lines_with(&["(secret)"]).is_empty(), "something was logged");
}
