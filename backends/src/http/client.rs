//! The client of the `HTTP` backend.

use std::error::Error;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use reqwest::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Certificate, Client, Method, Request, Response, Url};
use spillway_delivery::backend::{Backend, Fault, FaultKind, Items, OutBatch, Traits};
use spillway_delivery::clock::Clock;
use spillway_delivery::secret::Secret;
use spillway_delivery::settings::Metadata;
use tokio::time::timeout;

use super::encode::{self, Answer, Asked};
use super::settings::{HttpAuth, HttpMethod, HttpSettings};
use crate::secrets::{SecretError, SecretSource};
use crate::settings::{Compression, Problem, SecretKeyRef};
use crate::{BuildContext, BuildError};

/// How long a connection may take to be made, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an idle connection is kept: less than common servers keep theirs (60 s).
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Most bytes of an answer's body that are read.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// How long the body may take once the status is known.
const ANSWER_BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// Bodies above this size are compressed off the reactor's threads: below, the hop costs more (1 ms at 64 MiB/s).
const COMPRESS_INLINE_BYTES_MAX: usize = 64 << 10;

const USER_AGENT: &str = concat!("spillway/", env!("CARGO_PKG_VERSION"));
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Sends batches to one endpoint.
pub struct Http {
    url: Url,
    method: Method,
    /// Sent with every request; nothing secret.
    headers: HeaderMap,
    compression: Compression,
    keyed: bool,
    auth: Option<HttpAuth>,
    ca: Option<SecretKeyRef>,
    metadata: Metadata,
    secrets: Arc<dyn SecretSource>,
    clock: Clock,
    /// The client, and the CA it trusts: made anew when that changes.
    client: Mutex<Option<(Option<Secret>, Client)>>,
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The path and query of a URL may hold a key.
        f.debug_struct("Http").field("method", &self.method).field("host", &self.url.host_str()).finish_non_exhaustive()
    }
}

impl Http {
    /// Returns the backend; connects at the first batch.
    pub fn try_new(settings: &HttpSettings, context: BuildContext) -> Result<Self, BuildError> {
        let wrong =
            |path: &str, message: &str, allowed: &str| BuildError::Settings(vec![Problem::new(path, message, allowed)]);
        let url = Url::parse(&settings.url).map_err(|_| wrong("url", "cannot be parsed", "an http or https URL"))?;
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
        if settings.compression == Compression::Gzip {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        for (index, header) in settings.headers.iter().enumerate() {
            let path = format!("headers[{index}]");
            let name = HeaderName::try_from(&header.name).map_err(|_| wrong(&path, "has no valid name", "a token"))?;
            let value = HeaderValue::try_from(&header.value)
                .map_err(|_| wrong(&path, "has no valid value", "printable ASCII"))?;
            headers.insert(name, value);
        }
        Ok(Self {
            url,
            method: match settings.method {
                HttpMethod::Post => Method::POST,
                HttpMethod::Put => Method::PUT,
                HttpMethod::Patch => Method::PATCH,
            },
            headers,
            compression: settings.compression,
            keyed: settings.idempotency_key,
            auth: settings.auth.clone(),
            ca: settings.tls.as_ref().map(|tls| tls.ca_secret_ref.clone()),
            metadata: context.metadata,
            secrets: context.secrets,
            clock: context.clock,
            client: Mutex::default(),
        })
    }

    async fn send_once(&self, batch: &OutBatch) -> Result<Items, Fault> {
        let client = self.client()?;
        let body = self.body(batch).await?;
        let mut request = Request::new(self.method.clone(), self.url.clone());
        *request.headers_mut() = self.headers.clone();
        if self.keyed {
            let key = HeaderValue::try_from(batch.key())
                .map_err(|_| Fault::new(FaultKind::Local, "the key of the batch cannot be a header"))?;
            request.headers_mut().insert(IDEMPOTENCY_KEY, key);
        }
        if let Some((name, value)) = self.auth_header()? {
            request.headers_mut().insert(name, value);
        }
        *request.body_mut() = Some(body.into());
        let response = client.execute(request).await.map_err(|error| fault(error, "no answer"))?;
        let status = response.status().as_u16();
        let retry_after = response.headers().get(RETRY_AFTER).cloned();
        let text = read_answer(response).await?;
        let retry_after = retry_after.as_ref().and_then(|value| value.to_str().ok());
        let asked = Asked { events: batch.len(), keyed: self.keyed };
        encode::verdict(Answer { status, retry_after, text: &text }, asked, self.clock.now())
    }

    async fn body(&self, batch: &OutBatch) -> Result<Vec<u8>, Fault> {
        let body = encode::body(batch, self.metadata);
        let compressed = match self.compression {
            Compression::None => return Ok(body),
            Compression::Gzip if body.len() <= COMPRESS_INLINE_BYTES_MAX => encode::gzip(&body),
            Compression::Gzip => tokio::task::spawn_blocking(move || encode::gzip(&body))
                .await
                .map_err(|_| Fault::new(FaultKind::Local, "compression was abandoned"))?,
        };
        compressed.map_err(|error| Fault::new(FaultKind::Local, format_args!("compression failed: {error}")))
    }

    fn client(&self) -> Result<Client, Fault> {
        let ca = self.ca.as_ref().map(|ca| self.secret(ca)).transpose()?;
        let mut current = self.client.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some((used, client)) = &*current
            && *used == ca
        {
            return Ok(client.clone());
        }
        let client = self.connect_settings(ca.as_ref())?;
        *current = Some((ca, client.clone()));
        Ok(client)
    }

    fn connect_settings(&self, ca: Option<&Secret>) -> Result<Client, Fault> {
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
        if let Some(ca) = ca {
            let certificates = Certificate::from_pem_bundle(ca.reveal().as_bytes())
                .ok()
                .filter(|certificates| !certificates.is_empty())
                .ok_or_else(|| Fault::new(FaultKind::Local, "tls.caSecretRef holds no certificate in PEM"))?;
            builder = builder.tls_certs_only(certificates);
        } else if self.url.scheme() == "http" {
            // The machine's certificates are not loaded where nothing uses them: some 2 MB less.
            builder = builder.tls_certs_only([]);
        }
        builder.build().map_err(|error| fault(error, "client cannot be made"))
    }

    fn auth_header(&self) -> Result<Option<(HeaderName, HeaderValue)>, Fault> {
        let Some(auth) = &self.auth else {
            return Ok(None);
        };
        let (name, text, reference) = if let Some(bearer) = &auth.bearer {
            let reference = &bearer.token_secret_ref;
            (AUTHORIZATION, format!("Bearer {}", self.secret(reference)?.reveal()), reference)
        } else if let Some(basic) = &auth.basic {
            let reference = &basic.password_secret_ref;
            let pair = format!("{}:{}", basic.username, self.secret(reference)?.reveal());
            (AUTHORIZATION, format!("Basic {}", base64(pair.as_bytes())), reference)
        } else if let Some(header) = &auth.header {
            let reference = &header.value_secret_ref;
            let name = HeaderName::try_from(&header.name)
                .map_err(|_| Fault::new(FaultKind::Local, "auth.header.name is not the name of a header"))?;
            (name, self.secret(reference)?.reveal().to_owned(), reference)
        } else {
            return Ok(None);
        };
        let mut value = HeaderValue::try_from(text).map_err(|_| {
            let SecretKeyRef { name, key } = reference;
            Fault::new(FaultKind::Local, format_args!("secret {name}/{key} holds what a header cannot carry"))
        })?;
        value.set_sensitive(true);
        Ok(Some((name, value)))
    }

    fn secret(&self, reference: &SecretKeyRef) -> Result<Secret, Fault> {
        self.secrets.get(reference).map_err(|error| match &error {
            SecretError::Read { source, .. } => {
                Fault::new(FaultKind::Local, format_args!("{error}: {}", source.kind()))
            }
            SecretError::Missing(_) | SecretError::Reference => Fault::new(FaultKind::Local, &error),
        })
    }
}

impl Backend for Http {
    /// # Cancel safety
    /// The request is abandoned and its connection closed; the server may have taken the batch.
    fn send<'a>(&'a self, batch: &'a OutBatch) -> BoxFuture<'a, Result<Items, Fault>> {
        Box::pin(self.send_once(batch))
    }

    fn traits(&self) -> Traits {
        Traits { keyed: self.keyed, ..Traits::default() }
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        *self.client.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = None;
        Box::pin(async {})
    }
}

/// Reads the beginning of the body. A body that is too long or too slow is left: its connection closes, and the status
/// stands. A body that breaks off does not: that is how a server takes back a status it has sent too early.
async fn read_answer(mut response: Response) -> Result<Vec<u8>, Fault> {
    let mut text = Vec::new();
    let reading = async {
        while text.len() < ANSWER_BYTES_MAX {
            match response.chunk().await {
                Ok(Some(chunk)) => text.extend_from_slice(&chunk[..chunk.len().min(ANSWER_BYTES_MAX - text.len())]),
                Ok(None) => return Ok(()),
                Err(error) => return Err(fault(error, "answer broke off")),
            }
        }
        Ok(())
    };
    match timeout(ANSWER_BODY_TIMEOUT, reading).await {
        Ok(Err(fault)) => Err(fault),
        Ok(Ok(())) | Err(_) => Ok(text),
    }
}

/// Says what failed without saying where: no URL, no header, no body.
fn fault(error: reqwest::Error, what: &str) -> Fault {
    let error = error.without_url();
    let kind = if error.is_timeout() {
        FaultKind::Timeout
    } else if error.is_builder() {
        FaultKind::Local
    } else if error.is_connect() || root_cause(&error).is::<std::io::Error>() {
        FaultKind::Unreachable
    } else {
        FaultKind::Broken
    };
    Fault::new(kind, format_args!("{what}: {}", root_cause(&error)))
}

fn root_cause<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause
}

/// Standard alphabet with padding (RFC 4648, section 4).
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0u32, |bits, &b| bits << 8 | u32::from(b)) << (8 * (3 - group.len()));
        for index in 0..4 {
            let sextet = (bits >> (18 - 6 * index)) as usize & 63;
            out.push(if index <= group.len() { char::from(ALPHABET[sextet]) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_agrees_with_the_standard() {
        for (plain, encoded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("fooba", "Zm9vYmE=")]
        {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
        assert_eq!(base64(&[0xff, 0xfe, 0xfd]), "//79");
    }
}
