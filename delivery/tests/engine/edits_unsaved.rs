//! Edits whose cursors cannot be written down: they are refused as a whole, leave nothing behind, and can be made again.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use spillway_delivery::backend::{Backend, Fault, FaultKind, Items, OutBatch, Outcome};
use spillway_delivery::clock::Clock;
use spillway_delivery::deliver::jobs::{JobError, JobTarget, ReplayRequest};
use spillway_delivery::deliver::{DeliverySpec, Engine, EngineError};
use spillway_delivery::filesystem::FaultyFs;
use spillway_delivery::settings::{DeliverySettings, Failback, LogSettings, PipelineSettings, Strategy};

use crate::breaking::{Breaking, Broken};
use crate::common::{
    Store, balanced, batch_of, disk, drain, engine_over, line, of, pipeline_of, quick, quick_breaker, reference, route,
    send, spec_of, time_goes_by, until_paused,
};

#[derive(Debug, Default)]
struct Place {
    store: Store<String>,
    is_down: AtomicBool,
}

impl Backend for Place {
    fn send<'a>(&'a self, batch: &'a OutBatch) -> BoxFuture<'a, Result<Items, Fault>> {
        let lines = batch.events().map(|event| String::from_utf8_lossy(event.bytes).into_owned());
        let result = if self.is_down.load(Ordering::Relaxed) {
            Err(Fault::new(FaultKind::Unreachable, "as told"))
        } else {
            self.store.add(lines);
            Ok(Items::All(Outcome::Delivered))
        };
        Box::pin(async { result })
    }
}

/// A pipeline whose routes, named like their only backends, take every event.
fn settings(routes: &[&str]) -> PipelineSettings {
    let route = |name: &&str| route(name, Strategy::All, vec![reference(name)]);
    let log = LogSettings { bytes_max: 4 << 20, drain: Duration::from_hours(1), ..LogSettings::default() };
    pipeline_of(log, routes.iter().map(route).collect())
}

fn to(route: &str, name: &str, place: &Arc<Place>) -> DeliverySpec {
    spec_of(route, name, place.clone(), DeliverySettings { breaker: quick_breaker(), ..quick() })
}

/// An engine over a disk on which cursors cannot be written while that is broken.
fn engine(dir: &Path, whole: FaultyFs) -> (Engine, Broken) {
    let broken = Broken::default();
    let breaking = Breaking { whole, part: "cursors.", broken: broken.clone() };
    (engine_over(dir, Arc::new(breaking), Clock::system()), broken)
}

fn lines(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(line).collect()
}

#[tokio::test(start_paused = true)]
async fn a_new_reference_whose_beginning_cannot_be_written_down_is_refused_and_holds_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, broken) = engine(dir.path(), disk(dir.path()));
    let (a, b) = (Arc::<Place>::default(), Arc::<Place>::default());
    let pipeline = engine.apply(settings(&["a"]), vec![to("a", "a", &a)], &|_| None).await.unwrap();
    send(&pipeline, 0..10).await;
    a.store.until(|got| got.len() == 10).await;
    *broken.lock().unwrap() = Some(io::ErrorKind::Other);
    let refused = engine.apply(settings(&["a", "b"]), vec![to("b", "b", &b)], &|_| None).await;
    assert!(matches!(refused, Err(EngineError::Unsaved { .. })), "{refused:?}");
    send(&pipeline, 10..20).await;
    a.store.until(|got| got.len() == 20).await;
    *broken.lock().unwrap() = None;
    // More than the log holds goes through it: nothing is kept for the one that did not come.
    let filler = "x".repeat(1000);
    for round in 0..100 {
        let lines = (0..100).map(|number| format!("{{\"n\":{number},\"filler\":\"{filler}\"}}"));
        let batch = batch_of(lines);
        let taken = spillway_delivery::intake::Intake.submit(std::slice::from_ref(&pipeline), batch).await;
        assert!(taken.is_ok(), "round {round}: {taken:?}");
        until_paused(&pipeline, |report| report.deliveries[0].held_events == 0).await;
        time_goes_by(Duration::from_secs(1)).await;
    }
    engine.apply(settings(&["a", "b"]), vec![to("b", "b", &b)], &|_| None).await.unwrap();
    send(&pipeline, 20..30).await;
    assert_eq!(b.store.until(|got| got.len() >= 10).await, lines(20..30));
    balanced(&pipeline).await;
    assert!(drain(&engine).await);
}

#[tokio::test(start_paused = true)]
async fn a_reference_that_is_new_at_a_start_begins_in_the_log_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (Arc::<Place>::default(), Arc::<Place>::default());
    let fs = disk(dir.path());
    {
        let (engine, _) = engine(dir.path(), fs.clone());
        let pipeline = engine.add(settings(&["a"]), vec![to("a", "a", &a)], &|_| None).await.unwrap();
        send(&pipeline, 0..10).await;
        assert!(drain(&engine).await);
    }
    let (engine, broken) = engine(dir.path(), fs);
    let both = || vec![to("a", "a", &a), to("b", "b", &b)];
    *broken.lock().unwrap() = Some(io::ErrorKind::Other);
    let refused = engine.add(settings(&["a", "b"]), both(), &|_| None).await;
    assert!(matches!(refused, Err(EngineError::Unsaved { .. })), "{refused:?}");
    *broken.lock().unwrap() = None;
    let pipeline = engine.add(settings(&["a", "b"]), both(), &|_| None).await.unwrap();
    send(&pipeline, 10..20).await;
    assert_eq!(b.store.until(|got| got.len() >= 10).await, lines(10..20));
    assert_eq!(a.store.until(|got| got.len() >= 20).await, lines(0..20));
    assert!(drain(&engine).await);
}

#[tokio::test(start_paused = true)]
async fn a_job_that_is_refused_does_not_begin_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let (a, fs) = (Arc::<Place>::default(), disk(dir.path()));
    let mut kept = settings(&["a"]);
    kept.log.retain = Duration::from_hours(1);
    for is_first in [true, false] {
        let (engine, broken) = engine(dir.path(), fs.clone());
        engine.add(kept.clone(), vec![to("a", "a", &a)], &|_| None).await.unwrap();
        let place = a.clone();
        engine.serve_jobs(Arc::new(move |_: &JobTarget| Ok(to("a", "a", &place)))).await;
        let desk = engine.desks().remove(0);
        assert!(desk.jobs().is_empty(), "{:?}", desk.jobs());
        if is_first {
            send(&engine.pipelines()[0], 0..10).await;
            a.store.until(|got| got.len() == 10).await;
            *broken.lock().unwrap() = Some(io::ErrorKind::Other);
            let request = ReplayRequest {
                route: "a".into(),
                from: "oldest".into(),
                to: "now".into(),
                backend: Some("a".into()),
                dry_run: false,
            };
            let refused = desk.replay(&request).await;
            assert!(matches!(refused, Err(JobError::Save(_))), "{refused:?}");
            *broken.lock().unwrap() = None;
        }
        assert!(drain(&engine).await);
    }
    assert_eq!(a.store.len(), 10);
}

#[tokio::test(start_paused = true)]
async fn what_a_route_held_before_moves_once_the_new_beginning_can_be_written_down() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, broken) = engine(dir.path(), disk(dir.path()));
    let (a, b) = (Arc::<Place>::default(), Arc::<Place>::default());
    a.is_down.store(true, Ordering::Relaxed);
    let of_both = |strategy, names: &[&str]| {
        let backends = names.iter().map(|name| reference(name)).collect();
        pipeline_of(LogSettings::default(), vec![route("all", strategy, backends)])
    };
    let pipeline = engine.apply(of_both(Strategy::All, &["a"]), vec![to("all", "a", &a)], &|_| None).await.unwrap();
    send(&pipeline, 0..10).await;
    engine.apply(of_both(Strategy::All, &["a", "b"]), vec![to("all", "b", &b)], &|_| None).await.unwrap();
    send(&pipeline, 10..20).await;
    b.store.until(|got| got.len() == 10).await;
    time_goes_by(Duration::from_secs(10)).await;
    *broken.lock().unwrap() = Some(io::ErrorKind::Other);
    let first_healthy = of_both(Strategy::FirstHealthy(Failback::Leave), &["a", "b"]);
    engine.apply(first_healthy, Vec::new(), &|_| None).await.unwrap();
    time_goes_by(Duration::from_secs(10)).await;
    assert_eq!(b.store.all(), lines(10..20));
    *broken.lock().unwrap() = None;
    let got = b.store.until(|got| got.len() >= 20).await;
    assert_eq!(got, [lines(10..20), lines(0..10)].concat());
    let report = until_paused(&pipeline, |report| report.deliveries.iter().all(|one| one.held_events == 0)).await;
    assert_eq!((of(&report, "b").delivered_events, of(&report, "a").delivered_events), (20, 0), "{report:#?}");
    assert!(drain(&engine).await);
}
