//! Owns every pipeline of the process.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::batches::Names;
use super::budget::Budget;
use super::dead_letters::DeadLetters;
use super::deliveries::{Deliveries, Order, Orders, Task};
use super::delivery::Ground;
use super::desk::Desk;
use super::jobs::{Hand, Workshop, is_job};
use super::seats::Seats;
use super::status::DeliveryStatus;
use super::unanswered::Unanswered;
use crate::backend::Backend;
use crate::clock::Clock;
use crate::filesystem::Filesystem;
use crate::intake::Pipeline;
use crate::ledger::DeliveryState;
use crate::log::{DeliveryKey, JournalError, Log, LogOptions, Progress, Removed};
use crate::settings::{DeliverySettings, PipelineSettings, WhenBehind};
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
    /// A reference came without the backend it names.
    #[error("route {route} of pipeline {pipeline} refers to backend {backend}, which is not bound")]
    Unbound {
        /// The pipeline.
        pipeline: Arc<str>,
        /// The route.
        route: Arc<str>,
        /// The backend as the route names it.
        backend: Arc<str>,
    },
    /// That a removed reference is back, or where a new one begins, could not be stored.
    #[error("cursors of pipeline {pipeline} cannot be changed")]
    Unsaved {
        /// The pipeline.
        pipeline: Arc<str>,
        /// Why.
        source: JournalError,
    },
    /// The engine is going down.
    #[error("log of pipeline {pipeline} is closed")]
    Closed {
        /// The pipeline.
        pipeline: Arc<str>,
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
    /// What happens when it is so far behind that the log is full.
    pub when_behind: WhenBehind,
}

impl DeliverySpec {
    pub(super) fn key(&self) -> DeliveryKey {
        DeliveryKey { route: self.route.clone(), backend_uid: self.backend_uid.clone() }
    }
}

/// Owns every pipeline of the process. One per data directory.
pub struct Engine {
    pub(super) settings: EngineSettings,
    agent_id: Arc<str>,
    pub(super) deliveries: Supervisor,
    pub(super) logs: Supervisor,
    budget: Budget,
    pub(super) hurry: watch::Sender<bool>,
    /// Cancelled when a drain shall not wait any longer.
    pub(super) cut: CancellationToken,
    pub(super) running: Arc<RunningPipelines>,
    pub(super) workshop: Arc<OnceLock<Arc<Workshop>>>,
    /// Held for the life of the engine: the lock on the data directory.
    _lock: fs::File,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("settings", &self.settings)
            .field("agent_id", &self.agent_id)
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// Takes the data directory for itself. Blocks briefly; call at start.
    pub fn open(settings: EngineSettings) -> Result<Self, EngineError> {
        let dir = settings.data_dir.clone();
        let unusable = |source| EngineError::DataDir { path: dir.clone(), source };
        settings.filesystem.create_dir_all(&dir).map_err(unusable)?;
        let lock = lock(&dir)?;
        super::edit::sweep(&dir);
        let agent_id = agent_id(&dir).map_err(unusable)?;
        Ok(Self {
            settings,
            agent_id,
            deliveries: Supervisor::new("deliveries"),
            logs: Supervisor::new("logs"),
            budget: Budget::new(),
            hurry: watch::channel(false).0,
            cut: CancellationToken::new(),
            running: Arc::default(),
            workshop: Arc::default(),
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
    /// is delivered for the pipeline's `drain`, in running time since it was first missed; the rest becomes dead letters.
    /// Without an answer it only waits for that time, to go on when the reference comes back.
    pub async fn add(
        &self,
        settings: PipelineSettings,
        deliveries: Vec<DeliverySpec>,
        removed: &Rebind<'_>,
    ) -> Result<Arc<Pipeline>, EngineError> {
        let _edits = self.running.edits.lock().await;
        self.open_pipeline(settings, deliveries, removed).await
    }

    pub(super) async fn open_pipeline(
        &self,
        settings: PipelineSettings,
        specs: Vec<DeliverySpec>,
        removed: &Rebind<'_>,
    ) -> Result<Arc<Pipeline>, EngineError> {
        let incarnation = random();
        let log = self.open_log(&settings, incarnation).await?;
        let dead_letters = Arc::new(DeadLetters::of(&settings, &self.settings, (self.logs.clone(), random())));
        let deliveries = Arc::<Deliveries>::default();
        let names = Names::new(&settings, &"".into());
        let bed = Bed { names, log: log.clone(), dead_letters, deliveries: deliveries.clone() };
        let mut orders = deliveries.orders.lock().await;
        // Nothing may be freed before every delivery has spoken.
        for spec in &specs {
            log.set_floor(&spec.key(), 0);
            log.set_when_behind(&spec.key(), spec.when_behind);
        }
        super::beginnings::find(&log).await;
        let saved = log.saved_deliveries();
        let seats = Seats::of(&bed, &settings, &orders, &saved);
        let begun = match begin(&log, &seats, specs, &saved).await {
            Ok(begun) => begun,
            Err(source) => {
                // The next try opens it anew.
                log.end().await;
                return Err(EngineError::Unsaved { pipeline: settings.name.clone(), source });
            }
        };
        let has_begun = |key: &DeliveryKey| begun.iter().any(|(spec, _)| spec.key() == *key);
        let missing = saved.into_iter().filter(|(key, _)| !has_begun(key) && !is_job(key));
        let missing: Vec<_> = missing.map(|(key, progress)| (seats.releases(&key, &progress), key, progress)).collect();
        seats.arrange(&bed, &settings);
        if !settings.suspend {
            seats.sit(&begun);
        }
        for (spec, progress) in begun {
            let task = if settings.suspend { Task::Rest } else { Task::Deliver };
            let seat = seats.seat(&spec.route, progress.began.unwrap_or(progress.cursor));
            self.start(&bed, &mut orders, Order { spec, task, seat, at_once: false }, progress);
        }
        for (released, key, progress) in missing {
            let within = if released { Duration::ZERO } else { settings.log.drain };
            let spec = removed(&key).unwrap_or_else(|| super::gone::spec(&key, within));
            let now = Removed { since_ms: log.running_ms(), end_seq: log.visible_end() };
            let removed = progress.removed.unwrap_or(now);
            let task = Task::Drain { removed, within, released, revoked: false };
            let seat = seats.seat(&key.route, progress.cursor).filter(|_| released);
            self.start(&bed, &mut orders, Order { spec, task, seat, at_once: false }, progress);
        }
        drop(orders);
        let pipeline = Arc::new(Pipeline::new(settings, log, deliveries));
        let desk = Desk::open(&pipeline, bed.dead_letters.clone(), self.hand()).await;
        self.running.push(Running { pipeline: pipeline.clone(), bed, desk });
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
        if found.lost_events > 0 {
            tracing::warn!(
                pipeline = %settings.name, namespace = %settings.namespace, lost_events_min = found.lost_events,
                "the process before took events with it that only its memory held (durability Memory)"
            );
        }
        Ok(log)
    }

    /// Starts a delivery from `progress` on.
    pub(super) fn start(&self, bed: &Bed, orders: &mut Orders, order: Order, progress: Progress) {
        let key = order.spec.key();
        let state = match order.task {
            Task::Deliver => DeliveryState::Healthy,
            Task::Rest => DeliveryState::Suspended,
            Task::Drain { .. } => DeliveryState::Draining,
        };
        let status = DeliveryStatus::new(&order.spec, progress.clone(), state, self.settings.clock.clone());
        if state != DeliveryState::Healthy {
            status.saved(u64::MAX);
        }
        bed.deliveries.begin(status.clone());
        let (sender, receiver) = watch::channel(order);
        orders.insert(key.clone(), sender);
        let ground = Ground {
            log: bed.log.clone(),
            names: Names { route: key.route.clone(), ..bed.names.clone() },
            budget: self.budget.clone(),
            dead_letters: bed.dead_letters.clone(),
            status,
            unanswered: Unanswered::of_plans(&progress.plans),
            hurry: self.hurry.subscribe(),
            orders: receiver,
            deliveries: bed.deliveries.clone(),
            drain_until_ms: None,
            revoked: false,
            job: None,
            group: None,
            released: None,
            earlier: None,
            was_well: true,
        };
        // Names of routes and backends repeat between pipelines: whatever the delivery tells is told with these.
        let (namespace, pipeline) = (&bed.names.namespace, &bed.names.pipeline);
        let span = tracing::error_span!("delivery", %namespace, %pipeline);
        let run = super::life::run(ground, key, progress, self.deliveries.stopping());
        self.deliveries.spawn("delivery", run.instrument(span));
    }

    /// Returns what jobs share with the deliveries.
    fn hand(&self) -> Hand {
        Hand {
            deliveries: self.deliveries.clone(),
            budget: self.budget.clone(),
            hurry: self.hurry.clone(),
            clock: self.settings.clock.clone(),
            filesystem: self.settings.filesystem.clone(),
            data_dir: self.settings.data_dir.clone(),
            workshop: self.workshop.clone(),
        }
    }

    /// Returns the pipelines in the order they were added.
    pub fn pipelines(&self) -> Vec<Arc<Pipeline>> {
        self.running.list().iter().map(|running| running.pipeline.clone()).collect()
    }

    /// Returns the tokens that are cancelled when a task of the engine has panicked.
    pub fn failed(&self) -> [CancellationToken; 2] {
        [self.deliveries.failed(), self.logs.failed()]
    }
}

/// Asked for a delivery that the settings do not name any more.
pub type Rebind<'a> = dyn Fn(&DeliveryKey) -> Option<DeliverySpec> + Sync + 'a;

/// What the deliveries of one pipeline share.
#[derive(Debug, Clone)]
pub(super) struct Bed {
    names: Names,
    pub(super) log: Log,
    pub(super) dead_letters: Arc<DeadLetters>,
    pub(super) deliveries: Arc<Deliveries>,
}

/// A pipeline that runs, or drains.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) pipeline: Arc<Pipeline>,
    pub(super) bed: Bed,
    pub(super) desk: Arc<Desk>,
}

/// Every pipeline that runs, or drains.
#[derive(Debug, Default)]
pub(super) struct RunningPipelines {
    list: Mutex<Vec<Arc<Running>>>,
    /// Held over each change of the list or of a pipeline in it: one at a time.
    pub(super) edits: tokio::sync::Mutex<()>,
}

impl RunningPipelines {
    pub(super) fn list(&self) -> Vec<Arc<Running>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn push(&self, running: Running) {
        self.list.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::new(running));
    }

    /// Returns the pipeline with this key.
    pub(super) fn find(&self, uid: &str) -> Option<Arc<Running>> {
        self.list().into_iter().find(|running| **running.pipeline.uid() == *uid)
    }

    /// Takes a pipeline out; returns whether it was there.
    pub(super) fn take(&self, gone: &Arc<Running>) -> bool {
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        let before = list.len();
        list.retain(|running| !Arc::ptr_eq(running, gone));
        list.len() < before
    }
}

/// Returns the progress of a delivery that goes on; that it was removed once is taken back before anything is accepted.
async fn taken_back(log: &Log, key: &DeliveryKey, progress: &Progress) -> Progress {
    if progress.removed.is_some()
        && let Err(error) = log.set_removed(vec![key.clone()], None).await
    {
        tracing::warn!(%error, route = %key.route, "could not note that a reference is back");
    }
    super::saving::reconciled(log, key, Progress { removed: None, ..progress.clone() }).await
}

/// Returns where each delivery begins, or goes on. Where a new one begins is written down before anything is taken in: a
/// process that dies early must not make it begin behind what was accepted for it.
async fn begin(
    log: &Log,
    seats: &Seats,
    specs: Vec<DeliverySpec>,
    saved: &[(DeliveryKey, Progress)],
) -> Result<Vec<(DeliverySpec, Progress)>, JournalError> {
    let mut begun = Vec::with_capacity(specs.len());
    for spec in specs {
        let key = spec.key();
        let progress = match (saved.iter().find(|(known, _)| *known == key), seats.begins(&spec.route)) {
            (Some((_, progress)), _) => taken_back(log, &key, progress).await,
            (None, from) => {
                let first = || first_progress(log, &spec.route, saved.is_empty());
                let begins = from.map_or_else(first, |from| progress_from(log, &spec.route, from));
                let progress = Progress { grouped: seats.is_group(&spec.route), ..begins };
                log.save(&key, &progress, true).await?;
                progress
            }
        };
        begun.push((spec, progress));
    }
    Ok(begun)
}

/// A new reference starts at the edit; where no cursor was ever saved, or all were lost, at the first event there is.
pub(super) fn first_progress(log: &Log, route: &str, first_ever: bool) -> Progress {
    let census = log.census();
    let routed = census.routed_events(route) as i64;
    if !first_ever {
        let cursor = log.visible_end();
        return Progress { cursor, began: Some(cursor), routed_before: routed, ..Progress::default() };
    }
    progress_from(log, route, log.first_seq())
}

/// Returns the progress of a delivery that begins at `cursor`.
pub(super) fn progress_from(log: &Log, route: &str, cursor: u64) -> Progress {
    let census = log.census();
    let routed = census.routed_events(route) as i64;
    let there = log.count_events(&census, route, cursor, u64::MAX).map_or(0, |(events, _)| events as i64);
    Progress { cursor, began: Some(cursor), routed_before: routed - there, ..Progress::default() }
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
pub(super) fn random() -> u64 {
    let mut bytes = [0u8; 8];
    let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    if filled != Ok(bytes.len()) {
        // Without the system's numbers: two differently keyed hashes of nothing, seeded by the standard library.
        use std::hash::{BuildHasher, Hasher};
        return std::collections::hash_map::RandomState::new().build_hasher().finish();
    }
    u64::from_le_bytes(bytes)
}
