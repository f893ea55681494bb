//! Anonymous memory of the agent: idle, at a steady rate, and with much held for a receiver that is dead; and how long a
//! start takes with all that held.

use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::Signal;

use crate::bench::http::Connection;
use crate::bench::load::{self, BODY_EVENTS};
use crate::bench::machine;
use crate::bench::process::{Agent, Place, pause};
use crate::bench::receiver::Receiver;
use crate::bench::table::{Bar, Row};
use crate::bench::{Bench, Held};
use crate::stopwatch::Stopwatch;

/// 10 MB/s are 25 bodies of 400 kB: one each 40 ms.
const BODY_EVERY: Duration = Duration::from_millis(40);
/// How long nothing happens before an idle agent is looked at.
const IDLE_MILLISECONDS: u64 = 3_000;
/// How long an agent that holds much is looked at.
const LOOK_MILLISECONDS: u64 = 5_000;
const SAMPLE_MILLISECONDS: u64 = 50;
/// What a log may hold.
const HELD_BYTES_MAX: u64 = 8 << 30;
const MEGABYTE: f64 = 1e6;
/// A route that one event in some thousands is for: what it looks at and passes over must not stay in memory either.
const RARE: &str = r#"
  - {name: rare, match: 'event.job_id == "J-00000007"', backendRefs: [{name: receiver}]}"#;

/// Measures idle memory and memory at a steady rate.
pub(super) fn run(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let requests = load::requests();
    let (mut idle, mut busy, mut resident) = (Vec::new(), Vec::new(), Vec::new());
    for run in 1..=bench.scale.runs {
        let receiver = Receiver::start()?;
        let agent = place(bench, &receiver.address(), "")?.start()?;
        pause(IDLE_MILLISECONDS);
        let at_rest = megabytes(machine::anonymous_bytes(agent.pid())?);
        let (sent, peak) = peak_during(&agent, || send_steadily(bench, &agent, &requests))?;
        agent.wait_until_delivered(sent * BODY_EVENTS)?;
        receiver.wait_for(sent * BODY_EVENTS)?;
        let top = megabytes(machine::peak_bytes(agent.pid())?);
        println!("memory, run {run}: idle {at_rest:.1} MB, at 10 MB/s {peak:.1} MB; most resident ever {top:.1} MB");
        idle.push(at_rest);
        busy.push(peak);
        resident.push(top);
        agent.end(Signal::TERM)?;
    }
    let rows = vec![
        Row::alone("anonymous memory, idle: MB", &idle, 1, Bar::AtMost(10.0)),
        Row::alone("anonymous memory at 10 MB/s, HTTP to file and HTTP: MB, peak", &busy, 1, Bar::AtMost(32.0)),
        Row::alone(
            "resident memory in the same run, program and mapped files included: MB, peak",
            &resident,
            1,
            Bar::None,
        ),
    ];
    rows.iter().for_each(|row| println!("{}", row.line()));
    Ok(rows)
}

/// Measures memory and start with much held by a dead receiver.
pub(super) fn run_held(bench: &Bench, held: Held) -> anyhow::Result<Vec<Row>> {
    let requests = load::requests();
    let bodies = held.bytes / (requests.first().context("no bodies")?.len() as u64);
    let (mut filling, mut after, mut killed, mut stopped) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for run in 1..=held.runs {
        let place = place(bench, &dead_address()?, RARE)?;
        let agent = place.start()?;
        let ((), peak) = peak_during(&agent, || {
            load::send(&agent.http, &requests, bodies)?;
            pause(LOOK_MILLISECONDS);
            Ok(())
        })?;
        must_hold(&agent, bodies * BODY_EVENTS)?;
        agent.end(Signal::KILL)?;
        let agent = place.start()?;
        let after_kill = agent.ready_after.as_secs_f64();
        let ((), peak_again) = peak_during(&agent, || {
            pause(LOOK_MILLISECONDS);
            Ok(())
        })?;
        must_hold(&agent, bodies * BODY_EVENTS)?;
        agent.end(Signal::TERM)?;
        let agent = place.start()?;
        let after_stop = agent.ready_after.as_secs_f64();
        must_hold(&agent, bodies * BODY_EVENTS)?;
        agent.end(Signal::TERM)?;
        println!(
            "held, run {run}: peak {peak:.1} MB while {} MB came in, {peak_again:.1} MB after a start; ready {after_kill:.3} s \
             after SIGKILL, {after_stop:.3} s after SIGTERM",
            held.bytes >> 20
        );
        filling.push(peak);
        after.push(peak_again);
        killed.push(after_kill);
        stopped.push(after_stop);
    }
    let what = format!("{} MiB held", held.bytes >> 20);
    let rows = vec![
        Row::alone(&format!("anonymous memory until {what}: MB, peak"), &filling, 1, Bar::AtMost(64.0)),
        Row::alone(&format!("anonymous memory after a start with {what}: MB, peak"), &after, 1, Bar::AtMost(64.0)),
        Row::alone(&format!("start with {what}, after SIGKILL: s"), &killed, 3, Bar::AtMost(held.start_max)),
        Row::alone(&format!("start with {what}, after SIGTERM: s"), &stopped, 3, Bar::AtMost(held.start_max)),
    ];
    rows.iter().for_each(|row| println!("{}", row.line()));
    Ok(rows)
}

/// Returns what `work` returns, and the most anonymous memory that was seen meanwhile, in MB.
pub(super) fn peak_during<T>(agent: &Agent, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<(T, f64)> {
    let (pid, ended) = (agent.pid(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let sampler = scope.spawn(|| {
            let mut peak = 0;
            while !ended.load(Ordering::Acquire) {
                // An agent that has ended is noticed by who talks to it.
                peak = machine::anonymous_bytes(pid).map_or(peak, |bytes| peak.max(bytes));
                pause(SAMPLE_MILLISECONDS);
            }
            peak
        });
        let done = work();
        ended.store(true, Ordering::Release);
        let peak = sampler.join().map_err(|_| anyhow::anyhow!("the sampler panicked"))?;
        Ok((done?, megabytes(peak)))
    })
}

/// Sends bodies at a steady rate; returns how many.
fn send_steadily(bench: &Bench, agent: &Agent, requests: &[Vec<u8>]) -> anyhow::Result<u64> {
    let watch = Stopwatch::start();
    let mut connection = Connection::open(&agent.http)?;
    let mut sent = 0;
    while watch.elapsed().as_secs() < bench.scale.rate_seconds {
        load::send_one(&mut connection, &requests[sent as usize % requests.len()])?;
        sent += 1;
        let due = BODY_EVERY * sent as u32;
        pause(due.saturating_sub(watch.elapsed()).as_millis() as u64);
    }
    let late = watch.elapsed().as_secs_f64() / (BODY_EVERY.as_secs_f64() * sent as f64);
    if late > 1.1 {
        println!("  the agent took only {:.1} MB/s", 10.0 / late);
    }
    Ok(sent)
}

fn must_hold(agent: &Agent, events: u64) -> anyhow::Result<()> {
    let held = agent.counts()?.1;
    // The route to the file is delivered or about to be; the one to the dead receiver holds everything.
    if held < events {
        bail!("holds {held} of {events} events");
    }
    Ok(())
}

/// Returns an address where nobody listens.
fn dead_address() -> anyhow::Result<String> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / MEGABYTE
}

fn place(bench: &Bench, receiver: &str, routes: &str) -> anyhow::Result<Place> {
    let place = Place { program: bench.agent.clone(), root: bench.scratch.fresh("agent")?, pods: None };
    place.write_manifests(&format!(
        r#"apiVersion: spillway.dev/v1alpha1
kind: Backend
metadata: {{name: archive, namespace: bench}}
spec:
  type: Filesystem
  filesystem: {{}}
---
apiVersion: spillway.dev/v1alpha1
kind: Backend
metadata: {{name: receiver, namespace: bench}}
spec:
  type: HTTP
  http: {{url: "http://{receiver}/events", format: NDJSON, compression: None}}
---
apiVersion: spillway.dev/v1alpha1
kind: MonitoringPipeline
metadata: {{name: jobs, namespace: bench}}
spec:
  buffer: {{maxBytes: {HELD_BYTES_MAX}}}
  inputs:
  - {{name: pushed, type: Events}}
  routes:
  - {{name: everything, backendRefs: [{{name: archive}}, {{name: receiver}}]}}{routes}
"#
    ))?;
    Ok(place)
}
