//! `Sample`, `RateLimit` and `Deduplicate` against a plain reference: batches that come, are kept or refused, at times that go on.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::select;
use spillway_delivery::condition::{Condition, Expression};
use spillway_delivery::transform::{
    Action, Chain, Counts, Deduplicate, Failure, Looks, OnError, RateLimit, Sample, Shaped, Transform,
};
use tokio::time::Instant;

use super::{Tree, batch, chain, drop_when, origin, paths_of, run, set, texts, transforms};

const VALUES: [&str; 14] = [
    "\"x\"",
    "\"\\u0078\"",
    "\"x\"",
    "7",
    "7.0",
    "\"7\"",
    "true",
    "null",
    "\"\"",
    "[1,\"x\"]",
    "{\"b\":1}",
    "{}",
    "1e400",
    "18446744073709551616",
];

/// A batch that comes.
#[derive(Debug, Clone)]
struct Comes {
    /// How long after the one before.
    milliseconds: u64,
    events: Vec<String>,
    is_kept: bool,
}

fn comes() -> impl Strategy<Value = Comes> {
    let value = || prop::option::weighted(0.8, select(VALUES.to_vec()));
    let event = (value(), value(), prop::bool::ANY).prop_map(|(a, b, twice)| {
        let mut members: Vec<String> = a.map(|a| format!("\"a\":{a}")).into_iter().collect();
        if twice {
            members.insert(0, "\"\\u0061\":\"hidden\"".into());
        }
        members.extend(b.map(|b| format!("\"b\" : {b}")));
        format!("{{{}}}", members.join(","))
    });
    let milliseconds = prop_oneof![2 => Just(0), 2 => 1..1500_u64, 1 => Just(10_000)];
    (milliseconds, prop::collection::vec(event, 1..8), prop::bool::weighted(0.8))
        .prop_map(|(milliseconds, events, is_kept)| Comes { milliseconds, events, is_kept })
}

/// The values of fields.
type Key = Vec<Option<Tree>>;

/// What a window knows, by the reference.
#[derive(Debug, Default)]
struct Known {
    /// With the time.
    kept: Vec<(Key, u64)>,
    /// Of the batch under way.
    batch: Vec<Key>,
}

/// Runs batches; returns for each what passed. `verdict` is what the reference says of an event at a time, `end` is told whether
/// the batch was kept.
fn check(
    action: Action,
    all: &[Comes],
    mut verdict: impl FnMut(&Tree, u64) -> Result<bool, Failure>,
    mut end: impl FnMut(bool, u64),
) {
    let chain = chain([action]);
    let (start, mut milliseconds, mut expected_counts) = (Instant::now(), 0, Counts::default());
    for Comes { milliseconds: later, events, is_kept } in all {
        milliseconds += later;
        let now = start + Duration::from_millis(milliseconds);
        let mut counts = Counts::default();
        let mut expected = Vec::new();
        for event in events {
            counts.events += 1;
            match verdict(&Tree::read(event), milliseconds) {
                Ok(true) => expected.push(event.clone()),
                Ok(false) => counts.dropped += 1,
                Err(failure) => {
                    counts.failed[failure as usize] += 1;
                    expected.push(event.clone());
                }
            }
        }
        let Shaped { batch: shaped, dropped, counts: counted, effects } =
            chain.shape_at(&batch(events), &origin(), now);
        assert_eq!(texts(&shaped), expected, "{events:?} at {milliseconds}");
        assert_eq!((counted[0], u64::from(dropped)), (counts, counts.dropped));
        end(*is_kept, milliseconds);
        if *is_kept {
            chain.kept(&counted, effects);
            expected_counts.events += counts.events;
            expected_counts.dropped += counts.dropped;
            expected_counts.failed.iter_mut().zip(counts.failed).for_each(|(sum, count)| *sum += count);
        }
    }
    assert_eq!(chain.counted().next().unwrap().1, expected_counts, "what was refused counts for nothing");
}

fn looks(key: Option<&str>) -> Looks {
    Looks { key: key.map(|key| Expression::compile(key).unwrap()), ..Looks::default() }
}

fn names(path: &[&str]) -> Vec<String> {
    path.iter().map(|key| (*key).to_owned()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn duplicates_of_what_was_kept_are_dropped_for_the_window(all in prop::collection::vec(comes(), 1..12)) {
        let deduplicate = Deduplicate {
            looks: looks(None),
            fields: paths_of(&["a", "b"]),
            window: Duration::from_secs(2),
            keys_max: 10_000,
        };
        let known = RefCell::new(Known::default());
        check(
            Action::Deduplicate(deduplicate),
            &all,
            |event, now| {
                let key: Key = ["a", "b"].iter().map(|key| event.get(&names(&[key])).ok().cloned()).collect();
                if key.iter().all(Option::is_none) {
                    return Err(Failure::Absent);
                }
                let Known { kept, batch } = &mut *known.borrow_mut();
                let is_known = batch.contains(&key) || kept.iter().any(|(one, at)| *one == key && now < at + 2000);
                if !is_known {
                    batch.push(key);
                }
                Ok(!is_known)
            },
            |is_kept, now| {
                let Known { kept, batch } = &mut *known.borrow_mut();
                let batch = std::mem::take(batch);
                if is_kept {
                    kept.extend(batch.into_iter().map(|key| (key, now)));
                }
            },
        );
    }

    #[test]
    fn a_limit_passes_what_a_bucket_of_each_key_has(all in prop::collection::vec(comes(), 1..12), keyed in prop::bool::ANY) {
        let key = keyed.then_some("event.a");
        let limit = RateLimit { looks: looks(key), events_per_second: 2, burst_events: 3, keys_max: 10_000 };
        // By key its level in thousandths, and since when; what the batch took of it.
        let buckets = RefCell::new(BTreeMap::<String, (u64, u64, u64)>::new());
        check(
            Action::RateLimit(limit),
            &all,
            |event, now| {
                let key = if keyed { format!("{:?}", event.get(&names(&["a"]))?) } else { String::new() };
                let mut buckets = buckets.borrow_mut();
                let (level, at, taken) = buckets.entry(key).or_insert((3000, now, 0));
                *level = (*level + (now - *at) * 2).min(3000);
                *at = now;
                let passes = *level >= 1000;
                if passes {
                    *level -= 1000;
                    *taken += 1000;
                }
                Ok(passes)
            },
            |is_kept, _| {
                for (level, _, taken) in buckets.borrow_mut().values_mut() {
                    if !is_kept {
                        *level = (*level + *taken).min(3000);
                    }
                    *taken = 0;
                }
            },
        );
    }

    #[test]
    fn of_a_sample_all_of_one_key_go_the_same_way(all in prop::collection::vec(comes(), 1..12), keep in 1..4_u32) {
        let sample = Sample { looks: looks(Some("event.b")), keep, out_of: 4 };
        let mut verdicts: BTreeMap<String, bool> = BTreeMap::new();
        let (one, other) = (chain([Action::Sample(sample.clone())]), chain([Action::Sample(Sample { keep: 4, ..sample })]));
        for event in all.iter().flat_map(|comes| &comes.events) {
            prop_assert!(other.apply(event.as_bytes(), &origin()).is_some(), "four of four are all");
            let passes = one.apply(event.as_bytes(), &origin()).is_some();
            match Tree::read(event).get(&names(&["b"])) {
                Ok(key) => prop_assert_eq!(*verdicts.entry(format!("{key:?}")).or_insert(passes), passes),
                Err(_) => prop_assert!(passes),
            }
        }
    }
}

fn deduplicate(fields: &[&str], keys_max: u32) -> Deduplicate {
    Deduplicate { looks: Looks::default(), fields: paths_of(fields), window: Duration::from_secs(60), keys_max }
}

fn limit(events_per_second: u32, key: Option<&str>, keys_max: u32) -> RateLimit {
    RateLimit { looks: looks(key), events_per_second, burst_events: events_per_second, keys_max }
}

/// Sends events as one batch that is kept; returns how many passed.
fn send(chain: &Chain, now: Instant, events: &[String]) -> usize {
    let Shaped { batch, counts, effects, .. } = chain.shape_at(&super::batch(events), &origin(), now);
    chain.kept(&counts, effects);
    batch.len()
}

fn counted(chain: &Chain) -> Counts {
    chain.counted().next().unwrap().1
}

fn numbered(numbers: std::ops::Range<u32>) -> Vec<String> {
    numbers.map(|number| format!("{{\"a\":{number}}}")).collect()
}

#[test]
fn without_a_key_events_take_turns() {
    for (keep, out_of, expected) in [(1, 4, 250), (3, 4, 750), (2, 3, 667), (7, 1000, 7), (1, 1, 1000)] {
        let chain = chain([Action::Sample(Sample { looks: Looks::default(), keep, out_of })]);
        assert_eq!(send(&chain, Instant::now(), &numbered(0..1)), 1, "the first one passes");
        assert_eq!(1 + send(&chain, Instant::now(), &numbered(1..1000)), expected, "{keep} of {out_of}");
    }
}

#[test]
fn by_key_about_as_many_pass_as_told_and_more_for_a_larger_part() {
    let passed = |keep: u32| -> BTreeSet<String> {
        let chain = chain([Action::Sample(Sample { looks: looks(Some("event.a")), keep, out_of: 100 })]);
        let shaped = chain.shape(&batch(&numbered(0..10_000)), &origin());
        texts(&shaped.batch).into_iter().collect()
    };
    let (few, many) = (passed(10), passed(50));
    assert!((850..1150).contains(&few.len()) && (4800..5200).contains(&many.len()), "{} {}", few.len(), many.len());
    assert!(few.is_subset(&many));
}

#[test]
fn only_events_for_which_the_condition_holds_are_looked_at() {
    let when = Some(Condition::compile("event.level == \"debug\"").unwrap());
    let sample = Sample { looks: Looks { when, ..Looks::default() }, keep: 1, out_of: 1000 };
    let chain = chain([Action::Sample(sample)]);
    let events =
        [r#"{"level":"debug"}"#, r#"{"level":"info"}"#, r#"{"level":"debug"}"#, r#"{"n":1}"#].map(str::to_owned);
    assert_eq!(send(&chain, Instant::now(), &events), 3);
    let expected = Counts { events: 4, dropped: 1, failed: [1, 0, 0, 0, 0, 0, 0], ..Counts::default() };
    assert_eq!(counted(&chain), expected);
}

#[test]
fn an_event_without_a_key_goes_on_or_is_dropped_as_told() {
    for (on_error, passed) in [(OnError::Keep, 1), (OnError::Drop, 0)] {
        let looks = |key: Option<&str>| Looks { on_error, ..looks(key) };
        for action in [
            Action::Sample(Sample { looks: looks(Some("event.k")), keep: 1, out_of: 1 }),
            Action::RateLimit(RateLimit { looks: looks(Some("event.k")), ..limit(9, None, 9) }),
            Action::Deduplicate(Deduplicate { looks: looks(None), ..deduplicate(&["k", "l"], 9) }),
            Action::Deduplicate(Deduplicate { looks: looks(Some("event.k")), ..deduplicate(&["a"], 9) }),
        ] {
            let (events, counts) = run([action], r#"{"a":1}"#);
            assert_eq!((events.len(), counts[0].dropped as usize), (passed, 1 - passed));
            assert_eq!(counts[0].failed, [1, 0, 0, 0, 0, 0, 0]);
        }
    }
    let (_, counts) = run([Action::Deduplicate(deduplicate(&["a.b"], 9))], r#"{"a":1}"#);
    assert_eq!(counts[0].failed[Failure::TypeMismatch as usize], 1);
}

#[test]
fn keys_beyond_the_limit_share_a_bucket_and_are_counted() {
    let chain = chain([Action::RateLimit(limit(2, Some("event.a"), 3))]);
    let now = Instant::now();
    assert_eq!(send(&chain, now, &numbered(0..10)), 3 + 2);
    let expected = Counts { events: 10, dropped: 5, failed: [0, 0, 0, 0, 0, 7, 0], ..Counts::default() };
    assert_eq!(counted(&chain), expected);
}

#[test]
fn the_oldest_event_is_forgotten_where_there_are_too_many_and_counted() {
    let chain = chain([Action::Deduplicate(deduplicate(&["a"], 3))]);
    let now = Instant::now();
    for number in 0..4 {
        assert_eq!(send(&chain, now, &numbered(number..number + 1)), 1);
    }
    assert_eq!(counted(&chain).failed[Failure::TooManyKeys as usize], 1);
    assert_eq!(send(&chain, now, &numbered(1..4)), 0);
    assert_eq!(send(&chain, now, &numbered(0..1)), 1, "it was forgotten");
    let in_one = super::chain([Action::Deduplicate(deduplicate(&["a"], 3))]);
    assert_eq!(send(&in_one, now, &numbered(0..10)), 10);
    assert_eq!(counted(&in_one).failed[Failure::TooManyKeys as usize], 7, "of one batch, too");
}

#[test]
fn what_is_refused_leaves_no_trace() {
    let now = Instant::now();
    for action in [Action::Deduplicate(deduplicate(&["a"], 9)), Action::RateLimit(limit(4, None, 9))] {
        let chain = chain([action]);
        for _ in 0..3 {
            let shaped = chain.shape_at(&batch(&numbered(0..4)), &origin(), now);
            assert_eq!(shaped.batch.len(), 4, "refused, and sent again");
        }
        assert_eq!(send(&chain, now, &numbered(0..4)), 4);
        assert_eq!(send(&chain, now, &numbered(0..4)), 0);
    }
    // Nor of the turns: whoever is refused each time and comes again would else never be kept.
    let halves = chain([Action::Sample(Sample { looks: Looks::default(), keep: 1, out_of: 2 })]);
    let kept = (0..4).map(|number| {
        let events = numbered(number..number + 1);
        drop(halves.shape_at(&batch(&events), &origin(), now));
        send(&halves, now, &events)
    });
    assert_eq!(kept.collect::<Vec<_>>(), [1, 0, 1, 0]);
}

#[test]
fn what_a_transform_behind_drops_is_no_event_that_another_is_a_duplicate_of() {
    let now = Instant::now();
    let chain = chain([Action::Deduplicate(deduplicate(&["a"], 9)), Action::RateLimit(limit(2, None, 9))]);
    assert_eq!(send(&chain, now, &numbered(0..4)), 2);
    let later = now + Duration::from_secs(2);
    assert_eq!(send(&chain, later, &numbered(0..4)), 2, "those that were one too many then");
    assert_eq!(send(&chain, later + Duration::from_secs(1), &numbered(0..4)), 0);
}

#[test]
fn batches_on_their_way_at_once_share_the_bucket_and_lose_no_event() {
    let now = Instant::now();
    let limited = chain([Action::RateLimit(limit(4, None, 9))]);
    let first = limited.shape_at(&batch(&numbered(0..4)), &origin(), now);
    let second = limited.shape_at(&batch(&numbered(0..4)), &origin(), now);
    assert_eq!((first.batch.len(), second.batch.len()), (4, 0));
    // Neither may be taken for a duplicate of the other: either may be refused.
    let once = chain([Action::Deduplicate(deduplicate(&["a"], 9))]);
    let first = once.shape_at(&batch(&numbered(0..4)), &origin(), now);
    let second = once.shape_at(&batch(&numbered(0..4)), &origin(), now);
    assert_eq!((first.batch.len(), second.batch.len()), (4, 4));
    once.kept(&first.counts, first.effects);
    once.kept(&second.counts, second.effects);
    assert_eq!(send(&once, now, &numbered(0..4)), 0);
    assert_eq!(counted(&once).failed, [0; 7]);
}

#[test]
fn a_time_before_the_last_one_does_no_harm() {
    let now = Instant::now();
    let later = now + Duration::from_secs(30);
    let once = chain([Action::Deduplicate(deduplicate(&["a"], 9))]);
    assert_eq!((send(&once, later, &numbered(0..1)), send(&once, now, &numbered(0..1))), (1, 0));
    let limited = chain([Action::RateLimit(limit(1, None, 9))]);
    assert_eq!((send(&limited, later, &numbered(0..9)), send(&limited, now, &numbered(0..9))), (1, 0));
}

#[test]
fn an_edit_leaves_what_the_same_transform_remembers() {
    let now = Instant::now();
    let once = || Action::Deduplicate(deduplicate(&["a"], 9));
    let limited = || Action::RateLimit(limit(3, Some("event.a"), 9));
    let before = Chain::new(&transforms([once(), limited()]));
    assert_eq!(send(&before, now, &numbered(0..1)), 1);
    // The first one stays, also beside new neighbours; what is on its way through the old chain counts in the new one.
    let after = before.next(&transforms([once(), set(&[("s", "x")]), drop_when("event.never")]));
    assert_eq!(send(&after, now, &numbered(0..1)), 0);
    assert_eq!(send(&before, now, &numbered(5..6)), 1);
    assert_eq!(send(&after, now, &numbered(5..6)), 0);
    assert_eq!(counted(&after).events, 4, "counters go on, too");
    // Told something else, it begins anew.
    let other = after.next(&transforms([Action::Deduplicate(deduplicate(&["a"], 10))]));
    assert_eq!(send(&other, now, &numbered(0..1)), 1);
    let renamed: Vec<Transform> =
        transforms([once()]).into_iter().map(|one| Transform { name: "other".into(), ..one }).collect();
    assert_eq!(send(&before.next(&renamed), now, &numbered(0..1)), 1);
}
