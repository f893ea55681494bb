//! The gate of a sidecar's listener: its sender is the pod that it sits in; until that is known, a request is answered `503`.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use tokio_rustls::TlsAcceptor;

use super::answer::Refused;
use super::gate::Gate;
use super::stats::HttpStats;
use crate::sources::pushed::own_pod::OwnPod;
use crate::sources::pushed::security::ListenerSecurity;
use crate::sources::pushed::sender::{Sender, Way};
use crate::sources::pushed::targets::PushTargets;

/// How long who is early waits before it asks again.
const EARLY_AGAIN: Duration = Duration::from_secs(1);

/// The gate.
pub(super) struct OwnPodGate {
    /// What the listener needs besides.
    pub(super) security: ListenerSecurity,
    pub(super) pod: OwnPod,
    pub(super) targets: PushTargets,
    pub(super) stats: Arc<HttpStats>,
}

impl Gate for OwnPodGate {
    fn admit(&self, headers: &HeaderMap, address: IpAddr) -> Result<Sender, Refused> {
        self.security.admit(headers, address)?;
        let early = |message| Refused::new(StatusCode::SERVICE_UNAVAILABLE, "starting", message).after(EARLY_AGAIN);
        let sender = self.pod.sender(Way::Http, &self.targets).map_err(early);
        sender.inspect_err(|refused| self.stats.turned_back(refused.code()))
    }

    fn tells_apart(&self) -> bool {
        false
    }

    fn tls(&self) -> Option<TlsAcceptor> {
        Gate::tls(&self.security)
    }
}
