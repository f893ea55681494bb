//! The client of the `HTTP` backend.

use std::convert::Infallible;
use std::fmt;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream;
use reqwest::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Body, Method, Url};
use spillway_delivery::backend::{Backend, Fault, Items, OutBatch, Outcome, Traits};
use spillway_delivery::event::{Arenas, EventId};
use spillway_delivery::settings::Metadata;

use super::each::{BATCH_EVENTS_MAX, Each};
use super::encode::{self, Asked};
use super::endpoint::{Endpoint, IDEMPOTENCY_KEY, key_value, packed, parse_url};
use super::settings::{HttpFormat, HttpHeader, HttpMethod, HttpSettings};
use crate::settings::{Compression, Problem};
use crate::{BuildContext, BuildError};

/// Most bytes of an answer's body that are read.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Bytes of a body that are made at a time.
const PIECE_BYTES: usize = 64 << 10;

/// Sends batches to one endpoint.
pub struct Http {
    endpoint: Endpoint,
    url: Url,
    method: Method,
    /// Sent with every request; nothing secret.
    headers: HeaderMap,
    format: HttpFormat,
    compression: Compression,
    keyed: bool,
    /// How a body is written.
    encoding: u64,
    metadata: Metadata,
    each: Each,
    bodies: Arenas,
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The path and query of a URL may hold a key.
        f.debug_struct("Http").field("method", &self.method).field("host", &self.url.host_str()).finish_non_exhaustive()
    }
}

impl Http {
    /// Returns the backend; connects at the first batch.
    pub fn try_new(settings: &HttpSettings, context: &BuildContext) -> Result<Self, BuildError> {
        let url = parse_url(&settings.url, "url")?;
        context.secrets.note_url(&url);
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(encode::content_type(settings.format)));
        if let Some(encoding) = encode::content_encoding(settings.compression) {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static(encoding));
        }
        add_headers(&mut headers, &settings.headers)?;
        Ok(Self {
            endpoint: Endpoint::new(&url, settings.auth.clone(), settings.tls.as_ref(), ANSWER_BYTES_MAX, context),
            url,
            method: method(settings.method),
            headers,
            format: settings.format,
            compression: settings.compression,
            keyed: settings.idempotency_key,
            encoding: context.encoding(&("HTTP", settings.format, settings.compression)),
            metadata: context.metadata,
            each: Each::default(),
            bodies: context.bodies.clone(),
        })
    }

    async fn send_whole(&self, batch: &OutBatch) -> Result<Items, Fault> {
        let mut headers = self.headers(batch.key())?;
        let body = match self.compression {
            Compression::None => self.in_pieces(batch, &mut headers),
            Compression::Gzip | Compression::Zstd => {
                packed(self.compression, encode::body(batch, self.format, self.metadata).into()).await?.into()
            }
        };
        let answer = self.endpoint.ask(&self.method, &self.url, headers, body).await?;
        encode::verdict(&answer, Asked { events: batch.len(), keyed: self.keyed }, self.endpoint.now())
    }

    /// Returns a body that is made while it is sent, so that no batch is in memory twice. Its length is known all the same:
    /// not every server takes a body without.
    fn in_pieces(&self, batch: &OutBatch, headers: &mut HeaderMap) -> Body {
        let form = encode::form(self.format);
        headers.insert(CONTENT_LENGTH, batch.encoded_bytes(form, self.metadata).into());
        let pieces = batch.pieces(form, PIECE_BYTES, self.metadata, &self.bodies);
        Body::wrap_stream(stream::iter(pieces.map(Ok::<_, Infallible>)))
    }

    async fn send_each(&self, batch: &OutBatch) -> Result<Items, Fault> {
        let lines = Bytes::from(encode::body(batch, HttpFormat::Ndjson, self.metadata));
        let bodies = lines.split(|byte| *byte == b'\n').map(|line| Ok(lines.slice_ref(line)));
        self.each.send(batch, bodies, |id, body| Box::pin(self.send_one(id, body))).await
    }

    async fn send_one(&self, id: EventId, body: Bytes) -> Result<Outcome, Fault> {
        let body = packed(self.compression, body).await?;
        let answer = self.endpoint.ask(&self.method, &self.url, self.headers(&id.to_string())?, body).await?;
        encode::verdict_of_one(&answer, self.keyed, self.endpoint.now())
    }

    fn headers(&self, key: &str) -> Result<HeaderMap, Fault> {
        let mut headers = self.headers.clone();
        if self.keyed {
            headers.insert(IDEMPOTENCY_KEY, key_value(key)?);
        }
        Ok(headers)
    }
}

impl Backend for Http {
    /// # Cancel safety
    /// The request is abandoned and its connection closed; the server may have taken the batch.
    fn send<'a>(&'a self, batch: &'a OutBatch) -> BoxFuture<'a, Result<Items, Fault>> {
        match self.format {
            HttpFormat::Ndjson | HttpFormat::JsonArray => Box::pin(self.send_whole(batch)),
            HttpFormat::JsonObject => Box::pin(self.send_each(batch)),
        }
    }

    fn traits(&self) -> Traits {
        match self.format {
            HttpFormat::Ndjson | HttpFormat::JsonArray => {
                Traits { keyed: self.keyed, encoding: self.encoding, ..Traits::default() }
            }
            // The key of a request is the id of its event: it needs no plan.
            HttpFormat::JsonObject => Traits { batch_events_max: Some(BATCH_EVENTS_MAX), ..Traits::default() },
        }
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.endpoint.close();
        Box::pin(async {})
    }
}

/// Returns the method of the requests.
pub(crate) fn method(method: HttpMethod) -> Method {
    match method {
        HttpMethod::Post => Method::POST,
        HttpMethod::Put => Method::PUT,
        HttpMethod::Patch => Method::PATCH,
    }
}

/// Adds the headers of the settings, in the place of those of the same name.
pub(crate) fn add_headers(headers: &mut HeaderMap, added: &[HttpHeader]) -> Result<(), BuildError> {
    for (index, header) in added.iter().enumerate() {
        let wrong = |message: &str, allowed: &str| {
            BuildError::Settings(vec![Problem::new(format!("headers[{index}]"), message, allowed)])
        };
        let name = HeaderName::try_from(&header.name).map_err(|_| wrong("has no valid name", "a token"))?;
        let value = HeaderValue::try_from(&header.value).map_err(|_| wrong("has no valid value", "printable ASCII"))?;
        headers.insert(name, value);
    }
    Ok(())
}
