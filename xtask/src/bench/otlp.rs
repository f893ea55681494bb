//! Log records by OTLP over gRPC into a file: CPU per million records beside the OpenTelemetry Collector, which gets the same frames.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};
use rustix::process::Signal;

use crate::bench::Bench;
use crate::bench::http2::{Connection, Ended};
use crate::bench::intake::Level;
use crate::bench::process::{Measured, Place, WAIT_MAX, pause};
use crate::bench::scratch::files_below;
use crate::bench::table::{Bar, Row};
use crate::stopwatch::Stopwatch;
use crate::workspace::{Workspace, must_succeed};

/// The package of the Collector, among those of `cargo xtask servers`.
const COLLECTOR: &str = "opentelemetry-collector";
/// The method that takes log records.
const METHOD: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";
/// Records of one request.
const REQUEST_RECORDS: u64 = 1_000;
/// Requests that are made; they are sent again and again.
const REQUESTS: u64 = 8;
/// Requests that wait for their answers at once.
const UNDER_WAY_MAX: usize = 4;
/// How often in a row one request may be refused for the moment.
const REFUSALS_MAX: u32 = 20_000;

/// Returns the program of the Collector, built if it is not there; `None` where it cannot be.
pub(super) fn collector(workspace: &Workspace) -> anyhow::Result<Option<PathBuf>> {
    let servers = workspace.build("spillway-servers", &["-q"])?;
    must_succeed(Command::new(&servers).arg(COLLECTOR))?;
    let folder = Command::new(&servers).args(["--folder", COLLECTOR]).output().context("asking for the Collector")?;
    let program = Path::new(String::from_utf8(folder.stdout)?.trim()).join("otelcol");
    Ok(Some(program).filter(|program| program.is_file()))
}

/// Measures both.
pub(super) fn run(bench: &Bench, collector: &Path) -> anyhow::Result<Vec<Row>> {
    let requests: Vec<Vec<u8>> = (0..REQUESTS).map(request).collect();
    let (mut collectors, mut by_level) = (Vec::new(), [Level::Disk, Level::Process].map(|level| (level, Vec::new())));
    for run in 1..=bench.scale.runs {
        let theirs = by_collector(bench, collector, &requests)?;
        for (level, runs) in &mut by_level {
            let ours = by_agent(bench, &requests, *level)?;
            println!(
                "OTLP, run {run}: CPU s per million records: agent at level `{}` {ours:.2}, Collector {theirs:.2}",
                level.name()
            );
            runs.push(ours);
        }
        collectors.push(theirs);
    }
    let rows: Vec<Row> = by_level
        .iter()
        .map(|(level, runs)| {
            let what = format!(
                "OTLP over gRPC to file, level `{}`, beside the Collector: CPU seconds per million records",
                level.name()
            );
            Row::ratio(&what, runs, &collectors, Bar::AtMost(0.5))
        })
        .collect();
    rows.iter().for_each(|row| println!("{}", row.line()));
    Ok(rows)
}

fn records(bench: &Bench) -> u64 {
    bench.scale.intake_bodies * REQUEST_RECORDS
}

fn by_agent(bench: &Bench, requests: &[Vec<u8>], level: Level) -> anyhow::Result<f64> {
    let place = Place { program: bench.agent.clone(), root: bench.scratch.fresh("agent")?, pods: None };
    place.write_manifests(&super::intake::manifests(level.name()))?;
    let agent = place.start_with(&["--otlp-grpc", "127.0.0.1:0"])?;
    send(&agent.otlp_grpc, requests, bench.scale.intake_bodies)?;
    agent.wait_until_delivered(records(bench))?;
    let cpu = agent.end(Signal::TERM)?;
    let mut found = 0;
    for path in files_below(&place.out())?.iter().filter(|path| path.extension().is_some_and(|end| end == "ndjson")) {
        found += count(path, b"\n")?;
    }
    finish(bench, "agent", &place.root, (found, cpu))
}

fn by_collector(bench: &Bench, program: &Path, requests: &[Vec<u8>]) -> anyhow::Result<f64> {
    let root = bench.scratch.fresh("collector")?;
    // Free a moment ago; the Collector cannot be asked which one it took.
    let address = TcpListener::bind("127.0.0.1:0").context("looking for a port")?.local_addr()?.to_string();
    let output = root.join("out.json");
    fs::write(root.join("config.yaml"), configuration(&address, &output)).context("writing a configuration")?;
    let mut command = Command::new(program);
    command.arg("--config").arg(format!("file:{}", root.join("config.yaml").display()));
    let process = Measured::start(&command, &root.join("log"))?;
    process.wait_for_line(|line| line.contains("Everything is ready").then_some(()))?;
    send(&address, requests, bench.scale.intake_bodies)?;
    let cpu = process.end(Signal::TERM)?;
    // Each record has one, and the time when it was seen has another name.
    let found = count(&output, b"\"timeUnixNano\":")?;
    finish(bench, "Collector", &root, (found, cpu))
}

fn finish(bench: &Bench, who: &str, root: &Path, (found, cpu): (u64, f64)) -> anyhow::Result<f64> {
    let sent = records(bench);
    if found != sent {
        bail!("{found} records are in the output of the {who}, {sent} were sent");
    }
    fs::remove_dir_all(root)?;
    Ok(cpu * 1e6 / sent as f64)
}

/// The least that does it: no batches are made anew, since requests are batches, and it tells nothing of itself but that it is ready.
fn configuration(address: &str, output: &Path) -> String {
    format!(
        "receivers:
  otlp: {{protocols: {{grpc: {{endpoint: '{address}'}}}}}}
exporters:
  file: {{path: '{}'}}
service:
  telemetry: {{metrics: {{level: none}}}}
  pipelines:
    logs: {{receivers: [otlp], exporters: [file]}}
",
        output.display()
    )
}

/// Sends `count` requests over one connection, some at once, until each is taken.
fn send(address: &str, requests: &[Vec<u8>], count: u64) -> anyhow::Result<()> {
    let mut connection = Connection::open(address, METHOD)?;
    let (mut ended, mut refusals) = (Vec::new(), 0);
    let mut left = count;
    let watch = Stopwatch::start();
    let mut next = 0;
    while left > 0 || connection.under_way() > 0 {
        if left > 0 && connection.under_way() < UNDER_WAY_MAX {
            connection.send(next, &requests[next % requests.len()], &mut ended)?;
            (left, next) = (left - 1, next + 1);
        } else {
            ended.push(connection.wait()?);
        }
        for Ended { is_good, .. } in ended.drain(..) {
            refusals = if is_good { 0 } else { refusals + 1 };
            if !is_good {
                left += 1;
                pause(5);
            }
        }
        if refusals > REFUSALS_MAX || watch.elapsed() > WAIT_MAX {
            bail!("{left} requests were not taken, {refusals} in a row refused");
        }
    }
    Ok(())
}

fn count(path: &Path, needle: &[u8]) -> anyhow::Result<u64> {
    let mut reader = BufReader::with_capacity(1 << 20, File::open(path).context("opening an output")?);
    let (mut found, mut line) = (0, Vec::new());
    while reader.read_until(b'\n', &mut line)? > 0 {
        found += memchr::memmem::find_iter(&line, needle).count() as u64;
        line.clear();
    }
    Ok(found)
}

/// Returns a request with [`REQUEST_RECORDS`] records of a service, behind the prefix of a message.
fn request(number: u64) -> Vec<u8> {
    let mut of_scope = Vec::new();
    let mut scope = Vec::new();
    text(&mut scope, 1, "etcher.jobs");
    field(&mut of_scope, 1, &scope);
    for record in 0..REQUEST_RECORDS {
        field(&mut of_scope, 2, &log_record(number * REQUEST_RECORDS + record));
    }
    let mut resource = Vec::new();
    for (key, value) in [("service.name", "etcher"), ("service.version", "4.2.1"), ("host.name", "fab12-tool-07")] {
        field(&mut resource, 1, &attribute(key, value));
    }
    let (mut of_resource, mut request) = (Vec::new(), Vec::new());
    field(&mut of_resource, 1, &resource);
    field(&mut of_resource, 2, &of_scope);
    field(&mut request, 1, &of_resource);
    [&[0][..], &(request.len() as u32).to_be_bytes(), &request].concat()
}

/// Returns a record of about 320 bytes; in JSON, with its resource, it has twice as many.
fn log_record(number: u64) -> Vec<u8> {
    let mut record = Vec::new();
    let time = 1_790_000_000_000_000_000 + number * 1_000_003;
    fixed(&mut record, 1, time);
    varint(&mut record, 2 << 3);
    varint(&mut record, 9);
    text(&mut record, 3, "INFO");
    let mut body = Vec::new();
    text(
        &mut body,
        1,
        &format!(
            "chamber {} pressure 12.4 mTorr within window 11.8 to 13.1, recipe \"poly-etch\" step {} of 12, wafer {} of lot A17, \
             cache hit ratio 0.93 over the last 60 s, queue depth 42, oldest entry 3.7 s",
            number % 40,
            number % 12,
            number % 700
        ),
    );
    field(&mut record, 5, &body);
    for (key, value) in [
        ("job.id", format!("J-{number:08}")),
        ("tool", format!("etch-{:02}", number % 40)),
        ("thread", "worker-3".into()),
    ] {
        field(&mut record, 6, &attribute(key, &value));
    }
    field(&mut record, 9, &u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).to_be_bytes());
    field(&mut record, 10, &number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    fixed(&mut record, 11, time + 1_000);
    record
}

fn attribute(key: &str, value: &str) -> Vec<u8> {
    let (mut any, mut pair) = (Vec::new(), Vec::new());
    text(&mut any, 1, value);
    text(&mut pair, 1, key);
    field(&mut pair, 2, &any);
    pair
}

fn text(out: &mut Vec<u8>, number: u64, value: &str) {
    field(out, number, value.as_bytes());
}

fn field(out: &mut Vec<u8>, number: u64, bytes: &[u8]) {
    varint(out, number << 3 | 2);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn fixed(out: &mut Vec<u8>, number: u64, value: u64) {
    varint(out, number << 3 | 1);
    out.extend_from_slice(&value.to_le_bytes());
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_a_message_of_records_of_about_320_bytes() {
        let request = request(3);
        let length = u32::from_be_bytes([request[1], request[2], request[3], request[4]]) as usize;
        assert_eq!((request[0], length), (0, request.len() - 5));
        let bytes = length as u64 / REQUEST_RECORDS;
        assert!((300..340).contains(&bytes), "{bytes}");
    }
}
