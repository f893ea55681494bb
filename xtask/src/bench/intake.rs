//! Events over HTTP into a file: events per second on one core.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::Signal;

use crate::bench::load::{self, BODY_EVENTS};
use crate::bench::process::{Agent, Measured, Place, WAIT_MAX, pause};
use crate::bench::scratch::files_below;
use crate::bench::table::{Bar, Row};
use crate::bench::{Bench, floor};
use crate::stopwatch::Stopwatch;

/// How often the output is looked at.
const LOOK_MILLISECONDS: u64 = 4;
/// Looks at the output between two questions to the agent, which cost it something.
const LOOKS: usize = 20;

/// When an event counts as accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    /// It survives the end of the process.
    Process,
    /// It survives the loss of power.
    Disk,
}

impl Level {
    /// Returns its name in a manifest.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Process => "Process",
            Self::Disk => "Disk",
        }
    }

    fn bar(self) -> Bar {
        match self {
            Self::Process => Bar::AtLeast(0.4),
            Self::Disk => Bar::AtLeast(0.35),
        }
    }
}

/// Measures it at one level.
pub(super) fn run(bench: &Bench, level: Level) -> anyhow::Result<Vec<Row>> {
    let requests = load::requests();
    let (mut agents, mut floors, mut careful) = (Vec::new(), Vec::new(), Vec::new());
    for run in 1..=bench.scale.runs {
        let by_agent = agent(bench, &requests, level)?;
        let by_floor = self::floor(bench, &requests, level, false)?;
        let by_careful = self::floor(bench, &requests, level, true)?;
        println!(
            "{}, run {run}: events/s: agent {:.0} (accepted after {:.1} of {:.1} s), floor {:.0}; CPU s per million: \
             agent {:.2}, floor {:.2}; a floor that checks and logs: {:.0} and {:.2}",
            level.name(),
            by_agent.per_second,
            by_agent.answered.as_secs_f64(),
            by_agent.total.as_secs_f64(),
            by_floor.per_second,
            by_agent.cpu,
            by_floor.cpu,
            by_careful.per_second,
            by_careful.cpu
        );
        agents.push(by_agent);
        floors.push(by_floor);
        careful.push(by_careful);
    }
    let figures = |runs: &[Run], figure: fn(&Run) -> f64| runs.iter().map(figure).collect::<Vec<_>>();
    let what = |unit: &str| format!("HTTP to file, level `{}`: {unit}", level.name());
    let row = |unit: &str, floors: &[Run], figure: fn(&Run) -> f64, bar: Bar| {
        Row::ratio(&what(unit), &figures(&agents, figure), &figures(floors, figure), bar)
    };
    let per_second = |run: &Run| run.per_second;
    let cpu = |run: &Run| run.cpu;
    let rows = vec![
        row("events per second", &floors, per_second, level.bar()),
        row("CPU seconds per million events", &floors, cpu, Bar::None),
        row("CPU seconds per million events beside a floor that checks and logs", &careful, cpu, Bar::None),
    ];
    rows.iter().for_each(|row| println!("{}", row.line()));
    Ok(rows)
}

struct Run {
    per_second: f64,
    answered: Duration,
    total: Duration,
    /// Seconds per million events.
    cpu: f64,
}

impl Run {
    fn new(events: u64, answered: Duration, total: Duration, cpu_seconds: f64) -> Self {
        let events = events as f64;
        Self { per_second: events / total.as_secs_f64(), answered, total, cpu: cpu_seconds * 1e6 / events }
    }
}

fn agent(bench: &Bench, requests: &[Vec<u8>], level: Level) -> anyhow::Result<Run> {
    let root = bench.scratch.fresh("agent")?;
    let place = Place { program: bench.agent.clone(), root, pods: None };
    place.write_manifests(&manifests(level.name()))?;
    let agent = place.start()?;
    let events = bench.scale.intake_bodies * BODY_EVENTS;
    let watch = Stopwatch::start();
    load::send(&agent.http, requests, bench.scale.intake_bodies)?;
    let answered = watch.elapsed();
    let total = wait_until_written(&agent, &place, events, watch)?.max(answered);
    let cpu = agent.end(Signal::TERM)?;
    let (mut lines, mut first) = (0, Vec::new());
    for path in files_below(&place.out())?.iter().filter(|path| path.extension().is_some_and(|end| end == "ndjson")) {
        lines += count_lines(path)?;
        if first.is_empty() {
            BufReader::new(File::open(path)?).read_until(b'\n', &mut first)?;
        }
    }
    if lines != events {
        bail!("{lines} events are in the output of the agent, {events} were sent");
    }
    fs::write(bench.scratch.path("sample"), first).context("keeping a sample")?;
    fs::remove_dir_all(&place.root)?;
    Ok(Run::new(events, answered, total, cpu))
}

/// Waits until the agent has delivered everything; returns when the last byte came into its output.
///
/// It says so later than it is: its cursor is saved twice a second, and an event counts as held until then.
fn wait_until_written(agent: &Agent, place: &Place, events: u64, watch: Stopwatch) -> anyhow::Result<Duration> {
    let (mut bytes, mut written) = (0, Duration::ZERO);
    loop {
        for _ in 0..LOOKS {
            let now = bytes_below(&place.out())?;
            if now != bytes {
                (bytes, written) = (now, watch.elapsed());
            }
            pause(LOOK_MILLISECONDS);
        }
        if agent.has_delivered(events)? {
            return Ok(written);
        }
        if watch.elapsed() > WAIT_MAX {
            bail!("not everything was delivered within {} s", WAIT_MAX.as_secs());
        }
    }
}

fn bytes_below(folder: &Path) -> anyhow::Result<u64> {
    files_below(folder)?.iter().map(|path| Ok(fs::metadata(path)?.len())).sum()
}

/// Measures the floor; one that is `careful` checks each event and keeps it in a log first.
fn floor(bench: &Bench, requests: &[Vec<u8>], level: Level, careful: bool) -> anyhow::Result<Run> {
    let folder = bench.scratch.fresh("floor")?;
    let (file, log) = (folder.join("out.ndjson"), folder.join("log"));
    let mut command = Command::new(&bench.floor);
    command.args(["bench", "floor", "intake"]).arg(&file).arg(bench.scratch.path("sample"));
    if level == Level::Disk {
        command.arg("--sync");
    }
    if careful {
        command.arg("--log").arg(&log);
    }
    let process = Measured::start(&command, &bench.scratch.path("floor.log"))?;
    let (address, _) = process.wait_for_line(|line| line.strip_prefix(floor::LISTENS).map(str::to_owned))?;
    let events = bench.scale.intake_bodies * BODY_EVENTS;
    let watch = Stopwatch::start();
    load::send(&address, requests, bench.scale.intake_bodies)?;
    let total = watch.elapsed();
    let cpu = process.end(Signal::KILL)?;
    let lines = count_lines(&file)?;
    if lines != events {
        bail!("{lines} events are in the output of the floor, {events} were sent");
    }
    fs::remove_dir_all(&folder)?;
    Ok(Run::new(events, total, total, cpu))
}

fn count_lines(path: &Path) -> anyhow::Result<u64> {
    let mut reader = BufReader::with_capacity(1 << 20, File::open(path).context("opening an output")?);
    let mut lines = 0;
    loop {
        let block = reader.fill_buf()?;
        if block.is_empty() {
            return Ok(lines);
        }
        lines += memchr::memchr_iter(b'\n', block).count() as u64;
        let length = block.len();
        reader.consume(length);
    }
}

/// Returns manifests of a pipeline from what is pushed to a file.
pub(super) fn manifests(durability: &str) -> String {
    format!(
        r"apiVersion: spillway.dev/v1alpha1
kind: Backend
metadata: {{name: archive, namespace: bench}}
spec:
  type: Filesystem
  filesystem: {{}}
---
apiVersion: spillway.dev/v1alpha1
kind: MonitoringPipeline
metadata: {{name: jobs, namespace: bench}}
spec:
  durability: {durability}
  inputs:
  - {{name: pushed, type: Events}}
  routes:
  - {{name: everything, backendRefs: [{{name: archive}}]}}
"
    )
}
