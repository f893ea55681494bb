//! Who sends, as the listener knows it: nothing of it comes from what is sent.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use spillway_crds::inject::INJECTED;
use spillway_crds::served::PodFacts;
use spillway_delivery::event::{Origin, OriginBuilder};
use tokio::sync::Semaphore;

/// By which way events came, as their origin tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Http,
    Grpc,
    Tcp,
    Unix,
    Syslog,
}

impl Way {
    /// Returns `origin.source`.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Grpc => "grpc",
            Self::Tcp => "tcp",
            Self::Unix => "unix",
            Self::Syslog => "syslog",
        }
    }
}

/// What that of a sender is called that came without a token where others show one.
const UNVERIFIED: &str = "unverified";

/// Who sends.
#[derive(Debug, Clone)]
pub(crate) struct Sender {
    /// Names who keys belong to.
    pub(crate) key: Bytes,
    /// What is known of it.
    pub(crate) origin: Arc<Origin>,
    /// The pod that it proved to be; `None` where whoever gets here may send.
    pub(crate) pod: Option<Arc<PodFacts>>,
    /// The pipeline of its namespace that the sidecar of this pod runs, where a token says that it is the pod: for one route of
    /// that one it may have asked the conditions.
    pub(crate) sidecar_of: Option<Arc<str>>,
    /// Whether it came without a token where others show one: it must name the pipeline that takes it so.
    pub(crate) is_unverified: bool,
    /// What its bodies may take of the memory of all; `None` where senders are not told apart.
    pub(crate) bodies: Option<Arc<Semaphore>>,
}

impl Sender {
    /// Returns somebody of whom nothing is known but how it got here.
    pub(crate) fn anybody(way: Way, key: &'static str) -> Self {
        let origin = OriginBuilder { source: Some(way.as_str().to_owned()), ..OriginBuilder::default() };
        Self::new(Bytes::from_static(key.as_bytes()), origin)
    }

    /// Returns somebody on this node who showed no token. Keys are those of the address.
    pub(crate) fn unverified(address: IpAddr, node: Option<&str>) -> Self {
        let (node, source) = (node.map(str::to_owned), Some(UNVERIFIED.to_owned()));
        let sender = Self::new(
            format!("{UNVERIFIED} {address}").into(),
            OriginBuilder { node, source, ..OriginBuilder::default() },
        );
        Self { is_unverified: true, ..sender }
    }

    /// Returns a pod of `node`, as its token names it.
    pub(crate) fn pod(way: Way, pod: &Arc<PodFacts>, node: &str) -> Self {
        let origin = OriginBuilder {
            namespace: Some(pod.namespace.to_string()),
            pod: Some(pod.name.to_string()),
            pod_uid: Some(pod.uid.to_string()),
            node: Some(node.to_owned()),
            source: Some(way.as_str().to_owned()),
            owner_kind: pod.owner.as_ref().map(|owner| owner.kind.to_string()),
            owner_name: pod.owner.as_ref().map(|owner| owner.name.to_string()),
            labels: pod.labels.to_map(),
            annotations: pod.annotations.to_map(),
            ..OriginBuilder::default()
        };
        Self { pod: Some(pod.clone()), ..Self::new(Bytes::copy_from_slice(pod.uid.as_bytes()), origin) }
    }

    /// Returns the same pod as its sidecar may send for it, too.
    pub(crate) fn or_its_sidecar(self) -> Self {
        let injected = self.pod.as_ref().and_then(|pod| pod.annotations.get(INJECTED)).map(Arc::from);
        Self { sidecar_of: injected, ..self }
    }

    fn new(key: Bytes, origin: OriginBuilder) -> Self {
        Self { key, origin: origin.build(), pod: None, sidecar_of: None, is_unverified: false, bodies: None }
    }
}
