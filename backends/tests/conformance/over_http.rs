//! Every type that speaks HTTP, and what all of them owe whatever server they meet.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use spillway_backends::{BackendSettings, backend_list, build};
use spillway_delivery::backend::{Backend, FaultKind, Items, Outcome};

use crate::batches::{batch, context, secret};
use crate::bulk;
use crate::destinations::parse;
use crate::server::{Received, Reply, Server};

/// The types.
pub(crate) const TYPES: [&str; 5] = ["Elasticsearch", "HTTP", "ManagedAPI", "S3", "Webhook"];

/// Returns settings of a type for the server at `base`, with what secrets they need below `root`.
pub(crate) fn settings(what: &str, root: &Path, base: &str) -> serde_json::Value {
    let url = format!("{base}/in?key=hidden");
    match what {
        "Elasticsearch" => serde_json::json!({"urls": [base], "index": "jobs-{date}", "createTemplate": false}),
        "ManagedAPI" => {
            secret(root, "api", "token", "t");
            serde_json::json!({"url": base, "tokenSecretRef": {"name": "api", "key": "token"}})
        }
        "S3" => {
            secret(root, "s3", "id", "AK");
            secret(root, "s3", "secret", "canary-8c1f");
            serde_json::json!({
                "bucket": "lake", "endpoint": base, "forcePathStyle": true,
                "credentials": {
                    "accessKeyIDSecretRef": {"name": "s3", "key": "id"},
                    "secretAccessKeySecretRef": {"name": "s3", "key": "secret"},
                },
            })
        }
        _ => serde_json::json!({"url": url}),
    }
}

/// Returns the settings of a type.
pub(crate) fn of_type(what: &str, settings: serde_json::Value) -> BackendSettings {
    match what {
        "Elasticsearch" => BackendSettings::Elasticsearch(parse(settings)),
        "HTTP" => BackendSettings::Http(parse(settings)),
        "ManagedAPI" => BackendSettings::ManagedApi(parse(settings)),
        "S3" => BackendSettings::S3(parse(settings)),
        _ => BackendSettings::Webhook(parse(settings)),
    }
}

/// Returns a backend of a type.
pub(crate) fn backend(what: &str, root: &Path, settings: serde_json::Value) -> Arc<dyn Backend> {
    build(&of_type(what, settings), context(root)).unwrap()
}

/// Returns the answer of a server that takes whatever any of the types sends.
pub(crate) fn taken(request: &Received) -> Reply {
    if request.line.starts_with("POST /_bulk?") { bulk::reply(request, &|_| 201) } else { Reply::status(200) }
}

/// Returns whether every event was delivered.
pub(crate) fn is_delivered(items: &Items) -> bool {
    match items {
        Items::All(outcome) => *outcome == Outcome::Delivered,
        Items::Each(outcomes) => outcomes.iter().all(|outcome| *outcome == Outcome::Delivered),
    }
}

macro_rules! with_tls {
    ($(#[doc = $what:literal] $module:ident: $variant:ident($settings:ident) as $type:literal in $member:literal, $need:ident;)*) => {
        /// Returns the types whose settings know `tls`.
        fn with_tls() -> BTreeSet<&'static str> {
            let mut types = BTreeSet::new();
            $(if schemars::schema_for!(spillway_backends::$settings).pointer("/properties/tls").is_some() {
                types.insert($type);
            })*
            types
        }
    };
}

backend_list!(with_tls);

#[test]
fn every_type_of_the_list_that_speaks_http_is_here() {
    assert_eq!(with_tls(), TYPES.into_iter().collect());
}

#[tokio::test]
async fn every_refusal_has_its_kind_and_no_redirect_is_followed() {
    for (status, headers, kind, wait) in [
        (401, "", FaultKind::Unauthorized, None),
        (404, "", FaultKind::Broken, None),
        (500, "", FaultKind::Broken, None),
        (429, "retry-after: 7\r\n", FaultKind::Throttled, Some(7)),
        (503, "retry-after: Mon, 23 Nov 2026 10:00:30 GMT\r\n", FaultKind::Throttled, Some(30)),
        (503, "retry-after: later\r\n", FaultKind::Throttled, None),
        (301, "location: /elsewhere\r\n", FaultKind::Broken, None),
        (307, "location: /elsewhere\r\n", FaultKind::Broken, None),
    ] {
        for what in TYPES {
            let root = tempfile::tempdir().unwrap();
            let server = Server::start(move |_, _| Reply::with(status, headers, "plain text")).await;
            let settings = settings(what, root.path(), &format!("http://{}", server.address));
            let fault = backend(what, root.path(), settings).send(&batch(0..1)).await.unwrap_err();
            let expected = (kind, wait.map(Duration::from_secs));
            assert_eq!((fault.kind, fault.retry_after), expected, "{what} {status}: {fault}");
            assert_eq!(fault.may_be_there, status == 500, "{what} {status}: what is refused is not there");
            assert!(server.seen().iter().all(|request| !request.line.contains("elsewhere")), "{what} {status}");
            assert_eq!(server.seen().len(), 1, "{what} {status}: retrying is the engine's business");
        }
    }
}

#[tokio::test]
async fn what_was_sent_and_not_answered_may_be_there_and_what_was_never_sent_is_not() {
    for what in TYPES {
        let root = tempfile::tempdir().unwrap();
        let cut = Reply::BytesAndClose(b"HTTP/1.1 200 x\r\ncontent-length: 100\r\n\r\n{".to_vec());
        for reply in [Reply::Reset, cut] {
            let server = Server::start(move |_, _| reply.clone()).await;
            let settings = settings(what, root.path(), &format!("http://{}", server.address));
            let fault = backend(what, root.path(), settings).send(&batch(0..1)).await.unwrap_err();
            assert!(fault.may_be_there && !server.seen().is_empty(), "{what}: {fault:?}");
        }
        let settings = settings(what, root.path(), &format!("http://{}", nobody().await));
        let fault = backend(what, root.path(), settings).send(&batch(0..1)).await.unwrap_err();
        assert_eq!((fault.kind, fault.may_be_there), (FaultKind::Unreachable, false), "{what}: {fault:?}");
    }
}

/// Returns an address where nobody listens.
async fn nobody() -> std::net::SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}
