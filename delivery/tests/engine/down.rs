//! A destination that is down for minutes, and a log that cannot be written or is full for minutes: tried as seldom as the
//! settings say, told once when it begins and once when it is over, and everything comes once.

use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use spillway_delivery::backend::{Backend, Fault, FaultKind, Items, OutBatch, Outcome};
use spillway_delivery::clock::Clock;
use spillway_delivery::deliver::Engine;
use spillway_delivery::filesystem::{Faults, FaultyFs};
use spillway_delivery::intake::{Intake, Pipeline};
use spillway_delivery::settings::{BreakerSettings, DeliverySettings, LogSettings, Strategy};
use tokio::time::Instant;

use crate::common::{
    Store, balanced, batch, drain, engine, engine_over, numbers, of, pipeline_of, quick, reference, route, send,
    spec_of, time_goes_by,
};
use crate::log::{Lines, logged_to};

/// What a destination does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Takes,
    Fails(FaultKind),
    /// Says nothing, for good.
    Hangs,
}

/// A destination that does as it is told.
#[derive(Debug)]
struct Told {
    answer: Mutex<Answer>,
    /// When each attempt began.
    attempts: Mutex<Vec<Instant>>,
    store: Store<u32>,
}

impl Told {
    fn to(answer: Answer) -> Arc<Self> {
        Arc::new(Self { answer: Mutex::new(answer), attempts: Mutex::default(), store: Store::default() })
    }

    fn tell(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }
}

impl Backend for Told {
    fn send<'a>(&'a self, batch: &'a OutBatch) -> BoxFuture<'a, Result<Items, Fault>> {
        Box::pin(async move {
            self.attempts.lock().unwrap().push(Instant::now());
            let answer = *self.answer.lock().unwrap();
            match answer {
                Answer::Takes => {
                    let number = |bytes: &[u8]| String::from_utf8_lossy(&bytes[5..bytes.len() - 1]).parse().unwrap();
                    self.store.add(batch.events().map(|event| number(event.bytes)));
                    Ok(Items::All(Outcome::Delivered))
                }
                Answer::Fails(kind) => Err(Fault::new(kind, "as told")),
                Answer::Hangs => std::future::pending().await,
            }
        })
    }
}

async fn add(engine: &Engine, place: &Arc<Told>, log: LogSettings, settings: DeliverySettings) -> Arc<Pipeline> {
    let routes = vec![route("all", Strategy::All, vec![reference("a")])];
    engine.add(pipeline_of(log, routes), vec![spec_of("all", "a", place.clone(), settings)], &|_| None).await.unwrap()
}

/// How long a destination is down.
const DOWN: Duration = Duration::from_mins(10);

/// How long each attempt takes of a destination that does so.
fn cost(answer: Answer) -> Duration {
    if answer == Answer::Hangs { DeliverySettings::default().timeout } else { Duration::ZERO }
}

/// Returns how many attempts there may be while a destination does so, by the settings alone.
fn expected(answer: Answer) -> RangeInclusive<usize> {
    let DeliverySettings { retry_initial, batch_wait_max, breaker, .. } = DeliverySettings::default();
    let BreakerSettings { consecutive_failures, open, .. } = breaker;
    // Until the breaker opens, each failure makes a pause below a ceiling that doubles.
    let until_open = cost(answer) * consecutive_failures;
    let pauses = retry_initial * (2u32.pow(consecutive_failures - 1) - 1);
    // Then there is one attempt each time it is over, which is a fifth shorter at most.
    let left = |before: Duration| DOWN.checked_sub(before).unwrap();
    let seldom = left(until_open + pauses + batch_wait_max).div_duration_f64(open + cost(answer)).floor();
    let often = left(until_open).div_duration_f64(open.mul_f64(0.8) + cost(answer)).ceil();
    consecutive_failures as usize + seldom as usize..=consecutive_failures as usize + often as usize
}

/// Lets a destination be down while events come, and be back. Returns when it was tried meanwhile, since the last time it
/// took something, and what was logged meanwhile and afterwards.
async fn outage(answer: Answer) -> (Vec<Duration>, [Vec<String>; 2]) {
    let dir = tempfile::tempdir().unwrap();
    let lines = Lines::default();
    let logged = logged_to(&lines, dir.path());
    let place = Told::to(Answer::Takes);
    let engine = engine(dir.path());
    let pipeline = add(&engine, &place, LogSettings::default(), DeliverySettings::default()).await;
    send(&pipeline, 0..10).await;
    place.store.until(|got| got.len() == 10).await;
    place.tell(answer);
    place.attempts.lock().unwrap().clear();
    lines.take();
    let begun = Instant::now();
    for minute in 1..=10 {
        send(&pipeline, minute * 10..minute * 10 + 10).await;
        time_goes_by(DOWN / 10).await;
    }
    let attempts = place.attempts.lock().unwrap().iter().map(|at| at.duration_since(begun)).collect();
    let during = lines.take();
    assert_eq!(of(&balanced(&pipeline).await, "a").held_events, 100, "{answer:?}");
    place.tell(Answer::Takes);
    // An attempt that hangs ends, and the breaker after it.
    time_goes_by(Duration::from_mins(1)).await;
    let mut got = place.store.until(|got| got.len() >= 110).await;
    let afterwards = lines.take();
    drop(logged);
    assert!(drain(&engine).await);
    got.sort_unstable();
    assert_eq!(got, numbers(0..110), "{answer:?}: each once");
    let report = balanced(&pipeline).await;
    assert_eq!((of(&report, "a").delivered_events, of(&report, "a").held_events), (110, 0), "{report:#?}");
    assert_eq!(place.store.len(), 110);
    (attempts, [during, afterwards])
}

/// What a receiver that is down does: 500, 401, 503, nobody there, silence.
const KINDS: [Answer; 5] = [
    Answer::Fails(FaultKind::Broken),
    Answer::Fails(FaultKind::Unauthorized),
    Answer::Fails(FaultKind::Throttled),
    Answer::Fails(FaultKind::Unreachable),
    Answer::Hangs,
];

#[tokio::test(start_paused = true)]
async fn a_receiver_down_for_minutes_is_tried_as_seldom_as_the_settings_say_and_gets_each_event_once() {
    assert_eq!((expected(KINDS[0]), expected(Answer::Hangs)), (24..=30, 12..=14));
    for answer in KINDS {
        let (attempts, _) = outage(answer).await;
        assert!(expected(answer).contains(&attempts.len()), "{answer:?}: {} attempts: {attempts:?}", attempts.len());
        let DeliverySettings { retry_initial, breaker, .. } = DeliverySettings::default();
        let opens_after = breaker.consecutive_failures as usize;
        for (index, pair) in attempts.windows(2).enumerate() {
            let pause = pair[1].checked_sub(pair[0] + cost(answer)).unwrap();
            let (least, most) = if index + 1 < opens_after {
                let ceiling = retry_initial * 2u32.pow(index as u32);
                (ceiling / 100, ceiling)
            } else {
                (breaker.open.mul_f64(0.8), breaker.open)
            };
            // Timers count in milliseconds.
            let most = most + Duration::from_millis(2);
            assert!(least <= pause && pause <= most, "{answer:?}: {pause:?} after attempt {index}: {attempts:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_receiver_down_for_minutes_is_told_when_that_begins_and_when_it_is_over_and_not_at_each_attempt() {
    for answer in KINDS {
        let (attempts, [during, afterwards]) = outage(answer).await;
        assert!(attempts.len() > 10);
        let began = [
            "WARN backend does not take events; holding them",
            "WARN circuit breaker opened; nothing is tried until then",
        ];
        assert_eq!(during, began, "{answer:?}");
        assert_eq!(afterwards, ["INFO backend takes events again"], "{answer:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_log_that_cannot_be_written_for_minutes_is_told_when_that_begins_and_when_it_is_over() {
    let dir = tempfile::tempdir().unwrap();
    let fs = FaultyFs::new(1);
    let lines = Lines::default();
    let _logged = logged_to(&lines, dir.path());
    let place = Told::to(Answer::Takes);
    let engine = engine_over(dir.path(), Arc::new(fs.clone()), Clock::manual(1));
    let pipeline = add(&engine, &place, LogSettings::default(), quick()).await;
    send(&pipeline, 0..10).await;
    place.store.until(|got| got.len() == 10).await;
    // What is to be saved of that is saved.
    time_goes_by(Duration::from_secs(10)).await;
    lines.take();
    let faults = fs.counts().faults;
    fs.set_faults(Faults { write: 1_000_000, ..Faults::default() });
    for _ in 0..120 {
        Intake.submit(std::slice::from_ref(&pipeline), batch(10..20)).await.unwrap_err();
        time_goes_by(Duration::from_secs(1)).await;
    }
    assert!(fs.counts().faults - faults > 100, "it is tried all the time: {} times", fs.counts().faults - faults);
    assert_eq!(
        lines.take(),
        ["ERROR log cannot be written; refusing until it can", "WARN log refuses new events"],
        "not one for each refusal, nor for each attempt"
    );
    fs.set_faults(Faults::default());
    time_goes_by(Duration::from_secs(10)).await;
    send(&pipeline, 20..30).await;
    place.store.until(|got| got.ends_with(&numbers(20..30))).await;
    assert_eq!(lines.take(), ["INFO log can be written again", "INFO log takes events again"]);
    assert!(drain(&engine).await);
    balanced(&pipeline).await;
}

#[tokio::test(start_paused = true)]
async fn a_log_that_is_full_for_minutes_is_told_when_that_begins_and_when_it_is_over() {
    let dir = tempfile::tempdir().unwrap();
    let lines = Lines::default();
    let _logged = logged_to(&lines, dir.path());
    let place = Told::to(Answer::Fails(FaultKind::Broken));
    let engine = engine(dir.path());
    let log = LogSettings { bytes_max: 1 << 20, ..LogSettings::default() };
    let pipeline = add(&engine, &place, log, DeliverySettings::default()).await;
    lines.take();
    let submit = async |first: u32| Intake.submit(std::slice::from_ref(&pipeline), batch(first..first + 1000)).await;
    let mut taken = 0;
    while submit(taken).await.is_ok() {
        taken += 1000;
        assert!(taken < 200_000, "the quota never came");
    }
    for _ in 0..120 {
        submit(taken).await.unwrap_err();
        time_goes_by(Duration::from_secs(1)).await;
    }
    let of_the_log = |lines: Vec<String>| lines.into_iter().filter(|line| line.contains(" log ")).collect::<Vec<_>>();
    assert_eq!(of_the_log(lines.take()), ["WARN log refuses new events"]);
    place.tell(Answer::Takes);
    // The breaker may be open.
    time_goes_by(Duration::from_mins(1)).await;
    place.store.until(|got| got.len() >= taken as usize).await;
    submit(taken).await.unwrap();
    assert_eq!(of_the_log(lines.take()), ["INFO log takes events again"]);
    assert!(drain(&engine).await);
    let mut got = place.store.all();
    got.sort_unstable();
    assert_eq!(got, numbers(0..taken + 1000));
}
