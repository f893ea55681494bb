//! Reads what came out.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// Returns the lines of an NDJSON body.
pub fn lines(body: &[u8]) -> Vec<String> {
    String::from_utf8(body.to_vec()).expect("UTF-8").lines().map(str::to_owned).collect()
}

/// Returns every file below a folder, sorted.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found.sort();
    found
}

/// Returns the lines of every NDJSON file below a folder, gzip read as text, file by file.
pub fn lines_below(folder: &Path) -> Vec<String> {
    let mut all = Vec::new();
    for file in files(folder) {
        if !file.to_string_lossy().contains(".ndjson") {
            continue;
        }
        let bytes = fs::read(&file).expect("the file is there");
        all.extend(lines(&unpacked(&file, bytes)));
    }
    all
}

/// Returns what a file or object holds whose name says how it is compressed: gzip as text, all else as it is.
pub fn unpacked(name: &Path, bytes: Vec<u8>) -> Vec<u8> {
    if name.extension().is_none_or(|extension| extension != "gz") {
        return bytes;
    }
    let mut plain = Vec::new();
    flate2::read::MultiGzDecoder::new(bytes.as_slice()).read_to_end(&mut plain).expect("whole gzip members");
    plain
}

/// Counts the events by a field of theirs.
pub fn count_by(lines: &[String], field: &str) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for line in lines {
        let event: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line:?}"));
        let value = match &event[field] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        *counts.entry(value).or_default() += 1;
    }
    counts
}

/// Asserts that what came out is what was acknowledged, each once, and nothing that was not sent.
pub fn assert_exactly_once(lines: &[String], field: &str, acknowledged: &[String], sent: &[String]) {
    let counts = count_by(lines, field);
    let doubled: Vec<_> = counts.iter().filter(|(_, count)| **count != 1).take(5).collect();
    assert!(doubled.is_empty(), "more than once: {doubled:?}");
    let missing: Vec<_> = acknowledged.iter().filter(|id| !counts.contains_key(*id)).take(5).collect();
    assert!(missing.is_empty(), "acknowledged and not delivered: {missing:?}");
    let known: std::collections::BTreeSet<&String> = sent.iter().collect();
    let invented: Vec<_> = counts.keys().filter(|id| !known.contains(id)).take(5).collect();
    assert!(invented.is_empty(), "delivered and never sent: {invented:?}");
}
