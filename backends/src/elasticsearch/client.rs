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
use super::encode::{Bulk, Encoder, LeftOut};
use super::mapping::{Found, IndexTemplate};
use super::nodes::{Ask, Nodes};
use super::settings::{ElasticsearchCompression, ElasticsearchSettings, GRAMMAR};
use super::streams::{self, REQUIRED, Streams, Why};
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

/// What is asked and answered but for bulk requests.
pub(super) const JSON: &str = "application/json";
const NDJSON: &str = "application/x-ndjson";

/// Creates documents, each event once.
pub struct Elasticsearch {
    nodes: Nodes,
    encoder: Encoder,
    gzip: bool,
    template: Option<IndexTemplate>,
    /// Set where events go to data streams.
    streams: Option<Streams>,
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
            encoder: Encoder::new(Renderer::new(&index, &GRAMMAR), context.metadata).listing(settings.data_stream),
            gzip: settings.compression == ElasticsearchCompression::Gzip,
            template: template.flatten(),
            streams: settings.data_stream.then(Streams::default),
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
            return Ok(with_left_out(Items::All(Outcome::Delivered), bulk.left_out));
        }
        // Nothing of the batch is sent before that.
        let refusal = self.prepare().await.map_err(|fault| fault.maybe_there(false))?;
        if let Some(streams) = &self.streams {
            return self.send_to_streams(streams, batch, bulk, refusal).await;
        }
        let answer = self.post(&mut bulk, BULK_PATH.into()).await?;
        let verdict = self.verdict(&answer, &bulk)?;
        Ok(self.told(verdict, bulk.left_out))
    }

    /// Sends so that nothing goes to a plain index; says exactly why where that leaves nothing to send.
    async fn send_to_streams(
        &self,
        streams: &Streams,
        batch: &OutBatch,
        mut bulk: Bulk,
        refusal: Option<Refusal>,
    ) -> Result<Items, Fault> {
        let mut answer = None;
        if streams.is_held_by_server() {
            let held = self.post(&mut bulk, format!("{BULK_PATH}&{REQUIRED}=true")).await?;
            if streams.is_left_to_us(&held) {
                bulk = self.encoder.bulk(batch, &self.bodies);
            } else {
                answer = Some(held);
            }
        }
        let answer = match answer {
            Some(answer) => answer,
            None => {
                let unproven = streams.unproven(&bulk.indices, &self.nodes).await;
                let unproven = unproven.map_err(|fault| fault.maybe_there(false))?;
                if let Some((index, why)) = unproven.first_key_value() {
                    if self.encoder.has_one_index() {
                        return Err(no_stream(index, why, refusal.as_ref()));
                    }
                    self.tell_waiting(Some(format!("no data stream: {index} {why}")));
                    bulk = self.encoder.bulk_without(batch, &self.bodies, |index| unproven.contains_key(index));
                    if bulk.ids.is_empty() {
                        return Ok(with_left_out(Items::All(Outcome::Delivered), bulk.left_out));
                    }
                }
                self.post(&mut bulk, BULK_PATH.into()).await?
            }
        };
        let verdict = self.verdict(&answer, &bulk)?;
        if verdict.has_no_stream && self.encoder.has_one_index() {
            let index = bulk.indices.first().map_or("", String::as_str);
            let why = streams::why(index, &self.nodes, &mut None).await?.unwrap_or(Why::Missing);
            return Err(no_stream(index, &why, refusal.as_ref()));
        }
        if !verdict.has_no_stream {
            self.goes_without(refusal);
        }
        Ok(self.told(verdict, bulk.left_out))
    }

    async fn post(&self, bulk: &mut Bulk, path: String) -> Result<Answer, Fault> {
        let limits = AnswerLimits { body_bytes_max: answer::bytes_max(bulk), body_timeout: BODY_TIMEOUT };
        let body = std::mem::take(&mut bulk.body);
        let body = if self.gzip { compress(body, Compression::Gzip).await?.into() } else { self.bodies.seal(body) };
        let (method, path, content_type, gzip) = (Method::POST, &*path, NDJSON, self.gzip);
        self.nodes.send(Ask { method, path, content_type, gzip, body, limits }).await
    }

    fn told(&self, verdict: Verdict, left_out: Vec<Option<LeftOut>>) -> Items {
        self.tell_waiting(verdict.waiting);
        with_left_out(verdict.items, left_out)
    }

    fn verdict(&self, answer: &Answer, bulk: &Bulk) -> Result<Verdict, Fault> {
        if !answer.whole && (200..300).contains(&answer.status) {
            // The items that would be found are a part: a smaller request has a smaller answer.
            let kind = if bulk.ids.len() > 1 { FaultKind::TooLarge } else { FaultKind::Broken };
            return Err(Fault::new(kind, "answer is too long or too slow").maybe_there(true));
        }
        let mut verdict = answer::verdict(answer.status, &answer.body, &bulk.ids);
        if let Err(fault) = &mut verdict
            && fault.kind == FaultKind::Throttled
        {
            fault.retry_after = answer.header(RETRY_AFTER).and_then(|text| parse_retry_after(text, self.clock.now()));
        }
        verdict
    }

    /// Makes sure of the index template before the first document, so that no index is made without it. Where it cannot be
    /// made that is one warning; but for data streams it is asked for again until they are seen to be there without it.
    async fn prepare(&self) -> Result<Option<Refusal>, Fault> {
        let Some(template) = &self.template else { return Ok(None) };
        let prepared = self.template_done.get_or_try_init(|| async {
            match self.ensure(template).await? {
                Some(refusal) if self.streams.is_some() => Err(Unready::Refused(refusal)),
                refusal => {
                    self.tell_refusal(refusal);
                    Ok(())
                }
            }
        });
        match prepared.await {
            Ok(()) => Ok(None),
            Err(Unready::Refused(refusal)) => Ok(Some(refusal)),
            Err(Unready::Fault(fault)) => Err(fault),
        }
    }

    /// Data streams are there without a template of ours: from now on none is asked for.
    fn goes_without(&self, refusal: Option<Refusal>) {
        if refusal.is_some() && self.template_done.set(()).is_ok() {
            self.tell_refusal(refusal);
        }
    }

    /// Makes the index template, unless one is there that fits; returns why there is none.
    async fn ensure(&self, template: &IndexTemplate) -> Result<Option<Refusal>, Fault> {
        let (method, path, limits) = (Method::GET, &*template.path(), TEMPLATE_ANSWER);
        let ask = Ask { method, path, content_type: JSON, gzip: false, body: Bytes::new(), limits };
        let there = self.nodes.send(ask.clone()).await?;
        let (status, name) = (there.status, &template.name);
        match (status, template.found(&there.body)) {
            (200, Found::Fitting) => Ok(None),
            (200, Found::Plain) => {
                let text = format!("index template {name} makes plain indices");
                Ok(Some(Refusal { status, text }))
            }
            (200 | 404, _) => self.make(template, ask, there.header("x-elastic-product").is_some()).await,
            _ => self.refused(template, &there).map(Some),
        }
    }

    /// Makes the index template. What a field of any keys is called is the one difference between the products that matters:
    /// where the header is not there, which a proxy may have taken out, the answer tells.
    async fn make(
        &self,
        template: &IndexTemplate,
        ask: Ask<'_>,
        is_elasticsearch: bool,
    ) -> Result<Option<Refusal>, Fault> {
        let mut names = ["flattened", "flat_object"];
        if !is_elasticsearch {
            names.reverse();
        }
        for (tried, flattened) in names.iter().enumerate() {
            let body = template.body(flattened).into();
            let made = self.nodes.send(Ask { method: Method::PUT, body, ..ask.clone() }).await?;
            if (200..300).contains(&made.status) {
                tracing::info!(template = template.name, backend = %self.name.backend, "index template made");
                return Ok(None);
            }
            let is_unknown = made.status == 400 && memchr::memmem::find(&made.body, flattened.as_bytes()).is_some();
            if tried + 1 == names.len() || !is_unknown {
                return self.refused(template, &made).map(Some);
            }
        }
        Ok(None)
    }

    fn refused(&self, template: &IndexTemplate, answer: &Answer) -> Result<Refusal, Fault> {
        check_answered(answer)?;
        let (status, said) = (answer.status, answer::server_error(&answer.body).unwrap_or_default());
        let said = self.nodes.redact(&said);
        let text = format!("index template {} cannot be made: http {status}: {said}", template.name);
        Ok(Refusal { status, text })
    }

    fn tell_refusal(&self, refusal: Option<Refusal>) {
        if let Some(Refusal { text, .. }) = refusal {
            tracing::warn!(backend = %self.name.backend, error = text, "the server's own mapping is used");
        }
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

/// Why there is no index template of ours.
#[derive(Debug)]
struct Refusal {
    status: u16,
    text: String,
}

/// Why nothing is known of the index template for good.
enum Unready {
    Refused(Refusal),
    Fault(Fault),
}

impl From<Fault> for Unready {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// Fails where an answer says nothing of what was asked: the server is asked again.
pub(super) fn check_answered(answer: &Answer) -> Result<(), Fault> {
    if !matches!(answer.status, 401 | 408 | 429 | 500..) {
        return Ok(());
    }
    let fault = answer::verdict(answer.status, &answer.body, &[]).err();
    Err(fault.unwrap_or_else(|| Fault::new(FaultKind::Broken, "no answer of use")))
}

/// Returns why nothing is sent: there would be a plain index in place of a data stream.
fn no_stream(index: &str, why: &Why, refusal: Option<&Refusal>) -> Fault {
    let status = match (why, refusal) {
        (_, Some(refusal)) => refusal.status,
        (Why::Unread(status), None) => *status,
        _ => 0,
    };
    let kind = if matches!(status, 401 | 403) { FaultKind::Unauthorized } else { FaultKind::Broken };
    let fault = match refusal {
        None => Fault::new(kind, format_args!("no data stream: {index} {why}")),
        Some(refusal) => Fault::new(kind, format_args!("no data stream: {index} {why}; {}", refusal.text)),
    };
    fault.maybe_there(false)
}

/// Puts the events that were not sent back to their places among those that were.
fn with_left_out(items: Items, left_out: Vec<Option<LeftOut>>) -> Items {
    if left_out.iter().all(Option::is_none) {
        return items;
    }
    let mut sent = match items {
        Items::All(outcome) => vec![outcome; left_out.len()],
        Items::Each(outcomes) => outcomes,
    }
    .into_iter();
    let place = |left_out: Option<LeftOut>| match left_out {
        Some(LeftOut::Refused(reason)) => Outcome::Rejected(reason),
        Some(LeftOut::Waits) => Outcome::Retry,
        // There are as many as were sent: `answer` has counted them.
        None => sent.next().unwrap_or(Outcome::Retry),
    };
    Items::Each(left_out.into_iter().map(place).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_that_were_left_out_keep_their_places() {
        let left_out = || vec![None, Some(LeftOut::Refused("no".into())), None, Some(LeftOut::Waits)];
        let each = Items::Each(vec![Outcome::Duplicate, Outcome::Retry]);
        let expected = vec![Outcome::Duplicate, Outcome::Rejected("no".into()), Outcome::Retry, Outcome::Retry];
        assert_eq!(with_left_out(each, left_out()), Items::Each(expected));
        let expected = vec![Outcome::Delivered, Outcome::Rejected("no".into()), Outcome::Delivered, Outcome::Retry];
        assert_eq!(with_left_out(Items::All(Outcome::Delivered), left_out()), Items::Each(expected));
        assert_eq!(with_left_out(Items::All(Outcome::Duplicate), vec![None]), Items::All(Outcome::Duplicate));
    }
}
