//! A log that a program of a later format wrote.

use std::io;
use std::path::{Path, PathBuf};

use spillway_delivery::filesystem::FaultyFs;
use spillway_delivery::settings::{Durability, LogSettings};

use crate::reading::append;
use crate::subject::{self, DIR, Subject};

/// Where the version's digit stands in a segment.
const DIGIT: usize = 7;

fn segments(fs: &FaultyFs) -> Vec<(PathBuf, Vec<u8>)> {
    let of_log = |path: &PathBuf| path.starts_with(DIR) && path.extension().is_some_and(|end| end == "log");
    let paths = fs.files().into_iter().map(|(path, _)| path).filter(of_log);
    paths.filter_map(|path| fs.content(&path).map(|content| (path, content))).collect()
}

#[tokio::test(start_paused = true)]
async fn a_log_of_a_later_format_is_not_opened_and_not_touched() {
    let fs = subject::disk(1);
    let settings = || LogSettings { bytes_max: 16 << 20, ..subject::settings(Durability::Disk) };
    let subject = Subject::open(&fs, settings(), 1).unwrap();
    append(&subject.log, 0..3).await;
    let end = subject.log.visible_end();
    subject.close().await.unwrap();
    let own = segments(&fs);
    let (path, content) = own.last().unwrap();
    let mut foreign = content.clone();
    assert_eq!(foreign[DIGIT], b'2');
    foreign[DIGIT] = b'3';
    fs.put(path, &foreign);
    let before = segments(&fs);

    let error = Subject::open(&fs, settings(), 2).expect_err("it is of a later format");
    assert_eq!(error.kind(), io::ErrorKind::Unsupported);
    assert!(error.to_string().contains("has format version 3 and this program reads version 2"), "{error}");
    assert_eq!(segments(&fs), before, "everything stays where it is");
    assert!(fs.files().iter().all(|(path, _)| !path.starts_with(Path::new(DIR).join("quarantine"))));

    // The program that wrote it finds all of it.
    fs.put(path, content);
    let subject = Subject::open(&fs, settings(), 3).unwrap();
    assert!(subject.log.visible_end() >= end);
    assert_eq!(subject.log.damaged(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_damaged_digit_is_damage_and_no_later_format() {
    let fs = subject::disk(1);
    let settings = || LogSettings { bytes_max: 16 << 20, ..subject::settings(Durability::Disk) };
    let subject = Subject::open(&fs, settings(), 1).unwrap();
    append(&subject.log, 0..3).await;
    subject.close().await.unwrap();
    let (path, mut content) = segments(&fs).pop().unwrap();
    content[DIGIT] = b'3';
    // The header itself is damaged as well, so that nobody wrote it like this.
    content[20] ^= 1;
    fs.put(&path, &content);
    let subject = Subject::open(&fs, settings(), 2).unwrap();
    assert_eq!(subject.log.damaged(), 1);
}
