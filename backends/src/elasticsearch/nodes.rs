//! The seam to the servers: one function sends a request to one of the nodes. No other part of this backend speaks HTTP.
//!
//! Nodes are asked in turn. One that cannot be reached is passed over: the request goes to the next at once, and for
//! [`DOWN_FOR`] others are asked first. So is one that may not be connected to, which is logged once: only where no node may be
//! is that what the whole backend suffers from. One that takes a request and does not answer costs the attempt, which the
//! engine ends; then others are asked first, too. Once that time is over one request at a time tries the node again.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue};
use reqwest::{Method, Request, Url};
use spillway_delivery::backend::{Fault, FaultKind};
use tokio::time::Instant;

use super::settings::{ElasticsearchAuth, ElasticsearchSettings};
use crate::auth::{api_key_value, basic_value};
use crate::http_client::{Answer, AnswerLimits, HttpClient};
use crate::settings::Problem;
use crate::{BuildContext, BuildError};

/// How long a node that could not be reached, or did not answer, is asked last.
const DOWN_FOR: Duration = Duration::from_secs(30);

/// The nodes of one cluster.
#[derive(Debug)]
pub(super) struct Nodes {
    list: Vec<Node>,
    next: AtomicUsize,
    auth: Option<ElasticsearchAuth>,
    client: HttpClient,
}

#[derive(Debug)]
struct Node {
    url: Url,
    down_until: Mutex<Option<Instant>>,
    /// Whether it was logged that nothing may connect to it.
    is_told: AtomicBool,
}

/// What is asked of a node.
#[derive(Debug, Clone)]
pub(super) struct Ask<'a> {
    /// How.
    pub(super) method: Method,
    /// Path and query below a node's URL, without a slash in front.
    pub(super) path: &'a str,
    /// What the body is; without one when empty.
    pub(super) content_type: &'static str,
    /// Whether it is gzip.
    pub(super) gzip: bool,
    /// The body.
    pub(super) body: Bytes,
    /// How much of the answer is read.
    pub(super) limits: AnswerLimits,
}

impl Nodes {
    pub(super) fn try_new(settings: &ElasticsearchSettings, context: &BuildContext) -> Result<Self, BuildError> {
        let mut nodes = Vec::with_capacity(settings.urls.len());
        for (index, url) in settings.urls.iter().enumerate() {
            let url = Url::parse(&format!("{}/", url.trim_end_matches('/'))).map_err(|_| {
                let problem = Problem::new(format!("urls[{index}]"), "cannot be parsed", "an http or https URL");
                BuildError::Settings(vec![problem])
            })?;
            context.secrets.note_url(&url);
            nodes.push(Node { url, down_until: Mutex::default(), is_told: AtomicBool::new(false) });
        }
        let https = nodes.iter().any(|node| node.url.scheme() == "https");
        let (secrets, destinations) = (context.secrets.clone(), context.destinations.clone());
        let client = HttpClient::new(secrets, destinations, settings.tls.as_ref(), https);
        Ok(Self { list: nodes, next: AtomicUsize::new(0), auth: settings.auth.clone(), client })
    }

    /// Sends one request, once to each node at most, until one answers.
    ///
    /// # Cancel safety
    /// As [`HttpClient::execute`].
    pub(super) async fn send(&self, ask: Ask<'_>) -> Result<Answer, Fault> {
        let authorization = self.authorization()?;
        let (mut last, mut was_sent) = (None, false);
        for node in self.in_turn() {
            let request = node.request(&ask, authorization.as_ref())?;
            let attempt = Attempt::of(node);
            match self.client.execute(request, ask.limits).await {
                Err(fault) if matches!(fault.kind, FaultKind::Unreachable | FaultKind::Forbidden) => {
                    drop(attempt);
                    was_sent |= fault.may_be_there;
                    if fault.kind == FaultKind::Forbidden {
                        node.tell_once(&fault);
                    }
                    // Events wait for those that may be asked: they may come back.
                    if fault.kind == FaultKind::Unreachable || last.is_none() {
                        last = Some(fault);
                    }
                }
                Err(fault) if fault.kind == FaultKind::Timeout => return Err(fault),
                result => {
                    attempt.answered();
                    return result;
                }
            }
        }
        Err(last.unwrap_or_else(|| Fault::new(FaultKind::Local, "no node to ask")).maybe_there(was_sent))
    }

    /// Lets go of every idle connection.
    pub(super) fn close(&self) {
        self.client.close();
    }

    /// Returns `text` without the secrets that a server may have put into it, for what is logged.
    pub(super) fn redact(&self, text: &str) -> String {
        self.client.redact(text)
    }

    fn in_turn(&self) -> Vec<&Node> {
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let turn = (0..self.list.len()).map(|index| &self.list[first.wrapping_add(index) % self.list.len()]);
        let (down, up): (Vec<&Node>, Vec<&Node>) = turn.partition(|node| node.is_down());
        up.into_iter().chain(down).collect()
    }

    fn authorization(&self) -> Result<Option<HeaderValue>, Fault> {
        let Some(auth) = &self.auth else {
            return Ok(None);
        };
        let (text, reference) = if let Some(basic) = &auth.basic {
            let reference = &basic.password_secret_ref;
            (basic_value(&basic.username, self.client.secret(reference)?.reveal()), reference)
        } else if let Some(reference) = &auth.api_key_secret_ref {
            (api_key_value(self.client.secret(reference)?.reveal()), reference)
        } else {
            return Ok(None);
        };
        self.client.secret_value(text, reference).map(Some)
    }
}

/// A request to a node that was not answered yet. Dropped so, also because the engine waits no longer, the node is down.
struct Attempt<'a> {
    node: &'a Node,
    is_answered: bool,
}

impl<'a> Attempt<'a> {
    /// Begins one. A node that was down stays so until it answers, so that no second request waits for it meanwhile.
    fn of(node: &'a Node) -> Self {
        if node.was_down() {
            node.set_down(Some(Instant::now() + DOWN_FOR));
        }
        Self { node, is_answered: false }
    }

    fn answered(mut self) {
        self.is_answered = true;
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        let until = if self.is_answered { None } else { Some(Instant::now() + DOWN_FOR) };
        self.node.set_down(until);
    }
}

impl Node {
    /// Whether it did not answer when it was asked last.
    fn was_down(&self) -> bool {
        self.down_until.lock().unwrap_or_else(std::sync::PoisonError::into_inner).is_some()
    }

    fn is_down(&self) -> bool {
        let until = *self.down_until.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        until.is_some_and(|until| Instant::now() < until)
    }

    fn set_down(&self, until: Option<Instant>) {
        *self.down_until.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = until;
    }

    fn tell_once(&self, fault: &Fault) {
        if !self.is_told.swap(true, Ordering::Relaxed) {
            tracing::warn!(%fault, "a node is never asked");
        }
    }

    fn request(&self, ask: &Ask<'_>, authorization: Option<&HeaderValue>) -> Result<Request, Fault> {
        let url = self.url.join(ask.path).map_err(|_| Fault::new(FaultKind::Local, "the path of a request is none"))?;
        let mut request = Request::new(ask.method.clone(), url);
        let headers = request.headers_mut();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        if let Some(value) = authorization {
            headers.insert(AUTHORIZATION, value.clone());
        }
        if !ask.body.is_empty() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(ask.content_type));
            if ask.gzip {
                headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            }
            *request.body_mut() = Some(ask.body.clone().into());
        }
        Ok(request)
    }
}
