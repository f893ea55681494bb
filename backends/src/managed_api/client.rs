//! The client of the `ManagedAPI` backend.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, Url};
use spillway_delivery::backend::{Backend, Fault, FaultKind, Items, OutBatch, Traits};
use spillway_delivery::settings::Metadata;

use super::answers;
use super::settings::{BATCH_EVENTS_MAX, ManagedApiSettings};
use crate::http::encode::{Asked, content_encoding, verdict};
use crate::http::endpoint::{Endpoint, IDEMPOTENCY_KEY, key_value, packed, parse_url};
use crate::http::{HttpAuth, HttpBearerAuth};
use crate::settings::Compression;
use crate::{BuildContext, BuildError};

/// Sends batches to a managed service.
pub struct ManagedApi {
    endpoint: Endpoint,
    event_url: Url,
    batch_url: Url,
    health_url: Url,
    headers: HeaderMap,
    compression: Compression,
    /// How a body is written.
    encoding: u64,
    metadata: Metadata,
    /// The last attempt failed as a whole: the service is asked how it is before the next.
    unwell: AtomicBool,
}

impl fmt::Debug for ManagedApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ManagedApi").field("host", &self.batch_url.host_str()).finish_non_exhaustive()
    }
}

impl ManagedApi {
    /// Returns the backend; connects at the first batch.
    pub fn try_new(settings: &ManagedApiSettings, context: &BuildContext) -> Result<Self, BuildError> {
        let url = |path: &str, name| parse_url(&settings.below(path), name);
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(encoding) = content_encoding(settings.compression) {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static(encoding));
        }
        let bearer = HttpBearerAuth { token_secret_ref: settings.token_secret_ref.clone() };
        let auth = HttpAuth { bearer: Some(bearer), ..HttpAuth::default() };
        let batch_url = url(&settings.batch_path, "batchPath")?;
        let event_url = url(&settings.event_path, "eventPath")?;
        let health_url = url(&settings.health_path, "healthPath")?;
        [&batch_url, &event_url, &health_url].into_iter().for_each(|url| context.secrets.note_url(url));
        Ok(Self {
            endpoint: Endpoint::new(&batch_url, Some(auth), settings.tls.as_ref(), answers::ANSWER_BYTES_MAX, context),
            event_url,
            batch_url,
            health_url,
            headers,
            compression: settings.compression,
            encoding: context.encoding(&("ManagedAPI", settings.compression)),
            metadata: context.metadata,
            unwell: AtomicBool::new(false),
        })
    }

    async fn send_once(&self, batch: &OutBatch) -> Result<Items, Fault> {
        if self.unwell.load(Ordering::Relaxed) {
            // Nothing of the batch is sent before that.
            self.check_health().await.map_err(|fault| fault.maybe_there(false))?;
        }
        let mut attempt = Attempt { unwell: &self.unwell, ended: false };
        let sent = self.send_batch(batch).await;
        attempt.ended = true;
        let unwell = |fault: &Fault| !matches!(fault.kind, FaultKind::TooLarge | FaultKind::Throttled);
        self.unwell.store(sent.as_ref().is_err_and(unwell), Ordering::Relaxed);
        sent
    }

    /// Fails while the service says that it is unwell, or says nothing. Whatever else it answers is no word about that: it has no
    /// such path, keeps it for others, or sends those who ask elsewhere. Then the batch itself is answered.
    async fn check_health(&self) -> Result<(), Fault> {
        let answer = self.endpoint.ask(&Method::GET, &self.health_url, HeaderMap::new(), Bytes::new()).await?;
        match answer.status {
            status @ (408 | 425 | 429 | 500..=599) => {
                let asked = Asked { events: 2, keyed: true };
                let mut fault = match verdict(&answer, asked, self.endpoint.now()) {
                    Ok(_) => Fault::new(FaultKind::Broken, ""),
                    Err(fault) => fault,
                };
                if fault.kind == FaultKind::TooLarge {
                    fault.kind = FaultKind::Broken;
                }
                fault.message = format!("the service is unwell: http {status} from its health path").into();
                Err(fault)
            }
            _ => Ok(()),
        }
    }

    async fn send_batch(&self, batch: &OutBatch) -> Result<Items, Fault> {
        let mut body = Vec::new();
        let url = if batch.len() == 1 {
            batch.write_ndjson(&mut body, self.metadata);
            body.pop();
            &self.event_url
        } else {
            batch.write_json_array(&mut body, self.metadata);
            &self.batch_url
        };
        let body = packed(self.compression, body.into()).await?;
        let mut headers = self.headers.clone();
        headers.insert(IDEMPOTENCY_KEY, key_value(batch.key())?);
        let answer = self.endpoint.ask(&Method::POST, url, headers, body).await?;
        answers::read(&answer, batch.len(), self.endpoint.now())
    }
}

/// An attempt under way: one that is cut off, as by a timeout, is a failure too.
struct Attempt<'a> {
    unwell: &'a AtomicBool,
    ended: bool,
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.unwell.store(true, Ordering::Relaxed);
        }
    }
}

impl Backend for ManagedApi {
    /// # Cancel safety
    /// The request is abandoned and its connection closed; the service may have taken the batch.
    fn send<'a>(&'a self, batch: &'a OutBatch) -> BoxFuture<'a, Result<Items, Fault>> {
        Box::pin(self.send_once(batch))
    }

    fn traits(&self) -> Traits {
        let batch_events_max = Some(BATCH_EVENTS_MAX);
        Traits { keyed: true, encoding: self.encoding, batch_events_max, ..Traits::default() }
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.endpoint.close();
        Box::pin(async {})
    }
}
