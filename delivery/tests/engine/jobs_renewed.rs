//! Backends of jobs that run are edited: the job goes over, with what it planned, and nothing is lost or doubled. When they are
//! gone the job ends, and says why.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use spillway_delivery::backend::{Backend, Fault, FaultKind, Items, Mark, OutBatch, Outcome, Traits};
use spillway_delivery::deliver::dead_letters::Selection;
use spillway_delivery::deliver::jobs::{JobTarget, RedriveRequest, Renewed, ReplayRequest};
use spillway_delivery::deliver::{DeliverySpec, Desk, Engine};
use spillway_delivery::intake::Pipeline;
use spillway_delivery::ledger::{JobReport, JobState, PipelineReport};
use spillway_delivery::settings::{DeliverySettings, LogSettings, PipelineSettings, Strategy};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::common::{
    Store, drain, engine, kept_in_store, numbers, pipeline_of, quick, quick_breaker, reference, route, send, spec_of,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Take,
    Refuse,
    /// Takes what comes, and the answer is lost.
    Lose,
    /// Never answers.
    Hang,
}

/// A destination, and with what each key came.
#[derive(Debug)]
struct Place {
    traits: Traits,
    mode: Mode,
    store: Store<u32>,
    keys: Mutex<BTreeMap<String, Vec<u32>>>,
    attempts: watch::Sender<usize>,
}

impl Place {
    fn new(mode: Mode, traits: Traits) -> Arc<Self> {
        Arc::new(Self { traits, mode, store: Store::default(), keys: Mutex::default(), attempts: watch::channel(0).0 })
    }

    async fn tried(&self, times: usize) {
        let mut attempts = self.attempts.subscribe();
        let tried = attempts.wait_for(|attempts| *attempts >= times);
        tokio::time::timeout(Duration::from_secs(30), tried).await.expect("it was not tried").unwrap();
    }

    fn keys(&self) -> BTreeMap<String, Vec<u32>> {
        self.keys.lock().unwrap().clone()
    }
}

impl Backend for Place {
    fn send<'a>(&'a self, batch: &'a OutBatch) -> BoxFuture<'a, Result<Items, Fault>> {
        Box::pin(async move {
            let text = |bytes| std::str::from_utf8(bytes).unwrap();
            let number = |bytes| text(bytes).trim_matches(|one: char| !one.is_ascii_digit()).parse().unwrap();
            let came: Vec<u32> = batch.events().map(|event| number(event.bytes)).collect();
            self.keys.lock().unwrap().insert(batch.key().to_owned(), came.clone());
            self.attempts.send_modify(|attempts| *attempts += 1);
            match self.mode {
                Mode::Refuse => Err(Fault::new(FaultKind::Unreachable, "as told")),
                Mode::Hang => std::future::pending().await,
                Mode::Lose => {
                    self.store.add(came);
                    Err(Fault::new(FaultKind::Timeout, "the answer is lost, as told"))
                }
                Mode::Take => {
                    self.store.add(came);
                    Ok(Items::All(Outcome::Delivered))
                }
            }
        })
    }

    kept_in_store!();
}

fn keyed() -> Traits {
    Traits { keyed: true, ..Traits::default() }
}

fn settings() -> PipelineSettings {
    let log = LogSettings { retain: Duration::from_secs(3600), ..LogSettings::default() };
    pipeline_of(log, vec![route("all", Strategy::All, vec![reference("a")])])
}

fn to(name: &str, place: &Arc<Place>) -> DeliverySpec {
    let timeout = Duration::from_millis(200);
    spec_of("all", name, place.clone(), DeliverySettings { breaker: quick_breaker(), timeout, ..quick() })
}

/// A replay to `b`, of a hundred events that are at `a`; jobs go to what `known` says, where it says anything.
struct World {
    engine: Arc<Engine>,
    known: Arc<Mutex<Option<DeliverySpec>>>,
    pipeline: Arc<Pipeline>,
}

impl World {
    async fn new(dir: &std::path::Path, known: Option<DeliverySpec>) -> Self {
        let (engine, first) = (Arc::new(engine(dir)), Place::new(Mode::Take, Traits::default()));
        let known = Arc::new(Mutex::new(known));
        let make = {
            let known = known.clone();
            move |_: &JobTarget| known.lock().unwrap().clone().ok_or_else(|| "no such backend".to_owned())
        };
        engine.serve_jobs(Arc::new(make)).await;
        let pipeline = engine.add(settings(), vec![to("a", &first)], &|_| None).await.unwrap();
        Self { engine, known, pipeline }
    }

    async fn replay(&self) {
        send(&self.pipeline, 0..100).await;
        let (from, to) = ("oldest".into(), "now".into());
        let request = ReplayRequest { route: "all".into(), from, to, backend: Some("b".into()), dry_run: false };
        assert_eq!(self.desk().replay(&request).await.unwrap().events, 100);
    }

    fn desk(&self) -> Arc<Desk> {
        self.engine.desks().remove(0)
    }

    async fn renew(&self, spec: &DeliverySpec) {
        *self.known.lock().unwrap() = Some(spec.clone());
        let renewed = |target: &JobTarget| match &*target.backend {
            "b" => Renewed::To(Box::new(spec.clone())),
            _ => Renewed::AsItIs,
        };
        self.engine.renew_jobs(&renewed).await;
    }

    /// The backend is gone.
    async fn gone(&self, why: &str) {
        *self.known.lock().unwrap() = None;
        self.engine.renew_jobs(&|_| Renewed::Ends(why.to_owned())).await;
    }

    async fn job(&self) -> JobReport {
        let engine = self.engine.clone();
        tokio::task::spawn_blocking(move || engine.reports()).await.unwrap().remove(0).jobs.remove(0)
    }

    async fn until(&self, holds: impl Fn(&JobReport) -> bool) -> JobReport {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let job = self.job().await;
            if holds(&job) {
                return job;
            }
            assert!(Instant::now() < deadline, "{job:#?}");
            tokio::task::yield_now().await;
        }
    }

    async fn done(self) {
        let job = self.until(|job| job.state == JobState::Done).await;
        assert_eq!((job.selected_events, job.held_events, job.imbalance_events), (100, 0, 0), "{job:#?}");
        assert!(drain(&self.engine).await);
    }
}

#[tokio::test]
async fn a_running_job_goes_over_to_its_backend_as_it_was_edited_whatever_the_old_one_does() {
    for mode in [Mode::Refuse, Mode::Hang, Mode::Lose] {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (Place::new(mode, keyed()), Place::new(Mode::Take, keyed()));
        let world = World::new(dir.path(), Some(to("b", &old))).await;
        world.replay().await;
        old.tried(1).await;
        // What does not concern it leaves it alone.
        world.engine.renew_jobs(&|_| Renewed::AsItIs).await;
        old.tried(2).await;
        world.renew(&to("b", &new)).await;
        let got = new.store.until(|got| got.len() >= 100).await;
        assert_eq!(got, numbers(0..100), "{mode:?}");
        let (before, after) = (old.keys(), new.keys());
        assert!(!before.is_empty());
        for (key, members) in before {
            assert_eq!(after.get(&key), Some(&members), "{mode:?}: what was planned keeps its key and its members");
        }
        world.done().await;
    }
}

#[tokio::test]
async fn a_job_without_a_backend_goes_on_when_that_comes_and_where_it_stood() {
    let commits = Traits { commits: true, ordered: true, batch_events_max: Some(10), ..Traits::default() };
    let dir = tempfile::tempdir().unwrap();
    let half = Arc::new(Half { inner: Place::new(Mode::Take, commits), left: Mutex::new(5) });
    {
        let spec = DeliverySpec { backend: half.clone(), ..to("b", &half.inner) };
        let world = World::new(dir.path(), Some(spec)).await;
        world.replay().await;
        half.inner.store.until(|got| got.len() == 50).await;
        world.until(|job| job.delivered_events == 50).await;
        world.engine.drain(Instant::now() + Duration::from_secs(1)).await;
    }
    // The next process does not know the backend, at first.
    let world = World::new(dir.path(), None).await;
    let job = world.until(|job| job.state == JobState::Retrying).await;
    assert!(job.last_error.is_some_and(|error| error.contains("not in the configuration any more")));
    *half.left.lock().unwrap() = usize::MAX;
    world.renew(&DeliverySpec { backend: half.clone(), ..to("b", &half.inner) }).await;
    let got = half.inner.store.until(|got| got.len() >= 100).await;
    assert_eq!(got, numbers(0..100), "it goes on behind its mark");
    world.done().await;
}

/// Takes so many batches, then none.
#[derive(Debug)]
struct Half {
    inner: Arc<Place>,
    left: Mutex<usize>,
}

impl Backend for Half {
    fn send<'a>(&'a self, batch: &'a OutBatch) -> BoxFuture<'a, Result<Items, Fault>> {
        let left = {
            let mut left = self.left.lock().unwrap();
            let before = *left;
            *left = before.saturating_sub(1);
            before
        };
        if left == 0 {
            return Box::pin(async { Err(Fault::new(FaultKind::Unreachable, "enough")) });
        }
        self.inner.send(batch)
    }

    fn traits(&self) -> Traits {
        self.inner.traits
    }

    fn open(&self, mark: Option<Mark>) -> BoxFuture<'_, Result<(), Fault>> {
        self.inner.open(mark)
    }

    fn commit(&self) -> BoxFuture<'_, Result<Option<Mark>, Fault>> {
        self.inner.commit()
    }
}

#[tokio::test]
async fn a_replay_whose_backend_is_gone_ends_with_the_reason_and_the_log_is_as_it_was() {
    for mode in [Mode::Refuse, Mode::Hang, Mode::Lose] {
        let dir = tempfile::tempdir().unwrap();
        let (old, back) = (Place::new(mode, keyed()), Place::new(Mode::Take, keyed()));
        {
            let world = World::new(dir.path(), Some(to("b", &old))).await;
            world.replay().await;
            old.tried(1).await;
            world.gone("Backend default/b is gone").await;
            let job = world.until(|job| job.ended.is_some()).await;
            assert_eq!((job.state, job.last_error.as_deref()), (JobState::Failed, Some("Backend default/b is gone")));
            assert_eq!((job.selected_events, job.held_events, job.imbalance_events), (100, 100, 0), "{mode:?}");
            let tried = *old.attempts.borrow();
            // Its own delivery goes on, and what is said again changes nothing.
            send(&world.pipeline, 100..110).await;
            world.gone("another reason").await;
            assert!(drain(&world.engine).await);
            assert_eq!((*old.attempts.borrow(), world.job().await), (tried, job), "{mode:?}");
        }
        // The next process knows that it is over, and the events are there for another.
        let world = World::new(dir.path(), Some(to("b", &back))).await;
        assert_eq!(world.job().await.state, JobState::Failed);
        let (from, to) = ("oldest".into(), "now".into());
        let request = ReplayRequest { route: "all".into(), from, to, backend: Some("b".into()), dry_run: false };
        assert_eq!(world.desk().replay(&request).await.unwrap().events, 110);
        assert_eq!(back.store.until(|got| got.len() >= 110).await, numbers(0..110));
        assert!(drain(&world.engine).await);
    }
}

#[tokio::test]
async fn a_redrive_whose_backend_is_gone_ends_and_the_letters_that_it_did_not_send_stay() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Arc::new(engine(dir.path()));
    let half = Arc::new(Half {
        inner: Place::new(Mode::Take, Traits { batch_events_max: Some(10), ..Traits::default() }),
        left: Mutex::new(3),
    });
    let spec = DeliverySpec { backend: half.clone(), ..to("b", &half.inner) };
    engine.serve_jobs(Arc::new(move |_: &JobTarget| Ok(spec.clone()))).await;
    let refuses = spec_of("all", "a", Arc::new(Never), quick());
    let pipeline = engine.add(settings(), vec![refuses], &|_| None).await.unwrap();
    send(&pipeline, 0..100).await;
    let reports = async || {
        let engine = engine.clone();
        tokio::task::spawn_blocking(move || engine.reports()).await.unwrap().remove(0)
    };
    let until = async |holds: &dyn Fn(&PipelineReport) -> bool| {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let report = reports().await;
            if holds(&report) {
                return report;
            }
            assert!(Instant::now() < deadline, "{report:#?}");
            tokio::task::yield_now().await;
        }
    };
    until(&|report| report.dead_letters.held_events == 100).await;
    let desk = engine.desks().remove(0);
    let all = RedriveRequest { selection: Selection::default(), ..RedriveRequest::default() };
    assert_eq!(desk.redrive(&all).await.unwrap().jobs.len(), 1);
    until(&|report| report.jobs[0].delivered_events == 30 && report.jobs[0].state == JobState::Retrying).await;
    engine.renew_jobs(&|_| Renewed::Ends("ClusterBackend b does not grant namespace default any more".into())).await;
    let report = until(&|report| report.jobs[0].ended.is_some()).await;
    let (job, letters) = (&report.jobs[0], &report.dead_letters);
    assert_eq!((job.state, job.delivered_events, job.held_events), (JobState::Failed, 30, 70));
    assert!(job.last_error.as_ref().is_some_and(|why| why.contains("does not grant")), "{job:#?}");
    assert_eq!((letters.held_events, letters.redriven_events, letters.imbalance_events), (70, 30, 0));
    *half.left.lock().unwrap() = usize::MAX;
    assert_eq!(desk.redrive(&all).await.unwrap().jobs.len(), 1);
    let got = half.inner.store.until(|got| got.len() >= 100).await;
    assert_eq!(got.into_iter().collect::<std::collections::BTreeSet<_>>().len(), 100);
    assert!(drain(&engine).await);
}

/// Refuses every event for good.
#[derive(Debug)]
struct Never;

impl Backend for Never {
    fn send<'a>(&'a self, _: &'a OutBatch) -> BoxFuture<'a, Result<Items, Fault>> {
        Box::pin(async { Ok(Items::All(Outcome::Rejected("never".into()))) })
    }
}
