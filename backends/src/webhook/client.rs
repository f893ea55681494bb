//! The client of the `Webhook` backend.

use std::fmt;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Url};
use spillway_delivery::backend::{Backend, Fault, FaultKind, Items, OutBatch, Outcome, Traits};
use spillway_delivery::event::EventId;
use spillway_delivery::settings::Metadata;

use super::render::Renderer;
use super::settings::{WebhookSettings, WebhookSignature};
use super::sign::signature;
use super::template;
use crate::http::client::{add_headers, method};
use crate::http::each::{BATCH_EVENTS_MAX, Each};
use crate::http::encode::verdict_of_one;
use crate::http::endpoint::{Endpoint, IDEMPOTENCY_KEY, key_value, parse_url};
use crate::settings::Problem;
use crate::{BuildContext, BuildError};

/// Most bytes of an answer's body that are read.
const ANSWER_BYTES_MAX: usize = 64 << 10;

const NANOS_PER_SECOND: i64 = 1_000_000_000;

/// Sends each event as a request of its own.
pub struct Webhook {
    endpoint: Endpoint,
    url: Url,
    method: Method,
    /// Sent with every request; nothing secret.
    headers: HeaderMap,
    /// `None` sends the event itself.
    body: Option<Renderer>,
    keyed: bool,
    signature: Option<(WebhookSignature, HeaderName, HeaderName)>,
    metadata: Metadata,
    each: Each,
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhook").field("host", &self.url.host_str()).finish_non_exhaustive()
    }
}

impl Webhook {
    /// Returns the backend; connects at the first batch.
    pub fn try_new(settings: &WebhookSettings, context: &BuildContext) -> Result<Self, BuildError> {
        let wrong = |path: &str, message: String, allowed: String| {
            BuildError::Settings(vec![Problem::new(path, message, allowed)])
        };
        let url = parse_url(&settings.url, "url")?;
        context.secrets.note_url(&url);
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        add_headers(&mut headers, &settings.headers)?;
        let parsed = settings.body.as_deref().map(template::parse).transpose();
        let parsed = parsed.map_err(|(message, allowed)| wrong("body", message, allowed))?;
        let name = |path: &str, name: &str| {
            let message = || wrong(path, "is not the name of a header".into(), "letters, digits, '-', '_'".into());
            HeaderName::try_from(name).map_err(|_| message())
        };
        let signature = settings.signature.as_ref().map(|signature| {
            let header = name("signature.header", &signature.header)?;
            Ok::<_, BuildError>((
                signature.clone(),
                header,
                name("signature.timestampHeader", &signature.timestamp_header)?,
            ))
        });
        Ok(Self {
            endpoint: Endpoint::new(&url, settings.auth.clone(), settings.tls.as_ref(), ANSWER_BYTES_MAX, context),
            url,
            method: method(settings.method),
            headers,
            body: parsed.map(Renderer::new),
            keyed: settings.idempotency_key,
            signature: signature.transpose()?,
            metadata: context.metadata,
            each: Each::default(),
        })
    }

    async fn send_each(&self, batch: &OutBatch) -> Result<Items, Fault> {
        let ask = |id, body| -> BoxFuture<'_, _> { Box::pin(self.send_one(id, body)) };
        if let Some(renderer) = &self.body {
            let bodies = batch.events().map(|event| renderer.render(batch, &event));
            return self.each.send(batch, bodies, ask).await;
        }
        let mut lines = Vec::new();
        batch.write_ndjson(&mut lines, self.metadata);
        let lines = Bytes::from(lines);
        let bodies = lines.split(|byte| *byte == b'\n').map(|line| Ok(lines.slice_ref(line)));
        self.each.send(batch, bodies, ask).await
    }

    async fn send_one(&self, id: EventId, body: Bytes) -> Result<Outcome, Fault> {
        let mut headers = self.headers.clone();
        if self.keyed {
            headers.insert(IDEMPOTENCY_KEY, key_value(&id.to_string())?);
        }
        if let Some((settings, header, timestamp_header)) = &self.signature {
            let secret = self.endpoint.secret(&settings.secret_ref)?;
            if secret.reveal().is_empty() {
                return Err(Fault::new(FaultKind::Local, "the secret of signature.secretRef is empty"));
            }
            let seconds = self.endpoint.now().div_euclid(NANOS_PER_SECOND);
            let text = signature(secret.reveal().as_bytes(), seconds, &body);
            headers.insert(header.clone(), key_value(&text)?);
            headers.insert(timestamp_header.clone(), HeaderValue::from(seconds));
        }
        let answer = self.endpoint.ask(&self.method, &self.url, headers, body).await?;
        verdict_of_one(&answer, self.keyed, self.endpoint.now())
    }
}

impl Backend for Webhook {
    /// # Cancel safety
    /// The request is abandoned and its connection closed; the server may have taken its event. What was answered is
    /// remembered.
    fn send<'a>(&'a self, batch: &'a OutBatch) -> BoxFuture<'a, Result<Items, Fault>> {
        Box::pin(self.send_each(batch))
    }

    fn traits(&self) -> Traits {
        Traits { batch_events_max: Some(BATCH_EVENTS_MAX), ..Traits::default() }
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.endpoint.close();
        Box::pin(async {})
    }
}
