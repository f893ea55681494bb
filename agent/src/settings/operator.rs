//! Where the operator is and what is shown to it, and the door that only its agents have.
//!
//! Guarantees: what is asked of an operator travels over TLS, or stays on this machine.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use reqwest::Url;
use spillway_crds::served::PATH;

use super::list::{DOOR, DOOR_CERT, DOOR_KEY, OPERATOR, OPERATOR_CA, OPERATOR_TOKEN, STATE_KEY};
use super::{Layers, SettingError, Written, existing_file, listener};
use crate::cli::RunFlags;
use crate::sources::http::TlsFiles;

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
    /// Where pods send events; `None` is nowhere.
    pub door: Option<Box<DoorSettings>>,
}

/// Where pods send events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DoorSettings {
    /// Where it listens.
    pub address: SocketAddr,
    /// What it shows.
    pub tls: TlsFiles,
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
        door: door(layers, flags)?,
    })
}

/// Settles the door, which needs a certificate with its key.
fn door(layers: &Layers<'_>, flags: &RunFlags) -> Result<Option<Box<DoorSettings>>, SettingError> {
    let tls = TlsFiles {
        certificate: layers.parsed(&DOOR_CERT, flags.door_cert.as_ref(), existing_file)?,
        key: layers.parsed(&DOOR_KEY, flags.door_key.as_ref(), existing_file)?,
    };
    let Some(written) = layers.one(&DOOR, flags.door.as_ref())? else { return Ok(None) };
    match listener(&written.text).ok_or_else(|| written.refuse(&DOOR))? {
        Some(address) if tls.certificate.is_some() && tls.key.is_some() => {
            Ok(Some(Box::new(DoorSettings { address, tls })))
        }
        Some(_) => Err(written.refuse(&DOOR)),
        None => Ok(None),
    }
}

/// Refuses a door of an agent that no operator tells of pods.
pub(super) fn refuse_door(layers: &Layers<'_>, flags: &RunFlags) -> Result<(), SettingError> {
    match layers.one(&DOOR, flags.door.as_ref())? {
        Some(written) if written.text != "off" => Err(written.refuse(&DOOR)),
        _ => Ok(()),
    }
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
