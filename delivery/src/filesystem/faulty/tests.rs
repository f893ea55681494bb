use std::collections::BTreeSet;
use std::io::ErrorKind;

use super::*;

const SEEDS: u64 = 300;

/// A file system with one directory and one file in it, all of it on the disk.
fn with_file(content: &[u8]) -> (FaultyFs, PathBuf, Arc<dyn File>) {
    let fs = FaultyFs::new(1);
    let path = PathBuf::from("/data/f");
    fs.put(&path, content);
    let file = fs.open(&path, true).unwrap();
    (fs, path, file)
}

fn crashed(fs: &FaultyFs, path: &Path) -> BTreeSet<Option<Vec<u8>>> {
    (0..SEEDS).map(|seed| fs.crash(seed).content(path)).collect()
}

#[test]
fn a_synced_file_with_a_synced_name_survives_every_crash() {
    let fs = FaultyFs::new(1);
    let path = Path::new("/data/f");
    fs.create_dir_all(Path::new("/data")).unwrap();
    fs.sync_dir(Path::new("/")).unwrap();
    let file = fs.create(path).unwrap();
    file.write_at(0, &[b"ab", b"cd"]).unwrap();
    file.sync().unwrap();
    fs.sync_dir(Path::new("/data")).unwrap();
    assert_eq!(crashed(&fs, path), BTreeSet::from([Some(b"abcd".to_vec())]));
}

#[test]
fn the_sync_of_a_file_does_not_save_its_name() {
    let fs = FaultyFs::new(1);
    let path = Path::new("/data/f");
    fs.put(Path::new("/data/other"), b"");
    let file = fs.create(path).unwrap();
    file.write_at(0, &[b"ab"]).unwrap();
    file.sync().unwrap();
    assert_eq!(crashed(&fs, path), BTreeSet::from([None, Some(b"ab".to_vec())]));
}

#[test]
fn a_directory_whose_parent_was_not_synced_takes_its_files_with_it() {
    let fs = FaultyFs::new(1);
    fs.create_dir_all(Path::new("/a/b")).unwrap();
    let file = fs.create(Path::new("/a/b/f")).unwrap();
    file.sync().unwrap();
    fs.sync_dir(Path::new("/a/b")).unwrap();
    fs.sync_dir(Path::new("/a")).unwrap();
    assert!(crashed(&fs, Path::new("/a/b/f")).contains(&None));
    fs.sync_dir(Path::new("/")).unwrap();
    assert!(!crashed(&fs, Path::new("/a/b/f")).contains(&None));
}

#[test]
fn a_kill_keeps_what_was_written_and_a_later_crash_may_still_lose_it() {
    let (fs, path, file) = with_file(b"old");
    file.write_at(0, &[b"new"]).unwrap();
    let next = fs.kill();
    assert_eq!(next.content(&path).unwrap(), b"new");
    assert_eq!(crashed(&next, &path), BTreeSet::from([Some(b"old".to_vec()), Some(b"new".to_vec())]));
    file.write_at(0, &[b"dead"]).unwrap();
    assert_eq!(next.content(&path).unwrap(), b"new");
}

#[test]
fn unsynced_writes_are_lost_kept_and_cut_at_sectors_but_never_below_what_was_synced() {
    let (fs, path, file) = with_file(&[1; 700]);
    file.write_at(700, &[&[2; 2000]]).unwrap();
    let worlds = crashed(&fs, &path);
    let lens: BTreeSet<usize> = worlds.iter().flatten().map(Vec::len).collect();
    for world in worlds.iter().flatten() {
        assert_eq!(world[..700], [1; 700]);
        for (index, byte) in world.iter().enumerate().skip(700) {
            let sector = &world[index / SECTOR_BYTES * SECTOR_BYTES..][..1];
            assert!(matches!(byte, 0 | 2), "{byte} at {index}, sector starts {sector:?}");
        }
    }
    assert!(lens.is_superset(&BTreeSet::from([700, 1024, 1536, 2048, 2560, 2700])), "{lens:?}");
    assert!(worlds.iter().flatten().any(|world| world.len() == 2700 && world[2699] == 0), "length without data");
}

#[test]
fn of_two_unsynced_writes_either_may_survive_alone_unless_they_share_a_sector() {
    let (fs, path, file) = with_file(&[0; 2048]);
    file.write_at(0, &[b"a"]).unwrap();
    file.write_at(1024, &[b"b"]).unwrap();
    let seen: BTreeSet<(u8, u8)> = crashed(&fs, &path).iter().flatten().map(|world| (world[0], world[1024])).collect();
    assert_eq!(seen, BTreeSet::from([(0, 0), (0, b'b'), (b'a', 0), (b'a', b'b')]));

    let (fs, path, file) = with_file(&[0; 2048]);
    file.write_at(0, &[b"a"]).unwrap();
    file.write_at(1, &[b"b"]).unwrap();
    let seen: BTreeSet<(u8, u8)> = crashed(&fs, &path).iter().flatten().map(|world| (world[0], world[1])).collect();
    assert_eq!(seen, BTreeSet::from([(0, 0), (b'a', 0), (b'a', b'b')]));
}

#[test]
fn two_unsynced_renames_may_change_places() {
    let (fs, _, _file) = with_file(b"one");
    fs.put(Path::new("/data/g"), b"two");
    fs.rename(Path::new("/data/f"), Path::new("/data/f2")).unwrap();
    fs.rename(Path::new("/data/g"), Path::new("/data/g2")).unwrap();
    let worlds: BTreeSet<Vec<PathBuf>> =
        (0..SEEDS).map(|seed| fs.crash(seed).files().into_iter().map(|(path, _)| path).collect()).collect();
    assert_eq!(worlds.len(), 4, "{worlds:?}");
    assert!(worlds.contains(&vec![PathBuf::from("/data/f"), PathBuf::from("/data/g2")]));
}

#[test]
fn a_change_of_a_name_never_survives_without_those_before_it() {
    let (fs, path, _file) = with_file(b"one");
    fs.remove(&path).unwrap();
    let file = fs.create(&path).unwrap();
    file.write_at(0, &[b"two"]).unwrap();
    file.sync().unwrap();
    fs.rename(&path, Path::new("/data/g")).unwrap();
    for seed in 0..SEEDS {
        let world = fs.crash(seed);
        if let Some(moved) = world.content(Path::new("/data/g")) {
            assert_eq!((moved, world.content(&path)), (b"two".to_vec(), None));
        }
    }
}

#[test]
fn a_failed_sync_may_lose_what_a_second_sync_calls_safe() {
    let mut worlds = BTreeSet::new();
    let mut seen_by_readers = BTreeSet::new();
    for seed in 0..100 {
        let fs = FaultyFs::new(seed);
        fs.put(Path::new("/f"), b"old");
        let file = fs.open(Path::new("/f"), true).unwrap();
        file.write_at(0, &[b"new"]).unwrap();
        fs.set_faults(Faults { drops_cache: true, ..Faults::default() });
        fs.fail(Call::Sync, 0, Fault::Io);
        assert_eq!(file.sync().unwrap_err().raw_os_error(), Some(Errno::IO.raw_os_error()));
        file.sync().unwrap();
        worlds.insert(fs.crash(seed).content(Path::new("/f")).unwrap());
        seen_by_readers.insert(fs.content(Path::new("/f")).unwrap());
    }
    let both = BTreeSet::from([b"old".to_vec(), b"new".to_vec()]);
    assert_eq!((worlds, seen_by_readers), (both.clone(), both));
}

#[test]
fn a_full_disk_takes_what_fits_and_has_room_again_after_a_removal() {
    let (fs, path, file) = with_file(b"1234");
    fs.set_faults(Faults { capacity: Some(10), ..Faults::default() });
    assert_eq!(fs.free_bytes(&path).unwrap(), 6);
    let error = file.write_at(4, &[b"56", b"789abcdef"]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    assert_eq!(fs.content(&path).unwrap(), b"123456789a");
    file.write_at(0, &[b"overwriting"]).unwrap_err();
    file.write_at(0, &[b"fits"]).unwrap();
    fs.remove(&path).unwrap();
    assert_eq!(fs.free_bytes(&path).unwrap(), 0, "an open file keeps its bytes");
    drop(file);
    assert_eq!((fs.free_bytes(&path).unwrap(), fs.used_bytes()), (10, 0));
}

#[test]
fn a_failed_write_leaves_any_part_of_itself() {
    let lens: BTreeSet<usize> = (0..100)
        .map(|seed| {
            let fs = FaultyFs::new(seed);
            fs.set_faults(Faults { write: 1_000_000, ..Faults::default() });
            let file = fs.create(Path::new("f")).unwrap();
            file.write_at(0, &[b"abc"]).unwrap_err();
            assert_eq!(fs.counts().faults, 1);
            fs.content(Path::new("f")).unwrap().len()
        })
        .collect();
    assert_eq!(lens, BTreeSet::from([0, 1, 2, 3]));
}

#[test]
fn an_ordered_fault_comes_once_and_on_time() {
    let (fs, _, file) = with_file(b"abc");
    fs.fail(Call::Read, 1, Fault::Io);
    let results: Vec<bool> = (0..4).map(|_| file.read_at(0, &mut [0; 3]).is_ok()).collect();
    assert_eq!(results, [true, false, true, true]);
    assert_eq!((fs.counts().reads, fs.counts().read_bytes), (4, 9));
}

#[test]
fn a_stopped_machine_does_nothing_more() {
    let (fs, path, file) = with_file(b"");
    fs.stop_after(2);
    file.write_at(0, &[b"a"]).unwrap();
    file.sync().unwrap();
    assert!(!fs.stopped());
    file.write_at(1, &[b"b"]).unwrap_err();
    assert!(fs.stopped());
    file.write_at(2, &[b"c"]).unwrap_err();
    fs.create(Path::new("/data/g")).unwrap_err();
    file.read_at(0, &mut [0]).unwrap_err();
    assert_eq!(fs.files().len(), 1);
    let worlds = crashed(&fs, &path);
    assert!(worlds.is_subset(&BTreeSet::from([Some(b"a".to_vec()), Some(b"ab".to_vec()), Some(b"a\0".to_vec())])));
    assert!(worlds.contains(&Some(b"a".to_vec())));
}

#[test]
fn the_last_act_of_a_stopped_machine_may_have_been_done() {
    let (fs, path, _file) = with_file(b"x");
    fs.stop_after(0);
    fs.rename(&path, Path::new("/data/g")).unwrap_err();
    let worlds = crashed(&fs, Path::new("/data/g"));
    assert_eq!(worlds, BTreeSet::from([None, Some(b"x".to_vec())]));
}

#[test]
fn harm_by_hand_is_on_the_disk() {
    let (fs, path, _file) = with_file(b"abc");
    assert!(fs.flip_bit(&path, 1, 0));
    assert!(!fs.flip_bit(&path, 3, 0));
    assert!(fs.cut(&path, 2));
    assert!(!fs.cut(&path, 2));
    assert_eq!(crashed(&fs, &path), BTreeSet::from([Some(b"ac".to_vec())]));
}

#[test]
fn an_unlinked_file_is_read_through_its_handle_and_gone_after_that() {
    let (fs, path, file) = with_file(b"abc");
    fs.remove(&path).unwrap();
    fs.sync_dir(Path::new("/data")).unwrap();
    let mut into = [0; 8];
    assert_eq!(file.read_at(1, &mut into).unwrap(), 2);
    assert_eq!(&into[..2], b"bc");
    assert_eq!(fs.open(&path, false).unwrap_err().kind(), ErrorKind::NotFound);
    drop(file);
    assert!(fs.disk().inodes.is_empty());
}

#[test]
fn names_are_refused_as_a_real_file_system_does() {
    let (fs, path, _file) = with_file(b"abc");
    assert_eq!(fs.create(&path).unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(fs.create(Path::new("/no/f")).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(fs.create_dir_all(&path).unwrap_err().kind(), ErrorKind::NotADirectory);
    assert_eq!(fs.list(Path::new("/no")).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(fs.list(Path::new("/data")).unwrap(), std::slice::from_ref(&path));
    assert!(fs.open(&path, false).unwrap().write_at(0, &[b"x"]).is_err());
}

#[test]
fn the_same_seed_and_calls_give_the_same_disk() {
    let run = |seed: u64| {
        let fs = FaultyFs::new(seed);
        fs.set_faults(Faults { write: 200_000, sync: 300_000, names: 100_000, ..Faults::default() });
        let mut rng = SplitMix64::new(7);
        let files: Vec<_> = (0..20).filter_map(|index| fs.create(&PathBuf::from(format!("{index}"))).ok()).collect();
        for _ in 0..200 {
            let file = &files[rng.below(files.len() as u64) as usize];
            let _ignored = file.write_at(rng.below(3000), &[&[rng.draw() as u8; 600]]);
            let _ignored = rng.chance(1, 5).then(|| file.sync());
        }
        let world = fs.crash(seed);
        world.files().into_iter().map(|(path, _)| (world.content(&path), path)).collect::<Vec<_>>()
    };
    assert_eq!(run(3), run(3));
    assert_ne!(run(3), run(4));
}

#[test]
fn the_same_calls_leave_the_same_content_as_on_a_real_file_system() {
    let dir = tempfile::tempdir().unwrap();
    let fake = FaultyFs::new(1);
    fake.put(&dir.path().join("x"), b"");
    let real = crate::filesystem::RealFs;
    let play = |fs: &dyn Filesystem| {
        let mut rng = SplitMix64::new(11);
        let (f, g) = (dir.path().join("f"), dir.path().join("g"));
        let file = fs.create(&f).unwrap();
        for _ in 0..100 {
            let bytes = vec![rng.draw() as u8; rng.below(900) as usize];
            file.write_at(rng.below(4000), &[&bytes, b"-"]).unwrap();
            if rng.chance(1, 4) {
                file.truncate(rng.below(4000)).unwrap();
            }
        }
        fs.rename(&f, &g).unwrap();
        let mut content = vec![0; 10_000];
        let count = fs.open(&g, false).unwrap().read_at(0, &mut content).unwrap();
        (content, count, file.len().unwrap(), fs.open(&f, false).unwrap_err().kind())
    };
    assert_eq!(play(&fake), play(&real));
}
