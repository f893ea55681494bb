//! One GET to a running agent, bounded in time and size.

use std::time::Duration;

use anyhow::{Context, bail};

use crate::cli::StatusFlags;
use crate::exit::Failure;

/// Longest wait for the whole answer: the agent reads it from memory.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// Most bytes of an answer: 16 MiB, some thousand pipelines.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// Most bytes of a token file.
const TOKEN_BYTES_MAX: u64 = 16 << 10;

/// Returns the body of `/v1/status`.
pub(super) fn ask(flags: &StatusFlags) -> Result<Vec<u8>, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::usage("status-ask", error))?;
    let url = url(&flags.admin);
    let answer = runtime.block_on(get(&url, flags));
    answer.map_err(|error| {
        let error = error.context(format!("the agent at {url} cannot be asked"));
        Failure::usage("status-ask", error).next("see that it runs and that --admin is its address")
    })
}

/// Returns the address of the status: `http://` is put before a bare address and port.
fn url(admin: &str) -> String {
    let scheme = if admin.contains("://") { "" } else { "http://" };
    format!("{scheme}{}/v1/status", admin.trim_end_matches('/'))
}

async fn get(url: &str, flags: &StatusFlags) -> anyhow::Result<Vec<u8>> {
    let mut builder =
        reqwest::Client::builder().timeout(WAIT_MAX).no_proxy().redirect(reqwest::redirect::Policy::none());
    if let Some(path) = &flags.ca_cert {
        let unusable = || format!("--ca-cert {} is not usable", path.display());
        let pem = std::fs::read(path).with_context(unusable)?;
        builder = builder.tls_certs_only(reqwest::Certificate::from_pem_bundle(&pem).with_context(unusable)?);
    }
    let mut request = builder.build()?.get(url);
    if let Some(path) = &flags.token_file {
        let unreadable = || format!("--token-file {} cannot be read", path.display());
        if std::fs::metadata(path).with_context(unreadable)?.len() > TOKEN_BYTES_MAX {
            bail!("--token-file {} is larger than {TOKEN_BYTES_MAX} bytes", path.display());
        }
        request = request.bearer_auth(std::fs::read_to_string(path).with_context(unreadable)?.trim_end());
    }
    let mut answer = request.send().await.map_err(reqwest::Error::without_url)?;
    match answer.status().as_u16() {
        200 => {}
        401 => bail!("it asks for a token: give the file that holds it with --token-file"),
        status => bail!("it answered {status}: is this the admin endpoint (--admin of `run`)?"),
    }
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(reqwest::Error::without_url)? {
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            bail!("its answer is larger than {ANSWER_BYTES_MAX} bytes");
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_address_is_asked_over_http() {
        assert_eq!(url("127.0.0.1:8412"), "http://127.0.0.1:8412/v1/status");
        assert_eq!(url("https://node:8412/"), "https://node:8412/v1/status");
    }
}
