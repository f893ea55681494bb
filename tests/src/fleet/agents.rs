//! Agents that speak the protocol and run nothing.

use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use flate2::read::GzDecoder;
use futures_util::StreamExt as _;
use reqwest::{Certificate, Client, Method, Response, StatusCode};
use serde_json::json;
use spillway_crds::served::{AUDIENCE, Answer, Ask, PATH, PROTOCOL, Version};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::api::Api;
use super::objects::{OWN, agent};

/// Most tokens that are asked for, and most first connections that are made, at a time.
const AT_ONCE: usize = 16;

/// Stubs, each with what it acknowledged of the pipeline that all of them run.
#[derive(Debug)]
pub struct Fleet {
    acknowledged: Vec<watch::Receiver<u64>>,
    tasks: JoinSet<anyhow::Result<()>>,
}

impl Fleet {
    /// Connects `count` agents to the operator at `url`, each with a token of its own pod.
    pub async fn start(api: &Api, url: &str, ca: &str, count: usize) -> anyhow::Result<Self> {
        let tokens: Vec<String> = futures_util::stream::iter(0..count)
            .map(|number| token(api, number))
            .buffered(AT_ONCE)
            .collect::<Vec<_>>()
            .await
            .into_iter()
            .collect::<anyhow::Result<_>>()?;
        let first = Arc::new(Semaphore::new(AT_ONCE));
        let (mut acknowledged, mut tasks) = (Vec::new(), JoinSet::new());
        for (number, token) in tokens.into_iter().enumerate() {
            let (generation, seen) = watch::channel(0);
            acknowledged.push(seen);
            let stub = Stub { client: client(ca)?, url: format!("{url}{PATH}"), token, number, generation };
            tasks.spawn(stub.run(first.clone()));
        }
        Ok(Self { acknowledged, tasks })
    }

    /// Waits until every agent acknowledged `generation` or a later one, and the operator answered to that.
    pub async fn wait_for(&mut self, generation: u64, within: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + within;
        for seen in &mut self.acknowledged {
            let waited = tokio::time::timeout_at(deadline, seen.wait_for(|known| *known >= generation)).await;
            if let Some(ended) = self.tasks.try_join_next() {
                ended.context("an agent")??;
            }
            waited.context("an agent did not acknowledge in time")?.context("an agent ended")?;
        }
        Ok(())
    }

    /// Wants every agent to go on for that time.
    pub async fn goes_on_for(&mut self, time: Duration) -> anyhow::Result<()> {
        match tokio::time::timeout(time, self.tasks.join_next()).await {
            Ok(Some(ended)) => ended.context("an agent")?,
            Ok(None) => bail!("there are no agents"),
            Err(_) => Ok(()),
        }
    }
}

struct Stub {
    client: Client,
    url: String,
    token: String,
    number: usize,
    generation: watch::Sender<u64>,
}

impl Stub {
    async fn run(self, first: Arc<Semaphore>) -> anyhow::Result<()> {
        let (mut running, mut pods, mut generation) = (None::<Version>, None, 0);
        let mut is_news = true;
        let mut place = Some(first.acquire_owned().await?);
        loop {
            let ask = Ask {
                protocol: PROTOCOL,
                agent: format!("stub-{}", self.number),
                version: "0".to_owned(),
                // What is new is acknowledged by a question that does not wait, so that its answer is the proof of it.
                wait_seconds: if is_news { 0 } else { 50 },
                running: running.clone(),
                pods: std::mem::take(&mut pods),
                ..Ask::default()
            };
            pods.clone_from(&ask.pods);
            let request = self.client.post(&self.url).bearer_auth(&self.token).body(serde_json::to_vec(&ask)?);
            // As agents ask.
            let request = request.header("accept-encoding", "gzip").header("content-type", "application/json");
            let answer = request.send().await?;
            ensure!(answer.status() == StatusCode::OK, "agent {}: {}", self.number, answer.text().await?);
            let answer = read(answer).await?;
            self.generation.send_replace(generation);
            drop(place.take());
            is_news = answer.configuration.is_some();
            if let Some(known) = answer.pods {
                pods = Some(known.hash);
            }
            if let Some(configuration) = answer.configuration {
                let everywhere =
                    configuration.manifests.iter().find(|text| text.contains("\"ClusterMonitoringPipeline\""));
                generation = everywhere.and_then(|text| generation_of(text)).unwrap_or_default();
                running = Some(configuration.version);
            }
        }
    }
}

/// Reads an answer, packed or not.
async fn read(answer: Response) -> anyhow::Result<Answer> {
    let is_packed = answer.headers().get("content-encoding").is_some_and(|coding| coding == "gzip");
    let bytes = answer.bytes().await?;
    if !is_packed {
        return Ok(serde_json::from_slice(&bytes)?);
    }
    let mut text = Vec::new();
    GzDecoder::new(&*bytes).read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

fn generation_of(manifest: &str) -> Option<u64> {
    serde_json::from_str::<serde_json::Value>(manifest).ok()?["metadata"]["generation"].as_u64()
}

fn client(ca: &str) -> anyhow::Result<Client> {
    let builder = Client::builder().tls_certs_only([Certificate::from_pem(ca.as_bytes())?]).no_proxy().http1_only();
    Ok(builder.build()?)
}

async fn token(api: &Api, number: usize) -> anyhow::Result<String> {
    let bound = json!({"apiVersion": "v1", "kind": "Pod", "name": agent(number)});
    let request = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
        "spec": {"audiences": [AUDIENCE], "expirationSeconds": 86_400, "boundObjectRef": bound},
    });
    let path = format!("/api/v1/namespaces/{OWN}/serviceaccounts/spillway-agent/token");
    let made = api.send(Method::POST, &path, &request).await?;
    made["status"]["token"].as_str().map(str::to_owned).context("no token in the answer")
}
