//! A log that a program of a later format wrote.

use std::io;
use std::path::PathBuf;

use spillway_delivery::filesystem::FaultyFs;
use spillway_delivery::settings::{Durability, LogSettings};

use crate::reading::append;
use crate::subject::{self, DIR, Subject};

/// Where the version's digit stands in a segment.
const DIGIT: usize = 7;

fn held(fs: &FaultyFs) -> Vec<(PathBuf, Vec<u8>)> {
    let paths = fs.files().into_iter().map(|(path, _)| path).filter(|path| path.starts_with(DIR));
    paths.filter_map(|path| fs.content(&path).map(|content| (path, content))).collect()
}

fn segments(fs: &FaultyFs) -> Vec<(PathBuf, Vec<u8>)> {
    held(fs).into_iter().filter(|(path, _)| path.extension().is_some_and(|end| end == "log")).collect()
}

/// The segment as a program of version 3 begins it: with a checksum over the magic and the header's body.
fn of_version_3(mut segment: Vec<u8>) -> Vec<u8> {
    assert_eq!(segment[DIGIT], b'2');
    segment[DIGIT] = b'3';
    let len = u32::from_le_bytes([segment[8], segment[9], segment[10], segment[11]]) as usize;
    let crc = crc32c::crc32c_append(crc32c::crc32c(&segment[..8]), &segment[16..16 + len]);
    segment[12..16].copy_from_slice(&crc.to_le_bytes());
    segment
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
    fs.put(path, &of_version_3(content.clone()));
    // What that program had not finished is its own as well.
    fs.put(&path.with_extension("new"), b"begun");
    fs.put(&path.with_extension("spare"), b"kept");
    let before = held(&fs);

    let error = Subject::open(&fs, settings(), 2).expect_err("it is of a later format");
    assert_eq!(error.kind(), io::ErrorKind::Unsupported);
    assert!(error.to_string().contains("has format version 3 and this program reads version 2"), "{error}");
    assert_eq!(held(&fs), before, "everything stays where it is, and nothing is added");

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
    fs.put(&path, &content);
    let subject = Subject::open(&fs, settings(), 2).unwrap();
    assert_eq!(subject.log.damaged(), 1);
}
