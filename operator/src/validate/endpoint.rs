//! The webhook's own endpoint: a review in, its verdict out, over TLS; reviews of our kinds at one path, of pods at another.
//!
//! # Guarantees
//! Whoever can reach it costs at most the bounds below and learns nothing: requests are not authenticated, because an API
//! server shows no credentials by default. Who comes from one address leaves the others their share; an API server whose address is
//! hidden behind that of a hostile pod is held up with it.
//!
//! # Limits
//! [`CONNECTIONS_MAX`] connections, [`ADDRESS_CONNECTIONS_MAX`] from one address, none idle for longer than
//! [`IDLE_MAX`](crate::serve::limits::IDLE_MAX); bodies of [`REVIEW_BYTES_MAX`] within [`BODY_TIMEOUT`], [`BODIES_BYTES_MAX`] of all and
//! [`ADDRESS_BODIES_BYTES_MAX`] from one address in memory at a time; [`REVIEWS_MAX`] reviews judged at a time; one that finds no
//! turn within [`TURN_TIMEOUT`] is answered `503`, on which an API server fails open.

use std::io;
use std::net::TcpListener;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, StatusCode};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::{Known, Verdict, review};
use crate::mutate::{self, Sidecars};
use crate::review::{REVIEW_BYTES_MAX, ReviewError};
use crate::serve::body::{Bodies, ERROR_CHARS_MAX};
use crate::serve::doorman::Doorman;
use crate::serve::expires::Expires;
use crate::serve::listen;
use crate::serve::mounted::Mounted;
use crate::serve::problem::Problem;
use crate::serve::stats::Connections;

/// Where reviews are posted.
pub const PATH: &str = "/validate";

/// Where reviews of pods are posted.
pub const PODS_PATH: &str = "/mutate";

/// Most connections at a time: those of a few API servers, and room.
pub const CONNECTIONS_MAX: usize = 256;

/// Most of them from one address: one API server opens one, and another while that one ends.
pub const ADDRESS_CONNECTIONS_MAX: usize = 32;

/// Most bytes of reviews in memory at a time: a quarter of what the chart limits the process to.
pub const BODIES_BYTES_MAX: usize = 32 << 20;

/// Most bytes of them from one address: two reviews as large as can be, or hundreds of usual ones.
pub const ADDRESS_BODIES_BYTES_MAX: usize = 8 << 20;

/// How long the body of a review may take: an API server has it whole when it asks, and in our chart waits no longer.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(3);

/// Most reviews that are judged at a time.
pub const REVIEWS_MAX: usize = 4;

/// How long a review may wait for its turn; the API server waits ten seconds by default, and three in our chart.
pub const TURN_TIMEOUT: Duration = Duration::from_secs(2);

/// What references are looked up in, replaceable while reviews are judged.
#[derive(Debug, Default)]
pub struct Lookup(RwLock<Option<Arc<Known>>>);

impl Lookup {
    /// Changes what is known; nothing where it is not known yet.
    pub fn change(&self, change: impl FnOnce(&mut Known)) {
        if let Some(known) = &mut *self.0.write().unwrap_or_else(PoisonError::into_inner) {
            // A review under way goes on with what was known when it began.
            change(Arc::make_mut(known));
        }
    }

    /// Takes what is known now; `None` where that is not known yet, and references are not judged.
    pub fn replace(&self, known: Option<Known>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = known.map(Arc::new);
    }

    pub(crate) fn known(&self) -> Option<Arc<Known>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The figures of the webhook. A clone counts into the same.
#[derive(Debug, Clone)]
pub struct Stats {
    reviews: Family<[(&'static str, &'static str); 1], Counter>,
    pods: Family<[(&'static str, &'static str); 1], Counter>,
    refusals: Family<[(&'static str, &'static str); 1], Counter>,
    seconds: Histogram,
    connections: Connections,
    /// When the certificate that is shown is over.
    pub expires: Expires,
}

impl Default for Stats {
    fn default() -> Self {
        let seconds = Histogram::new(exponential_buckets(0.000_25, 4.0, 8));
        let [reviews, pods, refusals] = Default::default();
        Self { reviews, pods, refusals, seconds, connections: Connections::default(), expires: Expires::default() }
    }
}

impl Stats {
    /// Registers all of it in a registry whose prefix is `spillway_operator`.
    pub fn register(&self, registry: &mut Registry) {
        let Self { reviews, pods, refusals, seconds, connections, expires } = self.clone();
        registry.register_collector(Box::new(expires));
        registry.register("webhook_reviews", "Reviews of our own kinds, by verdict.", reviews);
        registry.register("webhook_pods", "Reviews of pods, by what became of the pod.", pods);
        registry.register("webhook_refusals", "Reviews that were not judged, by reason.", refusals);
        registry.register("webhook_review_seconds", "How long a review took, its turn included.", seconds);
        connections.register(
            registry,
            ("webhook_connections", "Open connections of API servers."),
            ("webhook_connections_turned_away", "Connections for which there was no place."),
            ("webhook_connections_ended", "Connections that were ended here, by reason."),
        );
    }

    fn counted(&self, verdict: &'static str) {
        self.reviews.get_or_create(&[("verdict", verdict)]).inc();
    }

    fn counted_pod(&self, reason: &'static str) {
        self.pods.get_or_create(&[("reason", reason)]).inc();
    }

    /// Counts a review that is not judged.
    fn refused(&self, reason: &'static str) {
        self.refusals.get_or_create(&[("reason", reason)]).inc();
    }

    /// Returns how many reviews were not judged for this reason.
    #[cfg(test)]
    pub(super) fn refusals(&self, reason: &'static str) -> u64 {
        self.refusals.get_or_create(&[("reason", reason)]).get()
    }

    /// Returns how many reviews of pods ended so.
    #[cfg(test)]
    pub(crate) fn pods(&self, reason: &'static str) -> u64 {
        self.pods.get_or_create(&[("reason", reason)]).get()
    }

    /// Returns how many reviews had this verdict.
    #[cfg(test)]
    pub(super) fn verdicts(&self, verdict: &'static str) -> u64 {
        self.reviews.get_or_create(&[("verdict", verdict)]).get()
    }
}

/// What the webhook is made of.
#[derive(Debug)]
pub struct Webhook {
    /// What references are looked up in.
    pub lookup: Arc<Lookup>,
    /// What sidecars are made of; without it no pod is looked at.
    pub sidecars: Option<Arc<Sidecars>>,
    /// What is shown to who connects.
    pub certificates: Arc<Mounted>,
    /// What is counted.
    pub stats: Stats,
}

impl Webhook {
    /// Serves on `socket` and keeps the certificate fresh until `stop`; requests under way are answered first.
    pub async fn run(self, socket: TcpListener, stop: CancellationToken) -> io::Result<()> {
        let Self { lookup, sidecars, certificates, stats } = self;
        let doorman = Doorman::new(CONNECTIONS_MAX, &stats.connections)
            .with_at_most(ADDRESS_CONNECTIONS_MAX, ADDRESS_BODIES_BYTES_MAX);
        listen::serve(socket, &*certificates, doorman, router(lookup, sidecars, stats), stop).await
    }
}

#[derive(Debug)]
struct Shared {
    lookup: Arc<Lookup>,
    sidecars: Option<Arc<Sidecars>>,
    stats: Stats,
    bodies: Bodies,
    turns: Arc<Semaphore>,
}

/// Returns the routes.
pub(crate) fn router(lookup: Arc<Lookup>, sidecars: Option<Arc<Sidecars>>, stats: Stats) -> Router {
    let posted =
        || async { Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method", "reviews are posted").with(ALLOW, "POST") };
    let nothing = || async { Problem::new(StatusCode::NOT_FOUND, "path", format!("reviews are posted to {PATH}")) };
    let has_sidecars = sidecars.is_some();
    let (bodies, turns) = (Bodies::new(BODIES_BYTES_MAX), Arc::new(Semaphore::new(REVIEWS_MAX)));
    let shared = Shared { lookup, sidecars, stats, bodies, turns };
    let mut router = Router::new().route(PATH, post(validate).fallback(posted));
    if has_sidecars {
        router = router.route(PODS_PATH, post(mutate).fallback(posted));
    }
    router.fallback(nothing).with_state(Arc::new(shared))
}

async fn validate(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let began = Instant::now();
    let answer = shared.answer(request).await;
    shared.stats.seconds.observe(began.elapsed().as_secs_f64());
    answer.unwrap_or_else(|problem| {
        shared.stats.counted("not-judged");
        shared.told(problem)
    })
}

async fn mutate(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let began = Instant::now();
    let answer = shared.answer_pod(request).await;
    shared.stats.seconds.observe(began.elapsed().as_secs_f64());
    answer.unwrap_or_else(|problem| {
        shared.stats.counted_pod("not-judged");
        shared.told(problem)
    })
}

impl Shared {
    fn told(&self, problem: Problem) -> Response {
        self.stats.refused(problem.reason);
        tracing::warn!(reason = problem.reason, detail = problem.detail, "a review is not judged");
        problem.into_response()
    }

    async fn answer(&self, request: Request) -> Result<Response, Problem> {
        let reviewed = self.judged(request, review).await?;
        let Verdict { allowed, warnings, .. } = &reviewed.response;
        self.stats.counted(match (allowed, warnings.is_empty()) {
            (true, true) => "allowed",
            (true, false) => "allowed-with-warnings",
            (false, _) => "denied",
        });
        Ok(answered(&reviewed))
    }

    async fn answer_pod(&self, request: Request) -> Result<Response, Problem> {
        let nothing = || Problem::new(StatusCode::NOT_FOUND, "path", "no sidecars are given here");
        let injector = self.sidecars.as_ref().ok_or_else(nothing)?.injector();
        let (answer, reason) =
            self.judged(request, move |body, known| mutate::review(body, injector.as_deref(), known)).await?;
        self.stats.counted_pod(reason.as_str());
        Ok(answered(&answer))
    }

    /// Reads a review, waits for a turn and judges it.
    async fn judged<T: Send + 'static>(
        &self,
        request: Request,
        judge: impl FnOnce(&[u8], Option<&Known>) -> Result<T, ReviewError> + Send + 'static,
    ) -> Result<T, Problem> {
        let busy = || Problem::new(StatusCode::SERVICE_UNAVAILABLE, "busy", "too many reviews at a time").retry();
        let body = self.bodies.read(request, REVIEW_BYTES_MAX, BODY_TIMEOUT).await?;
        let turn = timeout(TURN_TIMEOUT, Arc::clone(&self.turns).acquire_owned()).await;
        let Ok(Ok(turn)) = turn else { return Err(busy()) };
        let known = self.lookup.known();
        let judging = tokio::task::spawn_blocking(move || {
            let judged = judge(&body, known.as_deref());
            drop(turn);
            judged
        });
        let failed = |_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "judging", "the review could not be judged");
        judging.await.map_err(failed)?.map_err(|error| {
            let detail = std::error::Error::source(&error).map_or_else(String::new, |why| format!(": {why}"));
            let detail: String = format!("{error}{detail}").chars().take(ERROR_CHARS_MAX).collect();
            Problem::new(StatusCode::BAD_REQUEST, "review", detail)
        })
    }
}

fn answered(review: &impl Serialize) -> Response {
    let mut response = Response::new(Body::from(serde_json::to_vec(review).unwrap_or_default()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
