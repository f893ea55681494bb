//! One batch into several logs, or into none.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use super::{Accepted, Pipeline, RefusalReason, SubmitError, mask};
use crate::event::Batch;
use crate::log::{KeyLookup, Pending, Refused, Reservation};

/// What a refused client is told to wait: long enough for a delivery to free a segment, short enough to stay live.
const RETRY_AFTER: Duration = Duration::from_secs(1);

struct Part {
    pipeline: Arc<Pipeline>,
    pending: Pending,
    reservation: Reservation,
}

pub(super) async fn submit(pipelines: &[Arc<Pipeline>], batch: Batch) -> Result<Accepted, SubmitError> {
    let events = batch.len() as u64;
    let mut wanting = Vec::with_capacity(pipelines.len());
    let mut claims = Vec::new();
    for pipeline in pipelines {
        if let Some(reason) = pipeline.closed() {
            return Err(refuse(pipeline, reason));
        }
        // Claims are taken in the order of the targets, which is the same for every request, so two never wait in a ring.
        let (lookup, claim) = match &batch.key {
            Some(key) => pipeline.log().claim_key(key).await,
            None => (KeyLookup::New, None),
        };
        claims.extend(claim);
        match lookup {
            KeyLookup::New => wanting.push(pipeline),
            KeyLookup::Same { .. } => {}
            KeyLookup::Conflict => return Err(SubmitError::KeyReused),
        }
    }
    if wanting.is_empty() {
        return Ok(Accepted { events, repeated: true });
    }
    let parts = reserve_all(&wanting, &batch)?;
    drop(batch);
    let results = join_all(parts.into_iter().map(append)).await;
    drop(claims);
    let failed: Vec<&(Arc<Pipeline>, Result<(), Refused>)> =
        results.iter().filter(|(_, result)| result.is_err()).collect();
    match failed.first() {
        None => Ok(Accepted { events, repeated: false }),
        Some((pipeline, Err(refused)))
            if failed.len() == results.len() && failed.iter().all(|(_, result)| never_kept(*result)) =>
        {
            Err(refuse(pipeline, refused.reason))
        }
        Some((pipeline, _)) => Err(SubmitError::Unknown { pipeline: pipeline.settings().name.clone() }),
    }
}

/// Reserves in every log before anything is appended to any.
fn reserve_all(pipelines: &[&Arc<Pipeline>], batch: &Batch) -> Result<Vec<Part>, SubmitError> {
    let mut parts = Vec::with_capacity(pipelines.len());
    for pipeline in pipelines {
        let pending = mask::route(pipeline, batch);
        match pipeline.log().reserve(pending.disk_bytes()) {
            Ok(reservation) => parts.push(Part { pipeline: (*pipeline).clone(), pending, reservation }),
            Err(refused) => return Err(refuse(pipeline, refused.reason)),
        }
    }
    Ok(parts)
}

fn never_kept(result: Result<(), Refused>) -> bool {
    matches!(result, Err(Refused { maybe_kept: false, .. }))
}

async fn append(part: Part) -> (Arc<Pipeline>, Result<(), Refused>) {
    let log = part.pipeline.log().clone();
    let result = log.append(part.reservation, part.pending).await;
    (part.pipeline, result)
}

fn refuse(pipeline: &Pipeline, reason: RefusalReason) -> SubmitError {
    pipeline.count_refusal(reason);
    SubmitError::Refused { pipeline: pipeline.settings().name.clone(), reason, retry_after: RETRY_AFTER }
}
