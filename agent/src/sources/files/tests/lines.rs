use std::sync::atomic::Ordering;

use super::world::{World, lines, text};
use crate::sources::tail::run::Tails;
use crate::sources::tail::sink::{TURN_BYTES_MAX, TURN_EVENTS_MAX};

#[test]
fn a_line_becomes_an_event_with_its_time_and_its_file() {
    let mut world = World::new("*.log");
    world.write("a.log", "etched \"wafer\" 7\tüber\n\n");
    world.look();
    let [event, empty] = &world.log.events[..] else { panic!("{:?}", world.log.events) };
    assert_eq!(event["message"], "etched \"wafer\" 7\tüber");
    assert_eq!(event["file"], text(&world.path("a.log")));
    let time: jiff::Timestamp = event["time"].as_str().unwrap().parse().unwrap();
    assert!(jiff::Timestamp::now().duration_since(time).as_secs() < 3600, "{time}");
    assert_eq!(event.as_object().unwrap().len(), 3, "{event}");
    assert_eq!(empty["message"], "");
    assert_eq!(world.log.events.len() as u64, world.stats.lines.load(Ordering::Relaxed));
}

#[test]
fn invalid_utf8_is_replaced_and_counted_and_nul_is_kept() {
    let mut world = World::new("*.log");
    world.write("a.log", b"before \xff\xfe after\nzero \0 byte\n");
    world.look();
    assert_eq!(world.messages(), ["before \u{fffd}\u{fffd} after", "zero \0 byte"]);
    assert_eq!(world.stats.invalid_utf8.load(Ordering::Relaxed), 1);
}

#[test]
fn a_line_without_its_end_waits_for_it_until_its_file_is_gone() {
    let mut world = World::new("*.log");
    world.write("a.log", "one\ntwo");
    world.settle();
    assert_eq!(world.messages(), ["one"]);
    world.write("a.log", " and more\nthree");
    world.settle();
    assert_eq!(world.messages(), ["one", "two and more"]);
    std::fs::remove_file(world.path("a.log")).unwrap();
    world.settle();
    assert_eq!(world.messages(), ["one", "two and more", "three"]);
}

#[test]
fn a_line_too_long_for_an_event_comes_in_pieces_also_over_a_kill() {
    let mut world = World::new("*.log");
    let long = (0..300_000).map(|number| format!("{number:09} ")).collect::<Vec<_>>().concat();
    world.write("a.log", &long);
    world.look();
    let before = world.log.events.len();
    assert!(before >= 2, "{before}");
    world.restart();
    world.write("a.log", "end\nnext\n");
    world.settle();
    let events = &world.log.events;
    assert_eq!(events.last().unwrap()["message"], "next");
    let pieces = &events[..events.len() - 1];
    let whole: String = pieces.iter().map(|event| event["message"].as_str().unwrap()).collect();
    assert!(whole == format!("{long}end"), "{} of {}", whole.len(), long.len() + 3);
    for (index, piece) in pieces.iter().enumerate() {
        assert_eq!(piece["partial"]["index"], index);
        assert_eq!(piece["partial"]["last"], index + 1 == pieces.len());
    }
    assert_eq!(world.stats.split_lines.load(Ordering::Relaxed), 1);
}

#[test]
fn a_large_file_that_is_there_at_once_is_read_in_bounded_batches_one_at_a_time() {
    let mut world = World::new("*.log");
    world.look();
    let block = lines(0..10_000);
    for _ in 0..8 {
        world.write("a.log", &block);
    }
    world.tailer.scan(world.now);
    let mut events = 0;
    while let Some(outgoing) = world.tailer.poll(world.now) {
        assert!(outgoing.batch.len() <= TURN_EVENTS_MAX + 1);
        let bytes: usize = outgoing.batch.events().map(<[u8]>::len).sum();
        assert!(bytes <= TURN_BYTES_MAX + 256, "{bytes}");
        assert!(world.tailer.poll(world.now).is_none(), "the next comes when this one is kept");
        events += outgoing.batch.len();
        world.tailer.core().kept(outgoing.ticket);
    }
    assert_eq!(events, 8 * 10_000);
}

#[test]
fn a_hole_without_a_line_break_is_read_in_bounded_memory() {
    let mut world = World::new("*.log");
    let hole = 8 << 20;
    std::fs::File::create(world.path("a.log")).unwrap().set_len(hole).unwrap();
    world.tailer.scan(world.now);
    let mut text = 0;
    while let Some(outgoing) = world.tailer.poll(world.now) {
        let bytes: usize = outgoing.batch.events().map(<[u8]>::len).sum();
        assert!(bytes <= 3 * TURN_BYTES_MAX, "{bytes}");
        for event in outgoing.batch.events() {
            let zeros = memchr::memmem::find_iter(event, b"\\u0000").count() as u64;
            text += zeros;
        }
        world.tailer.core().kept(outgoing.ticket);
    }
    assert!(text <= hole && hole - text < 1 << 20, "{text} of {hole}");
}
