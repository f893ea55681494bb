//! The task itself, on a real engine with a real log and the kernel's events: over stops and starts every line is accepted once.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use spillway_crds::paths::PathPattern;
use spillway_delivery::filesystem::RealFs;
use spillway_delivery::intake::Pipeline;
use spillway_delivery::supervisor::Supervisor;
use tokio::time::{Instant, timeout};

use super::super::{FileInput, FilesSettings, start};
use super::world::lines;
use crate::sources::tail::StartAt;
use crate::sources::tail::testing::{PATIENCE, has_accepted, open};

fn follow(root: &Path, pipeline: &Arc<Pipeline>) -> Supervisor {
    let owner = Supervisor::new("sources");
    let pattern = PathPattern::parse(root.join("**/*.log").to_str().unwrap()).unwrap();
    let input = FileInput { include: vec![pattern], start_at: StartAt::Beginning };
    // Only the kernel tells of anything within the patience of this test.
    let settings = FilesSettings { rescan: PATIENCE * 10, ..FilesSettings::default() };
    start(settings, pipeline.clone(), &[input], &owner, Arc::default());
    owner
}

#[tokio::test]
async fn every_line_is_accepted_once_over_rotations_stops_and_starts() {
    let (root, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let directory = root.path().join("line-3");
    fs::create_dir_all(&directory).unwrap();
    let mut at = 0;
    for _ in 0..3 {
        let (engine, pipeline) = open(data.path(), Arc::new(RealFs)).await;
        let owner = follow(root.path(), &pipeline);
        for round in 0..20 {
            if round % 5 == 4 {
                fs::rename(directory.join("a.log"), directory.join(format!("a.log.{at}"))).unwrap();
            }
            let mut file = OpenOptions::new().create(true).append(true).open(directory.join("a.log")).unwrap();
            file.write_all(lines(at..at + 10).as_bytes()).unwrap();
            at += 10;
            timeout(PATIENCE, has_accepted(&pipeline, u64::from(at))).await.expect("written lines are accepted");
        }
        assert_eq!(pipeline.report().accepted_events, u64::from(at), "nothing is read again after a start");
        assert!(owner.stop(Instant::now() + PATIENCE).await);
        engine.drain(Instant::now() + Duration::from_secs(1)).await;
    }
}
