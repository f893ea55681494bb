//! The gate of a sidecar's listener: whoever reaches it is the pod that it sits in, since it listens on loopback and a pod shares
//! that with nobody.
//!
//! # Guarantees
//! - What is known of the sender is what the operator tells of the pod. Nothing of it comes from a request.
//! - Until the operator has told of the pod, and of what it runs, who sends is answered `503`, and nothing is said of pipelines.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use tokio_rustls::TlsAcceptor;

use super::answer::Refused;
use super::security::ListenerSecurity;
use super::sender::{Gate, Sender};
use super::stats::HttpStats;
use super::targets::HttpTargets;
use crate::pods::PodsReceiver;

/// How long who is early waits before it asks again.
const EARLY_AGAIN: Duration = Duration::from_secs(1);

/// The pod, as the operator tells of it.
#[derive(Debug, Clone)]
pub struct OwnPod {
    /// Where it is told: one alone.
    pub pods: PodsReceiver,
    /// The name of its node.
    pub node: Option<String>,
}

/// The gate.
pub(super) struct OwnPodGate {
    /// What the listener needs besides.
    pub(super) security: ListenerSecurity,
    pub(super) pod: OwnPod,
    pub(super) targets: HttpTargets,
    pub(super) stats: Arc<HttpStats>,
}

impl OwnPodGate {
    fn sender(&self) -> Result<Sender, Refused> {
        let early =
            |message: &str| Refused::new(StatusCode::SERVICE_UNAVAILABLE, "starting", message).after(EARLY_AGAIN);
        let told = self.pod.pods.borrow().clone();
        let pod = told.as_ref().and_then(|told| told.pods.only());
        let pod = pod.ok_or_else(|| early("the operator has not told of this pod yet, nothing was kept"))?;
        if !self.targets.are_known() {
            return Err(early("the operator has not told of pipelines yet, nothing was kept"));
        }
        Ok(Sender::pod(pod, self.pod.node.as_deref().unwrap_or_default()))
    }
}

impl Gate for OwnPodGate {
    fn admit(&self, headers: &HeaderMap, address: IpAddr) -> Result<Sender, Refused> {
        self.security.admit(headers, address)?;
        self.sender().inspect_err(|refused| self.stats.turned_back(refused.code()))
    }

    fn tells_apart(&self) -> bool {
        false
    }

    fn tls(&self) -> Option<TlsAcceptor> {
        Gate::tls(&self.security)
    }
}
