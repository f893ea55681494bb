//! Where a tenant's backend may not connect to, whatever its type.

use std::path::Path;
use std::sync::Arc;

use spillway_backends::destinations::Limits;
use spillway_backends::{BackendSettings, BuildContext, BuildError, Destinations, build};
use spillway_delivery::backend::{Backend, FaultKind};

use crate::batches::{batch, context};
use crate::destinations::parse;
use crate::log::{Log, logged_to};
use crate::over_http::{TYPES, is_delivered, of_type, settings, taken};
use crate::server::{Reply, Server};

fn tenant(root: &Path, allowed: &[&str]) -> BuildContext {
    let allowed = allowed.iter().map(|text| text.parse().unwrap()).collect();
    let limits = Limits { allowed, ..Limits::default() };
    BuildContext { destinations: Destinations::Limited(Arc::new(limits)), ..context(root) }
}

fn backend(what: &str, root: &Path, base: &str, allowed: &[&str]) -> Arc<dyn Backend> {
    build(&of_type(what, settings(what, root, base)), tenant(root, allowed)).unwrap()
}

#[tokio::test]
async fn no_type_connects_to_what_is_refused_and_each_does_where_it_is_allowed() {
    for what in TYPES {
        let root = tempfile::tempdir().unwrap();
        let server = Server::start(|_, request| taken(request)).await;
        let port = server.address.port();
        for host in ["127.0.0.1", "localhost", "2130706433", "[::ffff:127.0.0.1]", "0.0.0.0"] {
            let backend = backend(what, root.path(), &format!("http://{host}:{port}"), &[]);
            let fault = backend.send(&batch(0..1)).await.unwrap_err();
            assert_eq!(fault.kind, FaultKind::Forbidden, "{what} {host}: {fault}");
            assert!(fault.message.contains("--allow-destinations"), "{what} {host}: {fault}");
        }
        assert_eq!(server.seen().len(), 0, "{what}");
        for host in ["127.0.0.1", "localhost"] {
            let backend = backend(what, root.path(), &format!("http://{host}:{port}"), &["127.0.0.1/32"]);
            assert!(is_delivered(&backend.send(&batch(0..1)).await.unwrap()), "{what} {host}");
        }
    }
}

#[tokio::test]
async fn a_redirect_to_what_is_refused_is_not_followed() {
    for status in [301, 302, 307, 308] {
        for what in TYPES {
            let root = tempfile::tempdir().unwrap();
            let inner = Server::start(|_, request| taken(request)).await;
            let headers = format!("location: http://127.0.0.1:{}/in\r\n", inner.address.port());
            let outer = Server::start(move |_, _| Reply::with(status, &headers, "")).await;
            let backend = backend(what, root.path(), &format!("http://{}", outer.address), &["127.0.0.1"]);
            let fault = backend.send(&batch(0..1)).await.unwrap_err();
            assert_eq!(fault.kind, FaultKind::Broken, "{what} {status}: {fault}");
            assert_eq!((outer.seen().len(), inner.seen().len()), (1, 0), "{what} {status}");
        }
    }
}

#[tokio::test]
async fn of_several_nodes_those_that_may_be_asked_decide() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(|_, request| taken(request)).await;
    let nodes = |last: &str| {
        let settings = serde_json::json!({"urls": ["http://169.254.169.254:9200", last], "index": "jobs-{date}",
            "createTemplate": false});
        build(&BackendSettings::Elasticsearch(parse(settings)), tenant(root.path(), &["127.0.0.1"])).unwrap()
    };
    let up = nodes(&format!("http://{}", server.address));
    for _ in 0..2 {
        assert!(is_delivered(&up.send(&batch(0..1)).await.unwrap()));
    }
    for (last, kind, refused) in
        [("http://127.0.0.1:1025", FaultKind::Unreachable, 1), ("http://169.254.169.254:9201", FaultKind::Forbidden, 2)]
    {
        let (down, log) = (nodes(last), Log::default());
        let _logged = logged_to(&log);
        for _ in 0..3 {
            let fault = down.send(&batch(0..1)).await.unwrap_err();
            assert_eq!(fault.kind, kind, "{last}: {fault}");
        }
        let told = log.lines_with(&["a node is never asked"]);
        assert_eq!(told.len(), refused, "each is told of once: {told:?}");
    }
}

#[tokio::test]
async fn a_name_is_judged_with_its_port_at_what_it_means() {
    let root = tempfile::tempdir().unwrap();
    for what in TYPES {
        // Nobody listens there; that it was tried is told.
        for (allowed, kind) in [
            (&["127.0.0.0/8", "::1"][..], FaultKind::Unreachable),
            (&["10.0.0.0/8"], FaultKind::Forbidden),
            (&[":2382"], FaultKind::Forbidden),
        ] {
            let backend = backend(what, root.path(), "http://localhost:2382", allowed);
            let fault = backend.send(&batch(0..1)).await.unwrap_err();
            assert_eq!(fault.kind, kind, "{what} {allowed:?}: {fault}");
        }
    }
}

#[test]
fn the_keys_of_the_machine_are_not_for_tenants() {
    let root = tempfile::tempdir().unwrap();
    let settings = BackendSettings::S3(parse(serde_json::json!({"bucket": "lake"})));
    let error = build(&settings, tenant(root.path(), &["0.0.0.0/0"])).unwrap_err();
    assert!(matches!(error, BuildError::MachineKeys), "{error}");
    assert!(build(&settings, context(root.path())).is_ok());
}
