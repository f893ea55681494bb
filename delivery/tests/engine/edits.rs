//! Edits of running pipelines: nothing is lost or repeated by them, and what they do not name is not touched.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use spillway_delivery::backend::{Backend, Fault, FaultKind, Items, Mark, OutBatch, Outcome, Traits};
use spillway_delivery::condition::Condition;
use spillway_delivery::deliver::{DeliverySpec, Engine, EngineError};
use spillway_delivery::filesystem::SplitMix64;
use spillway_delivery::intake::{Intake, Pipeline, RefusalReason, SubmitError};
use spillway_delivery::ledger::{DeliveryReport, DeliveryState, PipelineReport};
use spillway_delivery::log::DeliveryKey;
use spillway_delivery::settings::{Durability, Failback, LogSettings, PipelineSettings, Strategy};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::common::{
    balanced, batch, drain, engine, marked, numbers, pipeline_of, quick, reference, route, send, spec_of, until,
};

/// A destination that outlives the backends that write to it, as files and servers do.
#[derive(Debug, Default)]
struct Place {
    got: Mutex<Vec<u32>>,
    /// Behind which event the last commit stands.
    committed: AtomicUsize,
    is_down: AtomicBool,
    is_hanging: AtomicBool,
    opens: AtomicUsize,
    closes: AtomicUsize,
    changed: Notify,
    released: Notify,
}

impl Place {
    async fn until(&self, count: usize) -> Vec<u32> {
        loop {
            let changed = self.changed.notified();
            let got = self.got.lock().unwrap().clone();
            if got.len() >= count {
                return got;
            }
            let waited = tokio::time::timeout(Duration::from_secs(30), changed).await;
            waited.unwrap_or_else(|_| unreachable!("got {} of {count}", got.len()));
        }
    }
}

/// A backend over a place: with `commits` it is cut to its mark when it is opened.
#[derive(Debug)]
struct To {
    place: Arc<Place>,
    commits: bool,
}

impl Backend for To {
    fn send<'a>(&'a self, batch: &'a OutBatch) -> BoxFuture<'a, Result<Items, Fault>> {
        Box::pin(async move {
            if self.place.is_down.load(Ordering::Relaxed) {
                return Err(Fault::new(FaultKind::Unreachable, "down, as told"));
            }
            while self.place.is_hanging.load(Ordering::Relaxed) {
                self.place.released.notified().await;
            }
            let numbers = batch.events().map(|event| {
                let text = std::str::from_utf8(event.bytes).unwrap();
                text.trim_start_matches("{\"n\":").trim_end_matches('}').parse::<u32>().unwrap()
            });
            self.place.got.lock().unwrap().extend(numbers);
            self.place.changed.notify_waiters();
            Ok(Items::All(Outcome::Delivered))
        })
    }

    fn traits(&self) -> Traits {
        Traits { ordered: self.commits, commits: self.commits, ..Traits::default() }
    }

    fn open(&self, mark: Option<Mark>) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            self.place.opens.fetch_add(1, Ordering::Relaxed);
            if self.commits {
                let at = mark.as_ref().map_or(self.place.committed.load(Ordering::Relaxed), marked);
                self.place.got.lock().unwrap().truncate(at);
            }
            Ok(())
        })
    }

    fn commit(&self) -> BoxFuture<'_, Result<Option<Mark>, Fault>> {
        Box::pin(async {
            let at = self.place.got.lock().unwrap().len();
            self.place.committed.store(at, Ordering::Relaxed);
            Ok(self.commits.then(|| at.to_string().into()))
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.place.closes.fetch_add(1, Ordering::Relaxed);
        })
    }
}

/// A pipeline whose routes, named like their only backends, take every event.
fn settings(routes: &[&str]) -> PipelineSettings {
    let route = |name: &&str| route(name, Strategy::All, vec![reference(name)]);
    pipeline_of(LogSettings::default(), routes.iter().map(route).collect())
}

fn to(name: &str, place: &Arc<Place>) -> DeliverySpec {
    spec(name, Arc::new(To { place: place.clone(), commits: false }))
}

fn committing(name: &str, place: &Arc<Place>) -> DeliverySpec {
    spec(name, Arc::new(To { place: place.clone(), commits: true }))
}

fn spec(name: &str, backend: Arc<To>) -> DeliverySpec {
    spec_of(name, name, backend, quick())
}

fn sorted(mut numbers: Vec<u32>) -> Vec<u32> {
    numbers.sort_unstable();
    numbers
}

#[tokio::test]
async fn a_new_route_begins_at_the_edit_and_a_removed_one_ends_there() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let (a, b) = (Arc::<Place>::default(), Arc::<Place>::default());
    let pipeline = engine.apply(settings(&["a"]), vec![to("a", &a)], &|_| None).await.unwrap();
    send(&pipeline, 0..100).await;
    let same = engine.apply(settings(&["b", "a"]), vec![to("b", &b)], &|_| None).await.unwrap();
    assert!(Arc::ptr_eq(&same, &pipeline));
    send(&pipeline, 100..200).await;
    engine.apply(settings(&["b"]), Vec::new(), &|_| None).await.unwrap();
    send(&pipeline, 200..300).await;
    assert_eq!(sorted(a.until(200).await), numbers(0..200));
    assert_eq!(sorted(b.until(200).await), numbers(100..300));
    let report = until(&pipeline, |report| report.deliveries.len() == 1).await;
    assert_eq!(&*report.deliveries[0].route, "b");
    assert!(drain(&engine).await);
    assert_eq!((a.got.lock().unwrap().len(), b.got.lock().unwrap().len()), (200, 200));
}

#[tokio::test]
async fn what_an_edit_does_not_name_is_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let (a, b) = (Arc::<Place>::default(), Arc::<Place>::default());
    let pipeline = engine.apply(settings(&["a"]), vec![to("a", &a)], &|_| None).await.unwrap();
    for round in 0..20 {
        send(&pipeline, round * 10..round * 10 + 10).await;
        let mut edited = settings(if round % 2 == 0 { &["a", "b"] } else { &["a"] });
        edited.log.bytes_max = (1 << 30) + u64::from(round);
        edited.routes[0].condition = Condition::compile("event.n >= 0").ok().filter(|_| round % 3 == 0);
        let bind = if round % 2 == 0 { vec![to("b", &b)] } else { Vec::new() };
        engine.apply(edited, bind, &|_| None).await.unwrap();
    }
    assert_eq!(sorted(a.until(200).await), numbers(0..200));
    assert_eq!((a.opens.load(Ordering::Relaxed), a.closes.load(Ordering::Relaxed)), (1, 0));
    assert_eq!(balanced(&pipeline).await.log.bytes_max, (1 << 30) + 19);
    assert!(drain(&engine).await);
}

#[tokio::test]
async fn a_condition_that_changes_counts_for_what_comes_then() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let place = Arc::<Place>::default();
    place.is_down.store(true, Ordering::Relaxed);
    let when = |text: &str| {
        let mut settings = settings(&["a"]);
        settings.routes[0].condition = Some(Condition::compile(text).unwrap());
        settings
    };
    let pipeline = engine.apply(when("event.n < 5"), vec![to("a", &place)], &|_| None).await.unwrap();
    send(&pipeline, 0..10).await;
    engine.apply(when("event.n >= 5"), Vec::new(), &|_| None).await.unwrap();
    send(&pipeline, 0..10).await;
    place.is_down.store(false, Ordering::Relaxed);
    assert_eq!(sorted(place.until(10).await), numbers(0..10));
    assert!(drain(&engine).await);
    assert_eq!(balanced(&pipeline).await.unrouted_events, 10);
}

#[tokio::test]
async fn a_backend_that_is_replaced_goes_on_at_its_mark() {
    for commits in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let engine = engine(dir.path());
        let place = Arc::<Place>::default();
        let make = || spec("a", Arc::new(To { place: place.clone(), commits }));
        let pipeline = engine.apply(settings(&["a"]), vec![make()], &|_| None).await.unwrap();
        for round in 0..20 {
            place.is_down.store(round % 5 == 4, Ordering::Relaxed);
            send(&pipeline, round * 50..round * 50 + 50).await;
            engine.apply(settings(&["a"]), vec![make()], &|_| None).await.unwrap();
        }
        place.is_down.store(false, Ordering::Relaxed);
        place.until(1000).await;
        assert!(drain(&engine).await);
        let got = place.got.lock().unwrap().clone();
        assert!(if commits { got == numbers(0..1000) } else { sorted(got) == numbers(0..1000) }, "each once");
        let (opens, closes) = (place.opens.load(Ordering::Relaxed), place.closes.load(Ordering::Relaxed));
        assert!(opens > 1 && closes == opens, "{opens} {closes}");
    }
}

#[tokio::test]
async fn a_backend_that_never_opened_is_replaced_all_the_same() {
    #[derive(Debug)]
    struct Shut;
    impl Backend for Shut {
        fn send<'a>(&'a self, _: &'a OutBatch) -> BoxFuture<'a, Result<Items, Fault>> {
            unreachable!("it never opens")
        }
        fn open(&self, _: Option<Mark>) -> BoxFuture<'_, Result<(), Fault>> {
            Box::pin(async { Err(Fault::new(FaultKind::Local, "shut, as told")) })
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let place = Arc::<Place>::default();
    let mut shut = to("a", &place);
    shut.backend = Arc::new(Shut);
    shut.settings.retry_initial = Duration::from_secs(3600);
    shut.settings.retry_max = Duration::from_secs(3600);
    let pipeline = engine.apply(settings(&["a"]), vec![shut], &|_| None).await.unwrap();
    send(&pipeline, 0..10).await;
    until(&pipeline, |report| report.deliveries[0].state == DeliveryState::Retrying).await;
    engine.apply(settings(&["a"]), vec![to("a", &place)], &|_| None).await.unwrap();
    assert_eq!(sorted(place.until(10).await), numbers(0..10));
    assert!(drain(&engine).await);
}

#[tokio::test]
async fn a_reference_that_comes_back_while_it_drains_goes_on_where_it_stood() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (Arc::<Place>::default(), Arc::<Place>::default());
    a.is_down.store(true, Ordering::Relaxed);
    let engine = engine(dir.path());
    let both = vec![committing("a", &a), to("b", &b)];
    let pipeline = engine.apply(settings(&["a", "b"]), both, &|_| None).await.unwrap();
    send(&pipeline, 0..10).await;
    engine.apply(settings(&["b"]), Vec::new(), &|_| None).await.unwrap();
    send(&pipeline, 10..20).await;
    until(&pipeline, |report| report.deliveries.iter().any(|one| one.state != DeliveryState::Healthy)).await;
    engine.apply(settings(&["a", "b"]), vec![committing("a", &a)], &|_| None).await.unwrap();
    send(&pipeline, 20..30).await;
    a.is_down.store(false, Ordering::Relaxed);
    let expected: Vec<u32> = (0..10).chain(20..30).collect();
    assert_eq!(a.until(20).await, expected, "not what came while its route was gone");
    assert_eq!(sorted(b.until(30).await), numbers(0..30));
    assert!(drain(&engine).await);
    let report = balanced(&pipeline).await;
    assert!(report.deliveries.iter().all(|one| one.held_events == 0 && one.dropped_events.is_empty()), "{report:#?}");
}

#[tokio::test]
async fn edits_that_a_busy_delivery_passes_over_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (Arc::<Place>::default(), Arc::<Place>::default());
    a.is_hanging.store(true, Ordering::Relaxed);
    let engine = engine(dir.path());
    let both = vec![to("a", &a), to("b", &b)];
    let pipeline = engine.apply(settings(&["a", "b"]), both, &|_| None).await.unwrap();
    send(&pipeline, 0..10).await;
    until(&pipeline, |report| report.deliveries[0].in_flight == 1).await;
    // While it waits for what is under way, its reference goes, comes back, and goes again.
    engine.apply(settings(&["b"]), Vec::new(), &|_| None).await.unwrap();
    engine.apply(settings(&["a", "b"]), vec![to("a", &a)], &|_| None).await.unwrap();
    send(&pipeline, 10..20).await;
    engine.apply(settings(&["b"]), Vec::new(), &|_| None).await.unwrap();
    send(&pipeline, 20..30).await;
    a.is_hanging.store(false, Ordering::Relaxed);
    a.released.notify_one();
    assert_eq!(sorted(a.until(20).await), numbers(0..20));
    assert_eq!(sorted(b.until(30).await), numbers(0..30));
    until(&pipeline, |report| report.deliveries.len() == 1).await;
    assert!(drain(&engine).await);
}

#[tokio::test]
async fn a_reference_that_a_restart_found_gone_comes_back_with_its_backend() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (Arc::<Place>::default(), Arc::<Place>::default());
    a.is_down.store(true, Ordering::Relaxed);
    {
        let engine = engine(dir.path());
        let both = vec![to("a", &a), to("b", &b)];
        let pipeline = engine.apply(settings(&["a", "b"]), both, &|_| None).await.unwrap();
        send(&pipeline, 0..10).await;
        engine.drain(Instant::now() + Duration::from_millis(100)).await;
    }
    a.is_down.store(false, Ordering::Relaxed);
    let engine = engine(dir.path());
    let pipeline = engine.apply(settings(&["b"]), vec![to("b", &b)], &|_| None).await.unwrap();
    assert_eq!(engine.unbound(&settings(&["a", "b"])).await.len(), 1, "what drains is to be bound anew");
    engine.apply(settings(&["a", "b"]), vec![to("a", &a)], &|_| None).await.unwrap();
    send(&pipeline, 10..20).await;
    assert_eq!(sorted(a.until(20).await), numbers(0..20));
    assert!(drain(&engine).await);
    balanced(&pipeline).await;
}

#[tokio::test]
async fn what_a_removed_reference_still_holds_after_its_time_is_dead_letters() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let (a, b) = (Arc::<Place>::default(), Arc::<Place>::default());
    a.is_down.store(true, Ordering::Relaxed);
    let mut first = settings(&["a", "b"]);
    first.log.drain = Duration::from_millis(50);
    let pipeline = engine.apply(first, vec![to("a", &a), to("b", &b)], &|_| None).await.unwrap();
    send(&pipeline, 0..10).await;
    // The time is the one that the pipeline said when the reference was there.
    let mut second = settings(&["b"]);
    second.log.drain = Duration::from_secs(3600);
    engine.apply(second, Vec::new(), &|_| None).await.unwrap();
    let report = until(&pipeline, |report| report.deliveries.len() == 1).await;
    assert_eq!(&*report.deliveries[0].backend, "b");
    let desk = engine.desks().remove(0);
    assert_eq!(desk.dead_letters().report().held_events, 10);
    // As a new reference it begins at the edit.
    a.is_down.store(false, Ordering::Relaxed);
    engine.apply(settings(&["a", "b"]), vec![to("a", &a)], &|_| None).await.unwrap();
    send(&pipeline, 10..20).await;
    assert_eq!(sorted(a.until(10).await), numbers(10..20));
    assert!(drain(&engine).await);
}

#[tokio::test]
async fn what_finds_no_room_among_the_dead_letters_of_a_removed_reference_is_dropped_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let (a, b) = (Arc::<Place>::default(), Arc::<Place>::default());
    a.is_down.store(true, Ordering::Relaxed);
    let mut first = settings(&["a", "b"]);
    (first.log.drain, first.log.dead_letters_bytes_max) = (Duration::from_millis(50), 0);
    let pipeline = engine.apply(first.clone(), vec![to("a", &a), to("b", &b)], &|_| None).await.unwrap();
    send(&pipeline, 0..10).await;
    first.routes[0].backends.remove(0);
    engine.apply(first, Vec::new(), &|_| None).await.unwrap();
    let dropped = |report: &PipelineReport| {
        let drops = report.deliveries.iter().flat_map(|one| one.dropped_events.values());
        drops.sum::<u64>()
    };
    let report = until(&pipeline, |report| dropped(report) == 10).await;
    assert_eq!(report.deliveries.len(), 2, "it stays shown for what it dropped");
    assert!(drain(&engine).await);
}

#[tokio::test]
async fn what_may_not_be_delivered_any_more_is_dead_letters_at_once_however_long_it_was_to_drain() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let (a, b) = (Arc::<Place>::default(), Arc::<Place>::default());
    a.is_hanging.store(true, Ordering::Relaxed);
    let pipeline = engine.apply(settings(&["a", "b"]), vec![to("a", &a), to("b", &b)], &|_| None).await.unwrap();
    send(&pipeline, 0..10).await;
    engine.apply(settings(&["b"]), Vec::new(), &|_| None).await.unwrap();
    // Nothing of another namespace, and nothing that runs.
    engine.revoke(|namespace, _| namespace != "default").await;
    engine.revoke(|_, backend| backend == "b").await;
    assert_eq!(balanced(&pipeline).await.deliveries.len(), 2);
    engine.revoke(|namespace, backend| (namespace, backend) == ("default", "a")).await;
    let report = until(&pipeline, |report| report.deliveries.len() == 1).await;
    assert_eq!(&*report.deliveries[0].backend, "b");
    a.is_hanging.store(false, Ordering::Relaxed);
    a.released.notify_waiters();
    send(&pipeline, 10..20).await;
    assert_eq!(sorted(b.until(20).await), numbers(0..20));
    assert!(a.got.lock().unwrap().is_empty(), "what was under way was given up");
    assert_eq!(engine.desks().remove(0).dead_letters().report().held_events, 10);
    assert!(drain(&engine).await);
}

#[tokio::test]
async fn what_may_not_be_delivered_any_more_and_finds_no_room_is_dropped_and_counted_as_such() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let (a, b) = (Arc::<Place>::default(), Arc::<Place>::default());
    a.is_down.store(true, Ordering::Relaxed);
    let mut first = settings(&["a", "b"]);
    first.log.dead_letters_bytes_max = 0;
    let pipeline = engine.apply(first.clone(), vec![to("a", &a), to("b", &b)], &|_| None).await.unwrap();
    send(&pipeline, 0..10).await;
    first.routes.remove(0);
    engine.apply(first, Vec::new(), &|_| None).await.unwrap();
    engine.revoke(|_, backend| backend == "a").await;
    let dropped = |report: &PipelineReport| {
        let of_a = report.deliveries.iter().find(|one| &*one.backend == "a");
        of_a.map(|one| one.dropped_events.iter().map(|(reason, count)| (reason.clone(), *count)).collect::<Vec<_>>())
    };
    let all = Some(vec![("revoked".to_owned(), 10)]);
    until(&pipeline, |report| dropped(report) == all).await;
    assert!(drain(&engine).await);
}

#[tokio::test]
async fn what_the_leader_of_a_route_may_not_deliver_any_more_goes_to_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let (a, b) = (Arc::<Place>::default(), Arc::<Place>::default());
    a.is_hanging.store(true, Ordering::Relaxed);
    let both = vec![reference("a"), reference("b")];
    let route = route("all", Strategy::FirstHealthy(Failback::Leave), both);
    let of_route = |name: &str, place: &Arc<Place>| {
        spec_of("all", name, Arc::new(To { place: place.clone(), commits: false }), quick())
    };
    let wanted = pipeline_of(LogSettings::default(), vec![route]);
    let pipeline = engine.apply(wanted, vec![of_route("a", &a), of_route("b", &b)], &|_| None).await.unwrap();
    send(&pipeline, 0..10).await;
    // The whole pipeline goes, as it does where one of its references is not granted any more.
    assert!(engine.remove("default.jobs").await);
    engine.revoke(|_, backend| backend == "a").await;
    assert_eq!(sorted(b.until(10).await), numbers(0..10));
    assert!(a.got.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_log_whose_pipeline_went_while_no_process_ran_is_told_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let place = Arc::<Place>::default();
    place.is_down.store(true, Ordering::Relaxed);
    {
        let engine = engine(dir.path());
        let pipeline = engine.apply(settings(&["a"]), vec![to("a", &place)], &|_| None).await.unwrap();
        send(&pipeline, 0..10).await;
        assert!(engine.unclaimed().is_empty());
        engine.drain(Instant::now() + Duration::from_millis(50)).await;
    }
    let engine = engine(dir.path());
    let other = PipelineSettings { uid: "default.other".into(), ..settings(&["a"]) };
    engine.apply(other, vec![to("a", &Arc::default())], &|_| None).await.unwrap();
    let unclaimed = engine.unclaimed();
    assert_eq!(unclaimed.iter().map(|log| &*log.name).collect::<Vec<_>>(), ["default.jobs"]);
    assert!(unclaimed[0].bytes > 0);
    place.is_down.store(false, Ordering::Relaxed);
    engine.apply(settings(&["a"]), vec![to("a", &place)], &|_| None).await.unwrap();
    assert!(engine.unclaimed().is_empty());
    assert_eq!(sorted(place.until(10).await), numbers(0..10));
}

#[tokio::test]
async fn a_suspended_pipeline_refuses_holds_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let place = Arc::<Place>::default();
    let resting = |suspend| PipelineSettings { suspend, ..settings(&["a"]) };
    {
        let engine = engine(dir.path());
        place.is_down.store(true, Ordering::Relaxed);
        let pipeline = engine.apply(resting(false), vec![committing("a", &place)], &|_| None).await.unwrap();
        send(&pipeline, 0..10).await;
        engine.apply(resting(true), Vec::new(), &|_| None).await.unwrap();
        let refused = Intake.submit(std::slice::from_ref(&pipeline), batch(10..20)).await;
        assert!(matches!(refused, Err(SubmitError::Refused { reason: RefusalReason::Suspended, .. })), "{refused:?}");
        place.is_down.store(false, Ordering::Relaxed);
        let report = until(&pipeline, |report| report.deliveries[0].state == DeliveryState::Suspended).await;
        assert!(report.suspended && report.deliveries[0].held_events == 10, "{report:#?}");
        assert!(drain(&engine).await, "a drain does not wait for what rests");
    }
    // So it stays over a restart, until it is told otherwise.
    let engine = engine(dir.path());
    let pipeline = engine.apply(resting(true), vec![committing("a", &place)], &|_| None).await.unwrap();
    assert_eq!(balanced(&pipeline).await.deliveries[0].held_events, 10);
    assert!(place.got.lock().unwrap().is_empty());
    engine.apply(resting(false), Vec::new(), &|_| None).await.unwrap();
    send(&pipeline, 10..20).await;
    assert_eq!(place.until(20).await, numbers(0..20));
    assert!(drain(&engine).await);
}

#[tokio::test]
async fn a_removed_pipeline_drains_and_its_log_goes() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let place = Arc::<Place>::default();
    place.is_down.store(true, Ordering::Relaxed);
    let pipeline = engine.apply(settings(&["a"]), vec![to("a", &place)], &|_| None).await.unwrap();
    send(&pipeline, 0..10).await;
    assert!(engine.remove("default.jobs").await);
    assert!(!engine.remove("default.jobs").await);
    let refused = Intake.submit(std::slice::from_ref(&pipeline), batch(10..20)).await;
    assert!(matches!(refused, Err(SubmitError::Refused { reason: RefusalReason::Removed, .. })), "{refused:?}");
    assert!(balanced(&pipeline).await.removed);
    // It comes back while it drains, as the same pipeline.
    let back = engine.apply(settings(&["a"]), Vec::new(), &|_| None).await.unwrap();
    assert!(Arc::ptr_eq(&back, &pipeline) && !balanced(&pipeline).await.removed);
    send(&pipeline, 10..20).await;
    assert!(engine.remove("default.jobs").await);
    place.is_down.store(false, Ordering::Relaxed);
    assert_eq!(sorted(place.until(20).await), numbers(0..20));
    let gone = async {
        while !engine.pipelines().is_empty() || dir.path().join("spool/default.jobs").exists() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), gone).await.expect("its log goes");
    // A namesake begins with nothing.
    let namesake = engine.apply(settings(&["a"]), vec![to("a", &place)], &|_| None).await.unwrap();
    assert!(!Arc::ptr_eq(&namesake, &pipeline));
    assert_eq!(balanced(&namesake).await.accepted_events, 0);
    send(&namesake, 20..30).await;
    assert_eq!(sorted(place.until(30).await), numbers(0..30));
    assert!(drain(&engine).await);
}

#[tokio::test]
async fn a_level_that_changes_counts_from_the_edit() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let place = Arc::<Place>::default();
    let at = |durability| {
        let mut settings = settings(&["a"]);
        settings.log.durability = durability;
        settings
    };
    let pipeline = engine.apply(at(Durability::Process), vec![to("a", &place)], &|_| None).await.unwrap();
    for round in 0..10 {
        let level = if round % 2 == 0 { Durability::Process } else { Durability::Disk };
        engine.apply(at(level), Vec::new(), &|_| None).await.unwrap();
        let before = balanced(&pipeline).await.log.syncs;
        send(&pipeline, round * 10..round * 10 + 10).await;
        if level == Durability::Disk {
            assert!(balanced(&pipeline).await.log.syncs > before);
        }
    }
    assert_eq!(sorted(place.until(100).await), numbers(0..100));
    assert!(drain(&engine).await);
}

#[tokio::test]
async fn an_edit_that_names_an_unbound_backend_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let place = Arc::<Place>::default();
    let pipeline = engine.apply(settings(&["a"]), vec![to("a", &place)], &|_| None).await.unwrap();
    let error = engine.apply(settings(&["b"]), Vec::new(), &|_| None).await.unwrap_err();
    assert!(matches!(error, EngineError::Unbound { .. }), "{error}");
    send(&pipeline, 0..10).await;
    assert_eq!(sorted(place.until(10).await), numbers(0..10));
    assert_eq!(engine.unbound(&settings(&["a", "b"])).await.len(), 1);
    assert!(drain(&engine).await);
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// What a run of random edits has sent where.
struct Story {
    random: SplitMix64,
    places: BTreeMap<&'static str, Arc<Place>>,
    /// Events that each route must have, and those that it may have: they came while it came or went.
    must: BTreeMap<&'static str, BTreeSet<u32>>,
    may: BTreeMap<&'static str, BTreeSet<u32>>,
    sent: u32,
    routes: Vec<&'static str>,
}

impl Story {
    fn new(seed: u64) -> Self {
        let none = || NAMES.iter().map(|name| (*name, BTreeSet::new())).collect();
        let places = NAMES.iter().map(|name| (*name, Arc::default())).collect();
        Self { random: SplitMix64::new(seed), places, must: none(), may: none(), sent: 0, routes: vec!["a"] }
    }

    fn bind(&self, routes: &[&str]) -> Vec<DeliverySpec> {
        routes.iter().map(|name| committing(name, &self.places[*name])).collect()
    }

    fn rebind(&self, key: &DeliveryKey) -> Option<DeliverySpec> {
        Some(committing(&key.route, self.places.get(&*key.route)?))
    }

    async fn open(&self, engine: &Engine, routes: &[&str]) -> Arc<Pipeline> {
        engine.apply(settings(routes), self.bind(routes), &|key| self.rebind(key)).await.unwrap()
    }

    /// Sends a batch before or during an edit.
    async fn step(&mut self, engine: &Engine, pipeline: &Arc<Pipeline>) {
        let random = &mut self.random;
        let next: Vec<&str> = NAMES.iter().copied().filter(|name| *name == "a" || random.below(2) == 0).collect();
        for place in self.places.values() {
            place.is_down.store(random.below(4) == 0, Ordering::Relaxed);
        }
        let range = self.sent..self.sent + 1 + random.below(20) as u32;
        self.sent = range.end;
        let targets = [pipeline.clone()];
        let during = random.below(2) == 0;
        let before = if during {
            let (kept, _) = tokio::join!(Intake.submit(&targets, batch(range.clone())), self.open(engine, &next));
            kept.unwrap();
            self.routes.iter().copied().filter(|name| next.contains(name)).collect()
        } else {
            send(pipeline, range.clone()).await;
            self.open(engine, &next).await;
            self.routes.clone()
        };
        for name in NAMES {
            let might = self.routes.contains(&name) || next.contains(&name);
            let (must, may) = (self.must.get_mut(name).unwrap(), self.may.get_mut(name).unwrap());
            if before.contains(&name) {
                must.extend(range.clone());
            } else if might && during {
                may.extend(range.clone());
            }
        }
        self.routes = next;
    }

    fn check(&self, seed: u64) {
        for (name, place) in &self.places {
            let got = place.got.lock().unwrap().clone();
            let unique: BTreeSet<u32> = got.iter().copied().collect();
            assert_eq!(unique.len(), got.len(), "seed {seed}, {name}: something came twice");
            let (must, may) = (&self.must[name], &self.may[name]);
            let lost: Vec<_> = must.difference(&unique).take(5).collect();
            assert!(lost.is_empty(), "seed {seed}, {name}: lost {lost:?}");
            let odd: Vec<_> = unique.iter().filter(|n| !must.contains(n) && !may.contains(n)).collect();
            assert!(odd.is_empty(), "seed {seed}, {name}: not for this route: {odd:?}");
        }
    }
}

/// Runs `life` as a process of its own: what it has begun to write is written before the next begins.
fn process(life: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(life);
}

#[test]
fn a_reference_that_came_back_is_there_for_a_process_that_dies_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let story = Story::new(0);
    let a = &story.places["a"];
    a.is_down.store(true, Ordering::Relaxed);
    process(async {
        let engine = engine(dir.path());
        let pipeline = story.open(&engine, &["a", "b"]).await;
        send(&pipeline, 0..10).await;
        story.open(&engine, &["b"]).await;
        // A backend that is down does not change what becomes of it.
        let failed_since = balanced(&pipeline).await.deliveries[0].attempts + 2;
        let fails = |one: &DeliveryReport| one.attempts >= failed_since && one.last_error.is_some();
        let ends = |one: &DeliveryReport| fails(one) && one.state == DeliveryState::Draining;
        until(&pipeline, |report| ends(&report.deliveries[0])).await;
        story.open(&engine, &["a", "b"]).await;
        send(&pipeline, 10..20).await;
    });
    a.is_down.store(false, Ordering::Relaxed);
    process(async {
        let engine = engine(dir.path());
        story.open(&engine, &["b"]).await;
        assert_eq!(a.until(20).await, numbers(0..20));
        assert!(drain(&engine).await);
    });
}

/// Edits at random between and during submissions, with processes that die: each event once in the place of every route
/// that was there when it was accepted, and in no other.
#[test]
fn edits_under_load_lose_and_repeat_nothing_over_processes_that_die() {
    for seed in 1..=3 {
        let dir = tempfile::tempdir().unwrap();
        let mut story = Story::new(seed);
        for _ in 0..4 {
            process(async {
                let engine = engine(dir.path());
                let pipeline = story.open(&engine, &story.routes.clone()).await;
                for _ in 0..40 {
                    story.step(&engine, &pipeline).await;
                }
            });
        }
        process(async {
            story.places.values().for_each(|place| place.is_down.store(false, Ordering::Relaxed));
            let engine = engine(dir.path());
            let all = story.open(&engine, &NAMES).await;
            assert!(drain(&engine).await);
            balanced(&all).await;
        });
        story.check(seed);
    }
}
