//! One batch into several logs, or into none.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use super::{Accepted, Pipeline, RefusalReason, SubmitError, mask};
use crate::event::Batch;
use crate::log::{KeyLookup, Receipt, Refused};

/// What a refused client is told to wait: long enough for a delivery to free a segment, short enough to stay live.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A batch in the queue of one log.
struct Part {
    pipeline: Arc<Pipeline>,
    receipt: Receipt,
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
    let parts = enqueue_all(&wanting, &batch)?;
    drop(batch);
    let results = join_all(parts.into_iter().map(kept)).await;
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
        Some((pipeline, _)) => Err(SubmitError::Unknown { pipeline: pipeline.name().clone() }),
    }
}

/// Reserves in every log before anything is appended to any. No edit of a pipeline comes between its masks and the queue.
fn enqueue_all(pipelines: &[&Arc<Pipeline>], batch: &Batch) -> Result<Vec<Part>, SubmitError> {
    let versions: Vec<_> = pipelines.iter().map(|pipeline| (*pipeline, pipeline.version())).collect();
    let mut reserved = Vec::with_capacity(pipelines.len());
    for (pipeline, version) in &versions {
        if let Some(reason) = pipeline.closed_by(version) {
            return Err(refuse(pipeline, reason));
        }
        let pending = mask::route(version, batch);
        match pipeline.log().reserve(pending.disk_bytes()) {
            Ok(reservation) => reserved.push((*pipeline, reservation, pending)),
            Err(refused) => return Err(refuse(pipeline, refused.reason)),
        }
    }
    let enqueue = |(pipeline, reservation, pending): (&Arc<Pipeline>, _, _)| Part {
        pipeline: pipeline.clone(),
        receipt: pipeline.log().enqueue(reservation, pending),
    };
    Ok(reserved.into_iter().map(enqueue).collect())
}

fn never_kept(result: Result<(), Refused>) -> bool {
    matches!(result, Err(Refused { maybe_kept: false, .. }))
}

async fn kept(part: Part) -> (Arc<Pipeline>, Result<(), Refused>) {
    let result = part.receipt.wait().await;
    (part.pipeline, result)
}

fn refuse(pipeline: &Pipeline, reason: RefusalReason) -> SubmitError {
    pipeline.count_refusal(reason);
    SubmitError::Refused { pipeline: pipeline.name().clone(), reason, retry_after: RETRY_AFTER }
}
