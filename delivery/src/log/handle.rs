//! The log as the rest of the engine sees it: append and wait, read and wait, save, free.
//!
//! One task commits: it takes what is queued, writes it (and syncs it, at level `Disk`) off the runtime's threads, shows
//! it to readers and resolves the receipts. While a sync runs, the next group queues up: that is the group commit.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::core::{Keep, LogCore, OpenOptions, SegmentInfo};
use super::frame::{Frame, Pending};
use super::journal::{DeliveryKey, Journal, JournalError, Progress};
use super::recovery::Recovered;
use super::segment::SegmentFile;
use super::state::{AcceptedEvents, State};
use super::{GROUP_BYTES_MAX, TAIL_BYTES_MAX, UNSYNCED_BYTES_MAX};
use crate::clock::Clock;
use crate::event::Origin;
use crate::filesystem::Filesystem;
use crate::intake::RefusalReason;
use crate::ledger::LogReport;
use crate::settings::{Durability, LogSettings};
use crate::supervisor::Supervisor;

mod ahead;
mod claim;
mod commit;
mod edit;
mod fill;
mod memory;
mod oldest;
mod ranges;
mod reader;
mod room;

pub use claim::KeyClaim;
pub(crate) use edit::Receipt;
pub use reader::{Census, LogReader, ReadError};
pub(crate) use room::{ROOM_ASK_PERIOD, ROOM_WAIT_MAX};

/// How long written data may stay unsynced at level `Process`.
const UNSYNCED_TIME_MAX: Duration = Duration::from_secs(1);
/// How often what only memory holds is looked after when nothing else happens.
const MEMORY_PERIOD: Duration = Duration::from_secs(1);
/// How long a log that cannot be written waits before it tries again by itself.
const MEND_PERIOD: Duration = Duration::from_secs(1);

/// What a log is opened with.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// Where its files are.
    pub dir: PathBuf,
    /// The file system.
    pub filesystem: Arc<dyn Filesystem>,
    /// Wall time.
    pub clock: Clock,
    /// What the pipeline says.
    pub settings: LogSettings,
    /// The routes, in the order of the masks' bits.
    pub routes: Vec<Arc<str>>,
    /// Bytes that must stay free on the volume.
    pub free_bytes_min: u64,
}

/// Why bytes could not be reserved, or a batch not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// Why.
    pub reason: RefusalReason,
    /// Whether the batch may come back after a crash although it was refused.
    pub maybe_kept: bool,
    /// Whether deliveries that drop their oldest are making room for it now.
    pub room_soon: bool,
}

/// A log, open. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Log {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    options: LogOptions,
    opened: Instant,
    recovered: Recovered,
    incarnation: u64,
    /// Running time of the log when it was opened.
    running_base_ms: u64,
    /// The writer; locked off the runtime's threads where files are touched, else for as long as memory takes.
    core: Mutex<LogCore>,
    journal: Mutex<Journal>,
    shared: Mutex<Shared>,
    /// Work for the committer.
    work: Notify,
    /// Sequence behind the last event that readers may see.
    visible: watch::Sender<u64>,
    /// Rung when bytes were freed.
    room: Notify,
    /// Rung when a reader went on.
    read: Notify,
    /// Counts how often deliveries were asked to make room.
    asks: watch::Sender<u64>,
    /// Rung when a key is no longer on its way.
    claims: Notify,
    /// Told to the committer; and told by it when it has come to its end.
    stop: CancellationToken,
    ended: CancellationToken,
}

/// The segment being written: its ordinal, its file, its origins so far.
type ActiveSegment = (u64, SegmentFile, Arc<[Arc<Origin>]>);

#[derive(Debug)]
struct Waiting {
    pending: Pending,
    bytes: u64,
    answer: Answer,
}

/// Whom to tell what became of a batch.
#[derive(Debug)]
struct Answer {
    reply: oneshot::Sender<Result<(), Refused>>,
    /// Held until the key is known or the batch is not kept, whether its sender waits for it or not. Not to be dropped under
    /// the lock of [`Shared`].
    claim: Option<KeyClaim>,
}

#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "orders to the committer and states, each for itself")]
struct Shared {
    /// What the pipeline says now.
    settings: LogSettings,
    queue: VecDeque<Waiting>,
    /// Batches queued, and taken by the committer, since the open: where in the queue an edit stands.
    queued: u64,
    taken: u64,
    edits: VecDeque<edit::Order>,
    reserved: u64,
    disk_bytes: u64,
    free_bytes: u64,
    trouble: Option<RefusalReason>,
    /// What the last reservation was refused for: one log line per change of state.
    refusing: Option<RefusalReason>,
    last_error: Option<String>,
    failures: u64,
    /// As of the last turn of the committer, whose lock is held as long as a volume takes for a sync.
    syncs: u64,
    /// State with every frame that readers may see.
    state: State,
    /// Fresh frames, oldest first: all visible ones from `tail_start` on.
    tail: VecDeque<Arc<Frame>>,
    tail_bytes: usize,
    tail_start: u64,
    memory: memory::InMemory,
    segments: BTreeMap<u64, Arc<SegmentInfo>>,
    active: Option<ActiveSegment>,
    /// Durable cursors: what lies below all of them may go.
    floors: BTreeMap<DeliveryKey, u64>,
    /// Where each reader stands: what all have read leaves the memory tail.
    readers: BTreeMap<u64, u64>,
    next_reader: u64,
    free_wanted: bool,
    seal_wanted: bool,
    sync_wanted: u64,
    synced_seq: u64,
    damaged: u64,
    /// Damaged places that were met since: segment and offset.
    damaged_at: BTreeSet<(u64, u64)>,
    /// Places that the device refuses to read, each with the first and the last time it did.
    unreadable: BTreeMap<(u64, u64), (Instant, Instant)>,
    /// How often a reader went over one.
    damage_passed: u64,
    /// Whether something is written and not synced.
    unsynced: bool,
    claimed: HashSet<(Bytes, Bytes)>,
    closed: bool,
    room: room::Room,
    /// How each delivery's backlog grew lately.
    fills: BTreeMap<DeliveryKey, fill::Fill>,
}

/// Bytes set aside in a log for one batch. Dropping it gives them back.
#[derive(Debug)]
pub struct Reservation {
    log: Log,
    bytes: u64,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.log.shared().reserved -= self.bytes;
    }
}

impl Shared {
    /// Returns what a writer that was just opened shows.
    fn of(core: &LogCore, settings: LogSettings) -> Self {
        let next_seq = core.next_seq();
        Self {
            settings,
            queue: VecDeque::new(),
            queued: 0,
            taken: 0,
            edits: VecDeque::new(),
            reserved: 0,
            disk_bytes: core.bytes(),
            free_bytes: u64::MAX,
            trouble: None,
            refusing: None,
            last_error: None,
            failures: 0,
            syncs: 0,
            state: core.state(),
            tail: VecDeque::new(),
            tail_bytes: 0,
            tail_start: next_seq,
            memory: memory::InMemory::of(core),
            segments: core.segments.iter().map(|(ordinal, info)| (*ordinal, Arc::new(info.clone()))).collect(),
            active: core.active_file().map(|(ordinal, file, origins)| (ordinal, file, origins.into())),
            floors: BTreeMap::new(),
            readers: BTreeMap::new(),
            next_reader: 0,
            free_wanted: false,
            seal_wanted: false,
            sync_wanted: 0,
            synced_seq: if core.is_writing() { next_seq } else { 0 },
            damaged: 0,
            damaged_at: BTreeSet::new(),
            unreadable: BTreeMap::new(),
            damage_passed: 0,
            unsynced: false,
            claimed: HashSet::new(),
            closed: false,
            room: room::Room::default(),
            fills: BTreeMap::new(),
        }
    }
}

impl Log {
    /// Opens a log: recovery, a new incarnation, and its committer task under `owner`. Blocks.
    pub fn open(options: LogOptions, owner: &Supervisor, incarnation: u64) -> io::Result<Self> {
        let fs = options.filesystem.clone();
        fs.create_dir_all(&options.dir)?;
        let journal = Journal::open_to_save(fs.clone(), &options.dir)?;
        let open = OpenOptions {
            dir: options.dir.clone(),
            durability: options.settings.durability,
            bytes_max: options.settings.bytes_max,
            routes: options.routes.clone(),
            incarnation,
            seq_min: journal.seq_min(),
            now: options.clock.now(),
        };
        let (core, mut recovered) = LogCore::open(fs.clone(), open)?;
        recovered.lost_events = memory::lost_events(&recovered, journal.progress());
        let next_seq = core.next_seq();
        let mut shared = Shared::of(&core, options.settings.clone());
        shared.free_bytes = fs.free_bytes(&options.dir).unwrap_or(u64::MAX);
        let in_segments = recovered.damaged_records + recovered.quarantined_segments + recovered.unreadable_segments;
        shared.damaged = in_segments + journal.damaged();
        // What every known delivery may still need stays until it has saved anew: what the journal shows may be in the
        // page cache alone.
        shared.floors = journal.progress().keys().map(|key| (key.clone(), 0)).collect();
        let log = Self {
            inner: Arc::new(Inner {
                options,
                opened: Instant::now(),
                recovered,
                incarnation,
                running_base_ms: core.running_ms(Duration::ZERO),
                core: Mutex::new(core),
                journal: Mutex::new(journal),
                shared: Mutex::new(shared),
                work: Notify::new(),
                visible: watch::channel(next_seq).0,
                room: Notify::new(),
                read: Notify::new(),
                asks: watch::channel(0).0,
                claims: Notify::new(),
                stop: owner.stopping().child_token(),
                ended: CancellationToken::new(),
            }),
        };
        owner.spawn("log committer", commit::run(log.clone(), log.inner.stop.clone()));
        Ok(log)
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.inner.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns what recovery met at the open.
    pub fn recovered(&self) -> Recovered {
        self.inner.recovered
    }

    /// Returns the incarnation this open began.
    pub fn incarnation(&self) -> u64 {
        self.inner.incarnation
    }

    /// Returns the level of its acknowledgements.
    pub fn durability(&self) -> Durability {
        self.shared().settings.durability
    }

    /// Returns the running time of the log, which goes on where the last process left it.
    pub fn running_ms(&self) -> u64 {
        self.inner.running_base_ms + self.inner.opened.elapsed().as_millis() as u64
    }

    /// Appends a batch whose bytes were reserved and returns when it has reached the log's level.
    ///
    /// # Cancel safety
    /// The batch may be kept although the caller went away.
    pub async fn append(&self, reservation: Reservation, pending: Pending) -> Result<(), Refused> {
        self.enqueue(reservation, pending, None).wait().await
    }

    /// Returns where `source` stood in the last batch that was kept.
    pub fn position(&self, source: &[u8]) -> Option<Bytes> {
        self.shared().state.position(source)
    }

    /// Returns every live position.
    pub fn positions(&self) -> Vec<(Bytes, Bytes)> {
        self.shared().state.positions()
    }

    /// Returns what a delivery has saved, if anything.
    pub fn progress(&self, key: &DeliveryKey) -> Option<Progress> {
        self.journal().progress().get(key).cloned()
    }

    /// Returns every delivery that has saved something.
    pub fn saved_deliveries(&self) -> Vec<(DeliveryKey, Progress)> {
        self.journal().progress().iter().map(|(key, progress)| (key.clone(), progress.clone())).collect()
    }

    /// Whether a cursor below all that is there must have been further: nothing else of the log is missing.
    pub(crate) fn lost_cursors(&self) -> bool {
        let found = self.inner.recovered;
        found.quarantined_segments + found.unreadable_segments == 0 || self.journal().damaged() > 0
    }

    fn journal(&self) -> MutexGuard<'_, Journal> {
        self.inner.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Saves what a delivery has resolved. The log itself is synced first as far as it is named, then the record, so that
    /// no cursor outlives its data; at level `Memory` it may. With `sync` off the record survives SIGKILL only (for plans at level `Process`).
    pub async fn save(&self, key: &DeliveryKey, progress: &Progress, sync: bool) -> Result<(), JournalError> {
        if sync && self.durability() != Durability::Memory {
            self.sync_to(progress.seq_min()).await.map_err(JournalError::Write)?;
        }
        let (log, owned_key, progress) = (self.clone(), key.clone(), progress.clone());
        let cursor = progress.cursor;
        let saved = tokio::task::spawn_blocking(move || log.journal().save(&owned_key, &progress, sync)).await;
        saved.unwrap_or_else(|error| Err(JournalError::Write(io::Error::other(error))))?;
        if sync {
            self.set_floor(key, cursor);
        }
        Ok(())
    }

    /// Makes what lies below `cursor` free to go, as far as this delivery is concerned.
    pub fn set_floor(&self, key: &DeliveryKey, cursor: u64) {
        let mut shared = self.shared();
        shared.floors.insert(key.clone(), cursor);
        // One that takes over what another had goes back behind what it had passed itself.
        shared.memory.goes_back(key, cursor);
        let low = shared.floors.values().copied().min().unwrap_or(0);
        let first_end = shared.segments.values().next().map_or(u64::MAX, |info| info.summary.end_seq);
        if low >= first_end {
            shared.free_wanted = true;
            self.inner.work.notify_one();
        }
    }

    /// Returns the cursor that a delivery synced last, 0 where it has synced none since the open.
    pub(crate) fn floor(&self, key: &DeliveryKey) -> u64 {
        self.shared().floors.get(key).copied().unwrap_or(0)
    }

    /// Forgets a delivery that has come to its end; it holds nothing any more.
    pub async fn forget(&self, key: &DeliveryKey) -> Result<(), JournalError> {
        let (log, owned) = (self.clone(), key.clone());
        let done = tokio::task::spawn_blocking(move || log.journal().forget(&owned)).await;
        done.unwrap_or_else(|error| Err(JournalError::Write(io::Error::other(error))))?;
        let mut shared = self.shared();
        shared.floors.remove(key);
        shared.room.forget(key);
        shared.memory.forget(key);
        Ok(())
    }

    /// Returns when everything below `seq` survives power loss.
    async fn sync_to(&self, seq: u64) -> io::Result<()> {
        let mut visible = self.inner.visible.subscribe();
        loop {
            {
                let mut shared = self.shared();
                if shared.synced_seq >= seq.min(*self.inner.visible.borrow()) {
                    return Ok(());
                }
                if let Some(trouble) = shared.trouble {
                    return Err(io::Error::other(format!("the log cannot be synced ({})", trouble.as_str())));
                }
                shared.sync_wanted = shared.sync_wanted.max(seq);
            }
            self.inner.work.notify_one();
            if visible.changed().await.is_err() {
                return Err(io::Error::other("the log is closed"));
            }
        }
    }

    /// Refuses new batches from now on. What is queued is still written.
    pub fn close(&self) {
        self.shared().closed = true;
        self.inner.work.notify_one();
    }

    /// Returns the sequence behind the last event readers may see.
    pub fn visible_end(&self) -> u64 {
        *self.inner.visible.borrow()
    }

    /// Returns a reader that begins at `seq`.
    pub fn reader(&self, seq: u64) -> LogReader {
        LogReader::new(self.clone(), seq)
    }

    /// Returns all events of a route ever appended.
    pub fn routed_events(&self, route: &str) -> u64 {
        self.shared().state.totals.routes.get(route).copied().unwrap_or(0)
    }

    /// Returns what became of all events ever accepted.
    pub fn accepted_events(&self) -> AcceptedEvents {
        self.shared().state.totals.accepted()
    }

    /// Returns how many damaged records and segments were met, ever since the open.
    pub fn damaged(&self) -> u64 {
        self.shared().damaged
    }

    /// Returns how often a reader went over a damaged place.
    pub(crate) fn damage_passed(&self) -> u64 {
        self.shared().damage_passed
    }

    /// Returns the first sequence that may still be there.
    pub fn first_seq(&self) -> u64 {
        self.shared().segments.values().next().map_or(1, |info| info.base_seq)
    }

    /// Returns the figures.
    pub fn report(&self) -> LogReport {
        let shared = self.shared();
        let (memory_bytes, spilled_frames, spilled_bytes) = shared.memory.figures();
        // At the floor of free space nothing fails, and what was refused last says so.
        let at_floor = shared.refusing.filter(|reason| *reason == RefusalReason::NoSpace);
        let wrong = shared.trouble.or(at_floor).map(RefusalReason::as_str);
        LogReport {
            state: wrong.unwrap_or(if shared.is_full() { "full" } else { "ok" }).to_owned(),
            bytes: shared.disk_bytes,
            bytes_max: shared.settings.bytes_max,
            segments: shared.segments.len() as u64,
            first_seq: shared.segments.values().next().map_or(0, |info| info.base_seq),
            next_seq: *self.inner.visible.borrow(),
            syncs: shared.syncs,
            memory_bytes,
            spilled_frames,
            spilled_bytes,
            lost_events: self.inner.recovered.lost_events,
            failures: shared.failures,
            damaged: shared.damaged,
            forgotten_keys: shared.state.left_out.keys,
            left_out_positions: shared.state.left_out.positions,
            last_error: shared.last_error.clone(),
        }
    }

    /// Returns whether the committer has nothing left to do for receipts.
    pub fn is_quiet(&self) -> bool {
        self.shared().queue.is_empty()
    }
}
