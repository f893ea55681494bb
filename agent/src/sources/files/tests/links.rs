use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::Ordering;

use super::world::World;
use crate::sources::tail::file::Step;

#[test]
fn links_to_files_and_to_directories_are_not_followed() {
    let mut world = World::new("logs/**/*.log");
    let secret = tempfile::tempdir().unwrap();
    fs::write(secret.path().join("key.log"), "secret\n").unwrap();
    world.write("logs/a.log", "one\n");
    symlink(secret.path().join("key.log"), world.path("logs/b.log")).unwrap();
    symlink(secret.path(), world.path("logs/elsewhere")).unwrap();
    // A circle, and a link to nothing.
    symlink(world.path("logs"), world.path("logs/again")).unwrap();
    symlink(world.path("nowhere"), world.path("logs/c.log")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, world.path("logs/pipe.log"), 0o600.into()).unwrap();
    world.settle();
    assert_eq!(world.messages(), ["one"]);
    assert_eq!(world.stats.refused_entries.load(Ordering::Relaxed), 3);
    assert_eq!(world.stats.read_errors.load(Ordering::Relaxed), 0);
}

/// Has the file `there`, or a directory on the way to it, replaced by a link after it was looked at.
fn swapped(replace: impl Fn(&Path, &Path) + Send + 'static) {
    let mut world = World::new("logs/**/*.log");
    let secret = tempfile::tempdir().unwrap();
    fs::write(secret.path().join("a.log"), "secret\n").unwrap();
    world.write("logs/tool/a.log", "one\n");
    let (logs, elsewhere) = (world.path("logs"), secret.path().to_owned());
    let mut is_done = false;
    *world.tailer.between() = crate::sources::tail::between::Between::new(move |step, _| {
        if step == Step::Open && !std::mem::replace(&mut is_done, true) {
            replace(&logs, &elsewhere);
        }
        Ok(())
    });
    world.settle();
    assert_eq!(world.messages(), [""; 0]);
}

#[test]
fn a_file_that_becomes_a_link_between_look_and_opening_is_not_read() {
    swapped(|logs, elsewhere| {
        fs::remove_file(logs.join("tool/a.log")).unwrap();
        symlink(elsewhere.join("a.log"), logs.join("tool/a.log")).unwrap();
    });
}

#[test]
fn a_directory_that_becomes_a_link_between_look_and_opening_is_not_entered() {
    swapped(|logs, elsewhere| {
        fs::remove_dir_all(logs.join("tool")).unwrap();
        symlink(elsewhere, logs.join("tool")).unwrap();
    });
}

#[test]
fn a_file_that_cannot_be_opened_is_read_once_it_can() {
    let mut world = World::new("*.log");
    world.write("a.log", "one\n");
    let mut is_refused = true;
    *world.tailer.between() = crate::sources::tail::between::Between::new(move |step, _| {
        if step == Step::Open && std::mem::take(&mut is_refused) {
            return Err(rustix::io::Errno::ACCESS.into());
        }
        Ok(())
    });
    world.look();
    assert_eq!(world.messages(), [""; 0]);
    assert_eq!(world.stats.read_errors.load(Ordering::Relaxed), 1);
    world.look();
    assert_eq!(world.messages(), ["one"]);
}
