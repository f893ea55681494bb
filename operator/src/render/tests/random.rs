//! What is rendered bit by bit is what is rendered at once, and an edit costs what it touches.

use proptest::prelude::*;

use super::*;

/// A step: of few names, so that steps meet.
fn step() -> impl Strategy<Value = Change> {
    let space = prop::sample::select(vec!["a", "b"]);
    let tier = prop::sample::select(vec!["prod", "test"]);
    let app = prop::sample::select(vec!["x", "y"]);
    let name = prop::sample::select(vec!["one", "two"]);
    let on = prop::sample::select(vec!["n1", "n2"]);
    prop_oneof![
        (space.clone(), name.clone(), app.clone(), name.clone(), 1..4_i64)
            .prop_map(|(space, own, app, backend, version)| versioned(space, own, version, (app, backend))),
        (space.clone(), name.clone(), app.clone(), name.clone()).prop_map(|(space, own, app, backend)| pushed(
            space,
            own,
            (app, backend)
        )),
        (space.clone(), name.clone()).prop_map(|(space, own)| granted(space, own, "lake")),
        (space.clone(), name.clone()).prop_map(|(space, own)| gone(&format!("MonitoringPipeline {space}/{own}"))),
        (space.clone(), name.clone()).prop_map(|(space, own)| object(
            Kind::MonitoringPipeline,
            (space, own),
            9,
            &json!({"routes": []})
        )),
        (space.clone(), name.clone()).prop_map(|(space, own)| stdout(space, own)),
        (space.clone(), name.clone(), 1..4_i64).prop_map(|(space, own, version)| http(space, own, version, "s")),
        (space.clone(), name.clone()).prop_map(|(space, own)| object(
            Kind::Backend,
            (space, own),
            8,
            &json!({"type": "Stdou"})
        )),
        (space.clone(), name.clone()).prop_map(|(space, own)| gone(&format!("Backend {space}/{own}"))),
        (1..4_i64, tier.clone()).prop_map(|(version, tier)| lake(version, tier)),
        Just(object(
            Kind::ClusterBackend,
            ("", "lake"),
            7,
            &json!({"type": "HTTP", "allowedNamespaces": {"selector": {}}})
        )),
        Just(gone("ClusterBackend lake")),
        (name.clone(), tier.clone()).prop_map(|(own, tier)| over_tier(own, tier, "lake")),
        name.clone().prop_map(|own| gone(&format!("ClusterMonitoringPipeline {own}"))),
        (space.clone(), tier).prop_map(|(space, tier)| namespace(space, tier)),
        space.clone().prop_map(|space| Change::Namespace(space.into(), None)),
        (space.clone(), name.clone(), app, on.clone()).prop_map(|(space, own, app, on)| pod(space, own, app, on)),
        (space.clone(), name).prop_map(|(space, own)| ended(space, own)),
        (on, prop::option::of(any::<bool>())).prop_map(|(on, is_ready)| Change::Node(on.into(), is_ready)),
        (space.clone(), 1..4_i32).prop_map(|(space, version)| secret(space, "s", &version.to_string())),
        space.prop_map(|space| Change::Secret((space.into(), "s".into()), None)),
        Just(secret("spillway-system", "lake", "1")),
        (1..3_i32)
            .prop_map(|keys| Change::TokenKeys(TokenKeys { keys: keys.to_string(), ..TokenKeys::default() }.into())),
    ]
}

/// A pipeline of what pods push.
fn pushed(space: &str, own: &str, (app, backend): (&str, &str)) -> Change {
    let spec = json!({
        "inputs": [{"name": "pushed", "type": "Events", "events": {"podSelector": {"matchLabels": {"app": app}}}}],
        "routes": [{"name": "all", "backendRefs": [{"name": backend}]}],
    });
    object(Kind::MonitoringPipeline, (space, own), 5, &spec)
}

/// What a later change replaces.
fn place(change: &Change) -> String {
    match change {
        Change::Object(key, _) => key.label(),
        Change::LastGood(key, _) => format!("last good version of {}", key.label()),
        Change::Namespace(name, _) => format!("namespace {name}"),
        Change::Pod(uid, _) => format!("pod {uid}"),
        Change::Node(name, _) => format!("node {name}"),
        Change::Secret(name, _) => format!("secret {name:?}"),
        Change::TokenKeys(_) => "keys".to_owned(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn what_is_rendered_bit_by_bit_is_what_is_rendered_at_once(
        steps in prop::collection::vec((prop::collection::vec(step(), 1..4), any::<bool>()), 1..14),
    ) {
        let mut stage = Stage::default();
        let mut standing: BTreeMap<String, Change> = BTreeMap::new();
        for (changes, is_kept) in steps {
            for change in changes {
                // A change to an object leaves its last good version.
                let change = match change {
                    Change::Object(key, Some(manifest)) => {
                        let last_good = stage.world.object_of(&key).and_then(|known| known.last_good.clone());
                        Change::Object(key, Some(Manifest { last_good, ..manifest }))
                    }
                    other => other,
                };
                standing.insert(place(&change), change.clone());
                stage.apply([change]);
            }
            if is_kept {
                stage.keep();
                for (key, manifest) in stage.world.objects() {
                    standing.insert(key.label(), Change::Object(key.clone(), Some(manifest.clone())));
                }
            }
            // What ended is known for a while, and to who saw it alone.
            stage.second += 600;
            stage.apply([]);
            let fresh = Stage::of(standing.values().cloned());
            let verdicts = |stage: &Stage| -> Vec<(ObjectKey, Verdict)> {
                stage.renderer.verdicts().map(|(key, verdict)| (key.clone(), verdict.clone())).collect()
            };
            prop_assert_eq!(verdicts(&stage), verdicts(&fresh));
            prop_assert_eq!(stage.renderer.slices(), fresh.renderer.slices());
            prop_assert_eq!(stage.renderer.secrets(), fresh.renderer.secrets());
        }
    }
}

#[test]
fn an_edit_among_ten_thousand_pipelines_compiles_one_namespace() {
    let mut changes = vec![namespace("ns-0", "prod"), lake(1, "prod"), secret("spillway-system", "lake", "1")];
    for space in 0..1000 {
        let space = format!("ns-{space}");
        changes.push(stdout(&space, "out"));
        changes.push(pod(&space, "p", "x", &format!("node-{}", space.len())));
        changes.extend((0..10).map(|number| pipeline(&space, &format!("p{number}"), "x", "out")));
    }
    let mut stage = Stage::of(changes);
    assert_eq!((stage.renderer.compiled(), stage.renderer.verdicts().count()), (1001, 11_001));
    let rendered = stage.apply([versioned("ns-7", "p3", 2, ("y", "out"))]);
    assert_eq!((stage.renderer.compiled(), rendered.verdicts.len()), (1002, 11));
    // A pod, a node, a label that nobody asks for: nothing is compiled.
    stage.apply([pod("ns-7", "q", "y", "node-4"), node("node-4")]);
    assert_eq!(stage.renderer.compiled(), 1002);
    // A destination of the cluster: who refers to it, and the cluster.
    stage.apply([granted("ns-0", "g", "lake")]);
    let before = stage.renderer.compiled();
    stage.apply([lake(2, "prod")]);
    assert_eq!(stage.renderer.compiled() - before, 2);
}
