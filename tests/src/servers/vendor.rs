//! Reading an Elasticsearch by the client of its makers, so that what we wrote is not judged by our own HTTP alone.
//!
//! Without TLS: the crate's would bring a second TLS provider in. It speaks to servers of its own major version, and to no
//! OpenSearch.

use anyhow::ensure;
use elasticsearch::http::transport::Transport;
use elasticsearch::indices::IndicesRefreshParts;
use elasticsearch::{Elasticsearch, SearchParts};
use serde_json::{Value, json};

/// Most documents of one answer.
const PAGE: u64 = 5000;

/// Returns the hits of all documents below `indices`, refreshed first.
pub(super) fn hits(url: &str, indices: &str) -> anyhow::Result<Vec<Value>> {
    let client = Elasticsearch::new(Transport::single_node(url)?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let refreshed = client.indices().refresh(IndicesRefreshParts::Index(&[indices])).send().await?;
        ensure!(refreshed.status_code().is_success(), "refresh: {}", refreshed.text().await?);
        let mut all = Vec::new();
        let mut after: Option<Value> = None;
        loop {
            let mut body = json!({"size": PAGE, "sort": [{"_spillway.id": "asc"}]});
            if let Some(after) = after {
                body["search_after"] = after;
            }
            let found = client.search(SearchParts::Index(&[indices])).body(body).send().await?;
            let found: Value = found.error_for_status_code()?.json().await?;
            let hits = found["hits"]["hits"].as_array().cloned().unwrap_or_default();
            let Some(last) = hits.last() else { return Ok(all) };
            after = Some(last["sort"].clone());
            all.extend(hits);
        }
    })
}
