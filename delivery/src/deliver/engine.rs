//! Owns every pipeline of the process.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OnceCell, watch};
use tokio::time::Instant;

use super::batches::Names;
use super::budget::Budget;
use super::dead_letters::DeadLetters;
use super::delivery::{Delivery, Ground};
use super::status::DeliveryStatus;
use crate::backend::Backend;
use crate::clock::Clock;
use crate::filesystem::Filesystem;
use crate::intake::Pipeline;
use crate::ledger::{DeliveryState, PipelineReport};
use crate::log::{DeliveryKey, Log, LogOptions, Progress, Removed};
use crate::settings::{DeliverySettings, PipelineSettings};
use crate::supervisor::Supervisor;

/// What the end of a drain keeps for landing what is under way, commits and syncs.
const LANDING: Duration = Duration::from_secs(5);

/// What an engine stands on.
#[derive(Debug)]
pub struct EngineSettings {
    /// Where everything durable lives.
    pub data_dir: PathBuf,
    /// The file system under it.
    pub filesystem: Arc<dyn Filesystem>,
    /// Wall time.
    pub clock: Clock,
    /// Bytes that must stay free on the volume: below, logs refuse new events and deliveries go on.
    pub free_bytes_min: u64,
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
        source: io::Error,
    },
    /// A log cannot be opened.
    #[error("log of pipeline {pipeline} cannot be opened")]
    Log {
        /// The pipeline.
        pipeline: Arc<str>,
        /// Why.
        source: io::Error,
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

impl DeliverySpec {
    fn key(&self) -> DeliveryKey {
        DeliveryKey { route: self.route.clone(), backend_uid: self.backend_uid.clone() }
    }
}

/// Owns every pipeline of the process. One per data directory.
#[derive(Debug)]
pub struct Engine {
    settings: EngineSettings,
    agent_id: Arc<str>,
    deliveries: Supervisor,
    logs: Supervisor,
    budget: Budget,
    hurry: watch::Sender<bool>,
    pipelines: Mutex<Vec<Arc<Pipeline>>>,
    /// Held for the life of the engine: the lock on the data directory.
    _lock: fs::File,
}

impl Engine {
    /// Takes the data directory for itself. Blocks briefly; call at start.
    pub fn open(settings: EngineSettings) -> Result<Self, EngineError> {
        let dir = settings.data_dir.clone();
        let unusable = |source| EngineError::DataDir { path: dir.clone(), source };
        settings.filesystem.create_dir_all(&dir).map_err(unusable)?;
        let lock = lock(&dir)?;
        let agent_id = agent_id(&dir).map_err(unusable)?;
        Ok(Self {
            settings,
            agent_id,
            deliveries: Supervisor::new("deliveries"),
            logs: Supervisor::new("logs"),
            budget: Budget::new(),
            hurry: watch::channel(false).0,
            pipelines: Mutex::default(),
            _lock: lock,
        })
    }

    /// Returns the agent's id: 16 hexadecimal digits, drawn once per data directory.
    pub fn agent_id(&self) -> Arc<str> {
        self.agent_id.clone()
    }

    /// Opens the log of a pipeline (recovery included) and starts its deliveries.
    ///
    /// Where the log knows a delivery that the settings do not name any more, `removed` is asked for it: what it still holds
    /// is delivered for the pipeline's `drain`, in running time since it was first missed, then dropped, counted `drained`.
    /// Without an answer it only waits for that time, to go on when the reference comes back.
    pub async fn add(
        &self,
        settings: PipelineSettings,
        deliveries: Vec<DeliverySpec>,
        removed: &(dyn Fn(&DeliveryKey) -> Option<DeliverySpec> + Sync),
    ) -> Result<Arc<Pipeline>, EngineError> {
        let incarnation = random();
        let log = self.open_log(&settings, incarnation).await?;
        let dead_letters = Arc::new(DeadLetters {
            dir: self.settings.data_dir.join("dead-letters").join(&*settings.uid),
            filesystem: self.settings.filesystem.clone(),
            clock: self.settings.clock.clone(),
            owner: self.logs.clone(),
            incarnation: random(),
            log: OnceCell::new(),
        });
        let saved = log.saved_deliveries();
        let bed = Bed { settings: &settings, log: &log, dead_letters: &dead_letters };
        let mut statuses = Vec::new();
        // Nothing may be freed before every delivery has spoken.
        deliveries.iter().for_each(|spec| log.set_floor(&spec.key(), 0));
        for spec in deliveries {
            let progress = match saved.iter().find(|(key, _)| *key == spec.key()) {
                Some((_, progress)) => Progress { removed: None, ..progress.clone() },
                None => begin(&log, &spec, saved.is_empty()).await,
            };
            let state = if settings.suspend { DeliveryState::Suspended } else { DeliveryState::Healthy };
            let start = Start { progress, state, drain_until_ms: None, incarnation };
            statuses.push(self.start(&bed, spec, start));
        }
        let wanted: Vec<DeliveryKey> = statuses.iter().map(|status| status.key().clone()).collect();
        for (key, progress) in saved.into_iter().filter(|(key, _)| !wanted.contains(key)) {
            let spec = removed(&key).unwrap_or_else(|| super::gone::spec(&key, settings.log.drain));
            statuses.push(self.drain_removed(&bed, spec, progress).await);
        }
        let pipeline = Arc::new(Pipeline::new(settings, log, statuses));
        self.pipelines.lock().unwrap_or_else(PoisonError::into_inner).push(pipeline.clone());
        Ok(pipeline)
    }

    async fn open_log(&self, settings: &PipelineSettings, incarnation: u64) -> Result<Log, EngineError> {
        let options = LogOptions {
            dir: self.settings.data_dir.join("spool").join(&*settings.uid),
            filesystem: self.settings.filesystem.clone(),
            clock: self.settings.clock.clone(),
            settings: settings.log.clone(),
            routes: settings.routes.iter().map(|route| route.name.clone()).collect(),
            free_bytes_min: self.settings.free_bytes_min,
        };
        let owner = self.logs.clone();
        let opened = tokio::task::spawn_blocking(move || Log::open(options, &owner, incarnation)).await;
        let log = opened
            .unwrap_or_else(|error| Err(io::Error::other(error)))
            .map_err(|source| EngineError::Log { pipeline: settings.name.clone(), source })?;
        let found = log.recovered();
        tracing::info!(
            pipeline = %settings.name, namespace = %settings.namespace, segments = found.segments, scanned = found.scanned,
            cut_bytes = found.cut_bytes, damaged = found.damaged_records, quarantined = found.quarantined_segments,
            "log opened"
        );
        Ok(log)
    }

    fn start(&self, bed: &Bed<'_>, spec: DeliverySpec, start: Start) -> Arc<DeliveryStatus> {
        let Bed { settings, log, dead_letters } = *bed;
        let status = DeliveryStatus::new(&spec, start.progress.clone(), start.state, self.settings.clock.clone());
        if start.state != DeliveryState::Healthy {
            // A drain of the process does not wait for what rests, or for a backend that may be gone.
            status.saved(u64::MAX);
        }
        if start.state == DeliveryState::Suspended {
            return status;
        }
        let ground = Ground {
            log: log.clone(),
            names: Names::new(settings, &spec.route),
            budget: self.budget.clone(),
            dead_letters: dead_letters.clone(),
            status: status.clone(),
            hurry: self.hurry.subscribe(),
            drain_until_ms: start.drain_until_ms,
        };
        let seed = start.incarnation ^ xxhash_rust::xxh3::xxh3_64(spec.route.as_bytes());
        let delivery = Delivery::new(spec, ground, start.progress, seed);
        self.deliveries.spawn("delivery", delivery.run(self.deliveries.stopping()));
        status
    }

    /// A delivery whose reference is gone goes on for a while, or at least keeps what it holds.
    async fn drain_removed(&self, bed: &Bed<'_>, spec: DeliverySpec, mut progress: Progress) -> Arc<DeliveryStatus> {
        let now = Removed { since_ms: bed.log.running_ms(), end_seq: bed.log.visible_end() };
        let removed = *progress.removed.get_or_insert(now);
        if let Err(error) = bed.log.save(&spec.key(), &progress, true).await {
            tracing::warn!(%error, "could not note when a reference was removed; its time begins anew at the next start");
        }
        tracing::info!(
            pipeline = %bed.settings.name, route = %spec.route, backend = %spec.backend_uid,
            "reference removed; delivering what is left"
        );
        let start = Start {
            progress,
            state: DeliveryState::Draining,
            drain_until_ms: Some(removed.since_ms + bed.settings.log.drain.as_millis() as u64),
            incarnation: bed.log.incarnation(),
        };
        self.start(bed, spec, start)
    }

    /// Returns the pipelines in the order they were added.
    pub fn pipelines(&self) -> Vec<Arc<Pipeline>> {
        self.pipelines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the figures of every pipeline. Reads logs, so it may block briefly.
    pub fn reports(&self) -> Vec<PipelineReport> {
        self.pipelines().iter().map(|pipeline| pipeline.report()).collect()
    }

    /// Returns the tokens that are cancelled when a task of the engine has panicked.
    pub fn failed(&self) -> [tokio_util::sync::CancellationToken; 2] {
        [self.deliveries.failed(), self.logs.failed()]
    }

    /// Refuses new batches, lets deliveries go on until nothing is held or `deadline` has come, then syncs logs, commits
    /// cursors and closes backends. What is held stays in the log. Returns whether nothing was held at the end.
    pub async fn drain(&self, deadline: Instant) -> bool {
        let pipelines = self.pipelines();
        pipelines.iter().for_each(|pipeline| pipeline.stop_intake());
        self.hurry.send_replace(true);
        let landing = LANDING.min(deadline.duration_since(Instant::now()) / 2);
        let idle = async {
            let mut look = tokio::time::interval(Duration::from_millis(20));
            while !pipelines.iter().all(|pipeline| pipeline.is_drained()) {
                look.tick().await;
            }
        };
        let drained = tokio::time::timeout_at(deadline - landing, idle).await.is_ok();
        let landed = self.deliveries.stop(deadline - landing / 4).await;
        let synced = self.logs.stop(deadline).await;
        if !(landed && synced) {
            tracing::warn!(landed, synced, "the deadline came before everything was at rest");
        }
        drained
    }
}

/// What the deliveries of one pipeline share.
struct Bed<'a> {
    settings: &'a PipelineSettings,
    log: &'a Log,
    dead_letters: &'a Arc<DeadLetters>,
}

/// How a delivery starts.
struct Start {
    progress: Progress,
    state: DeliveryState,
    drain_until_ms: Option<u64>,
    incarnation: u64,
}

/// Decides where a new delivery begins and writes that down before anything is taken in: a process that dies early must
/// not make it begin behind what was accepted for it.
async fn begin(log: &Log, spec: &DeliverySpec, first_ever: bool) -> Progress {
    let progress = first_progress(log, &spec.route, first_ever);
    if let Err(error) = log.save(&spec.key(), &progress, true).await {
        tracing::warn!(%error, route = %spec.route, backend = %spec.backend_name, "could not note where a delivery begins");
    }
    progress
}

/// A new reference starts at the edit; where no cursor was ever saved, or all were lost, at the first event there is.
fn first_progress(log: &Log, route: &str, first_ever: bool) -> Progress {
    let census = log.census();
    let routed = census.routed_events(route) as i64;
    if !first_ever {
        return Progress { cursor: log.visible_end(), routed_before: routed, ..Progress::default() };
    }
    let cursor = log.first_seq();
    let there = log.count_events(&census, route, cursor, u64::MAX).map_or(0, |(events, _)| events as i64);
    Progress { cursor, routed_before: routed - there, ..Progress::default() }
}

fn lock(dir: &Path) -> Result<fs::File, EngineError> {
    let unusable = |source| EngineError::DataDir { path: dir.to_owned(), source };
    let path = dir.join("lock");
    let mut file =
        fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(unusable)?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut pid = String::new();
            file.take(32).read_to_string(&mut pid).map_err(unusable)?;
            return Err(EngineError::InUse { path: dir.to_owned(), pid: pid.trim().to_owned() });
        }
        Err(error) => return Err(unusable(error.into())),
    }
    file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(unusable)?;
    Ok(file)
}

fn agent_id(dir: &Path) -> io::Result<Arc<str>> {
    let path = dir.join("agent-id");
    let valid = |text: &str| text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if let Some(known) = fs::read_to_string(&path).ok().map(|text| text.trim().to_owned()).filter(|text| valid(text)) {
        return Ok(known.into());
    }
    let drawn = format!("{:016x}", random());
    let draft = dir.join("agent-id.new");
    let mut file = fs::File::create(&draft)?;
    writeln!(file, "{drawn}")?;
    file.sync_all()?;
    fs::rename(&draft, &path)?;
    fs::File::open(dir)?.sync_all()?;
    Ok(drawn.into())
}

/// A random number from the system.
fn random() -> u64 {
    let mut bytes = [0u8; 8];
    let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    if filled != Ok(bytes.len()) {
        // Without the system's numbers: two differently keyed hashes of nothing, seeded by the standard library.
        use std::hash::{BuildHasher, Hasher};
        return std::collections::hash_map::RandomState::new().build_hasher().finish();
    }
    u64::from_le_bytes(bytes)
}
