//! What changes touch.

use spillway_crds::served::PodFacts;

use super::*;

fn key(kind: Kind, namespace: &str, name: &str) -> ObjectKey {
    ObjectKey::new(kind, namespace, name)
}

fn manifest(generation: i64, text: &str) -> Manifest {
    Manifest { uid: "u".into(), generation, text: text.into(), last_good: None }
}

fn pod(uid: &str, node: &str) -> (Arc<str>, Option<Pod>) {
    let facts = PodFacts { uid: uid.into(), namespace: "a".into(), name: uid.into(), ..PodFacts::default() };
    let pod = Pod {
        facts: Arc::new(facts),
        node: node.into(),
        service_account: "default".into(),
        uid: uid.into(),
        ..Pod::default()
    };
    (uid.into(), Some(pod))
}

fn nodes(touched: &Touched) -> Vec<&str> {
    touched.places.iter().map(|node| &**node).collect()
}

#[test]
fn what_comes_again_unchanged_touches_nothing() {
    let mut world = World::default();
    let changes = || {
        let (uid, one) = pod("p", "n1");
        [
            Change::Object(key(Kind::Backend, "a", "x"), Some(manifest(1, "text"))),
            Change::Namespace("a".into(), Some(BTreeMap::from([("tier".into(), "prod".into())]))),
            Change::Pod(uid, one),
            Change::Node("n1".into(), Some(true)),
            Change::Secret(("a".into(), "s".into()), Some(SecretData { version: "1".into(), ..SecretData::default() })),
            Change::Secret(("a".into(), "absent".into()), None),
        ]
    };
    changes().into_iter().for_each(|change| world.apply(change));
    let touched = world.take_touched();
    assert_eq!((touched.objects.len(), touched.namespaces.len(), touched.secrets.len()), (1, 1, 2));
    assert_eq!(nodes(&touched), ["n1"]);
    changes().into_iter().for_each(|change| world.apply(change));
    assert_eq!(world.take_touched(), Touched::default());
    for gone in [
        Change::Object(key(Kind::Backend, "a", "never"), None),
        Change::Namespace("never".into(), None),
        Change::Pod("never".into(), None),
        Change::Node("never".into(), None),
    ] {
        world.apply(gone);
    }
    assert_eq!(world.take_touched(), Touched::default());
}

#[test]
fn a_last_good_version_alone_is_no_other_version() {
    let mut world = World::default();
    let pipeline = key(Kind::MonitoringPipeline, "a", "p");
    let good = |text: &str| Some(Arc::new(LastGood { generation: 1, texts: vec![text.into()] }));
    world.apply(Change::LastGood(pipeline.clone(), good("x")));
    assert_eq!(world.take_touched(), Touched::default(), "of one that is not there");
    world.apply(Change::Object(pipeline.clone(), Some(manifest(1, "pipeline"))));
    world.take_touched();
    let as_object =
        |text| Change::Object(pipeline.clone(), Some(Manifest { last_good: good(text), ..manifest(1, "pipeline") }));
    for (change, stored) in [
        (as_object("x"), 1),
        (Change::LastGood(pipeline.clone(), good("x")), 0),
        (Change::LastGood(pipeline.clone(), good("y")), 1),
        (Change::LastGood(pipeline.clone(), None), 1),
    ] {
        world.apply(change);
        let touched = world.take_touched();
        assert_eq!((touched.objects.len(), touched.stored.len()), (0, stored));
    }
    assert_eq!(world.object_of(&pipeline).unwrap().last_good, None);
}

#[test]
fn a_pod_that_moves_or_ends_touches_its_node_and_is_told_as_ended() {
    let mut world = World::default();
    let apply = |world: &mut World, (uid, pod)| world.apply(Change::Pod(uid, pod));
    apply(&mut world, pod("p", ""));
    assert_eq!(world.take_touched(), Touched::default(), "nothing before it is scheduled");
    apply(&mut world, pod("p", "n1"));
    world.take_touched();
    assert_eq!(world.agents("a", "default"), BTreeMap::from([("p".into(), "n1".into())]));
    assert!(world.agents("b", "default").is_empty() && world.agents("a", "other").is_empty());
    apply(&mut world, pod("p", "n2"));
    let touched = world.take_touched();
    assert_eq!((nodes(&touched), touched.ended.len()), (vec!["n1", "n2"], 1));
    world.apply(Change::Pod("p".into(), None));
    let touched = world.take_touched();
    assert_eq!((nodes(&touched), &*touched.ended[0].uid), (vec!["n2"], "p"));
    assert!(world.pod("p").is_none() && world.pods_on("n2").next().is_none() && world.node_names().is_empty());
}

#[test]
fn a_label_that_keeps_logs_out_is_told_as_the_annotation() {
    let mut world = World::default();
    let (uid, one) = pod("p", "n1");
    let mut one = one.unwrap();
    Arc::make_mut(&mut one.facts).labels.insert(LOGS_MARK, "false");
    world.apply(Change::Pod(uid, Some(one)));
    assert_eq!(world.pod("p").unwrap().facts.annotations.get(LOGS_MARK), Some("false"));
}

#[test]
fn objects_are_found_by_kind_and_namespace_and_by_label() {
    let mut world = World::default();
    for (kind, namespace, name) in [
        (Kind::Backend, "a", "x"),
        (Kind::Backend, "ab", "y"),
        (Kind::ClusterBackend, "", "lake"),
        (Kind::MonitoringPipeline, "a", "p"),
    ] {
        let key = key(kind, namespace, name);
        assert_eq!(ObjectKey::of_label(&key.label()).as_ref(), Some(&key));
        world.apply(Change::Object(key, Some(manifest(1, name))));
    }
    let names = |kind, namespace| -> Vec<String> {
        world.objects_in(kind, namespace).map(|(key, _)| key.name.to_string()).collect()
    };
    assert_eq!(names(Kind::Backend, "a"), ["x"]);
    assert_eq!(names(Kind::ClusterBackend, ""), ["lake"]);
    assert_eq!(key(Kind::ClusterBackend, "", "lake").uid(), "_cluster.lake");
    assert_eq!(key(Kind::MonitoringPipeline, "a", "p").label(), "MonitoringPipeline a/p");
    assert_eq!(ObjectKey::of_label("Pod a/p"), None);
}
