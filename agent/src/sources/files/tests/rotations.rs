use std::fs;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::super::UNSEEN_MAX;
use super::world::{World, lines, positions, texts};
use crate::sources::tail::run::Tails;

fn copy_and_truncate(world: &World) {
    fs::copy(world.path("a.log"), world.path("a.log.1")).unwrap();
    fs::OpenOptions::new().write(true).truncate(true).open(world.path("a.log")).unwrap();
}

#[test]
fn a_file_renamed_to_a_name_that_is_not_wanted_is_read_to_its_end_and_then_what_took_its_name() {
    let mut world = World::new("*.log");
    world.write("a.log", lines(0..3));
    world.look();
    world.write("a.log", lines(3..5));
    world.rename("a.log", "a.log.1");
    world.write("a.log.1", lines(5..6));
    world.write("a.log", lines(7..9));
    world.look();
    assert_eq!(world.messages(), [texts(0..6), texts(7..9)].concat());
    // Whoever still has it open writes on for as long as he likes.
    world.write("a.log.1", lines(6..7));
    world.look();
    assert_eq!(world.messages().len(), 9);
    assert_eq!(world.stats.rotated.load(Ordering::Relaxed), 1);
}

#[test]
fn a_file_renamed_to_another_wanted_name_is_not_read_again() {
    let mut world = World::new("*.log");
    world.write("a.log", lines(0..3));
    world.look();
    world.rename("a.log", "a-2026-01-01.log");
    world.write("a.log", lines(4..5));
    world.write("a-2026-01-01.log", lines(3..4));
    world.look();
    assert_eq!(world.messages(), texts(0..5));
    world.restart();
    world.rename("a-2026-01-01.log", "b.log");
    world.settle();
    assert_eq!(world.messages(), texts(0..5));
}

#[test]
fn rotations_while_the_agent_is_away_lose_and_repeat_nothing() {
    let mut world = World::new("*.log");
    world.write("a.log.1", "rotated before anybody looked: never wanted\n");
    let long_ago = std::time::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    fs::File::options().write(true).open(world.path("a.log.1")).unwrap().set_modified(long_ago).unwrap();
    world.write("a.log", lines(0..3));
    world.look();
    world.write("a.log", lines(3..5));
    // The first file moves on twice; the second one never had its wanted name while somebody looked.
    for (number, range) in [(1, 5..7), (2, 7..9)] {
        for older in (1..=number).rev() {
            world.rename(&format!("a.log.{older}"), &format!("a.log.{}", older + 1));
        }
        world.rename("a.log", "a.log.1");
        world.write("a.log", lines(range));
    }
    world.restart();
    world.look();
    assert_eq!(world.messages(), texts(0..9));
    world.restart();
    world.settle();
    assert_eq!(world.messages(), texts(0..9));
}

#[test]
fn a_truncated_file_is_begun_anew_and_its_copy_is_not_read() {
    let mut world = World::new("*.log*");
    world.write("a.log", lines(0..3));
    world.look();
    copy_and_truncate(&world);
    world.write("a.log", lines(3..5));
    world.settle();
    assert_eq!(world.messages(), texts(0..5));
    assert_eq!(world.stats.truncated.load(Ordering::Relaxed), 1);
}

#[test]
fn a_file_with_the_inode_of_a_deleted_copy_is_read() {
    let mut world = World::new("*.log");
    world.write("a.log", lines(0..3));
    world.look();
    copy_and_truncate(&world);
    world.settle();
    // What has the inode from here on is another file.
    fs::write(world.path("a.log.1"), lines(10..13)).unwrap();
    world.rename("a.log.1", "b.log");
    world.settle();
    assert_eq!(world.messages(), [texts(0..3), texts(10..13)].concat());
}

#[test]
fn what_was_unread_of_a_file_cut_while_the_agent_was_away_is_read_from_its_copy() {
    let mut world = World::new("*.log");
    world.write("a.log", lines(0..3));
    world.look();
    world.write("a.log", lines(3..5));
    copy_and_truncate(&world);
    world.write("a.log", lines(5..7));
    world.restart();
    world.look();
    let mut messages = world.messages();
    messages.sort();
    assert_eq!(messages, texts(0..7));
    world.restart();
    world.write("a.log", lines(7..8));
    world.settle();
    assert_eq!(world.messages().len(), 8);
}

#[test]
fn a_file_written_anew_with_the_same_length_is_read_anew() {
    let mut world = World::new("*.log");
    world.write("a.log", lines(10..13));
    world.look();
    fs::write(world.path("a.log"), lines(20..23)).unwrap();
    world.settle();
    assert_eq!(world.messages(), [texts(10..13), texts(20..23)].concat());
}

#[test]
fn a_file_deleted_while_it_is_read_is_read_to_its_end() {
    let mut world = World::new("*.log");
    world.write("a.log", lines(0..3));
    world.tailer.scan(world.now);
    world.write("a.log", lines(3..5));
    fs::remove_file(world.path("a.log")).unwrap();
    world.settle();
    assert_eq!(world.messages(), texts(0..5));
    assert_eq!(positions(&world), 0, "and forgotten");
}

#[test]
fn what_is_deleted_unread_while_it_is_not_held_is_counted() {
    let mut world = World::new("*.log");
    world.settings.held_files_max = 0;
    world.restart();
    world.write("a.log", lines(0..3));
    world.look();
    let more = lines(3..5);
    world.write("a.log", &more);
    world.write("b.log", lines(5..6));
    world.tailer.scan(world.now);
    fs::remove_file(world.path("a.log")).unwrap();
    world.settle();
    assert_eq!(world.stats.missed_bytes.load(Ordering::Relaxed), more.len() as u64);
    assert_eq!(world.messages(), [texts(0..3), texts(5..6)].concat());
}

#[test]
fn a_file_moved_to_where_nobody_looks_is_read_to_its_end_and_left_after_a_while() {
    let mut world = World::new("logs/*.log");
    world.write("logs/a.log", lines(0..3));
    world.write("logs/b.log", lines(5..6));
    world.write("elsewhere/x", "");
    world.look();
    world.rename("logs/a.log", "elsewhere/a.log");
    world.write("elsewhere/a.log", lines(3..5));
    world.tailer.follow(super::super::tailer::Hints::default(), world.now);
    world.look();
    assert_eq!(positions(&world), 2);
    world.pass(UNSEEN_MAX + Duration::from_secs(1));
    world.settle();
    let mut messages = world.messages();
    messages.sort();
    assert_eq!(messages, texts(0..6));
    assert_eq!(positions(&world), 1);
}

#[test]
fn positions_are_kept_while_what_holds_the_files_is_not_mounted() {
    let mut world = World::new("mount/*.log");
    world.write("mount/a.log", lines(0..3));
    world.settle();
    world.restart();
    world.rename("mount", "away");
    world.settle();
    world.pass(Duration::from_secs(3_600));
    world.settle();
    world.rename("away", "mount");
    world.write("mount/a.log", lines(3..4));
    world.settle();
    assert_eq!(world.messages(), texts(0..4));
}

#[test]
fn positions_of_files_that_do_not_come_back_are_forgotten() {
    let mut world = World::new("*.log");
    world.write("a.log", lines(0..3));
    world.write("b.log", lines(3..4));
    world.settle();
    world.restart();
    fs::remove_file(world.path("a.log")).unwrap();
    world.settle();
    assert_eq!(positions(&world), 2);
    world.pass(Duration::from_secs(600));
    world.settle();
    assert_eq!(positions(&world), 1);
}
