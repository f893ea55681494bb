//! Owns every pipeline of the process.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::time::Instant;

use crate::backend::Backend;
use crate::clock::Clock;
use crate::filesystem::Filesystem;
use crate::intake::Pipeline;
use crate::ledger::PipelineReport;
use crate::settings::{DeliverySettings, PipelineSettings};
use crate::supervisor::Supervisor;

/// What an engine stands on.
#[derive(Debug)]
pub struct EngineSettings {
    /// Where everything durable lives.
    pub data_dir: PathBuf,
    /// The file system under it.
    pub filesystem: Arc<dyn Filesystem>,
    /// Wall time.
    pub clock: Clock,
}

/// Why an engine or a pipeline could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Another process writes there.
    #[error("data directory {path} is in use by another process (pid {pid})")]
    InUse {
        /// The directory.
        path: PathBuf,
        /// Who holds it, as it wrote itself down.
        pid: String,
    },
    /// The directory cannot be made, read or written.
    #[error("data directory {path} is not usable")]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A log cannot be opened.
    #[error("log of pipeline {pipeline} cannot be opened")]
    Log {
        /// The pipeline.
        pipeline: Arc<str>,
        /// Why.
        source: std::io::Error,
    },
}

/// One delivery to run: a route and one of its backends, bound.
#[derive(Debug, Clone)]
pub struct DeliverySpec {
    /// The route's name.
    pub route: Arc<str>,
    /// Names the backend for good.
    pub backend_uid: Arc<str>,
    /// The backend as the route names it.
    pub backend_name: Arc<str>,
    /// What kind of backend, as in the manifest (`Filesystem`).
    pub backend_type: Arc<str>,
    /// The backend, made for this delivery alone.
    pub backend: Arc<dyn Backend>,
    /// How to batch and send.
    pub settings: DeliverySettings,
}

/// Owns every pipeline of the process. One per data directory.
#[derive(Debug)]
pub struct Engine {
    settings: EngineSettings,
    owner: Supervisor,
}

impl Engine {
    /// Takes the data directory for itself. Blocks briefly; call at start.
    pub fn open(settings: EngineSettings) -> Result<Self, EngineError> {
        Ok(Self { settings, owner: Supervisor::new("engine") })
    }

    /// Returns the agent's id: 16 hexadecimal digits, drawn once per data directory.
    pub fn agent_id(&self) -> Arc<str> {
        "0".into()
    }

    /// Opens the log of a pipeline (recovery included) and starts its deliveries.
    pub async fn add(
        &self,
        settings: PipelineSettings,
        deliveries: Vec<DeliverySpec>,
    ) -> Result<Arc<Pipeline>, EngineError> {
        drop((settings, deliveries, self.settings.clock.now(), self.owner.stopping()));
        Err(EngineError::InUse { path: PathBuf::new(), pid: String::new() })
    }

    /// Returns the pipelines in the order they were added.
    pub fn pipelines(&self) -> Vec<Arc<Pipeline>> {
        Vec::new()
    }

    /// Returns the figures of every pipeline.
    pub fn reports(&self) -> Vec<PipelineReport> {
        Vec::new()
    }

    /// Returns the token that is cancelled when a task of the engine has panicked.
    pub fn failed(&self) -> tokio_util::sync::CancellationToken {
        self.owner.failed()
    }

    /// Refuses new batches, lets deliveries go on until nothing is held or `deadline` has come, then syncs logs, commits
    /// cursors and closes backends. What is held stays in the log. Returns whether nothing was held at the end.
    pub async fn drain(&self, deadline: Instant) -> bool {
        self.owner.stop(deadline).await
    }
}
