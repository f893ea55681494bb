//! What a sidecar is served: its own pod's, and nothing else.

use spillway_crds::inject::INJECTED;
use spillway_crds::served::{Configuration, NODE_AGENT, NODE_AGENT_MANIFEST};
use spillway_crds::{Document, compile};

use super::*;

/// A pod whose sidecar runs that pipeline.
fn with_sidecar(namespace: &str, name: &str, app: &str, runs: &str) -> Change {
    let Change::Pod(uid, Some(mut pod)) = pod(namespace, name, app, "n") else { unreachable!() };
    Arc::make_mut(&mut pod.facts).annotations.insert(INJECTED, runs);
    Change::Pod(uid, Some(pod))
}

/// A pipeline that takes what pods with the label `app` push, down these routes.
fn pushed(namespace: &str, name: &str, app: &str, routes: &Value) -> Change {
    let inputs =
        json!([{"name": "pushed", "type": "Events", "events": {"podSelector": {"matchLabels": {"app": app}}}}]);
    object(Kind::MonitoringPipeline, (namespace, name), 1, &json!({"inputs": inputs, "routes": routes}))
}

fn to(backend: &str) -> Value {
    json!([{"name": "all", "backendRefs": [{"name": backend}]}])
}

#[test]
fn a_sidecar_is_served_the_pipeline_that_its_pod_asked_for_with_secrets_of_its_namespace() {
    let mut stage = Stage::of([
        node("n"),
        namespace("red", "prod"),
        namespace("blue", "prod"),
        http("red", "api", 1, "red-secret"),
        http("red", "other", 1, "other-secret"),
        http("blue", "api", 1, "blue-secret"),
        pushed("red", "jobs", "etcher", &to("api")),
        pushed("red", "more", "etcher", &to("other")),
        pushed("blue", "jobs", "etcher", &to("api")),
        secret("red", "red-secret", "1"),
        secret("red", "other-secret", "1"),
        secret("blue", "blue-secret", "1"),
        with_sidecar("red", "p", "etcher", "jobs"),
        with_sidecar("red", "q", "etcher", "more"),
        with_sidecar("blue", "p", "etcher", "jobs"),
        pod("red", "plain", "etcher", "n"),
    ]);
    assert_eq!(stage.served("red/p"), ["Backend red/api", "MonitoringPipeline red/jobs"]);
    assert_eq!(stage.served("red/q"), ["Backend red/other", "MonitoringPipeline red/more"]);
    assert_eq!(stage.served("blue/p"), ["Backend blue/api", "MonitoringPipeline blue/jobs"]);
    assert!(!stage.renderer.slices().contains_key("red/plain"));
    let slice = stage.slice("red/p");
    let secrets: Vec<_> = slice.configuration.secrets.iter().map(|one| (&*one.namespace, &*one.name)).collect();
    assert_eq!(secrets, [("red", "red-secret")]);
    assert_eq!(slice.pods.pods.iter().map(|pod| &*pod.uid).collect::<Vec<_>>(), ["red-p"]);
    let text = format!("{slice:?}");
    assert!(!text.contains("blue") && !text.contains("other"), "{text}");

    // What comes to its namespace later, and to its pipeline.
    let rendered = stage.apply([http("red", "api", 2, "red-secret")]);
    assert!(rendered.moved.contains(&key("Backend red/api")));
    assert_eq!(stage.slice("red/p").objects["Backend red/api"].generation, 2);
    stage.apply([pushed("red", "jobs", "etcher", &to("other"))]);
    assert_eq!(stage.served("red/p"), ["Backend red/other", "MonitoringPipeline red/jobs"]);
    // Who is no longer selected is served nothing, and still told who it is.
    stage.apply([pushed("red", "jobs", "washer", &to("other"))]);
    assert_eq!((stage.served("red/p").len(), stage.slice("red/p").pods.pods.len()), (0, 1));
    // One of which it holds events stays, as long as it can show that it had it.
    stage.holding.insert("red/p".into(), [key("MonitoringPipeline red/jobs")].into());
    stage.apply([]);
    assert_eq!(stage.served("red/p"), ["Backend red/other", "MonitoringPipeline red/jobs"]);
}

#[test]
fn a_sidecar_is_served_until_its_pod_ends() {
    let mut stage = Stage::of([
        node("n"),
        stdout("a", "out"),
        pushed("a", "jobs", "x", &to("out")),
        with_sidecar("a", "p", "x", "jobs"),
        with_sidecar("a", "q", "x", "jobs"),
    ]);
    let agents = |stage: &Stage| stage.world.agents("spillway-system", "spillway-agent");
    assert_eq!(agents(&stage), [("a-p".into(), "a/p".into()), ("a-q".into(), "a/q".into())].into());
    let Change::Pod(uid, Some(mut done)) = with_sidecar("a", "p", "x", "jobs") else { unreachable!() };
    Arc::make_mut(&mut done.facts).has_ended = true;
    let rendered = stage.apply([Change::Pod(uid, Some(done))]);
    assert!(rendered.moved.contains(&key("MonitoringPipeline a/jobs")));
    stage.apply([ended("a", "q")]);
    assert!(agents(&stage).is_empty());
    assert_eq!(stage.renderer.slices().keys().map(|place| &**place).collect::<Vec<_>>(), ["n"]);
    // Another pod of the name, before the end of the one before is told.
    let Change::Pod(_, Some(mut again)) = with_sidecar("a", "q", "x", "jobs") else { unreachable!() };
    (again.uid, Arc::make_mut(&mut again.facts).uid) = ("new".into(), "new".into());
    stage.apply([with_sidecar("a", "q", "x", "jobs")]);
    stage.apply([Change::Pod("new".into(), Some(again))]);
    stage.apply([ended("a", "q")]);
    assert_eq!(agents(&stage), [("new".into(), "a/q".into())].into());
    assert_eq!(&*stage.slice("a/q").pods.pods[0].uid, "new");
}

#[test]
fn what_is_for_the_agent_of_the_node_leads_there_and_nothing_of_it_reaches_a_pod() {
    let routes = json!([
        {"name": "own", "backendRefs": [{"name": "api"}]},
        {"name": "shared", "match": "event.level == \"error\"", "backendRefs": [{"kind": "ClusterBackend", "name": "lake"}, {"name": "other"}]},
        {"name": "files", "strategy": "FirstHealthy", "failback": "Leave", "whenBehind": "DropOldest",
         "backendRefs": [{"name": "archive", "priority": 0}, {"name": "other", "priority": 1}]},
    ]);
    let mut stage = Stage::of([
        node("n"),
        namespace("red", "prod"),
        http("red", "api", 1, "red-secret"),
        http("red", "other", 1, "red-secret"),
        object(Kind::Backend, ("red", "archive"), 1, &json!({"type": "Filesystem"})),
        lake(1, "prod"),
        secret("red", "red-secret", "1"),
        secret("spillway-system", "lake", "1"),
        pushed("red", "jobs", "etcher", &routes),
        with_sidecar("red", "p", "etcher", "jobs"),
    ]);
    assert_eq!(stage.served("red/p"), ["Backend red/api", "MonitoringPipeline red/jobs"]);
    assert!(stage.served("n").contains(&"ClusterBackend lake".to_owned()), "the agent of the node delivers there");
    let routes = stage.text("red/p", "jobs")["spec"]["routes"].clone();
    let to_node = json!([{"kind": "ClusterBackend", "name": NODE_AGENT}]);
    assert_eq!(routes[0]["backendRefs"], json!([{"name": "api"}]));
    assert_eq!(routes[1], json!({"name": "shared", "match": "event.level == \"error\"", "backendRefs": to_node}));
    assert_eq!(
        routes[2],
        json!({"name": "files", "backendRefs": [{"kind": "ClusterBackend", "name": NODE_AGENT, "whenBehind": "DropOldest"}]})
    );
    // Nothing of the platform's: neither where it is nor what opens it.
    let Configuration { manifests, secrets, namespaces, .. } = &stage.slice("red/p").configuration;
    assert!(secrets.iter().all(|one| one.namespace == "red") && namespaces.is_empty(), "{secrets:?}");
    let text = format!("{manifests:?}");
    assert!(!text.contains("lake") && !text.contains("spillway-system"), "{text}");
    // It is compiled as it is, with what stands for the agent of the node.
    let documents: Vec<Document> = manifests.iter().map(|text| Document::new("served", &**text)).collect();
    let compiled = compile(&documents);
    assert!(compiled.errors.is_empty(), "{:?}", compiled.errors);
    let refs: Vec<_> = compiled.pipelines[0].settings.routes.iter().map(|route| &*route.backends[0].uid).collect();
    assert_eq!(refs, ["red.api", "_cluster.node-agent", "_cluster.node-agent"]);
    assert_eq!(manifests.iter().filter(|text| &***text == NODE_AGENT_MANIFEST).count(), 1);

    // A pipeline without such a route is served as it stands.
    stage.apply([pushed("red", "jobs", "etcher", &to("api"))]);
    assert_eq!(stage.slice("red/p").configuration.manifests, stage.slice("n").configuration.manifests);
}
