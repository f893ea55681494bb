//! The writer of a log alone, step by step: what it lets go of, and which files that leaves.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use spillway_delivery::event::{BatchBuilder, Origin, Position};
use spillway_delivery::filesystem::{AHEAD_BYTES, Call, Fault, FaultyFs};
use spillway_delivery::log::{CoreEdit, Keep, LogCore, Masks, OpenOptions, Pending, Recovered};
use spillway_delivery::settings::Durability;

use crate::subject::{self, DIR};

/// Segments have an eighth of it.
const BYTES_MAX: u64 = 1 << 20;

pub(crate) fn open(fs: &FaultyFs, durability: Durability) -> (LogCore, Recovered) {
    try_open(fs, durability).expect("the directory can be made")
}

pub(crate) fn try_open(fs: &FaultyFs, durability: Durability) -> std::io::Result<(LogCore, Recovered)> {
    open_as(fs, durability, 1)
}

/// Opens it as a process that calls itself so: no two have the same name.
pub(crate) fn open_as(
    fs: &FaultyFs,
    durability: Durability,
    incarnation: u64,
) -> std::io::Result<(LogCore, Recovered)> {
    let options = OpenOptions {
        dir: PathBuf::from(DIR),
        durability,
        bytes_max: BYTES_MAX,
        routes: vec!["all".into()],
        incarnation,
        seq_min: 0,
        now: 1,
    };
    LogCore::open(Arc::new(fs.clone()), options)
}

/// Events of a source that stands behind the last of them then.
pub(crate) fn commit(core: &mut LogCore, numbers: Range<u32>) {
    let mut builder = BatchBuilder::default();
    numbers.clone().for_each(|number| builder.push(format!("{{\"n\":{number}}}").as_bytes()));
    let mut batch = builder.build(Arc::<Origin>::default(), 1);
    batch.position = Some(Position { source: "file".into(), value: Some(numbers.end.to_string().into()) });
    let committed =
        core.commit(vec![Pending { batch, masks: Masks::Uniform(1), unrouted: 0, dropped: 0 }], Duration::ZERO);
    assert!(committed.error.is_none() && committed.frames.len() == 1, "{committed:?}");
}

/// Returns whether such a batch is refused.
fn is_refused(core: &mut LogCore, numbers: Range<u32>) -> bool {
    let mut builder = BatchBuilder::default();
    numbers.for_each(|number| builder.push(format!("{{\"n\":{number}}}").as_bytes()));
    let batch = builder.build(Arc::<Origin>::default(), 1);
    let pending = Pending { batch, masks: Masks::Uniform(1), unrouted: 0, dropped: 0 };
    core.commit(vec![pending], Duration::ZERO).error.is_some()
}

fn turn_to(core: &mut LogCore, durability: Durability) {
    core.edit(CoreEdit { routes: vec!["all".into()].into(), durability, bytes_max: BYTES_MAX });
}

/// Returns where the source stands for the next process, and how many events the log counts.
fn found(fs: &FaultyFs) -> (u32, u64) {
    let (next, _) = open(fs, Durability::Disk);
    let position = next.position(b"file").unwrap_or_default();
    (std::str::from_utf8(&position).ok().and_then(|text| text.parse().ok()).unwrap_or(0), next.routed_events("all"))
}

#[test]
fn what_memory_holds_is_written_before_what_comes_at_another_level_and_by_a_sync() {
    let fs = subject::disk(1);
    let (mut core, _) = open(&fs, Durability::Memory);
    commit(&mut core, 0..10);
    assert_eq!(found(&fs.kill()), (0, 0), "only memory has it");
    turn_to(&mut core, Durability::Process);
    commit(&mut core, 10..20);
    assert_eq!(found(&fs.kill()), (20, 20));
    turn_to(&mut core, Durability::Memory);
    commit(&mut core, 20..30);
    turn_to(&mut core, Durability::Disk);
    core.sync(Duration::ZERO).unwrap();
    assert_eq!(found(&fs.crash(1)), (30, 30));
}

#[test]
fn what_was_passed_is_counted_as_soon_as_something_behind_it_is_written() {
    let fs = subject::disk(1);
    let (mut core, _) = open(&fs, Durability::Memory);
    commit(&mut core, 0..10);
    core.spill(usize::MAX, Duration::ZERO).unwrap();
    commit(&mut core, 10..20);
    assert!(core.pass(core.next_seq()));
    commit(&mut core, 20..30);
    core.spill(usize::MAX, Duration::ZERO).unwrap();
    assert_eq!(found(&fs.crash(1)), (30, 30));
}

#[test]
fn what_was_passed_comes_behind_what_was_written_before_it() {
    let fs = subject::disk(1);
    let (mut core, _) = open(&fs, Durability::Process);
    commit(&mut core, 0..10);
    turn_to(&mut core, Durability::Memory);
    commit(&mut core, 10..20);
    // The first batch is not synced yet: the second may not be in the state before it.
    core.pass(core.next_seq());
    core.sync(Duration::ZERO).unwrap();
    core.pass(core.next_seq());
    core.checkpoint(Duration::ZERO).unwrap();
    assert_eq!(found(&fs.kill()), (20, 20));
}

#[test]
fn sequences_that_everybody_passed_are_not_used_again() {
    let fs = subject::disk(1);
    let (mut core, _) = open(&fs, Durability::Memory);
    commit(&mut core, 0..10);
    let passed = core.next_seq();
    assert!(core.pass(passed));
    core.checkpoint(Duration::ZERO).unwrap();
    let (next, recovered) = open(&fs.kill(), Durability::Memory);
    assert_eq!((recovered.end_seq, next.next_seq()), (passed, passed));
}

/// Files of the log with this extension, and their bytes.
pub(crate) fn files(fs: &FaultyFs, extension: &str) -> Vec<(PathBuf, u64)> {
    let is_of = |path: &Path| path.starts_with(DIR) && path.extension().is_some_and(|found| found == extension);
    fs.files().into_iter().filter(|(path, _)| is_of(path)).collect()
}

/// Writes so many segments that are full.
pub(crate) fn fill(core: &mut LogCore, segments: usize) {
    let before = core.next_seq();
    // Twelve frames make one.
    for number in 0..12 * segments {
        let first = (before as u32) + 1000 * number as u32;
        commit(core, first..first + 900);
    }
}

pub(crate) fn free_all(core: &mut LogCore, bytes_over: u64) -> usize {
    core.free(u64::MAX, Keep { bytes_over, ..Keep::default() }, Duration::ZERO).len()
}

#[test]
fn what_is_synced_later_is_on_its_way_before() {
    let begun = |durability| {
        let fs = subject::disk(1);
        let (mut core, _) = open(&fs, durability);
        core.edit(CoreEdit { routes: vec!["all".into()].into(), durability, bytes_max: 1 << 30 });
        fill(&mut core, 40);
        let written: u64 = files(&fs, "log").iter().map(|(_, bytes)| bytes).sum();
        assert!(written > 4 * AHEAD_BYTES, "{written}");
        (fs.counts().begun_bytes, written)
    };
    let (bytes, written) = begun(Durability::Process);
    assert!(bytes <= written && bytes + AHEAD_BYTES + (64 << 10) > written, "{bytes} of {written}");
    // A sync that comes at once has no use for it.
    assert_eq!(begun(Durability::Disk).0, 0);
}

#[test]
fn few_files_wait_to_be_written_over_and_none_where_room_is_needed() {
    let fs = subject::disk(1);
    let (mut core, _) = open(&fs, Durability::Process);
    fill(&mut core, 8);
    assert!(free_all(&mut core, 0) > 5);
    assert_eq!(files(&fs, "spare").len(), 4);
    // A segment that is not full is no file to write a full one over.
    core.seal(Duration::ZERO).unwrap();
    commit(&mut core, 0..1);
    core.seal(Duration::ZERO).unwrap();
    let spares = files(&fs, "spare").len();
    assert!(spares < 4);
    assert!(free_all(&mut core, 0) > 0);
    assert_eq!(files(&fs, "spare").len(), spares);
    fill(&mut core, 3);
    assert!(free_all(&mut core, u64::MAX) > 0);
    assert_eq!(files(&fs, "spare"), []);
    fill(&mut core, 3);
    free_all(&mut core, 0);
    assert_ne!(files(&fs, "spare"), []);
    assert_eq!(free_all(&mut core, 1), 0, "no segment is left to go");
    assert_eq!(files(&fs, "spare"), []);
    // Nor do they outlive the process.
    fill(&mut core, 3);
    free_all(&mut core, 0);
    assert_ne!(files(&fs, "spare"), []);
    let fs = fs.kill();
    let _ = open(&fs, Durability::Process);
    assert_eq!(files(&fs, "spare"), []);
}

#[test]
fn files_that_wait_to_be_written_over_go_when_the_log_is_to_be_smaller() {
    let fs = subject::disk(1);
    let (mut core, _) = open(&fs, Durability::Process);
    fill(&mut core, 3);
    free_all(&mut core, 0);
    turn_to(&mut core, Durability::Disk);
    assert_ne!(files(&fs, "spare"), []);
    // What a smaller log calls a full segment is smaller too.
    let routes = vec!["all".into()].into();
    core.edit(CoreEdit { routes, durability: Durability::Disk, bytes_max: BYTES_MAX / 2 });
    assert_eq!(files(&fs, "spare"), []);
}

#[test]
fn a_file_that_cannot_be_taken_to_be_written_over_is_left_nowhere() {
    for call in [Call::Rename, Call::Open] {
        let fs = subject::disk(1);
        let (mut core, _) = open(&fs, Durability::Process);
        fill(&mut core, 2);
        free_all(&mut core, 0);
        let spares = files(&fs, "spare").len();
        assert!(spares > 0);
        fs.fail(call, 0, Fault::Io);
        fill(&mut core, 1);
        core.seal(Duration::ZERO).unwrap();
        assert_eq!(files(&fs, "new"), [], "{call:?}");
        let listed = files(&fs, "spare").len();
        while !files(&fs, "spare").is_empty() {
            let before = files(&fs, "spare").len();
            fill(&mut core, 1);
            assert!(files(&fs, "spare").len() < before, "{call:?}: {listed} files, and nobody knows of some");
        }
    }
}

#[test]
fn a_segment_over_a_longer_file_ends_where_it_ends() {
    let fs = subject::disk(1);
    let (mut core, _) = open(&fs, Durability::Process);
    fill(&mut core, 3);
    free_all(&mut core, 0);
    core.seal(Duration::ZERO).unwrap();
    let stale = files(&fs, "log").into_iter().map(|(_, bytes)| bytes).max();
    assert!(stale > Some(BYTES_MAX / 8), "it is written over a file");
    commit(&mut core, 0..10);
    // What the file was before is no torn tail.
    let (_, recovered) = open(&fs.kill(), Durability::Process);
    assert_eq!((recovered.cut_bytes, recovered.damaged_records), (0, 0));
    core.seal(Duration::ZERO).unwrap();
    free_all(&mut core, 1);
    commit(&mut core, 10..20);
    core.seal(Duration::ZERO).unwrap();
    let sealed: Vec<_> = files(&fs, "log").into_iter().rev().skip(1).collect();
    assert!(sealed.iter().all(|(_, bytes)| *bytes < BYTES_MAX / 8), "{sealed:?}");
    let (_, recovered) = open(&fs.kill(), Durability::Process);
    assert!(recovered.scanned <= 1, "its footer is found: {recovered:?}");
}

#[test]
fn the_end_of_a_segment_that_is_missing_is_damage_where_another_follows() {
    let fs = subject::disk(1);
    let (mut core, _) = open(&fs, Durability::Disk);
    commit(&mut core, 0..10);
    let (path, end) = files(&fs, "log").remove(0);
    commit(&mut core, 10..20);
    // The header of the next, then the footer, which costs nothing but a scan.
    fs.fail(Call::Write, 1, Fault::Io);
    core.seal(Duration::ZERO).unwrap();
    assert!(fs.cut(&path, end));
    let (_, recovered) = open(&fs.kill(), Durability::Disk);
    assert_eq!((recovered.scanned, recovered.damaged_records), (2, 1));
}

#[test]
fn a_segment_under_the_name_of_another_is_set_aside() {
    let fs = subject::disk(1);
    let (mut core, _) = open(&fs, Durability::Disk);
    commit(&mut core, 0..10);
    core.seal(Duration::ZERO).unwrap();
    let (path, _) = files(&fs, "log").remove(0);
    fs.put(&Path::new(DIR).join("00000000000000ff.log"), &fs.content(&path).unwrap());
    let (next, recovered) = open(&fs.kill(), Durability::Disk);
    assert_eq!((recovered.quarantined_segments, next.routed_events("all")), (1, 10));
}

#[test]
fn a_segment_whose_name_may_come_back_hides_nothing() {
    for seed in 0..60 {
        let fs = subject::disk(seed);
        let (mut core, _) = open(&fs, Durability::Disk);
        commit(&mut core, 0..10);
        // The next one has its name when the directory refuses to sync; it is removed, or not.
        fs.fail(Call::SyncDir, 0, Fault::Io);
        if seed % 2 == 0 {
            fs.fail(Call::Remove, 1, Fault::Io);
        }
        core.seal(Duration::ZERO).unwrap_err();
        commit(&mut core, 10..20);
        commit(&mut core, 20..30);
        assert_eq!(found(&fs.kill()), (30, 30), "{seed}");
        assert_eq!(found(&fs.crash(seed)), (30, 30), "{seed}");
    }
}

#[test]
fn what_was_acknowledged_before_an_edit_outlives_a_sync_that_fails_behind_it() {
    for then_synced in [false, true] {
        let fs = subject::disk(1);
        let (mut core, _) = open(&fs, Durability::Process);
        commit(&mut core, 0..10);
        turn_to(&mut core, Durability::Disk);
        // The sync, and what would write it again in another segment.
        fs.fail(Call::Sync, 0, Fault::Io);
        fs.fail(Call::Create, 0, Fault::Io);
        assert!(is_refused(&mut core, 10..20));
        if then_synced {
            core.sync(Duration::ZERO).unwrap();
            assert_eq!(found(&fs.crash(1)), (10, 10));
        }
        commit(&mut core, 20..30);
        assert_eq!(found(&fs.crash(1)), (30, 20), "{then_synced}");
    }
}

#[test]
fn what_was_never_written_is_refused_as_such() {
    let fs = subject::disk(1);
    let (mut core, _) = open(&fs, Durability::Disk);
    commit(&mut core, 0..10);
    fs.fail(Call::Sync, 0, Fault::Io);
    fs.fail(Call::Create, 0, Fault::Io);
    assert!(is_refused(&mut core, 10..20));
    // No segment is open, and none can be begun, twice.
    fs.fail(Call::Create, 0, Fault::Io);
    fs.fail(Call::Create, 1, Fault::Io);
    let mut builder = BatchBuilder::default();
    builder.push(b"{}");
    let batch = builder.build(Arc::<Origin>::default(), 1);
    let pending = Pending { batch, masks: Masks::Uniform(1), unrouted: 0, dropped: 0 };
    let committed = core.commit(vec![pending], Duration::ZERO);
    assert!(committed.error.is_some_and(|error| !error.maybe_kept));
}
