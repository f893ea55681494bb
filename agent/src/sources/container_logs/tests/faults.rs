//! Rotation, truncation, deletion and restarts, one by one.

use std::fs::{self, OpenOptions};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use spillway_crds::Reach;

use super::super::StartAt;
use super::world::{POD, World, cri, everything};
use crate::sources::tail::file::Links;
use crate::sources::tail::run::Tails;

fn line(at: u64) -> Vec<u8> {
    cri(at, "stdout", "F", &format!("line {at}"))
}

fn lines(range: std::ops::Range<u64>) -> Vec<u8> {
    range.flat_map(line).collect()
}

fn texts(range: std::ops::Range<u64>) -> Vec<String> {
    range.map(|at| format!("line {at}")).collect()
}

#[test]
fn a_file_is_finished_before_its_successor_is_begun() {
    let mut world = World::new(vec![everything(0)]);
    world.write("main", "0.log", &lines(0..10));
    world.tailer.scan(world.now);
    world.rename("main", "0.log", "0.log.20260101-010101");
    world.write("main", "0.log", &lines(20..30));
    world.tailer.scan(world.now);
    world.take_all();
    assert_eq!(world.logs[0].messages("main"), texts(0..10));
    // The runtime lets go of the old file a moment after it made the new one.
    world.write("main", "0.log.20260101-010101", &lines(10..20));
    world.settle();
    assert_eq!(world.logs[0].messages("main"), texts(0..30));
    assert_eq!(world.stats.rotated.load(Ordering::Relaxed), 1);
    assert_eq!(world.stats.open_files.load(Ordering::Relaxed), 1);
}

#[test]
fn a_file_and_its_gz_are_one_over_a_restart() {
    let mut world = World::new(vec![everything(0)]);
    world.write("main", "0.log", &lines(0..10));
    world.settle();
    world.write("main", "0.log", &lines(10..20));
    world.restart();
    for (at, stamp) in [(20, "20260101-010101"), (30, "20260101-020202"), (40, "20260101-030303")] {
        world.rename("main", "0.log", &format!("0.log.{stamp}"));
        world.compress("main", &format!("0.log.{stamp}"));
        world.remove("main", &format!("0.log.{stamp}"));
        world.write("main", "0.log", &lines(at..at + 10));
    }
    world.settle();
    world.restart();
    world.settle();
    assert_eq!(world.logs[0].messages("main"), texts(0..50));
}

#[test]
fn rotated_files_with_stamps_from_a_clock_that_stepped_back_are_read() {
    let mut world = World::new(vec![everything(0)]);
    world.write("main", "0.log", &lines(0..10));
    world.rename("main", "0.log", "0.log.20260101-090000");
    world.write("main", "0.log", &lines(10..20));
    world.settle();
    world.restart();
    world.rename("main", "0.log", "0.log.20260101-080000");
    world.write("main", "0.log", &lines(20..30));
    world.settle();
    assert_eq!(world.logs[0].messages("main"), texts(0..30));
}

#[test]
fn a_truncated_file_is_begun_anew() {
    let mut world = World::new(vec![everything(0)]);
    world.write("main", "0.log", &lines(0..10));
    world.settle();
    for (range, restarts) in [(10..12, false), (12..30, true), (30..31, true)] {
        OpenOptions::new().write(true).truncate(true).open(world.path("main", "0.log")).unwrap();
        if restarts {
            world.restart();
        }
        world.write("main", "0.log", &lines(range));
        world.settle();
    }
    assert_eq!(world.logs[0].messages("main"), texts(0..31));
}

#[test]
fn a_copy_made_before_a_truncation_is_not_read_twice() {
    let mut world = World::new(vec![everything(0)]);
    world.write("main", "0.log", &lines(0..10));
    world.settle();
    fs::copy(world.path("main", "0.log"), world.path("main", "0.log.20260101-010101")).unwrap();
    world.settle();
    OpenOptions::new().write(true).truncate(true).open(world.path("main", "0.log")).unwrap();
    world.write("main", "0.log", &lines(10..20));
    world.settle();
    world.restart();
    world.settle();
    assert_eq!(world.logs[0].messages("main"), texts(0..20));
}

#[test]
fn a_file_that_lost_its_tail_goes_on_from_its_end() {
    for restarts in [false, true] {
        let mut world = World::new(vec![everything(0)]);
        world.write("main", "0.log", &lines(0..100));
        world.settle();
        if restarts {
            world.restart();
        }
        let kept = lines(0..60).len() as u64;
        let file = OpenOptions::new().write(true).open(world.path("main", "0.log")).unwrap();
        file.set_len(kept).unwrap();
        world.settle();
        world.write("main", "0.log", &lines(100..110));
        world.settle();
        assert_eq!(world.logs[0].messages("main"), texts(0..110));
        let lost = world.stats.lost_tail_bytes.load(Ordering::Relaxed);
        assert_eq!(lost, lines(60..100).len() as u64, "restarts: {restarts}");
    }
}

#[test]
fn a_deleted_pod_is_drained_and_then_forgotten() {
    let mut world = World::new(vec![everything(0)]);
    world.write("main", "0.log", &lines(0..10));
    world.tailer.scan(world.now);
    world.write("main", "0.log", b"2026-01-01T01:01:01.000000001Z stdout F unfinished");
    fs::remove_dir_all(world.root.path().join(POD)).unwrap();
    world.settle();
    let mut expected = texts(0..10);
    expected.push("unfinished".into());
    assert_eq!(world.logs[0].messages("main"), expected);
    assert_eq!(world.logs[0].positions.len(), 1, "only the marker stays");
    assert_eq!(world.stats.open_files.load(Ordering::Relaxed), 0);
    assert_eq!(world.stats.units.load(Ordering::Relaxed), 0);
}

#[test]
fn a_pod_deleted_while_the_agent_was_away_is_forgotten() {
    let mut world = World::new(vec![everything(0)]);
    world.write("main", "0.log", &lines(0..10));
    world.settle();
    assert_eq!(world.logs[0].positions.len(), 2);
    fs::remove_dir_all(world.root.path().join(POD)).unwrap();
    // Some pod is there: what the root is to show is mounted.
    fs::create_dir(world.root.path().join("fab12_other-0_77")).unwrap();
    world.restart();
    world.settle();
    assert_eq!(world.logs[0].positions.len(), 1);
}

#[test]
fn a_root_that_cannot_be_listed_forgets_nothing() {
    let mut world = World::new(vec![everything(0)]);
    world.write("main", "0.log", &lines(0..10));
    world.settle();
    let root = world.root.path().to_owned();
    let away = root.with_extension("away");
    fs::rename(&root, &away).unwrap();
    world.restart();
    world.settle();
    fs::rename(&away, &root).unwrap();
    world.write("main", "0.log", &lines(10..20));
    world.settle();
    assert_eq!(world.logs[0].messages("main"), texts(0..20));
}

#[test]
fn what_is_deleted_while_too_many_files_are_held_is_counted() {
    let mut world = World::new(vec![everything(0)]);
    world.settings.held_files_max = 0;
    world.restart();
    world.write("main", "0.log", &lines(0..10));
    world.settle();
    world.write("main", "0.log", &lines(10..20));
    world.tailer.scan(world.now);
    fs::remove_dir_all(world.directory("main")).unwrap();
    world.settle();
    assert_eq!(world.logs[0].messages("main"), texts(0..10));
    assert_eq!(world.stats.missed_bytes.load(Ordering::Relaxed), lines(10..20).len() as u64);
}

#[test]
fn start_at_end_leaves_what_was_there_and_nothing_else() {
    let want = || {
        let mut want = everything(0);
        want.start_at = StartAt::End;
        want
    };
    let mut world = World::new(vec![want()]);
    world.write("main", "0.log.20260101-010101", &lines(0..10));
    world.write("main", "0.log", &lines(10..20));
    world.settle();
    world.restart();
    world.write("main", "0.log", &lines(20..30));
    world.write("late", "0.log", &lines(0..5));
    world.settle();
    world.write("later", "0.log", &lines(0..5));
    world.settle();
    assert_eq!(world.logs[0].messages("main"), texts(20..30));
    assert_eq!(world.logs[0].messages("late"), texts(0..5));
    assert_eq!(world.logs[0].messages("later"), texts(0..5));
}

#[test]
fn a_pipeline_that_takes_nothing_holds_up_nobody() {
    let mut world = World::new(vec![everything(0), everything(1)]);
    let mut held = Vec::new();
    for at in 0..50 {
        world.write("main", "0.log", &line(at));
        world.write("side", "0.log", &line(at));
        world.tailer.scan(world.now);
        while let Some(outgoing) = world.tailer.poll(world.now) {
            if outgoing.ticket.pipeline == 0 { held.push(outgoing) } else { world.keep(&outgoing) }
        }
    }
    assert_eq!(world.logs[1].messages("main"), texts(0..50));
    assert!(held.len() <= crate::sources::tail::IN_FLIGHT_MAX);
    world.refused = held;
    world.settle();
    assert_eq!(world.logs[0].messages("main"), texts(0..50));
    assert_eq!(world.logs[0].messages("side"), texts(0..50));
}

#[test]
fn only_wanted_containers_are_read() {
    let mut want = everything(0);
    want.namespaces = Reach::of("fab12");
    want.containers = vec!["main".into()];
    let mut world = World::new(vec![want]);
    world.write("main", "0.log", &lines(0..3));
    world.write("side", "0.log", &lines(0..3));
    let other = world.root.path().join("other_pod_1/main");
    fs::create_dir_all(&other).unwrap();
    fs::write(other.join("0.log"), lines(0..3)).unwrap();
    world.tailer.scan(world.now);
    let first =
        std::iter::from_fn(|| world.tailer.poll(world.now)).find(|outgoing| !outgoing.batch.is_empty()).unwrap();
    assert_eq!(first.batch.origin.fields().pod.as_deref(), Some("etch-0"));
    world.keep(&first);
    world.settle();
    assert_eq!(world.logs[0].events.len(), 3);
}

#[test]
fn links_and_pipes_are_refused_unless_told_to_follow() {
    let mut world = World::new(vec![everything(0)]);
    let secret = world.root.path().join("secret");
    fs::write(&secret, lines(0..3)).unwrap();
    fs::create_dir_all(world.directory("main")).unwrap();
    std::os::unix::fs::symlink(&secret, world.path("main", "0.log")).unwrap();
    let pipe = world.path("main", "1.log");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
    world.settle();
    assert!(world.logs[0].events.is_empty());
    assert_eq!(world.stats.refused_entries.load(Ordering::Relaxed), 2);
    world.settings.links = Links::Follow;
    world.restart();
    world.settle();
    assert_eq!(world.logs[0].messages("main"), texts(0..3));
}

#[test]
fn a_damaged_gz_gives_what_is_readable_and_holds_nothing_up() {
    let mut world = World::new(vec![everything(0)]);
    world.write("main", "0.log.20260101-010101", &lines(0..20_000));
    world.compress("main", "0.log.20260101-010101");
    world.remove("main", "0.log.20260101-010101");
    let path = world.path("main", "0.log.20260101-010101.gz");
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    world.write("main", "0.log", &lines(90_000..90_001));
    world.settle();
    let messages = world.logs[0].messages("main");
    assert_eq!(messages[..1000], texts(0..1000));
    assert_eq!(messages.last().map(String::as_str), Some("line 90000"));
    // Met once or twice: a turn that has lines gives them first and meets the same place again.
    let read_errors = world.stats.read_errors.load(Ordering::Relaxed);
    assert!((1..=2).contains(&read_errors), "{read_errors}");
}

#[tokio::test]
async fn events_of_the_kernel_find_new_pods_and_lines_without_a_scan() {
    let mut world = World::new(vec![everything(0)]);
    let hints = world.tailer.attach().unwrap();
    world.tailer.scan(world.now);
    let mut at = 0;
    // Twice before a write is fast enough to be left to the timer, often enough after it.
    for _ in 0..20 {
        world.write("main", "0.log", &line(at));
        at += 1;
        while world.logs[0].messages("main").len() < at as usize {
            if world.tailer.is_timed() {
                world.tailer.tick(world.now);
            } else {
                hints.readable().await.unwrap().clear_ready();
            }
            world.tailer.take_hints(world.now);
            world.take_all();
        }
    }
    assert!(world.tailer.is_timed());
    for _ in 0..20 {
        world.tailer.tick(world.now);
        world.take_all();
    }
    assert!(!world.tailer.is_timed());
    world.pass(Duration::from_secs(1));
    world.write("main", "0.log", &line(at));
    hints.readable().await.unwrap().clear_ready();
    world.tailer.take_hints(world.now);
    world.take_all();
    assert_eq!(world.logs[0].messages("main"), texts(0..at + 1));
    drop(Arc::clone(&world.stats));
}

/// Fills the kernel's queue of events until it tells no more: a name of no pod, moved to and fro below the root.
fn overflow(world: &World) {
    let queued_max = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    let (one, other) = (world.root.path().join("one"), world.root.path().join("other"));
    fs::write(&one, b"").unwrap();
    for _ in 0..=queued_max.trim().parse::<u64>().unwrap() / 4 {
        // Two events each.
        fs::rename(&one, &other).unwrap();
        fs::rename(&other, &one).unwrap();
    }
}

#[tokio::test]
async fn what_an_overflow_of_the_kernels_queue_hides_is_read_all_the_same() {
    let mut world = World::new(vec![everything(0)]);
    let hints = world.tailer.attach().unwrap();
    world.write("main", "0.log", &lines(0..10));
    world.tailer.scan(world.now);
    world.take_all();
    assert_eq!(world.logs[0].messages("main"), texts(0..10));
    overflow(&world);
    // A line, a file and a container of which no event tells.
    world.write("main", "0.log", &lines(10..20));
    world.rename("main", "0.log", "0.log.20260101-010101");
    world.write("main", "0.log", &lines(20..30));
    world.write("side", "0.log", &lines(0..10));
    hints.readable().await.unwrap().clear_ready();
    world.tailer.take_hints(world.now);
    world.take_all();
    assert_eq!(world.logs[0].messages("main"), texts(0..20));
    assert_eq!(world.logs[0].messages("side"), texts(0..10));
    // The old file is left when nothing came for a while; the new one is known by the scan of before.
    world.pass(Duration::from_secs(2));
    world.tailer.tick(world.now);
    world.take_all();
    assert_eq!(world.logs[0].messages("main"), texts(0..30));
    assert_eq!(world.stats.overflows.load(Ordering::Relaxed), 1);
    // What comes after it is told as before.
    world.pass(Duration::from_secs(2));
    while world.tailer.is_timed() {
        world.tailer.tick(world.now);
        world.take_all();
    }
    world.tailer.take_hints(world.now);
    world.write("side", "0.log", &lines(10..20));
    hints.readable().await.unwrap().clear_ready();
    world.tailer.take_hints(world.now);
    world.take_all();
    assert_eq!(world.logs[0].messages("side"), texts(0..20));
    assert_eq!(world.stats.overflows.load(Ordering::Relaxed), 1);
}
