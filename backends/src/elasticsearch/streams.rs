//! What makes sure that events go to data streams: nothing is sent that would make a plain index in place of one, for good.
//!
//! Elasticsearch from 8.13 on holds it itself: a request that says `require_data_stream` makes no plain index and writes to
//! none. A server that does not know that says so (OpenSearch, older versions); from then on each name is proven before
//! anything is sent to it: a data stream of that name is there, or the index template that a new name would get makes one.
//! That holds for the very name: that another one of a beginning is a data stream proves nothing of it.
//!
//! What is proven is asked again after [`PROVEN_FOR`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use reqwest::Method;
use serde_json::Value;
use spillway_delivery::backend::Fault;
use tokio::time::Instant;

use super::client::{JSON, check_answered};
use super::nodes::{Ask, Nodes};
use crate::http_client::{Answer, AnswerLimits};

/// What a request says and a server says back that does not know it, or that refuses for its sake.
pub(super) const REQUIRED: &str = "require_data_stream";

/// How long a name is taken to be that of a data stream.
const PROVEN_FOR: Duration = Duration::from_mins(10);

/// Most names that are remembered.
const PROVEN_MAX: usize = 1024;

/// Most names that are asked about for one request; events of others wait for the next.
const ASKED_MAX: usize = 64;

/// What of all index templates is of use: some hundred bytes each.
const TEMPLATES_PATH: &str = "_index_template?filter_path=index_templates.name,\
                              index_templates.index_template.index_patterns,\
                              index_templates.index_template.priority,\
                              index_templates.index_template.data_stream";

/// Answers about a name, and about all templates.
const ABOUT: AnswerLimits = AnswerLimits { body_bytes_max: 1 << 20, body_timeout: Duration::from_secs(10) };

/// Names that are data streams, or will be.
#[derive(Debug, Default)]
pub(super) struct Streams {
    /// The server does not know what would make it hold this.
    is_ours: AtomicBool,
    /// Until when.
    proven: Mutex<BTreeMap<String, Instant>>,
}

/// Why nothing is sent to a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Why {
    /// Neither a data stream of this name is there nor a template that makes one.
    Missing,
    /// It is a plain index, or an alias of one.
    IsPlain,
    /// A new one would be plain, by this template.
    WouldBePlain(String),
    /// No data stream could be read, nor the templates, by these statuses.
    Unread(u16),
    /// Others were asked about first.
    Later,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("is not there, and no index template with data_stream matches it"),
            Self::IsPlain => f.write_str("is a plain index, or an alias of one"),
            Self::WouldBePlain(template) => {
                write!(f, "is not there, and index template {template} would make a plain index")
            }
            Self::Unread(status) => write!(f, "cannot be seen, and index templates cannot be read (http {status})"),
            Self::Later => f.write_str("was not asked about yet"),
        }
    }
}

/// What a server says of a name.
#[derive(Debug, PartialEq, Eq)]
enum Standing {
    Stream,
    Plain,
    Nothing,
}

impl Streams {
    /// Whether the server is to hold it.
    pub(super) fn is_held_by_server(&self) -> bool {
        !self.is_ours.load(Ordering::Relaxed)
    }

    /// Whether an answer says that the server does not know how to: from now on it is held here.
    pub(super) fn is_left_to_us(&self, answer: &Answer) -> bool {
        let says = |text: &str| memchr::memmem::find(&answer.body, text.as_bytes()).is_some();
        let left = answer.status == 400 && says(REQUIRED) && says("unrecognized parameter");
        if left {
            self.is_ours.store(true, Ordering::Relaxed);
        }
        left
    }

    /// Returns those of `names` to which nothing may be sent, and why. Fails where the server cannot be asked now.
    pub(super) async fn unproven(
        &self,
        names: &BTreeSet<String>,
        nodes: &Nodes,
    ) -> Result<BTreeMap<String, Why>, Fault> {
        let now = Instant::now();
        let open: Vec<&String> = {
            let mut proven = self.proven.lock().unwrap_or_else(PoisonError::into_inner);
            proven.retain(|_, until| *until > now);
            names.iter().filter(|name| !proven.contains_key(*name)).collect()
        };
        let mut templates = None;
        let mut unproven = BTreeMap::new();
        for (count, name) in open.into_iter().enumerate() {
            let why = if count < ASKED_MAX { why(name, nodes, &mut templates).await? } else { Some(Why::Later) };
            match why {
                None => self.note(name.clone(), now),
                Some(why) => drop(unproven.insert(name.clone(), why)),
            }
        }
        Ok(unproven)
    }

    fn note(&self, name: String, now: Instant) {
        let mut proven = self.proven.lock().unwrap_or_else(PoisonError::into_inner);
        if proven.len() >= PROVEN_MAX {
            proven.clear();
        }
        proven.insert(name, now + PROVEN_FOR);
    }
}

/// Returns why nothing may be sent to a name; `None` where it is, or will be, a data stream.
pub(super) async fn why(name: &str, nodes: &Nodes, templates: &mut Option<Answer>) -> Result<Option<Why>, Fault> {
    let known = ask(&format!("_resolve/index/{name}"), nodes).await?;
    match standing(&known.body, name) {
        Standing::Stream => return Ok(None),
        Standing::Plain => return Ok(Some(Why::IsPlain)),
        Standing::Nothing => {}
    }
    let templates = match templates {
        Some(templates) => templates,
        None => templates.insert(ask(TEMPLATES_PATH, nodes).await?),
    };
    Ok(match templates.status {
        200 if templates.whole => match template_of(&templates.body, name) {
            Some((_, true)) => None,
            Some((template, false)) => Some(Why::WouldBePlain(template)),
            None => Some(Why::Missing),
        },
        // No template at all.
        404 => Some(Why::Missing),
        status => Some(Why::Unread(status)),
    })
}

async fn ask(path: &str, nodes: &Nodes) -> Result<Answer, Fault> {
    let (method, body) = (Method::GET, Bytes::new());
    let answer = nodes.send(Ask { method, path, content_type: JSON, gzip: false, body, limits: ABOUT }).await?;
    check_answered(&answer)?;
    Ok(answer)
}

/// Returns what an answer to `_resolve/index/<name>` says.
fn standing(answer: &[u8], name: &str) -> Standing {
    let answer: Value = serde_json::from_slice(answer).unwrap_or_default();
    let of = |kind: &str| {
        let all = answer[kind].as_array().into_iter().flatten();
        all.filter(|one| one["name"] == name).cloned().collect::<Vec<Value>>()
    };
    let is_of_stream = |index: &Value| index.as_str().is_some_and(|index| index.starts_with(".ds-"));
    let leads_to_stream = |alias: &Value| {
        let indices = alias["indices"].as_array().into_iter().flatten();
        indices.clone().count() > 0 && indices.clone().all(is_of_stream)
    };
    if !of("data_streams").is_empty() || of("aliases").iter().any(leads_to_stream) {
        Standing::Stream
    } else if !of("indices").is_empty() || !of("aliases").is_empty() {
        Standing::Plain
    } else {
        Standing::Nothing
    }
}

/// Returns the template that a new index of this name would get, and whether it makes a data stream.
fn template_of(answer: &[u8], name: &str) -> Option<(String, bool)> {
    let answer: Value = serde_json::from_slice(answer).unwrap_or_default();
    let fits = |template: &&Value| {
        let patterns = &template["index_template"]["index_patterns"];
        // One alone may stand there as a text.
        let all = patterns.as_array().map_or(std::slice::from_ref(patterns), Vec::as_slice);
        all.iter().filter_map(Value::as_str).any(|pattern| matches(pattern, name))
    };
    let all = answer["index_templates"].as_array().into_iter().flatten();
    let best = all.filter(fits).max_by_key(|template| template["index_template"]["priority"].as_u64().unwrap_or(0))?;
    let is_stream = best["index_template"]["data_stream"].is_object();
    Some((best["name"].as_str().unwrap_or_default().to_owned(), is_stream))
}

/// Whether a name fits a pattern in which `*` stands for anything.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut left) = name.strip_prefix(first) else { return false };
    let mut pieces: Vec<&str> = rest.split('*').collect();
    let last = pieces.pop().unwrap_or_default();
    for piece in pieces {
        // The first place that fits leaves the most for what follows.
        let Some(at) = left.find(piece) else { return false };
        left = &left[at + piece.len()..];
    }
    left.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_those_of_the_servers() {
        for (pattern, name, fits) in [
            ("jobs", "jobs", true),
            ("jobs", "jobs-1", false),
            ("jobs-*", "jobs-", true),
            ("jobs-*", "jobs", false),
            ("*", "anything", true),
            ("*-*", "logs-a", true),
            ("logs-*-*", "logs-a", false),
            ("logs-*-*", "logs-a-b", true),
            ("a*b*b", "ab", false),
            ("a*b*b", "abb", true),
            ("a*bc*c", "abcbcc", true),
            ("*x", "ax", true),
            ("*x", "xa", false),
            ("**", "", true),
        ] {
            assert_eq!(matches(pattern, name), fits, "{pattern} {name}");
        }
    }

    #[test]
    fn the_template_of_the_highest_priority_decides() {
        let template = |name: &str, pattern: &str, priority: Option<u64>, stream: bool| {
            let mut one = serde_json::json!({"name": name, "index_template": {"index_patterns": [pattern]}});
            if let Some(priority) = priority {
                one["index_template"]["priority"] = priority.into();
            }
            if stream {
                one["index_template"]["data_stream"] = serde_json::json!({"hidden": false});
            }
            one
        };
        let of = |templates: &[Value], name: &str| {
            let answer = serde_json::json!({"index_templates": templates}).to_string();
            template_of(answer.as_bytes(), name)
        };
        let all = [
            template("plain", "jobs-*", Some(150), false),
            template("low", "*", None, true),
            template("high", "jobs-stream*", Some(300), true),
        ];
        assert_eq!(of(&all, "jobs-streams"), Some(("high".into(), true)));
        assert_eq!(of(&all, "jobs-other"), Some(("plain".into(), false)));
        assert_eq!(of(&all, "x"), Some(("low".into(), true)));
        assert_eq!(of(&all[..1], "x"), None);
        assert_eq!(template_of(b"", "x"), None);
        assert_eq!(template_of(b"<html>", "x"), None);
        let alone = serde_json::json!({"name": "one", "index_template": {"index_patterns": "x*", "data_stream": {}}});
        assert_eq!(of(&[alone], "xy"), Some(("one".into(), true)));
    }

    #[test]
    fn what_stands_under_a_name_is_told_apart() {
        for (answer, standing) in [
            (r#"{"indices":[],"aliases":[],"data_streams":[{"name":"jobs"}]}"#, Standing::Stream),
            (r#"{"indices":[{"name":"jobs"}],"aliases":[],"data_streams":[]}"#, Standing::Plain),
            (r#"{"indices":[],"aliases":[{"name":"jobs","indices":["jobs-1"]}],"data_streams":[]}"#, Standing::Plain),
            (r#"{"aliases":[{"name":"jobs","indices":[".ds-x-1"]}]}"#, Standing::Stream),
            (r#"{"aliases":[{"name":"jobs","indices":[".ds-x-1","y"]}]}"#, Standing::Plain),
            (r#"{"indices":[{"name":"jobs-2"}],"data_streams":[{"name":"jobs-1"}]}"#, Standing::Nothing),
            (r#"{"error":{"type":"index_not_found_exception"},"status":404}"#, Standing::Nothing),
            ("", Standing::Nothing),
        ] {
            assert_eq!(super::standing(answer.as_bytes(), "jobs"), standing, "{answer}");
        }
    }
}
