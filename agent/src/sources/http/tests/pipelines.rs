//! The door to real pipelines, whose manifests add different things to the origin.

use std::path::Path;

use bytes::Bytes;
use spillway_delivery::deliver::{Engine, EngineSettings};
use spillway_delivery::event::OriginBuilder;
use spillway_delivery::filesystem::RealFs;
use spillway_delivery::intake::{Accepted, Pipeline, RefusalReason};
use spillway_delivery::settings::{LogSettings, PipelineSettings, RouteSettings, Strategy};

use super::*;
use crate::sources::pushed::sender::Way;
use crate::sources::pushed::targets::{Pipelines, PushTargets};

pub(super) fn engine(dir: &Path) -> Engine {
    let (filesystem, clock) = (Arc::new(RealFs), Clock::system());
    Engine::open(EngineSettings { data_dir: dir.to_owned(), filesystem, clock, free_bytes_min: 0 }).unwrap()
}

pub(super) async fn add(engine: &Engine, name: &str, bytes_max: u64) -> Arc<Pipeline> {
    add_in(engine, ("default", name), bytes_max).await
}

pub(super) async fn add_in(engine: &Engine, (namespace, name): (&str, &str), bytes_max: u64) -> Arc<Pipeline> {
    let settings = PipelineSettings {
        uid: format!("{namespace}.{name}").into(),
        namespace: namespace.into(),
        name: name.into(),
        log: LogSettings { bytes_max, ..LogSettings::default() },
        transforms: Vec::new(),
        routes: vec![RouteSettings {
            name: "all".into(),
            condition: None,
            strategy: Strategy::All,
            backends: Vec::new(),
        }],
        origin: OriginBuilder { site_id: Some(name.to_owned()), ..OriginBuilder::default() },
        suspend: false,
    };
    engine.add(settings, Vec::new(), &|_| None).await.unwrap()
}

fn anybody() -> Sender {
    Sender::anybody(Way::Http, "loopback")
}

pub(super) fn submission() -> Submission {
    Submission { payload: Bytes::from_static(b"{}\n"), ends: vec![3], received: RECEIVED, key: None }
}

#[tokio::test]
async fn pipelines_that_add_different_things_take_it_all_or_none() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let pipelines = vec![add(&engine, "a", 1 << 20).await, add(&engine, "b", 1).await];
    let targets = PushTargets::default();
    targets.set(pipelines.clone());
    let door = Pipelines::new(Intake, targets.clone());
    let refused = door.submit(&anybody(), Selection::All, submission()).await.unwrap_err();
    let SubmitError::Refused { pipeline, reason, .. } = refused else { panic!("{refused:?}") };
    assert_eq!((&*pipeline, reason), ("b", RefusalReason::Full));
    assert_eq!(pipelines[0].report().accepted_events, 0);
    let accepted =
        door.submit(&anybody(), Selection::One(door.names(&anybody())[0].clone()), submission()).await.unwrap();
    assert_eq!(accepted, Accepted { events: 1, repeated: false });
    assert_eq!(pipelines[0].report().accepted_events, 1);
}

#[tokio::test]
async fn what_is_sent_to_pipelines_that_went_meanwhile_is_kept_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let (targets, one) = (PushTargets::default(), add(&engine, "a", 1 << 20).await);
    targets.set(vec![one.clone()]);
    let door = Pipelines::new(Intake, targets.clone());
    let name = door.names(&anybody())[0].clone();
    targets.set(Vec::new());
    for selection in [Selection::All, Selection::One(name)] {
        let refused = door.submit(&anybody(), selection, submission()).await.unwrap_err();
        assert!(matches!(refused, SubmitError::Refused { reason: RefusalReason::Removed, .. }), "{refused:?}");
    }
    targets.set(vec![one.clone()]);
    door.submit(&anybody(), Selection::All, submission()).await.unwrap();
    assert_eq!(one.report().accepted_events, 1);
}
