//! The configuration edited ten times a second under load, with a SIGKILL in the midst: every acknowledged event is in the files
//! of every route that was there when it was accepted, each once, and what no edit names keeps its connection.
//!
//! Edits are written by the clock, whether or not the one before is running: what piles up the agent may read at once. The quota
//! of the pipeline, which differs by a byte from version to version, tells in `status` which of them runs.
//!
//! `SPILLWAY_LIVE_SECONDS` makes it longer, `SPILLWAY_LIVE_BATCH` its batches larger: 60 and 1000 are a minute at more than
//! 20,000 events a second.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use spillway_tests::agent::{Agent, Place, assert_balanced, deliveries};
use spillway_tests::http::Client;
use spillway_tests::receiver::Receiver;
use spillway_tests::{PATIENCE, Random, output};
use tokio::time::Instant;

use crate::fixtures;

const SENDERS: u64 = 2;
const ROUTES: [&str; 4] = ["always", "second", "third", "fourth"];

/// The time from one edit to the next.
const EDIT_PERIOD: Duration = Duration::from_millis(100);

/// How long a version may be written and not run: half of them, and any. A bound of two seconds is what users are told; any of
/// them may wait longer on a machine that runs other tests meanwhile.
const RUNS_WITHIN: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(10)];

/// The quota of the first version; each has a byte more.
const QUOTA: u64 = 1 << 30;

/// The routes of one version.
type Version = BTreeSet<&'static str>;

/// What the one who edits and the senders share.
struct Field {
    address: Mutex<String>,
    moved: Condvar,
    over: AtomicBool,
    /// Every version so far, and which of them may count at this moment: from the last that surely does to the last written.
    versions: Mutex<(Vec<Version>, usize, usize)>,
    /// When each was written, and how long it took to run where that was seen.
    written: Mutex<Vec<(Instant, Option<Duration>)>>,
    /// Milliseconds that the agent took to apply what it had read, as its log says.
    applied: Mutex<Vec<u64>>,
}

impl Field {
    fn next_address(&self, known: &str) -> String {
        let address = self.address.lock().unwrap();
        let stays = |address: &mut String| address == known && !self.over.load(Ordering::Acquire);
        self.moved.wait_timeout_while(address, PATIENCE, stays).unwrap().0.clone()
    }

    fn set_address(&self, address: &str) {
        address.clone_into(&mut self.address.lock().unwrap());
        self.moved.notify_all();
    }

    fn earliest(&self) -> usize {
        self.versions.lock().unwrap().1
    }

    fn last(&self) -> usize {
        self.versions.lock().unwrap().2
    }

    /// Notes which version runs, as `status` tells.
    fn runs(&self, status: &Value) {
        let pipelines = status["pipelines"].as_array().into_iter().flatten();
        let Some(quota) = pipelines.filter(|one| one["name"] == "jobs").find_map(|one| one["log"]["bytesMax"].as_u64())
        else {
            return;
        };
        let version = (quota - QUOTA) as usize;
        let mut versions = self.versions.lock().unwrap();
        if version <= versions.1 {
            return;
        }
        for (at, took) in &mut self.written.lock().unwrap()[versions.1 + 1..=version] {
            *took = Some(at.elapsed());
        }
        versions.1 = version;
    }

    /// Returns the routes that every version since `from` has, and those that any has.
    fn since(&self, from: usize) -> (Version, Version) {
        let versions = self.versions.lock().unwrap();
        let span = &versions.0[from..=versions.2];
        let all = span.iter().skip(1).fold(span[0].clone(), |all, one| all.intersection(one).copied().collect());
        (all, span.iter().flatten().copied().collect())
    }
}

/// What one sender knows: where each acknowledged event must be, and where it may be.
#[derive(Default)]
struct Sent {
    must: BTreeMap<&'static str, Vec<String>>,
    may: BTreeMap<&'static str, Vec<String>>,
    acknowledged: Vec<String>,
    all: Vec<String>,
}

fn send(field: &Field, pipeline: &str, sender: u64, batch_events: u64) -> Sent {
    let mut sent = Sent::default();
    let mut address = field.next_address("");
    let mut client = Client::connect(&address).ok();
    for batch in 0.. {
        if field.over.load(Ordering::Acquire) {
            break;
        }
        let first = (sender * 100_000 + batch) * batch_events;
        let (ids, body) = (fixtures::ids(first, batch_events), fixtures::events(first, batch_events));
        let (key, from) = (format!("{sender}-{batch}"), field.earliest());
        sent.all.extend(ids.iter().cloned());
        let headers = [("Idempotency-Key", key.as_str()), ("X-Spillway-Pipeline", pipeline)];
        loop {
            match client.as_mut().map(|client| client.send("POST", "/v1/events", &headers, &body)) {
                Some(Ok(answer)) if answer.status == 202 => break,
                Some(Ok(answer)) => assert!(matches!(answer.status, 429 | 500 | 503), "{}", answer.json()),
                Some(Err(_)) | None => {
                    address = field.next_address(&address);
                    client = Client::connect(&address).ok();
                }
            }
            if field.over.load(Ordering::Acquire) {
                return sent;
            }
        }
        let (must, may) = field.since(from);
        must.iter().for_each(|route| sent.must.entry(route).or_default().extend(ids.iter().cloned()));
        may.iter().for_each(|route| sent.may.entry(route).or_default().extend(ids.iter().cloned()));
        sent.acknowledged.extend(ids);
    }
    sent
}

/// Returns the pipeline that is edited, with `routes`.
fn jobs(routes: &Version, version: u64) -> String {
    let quota = QUOTA + version;
    let mut text = format!(
        "apiVersion: spillway.dev/v1alpha1\nkind: MonitoringPipeline\nmetadata: {{name: jobs}}\nspec:\n  drainSeconds: 3600\n  \
         buffer: {{maxBytes: {quota}}}\n  inputs: [{{name: pushed, type: Events}}]\n  routes:\n"
    );
    for route in routes {
        writeln!(text, "  - {{name: {route}, backendRefs: [{{name: archive}}]}}").unwrap();
    }
    text
}

fn archive(events: u64) -> String {
    format!(
        "apiVersion: spillway.dev/v1alpha1\nkind: Backend\nmetadata: {{name: archive}}\nspec: {{type: Filesystem, \
         filesystem: {{}}, delivery: {{batch: {{maxEvents: {events}}}}}}}\n"
    )
}

/// Returns the pipeline that no edit names.
fn steady(url: &str) -> String {
    format!(
        "apiVersion: spillway.dev/v1alpha1\nkind: Backend\nmetadata: {{name: api}}\nspec: {{type: HTTP, http: {{url: \
         \"{url}\"}}, delivery: {{maxInFlight: 1}}}}\n---\napiVersion: spillway.dev/v1alpha1\nkind: \
         MonitoringPipeline\nmetadata: {{name: steady}}\nspec:\n  inputs: [{{name: pushed, type: Events}}]\n  routes: \
         [{{name: all, backendRefs: [{{name: api}}]}}]\n"
    )
}

/// A pipeline that comes and goes whole.
fn guest(serial: u64) -> String {
    format!("# {serial}\n{}", jobs(&Version::from(["always"]), serial).replace("{name: jobs}", "{name: guest}"))
}

fn readings(status: &Value) -> u64 {
    status["config"]["reloads"].as_object().map_or(0, |all| all.values().filter_map(Value::as_u64).sum())
}

/// The folder of manifests and the one who edits it.
struct Editor<'a> {
    place: &'a Place,
    field: &'a Field,
    random: Random,
    serial: u64,
}

impl Editor<'_> {
    /// Replaces a file at once, as editors and mounts do.
    fn replace(&self, name: &str, text: &str) {
        let draft = self.place.path("draft");
        fs::write(&draft, text).unwrap();
        fs::rename(&draft, self.place.path("manifests").join(name)).unwrap();
    }

    /// Makes one edit.
    fn edit(&mut self) {
        self.serial += 1;
        match self.random.below(10) {
            0 => self.replace("jobs.yaml", &format!("# {}\n{{ not: [yaml\n", self.serial)),
            1 => self.replace("backends.yaml", &format!("# {}\n{}", self.serial, archive(100 + self.serial))),
            2 => self.replace("guest.yaml", &guest(self.serial)),
            3 if fs::remove_file(self.place.path("manifests/guest.yaml")).is_ok() => {}
            _ => self.toggle(),
        }
    }

    /// Gives the pipeline other routes.
    fn toggle(&mut self) {
        let mut version = Version::from(["always"]);
        for route in &ROUTES[1..] {
            if self.random.below(2) == 0 {
                version.insert(route);
            }
        }
        self.write(version);
    }

    fn write(&mut self, version: Version) {
        let mut versions = self.field.versions.lock().unwrap();
        versions.0.push(version);
        versions.2 = versions.0.len() - 1;
        let text = jobs(&versions.0[versions.2], versions.2 as u64);
        self.field.written.lock().unwrap().push((Instant::now(), None));
        drop(versions);
        self.replace("jobs.yaml", &text);
    }
}

/// Edits for so long, by the clock, and looks each time the agent says that it has read something.
fn edit_for(agent: &mut Agent, editor: &mut Editor<'_>, seconds: u64) -> u64 {
    let begin = Instant::now();
    let (mut edits, mut looked_at) = (0, agent.seen.len());
    while begin.elapsed() < Duration::from_secs(seconds) {
        editor.edit();
        edits += 1;
        let next = begin + EDIT_PERIOD * edits;
        while Instant::now() < next {
            agent.moment(next.saturating_duration_since(Instant::now()));
            let applied = agent.seen[looked_at..].iter().filter_map(|line| line["took_ms"].as_u64());
            let applied: Vec<u64> = applied.collect();
            if !applied.is_empty() {
                editor.field.applied.lock().unwrap().extend(applied);
                editor.field.runs(&agent.status());
            }
            looked_at = agent.seen.len();
        }
    }
    u64::from(edits)
}

/// Asserts how soon versions ran, and says it.
fn assert_soon(field: &Field) {
    let mut took: Vec<Duration> = field.written.lock().unwrap().iter().filter_map(|(_, took)| *took).collect();
    took.sort_unstable();
    let (half, longest) = (took[took.len() / 2], took[took.len() - 1]);
    println!("{} versions ran, half of them within {half:?}, all within {longest:?} of being written", took.len());
    let mut applied = field.applied.lock().unwrap().clone();
    applied.sort_unstable();
    let (middle, most) = (applied[applied.len() / 2], applied[applied.len() - 1]);
    println!("{} readings changed something; applied in {middle} ms, at most {most} ms", applied.len());
    assert!(half <= RUNS_WITHIN[0] && longest <= RUNS_WITHIN[1], "{took:?}");
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

fn is_at_rest(status: &Value) -> bool {
    let pipelines = status["pipelines"].as_array().cloned().unwrap_or_default();
    pipelines.len() == 2 && pipelines.iter().all(|pipeline| deliveries(pipeline).all(|one| one["heldEvents"] == 0))
}

#[test]
fn edits_under_load_with_a_kill_lose_and_double_nothing() {
    let (seconds, batch) = (number("SPILLWAY_LIVE_SECONDS", 5), number("SPILLWAY_LIVE_BATCH", 50));
    let receiver = Receiver::start();
    let first = Version::from(["always"]);
    let place = Place::new(&steady(&receiver.url));
    let field = Arc::new(Field {
        address: Mutex::default(),
        moved: Condvar::new(),
        over: AtomicBool::new(false),
        versions: Mutex::new((vec![first.clone()], 0, 0)),
        written: Mutex::new(vec![(Instant::now(), None)]),
        applied: Mutex::default(),
    });
    let mut editor = Editor { place: &place, field: &field, random: Random(7), serial: 0 };
    editor.replace("backends.yaml", &archive(1000));
    editor.replace("jobs.yaml", &jobs(&first, 0));
    let senders: Vec<_> = (0..=SENDERS)
        .map(|sender| {
            let field = field.clone();
            let pipeline = if sender == SENDERS { "steady" } else { "jobs" };
            std::thread::spawn(move || send(&field, pipeline, sender, batch))
        })
        .collect();
    let mut agent = place.start();
    field.set_address(&agent.http);
    let mut edits = edit_for(&mut agent, &mut editor, seconds / 2);
    assert_eq!(receiver.connections(), 1, "no edit named it, so its connection stays");
    editor.toggle();
    agent.kill();
    let mut agent = place.start();
    field.runs(&agent.status());
    field.set_address(&agent.http);
    edits += edit_for(&mut agent, &mut editor, seconds - seconds / 2);
    assert!(edits + 1 >= seconds * 10, "{edits} edits in {seconds} s");
    fs::remove_file(place.path("manifests/guest.yaml")).ok();
    editor.write(ROUTES.into());
    let last = field.last();
    agent.wait_until("the last edit", |status| {
        field.runs(status);
        field.earliest() == last
    });
    assert_soon(&field);
    field.over.store(true, Ordering::Release);
    field.moved.notify_all();
    let mut sent: Vec<Sent> = senders.into_iter().map(|sender| sender.join().unwrap()).collect();
    let status = agent.wait_until("everything delivered", is_at_rest);
    assert_balanced(&status);
    assert_eq!(receiver.connections(), 2, "one for each process");
    agent.stop();
    let steady = sent.pop().unwrap();
    output::assert_exactly_once(&receiver.lines(), "id", &steady.acknowledged, &steady.all);
    let unacknowledged: Vec<String> = sent.iter().flat_map(|one| one.all[one.acknowledged.len()..].to_vec()).collect();
    for route in ROUTES {
        let of = |which: fn(&Sent) -> &BTreeMap<&'static str, Vec<String>>| -> Vec<String> {
            sent.iter().filter_map(|one| which(one).get(route)).flatten().cloned().collect()
        };
        let (must, mut may) = (of(|sent| &sent.must), of(|sent| &sent.may));
        may.extend(unacknowledged.iter().cloned());
        let lines = output::lines_below(&place.path("out/default/jobs").join(route));
        output::assert_exactly_once(&lines, "id", &must, &may);
        println!("{route}: {} events, {} of them surely its own", lines.len(), must.len());
    }
    println!(
        "{edits} edits, {} + {} events",
        sent.iter().map(|one| one.acknowledged.len()).sum::<usize>(),
        steady.acknowledged.len()
    );
}

#[test]
fn a_bad_edit_is_refused_the_old_version_runs_and_a_hangup_reads_again() {
    let place = Place::new(&archive(1000));
    let write = |text: &str| fs::write(place.path("manifests/jobs.yaml"), text).unwrap();
    write(&jobs(&Version::from(["always"]), 0));
    let mut agent = place.start();
    fixtures::post(&agent.http, 0, 10);
    write(&jobs(&Version::from(["always"]), 1).replace("archive", "nowhere"));
    let label = "MonitoringPipeline default/jobs";
    let status = agent.wait_until("refused", |status| status["excluded"][0]["object"] == label);
    assert_eq!(status["excluded"][0]["kept"], true);
    assert!(agent.metrics().contains("spillway_config_reload_total{result=\"refused\"}"));
    fixtures::post(&agent.http, 10, 10);
    let before = readings(&status);
    agent.signal(Signal::HUP);
    agent.wait_until("read again", |status| readings(status) > before);
    write(&jobs(&Version::from(["always", "second"]), 2));
    agent.wait_until("applied", |status| status["excluded"].as_array().is_some_and(Vec::is_empty));
    fixtures::post(&agent.http, 20, 10);
    agent.wait_until_delivered(30);
    agent.stop();
    let lines = |route: &str| output::lines_below(&place.path("out/default/jobs").join(route));
    let (all, last) = (fixtures::ids(0, 30), fixtures::ids(20, 10));
    output::assert_exactly_once(&lines("always"), "id", &all, &all);
    output::assert_exactly_once(&lines("second"), "id", &last, &last);
}

#[test]
fn a_suspended_pipeline_says_so_to_senders_and_goes_on_where_it_stood() {
    let place = Place::new(&archive(1000));
    let write = |suspend: bool| {
        let text = jobs(&Version::from(["always"]), 0).replace("spec:\n", &format!("spec:\n  suspend: {suspend}\n"));
        fs::write(place.path("manifests/jobs.yaml"), text).unwrap();
    };
    write(false);
    let mut agent = place.start();
    fixtures::post(&agent.http, 0, 10);
    write(true);
    agent.wait_until("suspended", |status| status["pipelines"][0]["suspended"] == true);
    let answer = agent.post(&fixtures::events(10, 10), &[]);
    assert_eq!((answer.status, answer.json()["code"].as_str()), (503, Some("suspended")));
    assert!(answer.header("retry-after").is_some());
    write(false);
    agent.wait_until("resumed", |status| status["pipelines"][0]["suspended"] == false);
    fixtures::post(&agent.http, 10, 10);
    agent.wait_until_delivered(20);
    agent.stop();
    let all = fixtures::ids(0, 20);
    output::assert_exactly_once(&output::lines_below(&place.path("out")), "id", &all, &all);
}
