use bytes::Bytes;

use super::*;
use crate::filesystem::{Call, Fault, FaultyFs, RealFs};

fn key(route: &str) -> DeliveryKey {
    DeliveryKey { route: route.into(), backend_uid: "b".into() }
}

#[test]
fn ranges_merge_and_the_cursor_moves_over_them() {
    let mut progress = Progress { cursor: 1, ..Progress::default() };
    progress.resolve(5, 7);
    progress.resolve(9, 10);
    progress.resolve(3, 5);
    assert_eq!(progress.resolved, [(3, 7), (9, 10)]);
    assert!(progress.is_resolved(6) && !progress.is_resolved(7) && !progress.is_resolved(2));
    progress.resolve(1, 4);
    assert_eq!((progress.cursor, progress.resolved.as_slice()), (7, [(9, 10)].as_slice()));
    progress.resolve(2, 20);
    assert_eq!((progress.cursor, progress.resolved.is_empty()), (20, true));
}

#[test]
fn the_newest_progress_comes_back_over_many_turns() {
    let dir = tempfile::tempdir().unwrap();
    let fs: Arc<dyn Filesystem> = Arc::new(RealFs);
    let mut journal = Journal::open(fs.clone(), dir.path());
    let mut progress = Progress { mark: Some(Bytes::from(vec![7; 5000])), ..Progress::default() };
    for cursor in 1..=300 {
        progress.cursor = cursor;
        progress.drop_events("x", 1, cursor);
        journal.save(&key("r"), &progress, false).unwrap();
        if cursor % 60 == 0 {
            journal = Journal::open(fs.clone(), dir.path());
            assert_eq!(journal.progress().get(&key("r")), Some(&progress));
        }
    }
    journal.forget(&key("r")).unwrap();
    assert!(Journal::open(fs, dir.path()).progress().is_empty());
}

#[test]
fn records_of_version_1_are_read_and_unknown_tags_skipped() {
    let dir = tempfile::tempdir().unwrap();
    let fs: Arc<dyn Filesystem> = Arc::new(RealFs);
    let old = Progress { cursor: 7, delivered: 6, resolved: vec![(9, 11)], ..Progress::default() };
    let key_bytes = |out: &mut Vec<u8>| {
        out.put_bytes(b"r");
        out.put_bytes(b"b");
    };
    let mut snapshot = vec![KIND_SNAPSHOT_V1];
    snapshot.put_u32(1);
    key_bytes(&mut snapshot);
    old.write(&mut snapshot);
    let newer = Progress { cursor: 8, ..old.clone() };
    let mut one = vec![KIND_ONE_V1];
    key_bytes(&mut one);
    newer.write(&mut one);
    let left = vec![Left { first: 12, end: 14, for_ms: 5 }];
    let plan = |first, encoding| Plan { first, end: first + 1, key: "k".into(), encoding };
    let plans = vec![plan(14, 0), plan(15, u64::MAX)];
    let newest = Progress {
        plans,
        cursor: 9,
        began: Some(2),
        elsewhere: 3,
        resolved: vec![(10, 11)],
        left,
        grouped: true,
        ..newer.clone()
    };
    let mut tagged = vec![KIND_ONE];
    key_bytes(&mut tagged);
    newest.write(&mut tagged);
    let mut tags = vec![200];
    tags.put_bytes(b"of a later version");
    newest.write_tags(&mut tags);
    tagged.put_bytes(&tags);
    for (records, expected) in
        [(vec![&snapshot], &old), (vec![&snapshot, &one], &newer), (vec![&snapshot, &one, &tagged], &newest)]
    {
        let bytes: Vec<u8> = records.iter().flat_map(|body| encode_record(3, body)).collect();
        std::fs::write(dir.path().join("cursors.a"), bytes).unwrap();
        let mut journal = Journal::open(fs.clone(), dir.path());
        assert_eq!(journal.progress().get(&key("r")), Some(expected));
        // And what is read is written and read again.
        journal.save(&key("r"), expected, true).unwrap();
        assert_eq!(Journal::open(fs.clone(), dir.path()).progress().get(&key("r")), Some(expected));
        std::fs::remove_file(dir.path().join("cursors.b")).unwrap();
    }
}

#[test]
fn a_torn_record_leaves_the_one_before() {
    let dir = tempfile::tempdir().unwrap();
    let fs: Arc<dyn Filesystem> = Arc::new(RealFs);
    let mut journal = Journal::open(fs.clone(), dir.path());
    let at = |cursor| Progress { cursor, ..Progress::default() };
    journal.save(&key("r"), &at(1), true).unwrap();
    let end = journal.end;
    journal.save(&key("r"), &at(2), true).unwrap();
    let slot = &journal.slots[journal.current];
    slot.file.as_ref().unwrap().write_at(end + 20, &[b"xxxx"]).unwrap();
    assert_eq!(Journal::open(fs, dir.path()).progress()[&key("r")].cursor, 1);
}

/// A journal of two deliveries whose slots have both been turned to; returns where the last snapshot ended.
fn turned(fs: &Arc<dyn Filesystem>, dir: &Path) -> (PathBuf, u64) {
    let at = |cursor| Progress { cursor, ..Progress::default() };
    let mut journal = Journal::open(fs.clone(), dir);
    for cursor in 1..=5 {
        journal.save(&key("quiet"), &at(cursor), true).unwrap();
        journal.save(&key("busy"), &at(cursor), true).unwrap();
    }
    journal.turn().unwrap();
    let (path, end) = (journal.slots[journal.current].path(), journal.end);
    for cursor in 6..=9 {
        journal.save(&key("busy"), &at(cursor), true).unwrap();
    }
    (path, end)
}

fn cursors(journal: &Journal) -> [u64; 2] {
    ["quiet", "busy"].map(|route| journal.progress()[&key(route)].cursor)
}

fn flip(path: &Path, at: u64) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at as usize] ^= 4;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn damage_costs_no_truth_that_stands_behind_it() {
    let fs: Arc<dyn Filesystem> = Arc::new(RealFs);
    // In the snapshot, in its length, in the first record behind it, in that one's length.
    for (of_snapshot, offset) in [(true, 30), (true, 1), (false, 30), (false, 1)] {
        let dir = tempfile::tempdir().unwrap();
        let (path, end) = turned(&fs, dir.path());
        flip(&path, if of_snapshot { offset } else { end + offset });
        let mut journal = Journal::open(fs.clone(), dir.path());
        assert_eq!((cursors(&journal), journal.damaged()), ([5, 9], 1), "{of_snapshot} {offset}");
        // Nothing that stands there already is taken for what is written next.
        journal.save(&key("quiet"), &Progress { cursor: 7, ..Progress::default() }, true).unwrap();
        let again = Journal::open(fs.clone(), dir.path());
        assert_eq!((cursors(&again), again.damaged()), ([7, 9], 0), "{of_snapshot} {offset}");
    }
}

#[test]
fn the_whole_slot_stays_until_a_snapshot_stands_in_the_damaged_one() {
    let fs: Arc<dyn Filesystem> = Arc::new(RealFs);
    let dir = tempfile::tempdir().unwrap();
    let (damaged, _) = turned(&fs, dir.path());
    flip(&damaged, 30);
    let journal = Journal::open(fs.clone(), dir.path());
    assert_ne!(journal.slots[journal.current].path(), damaged, "the next snapshot goes into the damaged one");
}

#[test]
fn a_snapshot_that_was_torn_is_no_damage_and_its_slot_is_tried_again() {
    let fs: Arc<dyn Filesystem> = Arc::new(RealFs);
    let dir = tempfile::tempdir().unwrap();
    let at = |cursor| Progress { cursor, ..Progress::default() };
    let mut journal = Journal::open(fs.clone(), dir.path());
    journal.save(&key("r"), &at(1), true).unwrap();
    let whole = journal.slots[journal.current].path();
    journal.turn().unwrap();
    let torn = journal.slots[journal.current].path();
    let bytes = std::fs::read(&torn).unwrap();
    std::fs::write(&torn, [&bytes[..30], &vec![0; bytes.len() - 30]].concat()).unwrap();
    let journal = Journal::open(fs, dir.path());
    assert_eq!((journal.progress()[&key("r")].cursor, journal.damaged()), (1, 0));
    assert_eq!(journal.slots[journal.current].path(), whole);
}

#[test]
fn a_slot_is_asked_for_again_and_what_a_process_lacks_is_no_damage() {
    let fs = FaultyFs::new(1);
    fs.put(Path::new("/log/x"), b"");
    let (dir, at) = (Path::new("/log"), |cursor| Progress { cursor, ..Progress::default() });
    let disk: Arc<dyn Filesystem> = Arc::new(fs.clone());
    let mut journal = Journal::open_to_save(disk.clone(), dir).unwrap();
    journal.save(&key("r"), &at(1), true).unwrap();
    for call in [Call::Open, Call::Read] {
        (0..6).for_each(|_| fs.fail(call, 0, Fault::Io));
        let journal = Journal::open_to_save(disk.clone(), dir).unwrap();
        assert_eq!((journal.progress()[&key("r")].cursor, journal.damaged()), (1, 0));
    }
    fs.fail(Call::Open, 0, Fault::NoFiles);
    assert_eq!(Journal::open_to_save(disk.clone(), dir).unwrap_err().raw_os_error(), Some(24));
    fs.spoil(&Journal::open(disk.clone(), dir).slots[journal.current].path(), 0..1);
    let journal = Journal::open_to_save(disk, dir).unwrap();
    assert_eq!((journal.progress().len(), journal.damaged()), (0, 1));
}

#[test]
fn records_of_a_start_that_could_not_read_a_slot_are_never_taken_for_those_of_the_next() {
    let fs = FaultyFs::new(1);
    fs.put(Path::new("/log/x"), b"");
    let (dir, at) = (Path::new("/log"), |cursor| Progress { cursor, ..Progress::default() });
    let disk: Arc<dyn Filesystem> = Arc::new(fs.clone());
    let mut journal = Journal::open_to_save(disk.clone(), dir).unwrap();
    journal.save(&key("r"), &at(1), true).unwrap();
    journal.turn().unwrap();
    let path = journal.slots[journal.current].path();
    drop(journal);
    // Twice the same slot cannot be read at the start, as often as it is asked for, and is written all the same.
    for (cursor, records) in [(10, 20), (100, 1)] {
        (0..8).for_each(|_| fs.fail(Call::Read, u64::from(path.ends_with("cursors.b")), Fault::Io));
        let mut journal = Journal::open_to_save(Arc::new(fs.clone()), dir).unwrap();
        (0..records).for_each(|more| journal.save(&key("r"), &at(cursor + more), true).unwrap());
    }
    assert_eq!(Journal::open(Arc::new(fs.kill()), dir).progress()[&key("r")].cursor, 100);
    (0..16).for_each(|_| fs.fail(Call::Read, 0, Fault::Io));
    let neither = Journal::open_to_save(Arc::new(fs.clone()), dir);
    assert_eq!(neither.unwrap_err().raw_os_error(), Some(5), "without any truth nothing is begun");
}
