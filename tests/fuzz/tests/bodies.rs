//! The bodies on their corpus, and on what comes of it by change: always, without a fuzzer.

#![expect(clippy::unwrap_used, reason = "a test, also outside its test functions")]

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proptest::sample::{Index, select};
use spillway_fuzz::{BODIES, BYTES_MAX, Body};

fn folder(body: &Body) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(body.name)
}

fn corpus(body: &Body) -> Vec<Vec<u8>> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder(body)).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

#[test]
fn every_body_has_a_corpus_a_target_and_holds_for_it() {
    let targets = Path::new(env!("CARGO_MANIFEST_DIR")).join("targets");
    for body in BODIES {
        let corpus = corpus(body);
        assert!(corpus.len() >= 3, "{}", body.name);
        assert!(corpus.iter().map(Vec::len).sum::<usize>() <= 4 * BYTES_MAX, "{} is to be small", body.name);
        corpus.iter().for_each(|bytes| (body.check)(bytes));
        assert!(targets.join(format!("{}.rs", body.name)).is_file(), "{}", body.name);
    }
    let folders = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")).unwrap();
    assert_eq!(folders.count(), BODIES.len());
}

/// One change: a byte replaced, put in or taken out, a piece repeated, the end cut off, or a piece of another input put in.
#[derive(Debug, Clone)]
struct Change {
    kind: u8,
    at: Index,
    length: usize,
    byte: u8,
    other: Index,
}

fn change() -> impl Strategy<Value = Change> {
    let likely = b"{}[]:,\"\\u0d8Ee+-. \n\t'()!&|=<>#*%@\x00\x1f\x7f\x80\xc3\xa9\xed\xff".to_vec();
    let byte = prop_oneof![select(likely), any::<u8>()];
    let parts = (0..7_u8, any::<Index>(), 1..40_usize, byte, any::<Index>());
    parts.prop_map(|(kind, at, length, byte, other)| Change { kind, at, length, byte, other })
}

fn changed(mut bytes: Vec<u8>, changes: &[Change], corpus: &[Vec<u8>]) -> Vec<u8> {
    for Change { kind, at, length, byte, other } in changes {
        let at = at.index(bytes.len() + 1);
        let end = (at + length).min(bytes.len());
        match kind {
            0 => bytes.insert(at, *byte),
            1 if at < bytes.len() => bytes[at] = *byte,
            2 => drop(bytes.drain(at..end)),
            3 => {
                let piece = bytes[at..end].to_vec();
                (0..4).for_each(|_| drop(bytes.splice(at..at, piece.clone())));
            }
            4 => bytes.truncate(at.max(bytes.len() / 2)),
            _ => {
                let other = &corpus[other.index(corpus.len())];
                let from = at.min(other.len());
                let piece = other[from..(from + length).min(other.len())].to_vec();
                drop(bytes.splice(at..at, piece));
            }
        }
        bytes.truncate(BYTES_MAX);
    }
    bytes
}

fn holds(name: &str, cases: u32) {
    let body = BODIES.iter().find(|body| body.name == name).unwrap();
    let corpus = corpus(body);
    let input = (any::<Index>(), prop::collection::vec(change(), 0..12));
    proptest!(ProptestConfig::with_cases(cases), |((seed, changes) in input)| {
        (body.check)(&changed(corpus[seed.index(corpus.len())].clone(), &changes, &corpus));
    });
}

#[test]
fn conditions_hold_for_any_text() {
    holds("condition", 1000);
}

#[test]
fn json_holds_for_any_bytes() {
    holds("json", 4000);
}

#[test]
fn a_log_holds_whatever_becomes_of_its_files() {
    holds("log", 400);
}

#[test]
fn manifests_hold_for_any_text() {
    holds("manifest", 300);
}

#[test]
fn transforms_hold_for_any_event() {
    holds("splice", 3000);
}
