use std::sync::atomic::Ordering;

use super::world::{World, lines, positions, texts};
use crate::sources::tail::StartAt;

#[test]
fn what_is_there_at_first_is_left_unread_from_its_end_on_where_that_is_wanted() {
    let mut world = World::starting_at(StartAt::End, &["*.log"]);
    world.write("a.log", "old\nold and unfinis");
    world.look();
    world.write("a.log", "hed\nnew\n");
    world.write("b.log", "of a file that came later\n");
    world.look();
    world.settle();
    assert_eq!(world.messages(), ["old and unfinished", "new", "of a file that came later"]);
}

#[test]
fn what_was_left_unread_stays_so_over_a_kill_before_anything_was_written() {
    let mut world = World::starting_at(StartAt::End, &["*.log"]);
    world.write("a.log", lines(0..10));
    world.look();
    assert_eq!(positions(&world), 1);
    world.restart();
    world.write("a.log", lines(10..20));
    world.write("b.log", lines(20..30));
    world.settle();
    assert_eq!(world.messages(), texts(10..30));
}

#[test]
fn a_kill_before_the_first_look_was_kept_looks_for_the_first_time_again() {
    let mut world = World::starting_at(StartAt::End, &["*.log"]);
    world.write("a.log", lines(0..10));
    crate::sources::tail::run::Tails::scan(&mut world.tailer, world.now);
    world.restart();
    world.look();
    world.write("a.log", lines(10..11));
    world.settle();
    assert_eq!(world.messages(), texts(10..11));
}

#[test]
fn each_pattern_has_a_first_time_of_its_own() {
    let mut world = World::starting_at(StartAt::End, &["*.log"]);
    world.write("a.log", lines(0..10));
    world.write("b.txt", lines(0..10));
    world.settle();
    world.want(StartAt::End, &["*.log", "*.txt"]);
    world.write("a.log", lines(10..11));
    world.look();
    world.write("b.txt", lines(11..12));
    world.settle();
    assert_eq!(world.messages(), texts(10..12));
}

#[test]
fn a_file_goes_on_where_it_was_under_a_pattern_that_was_edited() {
    let mut world = World::new("*.log");
    world.write("a.log", lines(0..10));
    world.write("b.log", lines(10..20));
    world.settle();
    world.want(StartAt::Beginning, &["a*.log"]);
    world.write("a.log", lines(20..21));
    world.write("b.log", lines(21..22));
    world.settle();
    assert_eq!(world.messages(), texts(0..21), "what no pattern means any more is left");
    assert_eq!(positions(&world), 1);
}

#[test]
fn a_directory_that_appears_later_is_found() {
    let mut world = World::new("not/there/yet/*.log");
    world.look();
    world.write("not/there/yet/a.log", "one\n");
    world.look();
    assert_eq!(world.messages(), ["one"]);
    assert_eq!(world.stats.read_errors.load(Ordering::Relaxed), 0);
}
