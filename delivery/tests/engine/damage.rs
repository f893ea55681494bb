//! Logs of which something is lost: it is counted once, told, and holds up nothing.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use spillway_delivery::backend::{Backend, Fault, FaultKind, Items, OutBatch, Outcome, Traits};
use spillway_delivery::clock::Clock;
use spillway_delivery::deliver::Engine;
use spillway_delivery::filesystem::{Faults, FaultyFs};
use spillway_delivery::intake::Pipeline;
use spillway_delivery::settings::{DeliverySettings, Durability, LogSettings, PipelineSettings, Strategy};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::common::{
    Store, balanced, drain, engine, engine_over, kept_in_store, numbers, of, pipeline_of, quick, quick_breaker,
    reference, report, route, send, spec_of, until,
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
    let event = format!("{{\"n\":{number}}}");
    let found = segments(fs).into_iter().find_map(|path| {
        let content = fs.content(&path)?;
        let at = content.windows(event.len()).position(|bytes| bytes == event.as_bytes())?;
        Some((path, at as u64))
    });
    let (path, at) = found.expect("the event is in a file");
    assert!(fs.flip_bit(&path, at + 5, 0));
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
