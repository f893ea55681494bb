//! Saves of cursors and wake-ups of readers, each where it could go wrong without any test of the data noticing: a disk that
//! is full from the start, a journal that fails for a minute, a reader that falls asleep just as something is committed.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use rustix::io::Errno;
use spillway_delivery::backend::{Backend, Fault, Items, OutBatch, Outcome, Traits};
use spillway_delivery::clock::Clock;
use spillway_delivery::deliver::Engine;
use spillway_delivery::filesystem::{Faults, FaultyFs, File, Filesystem, SplitMix64};
use spillway_delivery::intake::{Intake, Pipeline};
use spillway_delivery::log::{DeliveryKey, Journal, Log, LogOptions, Masks, Pending, Progress};
use spillway_delivery::settings::{DeliverySettings, Durability, LogSettings, Strategy};
use spillway_delivery::supervisor::Supervisor;
use tokio::time::Instant;

use crate::common::{
    Store, batch, batch_of, disk, engine_over, kept_in_store, pipeline_of, reference, route, spec_of, time_goes_by,
    until_saved,
};

const DIR: &str = "/data/spool/uid";

fn open(fs: &FaultyFs, owner: &Supervisor, incarnation: u64) -> Log {
    let options = LogOptions {
        dir: DIR.into(),
        filesystem: Arc::new(fs.clone()),
        clock: Clock::manual(1),
        settings: LogSettings::default(),
        routes: vec!["all".into()],
        free_bytes_min: 0,
    };
    Log::open(options, owner, incarnation).unwrap()
}

fn key(backend: &str) -> DeliveryKey {
    DeliveryKey { route: "all".into(), backend_uid: backend.into() }
}

// ── A disk that is full from the start ──────────────────────────────────────────────────────────────────────────────────

#[tokio::test(start_paused = true)]
async fn cursors_are_saved_on_a_disk_that_is_full_since_the_start() {
    let fs = disk(Path::new("/data"));
    let owner = Supervisor::new("saves");
    let log = open(&fs, &owner, 1);
    fs.set_faults(Faults { capacity: Some(fs.used_bytes()), ..Faults::default() });
    let used = fs.used_bytes();
    // Enough records that both slots are written and turned over, some synced.
    let at = |cursor| Progress { cursor, mark: Some(Bytes::from(vec![7; 2000])), ..Progress::default() };
    for cursor in 1..400 {
        for backend in ["a", "b"] {
            log.save(&key(backend), &at(cursor), cursor % 7 == 0 || cursor == 399).await.unwrap();
        }
    }
    assert_eq!(fs.used_bytes(), used, "a save took more room");
    for next in [fs.kill(), fs.crash(3)] {
        let log = open(&next, &owner, 2);
        assert_eq!(log.progress(&key("a")).unwrap(), at(399));
        assert_eq!(log.progress(&key("b")).unwrap(), at(399));
    }
}

// ── A journal that fails ────────────────────────────────────────────────────────────────────────────────────────────────

/// A disk whose files of cursors refuse what is written, from a call on; hand-made, because faults by chance would hit the
/// log too. Refuses at most [`REFUSALS_MAX`] writes, so that a loop without a pause comes to its end and is seen.
#[derive(Debug, Clone)]
struct NoJournal {
    fs: FaultyFs,
    refuses: Arc<Mutex<Option<Errno>>>,
    /// When a write was refused.
    refused: Arc<Mutex<Vec<Instant>>>,
}

const REFUSALS_MAX: usize = 2_000;

#[derive(Debug)]
struct Watched {
    file: Arc<dyn File>,
    journal: Option<NoJournal>,
}

impl NoJournal {
    fn watched(&self, path: &Path, file: Arc<dyn File>) -> Arc<dyn File> {
        let of_journal = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("cursors."));
        Arc::new(Watched { file, journal: of_journal.then(|| self.clone()) })
    }

    fn refusal_of(&self) -> Option<Errno> {
        let error = (*self.refuses.lock().unwrap())?;
        let mut refused = self.refused.lock().unwrap();
        refused.push(Instant::now());
        (refused.len() <= REFUSALS_MAX).then_some(error)
    }

    fn refusal(&self) -> io::Result<()> {
        self.refusal_of().map_or(Ok(()), |error| Err(error.into()))
    }

    /// Returns the moments at which saves were tried. One attempt is up to four writes in one moment: into either slot, and
    /// what takes each back.
    fn attempts(&self) -> Vec<Instant> {
        let writes = self.refused.lock().unwrap();
        let mut attempts = writes.clone();
        attempts.dedup();
        assert!(writes.len() <= 4 * attempts.len(), "{} writes in {} moments", writes.len(), attempts.len());
        attempts
    }
}

impl File for Watched {
    fn write_at(&self, offset: u64, parts: &[&[u8]]) -> io::Result<()> {
        self.journal.as_ref().map_or(Ok(()), NoJournal::refusal)?;
        self.file.write_at(offset, parts)
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(offset, into)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }

    fn begin_sync(&self, bytes: Range<u64>) {
        self.file.begin_sync(bytes);
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.file.truncate(len)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
}

impl Filesystem for NoJournal {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(self.watched(path, self.fs.create(path)?))
    }

    fn open(&self, path: &Path, write: bool) -> io::Result<Arc<dyn File>> {
        Ok(self.watched(path, self.fs.open(path, write)?))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.fs.create_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.fs.sync_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        self.fs.list(path)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.fs.remove(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.fs.rename(from, to)
    }

    fn pause(&self, time: Duration) {
        self.fs.pause(time);
    }

    fn patience(&self) -> &spillway_delivery::filesystem::Patience {
        self.fs.patience()
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.fs.free_bytes(path)
    }
}

/// Takes everything, and says when.
#[derive(Debug, Default)]
struct Taking {
    traits: Traits,
    store: Store<(u32, Instant)>,
}

impl Taking {
    async fn until(&self, events: usize) {
        self.store.until(|got| got.len() >= events).await;
    }
}

impl Backend for Taking {
    fn send<'a>(&'a self, batch: &'a OutBatch) -> BoxFuture<'a, Result<Items, Fault>> {
        Box::pin(async move {
            let number = |bytes: &[u8]| String::from_utf8_lossy(&bytes[5..bytes.len() - 1]).parse().unwrap();
            self.store.add(batch.events().map(|event| (number(event.bytes), Instant::now())));
            Ok(Items::All(Outcome::Delivered))
        })
    }

    kept_in_store!();
}

async fn started(dir: &Path, fs: Arc<dyn Filesystem>, backend: &Arc<Taking>) -> (Engine, Arc<Pipeline>) {
    started_with(dir, fs, backend, LogSettings::default()).await
}

async fn started_with(
    dir: &Path,
    fs: Arc<dyn Filesystem>,
    backend: &Arc<Taking>,
    log: LogSettings,
) -> (Engine, Arc<Pipeline>) {
    let engine = engine_over(dir, fs, Clock::manual(1));
    let settings = pipeline_of(log, vec![route("all", Strategy::All, vec![reference("b")])]);
    let delivery = DeliverySettings { batch_wait_max: BATCH_WAIT, ..DeliverySettings::default() };
    let spec = spec_of("all", "b", backend.clone(), delivery);
    let pipeline = engine.add(settings, vec![spec], &|_| None).await.unwrap();
    (engine, pipeline)
}

const BATCH_WAIT: Duration = Duration::from_millis(5);

/// Lets the journal refuse for a minute of deliveries and returns when saves were tried.
async fn minute_without_journal(traits: Traits, error: Errno) -> Vec<Instant> {
    let dir = tempfile::tempdir().unwrap();
    let fs = NoJournal { fs: FaultyFs::new(1), refuses: Arc::default(), refused: Arc::default() };
    let backend = Arc::new(Taking { traits, ..Taking::default() });
    let (engine, pipeline) = started(dir.path(), Arc::new(fs.clone()), &backend).await;
    Intake.submit(std::slice::from_ref(&pipeline), batch(0..10)).await.unwrap();
    backend.until(10).await;
    until_saved(&fs.fs, &dir.path().join("spool/default.jobs"), "b", |saved| saved.delivered == 10).await;
    *fs.refuses.lock().unwrap() = Some(error);
    for second in 1..=60 {
        // Something new to save all the time.
        Intake.submit(std::slice::from_ref(&pipeline), batch(second * 10..second * 10 + 10)).await.unwrap();
        time_goes_by(Duration::from_secs(1)).await;
    }
    let attempts = fs.attempts();
    *fs.refuses.lock().unwrap() = None;
    // And it ends with everything saved.
    assert!(engine.drain(Instant::now() + Duration::from_secs(120)).await, "cursors are not saved once they can be");
    let mut got: Vec<u32> = backend.store.all().iter().map(|(number, _)| *number).collect();
    got.sort_unstable();
    assert_eq!(got, (0..610_u32).collect::<Vec<_>>(), "each event once");
    attempts
}

#[tokio::test(start_paused = true)]
async fn a_save_that_fails_is_tried_again_once_a_second() {
    for error in [Errno::IO, Errno::NOSPC] {
        let attempts = minute_without_journal(Traits::default(), error).await;
        assert!((40..=61).contains(&attempts.len()), "{} attempts in a minute ({error})", attempts.len());
        let gaps = attempts.windows(2).map(|pair| pair[1] - pair[0]);
        let shortest = gaps.min().unwrap();
        assert!(shortest >= Duration::from_secs(1), "tried again after {shortest:?} ({error})");
    }
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_commits_waits_for_its_breaker_when_its_mark_is_not_saved() {
    for error in [Errno::IO, Errno::NOSPC] {
        let commits = Traits { commits: true, ordered: true, ..Traits::default() };
        let attempts = minute_without_journal(commits, error).await;
        // Five failures in a row open the breaker; then one attempt each time that it lets one through, every 30 seconds.
        assert!((5..=9).contains(&attempts.len()), "{} attempts in a minute ({error})", attempts.len());
    }
}

// ── Saves by bytes ──────────────────────────────────────────────────────────────────────────────────────────────────────

#[tokio::test(start_paused = true)]
async fn a_fast_delivery_is_saved_and_synced_by_its_bytes_before_any_timer_runs_out() {
    let dir = tempfile::tempdir().unwrap();
    let (backend, fs) = (Arc::new(Taking::default()), disk(dir.path()));
    let log = LogSettings { durability: Durability::Process, ..LogSettings::default() };
    let (engine, pipeline) = started_with(dir.path(), Arc::new(fs.clone()), &backend, log).await;
    let (begun, spool) = (Instant::now(), dir.path().join("spool/default.jobs"));
    // 96 MiB: a number with very many zeros in front is 1 MiB.
    for number in 0..96_u32 {
        let event = format!("{{\"n\":{}{number}}}", "0".repeat(1 << 20));
        Intake.submit(std::slice::from_ref(&pipeline), batch_of(std::iter::once(event))).await.unwrap();
    }
    backend.until(96).await;
    until_saved(&fs, &spool, "b", |saved| saved.delivered >= 32).await;
    // What is left in the worst of some worlds: a record is written before it is synced.
    let synced = || {
        let journals = (0..12).map(|seed| Journal::open(Arc::new(fs.crash(seed)), &spool));
        journals.map(|journal| journal.progress().get(&key("b")).map_or(0, |saved| saved.delivered)).min()
    };
    while synced() < Some(32) {
        assert!(begun.elapsed() < Duration::from_millis(400), "nothing is synced");
        time_goes_by(Duration::from_millis(10)).await;
    }
    assert!(begun.elapsed() < Duration::from_millis(400), "{:?} went by: timers saved it", begun.elapsed());
    assert!(engine.drain(Instant::now() + Duration::from_secs(20)).await);
}

// ── A reader that falls asleep ──────────────────────────────────────────────────────────────────────────────────────────

/// Whether a future was woken since it was polled last: it is polled for no other reason.
#[derive(Debug)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// What happens next: to the log, or to its reader.
#[derive(Debug, Clone, Copy)]
enum Act {
    /// A batch is queued; nobody runs yet.
    Queue,
    /// The tasks of the log get one turn.
    Turn,
    /// Everything under way comes to its end, files included.
    Rest,
    /// The reader runs if it was woken.
    Read,
    /// The reader's wait is given up and begun anew.
    Cancel,
    /// A save wants the log synced.
    Save,
}

const ACTS: [Act; 6] = [Act::Queue, Act::Turn, Act::Rest, Act::Read, Act::Cancel, Act::Save];

fn pending(number: u32) -> Pending {
    Pending { batch: batch(number..number + 1), masks: Masks::Uniform(1), unrouted: 0, dropped: 0 }
}

/// Plays one order of acts and returns how many events the reader has seen at the end, and how many there are.
async fn asleep(acts: &[Act]) -> (u64, u64) {
    let (fs, owner) = (disk(Path::new("/data")), Supervisor::new("wake-ups"));
    let log = open(&fs, &owner, 1);
    let mut reader = log.reader(1);
    let (mut seen, mut queued, mut receipts) = (0, 0_u32, Vec::new());
    let mut acts = acts.iter().copied().peekable();
    loop {
        let woken = Arc::new(Woken(AtomicBool::new(true)));
        let waker = Waker::from(woken.clone());
        let mut reading = pin!(async {
            reader.wait().await;
            reader.read().await.unwrap().iter().map(|frame| frame.len() as u64).sum::<u64>()
        });
        let read = loop {
            let act = acts.next();
            match act {
                Some(Act::Queue) => {
                    let reservation = log.reserve(1_000).unwrap();
                    receipts.push(Box::pin(log.append(reservation, pending(queued))));
                    queued += 1;
                    // The first poll queues it.
                    assert!(futures_util::poll!(receipts.last_mut().unwrap()).is_pending());
                }
                Some(Act::Turn) => tokio::task::yield_now().await,
                Some(Act::Rest) => time_goes_by(Duration::from_millis(1)).await,
                Some(Act::Save) => {
                    let (of, at) = (key("b"), Progress { cursor: log.visible_end(), ..Progress::default() });
                    // Whoever asked goes away; what it asked of the log stays.
                    assert!(!matches!(futures_util::poll!(pin!(log.save(&of, &at, true))), Poll::Ready(Err(_))));
                }
                Some(Act::Cancel) => break None,
                Some(Act::Read) | None => {}
            }
            if act.is_none() {
                time_goes_by(Duration::from_secs(5)).await;
                if !woken.0.load(Ordering::SeqCst) {
                    return (seen, u64::from(queued));
                }
            }
            if matches!(act, Some(Act::Read) | None)
                && woken.0.swap(false, Ordering::SeqCst)
                && let Poll::Ready(events) = reading.as_mut().poll(&mut Context::from_waker(&waker))
            {
                break Some(events);
            }
        };
        seen += read.unwrap_or(0);
    }
}

#[tokio::test(start_paused = true)]
async fn no_order_of_appends_commits_and_reads_leaves_a_reader_asleep() {
    // Every order of five acts that matter most, and longer ones by seed.
    let mut orders: Vec<Vec<Act>> =
        (0..5_usize.pow(5)).map(|order| (0..5).map(|place| ACTS[order / 5_usize.pow(place) % 5]).collect()).collect();
    let mut rng = SplitMix64::new(7);
    orders.extend((0..1_000).map(|_| (0..24).map(|_| ACTS[rng.below(6) as usize]).collect()));
    for acts in orders {
        let (seen, queued) = asleep(&acts).await;
        assert_eq!(seen, queued, "the reader sleeps over what is there: {acts:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_delivery_that_sleeps_is_woken_by_the_commit_and_by_no_timer() {
    let dir = tempfile::tempdir().unwrap();
    let backend = Arc::new(Taking::default());
    let (engine, pipeline) = started(dir.path(), Arc::new(FaultyFs::new(1)), &backend).await;
    // Whatever the delivery does when the batch comes: nothing, a save just over, one under way, one due.
    for number in 0..400 {
        time_goes_by(Duration::from_millis(u64::from(number) * 37 % 1_201)).await;
        let accepted = Instant::now();
        Intake.submit(std::slice::from_ref(&pipeline), batch(number..number + 1)).await.unwrap();
        backend.until(number as usize + 1).await;
        let (last, at) = *backend.store.all().last().unwrap();
        assert_eq!(last, number);
        let took = at - accepted;
        assert!(took <= 2 * BATCH_WAIT, "batch {number} was delivered {took:?} after it was accepted");
    }
    assert!(engine.drain(Instant::now() + Duration::from_secs(20)).await);
}
