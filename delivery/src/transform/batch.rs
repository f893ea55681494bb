//! A batch through the transforms of a pipeline.

use std::sync::Arc;

use tokio::time::Instant;

use super::Chain;
use super::chain::{Scratch, Verdict};
use super::counts::Counts;
use super::edit::Subject;
use super::gate::Effects;
use crate::event::{BATCH_BYTES_MAX, Batch, BatchBuilder, EVENT_BYTES_MAX, Origin};

/// What the transforms made of a batch.
#[derive(Debug)]
pub struct Shaped {
    /// What is left, with the position and the key of the batch. Where nothing changed it shares the batch's bytes.
    pub batch: Batch,
    /// Events that were dropped.
    pub dropped: u32,
    /// What each transform did.
    pub counts: Vec<Counts>,
    /// What it did to what transforms remember, for [`Chain::kept`]; undone where it is dropped.
    pub effects: Effects,
}

impl Chain {
    /// Shapes a batch whose origin the pipeline has filled. What was done is counted, and remembered, by [`Chain::kept`].
    pub fn shape(&self, batch: &Batch, origin: &Arc<Origin>) -> Shaped {
        self.shape_at(batch, origin, Instant::now())
    }

    /// The same at another time.
    pub fn shape_at(&self, batch: &Batch, origin: &Arc<Origin>, now: Instant) -> Shaped {
        let mut counts = vec![Counts::default(); self.transforms().len()];
        let mut scratch = Scratch::default();
        let mut out: Option<BatchBuilder> = None;
        let mut dropped = 0;
        for index in 0..batch.len() {
            let event = batch.event(index);
            let bytes_max = bytes_max(batch, index, out.as_ref());
            let subject = Subject { event, origin, bytes_max, received: batch.received, now };
            let verdict = self.run(subject, &mut scratch, &mut counts);
            scratch.event_done(verdict == Verdict::Dropped);
            match (verdict, &mut out) {
                (Verdict::Same, None) => {}
                (Verdict::Same, Some(out)) => out.push(event),
                (verdict, out) => {
                    let out = out.get_or_insert_with(|| BatchBuilder::with_first(batch, index));
                    match verdict {
                        Verdict::Dropped => dropped += 1,
                        _ => out.push(scratch.event()),
                    }
                }
            }
        }
        let shaped = match out {
            None => batch.clone(),
            Some(out) => Batch {
                position: batch.position.clone(),
                key: batch.key.clone(),
                ..out.build(batch.origin.clone(), batch.received)
            },
        };
        Shaped { batch: shaped, dropped, counts, effects: scratch.into_effects() }
    }

    /// Counts what was done to a batch, and remembers it, once the log has it.
    pub fn kept(&self, counts: &[Counts], effects: Effects) {
        self.count(counts);
        for (transform, forgotten) in effects.keep() {
            self.count_forgotten(transform, forgotten);
        }
    }
}

/// Returns how large event `index` may become: within its own limit, and so that what follows has room in the batch as it is.
fn bytes_max(batch: &Batch, index: usize, out: Option<&BatchBuilder>) -> usize {
    let start = if index == 0 { 0 } else { batch.ends[index - 1] as usize };
    let (behind, to_come) = (out.map_or(start, BatchBuilder::bytes), batch.payload.len() - start);
    let bytes = batch.ends[index] as usize - start - 1;
    let room = BATCH_BYTES_MAX.saturating_sub(behind + to_come);
    EVENT_BYTES_MAX.max(bytes).min(bytes + room)
}
