//! The gate of the door for pods: who shows a service account token of audience [`DOOR_AUDIENCE`] is the pod that it is bound
//! to.
//!
//! # Guarantees
//! - A token is verified with the keys that the operator served, without asking anybody; it must be of this node, and of a pod
//!   that is there now. Every other is refused with `401` (another token might do) or `403`, a reason, and a count of it.
//! - What is known of a sender comes from its token and from what the operator tells of its pod.
//! - Who shows no token goes on as somebody unknown, whom only pipelines take that say so; who shows a bad one never does.
//! - The certificate is read again when its files change; one that cannot be used leaves the one before.
//!
//! # Limits
//! A pod of which the operator has not told is answered `503` until the operator answered [`NEW_FOR`] after its token was made,
//! then `403`. What one sender may take is bounded by `shares`.
//!
//! What the operator has not told counts as it was: while none answers, a pod that ended since is taken until its token is over,
//! and a token that a new key signed is not.

use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use http::header::AUTHORIZATION;
use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use spillway_crds::served::{DOOR_AUDIENCE, TokenKeys};
use spillway_delivery::clock::Clock;
use spillway_tokens::{Identity, Keys, Refusal, Verifier};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use super::answer::Refused;
use super::gate::Gate;
use super::stats::HttpStats;
use crate::pods::{PodsReceiver, TokenKeysReceiver, Told};
use crate::sources::pushed::security::{self, SecurityError, TlsFiles};
use crate::sources::pushed::sender::{Sender, Way};

/// For how long a pod may be unknown because it is new.
const NEW_FOR: Duration = Duration::from_secs(60);

/// How long who is new waits before it asks again.
const NEW_AGAIN: Duration = Duration::from_secs(1);

/// How long replaced files may still count.
const RECHECK_EVERY: Duration = Duration::from_secs(1);

/// The same while nobody connects.
const RECHECK_IDLE: Duration = Duration::from_secs(60);

/// What the gate looks at.
#[derive(Debug, Clone)]
pub struct PodSenders {
    /// What tokens are verified with.
    pub keys: TokenKeysReceiver,
    /// The pods of this node.
    pub pods: PodsReceiver,
    /// The name of this node.
    pub node: Option<String>,
    /// The time.
    pub clock: Clock,
}

/// The gate.
pub(super) struct PodGate {
    senders: PodSenders,
    verifier: Mutex<Made>,
    certificate: Arc<Certificate>,
    stats: Arc<HttpStats>,
}

/// A verifier, and the keys that it was made of.
#[derive(Default)]
struct Made {
    of: Option<Arc<TokenKeys>>,
    verifier: Option<Arc<Verifier>>,
}

/// The certificate, as its files have it.
struct Certificate {
    files: TlsFiles,
    state: Mutex<Shown>,
    stats: Arc<HttpStats>,
}

struct Shown {
    acceptor: TlsAcceptor,
    version: [Option<SystemTime>; 2],
    checked: Instant,
}

impl PodGate {
    /// Reads the certificate.
    pub(super) fn new(senders: PodSenders, files: &TlsFiles, stats: Arc<HttpStats>) -> Result<Self, SecurityError> {
        let certificate = Arc::new(Certificate::read(files, stats.clone())?);
        Ok(Self { senders, verifier: Mutex::default(), certificate, stats })
    }

    /// Returns what looks at the files of the certificate also while nobody connects, so that what is told of its end is true.
    pub(super) fn looks(&self) -> impl Future<Output = ()> + Send + use<> {
        let certificate = self.certificate.clone();
        async move {
            loop {
                tokio::time::sleep(RECHECK_IDLE).await;
                drop(certificate.now());
            }
        }
    }

    fn sender(&self, headers: &HeaderMap, address: IpAddr) -> Result<Sender, Refused> {
        if !headers.contains_key(AUTHORIZATION) {
            return Ok(Sender::unverified(address, self.senders.node.as_deref()));
        }
        let unknown = || later("keys", "the operator has not given the keys of tokens yet");
        let verifier = self.verifier().ok_or_else(unknown)?;
        let now = Timestamp::from_nanosecond(self.senders.clock.now().into()).unwrap_or_default();
        let identity = verifier.verify(headers, now).map_err(|refusal| refused(&refusal))?;
        let node = self.senders.node.as_deref();
        if node.is_some_and(|node| node != identity.node) {
            return Err(refused(&identity.refused("this is another node; its own agent takes its events")));
        }
        let told = self.senders.pods.borrow().clone();
        let Some(Told { pods, confirmed }) = told else {
            return Err(later("pods", "the operator has not told of the pods of this node yet"));
        };
        match pods.get(&identity.pod_uid, &identity.namespace, &identity.pod) {
            Some(pod) if pod.has_ended => Err(refused(&identity.refused("it has ended"))),
            Some(pod) => Ok(Sender::pod(Way::Http, pod, &identity.node).or_its_sidecar()),
            None if is_new(&identity, now, confirmed) => {
                Err(later("pod-untold", "the operator has not told of this pod yet"))
            }
            None => Err(refused(
                &identity.refused("it has ended, or no pipeline of this node takes anything of its namespace"),
            )),
        }
    }

    /// Returns what verifies with the newest keys; where these are of no use, with those before.
    fn verifier(&self) -> Option<Arc<Verifier>> {
        let newest = self.senders.keys.borrow().clone();
        let mut made = self.verifier.lock().unwrap_or_else(PoisonError::into_inner);
        if made.of != newest {
            made.of.clone_from(&newest);
            match newest.map(|keys| verifier(&keys)).transpose() {
                Ok(verifier) => made.verifier = verifier,
                Err(error) => tracing::error!(%error, "the keys of tokens are not understood; those before count on"),
            }
        }
        made.verifier.clone()
    }
}

impl Gate for PodGate {
    fn admit(&self, headers: &HeaderMap, address: IpAddr) -> Result<Sender, Refused> {
        self.sender(headers, address).inspect_err(|refused| self.stats.turned_back(refused.code()))
    }

    fn tells_apart(&self) -> bool {
        true
    }

    fn tls(&self) -> Option<TlsAcceptor> {
        Some(self.certificate.now())
    }
}

fn verifier(keys: &TokenKeys) -> Result<Arc<Verifier>, spillway_tokens::KeysError> {
    let published = Keys::default();
    published.replace(&keys.keys)?;
    Ok(Arc::new(Verifier::new(Arc::new(published), &keys.issuer, DOOR_AUDIENCE)))
}

/// Returns whether a token was made so shortly before the operator last answered, or after it, that its pod may not have been
/// told of.
fn is_new(identity: &Identity, now: Timestamp, confirmed: Option<Instant>) -> bool {
    let Some(confirmed) = confirmed else { return true };
    let age = now.as_second().saturating_sub(identity.issued);
    let unheard = (NEW_FOR + confirmed.elapsed()).as_secs();
    age <= i64::try_from(unheard).unwrap_or(i64::MAX)
}

fn refused(refusal: &Refusal) -> Refused {
    if refusal.is_about_the_token() {
        Refused::unauthorized().because(refusal.reason(), refusal.to_string())
    } else {
        Refused::new(StatusCode::FORBIDDEN, refusal.reason(), refusal.to_string())
    }
}

fn later(code: &'static str, message: &str) -> Refused {
    Refused::new(StatusCode::SERVICE_UNAVAILABLE, code, message).after(NEW_AGAIN)
}

impl Certificate {
    fn read(files: &TlsFiles, stats: Arc<HttpStats>) -> Result<Self, SecurityError> {
        let version = version(files);
        let shown = Shown { acceptor: security::acceptor_of(files, security::HTTP)?, version, checked: Instant::now() };
        let read = Self { files: files.clone(), state: Mutex::new(shown), stats };
        read.tell_end();
        Ok(read)
    }

    /// Counts until when it is shown; 0 where that cannot be read.
    fn tell_end(&self) {
        self.stats.shows_until(security::end_of(&self.files).unwrap_or_default());
    }

    fn now(&self) -> TlsAcceptor {
        let mut shown = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if shown.checked.elapsed() >= RECHECK_EVERY {
            shown.checked = Instant::now();
            let version = version(&self.files);
            if version != shown.version {
                shown.version = version;
                match security::acceptor_of(&self.files, security::HTTP) {
                    Ok(acceptor) => {
                        tracing::info!("the certificate of the door was read again");
                        shown.acceptor = acceptor;
                        self.tell_end();
                    }
                    Err(error) => {
                        tracing::warn!(%error, "the certificate of the door cannot be used, the one before stays");
                    }
                }
            }
        }
        shown.acceptor.clone()
    }
}

/// Returns what changes when a file is written or replaced, links followed: a kubelet swaps a folder.
fn version(files: &TlsFiles) -> [Option<SystemTime>; 2] {
    let modified = |path: Option<&Path>| std::fs::metadata(path?).ok()?.modified().ok();
    [modified(files.certificate.as_deref()), modified(files.key.as_deref())]
}
