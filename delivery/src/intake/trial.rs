//! What a pipeline would do with an event, for whoever tests its manifest: no log, no delivery, nothing kept.
//!
//! It is the code that a running pipeline goes through, its transforms and then the conditions of its routes. One trial is one pipeline
//! that just began: a transform that remembers does so from event to event.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::Version;
use crate::clock::UnixNanos;
use crate::condition::EvalFailure;
use crate::event::{BatchBuilder, Origin};
use crate::settings::PipelineSettings;
use crate::transform::Failure;

/// A pipeline that is tried.
#[derive(Debug)]
pub struct Trial {
    version: Version,
    began: Instant,
}

/// What it would do with one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tried {
    /// The event as transforms left it; `None` where one of them dropped it.
    pub event: Option<Bytes>,
    /// The routes that want it, in the order of the manifest.
    pub routes: Vec<Arc<str>>,
    /// Transforms that could not do all they are told, and why.
    pub failed: Vec<(Arc<str>, Failure)>,
    /// Routes whose condition has no answer, which is a no, and why.
    pub unanswered: Vec<(Arc<str>, EvalFailure)>,
}

impl Trial {
    /// Returns the pipeline with these settings, as it begins.
    pub fn new(settings: PipelineSettings) -> Self {
        Self { version: Version::first(settings), began: Instant::now() }
    }

    /// Returns what becomes of an event, a valid object as a source hands it over, that comes from `origin` at that time, so long after
    /// the pipeline began.
    pub fn take(&self, event: &[u8], origin: &Arc<Origin>, received: UnixNanos, after: Duration) -> Tried {
        let origin = self.version.origins.merged(origin);
        let mut builder = BatchBuilder::default();
        builder.push(event);
        let mut batch = builder.build(origin.clone(), received);
        let mut tried = Tried { event: None, routes: Vec::new(), failed: Vec::new(), unanswered: Vec::new() };
        if let Some(chain) = &self.version.chain {
            let shaped = chain.shape_at(&batch, &origin, self.began + after);
            for (transform, counts) in chain.transforms().iter().zip(&shaped.counts) {
                let failures = Failure::ALL.into_iter().filter(|failure| counts.failed[*failure as usize] > 0);
                tried.failed.extend(failures.map(|failure| (transform.name.clone(), failure)));
            }
            chain.kept(&shaped.counts, shaped.effects);
            batch = shaped.batch;
        }
        let Some(event) = batch.events().next() else { return tried };
        for route in &self.version.settings().routes {
            match route.condition.as_ref().map_or(Ok(true), |condition| condition.eval(event, &origin)) {
                Ok(true) => tried.routes.push(route.name.clone()),
                Ok(false) => {}
                Err(failure) => tried.unanswered.push((route.name.clone(), failure)),
            }
        }
        tried.event = Some(Bytes::copy_from_slice(event));
        tried
    }
}
