//! One ask and its answer.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum_server::ConnectionShutdown;
use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, VARY};
use http::{HeaderMap, HeaderValue, StatusCode, Version};
use spillway_crds::served::{ASK_BYTES_MAX, Ask, LEADER, PATH, PROTOCOL, SIDECAR_ASK_BYTES_MAX, WAIT_SECONDS_MAX};
use spillway_delivery::clock::Clock;
use spillway_tokens::{Identity, Verifier};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinError;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::body::{Bodies, ERROR_CHARS_MAX};
use super::certificates::now;
use super::doorman::Place;
use super::encode::{Coding, EncodeError};
use super::limits::{
    BODIES_BYTES_MAX, BODY_TIMEOUT, ENCODED_IN_PLACE_BYTES_MAX, ENCODERS_MAX, POLLS_MAX, SIDECAR_BODIES_BYTES_MAX,
    SIDECAR_CONNECTIONS_MAX, SIDECAR_POLLS_MAX, TOLD_EVERY,
};
use super::polls::Polls;
use super::problem::Problem;
use super::stats::Stats;
use crate::hub::{Hub, News, NotLeading};
use crate::place;

/// An answer with nothing in it.
const NOTHING: &[u8] = b"{}";

/// What all requests share.
#[derive(Debug)]
pub(super) struct Shared {
    hub: Arc<Hub>,
    leader: watch::Receiver<Option<SocketAddr>>,
    verifier: Verifier,
    stats: Stats,
    clock: Clock,
    stop: CancellationToken,
    pub(super) polls: Polls,
    /// Room for the asks of agents of nodes, and for those of sidecars.
    bodies: Bodies,
    of_sidecars: Bodies,
    pub(super) encoders: Semaphore,
    told: Mutex<BTreeMap<&'static str, Told>>,
}

/// When refusals of a reason were logged last, and how many were not since.
#[derive(Debug)]
struct Told {
    at: Instant,
    untold: u64,
}

/// Returns the routes.
pub(super) fn router(shared: Arc<Shared>) -> Router {
    let asks = post(ask).fallback(|| async {
        Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method", "asked by POST").with(ALLOW, "POST")
    });
    let nothing = || async { Problem::new(StatusCode::NOT_FOUND, "path", format!("asked at POST {PATH}")) };
    Router::new().route(PATH, asks).fallback(nothing).with_state(shared)
}

async fn ask(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let connection = request.extensions().get::<ConnectionShutdown>().cloned();
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0);
    let version = request.version();
    let problem = match shared.answer(request).await {
        Ok(response) => return response,
        Err(problem) => problem,
    };
    shared.tell(&problem, peer);
    let closes = problem.closes;
    let leader = (*shared.leader.borrow()).filter(|_| problem.status == StatusCode::MISDIRECTED_REQUEST);
    let mut response = problem.into_response();
    if let Some(leader) = leader.and_then(|leader| HeaderValue::try_from(leader.to_string()).ok()) {
        response.headers_mut().insert(LEADER, leader);
    }
    if closes && version < Version::HTTP_2 {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    } else if let Some(connection) = connection.filter(|_| closes) {
        connection.graceful_shutdown();
    }
    response
}

impl Shared {
    pub(super) fn new(
        (hub, leader): (Arc<Hub>, watch::Receiver<Option<SocketAddr>>),
        verifier: Verifier,
        stats: Stats,
        clock: Clock,
        stop: CancellationToken,
    ) -> Self {
        Self {
            hub,
            leader,
            verifier,
            stats,
            clock,
            stop,
            polls: Polls::default(),
            bodies: Bodies::new(BODIES_BYTES_MAX),
            of_sidecars: Bodies::new(SIDECAR_BODIES_BYTES_MAX),
            encoders: Semaphore::new(ENCODERS_MAX),
            told: Mutex::default(),
        }
    }

    async fn answer(&self, request: Request) -> Result<Response, Problem> {
        // Who follows knows neither pods nor keys for sure, and says so before it judges.
        self.hub.epoch().ok_or(NotLeading)?;
        if !self.hub.has_published() {
            return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "starting", "the cluster is being read").retry());
        }
        let (identity, place) = self.identity(request.headers())?;
        let connection = request.extensions().get::<Place>();
        let is_sidecar = place::is_pod(&place);
        if is_sidecar && connection.is_some_and(|connection| !connection.enter_as_sidecar(&identity.pod_uid)) {
            let detail = format!("{SIDECAR_CONNECTIONS_MAX} connections of sidecars are open already");
            return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "sidecars", detail).retry().closing());
        }
        let coding = Coding::taken(request.headers());
        let (bodies, bytes_max) =
            if is_sidecar { (&self.of_sidecars, SIDECAR_ASK_BYTES_MAX) } else { (&self.bodies, ASK_BYTES_MAX) };
        let ask = parse(&bodies.read(request, bytes_max, BODY_TIMEOUT).await?)?;
        self.hub.acknowledge(&identity.pod_uid, &ask, now(&self.clock))?;
        match self.wait((&identity, &place), &ask).await? {
            Some(news) => self.send(news, coding).await,
            None => {
                self.stats.answered("nothing");
                Ok(response(Bytes::from_static(NOTHING), Coding::Identity))
            }
        }
    }

    /// Returns who asks and its place, where it is the pod of a live agent.
    fn identity(&self, headers: &HeaderMap) -> Result<(Identity, Arc<str>), Problem> {
        let identity = self.verifier.verify(headers, now(&self.clock))?;
        match self.hub.place_of(&identity.pod_uid) {
            Some(found) if *found == *identity.node => Ok((identity, found)),
            Some(found) if *found == *place::of_pod(&identity.namespace, &identity.pod) => Ok((identity, found)),
            Some(_) => Err(identity.refused("it is on another node").into()),
            None => Err(identity.refused("no agent is known there: it has ended, or has no sidecar of ours").into()),
        }
    }

    /// Returns what is new to who asks, or nothing where nothing is within the time it gives or the process stops.
    async fn wait(&self, (identity, place): (&Identity, &str), ask: &Ask) -> Result<Option<News>, Problem> {
        let is_sidecar = place::is_pod(place);
        let Some(poll) = self.polls.enter(&identity.pod_uid, is_sidecar) else {
            let most = if is_sidecar { SIDECAR_POLLS_MAX } else { POLLS_MAX };
            let detail = format!("{most} asks wait already");
            return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "polls", detail).retry());
        };
        let _counted = Counted::new(&self.stats);
        let time = Duration::from_secs(ask.wait_seconds.min(WAIT_SECONDS_MAX).into());
        tokio::select! {
            biased;
            () = poll.superseded() => {
                let detail = "a newer ask of the same pod has come";
                Err(Problem::new(StatusCode::CONFLICT, "superseded", detail).retry())
            }
            news = self.hub.wait_for_news(place, ask) => Ok(Some(news?)),
            () = self.stop.cancelled() => Ok(None),
            () = sleep(time) => Ok(None),
        }
    }

    async fn send(&self, news: News, coding: Coding) -> Result<Response, Problem> {
        let failed = |detail| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "encoding", detail).retry();
        let encoded = if news.bytes_about() <= ENCODED_IN_PLACE_BYTES_MAX {
            coding.encode(&news)
        } else {
            self.encode_apart(news, coding).await.map_err(|error| failed(error.to_string()))?
        };
        let bytes = encoded.map_err(|error| failed(error.to_string()))?;
        self.stats.answered("news");
        self.stats.answer_bytes.inc_by(bytes.len() as u64);
        Ok(response(bytes, coding))
    }

    /// Encodes in a thread of its own what takes too long for one that drives connections.
    async fn encode_apart(&self, news: News, coding: Coding) -> Result<Result<Bytes, EncodeError>, JoinError> {
        let _turn = self.encoders.acquire().await;
        tokio::task::spawn_blocking(move || coding.encode(&news)).await
    }

    /// Counts a problem, and logs one of each reason in [`TOLD_EVERY`].
    fn tell(&self, problem: &Problem, peer: Option<SocketAddr>) {
        let Problem { reason, detail, .. } = problem;
        self.stats.refused(reason);
        let now = Instant::now();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let untold = match told.get_mut(reason) {
            Some(before) if now.duration_since(before.at) < TOLD_EVERY => {
                before.untold += 1;
                return;
            }
            Some(before) => before.untold,
            None => 0,
        };
        told.insert(reason, Told { at: now, untold: 0 });
        drop(told);
        let peer = peer.map(tracing::field::display);
        match problem.status {
            StatusCode::MISDIRECTED_REQUEST | StatusCode::CONFLICT => {
                tracing::debug!(reason, detail, peer, untold, "a request of an agent is not answered");
            }
            _ => tracing::warn!(reason, detail, peer, untold, "a request of an agent is refused"),
        }
    }
}

/// One ask that waits, as a figure.
struct Counted<'a>(&'a Stats);

impl<'a> Counted<'a> {
    fn new(stats: &'a Stats) -> Self {
        stats.waiting.inc();
        Self(stats)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.waiting.dec();
    }
}

/// What an ask of any protocol has.
#[derive(serde::Deserialize)]
struct AnyAsk {
    protocol: u32,
}

fn parse(body: &[u8]) -> Result<Ask, Problem> {
    let spoken = |protocol| match protocol {
        PROTOCOL => Ok(()),
        other => {
            let detail = format!("protocol {other} is not spoken here, but {PROTOCOL} is");
            Err(Problem::new(StatusCode::BAD_REQUEST, "protocol", detail))
        }
    };
    let ask: Ask = serde_json::from_slice(body).map_err(|error| {
        // In another protocol it may have another form.
        if let Some(problem) = serde_json::from_slice(body).ok().and_then(|AnyAsk { protocol }| spoken(protocol).err())
        {
            return problem;
        }
        // The error of a wrong type shows the value, however long that is.
        let error: String = error.to_string().chars().take(ERROR_CHARS_MAX).collect();
        Problem::new(StatusCode::BAD_REQUEST, "json", format!("not an ask: {error}"))
    })?;
    spoken(ask.protocol).map(|()| ask)
}

fn response(bytes: Bytes, coding: Coding) -> Response {
    let mut response = Response::new(Body::from(bytes));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    if coding == Coding::Gzip {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}
