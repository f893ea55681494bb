//! Any interleaving of writes, renames, compression, truncation, unlinking, restarts, refusals and lost events, also while
//! a directory is listed: every line exactly once, in order. Of two pipelines one joins lines, now with these limits, now with those,
//! now not at all: of each stream every line exactly once, in order, and none that begins a group within one. The seed of a
//! failure is in its message.

use std::collections::HashMap;
use std::fs;
use std::sync::atomic::Ordering;
use std::time::Duration;

use spillway_delivery::transform::Multiline;

use super::super::tailer::Hints;
use super::world::{World, cri, everything};
use crate::sources::tail::run::Tails;
use crate::sources::tail::testing::{Change, apply, assert_came, look_amid, multiline, some_kept};
use crate::sources::testing::Random;

/// The pipeline that joins lines.
const JOINING: usize = 1;

/// What begins a group in it: about every fifth line.
const BEGINS: &str = "^[0-9]*[05] ";

fn begins(line: &str) -> bool {
    line.split_once(' ').is_some_and(|(number, _)| number.ends_with(['0', '5']))
}

/// A line in parts: its text so far, and how often its file was rotated before it began.
struct Begun {
    text: String,
    rotations: usize,
}

/// What a container writes, and what must come of it.
#[derive(Default)]
struct Writer {
    name: &'static str,
    restart: u64,
    rotated: Vec<(String, bool)>,
    begun: HashMap<&'static str, Begun>,
    torn: Option<(Vec<u8>, &'static str, String)>,
    /// Its lines, each with its stream.
    expected: Vec<(&'static str, String)>,
    is_live: bool,
    rotations: usize,
}

impl Writer {
    fn live(&self) -> String {
        format!("{}.log", self.restart)
    }
}

struct Run {
    world: World,
    random: Random,
    writers: Vec<Writer>,
    clock: u64,
    stamp: u64,
    may_restart: bool,
    overflows: u64,
}

impl Run {
    fn new(seed: u64) -> Self {
        let world = World::new(vec![everything(0), everything(1)]);
        let writers = ["main", "side"].map(|name| Writer { name, ..Writer::default() }).into();
        let random = Random::new(seed);
        Self { world, random, writers, clock: 0, stamp: 0, may_restart: true, overflows: 0 }
    }

    fn text(&mut self) -> String {
        const WORDS: [&str; 6] = ["etch", "\"quoted\"", "tab\t", "größe", "漢字🌊", "back\\slash"];
        self.clock += 1;
        let mut text = format!("{} ", self.clock);
        for _ in 0..self.random.below(8) {
            text.push_str(WORDS[self.random.below(6) as usize]);
        }
        text
    }

    fn write_line(&mut self, index: usize) {
        let text = self.text();
        let stream = if self.random.below(3) == 0 { "stderr" } else { "stdout" };
        let is_part = self.random.below(4) == 0;
        let is_torn = self.random.below(8) == 0;
        let writer = &mut self.writers[index];
        if !self.world.path(writer.name, &writer.live()).exists() {
            writer.is_live = true;
        }
        if let Some((rest, stream, whole)) = writer.torn.take() {
            self.world.write(writer.name, &writer.live(), &rest);
            writer.begun.remove(stream);
            writer.expected.push((stream, whole));
            return;
        }
        let line = cri(self.clock, stream, if is_part { "P" } else { "F" }, &text);
        let joined = format!("{}{text}", writer.begun.get(stream).map_or("", |begun| &begun.text));
        if is_part {
            let rotations = writer.rotations;
            writer.begun.entry(stream).or_insert(Begun { text: String::new(), rotations }).text = joined;
        } else if is_torn {
            let cut = line.len() / 2;
            self.world.write(writer.name, &writer.live(), &line[..cut]);
            writer.torn = Some((line[cut..].to_vec(), stream, joined));
            return;
        } else {
            writer.begun.remove(stream);
            writer.expected.push((stream, joined));
        }
        self.world.write(writer.name, &writer.live(), &line);
    }

    fn rotate(&mut self, index: usize) {
        apply(self.rotation(index));
    }

    /// Takes note of a rotation and returns what it does.
    fn rotation(&mut self, index: usize) -> Vec<Change> {
        let writer = &mut self.writers[index];
        // A line that goes on over three files is let go; no runtime writes one.
        let is_over_two = writer.begun.values().any(|begun| begun.rotations < writer.rotations);
        if !writer.is_live || writer.torn.is_some() || is_over_two {
            return Vec::new();
        }
        writer.rotations += 1;
        self.stamp += 1;
        let name = format!("{}.log.20260101-{:06}", writer.restart, self.stamp);
        let live = self.world.path(writer.name, &writer.live());
        let mut changes = vec![Change::Rename(live.clone(), self.world.path(writer.name, &name))];
        writer.rotated.push((name, false));
        writer.is_live = self.random.below(2) == 0;
        if writer.is_live {
            changes.push(Change::Create(live));
        }
        changes
    }

    fn compress(&mut self, index: usize) {
        apply(self.compression(index));
    }

    /// Takes note of a compression and returns what it does.
    fn compression(&mut self, index: usize) -> Vec<Change> {
        let keeps_plain = self.random.below(3) == 0;
        let writer = &mut self.writers[index];
        let last = writer.rotated.len().saturating_sub(1);
        let Some((name, is_compressed)) = writer.rotated[..last].iter_mut().find(|(_, compressed)| !compressed) else {
            return Vec::new();
        };
        let path = self.world.path(writer.name, name);
        let mut changes = vec![Change::Compress(path.clone())];
        if !keeps_plain {
            changes.push(Change::Remove(path));
            *is_compressed = true;
        }
        changes
    }

    /// Looks at everything while a file is rotated, compressed or both, before any of the steps.
    fn scan_amid(&mut self) {
        let index = self.random.below(2) as usize;
        let mut changes = Vec::new();
        if self.random.below(4) > 0 {
            changes.extend(self.rotation(index));
        }
        if self.random.below(2) == 0 {
            changes.extend(self.compression(index));
        }
        let now = self.world.now;
        look_amid(&mut self.world.tailer, changes, (&mut self.random, 30), |tailer| tailer.scan(now));
    }

    fn delete_oldest(&mut self, index: usize) {
        // Only what is held or done may go, else its lines are lost, and rightly so.
        self.world.tailer.scan(self.world.now);
        let writer = &mut self.writers[index];
        if writer.rotated.len() < 3 {
            return;
        }
        let (name, _) = writer.rotated.remove(0);
        for file in [name.clone(), format!("{name}.gz")] {
            let path = self.world.path(writer.name, &file);
            if path.exists() {
                fs::remove_file(path).unwrap();
            }
        }
        self.may_restart = false;
    }

    fn restart_container(&mut self, index: usize) {
        let writer = &mut self.writers[index];
        if writer.torn.is_none() && writer.begun.is_empty() && writer.is_live {
            let restart = writer.restart;
            writer.rotated.push((format!("{restart}.log"), true));
            writer.restart += 1;
            writer.is_live = false;
        }
    }

    fn truncate(&mut self, index: usize) {
        let writer = &self.writers[index];
        if writer.torn.is_some() || !writer.begun.is_empty() || !writer.is_live {
            return;
        }
        self.world.settle();
        let path = self.world.path(self.writers[index].name, &self.writers[index].live());
        fs::OpenOptions::new().write(true).truncate(true).open(path).unwrap();
    }

    fn poll(&mut self) {
        let World { tailer, refused, now, .. } = &mut self.world;
        for outgoing in some_kept(tailer, refused, &mut self.random, *now) {
            self.world.keep(&outgoing);
        }
    }

    fn restart(&mut self) {
        let (lines_max, wait) =
            (2 + self.random.below(30) as u32, Duration::from_millis(100 + self.random.below(2_000)));
        let joins = self.random.below(4) > 0;
        self.world.multiline[JOINING] = joins.then(|| Multiline { lines_max, wait, ..multiline(BEGINS) });
        self.world.restart();
    }

    fn step(&mut self) {
        let index = self.random.below(2) as usize;
        match self.random.below(40) {
            0..=13 => self.write_line(index),
            14..=15 => self.rotate(index),
            16 => self.compress(index),
            17 => self.delete_oldest(index),
            18 => self.restart_container(index),
            19 => self.truncate(index),
            20 => self.world.tailer.scan(self.world.now),
            21 => self.scan_amid(),
            22 => {
                let hints = Hints { overflowed: true, ..Hints::default() };
                self.world.tailer.follow(hints, self.world.now);
                self.overflows += 1;
            }
            23..=25 => {
                let hints = Hints { written: (1..=2).collect(), ..Hints::default() };
                self.world.tailer.follow(hints, self.world.now);
            }
            26..=27 => self.world.pass(Duration::from_millis(150)),
            28 => self.world.tailer.tick(self.world.now),
            29 if self.may_restart => self.restart(),
            30 if self.may_restart => {
                self.restart();
                self.scan_amid();
            }
            31 if self.writers.iter().all(|writer| writer.begun.is_empty() && writer.torn.is_none()) => {
                self.world.settle();
                self.may_restart = true;
            }
            _ => self.poll(),
        }
    }

    fn check(&mut self, seed: u64) {
        self.world.settle();
        assert_eq!(self.world.stats.overflows.load(Ordering::Relaxed), self.overflows, "seed {seed}");
        for (pipeline, log) in self.world.logs.iter().enumerate() {
            let streams: &[&str] = if pipeline == JOINING { &["stdout", "stderr"] } else { &["stdout stderr"] };
            for (writer, streams) in
                self.writers.iter().flat_map(|writer| streams.iter().map(move |stream| (writer, stream)))
            {
                let groups = log.messages_of(writer.name, |stream| streams.contains(stream));
                let is_begun_within = |group: &String| group.split('\n').skip(1).any(begins);
                let what = format!("seed {seed}, pipeline {pipeline}, container {}, {streams}", writer.name);
                assert!(!groups.iter().any(is_begun_within), "{what}: {groups:?}");
                let got: Vec<String> = groups.iter().flat_map(|group| group.split('\n')).map(str::to_owned).collect();
                let expected = writer.expected.iter().filter(|(stream, _)| streams.contains(stream));
                assert_came(&what, &got, &expected.map(|(_, text)| text.clone()).collect::<Vec<_>>());
            }
        }
    }
}

#[test]
fn every_line_comes_once_and_in_order_whatever_happens() {
    let seeds = std::env::var("SPILLWAY_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(150);
    let mut joined = 0;
    for seed in 1..=seeds {
        let mut run = Run::new(seed);
        run.restart();
        for _ in 0..400 {
            run.step();
        }
        for index in 0..run.writers.len() {
            // Unfinished lines are finished, so that all that was written is to come.
            while run.writers[index].torn.is_some() || !run.writers[index].begun.is_empty() {
                run.write_line(index);
            }
        }
        run.check(seed);
        joined += run.world.joined.changed;
    }
    assert!(joined > 10 * seeds, "only {joined} groups of several lines");
}
