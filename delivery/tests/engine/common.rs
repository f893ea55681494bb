//! What the tests of the engine share: an engine, what it is told to do, what is sent, and what is asked of it. Each module
//! has destinations of its own.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use spillway_delivery::backend::{Backend, Fault, Mark, Traits};
use spillway_delivery::clock::Clock;
use spillway_delivery::deliver::{DeliverySpec, Engine, EngineSettings};
use spillway_delivery::event::{Batch, BatchBuilder, Origin, OriginBuilder};
use spillway_delivery::filesystem::{FaultyFs, Filesystem, RealFs};
use spillway_delivery::intake::{Intake, Pipeline};
use spillway_delivery::ledger::{DeliveryReport, PipelineReport};
use spillway_delivery::log::{Journal, Progress};
use spillway_delivery::settings::{
    BackendRefSettings, BreakerSettings, DeliverySettings, LogSettings, PipelineSettings, RouteSettings, Strategy,
    WhenBehind,
};
use tokio::sync::watch;
use tokio::time::Instant;

/// An engine over the file system of this machine.
pub(crate) fn engine(dir: &Path) -> Engine {
    engine_over(dir, Arc::new(RealFs), Clock::system())
}

pub(crate) fn engine_over(dir: &Path, filesystem: Arc<dyn Filesystem>, clock: Clock) -> Engine {
    Engine::open(EngineSettings { data_dir: dir.to_owned(), filesystem, clock, free_bytes_min: 0 }).unwrap()
}

/// A disk on which nothing is but the data directory.
pub(crate) fn disk(dir: &Path) -> FaultyFs {
    let fs = FaultyFs::new(1);
    fs.put(&dir.join("lock"), b"");
    fs
}

pub(crate) fn reference(name: &str) -> BackendRefSettings {
    BackendRefSettings { uid: name.into(), name: name.into(), ..BackendRefSettings::default() }
}

/// A route that takes every event.
pub(crate) fn route(name: &str, strategy: Strategy, backends: Vec<BackendRefSettings>) -> RouteSettings {
    RouteSettings { name: name.into(), condition: None, strategy, backends }
}

pub(crate) fn pipeline_of(log: LogSettings, routes: Vec<RouteSettings>) -> PipelineSettings {
    PipelineSettings {
        uid: "default.jobs".into(),
        namespace: "default".into(),
        name: "jobs".into(),
        log,
        transforms: Vec::new(),
        routes,
        suspend: false,
        origin: OriginBuilder::default(),
    }
}

/// Waits and retries that take no time worth waiting for.
pub(crate) fn quick() -> DeliverySettings {
    DeliverySettings {
        batch_wait_max: Duration::from_millis(5),
        retry_initial: Duration::from_millis(5),
        retry_max: Duration::from_millis(20),
        ..DeliverySettings::default()
    }
}

/// A breaker that does not stay open for long.
pub(crate) fn quick_breaker() -> BreakerSettings {
    BreakerSettings { open: Duration::from_millis(20), ..BreakerSettings::default() }
}

pub(crate) fn spec_of(route: &str, name: &str, backend: Arc<dyn Backend>, settings: DeliverySettings) -> DeliverySpec {
    DeliverySpec {
        route: route.into(),
        backend_uid: name.into(),
        backend_name: name.into(),
        backend_type: "Place".into(),
        backend,
        settings,
        when_behind: WhenBehind::Block,
    }
}

pub(crate) fn line(number: u32) -> String {
    format!("{{\"n\":{number}}}")
}

pub(crate) fn batch(range: Range<u32>) -> Batch {
    batch_of(range.map(line))
}

pub(crate) fn batch_of(lines: impl Iterator<Item = String>) -> Batch {
    let mut builder = BatchBuilder::default();
    lines.for_each(|line| builder.push(line.as_bytes()));
    builder.build(Arc::<Origin>::default(), 1)
}

pub(crate) async fn send(pipeline: &Arc<Pipeline>, range: Range<u32>) {
    Intake.submit(std::slice::from_ref(pipeline), batch(range)).await.unwrap();
}

pub(crate) async fn report(pipeline: &Arc<Pipeline>) -> PipelineReport {
    let pipeline = pipeline.clone();
    tokio::task::spawn_blocking(move || pipeline.report()).await.unwrap()
}

pub(crate) fn assert_balanced(report: &PipelineReport) {
    assert!(report.deliveries.iter().all(|delivery| delivery.imbalance_events == 0), "{report:#?}");
}

/// Returns the report of a pipeline whose ledger must balance.
pub(crate) async fn balanced(pipeline: &Arc<Pipeline>) -> PipelineReport {
    let report = report(pipeline).await;
    assert_balanced(&report);
    report
}

/// How long is waited for what must come, in the time of the test.
const PATIENCE: Duration = Duration::from_mins(1);

/// How much of paused time goes by between two looks at what has no event of its own.
const LOOK_PERIOD: Duration = Duration::from_millis(10);

/// Asks again until `holds`; the ledger balances each time.
pub(crate) async fn until(pipeline: &Arc<Pipeline>, holds: impl Fn(&PipelineReport) -> bool) -> PipelineReport {
    ask_until(pipeline, holds, tokio::task::yield_now).await
}

/// As [`until`], where time is paused: it goes by between two looks.
pub(crate) async fn until_paused(pipeline: &Arc<Pipeline>, holds: impl Fn(&PipelineReport) -> bool) -> PipelineReport {
    ask_until(pipeline, holds, || time_goes_by(LOOK_PERIOD)).await
}

async fn ask_until(
    pipeline: &Arc<Pipeline>,
    holds: impl Fn(&PipelineReport) -> bool,
    between: impl AsyncFn(),
) -> PipelineReport {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let report = balanced(pipeline).await;
        if holds(&report) {
            return report;
        }
        assert!(Instant::now() < deadline, "{report:#?}");
        between().await;
    }
}

/// Lets paused time go by, for tests whose subject it is: that a timer runs out, that nothing happens meanwhile, how much
/// comes in a second. Whatever else is waited for has an event.
///
/// The runtime moves paused time on to the next timer when no task can go on and no call that blocks is under way. So all
/// that is due in between comes to its end, in its order, however slow the machine is. The clock moved on by hand, with
/// turns for tasks in between, would pass calls of the file system that are under way.
pub(crate) async fn time_goes_by(time: Duration) {
    // Panics where time is not paused: nobody waits here for real.
    tokio::time::advance(Duration::ZERO).await;
    tokio::time::sleep(time).await;
}

/// Waits, where time is paused, until what a process finds that comes after a kill says of the delivery to `backend` that
/// `holds`. A save has no event of its own.
pub(crate) async fn until_saved(fs: &FaultyFs, log: &Path, backend: &str, holds: impl Fn(&Progress) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let journal = Journal::open(Arc::new(fs.kill()), log);
        let saved = journal.progress().iter().find(|(key, _)| *key.backend_uid == *backend);
        if saved.is_some_and(|(_, progress)| holds(progress)) {
            return;
        }
        assert!(Instant::now() < deadline, "{saved:#?}");
        time_goes_by(LOOK_PERIOD).await;
    }
}

pub(crate) fn of<'a>(report: &'a PipelineReport, backend: &str) -> &'a DeliveryReport {
    report.deliveries.iter().find(|delivery| *delivery.backend == *backend).unwrap()
}

pub(crate) async fn drain(engine: &Engine) -> bool {
    engine.drain(Instant::now() + Duration::from_secs(20)).await
}

pub(crate) fn numbers(range: Range<u32>) -> Vec<u32> {
    range.collect()
}

/// What a destination in memory has, over the lives of engines, in the order it came. One that commits is cut to its mark
/// when it is opened; a door that is closed makes it hang there.
#[derive(Debug)]
pub(crate) struct Store<T> {
    got: watch::Sender<Vec<T>>,
    /// Whether it can be opened.
    pub(crate) opens: watch::Sender<bool>,
    /// Whether it answers a commit.
    pub(crate) marks: watch::Sender<bool>,
}

impl<T> Default for Store<T> {
    fn default() -> Self {
        Self { got: watch::channel(Vec::new()).0, opens: watch::channel(true).0, marks: watch::channel(true).0 }
    }
}

impl<T: Clone> Store<T> {
    pub(crate) fn add(&self, more: impl IntoIterator<Item = T>) {
        self.got.send_modify(|got| got.extend(more));
    }

    pub(crate) fn all(&self) -> Vec<T> {
        self.got.borrow().clone()
    }

    pub(crate) fn len(&self) -> usize {
        self.got.borrow().len()
    }

    pub(crate) fn cut(&self, len: usize) {
        self.got.send_modify(|got| got.truncate(len));
    }

    /// Waits until what it has `holds`, and returns it.
    pub(crate) async fn until(&self, holds: impl FnMut(&Vec<T>) -> bool) -> Vec<T> {
        let mut got = self.got.subscribe();
        let found = tokio::time::timeout(PATIENCE, got.wait_for(holds)).await;
        found.expect("the destination got nothing more").unwrap().clone()
    }

    /// What [`Backend::open`] does.
    pub(crate) async fn open(&self, traits: Traits, mark: Option<Mark>) -> Result<(), Fault> {
        self.opens.subscribe().wait_for(|opens| *opens).await.unwrap();
        if traits.commits {
            self.cut(mark.as_ref().map_or(0, marked));
        }
        Ok(())
    }

    /// What [`Backend::commit`] does.
    pub(crate) async fn commit(&self, traits: Traits) -> Result<Option<Mark>, Fault> {
        self.marks.subscribe().wait_for(|marks| *marks).await.unwrap();
        Ok(traits.commits.then(|| self.len().to_string().into()))
    }
}

/// What a destination with `traits` leaves of its [`Backend`] to its `store`.
macro_rules! kept_in_store {
    () => {
        fn traits(&self) -> spillway_delivery::backend::Traits {
            self.traits
        }

        fn open(
            &self,
            mark: Option<spillway_delivery::backend::Mark>,
        ) -> futures_util::future::BoxFuture<'_, Result<(), spillway_delivery::backend::Fault>> {
            Box::pin(self.store.open(self.traits, mark))
        }

        fn commit(
            &self,
        ) -> futures_util::future::BoxFuture<
            '_,
            Result<Option<spillway_delivery::backend::Mark>, spillway_delivery::backend::Fault>,
        > {
            Box::pin(self.store.commit(self.traits))
        }
    };
}

pub(crate) use kept_in_store;

/// Returns what a mark says, which is how many events were committed.
pub(crate) fn marked(mark: &Mark) -> usize {
    std::str::from_utf8(mark).unwrap().parse().unwrap()
}
