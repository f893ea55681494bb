//! What one line becomes.

use std::sync::atomic::Ordering;

use super::world::{World, cri, everything};
use crate::sources::tail::run::Tails;

fn events_of(bytes: &[u8]) -> (World, Vec<serde_json::Value>) {
    let mut world = World::new(vec![everything(0)]);
    world.write("main", "0.log", bytes);
    world.settle();
    let events = world.logs[0].events.iter().map(|(_, event)| event.clone()).collect();
    (world, events)
}

#[test]
fn a_line_is_message_time_and_stream_and_its_origin_comes_from_the_path() {
    let mut world = World::new(vec![everything(0)]);
    world.write("main", "0.log", &cri(7, "stderr", "F", r#"{"a": "b\n"}"#));
    world.tailer.scan(world.now);
    let mut polled = std::iter::from_fn(|| world.tailer.poll(world.now));
    let outgoing = polled.find(|outgoing| !outgoing.batch.is_empty()).unwrap();
    let expected = r#"{"message":"{\"a\": \"b\\n\"}","time":"2026-01-01T01:01:00.000000007Z","stream":"stderr"}"#;
    assert_eq!(std::str::from_utf8(outgoing.batch.event(0)).unwrap(), expected);
    let origin = outgoing.batch.origin.fields();
    assert_eq!(origin.namespace.as_deref(), Some("fab12"));
    assert_eq!(origin.pod.as_deref(), Some("etch-0"));
    assert_eq!(origin.pod_uid.as_deref(), Some("6b1c-77"));
    assert_eq!(origin.container.as_deref(), Some("main"));
    assert_eq!(origin.source.as_deref(), Some("container-logs"));
}

#[test]
fn parts_are_joined_per_stream_even_within_a_character() {
    let mut bytes = Vec::new();
    let (wave, rest) = "🌊".as_bytes().split_at(2);
    bytes.extend_from_slice(b"2026-01-01T01:01:00.000000001Z stdout P a");
    bytes.extend_from_slice(wave);
    bytes.push(b'\n');
    bytes.extend(cri(2, "stderr", "P", "x"));
    bytes.extend_from_slice(b"2026-01-01T01:01:00.000000003Z stdout F ");
    bytes.extend_from_slice(rest);
    bytes.extend_from_slice(b"b\n");
    bytes.extend(cri(4, "stderr", "F", "y"));
    let (world, events) = events_of(&bytes);
    let texts: Vec<_> = events.iter().map(|event| (&event["message"], &event["stream"])).collect();
    assert_eq!(texts, [(&"a🌊b".into(), &"stdout".into()), (&"xy".into(), &"stderr".into())]);
    assert_eq!(events[0]["time"], "2026-01-01T01:01:00.000000001Z");
    assert_eq!(world.stats.partial_joined.load(Ordering::Relaxed), 2);
}

#[test]
fn hostile_bytes_are_an_event_and_counted() {
    let mut bytes = b"2026-01-01T01:01:00.000000001Z stdout F nul \0 bad \xff\xfe end\n".to_vec();
    bytes.extend_from_slice(b"\0\0\xc3\n\n");
    bytes.extend(cri(2, "stdout", "F", ""));
    let (world, events) = events_of(&bytes);
    let texts: Vec<_> = events.iter().map(|event| event["message"].as_str().unwrap()).collect();
    assert_eq!(texts, ["nul \0 bad \u{fffd}\u{fffd} end", "\0\0\u{fffd}", "", ""]);
    assert_eq!(events[1]["time"], "2023-11-14T22:13:20.000000000Z");
    assert!(events[1].get("stream").is_none());
    assert_eq!(world.stats.malformed.load(Ordering::Relaxed), 2);
    assert_eq!(world.stats.invalid_utf8.load(Ordering::Relaxed), 2);
}

#[test]
fn a_line_of_100_mb_comes_in_pieces_and_whole() {
    let text = "0123456789abcdef".repeat(100 << 16);
    let mut bytes = cri(1, "stdout", "F", &text);
    bytes.extend(cri(2, "stdout", "F", "after"));
    let (world, events) = events_of(&bytes);
    assert!(events.len() > 100);
    assert_eq!(events[0]["partial"], serde_json::json!({"index": 0, "last": false}));
    let messages = world.logs[0].messages("main");
    assert_eq!(messages.len(), 2);
    assert!(messages[0] == text);
    assert_eq!(messages[1], "after");
    assert_eq!(world.stats.split_lines.load(Ordering::Relaxed), 1);
}

#[test]
fn a_long_line_goes_on_after_a_restart_without_a_gap_or_a_repeat() {
    let mut world = World::new(vec![everything(0)]);
    let text = "é\u{1}\"漢".repeat(1 << 19);
    world.write("main", "0.log", &cri(1, "stderr", "P", "begin "));
    world.write("main", "0.log", &cri(2, "stdout", "F", "between"));
    let line = cri(3, "stderr", "F", &text);
    for part in line.chunks(777_777) {
        world.write("main", "0.log", part);
        world.tailer.scan(world.now);
        world.take_all();
        world.restart();
    }
    world.settle();
    let messages = world.logs[0].messages("main");
    assert_eq!(messages.len(), 2);
    assert_eq!(messages[0], "between");
    assert!(messages[1] == format!("begin {text}"));
}

#[test]
fn parts_without_end_hold_bounded_memory_and_lose_nothing() {
    let mut world = World::new(vec![everything(0)]);
    let part = "x".repeat(16 << 10);
    let containers: Vec<String> = (0..20).map(|index| format!("c{index}")).collect();
    for at in 0..60 {
        for container in &containers {
            world.write(container, "0.log", &cri(at, "stdout", "P", &part));
        }
    }
    world.settle();
    for container in &containers {
        world.write(container, "0.log", &cri(99, "stdout", "F", "end"));
    }
    world.settle();
    for container in &containers {
        assert!(world.logs[0].messages(container) == [format!("{}end", part.repeat(60))]);
    }
    assert!(world.stats.split_lines.load(Ordering::Relaxed) > 0);
}

#[test]
fn a_line_without_end_waits_until_its_file_is_final() {
    let mut world = World::new(vec![everything(0)]);
    let line = cri(1, "stdout", "F", "whole");
    world.write("main", "0.log", &line[..line.len() - 3]);
    world.settle();
    assert!(world.logs[0].events.is_empty());
    world.write("main", "1.log", &cri(2, "stdout", "F", "next"));
    world.settle();
    assert_eq!(world.logs[0].messages("main"), ["who", "next"]);
}
