//! Transforms in a running pipeline: what is delivered, what the ledger says, and what an edit or a refusal in between means.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use spillway_delivery::backend::{Backend, Fault, Items, OutBatch, Outcome, Traits};
use spillway_delivery::clock::Clock;
use spillway_delivery::condition::Condition;
use spillway_delivery::deliver::DeliverySpec;
use spillway_delivery::event::{Batch, IdempotencyKey, OriginBuilder, Position};
use spillway_delivery::filesystem::Faults;
use spillway_delivery::intake::{Accepted, Intake, Pipeline, SubmitError};
use spillway_delivery::ledger::{PipelineReport, TransformReport};
use spillway_delivery::log::AcceptedEvents;
use spillway_delivery::settings::{LogSettings, PipelineSettings, Strategy};
use spillway_delivery::transform::{Action, Deduplicate, FieldPath, Looks, RateLimit, SetField, SetValue, Transform};

use crate::common::{
    Store, balanced, batch, batch_of, disk, drain, engine, engine_over, kept_in_store, pipeline_of, quick, reference,
    report, route, spec_of, until,
};

/// A destination that has lines.
#[derive(Debug, Default)]
struct Lines {
    store: Arc<Store<String>>,
    traits: Traits,
}

impl Backend for Lines {
    fn send<'a>(&'a self, batch: &'a OutBatch) -> BoxFuture<'a, Result<Items, Fault>> {
        Box::pin(async move {
            self.store.add(batch.events().map(|event| String::from_utf8(event.bytes.to_vec()).unwrap()));
            Ok(Items::All(Outcome::Delivered))
        })
    }

    kept_in_store!();
}

fn transform(name: &str, action: Action) -> Transform {
    Transform { name: name.into(), action }
}

fn drop_when(condition: &str) -> Action {
    Action::Drop(Condition::compile(condition).unwrap())
}

fn set(name: &str, text: &str) -> Action {
    Action::Set(vec![SetField { path: FieldPath::parse(name).unwrap(), value: SetValue::Text(text.into()) }])
}

/// A pipeline whose one route takes every event to `name`.
fn settings(name: &str, transforms: Vec<Transform>) -> PipelineSettings {
    let routes = vec![route("all", Strategy::All, vec![reference(name)])];
    let uid = format!("default.{name}").into();
    PipelineSettings { uid, transforms, name: name.into(), ..pipeline_of(LogSettings::default(), routes) }
}

fn spec(name: &str, store: &Arc<Store<String>>) -> DeliverySpec {
    let lines = Lines { store: store.clone(), traits: Traits { ordered: true, ..Traits::default() } };
    spec_of("all", name, Arc::new(lines), quick())
}

async fn submit(pipeline: &Arc<Pipeline>, batch: Batch) -> Accepted {
    Intake.submit(std::slice::from_ref(pipeline), batch).await.unwrap()
}

fn accepted(report: &PipelineReport) -> (u64, AcceptedEvents) {
    let PipelineReport { accepted_events, dropped_events, unrouted_events, routed_events, .. } = *report;
    let parts = AcceptedEvents { dropped: dropped_events, unrouted: unrouted_events, routed: routed_events };
    (accepted_events, parts)
}

#[tokio::test]
async fn what_is_delivered_is_shaped_and_what_is_dropped_is_counted_across_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::<Store<String>>::default();
    let transforms = vec![transform("few", drop_when("event.n < 4")), transform("site", set("fab.line", "12"))];
    let mut settings = settings("jobs", transforms);
    settings.routes[0].condition = Some(Condition::compile("event.fab.line == \"12\" && event.n != 9").unwrap());
    for life in 1..=2 {
        let engine = engine(dir.path());
        let pipeline = engine.add(settings.clone(), vec![spec("jobs", &store)], &|_| None).await.unwrap();
        assert_eq!(submit(&pipeline, batch(0..10)).await, Accepted { events: 10, repeated: false });
        let wanted = |number| format!("{{\"n\":{number},\"fab\":{{\"line\":\"12\"}}}}");
        let got = store.until(|got| got.len() == 5 * life).await;
        assert_eq!(got[5 * (life - 1)..], (4..9).map(wanted).collect::<Vec<_>>(), "routes see what transforms made");
        assert!(drain(&engine).await);
        let report = balanced(&pipeline).await;
        let life = life as u64;
        let parts = AcceptedEvents { dropped: 4 * life, unrouted: life, routed: 5 * life };
        assert_eq!(accepted(&report), (10 * life, parts));
        let few = TransformReport {
            name: "few".into(),
            r#type: "Drop".into(),
            in_events: 10,
            dropped_events: 4,
            ..TransformReport::default()
        };
        assert_eq!(report.transforms[0], few, "since the start of this process");
        assert_eq!((report.transforms[1].in_events, report.transforms[1].changed_events), (6, 6));
    }
}

#[tokio::test]
async fn a_request_of_which_all_is_dropped_is_accepted_with_its_position_and_its_key() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = settings("jobs", vec![transform("all", drop_when("has(event.n)"))]);
    // Of no event a route with a condition has no masks.
    let mut picky = route("picky", Strategy::All, Vec::new());
    picky.condition = Some(Condition::compile("event.n > 1").unwrap());
    settings.routes.push(picky);
    let key = IdempotencyKey { sender: "s".into(), key: "k".into(), body_hash: 1 };
    let position = Position { source: "file".into(), value: Some("7".into()) };
    let keyed = || Batch { key: Some(key.clone()), position: Some(position.clone()), ..batch(0..3) };
    for life in 0..2 {
        let engine = engine(dir.path());
        let store = Arc::<Store<String>>::default();
        let pipeline = engine.add(settings.clone(), vec![spec("jobs", &store)], &|_| None).await.unwrap();
        assert_eq!(submit(&pipeline, keyed()).await, Accepted { events: 3, repeated: life == 1 });
        assert_eq!(pipeline.position(b"file").as_deref(), Some(&b"7"[..]));
        let other = Batch { key: Some(IdempotencyKey { body_hash: 2, ..key.clone() }), ..batch(0..3) };
        assert_eq!(Intake.submit(std::slice::from_ref(&pipeline), other).await, Err(SubmitError::KeyReused));
        assert!(drain(&engine).await);
        let parts = AcceptedEvents { dropped: 3, unrouted: 0, routed: 0 };
        assert_eq!(accepted(&report(&pipeline).await), (3, parts));
        assert_eq!(store.len(), 0);
    }
}

#[tokio::test]
async fn each_pipeline_shapes_the_batch_for_itself_with_its_own_origin() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let (a, b) = (Arc::<Store<String>>::default(), Arc::<Store<String>>::default());
    let site = |site: &str| OriginBuilder { site_id: Some(site.into()), ..OriginBuilder::default() };
    let of = |name: &str| {
        let only = drop_when("origin.siteID != \"a\" && event.n == 1");
        let transforms = vec![transform("site", set("site", name)), transform("only", only)];
        PipelineSettings { origin: site(name), ..settings(name, transforms) }
    };
    let none = PipelineSettings { transforms: Vec::new(), ..of("c") };
    let c = Arc::<Store<String>>::default();
    let pipelines = [
        engine.add(of("a"), vec![spec("a", &a)], &|_| None).await.unwrap(),
        engine.add(of("b"), vec![spec("b", &b)], &|_| None).await.unwrap(),
        engine.add(none, vec![spec("c", &c)], &|_| None).await.unwrap(),
    ];
    Intake.submit(&pipelines, batch(0..2)).await.unwrap();
    assert_eq!(a.until(|got| got.len() == 2).await, [r#"{"n":0,"site":"a"}"#, r#"{"n":1,"site":"a"}"#]);
    assert_eq!(b.until(|got| !got.is_empty()).await, [r#"{"n":0,"site":"b"}"#]);
    assert_eq!(c.until(|got| got.len() == 2).await, [r#"{"n":0}"#, r#"{"n":1}"#]);
    assert!(drain(&engine).await);
}

#[tokio::test]
async fn an_edit_of_transforms_counts_from_there_and_what_stays_goes_on_counting() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let store = Arc::<Store<String>>::default();
    let site = |text: &str| transform("site", set("site", text));
    let first = settings("jobs", vec![site("a")]);
    let pipeline = engine.apply(first, vec![spec("jobs", &store)], &|_| None).await.unwrap();
    submit(&pipeline, batch(0..1)).await;
    for (transforms, after, counted) in [
        (vec![transform("odd", drop_when("event.n == 99")), site("b")], r#"{"n":1,"site":"b"}"#, Some(2)),
        (vec![site("b")], r#"{"n":1,"site":"b"}"#, Some(3)),
        (Vec::new(), r#"{"n":1}"#, None),
        // It was gone in between, and is another one.
        (vec![site("c")], r#"{"n":1,"site":"c"}"#, Some(1)),
    ] {
        let count = store.until(|got| !got.is_empty()).await.len();
        engine.apply(settings("jobs", transforms), Vec::new(), &|_| None).await.unwrap();
        submit(&pipeline, batch(1..2)).await;
        let wanted = |report: &PipelineReport| report.deliveries[0].held_events == 0;
        until(&pipeline, wanted).await;
        let got = store.until(|got| got.len() > count).await;
        assert_eq!(got.last().unwrap(), after);
        assert_eq!(report(&pipeline).await.transforms.last().map(|one| one.in_events), counted);
    }
    assert!(drain(&engine).await);
}

#[tokio::test]
async fn a_sender_that_is_refused_and_comes_again_counts_once() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let store = Arc::<Store<String>>::default();
    let transforms = vec![transform("site", set("site", "a"))];
    let mut full = settings("jobs", transforms);
    full.log.bytes_max = 1;
    let roomy = PipelineSettings { log: LogSettings::default(), ..full.clone() };
    let pipeline = engine.apply(full, vec![spec("jobs", &store)], &|_| None).await.unwrap();
    for _ in 0..3 {
        let refused = Intake.submit(std::slice::from_ref(&pipeline), batch(0..2)).await;
        assert!(matches!(refused, Err(SubmitError::Refused { .. })), "{refused:?}");
    }
    assert_eq!(report(&pipeline).await.transforms[0].in_events, 0);
    engine.apply(roomy, Vec::new(), &|_| None).await.unwrap();
    submit(&pipeline, batch(0..2)).await;
    assert_eq!(store.until(|got| got.len() == 2).await, [r#"{"n":0,"site":"a"}"#, r#"{"n":1,"site":"a"}"#]);
    assert_eq!(report(&pipeline).await.transforms[0].in_events, 2);
    assert!(drain(&engine).await);
}

fn once() -> Transform {
    let fields = vec![FieldPath::parse("n").unwrap()];
    let window = Duration::from_secs(3600);
    transform("once", Action::Deduplicate(Deduplicate { looks: Looks::default(), fields, window, keys_max: 100 }))
}

fn limited() -> Transform {
    let limit = RateLimit { looks: Looks::default(), events_per_second: 1, burst_events: 2, keys_max: 1 };
    transform("limited", Action::RateLimit(limit))
}

#[tokio::test]
async fn a_sender_that_is_refused_and_comes_again_is_no_duplicate_and_has_its_tokens() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let store = Arc::<Store<String>>::default();
    let mut full = settings("jobs", vec![once(), limited()]);
    full.log.bytes_max = 1;
    let roomy = PipelineSettings { log: LogSettings::default(), ..full.clone() };
    let pipeline = engine.apply(full, vec![spec("jobs", &store)], &|_| None).await.unwrap();
    for _ in 0..3 {
        Intake.submit(std::slice::from_ref(&pipeline), batch(0..2)).await.unwrap_err();
    }
    // What is edited is not the transforms, so that they go on with what they remember.
    engine.apply(roomy, Vec::new(), &|_| None).await.unwrap();
    submit(&pipeline, batch(0..2)).await;
    assert_eq!(store.until(|got| got.len() == 2).await, [r#"{"n":0}"#, r#"{"n":1}"#]);
    submit(&pipeline, batch(0..2)).await;
    let report = report(&pipeline).await;
    let figures = |index: usize| {
        let one: &TransformReport = &report.transforms[index];
        (one.in_events, one.dropped_events, one.failed_events.len())
    };
    assert_eq!((figures(0), figures(1)), ((4, 2, 0), (2, 0, 0)));
    let parts = AcceptedEvents { dropped: 2, unrouted: 0, routed: 2 };
    assert_eq!(accepted(&report), (4, parts));
    assert!(drain(&engine).await);
}

#[tokio::test]
async fn what_transforms_remember_outlives_an_edit_beside_them_and_no_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::<Store<String>>::default();
    for life in 1..=2 {
        let engine = engine(dir.path());
        let pipeline =
            engine.apply(settings("jobs", vec![once()]), vec![spec("jobs", &store)], &|_| None).await.unwrap();
        submit(&pipeline, batch(0..3)).await;
        engine
            .apply(settings("jobs", vec![transform("site", set("site", "a")), once()]), Vec::new(), &|_| None)
            .await
            .unwrap();
        submit(&pipeline, batch(0..4)).await;
        let got = store.until(|got| got.len() == 4 * life).await;
        assert_eq!(got[4 * life - 1], r#"{"n":3,"site":"a"}"#);
        assert!(drain(&engine).await);
        let life = life as u64;
        let parts = AcceptedEvents { dropped: 3 * life, unrouted: 0, routed: 4 * life };
        assert_eq!(accepted(&balanced(&pipeline).await), (7 * life, parts));
    }
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_written_was_not_shaped_for_the_figures() {
    let dir = tempfile::tempdir().unwrap();
    let fs = disk(dir.path());
    let engine = engine_over(dir.path(), Arc::new(fs.clone()), Clock::manual(1));
    let store = Arc::<Store<String>>::default();
    let settings = settings("jobs", vec![transform("site", set("site", "a"))]);
    let pipeline = engine.add(settings, vec![spec("jobs", &store)], &|_| None).await.unwrap();
    fs.set_faults(Faults { write: 1_000_000, ..Faults::default() });
    for _ in 0..3 {
        Intake.submit(std::slice::from_ref(&pipeline), batch(0..2)).await.unwrap_err();
        tokio::time::advance(Duration::from_secs(2)).await;
    }
    assert!(fs.counts().faults > 0, "it was tried");
    assert_eq!(report(&pipeline).await.transforms[0].in_events, 0);
    fs.set_faults(Faults::default());
    while Intake.submit(std::slice::from_ref(&pipeline), batch(0..2)).await.is_err() {
        tokio::time::advance(Duration::from_secs(2)).await;
    }
    assert_eq!(store.until(|got| got.len() == 2).await, [r#"{"n":0,"site":"a"}"#, r#"{"n":1,"site":"a"}"#]);
    let report = report(&pipeline).await;
    assert_eq!((report.transforms[0].in_events, report.transforms[0].changed_events), (2, 2));
    assert!(drain(&engine).await);
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_written_took_nothing_from_a_limit() {
    let dir = tempfile::tempdir().unwrap();
    let fs = disk(dir.path());
    let engine = engine_over(dir.path(), Arc::new(fs.clone()), Clock::default());
    let store = Arc::<Store<String>>::default();
    let limit = RateLimit { looks: Looks::default(), events_per_second: 1, burst_events: 1000, keys_max: 1 };
    let settings = settings("jobs", vec![transform("limit", Action::RateLimit(limit))]);
    let pipeline = engine.add(settings, vec![spec("jobs", &store)], &|_| None).await.unwrap();
    fs.set_faults(Faults { write: 1_000_000, ..Faults::default() });
    for _ in 0..3 {
        Intake.submit(std::slice::from_ref(&pipeline), batch(0..1000)).await.unwrap_err();
        tokio::time::advance(Duration::from_secs(2)).await;
    }
    assert!(fs.counts().faults > 0, "it was tried");
    fs.set_faults(Faults::default());
    while Intake.submit(std::slice::from_ref(&pipeline), batch(0..1000)).await.is_err() {
        tokio::time::advance(Duration::from_secs(2)).await;
    }
    assert_eq!(store.until(|got| got.len() >= 1000).await.len(), 1000);
    assert_eq!(report(&pipeline).await.transforms[0].dropped_events, 0);
    assert!(drain(&engine).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_shaped_at_once_has_a_bound_and_nothing_waits_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let store = Arc::<Store<String>>::default();
    let settings = settings("jobs", vec![transform("site", set("site", "a"))]);
    let pipeline = engine.add(settings, vec![spec("jobs", &store)], &|_| None).await.unwrap();
    // Twelve of 6 MiB each, where 32 MiB may be on their way.
    let large = batch_of((0..12).map(|number| format!("{{\"n\":{number},\"pad\":\"{}\"}}", "x".repeat(512 << 10))));
    let all = (0..12).map(|_| Intake.submit(std::slice::from_ref(&pipeline), large.clone()));
    let done = tokio::time::timeout(Duration::from_mins(1), join_all(all)).await.unwrap();
    assert!(done.iter().all(Result::is_ok), "{done:?}");
    until(&pipeline, |report| report.deliveries[0].delivered_events == 144).await;
    assert!(store.all().iter().all(|line| line.ends_with(",\"site\":\"a\"}")));
    assert!(drain(&engine).await);
}
