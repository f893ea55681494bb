//! Pods that are told of late, otherwise, and not at all.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use spillway_crds::kinds::selector::LabelSelector;
use spillway_crds::served::{PodFacts, Pods};
use tokio::sync::watch;

use super::super::tailer::Want;
use super::super::{PodFacts as Path, StartAt};
use super::world::{POD, World, cri, everything};
use crate::pods::{NodePods, PodsSender, Told};
use crate::settings::UnknownPods;
use crate::sources::tail::run::Tails;

fn lines(range: std::ops::Range<u64>) -> Vec<u8> {
    range.flat_map(|at| cri(at, "stdout", "F", &format!("line {at}"))).collect()
}

fn texts(range: std::ops::Range<u64>) -> Vec<String> {
    range.map(|at| format!("line {at}")).collect()
}

/// A pipeline that wants etchers.
fn etchers() -> Want {
    let labels = [("app".to_owned(), "etcher".to_owned())];
    Want { pod_selector: LabelSelector { match_labels: labels.into(), ..LabelSelector::default() }, ..everything(0) }
}

/// A world in which pods are told of.
fn world(want: Want, unknown_pods: UnknownPods) -> (World, PodsSender) {
    let (sender, receiver) = watch::channel(None);
    let mut world = World::new(vec![want]);
    (world.settings.pods, world.settings.unknown_pods) = (Some(receiver), unknown_pods);
    world.restart();
    (world, sender)
}

/// Tells of the pod, by its label `app` and its annotation `spillway.dev/logs`.
fn tell(world: &mut World, sender: &PodsSender, pod: Option<(&str, &str)>) {
    let path = Path::from_directory(POD).unwrap();
    let facts = pod.map(|(app, logs)| PodFacts {
        uid: path.uid.to_string().into(),
        namespace: path.namespace.to_string().into(),
        name: path.pod.to_string().into(),
        labels: [("app", app)].into(),
        annotations: [("spillway.dev/logs", logs)].into(),
        ..PodFacts::default()
    });
    let pods = Arc::new(NodePods::new(Pods { hash: String::new(), pods: facts.into_iter().map(Arc::new).collect() }));
    sender.send_replace(Some(Told { pods, confirmed: Some(world.now) }));
    world.tailer.take_pods(world.now);
    world.settle();
}

fn held(world: &World) -> u64 {
    world.stats.held_units.load(Ordering::Relaxed)
}

#[test]
fn a_pod_is_held_at_its_beginning_over_rotation_and_deletion_until_it_is_told_of() {
    let (mut world, sender) = world(etchers(), UnknownPods::Hold);
    world.write("main", "0.log", &lines(0..10));
    world.settle();
    world.rename("main", "0.log", "0.log.20260101-010101");
    world.write("main", "0.log", &lines(10..20));
    world.settle();
    world.remove("main", "0.log.20260101-010101");
    world.settle();
    tell(&mut world, &sender, None);
    assert_eq!((held(&world), world.logs[0].events.len()), (1, 0));
    tell(&mut world, &sender, Some(("etcher", "")));
    assert_eq!((held(&world), world.logs[0].messages("main")), (0, texts(0..20)));
    // That it is told of no more does not end it.
    tell(&mut world, &sender, None);
    world.write("main", "0.log", &lines(20..30));
    world.settle();
    assert_eq!(world.logs[0].messages("main"), texts(0..30));
    assert_eq!(world.stats.missed_files.load(Ordering::Relaxed), 0);
}

#[test]
fn a_pod_that_is_gone_before_it_is_told_of_is_read_to_its_end() {
    let (mut world, sender) = world(etchers(), UnknownPods::Hold);
    world.write("main", "0.log", &lines(0..10));
    world.settle();
    fs::remove_dir_all(world.root.path().join(POD)).unwrap();
    world.settle();
    assert_eq!(held(&world), 1);
    tell(&mut world, &sender, Some(("etcher", "")));
    assert_eq!((held(&world), world.logs[0].messages("main")), (0, texts(0..10)));
    assert_eq!(world.stats.open_files.load(Ordering::Relaxed), 0);
    assert!(
        world.logs[0].positions.keys().all(|source| &source[..] == b"container-logs"),
        "{:?}",
        world.logs[0].positions
    );
}

#[test]
fn a_pod_that_is_gone_and_never_told_of_is_given_up_while_the_operator_answers() {
    let (mut world, sender) = world(etchers(), UnknownPods::Hold);
    world.write("main", "0.log", &lines(0..10));
    tell(&mut world, &sender, None);
    fs::remove_dir_all(world.root.path().join(POD)).unwrap();
    world.settle();
    world.pass(Duration::from_hours(9));
    world.settle();
    assert_eq!(held(&world), 1, "nobody answered meanwhile");
    tell(&mut world, &sender, None);
    assert_eq!((held(&world), world.logs[0].events.len()), (0, 0));
    assert_eq!(world.stats.missed_files.load(Ordering::Relaxed), 1);
    assert_eq!(world.stats.missed_bytes.load(Ordering::Relaxed), lines(0..10).len() as u64);
    assert_eq!(world.stats.open_files.load(Ordering::Relaxed), 0);
}

#[test]
fn selection_follows_labels_and_reads_nothing_twice() {
    let (mut world, sender) = world(etchers(), UnknownPods::Hold);
    world.write("main", "0.log", &lines(0..10));
    tell(&mut world, &sender, Some(("other", "")));
    assert_eq!((held(&world), world.logs[0].events.len()), (0, 0));
    tell(&mut world, &sender, Some(("etcher", "")));
    assert_eq!(world.logs[0].messages("main"), texts(0..10), "it was never read: from its beginning");
    tell(&mut world, &sender, Some(("other", "")));
    world.write("main", "0.log", &lines(10..20));
    world.settle();
    tell(&mut world, &sender, Some(("etcher", "")));
    world.write("main", "0.log", &lines(20..30));
    world.settle();
    let expected = [texts(0..10), texts(20..30)].concat();
    assert_eq!(world.logs[0].messages("main"), expected, "what came meanwhile was not meant for it");
    // Also over a restart while it was not selected.
    tell(&mut world, &sender, Some(("other", "")));
    world.restart();
    world.settle();
    world.write("main", "0.log", &lines(30..40));
    tell(&mut world, &sender, Some(("etcher", "")));
    world.write("main", "0.log", &lines(40..50));
    world.settle();
    assert_eq!(world.logs[0].messages("main"), [expected, texts(40..50)].concat());
}

#[test]
fn a_pod_that_wants_to_be_left_alone_is_not_read_and_later_only_from_then_on() {
    let (mut world, sender) = world(everything(0), UnknownPods::Deliver);
    tell(&mut world, &sender, Some(("etcher", "false")));
    world.write("main", "0.log", &lines(0..10));
    world.settle();
    assert_eq!(world.logs[0].events.len(), 0);
    tell(&mut world, &sender, Some(("etcher", "true")));
    world.write("main", "0.log", &lines(10..20));
    world.settle();
    assert_eq!(world.logs[0].messages("main"), texts(10..20));
}

#[test]
fn unknown_pods_are_delivered_where_the_machine_says_so_and_no_label_is_asked_for() {
    for (want, expected) in [(everything(0), 10), (etchers(), 0)] {
        let (mut world, sender) = world(want, UnknownPods::Deliver);
        world.write("main", "0.log", &lines(0..10));
        world.settle();
        assert_eq!(world.logs[0].events.len(), expected);
        tell(&mut world, &sender, Some(("etcher", "")));
        world.write("main", "0.log", &lines(10..20));
        world.settle();
        assert_eq!(world.logs[0].messages("main"), texts(0..20));
    }
}

#[test]
fn a_pipeline_that_begins_at_the_end_leaves_what_a_held_pod_had_written() {
    let want = Want { start_at: StartAt::End, ..etchers() };
    let (mut world, sender) = world(want, UnknownPods::Hold);
    world.write("main", "0.log", &lines(0..10));
    world.settle();
    world.write("main", "0.log", &lines(10..20));
    tell(&mut world, &sender, Some(("etcher", "")));
    assert_eq!(world.logs[0].messages("main"), texts(10..20));
    world.restart();
    world.write("main", "0.log", &lines(20..30));
    world.settle();
    assert_eq!(world.logs[0].messages("main"), texts(10..30));
}
