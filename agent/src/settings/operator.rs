//! Where the operator is and what is shown to it.
//!
//! Guarantees: what is asked of an operator travels over TLS, or stays on this machine.

use std::net::IpAddr;
use std::path::PathBuf;

use reqwest::Url;
use spillway_crds::served::PATH;

use super::list::{OPERATOR, OPERATOR_CA, OPERATOR_TOKEN, STATE_KEY};
use super::{Layers, SettingError, Written, existing_file};
use crate::cli::RunFlags;

/// Where the kubelet puts the token that a pod's manifest asks for.
const TOKEN_DEFAULT: &str = "/var/run/secrets/spillway/token";

/// Where the operator is and what is shown to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorSettings {
    /// Where configuration is asked for.
    pub url: Url,
    /// The authorities that are trusted, alone; `None` are those of the machine.
    pub ca: Option<PathBuf>,
    /// Holds the token. It may appear later.
    pub token: PathBuf,
    /// Holds the key for what is kept on disk.
    pub state_key: Option<PathBuf>,
}

/// Settles what belongs to an operator that was named.
pub(super) fn settle(
    layers: &Layers<'_>,
    flags: &RunFlags,
    written: &Written,
) -> Result<OperatorSettings, SettingError> {
    let token = layers.parsed(&OPERATOR_TOKEN, flags.operator_token.as_ref(), |text| {
        (!text.is_empty()).then(|| PathBuf::from(text))
    })?;
    Ok(OperatorSettings {
        url: endpoint(&written.text).ok_or_else(|| written.refuse(&OPERATOR))?,
        ca: layers.parsed(&OPERATOR_CA, flags.operator_ca.as_ref(), existing_file)?,
        token: token.unwrap_or_else(|| TOKEN_DEFAULT.into()),
        state_key: layers.parsed(&STATE_KEY, flags.state_key.as_ref(), existing_file)?,
    })
}

/// Returns where an operator at `text` is asked.
fn endpoint(text: &str) -> Option<Url> {
    let mut url = Url::parse(text).ok()?;
    let is_bare = url.username().is_empty() && url.password().is_none() && url.path() == "/";
    let is_bare = is_bare && url.query().is_none() && url.fragment().is_none();
    let host = url.host_str()?.trim_matches(['[', ']']).to_owned();
    let is_loopback = host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback());
    let is_safe = url.scheme() == "https" || url.scheme() == "http" && is_loopback;
    url.set_path(PATH);
    (is_bare && is_safe).then_some(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_not_sent_in_the_clear_to_another_machine() {
        for (text, asked) in [
            ("https://spillway-operator:8443", Some("https://spillway-operator:8443/v1/configuration")),
            ("https://10.0.0.1/", Some("https://10.0.0.1/v1/configuration")),
            ("http://127.0.0.1:8443", Some("http://127.0.0.1:8443/v1/configuration")),
            ("http://[::1]:8443", Some("http://[::1]:8443/v1/configuration")),
            ("http://localhost:1", Some("http://localhost:1/v1/configuration")),
            ("http://spillway-operator:8443", None),
            ("http://127.0.0.1.example.test", None),
            ("https://user:pass@operator", None),
            ("https://operator/path", None),
            ("https://operator?x=1", None),
            ("ftp://operator", None),
            ("operator:8443", None),
            ("", None),
        ] {
            assert_eq!(endpoint(text).as_ref().map(Url::as_str), asked, "{text}");
        }
    }
}
