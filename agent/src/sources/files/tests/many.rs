use std::sync::atomic::Ordering;

use super::super::FilesSettings;
use super::world::{World, lines, positions};
use crate::sources::tail::run::Tails;

#[test]
fn ten_thousand_files_are_read_with_few_of_them_held_open() {
    let mut world = World::new("**/*.log");
    world.settings = FilesSettings { held_files_max: 64, ..world.settings.clone() };
    world.restart();
    for number in 0..10_000 {
        world.write(&format!("{}/{number}.log", number % 10), lines(number..number + 1));
    }
    world.look();
    assert_eq!(world.log.events.len(), 10_000);
    assert!(world.stats.open_files.load(Ordering::Relaxed) <= 65);
    assert_eq!((world.stats.units.load(Ordering::Relaxed), positions(&world)), (10_000, 10_000));
    // Of what did not change nothing is read again.
    world.tailer.scan(world.now);
    assert!(world.tailer.poll(world.now).is_none());
    world.restart();
    for number in 0..10_000 {
        world.write(&format!("{}/{number}.log", number % 10), lines(number..number + 1));
    }
    world.look();
    assert_eq!(world.log.events.len(), 20_000);
    let mut messages = world.messages();
    messages.sort();
    messages.dedup();
    assert_eq!(messages.len(), 10_000);
    // Deleted ones are forgotten, held open or not.
    for number in 0..10 {
        std::fs::remove_dir_all(world.path(&number.to_string())).unwrap();
    }
    world.settle();
    assert_eq!((world.stats.units.load(Ordering::Relaxed), positions(&world)), (0, 0));
    assert_eq!(world.stats.open_files.load(Ordering::Relaxed), 0);
    assert_eq!(world.stats.missed_bytes.load(Ordering::Relaxed), 0);
}
