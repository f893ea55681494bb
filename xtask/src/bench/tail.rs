//! A container's log to an HTTP receiver: CPU per million events.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail};
use rustix::process::Signal;

use crate::bench::Bench;
use crate::bench::load;
use crate::bench::process::{Measured, Place};
use crate::bench::receiver::{Received, Receiver};
use crate::bench::table::{Bar, Row};
use crate::stopwatch::Stopwatch;

/// What the agent and the floor may send apart, in percent: times and numbers have other digits.
const BYTES_APART_PERCENT: u64 = 2;

/// Measures it at both levels of durability.
pub(super) fn run(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let pods = bench.scratch.fresh("pods")?;
    let log = load::write_container_log(&pods, bench.scale.tail_lines)?;
    let (mut disk, mut process, mut floor) = (Vec::new(), Vec::new(), Vec::new());
    for run in 1..=bench.scale.runs {
        let by_agent = agent(bench, &pods, "Disk")?;
        let by_floor = self::floor(bench, &log, by_agent.received)?;
        let by_process = agent(bench, &pods, "Process")?;
        let (sent, expected) = (by_floor.received.bytes, by_agent.received.bytes);
        if sent.abs_diff(expected) * 100 > expected * BYTES_APART_PERCENT {
            bail!("the floor sent {sent} bytes, the agent {expected}");
        }
        println!(
            "tail, run {run}: CPU s per million: agent {:.2} (Disk), {:.2} (Process), floor {:.2}; batches of {} events; \
             took {:.1} s, {:.1} s, {:.1} s",
            by_agent.cpu,
            by_process.cpu,
            by_floor.cpu,
            by_agent.received.lines / by_agent.received.bodies,
            by_agent.seconds,
            by_process.seconds,
            by_floor.seconds
        );
        disk.push(by_agent.cpu);
        process.push(by_process.cpu);
        floor.push(by_floor.cpu);
    }
    fs::remove_dir_all(&pods)?;
    let what = |level: &str| format!("container log to HTTP, level `{level}`: CPU seconds per million events");
    let rows = vec![
        Row::ratio(&what("Disk"), &disk, &floor, Bar::AtMost(2.5)),
        Row::ratio(&what("Process"), &process, &floor, Bar::None),
    ];
    rows.iter().for_each(|row| println!("{}", row.line()));
    Ok(rows)
}

struct Run {
    received: Received,
    /// Seconds per million events.
    cpu: f64,
    seconds: f64,
}

impl Run {
    fn new(received: Received, cpu_seconds: f64, watch: Stopwatch) -> Self {
        let seconds = watch.elapsed().as_secs_f64();
        Self { received, cpu: cpu_seconds * 1e6 / received.lines as f64, seconds }
    }
}

fn agent(bench: &Bench, pods: &Path, durability: &str) -> anyhow::Result<Run> {
    let root = bench.scratch.fresh("agent")?;
    let receiver = Receiver::start()?;
    let place = Place { program: bench.agent.clone(), root, pods: Some(pods.to_path_buf()) };
    place.write_manifests(&manifests(&receiver.address(), durability))?;
    let watch = Stopwatch::start();
    let agent = place.start()?;
    let received = receiver.wait_for(bench.scale.tail_lines)?;
    agent.wait_until_delivered(bench.scale.tail_lines)?;
    let cpu = agent.end(Signal::TERM)?;
    fs::write(bench.scratch.path("sample"), receiver.sample()?).context("keeping a sample")?;
    Ok(Run::new(received, cpu, watch))
}

fn floor(bench: &Bench, log: &Path, like: Received) -> anyhow::Result<Run> {
    let receiver = Receiver::start()?;
    let batch_events = (like.lines / like.bodies).max(1).to_string();
    let mut command = Command::new(&bench.floor);
    command.args(["bench", "floor", "tail"]).arg(log).arg(receiver.address());
    command.arg(bench.scratch.path("sample")).arg(batch_events);
    let watch = Stopwatch::start();
    let cpu = Measured::start(&command, &bench.scratch.path("floor.log"))?.wait()?;
    let received = receiver.wait_for(bench.scale.tail_lines)?;
    Ok(Run::new(received, cpu, watch))
}

fn manifests(receiver: &str, durability: &str) -> String {
    format!(
        r#"apiVersion: spillway.dev/v1alpha1
kind: Backend
metadata: {{name: receiver, namespace: bench}}
spec:
  type: HTTP
  http: {{url: "http://{receiver}/events", format: NDJSON, compression: None}}
---
apiVersion: spillway.dev/v1alpha1
kind: MonitoringPipeline
metadata: {{name: logs, namespace: bench}}
spec:
  durability: {durability}
  inputs:
  - {{name: logs, type: ContainerLogs, containerLogs: {{}}}}
  routes:
  - {{name: everything, backendRefs: [{{name: receiver}}]}}
"#
    )
}
