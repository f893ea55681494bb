//! The task itself, on a real engine with a real log: over stops and starts every line is accepted once.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use spillway_crds::Reach;
use spillway_crds::kinds::selector::LabelSelector;
use spillway_delivery::filesystem::{Faults, FaultyFs, RealFs};
use spillway_delivery::intake::Pipeline;
use spillway_delivery::supervisor::Supervisor;
use tokio::time::{Instant, timeout};

use super::super::{ContainerLogsSettings, LogInput, StartAt, TailStats, start};
use super::log::{Lines, logged_to};
use super::world::{POD, cri};
use crate::sources::tail::testing::{PATIENCE, accepts, has_accepted, open};
use crate::sources::testing::time_goes_by;

fn follow(root: &Path, pipeline: &Arc<Pipeline>) -> Supervisor {
    let owner = Supervisor::new("sources");
    let settings = ContainerLogsSettings { root: root.into(), ..ContainerLogsSettings::default() };
    let input = LogInput {
        pipeline: pipeline.clone(),
        namespaces: Reach::everywhere(),
        containers: Vec::new(),
        pod_selector: LabelSelector::default(),
        start_at: StartAt::Beginning,
    };
    start(settings, vec![input], &owner, Arc::<TailStats>::default());
    owner
}

#[tokio::test]
async fn every_line_is_accepted_once_over_stops_and_starts() {
    let (root, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let directory = root.path().join(POD).join("main");
    let mut at = 0;
    for _ in 0..3 {
        let (engine, pipeline) = open(data.path(), Arc::new(RealFs)).await;
        let owner = follow(root.path(), &pipeline);
        for _ in 0..20 {
            fs::create_dir_all(&directory).unwrap();
            let mut file = OpenOptions::new().create(true).append(true).open(directory.join("0.log")).unwrap();
            let accepted = pipeline.report().accepted_events;
            for _ in 0..10 {
                file.write_all(&cri(at, "stdout", "F", "line")).unwrap();
                at += 1;
            }
            timeout(PATIENCE, has_accepted(&pipeline, accepted + 10)).await.expect("written lines are accepted");
            assert_eq!(pipeline.report().accepted_events, accepted + 10);
        }
        assert_eq!(pipeline.report().accepted_events, at, "nothing is read again after a start");
        assert!(owner.stop(Instant::now() + PATIENCE).await);
        engine.drain(Instant::now() + Duration::from_secs(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_log_that_cannot_be_written_is_told_once_and_not_by_each_batch_that_is_refused() {
    let (root, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let lines = Lines::default();
    let _logged = logged_to(&lines);
    let fs = FaultyFs::new(1);
    let (engine, pipeline) = open(data.path(), Arc::new(fs.clone())).await;
    let owner = follow(root.path(), &pipeline);
    let mut at = 0;
    // Each of some containers has something new.
    let mut write = || {
        for container in 0..8 {
            let directory = root.path().join(POD).join(format!("c{container}"));
            fs::create_dir_all(&directory).unwrap();
            let mut file = OpenOptions::new().create(true).append(true).open(directory.join("0.log")).unwrap();
            file.write_all(&cri(at, "stdout", "F", "line")).unwrap();
            at += 1;
        }
        at
    };
    accepts(&pipeline, write()).await;
    lines.take();
    fs.set_faults(Faults { write: 1_000_000, ..Faults::default() });
    let before = fs.counts().faults;
    let mut written = 0;
    for _ in 0..60 {
        written = write();
        time_goes_by(Duration::from_secs(1)).await;
    }
    assert!(fs.counts().faults - before >= 50, "it is tried all the time: {}", fs.counts().faults - before);
    assert_eq!(pipeline.report().accepted_events, 8);
    let told = lines.take();
    // What the committer tells it tells on another thread (`down` in the tests of the engine).
    assert_eq!(told.len(), 1, "{told:#?}");
    assert!(told[0].contains("log refuses new events"), "{told:#?}");
    fs.set_faults(Faults::default());
    accepts(&pipeline, written).await;
    let told = lines.take();
    assert_eq!(told.len(), 1, "{told:#?}");
    assert!(told[0].contains("log takes events again"), "{told:#?}");
    time_goes_by(Duration::from_secs(10)).await;
    assert_eq!(pipeline.report().accepted_events, written, "each line once");
    assert!(owner.stop(Instant::now() + PATIENCE).await);
    engine.drain(Instant::now() + Duration::from_secs(1)).await;
}
