//! What a listener needs before it may listen.
//!
//! A loopback address needs nothing. Any other needs a certificate with its key, and a token. Half of it is refused
//! everywhere: a listener that looks protected and is not is worse than none.
//!
//! Where a protocol has no place for a token, senders show certificates instead ([`mutual`]). Certificates that are taken back are
//! not known: whoever issues them gives them a short life.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::token::{TokenError, TokenFile};

/// Where certificate and key are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TlsFiles {
    /// The certificate chain, PEM.
    pub certificate: Option<PathBuf>,
    /// Its private key, PEM.
    pub key: Option<PathBuf>,
}

/// What a listener speaks above TLS, as clients may ask for it (ALPN).
pub(crate) type Protocol = Option<&'static [u8]>;

/// HTTP/1.1.
pub(crate) const HTTP: Protocol = Some(b"http/1.1");

/// gRPC, which is HTTP/2 alone.
pub(crate) const GRPC: Protocol = Some(b"h2");

/// Lines, which have no name there.
pub(crate) const LINES: Protocol = None;

/// Most bytes of a certificate or key file; a long chain has 20 KiB.
const PEM_BYTES_MAX: u64 = 256 << 10;

/// What a listener is protected by.
#[derive(Clone)]
pub struct ListenerSecurity {
    tls: Option<TlsAcceptor>,
    token: Option<Arc<TokenFile>>,
}

impl std::fmt::Debug for ListenerSecurity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { tls, token } = self;
        f.debug_struct("ListenerSecurity").field("tls", &tls.is_some()).field("token", &token.is_some()).finish()
    }
}

/// Why a listener may not listen.
#[derive(Debug, thiserror::Error)]
pub enum SecurityError {
    /// A certificate without its key, or a key alone.
    #[error("listener {address}: --tls-cert and --tls-key go together, {missing} is missing")]
    HalfTls {
        /// The address to listen at.
        address: SocketAddr,
        /// The missing flag.
        missing: &'static str,
    },
    /// Something is missing that an address beyond loopback needs.
    #[error("listener {address} is not a loopback address: it needs --tls-cert, --tls-key and --token-file, {missing}")]
    Unprotected {
        /// The address to listen at.
        address: SocketAddr,
        /// What is missing, in words.
        missing: &'static str,
    },
    /// A file cannot be read.
    #[error("file {path} cannot be read as {what}")]
    Pem {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
        /// Why.
        source: rustls::pki_types::pem::Error,
    },
    /// A file is larger than it may be.
    #[error("file {path} has more than {PEM_BYTES_MAX} bytes")]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// Certificate and key do not make a server.
    #[error("certificate {certificate} and key {key} cannot be used")]
    Tls {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// The authorities of senders cannot be used.
    #[error("file {path} has no authorities that can be used")]
    Authorities {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// The token file cannot be used.
    #[error("token file cannot be used")]
    Token(#[from] TokenError),
}

impl ListenerSecurity {
    /// Checks what a listener for HTTP needs at `address`, and reads it: certificate, key, token. Blocks briefly; call at start.
    pub fn check(address: SocketAddr, tls: &TlsFiles, token_file: Option<&Path>) -> Result<Self, SecurityError> {
        Self::check_for(HTTP, address, tls, token_file)
    }

    /// The same for a listener that speaks `protocol`.
    pub(crate) fn check_for(
        protocol: Protocol,
        address: SocketAddr,
        tls: &TlsFiles,
        token_file: Option<&Path>,
    ) -> Result<Self, SecurityError> {
        let pair = match (&tls.certificate, &tls.key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (Some(_), None) => return Err(SecurityError::HalfTls { address, missing: "--tls-key" }),
            (None, Some(_)) => return Err(SecurityError::HalfTls { address, missing: "--tls-cert" }),
        };
        let missing = match (pair.is_some(), token_file.is_some()) {
            (true, true) => None,
            (false, true) => Some("TLS is missing"),
            (true, false) => Some("the token is missing"),
            (false, false) => Some("all are missing"),
        };
        if let (false, Some(missing)) = (address.ip().to_canonical().is_loopback(), missing) {
            return Err(SecurityError::Unprotected { address, missing });
        }
        let tls = pair.map(|(certificate, key)| acceptor(certificate, key, protocol)).transpose()?;
        let token = token_file.map(TokenFile::open).transpose()?.map(Arc::new);
        Ok(Self { tls, token })
    }

    /// Returns what speaks TLS with clients; `None` where the listener is plain.
    pub fn tls(&self) -> Option<&TlsAcceptor> {
        self.tls.as_ref()
    }

    /// Returns whether senders show a token.
    pub(crate) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// Returns whether `shown` is the token; always where there is none.
    pub(crate) fn knows(&self, shown: Option<&str>) -> bool {
        self.token.as_ref().is_none_or(|token| shown.is_some_and(|shown| token.matches(shown.as_bytes())))
    }

    /// Returns whether `authorization`, the header of that name, shows the token; always where there is none.
    pub fn admits(&self, authorization: Option<&[u8]>) -> bool {
        let Some(token) = &self.token else {
            return true;
        };
        let shown = authorization.and_then(|value| {
            let (scheme, shown) = value.split_at_checked("Bearer ".len())?;
            scheme.eq_ignore_ascii_case(b"Bearer ").then_some(shown)
        });
        shown.is_some_and(|shown| token.matches(shown))
    }
}

/// Returns what speaks TLS with the certificate and the key of `files`, which are both named.
pub(crate) fn acceptor_of(files: &TlsFiles, protocol: Protocol) -> Result<TlsAcceptor, SecurityError> {
    let named = |path: &Option<PathBuf>| path.clone().unwrap_or_default();
    acceptor(&named(&files.certificate), &named(&files.key), protocol)
}

/// Returns what speaks TLS with those alone who show a certificate of an authority in the file `authorities`.
pub(crate) fn mutual(certificate: &Path, key: &Path, authorities: &Path) -> Result<TlsAcceptor, SecurityError> {
    acceptor_for(certificate, key, (None, Some(verifier(authorities)?)))
}

/// Returns what lets in who shows a certificate of an authority in a file.
fn verifier(path: &Path) -> Result<Arc<dyn ClientCertVerifier>, SecurityError> {
    let unusable = |source| SecurityError::Authorities { path: path.to_owned(), source };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path, "PEM certificates")? {
        roots.add(certificate).map_err(unusable)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|error| unusable(rustls::Error::General(error.to_string())))
}

/// Returns the name in a certificate: the first name of a host that it is for, else its common name.
pub(crate) fn name_of(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let names = parsed.subject_alternative_name().ok().flatten();
    let host = names.and_then(|names| {
        names.value.general_names.iter().find_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            _ => None,
        })
    });
    host.or_else(|| Some(parsed.subject().iter_common_name().next()?.as_str().ok()?.to_owned()))
}

/// Returns when the certificate of `files` is over, seconds since 1970; `None` where none of them is read.
pub(crate) fn end_of(files: &TlsFiles) -> Option<u64> {
    let path = files.certificate.as_deref()?;
    check_size(path).ok()?;
    let certificate = CertificateDer::pem_file_iter(path).ok()?.next()?.ok()?;
    let (_, parsed) = X509Certificate::from_der(&certificate).ok()?;
    u64::try_from(parsed.validity().not_after.timestamp()).ok()
}

/// Returns an acceptor of TLS 1.2 and 1.3 of whoever comes.
fn acceptor(certificate: &Path, key: &Path, protocol: Protocol) -> Result<TlsAcceptor, SecurityError> {
    acceptor_for(certificate, key, (protocol, None))
}

/// What is spoken, and who judges the certificates that clients show; `None` where they show none.
type Clients = (Protocol, Option<Arc<dyn ClientCertVerifier>>);

fn acceptor_for(certificate: &Path, key: &Path, (protocol, verifier): Clients) -> Result<TlsAcceptor, SecurityError> {
    check_size(key)?;
    let chain = certificates(certificate, "a PEM certificate chain")?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|source| SecurityError::Pem {
        path: key.to_owned(),
        what: "a PEM private key",
        source,
    })?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = verifier.unwrap_or_else(WebPkiClientVerifier::no_client_auth);
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_client_cert_verifier(verifier).with_single_cert(chain, private))
        .map_err(|source| SecurityError::Tls { certificate: certificate.into(), key: key.into(), source })?;
    config.alpn_protocols = protocol.map(<[u8]>::to_vec).into_iter().collect();
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn certificates(path: &Path, what: &'static str) -> Result<Vec<CertificateDer<'static>>, SecurityError> {
    check_size(path)?;
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|source| SecurityError::Pem { path: path.to_owned(), what, source })
}

fn check_size(path: &Path) -> Result<(), SecurityError> {
    // What cannot be asked for its size cannot be read either, and says so better there.
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.len() > PEM_BYTES_MAX => Err(SecurityError::TooLarge { path: path.into() }),
        _ => Ok(()),
    }
}
