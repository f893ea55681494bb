//! A request becomes a submission, and what became of it an answer.
//!
//! # Expected flow
//! Everything that headers can say is looked at before the body is asked for (so a client that waits for
//! `100 Continue` sends nothing in vain): token, path, method, content type and encoding, key, pipeline. Then the body
//! is read, cut into events, and submitted; the answer waits for the intake.
//!
//! # Guarantees
//! `202` and `207` are answered only after the intake took the events.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode};
use spillway_delivery::clock::Clock;
use spillway_delivery::event::{Arenas, IdempotencyKey};
use xxhash_rust::xxh3::xxh3_128;

use super::Paths;
use super::answer::{self, Refused};
use super::body::{self, ReadBody, ReadError};
use super::decode::Coding;
use super::gate::Gate;
use super::limits::{BODIES_BYTES_MAX, Limit, SENDER_BODIES_BYTES_MAX};
use super::otlp;
use super::select::{select_open, select_route};
use super::shares::Shares;
use super::stats::HttpStats;
use crate::sources::pushed::budget::Budget;
use crate::sources::pushed::events::{self, Events, KEY_BYTES_MAX, RefusalCode};
use crate::sources::pushed::sender::Sender;
use crate::sources::pushed::targets::{Door, Selection, Submission, select};

/// Names the pipeline that takes a request's events.
const PIPELINE_HEADER: &str = "x-spillway-pipeline";

/// Names the route of that pipeline, in requests of sidecars.
const ROUTE_HEADER: &str = "x-spillway-route";

/// The client's promise to repeat a request with the same key.
const KEY_HEADER: &str = "idempotency-key";

/// Where events are taken.
const PATHS: [&str; 3] = ["/v1/events", "/v1/ingest/events", "/v1/ingest/events:batch"];

/// What every request needs.
pub(in crate::sources) struct Shared {
    pub(super) door: Box<dyn Door>,
    pub(super) clock: Clock,
    pub(in crate::sources) stats: Arc<HttpStats>,
    pub(in crate::sources) gate: Box<dyn Gate>,
    /// What each sender may have; `None` where all are one.
    pub(super) shares: Option<Arc<Shares>>,
    budget: Budget,
    arenas: Arenas,
}

impl Shared {
    /// Returns what requests through `door` need.
    pub(in crate::sources) fn new(
        door: Box<dyn Door>,
        clock: Clock,
        stats: Arc<HttpStats>,
        gate: impl Gate,
    ) -> Arc<Self> {
        Arc::new(Self {
            door,
            clock,
            stats,
            shares: gate.tells_apart().then(Arc::default),
            gate: Box::new(gate),
            budget: Budget::new(BODIES_BYTES_MAX, SENDER_BODIES_BYTES_MAX),
            arenas: Arenas::default(),
        })
    }
}

impl Shared {
    /// Returns empty memory with room for so many bytes.
    pub(super) fn arena(&self, bytes: usize) -> Vec<u8> {
        self.arenas.take(bytes)
    }

    /// Returns how many bytes of bodies may still be in memory.
    #[cfg(test)]
    pub(in crate::sources) fn free_bytes(&self) -> usize {
        self.budget.free_bytes()
    }
}

/// Returns the routes.
pub(super) fn router(shared: Arc<Shared>, paths: Paths) -> Router {
    let mut router = Router::new();
    for path in PATHS.into_iter().filter(|_| paths == Paths::All) {
        router = router.route(path, post(take));
    }
    for (path, signal) in otlp::PATHS {
        router = router.route(path, post(move |state, request| otlp::take(signal, state, request)));
    }
    router
        .fallback(move || async move { Refused::not_found(paths) })
        .method_not_allowed_fallback(async || Refused::method_not_allowed())
        .with_state(shared)
}

async fn take(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    // Whoever got here was let in.
    let Some(sender) = head.extensions.get::<Sender>() else { return Refused::unauthorized().into_response() };
    match taken(&shared, sender, &head.headers, body).await {
        Ok(response) => response,
        Err(refused) => refused.into_response(),
    }
}

async fn taken(shared: &Shared, sender: &Sender, headers: &HeaderMap, body: Body) -> Result<Response, Refused> {
    check_content_type(headers)?;
    let Given { body: mut read, selection, key } = given(shared, sender, headers, body).await?;
    if events::needs_copy(&read.bytes) {
        read.lease.grow(read.bytes.len()).await.map_err(|found| limited(shared, found.into()))?;
    }
    let ReadBody { bytes, mut lease } = read;
    let events = events::parse(bytes).map_err(|error| {
        if error == events::BodyError::TooManyEvents {
            shared.stats.limited(Limit::Events);
        }
        Refused::body(error)
    })?;
    lease.hold_events(events.ends.len()).await.map_err(|found| limited(shared, found.into()))?;
    let response = submit(shared, sender, selection, events, key).await;
    drop(lease);
    response
}

/// What the headers of a request ask for.
pub(in crate::sources) struct Asked {
    selection: Selection,
    key: Option<Bytes>,
}

/// What a request gives: its body, whom it is for, and its key.
pub(in crate::sources) struct Given {
    pub(in crate::sources) body: ReadBody,
    pub(in crate::sources) selection: Selection,
    pub(in crate::sources) key: Option<IdempotencyKey>,
}

/// Looks at what the headers say, and then reads the body.
pub(super) async fn given(shared: &Shared, sender: &Sender, headers: &HeaderMap, body: Body) -> Result<Given, Refused> {
    let coding = coding(headers)?;
    let asked = asked(shared, sender, headers)?;
    read(shared, sender, asked, (body, coding)).await
}

/// Looks at what headers say besides how the body is encoded.
pub(in crate::sources) fn asked(shared: &Shared, sender: &Sender, headers: &HeaderMap) -> Result<Asked, Refused> {
    let key = key(headers)?;
    Ok(Asked { selection: selection(shared, sender, headers)?, key })
}

/// Reads the body.
pub(in crate::sources) async fn read(
    shared: &Shared,
    sender: &Sender,
    Asked { selection, key }: Asked,
    (body, coding): (Body, Coding),
) -> Result<Given, Refused> {
    let memory = (shared.budget.lease(sender.bodies.clone()), &shared.arenas);
    let body = body::read(body, coding, memory, &shared.stats).await.map_err(|e| unread(shared, e))?;
    let body_hash = if key.is_some() { xxh3_128(&body.bytes) } else { 0 };
    let key = key.map(|key| IdempotencyKey { sender: sender.key.clone(), key, body_hash });
    Ok(Given { body, selection, key })
}

async fn submit(
    shared: &Shared,
    sender: &Sender,
    selection: Selection,
    events: Events,
    key: Option<IdempotencyKey>,
) -> Result<Response, Refused> {
    let Events { payload, ends, refusals } = events;
    for (code, count) in RefusalCode::ALL.into_iter().zip(refusals.counts) {
        shared.stats.refused(code, count as u64);
    }
    if ends.is_empty() {
        return if refusals.total() == 0 {
            Ok(answer::accepted(0, refusals))
        } else {
            Err(Refused::all_events(refusals))
        };
    }
    let events = keep(shared, sender, selection, (payload, ends), key).await?;
    Ok(answer::accepted(events, refusals))
}

/// Keeps events, and returns how many they are.
pub(in crate::sources) async fn keep(
    shared: &Shared,
    sender: &Sender,
    selection: Selection,
    (payload, ends): (Vec<u8>, Vec<u32>),
    key: Option<IdempotencyKey>,
) -> Result<u64, Refused> {
    let (events, bytes) = (ends.len() as u64, payload.len() as u64);
    let submission = Submission { payload: shared.arenas.seal(payload), ends, received: shared.clock.now(), key };
    shared.door.submit(sender, selection, submission).await.map_err(|error| Refused::submit(&error))?;
    shared.stats.accepted(events, bytes);
    if sender.is_unverified {
        shared.stats.unverified(events);
    }
    Ok(events)
}

/// Refuses what is clearly no JSON. What clients write there is otherwise not looked at: the bytes decide.
fn check_content_type(headers: &HeaderMap) -> Result<(), Refused> {
    const FOREIGN: [&str; 5] = ["multipart/", "image/", "audio/", "video/", "font/"];
    let Some(value) = headers.get(CONTENT_TYPE) else {
        return Ok(());
    };
    let value = String::from_utf8_lossy(value.as_bytes()).trim_start().to_ascii_lowercase();
    let Some(foreign) = FOREIGN.iter().find(|foreign| value.starts_with(**foreign)) else {
        return Ok(());
    };
    let message = format!("content type {foreign}… is not taken, send application/json or application/x-ndjson");
    Err(Refused::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message))
}

/// Returns the one encoding of the body; several on top of each other are refused.
fn coding(headers: &HeaderMap) -> Result<Coding, Refused> {
    let mut values = headers.get_all(CONTENT_ENCODING).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        let several = headers.contains_key(CONTENT_ENCODING);
        return if several { Err(Refused::encoding("several")) } else { Ok(Coding::Identity) };
    };
    let text = String::from_utf8_lossy(value.as_bytes());
    match text.trim().to_ascii_lowercase().as_str() {
        "" | "identity" => Ok(Coding::Identity),
        "gzip" | "x-gzip" => Ok(Coding::Gzip),
        "zstd" => Ok(Coding::Zstd),
        _ => Err(Refused::encoding(&text)),
    }
}

fn key(headers: &HeaderMap) -> Result<Option<Bytes>, Refused> {
    let mut values = headers.get_all(KEY_HEADER).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let key = value.as_bytes();
    let valid = (1..=KEY_BYTES_MAX).contains(&key.len()) && key.iter().all(u8::is_ascii_graphic);
    if !valid || values.next().is_some() {
        let message = format!("Idempotency-Key must be one value of 1 to {KEY_BYTES_MAX} visible ASCII characters");
        return Err(Refused::new(StatusCode::BAD_REQUEST, "invalid_key", message));
    }
    Ok(Some(Bytes::copy_from_slice(key)))
}

fn selection(shared: &Shared, sender: &Sender, headers: &HeaderMap) -> Result<Selection, Refused> {
    let text = |name| headers.get(name).map(|value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()));
    let (wanted, names) = (text(PIPELINE_HEADER), shared.door.names(sender));
    if let Some(route) = text(ROUTE_HEADER).filter(|_| sender.pod.is_some()) {
        return select_route(&names, sender, wanted.as_deref(), &route)
            .inspect_err(|refused| shared.stats.turned_back(refused.code()));
    }
    if sender.is_unverified {
        return select_open(&names, wanted.as_deref()).inspect_err(|refused| shared.stats.turned_back(refused.code()));
    }
    select(&names, wanted.as_deref()).map_err(Refused::not_selected)
}

/// Says what became of a body that was not read.
pub(in crate::sources) fn unread(shared: &Shared, error: ReadError) -> Refused {
    match error {
        ReadError::Limit(limit) => limited(shared, limit),
        ReadError::Corrupt(why) => Refused::new(StatusCode::BAD_REQUEST, "malformed_encoding", why),
        ReadError::Broken(why) => Refused::new(StatusCode::BAD_REQUEST, "broken_body", why),
    }
}

/// Counts a limit that was run into.
pub(in crate::sources) fn limited(shared: &Shared, limit: Limit) -> Refused {
    shared.stats.limited(limit);
    Refused::limit(limit)
}
