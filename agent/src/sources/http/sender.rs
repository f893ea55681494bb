//! Who sends, as the gate of a listener knows it: nothing of it comes from a body.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use spillway_crds::inject::INJECTED;
use spillway_crds::served::PodFacts;
use spillway_delivery::event::{Origin, OriginBuilder};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use super::answer::Refused;
use super::security::ListenerSecurity;

/// What the origin of pushed events is called.
const SOURCE: &str = "http";

/// What that of a sender is called that came without a token where others show one.
const UNVERIFIED: &str = "unverified";

/// Who sends.
#[derive(Debug, Clone)]
pub(super) struct Sender {
    /// Names who keys belong to.
    pub(super) key: Bytes,
    /// What is known of it.
    pub(super) origin: Arc<Origin>,
    /// The pod that it proved to be; `None` where whoever gets here may send.
    pub(super) pod: Option<Arc<PodFacts>>,
    /// The pipeline of its namespace that the sidecar of this pod runs, where a token says that it is the pod: for one route of
    /// that one it may have asked the conditions.
    pub(super) sidecar_of: Option<Arc<str>>,
    /// Whether it came without a token where others show one: it must name the pipeline that takes it so.
    pub(super) is_unverified: bool,
    /// What its bodies may take of the memory of all; `None` where senders are not told apart.
    pub(super) bodies: Option<Arc<Semaphore>>,
}

/// Lets in who may send.
pub(super) trait Gate: Send + Sync + 'static {
    /// Returns who sends a request with these headers from `address`.
    fn admit(&self, headers: &HeaderMap, address: IpAddr) -> Result<Sender, Refused>;

    /// Returns whether senders are told apart, and so are held to a share each.
    fn tells_apart(&self) -> bool;

    /// Returns what speaks TLS with clients; `None` where the listener is plain.
    fn tls(&self) -> Option<TlsAcceptor>;
}

impl Sender {
    /// Returns somebody of whom nothing is known but how it got here.
    pub(super) fn anybody(key: &'static str) -> Self {
        let origin = OriginBuilder { source: Some(SOURCE.to_owned()), ..OriginBuilder::default() };
        Self::new(Bytes::from_static(key.as_bytes()), origin)
    }

    /// Returns somebody on this node who showed no token. Keys are those of the address.
    pub(super) fn unverified(address: IpAddr, node: Option<&str>) -> Self {
        let (node, source) = (node.map(str::to_owned), Some(UNVERIFIED.to_owned()));
        let sender = Self::new(
            format!("{UNVERIFIED} {address}").into(),
            OriginBuilder { node, source, ..OriginBuilder::default() },
        );
        Self { is_unverified: true, ..sender }
    }

    /// Returns a pod of `node`, as its token names it.
    pub(super) fn pod(pod: &Arc<PodFacts>, node: &str) -> Self {
        let origin = OriginBuilder {
            namespace: Some(pod.namespace.to_string()),
            pod: Some(pod.name.to_string()),
            pod_uid: Some(pod.uid.to_string()),
            node: Some(node.to_owned()),
            source: Some(SOURCE.to_owned()),
            owner_kind: pod.owner.as_ref().map(|owner| owner.kind.to_string()),
            owner_name: pod.owner.as_ref().map(|owner| owner.name.to_string()),
            labels: pod.labels.to_map(),
            annotations: pod.annotations.to_map(),
            ..OriginBuilder::default()
        };
        Self { pod: Some(pod.clone()), ..Self::new(Bytes::copy_from_slice(pod.uid.as_bytes()), origin) }
    }

    /// Returns the same pod as its sidecar may send for it, too.
    pub(super) fn or_its_sidecar(self) -> Self {
        let injected = self.pod.as_ref().and_then(|pod| pod.annotations.get(INJECTED)).map(Arc::from);
        Self { sidecar_of: injected, ..self }
    }

    fn new(key: Bytes, origin: OriginBuilder) -> Self {
        Self { key, origin: origin.build(), pod: None, sidecar_of: None, is_unverified: false, bodies: None }
    }
}

impl Gate for ListenerSecurity {
    /// Lets in whoever shows the token, or whoever reaches a loopback address where there is none.
    fn admit(&self, headers: &HeaderMap, _: IpAddr) -> Result<Sender, Refused> {
        let shown = headers.get(http::header::AUTHORIZATION).map(http::HeaderValue::as_bytes);
        if self.admits(shown) {
            Ok(Sender::anybody(if self.has_token() { "token" } else { "loopback" }))
        } else {
            Err(Refused::unauthorized())
        }
    }

    fn tells_apart(&self) -> bool {
        false
    }

    fn tls(&self) -> Option<TlsAcceptor> {
        ListenerSecurity::tls(self).cloned()
    }
}
