//! Which version of an object is served, and what is said of it.

use super::*;

fn one() -> Stage {
    let mut stage = Stage::of([
        namespace("a", "prod"),
        pod("a", "p", "x", "n"),
        stdout("a", "out"),
        pipeline("a", "jobs", "x", "out"),
        secret("spillway-system", "lake", "1"),
    ]);
    stage.keep();
    stage
}

const JOBS: &str = "MonitoringPipeline a/jobs";

#[test]
fn a_good_version_is_kept_with_its_destinations_once() {
    let stage = Stage::of([stdout("a", "out"), stdout("a", "other"), pipeline("a", "jobs", "x", "out")]);
    let kept = stage.verdict(JOBS).keep.clone().unwrap();
    assert_eq!((kept.generation, kept.texts.len()), (1, 2));
    assert!(kept.texts[0].contains("MonitoringPipeline") && kept.texts[1].contains("\"name\":\"out\""));
    assert_eq!(stage.verdict("Backend a/out").keep, None);
    assert_eq!((stage.verdict("Backend a/out").used_by, stage.verdict("Backend a/other").used_by), (1, 0));
    let mut stage = one();
    assert_eq!(stage.verdict(JOBS).keep, None);
    // A destination that changes is another version of what is kept.
    stage.edit(object(Kind::Backend, ("a", "out"), 2, &json!({"type": "Stdout", "metadata": "None"})));
    assert!(stage.verdict(JOBS).keep.as_ref().unwrap().texts[1].contains("None"));
}

#[test]
fn a_bad_pipeline_runs_on_as_it_was_good_last() {
    let mut stage = one();
    let mut bad = json!({"inputs": [{"name": "logs", "type": "ContainerLogs"}]});
    bad["routes"] = json!([{"name": "all", "match": "event.", "backendRefs": [{"name": "out"}]}]);
    let rendered = stage.edit(object(Kind::MonitoringPipeline, ("a", "jobs"), 2, &bad));
    let verdict = &rendered.verdicts[&ObjectKey::of_label(JOBS).unwrap()];
    assert_eq!((verdict.generation, verdict.served), (2, Some(1)));
    let why = verdict.accepted.clone().unwrap_err();
    assert_eq!(why.reason, Reason::Invalid);
    assert!(why.message.starts_with("spec.routes[0].match: ") && !why.message.contains(JOBS), "{}", why.message);
    assert_eq!(stage.slice("n").objects[JOBS].generation, 1);
    assert_eq!(stage.text("n", "jobs")["spec"]["routes"][0]["match"], Value::Null);
    // A process that never saw it good serves the same.
    let other = Stage::of(everything(&stage.world));
    assert_eq!(other.slice("n"), stage.slice("n"));
    // One that was never good is not served.
    stage.apply([object(Kind::MonitoringPipeline, ("a", "new"), 1, &bad)]);
    assert_eq!(stage.verdict("MonitoringPipeline a/new").served, None);
}

#[test]
fn its_destinations_are_those_of_now_where_they_are_good() {
    let mut stage = one();
    stage.edit(object(Kind::Backend, ("a", "out"), 2, &json!({"type": "Stdout", "metadata": "None"})));
    stage.edit(object(Kind::MonitoringPipeline, ("a", "jobs"), 2, &json!({"inputs": [], "routes": []})));
    assert_eq!(stage.slice("n").objects[JOBS].generation, 1);
    assert_eq!(stage.text("n", "out")["spec"]["metadata"], "None");
}

#[test]
fn a_destination_that_became_bad_or_went_is_served_as_it_was() {
    let mut stage = one();
    stage.edit(object(Kind::Backend, ("a", "out"), 2, &json!({"type": "Stdou"})));
    let verdict = stage.verdict(JOBS);
    assert_eq!(
        (verdict.accepted.is_ok(), verdict.resolved.clone().unwrap_err().reason),
        (true, Reason::BackendInvalid)
    );
    assert_eq!((verdict.served, stage.slice("n").objects["Backend a/out"].generation), (Some(1), 1));
    let why = stage.verdict("Backend a/out").accepted.clone().unwrap_err();
    assert!(why.message.contains("did you mean `Stdout`?"), "{}", why.message);
    stage.apply([gone("Backend a/out")]);
    let why = stage.verdict(JOBS).resolved.clone().unwrap_err();
    assert_eq!((why.reason, stage.slice("n").objects["Backend a/out"].generation), (Reason::BackendNotFound, 1));
    // Who comes later and was never good with it does not get it.
    stage.apply([pipeline("a", "late", "x", "out")]);
    assert_eq!(stage.verdict("MonitoringPipeline a/late").served, None);
    assert_eq!(stage.served("n"), ["Backend a/out", JOBS]);
}

#[test]
fn a_missing_destination_is_waited_for_with_the_nearest_name() {
    let mut stage = Stage::of([pod("a", "p", "x", "n"), stdout("a", "output"), pipeline("a", "jobs", "x", "outptu")]);
    let why = stage.verdict(JOBS).resolved.clone().unwrap_err();
    assert_eq!(
        (why.reason, &*why.message),
        (
            Reason::BackendNotFound,
            "spec.routes[0].backendRefs[0].name: no such backend in namespace a; found \"outptu\"; allowed: `output`; help: did \
             you mean `output`?"
        )
    );
    assert!(stage.served("n").is_empty());
    stage.apply([stdout("a", "outptu")]);
    assert_eq!((stage.verdict(JOBS).resolved.clone(), stage.served("n").len()), (Ok(()), 2));
}

#[test]
fn what_was_granted_ends_at_once() {
    let mut stage = one();
    stage.apply([lake(1, "prod"), granted("a", "jobs", "lake")]);
    stage.keep();
    assert_eq!(stage.served("n"), ["ClusterBackend lake", JOBS]);
    assert_eq!(stage.verdict("ClusterBackend lake").used_by, 1);
    let refused = |stage: &Stage| {
        let verdict = stage.verdict(JOBS);
        assert_eq!((verdict.served, verdict.resolved.clone().unwrap_err().reason), (None, Reason::RefNotPermitted));
        assert!(stage.served("n").is_empty() && stage.slice("n").configuration.secrets.is_empty());
    };
    stage.apply([lake(2, "test")]);
    refused(&stage);
    stage.apply([lake(3, "prod")]);
    assert_eq!(stage.served("n").len(), 2);
    stage.apply([namespace("a", "test")]);
    refused(&stage);
    stage.apply([namespace("a", "prod")]);
    assert_eq!(stage.served("n").len(), 2);
    stage.apply([gone("ClusterBackend lake")]);
    refused(&stage);
}

#[test]
fn agents_are_told_of_what_is_granted_no_longer() {
    let mut stage = one();
    stage.apply([lake(1, "prod"), granted("a", "jobs", "lake"), pod("b", "p", "x", "other"), stdout("b", "out")]);
    stage.keep();
    let revoked = |stage: &Stage, node: &str| -> Vec<String> {
        let told = stage.slice(node).configuration.revoked.iter();
        told.map(|one| format!("{}/{}", one.namespace, one.backend)).collect()
    };
    let hash = |stage: &Stage| stage.slice("n").configuration.version.hash.clone();
    assert!(revoked(&stage, "n").is_empty());
    for (withdrawn, back) in [(lake(2, "test"), lake(3, "prod")), (namespace("a", "test"), namespace("a", "prod"))] {
        stage.apply([withdrawn]);
        assert_eq!(revoked(&stage, "n"), ["a/lake"]);
        assert!(revoked(&stage, "other").is_empty(), "it is no business of others");
        let told = hash(&stage);
        stage.apply([back]);
        assert!(revoked(&stage, "n").is_empty() && hash(&stage) != told);
    }
    // One whose pods have gone, and whose events are held still.
    stage.holding.insert("n".into(), [key(JOBS)].into());
    stage.apply([ended("a", "p")]);
    stage.second += 3600;
    stage.apply([lake(4, "test"), node("n")]);
    assert_eq!(revoked(&stage, "n"), ["a/lake"]);
    // What is deleted is no withdrawal: what was accepted for it drains.
    stage.apply([gone("ClusterBackend lake")]);
    assert!(revoked(&stage, "n").is_empty());
}

#[test]
fn a_bad_destination_of_the_cluster_is_served_as_it_was_and_grants_as_it_says_now() {
    let mut stage = one();
    stage.apply([lake(1, "prod"), granted("a", "jobs", "lake")]);
    stage.keep();
    let bad = |generation: i64, tier: &str| {
        let spec = json!({
            "type": "HTTP", "http": {"url": "no address"}, "allowedNamespaces": {"selector": {"matchLabels": {"tier": tier}}},
        });
        object(Kind::ClusterBackend, ("", "lake"), generation, &spec)
    };
    stage.apply([bad(2, "prod")]);
    assert!(stage.verdict("ClusterBackend lake").accepted.is_err());
    assert_eq!(stage.slice("n").objects.get("ClusterBackend lake").map(|edition| edition.generation), Some(1));
    assert_eq!(stage.text("n", "lake")["spec"]["http"]["url"], "https://api.example.test/");
    stage.apply([bad(3, "test")]);
    assert_eq!(stage.verdict(JOBS).served, None);
    assert!(stage.served("n").is_empty());
}

#[test]
fn a_forged_last_good_version_brings_in_no_object_of_others() {
    let mut stage = one();
    let foreign = [http("b", "out", 1, "s"), lake(9, "prod")].map(|change| match change {
        Change::Object(_, Some(manifest)) => manifest.text,
        _ => unreachable!(),
    });
    let forged = |mut texts: Vec<Arc<str>>| {
        texts.extend(foreign.clone());
        LastGood { generation: 1, texts }
    };
    let key = ObjectKey::of_label(JOBS).unwrap();
    let good = stage.world.object_of(&key).unwrap().last_good.clone().unwrap();
    stage.apply([Change::LastGood(key, Some(forged(good.texts.clone()).into()))]);
    stage.edit(object(Kind::MonitoringPipeline, ("a", "jobs"), 2, &json!({"inputs": [], "routes": []})));
    assert_eq!(stage.served("n"), ["Backend a/out", JOBS]);
}

#[test]
fn names_at_their_limit_are_served_and_told() {
    let (long, name) = ("n".repeat(63), "p".repeat(63));
    let mut stage = Stage::of([pod(&long, "p", "x", "n"), stdout(&long, "out"), pipeline(&long, &name, "x", "out")]);
    assert_eq!(stage.served("n").len(), 2);
    stage.apply([gone(&format!("Backend {long}/out"))]);
    assert!(stage.verdict(&format!("MonitoringPipeline {long}/{name}")).resolved.is_err());
}

#[test]
fn objects_that_are_gone_are_told_and_forgotten() {
    let mut stage = one();
    let rendered = stage.apply([gone(JOBS)]);
    assert_eq!(rendered.gone.iter().map(ObjectKey::label).collect::<Vec<_>>(), [JOBS]);
    assert!(stage.served("n").is_empty());
    assert_eq!(stage.verdict("Backend a/out").used_by, 0);
    stage.apply([gone("Backend a/out")]);
    assert_eq!(stage.renderer.verdicts().count(), 0);
}

/// Returns the changes that make a world like that one.
fn everything(world: &World) -> Vec<Change> {
    let objects = world.objects().map(|(key, manifest)| Change::Object(key.clone(), Some(manifest.clone())));
    let namespaces = world.namespaces().map(|(name, labels)| Change::Namespace(name.clone(), Some(labels.clone())));
    let pods = world.node_names().into_iter().flat_map(|node| world.pods_on(&node).cloned().collect::<Vec<_>>());
    let pods = pods.map(|pod| Change::Pod(pod.uid.clone(), Some((*pod).clone())));
    let secrets = world.secret_names().map(|name| Change::Secret(name.clone(), world.secret(name).flatten().cloned()));
    objects.chain(namespaces).chain(pods).chain(secrets).collect()
}
