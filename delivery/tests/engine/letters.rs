//! Dead letters over a real file system and a destination that refuses what it is told to.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use spillway_delivery::backend::{Backend, Fault, FaultKind, Items, OutBatch, Outcome};
use spillway_delivery::clock::Clock;
use spillway_delivery::deliver::dead_letters::{Offline, Selection};
use spillway_delivery::deliver::jobs::{JobError, JobTarget, RedriveRequest, ReplayRequest};
use spillway_delivery::deliver::{DeliverySpec, Desk, Engine};
use spillway_delivery::event::{Batch, BatchBuilder, OriginBuilder};
use spillway_delivery::filesystem::{Filesystem, RealFs};
use spillway_delivery::intake::{Intake, Pipeline};
use spillway_delivery::ledger::{JobState, PipelineReport};
use spillway_delivery::settings::{LogSettings, OnUndeliverable, PipelineSettings, Strategy};
use tokio::time::Instant;

use crate::common::{self, engine, engine_over, pipeline_of, quick, route, spec_of};

/// Refuses the events that contain `refused`, with a reason that holds the event's number.
#[derive(Debug, Default)]
struct Picky {
    refused: Mutex<Option<String>>,
    got: Mutex<Vec<(String, String)>>,
}

impl Picky {
    fn refusing(text: &str) -> Arc<Self> {
        Arc::new(Self { refused: Mutex::new(Some(text.to_owned())), ..Self::default() })
    }
}

impl Backend for Picky {
    fn send<'a>(&'a self, batch: &'a OutBatch) -> BoxFuture<'a, Result<Items, Fault>> {
        let refused = self.refused.lock().unwrap().clone();
        let outcome = |event: spillway_delivery::backend::OutEvent<'_>| {
            let line = String::from_utf8_lossy(event.bytes).into_owned();
            if refused.as_ref().is_some_and(|refused| line.contains(refused)) {
                return Outcome::Rejected(format!("cannot take {line}\nBearer canary").into());
            }
            self.got.lock().unwrap().push((event.id.to_string(), line));
            Outcome::Delivered
        };
        let outcomes = batch.events().map(outcome).collect();
        Box::pin(async { Ok(Items::Each(outcomes)) })
    }
}

fn settings(dead_letters_bytes_max: u64) -> PipelineSettings {
    let log = LogSettings { dead_letters_bytes_max, ..LogSettings::default() };
    let origin = OriginBuilder { site_id: Some("site-1".into()), ..OriginBuilder::default() };
    PipelineSettings { origin, ..pipeline_of(log, vec![route("all", Strategy::All, Vec::new())]) }
}

/// A pipeline of a log of at most `bytes_max` that keeps for an hour what was delivered.
fn keeping(bytes_max: u64) -> PipelineSettings {
    let mut kept = settings(64 << 20);
    kept.log = LogSettings { retain: Duration::from_secs(3600), bytes_max, ..kept.log };
    kept
}

fn spec(backend: &Arc<Picky>) -> DeliverySpec {
    spec_of("all", "b", backend.clone(), quick())
}

/// Starts a pipeline to a destination that refuses the events that contain `text`.
async fn refusing(dir: &Path, text: &str) -> (Arc<Engine>, Arc<Picky>, Arc<Pipeline>) {
    let (engine, backend) = (Arc::new(engine(dir)), Picky::refusing(text));
    let pipeline = engine.add(settings(64 << 20), vec![spec(&backend)], &|_| None).await.unwrap();
    (engine, backend, pipeline)
}

fn batch(range: std::ops::Range<u32>, filler: usize, received: i64) -> Batch {
    let mut builder = BatchBuilder::default();
    for number in range {
        builder.push(format!("{{\"n\":{number},\"filler\":\"{}\"}}", "x".repeat(filler)).as_bytes());
    }
    builder.build(OriginBuilder::default().build(), received)
}

async fn submit(pipeline: &Arc<Pipeline>, range: std::ops::Range<u32>, filler: usize) {
    Intake.submit(std::slice::from_ref(pipeline), batch(range, filler, 1)).await.unwrap();
}

async fn submit_at(pipeline: &Arc<Pipeline>, range: std::ops::Range<u32>, received: i64) {
    Intake.submit(std::slice::from_ref(pipeline), batch(range, 1, received)).await.unwrap();
}

/// Returns whether there was room.
async fn submit_or_full(pipeline: &Arc<Pipeline>, range: std::ops::Range<u32>, filler: usize) -> bool {
    Intake.submit(std::slice::from_ref(pipeline), batch(range, filler, 1)).await.is_ok()
}

async fn drain(engine: &Engine) {
    assert!(common::drain(engine).await);
}

async fn reports(engine: &Arc<Engine>) -> PipelineReport {
    let engine = engine.clone();
    tokio::task::spawn_blocking(move || engine.reports()).await.unwrap().remove(0)
}

fn desk(engine: &Engine) -> Arc<Desk> {
    engine.desks().remove(0)
}

#[tokio::test]
async fn letters_are_grouped_shown_and_read_alike_with_and_without_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _, pipeline) = refusing(dir.path(), "7,").await;
    submit(&pipeline, 0..100, 1).await;
    drain(&engine).await;
    let report = reports(&engine).await;
    assert_eq!((report.dead_letters.kept_events, report.dead_letters.held_events), (10, 10));
    assert_eq!((report.dead_letters.imbalance_events, report.deliveries[0].rejected_events), (0, 10));

    let all = Selection::default();
    let groups = desk(&engine).dead_letters().groups(&all, "default/jobs").await.unwrap();
    assert_eq!((groups.count, groups.groups.len(), groups.ungrouped), (10, 1, 0));
    let group = &groups.groups[0];
    assert_eq!((&*group.route, &*group.backend, group.count), ("all", "b", 10));
    assert!(group.reason.starts_with("cannot take {\"n\":#,") && !group.reason.contains("canary"), "{group:?}");

    let page = desk(&engine).dead_letters().page(&all, 0, 4).await.unwrap();
    let rest = desk(&engine).dead_letters().page(&all, page.next.unwrap(), 100).await.unwrap();
    assert_eq!((page.count, rest.count, rest.next), (4, 6, None));
    let lines = String::from_utf8([page.lines, rest.lines].concat()).unwrap();
    assert!(!lines.contains("canary"), "{lines}");
    let shown: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let numbers: BTreeSet<u64> = shown.iter().map(|letter| letter["event"]["n"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (0..10).map(|ten| ten * 10 + 7).collect());
    assert!(shown.iter().all(|letter| letter["origin"]["siteID"] == "site-1"), "{shown:#?}");

    let fs: Arc<dyn Filesystem> = Arc::new(RealFs);
    let offline = Offline::all(&fs, dir.path()).unwrap();
    assert_eq!(offline.iter().map(|one| one.pipeline.as_str()).collect::<Vec<_>>(), ["default.jobs"]);
    assert_eq!(String::from_utf8(offline[0].page(&all, 0, 100).unwrap().lines).unwrap(), lines);
    let one = Selection { ids: [group.example].into(), ..Selection::default() };
    assert_eq!(offline[0].groups(&one).unwrap().count, 1);
    let none = Selection { reason: Some("another".into()), ..Selection::default() };
    assert_eq!(offline[0].groups(&none).unwrap().count, 0);
}

#[tokio::test]
async fn letters_survive_a_restart_and_stop_at_their_quota() {
    let dir = tempfile::tempdir().unwrap();
    let mut kept = 0;
    for round in 0..2 {
        let engine = Arc::new(engine(dir.path()));
        let pipeline = engine.add(settings(2 << 20), vec![spec(&Picky::refusing("n"))], &|_| None).await.unwrap();
        submit(&pipeline, 0..3000, 500).await;
        drain(&engine).await;
        let report = reports(&engine).await;
        let delivery = &report.deliveries[0];
        assert_eq!(report.dead_letters.kept_events, delivery.rejected_events);
        assert_eq!(delivery.imbalance_events + report.dead_letters.imbalance_events, 0);
        let dropped = delivery.dropped_events.get("dead_letters_full").copied().unwrap_or(0);
        assert_eq!(delivery.rejected_events + dropped, 3000 * (round + 1));
        assert!(report.dead_letters.bytes <= 2 << 20, "{report:#?}");
        assert!(dropped > 0 && report.dead_letters.held_events >= kept, "{report:#?}");
        kept = report.dead_letters.held_events;
    }
}

#[tokio::test]
async fn a_reference_may_drop_what_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Arc::new(engine(dir.path()));
    let mut drops = spec(&Picky::refusing("7,"));
    drops.settings.on_undeliverable = OnUndeliverable::Drop;
    let pipeline = engine.add(settings(64 << 20), vec![drops], &|_| None).await.unwrap();
    submit(&pipeline, 0..100, 1).await;
    drain(&engine).await;
    let report = reports(&engine).await;
    assert_eq!((report.dead_letters.kept_events, report.deliveries[0].rejected_events), (0, 0));
    assert_eq!((report.deliveries[0].dropped_events["undeliverable"], report.deliveries[0].imbalance_events), (10, 0));
    assert!(!dir.path().join("dead-letters").exists());
}

/// Makes every job's delivery send to `backend`.
async fn serve(engine: &Engine, backend: &Arc<Picky>) {
    let backend = backend.clone();
    let make = move |target: &JobTarget| {
        let known = ["b", "other"].contains(&&*target.backend);
        let name = target.backend.clone();
        if known {
            Ok(DeliverySpec { backend_name: name, ..spec(&backend) })
        } else {
            Err(format!("no backend {name}"))
        }
    };
    engine.serve_jobs(Arc::new(make)).await;
}

/// Makes every job's delivery send to a destination that takes nothing: a job begins and does not end.
async fn serve_dead(engine: &Engine) {
    let dead = |_: &JobTarget| Ok(DeliverySpec { backend: Arc::new(Dead), ..spec(&Picky::refusing("")) });
    engine.serve_jobs(Arc::new(dead)).await;
}

/// Asks again and again until the job is told so.
async fn until(engine: &Arc<Engine>, what: &str, holds: impl Fn(&PipelineReport) -> bool) -> PipelineReport {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let report = reports(engine).await;
        if holds(&report) {
            return report;
        }
        assert!(Instant::now() < deadline, "never came: {what}; {report:#?}");
        tokio::task::yield_now().await;
    }
}

fn over(report: &PipelineReport) -> bool {
    !report.jobs.is_empty() && report.jobs.iter().all(|job| job.ended.is_some())
}

fn all() -> RedriveRequest {
    RedriveRequest::default()
}

#[tokio::test]
async fn a_redrive_sends_each_letter_once_under_its_own_id_and_lets_it_go() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, backend, pipeline) = refusing(dir.path(), "7,").await;
    serve(&engine, &backend).await;
    submit(&pipeline, 0..100, 1).await;
    until(&engine, "ten letters", |report| report.dead_letters.held_events == 10).await;
    let ids: BTreeSet<String> = {
        let page = desk(&engine).dead_letters().page(&Selection::default(), 0, 100).await.unwrap();
        let lines = String::from_utf8(page.lines).unwrap();
        lines
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["id"].as_str().unwrap().into())
            .collect()
    };
    backend.got.lock().unwrap().clear();
    *backend.refused.lock().unwrap() = None;

    let limited = desk(&engine).redrive(&RedriveRequest { limit: Some(3), ..all() }).await.unwrap();
    assert_eq!((limited.jobs.len(), limited.jobs[0].selected, limited.refused.len()), (1, 3, 0));
    let report = until(&engine, "three redriven", over).await;
    assert_eq!((report.dead_letters.held_events, report.dead_letters.redriven_events), (7, 3), "{report:#?}");
    desk(&engine).redrive(&all()).await.unwrap();
    let report = until(&engine, "all redriven", |report| report.dead_letters.held_events == 0 && over(report)).await;
    assert_eq!(report.dead_letters.redriven_events, 10);
    assert!(report.jobs.iter().all(|job| job.state == JobState::Done && job.imbalance_events == 0), "{report:#?}");
    assert_eq!(report.dead_letters.imbalance_events, 0);

    let got = backend.got.lock().unwrap().clone();
    assert_eq!(got.len(), 10, "{got:?}");
    assert_eq!(got.iter().map(|(id, _)| id.clone()).collect::<BTreeSet<_>>(), ids);
    let nothing = desk(&engine).redrive(&all()).await.unwrap_err();
    assert!(matches!(nothing, JobError::Nothing(_)), "{nothing}");
    drain(&engine).await;
}

#[tokio::test]
async fn what_is_refused_again_is_a_letter_again_and_never_a_loop() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, backend, pipeline) = refusing(dir.path(), "7,").await;
    serve(&engine, &backend).await;
    submit(&pipeline, 0..100, 1).await;
    until(&engine, "ten letters", |report| report.dead_letters.held_events == 10).await;
    *backend.refused.lock().unwrap() = Some("17,".into());
    for round in 1..=3 {
        desk(&engine).redrive(&all()).await.unwrap();
        let report = until(&engine, "the redrive", |report| report.jobs.len() == round && over(report)).await;
        let letters = &report.dead_letters;
        assert_eq!((letters.held_events, letters.redriven_events), (1, 9), "{report:#?}");
        assert_eq!((letters.rejected_again_events, letters.imbalance_events), (round as u64, 0), "{report:#?}");
    }
    let unknown = desk(&engine).redrive(&RedriveRequest { to: Some("nobody".into()), ..all() }).await.unwrap();
    assert_eq!(
        (unknown.jobs.len(), unknown.refused.as_slice()),
        (0, ["all to b: no backend nobody".to_owned()].as_slice())
    );
    *backend.refused.lock().unwrap() = None;
    desk(&engine).redrive(&RedriveRequest { to: Some("other".into()), ..all() }).await.unwrap();
    let report = until(&engine, "to the other", |report| report.dead_letters.held_events == 0 && over(report)).await;
    assert_eq!((report.jobs[3].backend.as_str(), report.jobs[3].delivered_events), ("other", 1));
    assert_eq!(backend.got.lock().unwrap().len(), 100);
    drain(&engine).await;
}

#[tokio::test]
async fn a_redrive_goes_on_in_the_next_process_and_is_counted_once() {
    let dir = tempfile::tempdir().unwrap();
    let backend = Picky::refusing("n");
    {
        let engine = Arc::new(engine(dir.path()));
        let pipeline = engine.add(settings(64 << 20), vec![spec(&backend)], &|_| None).await.unwrap();
        submit(&pipeline, 0..3000, 300).await;
        until(&engine, "letters", |report| report.dead_letters.held_events == 3000).await;
        serve_dead(&engine).await;
        let redriven = desk(&engine).redrive(&all()).await.unwrap();
        assert!(matches!(desk(&engine).purge(&Selection::default()).await, Err(JobError::UnderWay(_))));
        let again = desk(&engine).redrive(&all()).await.unwrap();
        assert!(again.jobs.is_empty() && again.refused[0].contains(&redriven.jobs[0].id), "{again:?}");
        drain(&engine).await;
    }
    *backend.refused.lock().unwrap() = None;
    for round in 0..2 {
        let engine = Arc::new(engine(dir.path()));
        engine.add(settings(64 << 20), vec![spec(&backend)], &|_| None).await.unwrap();
        serve(&engine, &backend).await;
        let report = until(&engine, "the end of the job", over).await;
        let letters = &report.dead_letters;
        assert_eq!(
            (letters.held_events, letters.redriven_events, letters.imbalance_events),
            (0, 3000, 0),
            "{round} {report:#?}"
        );
        drain(&engine).await;
    }
    assert_eq!(backend.got.lock().unwrap().iter().collect::<BTreeSet<_>>().len(), 3000);
    let fs: Arc<dyn Filesystem> = Arc::new(RealFs);
    assert_eq!(Offline::all(&fs, dir.path()).unwrap()[0].groups(&Selection::default()).unwrap().count, 0);
}

/// Takes nothing.
#[derive(Debug)]
struct Dead;

impl Backend for Dead {
    fn send<'a>(&'a self, _: &'a OutBatch) -> BoxFuture<'a, Result<Items, Fault>> {
        Box::pin(async { Err(Fault::new(FaultKind::Unreachable, "as scripted")) })
    }
}

#[tokio::test]
async fn a_cancelled_redrive_leaves_what_it_did_not_send() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _, pipeline) = refusing(dir.path(), "n").await;
    serve_dead(&engine).await;
    submit(&pipeline, 0..10, 1).await;
    until(&engine, "letters", |report| report.dead_letters.held_events == 10).await;
    let id = desk(&engine).redrive(&all()).await.unwrap().jobs.remove(0).id;
    until(&engine, "a failed attempt", |report| report.jobs[0].state == JobState::Retrying).await;
    assert!(!desk(&engine).cancel("nobody").await.unwrap());
    assert!(desk(&engine).cancel(&id).await.unwrap());
    let report = until(&engine, "the end", over).await;
    assert_eq!((report.jobs[0].state, report.jobs[0].held_events), (JobState::Cancelled, 10));
    assert_eq!((report.dead_letters.held_events, report.dead_letters.imbalance_events), (10, 0));
    let seven = Selection { reason: Some("\"n\":7".into()), ..Selection::default() };
    assert_eq!(desk(&engine).purge(&seven).await.unwrap(), 1);
    let report = reports(&engine).await;
    assert_eq!((report.dead_letters.held_events, report.dead_letters.dropped_events["purged"]), (9, 1));
    drain(&engine).await;
}

#[tokio::test]
async fn redriven_letters_make_room_for_new_ones() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Arc::new(engine(dir.path()));
    let backend = Picky::refusing("n");
    let pipeline = engine.add(settings(4 << 20), vec![spec(&backend)], &|_| None).await.unwrap();
    serve(&engine, &backend).await;
    let full = |report: &PipelineReport| report.deliveries[0].dropped_events.contains_key("dead_letters_full");
    submit(&pipeline, 0..10_000, 500).await;
    until(&engine, "a full log", full).await;
    until(&engine, "rest", |report| report.deliveries[0].held_events == 0).await;
    *backend.refused.lock().unwrap() = None;
    desk(&engine).redrive(&all()).await.unwrap();
    let report = until(&engine, "the redrive", |report| over(report) && report.dead_letters.bytes < 1 << 20).await;
    assert_eq!((report.dead_letters.held_events, report.dead_letters.imbalance_events), (0, 0), "{report:#?}");
    let before = report.deliveries[0].dropped_events["dead_letters_full"];
    *backend.refused.lock().unwrap() = Some("n".into());
    submit(&pipeline, 0..1000, 500).await;
    let report = until(&engine, "new letters", |report| report.dead_letters.held_events == 1000).await;
    assert_eq!(report.deliveries[0].dropped_events["dead_letters_full"], before);
    drain(&engine).await;
}

fn replay(from: &str, to: &str) -> ReplayRequest {
    ReplayRequest {
        route: "all".into(),
        from: from.into(),
        to: to.into(),
        backend: Some("other".into()),
        dry_run: false,
    }
}

#[tokio::test]
async fn a_range_that_was_kept_is_sent_again_under_its_ids_and_another_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(1_000_000_000_000);
    let engine = Arc::new(engine_over(dir.path(), Arc::new(RealFs), clock.clone()));
    let (first, second) = (Arc::new(Picky::default()), Arc::new(Picky::default()));
    let pipeline = engine.add(keeping(64 << 20), vec![spec(&first)], &|_| None).await.unwrap();
    serve(&engine, &second).await;
    for minute in 0..10u32 {
        submit_at(&pipeline, minute * 100..minute * 100 + 100, 1_000_000_000_000 + i64::from(minute) * 60_000_000_000)
            .await;
    }
    until(&engine, "delivered", |report| report.deliveries[0].delivered_events == 1000).await;
    clock.set(1_600_000_000_000);
    let dry = ReplayRequest { dry_run: true, ..replay("5m", "now") };
    let counted = desk(&engine).replay(&dry).await.unwrap();
    assert_eq!((counted.events, counted.jobs.len()), (500, 0), "{counted:?}");
    let replayed = desk(&engine).replay(&replay("1970-01-01T00:18:40Z", "1970-01-01T00:20:40Z")).await.unwrap();
    assert_eq!((replayed.from, replayed.end, replayed.events), (201, 401, 200));
    let report = until(&engine, "the replay", over).await;
    let job = &report.jobs[0];
    assert_eq!((job.delivered_events, job.held_events, job.imbalance_events), (200, 0, 0), "{report:#?}");
    let again = second.got.lock().unwrap().clone();
    let before: BTreeSet<_> = first.got.lock().unwrap()[200..400].iter().cloned().collect();
    assert_eq!((again.len(), again.into_iter().collect::<BTreeSet<_>>() == before), (200, true));
    for (from, to, told) in [
        ("5000", "now", "nothing is there from 5000"),
        ("now", "now", "nothing is there from 1001"),
        ("yesterday", "now", "is no bound"),
    ] {
        let error = desk(&engine).replay(&replay(from, to)).await.unwrap_err().to_string();
        assert!(error.contains(told), "{error}");
    }
    let wrong = ReplayRequest { route: "al".into(), ..replay("oldest", "now") };
    assert_eq!(desk(&engine).replay(&wrong).await.unwrap_err().to_string(), "no route al; found: all");
    drain(&engine).await;
}

#[tokio::test]
async fn a_replay_keeps_what_it_needs_and_says_exactly_what_is_left_of_a_log() {
    let dir = tempfile::tempdir().unwrap();
    let backend = Arc::new(Picky::default());
    {
        let engine = Arc::new(engine(dir.path()));
        let pipeline = engine.add(keeping(2 << 20), vec![spec(&backend)], &|_| None).await.unwrap();
        serve_dead(&engine).await;
        submit(&pipeline, 0..500, 1000).await;
        until(&engine, "delivered", |report| report.deliveries[0].held_events == 0).await;
        let id = desk(&engine).replay(&replay("1", "501")).await.unwrap().jobs.remove(0).id;
        // What is replayed stays, although more comes than there is room for.
        let mut sent = 500;
        while submit_or_full(&pipeline, sent..sent + 100, 1000).await {
            sent += 100;
            until(&engine, "delivered", |report| report.deliveries[0].held_events == 0).await;
        }
        let report = reports(&engine).await;
        assert_eq!((report.log.first_seq, report.jobs[0].held_events), (1, 500), "{report:#?}");
        assert!(desk(&engine).cancel(&id).await.unwrap());
        until(&engine, "the end", over).await;
        while reports(&engine).await.log.first_seq == 1 {
            submit_or_full(&pipeline, 0..100, 1000).await;
        }
        let error = desk(&engine).replay(&replay("1", "now")).await.unwrap_err().to_string();
        let first = reports(&engine).await.log.first_seq;
        assert!(error.contains(&format!("asked from 1, the log holds events {first} to ")), "{error}");
        let rest = desk(&engine).replay(&replay("oldest", "now")).await.unwrap();
        assert_eq!(rest.from, first);
        drain(&engine).await;
    }
    let engine = Arc::new(engine(dir.path()));
    engine.add(keeping(2 << 20), vec![spec(&backend)], &|_| None).await.unwrap();
    let second = Arc::new(Picky::default());
    serve(&engine, &second).await;
    let report = until(&engine, "the replay goes on", over).await;
    let job = report.jobs.last().unwrap();
    assert_eq!((job.state, job.delivered_events, job.imbalance_events), (JobState::Done, job.selected_events, 0));
    assert_eq!(second.got.lock().unwrap().len() as u64, job.selected_events);
    drain(&engine).await;
}
