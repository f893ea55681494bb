//! Requests to the API server, and how many it had.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use futures_util::StreamExt as _;
use reqwest::{Client, Method};
use serde_json::Value;

use crate::servers::kube_api::KubeApi;

/// Most requests at a time.
const AT_ONCE: usize = 32;

/// A client of one API server, as its one user.
#[derive(Debug, Clone)]
pub struct Api {
    client: Client,
    url: String,
    token: &'static str,
}

/// How many requests of one kind there were: by verb and resource.
pub type Counts = BTreeMap<(String, String), u64>;

impl Api {
    /// Returns a client of `server`.
    pub fn of(server: &KubeApi) -> anyhow::Result<Self> {
        let (url, token) = server.url_and_token();
        // The server made its certificate itself, and listens on loopback.
        let client = Client::builder().tls_danger_accept_invalid_certs(true).no_proxy().build()?;
        Ok(Self { client, url, token })
    }

    /// Sends `body` to `path` and returns the answer.
    pub async fn send(&self, method: Method, path: &str, body: &Value) -> anyhow::Result<Value> {
        let kind = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
        let request = self.client.request(method, format!("{}{path}", self.url)).bearer_auth(self.token);
        let answer = request.header("content-type", kind).body(body.to_string()).send().await?;
        let status = answer.status();
        let text = answer.text().await?;
        if !status.is_success() {
            bail!("{path}: {status}: {text}");
        }
        serde_json::from_str(&text).context("the API server's answer")
    }

    /// Returns what is at `path`.
    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.send(Method::GET, path, &Value::Null).await
    }

    /// Sees the objects of a collection as they stand and as they change, until `is_last` says that one is what was waited for.
    /// `path` may select by fields. An API server ends the watch of who reads slower than objects change: then it begins anew.
    pub async fn watch(&self, path: &str, mut is_last: impl FnMut(&Value) -> bool) -> anyhow::Result<()> {
        while !self.watch_once(path, &mut is_last).await? {}
        Ok(())
    }

    /// The same until the server ends it; returns whether the last was seen.
    async fn watch_once(&self, path: &str, is_last: &mut impl FnMut(&Value) -> bool) -> anyhow::Result<bool> {
        let begin = if path.contains('?') { '&' } else { '?' };
        let request = self.client.get(format!("{}{path}{begin}watch=true", self.url)).bearer_auth(self.token);
        let mut answer = request.send().await?.error_for_status()?;
        let mut text = Vec::new();
        while let Some(chunk) = answer.chunk().await? {
            text.extend_from_slice(&chunk);
            while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
                let event: Value = serde_json::from_slice(&text.drain(..=end).collect::<Vec<_>>())?;
                if is_last(&event["object"]) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Creates many objects, each a path and a body, so many at a time.
    pub async fn create_all(&self, objects: impl Iterator<Item = (String, Value)>) -> anyhow::Result<()> {
        let requests = objects.map(|(path, body)| async move { self.send(Method::POST, &path, &body).await.map(drop) });
        let mut done = futures_util::stream::iter(requests).buffer_unordered(AT_ONCE);
        while let Some(result) = done.next().await {
            result?;
        }
        Ok(())
    }

    /// Returns how many requests the server has had since it started.
    pub async fn counts(&self) -> anyhow::Result<Counts> {
        let request = self.client.get(format!("{}/metrics", self.url)).bearer_auth(self.token);
        let text = request.send().await?.text().await?;
        let mut counts = Counts::new();
        for line in text.lines().filter_map(|line| line.strip_prefix("apiserver_request_total{")) {
            let (labels, value) = line.rsplit_once("} ").context("a metric without a value")?;
            let label = |name: &str| {
                let (_, rest) = labels.split_once(&format!("{name}=\""))?;
                rest.split_once('"').map(|(value, _)| value.to_owned())
            };
            let key = (label("verb").unwrap_or_default(), label("resource").unwrap_or_default());
            *counts.entry(key).or_default() += value.trim().parse::<f64>().unwrap_or_default() as u64;
        }
        Ok(counts)
    }
}

/// Returns what `after` has more than `before`.
pub fn difference(before: &Counts, after: &Counts) -> Counts {
    let more = after.iter().map(|(key, count)| (key.clone(), count - before.get(key).copied().unwrap_or_default()));
    more.filter(|(_, count)| *count > 0).collect()
}

/// Returns how many of `counts` changed something.
pub fn writes(counts: &Counts) -> u64 {
    let is_write = |verb: &str| ["POST", "PUT", "PATCH", "APPLY", "DELETE"].contains(&verb);
    counts.iter().filter(|((verb, _), _)| is_write(verb)).map(|(_, count)| count).sum()
}
