//! One batch into several logs, or into none.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join_all, select_all};
use tokio::time::Instant;

use super::shaping::{self, Made, MadeCounts};
use super::{Accepted, Pipeline, RefusalReason, SubmitError, mask};
use crate::event::Batch;
use crate::log::{KeyClaim, KeyLookup, ROOM_ASK_PERIOD, ROOM_WAIT_MAX, Receipt, Refused};

/// What a refused client is told to wait: long enough for a delivery to free a segment, short enough to stay live.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A batch in the queue of one log.
struct Part {
    pipeline: Arc<Pipeline>,
    receipt: Receipt,
    /// What its transforms did, to be counted once the log has it.
    counts: Option<MadeCounts>,
}

/// A log that does not have the batch yet.
pub(super) struct Wanting<'a> {
    pub(super) pipeline: &'a Arc<Pipeline>,
    /// Goes with the batch, so that its key stays on its way although the sender goes away.
    claim: Option<KeyClaim>,
    /// What its transforms made of the batch.
    pub(super) made: Option<Made>,
}

/// `route` is the one that all events are for; without one the conditions decide.
pub(super) async fn submit(
    pipelines: &[Arc<Pipeline>],
    batch: Batch,
    route: Option<&str>,
) -> Result<Accepted, SubmitError> {
    let events = batch.len() as u64;
    let mut wanting = Vec::with_capacity(pipelines.len());
    for pipeline in pipelines {
        if let Some(reason) = pipeline.closed(route) {
            return Err(refuse(pipeline, reason));
        }
        // Claims are taken in the order of the targets, which is the same for every request, so two never wait in a ring.
        let (lookup, claim) = match &batch.key {
            Some(key) => pipeline.log().claim_key(key).await,
            None => (KeyLookup::New, None),
        };
        match lookup {
            KeyLookup::New => wanting.push(Wanting { pipeline, claim, made: None }),
            KeyLookup::Same { .. } => {}
            KeyLookup::Conflict => return Err(SubmitError::KeyReused),
        }
    }
    if wanting.is_empty() {
        return Ok(Accepted { events, repeated: true });
    }
    // Until the logs have what the transforms made. What is for one route went through them where it was routed.
    let share = match route {
        Some(_) => None,
        None => shaping::shape(&mut wanting, &batch).await,
    };
    let parts = match enqueue_all(&mut wanting, &batch, route) {
        Err((_, refused)) if refused.room_soon => enqueue_with_room(&mut wanting, &batch, route).await,
        other => other,
    };
    let parts = parts.map_err(|(pipeline, refused)| refuse(pipeline, refused.reason))?;
    drop(batch);
    drop(wanting);
    let results = join_all(parts.into_iter().map(kept)).await;
    drop(share);
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

/// Reserves in every log before anything is appended to any, or says which refused. No edit of a pipeline comes between its
/// masks and the queue.
fn enqueue_all<'a>(
    wanting: &mut [Wanting<'a>],
    batch: &Batch,
    route: Option<&str>,
) -> Result<Vec<Part>, (&'a Arc<Pipeline>, Refused)> {
    let versions: Vec<_> = wanting.iter().map(|one| one.pipeline.version()).collect();
    let mut reserved = Vec::with_capacity(wanting.len());
    for (Wanting { pipeline, made, .. }, version) in wanting.iter_mut().zip(&versions) {
        if let Some(reason) = pipeline.closed_by(version, route) {
            return Err((*pipeline, Refused { reason, maybe_kept: false, room_soon: false }));
        }
        // Made anew where an edit came in between: what a log holds is of one version, transforms and routes.
        let shaped = if route.is_none() { shaping::made(version, batch, made) } else { None };
        let Some(pending) = mask::route(version, batch, shaped, route) else {
            let refused = Refused { reason: RefusalReason::Removed, maybe_kept: false, room_soon: false };
            return Err((*pipeline, refused));
        };
        match pipeline.log().reserve(pending.disk_bytes()) {
            Ok(reservation) => reserved.push((reservation, pending)),
            Err(refused) => return Err((*pipeline, refused)),
        }
    }
    let enqueue = |(Wanting { pipeline, claim, made }, (reservation, pending)): (&mut Wanting<'a>, _)| {
        let receipt = pipeline.log().enqueue(reservation, pending, claim.take());
        Part { pipeline: pipeline.clone(), receipt, counts: made.take().map(Made::into_counts) }
    };
    Ok(wanting.iter_mut().zip(reserved).map(enqueue).collect())
}

/// The same as soon as deliveries that drop their oldest have made room, within [`ROOM_WAIT_MAX`]. Nothing is set aside
/// meanwhile.
async fn enqueue_with_room<'a>(
    wanting: &mut [Wanting<'a>],
    batch: &Batch,
    route: Option<&str>,
) -> Result<Vec<Part>, (&'a Arc<Pipeline>, Refused)> {
    let deadline = Instant::now() + ROOM_WAIT_MAX;
    loop {
        // From before the look: what is freed in between is not missed.
        let freed = select_all(wanting.iter().map(|one| Box::pin(one.pipeline.log().freed())));
        match enqueue_all(wanting, batch, route) {
            Err((_, refused)) if refused.room_soon && Instant::now() < deadline => {
                drop(tokio::time::timeout(ROOM_ASK_PERIOD, freed).await);
            }
            other => return other,
        }
    }
}

fn never_kept(result: Result<(), Refused>) -> bool {
    matches!(result, Err(Refused { maybe_kept: false, .. }))
}

async fn kept(part: Part) -> (Arc<Pipeline>, Result<(), Refused>) {
    let result = part.receipt.wait().await;
    match (part.counts, &result) {
        (Some(counts), Ok(())) => counts.add(),
        // Also where the log may have it: the sender comes again, and would meet limits that its own attempt used up.
        (Some(counts), Err(_)) => counts.undo(),
        (None, _) => {}
    }
    (part.pipeline, result)
}

fn refuse(pipeline: &Pipeline, reason: RefusalReason) -> SubmitError {
    pipeline.count_refusal(reason);
    SubmitError::Refused { pipeline: pipeline.name().clone(), reason, retry_after: RETRY_AFTER }
}
