//! A device that does not read: for a while, in one place, or because the process has no file descriptor left.

use std::path::{Path, PathBuf};
use std::time::Duration;

use spillway_delivery::filesystem::{Call, Fault, FaultyFs};
use spillway_delivery::log::{LogCore, Recovered, scan};
use spillway_delivery::settings::Durability;

use crate::subject::{self, DIR};
use crate::writer::{commit, files, fill, free_all, open, open_as, try_open};

/// Segments that are full and one that is not, of a process that was killed.
fn killed(segments: usize) -> (FaultyFs, u64) {
    let fs = subject::disk(1);
    let (mut core, _) = open(&fs, Durability::Disk);
    fill(&mut core, segments);
    commit(&mut core, 0..10);
    commit(&mut core, 10..20);
    let events = events(&fs);
    drop(core);
    (fs.kill(), events)
}

/// Returns how many events can be read.
fn events(fs: &FaultyFs) -> u64 {
    let mut events = 0;
    scan(fs, Path::new(DIR), 0, |frame| {
        events += frame.len() as u64;
        true
    })
    .expect("it can be read");
    events
}

fn set_aside(fs: &FaultyFs) -> Vec<PathBuf> {
    let all = fs.files().into_iter().map(|(path, _)| path);
    all.filter(|path| path.starts_with(Path::new(DIR).join("quarantine"))).collect()
}

fn last_segment(fs: &FaultyFs) -> PathBuf {
    files(fs, "log").pop().expect("there is one").0
}

#[test]
fn what_is_refused_for_a_while_at_the_start_is_asked_for_again_and_costs_nothing() {
    let (fs, all) = killed(3);
    let calls = fs.counts();
    drop(open(&fs, Durability::Disk));
    let (reads, opens) = (fs.counts().reads - calls.reads, fs.counts().opens - calls.opens);
    assert!(reads >= 8 && opens >= 8, "{reads} and {opens}");
    for (call, count) in [(Call::Read, reads), (Call::Open, opens), (Call::List, 1)] {
        for skip in 0..count {
            let (fs, _) = killed(3);
            // Five times in a row, from there on.
            (0..5).for_each(|_| fs.fail(call, skip, Fault::Io));
            let (_, recovered) = open(&fs, Durability::Disk);
            // What is ordered and did not come about is none of the reader's that counts.
            let fs = fs.kill();
            let lost = (recovered.unreadable_segments, recovered.quarantined_segments, recovered.damaged_records);
            assert_eq!((lost, events(&fs)), ((0, 0, 0), all), "{call:?} {skip}");
            assert_eq!(set_aside(&fs), [] as [PathBuf; 0], "{call:?} {skip}");
        }
    }
}

#[test]
fn logs_on_a_volume_that_is_gone_wait_for_it_together_and_each_of_them_once_more() {
    let (fs, _) = killed(3);
    // As many opens as a node has pipelines.
    (0..200).for_each(|_| fs.fail(Call::List, 0, Fault::Io));
    let before = fs.counts().paused_ms;
    let opens = 20;
    for _ in 0..opens {
        assert!(try_open(&fs, Durability::Disk).is_err());
    }
    let paused_ms = fs.counts().paused_ms - before;
    assert!((12_700..=12_700 + 100 * opens).contains(&paused_ms), "{paused_ms} ms");
}

/// Opens a log of which a part cannot be read, writes on, and lets everything go; returns what the open met.
fn opened_and_let_go(fs: &FaultyFs) -> (Recovered, LogCore) {
    let (mut core, recovered) = open(fs, Durability::Disk);
    commit(&mut core, 100..110);
    core.seal(Duration::ZERO).expect("the disk writes");
    commit(&mut core, 110..120);
    assert!(free_all(&mut core, u64::MAX) > 0);
    (recovered, core)
}

#[test]
fn a_segment_that_cannot_be_read_is_set_aside_and_never_deleted() {
    let (fs, _) = killed(3);
    let paths: Vec<PathBuf> = files(&fs, "log").into_iter().map(|(path, _)| path).collect();
    let contents = paths[..2].iter().map(|path| fs.content(path).unwrap()).collect::<Vec<_>>();
    // A header; and the footer of one whose frames cannot be read either, from some place on.
    fs.spoil(&paths[0], 0..1);
    let end = contents[1].len() as u64;
    fs.spoil(&paths[1], end / 2..end);
    let (recovered, _) = opened_and_let_go(&fs);
    assert_eq!(recovered.unreadable_segments, 2, "{recovered:?}");
    let kept = set_aside(&fs);
    let kept_contents: Vec<_> = kept.iter().map(|path| fs.content(path).unwrap()).collect();
    assert_eq!(kept_contents, contents, "{kept:?}");
}

#[test]
fn the_unread_rest_of_what_a_kill_left_is_neither_removed_nor_written_over() {
    let (fs, _) = killed(0);
    let path = last_segment(&fs);
    let content = fs.content(&path).unwrap();
    // All but the header.
    let head = content.windows(6).position(|bytes| bytes == b"{\"n\":0").unwrap() as u64;
    fs.spoil(&path, head..content.len() as u64);
    let (recovered, core) = opened_and_let_go(&fs);
    assert_eq!(recovered.unreadable_segments, 1, "{recovered:?}");
    assert_eq!(set_aside(&fs).iter().map(|path| fs.content(path).unwrap()).collect::<Vec<_>>(), [content]);
    assert!(core.next_seq() > 1 << 32, "no sequence of what may come to light is used again");
}

#[test]
fn what_one_start_could_not_read_outlives_the_starts_that_can() {
    for (sealed_first, writes) in [(false, true), (true, true), (false, false), (true, false)] {
        let fs = subject::disk(1);
        let (mut core, _) = open(&fs, Durability::Disk);
        commit(&mut core, 0..1000);
        commit(&mut core, 1000..2000);
        drop(core);
        let fs = fs.kill();
        let path = last_segment(&fs);
        let content = fs.content(&path).unwrap();
        let second = content.windows(9).position(|bytes| bytes == b"{\"n\":1000").unwrap() as u64;
        assert!(second > 2 * 4096, "behind what is read with the header");
        fs.spoil(&path, second..content.len() as u64);
        let (mut core, recovered) = open_as(&fs, Durability::Disk, 2).unwrap();
        assert_eq!(recovered.unreadable_segments, 1);
        if writes {
            commit(&mut core, 3000..3010);
        } else {
            core.seal(Duration::ZERO).expect("the disk writes");
        }
        drop(core);
        // The device gives it back. Whoever went past it delivers it no more, so the file stays.
        let fs = fs.kill();
        assert!(fs.mend(&path));
        if sealed_first {
            let (mut core, _) = open_as(&fs, Durability::Disk, 3).unwrap();
            if writes {
                commit(&mut core, 110..120);
            } else {
                core.seal(Duration::ZERO).expect("the disk writes");
            }
        }
        let fs = fs.kill();
        let (mut core, recovered) = open_as(&fs, Durability::Disk, 4).unwrap();
        assert_eq!(recovered.unreadable_segments, 0);
        commit(&mut core, 120..130);
        core.seal(Duration::ZERO).expect("the disk writes");
        commit(&mut core, 130..140);
        assert!(free_all(&mut core, u64::MAX) > 0);
        let kept: Vec<_> = set_aside(&fs).iter().map(|path| fs.content(path).unwrap()).collect();
        let [kept] = &kept[..] else { panic!("{sealed_first}: {} are set aside", kept.len()) };
        assert!(kept.windows(10).any(|bytes| bytes == b"{\"n\":1999}"), "{sealed_first}");
    }
}

#[test]
fn a_segment_that_every_start_could_read_is_removed() {
    let (fs, _) = killed(1);
    for incarnation in 2..5 {
        let (mut core, _) = open_as(&fs, Durability::Disk, incarnation).unwrap();
        commit(&mut core, 0..10);
        core.seal(Duration::ZERO).expect("the disk writes");
    }
    let (mut core, _) = open_as(&fs, Durability::Disk, 5).unwrap();
    commit(&mut core, 10..20);
    assert!(free_all(&mut core, u64::MAX) > 3);
    assert_eq!(set_aside(&fs), [] as [PathBuf; 0]);
}

#[test]
fn what_a_failed_sync_may_have_left_makes_no_segment_unread() {
    // What a process wrote and could not sync stands behind the place from which it goes on in another segment.
    for skip in 0..4 {
        let fs = subject::disk(1);
        let (mut core, _) = open(&fs, Durability::Process);
        fs.fail(Call::Sync, skip, Fault::Io);
        for number in 0..20 {
            commit(&mut core, number * 10..number * 10 + 10);
            // It fails once; what is not synced then is written again.
            core.sync(Duration::ZERO).ok();
        }
        drop(core);
        let fs = fs.kill();
        let (mut core, recovered) = open_as(&fs, Durability::Process, 2).unwrap();
        assert_eq!((recovered.unreadable_segments, recovered.quarantined_segments), (0, 0), "{skip}");
        commit(&mut core, 200..210);
        core.seal(Duration::ZERO).expect("the disk writes");
        commit(&mut core, 210..220);
        assert!(free_all(&mut core, u64::MAX) > 0);
        assert_eq!(set_aside(&fs), [] as [PathBuf; 0], "{skip}");
    }
}

#[test]
fn a_process_without_file_descriptors_judges_no_log() {
    let (fs, all) = killed(3);
    let before = fs.files();
    drop(open(&fs.kill(), Durability::Disk));
    for skip in 0..6 {
        let fs = fs.kill();
        fs.fail(Call::Open, skip, Fault::NoFiles);
        let refused = crate::writer::try_open(&fs, Durability::Disk);
        assert_eq!(refused.err().and_then(|error| error.raw_os_error()), Some(24), "{skip}");
        assert_eq!(fs.files(), before, "{skip}");
        let _ = open(&fs, Durability::Disk);
        assert_eq!(events(&fs), all);
    }
}

#[test]
fn a_log_of_many_segments_needs_few_files_open_at_a_time() {
    let (fs, all) = killed(60);
    assert!(files(&fs, "log").len() > 60);
    let _ = open(&fs, Durability::Disk);
    assert_eq!(events(&fs), all);
    assert!(fs.open_files_most() < 8, "{} open at a time", fs.open_files_most());
}
