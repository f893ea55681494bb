//! Our certificates: the authority that agents trust, and the leaf that this process shows, made and renewed in memory.
//!
//! Expected flow: [`Authority::generate`] once in years, its PEM kept in a Secret; [`Authority::from_pem`] ever after.
//! [`Certificates`] issues the leaf at the start and again every [`RENEW_EVERY`]: no leaf is stored, no two processes share one.
//! The leaf of another process (the webhook's, which may not read our Secret) is issued with [`Authority::issue_pem`], and again
//! when [`Authority::is_of_use`] says so.
//!
//! # Guarantees
//! - A renewal drops no connection: those that are open go on with the certificate they began with.
//! - An authority that is expired, not valid yet, no authority, or whose key is another one's is refused in words.
//! - A leaf never outlives its authority, and begins [`BACKDATED`] before it is made, for clocks that are behind.
//! - Private keys are in no error and in no debug output.
//!
//! # It must not know
//! Where the PEM texts are kept, and who else may issue from this authority.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum_server::tls_rustls::RustlsConfig;
use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PublicKeyData, date_time_ymd,
};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{RootCertStore, ServerConfig};
use spillway_crds::served::Authorities;
use spillway_delivery::clock::Clock;
use tokio_util::sync::CancellationToken;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::succession;

/// How often the leaf is issued anew.
pub const RENEW_EVERY: Duration = Duration::from_hours(12);

/// How long a leaf is valid.
pub const LEAF_VALID: Duration = Duration::from_hours(30 * 24);

/// How long an authority that is made here is valid.
pub const AUTHORITY_VALID: Duration = Duration::from_hours(10 * 365 * 24);

/// How much earlier than now a certificate begins.
pub const BACKDATED: Duration = Duration::from_hours(1);

/// How long before its end an authority is warned of, with every renewal of the leaf.
///
/// A successor is used before that: where one is warned, the leader could not make or write one.
pub const AUTHORITY_WARNING: Duration = Duration::from_hours(25 * 24);

/// How long before its end a leaf of another process is issued anew.
pub const RENEW_BEFORE: Duration = Duration::from_hours(10 * 24);

/// How soon a renewal that failed is tried again.
const RETRY_AFTER: Duration = Duration::from_mins(1);

/// Most bytes of a PEM text; a chain of ten certificates is below it.
const PEM_BYTES_MAX: usize = 64 * 1024;

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// It could not be made.
    #[error("a certificate cannot be made")]
    Make(#[source] rcgen::Error),
    /// The text holds none.
    #[error("the text of at most {PEM_BYTES_MAX} bytes holds no certificate in PEM")]
    Certificate,
    /// The text holds no private key of a kind that is used.
    #[error("the text holds no private key in PEM (ECDSA P-256, P-384, RSA or Ed25519)")]
    Key,
    /// It may not issue others.
    #[error("the certificate is not one of an authority (`CA:TRUE`)")]
    NotAuthority,
    /// Key and certificate do not belong together.
    #[error("the private key is not the one of the certificate")]
    Foreign,
    /// It is over.
    #[error("the certificate of the authority expired at {at}")]
    Expired {
        /// When.
        at: Timestamp,
    },
    /// It has not begun.
    #[error("the certificate of the authority is not valid before {at}")]
    NotYetValid {
        /// When it will be.
        at: Timestamp,
    },
    /// TLS does not take it.
    #[error("the certificate cannot be served")]
    Tls(#[source] rustls::Error),
}

/// Issues leaves that whoever trusts its certificate trusts.
#[derive(Debug)]
pub struct Authority {
    certificate_pem: String,
    issuer: Issuer<'static, KeyPair>,
    begins: Timestamp,
    expires: Timestamp,
}

/// A leaf and its key in PEM, for another process.
#[derive(Clone, PartialEq, Eq)]
pub struct LeafPem {
    /// The certificate.
    pub certificate: String,
    /// The private key.
    pub key: String,
}

impl std::fmt::Debug for LeafPem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LeafPem").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

/// What a process shows.
#[derive(Debug)]
pub struct Leaf {
    /// The certificate.
    pub certificate: CertificateDer<'static>,
    /// The settings of TLS with it.
    pub tls: Arc<ServerConfig>,
    /// When it is over.
    pub expires: Timestamp,
}

impl Authority {
    /// Makes one that is valid from `now` for [`AUTHORITY_VALID`].
    pub fn generate(now: Timestamp) -> Result<Self, CertificateError> {
        let key = KeyPair::generate().map_err(CertificateError::Make)?;
        let (mut params, _) = params(&[], now, AUTHORITY_VALID, None)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, "Spillway");
        let certificate = params.self_signed(&key).map_err(CertificateError::Make)?;
        Self::from_pem(&certificate.pem(), &key.serialize_pem(), now)
    }

    /// Reads a stored one: the first certificate of `certificate`, and its private key. It must be valid `now`.
    pub fn from_pem(certificate: &str, key: &str, now: Timestamp) -> Result<Self, CertificateError> {
        let first = CertificateDer::from_pem_slice(bounded(certificate).as_bytes());
        let der = first.map_err(|_| CertificateError::Certificate)?;
        let (_, parsed) = X509Certificate::from_der(&der).map_err(|_| CertificateError::Certificate)?;
        let key = KeyPair::from_pem(bounded(key)).map_err(|_| CertificateError::Key)?;
        if !parsed.is_ca() {
            return Err(CertificateError::NotAuthority);
        }
        if parsed.public_key().raw != key.subject_public_key_info() {
            return Err(CertificateError::Foreign);
        }
        let (begins, expires) = times(&parsed);
        if now >= expires {
            return Err(CertificateError::Expired { at: expires });
        }
        if now < begins {
            return Err(CertificateError::NotYetValid { at: begins });
        }
        let issuer = Issuer::from_ca_cert_der(&der, key).map_err(CertificateError::Make)?;
        Ok(Self { certificate_pem: certificate.to_owned(), issuer, begins, expires })
    }

    /// Returns what agents are to trust, as it was read.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Returns the private key, for the Secret it is kept in.
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// Returns when it began.
    pub fn begins(&self) -> Timestamp {
        self.begins
    }

    /// Returns when it is over.
    pub fn expires(&self) -> Timestamp {
        self.expires
    }

    /// Issues a leaf for `names` (DNS names and addresses) that is valid from `now` for [`LEAF_VALID`].
    pub fn issue(&self, names: &[String], now: Timestamp) -> Result<Leaf, CertificateError> {
        let (certificate, key, expires) = self.signed(names, now)?;
        let certificate = CertificateDer::from(certificate);
        let tls = server_config(vec![certificate.clone()], PrivateKeyDer::from(key)).map_err(CertificateError::Tls)?;
        Ok(Leaf { certificate, tls: Arc::new(tls), expires })
    }

    /// Issues one like [`issue`](Self::issue), for another process.
    pub fn issue_pem(&self, names: &[String], now: Timestamp) -> Result<LeafPem, CertificateError> {
        let (certificate, key, _) = self.signed(names, now)?;
        Ok(LeafPem { certificate: certificate.pem(), key: key.serialize_pem() })
    }

    /// Returns whether who trusts this authority takes the leaf for all of `names`, now and for [`RENEW_BEFORE`] more.
    pub fn is_of_use(&self, leaf: &LeafPem, names: &[String], now: Timestamp) -> bool {
        let Ok((chain, key)) = read_pair(&leaf.certificate, &leaf.key) else { return false };
        let Some(certificate) = chain.first().cloned() else { return false };
        // None outlives the authority: in its last days the leaf of a moment ago is as good as the next.
        let later = now.checked_add(RENEW_BEFORE).ok().filter(|later| *later < self.expires);
        let times = [Some(now), later];
        let takes = |name: &String| times.iter().flatten().all(|at| self.takes(&certificate, name, *at));
        server_config(chain, key).is_ok() && names.iter().all(takes)
    }

    /// Returns whether who trusts this authority takes `certificate` for `name` at that time.
    fn takes(&self, certificate: &CertificateDer<'_>, name: &str, at: Timestamp) -> bool {
        let mut roots = RootCertStore::empty();
        let own = CertificateDer::from_pem_slice(self.certificate_pem.as_bytes());
        if own.is_ok_and(|own| roots.add(own).is_err()) {
            return false;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
        let at = UnixTime::since_unix_epoch(Duration::from_secs(at.as_second().try_into().unwrap_or_default()));
        let (Ok(verifier), Ok(name)) = (verifier, ServerName::try_from(name)) else { return false };
        verifier.verify_server_cert(certificate, &[], &name, &[], at).is_ok()
    }

    fn signed(
        &self,
        names: &[String],
        now: Timestamp,
    ) -> Result<(rcgen::Certificate, KeyPair, Timestamp), CertificateError> {
        let key = KeyPair::generate().map_err(CertificateError::Make)?;
        let (mut params, expires) = params(names, now, LEAF_VALID, Some(self.expires))?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        params.distinguished_name.push(DnType::CommonName, "spillway-operator");
        let certificate = params.signed_by(&key, &self.issuer).map_err(CertificateError::Make)?;
        Ok((certificate, key, expires))
    }
}

/// What is shown to who connects.
pub trait Shown: Sync {
    /// Returns the settings of TLS, which change with each renewal.
    fn tls(&self) -> RustlsConfig;

    /// Keeps it fresh until `stop`.
    fn keep(&self, stop: CancellationToken) -> impl Future<Output = ()> + Send;
}

/// The leaf that this process shows, and who issues it.
#[derive(Debug)]
pub struct Certificates {
    names: Vec<String>,
    clock: Clock,
    state: RwLock<State>,
    served: Served,
}

#[derive(Debug)]
struct State {
    authority: Arc<Authority>,
    expires: Timestamp,
    trusted: Arc<Authorities>,
}

/// What TLS reads for each new connection.
#[derive(Clone)]
pub(super) struct Served(pub(super) RustlsConfig);

impl std::fmt::Debug for Served {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Served")
    }
}

impl Shown for Certificates {
    fn tls(&self) -> RustlsConfig {
        self.served.0.clone()
    }

    /// Issues a leaf anew every [`RENEW_EVERY`], until `stop`.
    async fn keep(&self, stop: CancellationToken) {
        let mut pause = RENEW_EVERY;
        while stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
            pause = match self.renew() {
                Ok(()) => RENEW_EVERY,
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(error, expires = %self.leaf_expires(), "the serving certificate is not renewed");
                    RETRY_AFTER
                }
            };
        }
    }
}

impl Certificates {
    /// Issues the first leaf of `authority` for `names`.
    pub fn new(authority: Authority, names: Vec<String>, clock: Clock) -> Result<Self, CertificateError> {
        let Leaf { tls, expires, .. } = authority.issue(&names, now(&clock))?;
        let trusted = Arc::new(succession::trusted([(authority.certificate_pem(), authority.expires())]));
        let state = RwLock::new(State { authority: Arc::new(authority), expires, trusted });
        Ok(Self { names, clock, state, served: Served(RustlsConfig::from_config(tls)) })
    }

    /// Returns the authority.
    pub fn authority(&self) -> Arc<Authority> {
        Arc::clone(&self.state.read().unwrap_or_else(PoisonError::into_inner).authority)
    }

    /// Returns whom others are to trust: this authority, and those before and after it.
    pub fn trusted(&self) -> Arc<Authorities> {
        Arc::clone(&self.state.read().unwrap_or_else(PoisonError::into_inner).trusted)
    }

    /// Says that others are to trust these.
    pub fn trust(&self, trusted: Arc<Authorities>) {
        self.state.write().unwrap_or_else(PoisonError::into_inner).trusted = trusted;
    }

    /// Returns when the leaf is over.
    pub fn leaf_expires(&self) -> Timestamp {
        self.state.read().unwrap_or_else(PoisonError::into_inner).expires
    }

    /// Issues a leaf anew; new connections are shown it. Where that fails, the one before stays.
    pub fn renew(&self) -> Result<(), CertificateError> {
        self.show(self.authority())
    }

    /// Issues from `authority` from now on. Where that fails, all stays.
    pub fn replace(&self, authority: Authority) -> Result<(), CertificateError> {
        self.show(Arc::new(authority))
    }

    fn show(&self, authority: Arc<Authority>) -> Result<(), CertificateError> {
        let now = now(&self.clock);
        let Leaf { tls, expires, .. } = authority.issue(&self.names, now)?;
        if now.checked_add(AUTHORITY_WARNING).is_ok_and(|soon| soon >= authority.expires()) {
            tracing::warn!(expires = %authority.expires(), "the authority of our certificates ends soon, and no successor is used");
        }
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        self.served.0.reload_from_config(tls);
        (state.authority, state.expires) = (authority, expires);
        Ok(())
    }
}

/// Returns the time of `clock`.
pub(crate) fn now(clock: &Clock) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(clock.now())).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Returns when the first certificate of a text begins, and when it is over.
pub fn validity(certificate: &str) -> Result<(Timestamp, Timestamp), CertificateError> {
    let der = CertificateDer::from_pem_slice(bounded(certificate).as_bytes());
    let der = der.map_err(|_| CertificateError::Certificate)?;
    let (_, parsed) = X509Certificate::from_der(&der).map_err(|_| CertificateError::Certificate)?;
    Ok(times(&parsed))
}

fn times(certificate: &X509Certificate<'_>) -> (Timestamp, Timestamp) {
    let seconds = |time: i64| Timestamp::from_second(time).unwrap_or(Timestamp::MAX);
    let validity = certificate.validity();
    (seconds(validity.not_before.timestamp()), seconds(validity.not_after.timestamp()))
}

/// Returns `text`, or nothing where there is too much of it.
fn bounded(text: &str) -> &str {
    if text.len() > PEM_BYTES_MAX { "" } else { text }
}

/// Returns what a certificate for `names` begins with, and when it is over.
fn params(
    names: &[String],
    now: Timestamp,
    valid: Duration,
    latest: Option<Timestamp>,
) -> Result<(CertificateParams, Timestamp), CertificateError> {
    let mut params = CertificateParams::new(names).map_err(CertificateError::Make)?;
    let seconds = u64::try_from(now.as_second()).unwrap_or(0);
    let epoch = date_time_ymd(1970, 1, 1);
    let until = seconds.saturating_add(valid.as_secs());
    let until = latest.and_then(|latest| u64::try_from(latest.as_second()).ok()).map_or(until, |at| until.min(at));
    params.not_before = epoch + Duration::from_secs(seconds.saturating_sub(BACKDATED.as_secs()));
    params.not_after = epoch + Duration::from_secs(until);
    params.distinguished_name = rcgen::DistinguishedName::new();
    let expires = i64::try_from(until).ok().and_then(|until| Timestamp::from_second(until).ok());
    Ok((params, expires.unwrap_or(Timestamp::MAX)))
}

/// Reads a chain of certificates, leaf first, and its key.
pub(crate) fn read_pair(
    certificate: &str,
    key: &str,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), CertificateError> {
    let chain = CertificateDer::pem_slice_iter(bounded(certificate).as_bytes());
    let chain: Vec<_> = chain.collect::<Result<_, _>>().map_err(|_| CertificateError::Certificate)?;
    if chain.is_empty() {
        return Err(CertificateError::Certificate);
    }
    let key = PrivateKeyDer::from_pem_slice(bounded(key).as_bytes()).map_err(|_| CertificateError::Key)?;
    Ok((chain, key))
}

/// Returns TLS 1.2 and 1.3 with this certificate, for HTTP/2 and HTTP/1.1.
pub(crate) fn server_config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut config = config.with_no_client_auth().with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

#[cfg(test)]
mod tests;
