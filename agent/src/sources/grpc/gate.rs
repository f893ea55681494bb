//! Lets in who may call: whoever shows the token or reaches loopback, or the pod that a sidecar sits in.

use std::net::IpAddr;
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, StatusCode};
use tokio_rustls::TlsAcceptor;

use crate::sources::http::answer::Refused;
use crate::sources::http::gate::Gate;
use crate::sources::pushed::own_pod::OwnPod;
use crate::sources::pushed::security::ListenerSecurity;
use crate::sources::pushed::sender::{Sender, Way};
use crate::sources::pushed::targets::PushTargets;

/// How long who is early waits before it asks again.
const EARLY_AGAIN: Duration = Duration::from_secs(1);

/// The gate.
pub(super) struct GrpcGate {
    /// What the listener needs.
    pub(super) security: ListenerSecurity,
    /// The pod that this is the sidecar of, and what it may send to.
    pub(super) own_pod: Option<(OwnPod, PushTargets)>,
}

impl Gate for GrpcGate {
    fn admit(&self, headers: &HeaderMap, _: IpAddr) -> Result<Sender, Refused> {
        if !self.security.admits(headers.get(AUTHORIZATION).map(HeaderValue::as_bytes)) {
            return Err(Refused::unauthorized());
        }
        let Some((pod, targets)) = &self.own_pod else {
            let key = if self.security.has_token() { "token" } else { "loopback" };
            return Ok(Sender::anybody(Way::Grpc, key));
        };
        let early = |message| Refused::new(StatusCode::SERVICE_UNAVAILABLE, "starting", message).after(EARLY_AGAIN);
        pod.sender(Way::Grpc, targets).map_err(early)
    }

    fn tells_apart(&self) -> bool {
        false
    }

    fn tls(&self) -> Option<TlsAcceptor> {
        self.security.tls().cloned()
    }
}
