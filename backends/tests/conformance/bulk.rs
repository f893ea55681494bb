//! A server that takes bulk requests, made by hand: it keeps what it is told to and answers each item as it is told. It
//! says nothing about what real servers do; that is for the scenarios over real ones.

use std::collections::BTreeSet;

use crate::server::{Received, Reply, Server};

/// One document of a bulk request: index, id, the document without the `@timestamp` that was added.
pub(crate) type Document = (String, String, String);

/// Starts a server that answers `status` for each document. Everything that is not a bulk request is answered 404.
pub(crate) async fn start(status: impl Fn(&Document) -> u16 + Send + Sync + 'static) -> Server {
    Server::start(move |_, request| reply(request, &status)).await
}

/// Returns the answer to one request.
pub(crate) fn reply(request: &Received, status: &dyn Fn(&Document) -> u16) -> Reply {
    if !request.line.starts_with("POST /_bulk?") {
        return Reply::with(404, "x-elastic-product: Elasticsearch\r\n", r#"{"error":"no such thing"}"#);
    }
    let items: Vec<String> = documents_of(request).iter().map(|document| item(document, status(document))).collect();
    Reply::with(200, "", &format!("{{\"errors\":true,\"items\":[{}]}}", items.join(",")))
}

/// Returns one item of an answer.
pub(crate) fn item((index, id, _): &Document, status: u16) -> String {
    let error = match status {
        200..=299 => String::new(),
        _ => format!(r#","error":{{"type":"made_up_exception","reason":"status {status}\nof {id}"}}"#),
    };
    format!(r#"{{"create":{{"_index":"{index}","_id":"{id}","status":{status}{error}}}}}"#)
}

/// Returns the documents of a request, in order; panics when it is not well-formed.
pub(crate) fn documents_of(request: &Received) -> Vec<Document> {
    let lines = request.lines();
    assert_eq!(lines.len() % 2, 0, "an action and a document each");
    let pairs = lines.chunks(2).map(|pair| {
        let action: serde_json::Value = serde_json::from_str(&pair[0]).unwrap();
        let text = |name: &str| action["create"][name].as_str().unwrap().to_owned();
        let document: serde_json::Value = serde_json::from_str(&pair[1]).unwrap();
        assert!(document["@timestamp"].is_string());
        let end = pair[1].rfind(",\"@timestamp\"").unwrap();
        (text("_index"), text("_id"), format!("{}}}", &pair[1][..end]))
    });
    pairs.collect()
}

/// Returns what a server holds whose every document was created, by the order in which ids came first.
pub(crate) fn documents(server: &Server) -> Vec<Document> {
    let mut ids = BTreeSet::new();
    let mut documents: Vec<Document> = Vec::new();
    for request in server.seen().iter().filter(|request| request.line.starts_with("POST /_bulk?")) {
        for document in documents_of(request) {
            if ids.insert(document.1.clone()) {
                documents.push(document);
            }
        }
    }
    documents
}
