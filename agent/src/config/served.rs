//! Configuration that an operator serves: asked for, kept on disk, acknowledged.
//!
//! ```text
//! disk (last good) ─┐                                        ┌─► acknowledgement, with the next question
//! operator ─► client ─► follow: newer? ─► secrets ─► disk ─► Read ─► carried out ─► values that nobody uses are forgotten
//!                         └─► pods of the node
//! ```
//!
//! | module | holds |
//! | --- | --- |
//! | [`authorities`] | whom it trusts besides the mounted file, as the operator told it |
//! | [`client`] | one question and its answer, bounded |
//! | [`follow`] | which answer counts, what is said with the next question, when it is asked |
//! | `pace` | when it is asked again |
//! | [`secrets`] | values of secrets, for backends |
//! | [`store`] | the last good configuration on disk |
//! | [`seal`] | the key for values of secrets in it |
//!
//! # Guarantees
//! - Whatever an operator answers, what runs goes on until a whole, newer configuration is there, and then per pipeline.
//! - Values of secrets are there before the configuration that uses them is carried out, and are forgotten after it.
//! - Without an operator everything runs on, and starts again, as it was served last.
//!
//! # It must not know
//! Logs, deliveries, sources: what it tells the operator of them it is given by [`follow::Host`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Deserialize;
use spillway_crds::served::Revoked;
use spillway_crds::{Document, Namespaces, compile_with};

use super::manifests::{Read, is_of_the_file};

pub mod authorities;
pub mod client;
pub mod follow;
mod pace;
pub mod seal;
pub mod secrets;
pub mod store;

/// What names an object, read without the rest.
#[derive(Deserialize)]
struct Head {
    kind: String,
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    #[serde(default)]
    namespace: String,
    name: String,
}

/// Compiles what was served. May take a moment.
fn compile(
    manifests: Vec<Arc<str>>,
    namespaces: BTreeMap<String, BTreeMap<String, String>>,
    revoked: Vec<Revoked>,
) -> Read {
    let document = |(index, text): (usize, Arc<str>)| Document::new(&label(&text, index), &*text);
    let documents: Vec<Document> = manifests.into_iter().enumerate().map(document).collect();
    let mut known = Namespaces::default();
    for (name, labels) in namespaces {
        known.insert(&name, labels);
    }
    let compiled = compile_with(&documents, known);
    let garbled =
        compiled.errors.iter().filter(|error| is_of_the_file(error)).map(|error| error.file.clone()).collect();
    Read { compiled, unread: garbled, kept: BTreeSet::new(), revoked }
}

/// Returns the name of a manifest, for errors.
fn label(text: &str, index: usize) -> String {
    match serde_json::from_str(text) {
        Ok(Head { kind, metadata: Metadata { namespace, name } }) if namespace.is_empty() => format!("{kind} {name}"),
        Ok(Head { kind, metadata: Metadata { namespace, name } }) => format!("{kind} {namespace}/{name}"),
        Err(_) => format!("manifest {index}"),
    }
}

/// Returns where JSON is not what it should be. What it holds is not told: it may be secret.
fn place_of(error: &serde_json::Error) -> String {
    let what = match error.classify() {
        serde_json::error::Category::Io => "cannot be read",
        serde_json::error::Category::Syntax => "not JSON",
        serde_json::error::Category::Data => "another form",
        serde_json::error::Category::Eof => "cut off",
    };
    format!("{what} at line {}, column {}", error.line(), error.column())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_served_is_compiled_with_the_labels_that_come_with_it() {
        let backend = r#"{"apiVersion":"spillway.dev/v1alpha1","kind":"ClusterBackend","metadata":{"name":"lake"},"spec":{"type":"Stdout",
            "allowedNamespaces":{"selector":{"matchLabels":{"tier":"prod"}}}}}"#;
        let pipeline = |namespace: &str| {
            format!(
                r#"{{"apiVersion":"spillway.dev/v1alpha1","kind":"MonitoringPipeline","metadata":{{"namespace":"{namespace}","name":"jobs"}},
                "spec":{{"inputs":[{{"name":"in","type":"Events"}}],
                "routes":[{{"name":"all","backendRefs":[{{"kind":"ClusterBackend","name":"lake"}}]}}]}}}}"#
            )
        };
        let labels = |tier: &str| BTreeMap::from([("tier".to_owned(), tier.to_owned())]);
        let namespaces = BTreeMap::from([("a".to_owned(), labels("prod")), ("b".to_owned(), labels("test"))]);
        let garbled = "{not: [json".to_owned();
        let manifests = [backend.to_owned(), pipeline("a"), pipeline("b"), garbled].map(Arc::from);
        let read = compile(manifests.into(), namespaces, Vec::new());
        let runs: Vec<&str> = read.compiled.pipelines.iter().map(|plan| &*plan.settings.uid).collect();
        assert_eq!(runs, ["a.jobs"]);
        let files: Vec<&str> = read.compiled.errors.iter().map(|error| &*error.file).collect();
        assert_eq!(files, ["MonitoringPipeline b/jobs", "manifest 3"]);
        assert!(read.unread.contains("manifest 3") && read.unread.len() == 1, "{:?}", read.unread);
    }

    #[test]
    fn an_error_says_where_and_not_what() {
        let error = serde_json::from_str::<u32>("\n \"canary\"").unwrap_err();
        assert_eq!(place_of(&error), "another form at line 2, column 9");
    }
}
