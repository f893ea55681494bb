//! Dead letters on a disk that fails, while the log's own does not: an event waits for its letter and is not dropped.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use spillway_delivery::backend::{Backend, Fault, FaultKind, Items, OutBatch, Outcome};
use spillway_delivery::clock::Clock;
use spillway_delivery::deliver::{DeliverySpec, Engine};
use spillway_delivery::intake::Pipeline;
use spillway_delivery::ledger::{BreakerState, PipelineReport};
use spillway_delivery::settings::{DeliverySettings, LogSettings, PipelineSettings, Strategy};
use tokio::time::Instant;

use crate::breaking::{Breaking, Broken};
use crate::common::{
    Store, assert_balanced, disk, drain, engine_over, pipeline_of, quick, reference, route, send, spec_of, time_goes_by,
};

/// What a destination does that takes the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Refuses the events that end in 7.
    Picks,
    /// Says of batches with such an event that they are too large.
    Chokes,
    /// Takes nothing.
    Dead,
}

#[derive(Debug)]
struct Place {
    mode: Mode,
    store: Store<String>,
}

impl Backend for Place {
    fn send<'a>(&'a self, batch: &'a OutBatch) -> BoxFuture<'a, Result<Items, Fault>> {
        let lines: Vec<_> = batch.events().map(|event| String::from_utf8_lossy(event.bytes).into_owned()).collect();
        let is_refused = |line: &String| line.ends_with("7}");
        let result = match self.mode {
            Mode::Dead => Err(Fault::new(FaultKind::Unreachable, "as told")),
            Mode::Chokes if lines.iter().any(is_refused) => Err(Fault::new(FaultKind::TooLarge, "as told")),
            Mode::Picks | Mode::Chokes => {
                self.store.add(lines.iter().filter(|line| !is_refused(line)).cloned());
                let outcome = |line| if is_refused(line) { Outcome::Rejected("no".into()) } else { Outcome::Delivered };
                Ok(Items::Each(lines.iter().map(outcome).collect()))
            }
        };
        Box::pin(async { result })
    }
}

struct World {
    engine: Arc<Engine>,
    broken: Broken,
    place: Arc<Place>,
    pipeline: Arc<Pipeline>,
    _dir: tempfile::TempDir,
}

fn settings(backends: &[&str]) -> PipelineSettings {
    let log = LogSettings { drain: Duration::from_secs(1), ..LogSettings::default() };
    let backends = backends.iter().map(|name| reference(name)).collect();
    pipeline_of(log, vec![route("all", Strategy::All, backends)])
}

fn spec(place: &Arc<Place>) -> DeliverySpec {
    spec_of("all", "b", place.clone(), DeliverySettings { retry_max: Duration::from_secs(2), ..quick() })
}

async fn world(mode: Mode) -> World {
    let dir = tempfile::tempdir().unwrap();
    let (broken, place) = (Broken::default(), Arc::new(Place { mode, store: Store::default() }));
    let breaking = Breaking { whole: disk(dir.path()), part: "dead-letters", broken: broken.clone() };
    let engine = Arc::new(engine_over(dir.path(), Arc::new(breaking), Clock::system()));
    let pipeline = engine.add(settings(&["b"]), vec![spec(&place)], &|_| None).await.unwrap();
    World { engine, broken, place, pipeline, _dir: dir }
}

/// Returns the report with that of the dead letters.
async fn report(world: &World) -> PipelineReport {
    let engine = world.engine.clone();
    let report = tokio::task::spawn_blocking(move || engine.reports()).await.unwrap().remove(0);
    assert_balanced(&report);
    report
}

/// Lets time go by until the report `holds`.
async fn until(world: &World, holds: impl Fn(&PipelineReport) -> bool) -> PipelineReport {
    let deadline = Instant::now() + Duration::from_mins(1);
    loop {
        let report = report(world).await;
        if holds(&report) {
            return report;
        }
        assert!(Instant::now() < deadline, "{report:#?}");
        time_goes_by(Duration::from_millis(10)).await;
    }
}

const FAULTS: [io::ErrorKind; 2] = [io::ErrorKind::Other, io::ErrorKind::StorageFull];

#[tokio::test(start_paused = true)]
async fn an_event_whose_letter_cannot_be_written_waits_for_it() {
    for mode in [Mode::Picks, Mode::Chokes] {
        for (fault, opened) in FAULTS.into_iter().flat_map(|fault| [(fault, false), (fault, true)]) {
            let world = world(mode).await;
            let mut letters = 0;
            if opened {
                send(&world.pipeline, 0..10).await;
                letters = 1;
                until(&world, |report| report.dead_letters.kept_events == 1).await;
            }
            *world.broken.lock().unwrap() = Some(fault);
            send(&world.pipeline, 10..30).await;
            let taken = 18 + 9 * letters as usize;
            world.place.store.until(|got| got.len() == taken).await;
            // Longer than events may be left behind, and new ones come all the time.
            for minute in 3..15 {
                send(&world.pipeline, minute * 10..minute * 10 + 1).await;
                time_goes_by(Duration::from_mins(1)).await;
            }
            let report = report(&world).await;
            let waiting = &report.deliveries[0];
            assert_eq!((waiting.dropped_events.len(), waiting.rejected_events), (0, letters), "{report:#?}");
            assert_eq!((waiting.held_events, waiting.imbalance_events), (2, 0), "{report:#?}");
            assert_eq!(waiting.breaker.state, BreakerState::Closed, "it is not the backend's fault");
            assert!(waiting.faults["local"] > 10, "it is tried again, and told: {report:#?}");
            assert_eq!(waiting.faults.len(), 1, "{report:#?}");
            *world.broken.lock().unwrap() = None;
            let report = until(&world, |report| report.deliveries[0].held_events == 0).await;
            let (done, kept) = (&report.deliveries[0], &report.dead_letters);
            assert_eq!((done.rejected_events, done.dropped_events.len()), (letters + 2, 0), "{report:#?}");
            assert_eq!((kept.kept_events, kept.imbalance_events), (letters + 2, 0), "{report:#?}");
            assert!(drain(&world.engine).await);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_removed_reference_holds_waits_for_its_letters() {
    for fault in FAULTS {
        let world = world(Mode::Dead).await;
        send(&world.pipeline, 0..30).await;
        *world.broken.lock().unwrap() = Some(fault);
        world.engine.apply(settings(&[]), Vec::new(), &|_| None).await.unwrap();
        time_goes_by(Duration::from_mins(5)).await;
        let report = report(&world).await;
        let waiting = &report.deliveries[0];
        assert_eq!((waiting.dropped_events.len(), waiting.held_events), (0, 30), "{report:#?}");
        *world.broken.lock().unwrap() = None;
        let report = until(&world, |report| report.dead_letters.kept_events == 30).await;
        assert!(report.deliveries.iter().all(|one| one.dropped_events.is_empty()), "{report:#?}");
        assert!(drain(&world.engine).await);
    }
}
