//! The client of the `Elasticsearch` backend.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use reqwest::Method;
use reqwest::header::RETRY_AFTER;
use spillway_delivery::backend::{Backend, DeliveryName, Fault, FaultKind, Items, OutBatch, Outcome};
use spillway_delivery::clock::Clock;
use spillway_delivery::event::Arenas;
use tokio::sync::OnceCell;

use super::answer::{self, Verdict};
use super::encode::{Bulk, Encoder};
use super::mapping::{Found, IndexTemplate};
use super::nodes::{Ask, Nodes};
use super::settings::{ElasticsearchCompression, ElasticsearchSettings, GRAMMAR};
use crate::answer::parse_retry_after;
use crate::compress::compress;
use crate::http_client::{Answer, AnswerLimits};
use crate::settings::Compression;
use crate::template::Renderer;
use crate::{BuildContext, BuildError};

/// What of an answer is of use: a third of its bytes.
const BULK_PATH: &str = "_bulk?filter_path=errors,items.*._id,items.*.status,items.*.error.type,items.*.error.reason,\
                         items.*.error.caused_by.reason";

/// How long the body of an answer may take once its status is known; servers send both at once.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// An answer about a template.
const TEMPLATE_ANSWER: AnswerLimits = AnswerLimits { body_bytes_max: 256 << 10, body_timeout: BODY_TIMEOUT };

const JSON: &str = "application/json";
const NDJSON: &str = "application/x-ndjson";

/// Creates documents, each event once.
pub struct Elasticsearch {
    nodes: Nodes,
    encoder: Encoder,
    gzip: bool,
    template: Option<IndexTemplate>,
    /// Set once there is an index template, or none is to be had.
    template_done: OnceCell<()>,
    /// The kind of the reason that was logged last for items that wait.
    waiting_told: Mutex<String>,
    name: DeliveryName,
    clock: Clock,
    bodies: Arenas,
}

impl fmt::Debug for Elasticsearch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The path of a URL may hold a key.
        f.debug_struct("Elasticsearch").field("template", &self.template).finish_non_exhaustive()
    }
}

impl Elasticsearch {
    /// Returns the backend; connects at the first batch.
    pub fn try_new(settings: &ElasticsearchSettings, context: BuildContext) -> Result<Self, BuildError> {
        let index = settings.template().map_err(|problem| BuildError::Settings(vec![problem]))?;
        let nodes = Nodes::try_new(settings, &context)?;
        let template =
            settings.create_template.then(|| IndexTemplate::new(&index, &context.name, settings.data_stream));
        Ok(Self {
            nodes,
            encoder: Encoder::new(Renderer::new(&index, &GRAMMAR), context.metadata),
            gzip: settings.compression == ElasticsearchCompression::Gzip,
            template: template.flatten(),
            template_done: OnceCell::new(),
            waiting_told: Mutex::default(),
            name: context.name,
            clock: context.clock,
            bodies: context.bodies,
        })
    }

    async fn send_once(&self, batch: &OutBatch) -> Result<Items, Fault> {
        let mut bulk = self.encoder.bulk(batch, &self.bodies);
        if bulk.ids.is_empty() {
            return Ok(with_refused(Items::All(Outcome::Delivered), bulk.refused));
        }
        if let Some(template) = &self.template {
            self.template_done.get_or_try_init(|| self.ensure(template)).await?;
        }
        let limits = AnswerLimits { body_bytes_max: answer::bytes_max(&bulk), body_timeout: BODY_TIMEOUT };
        let body = std::mem::take(&mut bulk.body);
        let body = if self.gzip { compress(body, Compression::Gzip).await?.into() } else { self.bodies.seal(body) };
        let ask = Ask { method: Method::POST, path: BULK_PATH, content_type: NDJSON, gzip: self.gzip, body, limits };
        let answer = self.nodes.send(ask).await?;
        let Verdict { items, waiting } = self.verdict(&answer, &bulk)?;
        self.tell_waiting(waiting);
        Ok(with_refused(items, bulk.refused))
    }

    fn verdict(&self, answer: &Answer, bulk: &Bulk) -> Result<Verdict, Fault> {
        if !answer.whole && (200..300).contains(&answer.status) {
            // The items that would be found are a part: a smaller request has a smaller answer.
            let kind = if bulk.ids.len() > 1 { FaultKind::TooLarge } else { FaultKind::Broken };
            return Err(Fault::new(kind, "answer is too long or too slow"));
        }
        let mut verdict = answer::verdict(answer.status, &answer.body, &bulk.ids);
        if let Err(fault) = &mut verdict
            && fault.kind == FaultKind::Throttled
        {
            fault.retry_after = answer.header(RETRY_AFTER).and_then(|text| parse_retry_after(text, self.clock.now()));
        }
        verdict
    }

    /// Makes sure of the index template before the first document, so that no index is made without it. What only says
    /// that it cannot be made is one warning; but where there would be a plain index in place of a data stream, for good,
    /// nothing is sent.
    async fn ensure(&self, template: &IndexTemplate) -> Result<(), Fault> {
        let path = template.path();
        let ask = Ask {
            method: Method::GET,
            path: &path,
            content_type: JSON,
            gzip: false,
            body: Bytes::new(),
            limits: TEMPLATE_ANSWER,
        };
        let there = self.nodes.send(ask.clone()).await?;
        let refused = match (there.status, template.found(&there.body)) {
            (200, Found::Fitting) => return Ok(()),
            (200, Found::Plain) => there,
            (200 | 404, _) => {
                // The one difference between the products that matters here.
                let is_elasticsearch = there.header("x-elastic-product").is_some();
                let body = template.body(if is_elasticsearch { "flattened" } else { "flat_object" });
                let made = self.nodes.send(Ask { method: Method::PUT, body: body.into(), ..ask.clone() }).await?;
                if (200..300).contains(&made.status) {
                    tracing::info!(template = template.name, backend = %self.name.backend, "index template made");
                    return Ok(());
                }
                made
            }
            _ => there,
        };
        check_answered(&refused)?;
        let said = answer::server_error(&refused.body).unwrap_or_default();
        if let Some(path) = template.stream_path() {
            let streams = self.nodes.send(Ask { path: &path, ..ask }).await?;
            check_answered(&streams)?;
            if streams.status != 200 || !IndexTemplate::is_stream(&streams.body) {
                return Err(no_stream(template, refused.status, &said));
            }
        }
        tracing::warn!(
            template = template.name, backend = %self.name.backend, status = refused.status,
            error = self.nodes.redact(&said), "index template cannot be made; the server's own mapping is used"
        );
        Ok(())
    }

    /// Logs why items wait, when that is another reason than before: the engine only knows how many.
    fn tell_waiting(&self, waiting: Option<String>) {
        let Some(waiting) = waiting else {
            return;
        };
        let kind = waiting.split(": ").next().unwrap_or_default();
        let mut told = self.waiting_told.lock().unwrap_or_else(PoisonError::into_inner);
        if *told == kind {
            return;
        }
        kind.clone_into(&mut told);
        let reason = self.nodes.redact(&waiting);
        tracing::warn!(backend = %self.name.backend, reason, "some events were not taken now; they are sent again");
    }
}

impl Backend for Elasticsearch {
    /// # Cancel safety
    /// The request is abandoned and its connection closed; what the server created of it is a duplicate next time.
    fn send<'a>(&'a self, batch: &'a OutBatch) -> BoxFuture<'a, Result<Items, Fault>> {
        Box::pin(self.send_once(batch))
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.nodes.close();
        Box::pin(async {})
    }
}

/// Fails where an answer about a template says nothing of it: the server is asked again.
fn check_answered(answer: &Answer) -> Result<(), Fault> {
    if !matches!(answer.status, 401 | 408 | 429 | 500..) {
        return Ok(());
    }
    let fault = answer::verdict(answer.status, &answer.body, &[]).err();
    Err(fault.unwrap_or_else(|| Fault::new(FaultKind::Broken, "index template: no answer")))
}

/// Returns why nothing is sent: without a template that makes a data stream there would be a plain index.
fn no_stream(template: &IndexTemplate, status: u16, said: &str) -> Fault {
    let name = &template.name;
    match status {
        200..=299 => Fault::new(
            FaultKind::Broken,
            format_args!("index template {name} makes a plain index, and no data stream is there"),
        ),
        401 | 403 => Fault::new(
            FaultKind::Unauthorized,
            format_args!("http {status}: index template {name} may not be made, and no data stream is there: {said}"),
        ),
        _ => Fault::new(
            FaultKind::Broken,
            format_args!("http {status}: index template {name} cannot be made, and no data stream is there: {said}"),
        ),
    }
}

/// Puts the events that could not be sent back to their places among those that were.
fn with_refused(items: Items, refused: Vec<Option<Box<str>>>) -> Items {
    if refused.iter().all(Option::is_none) {
        return items;
    }
    let mut sent = match items {
        Items::All(outcome) => vec![outcome; refused.len()],
        Items::Each(outcomes) => outcomes,
    }
    .into_iter();
    let place = |refused: Option<Box<str>>| match refused {
        Some(reason) => Outcome::Rejected(reason),
        // There are as many as were sent: `answer` has counted them.
        None => sent.next().unwrap_or(Outcome::Retry),
    };
    Items::Each(refused.into_iter().map(place).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_events_keep_their_places() {
        let refused = || vec![None, Some("no".into()), None];
        let each = Items::Each(vec![Outcome::Duplicate, Outcome::Retry]);
        let expected = vec![Outcome::Duplicate, Outcome::Rejected("no".into()), Outcome::Retry];
        assert_eq!(with_refused(each, refused()), Items::Each(expected));
        let expected = vec![Outcome::Delivered, Outcome::Rejected("no".into()), Outcome::Delivered];
        assert_eq!(with_refused(Items::All(Outcome::Delivered), refused()), Items::Each(expected));
        assert_eq!(with_refused(Items::All(Outcome::Duplicate), vec![None]), Items::All(Outcome::Duplicate));
    }
}
