use proptest::prelude::*;

use super::*;

const OPEN: Duration = Duration::from_secs(30);

fn breaker(consecutive_failures: u32, failure_ratio_percent: u32) -> Breaker {
    let backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(60), 7);
    Breaker::new(BreakerSettings { consecutive_failures, failure_ratio_percent, open: OPEN }, backoff, true)
}

fn fail(breaker: &mut Breaker, now: Instant) -> Duration {
    breaker.begin();
    breaker.landed();
    breaker.failed(now, Blame::Destination, None)
}

fn succeed(breaker: &mut Breaker) {
    breaker.begin();
    breaker.landed();
    breaker.succeeded(Instant::now());
}

#[tokio::test(start_paused = true)]
async fn failures_in_a_row_open_it_and_one_probe_closes_it() {
    let mut breaker = breaker(5, 100);
    for failures in 1..5 {
        let wait = fail(&mut breaker, Instant::now());
        assert!(wait <= Duration::from_millis(200 << (failures - 1)), "full jitter within the ceiling");
        assert!(!breaker.permits(Instant::now()));
        tokio::time::advance(wait).await;
        assert!(breaker.permits(Instant::now()));
    }
    let wait = fail(&mut breaker, Instant::now());
    assert_eq!(breaker.state(), BreakerState::Open);
    assert!(wait <= OPEN && wait >= OPEN.mul_f64(1.0 - OPEN_JITTER), "{wait:?}");
    let opened = Instant::now();
    tokio::time::advance(wait.mul_f64(0.999)).await;
    assert!(!breaker.permits(Instant::now()) && breaker.wake_at(Instant::now()).is_some());
    tokio::time::advance((opened + wait).duration_since(Instant::now())).await;
    assert!(breaker.permits(Instant::now()) && breaker.wake_at(Instant::now()).is_none());
    breaker.begin();
    assert_eq!(breaker.state(), BreakerState::HalfOpen);
    assert!(!breaker.permits(Instant::now()), "one probe at a time");
    breaker.landed();
    breaker.succeeded(Instant::now());
    assert_eq!(breaker.state(), BreakerState::Closed);
    breaker.begin();
    assert!(breaker.permits(Instant::now()), "attempts flow");
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_fails_opens_it_for_its_time_again() {
    let mut breaker = breaker(1, 100);
    for _ in 0..3 {
        let wait = fail(&mut breaker, Instant::now());
        assert_eq!(breaker.state(), BreakerState::Open);
        tokio::time::advance(wait).await;
    }
    // An answer that says nothing of health (413) leaves it half-open, and the next may try.
    breaker.begin();
    breaker.landed();
    assert_eq!(breaker.state(), BreakerState::HalfOpen);
    assert!(breaker.permits(Instant::now()));
}

#[tokio::test(start_paused = true)]
async fn the_ratio_opens_it_without_a_row_and_not_before_its_samples() {
    let mut breaker = breaker(1000, 50);
    let mut attempts = 0;
    while breaker.state() == BreakerState::Closed {
        if attempts % 2 == 0 {
            succeed(&mut breaker);
        } else {
            fail(&mut breaker, Instant::now());
        }
        attempts += 1;
    }
    assert_eq!(attempts, WINDOW_ATTEMPTS_MIN);
}

#[tokio::test(start_paused = true)]
async fn what_was_under_way_when_it_opened_neither_closes_nor_prolongs_it() {
    let mut breaker = breaker(2, 100);
    (0..4).for_each(|_| breaker.begin());
    let now = Instant::now();
    breaker.landed();
    breaker.failed(now, Blame::Destination, None);
    breaker.landed();
    let wait = breaker.failed(now, Blame::Destination, None);
    breaker.landed();
    breaker.succeeded(Instant::now());
    assert_eq!(breaker.state(), BreakerState::Open);
    tokio::time::advance(wait).await;
    assert!(!breaker.permits(Instant::now()), "the last of them is still under way");
    breaker.landed();
    assert!(breaker.permits(Instant::now()));
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_honoured_in_every_state() {
    let asked = |secs| Some(Duration::from_secs(secs));
    let mut breaker = breaker(5, 100);
    let now = Instant::now();
    assert!(breaker.failed(now, Blame::Destination, asked(20)) >= Duration::from_secs(20));
    assert_eq!(breaker.state(), BreakerState::Closed);
    assert_eq!(breaker.failed(now, Blame::Destination, asked(90)), Duration::from_secs(90));
    assert_eq!(breaker.state(), BreakerState::Open, "longer than it would open: taken at its word");
    assert_eq!(breaker.failed(now, Blame::Destination, asked(120)), Duration::from_secs(120));
    assert_eq!(breaker.failed(now, Blame::Destination, Some(Duration::MAX)), RETRY_AFTER_MAX);
}

#[tokio::test(start_paused = true)]
async fn a_fault_of_this_machine_makes_a_short_pause_and_never_opens_it() {
    let mut breaker = breaker(1, 1);
    breaker.backoff = Backoff::new(Duration::from_mins(10), Duration::from_hours(1), 7);
    for _ in 0..64 {
        let wait = breaker.failed(Instant::now(), Blame::Local, None);
        assert!(wait <= LOCAL_PAUSE_MAX, "{wait:?}");
        assert!(!breaker.permits(Instant::now()));
        tokio::time::advance(wait).await;
    }
    assert_eq!(breaker.state(), BreakerState::Closed);
    assert!(breaker.permits(Instant::now()));
}

#[derive(Debug, Clone, Copy)]
enum Act {
    Wait(u64),
    Begin,
    Succeed,
    Fail(Option<u64>),
    Neutral,
    Local,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        3 => (0..40_000u64).prop_map(Act::Wait),
        5 => Just(Act::Begin),
        2 => Just(Act::Succeed),
        3 => proptest::option::of(0..100u64).prop_map(Act::Fail),
        1 => Just(Act::Neutral),
        1 => Just(Act::Local),
    ];
    proptest::collection::vec(act, 1..200)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Whatever comes: an open breaker lets nothing through before its time, half-open at most one, and it never gets stuck.
    #[test]
    fn no_order_of_events_breaks_the_rules(acts in acts(), row in 1..8u32, percent in 1..=100u32) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let _inside = runtime.enter();
        let mut breaker = breaker(row, percent);
        let (mut now, mut under_way, mut open_until) = (Instant::now(), 0usize, None::<Instant>);
        for act in acts {
            match act {
                Act::Wait(millis) => now += Duration::from_millis(millis),
                Act::Begin if !breaker.permits(now) => {
                    prop_assert!(under_way > 0 || breaker.wake_at(now).is_some(), "stuck: {breaker:?}");
                }
                Act::Begin => {
                    prop_assert!(open_until.is_none_or(|until| until <= now));
                    breaker.begin();
                    under_way += 1;
                    if breaker.state() == BreakerState::HalfOpen {
                        prop_assert_eq!(under_way, 1);
                    }
                }
                Act::Local => drop(breaker.failed(now, Blame::Local, None)),
                Act::Succeed | Act::Fail(_) | Act::Neutral if under_way == 0 => {}
                Act::Succeed | Act::Fail(_) | Act::Neutral => {
                    under_way -= 1;
                    breaker.landed();
                    match act {
                        Act::Succeed => breaker.succeeded(now),
                        Act::Fail(secs) => {
                            let wait = breaker.failed(now, Blame::Destination, secs.map(Duration::from_secs));
                            prop_assert!(wait >= secs.map(Duration::from_secs).unwrap_or_default());
                            if breaker.state() == BreakerState::Open {
                                open_until = open_until.max(Some(now + wait));
                            }
                        }
                        _ => {}
                    }
                }
            }
        }
        // Left alone, it lets one through in the end.
        (0..under_way).for_each(|_| breaker.landed());
        now += RETRY_AFTER_MAX;
        prop_assert!(breaker.permits(now));
    }
}
