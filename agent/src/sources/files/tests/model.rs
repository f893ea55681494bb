//! Any interleaving of writes, rotations by rename and by copy, renames to other wanted names, unlinking, restarts, refusals and
//! lost events, also while a directory is read: every line exactly once, in the order of its file, joined or not. The seed of a failure is in
//! its message.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::super::tailer::Hints;
use super::world::World;
use crate::sources::tail::run::Tails;
use crate::sources::tail::testing::{Change, apply, assert_came, look_amid, multiline, some_kept};
use crate::sources::testing::Random;

/// Rotated files that are kept of each name.
const KEPT: usize = 4;

/// What writes a log.
struct Writer {
    name: &'static str,
    /// What it has open, and which of its files that is.
    open: Option<(File, usize)>,
    torn: Option<Vec<u8>>,
    files: usize,
    /// How many rotated files are there: `.1` to this one.
    rotated: usize,
    dated: Vec<PathBuf>,
}

/// Returns whose line it is, and of which of its files.
fn file_of(line: &str) -> (&'static str, usize) {
    let mut words = line.split(' ');
    let name = if words.next() == Some("tool") { "tool" } else { "etch" };
    (name, words.next().and_then(|number| number.parse().ok()).expect(line))
}

struct Run {
    world: World,
    /// Groups of several lines.
    groups: u64,
    random: Random,
    writers: Vec<Writer>,
    clock: u64,
    /// The lines of each file, by the writer's name and the number of its file.
    expected: BTreeMap<(&'static str, usize), Vec<String>>,
    may_restart: bool,
    overflows: u64,
}

impl Run {
    fn new(seed: u64, joins: bool) -> Self {
        let mut world = World::new("*.log");
        world.multiline = joins.then(|| multiline("[02468] at least"));
        world.restart();
        let writer = |name| Writer { name, open: None, torn: None, files: 0, rotated: 0, dated: Vec::new() };
        let random = Random::new(seed);
        let writers = ["tool", "etch"].map(writer).into();
        let mut run = Self {
            world,
            groups: 0,
            random,
            writers,
            clock: 0,
            expected: BTreeMap::new(),
            may_restart: true,
            overflows: 0,
        };
        // Patterns are known from here on: what is rotated while nobody looks was written since.
        run.world.settle();
        run
    }

    fn write_line(&mut self, index: usize) {
        const WORDS: [&str; 5] = ["etch", "\"quoted\"", "tab\t", "größe", "漢字🌊"];
        self.clock += 1;
        let writer = &mut self.writers[index];
        let path = self.world.path(&format!("{}.log", writer.name));
        if writer.open.is_none() {
            writer.files += 1;
            let file = OpenOptions::new().create_new(true).append(true).open(path).unwrap();
            writer.open = Some((file, writer.files));
        }
        let Some((file, number)) = &mut writer.open else { return };
        if let Some(rest) = writer.torn.take() {
            return file.write_all(&rest).unwrap();
        }
        let mut text = format!("{} {number} {:08} at least as long as a time stamp ", writer.name, self.clock);
        for _ in 0..self.random.below(6) {
            text.push_str(WORDS[self.random.below(5) as usize]);
        }
        self.expected.entry((writer.name, *number)).or_default().push(text.clone());
        text.push('\n');
        let cut = if self.random.below(8) == 0 { text.len() / 2 } else { text.len() };
        file.write_all(&text.as_bytes()[..cut]).unwrap();
        writer.torn = (cut < text.len()).then(|| text.as_bytes()[cut..].to_vec());
    }

    /// Has the writer let go of its file, which it may have written to long after it was renamed.
    fn reopen(&mut self, index: usize) {
        let writer = &mut self.writers[index];
        let path = self.world.path(&format!("{}.log", writer.name));
        if writer.torn.is_none() && !path.exists() {
            writer.open = None;
        }
    }

    /// Takes note of a rotation and returns what it does.
    fn rotation(&mut self, index: usize) -> Vec<Change> {
        let is_dated = self.random.below(3) == 0;
        let writer = &mut self.writers[index];
        let path = |name: &str| self.world.path(name);
        let live = path(&format!("{}.log", writer.name));
        if !live.exists() {
            return Vec::new();
        }
        if is_dated {
            let dated = path(&format!("{}-{:05}.log", writer.name, self.clock));
            if dated.exists() {
                return Vec::new();
            }
            writer.dated.push(dated.clone());
            return vec![Change::Rename(live, dated)];
        }
        if writer.rotated == KEPT {
            return Vec::new();
        }
        let numbered = |number: usize| path(&format!("{}.log.{number}", writer.name));
        let mut changes: Vec<Change> =
            (1..=writer.rotated).rev().map(|number| Change::Rename(numbered(number), numbered(number + 1))).collect();
        changes.push(Change::Rename(live, numbered(1)));
        writer.rotated += 1;
        changes
    }

    /// Deletes what is oldest: held or done, else its lines are lost, and rightly so.
    fn deletion(&mut self, index: usize) -> Vec<Change> {
        let writer = &mut self.writers[index];
        let is_written = |path: &PathBuf| {
            use std::os::unix::fs::MetadataExt;
            let open = writer.open.as_ref().map(|(file, _)| file.metadata().unwrap().ino());
            fs::metadata(path).is_ok_and(|of| Some(of.ino()) == open)
        };
        let oldest = self.world.path(&format!("{}.log.{}", writer.name, writer.rotated));
        if writer.rotated > 0 && !is_written(&oldest) {
            writer.rotated -= 1;
            self.may_restart = false;
            return vec![Change::Remove(oldest)];
        }
        match writer.dated.first().cloned().filter(|dated| !is_written(dated)) {
            Some(dated) => {
                writer.dated.remove(0);
                self.may_restart = false;
                vec![Change::Remove(dated)]
            }
            None => Vec::new(),
        }
    }

    /// Rotates by a copy, to a name that no pattern takes: a copy that one takes may come a second time. What is unread when it
    /// is cut may be lost, so nothing is.
    fn copy_and_truncate(&mut self, index: usize) {
        self.world.settle();
        self.may_restart = true;
        let writer = &mut self.writers[index];
        let live = self.world.path(&format!("{}.log", writer.name));
        let is_empty = fs::metadata(&live).map_or(0, |of| of.len()) == 0;
        let is_own = writer.open.as_ref().is_some_and(|(file, _)| {
            use std::os::unix::fs::MetadataExt;
            fs::metadata(&live).is_ok_and(|of| of.ino() == file.metadata().unwrap().ino())
        });
        if writer.torn.is_some() || is_empty || !is_own {
            return;
        }
        fs::copy(&live, self.world.path(&format!("{}.copy", writer.name))).unwrap();
        OpenOptions::new().write(true).truncate(true).open(live).unwrap();
    }

    /// Looks while a file is rotated, before any of the steps.
    fn look_amid(&mut self) {
        let index = self.random.below(2) as usize;
        let changes = self.rotation(index);
        let now = self.world.now;
        look_amid(&mut self.world.tailer, changes, (&mut self.random, 12), |tailer| tailer.scan(now));
    }

    fn poll(&mut self) {
        let World { tailer, refused, now, .. } = &mut self.world;
        for outgoing in some_kept(tailer, refused, &mut self.random, *now) {
            self.world.keep(&outgoing);
        }
    }

    fn step(&mut self) {
        let index = self.random.below(2) as usize;
        match self.random.below(40) {
            0..=14 => self.write_line(index),
            15..=16 => {
                let changes = self.rotation(index);
                apply(changes);
            }
            17..=18 => self.reopen(index),
            19 => {
                // Held before it goes, whether it is read or not.
                self.world.tailer.scan(self.world.now);
                let changes = self.deletion(index);
                apply(changes);
            }
            20 => self.copy_and_truncate(index),
            21 => self.world.tailer.scan(self.world.now),
            22..=23 => self.look_amid(),
            24 => {
                self.world.tailer.follow(Hints { overflowed: true, ..Hints::default() }, self.world.now);
                self.overflows += 1;
            }
            25..=27 => {
                let written = ["tool.log", "etch.log"].map(|name| self.world.path(name)).into();
                self.world.tailer.follow(Hints { written, ..Hints::default() }, self.world.now);
            }
            28..=29 => self.world.pass(Duration::from_millis(150)),
            30 => self.world.tailer.tick(self.world.now),
            31 if self.may_restart => self.world.restart(),
            32 if self.may_restart => {
                self.world.restart();
                self.look_amid();
            }
            33 => {
                self.world.settle();
                self.may_restart = true;
            }
            _ => self.poll(),
        }
    }

    fn check(&mut self, seed: u64) {
        for index in 0..self.writers.len() {
            if self.writers[index].torn.is_some() {
                self.write_line(index);
            }
        }
        self.world.settle();
        assert_eq!(self.world.stats.overflows.load(Ordering::Relaxed), self.overflows, "seed {seed}");
        let mut got: BTreeMap<(&'static str, usize), Vec<String>> = BTreeMap::new();
        for group in self.world.messages() {
            let files: BTreeSet<_> = group.split('\n').map(file_of).collect();
            let begun = group.split('\n').skip(1).filter(|line| line.contains("0 at least")).count();
            assert!(files.len() == 1 && begun == 0, "seed {seed}: {group:?}");
            self.groups += u64::from(group.contains('\n'));
            for line in group.split('\n') {
                got.entry(file_of(line)).or_default().push(line.to_owned());
            }
        }
        for (file, expected) in &self.expected {
            let got = got.remove(file).unwrap_or_default();
            assert_came(&format_args!("seed {seed}, {file:?}"), &got, expected);
        }
        assert!(got.is_empty(), "seed {seed}: {got:?}");
    }
}

/// Runs the seeds and returns how many groups of several lines came.
fn run_all(joins: bool) -> u64 {
    let seeds = std::env::var("SPILLWAY_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(60);
    let run = |seed| {
        let mut run = Run::new(seed, joins);
        for _ in 0..400 {
            run.step();
        }
        run.check(seed);
        run.groups
    };
    (1..=seeds).map(run).sum()
}

#[test]
fn every_line_comes_once_and_in_the_order_of_its_file_whatever_happens() {
    assert_eq!(run_all(false), 0);
}

#[test]
fn so_does_every_line_that_is_joined_and_with_none_of_another_file() {
    let groups = run_all(true);
    assert!(groups > 200, "only {groups} groups of several lines");
}
