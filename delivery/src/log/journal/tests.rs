use super::*;
use crate::filesystem::RealFs;

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
    let newest =
        Progress { plans, cursor: 9, began: Some(2), elsewhere: 3, resolved: vec![(10, 11)], left, ..newer.clone() };
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
