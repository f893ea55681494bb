//! The part of the endpoint that begins and ends jobs: redrives and replays. Guarded as the dead letters are.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::post;
use axum::{Router, body::Bytes};
use serde::{Deserialize, Serialize};
use serde_json::json;
use spillway_delivery::deliver::Desk;
use spillway_delivery::deliver::dead_letters::Selection;
use spillway_delivery::deliver::jobs::{JobError, RedriveRequest, Redriven, ReplayRequest};

use super::answer;
use super::dead_letters::{desks, name, read, refuse};
use crate::dead_letters::LettersQuery;
use crate::overview::Overview;

/// Returns the paths.
pub(super) fn router() -> Router<Arc<Overview>> {
    Router::new()
        .route("/v1/dead-letters/redrive", post(redrive))
        .route("/v1/dead-letters/purge", post(purge))
        .route("/v1/replay", post(replay))
        .route("/v1/jobs/cancel", post(cancel))
}

/// A redrive over one pipeline, or over all.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct RedriveQuery {
    pub(crate) pipeline: Option<String>,
    pub(crate) selection: Selection,
    pub(crate) limit: Option<u64>,
    pub(crate) to: Option<String>,
}

/// A replay of one pipeline.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ReplayQuery {
    pipeline: String,
    route: String,
    from: String,
    to: String,
    backend: Option<String>,
    #[serde(default)]
    dry_run: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CancelQuery {
    id: String,
}

fn of_pipeline(pipeline: Option<String>, selection: Selection) -> LettersQuery {
    LettersQuery { pipeline, selection, ..LettersQuery::default() }
}

async fn redrive(State(overview): State<Arc<Overview>>, body: Bytes) -> Response {
    let query: RedriveQuery = match read(&body) {
        Ok(query) => query,
        Err(refusal) => return *refusal,
    };
    let RedriveQuery { pipeline, selection, limit, to } = query;
    let desks = match desks(&overview, &of_pipeline(pipeline, selection.clone())) {
        Ok(desks) => desks,
        Err(refusal) => return *refusal,
    };
    let (mut all, mut left, mut nothing) = (Redriven::default(), limit, None);
    for desk in desks {
        if left == Some(0) {
            break;
        }
        let request = RedriveRequest { selection: selection.clone(), limit: left, to: to.clone() };
        match desk.redrive(&request).await {
            Ok(Redriven { jobs, refused }) => {
                let taken: u64 = jobs.iter().map(|job| job.selected).sum();
                left = left.map(|left| left.saturating_sub(taken));
                all.jobs.extend(jobs);
                all.refused.extend(refused.into_iter().map(|text| format!("{}: {text}", name(&desk))));
            }
            Err(error @ JobError::Nothing(_)) => nothing = Some(error),
            Err(error) => return refused_with(&error),
        }
    }
    match nothing {
        Some(error) if all.jobs.is_empty() && all.refused.is_empty() => refused_with(&error),
        _ => answer(StatusCode::OK, &all),
    }
}

async fn purge(State(overview): State<Arc<Overview>>, body: Bytes) -> Response {
    let query: LettersQuery = match read(&body) {
        Ok(query) => query,
        Err(refusal) => return *refusal,
    };
    let desks = match desks(&overview, &query) {
        Ok(desks) => desks,
        Err(refusal) => return *refusal,
    };
    let mut purged = 0;
    for desk in desks {
        match desk.purge(&query.selection).await {
            Ok(letters) => purged += letters,
            Err(error) => return refused_with(&error),
        }
    }
    answer(StatusCode::OK, &json!({ "purged": purged }))
}

async fn replay(State(overview): State<Arc<Overview>>, body: Bytes) -> Response {
    let query: ReplayQuery = match read(&body) {
        Ok(query) => query,
        Err(refusal) => return *refusal,
    };
    let desk = match one(&overview, query.pipeline) {
        Ok(desk) => desk,
        Err(refusal) => return *refusal,
    };
    let ReplayQuery { route, from, to, backend, dry_run, .. } = query;
    match desk.replay(&ReplayRequest { route, from, to, backend, dry_run }).await {
        Ok(replayed) => answer(StatusCode::OK, &replayed),
        Err(error) => refused_with(&error),
    }
}

fn one(overview: &Overview, pipeline: String) -> Result<Arc<Desk>, Box<Response>> {
    let found = desks(overview, &of_pipeline(Some(pipeline), Selection::default()))?;
    found
        .into_iter()
        .next()
        .ok_or_else(|| Box::new(refuse(StatusCode::NOT_FOUND, "no-pipeline", "no such pipeline runs here")))
}

async fn cancel(State(overview): State<Arc<Overview>>, body: Bytes) -> Response {
    let query: CancelQuery = match read(&body) {
        Ok(query) => query,
        Err(refusal) => return *refusal,
    };
    for desk in overview.desks() {
        match desk.cancel(&query.id).await {
            Ok(true) => return answer(StatusCode::OK, &json!({ "cancelled": query.id })),
            Ok(false) => {}
            Err(error) => return refused_with(&error),
        }
    }
    refuse(StatusCode::NOT_FOUND, "no-job", "no such job runs; `jobs list` shows those that do")
}

fn refused_with(error: &JobError) -> Response {
    let (status, code) = match error {
        JobError::Request(_) => (StatusCode::BAD_REQUEST, "not-understood"),
        JobError::Nothing(_) => (StatusCode::NOT_FOUND, "nothing-there"),
        JobError::UnderWay(_) => (StatusCode::CONFLICT, "under-way"),
        JobError::Read(_) | JobError::Save(_) => (StatusCode::INTERNAL_SERVER_ERROR, "log"),
    };
    if status == StatusCode::INTERNAL_SERVER_ERROR {
        tracing::error!(error = %error, cause = ?std::error::Error::source(error), "job cannot be begun");
    }
    refuse(status, code, &error.to_string())
}
