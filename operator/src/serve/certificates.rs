//! Our certificates: the authority that agents trust, and the leaf that this process shows, made and renewed in memory.
//!
//! Expected flow: [`Authority::generate`] once in the life of an installation, its PEM kept in a Secret;
//! [`Authority::from_pem`] ever after. [`Certificates`] issues the leaf at the start and again every [`RENEW_EVERY`]: no leaf
//! is stored, no two processes share one.
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
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use spillway_delivery::clock::Clock;
use tokio_util::sync::CancellationToken;
use x509_parser::prelude::{FromDer, X509Certificate};

/// How often the leaf is issued anew.
pub const RENEW_EVERY: Duration = Duration::from_hours(12);

/// How long a leaf is valid.
pub const LEAF_VALID: Duration = Duration::from_hours(30 * 24);

/// How long an authority that is made here is valid.
pub const AUTHORITY_VALID: Duration = Duration::from_hours(10 * 365 * 24);

/// How much earlier than now a certificate begins.
pub const BACKDATED: Duration = Duration::from_hours(1);

/// How long before its end an authority is warned of, with every renewal of the leaf.
pub const AUTHORITY_WARNING: Duration = Duration::from_hours(60 * 24);

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
    expires: Timestamp,
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
        let seconds = |time: i64| Timestamp::from_second(time).unwrap_or(Timestamp::MAX);
        let begins = seconds(parsed.validity().not_before.timestamp());
        let expires = seconds(parsed.validity().not_after.timestamp());
        if now >= expires {
            return Err(CertificateError::Expired { at: expires });
        }
        if now < begins {
            return Err(CertificateError::NotYetValid { at: begins });
        }
        let issuer = Issuer::from_ca_cert_der(&der, key).map_err(CertificateError::Make)?;
        Ok(Self { certificate_pem: certificate.to_owned(), issuer, expires })
    }

    /// Returns what agents are to trust, as it was read.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Returns the private key, for the Secret it is kept in.
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// Returns when it is over.
    pub fn expires(&self) -> Timestamp {
        self.expires
    }

    /// Issues a leaf for `names` (DNS names and addresses) that is valid from `now` for [`LEAF_VALID`].
    pub fn issue(&self, names: &[String], now: Timestamp) -> Result<Leaf, CertificateError> {
        let key = KeyPair::generate().map_err(CertificateError::Make)?;
        let (mut params, expires) = params(names, now, LEAF_VALID, Some(self.expires))?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        params.distinguished_name.push(DnType::CommonName, "spillway-operator");
        let certificate = params.signed_by(&key, &self.issuer).map_err(CertificateError::Make)?;
        let certificate = CertificateDer::from(certificate);
        let tls = server_config(certificate.clone(), PrivateKeyDer::from(key)).map_err(CertificateError::Tls)?;
        Ok(Leaf { certificate, tls: Arc::new(tls), expires })
    }
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
}

/// What TLS reads for each new connection.
#[derive(Clone)]
struct Served(RustlsConfig);

impl std::fmt::Debug for Served {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Served")
    }
}

impl Certificates {
    /// Issues the first leaf of `authority` for `names`.
    pub fn new(authority: Authority, names: Vec<String>, clock: Clock) -> Result<Self, CertificateError> {
        let Leaf { tls, expires, .. } = authority.issue(&names, now(&clock))?;
        let state = RwLock::new(State { authority: Arc::new(authority), expires });
        Ok(Self { names, clock, state, served: Served(RustlsConfig::from_config(tls)) })
    }

    /// Returns the settings of TLS, which change with each renewal.
    pub fn tls(&self) -> RustlsConfig {
        self.served.0.clone()
    }

    /// Returns the authority.
    pub fn authority(&self) -> Arc<Authority> {
        Arc::clone(&self.state.read().unwrap_or_else(PoisonError::into_inner).authority)
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

    /// Issues a leaf anew every [`RENEW_EVERY`], until `stop`.
    pub async fn keep(&self, stop: CancellationToken) {
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

    fn show(&self, authority: Arc<Authority>) -> Result<(), CertificateError> {
        let now = now(&self.clock);
        let Leaf { tls, expires, .. } = authority.issue(&self.names, now)?;
        if now.checked_add(AUTHORITY_WARNING).is_ok_and(|soon| soon >= authority.expires()) {
            tracing::warn!(expires = %authority.expires(), "the authority of our certificates ends soon: replace it");
        }
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        self.served.0.reload_from_config(tls);
        *state = State { authority, expires };
        Ok(())
    }
}

/// Returns the time of `clock`.
pub(crate) fn now(clock: &Clock) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(clock.now())).unwrap_or(Timestamp::UNIX_EPOCH)
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

/// Returns TLS 1.2 and 1.3 with this certificate, for HTTP/2 and HTTP/1.1.
fn server_config(
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut config = config.with_no_client_auth().with_single_cert(vec![certificate], key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::RootCertStore;
    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier;
    use rustls::pki_types::{ServerName, UnixTime};

    const NOW: Timestamp = Timestamp::constant(1_800_000_000, 0);
    const NAME: &str = "spillway-operator.spillway-system.svc";

    fn at(now: Timestamp, after: Duration) -> Timestamp {
        now.checked_add(after).unwrap()
    }

    /// Returns whether a client that trusts `authority` takes `leaf` for `name`.
    fn takes(authority: &Authority, leaf: &Leaf, name: &str, now: Timestamp) -> bool {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.certificate_pem().as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(now.as_second().try_into().unwrap()));
        let name = ServerName::try_from(name).unwrap();
        verifier.verify_server_cert(&leaf.certificate, &[], &name, &[], now).is_ok()
    }

    #[test]
    fn a_leaf_is_trusted_by_who_trusts_the_authority_for_its_names_and_its_time_alone() {
        let authority = Authority::generate(NOW).unwrap();
        let leaf = authority.issue(&[NAME.into(), "localhost".into()], NOW).unwrap();
        assert_eq!(leaf.expires, at(NOW, LEAF_VALID));
        let takes = |name, now| takes(&authority, &leaf, name, now);
        assert!(takes(NAME, NOW));
        assert!(takes("localhost", at(NOW, Duration::from_hours(29 * 24))));
        assert!(takes("localhost", NOW.checked_sub(Duration::from_mins(59)).unwrap()));
        assert!(!takes("example.test", NOW));
        assert!(!takes(NAME, at(NOW, Duration::from_hours(31 * 24))));
        assert!(!super::tests::takes(&Authority::generate(NOW).unwrap(), &leaf, NAME, NOW));
    }

    #[test]
    fn an_authority_that_was_stored_issues_what_the_first_one_did() {
        let first = Authority::generate(NOW).unwrap();
        let stored = Authority::from_pem(first.certificate_pem(), &first.key_pem(), NOW).unwrap();
        assert_eq!((stored.expires(), stored.certificate_pem()), (first.expires(), first.certificate_pem()));
        let leaf = stored.issue(&[NAME.into()], NOW).unwrap();
        assert!(takes(&first, &leaf, NAME, NOW));
    }

    #[test]
    fn a_leaf_does_not_outlive_its_authority() {
        let authority = Authority::generate(NOW).unwrap();
        let late = authority.expires().checked_sub(Duration::from_hours(24)).unwrap();
        assert_eq!(authority.issue(&[NAME.into()], late).unwrap().expires, authority.expires());
    }

    #[test]
    fn an_authority_of_no_use_is_refused_in_words() {
        let authority = Authority::generate(NOW).unwrap();
        let other = Authority::generate(NOW).unwrap();
        let (certificate, key) = (authority.certificate_pem(), authority.key_pem());
        let said =
            |certificate: &str, key: &str, now| Authority::from_pem(certificate, key, now).unwrap_err().to_string();
        assert_eq!(said(certificate, &other.key_pem(), NOW), "the private key is not the one of the certificate");
        let late = at(authority.expires(), Duration::from_secs(1));
        let expired = format!("the certificate of the authority expired at {}", authority.expires());
        assert_eq!(said(certificate, &key, late), expired);
        let early = Timestamp::constant(1_700_000_000, 0);
        let message = "the certificate of the authority is not valid before 2027-01-15T07:00:00Z";
        assert_eq!(said(certificate, &key, early), message);
        assert!(said(certificate, "", NOW).starts_with("the text holds no private key"));
        let none = "the text of at most 65536 bytes holds no certificate in PEM";
        let broken = certificate.replace("MII", "AAA");
        for text in ["", "hello", &key, &" ".repeat(PEM_BYTES_MAX + 1), &broken] {
            assert_eq!(said(text, &key, NOW), none);
        }
        let pair = KeyPair::generate().unwrap();
        let (leaf, _) = params(&[NAME.into()], NOW, LEAF_VALID, None).unwrap();
        let leaf = leaf.self_signed(&pair).unwrap().pem();
        let message = "the certificate is not one of an authority (`CA:TRUE`)";
        assert_eq!(said(&leaf, &pair.serialize_pem(), NOW), message);
    }

    #[test]
    fn a_private_key_is_not_shown() {
        let authority = Authority::generate(NOW).unwrap();
        let key = authority.key_pem();
        let line = key.lines().nth(1).unwrap();
        assert!(!format!("{authority:?}").contains(line));
    }

    #[test]
    fn a_renewal_and_another_authority_show_another_leaf() {
        let clock = Clock::manual(1_800_000_000_000_000_000);
        let first = Authority::generate(NOW).unwrap();
        let certificates = Certificates::new(first, vec![NAME.into()], clock.clone()).unwrap();
        let before = certificates.tls().get_inner();
        clock.set(1_800_043_200_000_000_000);
        certificates.renew().unwrap();
        let renewed = certificates.tls().get_inner();
        assert!(!Arc::ptr_eq(&renewed, &before));
        assert_eq!(certificates.leaf_expires(), at(NOW, LEAF_VALID + RENEW_EVERY));
        let second = Authority::generate(NOW).unwrap();
        let pem = second.certificate_pem().to_owned();
        certificates.replace(second).unwrap();
        assert_eq!(certificates.authority().certificate_pem(), pem);
        assert!(!Arc::ptr_eq(&certificates.tls().get_inner(), &renewed));
    }

    #[tokio::test(start_paused = true)]
    async fn the_leaf_is_renewed_every_twelve_hours_until_the_stop() {
        let clock = Clock::manual(1_800_000_000_000_000_000);
        let certificates = Certificates::new(Authority::generate(NOW).unwrap(), vec![NAME.into()], clock.clone());
        let certificates = certificates.unwrap();
        let stop = CancellationToken::new();
        let watch = async {
            let before = certificates.leaf_expires();
            clock.set(1_800_043_200_000_000_000);
            tokio::time::advance(RENEW_EVERY.checked_sub(Duration::from_secs(1)).unwrap()).await;
            assert_eq!(certificates.leaf_expires(), before);
            while certificates.leaf_expires() == before {
                tokio::time::advance(Duration::from_millis(500)).await;
            }
            stop.cancel();
        };
        tokio::join!(certificates.keep(stop.clone()), watch);
    }
}
