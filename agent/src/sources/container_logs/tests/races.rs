//! What happens while a directory is listed, most of all at the start: nothing comes twice and no position is lost.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::io::Errno;

use super::super::StartAt;
use super::world::{POD, World, cri, everything};
use crate::sources::tail::file::Step;
use crate::sources::tail::run::Tails;
use crate::sources::tail::testing::compress;

fn lines(range: std::ops::Range<u64>) -> Vec<u8> {
    range.flat_map(|at| cri(at, "stdout", "F", &format!("line {at}"))).collect()
}

fn texts(range: std::ops::Range<u64>) -> Vec<String> {
    range.map(|at| format!("line {at}")).collect()
}

/// A world whose agent was ended when it had read lines 0 to 20 of 30: one file is done, one is being read.
fn ended() -> World {
    let mut world = World::new(vec![everything(0)]);
    world.write("main", "0.log", &lines(0..10));
    world.rename("main", "0.log", "0.log.20260101-010101");
    world.write("main", "0.log", &lines(10..20));
    world.settle();
    world.write("main", "0.log", &lines(20..30));
    world.restart();
    world
}

/// Asserts that lines `0..end` came once each, and that nothing else comes after another restart, nor once the file that
/// is read ends, behind which others may wait.
fn assert_once(mut world: World, end: u64, case: &str) {
    for _ in 0..2 {
        world.settle();
        assert_eq!(world.logs[0].messages("main"), texts(0..end), "{case}");
        assert_eq!(world.stats.missed_files.load(Ordering::Relaxed), 0, "{case}");
        world.restart();
    }
    world.settle();
    if world.path("main", "0.log").exists() {
        world.rename("main", "0.log", "0.log.20260101-090909");
    }
    world.write("main", "0.log", &lines(end..end + 5));
    world.settle();
    assert_eq!(world.logs[0].messages("main"), texts(0..end + 5), "{case}, once it has ended");
}

fn is_file(path: &Path, name: &str) -> bool {
    path.file_name().is_some_and(|file| file == name)
}

/// Fails `step` of what is called `name` for the first `times`.
fn failing(step: Step, name: &'static str, errno: Errno, times: usize) -> impl FnMut(Step, &Path) -> io::Result<()> {
    let mut left = times;
    move |at, path| {
        let fails = left > 0 && at == step && is_file(path, name);
        left -= usize::from(fails);
        if fails { Err(errno.into()) } else { Ok(()) }
    }
}

/// Rotates a file as a kubelet does, and goes on as far as it has come.
fn rotate(path: &Path, (is_begun, is_compressed): (bool, bool)) {
    let rotated = path.with_file_name("0.log.20260101-020202");
    fs::rename(path, &rotated).unwrap();
    if is_compressed {
        compress(&rotated);
        fs::remove_file(&rotated).unwrap();
    }
    if is_begun {
        fs::write(path, lines(30..40)).unwrap();
    }
}

#[test]
fn a_file_that_is_rotated_while_the_start_lists_goes_on_where_it_was() {
    let how = [(true, false), (false, false), (true, true), (false, true)];
    for (step, how) in [Step::Look, Step::Open].into_iter().flat_map(|step| how.map(|how| (step, how))) {
        let mut world = ended();
        let mut is_over = false;
        world.between(move |at, path| {
            if at == step && is_file(path, "0.log") && !is_over {
                is_over = true;
                rotate(path, how);
            }
            Ok(())
        });
        assert_once(world, if how.0 { 40 } else { 30 }, &format!("{step:?}, (begun, compressed) {how:?}"));
    }
}

#[test]
fn a_file_that_is_compressed_while_the_start_lists_stays_done() {
    for step in [Step::Look, Step::Open] {
        let mut world = ended();
        let mut is_over = false;
        world.between(move |at, path| {
            if at == step && is_file(path, "0.log.20260101-010101") && !is_over {
                is_over = true;
                compress(path);
                fs::remove_file(path).unwrap();
            }
            Ok(())
        });
        assert_once(world, 30, &format!("{step:?}"));
    }
}

#[test]
fn a_file_that_is_compressed_while_a_later_listing_runs_stays_done() {
    let mut world = ended();
    world.settle();
    let mut is_over = false;
    world.between(move |at, path| {
        if at == Step::Look && is_file(path, "0.log.20260101-010101") && !is_over {
            is_over = true;
            compress(path);
            fs::remove_file(path).unwrap();
        }
        Ok(())
    });
    assert_once(world, 30, "later");
}

#[test]
fn a_file_that_cannot_be_opened_at_the_start_goes_on_where_it_was() {
    for errno in [Errno::MFILE, Errno::IO] {
        for (step, name) in [(Step::Open, "0.log"), (Step::Look, "0.log"), (Step::List, "main")] {
            let mut world = ended();
            world.between(failing(step, name, errno, 6));
            world.tailer.scan(world.now);
            world.take_all();
            assert_eq!(world.logs[0].messages("main"), texts(0..20), "{errno:?} {step:?}: nothing is read meanwhile");
            assert!(world.stats.read_errors.load(Ordering::Relaxed) > 0, "{errno:?} {step:?}");
            assert_once(world, 30, &format!("{errno:?} {step:?}"));
        }
    }
}

#[test]
fn a_file_that_was_done_and_cannot_be_opened_holds_nothing_up_and_stays_done() {
    let mut world = ended();
    world.between(failing(Step::Open, "0.log.20260101-010101", Errno::IO, usize::MAX));
    world.settle();
    assert_eq!(world.logs[0].messages("main"), texts(0..30));
    // Also over a start that cannot open it either, and one that can.
    world.restart();
    world.between(failing(Step::Open, "0.log.20260101-010101", Errno::IO, usize::MAX));
    world.write("main", "0.log", &lines(30..40));
    world.settle();
    assert_eq!(world.logs[0].messages("main"), texts(0..40));
    world.calm();
    assert_once(world, 40, "done");
}

#[test]
fn a_file_that_is_deleted_while_it_cannot_be_opened_is_missed_and_holds_nothing_up() {
    let mut world = ended();
    world.between(failing(Step::Open, "0.log", Errno::IO, usize::MAX));
    world.settle();
    assert_eq!(world.logs[0].messages("main"), texts(0..20));
    world.remove("main", "0.log");
    world.write("main", "1.log", &lines(30..40));
    world.settle();
    let expected = [texts(0..20), texts(30..40)].concat();
    assert_eq!(world.logs[0].messages("main"), expected);
    assert_eq!(world.stats.missed_files.load(Ordering::Relaxed), 1);
}

#[test]
fn a_pod_that_cannot_be_listed_at_the_start_keeps_its_positions() {
    let mut world = ended();
    let positions = world.logs[0].positions.clone();
    world.between(failing(Step::List, POD, Errno::MFILE, 2));
    for _ in 0..2 {
        world.tailer.scan(world.now);
        world.take_all();
        assert_eq!(world.logs[0].positions, positions);
    }
    assert_once(world, 30, "pod");
}

#[test]
fn a_root_that_is_not_mounted_yet_forgets_no_position() {
    let mut world = ended();
    let positions = world.logs[0].positions.clone();
    let (there, away) = (world.root.path().join(POD), tempfile::tempdir().unwrap());
    fs::rename(&there, away.path().join(POD)).unwrap();
    for _ in 0..3 {
        world.tailer.scan(world.now);
        world.take_all();
        assert_eq!(world.logs[0].positions, positions);
    }
    fs::rename(away.path().join(POD), &there).unwrap();
    assert_once(world, 30, "mounted late");
}

#[test]
fn what_is_gone_is_forgotten_once_some_pod_is_there() {
    let mut world = ended();
    assert!(world.logs[0].positions.len() > 1);
    fs::remove_dir_all(world.root.path().join(POD)).unwrap();
    world.settle();
    assert!(world.logs[0].positions.len() > 1, "what the root is to show may not be mounted");
    fs::create_dir(world.root.path().join("fab12_other-0_77")).unwrap();
    world.settle();
    assert_eq!(world.logs[0].positions.len(), 1, "the note that the files of the node were seen");
}

#[test]
fn what_is_written_long_after_a_rotation_is_counted() {
    let mut world = World::new(vec![everything(0)]);
    world.write("main", "0.log", &lines(0..10));
    world.settle();
    world.rename("main", "0.log", "0.log.20260101-010101");
    world.write("main", "0.log", &lines(10..20));
    world.settle();
    let late = lines(20..23);
    world.write("main", "0.log.20260101-010101", &late);
    world.settle();
    assert_eq!(world.stats.missed_bytes.load(Ordering::Relaxed), late.len() as u64);
    assert_eq!(world.logs[0].messages("main"), texts(0..20));
    world.compress("main", "0.log.20260101-010101");
    world.remove("main", "0.log.20260101-010101");
    world.settle();
    assert_eq!(world.stats.missed_bytes.load(Ordering::Relaxed), late.len() as u64);
    assert_eq!(world.logs[0].messages("main"), texts(0..20));
}

#[test]
fn of_a_pod_that_could_not_be_listed_what_is_gone_is_forgotten() {
    for is_pod in [true, false] {
        let mut world = World::new(vec![everything(0)]);
        world.write("main", "0.log", &lines(0..10));
        world.write("side", "0.log", &lines(0..10));
        world.settle();
        assert_eq!(world.logs[0].positions.len(), 3);
        world.restart();
        world.between(failing(Step::List, POD, Errno::MFILE, 1));
        world.tailer.scan(world.now);
        world.take_all();
        assert_eq!(world.logs[0].positions.len(), 3);
        let gone = if is_pod { world.root.path().join(POD) } else { world.directory("side") };
        fs::remove_dir_all(gone).unwrap();
        world.settle();
        assert_eq!(world.logs[0].positions.len(), if is_pod { 1 } else { 2 }, "pod {is_pod}");
    }
}

#[test]
fn a_start_at_the_end_waits_for_the_newest_file() {
    let mut want = everything(0);
    want.start_at = StartAt::End;
    let mut world = World::new(vec![want]);
    world.write("main", "0.log.20260101-010101", &lines(0..10));
    world.write("main", "0.log", &lines(10..20));
    world.between(failing(Step::Open, "0.log", Errno::MFILE, 2));
    world.tailer.scan(world.now);
    world.take_all();
    assert!(world.logs[0].positions.is_empty(), "the node counts as seen once the place is kept");
    world.settle();
    world.write("main", "0.log", &lines(20..30));
    world.pass(Duration::from_secs(1));
    world.settle();
    world.restart();
    world.settle();
    assert_eq!(world.logs[0].messages("main"), texts(20..30));
}

/// The compressed one is shorter than what was read of it.
#[test]
fn a_file_that_is_compressed_while_it_is_listed_after_a_restart_is_not_taken_for_cut() {
    let mut world = World::new(vec![everything(0)]);
    world.write("main", "0.log", &lines(0..100));
    world.settle();
    world.rename("main", "0.log", "0.log.20260101-010101");
    world.write("main", "0.log", &lines(100..110));
    world.restart();
    let path = world.path("main", "0.log.20260101-010101");
    let (directory, mut listings) = (world.directory("main"), 0);
    world.between(move |step, at| {
        if step == Step::List && at == directory {
            listings += 1;
            if listings == 2 {
                compress(&path);
                fs::remove_file(&path)?;
            }
        }
        Ok(())
    });
    world.tailer.scan(world.now);
    world.calm();
    assert_eq!(world.stats.lost_tail_bytes.load(Ordering::Relaxed), 0);
    assert_once(world, 110, "compressed at the second listing");
}

/// Its first bytes alone would be those of any file.
#[test]
fn a_file_of_which_a_few_bytes_were_seen_is_found_compressed_behind_the_one_before_it() {
    let mut world = World::new(vec![everything(0)]);
    world.write("main", "0.log", &[cri(1, "stdout", "F", "x"), cri(2, "stdout", "P", "a")].concat());
    world.rename("main", "0.log", "0.log.20260101-010101");
    let rest = cri(3, "stdout", "F", "b");
    world.write("main", "0.log", &rest[..21]);
    world.tailer.scan(world.now);
    world.pass(std::time::Duration::from_secs(1));
    world.take_all();
    assert_eq!(world.logs[0].messages("main"), ["x"]);
    world.write("main", "0.log", &rest[21..]);
    world.rename("main", "0.log", "0.log.20260101-020202");
    world.compress("main", "0.log.20260101-020202");
    world.remove("main", "0.log.20260101-020202");
    world.write("main", "0.log", &cri(4, "stdout", "F", "c"));
    world.restart();
    world.settle();
    assert_eq!(world.logs[0].messages("main"), ["x", "ab", "c"]);
    assert_eq!(world.stats.missed_files.load(Ordering::Relaxed), 0);
}

#[test]
fn a_file_that_was_seen_empty_is_no_new_one_when_it_comes_compressed() {
    let mut world = World::new(vec![everything(0)]);
    world.write("main", "0.log", b"");
    world.tailer.scan(world.now);
    // Rotated and compressed before anybody looks again.
    world.write("main", "0.log", &lines(0..10));
    world.rename("main", "0.log", "0.log.20260101-010101");
    world.compress("main", "0.log.20260101-010101");
    world.remove("main", "0.log.20260101-010101");
    world.write("main", "0.log", &lines(10..20));
    world.tailer.scan(world.now);
    assert_once(world, 20, "compressed before it was read");
}
