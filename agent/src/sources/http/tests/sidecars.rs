//! The listener of a sidecar, and what it hands to the door of the agent of its node.

use spillway_crds::Reach;
use spillway_crds::inject::INJECTED;
use spillway_crds::served::PodFacts;
use spillway_delivery::intake::Pipeline;
use tokio::sync::watch;

use super::pipelines::{add_in, engine};
use super::pods::{Gatehouse, pod, taking, told};
use super::*;
use crate::pods::Told;
use crate::sources::pushed::own_pod::OwnPod;
use crate::sources::pushed::targets::PushTargets;

/// The listener of the sidecar of a pod.
struct Sidecar {
    address: SocketAddr,
    pods: watch::Sender<Option<Told>>,
    targets: PushTargets,
    stats: Arc<HttpStats>,
    _supervisor: Supervisor,
}

impl Sidecar {
    async fn start() -> Self {
        let (pods, of_pods) = watch::channel(None);
        let (supervisor, stats, targets) =
            (Supervisor::new("http"), Arc::<HttpStats>::default(), PushTargets::default());
        let context = HttpContext {
            intake: Intake,
            clock: Clock::manual(RECEIVED),
            supervisor: supervisor.clone(),
            stats: stats.clone(),
        };
        let at = HttpSettings {
            address: "127.0.0.1:0".parse().unwrap(),
            paths: Paths::All,
            tls: TlsFiles::default(),
            token_file: None,
        };
        let own = OwnPod { pods: of_pods, node: Some("node-a".into()) };
        let source = HttpSource::bind_for_own_pod(at, own, targets.clone(), context).await.unwrap();
        Self { address: source.local_address(), pods, targets, stats, _supervisor: supervisor }
    }

    async fn post(&self, headers: &str, body: &str) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        say(&mut stream, &request("/v1/events", headers, body.as_bytes())).await.unwrap();
        Answer::read(&mut stream).await.unwrap()
    }
}

fn accepted(pipeline: &Pipeline) -> u64 {
    pipeline.report().accepted_events
}

#[tokio::test]
async fn a_sidecar_takes_what_comes_as_its_pods_once_it_was_told_of_both() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let jobs = add_in(&engine, ("fab12", "jobs"), 1 << 20).await;
    let sidecar = Sidecar::start().await;
    let early = |answer: &Answer| {
        assert_eq!((answer.status, &*answer.code(), answer.header("retry-after")), (503, "starting", Some("1")));
    };
    early(&sidecar.post("", "{}").await);
    let etcher = pod("u1", "fab12", "etcher");
    sidecar.pods.send_replace(Some(told(vec![etcher.clone()])));
    // Of pipelines it knows nothing yet: nobody is told that there is none.
    early(&sidecar.post("", "{}").await);
    assert_eq!(sidecar.stats.senders_turned_back()["starting"], 2);
    sidecar.targets.set_for_pods(vec![taking(&jobs, Reach::of("fab12"), Some("etcher"))]);
    let answer = sidecar.post("", r#"{"n":1,"_spillway":{"origin":{"pod":"root"}}}"#).await;
    assert_eq!((answer.status, accepted(&jobs)), (202, 1), "{answer:?}");
    // The application may say nothing of routes, although its sidecar may elsewhere.
    let own = PodFacts { annotations: [(INJECTED, "jobs")].into(), ..etcher.clone() };
    sidecar.pods.send_replace(Some(told(vec![own])));
    let answer = sidecar.post("x-spillway-pipeline: fab12/jobs\r\nx-spillway-route: all\r\n", "{}").await;
    assert_eq!((answer.status, &*answer.code(), accepted(&jobs)), (403, "not-of-its-sidecar", 1));
    // A pipeline that does not select the pod does not exist for it, whoever asked.
    sidecar.targets.set_for_pods(vec![taking(&jobs, Reach::of("fab12"), Some("washer"))]);
    let answer = sidecar.post("", "{}").await;
    assert_eq!((answer.status, &*answer.code()), (422, "no_pipeline"));
    // What is told of two pods is not what a sidecar is told.
    sidecar.pods.send_replace(Some(told(vec![etcher, pod("u2", "fab12", "washer")])));
    early(&sidecar.post("", "{}").await);
    assert_eq!(accepted(&jobs), 1);
}

#[tokio::test]
async fn a_pod_hands_events_to_one_route_and_again_where_its_answer_was_lost() {
    let (door, jobs) = Gatehouse::of_one_pipeline(1 << 20).await;
    let of = |uid: &str, namespace: &str, runs: &str| PodFacts {
        annotations: [(INJECTED, runs)].into(),
        ..pod(uid, namespace, "etcher")
    };
    let etcher = of("u1", "fab12", "jobs");
    let (late, other, bare) = (of("u2", "fab12", "later"), of("u3", "other", "jobs"), pod("u4", "fab12", "etcher"));
    door.tell(&[&etcher, &late, &other, &bare]);
    let headers = |pipeline: &str, route: &str, key: &str| {
        format!("x-spillway-pipeline: {pipeline}\r\nx-spillway-route: {route}\r\nidempotency-key: {key}\r\n")
    };
    let send = async |pod: &PodFacts, pipeline: &str, route: &str, key: &str| {
        door.as_pod(pod, &headers(pipeline, route, key), "{\"n\":1}\n{\"n\":2}\n").await
    };
    assert_eq!(send(&etcher, "fab12/jobs", "all", "k").await.status, 202);
    assert_eq!(send(&etcher, "fab12/jobs", "all", "k").await.status, 202);
    let report = jobs.report();
    assert_eq!((report.routed_events, report.routes[0].routed_events), (2, 2), "once for each key");
    // What is not there yet is asked for again: nothing of it becomes a dead letter.
    for (pod, pipeline, route, code) in
        [(&etcher, "fab12/jobs", "other", "removed"), (&late, "fab12/later", "all", "pipeline-untold")]
    {
        let answer = send(pod, pipeline, route, "l").await;
        let found = (answer.status, &*answer.code(), answer.header("retry-after"));
        assert_eq!(found, (503, code, Some("1")), "{pipeline} {route}");
    }
    // Nobody else passes by conditions and transforms, and a sidecar by those of no other pipeline.
    for (pod, pipeline) in [
        (&bare, "fab12/jobs"),
        (&late, "fab12/jobs"),
        (&other, "fab12/jobs"),
        (&etcher, "_cluster/jobs"),
        (&etcher, "other/jobs"),
        (&etcher, "jobs"),
    ] {
        let answer = send(pod, pipeline, "all", "m").await;
        assert_eq!((answer.status, &*answer.code()), (403, "not-of-its-sidecar"), "{} {pipeline}", pod.uid);
    }
    assert_eq!(accepted(&jobs), 2);
}

#[tokio::test]
async fn what_a_pod_hands_over_of_a_suspended_pipeline_is_kept_on_its_node() {
    let (door, jobs) = Gatehouse::of_one_pipeline(1 << 20).await;
    let etcher = PodFacts { annotations: [(INJECTED, "jobs")].into(), ..pod("u1", "fab12", "etcher") };
    door.tell(&[&etcher]);
    door.suspend(&jobs).await;
    let answer = door.as_pod(&etcher, "", "{}").await;
    assert_eq!((answer.status, &*answer.code(), accepted(&jobs)), (503, "suspended", 0));
    // Its pod may end with it.
    let headers = "x-spillway-pipeline: fab12/jobs\r\nx-spillway-route: all\r\nidempotency-key: k\r\n";
    let answer = door.as_pod(&etcher, headers, "{\"n\":1}\n{\"n\":2}\n").await;
    let report = jobs.report();
    assert_eq!((answer.status, report.routed_events, report.suspended), (202, 2, true), "{answer:?}");
}
