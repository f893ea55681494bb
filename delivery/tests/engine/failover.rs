//! Routes whose first healthy backend gets the events: the backlog moves, nothing is lost, and what may be sent twice is
//! bounded, whenever the process dies.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use spillway_delivery::backend::{Backend, Fault, FaultKind, Items, OutBatch, Outcome, Traits};
use spillway_delivery::deliver::jobs::{JobTarget, ReplayRequest};
use spillway_delivery::deliver::{DeliverySpec, Engine};
use spillway_delivery::event::Batch;
use spillway_delivery::filesystem::{RealFs, SplitMix64};
use spillway_delivery::intake::{Intake, Pipeline};
use spillway_delivery::ledger::{DeliveryState, PipelineReport};
use spillway_delivery::log::{DeliveryKey, Journal, Progress};
use spillway_delivery::settings::{
    BreakerSettings, DeliverySettings, Durability, Failback, LogSettings, PipelineSettings, RouteSettings, Strategy,
    WhenBehind,
};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::common::{
    Store, balanced, batch_of, drain, engine, kept_in_store, of, pipeline_of, quick_breaker, reference, route, send,
    spec_of, time_goes_by, until,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Take,
    Refuse,
    /// Takes what comes, and the answer is lost.
    Lose,
    /// Takes one batch, then refuses.
    Once,
    /// Answers when the mode changes, as that says.
    Hang,
}

/// A destination that outlives the engine. It knows batches by their keys, and notes how often each event came.
#[derive(Debug)]
struct Place {
    traits: Traits,
    mode: watch::Sender<Mode>,
    /// The events of batches that it knew are left out.
    store: Store<u32>,
    keys: Mutex<BTreeMap<String, Vec<u32>>>,
    attempts: watch::Sender<Vec<Instant>>,
}

impl Place {
    fn with(mode: Mode, traits: Traits) -> Arc<Self> {
        Arc::new(Self {
            traits,
            mode: watch::channel(mode).0,
            store: Store::default(),
            keys: Mutex::default(),
            attempts: watch::channel(Vec::new()).0,
        })
    }

    /// One that knows batches by their keys, and takes so many events in one.
    fn of(batch_events_max: usize) -> Arc<Self> {
        let batch_events_max = Some(batch_events_max);
        Self::with(Mode::Take, Traits { keyed: true, batch_events_max, ..Traits::default() })
    }

    fn new(mode: Mode) -> Arc<Self> {
        Self::with(mode, Traits { keyed: true, ..Traits::default() })
    }

    fn turn(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    fn got(&self) -> Vec<u32> {
        self.store.all()
    }

    fn each(&self) -> BTreeSet<u32> {
        self.got().into_iter().collect()
    }

    async fn until(&self, holds: impl FnMut(&Vec<u32>) -> bool) {
        self.store.until(holds).await;
    }

    async fn tried(&self, times: usize) {
        let mut attempts = self.attempts.subscribe();
        let tried = attempts.wait_for(|attempts| attempts.len() >= times);
        tokio::time::timeout(Duration::from_secs(30), tried).await.expect("it was not tried").unwrap();
    }
}

impl Backend for Place {
    fn send<'a>(&'a self, batch: &'a OutBatch) -> BoxFuture<'a, Result<Items, Fault>> {
        Box::pin(async move {
            let numbers: Vec<u32> = batch.events().map(|event| number_of(event.bytes)).collect();
            self.attempts.send_modify(|attempts| attempts.push(Instant::now()));
            let is_known = {
                let mut keys = self.keys.lock().unwrap();
                let known = keys.get(batch.key()).cloned();
                assert!(known.as_ref().is_none_or(|known| *known == numbers), "a key named two batches");
                keys.entry(batch.key().to_owned()).or_insert_with(|| numbers.clone());
                known.is_some()
            };
            let mode = *self.mode.subscribe().wait_for(|mode| *mode != Mode::Hang).await.unwrap();
            if mode == Mode::Refuse {
                // What is refused was not taken: the same batch may come again.
                if !is_known {
                    self.keys.lock().unwrap().insert(format!("{} refused", batch.key()), Vec::new());
                }
                return Err(Fault::new(FaultKind::Unreachable, "as told"));
            }
            let taken = format!("{} taken", batch.key());
            let is_new = !self.traits.keyed || self.keys.lock().unwrap().insert(taken, Vec::new()).is_none();
            if is_new {
                self.store.add(numbers);
            }
            if mode == Mode::Once {
                self.turn(Mode::Refuse);
            }
            match mode {
                Mode::Lose => Err(Fault::new(FaultKind::Timeout, "the answer is lost, as told")),
                _ if is_new => Ok(Items::All(Outcome::Delivered)),
                _ => Ok(Items::All(Outcome::Duplicate)),
            }
        })
    }

    kept_in_store!();
}

fn number_of(bytes: &[u8]) -> u32 {
    let text = std::str::from_utf8(bytes).unwrap();
    let digits: String = text.chars().skip(5).take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap()
}

type Places<'a> = [(&'static str, &'a Arc<Place>)];

/// A pipeline with one route to `places`, best first.
fn settings(strategy: Strategy, places: &Places<'_>) -> PipelineSettings {
    let backends = places.iter().map(|(name, _)| reference(name)).collect();
    pipeline_of(LogSettings::default(), vec![route("all", strategy, backends)])
}

fn specs(places: &Places<'_>) -> Vec<DeliverySpec> {
    let settings = DeliverySettings {
        batch_wait_max: Duration::from_millis(2),
        batch_events_max: 10,
        retry_initial: Duration::from_millis(2),
        retry_max: Duration::from_millis(5),
        breaker: quick_breaker(),
        ..DeliverySettings::default()
    };
    places.iter().map(|(name, place)| spec_of("all", name, (*place).clone(), settings.clone())).collect()
}

async fn open(engine: &Engine, failback: Failback, places: &Places<'_>) -> Arc<Pipeline> {
    let settings = settings(Strategy::FirstHealthy(failback), places);
    engine.add(settings, specs(places), &|_| None).await.unwrap()
}

async fn until_held_nowhere(pipeline: &Arc<Pipeline>) -> PipelineReport {
    until(pipeline, |report| report.deliveries.iter().all(|delivery| delivery.held_events == 0)).await
}

fn numbers(range: std::ops::Range<u32>) -> BTreeSet<u32> {
    range.collect()
}

/// Returns how many events came more than once, over both.
fn doubles(places: &[&Arc<Place>]) -> usize {
    let got: Vec<u32> = places.iter().flat_map(|place| place.got()).collect();
    got.len() - got.iter().collect::<BTreeSet<_>>().len()
}

/// Sends until a backend leads: one that recovers is noticed by an event that it takes. Returns what is sent next.
async fn send_until_active(pipeline: &Arc<Pipeline>, backend: &str, mut next: u32) -> u32 {
    let deadline = Instant::now() + Duration::from_secs(30);
    while balanced(pipeline).await.routes[0].active.as_deref() != Some(backend) {
        assert!(Instant::now() < deadline);
        send(pipeline, next..next + 5).await;
        next += 5;
    }
    next
}

const BOTH: [Failback; 2] = [Failback::Leave, Failback::Backfill];

#[tokio::test]
async fn in_fair_weather_the_second_stands_by_and_holds_what_the_first_holds() {
    for failback in BOTH {
        let dir = tempfile::tempdir().unwrap();
        let engine = engine(dir.path());
        let (a, b) = (Place::new(Mode::Take), Place::new(Mode::Take));
        let pipeline = open(&engine, failback, &[("a", &a), ("b", &b)]).await;
        for start in (0..200).step_by(20) {
            send(&pipeline, start..start + 20).await;
        }
        let report = until_held_nowhere(&pipeline).await;
        assert_eq!((of(&report, "a").delivered_events, of(&report, "b").elsewhere_events), (200, 200));
        assert_eq!((of(&report, "b").state, of(&report, "b").attempts), (DeliveryState::Standby, 0));
        assert_eq!(report.routes[0].active.as_deref(), Some("a"));
        a.turn(Mode::Hang);
        send(&pipeline, 200..230).await;
        let report = until(&pipeline, |report| of(report, "a").held_events == 30).await;
        assert_eq!(of(&report, "b").held_events, 30);
        a.turn(Mode::Take);
        assert!(drain(&engine).await);
        assert_eq!((a.each(), a.got().len(), b.got().len()), (numbers(0..230), 230, 0));
    }
}

#[tokio::test]
async fn the_backlog_moves_as_soon_as_the_breaker_opens() {
    for failback in BOTH {
        let dir = tempfile::tempdir().unwrap();
        let engine = engine(dir.path());
        let (a, b) = (Place::new(Mode::Refuse), Place::new(Mode::Take));
        let pipeline = open(&engine, failback, &[("a", &a), ("b", &b)]).await;
        for start in (0..500).step_by(50) {
            send(&pipeline, start..start + 50).await;
        }
        b.until(|got| got.len() == 500).await;
        // The fifth failure in a row opened the breaker.
        let opened = a.attempts.borrow()[4];
        let first = b.attempts.borrow()[0];
        println!("{failback:?}: first attempt at the second {:?} after the breaker opened", first - opened);
        assert!(first - opened < Duration::from_secs(2));
        assert_eq!((b.each(), doubles(&[&b])), (numbers(0..500), 0));
        let holds = if failback == Failback::Leave { 0 } else { 500 };
        let moved =
            until(&pipeline, |report| of(report, "a").held_events == holds && of(report, "b").held_events == 0).await;
        assert_eq!((of(&moved, "a").elsewhere_events, of(&moved, "b").delivered_events), (500 - holds, 500));
        assert_eq!(moved.routes[0].active.as_deref(), Some("b"));
        let failovers = &moved.routes[0].failovers;
        assert_eq!((failovers.len(), &*failovers[0].from, &*failovers[0].to), (1, "a", "b"));
        a.turn(Mode::Take);
        let sent = send_until_active(&pipeline, "a", 500).await;
        assert_eq!(balanced(&pipeline).await.routes[0].failovers.len(), 2);
        send(&pipeline, sent..sent + 100).await;
        assert!(drain(&engine).await);
        let every: BTreeSet<u32> = a.each().union(&b.each()).copied().collect();
        assert_eq!((every, doubles(&[&a])), (numbers(0..sent + 100), 0));
        match failback {
            Failback::Leave => {
                assert_eq!((a.each().first(), doubles(&[&a, &b]) <= 10), (a.each().range(500..).next(), true));
            }
            Failback::Backfill => assert_eq!(a.each(), numbers(0..sent + 100)),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_edit_of_a_sick_backend_is_no_recovery() {
    for failback in BOTH {
        let dir = tempfile::tempdir().unwrap();
        let engine = engine(dir.path());
        let (a, b) = (Place::new(Mode::Refuse), Place::new(Mode::Take));
        let places: [(&'static str, &Arc<Place>); 2] = [("a", &a), ("b", &b)];
        // No probe comes by itself.
        let patient = |places: &Places<'_>| {
            let mut specs = specs(places);
            specs.iter_mut().for_each(|spec| spec.settings.breaker.open = Duration::from_hours(10));
            specs
        };
        let settings = || settings(Strategy::FirstHealthy(failback), &places);
        let pipeline = engine.add(settings(), patient(&places), &|_| None).await.unwrap();
        send(&pipeline, 0..10).await;
        b.until(|got| got.len() == 10).await;
        let tried = a.attempts.borrow().len();
        for edit in 1..=10_u32 {
            engine.apply(settings(), patient(&places[..1]), &|_| None).await.unwrap();
            time_goes_by(Duration::from_secs(1)).await;
            send(&pipeline, edit * 10..edit * 10 + 10).await;
            b.until(|got| got.len() == edit as usize * 10 + 10).await;
            let report = balanced(&pipeline).await;
            assert_eq!((report.routes[0].active.as_deref(), of(&report, "a").delivered_events), (Some("b"), 0));
        }
        let failovers = balanced(&pipeline).await.routes[0].failovers.clone();
        let times: u64 = failovers.iter().map(|failover| failover.times).sum();
        assert_eq!((failovers.len(), times), (1, 1), "{failovers:?}");
        let probes = a.attempts.borrow().len() - tried;
        assert!(probes <= 10, "{failback:?}: {probes} attempts");
        assert_eq!((b.each(), doubles(&[&b])), (numbers(0..110), 0));
        a.turn(Mode::Take);
        engine.apply(settings(), patient(&places[..1]), &|_| None).await.unwrap();
        send_until_active(&pipeline, "a", 110).await;
        assert!(drain(&engine).await);
    }
}

#[tokio::test]
async fn what_is_unknown_at_the_failover_goes_to_the_second_and_back_only_by_a_backfill() {
    for failback in BOTH {
        let dir = tempfile::tempdir().unwrap();
        let engine = engine(dir.path());
        let (a, b) = (Place::new(Mode::Take), Place::new(Mode::Take));
        let pipeline = open(&engine, failback, &[("a", &a), ("b", &b)]).await;
        // Many at once, so that several are under way.
        send(&pipeline, 0..300).await;
        a.until(|got| got.len() == 300).await;
        a.turn(Mode::Hang);
        let before = a.attempts.borrow().len();
        for start in (300..330).step_by(10) {
            send(&pipeline, start..start + 10).await;
            a.tried(before + (start as usize - 300) / 10 + 1).await;
        }
        // Three batches are under way; it takes them and every answer is lost.
        a.turn(Mode::Lose);
        b.until(|got| got.len() >= 30).await;
        assert!(numbers(300..330).is_subset(&b.each()));
        a.turn(Mode::Take);
        let sent = send_until_active(&pipeline, "a", 330).await;
        assert!(drain(&engine).await);
        let every: BTreeSet<u32> = a.each().union(&b.each()).copied().collect();
        assert_eq!((every, doubles(&[&a]), doubles(&[&b])), (numbers(0..sent), 0, 0));
        let report = balanced(&pipeline).await;
        match failback {
            Failback::Leave => {
                // Under way at the failover, and a probe.
                assert!(doubles(&[&a, &b]) <= 30 + 10, "{:?} {:?}", a.got(), b.got());
                // A probe may be what the other has and has not saved yet: it was there, under the key it had.
                let first = of(&report, "a");
                assert!(first.duplicate_events <= 30);
                let ended = first.elsewhere_events + first.delivered_events + first.duplicate_events;
                assert_eq!(ended, u64::from(sent));
                // Of the three whose answer was lost, each is known by its probe, or is not.
                assert!(first.unknown_batches * 10 + first.duplicate_events >= 30, "{first:#?}");
            }
            Failback::Backfill => {
                assert_eq!(of(&report, "a").unknown_batches, 0, "they are sent again under the keys they had");
                assert_eq!(a.each(), numbers(0..sent));
                assert_eq!(of(&report, "a").elsewhere_events, 0);
                assert_eq!(of(&report, "a").duplicate_events, 30, "they came under the keys they had");
            }
        }
    }
}

#[tokio::test]
async fn a_batch_without_an_answer_is_unknown_once_another_has_it_with_a_key_and_without() {
    for failback in BOTH {
        for (keyed, mode) in [(true, Mode::Lose), (true, Mode::Refuse), (false, Mode::Lose), (false, Mode::Refuse)] {
            let dir = tempfile::tempdir().unwrap();
            let engine = engine(dir.path());
            let traits = Traits { keyed, ..Traits::default() };
            let (a, b) = (Place::with(mode, traits), Place::with(Mode::Take, traits));
            let pipeline = open(&engine, failback, &[("a", &a), ("b", &b)]).await;
            send(&pipeline, 0..10).await;
            b.until(|got| got.len() == 10).await;
            let leaves = failback == Failback::Leave;
            let elsewhere = u64::from(leaves) * 10;
            let moved = until(&pipeline, |report| {
                of(report, "b").delivered_events == 10 && of(report, "a").elsewhere_events == elsewhere
            });
            let moved = moved.await;
            // A backfill gives it to the first again; what was refused is nowhere else.
            let expected = u64::from(mode == Mode::Lose && leaves);
            assert_eq!(of(&moved, "a").unknown_batches, expected, "{failback:?}, keyed: {keyed}, {mode:?}");
            assert_eq!(of(&moved, "b").unknown_batches, 0);
            a.turn(Mode::Take);
            assert!(drain(&engine).await);
        }
    }
}

#[tokio::test]
async fn a_batch_without_an_answer_is_unknown_also_where_its_backend_was_edited_before_another_has_it() {
    for keyed in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let engine = engine(dir.path());
        let with = |mode| Place::with(mode, Traits { keyed, ..Traits::default() });
        let (a, edited, b) = (with(Mode::Lose), with(Mode::Refuse), with(Mode::Take));
        let places: [(&'static str, &Arc<Place>); 2] = [("a", &a), ("b", &b)];
        let group = Strategy::FirstHealthy(Failback::Leave);
        let mut patient = specs(&places);
        (patient[0].settings.retry_initial, patient[0].settings.retry_max) =
            (Duration::from_hours(1), Duration::from_hours(1));
        patient[0].settings.breaker =
            BreakerSettings { consecutive_failures: u32::MAX, failure_ratio_percent: 100, ..quick_breaker() };
        let pipeline = engine.add(settings(group, &places), patient, &|_| None).await.unwrap();
        send(&pipeline, 0..10).await;
        a.until(|got| got.len() == 10).await;
        let to: [(&'static str, &Arc<Place>); 1] = [("a", &edited)];
        engine.apply(settings(group, &places), specs(&to), &|_| None).await.unwrap();
        b.until(|got| got.len() == 10).await;
        let moved = until(&pipeline, |report| of(report, "a").elsewhere_events == 10).await;
        assert_eq!(of(&moved, "a").unknown_batches, 1, "keyed: {keyed}");
        assert!(drain(&engine).await);
    }
}

#[tokio::test]
async fn while_all_are_down_each_is_tried_and_the_first_that_takes_gets_all() {
    for failback in BOTH {
        let dir = tempfile::tempdir().unwrap();
        let engine = engine(dir.path());
        let (a, b, c) = (Place::new(Mode::Refuse), Place::new(Mode::Refuse), Place::new(Mode::Refuse));
        let pipeline = open(&engine, failback, &[("a", &a), ("b", &b), ("c", &c)]).await;
        send(&pipeline, 0..100).await;
        for place in [&a, &b, &c] {
            place.tried(8).await;
        }
        let open = |report: &PipelineReport| {
            report.routes[0].active.is_none() && report.deliveries.iter().all(|one| one.held_events == 100)
        };
        until(&pipeline, open).await;
        c.turn(Mode::Take);
        c.until(|got| got.len() == 100).await;
        b.turn(Mode::Take);
        let sent = send_until_active(&pipeline, "b", 100).await;
        a.turn(Mode::Take);
        let sent = send_until_active(&pipeline, "a", sent).await;
        assert!(drain(&engine).await);
        let every: BTreeSet<u32> = [&a, &b, &c].iter().flat_map(|place| place.got()).collect();
        assert_eq!(every, numbers(0..sent));
        assert!([&a, &b, &c].iter().all(|place| doubles(&[place]) == 0));
        if failback == Failback::Backfill {
            assert_eq!(a.each(), numbers(0..sent));
        }
        until_held_nowhere(&pipeline).await;
    }
}

#[tokio::test]
async fn one_that_flaps_costs_a_probe_each_time_and_loses_nothing() {
    for failback in BOTH {
        let dir = tempfile::tempdir().unwrap();
        let engine = engine(dir.path());
        let (a, b) = (Place::new(Mode::Take), Place::new(Mode::Take));
        let pipeline = open(&engine, failback, &[("a", &a), ("b", &b)]).await;
        let mut sent = 0;
        for round in 0..10 {
            let (mode, lead) = if round % 2 == 0 { (Mode::Refuse, "b") } else { (Mode::Take, "a") };
            a.turn(mode);
            sent = send_until_active(&pipeline, lead, sent).await;
        }
        a.turn(Mode::Take);
        assert!(drain(&engine).await);
        let every: BTreeSet<u32> = a.each().union(&b.each()).copied().collect();
        assert_eq!((every, doubles(&[&a]), doubles(&[&b])), (numbers(0..sent), 0, 0));
        let report = until_held_nowhere(&pipeline).await;
        let times: u64 = report.routes[0].failovers.iter().map(|one| one.times).sum();
        assert!(times >= 10, "{report:#?}");
        match failback {
            // A refused batch was not taken: only probes that were can be double.
            Failback::Leave => assert!(doubles(&[&a, &b]) <= 10 * times as usize),
            Failback::Backfill => assert_eq!(a.each(), numbers(0..sent)),
        }
    }
}

/// One run of the model: modes change, processes die, and at the end everything is well.
async fn run_over_kills(seed: u64, failback: Failback) {
    let mut random = SplitMix64::new(seed);
    let dir = tempfile::tempdir().unwrap();
    let (a, b, c) = (Place::of(10), Place::of(3), Place::of(7));
    let places: [(&'static str, &Arc<Place>); 3] = [("a", &a), ("b", &b), ("c", &c)];
    let mut sent = 0;
    for _ in 0..6 {
        let engine = engine(dir.path());
        let pipeline = open(&engine, failback, &places).await;
        for _ in 0..random.below(12) {
            match random.below(4) {
                0 | 1 => {
                    let more = 1 + random.below(60) as u32;
                    send(&pipeline, sent..sent + more).await;
                    sent += more;
                }
                2 => {
                    let modes = [Mode::Take, Mode::Refuse, Mode::Lose, Mode::Hang, Mode::Once];
                    places[random.below(3) as usize].1.turn(modes[random.below(5) as usize]);
                }
                _ => {
                    // Let it go on until something more was tried, or for a moment where nothing is.
                    let place = places[random.below(3) as usize].1;
                    let times = place.attempts.borrow().len() + random.below(6) as usize;
                    drop(tokio::time::timeout(Duration::from_millis(60), place.tried(times)).await);
                }
            }
        }
        drop(balanced(&pipeline).await);
    }
    places.iter().for_each(|(_, place)| place.turn(Mode::Take));
    let engine = engine(dir.path());
    let pipeline = open(&engine, failback, &places).await;
    assert!(drain(&engine).await, "seed {seed}");
    let report = until_held_nowhere(&pipeline).await;
    let every: BTreeSet<u32> = places.iter().flat_map(|(_, place)| place.got()).collect();
    assert_eq!(every, numbers(0..sent), "seed {seed} {failback:?}");
    for delivery in &report.deliveries {
        assert_eq!(delivery.routed_events, u64::from(sent), "seed {seed}: {report:#?}");
    }
    if failback == Failback::Backfill {
        let missed: Vec<u32> = numbers(0..sent).difference(&a.each()).copied().collect();
        assert_eq!((missed, doubles(&[&a])), (Vec::new(), 0), "seed {seed} {:#?}", (a.got(), a.keys.lock().unwrap()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_and_no_key_names_two_batches_over_processes_that_die() {
    let first = std::env::var("SPILLWAY_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1_u64);
    for seed in first..first + 24 {
        for failback in BOTH {
            run_over_kills(seed, failback).await;
        }
    }
}

#[tokio::test]
async fn a_standby_that_commits_and_a_first_that_commits_lose_nothing_of_each_other() {
    for seed in 1..12 {
        let mut random = SplitMix64::new(seed);
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (Place::with(Mode::Take, commits()), Place::new(Mode::Take));
        let places: [(&'static str, &Arc<Place>); 2] = [("a", &a), ("b", &b)];
        let mut sent = 0;
        for _ in 0..5 {
            let engine = engine(dir.path());
            let pipeline = open(&engine, Failback::Leave, &places).await;
            for _ in 0..random.below(8) {
                send(&pipeline, sent..sent + 7).await;
                sent += 7;
                a.turn([Mode::Take, Mode::Refuse][random.below(2) as usize]);
                let times = a.attempts.borrow().len() + random.below(9) as usize;
                drop(tokio::time::timeout(Duration::from_millis(40), a.tried(times)).await);
            }
        }
        a.turn(Mode::Take);
        let engine = engine(dir.path());
        let pipeline = open(&engine, Failback::Leave, &places).await;
        assert!(drain(&engine).await);
        until_held_nowhere(&pipeline).await;
        let every: BTreeSet<u32> = a.each().union(&b.each()).copied().collect();
        assert_eq!(every, numbers(0..sent), "seed {seed}");
    }
}

/// The same with little patience.
fn impatient(spec: DeliverySpec) -> DeliverySpec {
    DeliverySpec { settings: DeliverySettings { timeout: Duration::from_millis(100), ..spec.settings }, ..spec }
}

/// One that keeps the order and commits.
fn commits() -> Traits {
    Traits { ordered: true, commits: true, ..Traits::default() }
}

/// Settings at level `Process`, where a backend that commits does so for good only every five seconds.
fn seldom_synced(failback: Failback, places: &Places<'_>) -> PipelineSettings {
    let mut settings = settings(Strategy::FirstHealthy(failback), places);
    settings.log.durability = Durability::Process;
    settings
}

#[tokio::test]
async fn one_that_commits_late_hands_over_what_it_has_before_another_sends() {
    for failback in BOTH {
        let dir = tempfile::tempdir().unwrap();
        let engine = engine(dir.path());
        let (a, b) = (Place::with(Mode::Take, commits()), Place::with(Mode::Take, commits()));
        let places: [(&'static str, &Arc<Place>); 2] = [("a", &a), ("b", &b)];
        let pipeline = engine.add(seldom_synced(failback, &places), specs(&places), &|_| None).await.unwrap();
        send(&pipeline, 0..100).await;
        a.until(|got| got.len() == 100).await;
        a.turn(Mode::Refuse);
        send(&pipeline, 100..200).await;
        b.until(|got| got.len() >= 100).await;
        assert_eq!((b.each(), doubles(&[&b])), (numbers(100..200), 0), "{failback:?}");
        // And back: beyond the batch that proves it well, the better one begins behind what the other has.
        a.turn(Mode::Take);
        let sent = send_until_active(&pipeline, "a", 200).await;
        send(&pipeline, sent..sent + 50).await;
        assert!(drain(&engine).await);
        let every: BTreeSet<u32> = a.each().union(&b.each()).copied().collect();
        assert_eq!((every, doubles(&[&a]), doubles(&[&b])), (numbers(0..sent + 50), 0, 0));
        match failback {
            Failback::Leave => assert!(doubles(&[&a, &b]) <= 10, "{:?} {:?}", a.got(), b.got()),
            Failback::Backfill => assert_eq!(a.each(), numbers(0..sent + 50)),
        }
        until_held_nowhere(&pipeline).await;
    }
}

#[tokio::test]
async fn one_whose_commits_hang_is_not_healthy_and_what_it_could_not_commit_goes_to_the_next() {
    for failback in BOTH {
        let dir = tempfile::tempdir().unwrap();
        let engine = engine(dir.path());
        let (a, b) = (Place::with(Mode::Take, commits()), Place::new(Mode::Take));
        let places: [(&'static str, &Arc<Place>); 2] = [("a", &a), ("b", &b)];
        let bound = specs(&places).into_iter().map(impatient).collect();
        let pipeline = engine.add(seldom_synced(failback, &places), bound, &|_| None).await.unwrap();
        send(&pipeline, 0..50).await;
        a.until(|got| got.len() == 50).await;
        until_held_nowhere(&pipeline).await;
        a.store.marks.send_replace(false);
        send(&pipeline, 50..100).await;
        b.until(|got| got.len() >= 50).await;
        assert!(b.each().is_superset(&numbers(50..100)));
        a.store.marks.send_replace(true);
        let sent = send_until_active(&pipeline, "a", 100).await;
        assert!(drain(&engine).await);
        let every: BTreeSet<u32> = a.each().union(&b.each()).copied().collect();
        assert_eq!((every, doubles(&[&a]), doubles(&[&b])), (numbers(0..sent), 0, 0));
        until_held_nowhere(&pipeline).await;
    }
}

#[tokio::test]
async fn what_one_did_not_save_before_a_kill_nobody_counts_as_had_elsewhere() {
    for failback in BOTH {
        let dir = tempfile::tempdir().unwrap();
        // Only the second writes down where it stands before it sends.
        let (a, b) = (Place::with(Mode::Take, Traits::default()), Place::new(Mode::Take));
        let places: [(&'static str, &Arc<Place>); 2] = [("a", &a), ("b", &b)];
        {
            let engine = engine(dir.path());
            let pipeline = open(&engine, failback, &places).await;
            send(&pipeline, 0..100).await;
            a.until(|got| got.len() == 100).await;
            a.turn(Mode::Refuse);
            send(&pipeline, 100..110).await;
            b.until(|got| !got.is_empty()).await;
        }
        a.turn(Mode::Take);
        let engine = engine(dir.path());
        let pipeline = open(&engine, failback, &places).await;
        assert!(drain(&engine).await);
        let report = until_held_nowhere(&pipeline).await;
        let (first, second) = (of(&report, "a"), of(&report, "b"));
        let delivered = first.delivered_events + second.delivered_events + second.duplicate_events;
        assert!(delivered >= 110, "each counts where it was delivered, at least once: {report:#?}");
        assert_eq!((doubles(&[&a]), b.each().is_subset(&numbers(100..110))), (0, true));
    }
}

#[tokio::test]
async fn what_one_cannot_commit_when_the_first_healthy_one_is_to_send_nobody_takes_for_had() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let (a, b) = (Place::with(Mode::Take, commits()), Place::new(Mode::Refuse));
    let places: [(&'static str, &Arc<Place>); 2] = [("b", &b), ("a", &a)];
    let group = seldom_synced(Failback::Leave, &places);
    let mut all = group.clone();
    all.routes[0].strategy = Strategy::All;
    let bound = specs(&places).into_iter().map(impatient).collect();
    let pipeline = engine.add(all, bound, &|_| None).await.unwrap();
    send(&pipeline, 0..100).await;
    // It is saved, and the next sync is seconds away.
    until(&pipeline, |report| of(report, "a").delivered_events == 100).await;
    a.store.marks.send_replace(false);
    engine.apply(group, Vec::new(), &|_| None).await.unwrap();
    let before = b.attempts.borrow().len();
    b.tried(before + 2).await;
    b.turn(Mode::Take);
    until(&pipeline, |report| of(report, "b").held_events == 0).await;
    a.store.marks.send_replace(true);
    assert!(drain(&engine).await);
    let every: BTreeSet<u32> = a.each().union(&b.each()).copied().collect();
    assert_eq!((every, doubles(&[&b])), (numbers(0..100), 0));
}

/// Makes what is saved what an earlier version would have saved, which did not write down where a delivery began.
fn forget_beginnings(dir: &Path) {
    let mut journal = Journal::open(Arc::new(RealFs), &dir.join("spool/default.jobs"));
    for (key, progress) in journal.progress().clone() {
        journal.save(&key, &Progress { began: None, ..progress }, true).unwrap();
    }
}

#[tokio::test]
async fn a_switch_over_what_an_earlier_version_saved_sends_nothing_again() {
    let dir = tempfile::tempdir().unwrap();
    let plain = |mode| Place::with(mode, Traits::default());
    let (a, b, c) = (plain(Mode::Refuse), plain(Mode::Refuse), plain(Mode::Take));
    let three: [(&'static str, &Arc<Place>); 3] = [("c", &c), ("b", &b), ("a", &a)];
    {
        let engine = engine(dir.path());
        let pipeline = engine.add(settings(Strategy::All, &three[1..]), specs(&three[1..]), &|_| None).await.unwrap();
        send(&pipeline, 0..50).await;
        // The one that will be first began at an edit; what came before was the others' business alone.
        engine.apply(settings(Strategy::All, &three), specs(&three[..1]), &|_| None).await.unwrap();
        send(&pipeline, 50..100).await;
        b.turn(Mode::Take);
        b.until(|got| got.len() == 100).await;
        c.until(|got| got.len() == 50).await;
        assert!(!engine.drain(Instant::now() + Duration::from_millis(300)).await, "one holds all of it");
    }
    forget_beginnings(dir.path());
    b.turn(Mode::Refuse);
    let engine = engine(dir.path());
    let pipeline = open(&engine, Failback::Leave, &three).await;
    send(&pipeline, 100..110).await;
    c.until(|got| got.len() == 60).await;
    let report = until_held_nowhere(&pipeline).await;
    assert_eq!((c.each(), b.each(), a.got().len()), (numbers(50..110), numbers(0..100), 0));
    assert_eq!((doubles(&[&c]), doubles(&[&b])), (0, 0), "{report:#?}");
    assert_eq!((of(&report, "a").elsewhere_events, of(&report, "c").elsewhere_events), (110, 50));
    assert!(drain(&engine).await);
}

#[tokio::test]
async fn what_one_takes_over_from_before_its_time_stays_when_the_other_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let (a, b, c) = (Place::new(Mode::Refuse), Place::new(Mode::Refuse), Place::new(Mode::Take));
    let places: [(&'static str, &Arc<Place>); 2] = [("a", &a), ("b", &b)];
    // Another route goes through all of it, so that the log keeps nothing for that.
    let other = settings(Strategy::All, &[("c", &c)]).routes.remove(0);
    let other = RouteSettings { name: "other".into(), ..other };
    let to_other = specs(&[("c", &c)]).into_iter().map(|spec| DeliverySpec { route: "other".into(), ..spec });
    let with = |strategy, places: &Places<'_>| {
        let mut settings = settings(strategy, places);
        settings.log.durability = Durability::Process;
        settings.routes.push(other.clone());
        settings
    };
    let mut first = with(Strategy::All, &places[..1]);
    first.routes.pop();
    let pipeline = engine.add(first, specs(&places[..1]), &|_| None).await.unwrap();
    send(&pipeline, 0..50).await;
    let bound = specs(&places[1..]).into_iter().chain(to_other).collect();
    engine.apply(with(Strategy::All, &places), bound, &|_| None).await.unwrap();
    send(&pipeline, 50..100).await;
    c.until(|got| got.len() == 50).await;
    let group = Strategy::FirstHealthy(Failback::Leave);
    engine.apply(with(group, &places), Vec::new(), &|_| None).await.unwrap();
    until(&pipeline, |report| of(report, "b").held_events == 100 && report.routes[0].active.is_none()).await;
    engine.apply(with(group, &places[1..]), Vec::new(), &|_| None).await.unwrap();
    until(&pipeline, |report| report.deliveries.len() == 2).await;
    // An edit frees what nobody needs.
    engine.apply(with(group, &places[1..]), Vec::new(), &|_| None).await.unwrap();
    send(&pipeline, 100..101).await;
    c.until(|got| got.len() == 51).await;
    b.turn(Mode::Take);
    until_held_nowhere(&pipeline).await;
    assert_eq!((b.each(), a.got().len()), (numbers(0..101), 0));
    assert!(drain(&engine).await);
}

#[tokio::test]
async fn what_one_had_that_was_removed_comes_to_no_other_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let plain = || Place::with(Mode::Take, Traits::default());
    let (a, b) = (plain(), plain());
    let two: [(&'static str, &Arc<Place>); 2] = [("a", &a), ("b", &b)];
    {
        let engine = engine(dir.path());
        let pipeline = open(&engine, Failback::Leave, &two).await;
        send(&pipeline, 0..100).await;
        a.until(|got| got.len() == 100).await;
        let group = Strategy::FirstHealthy(Failback::Leave);
        engine.apply(settings(group, &two[1..]), Vec::new(), &|_| None).await.unwrap();
        until(&pipeline, |report| report.deliveries.len() == 1).await;
    }
    let engine = engine(dir.path());
    let pipeline = open(&engine, Failback::Leave, &two[1..]).await;
    send(&pipeline, 100..110).await;
    assert!(drain(&engine).await);
    assert_eq!((b.each(), a.got().len()), (numbers(100..110), 100));
}

/// The names of the batches that came.
fn keys_of(place: &Place) -> BTreeSet<String> {
    place.keys.lock().unwrap().keys().filter(|key| !key.contains(' ')).cloned().collect()
}

#[tokio::test]
async fn a_batch_that_may_be_there_goes_on_as_it_was_or_under_another_key_where_its_encoding_was_edited() {
    let encoded = |encoding, mode| Place::with(mode, Traits { keyed: true, encoding, ..Traits::default() });
    for (dies, second) in [(false, 1), (false, 2), (true, 1), (true, 2)] {
        let dir = tempfile::tempdir().unwrap();
        let mut engine = engine(dir.path());
        let (a, b, c) = (encoded(1, Mode::Lose), encoded(second, Mode::Lose), encoded(second, Mode::Take));
        let mut pipeline = None;
        // It dies in the midst: what was planned anew is finished as that.
        for (place, last) in [(&a, false), (&b, false), (&c, true)] {
            let to: [(&'static str, &Arc<Place>); 1] = [("a", place)];
            if dies && pipeline.is_some() {
                drop((pipeline.take(), engine));
                engine = self::engine(dir.path());
            }
            let made = engine.apply(settings(Strategy::All, &to), specs(&to), &|_| None).await.unwrap();
            if keys_of(&a).is_empty() {
                send(&made, 0..10).await;
            }
            place.until(|got| got.len() == 10).await;
            let changes = u64::from(second == 2 && (!last || !dies) && !Arc::ptr_eq(place, &a));
            until(&made, |report| of(report, "a").unknown_batches == changes).await;
            pipeline = Some(made);
        }
        assert_eq!(keys_of(&a) == keys_of(&b), second == 1, "dies: {dies}, encoding {second}");
        assert!(second == 1 || keys_of(&a).is_disjoint(&keys_of(&b)));
        assert_eq!(keys_of(&b), keys_of(&c), "dies: {dies}, encoding {second}");
        assert!(drain(&engine).await);
    }
}

#[tokio::test]
async fn a_replay_goes_to_the_one_that_is_active_and_else_to_the_one_that_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Arc::new(engine(dir.path()));
    let (a, b) = (Place::new(Mode::Refuse), Place::new(Mode::Take));
    let places: [(&'static str, &Arc<Place>); 2] = [("a", &a), ("b", &b)];
    let mut settings = settings(Strategy::FirstHealthy(Failback::Leave), &places);
    settings.log.retain = Duration::from_hours(1);
    let pipeline = engine.add(settings, specs(&places), &|_| None).await.unwrap();
    let bound = specs(&places);
    let make = move |target: &JobTarget| {
        let spec = bound.iter().find(|spec| spec.backend_name == target.backend).cloned();
        spec.ok_or_else(|| "no such backend".to_owned())
    };
    engine.serve_jobs(Arc::new(make)).await;
    let request = |backend: Option<&str>| ReplayRequest {
        route: "all".into(),
        from: "oldest".into(),
        to: "now".into(),
        backend: backend.map(str::to_owned),
        dry_run: true,
    };
    let desk = engine.desks().remove(0);
    send(&pipeline, 0..100).await;
    b.until(|got| got.len() == 100).await;
    assert_eq!(desk.replay(&request(None)).await.unwrap().backends, ["b"]);
    assert_eq!(desk.replay(&request(Some("a"))).await.unwrap().backends, ["a"]);
    let replayed = desk.replay(&ReplayRequest { dry_run: false, ..request(None) }).await.unwrap();
    let jobs: Vec<_> = replayed.jobs.iter().map(|job| &*job.backend).collect();
    assert_eq!(jobs, ["b"]);
    b.until(|got| got.len() == 200).await;
    assert_eq!(a.got().len(), 0);
    // While none is healthy it waits for the best.
    b.turn(Mode::Refuse);
    send(&pipeline, 100..110).await;
    until(&pipeline, |report| report.routes[0].active.is_none()).await;
    assert_eq!(desk.replay(&request(None)).await.unwrap().backends, ["a"]);
    b.turn(Mode::Take);
    assert!(drain(&engine).await);
}

const QUOTA: u64 = 512 << 10;

/// A batch of a hundred events of more than 200 bytes.
fn big(number: u32) -> Batch {
    batch_of((number..number + 100).map(|number| format!("{{\"n\":{number},\"pad\":\"{:-<200}\"}}", "")))
}

#[tokio::test]
async fn what_is_held_for_a_backfill_alone_goes_before_intake_stops() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let (a, b) = (Place::new(Mode::Refuse), Place::new(Mode::Take));
    let places: [(&'static str, &Arc<Place>); 2] = [("a", &a), ("b", &b)];
    let mut small = settings(Strategy::FirstHealthy(Failback::Backfill), &places);
    small.log.bytes_max = QUOTA;
    let pipeline = engine.add(small, specs(&places), &|_| None).await.unwrap();
    // Five times the quota.
    let mut refused = 0;
    for number in (0..12_000).step_by(100) {
        while Intake.submit(std::slice::from_ref(&pipeline), big(number)).await.is_err() {
            refused += 1;
            assert!(refused < 1000, "{:#?}", balanced(&pipeline).await);
            b.until(|got| got.len() >= number as usize).await;
            pipeline.room().await;
        }
    }
    b.until(|got| got.len() >= 12_000).await;
    let report = balanced(&pipeline).await;
    println!("{refused} refusals");
    assert!(report.log.bytes <= QUOTA);
    let first = of(&report, "a");
    assert_eq!(first.dropped_events.keys().collect::<Vec<_>>(), ["backfill"], "{report:#?}");
    assert!(first.dropped_events["backfill"] > 5000 && of(&report, "b").dropped_events.is_empty());
    assert_eq!(first.dropped_events["backfill"] + first.held_events, 12_000);
    let lost = first.dropped_events["backfill"];
    a.turn(Mode::Take);
    assert!(drain(&engine).await);
    let got = a.each();
    assert_eq!((got.len() as u64, got.last()), (12_000 - lost, Some(&11_999)));
    assert_eq!((b.each(), doubles(&[&a])), (numbers(0..12_000), 0));
}

#[tokio::test]
async fn a_backend_that_is_added_gets_the_backlog_and_one_that_is_removed_leaves_it() {
    for failback in BOTH {
        let dir = tempfile::tempdir().unwrap();
        let engine = engine(dir.path());
        let (a, b, c) = (Place::new(Mode::Refuse), Place::new(Mode::Refuse), Place::new(Mode::Take));
        let group = Strategy::FirstHealthy(failback);
        let pipeline = open(&engine, failback, &[("a", &a), ("b", &b)]).await;
        send(&pipeline, 0..100).await;
        until(&pipeline, |report| report.routes[0].active.is_none()).await;
        let three: [(&'static str, &Arc<Place>); 3] = [("a", &a), ("b", &b), ("c", &c)];
        engine.apply(settings(group, &three), specs(&three[2..]), &|_| None).await.unwrap();
        send(&pipeline, 100..150).await;
        c.until(|got| got.len() == 150).await;
        // The first is removed and holds the backlog, for a backfill or until it looks: it is nobody's business any more.
        engine.apply(settings(group, &three[1..]), Vec::new(), &|_| None).await.unwrap();
        let report = until(&pipeline, |report| report.deliveries.iter().all(|one| &*one.backend != "a")).await;
        assert_eq!(report.deliveries.len(), 2);
        let tried = a.attempts.borrow().len();
        a.turn(Mode::Take);
        b.turn(Mode::Take);
        let sent = send_until_active(&pipeline, "b", 150).await;
        assert!(drain(&engine).await);
        assert_eq!((a.got(), a.attempts.borrow().len()), (Vec::new(), tried));
        let every: BTreeSet<u32> = b.each().union(&c.each()).copied().collect();
        assert_eq!(every, numbers(0..sent));
        if failback == Failback::Backfill {
            assert_eq!(b.each(), numbers(0..sent), "it is the first now");
        }
        until_held_nowhere(&pipeline).await;
    }
}

#[tokio::test]
async fn one_that_is_removed_with_batches_under_way_lands_them_and_nothing_is_sent_twice() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let (a, b) = (Place::new(Mode::Hang), Place::new(Mode::Take));
    let two: [(&'static str, &Arc<Place>); 2] = [("a", &a), ("b", &b)];
    let pipeline = open(&engine, Failback::Leave, &two).await;
    send(&pipeline, 0..100).await;
    a.tried(1).await;
    let group = Strategy::FirstHealthy(Failback::Leave);
    engine.apply(settings(group, &two[1..]), Vec::new(), &|_| None).await.unwrap();
    send(&pipeline, 100..120).await;
    a.turn(Mode::Take);
    assert!(drain(&engine).await);
    let every: BTreeSet<u32> = a.each().union(&b.each()).copied().collect();
    assert_eq!((every, doubles(&[&a, &b])), (numbers(0..120), 0));
    assert!(!a.got().is_empty() && b.each().is_superset(&numbers(100..120)));
    until_held_nowhere(&pipeline).await;
}

#[tokio::test]
async fn priorities_swapped_under_load_move_the_events_and_repeat_none() {
    for failback in BOTH {
        let dir = tempfile::tempdir().unwrap();
        let engine = engine(dir.path());
        let (a, b) = (Place::new(Mode::Take), Place::new(Mode::Take));
        let orders: [[(&'static str, &Arc<Place>); 2]; 2] = [[("a", &a), ("b", &b)], [("b", &b), ("a", &a)]];
        let pipeline = open(&engine, failback, &orders[0]).await;
        let mut sent = 0;
        for round in 0..12 {
            for _ in 0..5 {
                send(&pipeline, sent..sent + 17).await;
                sent += 17;
            }
            let order = &orders[(round + 1) % 2];
            engine.apply(settings(Strategy::FirstHealthy(failback), order), Vec::new(), &|_| None).await.unwrap();
            let lead = order[0].0;
            until(&pipeline, |report| report.routes[0].active.as_deref() == Some(lead)).await;
        }
        assert!(drain(&engine).await);
        let report = until_held_nowhere(&pipeline).await;
        let every: BTreeSet<u32> = a.each().union(&b.each()).copied().collect();
        assert_eq!((every, doubles(&[&a]), doubles(&[&b])), (numbers(0..sent), 0, 0));
        assert!(report.routes[0].failovers.is_empty(), "an edit is no failover");
        assert!(!a.got().is_empty() && !b.got().is_empty());
        if failback == Failback::Leave {
            assert_eq!(doubles(&[&a, &b]), 0, "the one that takes over waits for what is under way");
        }
    }
}

#[tokio::test]
async fn a_route_turns_from_all_to_the_first_healthy_and_back_under_load() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let (a, b, c) = (Place::new(Mode::Refuse), Place::new(Mode::Take), Place::new(Mode::Take));
    let three: [(&'static str, &Arc<Place>); 3] = [("a", &a), ("b", &b), ("c", &c)];
    let group = Strategy::FirstHealthy(Failback::Leave);
    // The second begins at an edit: what came before was the first one's business alone.
    let pipeline = engine.add(settings(Strategy::All, &three[..1]), specs(&three[..1]), &|_| None).await.unwrap();
    send(&pipeline, 0..50).await;
    engine.apply(settings(Strategy::All, &three[..2]), specs(&three[1..2]), &|_| None).await.unwrap();
    send(&pipeline, 50..100).await;
    b.until(|got| got.len() == 50).await;
    until(&pipeline, |report| of(report, "b").held_events == 0 && of(report, "a").held_events == 100).await;
    // What only the first had to get is the second one's now, and nothing comes to it again.
    engine.apply(settings(group, &three), specs(&three[2..]), &|_| None).await.unwrap();
    b.until(|got| got.len() == 100).await;
    send(&pipeline, 100..150).await;
    let report = until_held_nowhere(&pipeline).await;
    assert_eq!((of(&report, "a").elsewhere_events, of(&report, "b").delivered_events), (150, 150));
    assert_eq!((b.each(), doubles(&[&b]), a.got().len(), c.got().len()), (numbers(0..150), 0, 0, 0));
    engine.apply(settings(Strategy::All, &three), Vec::new(), &|_| None).await.unwrap();
    a.turn(Mode::Take);
    send(&pipeline, 150..200).await;
    assert!(drain(&engine).await);
    let report = until_held_nowhere(&pipeline).await;
    assert_eq!((a.each(), c.each(), report.routes[0].active.clone()), (numbers(150..200), numbers(150..200), None));
    assert_eq!((b.each(), doubles(&[&a, &b, &c])), (numbers(0..200), 100));
}

#[tokio::test]
async fn a_removed_route_drains_as_the_group_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let (a, b) = (Place::new(Mode::Refuse), Place::new(Mode::Hang));
    let two: [(&'static str, &Arc<Place>); 2] = [("a", &a), ("b", &b)];
    let pipeline = open(&engine, Failback::Leave, &two).await;
    send(&pipeline, 0..100).await;
    b.tried(1).await;
    assert!(engine.remove(pipeline.uid()).await);
    b.turn(Mode::Take);
    b.until(|got| got.len() == 100).await;
    while !engine.pipelines().is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!((b.each(), doubles(&[&b]), a.got()), (numbers(0..100), 0, Vec::new()));
}

#[tokio::test]
async fn what_changed_while_the_process_was_away_counts_as_an_edit_does() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b, c) = (Place::new(Mode::Refuse), Place::new(Mode::Refuse), Place::new(Mode::Take));
    let three: [(&'static str, &Arc<Place>); 3] = [("a", &a), ("b", &b), ("c", &c)];
    {
        let engine = engine(dir.path());
        let pipeline = open(&engine, Failback::Leave, &three[..2]).await;
        send(&pipeline, 0..100).await;
        let held = until(&pipeline, |report| report.routes[0].active.is_none()).await;
        assert!(held.deliveries.iter().all(|one| one.held_events == 100));
    }
    // The first is gone, and another is there.
    let engine = engine(dir.path());
    let pipeline = open(&engine, Failback::Leave, &three[1..]).await;
    c.until(|got| got.len() == 100).await;
    let gone = |report: &PipelineReport| report.deliveries.iter().all(|one| &*one.backend_type == "Place");
    let report =
        until(&pipeline, |report| gone(report) && report.deliveries.iter().all(|one| one.held_events == 0)).await;
    assert_eq!((of(&report, "b").elsewhere_events, of(&report, "c").delivered_events), (100, 100));
    assert_eq!((c.each(), doubles(&[&c])), (numbers(0..100), 0));
}

#[tokio::test]
async fn one_that_stands_by_gives_nothing_up_and_what_the_first_gives_up_counts_once() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let (a, b) = (Place::new(Mode::Hang), Place::new(Mode::Take));
    let places: [(&'static str, &Arc<Place>); 2] = [("a", &a), ("b", &b)];
    let mut small = settings(Strategy::FirstHealthy(Failback::Leave), &places);
    small.log.bytes_max = QUOTA;
    let drops = |spec| DeliverySpec { when_behind: WhenBehind::DropOldest, ..spec };
    let pipeline = engine.add(small, specs(&places).into_iter().map(drops).collect(), &|_| None).await.unwrap();
    for number in (0..6_000).step_by(100) {
        while Intake.submit(std::slice::from_ref(&pipeline), big(number)).await.is_err() {
            pipeline.room().await;
        }
    }
    let same = |report: &PipelineReport| of(report, "a").held_events == of(report, "b").held_events;
    let report = until(&pipeline, same).await;
    let dropped = of(&report, "a").dropped_events["quota"];
    assert!(dropped > 1000, "{report:#?}");
    assert_eq!((of(&report, "b").elsewhere_events, of(&report, "b").dropped_events.len()), (dropped, 0), "{report:#?}");
    a.turn(Mode::Take);
    assert!(drain(&engine).await);
    assert_eq!((b.got(), a.each().last()), (Vec::new(), Some(&5_999)));
    until_held_nowhere(&pipeline).await;
}

#[tokio::test]
async fn one_that_cannot_be_opened_holds_up_nobody_and_keeps_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let (a, b) = (Place::new(Mode::Take), Place::new(Mode::Take));
    a.store.opens.send_replace(false);
    let places: [(&'static str, &Arc<Place>); 2] = [("a", &a), ("b", &b)];
    let group = Strategy::FirstHealthy(Failback::Leave);
    let bound = specs(&places).into_iter().map(impatient).collect();
    let pipeline = engine.add(settings(group, &places), bound, &|_| None).await.unwrap();
    send(&pipeline, 0..100).await;
    b.until(|got| got.len() == 100).await;
    until_held_nowhere(&pipeline).await;
    a.store.opens.send_replace(true);
    let sent = send_until_active(&pipeline, "a", 100).await;
    assert!(drain(&engine).await);
    let every: BTreeSet<u32> = a.each().union(&b.each()).copied().collect();
    assert_eq!((every, doubles(&[&a, &b]) <= 10), (numbers(0..sent), true));
}

#[tokio::test]
async fn what_all_of_a_removed_route_still_hold_is_a_dead_letter_once() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let (a, b, c) = (Place::new(Mode::Refuse), Place::new(Mode::Refuse), Place::new(Mode::Take));
    let two: [(&'static str, &Arc<Place>); 2] = [("a", &a), ("b", &b)];
    let mut before = settings(Strategy::FirstHealthy(Failback::Leave), &two);
    before.log.drain = Duration::ZERO;
    let pipeline = engine.add(before.clone(), specs(&two), &|_| None).await.unwrap();
    send(&pipeline, 0..100).await;
    let mut after = settings(Strategy::All, &[("c", &c)]);
    after.routes[0].name = "other".into();
    let other = specs(&[("c", &c)]).into_iter().map(|spec| DeliverySpec { route: "other".into(), ..spec });
    engine.apply(after, other.collect(), &|_| None).await.unwrap();
    let only = |report: &PipelineReport| report.deliveries.iter().all(|one| &*one.backend == "c");
    until(&pipeline, only).await;
    assert_eq!(engine.reports()[0].dead_letters.kept_events, 100);
}

#[tokio::test]
async fn a_group_that_was_suspended_goes_on_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let (a, b) = (Place::new(Mode::Refuse), Place::new(Mode::Take));
    let two: [(&'static str, &Arc<Place>); 2] = [("a", &a), ("b", &b)];
    let pipeline = open(&engine, Failback::Backfill, &two).await;
    send(&pipeline, 0..100).await;
    b.until(|got| got.len() == 100).await;
    let running = settings(Strategy::FirstHealthy(Failback::Backfill), &two);
    let resting = PipelineSettings { suspend: true, ..running.clone() };
    engine.apply(resting, Vec::new(), &|_| None).await.unwrap();
    let rest = |report: &PipelineReport| report.deliveries.iter().all(|one| one.state == DeliveryState::Suspended);
    until(&pipeline, rest).await;
    a.turn(Mode::Take);
    engine.apply(running, Vec::new(), &|_| None).await.unwrap();
    send(&pipeline, 100..150).await;
    assert!(drain(&engine).await);
    assert_eq!((a.each(), doubles(&[&a]), b.got().len()), (numbers(0..150), 0, 100));
    until_held_nowhere(&pipeline).await;
}

#[tokio::test]
async fn a_process_ends_at_once_when_only_the_second_can_deliver() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let (a, b) = (Place::new(Mode::Refuse), Place::new(Mode::Take));
    let pipeline = open(&engine, Failback::Leave, &[("a", &a), ("b", &b)]).await;
    send(&pipeline, 0..100).await;
    b.until(|got| !got.is_empty()).await;
    assert!(drain(&engine).await);
    assert_eq!(b.each(), numbers(0..100));
}

#[tokio::test]
async fn a_batch_of_which_another_took_a_part_is_another_batch() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let (a, b) = (Place::of(10), Place::of(3));
    a.turn(Mode::Refuse);
    b.turn(Mode::Refuse);
    let pipeline = open(&engine, Failback::Leave, &[("a", &a), ("b", &b)]).await;
    send(&pipeline, 0..10).await;
    // The first was tried with all ten; the second takes three of them.
    until(&pipeline, |report| report.routes[0].active.is_none()).await;
    b.turn(Mode::Once);
    b.until(|got| got.len() == 3).await;
    until(&pipeline, |report| of(report, "a").held_events == 7 && report.routes[0].active.is_none()).await;
    a.turn(Mode::Take);
    assert!(drain(&engine).await);
    assert_eq!((a.each(), b.each(), doubles(&[&a, &b])), (numbers(3..10), numbers(0..3), 0));
    let keys = a.keys.lock().unwrap();
    let named: BTreeSet<usize> = keys.values().map(Vec::len).filter(|members| *members > 0).collect();
    assert_eq!(named, BTreeSet::from([7, 10]), "{keys:#?}");
}

#[tokio::test]
async fn one_that_is_removed_while_all_are_down_goes_at_once_and_the_backlog_stays() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let (a, b) = (Place::new(Mode::Refuse), Place::new(Mode::Refuse));
    let two: [(&'static str, &Arc<Place>); 2] = [("a", &a), ("b", &b)];
    let pipeline = open(&engine, Failback::Backfill, &two).await;
    send(&pipeline, 0..100).await;
    until(&pipeline, |report| report.routes[0].active.is_none()).await;
    let group = Strategy::FirstHealthy(Failback::Backfill);
    engine.apply(settings(group, &two[1..]), Vec::new(), &|_| None).await.unwrap();
    let report = until(&pipeline, |report| report.deliveries.len() == 1).await;
    assert_eq!(of(&report, "b").held_events, 100);
    b.turn(Mode::Take);
    assert!(drain(&engine).await);
    assert_eq!((a.got(), b.each()), (Vec::new(), numbers(0..100)));
}

#[tokio::test]
async fn the_backlog_of_backends_that_are_all_replaced_at_once_goes_to_those_that_come() {
    for (failback, dies) in BOTH.into_iter().flat_map(|failback| [(failback, false), (failback, true)]) {
        let dir = tempfile::tempdir().unwrap();
        let (a, b, c) = (Place::new(Mode::Refuse), Place::new(Mode::Refuse), Place::new(Mode::Refuse));
        let three: [(&'static str, &Arc<Place>); 3] = [("a", &a), ("b", &b), ("c", &c)];
        let group = Strategy::FirstHealthy(failback);
        let mut engine = engine(dir.path());
        // Both hold all of it.
        let mut pipeline = open(&engine, failback, &three[..2]).await;
        send(&pipeline, 0..100).await;
        until(&pipeline, |report| report.routes[0].active.is_none()).await;
        engine.apply(settings(group, &three[2..]), specs(&three[2..]), &|_| None).await.unwrap();
        send(&pipeline, 100..150).await;
        until(&pipeline, |report| of(report, "c").held_events == 150).await;
        if dies {
            drop((pipeline, engine));
            engine = self::engine(dir.path());
            let gone = specs(&three[..2]);
            let removed = |key: &DeliveryKey| gone.iter().find(|spec| spec.backend_uid == key.backend_uid).cloned();
            pipeline = engine.add(settings(group, &three[2..]), specs(&three[2..]), &removed).await.unwrap();
        }
        a.turn(Mode::Take);
        b.turn(Mode::Take);
        until(&pipeline, |report| report.deliveries.len() == 1).await;
        c.turn(Mode::Take);
        assert!(drain(&engine).await);
        assert_eq!((a.got().len(), b.got().len()), (0, 0), "{failback:?}, dies: {dies}");
        assert_eq!((c.each(), c.got().len()), (numbers(0..150), 150), "{failback:?}, dies: {dies}");
    }
}

#[tokio::test]
async fn the_backlog_of_backends_that_were_replaced_while_no_process_ran_goes_to_those_that_come() {
    for (failback, dies) in BOTH.into_iter().flat_map(|failback| [(failback, false), (failback, true)]) {
        let dir = tempfile::tempdir().unwrap();
        let places = [Mode::Take, Mode::Refuse, Mode::Refuse, Mode::Refuse].map(Place::new);
        let [a, b, c, d] = &places;
        let four: [(&'static str, &Arc<Place>); 4] = [("a", a), ("b", b), ("c", c), ("d", d)];
        {
            let engine = engine(dir.path());
            let pipeline = open(&engine, failback, &four[..2]).await;
            send(&pipeline, 0..50).await;
            until_held_nowhere(&pipeline).await;
            a.turn(Mode::Refuse);
            // Both hold this.
            send(&pipeline, 50..150).await;
            until(&pipeline, |report| report.routes[0].active.is_none()).await;
            if !dies {
                engine.drain(Instant::now() + Duration::from_millis(50)).await;
            }
        }
        let gone = specs(&four[..2]);
        let removed = |key: &DeliveryKey| gone.iter().find(|spec| spec.backend_uid == key.backend_uid).cloned();
        let engine = engine(dir.path());
        let group = Strategy::FirstHealthy(failback);
        let pipeline = engine.add(settings(group, &four[2..]), specs(&four[2..]), &removed).await.unwrap();
        [a, b].into_iter().for_each(|place| place.turn(Mode::Take));
        send(&pipeline, 150..200).await;
        until(&pipeline, |report| report.routes[0].active.is_none()).await;
        [c, d].into_iter().for_each(|place| place.turn(Mode::Take));
        let gone = |report: &PipelineReport| report.deliveries.len() == 2;
        until(&pipeline, gone).await;
        until(&pipeline, |report| report.deliveries.iter().any(|one| one.held_events == 0)).await;
        assert!(drain(&engine).await);
        assert_eq!((a.each(), a.got().len(), b.got().len()), (numbers(0..50), 50, 0), "{failback:?}, dies: {dies}");
        let news: BTreeSet<u32> = c.each().union(&d.each()).copied().collect();
        assert_eq!((news, doubles(&[c]), doubles(&[d])), (numbers(50..200), 0, 0), "{failback:?}, dies: {dies}");
        if failback == Failback::Leave {
            // Both came back at once, so that each may have been probed with the first batch before one of them led.
            assert!(doubles(&[c, d]) <= 10, "each event is at one of those that came, but for one batch");
        }
    }
}

#[tokio::test]
async fn backends_that_each_had_to_get_all_keep_what_they_hold_when_others_come_while_no_process_ran() {
    let dir = tempfile::tempdir().unwrap();
    let places = [Mode::Refuse, Mode::Refuse, Mode::Take].map(Place::new);
    let [a, b, c] = &places;
    let three: [(&'static str, &Arc<Place>); 3] = [("a", a), ("b", b), ("c", c)];
    {
        let engine = engine(dir.path());
        let all = settings(Strategy::All, &three[..2]);
        let pipeline = engine.add(all, specs(&three[..2]), &|_| None).await.unwrap();
        send(&pipeline, 0..50).await;
        engine.drain(Instant::now() + Duration::from_millis(50)).await;
    }
    let gone = specs(&three[..2]);
    let removed = |key: &DeliveryKey| gone.iter().find(|spec| spec.backend_uid == key.backend_uid).cloned();
    [a, b].into_iter().for_each(|place| place.turn(Mode::Take));
    let engine = engine(dir.path());
    let group = Strategy::FirstHealthy(Failback::Leave);
    let pipeline = engine.add(settings(group, &three[2..]), specs(&three[2..]), &removed).await.unwrap();
    send(&pipeline, 50..60).await;
    until(&pipeline, |report| report.deliveries.len() == 1).await;
    assert!(drain(&engine).await);
    assert_eq!([a, b, c].map(|place| place.each()), [numbers(0..50), numbers(0..50), numbers(50..60)]);
}

#[tokio::test]
async fn members_that_are_replaced_again_and_again_under_load_repeat_none() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let (a, b, c) = (Place::new(Mode::Take), Place::new(Mode::Take), Place::new(Mode::Take));
    let [a_place, b_place, c_place]: [(&'static str, &Arc<Place>); 3] = [("a", &a), ("b", &b), ("c", &c)];
    let versions: [&[_]; 8] = [
        &[b_place],
        &[a_place, c_place],
        &[b_place],
        &[c_place, a_place],
        &[b_place, c_place],
        &[a_place],
        &[c_place],
        &[a_place, b_place],
    ];
    let pipeline = open(&engine, Failback::Leave, &[a_place, b_place]).await;
    let mut next = 0;
    for round in 0..48 {
        send(&pipeline, next..next + 40).await;
        next += 40;
        let version = versions[round % versions.len()];
        engine
            .apply(settings(Strategy::FirstHealthy(Failback::Leave), version), specs(version), &|_| None)
            .await
            .unwrap();
        if round % 3 == 0 {
            send(&pipeline, next..next + 25).await;
            next += 25;
        }
        for _ in 0..round % 5 {
            tokio::task::yield_now().await;
        }
    }
    until_held_nowhere(&pipeline).await;
    assert!(drain(&engine).await);
    let all: BTreeSet<u32> = [&a, &b, &c].iter().flat_map(|place| place.each()).collect();
    assert_eq!((all, doubles(&[&a, &b, &c])), (numbers(0..next), 0));
}
