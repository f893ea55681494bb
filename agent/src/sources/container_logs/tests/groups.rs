//! Lines that are joined: per stream, over rotations and restarts, and for no other pipeline.

use std::time::Duration;

use spillway_delivery::transform::{Failure, Multiline};

use super::world::{World, cri, everything};
use crate::sources::tail::run::Tails;
use crate::sources::tail::testing::multiline;
use crate::sources::testing::Random;

/// Two pipelines that want the same; the first joins lines, up to the next that begins with a letter.
fn world() -> World {
    let mut world = World::new(vec![everything(0), everything(1)]);
    world.join(0, multiline("^[a-z]"));
    world
}

/// Writes lines to the live file of `main`; those that begin with `!` to standard error.
fn write(world: &World, lines: &[&str]) {
    for line in lines {
        let (stream, text) = line.strip_prefix('!').map_or(("stdout", *line), |text| ("stderr", text));
        world.write("main", "0.log", &cri(1, stream, "F", text));
    }
}

fn look(world: &mut World) {
    world.tailer.scan(world.now);
    world.take_all();
}

/// Lets time pass that nothing is written in.
fn wait(world: &mut World, milliseconds: u64) {
    world.pass(Duration::from_millis(milliseconds));
    world.tailer.tick(world.now);
    world.take_all();
}

fn groups(world: &World, pipeline: usize) -> Vec<String> {
    world.logs[pipeline].messages("main")
}

#[test]
fn a_group_has_the_time_of_its_first_line_and_comes_out_when_the_next_begins_or_after_a_while() {
    let mut world = world();
    world.write("main", "0.log", &cri(1, "stdout", "F", "a"));
    world.write("main", "0.log", &cri(2, "stdout", "F", " 1"));
    look(&mut world);
    assert_eq!((groups(&world, 0), groups(&world, 1)), (vec![], vec!["a".into(), " 1".into()]));
    world.write("main", "0.log", &cri(3, "stdout", "F", "b"));
    look(&mut world);
    assert_eq!(groups(&world, 0), ["a\n 1"]);
    assert_eq!(world.logs[0].events[0].1["time"], "2026-01-01T01:01:00.000000001Z");
    assert!(world.tailer.is_timed(), "somebody looks when it is time");
    wait(&mut world, 999);
    assert_eq!(groups(&world, 0).len(), 1);
    // A line that comes makes it wait on.
    write(&world, &[" 2"]);
    look(&mut world);
    wait(&mut world, 999);
    assert_eq!(groups(&world, 0).len(), 1);
    wait(&mut world, 1);
    assert_eq!(groups(&world, 0)[1], "b\n 2");
    assert_eq!((world.joined.events, world.joined.changed), (4, 2));
    wait(&mut world, 1);
    assert!(!world.tailer.is_timed(), "nothing is open");
}

#[test]
fn a_reader_that_is_behind_does_not_take_its_delay_for_silence() {
    let mut world = world();
    write(&world, &["a"]);
    look(&mut world);
    write(&world, &[" 1", " 2"]);
    wait(&mut world, 5_000);
    wait(&mut world, 999);
    write(&world, &["b"]);
    look(&mut world);
    assert_eq!(groups(&world, 0), ["a\n 1\n 2"]);
}

#[test]
fn streams_and_containers_are_never_in_one_group() {
    let mut world = world();
    write(&world, &["a", "!x", " 1", "! 2", "! 3", " 4"]);
    world.write("side", "0.log", &cri(1, "stdout", "F", " 5"));
    look(&mut world);
    wait(&mut world, 1_000);
    let mut found = groups(&world, 0);
    found.sort();
    assert_eq!(found, ["a\n 1\n 4", "x\n 2\n 3"]);
    assert_eq!(world.logs[0].messages("side"), [" 5"]);
}

#[test]
fn a_line_in_parts_is_one_line_of_a_group() {
    let mut world = world();
    for (tag, text) in [("F", "a"), ("P", " 1"), ("F", "b"), ("P", "c"), ("F", "d")] {
        world.write("main", "0.log", &cri(1, "stdout", tag, text));
    }
    look(&mut world);
    wait(&mut world, 1_000);
    assert_eq!(groups(&world, 0), ["a\n 1b", "cd"]);
}

#[test]
fn no_kill_and_no_rotation_divides_a_group_or_doubles_a_line() {
    let mut world = world();
    write(&world, &["!x", "a", " 1"]);
    look(&mut world);
    // The other stream goes on meanwhile, and its events take their position along.
    write(&world, &["!y", "!z"]);
    look(&mut world);
    assert_eq!(groups(&world, 0), ["x", "y"]);
    world.restart();
    world.rename("main", "0.log", "0.log.20260101-000001");
    write(&world, &[" 2"]);
    look(&mut world);
    wait(&mut world, 300);
    world.restart();
    write(&world, &[" 3", "b"]);
    look(&mut world);
    wait(&mut world, 300);
    assert_eq!(groups(&world, 0), ["x", "y", "a\n 1\n 2\n 3"]);
    wait(&mut world, 1_000);
    let mut found = groups(&world, 0);
    found.sort();
    assert_eq!(found, ["a\n 1\n 2\n 3", "b", "x", "y", "z"]);
    assert_eq!(groups(&world, 1), ["x", "a", " 1", "y", "z", " 2", " 3", "b"]);
}

#[test]
fn a_group_over_three_files_is_cut_and_counted() {
    let mut world = world();
    for number in 1..=3 {
        write(&world, &[" 1"]);
        look(&mut world);
        world.rename("main", "0.log", &format!("0.log.20260101-00000{number}"));
        write(&world, &[" 2"]);
        look(&mut world);
        wait(&mut world, 300);
    }
    assert_eq!(groups(&world, 0), [" 1\n 2\n 1"]);
    assert_eq!(world.joined.failed[Failure::TooLarge as usize], 1);
}

/// What was read but not delivered is read again, whoever it is for then.
#[test]
fn no_line_is_lost_where_lines_are_joined_otherwise_after_a_kill() {
    for lines_max in [None, Some(2)] {
        let mut world = world();
        let lines: Vec<String> = (0..400).map(|number| format!(" {number}")).collect();
        write(&world, &["!x", "a"]);
        lines.iter().for_each(|line| write(&world, &[line]));
        write(&world, &["!y"]);
        look(&mut world);
        assert_eq!(groups(&world, 0), ["x"]);
        world.multiline[0] = lines_max.map(|lines_max| Multiline { lines_max, ..multiline("^[a-z]") });
        world.rename("main", "0.log", "0.log.20260101-000001");
        write(&world, &["c"]);
        // Each batch is the last one of a process.
        loop {
            world.restart();
            world.tailer.scan(world.now);
            let kept = world.logs[0].events.len();
            while let Some(outgoing) = world.tailer.poll(world.now) {
                world.keep(&outgoing);
                if world.logs[0].events.len() > kept {
                    break;
                }
            }
            if world.logs[0].events.len() == kept {
                break;
            }
        }
        world.settle();
        let of = |stream: &'static str| world.logs[0].messages_of("main", |of| of == stream);
        let got: Vec<String> = of("stdout").iter().flat_map(|group| group.split('\n')).map(str::to_owned).collect();
        let expected: Vec<String> = std::iter::once("a".to_owned()).chain(lines).chain(["c".to_owned()]).collect();
        assert_eq!((got, of("stderr")), (expected, vec!["x".into(), "y".into()]), "{lines_max:?}");
    }
}

#[test]
fn what_is_beyond_a_limit_begins_another_event_and_is_counted() {
    let mut world = world();
    world.join(0, Multiline { lines_max: 2, bytes_max: 1_024, ..multiline("^[a-z]") });
    let long = "-".repeat(1_020);
    let too_long = "+".repeat(1_025);
    write(&world, &["a", " 1", " 2", "b", &long, "c", &too_long, " 3", "d"]);
    look(&mut world);
    wait(&mut world, 1_000);
    let expected = ["a\n 1", " 2", &format!("b\n{long}"), "c", &too_long, " 3", "d"];
    assert_eq!(groups(&world, 0), expected);
    // The third line, and the one that fits nowhere.
    assert_eq!(world.joined.failed[Failure::TooLarge as usize], 2);
    assert_eq!((world.joined.events, world.joined.changed), (9, 2));
}

#[test]
fn a_line_longer_than_a_read_comes_by_itself_behind_the_group_before_it() {
    let mut world = world();
    let long = "9".repeat(2 << 20);
    write(&world, &["a", " 1", &long, " 2", "b"]);
    look(&mut world);
    wait(&mut world, 1_000);
    assert_eq!(groups(&world, 0).iter().map(String::len).collect::<Vec<_>>(), [4, long.len(), 2, 1]);
}

#[test]
fn what_is_open_at_the_end_of_a_container_comes_out() {
    let mut world = world();
    write(&world, &["a", " 1"]);
    look(&mut world);
    std::fs::remove_dir_all(world.directory("main")).unwrap();
    look(&mut world);
    world.pass(Duration::from_millis(999));
    assert_eq!(groups(&world, 0), [""; 0]);
    world.settle();
    assert_eq!(groups(&world, 0), ["a\n 1"]);
    assert!(world.logs[0].positions.keys().all(|source| !source.ends_with(b"/main")), "{:?}", world.logs[0].positions);
}

#[test]
fn a_group_that_lost_its_end_comes_out_as_it_was_read() {
    let mut world = world();
    let head = "h".repeat(1_100);
    write(&world, &[&head, "a", " 1"]);
    look(&mut world);
    let path = world.path("main", "0.log");
    let length = std::fs::metadata(&path).unwrap().len();
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(length - 5).unwrap();
    look(&mut world);
    world.restart();
    write(&world, &["b"]);
    look(&mut world);
    wait(&mut world, 1_000);
    assert_eq!(groups(&world, 0)[1], "a\n 1");
}

/// However the bytes of a file come, and wherever the process is killed, its groups are those of a plain reference.
#[test]
fn groups_do_not_depend_on_how_lines_come() {
    for seed in 1..=60 {
        let mut random = Random::new(seed);
        let mut bytes = Vec::new();
        let mut expected: [Vec<String>; 2] = Default::default();
        for number in 0..random.below(40) {
            let (stream, begins) = (random.below(2), random.below(3) == 0);
            let text = format!("{}{number}", if begins { "a" } else { " " });
            bytes.extend(cri(1, ["stdout", "stderr"][stream as usize], "F", &text));
            match expected[stream as usize].last_mut().filter(|_| !begins) {
                Some(group) => group.extend(["\n", &text]),
                None => expected[stream as usize].push(text),
            }
        }
        let mut cuts: Vec<usize> =
            (0..random.below(12)).map(|_| random.below(bytes.len() as u64 + 1) as usize).collect();
        cuts.push(bytes.len());
        cuts.sort_unstable();
        let (mut world, mut at) = (world(), 0);
        for cut in cuts {
            world.write("main", "0.log", &bytes[at..cut]);
            at = cut;
            look(&mut world);
            if random.below(2) == 0 {
                world.restart();
            }
        }
        look(&mut world);
        wait(&mut world, 1_000);
        let of = |stream: &'static str| world.logs[0].messages_of("main", |of| of == stream);
        assert_eq!([of("stdout"), of("stderr")], expected, "seed {seed}");
    }
}
