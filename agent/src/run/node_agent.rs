//! The way from a sidecar to the agent of its node: what goes there, and as whom.
//!
//! Expected flow: a route of the pipeline leads to [`NODE_AGENT`] where its destinations are for the agent of the node (the
//! platform's credentials, folders of the node); at the end of the pod every route does. The agent of the node takes the events at
//! its door for that route of that pipeline, as events of the pod that the token proves, and delivers them as its own.
//!
//! # Guarantees
//! - An HTTP backend as any other: batches are planned under a key, and a repeat is recognised by it.
//! - Token and authorities are read at each use; the authorities that the operator told of count, too.
//!
//! # Limits
//! The agent of the node recognises a key for ten minutes ([`KEY_LIFE`](spillway_delivery::intake::KEY_LIFE)); a batch whose answer
//! was lost for longer may be there twice.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use spillway_backends::http::{HttpAuth, HttpBearerAuth, HttpFormat, HttpHeader, HttpMethod};
use spillway_backends::{
    BackendSettings, Compression, HttpSettings, SecretError, SecretKeyRef, SecretSource, TlsSettings,
};
use spillway_crds::kinds::CLUSTER;
use spillway_crds::served::NODE_AGENT;
use spillway_delivery::secret::Secret;
use tokio::sync::watch;

use crate::settings::{ConfigSource, Settings};

/// Most bytes of a file of token or authorities.
const FILE_BYTES_MAX: u64 = 256 << 10;

/// What the secrets of this backend are called, where its settings name them.
const IDENTITY: &str = "identity";
const TOKEN: &str = "token";
const AUTHORITIES: &str = "authorities";

/// The way to the agent of the node.
#[derive(Debug, Clone)]
pub(super) struct NodeAgent {
    url: String,
    /// Whether it is reached by TLS.
    has_authorities: bool,
    identity: Arc<Identity>,
}

/// What the pod shows, and whom it trusts.
struct Identity {
    token: PathBuf,
    authorities: Option<PathBuf>,
    told: watch::Receiver<String>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("token", &self.token).finish_non_exhaustive()
    }
}

impl NodeAgent {
    /// Returns the way of a sidecar; `told` are the authorities that its operator tells of. `None` where this is none.
    pub(super) fn of(settings: &Settings, told: watch::Receiver<String>) -> Option<Self> {
        let sidecar = settings.sidecar()?;
        let ConfigSource::Operator(operator) = &settings.configuration else { return None };
        let authorities = operator.ca.clone().filter(|_| sidecar.node_agent.scheme() == "https");
        Some(Self {
            url: sidecar.node_agent.to_string(),
            has_authorities: authorities.is_some(),
            identity: Arc::new(Identity { token: sidecar.token.clone(), authorities, told }),
        })
    }

    /// Returns whether a backend, by what names it for good, is the agent of the node.
    pub(super) fn is_meant(uid: &str) -> bool {
        uid.strip_prefix(CLUSTER).and_then(|name| name.strip_prefix('.')) == Some(NODE_AGENT)
    }

    /// Returns how a route of a pipeline leads there.
    pub(super) fn settings(&self, (namespace, pipeline): (&str, &str), route: &str) -> BackendSettings {
        let reference = |key: &str| SecretKeyRef { name: IDENTITY.into(), key: key.into() };
        let header = |name: &str, value: String| HttpHeader { name: name.into(), value };
        BackendSettings::Http(HttpSettings {
            url: self.url.clone(),
            method: HttpMethod::Post,
            format: HttpFormat::Ndjson,
            compression: Compression::None,
            headers: vec![
                header("x-spillway-pipeline", format!("{namespace}/{pipeline}")),
                header("x-spillway-route", route.to_owned()),
            ],
            idempotency_key: true,
            auth: Some(HttpAuth {
                bearer: Some(HttpBearerAuth { token_secret_ref: reference(TOKEN) }),
                ..HttpAuth::default()
            }),
            tls: self.has_authorities.then(|| TlsSettings { ca_secret_ref: reference(AUTHORITIES) }),
        })
    }

    /// Returns where its token and authorities are read.
    pub(super) fn secrets(&self) -> Arc<dyn SecretSource> {
        self.identity.clone()
    }
}

impl SecretSource for Identity {
    fn get(&self, reference: &SecretKeyRef) -> Result<Secret, SecretError> {
        let failed = |source| SecretError::Read { reference: reference.clone(), source };
        match (&*reference.key, &self.authorities) {
            (TOKEN, _) => read(&self.token).map(|text| Secret::new(&text)).map_err(failed),
            (AUTHORITIES, Some(path)) => {
                let mounted = read(path).map_err(failed)?;
                Ok(Secret::new(&format!("{mounted}\n{}", *self.told.borrow())))
            }
            _ => Err(SecretError::Missing(reference.clone())),
        }
    }
}

fn read(path: &Path) -> io::Result<String> {
    let size = std::fs::metadata(path)?.len();
    if size > FILE_BYTES_MAX {
        return Err(io::Error::other(format!("{size} bytes, allowed: {FILE_BYTES_MAX}")));
    }
    std::fs::read_to_string(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agent_of_the_node_is_known_by_its_name_alone() {
        assert!(NodeAgent::is_meant("_cluster.node-agent"));
        for other in ["_cluster.lake", "fab12.node-agent", "_cluster.node-agent.x", "node-agent", ""] {
            assert!(!NodeAgent::is_meant(other), "{other}");
        }
    }

    #[test]
    fn what_is_shown_and_trusted_is_read_at_each_use() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            std::fs::write(folder.path().join(name), text).unwrap();
            folder.path().join(name)
        };
        let (tell, told) = watch::channel(String::new());
        let (token, authorities) = (file("token", "one\n"), Some(file("ca.crt", "MOUNTED")));
        let identity = Identity { token, authorities, told };
        let get = |key: &str| identity.get(&SecretKeyRef { name: IDENTITY.into(), key: key.into() });
        assert_eq!((get(TOKEN).unwrap().reveal(), get(AUTHORITIES).unwrap().reveal()), ("one", "MOUNTED"));
        file("token", "two\n");
        tell.send_replace("TOLD".to_owned());
        assert_eq!(get(TOKEN).unwrap().reveal(), "two");
        assert_eq!(get(AUTHORITIES).unwrap().reveal(), "MOUNTED\nTOLD");
        assert!(get("other").is_err());
        file("token", &"x".repeat(300 << 10));
        assert!(matches!(get(TOKEN), Err(SecretError::Read { .. })));
        assert!(!format!("{identity:?}").contains("one"));
    }
}
