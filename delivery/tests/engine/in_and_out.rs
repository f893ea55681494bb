//! The engine over a real file system and a scripted destination: what goes in comes out once, whatever happens between.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use spillway_delivery::backend::{Backend, Fault, FaultKind, Items, Mark, OutBatch, Outcome, Traits};
use spillway_delivery::clock::Clock;
use spillway_delivery::condition::Condition;
use spillway_delivery::deliver::{DeliverySpec, Engine, EngineError, EngineSettings};
use spillway_delivery::event::{Batch, BatchBuilder, IdempotencyKey, Origin, Position};
use spillway_delivery::filesystem::RealFs;
use spillway_delivery::intake::{Intake, Pipeline, RefusalReason, SubmitError};
use spillway_delivery::ledger::{BreakerState, PipelineReport};
use spillway_delivery::log::{Journal, Plan, Progress};
use spillway_delivery::settings::{
    BackendRefSettings, BreakerSettings, DeliverySettings, Durability, LogSettings, PipelineSettings,
    RateLimitSettings, Strategy,
};
use tokio::time::Instant;

use crate::common::{
    self, Store, batch, drain, engine, engine_over, line, pipeline_of, quick, quick_breaker, reference, report, route,
    spec_of,
};

/// What a scripted destination answers to the next attempt; after the last it takes everything.
#[derive(Debug, Clone)]
enum Answer {
    /// Takes what comes, and this long.
    Slow(Duration),
    Fail(FaultKind),
    Reject(&'static str),
    TakeEveryOther,
    TooLargeAbove(usize),
    /// Takes all but the events that hold this.
    LeaveBehind(&'static str),
}

/// A destination in memory: hand-made, to force what a real one does rarely.
#[derive(Debug, Default)]
struct Scripted {
    traits: Traits,
    answers: Mutex<VecDeque<Answer>>,
    stuck: Mutex<Option<Answer>>,
    store: Store<String>,
    keys: Mutex<BTreeMap<String, Vec<String>>>,
    commit_failures: Mutex<u32>,
    committed: AtomicUsize,
    attempts: Mutex<Vec<Instant>>,
    under_way: AtomicUsize,
    under_way_max: AtomicUsize,
}

impl Scripted {
    fn take(&self, batch: &OutBatch) {
        let lines: Vec<String> =
            batch.events().map(|event| String::from_utf8_lossy(event.bytes).into_owned()).collect();
        let known = self.keys.lock().unwrap().insert(batch.key().to_owned(), lines.clone());
        if self.traits.keyed
            && let Some(known) = known
        {
            assert_eq!(known, lines, "a key named two batches");
            return;
        }
        self.store.add(lines);
    }

    /// Takes the events that `other` has no other outcome for.
    fn take_where(&self, batch: &OutBatch, other: impl Fn(usize, &str) -> Option<Outcome>) -> Items {
        let (mut outcomes, mut taken) = (Vec::new(), Vec::new());
        for (index, event) in batch.events().enumerate() {
            let line = String::from_utf8_lossy(event.bytes).into_owned();
            let outcome = other(index, &line).unwrap_or(Outcome::Delivered);
            if outcome == Outcome::Delivered {
                taken.push(line);
            }
            outcomes.push(outcome);
        }
        self.store.add(taken);
        Items::Each(outcomes)
    }

    async fn until(&self, count: usize) -> Vec<String> {
        self.store.until(|got| got.len() >= count).await
    }
}

/// Counts an attempt as over, also when it is abandoned.
struct Over<'a>(&'a AtomicUsize);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Backend for Scripted {
    fn send<'a>(&'a self, batch: &'a OutBatch) -> BoxFuture<'a, Result<Items, Fault>> {
        Box::pin(async move {
            self.attempts.lock().unwrap().push(Instant::now());
            let under_way = self.under_way.fetch_add(1, Ordering::SeqCst) + 1;
            self.under_way_max.fetch_max(under_way, Ordering::SeqCst);
            let _over = Over(&self.under_way);
            let answer = self.answers.lock().unwrap().pop_front().or_else(|| self.stuck.lock().unwrap().clone());
            match answer {
                None => self.take(batch),
                Some(Answer::Slow(time)) => {
                    drop(tokio::time::timeout(time, std::future::pending::<()>()).await);
                    self.take(batch);
                }
                Some(Answer::Fail(kind)) => return Err(Fault::new(kind, "as scripted")),
                Some(Answer::TooLargeAbove(max)) if batch.len() <= max => self.take(batch),
                Some(Answer::TooLargeAbove(_)) => return Err(Fault::new(FaultKind::TooLarge, "as scripted")),
                Some(Answer::Reject(which)) => {
                    let rejected = || Outcome::Rejected("as scripted".into());
                    return Ok(
                        self.take_where(batch, |_, line| if line.contains(which) { Some(rejected()) } else { None })
                    );
                }
                Some(Answer::LeaveBehind(which)) => {
                    return Ok(self.take_where(batch, |_, line| line.contains(which).then_some(Outcome::Retry)));
                }
                Some(Answer::TakeEveryOther) => {
                    return Ok(self.take_where(batch, |index, _| (index % 2 == 1).then_some(Outcome::Retry)));
                }
            }
            Ok(Items::All(Outcome::Delivered))
        })
    }

    fn traits(&self) -> Traits {
        self.traits
    }

    fn open(&self, mark: Option<Mark>) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(self.store.open(self.traits, mark))
    }

    fn commit(&self) -> BoxFuture<'_, Result<Option<Mark>, Fault>> {
        Box::pin(async {
            if !self.traits.commits {
                return Ok(None);
            }
            let mut failures = self.commit_failures.lock().unwrap();
            if *failures > 0 {
                *failures -= 1;
                // What was not committed is lost with the failure, as with a failed sync.
                let half = self.store.len() / 2;
                self.store.cut(half.max(self.committed.load(Ordering::Relaxed)));
                return Err(Fault::new(FaultKind::Local, "sync failed, as scripted"));
            }
            let committed = self.store.len();
            self.committed.store(committed, Ordering::Relaxed);
            Ok(Some(committed.to_string().into()))
        })
    }
}

fn pipeline_settings(durability: Durability, bytes_max: u64) -> PipelineSettings {
    let log = LogSettings { durability, bytes_max, ..LogSettings::default() };
    pipeline_of(log, vec![route("all", Strategy::All, vec![reference("b")])])
}

fn spec(backend: &Arc<Scripted>) -> DeliverySpec {
    spec_of("all", "b", backend.clone(), DeliverySettings { breaker: quick_breaker(), ..quick() })
}

async fn add(engine: &Engine, backend: &Arc<Scripted>, durability: Durability) -> Arc<Pipeline> {
    engine.add(pipeline_settings(durability, 1 << 30), vec![spec(backend)], &|_| None).await.unwrap()
}

fn lines(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(line).collect()
}

fn assert_balanced(report: &PipelineReport, events: u64) {
    assert_eq!(report.accepted_events, events, "{report:#?}");
    common::assert_balanced(report);
}

#[tokio::test]
async fn what_goes_in_comes_out_in_order_and_the_ledger_balances() {
    for durability in [Durability::Disk, Durability::Process] {
        let dir = tempfile::tempdir().unwrap();
        let engine = engine(dir.path());
        let backend =
            Arc::new(Scripted { traits: Traits { ordered: true, ..Traits::default() }, ..Scripted::default() });
        let pipeline = add(&engine, &backend, durability).await;
        for start in (0..1000).step_by(100) {
            let accepted = Intake.submit(std::slice::from_ref(&pipeline), batch(start..start + 100)).await.unwrap();
            assert_eq!(accepted.events, 100);
        }
        assert_eq!(backend.until(1000).await, lines(0..1000));
        assert!(drain(&engine).await);
        let report = report(&pipeline).await;
        assert_balanced(&report, 1000);
        assert_eq!(report.deliveries[0].delivered_events, 1000);
        assert_eq!(report.deliveries[0].held_events, 0);
    }
}

#[tokio::test]
async fn a_backend_can_ask_for_batches_of_few_events() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let small = Traits { batch_events_max: Some(16), ..Traits::default() };
    let stuck = Mutex::new(Some(Answer::TooLargeAbove(16)));
    let backend = Arc::new(Scripted { traits: small, stuck, ..Scripted::default() });
    let pipeline = add(&engine, &backend, Durability::Disk).await;
    Intake.submit(std::slice::from_ref(&pipeline), batch(0..500)).await.unwrap();
    assert!(drain(&engine).await);
    assert_balanced(&report(&pipeline).await, 500);
    let report = report(&pipeline).await;
    assert_eq!(report.deliveries[0].delivered_events, 500);
    assert_eq!(report.deliveries[0].attempts, 500_u64.div_ceil(16), "none was larger and had to be halved");
}

#[tokio::test]
async fn what_is_held_at_the_end_is_delivered_by_the_next_process() {
    let dir = tempfile::tempdir().unwrap();
    {
        let engine = engine(dir.path());
        let dead =
            Arc::new(Scripted { stuck: Mutex::new(Some(Answer::Fail(FaultKind::Unreachable))), ..Scripted::default() });
        let pipeline = add(&engine, &dead, Durability::Disk).await;
        for start in (0..500).step_by(50) {
            Intake.submit(std::slice::from_ref(&pipeline), batch(start..start + 50)).await.unwrap();
        }
        assert!(!engine.drain(Instant::now() + Duration::from_millis(200)).await);
        let report = report(&pipeline).await;
        assert_balanced(&report, 500);
        assert_eq!(report.deliveries[0].held_events, 500);
        assert!(report.deliveries[0].held_bytes > 500 * 6);
    }
    let engine = engine(dir.path());
    let backend = Arc::new(Scripted::default());
    let pipeline = add(&engine, &backend, Durability::Disk).await;
    let mut got = backend.until(500).await;
    got.sort_by_key(|line| line[5..line.len() - 1].parse::<u32>().unwrap());
    assert_eq!(got, lines(0..500));
    assert!(drain(&engine).await);
    assert_balanced(&report(&pipeline).await, 500);
}

#[tokio::test]
async fn a_keyed_batch_keeps_members_and_key_over_a_process_that_dies() {
    let dir = tempfile::tempdir().unwrap();
    let keyed = Traits { keyed: true, ..Traits::default() };
    let backend = Arc::new(Scripted { traits: keyed, ..Scripted::default() });
    let mut sent = 0;
    for round in 0..6 {
        let engine = engine(dir.path());
        let pipeline = add(&engine, &backend, Durability::Disk).await;
        for _ in 0..20 {
            Intake.submit(std::slice::from_ref(&pipeline), batch(sent..sent + 7)).await.unwrap();
            sent += 7;
        }
        // Some of it is under way, some was taken and not noted: the process is gone all the same.
        if round % 2 == 0 {
            backend.until(sent as usize / 2).await;
        }
        drop(engine);
    }
    let engine = engine(dir.path());
    let pipeline = add(&engine, &backend, Durability::Disk).await;
    assert!(drain(&engine).await);
    let mut got = backend.until(sent as usize).await;
    got.sort_by_key(|line| line[5..line.len() - 1].parse::<u32>().unwrap());
    assert_eq!(got, lines(0..sent));
    assert_balanced(&report(&pipeline).await, u64::from(sent));
}

#[tokio::test]
async fn part_of_a_batch_that_is_not_taken_is_sent_again_alone() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let answers = VecDeque::from([Answer::TakeEveryOther, Answer::Fail(FaultKind::Broken), Answer::TakeEveryOther]);
    let backend = Arc::new(Scripted { answers: Mutex::new(answers), ..Scripted::default() });
    let pipeline = add(&engine, &backend, Durability::Disk).await;
    Intake.submit(std::slice::from_ref(&pipeline), batch(0..101)).await.unwrap();
    let mut got = backend.until(101).await;
    got.sort_by_key(|line| line[5..line.len() - 1].parse::<u32>().unwrap());
    assert_eq!(got, lines(0..101));
    assert!(drain(&engine).await);
    let report = report(&pipeline).await;
    assert_balanced(&report, 101);
    assert_eq!(report.deliveries[0].faults["broken"], 1);
}

#[tokio::test]
async fn a_batch_too_large_is_halved_and_an_event_too_large_is_a_dead_letter() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let backend = Arc::new(Scripted { stuck: Mutex::new(Some(Answer::TooLargeAbove(3))), ..Scripted::default() });
    let pipeline = add(&engine, &backend, Durability::Disk).await;
    Intake.submit(std::slice::from_ref(&pipeline), batch(0..50)).await.unwrap();
    backend.until(50).await;
    *backend.stuck.lock().unwrap() = Some(Answer::TooLargeAbove(0));
    Intake.submit(std::slice::from_ref(&pipeline), batch(50..52)).await.unwrap();
    assert!(drain(&engine).await);
    let report = report(&pipeline).await;
    assert_balanced(&report, 52);
    assert_eq!((report.deliveries[0].delivered_events, report.deliveries[0].rejected_events), (50, 2));
    assert_eq!(dead_letters(dir.path()).len(), 2);
}

#[tokio::test]
async fn a_rejected_event_is_in_the_dead_letters_with_its_reason() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let backend = Arc::new(Scripted { stuck: Mutex::new(Some(Answer::Reject("\"n\":7}"))), ..Scripted::default() });
    let pipeline = add(&engine, &backend, Durability::Disk).await;
    Intake.submit(std::slice::from_ref(&pipeline), batch(0..10)).await.unwrap();
    backend.until(9).await;
    assert!(drain(&engine).await);
    assert_balanced(&report(&pipeline).await, 10);
    let letters = dead_letters(dir.path());
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0]["reason"], "as scripted");
    assert_eq!(letters[0]["event"]["n"], 7);
}

fn dead_letters(dir: &Path) -> Vec<serde_json::Value> {
    let fs: Arc<dyn spillway_delivery::filesystem::Filesystem> = Arc::new(RealFs);
    let mut letters = Vec::new();
    let dir = dir.join("dead-letters/default.jobs");
    spillway_delivery::log::inspect(&fs, &dir, |_, event| letters.push(serde_json::from_slice(event).unwrap()))
        .unwrap();
    letters
}

#[tokio::test]
async fn a_full_log_refuses_and_takes_again_when_a_delivery_frees_it() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let backend =
        Arc::new(Scripted { stuck: Mutex::new(Some(Answer::Fail(FaultKind::Unreachable))), ..Scripted::default() });
    let settings = pipeline_settings(Durability::Disk, 1 << 20);
    let pipeline = engine.add(settings, vec![spec(&backend)], &|_| None).await.unwrap();
    let mut taken = 0;
    let refused = loop {
        match Intake.submit(std::slice::from_ref(&pipeline), batch(taken..taken + 1000)).await {
            Ok(_) => taken += 1000,
            Err(error) => break error,
        }
        assert!(taken < 200_000, "the quota never came");
    };
    assert!(matches!(refused, SubmitError::Refused { reason: RefusalReason::Full, .. }), "{refused:?}");
    *backend.stuck.lock().unwrap() = None;
    while Intake.submit(std::slice::from_ref(&pipeline), batch(taken..taken + 1000)).await.is_err() {
        pipeline.room().await;
    }
    taken += 1000;
    assert_eq!(backend.until(taken as usize).await.len(), taken as usize);
    assert!(drain(&engine).await);
    assert_balanced(&report(&pipeline).await, u64::from(taken));
}

#[tokio::test]
async fn a_repeated_key_is_kept_once_and_with_another_body_refused() {
    let dir = tempfile::tempdir().unwrap();
    let with_key = |range: std::ops::Range<u32>, body_hash| {
        let key = IdempotencyKey { sender: Bytes::from_static(b"s"), key: Bytes::from_static(b"k"), body_hash };
        Batch { key: Some(key), ..batch(range) }
    };
    let backend = Arc::new(Scripted::default());
    {
        let engine = engine(dir.path());
        let pipeline = add(&engine, &backend, Durability::Disk).await;
        let targets = [pipeline.clone()];
        let both = tokio::join!(Intake.submit(&targets, with_key(0..3, 1)), Intake.submit(&targets, with_key(0..3, 1)));
        assert!(both.0.unwrap().repeated != both.1.unwrap().repeated);
        assert_eq!(Intake.submit(&targets, with_key(0..4, 2)).await, Err(SubmitError::KeyReused));
    }
    let engine = engine(dir.path());
    let pipeline = add(&engine, &backend, Durability::Disk).await;
    assert!(Intake.submit(std::slice::from_ref(&pipeline), with_key(0..3, 1)).await.unwrap().repeated);
    assert!(drain(&engine).await);
    assert_balanced(&report(&pipeline).await, 3);
}

#[tokio::test]
async fn a_position_comes_back_with_its_data() {
    let dir = tempfile::tempdir().unwrap();
    let backend = Arc::new(Scripted::default());
    let at = |value: Option<&'static str>| Position {
        source: Bytes::from_static(b"file"),
        value: value.map(|text| Bytes::from_static(text.as_bytes())),
    };
    {
        let engine = engine(dir.path());
        let pipeline = add(&engine, &backend, Durability::Disk).await;
        Intake
            .submit(std::slice::from_ref(&pipeline), Batch { position: Some(at(Some("10"))), ..batch(0..1) })
            .await
            .unwrap();
        Intake.submit(&[pipeline], Batch { position: Some(at(Some("20"))), ..batch(0..0) }).await.unwrap();
    }
    let engine = engine(dir.path());
    let pipeline = add(&engine, &backend, Durability::Disk).await;
    assert_eq!(pipeline.position(b"file").as_deref(), Some(b"20".as_slice()));
    Intake.submit(std::slice::from_ref(&pipeline), Batch { position: Some(at(None)), ..batch(0..0) }).await.unwrap();
    assert_eq!(pipeline.position(b"file"), None);
}

#[tokio::test]
async fn the_second_writer_of_a_data_directory_is_told_who_is_first() {
    let dir = tempfile::tempdir().unwrap();
    let first = engine(dir.path());
    let settings = EngineSettings {
        data_dir: dir.path().to_owned(),
        filesystem: Arc::new(RealFs),
        clock: Clock::system(),
        free_bytes_min: 0,
    };
    match Engine::open(settings) {
        Err(EngineError::InUse { pid, .. }) => assert_eq!(pid, std::process::id().to_string()),
        other => panic!("{other:?}"),
    }
    let id = first.agent_id();
    drop(first);
    assert_eq!(engine(dir.path()).agent_id(), id);
}

#[tokio::test]
async fn a_removed_reference_drains_and_is_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    {
        let engine = engine(dir.path());
        let dead =
            Arc::new(Scripted { stuck: Mutex::new(Some(Answer::Fail(FaultKind::Unreachable))), ..Scripted::default() });
        let pipeline = add(&engine, &dead, Durability::Disk).await;
        Intake.submit(&[pipeline], batch(0..10)).await.unwrap();
        engine.drain(Instant::now() + Duration::from_millis(100)).await;
    }
    let engine = engine(dir.path());
    let (old, new) = (Arc::new(Scripted::default()), Arc::new(Scripted::default()));
    let replaced = DeliverySpec { backend_uid: "c".into(), backend_name: "c".into(), ..spec(&new) };
    let bind = |_: &spillway_delivery::log::DeliveryKey| Some(spec(&old));
    let pipeline = engine.add(pipeline_settings(Durability::Disk, 1 << 30), vec![replaced], &bind).await.unwrap();
    assert_eq!(old.until(10).await.len(), 10);
    Intake.submit(std::slice::from_ref(&pipeline), batch(10..12)).await.unwrap();
    assert_eq!(new.until(2).await, lines(10..12));
    assert!(drain(&engine).await);
    assert_balanced(&report(&pipeline).await, 12);
}

#[tokio::test]
async fn a_failed_commit_sends_again_from_the_last_mark() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let traits = Traits { ordered: true, commits: true, ..Traits::default() };
    let backend = Arc::new(Scripted { traits, commit_failures: Mutex::new(3), ..Scripted::default() });
    let pipeline = add(&engine, &backend, Durability::Disk).await;
    for start in (0..600).step_by(100) {
        Intake.submit(std::slice::from_ref(&pipeline), batch(start..start + 100)).await.unwrap();
    }
    assert!(drain(&engine).await);
    assert_eq!(*backend.commit_failures.lock().unwrap(), 0);
    assert!(backend.store.all() == lines(0..600), "each once, in order");
    let report = report(&pipeline).await;
    assert_balanced(&report, 600);
    // What was sent again after a commit that failed counts once.
    let bytes: usize = lines(0..600).iter().map(String::len).sum();
    assert_eq!(report.deliveries[0].delivered_bytes, bytes as u64);
}

#[tokio::test]
async fn a_delivery_that_saved_nothing_begins_at_its_first_event_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let two = || {
        let mut settings = pipeline_settings(Durability::Disk, 1 << 30);
        settings.routes[0].backends.push(BackendRefSettings {
            uid: "c".into(),
            name: "c".into(),
            ..BackendRefSettings::default()
        });
        settings
    };
    let other =
        |backend: &Arc<Scripted>| DeliverySpec { backend_uid: "c".into(), backend_name: "c".into(), ..spec(backend) };
    {
        let engine = engine(dir.path());
        let keyed = Traits { keyed: true, ..Traits::default() };
        let (fast, slow) = (Arc::new(Scripted { traits: keyed, ..Scripted::default() }), Arc::new(Scripted::default()));
        let pipeline = engine.add(two(), vec![spec(&fast), other(&slow)], &|_| None).await.unwrap();
        Intake.submit(std::slice::from_ref(&pipeline), batch(0..100)).await.unwrap();
        // The keyed one has written its plan down; the other one nothing.
        fast.until(100).await;
    }
    let engine = engine(dir.path());
    let (fast, slow) = (Arc::new(Scripted::default()), Arc::new(Scripted::default()));
    let pipeline = engine.add(two(), vec![spec(&fast), other(&slow)], &|_| None).await.unwrap();
    assert_eq!(slow.until(100).await, lines(0..100));
    assert!(drain(&engine).await);
    assert_balanced(&report(&pipeline).await, 100);
}

#[tokio::test]
async fn a_clock_that_steps_back_an_hour_changes_labels_only() {
    const HOUR: i64 = 3_600_000_000_000;
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(10 * HOUR);
    let engine = engine_over(dir.path(), Arc::new(RealFs), clock.clone());
    let backend = Arc::new(Scripted { traits: Traits { ordered: true, ..Traits::default() }, ..Scripted::default() });
    let pipeline = add(&engine, &backend, Durability::Disk).await;
    let key = |name: &'static str| {
        let (sender, key) = (Bytes::from_static(b"s"), Bytes::from_static(name.as_bytes()));
        Some(IdempotencyKey { sender, key, body_hash: 1 })
    };
    let mut sent = 0;
    for now in [10, 9, 8, 11] {
        clock.set(now * HOUR);
        let named = ["a", "b", "c", "d"][sent as usize / 10];
        let first = Batch { received: clock.now(), key: key(named), ..batch(sent..sent + 10) };
        assert!(!Intake.submit(std::slice::from_ref(&pipeline), first.clone()).await.unwrap().repeated);
        clock.set((now - 1) * HOUR);
        assert!(Intake.submit(std::slice::from_ref(&pipeline), first).await.unwrap().repeated);
        sent += 10;
    }
    assert_eq!(backend.until(40).await, lines(0..40));
    assert!(drain(&engine).await);
    assert_balanced(&report(&pipeline).await, 40);
}

#[tokio::test]
async fn delivered_data_is_kept_for_its_time_and_goes_first_at_quota() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let backend = Arc::new(Scripted::default());
    let mut settings = pipeline_settings(Durability::Disk, 1 << 20);
    settings.log.retain = Duration::from_hours(1);
    let pipeline = engine.add(settings, vec![spec(&backend)], &|_| None).await.unwrap();
    let mut sent = 0;
    while sent < 300_000 {
        match Intake.submit(std::slice::from_ref(&pipeline), batch(sent..sent + 1000)).await {
            Ok(_) => sent += 1000,
            Err(SubmitError::Refused { reason: RefusalReason::Full, .. }) => pipeline.room().await,
            Err(other) => unreachable!("{other}"),
        }
    }
    assert_eq!(backend.until(300_000).await.len(), 300_000);
    assert!(drain(&engine).await);
    let report = report(&pipeline).await;
    assert_balanced(&report, 300_000);
    assert!(report.log.bytes <= 1 << 20, "{:?}", report.log);
    assert!(report.log.bytes > 1 << 19, "delivered data is still there: {:?}", report.log);
}

#[tokio::test]
async fn what_lies_between_two_plans_of_a_dead_process_is_delivered() {
    let dir = tempfile::tempdir().unwrap();
    {
        let engine = engine(dir.path());
        let stuck = Mutex::new(Some(Answer::Fail(FaultKind::Unreachable)));
        let pipeline = add(&engine, &Arc::new(Scripted { stuck, ..Scripted::default() }), Durability::Disk).await;
        Intake.submit(std::slice::from_ref(&pipeline), batch(0..100)).await.unwrap();
        engine.drain(Instant::now() + Duration::from_millis(100)).await;
    }
    {
        // As a process leaves it that halved a batch, planned one half, and died: events 26 to 50 are in no plan.
        let fs: Arc<dyn spillway_delivery::filesystem::Filesystem> = Arc::new(RealFs);
        let mut journal = Journal::open(fs, &dir.path().join("spool/default.jobs"));
        let (key, saved) =
            journal.progress().first_key_value().map(|(key, saved)| (key.clone(), saved.clone())).unwrap();
        let plan = |first, end, key: &str| Plan { first, end, key: key.into(), encoding: 0 };
        let plans = vec![plan(saved.cursor, 26, "left"), plan(51, 101, "next")];
        journal.save(&key, &Progress { plans, ..saved }, true).unwrap();
    }
    let engine = engine(dir.path());
    let keyed = Traits { keyed: true, ..Traits::default() };
    let backend = Arc::new(Scripted { traits: keyed, ..Scripted::default() });
    let pipeline = add(&engine, &backend, Durability::Disk).await;
    let mut got = backend.until(100).await;
    got.sort_by_key(|line| line[5..line.len() - 1].parse::<u32>().unwrap());
    assert_eq!(got, lines(0..100));
    assert!(drain(&engine).await);
    assert_balanced(&report(&pipeline).await, 100);
}

#[tokio::test]
async fn a_batch_that_no_route_wants_is_synced_by_the_timer_at_process() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let mut settings = pipeline_settings(Durability::Process, 1 << 30);
    settings.routes[0].condition = Some(Condition::compile("event.n == \"never\"").unwrap());
    let backend = Arc::new(Scripted::default());
    let pipeline = engine.add(settings, vec![spec(&backend)], &|_| None).await.unwrap();
    let before = report(&pipeline).await.log.syncs;
    Intake.submit(std::slice::from_ref(&pipeline), batch(0..10)).await.unwrap();
    let synced = async {
        while report(&pipeline).await.log.syncs == before {
            pipeline.room().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), synced).await.expect("its position and counts reach the disk");
    assert!(drain(&engine).await);
    let report = report(&pipeline).await;
    assert_balanced(&report, 10);
    assert_eq!(report.unrouted_events, 10);
}

#[tokio::test(start_paused = true)]
async fn a_dead_backend_is_left_alone_while_its_breaker_is_open_and_one_batch_closes_it() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let answers = VecDeque::from(vec![Answer::Fail(FaultKind::Unreachable); 7]);
    let backend = Arc::new(Scripted { answers: Mutex::new(answers), ..Scripted::default() });
    let mut patient = spec(&backend);
    patient.settings.breaker = BreakerSettings::default();
    let pipeline = engine.add(pipeline_settings(Durability::Disk, 1 << 30), vec![patient], &|_| None).await.unwrap();
    let begun = Instant::now();
    Intake.submit(std::slice::from_ref(&pipeline), batch(0..10)).await.unwrap();
    while report(&pipeline).await.deliveries[0].breaker.state != BreakerState::Open {
        pipeline.room().await;
    }
    let open = report(&pipeline).await;
    assert_eq!((open.deliveries[0].attempts, open.deliveries[0].held_events), (5, 10));
    while report(&pipeline).await.deliveries[0].delivered_events == 0 {
        pipeline.room().await;
    }
    let attempts: Vec<Duration> = backend.attempts.lock().unwrap().iter().map(|at| at.duration_since(begun)).collect();
    assert_eq!(attempts.len(), 8, "{attempts:?}");
    assert!(attempts[4] < Duration::from_secs(1), "{attempts:?}");
    for open in attempts[4..].windows(2) {
        let gap = open[1].abs_diff(open[0]);
        assert!(gap >= Duration::from_secs(24) && gap < Duration::from_secs(31), "{attempts:?}");
    }
    assert!(drain(&engine).await);
    let report = report(&pipeline).await;
    assert_balanced(&report, 10);
    let breaker = &report.deliveries[0].breaker;
    assert_eq!((breaker.changes["open"], breaker.changes["half_open"], breaker.changes["closed"]), (3, 3, 1));
}

/// Sends one event after the other, numbered on from `from`, until one is rejected or the time is over; returns how many.
async fn trickle(pipeline: &Arc<Pipeline>, from: u32, time: Duration) -> u32 {
    let (begun, mut sent) = (Instant::now(), 0);
    while report(pipeline).await.deliveries[0].rejected_events == 0 && begun.elapsed() < time {
        common::send(pipeline, from + sent..from + sent + 1).await;
        sent += 1;
        common::time_goes_by(Duration::from_secs(5)).await;
    }
    sent
}

#[tokio::test(start_paused = true)]
async fn an_event_left_behind_waits_while_nothing_else_shows_that_the_backend_is_well() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let stuck = Mutex::new(Some(Answer::LeaveBehind("\"n\":7}")));
    let backend = Arc::new(Scripted { stuck, ..Scripted::default() });
    let mut calm = spec(&backend);
    calm.settings.retry_max = Duration::from_secs(4);
    let pipeline = engine.add(pipeline_settings(Durability::Disk, 1 << 30), vec![calm], &|_| None).await.unwrap();
    common::send(&pipeline, 0..10).await;
    backend.until(9).await;
    common::time_goes_by(Duration::from_mins(20)).await;
    let waiting = report(&pipeline).await;
    assert_balanced(&waiting, 10);
    assert_eq!((waiting.deliveries[0].rejected_events, waiting.deliveries[0].held_events), (0, 1));
    assert_eq!(waiting.deliveries[0].breaker.state, BreakerState::Closed);
    *backend.stuck.lock().unwrap() = None;
    backend.until(10).await;
    assert!(drain(&engine).await);
    assert!(!dir.path().join("dead-letters").exists());
}

#[tokio::test(start_paused = true)]
async fn an_event_left_behind_for_ten_minutes_is_a_dead_letter_and_holds_up_nothing_but_order() {
    for ordered in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let engine = engine(dir.path());
        let traits = Traits { ordered, ..Traits::default() };
        let stuck = Mutex::new(Some(Answer::LeaveBehind("\"n\":7}")));
        let backend = Arc::new(Scripted { traits, stuck, ..Scripted::default() });
        let mut calm = spec(&backend);
        calm.settings.retry_max = Duration::from_secs(4);
        let pipeline = engine.add(pipeline_settings(Durability::Disk, 1 << 30), vec![calm], &|_| None).await.unwrap();
        let begun = Instant::now();
        Intake.submit(std::slice::from_ref(&pipeline), batch(0..10)).await.unwrap();
        backend.until(9).await;
        Intake.submit(std::slice::from_ref(&pipeline), batch(10..20)).await.unwrap();
        while backend.store.len() < 19 {
            pipeline.room().await;
        }
        let taken = backend.store.len();
        let waited = begun.elapsed();
        assert_eq!(waited >= Duration::from_secs(600), ordered, "{waited:?}");
        let more = trickle(&pipeline, 20, Duration::from_mins(20)).await;
        let given_up = begun.elapsed();
        assert!(given_up >= Duration::from_secs(600) && given_up < Duration::from_secs(615), "{given_up:?}");
        assert_eq!(report(&pipeline).await.deliveries[0].breaker.state, BreakerState::Closed);
        assert!(drain(&engine).await);
        assert_balanced(&report(&pipeline).await, 20 + u64::from(more));
        assert_eq!((taken, dead_letters(dir.path()).len()), (19, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn batches_under_way_grow_from_one_to_the_bound_and_a_throttled_backend_gets_fewer() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let stuck = Mutex::new(Some(Answer::Slow(Duration::from_secs(1))));
    let backend = Arc::new(Scripted { stuck, ..Scripted::default() });
    let mut wide = spec(&backend);
    wide.settings.in_flight_max = 8;
    wide.settings.batch_events_max = 10;
    let pipeline = engine.add(pipeline_settings(Durability::Disk, 1 << 30), vec![wide], &|_| None).await.unwrap();
    let begun = Instant::now();
    Intake.submit(std::slice::from_ref(&pipeline), batch(0..1000)).await.unwrap();
    backend.until(500).await;
    let attempts = backend.attempts.lock().unwrap()[..2].to_vec();
    assert!(attempts[1].duration_since(attempts[0]) >= Duration::from_secs(1), "the first one goes alone");
    assert_eq!(backend.under_way_max.load(Ordering::SeqCst), 8);
    assert_eq!(report(&pipeline).await.deliveries[0].in_flight_limit, 8);
    backend.answers.lock().unwrap().push_back(Answer::Fail(FaultKind::Throttled));
    let lower = loop {
        match report(&pipeline).await.deliveries[0].in_flight_limit {
            8 => pipeline.room().await,
            lower => break lower,
        }
    };
    assert!((4..8).contains(&lower), "{lower}");
    backend.until(1000).await;
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    assert!(drain(&engine).await);
    assert_balanced(&report(&pipeline).await, 1000);
}

#[tokio::test(start_paused = true)]
async fn a_rate_limit_holds_over_time_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let backend = Arc::new(Scripted::default());
    let mut limited = spec(&backend);
    limited.settings.rate = RateLimitSettings { bytes_per_second: None, events_per_second: Some(100) };
    limited.settings.batch_events_max = 50;
    let pipeline = engine.add(pipeline_settings(Durability::Disk, 1 << 30), vec![limited], &|_| None).await.unwrap();
    let begun = Instant::now();
    Intake.submit(std::slice::from_ref(&pipeline), batch(0..1000)).await.unwrap();
    backend.until(1000).await;
    let took = begun.elapsed();
    assert!(took >= Duration::from_secs(8) && took < Duration::from_secs(11), "{took:?}");
    assert!(drain(&engine).await);
    assert_balanced(&report(&pipeline).await, 1000);
}

#[tokio::test(start_paused = true)]
async fn the_time_of_being_left_behind_goes_on_over_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let stuck = Mutex::new(Some(Answer::LeaveBehind("\"n\":7}")));
    let keyed = Traits { keyed: true, ..Traits::default() };
    let backend = Arc::new(Scripted { traits: keyed, stuck, ..Scripted::default() });
    let (mut ran, mut sent) = (Duration::ZERO, 10);
    for life in 0..3 {
        let engine = engine(dir.path());
        let mut calm = spec(&backend);
        calm.settings.retry_max = Duration::from_secs(4);
        let pipeline = engine.add(pipeline_settings(Durability::Disk, 1 << 30), vec![calm], &|_| None).await.unwrap();
        if life == 0 {
            Intake.submit(std::slice::from_ref(&pipeline), batch(0..10)).await.unwrap();
        }
        let begun = Instant::now();
        sent += trickle(&pipeline, sent, Duration::from_secs(250)).await;
        ran += begun.elapsed();
        let report = report(&pipeline).await;
        assert_balanced(&report, u64::from(sent));
        assert_eq!(report.deliveries[0].rejected_events, u64::from(life == 2), "life {life}");
        // The process is gone: nothing is drained.
    }
    assert!(ran >= Duration::from_secs(600) && ran < Duration::from_secs(640), "{ran:?}");
}

#[tokio::test]
async fn a_destination_on_this_machine_gets_an_event_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let backend = Arc::new(Scripted { traits: Traits { local: true, ..Traits::default() }, ..Scripted::default() });
    let mut spec = spec(&backend);
    spec.settings.batch_wait_max = Duration::from_hours(1);
    let settings = pipeline_settings(Durability::Process, 1 << 30);
    let pipeline = engine.add(settings, vec![spec], &|_| None).await.unwrap();
    Intake.submit(std::slice::from_ref(&pipeline), batch(0..1)).await.unwrap();
    assert_eq!(backend.until(1).await, lines(0..1));
    assert!(drain(&engine).await);
}

#[tokio::test]
async fn the_oldest_held_is_as_old_as_its_own_receipt() {
    const HOUR: i64 = 3_600_000_000_000;
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let backend = Arc::new(Scripted::default());
    let pipeline = add(&engine, &backend, Durability::Disk).await;
    *backend.stuck.lock().unwrap() = Some(Answer::LeaveBehind("\"n\":2}"));
    // One frame each, all under one entry of the index: the second is never taken.
    for (number, held) in [(1_u64, None), (2, Some(2 * HOUR)), (3, Some(2 * HOUR))] {
        let mut builder = BatchBuilder::default();
        builder.push(format!("{{\"n\":{number}}}").as_bytes());
        let batch = builder.build(Arc::<Origin>::default(), number as i64 * HOUR);
        Intake.submit(std::slice::from_ref(&pipeline), batch).await.unwrap();
        let wanted = (number - u64::from(number > 1), u64::from(number > 1));
        let mut found = report(&pipeline).await.deliveries.remove(0);
        let deadline = Instant::now() + Duration::from_secs(20);
        while (found.delivered_events, found.held_events) != wanted && Instant::now() < deadline {
            tokio::task::yield_now().await;
            found = report(&pipeline).await.deliveries.remove(0);
        }
        assert_eq!(found.oldest_held, held, "{found:#?}");
    }
    *backend.stuck.lock().unwrap() = None;
    assert!(drain(&engine).await);
}
