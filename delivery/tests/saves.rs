//! Saves of cursors, where they could go wrong without any test of the data noticing: a disk that is full from the start.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so")]

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use spillway_delivery::clock::Clock;
use spillway_delivery::filesystem::{Faults, FaultyFs};
use spillway_delivery::log::{DeliveryKey, Log, LogOptions, Progress};
use spillway_delivery::settings::LogSettings;
use spillway_delivery::supervisor::Supervisor;

const DIR: &str = "/data/spool/uid";

fn open(fs: &FaultyFs, owner: &Supervisor, incarnation: u64) -> Log {
    let options = LogOptions {
        dir: DIR.into(),
        filesystem: Arc::new(fs.clone()),
        clock: Clock::manual(1),
        settings: LogSettings::default(),
        routes: vec!["all".into()],
        free_bytes_min: 0,
    };
    Log::open(options, owner, incarnation).unwrap()
}

fn disk() -> FaultyFs {
    let fs = FaultyFs::new(1);
    fs.put(Path::new("/data/lock"), b"");
    fs
}

fn key(backend: &str) -> DeliveryKey {
    DeliveryKey { route: "all".into(), backend_uid: backend.into() }
}

// ── A disk that is full from the start ──────────────────────────────────────────────────────────────────────────────────

#[tokio::test(start_paused = true)]
async fn cursors_are_saved_on_a_disk_that_is_full_since_the_start() {
    let fs = disk();
    let owner = Supervisor::new("saves");
    let log = open(&fs, &owner, 1);
    fs.set_faults(Faults { capacity: Some(fs.used_bytes()), ..Faults::default() });
    let used = fs.used_bytes();
    // Enough records that both slots are written and turned over, some synced.
    let at = |cursor| Progress { cursor, mark: Some(Bytes::from(vec![7; 2000])), ..Progress::default() };
    for cursor in 1..400 {
        for backend in ["a", "b"] {
            log.save(&key(backend), &at(cursor), cursor % 7 == 0 || cursor == 399).await.unwrap();
        }
    }
    assert_eq!(fs.used_bytes(), used, "a save took more room");
    for next in [fs.kill(), fs.crash(3)] {
        let log = open(&next, &owner, 2);
        assert_eq!(log.progress(&key("a")).unwrap(), at(399));
        assert_eq!(log.progress(&key("b")).unwrap(), at(399));
    }
}
