//! Logs of which something is lost: it is counted once, told, and holds up nothing.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use spillway_delivery::backend::{Backend, Fault, FaultKind, Items, Mark, OutBatch, Outcome, Traits};
use spillway_delivery::clock::Clock;
use spillway_delivery::deliver::Engine;
use spillway_delivery::filesystem::{Faults, FaultyFs};
use spillway_delivery::intake::Pipeline;
use spillway_delivery::settings::{DeliverySettings, Durability, LogSettings, PipelineSettings, Strategy};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::common::{
    Store, balanced, drain, engine, engine_over, kept_in_store, marked, numbers, of, pipeline_of, quick, quick_breaker,
    reference, report, route, send, spec_of, time_goes_by, until, until_saved,
};

/// A destination that takes so many events, then nothing. It outlives the engine.
#[derive(Debug)]
struct Place {
    traits: Traits,
    takes: Mutex<usize>,
    /// Whether the answer to what is taken is lost.
    loses: Mutex<bool>,
    /// Whether it answers; one that does not hangs.
    answers: watch::Sender<bool>,
    attempts: watch::Sender<u32>,
    store: Store<u32>,
}

impl Place {
    fn of(takes: usize) -> Arc<Self> {
        Arc::new(Self {
            traits: Traits::default(),
            takes: Mutex::new(takes),
            loses: Mutex::default(),
            answers: watch::channel(true).0,
            attempts: watch::channel(0).0,
            store: Store::default(),
        })
    }

    fn take(&self, events: usize) {
        *self.takes.lock().unwrap() = events;
    }

    async fn until(&self, events: usize) {
        self.store.until(|got| got.len() >= events).await;
    }
}

impl Backend for Place {
    fn send<'a>(&'a self, batch: &'a OutBatch) -> BoxFuture<'a, Result<Items, Fault>> {
        Box::pin(async move {
            self.attempts.send_modify(|attempts| *attempts += 1);
            self.answers.subscribe().wait_for(|answers| *answers).await.unwrap();
            let number = |bytes: &[u8]| String::from_utf8_lossy(&bytes[5..bytes.len() - 1]).parse().unwrap();
            let numbers: Vec<u32> = batch.events().map(|event| number(event.bytes)).collect();
            let mut takes = self.takes.lock().unwrap();
            if *takes < numbers.len() {
                return Err(Fault::new(FaultKind::Unreachable, "as told"));
            }
            *takes -= numbers.len();
            drop(takes);
            self.store.add(numbers);
            if *self.loses.lock().unwrap() {
                return Err(Fault::new(FaultKind::Timeout, "the answer is lost, as told"));
            }
            Ok(Items::All(Outcome::Delivered))
        })
    }

    kept_in_store!();
}

fn settings(durability: Durability) -> PipelineSettings {
    let log = LogSettings { durability, ..LogSettings::default() };
    pipeline_of(log, vec![route("all", Strategy::All, vec![reference("a")])])
}

async fn add(engine: &Engine, durability: Durability, place: &Arc<Place>) -> Arc<Pipeline> {
    let delivery = DeliverySettings { batch_events_max: 10, in_flight_max: 1, breaker: quick_breaker(), ..quick() };
    let specs = vec![spec_of("all", "a", place.clone(), delivery)];
    engine.add(settings(durability), specs, &|_| None).await.unwrap()
}

/// The segments, oldest first.
fn segments(fs: &FaultyFs) -> Vec<PathBuf> {
    let files = fs.files().into_iter().map(|(path, _)| path);
    files.filter(|path| path.extension().is_some_and(|extension| extension == "log")).collect()
}

/// Turns over a bit of an event.
fn harm(fs: &FaultyFs, number: u32) {
    let (path, at) = place_of(fs, number);
    assert!(fs.flip_bit(&path, at + 5, 0));
}

/// Returns where an event stands.
fn place_of(fs: &FaultyFs, number: u32) -> (PathBuf, u64) {
    let event = format!("{{\"n\":{number}}}");
    let found = segments(fs).into_iter().find_map(|path| {
        let content = fs.content(&path)?;
        let at = content.windows(event.len()).position(|bytes| bytes == event.as_bytes())?;
        Some((path, at as u64))
    });
    found.expect("the event is in a file")
}

/// Lets everything that is ready take many turns. Time does not go on meanwhile.
async fn many_turns() {
    for _ in 0..100 {
        tokio::task::spawn_blocking(|| ()).await.unwrap();
        tokio::task::yield_now().await;
    }
}

/// Ten frames of ten events that nobody took, sealed; the fourth is harmed.
async fn harmed(dir: &Path, place: &Arc<Place>) -> FaultyFs {
    let fs = FaultyFs::new(1);
    let engine = engine_over(dir, Arc::new(fs.clone()), Clock::manual(1));
    let pipeline = add(&engine, Durability::Disk, place).await;
    for first in (0..100).step_by(10) {
        send(&pipeline, first..first + 10).await;
    }
    engine.drain(Instant::now() + Duration::from_secs(20)).await;
    harm(&fs, 35);
    fs
}

/// What of them is left.
fn harmless() -> Vec<u32> {
    (0..30).chain(40..100).collect()
}

#[tokio::test(start_paused = true)]
async fn a_damaged_place_counts_once_however_often_it_is_met() {
    let dir = tempfile::tempdir().unwrap();
    let place = Place::of(0);
    let fs = harmed(dir.path(), &place).await;
    // It stops behind the damage, within what one entry of the index names: whoever counts reads over the damage.
    place.take(50);
    let engine = engine_over(dir.path(), Arc::new(fs.clone()), Clock::manual(1));
    let pipeline = add(&engine, Durability::Disk, &place).await;
    place.until(50).await;
    for _ in 0..5 {
        assert_eq!(report(&pipeline).await.log.damaged, 1, "a report is no damage");
    }
    let before = fs.counts().writes;
    many_turns().await;
    assert!(fs.counts().writes - before < 10, "it saves again and again: {} writes", fs.counts().writes - before);
    place.take(1000);
    assert!(drain(&engine).await);
    let report = balanced(&pipeline).await;
    assert_eq!(place.store.all(), harmless());
    assert_eq!(of(&report, "a").dropped_events.get("damaged"), Some(&10), "{report:#?}");
    assert_eq!(report.log.damaged, 1);
}

#[tokio::test(start_paused = true)]
async fn damage_that_cannot_be_counted_now_is_looked_at_again_and_not_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let place = Place::of(0);
    let fs = harmed(dir.path(), &place).await;
    place.take(10);
    place.answers.send_replace(false);
    let before = *place.attempts.borrow();
    let engine = engine_over(dir.path(), Arc::new(fs.clone()), Clock::manual(1));
    let pipeline = add(&engine, Durability::Disk, &place).await;
    // What is under way was read, and the damage behind it met.
    place.attempts.subscribe().wait_for(|attempts| *attempts > before).await.unwrap();
    fs.set_faults(Faults { read: 1_000_000, ..Faults::default() });
    place.answers.send_replace(true);
    place.until(10).await;
    let before = fs.counts().writes;
    many_turns().await;
    let writes = fs.counts().writes - before;
    assert!(writes < 20, "it saves again and again: {writes} writes");
    fs.set_faults(Faults::default());
    place.take(1000);
    assert!(drain(&engine).await);
    let report = balanced(&pipeline).await;
    assert_eq!(place.store.all(), harmless());
    assert_eq!(of(&report, "a").dropped_events.get("damaged"), Some(&10), "{report:#?}");
}

#[tokio::test(start_paused = true)]
async fn a_place_that_cannot_be_read_is_waited_for_and_after_minutes_costs_its_own_events() {
    let dir = tempfile::tempdir().unwrap();
    let (fs, place) = (FaultyFs::new(1), Place::of(0));
    let engine = engine_over(dir.path(), Arc::new(fs.clone()), Clock::manual(1));
    let pipeline = add(&engine, Durability::Disk, &place).await;
    for first in (0..1000).step_by(10) {
        send(&pipeline, first..first + 10).await;
    }
    drain(&engine).await;
    drop((pipeline, engine));
    let (path, at) = place_of(&fs, 835);
    assert!(at > 4096 && fs.spoil(&path, at..at + 1), "not in what is read of a header");
    place.take(2000);
    let begun = Instant::now();
    let engine = engine_over(dir.path(), Arc::new(fs.clone()), Clock::manual(1));
    let pipeline = add(&engine, Durability::Disk, &place).await;
    place.until(830).await;
    time_goes_by(Duration::from_mins(4)).await;
    assert_eq!((place.store.len(), report(&pipeline).await.log.damaged), (830, 0), "it may come back");
    while place.store.len() < 990 && begun.elapsed() < Duration::from_mins(20) {
        time_goes_by(Duration::from_secs(1)).await;
    }
    assert!(begun.elapsed() < Duration::from_mins(8), "{:?}", begun.elapsed());
    assert!(drain(&engine).await);
    let report = balanced(&pipeline).await;
    assert_eq!(place.store.all(), (0..830).chain(840..1000).collect::<Vec<_>>());
    assert_eq!(of(&report, "a").dropped_events.get("damaged"), Some(&10), "{report:#?}");
    assert_eq!(report.log.damaged, 1);
}

#[tokio::test(start_paused = true)]
async fn a_footer_that_cannot_be_read_costs_no_event_and_no_wait() {
    let dir = tempfile::tempdir().unwrap();
    let (fs, place) = (FaultyFs::new(1), Place::of(0));
    let engine = engine_over(dir.path(), Arc::new(fs.clone()), Clock::manual(1));
    let pipeline = add(&engine, Durability::Disk, &place).await;
    for first in (0..1000).step_by(10) {
        send(&pipeline, first..first + 10).await;
    }
    drain(&engine).await;
    drop((pipeline, engine));
    let (path, _) = place_of(&fs, 835);
    let end = fs.content(&path).unwrap().len() as u64;
    assert!(fs.spoil(&path, end - 1..end));
    place.take(2000);
    let begun = Instant::now();
    let engine = engine_over(dir.path(), Arc::new(fs.clone()), Clock::manual(1));
    let pipeline = add(&engine, Durability::Disk, &place).await;
    place.until(1000).await;
    assert!(begun.elapsed() < Duration::from_mins(1), "{:?}", begun.elapsed());
    assert!(drain(&engine).await);
    balanced(&pipeline).await;
    assert_eq!(place.store.all(), numbers(0..1000));
}

/// A destination like files: it is cut to its mark, and keeps what it has where a mark was lost.
#[derive(Debug, Default)]
struct Kept {
    store: Store<u32>,
    opened_at: Mutex<Vec<Option<usize>>>,
}

impl Backend for Kept {
    fn send<'a>(&'a self, batch: &'a OutBatch) -> BoxFuture<'a, Result<Items, Fault>> {
        let number = |bytes: &[u8]| String::from_utf8_lossy(&bytes[5..bytes.len() - 1]).parse().unwrap();
        self.store.add(batch.events().map(|event| number(event.bytes)));
        Box::pin(async { Ok(Items::All(Outcome::Delivered)) })
    }

    fn traits(&self) -> Traits {
        Traits { commits: true, ordered: true, ..Traits::default() }
    }

    fn open(&self, mark: Option<Mark>) -> BoxFuture<'_, Result<(), Fault>> {
        let mark = mark.as_ref().map(marked);
        self.opened_at.lock().unwrap().push(mark);
        mark.into_iter().for_each(|mark| self.store.cut(mark));
        Box::pin(async { Ok(()) })
    }

    fn commit(&self) -> BoxFuture<'_, Result<Option<Mark>, Fault>> {
        Box::pin(self.store.commit(self.traits()))
    }
}

#[tokio::test(start_paused = true)]
async fn a_cursor_of_long_ago_cuts_nothing_that_nobody_sends_again() {
    let dir = tempfile::tempdir().unwrap();
    let (fs, kept) = (FaultyFs::new(1), Arc::new(Kept::default()));
    let add = async |fs: &FaultyFs| {
        let engine = engine_over(dir.path(), Arc::new(fs.clone()), Clock::manual(1));
        let log = LogSettings { durability: Durability::Disk, bytes_max: 512 << 10, ..LogSettings::default() };
        let settings = pipeline_of(log, vec![route("all", Strategy::All, vec![reference("a")])]);
        let specs = vec![spec_of("all", "a", kept.clone(), DeliverySettings { batch_events_max: 100, ..quick() })];
        let pipeline = engine.add(settings, specs, &|_| None).await.unwrap();
        (engine, pipeline)
    };
    let (engine, pipeline) = add(&fs).await;
    send(&pipeline, 0..100).await;
    kept.store.until(|got| got.len() == 100).await;
    until_saved(&fs, &dir.path().join("spool/default.jobs"), "a", |progress| progress.delivered == 100).await;
    let cursors: Vec<_> = fs.files().into_iter().filter(|(path, _)| is_cursors(path)).collect();
    let long_ago: Vec<_> = cursors.iter().map(|(path, _)| (path, fs.content(path).unwrap())).collect();
    // So much that segments go.
    let first = report(&pipeline).await.log.first_seq;
    let mut sent = 100;
    while report(&pipeline).await.log.first_seq == first {
        send(&pipeline, sent..sent + 2000).await;
        sent += 2000;
        kept.store.until(|got| got.len() == sent as usize).await;
        time_goes_by(Duration::from_secs(2)).await;
    }
    assert!(drain(&engine).await);
    drop((pipeline, engine));
    let fs = fs.kill();
    long_ago.iter().for_each(|(path, content)| fs.put(path, content));
    let (engine, pipeline) = add(&fs).await;
    send(&pipeline, sent..sent + 10).await;
    assert!(drain(&engine).await);
    let opened_at = kept.opened_at.lock().unwrap().clone();
    assert_eq!(opened_at, [None, None], "the place of then is not where it is now");
    let mut got = kept.store.all();
    got.sort_unstable();
    got.dedup();
    assert_eq!(got, numbers(0..sent + 10), "nothing that was delivered is gone");
    balanced(&pipeline).await;
}

fn is_cursors(path: &Path) -> bool {
    path.file_stem().is_some_and(|stem| stem == "cursors")
}

/// Makes the segments what a build with the format before has written.
fn as_of_version_1(dir: &Path) -> usize {
    let mut segments = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "log") {
            let mut content = std::fs::read(&path).unwrap();
            assert_eq!(content[..8], *b"SPWYLOG2");
            content[7] = b'1';
            std::fs::write(&path, content).unwrap();
            segments += 1;
        }
    }
    segments
}

#[tokio::test]
async fn a_log_of_an_earlier_format_is_set_aside_and_its_cursors_and_plans_confuse_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let spool = dir.path().join("spool/default.jobs");
    let place = Arc::new(Place {
        traits: Traits { keyed: true, ..Traits::default() },
        ..Arc::try_unwrap(Place::of(40)).unwrap()
    });
    {
        let engine = engine(dir.path());
        let pipeline = add(&engine, Durability::Disk, &place).await;
        send(&pipeline, 0..30).await;
        place.until(30).await;
        until(&pipeline, |report| of(report, "a").held_events == 0).await;
        // A plan whose outcome is unknown, and more behind it.
        *place.loses.lock().unwrap() = true;
        send(&pipeline, 30..100).await;
        place.until(40).await;
        engine.drain(Instant::now()).await;
    }
    let segments = as_of_version_1(&spool);
    assert!(segments > 0);
    (*place.loses.lock().unwrap(), *place.takes.lock().unwrap()) = (false, 1000);
    let engine = engine(dir.path());
    let pipeline = add(&engine, Durability::Disk, &place).await;
    let first = balanced(&pipeline).await;
    assert_eq!((first.log.damaged, first.log.state.as_str()), (segments as u64, "ok"), "{first:#?}");
    assert_eq!(std::fs::read_dir(spool.join("quarantine")).unwrap().count(), segments);
    assert!(first.log.next_seq > 40, "it begins behind every cursor and every plan: {first:#?}");
    send(&pipeline, 200..230).await;
    assert!(drain(&engine).await);
    let last = balanced(&pipeline).await;
    assert_eq!(place.store.all()[40..], numbers(200..230));
    assert_eq!((of(&last, "a").held_events, of(&last, "a").delivered_events), (0, 60), "{last:#?}");
    drop((pipeline, engine));
    // And the next start finds nothing odd.
    let engine = self::engine(dir.path());
    let pipeline = add(&engine, Durability::Disk, &place).await;
    assert_eq!(balanced(&pipeline).await.log.damaged, 0);
    assert!(drain(&engine).await);
}
