//! Requests to the admin endpoint of a running agent, bounded in time and size.

use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use reqwest::Method;
use serde::Serialize;

use crate::cli::AgentFlags;
use crate::exit::Failure;

/// Longest wait for a whole answer.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// Most bytes of an answer: 16 MiB, some thousand pipelines.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// Most bytes of a token file.
const TOKEN_BYTES_MAX: u64 = 16 << 10;

/// Asks one agent.
#[derive(Debug)]
pub struct Asker {
    runtime: tokio::runtime::Runtime,
    client: reqwest::Client,
    base: String,
    token: Option<String>,
}

impl Asker {
    /// Returns one that asks the agent the flags name; asks nothing yet.
    pub fn new(flags: &AgentFlags) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Failure::usage("status-ask", error))?;
        let base = base(&flags.admin);
        let made = client(flags).and_then(|client| Ok((client, token(flags)?)));
        let (client, token) = made.map_err(|error| cannot(&base, error))?;
        Ok(Self { runtime, client, base, token })
    }

    /// Returns the body of the answer to a GET.
    pub fn get(&self, path: &str) -> Result<Vec<u8>, Failure> {
        self.ask(Method::GET, path, None)
    }

    /// Returns the body of the answer to a POST of `body`.
    pub fn post(&self, path: &str, body: &impl Serialize) -> Result<Vec<u8>, Failure> {
        // Plain data with texts as keys, which always serialises.
        self.ask(Method::POST, path, Some(serde_json::to_vec(body).unwrap_or_default()))
    }

    fn ask(&self, method: Method, path: &str, body: Option<Vec<u8>>) -> Result<Vec<u8>, Failure> {
        let url = format!("{}{path}", self.base);
        let mut request = self.client.request(method, &url);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.header(reqwest::header::CONTENT_TYPE, "application/json").body(body);
        }
        let answer = self.runtime.block_on(answer(request)).map_err(|error| cannot(&url, error))?;
        match answer {
            (200, body) => Ok(body),
            (status, body) => Err(refusal(status, &body)),
        }
    }
}

fn cannot(base: &str, error: anyhow::Error) -> Failure {
    let error = error.context(format!("the agent at {base} cannot be asked"));
    Failure::usage("status-ask", error).next("see that it runs and that --admin is its address")
}

/// What the agent says against a request it understood: `{"code", "message"}`.
fn refusal(status: u16, body: &[u8]) -> Failure {
    let told: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    match told["message"].as_str() {
        Some(message) => Failure::failed("refused", anyhow!("the agent refuses: {}", crate::status::plain(message))),
        None => Failure::usage(
            "status-ask",
            anyhow!("it answered {status}: is this the admin endpoint (--admin of `run`)?"),
        ),
    }
}

/// Returns the address of the endpoint: `http://` is put before a bare address and port.
fn base(admin: &str) -> String {
    let scheme = if admin.contains("://") { "" } else { "http://" };
    format!("{scheme}{}", admin.trim_end_matches('/'))
}

fn client(flags: &AgentFlags) -> anyhow::Result<reqwest::Client> {
    let mut builder =
        reqwest::Client::builder().timeout(WAIT_MAX).no_proxy().redirect(reqwest::redirect::Policy::none());
    if let Some(path) = &flags.ca_cert {
        let unusable = || format!("--ca-cert {} is not usable", path.display());
        let pem = std::fs::read(path).with_context(unusable)?;
        builder = builder.tls_certs_only(reqwest::Certificate::from_pem_bundle(&pem).with_context(unusable)?);
    }
    Ok(builder.build()?)
}

fn token(flags: &AgentFlags) -> anyhow::Result<Option<String>> {
    let Some(path) = &flags.token_file else { return Ok(None) };
    let unreadable = || format!("--token-file {} cannot be read", path.display());
    if std::fs::metadata(path).with_context(unreadable)?.len() > TOKEN_BYTES_MAX {
        bail!("--token-file {} is larger than {TOKEN_BYTES_MAX} bytes", path.display());
    }
    Ok(Some(std::fs::read_to_string(path).with_context(unreadable)?.trim_end().to_owned()))
}

async fn answer(request: reqwest::RequestBuilder) -> anyhow::Result<(u16, Vec<u8>)> {
    let mut answer = request.send().await.map_err(reqwest::Error::without_url)?;
    let status = answer.status().as_u16();
    if status == 401 {
        bail!("it asks for a token: give the file that holds it with --token-file");
    }
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(reqwest::Error::without_url)? {
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            bail!("its answer is larger than {ANSWER_BYTES_MAX} bytes");
        }
        body.extend_from_slice(&chunk);
    }
    Ok((status, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_address_is_asked_over_http() {
        assert_eq!(base("127.0.0.1:8412"), "http://127.0.0.1:8412");
        assert_eq!(base("https://node:8412/"), "https://node:8412");
    }

    #[test]
    fn a_refusal_says_what_the_agent_said() {
        let told = refusal(404, br#"{"code":"x","message":"no pipeline a/b"}"#).to_string();
        assert_eq!(told, "error[refused]: the agent refuses: no pipeline a/b");
        assert!(refusal(404, b"<html>").to_string().contains("is this the admin endpoint"));
    }
}
