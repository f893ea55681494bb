//! The HTTP client below every backend that speaks HTTP itself.
//!
//! # Guarantees
//! - No redirect is followed, no proxy of the environment used, no certificate taken on trust; TLS 1.2 is the least.
//! - A CA and every other secret is read at each use: a rotated one is used at once, and a rotated CA makes a new client.
//! - Nothing is connected to that [`Destinations`] refuse, whatever name it goes by; that is a fault of its own kind.
//! - Nothing secret is in a fault: neither a URL nor a header nor a body.
//!
//! # Must not know
//! What is sent, and what a status means.
//!
//! # Limits
//! 10 s to connect; idle connections are kept for 30 s; [`AnswerLimits`] for each answer.

use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderValue};
use reqwest::{Certificate, Client, Request, Response, Url};
use spillway_delivery::backend::{Fault, FaultKind};
use spillway_delivery::secret::Secret;
use tokio::time::timeout;

use crate::destinations::resolve::Resolver;
use crate::destinations::{Destinations, Forbidden};
use crate::redact::Secrets;
use crate::secrets::SecretError;
use crate::settings::SecretKeyRef;
use crate::tls::TlsSettings;

/// How long a connection may take to be made, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an idle connection is kept: less than common servers keep theirs (60 s).
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Most room that is made for the body of an answer because of its length as the server tells it.
const BODY_ROOM_MAX: usize = 1 << 20;

const USER_AGENT: &str = concat!("spillway/", env!("CARGO_PKG_VERSION"));

/// A client, and the secrets of its backend.
#[derive(Debug)]
pub(crate) struct HttpClient {
    ca: Option<SecretKeyRef>,
    https: bool,
    secrets: Secrets,
    destinations: Destinations,
    current: Mutex<Option<Current>>,
}

/// The clients, and the CA they trust: made anew when that changes.
#[derive(Debug)]
struct Current {
    ca: Option<Secret>,
    /// One for each [`Destinations::group`] of ports: at most one for each URL of the backend, and hardly ever more than one.
    of_ports: Vec<(Option<u16>, Client)>,
}

/// How much of an answer is read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AnswerLimits {
    /// Most bytes of its body.
    pub(crate) body_bytes_max: usize,
    /// How long the body may take once the status is known.
    pub(crate) body_timeout: Duration,
}

/// A server's answer.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The status.
    pub(crate) status: u16,
    /// The headers.
    pub(crate) headers: HeaderMap,
    /// The beginning of the body.
    pub(crate) body: Vec<u8>,
    /// Whether that is all of it.
    pub(crate) whole: bool,
}

impl Answer {
    /// Returns a header that is text.
    pub(crate) fn header(&self, name: impl reqwest::header::AsHeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

impl HttpClient {
    /// Returns a client that connects at the first request; `https` says whether any of its URLs is one.
    pub(crate) fn new(secrets: Secrets, destinations: Destinations, tls: Option<&TlsSettings>, https: bool) -> Self {
        let ca = tls.map(|tls| tls.ca_secret_ref.clone());
        Self { ca, https, secrets, destinations, current: Mutex::default() }
    }

    /// Sends a request and reads the answer within `limits`. A body that is too long or too slow is left: its connection
    /// closes, and the status stands. A body that breaks off is a fault: that is how a server takes back a status it has
    /// sent too early.
    ///
    /// # Cancel safety
    /// The request is abandoned and its connection closed; the server may have taken it.
    pub(crate) async fn execute(&self, request: Request, limits: AnswerLimits) -> Result<Answer, Fault> {
        self.check(request.url()).map_err(|forbidden| Fault::new(FaultKind::Forbidden, forbidden))?;
        let client = self.client(request.url().port_or_known_default().unwrap_or_default())?;
        let response = client.execute(request).await.map_err(|error| fault(error, "no answer"))?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let said = usize::try_from(response.content_length().unwrap_or(0)).unwrap_or(usize::MAX);
        let mut body = Vec::with_capacity(said.min(limits.body_bytes_max).min(BODY_ROOM_MAX));
        let whole = match timeout(limits.body_timeout, read(response, limits.body_bytes_max, &mut body)).await {
            Ok(read) => read?,
            Err(_) => false,
        };
        Ok(Answer { status, headers, body, whole })
    }

    /// Returns a secret as it is now.
    pub(crate) fn secret(&self, reference: &SecretKeyRef) -> Result<Secret, Fault> {
        self.secrets.get(reference).map_err(|error| match &error {
            SecretError::Read { source, .. } => {
                Fault::new(FaultKind::Local, format_args!("{error}: {}", source.kind()))
            }
            SecretError::Missing(_) | SecretError::Reference | SecretError::Served { .. } => {
                Fault::new(FaultKind::Local, &error)
            }
        })
    }

    /// Returns `text`, made from the secret at `reference`, as the value of a header that no log shows.
    pub(crate) fn secret_value(&self, text: String, reference: &SecretKeyRef) -> Result<HeaderValue, Fault> {
        self.secrets.note_header(reference, &text);
        let mut value = HeaderValue::try_from(text).map_err(|_| {
            let SecretKeyRef { name, key } = reference;
            Fault::new(FaultKind::Local, format_args!("secret {name}/{key} holds what a header cannot carry"))
        })?;
        value.set_sensitive(true);
        Ok(value)
    }

    /// Returns `text` without the secrets that a server may have put into it, for what is logged here.
    pub(crate) fn redact(&self, text: &str) -> String {
        self.secrets.redact(text)
    }

    /// Lets go of every idle connection.
    pub(crate) fn close(&self) {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Judges what needs no look-up: a host that is an address is dialled without one.
    fn check(&self, url: &Url) -> Result<(), Forbidden> {
        let (host, port) = (url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or_default());
        self.destinations.check(host, port)
    }

    fn client(&self, port: u16) -> Result<Client, Fault> {
        let ca = self.ca.as_ref().map(|ca| self.secret(ca)).transpose()?;
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let current = match &mut *current {
            Some(current) if current.ca == ca => current,
            other => other.insert(Current { ca, of_ports: Vec::new() }),
        };
        let group = self.destinations.group(port);
        if let Some((_, client)) = current.of_ports.iter().find(|(ports, _)| *ports == group) {
            return Ok(client.clone());
        }
        let client = self.build(current.ca.as_ref(), port)?;
        current.of_ports.push((group, client.clone()));
        Ok(client)
    }

    fn build(&self, ca: Option<&Secret>, port: u16) -> Result<Client, Fault> {
        let mut builder = Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .no_proxy()
            .http1_only()
            .tls_version_min(reqwest::tls::Version::TLS_1_2)
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(POOL_IDLE_TIMEOUT)
            .user_agent(USER_AGENT);
        if let Destinations::Limited(limits) = &self.destinations {
            builder = builder.dns_resolver(Arc::new(Resolver::of_the_machine(limits.clone(), port)));
        }
        if let Some(ca) = ca {
            let certificates = Certificate::from_pem_bundle(ca.reveal().as_bytes())
                .ok()
                .filter(|certificates| !certificates.is_empty())
                .ok_or_else(|| Fault::new(FaultKind::Local, "tls.caSecretRef holds no certificate in PEM"))?;
            builder = builder.tls_certs_only(certificates);
        } else if !self.https {
            // The machine's certificates are not loaded where nothing uses them: some 2 MB less.
            builder = builder.tls_certs_only([]);
        }
        builder.build().map_err(|error| fault(error, "client cannot be made"))
    }
}

/// Reads the beginning of the body; returns whether that is all.
async fn read(mut response: Response, bytes_max: usize, body: &mut Vec<u8>) -> Result<bool, Fault> {
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) => {
                let room = bytes_max - body.len();
                body.extend_from_slice(&chunk[..chunk.len().min(room)]);
                if chunk.len() > room {
                    return Ok(false);
                }
            }
            Ok(None) => return Ok(true),
            Err(error) => return Err(fault(error, "answer broke off")),
        }
    }
}

/// Says what failed without saying where: no URL, no header, no body.
fn fault(error: reqwest::Error, what: &str) -> Fault {
    let error = error.without_url();
    if let Some(forbidden) = root_cause(&error).downcast_ref::<Forbidden>() {
        return Fault::new(FaultKind::Forbidden, forbidden);
    }
    // A connection that is not made in time is both: nobody was reached, and nothing was sent.
    let was_sent = !error.is_connect() && !error.is_builder();
    let kind = if error.is_connect() {
        FaultKind::Unreachable
    } else if error.is_timeout() {
        FaultKind::Timeout
    } else if error.is_builder() {
        FaultKind::Local
    } else if root_cause(&error).is::<std::io::Error>() {
        FaultKind::Unreachable
    } else {
        FaultKind::Broken
    };
    Fault::new(kind, format_args!("{what}: {}", in_words(root_cause(&error)))).maybe_there(was_sent)
}

/// What the library of TLS calls a certificate that another authority has signed, or that one of the same name has, or itself.
const STRANGERS: [&str; 2] = ["invalid peer certificate: UnknownIssuer", "invalid peer certificate: BadSignature"];

/// Returns what a cause says; these are names where the others are words.
fn in_words(cause: &dyn Error) -> String {
    const WORDS: &str =
        "invalid peer certificate: certificate is signed by no authority that is trusted here (see tls.caSecretRef)";
    STRANGERS.iter().fold(cause.to_string(), |text, name| text.replace(name, WORDS))
}

/// Returns the end of the chain of causes.
pub(crate) fn root_cause<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause
}
