//! A disk that is full, read-only or damaged.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use spillway_tests::agent::{Agent, Place, deliveries};
use spillway_tests::http::Client;
use spillway_tests::output;
use spillway_tests::receiver::{Mode, Receiver};

use crate::fixtures;

/// A small volume in memory, unmounted at the end. `None`, and a word why, where this machine does not allow mounts.
struct Volume(tempfile::TempDir);

impl Volume {
    fn mount(bytes: u64) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let size = std::ffi::CString::new(format!("size={bytes}")).unwrap();
        match rustix::mount::mount("tmpfs", dir.path(), "tmpfs", rustix::mount::MountFlags::empty(), Some(&*size)) {
            Ok(()) => Some(Self(dir)),
            Err(error) => {
                let allowed = std::env::var_os("SPILLWAY_TEST_WITHOUT_MOUNTS").is_some();
                assert!(
                    allowed,
                    "a volume of {bytes} bytes cannot be mounted here: {error}; run as root, or set \
                     SPILLWAY_TEST_WITHOUT_MOUNTS=1 to leave out what needs one"
                );
                println!("skipped: a volume of {bytes} bytes cannot be mounted here: {error}");
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

#[test]
fn a_full_volume_refuses_keeps_what_it_has_and_goes_on_with_space() {
    let Some(volume) = Volume::mount(24 << 20) else { return };
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
    loop {
        let answer = client.send("POST", "/v1/events", &[], &fixtures::events(taken, 1000)).unwrap();
        if answer.status == 202 {
            break;
        }
        assert_eq!(answer.status, 503, "{}", answer.json());
        agent.moment(std::time::Duration::from_millis(50));
    }
    taken += 1000;
    receiver.mode(Mode::Take);
    agent.wait_until_delivered(taken);
    agent.stop();
    let all = fixtures::ids(0, taken);
    output::assert_exactly_once(&receiver.lines(), "id", &all, &all);
    output::assert_exactly_once(&output::lines_below(&place.path("out")), "id", &all, &all);
}

#[test]
fn a_read_only_data_directory_is_told_in_one_clear_line() {
    let Some(volume) = Volume::mount(4 << 20) else { return };
    volume.remount_read_only();
    let place = Place::new(&fixtures::to_files("Disk")).data_at(volume.path());
    let output = place.command().output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("data directory") && text.to_lowercase().contains("read-only"), "{text}");
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

/// Runs until some megabytes are held for a dead receiver, then ends; returns how many events.
fn hold(place: &Place) -> u64 {
    let mut agent = place.start();
    let mut sent = 0;
    while segments(place).len() < 4 {
        fixtures::post(&agent.http, sent, 2000);
        sent += 2000;
        assert!(sent < 1_000_000);
    }
    agent.wait_until("the archive has all", |status| {
        deliveries(&status["pipelines"][0]).any(|delivery| delivery["deliveredEvents"] == sent)
    });
    agent.kill();
    sent
}

fn dropped(agent: &Agent) -> u64 {
    let status = agent.status();
    deliveries(&status["pipelines"][0])
        .filter_map(|delivery| delivery["droppedEvents"]["damaged"].as_u64())
        .max()
        .unwrap_or(0)
}

/// Damages what is held, starts again, and counts: what is not delivered is told, and nothing else is lost.
fn damaged(damage: impl Fn(&[PathBuf])) {
    let receiver = Receiver::start();
    receiver.mode(Mode::Refuse(503));
    let place = Place::new(&fixtures::to_files_and(&receiver.url)).flag("--drain-seconds", "1");
    let sent = hold(&place);
    damage(&segments(&place));
    receiver.mode(Mode::Take);
    let mut agent = place.start();
    agent.wait_until("nothing held", |status| {
        deliveries(&status["pipelines"][0]).all(|delivery| delivery["heldEvents"] == 0)
    });
    fixtures::post(&agent.http, sent, 100);
    agent.wait_until_delivered(1);
    let lost = dropped(&agent);
    let metrics = agent.metrics();
    agent.stop();
    let got = output::count_by(&receiver.lines(), "id");
    assert!(got.values().all(|count| *count == 1), "nothing twice");
    assert!(lost > 0 && lost < sent, "damage costs what is damaged: {lost} of {sent}");
    assert_eq!(got.len() as u64 + lost, sent + 100, "every event is delivered or told as lost");
    assert!(metrics.contains("damaged"), "{metrics}");
}

#[test]
fn a_flipped_bit_costs_one_record_and_is_counted() {
    damaged(|segments| {
        let file = fs::OpenOptions::new().read(true).write(true).open(&segments[1]).unwrap();
        let middle = file.metadata().unwrap().len() / 2;
        let mut byte = [0];
        file.read_exact_at(&mut byte, middle).unwrap();
        file.write_all_at(&[byte[0] ^ 4], middle).unwrap();
    });
}

#[test]
fn a_segment_cut_in_the_middle_costs_its_tail_and_is_counted() {
    damaged(|segments| {
        let file = fs::OpenOptions::new().write(true).open(&segments[1]).unwrap();
        file.set_len(file.metadata().unwrap().len() / 2).unwrap();
    });
}

#[test]
fn a_segment_without_a_header_is_set_aside_and_counted() {
    damaged(|segments| {
        let file = fs::OpenOptions::new().write(true).open(&segments[1]).unwrap();
        file.write_all_at(&[0; 64], 0).unwrap();
    });
}
