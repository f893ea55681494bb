//! What the tests of the engine share: an engine, what it is told to do, what is sent, and what is asked of it. Each module
//! has destinations of its own.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use spillway_delivery::backend::{Backend, Mark};
use spillway_delivery::clock::Clock;
use spillway_delivery::deliver::{DeliverySpec, Engine, EngineSettings};
use spillway_delivery::event::{Batch, BatchBuilder, Origin, OriginBuilder};
use spillway_delivery::filesystem::{FaultyFs, Filesystem, RealFs};
use spillway_delivery::intake::{Intake, Pipeline};
use spillway_delivery::ledger::{DeliveryReport, PipelineReport};
use spillway_delivery::settings::{
    BackendRefSettings, BreakerSettings, DeliverySettings, LogSettings, PipelineSettings, RouteSettings, Strategy,
    WhenBehind,
};
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

/// Asks again until `holds`; the ledger balances each time.
pub(crate) async fn until(pipeline: &Arc<Pipeline>, holds: impl Fn(&PipelineReport) -> bool) -> PipelineReport {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let report = balanced(pipeline).await;
        if holds(&report) {
            return report;
        }
        assert!(Instant::now() < deadline, "{report:#?}");
        tokio::task::yield_now().await;
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

/// Returns what a mark says, which is how many events were committed.
pub(crate) fn marked(mark: &Mark) -> usize {
    std::str::from_utf8(mark).unwrap().parse().unwrap()
}
