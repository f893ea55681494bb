//! The index template: mappings that age well. No I/O.
//!
//! - Labels and annotations are one field each (`flattened`; OpenSearch calls it `flat_object`): `app` and
//!   `app.kubernetes.io/name` live side by side, and no label can use up the fields of an index.
//! - Nobody guesses dates from strings: what looked like a date on the first day would refuse all else later.
//! - Strings are keywords; what is longer than 1024 characters is kept and not indexed. `message` is text.
//!
//! One template per beginning of index names. Its priority grows with the length of the beginning, so that a longer one
//! wins, and lies between those of the templates that servers bring (100) and those that people write (200).

use spillway_delivery::backend::DeliveryName;

use crate::template::{Piece, Template};

/// Raised when the mappings change.
const VERSION: u32 = 1;

/// The lowest priority.
const PRIORITY_MIN: usize = 101;

/// The highest priority.
const PRIORITY_MAX: usize = 199;

/// What the server has under the name of a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// One that is at least as new.
    Fitting,
    /// One that is at least as new, and makes plain indices where a data stream is wanted.
    Plain,
    /// None, or an older one.
    Old,
}

/// What is made for one backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct IndexTemplate {
    /// Its name at the server.
    pub(super) name: String,
    pattern: String,
    priority: usize,
    data_stream: bool,
}

impl IndexTemplate {
    /// Returns the template for the indices of one delivery; `None` when nothing fixed is in front of their names.
    pub(super) fn new(index: &Template, name: &DeliveryName, data_stream: bool) -> Option<Self> {
        let fixed = index.pieces().iter().take_while(|piece| piece.is_fixed());
        let beginning: String = fixed
            .map(|piece| match piece {
                Piece::Literal(text) => text.as_str(),
                Piece::Namespace => &name.namespace,
                Piece::Pipeline => &name.pipeline,
                _ => &name.route,
            })
            .collect::<String>()
            .to_ascii_lowercase();
        if beginning.is_empty() {
            return None;
        }
        let whole = index.pieces().iter().all(Piece::is_fixed);
        let pattern = if whole { beginning.clone() } else { format!("{beginning}*") };
        let priority = (PRIORITY_MIN + 2 * beginning.len() + usize::from(whole)).min(PRIORITY_MAX);
        let kind = if whole { "is" } else { "begins" };
        Some(Self { name: format!("spillway-{kind}-{beginning}"), pattern, priority, data_stream })
    }

    /// Returns the path that asks for the version of the template there is.
    pub(super) fn path(&self) -> String {
        format!("_index_template/{}", self.name)
    }

    /// Returns what an answer to that question shows.
    pub(super) fn found(&self, answer: &[u8]) -> Found {
        let answer: serde_json::Value = serde_json::from_slice(answer).unwrap_or_default();
        let template = &answer["index_templates"][0]["index_template"];
        match template["version"].as_u64() {
            Some(version) if version < u64::from(VERSION) => Found::Old,
            None => Found::Old,
            Some(_) if self.data_stream && !template["data_stream"].is_object() => Found::Plain,
            Some(_) => Found::Fitting,
        }
    }

    /// Returns the body that makes the template; `flattened` is what the server calls a field of any keys.
    pub(super) fn body(&self, flattened: &str) -> Vec<u8> {
        let keyword = serde_json::json!({"type": "keyword", "ignore_above": 1024});
        let time = serde_json::json!({"type": "date_nanos"});
        let any_keys = serde_json::json!({"type": flattened});
        let mut body = serde_json::json!({
            "index_patterns": [self.pattern],
            "priority": self.priority,
            "version": VERSION,
            "_meta": {"created_by": "spillway"},
            "template": {"mappings": {
                "date_detection": false,
                "dynamic_templates": [{"strings": {"match_mapping_type": "string", "mapping": keyword}}],
                "properties": {
                    "@timestamp": time,
                    "message": {"type": "text"},
                    "_spillway": {"properties": {
                        "id": keyword,
                        "pipeline": keyword,
                        "received": time,
                        "origin": {"properties": {"labels": any_keys, "annotations": any_keys}},
                    }},
                },
            }},
        });
        if self.data_stream {
            body["data_stream"] = serde_json::json!({});
        }
        body.to_string().into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elasticsearch::settings::GRAMMAR;

    fn template(index: &str) -> Option<IndexTemplate> {
        let name = DeliveryName {
            namespace: "fab12".into(),
            pipeline: "Jobs".into(),
            route: "all".into(),
            backend: "es".into(),
            agent: "a".into(),
        };
        IndexTemplate::new(&Template::parse(index, &GRAMMAR).unwrap(), &name, false)
    }

    #[test]
    fn it_covers_what_the_names_begin_with_and_no_more() {
        for (index, pattern, name) in [
            ("jobs", "jobs", "spillway-is-jobs"),
            ("jobs-{date}", "jobs-*", "spillway-begins-jobs-"),
            ("jobs-{namespace}-{origin.app}", "jobs-fab12-*", "spillway-begins-jobs-fab12-"),
            ("{pipeline}-{route}", "jobs-all", "spillway-is-jobs-all"),
            ("x{event.kind}-y", "x*", "spillway-begins-x"),
        ] {
            let template = template(index).unwrap();
            assert_eq!((&*template.pattern, &*template.name), (pattern, name), "{index}");
        }
        assert_eq!(template("{date}-x"), None);
    }

    #[test]
    fn a_longer_beginning_wins_and_none_leaves_its_place() {
        let priority = |index: &str| template(index).unwrap().priority;
        assert!(priority("a{date}") < priority("a") && priority("a") < priority("ab{date}"));
        assert!((101..=199).contains(&priority("a{date}")));
        assert_eq!(priority(&"x".repeat(200)), 199);
    }

    #[test]
    fn the_body_is_json_and_says_what_it_covers() {
        let template = IndexTemplate { data_stream: true, ..template("jobs-{date}").unwrap() };
        let body: serde_json::Value = serde_json::from_slice(&template.body("flattened")).unwrap();
        assert_eq!(body["index_patterns"], serde_json::json!(["jobs-*"]));
        assert!(body["data_stream"].is_object());
        let origin = &body["template"]["mappings"]["properties"]["_spillway"]["properties"]["origin"];
        assert_eq!(origin["properties"]["labels"]["type"], "flattened");
    }

    #[test]
    fn one_that_is_there_is_known_by_its_version_and_by_what_it_makes() {
        let plain = template("jobs-{date}").unwrap();
        let stream = IndexTemplate { data_stream: true, ..plain.clone() };
        for (answer, of_plain, of_stream) in [
            (r#"{"index_templates":[{"name":"x","index_template":{"version":1}}]}"#, Found::Fitting, Found::Plain),
            (
                r#"{"index_templates":[{"name":"x","index_template":{"version":7,"data_stream":{"hidden":false}}}]}"#,
                Found::Fitting,
                Found::Fitting,
            ),
            (r#"{"index_templates":[{"name":"x","index_template":{"version":0}}]}"#, Found::Old, Found::Old),
            (r#"{"index_templates":[{"name":"x","index_template":{"data_stream":{}}}]}"#, Found::Old, Found::Old),
            (r#"{"error":"no"}"#, Found::Old, Found::Old),
            ("", Found::Old, Found::Old),
        ] {
            let found = (plain.found(answer.as_bytes()), stream.found(answer.as_bytes()));
            assert_eq!(found, (of_plain, of_stream), "{answer}");
        }
    }
}
