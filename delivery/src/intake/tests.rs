//! One batch for pipelines that add different things to its origin.

use std::path::Path;
use std::pin::pin;

use futures_util::poll;
use tempfile::TempDir;

use super::shaping::made;
use super::*;
use crate::clock::Clock;
use crate::condition::Condition;
use crate::deliver::{Engine, EngineSettings};
use crate::event::{BatchBuilder, IdempotencyKey, OriginBuilder};
use crate::filesystem::RealFs;
use crate::settings::{LogSettings, PipelineSettings, RouteSettings, Strategy};
use crate::transform::{Action, Looks, RateLimit, Transform};

/// Bytes that hold a few small batches, and bytes that hold none.
const ROOMY: u64 = 1 << 20;
const NO_ROOM: u64 = 1;

fn engine(dir: &Path) -> Engine {
    let (filesystem, clock) = (Arc::new(RealFs), Clock::system());
    Engine::open(EngineSettings { data_dir: dir.to_owned(), filesystem, clock, free_bytes_min: 0 }).unwrap()
}

/// Adds a pipeline whose manifest says `siteID: <name>` and whose only route wants `siteID` alone to be that.
async fn add(engine: &Engine, name: &str, bytes_max: u64) -> Arc<Pipeline> {
    let condition = Condition::compile(&format!("origin.siteID == \"{name}\" && origin.source == \"http\"")).unwrap();
    let (site_id, source) = (Some(name.to_owned()), Some("forged".to_owned()));
    let settings = PipelineSettings {
        uid: name.into(),
        namespace: "default".into(),
        name: name.into(),
        log: LogSettings { bytes_max, ..LogSettings::default() },
        transforms: Vec::new(),
        routes: vec![RouteSettings {
            name: "all".into(),
            condition: Some(condition),
            strategy: Strategy::All,
            backends: Vec::new(),
        }],
        origin: OriginBuilder { site_id, source, ..OriginBuilder::default() },
        suspend: false,
    };
    engine.add(settings, Vec::new(), &|_| None).await.unwrap()
}

fn batch() -> Batch {
    let mut builder = BatchBuilder::default();
    builder.push(br#"{"n":1}"#);
    builder.push(br#"{"n":2}"#);
    builder.build(OriginBuilder { source: Some("http".into()), ..OriginBuilder::default() }.build(), 1)
}

/// Returns the origin and the number of events of each frame the pipeline's log holds.
async fn frames(pipeline: &Pipeline) -> Vec<(String, usize)> {
    let frames = pipeline.log().reader(pipeline.log().first_seq()).read().await.unwrap();
    let written = |json: &[u8]| String::from_utf8(json.to_vec()).unwrap();
    frames.iter().map(|frame| (written(frame.origin.json()), frame.len())).collect()
}

#[tokio::test]
async fn one_batch_has_in_each_pipeline_the_origin_of_its_manifest() {
    let dir = TempDir::new().unwrap();
    let engine = engine(dir.path());
    let pipelines = [add(&engine, "a", ROOMY).await, add(&engine, "b", ROOMY).await];
    let accepted = Intake.submit(&pipelines, batch()).await.unwrap();
    assert_eq!(accepted, Accepted { events: 2, repeated: false });
    for (pipeline, site) in pipelines.iter().zip(["a", "b"]) {
        assert_eq!(frames(pipeline).await, [(format!("{{\"siteID\":\"{site}\",\"source\":\"http\"}}"), 2)]);
        assert_eq!(pipeline.report().unrouted_events, 0, "conditions see the merged origin");
    }
}

#[tokio::test]
async fn a_refusal_by_the_second_leaves_nothing_in_the_first() {
    let dir = TempDir::new().unwrap();
    let engine = engine(dir.path());
    let pipelines = [add(&engine, "a", ROOMY).await, add(&engine, "b", NO_ROOM).await];
    // So many that what a refusal left reserved would fill the first as well.
    for _ in 0..ROOMY / 512 {
        let refused = Intake.submit(&pipelines, batch()).await.unwrap_err();
        let SubmitError::Refused { pipeline, reason, .. } = refused else { panic!("{refused:?}") };
        assert_eq!((&*pipeline, reason), ("b", RefusalReason::Full));
    }
    for pipeline in &pipelines {
        assert_eq!((frames(pipeline).await, pipeline.report().accepted_events), (Vec::new(), 0));
    }
    Intake.submit(&pipelines[..1], batch()).await.unwrap();
    assert_eq!(pipelines[0].report().accepted_events, 2, "it takes the same batch alone");
}

#[tokio::test]
async fn a_key_stays_on_its_way_when_its_sender_goes_away() {
    let dir = TempDir::new().unwrap();
    let engine = engine(dir.path());
    let pipelines = [add(&engine, "a", ROOMY).await, add(&engine, "b", ROOMY).await];
    let key = IdempotencyKey { sender: "s".into(), key: "k".into(), body_hash: 1 };
    let keyed = || Batch { key: Some(key.clone()), ..batch() };
    {
        let mut gone = pin!(Intake.submit(&pipelines, keyed()));
        assert!(poll!(&mut gone).is_pending(), "it waits for the logs");
    }
    let again = Intake.submit(&pipelines, keyed()).await;
    assert_eq!(again, Ok(Accepted { events: 2, repeated: true }));
    for pipeline in &pipelines {
        assert_eq!(frames(pipeline).await.len(), 1, "kept once");
    }
}

#[tokio::test]
async fn a_batch_for_one_route_asks_no_condition_and_goes_down_no_other() {
    let dir = TempDir::new().unwrap();
    let engine = engine(dir.path());
    let pipeline = add(&engine, "a", ROOMY).await;
    // The condition of the route wants another source, and what the manifest adds is there all the same.
    let other =
        Batch { origin: OriginBuilder { app: Some("x".into()), ..OriginBuilder::default() }.build(), ..batch() };
    assert_eq!(Intake.submit(std::slice::from_ref(&pipeline), other.clone()).await.unwrap().events, 2);
    assert_eq!((pipeline.report().unrouted_events, pipeline.report().routed_events), (2, 0));
    let keyed = |key: &'static [u8]| {
        let key = IdempotencyKey { sender: "pod".into(), key: key.into(), body_hash: 7 };
        Batch { key: Some(key), ..other.clone() }
    };
    let accepted = Intake.submit_to_route(&pipeline, "all", keyed(b"k")).await.unwrap();
    assert_eq!(accepted, Accepted { events: 2, repeated: false });
    assert!(Intake.submit_to_route(&pipeline, "all", keyed(b"k")).await.unwrap().repeated, "once for each key");
    let report = pipeline.report();
    assert_eq!((report.unrouted_events, report.routed_events, report.routes[0].routed_events), (2, 2, 2));
    assert!(frames(&pipeline).await.iter().any(|(origin, events)| origin.contains("\"siteID\":\"a\"") && *events == 2));

    let error = Intake.submit_to_route(&pipeline, "none", keyed(b"l")).await.unwrap_err();
    assert!(matches!(error, SubmitError::Refused { reason: RefusalReason::Removed, .. }), "{error:?}");
    assert_eq!(pipeline.report().accepted_events, 4);
}

#[tokio::test]
async fn a_pipeline_that_rests_keeps_what_is_handed_over_for_a_route_and_takes_nothing_else() {
    let dir = TempDir::new().unwrap();
    let engine = engine(dir.path());
    let pipeline = add(&engine, "a", ROOMY).await;
    let resting = PipelineSettings { suspend: true, ..(*pipeline.settings()).clone() };
    engine.apply(resting, Vec::new(), &|_| None).await.unwrap();
    let reason = |taken: Result<Accepted, SubmitError>| match taken {
        Err(SubmitError::Refused { reason, .. }) => Some(reason),
        other => panic!("{other:?}"),
    };
    let sent = Intake.submit(std::slice::from_ref(&pipeline), batch()).await;
    assert_eq!(reason(sent), Some(RefusalReason::Suspended));
    assert_eq!(Intake.submit_to_route(&pipeline, "all", batch()).await.map(|taken| taken.events), Ok(2));
    let report = pipeline.report();
    assert_eq!((report.accepted_events, report.routed_events, frames(&pipeline).await.len()), (2, 2, 1));
    pipeline.stop_intake();
    let sent = Intake.submit_to_route(&pipeline, "all", batch()).await;
    assert_eq!(reason(sent), Some(RefusalReason::Stopping), "what ends takes nothing more");
    assert_eq!(pipeline.report().accepted_events, 2);
}

/// A pipeline that lets two events go on, and then none for a long time.
fn limited() -> Arc<Version> {
    let limit = RateLimit { looks: Looks::default(), events_per_second: 1, burst_events: 2, keys_max: 1 };
    let settings = PipelineSettings {
        uid: "limited".into(),
        namespace: "default".into(),
        name: "limited".into(),
        log: LogSettings::default(),
        transforms: vec![Transform { name: "limit".into(), action: Action::RateLimit(limit) }],
        routes: Vec::new(),
        origin: OriginBuilder::default(),
        suspend: false,
    };
    Arc::new(Version::first(settings))
}

#[test]
fn an_edit_while_a_batch_waits_takes_nothing_twice() {
    let (before, batch) = (limited(), batch());
    let mut known = None;
    assert_eq!(made(&before, &batch, &mut known).map(|shaped| shaped.dropped), Some(0));
    let edited = PipelineSettings { suspend: true, ..(**before.settings()).clone() };
    let after = Arc::new(before.next(edited, false));
    assert_eq!(made(&after, &batch, &mut known).map(|shaped| shaped.dropped), Some(0));
    assert_eq!(made(&after, &batch, &mut None).map(|shaped| shaped.dropped), Some(2), "they were taken");
}

#[test]
fn what_is_on_its_way_to_a_log_is_taken_until_the_log_failed() {
    let (version, batch) = (limited(), batch());
    let dropped = |known: &mut Option<shaping::Made>| made(&version, &batch, known).map(|shaped| shaped.dropped);
    let on_its_way = || {
        let mut known = None;
        assert_eq!(dropped(&mut known), Some(0));
        known.unwrap().into_counts()
    };
    on_its_way().undo();
    let unknown = on_its_way();
    assert_eq!(dropped(&mut None), Some(2));
    drop(unknown);
    assert_eq!(dropped(&mut None), Some(2));
}
