//! The transforms of pipelines on a batch at the door.
//!
//! # Guarantees
//! - A batch is shaped once for each pipeline, however often its log is asked for room, and anew only where an edit came
//!   meanwhile: what is appended has the transforms and the routes of one version.
//! - What was done is counted and remembered when the log has the batch, so that a sender who is refused and comes again counts
//!   once and is no duplicate of itself.
//! - A pipeline without transforms costs a look at its version for each batch, and nothing for an event.
//!
//! # Limits
//! [`SHAPED_BYTES_MAX`] for what all transforms made and no log has yet: whoever finds no room waits, and what it made is made
//! again. What one request makes for several pipelines may go beyond it, by all of them but the first, and so may an edit in
//! between by one batch.

use std::sync::Arc;

use tokio::sync::{Semaphore, SemaphorePermit};

use super::Version;
use super::submit::Wanting;
use crate::event::Batch;
use crate::transform::{Chain, Counts, Effects, Shaped};

/// Most bytes of shaped events on their way to logs, over all pipelines of the process: two batches of the largest size.
const SHAPED_BYTES_MAX: usize = 32 << 20;

const UNIT_BYTES: usize = 1 << 10;

static SHAPED: Semaphore = Semaphore::const_new(SHAPED_BYTES_MAX / UNIT_BYTES);

/// What the transforms of a version made of a batch.
#[derive(Debug)]
pub(super) struct Made {
    version: Arc<Version>,
    chain: Arc<Chain>,
    shaped: Shaped,
}

/// What transforms did with a batch that is on its way into the log.
#[derive(Debug)]
pub(super) struct MadeCounts {
    chain: Arc<Chain>,
    counts: Vec<Counts>,
    effects: Effects,
}

impl Made {
    /// Lets go of what was made, which is on its way into the log.
    pub(super) fn into_counts(self) -> MadeCounts {
        let Shaped { counts, mut effects, .. } = self.shaped;
        effects.enqueued();
        MadeCounts { chain: self.chain, counts, effects }
    }
}

impl MadeCounts {
    /// Counts what was done, and remembers it.
    pub(super) fn add(self) {
        self.chain.kept(&self.counts, self.effects);
    }

    /// Undoes it: nobody was told that the log has the batch.
    pub(super) fn undo(self) {
        self.effects.undo();
    }
}

/// Shapes a batch for every pipeline that has transforms; what is returned is their share of the memory for it.
pub(super) async fn shape(wanting: &mut [Wanting<'_>], batch: &Batch) -> Option<SemaphorePermit<'static>> {
    let units = make(wanting, batch)?.min(SHAPED_BYTES_MAX).div_ceil(UNIT_BYTES) as u32;
    if let Ok(permit) = SHAPED.try_acquire_many(units) {
        return Some(permit);
    }
    wanting.iter_mut().for_each(|one| one.made = None);
    let permit = SHAPED.acquire_many(units).await.ok();
    make(wanting, batch);
    permit
}

/// Returns how many bytes were made beside those of the batch; `None` where nothing has transforms.
fn make(wanting: &mut [Wanting<'_>], batch: &Batch) -> Option<usize> {
    let mut bytes = None;
    for Wanting { pipeline, made: known, .. } in wanting {
        // Not under its lock: an edit would wait for all of it.
        let version = pipeline.version().clone();
        if let Some(shaped) = made(&version, batch, known) {
            let own = shaped.batch.payload.as_ptr() != batch.payload.as_ptr();
            *bytes.get_or_insert(0) += shaped.effects.bytes() + if own { shaped.batch.payload.len() } else { 0 };
        }
    }
    bytes
}

/// Returns what the transforms of `version` make of the batch, made already or now; `None` where it has none.
pub(super) fn made<'m>(version: &Arc<Version>, batch: &Batch, known: &'m mut Option<Made>) -> Option<&'m Shaped> {
    let chain = version.chain.as_ref()?;
    if known.as_ref().is_none_or(|made| !Arc::ptr_eq(&made.version, version)) {
        // What was made for another version is undone first: it may have taken what this one needs.
        *known = None;
        let shaped = chain.shape(batch, &version.origins.merged(&batch.origin));
        *known = Some(Made { version: version.clone(), chain: chain.clone(), shaped });
    }
    known.as_ref().map(|made| &made.shaped)
}
