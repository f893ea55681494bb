//! Which routes want which event, by the event and the origin as this pipeline sees it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Version;
use crate::condition::EvalFailure;
use crate::event::{Batch, BatchBuilder, Origin};
use crate::log::{Masks, Pending};
use crate::transform::Shaped;

/// Evaluations of one route's condition that failed and so were false, by reason.
#[derive(Debug, Default)]
pub(super) struct RouteCounters {
    failures: [AtomicU64; EvalFailure::ALL.len()],
}

impl RouteCounters {
    fn count(&self, failure: EvalFailure) {
        self.failures[failure as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn errors(&self) -> BTreeMap<String, u64> {
        EvalFailure::ALL
            .iter()
            .map(|failure| (failure.as_str().to_owned(), self.failures[*failure as usize].load(Ordering::Relaxed)))
            .filter(|(_, count)| *count > 0)
            .collect()
    }
}

/// Fills the origin of a batch and decides its masks; events that no route wants are taken out and counted. `shaped` is what
/// the transforms of this version made of it. With `only` all are for that route; `None` where there is none of this name.
pub(super) fn route(pipeline: &Version, batch: &Batch, shaped: Option<&Shaped>, only: Option<&str>) -> Option<Pending> {
    let origin = pipeline.origins.merged(&batch.origin);
    let batch = shaped.map_or(batch, |shaped| &shaped.batch);
    let mut pending = match only {
        Some(name) => {
            let bit = pipeline.settings().routes.iter().position(|route| *route.name == *name)?;
            Pending { batch: batch.clone(), masks: Masks::Uniform(1 << bit), unrouted: 0, dropped: 0 }
        }
        None => masked(pipeline, batch, &origin),
    };
    pending.batch.origin = origin;
    pending.dropped = shaped.map_or(0, |shaped| shaped.dropped);
    Some(pending)
}

fn masked(pipeline: &Version, batch: &Batch, origin: &Arc<Origin>) -> Pending {
    let routes = &pipeline.settings().routes;
    if routes.iter().any(|route| route.condition.is_none()) && routes.iter().all(|route| route.condition.is_none()) {
        return pending(batch.clone(), Masks::Uniform(all_routes(routes.len())), 0);
    }
    let masks: Vec<u64> = batch.events().map(|event| mask_of(pipeline, event, origin)).collect();
    let unrouted = masks.iter().filter(|mask| **mask == 0).count();
    let uniform = masks.first().copied().filter(|first| masks.iter().all(|mask| mask == first));
    match uniform {
        Some(0) => pending(without_events(batch), Masks::Uniform(0), unrouted),
        Some(mask) => pending(batch.clone(), Masks::Uniform(mask), 0),
        None if unrouted == 0 => pending(batch.clone(), Masks::Each(masks.into()), 0),
        None => {
            let mut kept = BatchBuilder::with_capacity(batch.payload.len());
            batch.events().zip(&masks).filter(|(_, mask)| **mask != 0).for_each(|(event, _)| kept.push(event));
            let mut routed = kept.build(origin.clone(), batch.received);
            routed.position.clone_from(&batch.position);
            routed.key.clone_from(&batch.key);
            let masks = Masks::Each(masks.into_iter().filter(|mask| *mask != 0).collect());
            pending(routed, masks, unrouted)
        }
    }
}

fn pending(batch: Batch, masks: Masks, unrouted: usize) -> Pending {
    Pending { batch, masks, unrouted: unrouted as u32, dropped: 0 }
}

fn all_routes(count: usize) -> u64 {
    u64::MAX >> (64 - count.clamp(1, 64))
}

fn mask_of(pipeline: &Version, event: &[u8], origin: &Origin) -> u64 {
    let mut mask = 0;
    for (index, (route, counters)) in pipeline.settings().routes.iter().zip(&pipeline.routes).enumerate() {
        let wanted = match &route.condition {
            None => true,
            Some(condition) => condition.eval(event, origin).unwrap_or_else(|failure| {
                counters.count(failure);
                false
            }),
        };
        mask |= u64::from(wanted) << index;
    }
    mask
}

fn without_events(batch: &Batch) -> Batch {
    Batch { payload: bytes::Bytes::new(), ends: Vec::new(), ..batch.clone() }
}
