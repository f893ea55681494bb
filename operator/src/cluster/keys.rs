//! The keys with which the API server signs the tokens of service accounts: published, so that tokens are verified offline.
//!
//! Read at the start, when a token names a key that is not known, and every [`AGAIN`]. A reading that fails keeps the keys
//! that are there. Source: `OpenID` Connect Discovery 1.0, as Kubernetes serves it for the issuer of service accounts.

use std::time::Duration;

use kube::Client;
use serde::Deserialize;

/// How long keys may be used before they are read again.
pub const AGAIN: Duration = Duration::from_secs(600);

/// The least time between two readings, however many tokens ask for one.
pub const APART: Duration = Duration::from_secs(10);

/// Who signs, and with which keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// What tokens name as their issuer.
    pub issuer: String,
    /// The keys, as a JSON Web Key Set (RFC 7517).
    pub keys: String,
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
}

/// Reads issuer and keys from the API server.
pub async fn read(client: &Client) -> kube::Result<Published> {
    let discovery = client.request::<Discovery>(get("/.well-known/openid-configuration")?).await?;
    let keys = client.request_text(get("/openid/v1/jwks")?).await?;
    Ok(Published { issuer: discovery.issuer, keys })
}

fn get(path: &str) -> kube::Result<http::Request<Vec<u8>>> {
    http::Request::get(path).body(Vec::new()).map_err(kube::Error::HttpError)
}
