//! The files against a model: whatever happens between, each event is there once.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use spillway_backends::{BackendSettings, build};
use spillway_delivery::backend::{Items, Mark, Outcome};

use crate::batches::{Chance, batch_at, context, cut_short, event, pod};
use crate::destinations::{files, parse, read};

const PODS: [&str; 3] = ["a", "b", "c"];

/// What the engine would remember: the mark and, with it, the cursor.
struct Stored {
    mark: Option<Mark>,
    cursor: u64,
}

/// When an event is received: one a second; where the clock steps, it goes back an hour every so many events.
fn seconds(number: u64, steps_every: Option<u64>) -> i64 {
    number as i64 - 3600 * steps_every.map_or(0, |every| number / every) as i64
}

fn settings(chance: &mut Chance) -> BackendSettings {
    let compression = ["None", "Gzip", "Zstd"][chance.below(3) as usize];
    let mut rotate = serde_json::json!({"maxBytes": 4096 + chance.below(3) * 30_000});
    if chance.below(2) == 0 {
        // Events come one a second.
        rotate["everySeconds"] = serde_json::json!(300 + chance.below(2) * 300);
    }
    BackendSettings::Filesystem(parse(serde_json::json!({
        "file": if chance.below(2) == 0 { "{namespace}/{origin.pod}/x.ndjson" } else { "{namespace}/{origin.pod}/{date}.{hour}.ndjson" },
        "compression": compression,
        "rotate": rotate,
    })))
}

/// A crash in the middle of a write: bytes behind what was committed.
fn tear(root: &Path, chance: &mut Chance) {
    for path in files(root) {
        if chance.below(3) == 0 && is_open(&path) {
            let mut file = std::fs::OpenOptions::new().append(true).open(path).unwrap();
            file.write_all(&b"{\"torn\":1}\n{\"to"[..chance.below(15) as usize]).unwrap();
        }
    }
}

/// Only files that may still grow can be torn: the last of each directory.
fn is_open(path: &Path) -> bool {
    files(path.parent().unwrap()).last().is_some_and(|last| last == path)
}

fn found(root: &Path) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for path in files(root) {
        let pod = path.parent().unwrap().file_name().unwrap().to_str().unwrap().to_owned();
        found.entry(pod).or_default().extend(read(&path));
    }
    found.retain(|_, lines| !lines.is_empty());
    found
}

fn expected(until: u64) -> BTreeMap<String, Vec<String>> {
    let mut expected: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for number in 0..until {
        expected.entry(PODS[(number / 5 % 3) as usize].to_owned()).or_default().push(event(number));
    }
    expected
}

async fn run(seed: u64) {
    let chance = &mut Chance::new(seed);
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("out");
    let mut settings = settings(chance);
    let steps_every = [None, Some(300), Some(900)][chance.below(3) as usize];
    // Where it steps, what is of one window of time stands together: each event once, and not all in one order.
    let ordered = |mut found: BTreeMap<String, Vec<String>>| {
        found.values_mut().filter(|_| steps_every.is_some()).for_each(|lines| lines.sort());
        found
    };
    let make = |settings: &BackendSettings| build(settings, context(directory.path())).unwrap();
    let mut backend = make(&settings);
    let mut stored = Stored { mark: None, cursor: 0 };
    let mut cursor = 0;
    backend.open(None).await.unwrap();
    for _ in 0..60 {
        match chance.below(10) {
            0..=4 => {
                let numbers: Vec<u64> = (cursor..cursor + 1 + chance.below(400)).collect();
                let runs: Vec<_> = numbers
                    .chunk_by(|a, b| a / 5 == b / 5)
                    .map(|run| (pod(PODS[(run[0] / 5 % 3) as usize]), run.to_vec()))
                    .collect();
                let batch = batch_at(&runs, "k", |number| seconds(number, steps_every));
                let polls = [u64::MAX, 1, 2, 3][chance.below(4) as usize];
                if let Some(sent) = cut_short(backend.send(&batch), polls).await {
                    assert_eq!(sent, Ok(Items::All(Outcome::Delivered)));
                    cursor += numbers.len() as u64;
                }
            }
            5 | 6 => {
                let mark = match chance.below(2) {
                    0 => backend.commit().await.unwrap(),
                    _ => backend.checkpoint().await.unwrap(),
                };
                // The process may die between the commit and the storing of its mark.
                if chance.below(4) > 0 {
                    stored = Stored { mark, cursor };
                    continue;
                }
                crash(&mut backend, &stored, &mut cursor, make(&settings)).await;
            }
            7 => {
                if let BackendSettings::Filesystem(files) = &mut settings {
                    files.rotate.max_bytes = 4096 + chance.below(3) * 30_000;
                }
                crash(&mut backend, &stored, &mut cursor, make(&settings)).await;
            }
            _ => {
                // The backend must be gone before its files are torn, as a process would be.
                backend.close().await;
                tear(&root, chance);
                crash(&mut backend, &stored, &mut cursor, make(&settings)).await;
                assert!(ordered(found(&root)) == ordered(expected(cursor)), "seed {seed}: after a crash at {cursor}");
            }
        }
    }
    backend.commit().await.unwrap();
    assert!(ordered(found(&root)) == ordered(expected(cursor)), "seed {seed}: at the end, {cursor}");
}

async fn crash(
    backend: &mut std::sync::Arc<dyn spillway_delivery::backend::Backend>,
    stored: &Stored,
    cursor: &mut u64,
    fresh: std::sync::Arc<dyn spillway_delivery::backend::Backend>,
) {
    // The step of a cut-off batch may still run on its thread; a process that dies takes it along, so wait for it.
    backend.close().await;
    *backend = fresh;
    *cursor = stored.cursor;
    backend.open(stored.mark.clone()).await.unwrap();
}

#[tokio::test]
async fn crashes_cancels_and_torn_tails_leave_each_event_once() {
    let fresh = u64::from(std::process::id());
    for seed in (1..=40).chain([fresh]) {
        run(seed).await;
    }
}
