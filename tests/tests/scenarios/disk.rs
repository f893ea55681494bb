//! A disk that is full, read-only or damaged.

use std::fs;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use spillway_tests::agent::{Agent, Place, deliveries, message_of};
use spillway_tests::http::Client;
use spillway_tests::output;
use spillway_tests::receiver::{Mode, Receiver};
use spillway_tests::servers::skip;

use crate::fixtures;

/// A small volume in memory, unmounted at the end. `None`, and a word why, where this machine does not allow mounts.
struct Volume(tempfile::TempDir);

impl Volume {
    fn mount(test: &str, bytes: u64) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let size = std::ffi::CString::new(format!("size={bytes}")).unwrap();
        match rustix::mount::mount("tmpfs", dir.path(), "tmpfs", rustix::mount::MountFlags::empty(), Some(&*size)) {
            Ok(()) => Some(Self(dir)),
            Err(error) => {
                skip(test, &format!("a volume of {bytes} bytes cannot be mounted, run as root: {error}"));
                None
            }
        }
    }

    fn remount_read_only(&self) {
        let flags = rustix::mount::MountFlags::RDONLY;
        rustix::mount::mount_remount(self.0.path(), flags, "").expect("the volume is remounted");
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        rustix::mount::unmount(self.0.path(), rustix::mount::UnmountFlags::DETACH).ok();
    }
}

/// Sends a thousand events until there is room for them, and returns how many were taken in all.
fn sent_until_taken(agent: &mut Agent, client: &mut Client, taken: u64) -> u64 {
    agent.eventually(
        || "room is free again".into(),
        |_| {
            let answer = client.send("POST", "/v1/events", &[], &fixtures::events(taken, 1000)).unwrap();
            assert!([202, 503].contains(&answer.status), "{}", answer.json());
            (answer.status == 202).then_some(taken + 1000)
        },
    )
}

#[test]
fn a_full_volume_refuses_keeps_what_it_has_and_goes_on_with_space() {
    let test = "a_full_volume_refuses_keeps_what_it_has_and_goes_on_with_space";
    let Some(volume) = Volume::mount(test, 24 << 20) else { return };
    let receiver = Receiver::start();
    receiver.mode(Mode::Refuse(503));
    let place = Place::new(&fixtures::to_files_and(&receiver.url)).data_at(volume.path()).flag("--free-bytes-min", "0");
    let mut agent = place.start();
    let ballast = volume.path().join("ballast");
    fs::write(&ballast, vec![0u8; 8 << 20]).unwrap();
    let mut client = Client::connect(&agent.http).unwrap();
    let mut taken = 0;
    let refused = loop {
        let answer = client.send("POST", "/v1/events", &[], &fixtures::events(taken, 1000)).unwrap();
        if answer.status != 202 {
            break answer;
        }
        taken += 1000;
        assert!(taken < 200_000, "the volume never filled up");
    };
    assert_eq!(refused.status, 503, "{}", refused.json());
    assert!(refused.header("retry-after").is_some());
    fs::remove_file(&ballast).unwrap();
    taken = sent_until_taken(&mut agent, &mut client, taken);
    receiver.mode(Mode::Take);
    agent.wait_until_delivered(taken);
    agent.stop();
    let all = fixtures::ids(0, taken);
    output::assert_exactly_once(&receiver.lines(), "id", &all, &all);
    output::assert_exactly_once(&output::lines_below(&place.path("out")), "id", &all, &all);
}

#[test]
fn a_volume_is_filled_to_the_floor_of_free_space_and_no_further() {
    const FLOOR: u64 = 32 << 20;
    let test = "a_volume_is_filled_to_the_floor_of_free_space_and_no_further";
    let Some(volume) = Volume::mount(test, 64 << 20) else { return };
    let free_bytes = || {
        let stat = rustix::fs::statvfs(volume.path()).unwrap();
        stat.f_bavail * stat.f_frsize
    };
    let receiver = Receiver::start();
    receiver.mode(Mode::Refuse(503));
    let place = Place::new(&fixtures::to_files_and(&receiver.url)).data_at(volume.path());
    let place = place.flag("--free-bytes-min", &FLOOR.to_string());
    let mut agent = place.start();
    let mut client = Client::connect(&agent.http).unwrap();
    let mut taken = 0;
    let refused = loop {
        let answer = client.send("POST", "/v1/events", &[], &fixtures::events(taken, 1000)).unwrap();
        if answer.status != 202 {
            break answer;
        }
        taken += 1000;
        assert!(taken < 500_000, "the floor is not heeded: {} bytes are free", free_bytes());
    };
    assert_eq!(refused.status, 503, "{}", refused.json());
    assert!(refused.header("retry-after").is_some());
    // Cursors are saved and a footer may be written below it.
    assert!((FLOOR - (2 << 20)..FLOOR + (4 << 20)).contains(&free_bytes()), "{} bytes are free", free_bytes());
    receiver.mode(Mode::Take);
    agent.wait_until_delivered(taken);
    // Files that wait to be written over go when somebody asks for room.
    taken = sent_until_taken(&mut agent, &mut client, taken);
    agent.wait_until_delivered(taken);
    agent.stop();
    let all = fixtures::ids(0, taken);
    output::assert_exactly_once(&receiver.lines(), "id", &all, &all);
}

#[test]
fn a_read_only_data_directory_is_told_in_one_clear_line() {
    let test = "a_read_only_data_directory_is_told_in_one_clear_line";
    let Some(volume) = Volume::mount(test, 4 << 20) else { return };
    volume.remount_read_only();
    let place = Place::new(&fixtures::to_files("Disk")).data_at(volume.path());
    let output = place.command().output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("data directory") && text.to_lowercase().contains("read-only"), "{text}");
    let told = text.lines().filter(|line| line.to_lowercase().contains("read-only"));
    assert_eq!(told.count(), 1, "{text}");
}

#[test]
fn the_second_agent_of_a_data_directory_is_told_who_is_first() {
    let place = Place::new(&fixtures::to_files("Disk"));
    let first = place.start();
    let output = place.command().output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains(&format!("pid {}", first.pid())), "{text}");
}

fn segments(place: &Place) -> Vec<PathBuf> {
    let spool = place.data_dir().join("spool/default.jobs");
    output::files(&spool)
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect()
}

/// Events of one request, and so of one record of the log.
const RECORD_EVENTS: u64 = 2000;

/// How each record of the log begins.
const RECORD_MAGIC: &[u8] = b"SPF1";

/// Runs until some megabytes are held for a dead receiver, then ends; returns how many events.
fn hold(place: &Place) -> u64 {
    let mut agent = place.start();
    let mut sent = 0;
    while segments(place).len() < 4 {
        fixtures::post(&agent.http, sent, RECORD_EVENTS);
        sent += RECORD_EVENTS;
        assert!(sent < 1_000_000);
    }
    agent.wait_until("the archive has all", |status| {
        deliveries(&status["pipelines"][0]).any(|delivery| delivery["deliveredEvents"] == sent)
    });
    agent.kill();
    sent
}

/// Returns the numbers of the events in a part of a segment, in their order.
fn numbers(bytes: &[u8]) -> Vec<u64> {
    let text = String::from_utf8_lossy(bytes);
    let ids = text.split("\"id\":\"e").skip(1).filter_map(|rest| rest.split_once('"'));
    ids.filter_map(|(number, _)| number.parse().ok()).collect()
}

/// Returns the number of the first event of the record that holds a place of a segment, or of the next one with events.
fn record_at(segment: &[u8], at: usize) -> u64 {
    let begins = |window: &[u8]| window == RECORD_MAGIC;
    let start = segment[..at].windows(RECORD_MAGIC.len()).rposition(begins).expect("a record begins before");
    let first = numbers(&segment[start..])[0];
    assert_eq!(first % RECORD_EVENTS, 0, "a request is a record");
    first
}

/// Damages what is held, starts again, and looks: exactly what `damage` says is lost, told and counted, everything else
/// comes once, and who had it all before misses nothing. What is damaged and still there is set aside under a name that
/// ends in `aside`.
fn damaged(damage: impl Fn(&Path) -> Range<u64>, aside: Option<&str>) {
    let receiver = Receiver::start();
    receiver.mode(Mode::Refuse(503));
    let place = Place::new(&fixtures::to_files_and(&receiver.url)).flag("--drain-seconds", "1");
    let sent = hold(&place);
    let lost = damage(&segments(&place)[1]);
    let lost_events = lost.end - lost.start;
    assert!(RECORD_EVENTS <= lost_events && lost.end < sent, "{lost:?} of {sent}");
    receiver.mode(Mode::Take);
    let mut agent = place.start();
    agent.wait_until("nothing held", |status| {
        deliveries(&status["pipelines"][0]).all(|delivery| delivery["heldEvents"] == 0)
    });
    fixtures::post(&agent.http, sent, 100);
    let status = agent.wait_until_delivered(1);
    let metrics = agent.metrics();
    let logged = agent.kill_and_read();

    let all = fixtures::ids(0, sent + 100);
    let left = [fixtures::ids(0, lost.start), fixtures::ids(lost.end, sent + 100 - lost.end)].concat();
    output::assert_exactly_once(&receiver.lines(), "id", &left, &left);
    output::assert_exactly_once(&output::lines_below(&place.path("out")), "id", &all, &all);
    let pipeline = &status["pipelines"][0];
    for delivery in deliveries(pipeline) {
        let damaged = if delivery["backend"] == "api" { lost_events.into() } else { serde_json::Value::Null };
        assert_eq!(delivery["droppedEvents"]["damaged"], damaged, "{delivery:#}");
    }
    let places = pipeline["log"]["damaged"].as_u64().unwrap_or(0);
    assert!((1..=2).contains(&places), "the segment, and where the one before it lacks a successor: {pipeline:#}");
    let counted: Vec<&str> = metrics
        .lines()
        .filter(|line| line.starts_with("spillway_delivery_dropped_events_total{") && line.contains("\"damaged\""))
        .collect();
    assert_eq!(counted.len(), 1, "{counted:?}");
    assert!(counted[0].contains("\"api\"") && counted[0].ends_with(&format!(" {lost_events}")), "{counted:?}");
    let told = logged.iter().filter(|line| message_of(line) == "events lost by damage of the log");
    let told: u64 = told.filter_map(|line| line["events"].as_u64()).sum();
    assert_eq!(told, lost_events, "{logged:#?}");
    let folder = place.data_dir().join("spool/default.jobs/quarantine");
    let kept: Vec<PathBuf> = fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
    let of_events = |path: &PathBuf| fs::read(path).unwrap().windows(3).any(|bytes| bytes == b"xxx");
    assert_eq!(kept.iter().filter(|path| of_events(path)).count(), usize::from(aside.is_some()), "{kept:?}");
    assert!(aside.is_none_or(|end| kept.iter().any(|path| path.to_string_lossy().ends_with(end))), "{kept:?}");
}

#[test]
fn a_flipped_bit_costs_one_record_and_is_counted() {
    damaged(
        |path| {
            let segment = fs::read(path).unwrap();
            // Within an event in the middle.
            let middle = segment.len() / 2;
            let at = middle + segment[middle..].windows(3).position(|bytes| bytes == b"xxx").unwrap();
            let file = fs::OpenOptions::new().write(true).open(path).unwrap();
            file.write_all_at(&[segment[at] ^ 4], at as u64).unwrap();
            let first = record_at(&segment, at);
            first..first + RECORD_EVENTS
        },
        Some(".bad"),
    );
}

#[test]
fn a_segment_cut_in_the_middle_costs_its_tail_and_is_counted() {
    damaged(
        |path| {
            let segment = fs::read(path).unwrap();
            let at = segment.len() / 2;
            fs::OpenOptions::new().write(true).open(path).unwrap().set_len(at as u64).unwrap();
            record_at(&segment, at)..numbers(&segment).last().unwrap() + 1
        },
        None,
    );
}

#[test]
fn a_segment_without_a_header_is_set_aside_and_counted() {
    damaged(
        |path| {
            let held = numbers(&fs::read(path).unwrap());
            fs::OpenOptions::new().write(true).open(path).unwrap().write_all_at(&[0; 64], 0).unwrap();
            held[0]..held.last().unwrap() + 1
        },
        Some(".log"),
    );
}
