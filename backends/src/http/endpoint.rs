//! An endpoint as users describe it: URL, credentials, trust; below every backend that takes events over HTTP.
//!
//! # Guarantees
//! - Credentials are read at each use, and neither they nor a URL are in any fault.
//!
//! # Must not know
//! What is sent, and what a status means.
//!
//! # Limits
//! 5 s for the body of an answer once its status is known; how many bytes of it are read, the backend says.

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Body, Method, Request, Url};
use spillway_delivery::backend::{Fault, FaultKind};
use spillway_delivery::clock::{Clock, UnixNanos};
use spillway_delivery::secret::Secret;

use super::settings::HttpAuth;
use crate::auth::basic_value;
use crate::compress::compress;
use crate::http_client::{Answer, AnswerLimits, HttpClient};
use crate::settings::{Compression, Problem, SecretKeyRef};
use crate::tls::TlsSettings;
use crate::{BuildContext, BuildError};

/// How long the body of an answer may take once the status is known.
const ANSWER_BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// The header by which a server recognises a repeat.
pub(crate) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// One endpoint, with its credentials.
#[derive(Debug)]
pub(crate) struct Endpoint {
    client: HttpClient,
    auth: Option<HttpAuth>,
    limits: AnswerLimits,
    clock: Clock,
}

impl Endpoint {
    /// Returns an endpoint on the host of `url` that reads `answer_bytes_max` of an answer; connects at the first request.
    pub(crate) fn new(
        url: &Url,
        auth: Option<HttpAuth>,
        tls: Option<&TlsSettings>,
        answer_bytes_max: usize,
        context: &BuildContext,
    ) -> Self {
        Self {
            client: HttpClient::new(
                context.secrets.clone(),
                context.destinations.clone(),
                tls,
                url.scheme() == "https",
            ),
            auth,
            limits: AnswerLimits { body_bytes_max: answer_bytes_max, body_timeout: ANSWER_BODY_TIMEOUT },
            clock: context.clock.clone(),
        }
    }

    /// Returns wall time.
    pub(crate) fn now(&self) -> UnixNanos {
        self.clock.now()
    }

    /// Returns a secret as it is now.
    pub(crate) fn secret(&self, reference: &SecretKeyRef) -> Result<Secret, Fault> {
        self.client.secret(reference)
    }

    /// Sends one request, credentials added, and returns what the server says.
    ///
    /// # Cancel safety
    /// The request is abandoned and its connection closed; the server may have taken it.
    pub(crate) async fn ask(
        &self,
        method: &Method,
        url: &Url,
        mut headers: HeaderMap,
        body: impl Into<Body>,
    ) -> Result<Answer, Fault> {
        if let Some((name, value)) = self.auth_header()? {
            headers.insert(name, value);
        }
        let mut request = Request::new(method.clone(), url.clone());
        *request.headers_mut() = headers;
        *request.body_mut() = Some(body.into());
        self.client.execute(request, self.limits).await
    }

    /// Lets go of every idle connection.
    pub(crate) fn close(&self) {
        self.client.close();
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
            (AUTHORIZATION, basic_value(&basic.username, self.secret(reference)?.reveal()), reference)
        } else if let Some(header) = &auth.header {
            let reference = &header.value_secret_ref;
            let name = HeaderName::try_from(&header.name)
                .map_err(|_| Fault::new(FaultKind::Local, "auth.header.name is not the name of a header"))?;
            (name, self.secret(reference)?.reveal().to_owned(), reference)
        } else {
            return Ok(None);
        };
        Ok(Some((name, self.client.secret_value(text, reference)?)))
    }
}

/// Returns the URL of the setting `path`.
pub(crate) fn parse_url(text: &str, path: &str) -> Result<Url, BuildError> {
    let wrong = || BuildError::Settings(vec![Problem::new(path, "cannot be parsed", "an http or https URL")]);
    Url::parse(text).map_err(|_| wrong())
}

/// Returns `body` as `compression` says.
pub(crate) async fn packed(compression: Compression, body: Bytes) -> Result<Bytes, Fault> {
    if compression == Compression::None {
        return Ok(body);
    }
    Ok(compress(body.into(), compression).await?.into())
}

/// Returns a key as the value of a header.
pub(crate) fn key_value(key: &str) -> Result<HeaderValue, Fault> {
    HeaderValue::try_from(key).map_err(|_| Fault::new(FaultKind::Local, "the key of the batch cannot be a header"))
}
