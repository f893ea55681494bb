//! A log at its quota: who stops intake, who gives up its oldest, and that each event is counted once, whenever the process
//! dies.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use spillway_delivery::backend::{Backend, Fault, FaultKind, Items, OutBatch, Outcome, Traits};
use spillway_delivery::clock::Clock;
use spillway_delivery::deliver::{DeliverySpec, Engine, EngineSettings};
use spillway_delivery::event::Batch;
use spillway_delivery::filesystem::{Faults, FaultyFs};
use spillway_delivery::intake::{Intake, Pipeline, RefusalReason, SubmitError};
use spillway_delivery::ledger::{DeliveryReport, PipelineReport};
use spillway_delivery::settings::{
    BackendRefSettings, DeliverySettings, Durability, LogSettings, Strategy, WhenBehind,
};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::common::{
    self, Store, batch_of, disk, engine, engine_over, kept_in_store, of, pipeline_of, quick, quick_breaker, reference,
    report, route, spec_of,
};

const QUOTA: u64 = 512 << 10;
const SEGMENT: u64 = 64 << 10;
const EVENTS: u32 = 100;
/// Bytes that one batch takes in a log, at most.
const BATCH: u64 = 16 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Take,
    Refuse,
    /// Answers when the mode changes, as that says.
    Hang,
}

/// A destination in memory: hand-made, to answer when it is told to.
#[derive(Debug)]
struct Place {
    traits: Traits,
    mode: watch::Sender<Mode>,
    store: Store<String>,
    keys: Mutex<BTreeMap<String, Vec<String>>>,
}

impl Place {
    fn new(mode: Mode, traits: Traits) -> Arc<Self> {
        Arc::new(Self { traits, mode: watch::channel(mode).0, store: Store::default(), keys: Mutex::default() })
    }

    fn turn(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// Waits until it has so many events.
    async fn until(&self, events: u32) {
        self.store.until(|got| got.len() >= events as usize).await;
    }

    fn got(&self) -> Vec<String> {
        self.store.all()
    }
}

impl Backend for Place {
    fn send<'a>(&'a self, batch: &'a OutBatch) -> BoxFuture<'a, Result<Items, Fault>> {
        Box::pin(async move {
            let lines: Vec<String> =
                batch.events().map(|event| String::from_utf8_lossy(event.bytes).into_owned()).collect();
            if self.traits.keyed {
                let mut keys = self.keys.lock().unwrap();
                let first = keys.entry(batch.key().to_owned()).or_insert_with(|| lines.clone());
                assert_eq!(*first, lines, "a key named two batches");
            }
            let mut mode = self.mode.subscribe();
            let answer = *mode.wait_for(|mode| *mode != Mode::Hang).await.unwrap();
            if answer == Mode::Refuse {
                return Err(Fault::new(FaultKind::Unreachable, "as told"));
            }
            self.store.add(lines);
            Ok(Items::All(Outcome::Delivered))
        })
    }

    kept_in_store!();
}

fn ordered() -> Traits {
    Traits { ordered: true, ..Traits::default() }
}

fn commits() -> Traits {
    Traits { ordered: true, commits: true, ..Traits::default() }
}

fn keyed() -> Traits {
    Traits { keyed: true, ..Traits::default() }
}

/// A reference: its name, where it leads, and what happens when it is behind.
type Reference<'a> = (&'static str, &'a Arc<Place>, WhenBehind);

async fn add(engine: &Engine, durability: Durability, references: &[Reference<'_>]) -> Option<Arc<Pipeline>> {
    let backends = references
        .iter()
        .map(|(name, _, when_behind)| BackendRefSettings { when_behind: *when_behind, ..reference(name) })
        .collect();
    let log = LogSettings { durability, bytes_max: QUOTA, ..LogSettings::default() };
    let settings = pipeline_of(log, vec![route("all", Strategy::All, backends)]);
    let specs = references.iter().map(|(name, place, when_behind)| {
        let settings = DeliverySettings { breaker: quick_breaker(), ..quick() };
        DeliverySpec { when_behind: *when_behind, ..spec_of("all", name, (*place).clone(), settings) }
    });
    engine.add(settings, specs.collect(), &|_| None).await.ok()
}

fn line(number: u32) -> String {
    format!("{{\"n\":{number},\"pad\":\"{:-<80}\"}}", "")
}

fn batch(number: u32) -> Batch {
    batch_of((number * EVENTS..(number + 1) * EVENTS).map(line))
}

async fn submit(pipeline: &Arc<Pipeline>, number: u32) -> Result<(), SubmitError> {
    Intake.submit(std::slice::from_ref(pipeline), batch(number)).await.map(drop)
}

/// Returns the events and bytes given up at quota.
fn given_up(delivery: &DeliveryReport) -> (u64, u64) {
    let of = |counts: &BTreeMap<String, u64>| counts.get("quota").copied().unwrap_or(0);
    (of(&delivery.dropped_events), of(&delivery.dropped_bytes))
}

fn assert_balanced(report: &PipelineReport) {
    common::assert_balanced(report);
    assert!(report.log.bytes <= QUOTA, "{report:#?}");
}

async fn drained(engine: &Engine) {
    assert!(engine.drain(Instant::now() + Duration::from_mins(1)).await);
}

fn bytes_of(events: std::ops::Range<u64>) -> u64 {
    events.map(|event| line(event as u32).len() as u64).sum()
}

#[tokio::test(start_paused = true)]
async fn a_dead_reference_that_drops_its_oldest_stops_nobody_and_loses_what_had_to_go() {
    for durability in [Durability::Disk, Durability::Process] {
        let dir = tempfile::tempdir().unwrap();
        let engine = engine(dir.path());
        let (good, dead) = (Place::new(Mode::Take, commits()), Place::new(Mode::Refuse, ordered()));
        let references = [("good", &good, WhenBehind::Block), ("dead", &dead, WhenBehind::DropOldest)];
        let pipeline = add(&engine, durability, &references).await.unwrap();
        for number in 0..150 {
            submit(&pipeline, number).await.unwrap();
            good.until((number + 1) * EVENTS).await;
            if number % 10 == 0 {
                assert_balanced(&report(&pipeline).await);
            }
        }
        let full = report(&pipeline).await;
        assert_balanced(&full);
        assert!(full.refused_requests.is_empty(), "{full:#?}");
        assert!(full.log.bytes > QUOTA - 2 * SEGMENT - BATCH, "more was given up than had to be: {full:#?}");
        let (events, bytes) = given_up(of(&full, "dead"));
        assert!(events > 0 && given_up(of(&full, "good")) == (0, 0), "{full:#?}");
        assert_eq!(bytes, bytes_of(0..events));
        dead.turn(Mode::Take);
        drained(&engine).await;
        assert_eq!(good.got(), (0..150 * EVENTS).map(line).collect::<Vec<_>>());
        assert_eq!(dead.got(), (events as u32..150 * EVENTS).map(line).collect::<Vec<_>>(), "its newest, in order");
        let end = report(&pipeline).await;
        assert_balanced(&end);
        assert_eq!(given_up(of(&end, "dead")), (events, bytes));
    }
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_hangs_holds_a_full_log_no_longer_than_an_attempt() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let (good, hung) = (Place::new(Mode::Take, commits()), Place::new(Mode::Take, commits()));
    let references = [("good", &good, WhenBehind::Block), ("hung", &hung, WhenBehind::DropOldest)];
    let pipeline = add(&engine, Durability::Disk, &references).await.unwrap();
    submit(&pipeline, 0).await.unwrap();
    hung.until(EVENTS).await;
    hung.store.marks.send_replace(false);
    for number in 1..100 {
        let taken = async {
            while submit(&pipeline, number).await.is_err() {
                pipeline.room().await;
            }
        };
        tokio::time::timeout(Duration::from_mins(5), taken).await.expect("the log stays full");
        good.until((number + 1) * EVENTS).await;
    }
    let full = report(&pipeline).await;
    assert_balanced(&full);
    assert!(given_up(of(&full, "hung")).0 > 0, "{full:#?}");
    hung.store.marks.send_replace(true);
    drained(&engine).await;
    let end = report(&pipeline).await;
    assert_balanced(&end);
    let mut got = hung.got();
    got.dedup();
    assert_eq!(got.len() as u64, of(&end, "hung").delivered_events, "each once: {end:#?}");
    assert_eq!(good.got().len() as u32, 100 * EVENTS);
}

#[tokio::test(start_paused = true)]
async fn a_reference_that_blocks_stops_intake_and_costs_the_others_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let (blocks, drops) = (Place::new(Mode::Refuse, ordered()), Place::new(Mode::Refuse, ordered()));
    let references = [("blocks", &blocks, WhenBehind::Block), ("drops", &drops, WhenBehind::DropOldest)];
    let pipeline = add(&engine, Durability::Disk, &references).await.unwrap();
    let mut taken = 0;
    let before = Instant::now();
    while submit(&pipeline, taken).await.is_ok() {
        taken += 1;
    }
    assert!(before.elapsed() < Duration::from_secs(1), "refused at once");
    let full = report(&pipeline).await;
    assert_balanced(&full);
    assert_eq!(full.refused_requests["full"], 1);
    assert_eq!(given_up(of(&full, "drops")), (0, 0), "it would have helped nobody");
    blocks.turn(Mode::Take);
    while submit(&pipeline, taken).await.is_err() {
        pipeline.room().await;
    }
    let after = report(&pipeline).await;
    assert_balanced(&after);
    assert!(given_up(of(&after, "drops")).0 > 0, "{after:#?}");
    drops.turn(Mode::Take);
    drained(&engine).await;
    assert_eq!(blocks.got().len() as u32, (taken + 1) * EVENTS);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_comes_late_counts_no_second_time() {
    for traits in [ordered(), keyed(), Traits::default()] {
        let dir = tempfile::tempdir().unwrap();
        let engine = engine(dir.path());
        let slow = Place::new(Mode::Hang, traits);
        let pipeline = add(&engine, Durability::Disk, &[("slow", &slow, WhenBehind::DropOldest)]).await.unwrap();
        for number in 0..70 {
            submit(&pipeline, number).await.unwrap();
        }
        let (events, _) = given_up(of(&report(&pipeline).await, "slow"));
        assert!(events > 0);
        slow.turn(Mode::Take);
        drained(&engine).await;
        let end = report(&pipeline).await;
        assert_balanced(&end);
        let slow_end = of(&end, "slow");
        assert_eq!(given_up(slow_end).0, events);
        assert_eq!(slow_end.delivered_events + events, 70 * u64::from(EVENTS));
        assert!(slow_end.late_events > 0, "{end:#?}");
        assert_eq!(slow.got().len() as u64, slow_end.delivered_events + slow_end.late_events);
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_comes_late_brings_nothing_back() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let slow = Place::new(Mode::Hang, keyed());
    let pipeline = add(&engine, Durability::Disk, &[("slow", &slow, WhenBehind::DropOldest)]).await.unwrap();
    for number in 0..70 {
        submit(&pipeline, number).await.unwrap();
    }
    let (events, _) = given_up(of(&report(&pipeline).await, "slow"));
    slow.turn(Mode::Refuse);
    for number in 70..80 {
        submit(&pipeline, number).await.unwrap();
    }
    slow.turn(Mode::Take);
    drained(&engine).await;
    let end = report(&pipeline).await;
    assert_balanced(&end);
    let (all, _) = given_up(of(&end, "slow"));
    assert!(all >= events);
    assert_eq!(slow.got().len() as u64 + all, 80 * u64::from(EVENTS));
    assert_eq!(of(&end, "slow").late_events, 0);
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_commits_has_what_is_counted_delivered_and_nothing_else() {
    for mode in [Mode::Refuse, Mode::Hang] {
        let dir = tempfile::tempdir().unwrap();
        let engine = engine(dir.path());
        let place = Place::new(Mode::Take, commits());
        let pipeline = add(&engine, Durability::Disk, &[("file", &place, WhenBehind::DropOldest)]).await.unwrap();
        for number in 0..20 {
            submit(&pipeline, number).await.unwrap();
        }
        place.until(1).await;
        place.turn(mode);
        for number in 20..120 {
            submit(&pipeline, number).await.unwrap();
        }
        place.turn(Mode::Take);
        drained(&engine).await;
        let end = report(&pipeline).await;
        assert_balanced(&end);
        let (events, bytes) = given_up(of(&end, "file"));
        let got = place.got();
        assert!(events > 0);
        assert_eq!((got.len() as u64 + events, of(&end, "file").late_events), (120 * u64::from(EVENTS), 0));
        let all: u64 = bytes_of(0..120 * u64::from(EVENTS));
        assert_eq!(got.iter().map(|line| line.len() as u64).sum::<u64>() + bytes, all);
    }
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_never_opens_holds_no_full_log() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let (good, stuck) = (Place::new(Mode::Take, ordered()), Place::new(Mode::Take, commits()));
    stuck.store.opens.send_replace(false);
    let references = [("good", &good, WhenBehind::Block), ("stuck", &stuck, WhenBehind::DropOldest)];
    let pipeline = add(&engine, Durability::Disk, &references).await.unwrap();
    for number in 0..100 {
        submit(&pipeline, number).await.unwrap();
        good.until((number + 1) * EVENTS).await;
    }
    assert!(given_up(of(&report(&pipeline).await, "stuck")).0 > 0);
    stuck.store.opens.send_replace(true);
    drained(&engine).await;
    let end = report(&pipeline).await;
    assert_balanced(&end);
    assert_eq!(stuck.got().len() as u64 + given_up(of(&end, "stuck")).0, 100 * u64::from(EVENTS));
}

#[tokio::test(start_paused = true)]
async fn a_volume_at_its_floor_is_a_full_log_too() {
    let dir = tempfile::tempdir().unwrap();
    let fs = disk(dir.path());
    let floor = 64 << 20;
    let settings = EngineSettings {
        data_dir: dir.path().to_owned(),
        filesystem: Arc::new(fs.clone()),
        clock: Clock::system(),
        free_bytes_min: floor,
    };
    let engine = Engine::open(settings).unwrap();
    let dead = Place::new(Mode::Refuse, ordered());
    let pipeline = add(&engine, Durability::Disk, &[("dead", &dead, WhenBehind::DropOldest)]).await.unwrap();
    // 200 KiB above the floor, whatever the log's own quota.
    fs.set_faults(Faults { capacity: Some(fs.used_bytes() + floor + (200 << 10)), ..Faults::default() });
    for number in 0..60 {
        submit(&pipeline, number).await.unwrap();
    }
    let full = report(&pipeline).await;
    assert_balanced(&full);
    assert!(full.log.bytes < 200 << 10 && given_up(of(&full, "dead")).0 > 0, "{full:#?}");
    drop(engine);
}

#[tokio::test(start_paused = true)]
async fn a_batch_larger_than_the_log_is_refused_and_nothing_given_up_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let dead = Place::new(Mode::Refuse, ordered());
    let pipeline = add(&engine, Durability::Disk, &[("dead", &dead, WhenBehind::DropOldest)]).await.unwrap();
    submit(&pipeline, 0).await.unwrap();
    let large = format!("{{\"pad\":\"{}\"}}", "-".repeat(QUOTA as usize));
    let refused = Intake.submit(std::slice::from_ref(&pipeline), batch_of(std::iter::once(large))).await;
    assert!(matches!(refused, Err(SubmitError::Refused { reason: RefusalReason::Full, .. })), "{refused:?}");
    let report = report(&pipeline).await;
    assert_balanced(&report);
    assert_eq!((given_up(of(&report, "dead")), of(&report, "dead").held_events), ((0, 0), u64::from(EVENTS)));
}

/// Fills a log to its quota and beyond; returns how many batches were acknowledged.
async fn story(dir: &Path, fs: &FaultyFs, durability: Durability, changes: Option<u64>) -> u32 {
    let engine = engine_over(dir, Arc::new(fs.clone()), Clock::system());
    let (good, dead) = (Place::new(Mode::Take, ordered()), Place::new(Mode::Refuse, keyed()));
    let references = [("good", &good, WhenBehind::Block), ("dead", &dead, WhenBehind::DropOldest)];
    let Some(pipeline) = add(&engine, durability, &references).await else { return 0 };
    if let Some(changes) = changes {
        fs.stop_after(changes);
    }
    let mut taken = 0;
    for number in 0..60 {
        match submit(&pipeline, number).await {
            Ok(()) => taken += 1,
            Err(error) => {
                assert!(fs.stopped(), "{error}");
                break;
            }
        }
    }
    if changes.is_none() {
        assert!(given_up(of(&report(&pipeline).await, "dead")).0 > 0);
    }
    taken
}

#[tokio::test(start_paused = true)]
async fn a_process_killed_at_every_step_counts_what_it_gave_up_once() {
    for durability in [Durability::Disk, Durability::Process] {
        let dir = tempfile::tempdir().unwrap();
        let whole = disk(dir.path());
        story(dir.path(), &whole, durability, None).await;
        let all = whole.counts().changes;
        // The log is at its quota after two thirds of the story; each step from there on is one death.
        for changes in all / 2..all {
            let fs = disk(dir.path());
            let taken = story(dir.path(), &fs, durability, Some(changes)).await;
            let left = fs.kill();
            let engine = engine_over(dir.path(), Arc::new(left), Clock::system());
            let (good, back) = (Place::new(Mode::Take, ordered()), Place::new(Mode::Take, keyed()));
            let references = [("good", &good, WhenBehind::Block), ("dead", &back, WhenBehind::DropOldest)];
            let pipeline = add(&engine, durability, &references).await.unwrap();
            assert_balanced(&report(&pipeline).await);
            drained(&engine).await;
            let end = report(&pipeline).await;
            assert_balanced(&end);
            assert!(end.accepted_events >= u64::from(taken * EVENTS), "after {changes} changes: {end:#?}");
            let kept = back.got().len() as u64 + given_up(of(&end, "dead")).0;
            assert_eq!(kept, end.accepted_events, "after {changes} changes: {end:#?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_count_that_cannot_be_saved_frees_nothing_and_does_not_spin() {
    let dir = tempfile::tempdir().unwrap();
    let fs = disk(dir.path());
    let engine = engine_over(dir.path(), Arc::new(fs.clone()), Clock::system());
    let dead = Place::new(Mode::Refuse, ordered());
    let pipeline = add(&engine, Durability::Disk, &[("dead", &dead, WhenBehind::DropOldest)]).await.unwrap();
    let mut number = 0;
    while report(&pipeline).await.log.bytes + 2 * BATCH < QUOTA {
        submit(&pipeline, number).await.unwrap();
        number += 1;
    }
    // Every sync fails: neither cursors nor frames get anywhere, and the log says so.
    fs.set_faults(Faults { sync: 1_000_000, ..Faults::default() });
    let before = fs.counts();
    for _ in 0..3 {
        assert!(submit(&pipeline, number).await.is_err());
    }
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(10) {
        pipeline.room().await;
    }
    let syncs = fs.counts().syncs - before.syncs;
    assert!(syncs < 200, "{syncs} syncs in ten seconds");
    assert_balanced(&report(&pipeline).await);
    fs.set_faults(Faults::default());
    while submit(&pipeline, number).await.is_err() {
        pipeline.room().await;
    }
    for number in number + 1..number + 40 {
        submit(&pipeline, number).await.unwrap();
    }
    let end = report(&pipeline).await;
    assert_balanced(&end);
    assert!(given_up(of(&end, "dead")).0 > 0);
}
