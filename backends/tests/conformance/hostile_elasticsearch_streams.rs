//! Servers without the data streams that events shall go to, and what the `Elasticsearch` backend makes of it: no plain index
//! is ever made, and why nothing is sent is said exactly. The server is made by hand; the real ones are asked in the
//! scenarios.

use std::sync::Arc;

use spillway_backends::{BackendSettings, build};
use spillway_delivery::backend::{Backend, Fault, FaultKind, Items, Outcome};

use crate::batches::{batch, context};
use crate::bulk;
use crate::destinations::parse;
use crate::server::{Received, Reply, Server};

const NOTHING: (u16, &str) = (404, r#"{"error":{"type":"index_not_found_exception","reason":"no such index"}}"#);
const NO_TEMPLATES: (u16, &str) = (200, "{}");
const STREAM: (u16, &str) =
    (200, r#"{"indices":[],"aliases":[],"data_streams":[{"name":"jobs-2026-11-23"},{"name":"jobs-0"}]}"#);
const PLAIN: (u16, &str) = (200, r#"{"indices":[{"name":"jobs-2026-11-23"}],"aliases":[],"data_streams":[]}"#);
const MAKES_STREAMS: (u16, &str) = (
    200,
    r#"{"index_templates":[{"name":"theirs","index_template":{"index_patterns":["jobs-*"],"priority":1,"data_stream":{}}}]}"#,
);
const MAKES_PLAIN: (u16, &str) =
    (200, r#"{"index_templates":[{"name":"theirs","index_template":{"index_patterns":["jobs-*"]}}]}"#);

/// What a server is like.
#[derive(Debug, Clone, Copy)]
struct Kind {
    /// Whether it knows `require_data_stream`.
    knows: bool,
    /// What it says of the name, and of its templates.
    named: (u16, &'static str),
    templates: (u16, &'static str),
    /// What it says of the template that is ours, and when that is made.
    ours: (u16, &'static str),
    put: u16,
}

impl Kind {
    /// One that has nothing and makes nothing.
    const BARE: Self = Self { knows: true, named: NOTHING, templates: NO_TEMPLATES, ours: (404, "{}"), put: 403 };

    /// Whether an index of a name is a data stream there, or would be.
    fn is_stream(self, name: &str) -> bool {
        let is_there = self.named == STREAM && self.named.1.contains(&format!("\"{name}\""));
        is_there || self.named != PLAIN && (self.templates == MAKES_STREAMS || self.put == 200)
    }

    fn answer(self, request: &Received) -> Reply {
        let target = request.line.split(' ').nth(1).unwrap();
        if request.line.starts_with("PUT") {
            let error = r#"{"error":{"type":"security_exception","reason":"not you"}}"#;
            return Reply::with(self.put, "", error);
        }
        if target.starts_with("/_resolve/index/jobs-") {
            return Reply::with(self.named.0, "", self.named.1);
        }
        if target.starts_with("/_index_template?") {
            return Reply::with(self.templates.0, "", self.templates.1);
        }
        if request.line.starts_with("GET") {
            return Reply::with(self.ours.0, "", self.ours.1);
        }
        match (target.contains("require_data_stream=true"), self.knows) {
            (true, false) => Reply::with(
                400,
                "",
                r#"{"error":{"type":"illegal_argument_exception","reason":"request [/_bulk] contains unrecognized parameter: [require_data_stream]"},"status":400}"#,
            ),
            (true, true) => self.hold(request),
            (false, _) => bulk::reply(request, &|_| 201),
        }
    }

    /// Creates what goes to data streams, and refuses the rest.
    fn hold(self, request: &Received) -> Reply {
        let item = |document: &bulk::Document| {
            if self.is_stream(&document.0) {
                return bulk::item(document, 201);
            }
            let reason =
                "no such index [x] and [require_data_stream] request flag is [true] and [x] is not a data stream";
            let (index, id, _) = document;
            format!(
                r#"{{"create":{{"_index":"{index}","_id":"{id}","status":404,"error":{{"type":"index_not_found_exception","reason":"{reason}"}}}}}}"#
            )
        };
        let items: Vec<String> = bulk::documents_of(request).iter().map(item).collect();
        Reply::with(200, "", &format!("{{\"errors\":true,\"items\":[{}]}}", items.join(",")))
    }
}

async fn start(kind: Kind, index: &str, create_template: bool) -> (Server, Arc<dyn Backend>, tempfile::TempDir) {
    let server = Server::start(move |_, request| kind.answer(request)).await;
    let directory = tempfile::tempdir().unwrap();
    let url = format!("http://{}", server.address);
    let settings =
        serde_json::json!({"urls": [url], "index": index, "dataStream": true, "createTemplate": create_template});
    let backend = build(&BackendSettings::Elasticsearch(parse(settings)), context(directory.path())).unwrap();
    (server, backend, directory)
}

/// Every document that may have made a plain index.
fn at_risk(server: &Server, kind: Kind) -> Vec<String> {
    let bulks = server.seen().into_iter().filter(|request| request.line.starts_with("POST /_bulk?"));
    let unheld = bulks.filter(|request| !request.line.contains("require_data_stream"));
    let names = unheld.flat_map(|request| bulk::documents_of(&request)).map(|document| document.0);
    names.filter(|name| !kind.is_stream(name)).collect()
}

/// Asserts that everything was taken, or that it was refused for this reason.
fn assert_sent(sent: Result<Items, Fault>, refused: Option<(FaultKind, &str)>, kind: Kind) {
    let Some((of, text)) = refused else {
        assert_eq!(sent, Ok(Items::All(Outcome::Delivered)), "{kind:?}");
        return;
    };
    let fault = sent.unwrap_err();
    assert!(fault.kind == of && fault.message.contains(text), "{kind:?}: {fault:?}");
    assert!(fault.message.starts_with("no data stream: jobs-2026-11-23 "), "{fault}");
}

#[tokio::test]
async fn nothing_is_sent_that_would_make_a_plain_index_and_why_is_said() {
    let bare = Kind::BARE;
    let (missing, ours) = ("is not there, and no index template with data_stream matches it", "spillway-begins-jobs-");
    let by_theirs = "is not there, and index template theirs would make a plain index";
    for (create_template, kind, refused) in [
        (false, bare, Some((FaultKind::Broken, missing))),
        (false, Kind { templates: MAKES_PLAIN, ..bare }, Some((FaultKind::Broken, by_theirs))),
        (
            false,
            Kind { templates: MAKES_STREAMS, named: PLAIN, ..bare },
            Some((FaultKind::Broken, "is a plain index, or an alias of one")),
        ),
        (
            false,
            Kind { named: (403, "{}"), templates: (403, "{}"), ..bare },
            Some((FaultKind::Unauthorized, "cannot be seen, and index templates cannot be read (http 403)")),
        ),
        (false, Kind { templates: (404, "{}"), ..bare }, Some((FaultKind::Broken, missing))),
        (false, Kind { named: STREAM, ..bare }, None),
        (false, Kind { named: STREAM, templates: MAKES_PLAIN, ..bare }, None),
        (false, Kind { templates: MAKES_STREAMS, ..bare }, None),
        (true, bare, Some((FaultKind::Unauthorized, ours))),
        (true, Kind { put: 400, ..bare }, Some((FaultKind::Broken, ours))),
        (true, Kind { ours: (403, "{}"), ..bare }, Some((FaultKind::Unauthorized, ours))),
        (
            true,
            Kind { ours: (200, r#"{"index_templates":[{"index_template":{"version":9}}]}"#), ..bare },
            Some((FaultKind::Broken, ours)),
        ),
        (true, Kind { named: STREAM, ..bare }, None),
        (true, Kind { templates: MAKES_STREAMS, ..bare }, None),
        // Another template of a higher priority may have the last word.
        (true, Kind { put: 200, templates: MAKES_STREAMS, ..bare }, None),
    ] {
        for knows in [true, false] {
            let kind = Kind { knows, ..kind };
            let (server, backend, _directory) = start(kind, "jobs-{date}", create_template).await;
            for _ in 0..2 {
                assert_sent(backend.send(&batch(0..2)).await, refused, kind);
            }
            assert_eq!(at_risk(&server, kind), [""; 0], "{create_template} {kind:?}");
        }
    }
}

#[tokio::test]
async fn each_name_is_proven_by_itself_and_others_wait() {
    for knows in [true, false] {
        let kind = Kind { knows, named: STREAM, ..Kind::BARE };
        let (server, backend, _directory) = start(kind, "jobs-{event.n}", false).await;
        for _ in 0..2 {
            let sent = backend.send(&batch(0..3)).await;
            assert_eq!(sent, Ok(Items::Each(vec![Outcome::Delivered, Outcome::Retry, Outcome::Retry])), "{knows}");
        }
        let sent = backend.send(&batch(1..3)).await.unwrap();
        assert_eq!(sent, Items::Each(vec![Outcome::Retry; 2]), "what waits is not the whole backend's fault");
        assert_eq!(at_risk(&server, kind), [""; 0]);
        let asked = server.seen().iter().filter(|request| request.line.contains("/_resolve/index/jobs-0 ")).count();
        assert_eq!(asked, usize::from(!knows), "what is proven is not asked again");
    }
}

#[tokio::test]
async fn a_server_that_does_not_know_the_requirement_is_asked_once_and_a_sick_one_is_not_taken_for_one() {
    let kind = Kind { knows: false, named: STREAM, ..Kind::BARE };
    let (server, backend, _directory) = start(kind, "jobs-{date}", false).await;
    for _ in 0..3 {
        assert_eq!(backend.send(&batch(0..1)).await, Ok(Items::All(Outcome::Delivered)));
    }
    let bulks = server.seen().iter().filter(|request| request.line.contains("require_data_stream")).count();
    assert_eq!((bulks, server.seen().len()), (1, 5), "one that is refused, three that are not, one question");
    for (status, of) in [(401, FaultKind::Unauthorized), (503, FaultKind::Throttled), (500, FaultKind::Broken)] {
        let kind = Kind { named: (status, ""), knows: false, ..Kind::BARE };
        let (server, backend, _directory) = start(kind, "jobs-{date}", false).await;
        assert_eq!(backend.send(&batch(0..1)).await.unwrap_err().kind, of, "{status}");
        assert_eq!(at_risk(&server, kind), [""; 0]);
    }
}
