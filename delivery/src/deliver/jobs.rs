//! Jobs: bounded deliveries that people ask for, beside those of the configuration.
//!
//! A **redrive** sends dead letters again; a **replay** sends a range of the log again. Either is a delivery like any
//! other (batches, plans, retries, backend, ledger) that reads its log with a cursor of its own from one sequence to
//! another; no event is copied. What was asked for is stored, so a job goes on after a restart, where it was.
//!
//! # Guarantees
//! - Events keep their ids, origins and times of receipt; batches get keys of their own, so that no server takes them for
//!   batches it has had.
//! - A letter goes only when a backend has its event, or when a new letter took its place; never before that is durable.
//! - Two redrives never mean the same letter: one at a time for a route and backend.
//! - A crash at any moment loses nothing, and counts nothing twice: what a job has resolved is counted in with its end, under
//!   its id. An event whose batch was under way may reach the backend again, as in any delivery.
//! - A job goes to its backend as the configuration has it now: an edit reaches one that runs as it reaches a delivery, and
//!   one that waits for a backend goes on when that comes. Batches that were planned keep their members and their keys. One
//!   whose backend is gone for it ends with the reason: what it did not send stays where it was, in the log or a letter.
//!
//! # Limits
//! [`ACTIVE_MAX`] jobs of one pipeline at once; the last [`ENDED_MAX`] that are over are remembered. A replay keeps the
//! segments it still needs; at its quota the log waits for it as for any delivery.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::batches::Names;
use super::budget::Budget;
use super::deliveries::{Order, Task};
use super::delivery::{Delivery, Ground, JobGround};
use super::desk::Desk;
use super::life::BackendKind;
use super::status::DeliveryStatus;
use super::unanswered::Unanswered;
use super::{DeliverySpec, dead_letters};
use crate::clock::Clock;
use crate::filesystem::Filesystem;
use crate::ledger::{BreakerState, DeliveryState};
use crate::log::{Log, Progress, ReadError};
use crate::settings::OnUndeliverable;
use crate::supervisor::Supervisor;

mod job;
mod redrive;
mod renew;
mod replay;
mod report;
mod store;

pub(super) use job::is_job;
pub use job::{Job, JobEnd, JobKind, Outcome};
pub use redrive::{RedriveRequest, Redriven};
pub use renew::{Renew, Renewed};
pub use replay::{ReplayRequest, Replayed};
pub(super) use store::Store;

/// Most jobs of one pipeline that run at once.
pub const ACTIVE_MAX: usize = 16;

/// Most jobs of one pipeline that are over and still told.
pub const ENDED_MAX: usize = 32;

/// How long the end of a job waits that could not be written down.
const END_AGAIN_PERIOD: Duration = Duration::from_secs(1);

/// Why a job was not begun, or letters were not purged.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// What was asked for is not understood.
    #[error("{0}")]
    Request(String),
    /// Nothing is there that was asked for.
    #[error("{0}")]
    Nothing(String),
    /// Something else has to end first.
    #[error("{0}")]
    UnderWay(String),
    /// A log cannot be read.
    #[error("log cannot be read for the job")]
    Read(#[from] ReadError),
    /// The job cannot be written down.
    #[error("job cannot be written down")]
    Save(#[source] io::Error),
}

/// Where a job sends to: what the host makes a delivery of.
#[derive(Debug, Clone)]
pub struct JobTarget {
    /// The namespace of the pipeline.
    pub namespace: Arc<str>,
    /// The pipeline.
    pub pipeline: Arc<str>,
    /// The route.
    pub route: Arc<str>,
    /// The backend, as a route would name it.
    pub backend: Arc<str>,
    /// The job, so that files and keys of two deliveries never meet.
    pub job: String,
}

/// Makes deliveries for jobs: the host knows the backends. Says in words why it cannot.
pub type Workshop = dyn Fn(&JobTarget) -> Result<DeliverySpec, String> + Send + Sync;

/// What jobs share with the deliveries of the engine.
#[derive(Clone)]
pub(super) struct Hand {
    pub(super) deliveries: Supervisor,
    pub(super) budget: Budget,
    pub(super) hurry: watch::Sender<bool>,
    pub(super) clock: Clock,
    pub(super) filesystem: Arc<dyn Filesystem>,
    pub(super) data_dir: PathBuf,
    pub(super) workshop: Arc<OnceLock<Arc<Workshop>>>,
}

impl std::fmt::Debug for Hand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hand").field("data_dir", &self.data_dir).finish_non_exhaustive()
    }
}

/// The jobs of one pipeline.
#[derive(Debug)]
pub(super) struct Jobs {
    pub(super) hand: Hand,
    store: Store,
    list: Mutex<Vec<Job>>,
    running: Mutex<BTreeMap<String, Running>>,
    /// Taken by whoever begins or ends a job, or resolves letters.
    turn: tokio::sync::Mutex<()>,
    /// Held from the moment that deliveries of jobs are made until they run: an edit of their backends is either in them, or
    /// finds them running.
    making: tokio::sync::Mutex<()>,
}

/// A job at run time.
#[derive(Debug, Clone)]
struct Running {
    status: Arc<DeliveryStatus>,
    log: Log,
    cancel: CancellationToken,
    orders: Arc<watch::Sender<Order>>,
}

impl Jobs {
    pub(super) fn new(hand: Hand, uid: &Arc<str>) -> Self {
        let store = Store::new(&hand.filesystem, &hand.data_dir, uid);
        Self {
            hand,
            store,
            list: Mutex::default(),
            running: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            making: tokio::sync::Mutex::default(),
        }
    }

    fn list(&self) -> MutexGuard<'_, Vec<Job>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<String, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, id: &str) -> Option<Job> {
        self.list().iter().find(|job| job.id == id).cloned()
    }

    fn active(&self) -> usize {
        self.list().iter().filter(|job| job.outcome.is_none()).count()
    }

    /// Adds a job or changes one, durably; nothing is changed when that fails.
    async fn put(&self, job: Job) -> Result<(), JobError> {
        let mut jobs = self.list().clone();
        match jobs.iter_mut().find(|known| known.id == job.id) {
            Some(known) => *known = job,
            None => jobs.push(job),
        }
        let store = self.store.clone();
        let written = tokio::task::spawn_blocking(move || store.write(&mut jobs).map(|()| jobs)).await;
        let jobs = written.unwrap_or_else(|error| Err(io::Error::other(error))).map_err(JobError::Save)?;
        *self.list() = jobs;
        Ok(())
    }
}

impl Desk {
    /// Returns the jobs, oldest first.
    pub fn jobs(&self) -> Vec<Job> {
        self.jobs.list().clone()
    }

    /// Tells a job to end: what is under way lands, the rest stays where it is. Returns whether there is such a job.
    pub async fn cancel(&self, id: &str) -> Result<bool, JobError> {
        let there = self.end_by(id, |job| Job { cancelled: true, ..job }).await?;
        if there {
            tracing::info!(job = id, "job is cancelled");
        }
        Ok(there)
    }

    /// Writes down that a job is to end, as `told` says it, and tells it.
    async fn end_by(&self, id: &str, told: impl FnOnce(Job) -> Job) -> Result<bool, JobError> {
        let _turn = self.jobs.turn.lock().await;
        let Some(job) = self.jobs.get(id).filter(|job| job.outcome.is_none()) else { return Ok(false) };
        self.jobs.put(told(job)).await?;
        if let Some(running) = self.jobs.running().get(id) {
            running.cancel.cancel();
        }
        Ok(true)
    }

    /// Goes on with the jobs that an earlier process began.
    pub(super) async fn resume(self: &Arc<Self>) {
        let _turn = self.jobs.turn.lock().await;
        let store = self.jobs.store.clone();
        let read = tokio::task::spawn_blocking(move || store.read()).await;
        match read.unwrap_or_else(|error| Err(io::Error::other(error))) {
            Ok(jobs) => *self.jobs.list() = jobs,
            Err(error) => {
                tracing::error!(%error, uid = %self.pipeline.uid(), "jobs cannot be read; they wait for the next start");
                return;
            }
        }
        let shelf = self.dead_letters.shelf.get().map(|shelf| shelf.log.clone());
        for log in [Some(self.pipeline.log().clone()), shelf].into_iter().flatten() {
            self.forget_unknown(&log).await;
        }
        let _making = self.jobs.making.lock().await;
        for job in self.jobs().into_iter().filter(|job| job.outcome.is_none()) {
            let Some(log) = self.log_of(job.kind).await else { continue };
            let saved = log.progress(&job.key());
            let progress = saved.unwrap_or_else(|| self.beginning(&job, &log));
            let none = || super::gone::spec(&job.key(), self.pipeline.settings().log.drain);
            // One that only has to end sends nothing any more.
            let made = if job.is_told_to_end() { Ok(none()) } else { self.spec(&job) };
            let spec = made.unwrap_or_else(|error| {
                tracing::warn!(job = %job.id, error, "job waits for its backend");
                none()
            });
            tracing::info!(job = %job.id, kind = ?job.kind, route = %job.route, backend = %job.backend, "job goes on");
            self.run(&job, spec, log, progress);
        }
    }

    /// A cursor whose job is over, or not known, holds nothing any more.
    async fn forget_unknown(&self, log: &Log) {
        let jobs = self.jobs();
        let open = |key: &_| jobs.iter().any(|job| job.outcome.is_none() && job.key() == *key);
        for (key, _) in log.saved_deliveries().into_iter().filter(|(key, _)| is_job(key) && !open(key)) {
            if let Err(error) = log.forget(&key).await {
                tracing::warn!(%error, "could not forget the cursor of a job that is over");
            }
        }
    }

    /// Returns the log that a kind of job reads.
    async fn log_of(&self, kind: JobKind) -> Option<Log> {
        match kind {
            JobKind::Replay => Some(self.pipeline.log().clone()),
            JobKind::Redrive => self.dead_letters.open().await.map(|shelf| shelf.log.clone()),
        }
    }

    /// Returns where a job begins. Letters that are resolved already are not its own.
    fn beginning(&self, job: &Job, log: &Log) -> Progress {
        let mut progress = job.beginning(log.running_ms());
        if let Some(shelf) = self.dead_letters.shelf.get().filter(|_| job.kind == JobKind::Redrive) {
            let resolved = shelf.progress();
            progress.resolve(job.from, resolved.cursor.min(job.end));
            for (from, to) in resolved.resolved {
                progress.resolve(from.max(job.from), to.min(job.end));
            }
        }
        progress
    }

    fn spec(&self, job: &Job) -> Result<DeliverySpec, String> {
        let Some(workshop) = self.jobs.hand.workshop.get() else {
            return Err("this process makes no deliveries for jobs".into());
        };
        workshop(&self.target_of(job)).map(kept_when_refused)
    }

    fn target_of(&self, job: &Job) -> JobTarget {
        let settings = self.pipeline.settings();
        JobTarget {
            namespace: settings.namespace.clone(),
            pipeline: settings.name.clone(),
            route: job.route.clone(),
            backend: job.backend.clone(),
            job: job.id.clone(),
        }
    }

    /// Writes a job down and runs it.
    async fn begin(self: &Arc<Self>, job: &Job, spec: DeliverySpec, log: Log) -> Result<(), JobError> {
        let progress = self.beginning(job, &log);
        // From here on nothing goes that the job needs.
        log.set_floor(&job.key(), job.from);
        // The cursor first: one without a job is forgotten at the next start, a job without one would run then.
        let saved = log.save(&job.key(), &progress, true).await;
        let stored = match saved {
            Ok(()) => self.jobs.put(job.clone()).await,
            Err(error) => Err(JobError::Save(io::Error::other(error))),
        };
        if let Err(error) = stored {
            log.drop_floor(&job.key());
            if let Err(error) = log.forget(&job.key()).await {
                tracing::debug!(job = %job.id, %error, "the cursor of a job that did not begin stays for now");
            }
            return Err(error);
        }
        tracing::info!(
            job = %job.id, kind = ?job.kind, route = %job.route, backend = %job.backend, events = job.selected, "job begins"
        );
        self.run(job, spec, log, progress);
        Ok(())
    }

    fn run(self: &Arc<Self>, job: &Job, spec: DeliverySpec, log: Log, progress: Progress) {
        let hand = &self.jobs.hand;
        let cancel = hand.deliveries.stopping().child_token();
        if job.is_told_to_end() {
            cancel.cancel();
        }
        let status = DeliveryStatus::new(&spec, progress.clone(), DeliveryState::Healthy, hand.clock.clone());
        let (orders, receiver) = watch::channel(Order { spec, task: Task::Deliver, seat: None, at_once: false });
        let orders = Arc::new(orders);
        let ground = Ground {
            log: log.clone(),
            names: Names::of_job(&self.pipeline.settings(), job),
            budget: hand.budget.clone(),
            dead_letters: self.dead_letters.clone(),
            status: status.clone(),
            hurry: hand.hurry.subscribe(),
            orders: receiver,
            deliveries: Arc::default(),
            drain_until_ms: None,
            revoked: false,
            job: Some(JobGround { key: job.key(), letters: job.kind == JobKind::Redrive }),
            group: None,
            released: None,
            earlier: None,
            was_well: true,
            unanswered: Unanswered::default(),
        };
        if let Some(shelf) = self.dead_letters.shelf.get().filter(|_| job.kind == JobKind::Redrive) {
            shelf.hide(job);
        }
        let running = Running { status, log, cancel: cancel.clone(), orders };
        self.jobs.running().insert(job.id.clone(), running.clone());
        let (desk, id) = (self.clone(), job.id.clone());
        hand.deliveries.spawn("job", async move {
            deliver(ground, progress, xxhash_rust::xxh3::xxh3_64(id.as_bytes()), cancel).await;
            desk.over(&id, &running.log).await;
        });
    }

    /// Brings a job whose delivery has stopped to its end, as often as it takes.
    async fn over(&self, id: &str, log: &Log) {
        let stopping = self.jobs.hand.deliveries.stopping();
        while let Err(error) = self.finish(id, log).await {
            tracing::warn!(job = id, %error, "the end of a job cannot be written down; trying again");
            let wait = tokio::time::sleep(END_AGAIN_PERIOD);
            if stopping.run_until_cancelled(wait).await.is_none() {
                return;
            }
        }
    }

    async fn finish(&self, id: &str, log: &Log) -> Result<(), JobError> {
        let _turn = self.jobs.turn.lock().await;
        let Some(job) = self.jobs.get(id) else { return Ok(()) };
        let progress = log.progress(&job.key()).unwrap_or_else(|| self.beginning(&job, log));
        let done = progress.cursor >= job.end;
        if !done && !job.is_told_to_end() {
            // The process stops; the next one goes on.
            return Ok(());
        }
        if job.kind == JobKind::Redrive
            && let Some(shelf) = self.dead_letters.shelf.get()
        {
            shelf.settle(&job, &progress).await?;
        }
        let resolved = progress.delivered + progress.duplicates + progress.rejected;
        // What the job did not meet any more was damaged.
        let lost =
            if done { job.selected.saturating_sub(resolved + progress.dropped.values().sum::<u64>()) } else { 0 };
        let outcome = Outcome {
            end: if done { JobEnd::Done } else { JobEnd::Cancelled },
            ended: self.jobs.hand.clock.now(),
            delivered: progress.delivered,
            duplicates: progress.duplicates,
            rejected: progress.rejected,
            dropped: progress.dropped.values().sum::<u64>() + lost,
            reason: job.fails_for.clone().filter(|_| !done),
        };
        let Outcome { delivered, duplicates, rejected, .. } = outcome;
        let (selected, kind) = (job.selected, job.kind);
        self.jobs.put(Job { outcome: Some(outcome), ..job.clone() }).await?;
        if let Err(error) = log.forget(&job.key()).await {
            // Its cursor is forgotten at the next start.
            tracing::debug!(job = id, %error, "the cursor of a job stays for now");
            log.drop_floor(&job.key());
        }
        self.jobs.running().remove(id);
        if let Some(shelf) = self.dead_letters.shelf.get() {
            shelf.unhide(id);
        }
        tracing::info!(job = id, ?kind, done, selected, delivered, duplicates, rejected, "job is over");
        Ok(())
    }
}

/// Delivers a job's range until that is done, it is cancelled or the process stops; goes over to another backend when told so.
async fn deliver(mut ground: Ground, mut progress: Progress, seed: u64, cancel: CancellationToken) {
    let mut kind = BackendKind::default();
    loop {
        let spec = ground.orders.borrow_and_update().spec.clone();
        kind.turn(&spec, &mut progress);
        ground.status.bind(&spec);
        let parted = Delivery::new(spec, ground, progress, seed).run(cancel.clone()).await;
        let has_other = parted.ground.orders.has_changed().unwrap_or(false);
        if parted.ended || cancel.is_cancelled() || !has_other {
            return;
        }
        (ground, progress) = (parted.ground, parted.progress);
        let breaker = if ground.was_well { BreakerState::Closed } else { BreakerState::HalfOpen };
        ground.status.enter(DeliveryState::Healthy, breaker);
    }
}

/// What a backend refuses of a job is a letter, whatever its route says.
fn kept_when_refused(mut spec: DeliverySpec) -> DeliverySpec {
    spec.settings.on_undeliverable = OnUndeliverable::DeadLetter;
    spec
}

/// Returns an id that no job of the desk has.
fn draw_id(jobs: &[Job]) -> String {
    loop {
        let id = format!("{:08x}", super::engine::random() as u32);
        if jobs.iter().all(|job| job.id != id) {
            return id;
        }
    }
}
