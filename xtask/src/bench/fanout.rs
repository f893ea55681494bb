//! One route, several backends: what two bulk receivers cost, with a third of the items refused once; and what a dead
//! backend costs its siblings.

use std::net::TcpListener;

use anyhow::bail;
use rustix::process::Signal;

use crate::bench::Bench;
use crate::bench::bulk::{Bulk, BulkReceiver};
use crate::bench::load::{self, BODY_EVENTS};
use crate::bench::memory;
use crate::bench::process::Place;
use crate::bench::receiver::Receiver;
use crate::bench::table::{Bar, Row};
use crate::stopwatch::Stopwatch;

/// What the log of these runs may hold.
const HELD_BYTES_MAX: u64 = 4 << 30;

/// Measures one route on one field to two bulk receivers, without and with refusals.
pub(super) fn run_bulk(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for refuses in [false, true] {
        let mut cpu = Vec::new();
        for run in 1..=bench.scale.runs {
            let (seconds, received) = bulk(bench, refuses)?;
            let [first, second] = received;
            println!(
                "bulk, run {run}: CPU s per million events {seconds:.2}; refused {} and {}, repeated {} and {}",
                first.refused, second.refused, first.repeated, second.repeated
            );
            cpu.push(seconds);
        }
        let what = if refuses { ", a third of the items answered 429 once" } else { "" };
        let what = format!("one field to two bulk receivers{what}: CPU seconds per million events");
        rows.push(Row::alone(&what, &cpu, 2, Bar::AtMost(2.5)));
    }
    rows.iter().for_each(|row| println!("{}", row.line()));
    Ok(rows)
}

fn bulk(bench: &Bench, refuses: bool) -> anyhow::Result<(f64, [Bulk; 2])> {
    let requests = load::requests();
    let receivers = [BulkReceiver::start(refuses)?, BulkReceiver::start(refuses)?];
    let place = Place { program: bench.agent.clone(), root: bench.scratch.fresh("agent")?, pods: None };
    let backends: Vec<String> = receivers.iter().map(|receiver| elasticsearch(&receiver.address())).collect();
    place.write_manifests(&manifests(&backends, Some("event.kind == \"finished\"")))?;
    let agent = place.start()?;
    let events = bench.scale.intake_bodies / 2 * BODY_EVENTS;
    load::send(&agent.http, &requests, bench.scale.intake_bodies / 2)?;
    let received = [receivers[0].wait_for(events)?, receivers[1].wait_for(events)?];
    agent.wait_until_delivered(events)?;
    let cpu = agent.end(Signal::TERM)?;
    for bulk in received {
        if bulk.taken != events || bulk.repeated > 0 {
            bail!("{} of {events} events are there, {} came twice", bulk.taken, bulk.repeated);
        }
    }
    Ok((cpu * 1e6 / events as f64, received))
}

/// What the fourth of four backends is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fourth {
    /// One that takes everything, as the other three do.
    Alive,
    /// One at which nothing listens.
    Dead,
    /// Not there.
    Absent,
}

/// Measures three living backends beside a fourth that is dead, one that lives, and none.
pub(super) fn run_dead(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let (mut dead, mut alive, mut absent, mut memory) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for run in 1..=bench.scale.runs {
        let (beside_none, _) = four(bench, Fourth::Absent)?;
        let (beside_living, _) = four(bench, Fourth::Alive)?;
        let (beside_dead, peak) = four(bench, Fourth::Dead)?;
        println!(
            "one dead of four, run {run}: events/s {beside_dead:.0}, with it alive {beside_living:.0}, without it \
             {beside_none:.0}; peak {peak:.1} MB"
        );
        dead.push(beside_dead);
        alive.push(beside_living);
        absent.push(beside_none);
        memory.push(peak);
    }
    let rows = vec![
        Row::ratio(
            "three backends beside a dead fourth, and beside a living one: events per second",
            &dead,
            &alive,
            Bar::AtLeast(0.95),
        ),
        Row::ratio("three backends beside a dead fourth, and alone: events per second", &dead, &absent, Bar::None),
        Row::alone(
            "anonymous memory in the same run, everything held for the dead one: MB, peak",
            &memory,
            1,
            Bar::AtMost(64.0),
        ),
    ];
    rows.iter().for_each(|row| println!("{}", row.line()));
    Ok(rows)
}

/// Returns events per second at three living receivers, and the peak of anonymous memory.
fn four(bench: &Bench, fourth: Fourth) -> anyhow::Result<(f64, f64)> {
    let requests = load::requests();
    let receivers = [Receiver::start()?, Receiver::start()?, Receiver::start()?];
    let mut backends: Vec<String> = receivers.iter().map(|receiver| http(&receiver.address())).collect();
    let also = if fourth == Fourth::Alive { Some(Receiver::start()?) } else { None };
    backends.extend(also.iter().map(|receiver| http(&receiver.address())));
    if fourth == Fourth::Dead {
        backends.push(http(&TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string()));
    }
    let place = Place { program: bench.agent.clone(), root: bench.scratch.fresh("agent")?, pods: None };
    place.write_manifests(&manifests(&backends, None))?;
    let agent = place.start()?;
    let events = bench.scale.intake_bodies * BODY_EVENTS;
    let watch = Stopwatch::start();
    let (took, peak) = memory::peak_during(&agent, || {
        load::send(&agent.http, &requests, bench.scale.intake_bodies)?;
        for receiver in &receivers {
            receiver.wait_for(events)?;
        }
        Ok(watch.elapsed())
    })?;
    agent.end(Signal::TERM)?;
    Ok((events as f64 / took.as_secs_f64(), peak))
}

fn elasticsearch(address: &str) -> String {
    let settings = format!(r#"{{urls: ["http://{address}"], index: bench, createTemplate: false, compression: None}}"#);
    format!("type: Elasticsearch\n  elasticsearch: {settings}")
}

fn http(address: &str) -> String {
    format!("type: HTTP\n  http: {{url: \"http://{address}/events\", format: NDJSON, compression: None}}")
}

fn manifests(backends: &[String], condition: Option<&str>) -> String {
    let document = |(number, spec): (usize, &String)| {
        let head = "apiVersion: spillway.dev/v1alpha1\nkind: Backend";
        format!("{head}\nmetadata: {{name: to-{number}, namespace: bench}}\nspec:\n  {spec}\n---\n")
    };
    let documents: String = backends.iter().enumerate().map(document).collect();
    let references: Vec<String> = (0..backends.len()).map(|number| format!("{{name: to-{number}}}")).collect();
    let condition = condition.map(|condition| format!("match: '{condition}', ")).unwrap_or_default();
    format!(
        r"{documents}apiVersion: spillway.dev/v1alpha1
kind: MonitoringPipeline
metadata: {{name: jobs, namespace: bench}}
spec:
  buffer: {{maxBytes: {HELD_BYTES_MAX}}}
  inputs:
  - {{name: pushed, type: Events}}
  routes:
  - {{name: wanted, {condition}backendRefs: [{}]}}
",
        references.join(", ")
    )
}
