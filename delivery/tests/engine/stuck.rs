//! One batch, or one event, that is never taken by a destination that is well: it holds up nobody else.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use spillway_delivery::backend::{Backend, Fault, FaultKind, Items, OutBatch, Outcome};
use spillway_delivery::clock::Clock;
use spillway_delivery::condition::Condition;
use spillway_delivery::deliver::Engine;
use spillway_delivery::filesystem::FaultyFs;
use spillway_delivery::intake::{Intake, Pipeline};
use spillway_delivery::ledger::BreakerState;
use spillway_delivery::settings::{DeliverySettings, LogSettings, PipelineSettings, Strategy};

use crate::common::{
    Store, balanced, batch_of, disk, engine_over, line, pipeline_of, quick, quick_breaker, reference, route, send,
    spec_of, time_goes_by, until_paused, until_saved,
};

/// What a destination says of the events of a batch.
type Says = fn(&[String]) -> Answer;

enum Answer {
    Items(Vec<Outcome>),
    Fails(FaultKind),
    /// None in time.
    Hangs,
}

#[derive(Debug)]
struct Place {
    says: Says,
    store: Store<String>,
    attempts: AtomicUsize,
}

impl Place {
    fn new(says: Says) -> Arc<Self> {
        Arc::new(Self { says, store: Store::default(), attempts: AtomicUsize::new(0) })
    }
}

impl Backend for Place {
    fn send<'a>(&'a self, batch: &'a OutBatch) -> BoxFuture<'a, Result<Items, Fault>> {
        Box::pin(async move {
            self.attempts.fetch_add(1, Ordering::Relaxed);
            let lines: Vec<String> =
                batch.events().map(|event| String::from_utf8_lossy(event.bytes).into_owned()).collect();
            match (self.says)(&lines) {
                Answer::Items(outcomes) => {
                    let taken = lines.into_iter().zip(&outcomes).filter(|(_, outcome)| **outcome == Outcome::Delivered);
                    self.store.add(taken.map(|(line, _)| line));
                    Ok(Items::Each(outcomes))
                }
                Answer::Fails(kind) => Err(Fault::new(kind, "as told")),
                Answer::Hangs => std::future::pending().await,
            }
        })
    }
}

struct World {
    dir: tempfile::TempDir,
    fs: FaultyFs,
    engine: Engine,
    pipeline: Arc<Pipeline>,
}

impl World {
    async fn new(place: &Arc<Place>, settings: PipelineSettings, delivery: DeliverySettings) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let fs = disk(dir.path());
        let engine = engine_over(dir.path(), Arc::new(fs.clone()), Clock::manual(1));
        let spec = spec_of("all", "place", place.clone(), delivery);
        let pipeline = engine.add(settings, vec![spec], &|_| None).await.unwrap();
        Self { dir, fs, engine, pipeline }
    }
}

fn settings(log: LogSettings) -> PipelineSettings {
    pipeline_of(log, vec![route("all", Strategy::All, vec![reference("place")])])
}

fn delivery() -> DeliverySettings {
    DeliverySettings { breaker: quick_breaker(), ..quick() }
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_is_never_taken_holds_up_no_other_and_is_a_dead_letter_in_the_end() {
    for kind in [FaultKind::Broken, FaultKind::Throttled] {
        let says: Says = match kind {
            FaultKind::Broken => |lines| refuses(lines, FaultKind::Broken),
            _ => |lines| refuses(lines, FaultKind::Throttled),
        };
        let place = Place::new(says);
        let world = World::new(&place, settings(LogSettings::default()), delivery()).await;
        send(&world.pipeline, 0..1).await;
        until_paused(&world.pipeline, |report| report.deliveries[0].attempts >= 3).await;
        for number in 1..40 {
            send(&world.pipeline, number..number + 1).await;
            place.store.until(|got| got.len() as u32 == number).await;
            time_goes_by(Duration::from_secs(20)).await;
        }
        let report = until_paused(&world.pipeline, |report| report.deliveries[0].rejected_events == 1).await;
        let delivery = &report.deliveries[0];
        assert_eq!((delivery.delivered_events, delivery.held_events), (39, 0), "{kind:?}");
        assert_eq!(delivery.breaker.state, BreakerState::Closed);
        world.engine.drain(tokio::time::Instant::now() + Duration::from_secs(1)).await;
    }
}

fn refuses(lines: &[String], kind: FaultKind) -> Answer {
    if lines.contains(&line(0)) { Answer::Fails(kind) } else { Answer::Items(vec![Outcome::Delivered; lines.len()]) }
}

#[tokio::test(start_paused = true)]
async fn an_event_that_is_never_taken_leaves_one_range_however_many_others_are_taken_around_it() {
    let place = Place::new(|lines| {
        let outcome = |one: &String| if *one == line(500) { Outcome::Retry } else { Outcome::Delivered };
        Answer::Items(lines.iter().map(outcome).collect())
    });
    let mut settings = settings(LogSettings::default());
    // Every other event is none of this route's.
    settings.routes[0].condition = Some(Condition::compile("event.n % 2 == 0").unwrap());
    let world = World::new(&place, settings, delivery()).await;
    for at in 0..4 {
        send(&world.pipeline, at * 500..(at + 1) * 500).await;
    }
    place.store.until(|got| got.len() == 999).await;
    let log = world.dir.path().join("spool/default.jobs");
    until_saved(&world.fs, &log, "place", |saved| saved.delivered == 999 && saved.resolved.len() == 1).await;
    let report = balanced(&world.pipeline).await;
    assert_eq!((report.deliveries[0].held_events, report.unrouted_events), (1, 1000));
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_does_not_fit_through_in_its_time_is_made_smaller() {
    const BYTES_MAX: usize = 300 << 10;
    let place = Place::new(|lines| {
        let fits = lines.iter().map(String::len).sum::<usize>() <= BYTES_MAX;
        if fits { Answer::Items(vec![Outcome::Delivered; lines.len()]) } else { Answer::Hangs }
    });
    let delivery = DeliverySettings { timeout: Duration::from_secs(1), ..delivery() };
    let world = World::new(&place, settings(LogSettings::default()), delivery).await;
    let event = |number: u32| format!("{{\"n\":{number},\"pad\":\"{}\"}}", "x".repeat(1 << 10));
    for at in 0..4 {
        let batch = batch_of((at * 1000..(at + 1) * 1000).map(event));
        Intake.submit(std::slice::from_ref(&world.pipeline), batch).await.unwrap();
    }
    let mut got = place.store.until(|got| got.len() >= 4000).await;
    got.sort_unstable();
    got.dedup();
    assert_eq!(got.len(), 4000);
    let report = until_paused(&world.pipeline, |report| report.deliveries[0].held_events == 0).await;
    assert!(report.deliveries[0].unknown_batches > 0, "they may have been taken");
}

#[tokio::test(start_paused = true)]
async fn more_room_for_dead_letters_counts_at_once() {
    let place = Place::new(|lines| Answer::Items(vec![Outcome::Rejected("no".into()); lines.len()]));
    let small = LogSettings { dead_letters_bytes_max: 0, ..LogSettings::default() };
    let world = World::new(&place, settings(small), delivery()).await;
    send(&world.pipeline, 0..5).await;
    until_paused(&world.pipeline, |report| report.deliveries[0].dropped_events.values().sum::<u64>() == 5).await;
    let large = settings(LogSettings { dead_letters_bytes_max: 1 << 20, ..LogSettings::default() });
    world.engine.apply(large, Vec::new(), &|_| None).await.unwrap();
    send(&world.pipeline, 5..10).await;
    let report = until_paused(&world.pipeline, |report| report.deliveries[0].held_events == 0).await;
    let delivery = &report.deliveries[0];
    assert_eq!((delivery.rejected_events, delivery.dropped_events.values().sum::<u64>()), (5, 5), "{delivery:#?}");
}
