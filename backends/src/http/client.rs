//! The client of the `HTTP` backend.

use std::fmt;
use std::time::Duration;

use futures_util::future::BoxFuture;
use reqwest::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Method, Request, Url};
use spillway_delivery::backend::{Backend, Fault, FaultKind, Items, OutBatch, Traits};
use spillway_delivery::clock::Clock;
use spillway_delivery::settings::Metadata;

use super::encode::{self, Answer, Asked};
use super::settings::{HttpAuth, HttpMethod, HttpSettings};
use crate::auth::basic_value;
use crate::compress::compress;
use crate::http_client::{AnswerLimits, HttpClient};
use crate::settings::{Compression, Problem};
use crate::{BuildContext, BuildError};

/// The body of an answer only gives the reason of a rejection.
const ANSWER: AnswerLimits = AnswerLimits { body_bytes_max: 64 << 10, body_timeout: Duration::from_secs(5) };

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
    metadata: Metadata,
    clock: Clock,
    client: HttpClient,
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
        let client = HttpClient::new(context.secrets, settings.tls.as_ref(), url.scheme() == "https");
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
            metadata: context.metadata,
            clock: context.clock,
            client,
        })
    }

    async fn send_once(&self, batch: &OutBatch) -> Result<Items, Fault> {
        let body = compress(encode::body(batch, self.metadata), self.compression).await?;
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
        let answer = self.client.execute(request, ANSWER).await?;
        let asked = Asked { events: batch.len(), keyed: self.keyed };
        let (retry_after, text) = (answer.header(RETRY_AFTER), &*answer.body);
        encode::verdict(Answer { status: answer.status, retry_after, text }, asked, self.clock.now())
    }

    fn auth_header(&self) -> Result<Option<(HeaderName, HeaderValue)>, Fault> {
        let Some(auth) = &self.auth else {
            return Ok(None);
        };
        let secret = |reference| self.client.secret(reference);
        let (name, text, reference) = if let Some(bearer) = &auth.bearer {
            let reference = &bearer.token_secret_ref;
            (AUTHORIZATION, format!("Bearer {}", secret(reference)?.reveal()), reference)
        } else if let Some(basic) = &auth.basic {
            let reference = &basic.password_secret_ref;
            (AUTHORIZATION, basic_value(&basic.username, secret(reference)?.reveal()), reference)
        } else if let Some(header) = &auth.header {
            let reference = &header.value_secret_ref;
            let name = HeaderName::try_from(&header.name)
                .map_err(|_| Fault::new(FaultKind::Local, "auth.header.name is not the name of a header"))?;
            (name, secret(reference)?.reveal().to_owned(), reference)
        } else {
            return Ok(None);
        };
        Ok(Some((name, HttpClient::secret_value(text, reference)?)))
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
        self.client.close();
        Box::pin(async {})
    }
}
