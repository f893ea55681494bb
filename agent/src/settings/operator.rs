//! Where the operator is and what is shown to it, and what only its agents have: the door, and the way from a sidecar to it.
//!
//! Guarantees: what is asked of an operator, and sent to the agent of the node, travels over TLS, or stays on this machine.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use reqwest::Url;
use spillway_crds::served::PATH;

use super::list::{
    DOOR, DOOR_CERT, DOOR_KEY, NODE_AGENT, NODE_AGENT_TOKEN, OPERATOR, OPERATOR_CA, OPERATOR_TOKEN, STATE_KEY,
};
use super::{Layers, SettingError, Written, existing_file, listeners};
use crate::cli::RunFlags;
use crate::sources::pushed::security::TlsFiles;

/// Where the kubelet puts the token that a pod's manifest asks for.
const TOKEN_DEFAULT: &str = "/var/run/secrets/spillway/token";

/// The same of the token for the agent of the node.
const NODE_AGENT_TOKEN_DEFAULT: &str = "/var/run/secrets/spillway/node-agent";

/// Where the agent of a node takes events.
const EVENTS_PATH: &str = "/v1/events";

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
    /// What a sidecar has; `None` is no sidecar.
    pub sidecar: Option<Box<SidecarSettings>>,
}

/// What only the sidecar of a pod has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SidecarSettings {
    /// Where the agent of its node takes events.
    pub node_agent: Url,
    /// Holds the token that is shown there.
    pub token: PathBuf,
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
        url: endpoint(&written.text, PATH).ok_or_else(|| written.refuse(&OPERATOR))?,
        ca: layers.parsed(&OPERATOR_CA, flags.operator_ca.as_ref(), existing_file)?,
        token: token.unwrap_or_else(|| TOKEN_DEFAULT.into()),
        state_key: layers.parsed(&STATE_KEY, flags.state_key.as_ref(), existing_file)?,
        door: door(layers, flags)?,
        sidecar: sidecar(layers, flags)?,
    })
}

/// Settles what a sidecar has.
fn sidecar(layers: &Layers<'_>, flags: &RunFlags) -> Result<Option<Box<SidecarSettings>>, SettingError> {
    let token = layers.parsed(&NODE_AGENT_TOKEN, flags.node_agent_token.as_ref(), |text| {
        (!text.is_empty()).then(|| PathBuf::from(text))
    })?;
    let Some(written) = layers.one(&NODE_AGENT, flags.node_agent.as_ref())? else { return Ok(None) };
    let node_agent = endpoint(&written.text, EVENTS_PATH).ok_or_else(|| written.refuse(&NODE_AGENT))?;
    let token = token.unwrap_or_else(|| NODE_AGENT_TOKEN_DEFAULT.into());
    Ok(Some(Box::new(SidecarSettings { node_agent, token })))
}

/// Settles the door, which needs a certificate with its key.
fn door(layers: &Layers<'_>, flags: &RunFlags) -> Result<Option<Box<DoorSettings>>, SettingError> {
    let tls = TlsFiles {
        certificate: layers.parsed(&DOOR_CERT, flags.door_cert.as_ref(), existing_file)?,
        key: layers.parsed(&DOOR_KEY, flags.door_key.as_ref(), existing_file)?,
    };
    let Some(written) = layers.one(&DOOR, flags.door.as_ref())? else { return Ok(None) };
    match listeners::address(&written.text).ok_or_else(|| written.refuse(&DOOR))? {
        Some(address) if tls.certificate.is_some() && tls.key.is_some() => {
            Ok(Some(Box::new(DoorSettings { address, tls })))
        }
        Some(_) => Err(written.refuse(&DOOR)),
        None => Ok(None),
    }
}

/// Refuses a door, and a sidecar, that no operator tells of pods.
pub(super) fn refuse_without(layers: &Layers<'_>, flags: &RunFlags) -> Result<(), SettingError> {
    if let Some(written) = layers.one(&NODE_AGENT, flags.node_agent.as_ref())? {
        return Err(written.refuse(&NODE_AGENT));
    }
    match layers.one(&DOOR, flags.door.as_ref())? {
        Some(written) if written.text != "off" => Err(written.refuse(&DOOR)),
        _ => Ok(()),
    }
}

/// Returns where who is at `text` is asked.
fn endpoint(text: &str, path: &str) -> Option<Url> {
    let mut url = Url::parse(text).ok()?;
    let is_bare = url.username().is_empty() && url.password().is_none() && url.path() == "/";
    let is_bare = is_bare && url.query().is_none() && url.fragment().is_none();
    let host = url.host_str()?.trim_matches(['[', ']']).to_owned();
    let is_loopback = host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback());
    let is_safe = url.scheme() == "https" || url.scheme() == "http" && is_loopback;
    url.set_path(path);
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
            assert_eq!(endpoint(text, PATH).as_ref().map(Url::as_str), asked, "{text}");
        }
    }
}
