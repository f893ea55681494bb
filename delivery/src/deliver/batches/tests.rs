use super::*;
use crate::clock::Clock;
use crate::event::{BatchBuilder, EVENT_BYTES_MAX};
use crate::filesystem::FaultyFs;
use crate::log::{LogOptions, Masks, Pending};
use crate::settings::LogSettings;
use crate::supervisor::Supervisor;

fn names(tag: &str) -> Names {
    Names { namespace: "ns".into(), pipeline: "p".into(), route: "r".into(), letters: None, tag: tag.into() }
}

/// A log with an event for the route, and behind it as many as there are `others` of the largest for another one.
async fn log(owner: &Supervisor, others: usize) -> Log {
    let options = LogOptions {
        dir: "/log".into(),
        filesystem: Arc::new(FaultyFs::new(1)),
        clock: Clock::manual(1),
        settings: LogSettings::default(),
        routes: vec!["r".into(), "other".into()],
        free_bytes_min: 0,
    };
    let log = Log::open(options, owner, 1).unwrap();
    for number in 0..=others {
        let mut builder = BatchBuilder::default();
        builder.push(format!("{{\"a\":\"{}\"}}", "x".repeat(EVENT_BYTES_MAX - 10)).as_bytes());
        let (batch, masks) = (builder.build(Arc::default(), 1), Masks::Uniform(if number == 0 { 1 } else { 2 }));
        let pending = Pending { batch, masks, unrouted: 0, dropped: 0 };
        log.enqueue(log.reserve(pending.disk_bytes()).unwrap(), pending, None).wait().await.unwrap();
    }
    log
}

#[tokio::test]
async fn who_looks_at_much_comes_back_in_between() {
    let others = 3 * SCAN_BYTES_MAX / EVENT_BYTES_MAX;
    let owner = Supervisor::new("log");
    let log = log(&owner, others).await;
    let mut former = Former::new(names(""), &log, 1, u64::MAX);
    let (bounds, progress) = (Bounds { bytes: 1 << 30, events: 1000, now: false }, Progress::default());
    let hour = Duration::from_hours(1);
    let mut rounds = 0;
    while former.has_more() {
        assert!(matches!(former.form(bounds, hour, &progress).await.unwrap(), Formed::Wait));
        rounds += 1;
    }
    assert!((3..=4).contains(&rounds), "{rounds}");
    let Formed::Batch(formed) = former.form(Bounds { now: true, ..bounds }, hour, &progress).await.unwrap() else {
        panic!("there is one");
    };
    let (work, batch) = *formed;
    assert_eq!((work.first, work.end, batch.len()), (1, 2 + others as u64, 1));
    former.rewind(2);
    let Formed::Nothing(first, end) = former.form(bounds, hour, &progress).await.unwrap() else {
        panic!("there is none");
    };
    assert!(first == 2 && end < 2 + others as u64 && former.has_more(), "{first} to {end}");
}

#[test]
fn a_kept_batch_is_sent_while_all_of_it_is_wanted_under_the_key_it_has() {
    let kept = |key: &str| {
        let mut builder = OutBatchBuilder::new(&"ns".into(), &"p".into(), &"r".into());
        builder.begin_chunk(bytes::Bytes::from_static(b"{}"), Arc::default(), 1, 0);
        builder.push(7, 0, 2);
        let share = super::super::budget::Budget::new().keep(2).unwrap();
        let kept = Kept { batch: builder.build(key), members: vec![7], _share: share };
        Work { kept: Some(Box::new(kept)), ..Work::again(5, 9, "k".into()) }
    };
    let mut progress = Progress { cursor: 5, ..Progress::default() };
    let mut work = kept("k");
    assert_eq!(work.take_kept(&progress).map(|batch| batch.len()), Some(1));
    assert_eq!((work.members.as_slice(), work.kept.is_none()), (&[7][..], true));
    assert!(kept("other").take_kept(&progress).is_none());
    progress.resolve(7, 8);
    assert!(kept("k").take_kept(&progress).is_none());
}

#[test]
fn what_is_left_of_a_batch_and_filled_up_has_another_key() {
    let whole: Vec<u64> = (1..=10).collect();
    let left_and_next: Vec<u64> = [1].into_iter().chain(11..=19).collect();
    assert_eq!(whole.len(), left_and_next.len());
    assert_ne!(key_of(&names(""), 7, &whole), key_of(&names(""), 7, &left_and_next));
    assert_ne!(key_of(&names(""), 7, &whole), key_of(&names("-job-1"), 7, &whole));
}
