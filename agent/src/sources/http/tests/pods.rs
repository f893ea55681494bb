//! The door for pods: who proves to be one, and where it may send.

use std::sync::Arc;

use rustls::pki_types::ServerName;
use serde_json::json;
use spillway_crds::Reach;
use spillway_crds::kinds::selector::LabelSelector;
use spillway_crds::served::{Owner, PodFacts, Pods, TokenKeys};
use spillway_delivery::deliver::Engine;
use spillway_delivery::intake::Pipeline;
use spillway_delivery::settings::PipelineSettings;
use spillway_tokens::signing::{FOREIGN, ISSUER, NOW, P256, RSA, claims, jwks};
use tokio::sync::watch;
use tokio_rustls::TlsConnector;

use super::super::limits::SENDER_CONNECTIONS_MAX;
use super::super::pods::PodSenders;
use super::pipelines::{add_in, engine};
use super::*;
use crate::pods::{NodePods, Told};
use crate::sources::pushed::targets::{PushTargets, Takes};

pub(super) fn pod(uid: &str, namespace: &str, app: &str) -> PodFacts {
    PodFacts {
        uid: uid.into(),
        namespace: namespace.into(),
        name: format!("{app}-0").into(),
        labels: [("app", app)].into(),
        owner: Some(Owner { kind: "StatefulSet".into(), name: app.into() }),
        ..PodFacts::default()
    }
}

pub(super) fn told(pods: Vec<PodFacts>) -> Told {
    let pods = Pods { hash: String::new(), pods: pods.into_iter().map(Arc::new).collect() };
    Told { pods: Arc::new(NodePods::new(pods)), confirmed: Some(tokio::time::Instant::now()) }
}

fn keys() -> Arc<TokenKeys> {
    Arc::new(TokenKeys { issuer: ISSUER.to_owned(), keys: jwks() })
}

/// What the kubelet mounts into a pod of `node-a`.
fn claims_of(pod: &PodFacts) -> Value {
    let mut of_pod = claims(&pod.uid, "node-a");
    of_pod["aud"] = json!(["spillway-agent"]);
    of_pod["kubernetes.io"]["namespace"] = json!(pod.namespace);
    of_pod["kubernetes.io"]["serviceaccount"]["name"] = json!("default");
    of_pod["kubernetes.io"]["pod"]["name"] = json!(pod.name);
    of_pod
}

/// A running door of `node-a`.
pub(super) struct Gatehouse {
    address: SocketAddr,
    keys: watch::Sender<Option<Arc<TokenKeys>>>,
    pods: watch::Sender<Option<Told>>,
    stats: Arc<HttpStats>,
    connector: TlsConnector,
    folder: tempfile::TempDir,
    _supervisor: Supervisor,
    /// What keeps the events, where this opened it.
    engine: Option<(Engine, tempfile::TempDir)>,
}

fn certificate(folder: &std::path::Path) -> TlsConnector {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(folder.join("tls.key"), made.signing_key.serialize_pem()).unwrap();
    std::fs::write(folder.join("tls.crt"), made.cert.pem()).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    TlsConnector::from(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}

impl Gatehouse {
    async fn open(targets: PushTargets) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let connector = certificate(folder.path());
        let (keys, of_keys) = watch::channel(Some(keys()));
        let (pods, of_pods) = watch::channel(Some(told(Vec::new())));
        let clock = Clock::manual(NOW * 1_000_000_000);
        let senders = PodSenders { keys: of_keys, pods: of_pods, node: Some("node-a".into()), clock: clock.clone() };
        let (supervisor, stats) = (Supervisor::new("door"), Arc::<HttpStats>::default());
        let context = HttpContext { intake: Intake, clock, supervisor: supervisor.clone(), stats: stats.clone() };
        let file = |name: &str| Some(folder.path().join(name));
        let tls = TlsFiles { certificate: file("tls.crt"), key: file("tls.key") };
        let at = "127.0.0.1:0".parse().unwrap();
        let source = HttpSource::bind_for_pods((at, &tls), senders, targets, context).await.unwrap();
        let address = source.local_address();
        Self { address, keys, pods, stats, connector, folder, _supervisor: supervisor, engine: None }
    }

    /// Opens one to `fab12/jobs`, which takes events of every pod of its namespace.
    pub(super) async fn of_one_pipeline(bytes_max: u64) -> (Self, Arc<Pipeline>) {
        let dir = tempfile::tempdir().unwrap();
        let engine = engine(dir.path());
        let jobs = add_in(&engine, ("fab12", "jobs"), bytes_max).await;
        let targets = PushTargets::default();
        targets.set_for_pods(vec![taking(&jobs, Reach::of("fab12"), None)]);
        let door = Self { engine: Some((engine, dir)), ..Self::open(targets).await };
        (door, jobs)
    }

    /// Suspends a pipeline of the engine that this opened.
    pub(super) async fn suspend(&self, pipeline: &Pipeline) {
        let (engine, _) = self.engine.as_ref().unwrap();
        let resting = PipelineSettings { suspend: true, ..(*pipeline.settings()).clone() };
        engine.apply(resting, Vec::new(), &|_| None).await.unwrap();
    }

    /// Tells it of pods; it knows no others from now on.
    pub(super) fn tell(&self, pods: &[&PodFacts]) {
        self.pods.send_replace(Some(told(pods.iter().copied().cloned().collect())));
    }

    async fn send(&self, headers: &str, body: &str) -> Answer {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let mut stream = self.connector.connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap();
        say(&mut stream, &request("/v1/events", headers, body.as_bytes())).await.unwrap();
        Answer::read(&mut stream).await.unwrap()
    }

    async fn shown(&self, token: &str) -> Answer {
        self.send(&format!("authorization: Bearer {token}\r\n"), "{}").await
    }

    pub(super) async fn as_pod(&self, pod: &PodFacts, headers: &str, body: &str) -> Answer {
        let token = P256.token(&claims_of(pod));
        self.send(&format!("authorization: Bearer {token}\r\n{headers}"), body).await
    }
}

pub(super) fn taking(pipeline: &Arc<Pipeline>, namespaces: Reach, app: Option<&str>) -> (Arc<Pipeline>, Takes) {
    let labels = |app: &str| LabelSelector { match_labels: [("app", app)].into(), ..LabelSelector::default() };
    (pipeline.clone(), Takes { namespaces, pods: vec![app.map(labels).unwrap_or_default()], is_open: false })
}

/// The same of one that takes events without a token, too.
fn open(pipeline: &Arc<Pipeline>, namespaces: Reach) -> (Arc<Pipeline>, Takes) {
    let (pipeline, takes) = taking(pipeline, namespaces, Some("etcher"));
    (pipeline, Takes { is_open: true, ..takes })
}

#[tokio::test]
async fn a_token_that_is_not_of_a_live_pod_of_this_node_for_this_door_is_refused_and_counted() {
    let (door, jobs) = Gatehouse::of_one_pipeline(1 << 20).await;
    let (good, mut gone) = (pod("u1", "fab12", "etcher"), pod("u2", "fab12", "old"));
    gone.has_ended = true;
    door.tell(&[&good, &gone]);
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut claims = claims_of(&good);
        change(&mut claims);
        claims
    };
    let taken = door.shown(&P256.token(&claims_of(&good))).await;
    assert_eq!(taken.status, 202, "{taken:?}");
    let stale = |claims: &mut Value, pointer: &str, value: &str| {
        claims["iat"] = json!(NOW - 3600);
        *claims.pointer_mut(pointer).unwrap() = json!(value);
    };
    for (claims, status, code) in [
        (changed(&|claims| claims["aud"] = json!(["spillway"])), 401, "audience"),
        (changed(&|claims| claims["aud"] = json!(["https://kubernetes.default.svc"])), 401, "audience"),
        (changed(&|claims| claims["exp"] = json!(NOW - 61)), 401, "expired"),
        (changed(&|claims| claims["nbf"] = json!(NOW + 61)), 401, "not-yet-valid"),
        (changed(&|claims| claims["iss"] = json!("https://evil.test")), 401, "issuer"),
        (changed(&|claims| claims["kubernetes.io"]["pod"] = Value::Null), 401, "not-bound"),
        (changed(&|claims| claims["kubernetes.io"]["node"] = Value::Null), 401, "not-bound"),
        (changed(&|claims| claims["kubernetes.io"]["node"]["name"] = json!("node-b")), 403, "pod"),
        // Genuine tokens of pods that are not there: another one of this name, one of another namespace, one that is gone.
        (changed(&|claims| stale(claims, "/kubernetes.io/pod/uid", "u9")), 403, "pod"),
        (changed(&|claims| stale(claims, "/kubernetes.io/namespace", "other")), 403, "pod"),
        (changed(&|claims| stale(claims, "/kubernetes.io/pod/name", "x")), 403, "pod"),
        (claims_of(&gone), 403, "pod"),
    ] {
        let answer = door.shown(&RSA.token(&claims)).await;
        assert_eq!((answer.status, &*answer.code()), (status, code), "{claims}");
        assert_eq!(answer.header("www-authenticate").is_some(), status == 401, "{answer:?}");
    }
    let genuine = P256.token(&claims_of(&good));
    let parts: Vec<&str> = genuine.split('.').collect();
    let of_gone = P256.token(&claims_of(&gone));
    let tampered = format!("{}.{}.{}", parts[0], of_gone.split('.').nth(1).unwrap(), parts[2]);
    for (token, code) in [
        (FOREIGN.token(&claims_of(&good)), "signature"),
        (tampered, "signature"),
        (format!("{}.{}.", parts[0], parts[1]), "signature"),
        ("hunter2".to_owned(), "token-malformed"),
    ] {
        let answer = door.shown(&token).await;
        assert_eq!((answer.status, &*answer.code()), (401, code), "{token}");
        assert!(!answer.body.contains("hunter2"), "{answer:?}");
    }
    let answer = door.send("", "{}").await;
    assert_eq!((answer.status, &*answer.code()), (401, "token-missing"));
    assert_eq!(jobs.report().accepted_events, 1, "nothing of the others");
    let turned = door.stats.senders_turned_back();
    assert_eq!((turned["audience"], turned["pod"], turned["signature"], turned["token-missing"]), (2, 5, 3, 1));
}

#[tokio::test]
async fn a_pod_sends_to_pipelines_of_its_namespace_that_select_it_and_to_those_of_the_cluster_that_do() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let targets = PushTargets::default();
    let own = add_in(&engine, ("fab12", "jobs"), 1 << 20).await;
    let picky = add_in(&engine, ("fab12", "etchers"), 1 << 20).await;
    let other = add_in(&engine, ("other", "jobs"), 1 << 20).await;
    let cluster = add_in(&engine, ("_cluster", "all"), 1 << 20).await;
    targets.set_for_pods(vec![
        taking(&own, Reach::of("fab12"), None),
        taking(&picky, Reach::of("fab12"), Some("etcher")),
        taking(&other, Reach::of("other"), None),
        taking(&cluster, Reach::of("fab12"), Some("etcher")),
    ]);
    let door = Gatehouse::open(targets.clone()).await;
    let (etcher, washer) = (pod("u1", "fab12", "etcher"), pod("u2", "fab12", "washer"));
    let stranger = pod("u3", "third", "etcher");
    door.tell(&[&etcher, &washer, &stranger]);
    let counts = || [&own, &picky, &other, &cluster].map(|pipeline| pipeline.report().accepted_events);
    assert_eq!(door.as_pod(&etcher, "", "{}").await.status, 202);
    assert_eq!(counts(), [1, 1, 0, 1]);
    assert_eq!(door.as_pod(&washer, "", "{}").await.status, 202);
    assert_eq!(counts(), [2, 1, 0, 1]);
    let named = |name: &str| format!("x-spillway-pipeline: {name}\r\n");
    assert_eq!(door.as_pod(&etcher, &named("fab12/jobs"), "{}").await.status, 202);
    for (pod, name) in [
        (&etcher, "other/jobs"),
        (&washer, "etchers"),
        (&washer, "fab12/etchers"),
        (&washer, "_cluster/all"),
        (&stranger, "fab12/jobs"),
    ] {
        let answer = door.as_pod(pod, &named(name), "{}").await;
        assert_eq!(answer.status, 422, "{name}: {answer:?}");
        assert!(!answer.body.contains("nearest name is \"other"), "names of other tenants: {answer:?}");
    }
    let answer = door.as_pod(&stranger, "", "{}").await;
    assert_eq!((answer.status, &*answer.code()), (422, "no_pipeline"), "{answer:?}");
    assert_eq!(counts(), [3, 1, 0, 1]);
    // What counts is at the end of a request, and for pods alone.
    targets.set(vec![own.clone()]);
    assert_eq!(door.as_pod(&etcher, "", "{}").await.status, 422);
}

#[tokio::test]
async fn the_origin_is_that_of_the_token_whatever_the_body_says() {
    let good = pod("u1", "fab12", "etcher");
    let (_keys, of_keys) = watch::channel(Some(keys()));
    let (_pods, of_pods) = watch::channel(Some(told(vec![good.clone()])));
    let folder = tempfile::tempdir().unwrap();
    drop(certificate(folder.path()));
    let files = TlsFiles { certificate: Some(folder.path().join("tls.crt")), key: Some(folder.path().join("tls.key")) };
    let clock = Clock::manual(NOW * 1_000_000_000);
    let senders = PodSenders { keys: of_keys, pods: of_pods, node: Some("node-a".into()), clock };
    let gate = super::super::pods::PodGate::new(senders, &files, Arc::default()).unwrap();
    let token = format!("Bearer {}", P256.token(&claims_of(&good)));
    let headers = http::HeaderMap::from_iter([(http::header::AUTHORIZATION, token.parse().unwrap())]);
    let sender = super::super::gate::Gate::admit(&gate, &headers, [10, 0, 0, 1].into()).unwrap();
    let origin: Value = serde_json::from_slice(sender.origin.json()).unwrap();
    let expected = json!({"namespace": "fab12", "pod": "etcher-0", "podUID": "u1", "node": "node-a", "source": "http",
        "ownerKind": "StatefulSet", "ownerName": "etcher", "labels": {"app": "etcher"}});
    assert_eq!(origin, expected);
    assert_eq!(&*sender.key, b"u1", "keys are those of the pod");
    // A body that claims to be another keeps its bytes, without what is the agent's to say.
    let body = br#"{"n":1,"_spillway":{"origin":{"namespace":"other"}},"origin":{"pod":"x"}}"#;
    let events = crate::sources::pushed::events::parse(body.to_vec()).unwrap();
    assert_eq!(String::from_utf8(events.payload).unwrap(), "{\"n\":1,\"origin\":{\"pod\":\"x\"}}\n");
}

#[tokio::test]
async fn who_comes_before_the_operator_has_told_is_asked_to_come_again() {
    let (door, jobs) = Gatehouse::of_one_pipeline(1 << 20).await;
    let new = pod("u1", "fab12", "etcher");
    let later = |answer: &Answer, code: &str| {
        assert_eq!(
            (answer.status, &*answer.code(), answer.header("retry-after")),
            (503, code, Some("1")),
            "{answer:?}"
        );
    };
    later(&door.as_pod(&new, "", "{}").await, "pod-untold");
    // A token that was made before the operator answered last is of a pod that it would have told of; unless that was long ago.
    let mut older = claims_of(&new);
    older["iat"] = json!(NOW - 600);
    let answer = door.shown(&P256.token(&older)).await;
    assert_eq!((answer.status, &*answer.code()), (403, "pod"));
    door.pods.send_modify(|told| told.as_mut().unwrap().confirmed = None);
    later(&door.shown(&P256.token(&older)).await, "pod-untold");
    door.pods.send_replace(None);
    later(&door.as_pod(&new, "", "{}").await, "pods");
    door.keys.send_replace(None);
    later(&door.as_pod(&new, "", "{}").await, "keys");
    // Keys of no use leave those before.
    door.keys.send_replace(Some(keys()));
    door.tell(&[&new]);
    assert_eq!(door.as_pod(&new, "", "{}").await.status, 202);
    door.keys.send_replace(Some(Arc::new(TokenKeys { issuer: ISSUER.to_owned(), keys: "{".to_owned() })));
    assert_eq!(door.as_pod(&new, "", "{}").await.status, 202);
    // A rotated key, and the one before is gone.
    let rotated = json!({"keys": [RSA.jwk()]}).to_string();
    door.keys.send_replace(Some(Arc::new(TokenKeys { issuer: ISSUER.to_owned(), keys: rotated })));
    let answer = door.as_pod(&new, "", "{}").await;
    assert_eq!((answer.status, &*answer.code()), (401, "key-unknown"));
    assert_eq!(jobs.report().accepted_events, 2);
}

#[tokio::test]
async fn headers_that_are_too_long_for_any_token_are_refused_and_counted() {
    let (door, jobs) = Gatehouse::of_one_pipeline(1 << 20).await;
    let good = pod("u1", "fab12", "etcher");
    door.tell(&[&good]);
    for headers in [
        format!("authorization: Bearer {}\r\n", "a".repeat(20_000)),
        format!("authorization: {}Bearer a\r\n", " ".repeat(20_000)),
        "authorization: Bearer a\r\n".repeat(500),
        format!("x: {}\r\n", "a".repeat(1 << 20)),
    ] {
        let mut stream = door.connect().await.unwrap();
        let (mut reader, mut writer) = tokio::io::split(&mut stream);
        let flood = request("/v1/events", &headers, b"{}");
        // What is not read any more cannot be written.
        let (_, answer) = tokio::join!(say(&mut writer, &flood), Answer::read(&mut reader));
        assert_eq!(answer.map(|answer| answer.status), Some(431), "{headers:.40}");
    }
    assert!(door.limit("header_bytes") >= 1, "{}", door.limit("header_bytes"));
    // A token of many bytes that fits is looked at, and two are none.
    let long = door.shown(&format!("{}.{}.{}", "a".repeat(4_000), "b".repeat(4_000), "c".repeat(4_000))).await;
    assert_eq!((long.status, &*long.code()), (401, "token-malformed"));
    let token = P256.token(&claims_of(&good));
    let answer = door.send(&format!("authorization: Bearer {token}\r\n").repeat(2), "{}").await;
    assert_eq!((answer.status, &*answer.code()), (401, "token-malformed"));
    assert_eq!(jobs.report().accepted_events, 0);
    assert_eq!(door.as_pod(&good, "", "{}").await.status, 202);
}

#[tokio::test]
async fn a_pod_whose_name_another_one_had_is_not_that_one() {
    let (door, jobs) = Gatehouse::of_one_pipeline(1 << 20).await;
    let (mut before, after) = (pod("u1", "fab12", "etcher"), pod("u2", "fab12", "etcher"));
    assert_eq!(before.name, after.name);
    door.tell(&[&before, &after]);
    assert_eq!(door.as_pod(&before, "", "{}").await.status, 202);
    before.has_ended = true;
    // While it is told of, and once it is forgotten.
    for pods in [vec![before.clone(), after.clone()], vec![after.clone()]] {
        door.pods.send_replace(Some(told(pods)));
        let mut old = claims_of(&before);
        old["iat"] = json!(NOW - 600);
        let answer = door.shown(&P256.token(&old)).await;
        assert_eq!((answer.status, &*answer.code()), (403, "pod"));
        assert_eq!(door.as_pod(&after, "", "{}").await.status, 202);
    }
    // Another tenant that says of its pod that it has that uid changes nothing.
    let evil = PodFacts { uid: "u2".into(), ..pod("u9", "evil", "etcher") };
    door.tell(&[&after, &evil]);
    assert_eq!(door.as_pod(&after, "", "{}").await.status, 202);
    let mut of_evil = claims_of(&evil);
    (of_evil["kubernetes.io"]["pod"]["uid"], of_evil["iat"]) = (json!("u9"), json!(NOW - 600));
    assert_eq!(door.shown(&P256.token(&of_evil)).await.status, 403);
    // Nor is one of its own, of the same uid and name, taken for the one that is gone.
    let alike = PodFacts { namespace: "other".into(), ..after.clone() };
    door.tell(&[&alike]);
    let mut old = claims_of(&after);
    old["iat"] = json!(NOW - 600);
    assert_eq!(door.shown(&P256.token(&old)).await.status, 403);
    assert_eq!(jobs.report().accepted_events, 4);
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_and_a_broken_one_is_not() {
    let mut door = Gatehouse::open(PushTargets::default()).await;
    let new = pod("u1", "fab12", "etcher");
    door.tell(&[&new]);
    let before = door.connector.clone();
    assert_eq!(door.as_pod(&new, "", "{}").await.status, 422);
    std::fs::write(door.folder.path().join("tls.crt"), "broken").unwrap();
    tokio::time::pause();
    tokio::time::advance(std::time::Duration::from_secs(2)).await;
    tokio::time::resume();
    assert_eq!(door.as_pod(&new, "", "{}").await.status, 422, "the one before stays");
    door.connector = certificate(door.folder.path());
    tokio::time::pause();
    tokio::time::advance(std::time::Duration::from_secs(2)).await;
    tokio::time::resume();
    assert_eq!(door.as_pod(&new, "", "{}").await.status, 422);
    door.connector = before;
    let stream = TcpStream::connect(door.address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    assert!(door.connector.connect(name, stream).await.is_err(), "the old one is not shown any more");
}

#[tokio::test]
async fn a_door_tells_when_its_certificate_is_over_also_after_a_swap_while_nobody_connects() {
    let door = Gatehouse::open(PushTargets::default()).await;
    let first = door.stats.certificate_ends().unwrap();
    let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(2030, 1, 1);
    let key = rcgen::KeyPair::generate().unwrap();
    std::fs::write(door.folder.path().join("tls.key"), key.serialize_pem()).unwrap();
    std::fs::write(door.folder.path().join("tls.crt"), params.self_signed(&key).unwrap().pem()).unwrap();
    tokio::time::pause();
    while door.stats.certificate_ends() == Some(first) {
        tokio::time::advance(std::time::Duration::from_secs(1)).await;
    }
    assert_eq!(door.stats.certificate_ends(), Some(1_893_456_000));
}

#[tokio::test]
async fn who_shows_no_token_reaches_a_pipeline_that_says_so_by_its_full_name_and_is_marked() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let targets = PushTargets::default();
    let own = add_in(&engine, ("fab12", "jobs"), 1 << 20).await;
    let strict = add_in(&engine, ("fab12", "strict"), 1 << 20).await;
    let other = add_in(&engine, ("other", "jobs"), 1 << 20).await;
    let strict_one = || taking(&strict, Reach::of("fab12"), None);
    targets.set_for_pods(vec![strict_one()]);
    let door = Gatehouse::open(targets.clone()).await;
    let named = |name: &str| format!("x-spillway-pipeline: {name}\r\n");
    let missing = |answer: &Answer| {
        assert_eq!((answer.status, &*answer.code()), (401, "token-missing"), "{answer:?}");
        assert_eq!(answer.header("www-authenticate"), Some("bearer"));
        assert!(!answer.body.contains("strict") && !answer.body.contains("other"), "names are not told: {answer:?}");
    };
    missing(&door.send(&named("fab12/strict"), "{}").await);
    targets.set_for_pods(vec![open(&own, Reach::of("fab12")), strict_one(), open(&other, Reach::of("other"))]);
    // Not without a name: another tenant could collect what was not meant for it.
    for headers in ["", "jobs", "other", "fab12/strict", "fab12/", "fab12/jobs/", "/jobs"].map(|name| match name {
        "" => String::new(),
        name => named(name),
    }) {
        missing(&door.send(&headers, "{}").await);
    }
    let counts = || [&own, &strict, &other].map(|pipeline| pipeline.report().accepted_events);
    assert_eq!(counts(), [0; 3]);
    assert_eq!(door.send(&named("fab12/jobs"), "{}").await.status, 202);
    assert_eq!(counts(), [1, 0, 0]);
    assert_eq!((door.stats.unverified_events(), door.stats.accepted_events()), (1, 1));
    // A bad token is not taken as none.
    let answer = door.send(&format!("authorization: Bearer hunter2\r\n{}", named("fab12/jobs")), "{}").await;
    assert_eq!((answer.status, &*answer.code()), (401, "token-malformed"));
    // Who proves to be a pod is known there, too, and held to the selector.
    let (etcher, washer) = (pod("u1", "fab12", "etcher"), pod("u2", "fab12", "washer"));
    door.tell(&[&etcher, &washer]);
    assert_eq!(door.as_pod(&etcher, &named("fab12/jobs"), "{}").await.status, 202);
    assert_eq!(door.as_pod(&washer, &named("fab12/jobs"), "{}").await.status, 422);
    assert_eq!((counts(), door.stats.unverified_events()), ([2, 0, 0], 1));
}

#[test]
fn who_is_unverified_is_nobody_and_has_the_keys_of_its_address() {
    let sender = |last| Sender::unverified([10, 0, 0, last].into(), Some("node-a"));
    let origin: Value = serde_json::from_slice(sender(1).origin.json()).unwrap();
    assert_eq!(origin, json!({"node": "node-a", "source": "unverified"}));
    assert_ne!(sender(1).key, sender(2).key);
    assert_ne!(
        sender(1).key,
        Sender::pod(crate::sources::pushed::sender::Way::Http, &Arc::new(pod("10.0.0.1", "a", "b")), "node-a").key
    );
}

impl Gatehouse {
    async fn connect(&self) -> Option<tokio_rustls::client::TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        self.connector.connect(ServerName::try_from("localhost").unwrap(), stream).await.ok()
    }

    fn limit(&self, name: &str) -> u64 {
        self.stats.limits().find(|(limit, _)| *limit == name).unwrap().1
    }
}

fn request_of(pod: &PodFacts, headers: &str, body: &[u8]) -> Vec<u8> {
    let token = P256.token(&claims_of(pod));
    request("/v1/events", &format!("authorization: Bearer {token}\r\n{headers}"), body)
}

#[tokio::test]
async fn connections_of_one_pod_leave_those_of_others_alone() {
    let (door, _) = Gatehouse::of_one_pipeline(1 << 20).await;
    let (greedy, modest) = (pod("u1", "fab12", "greedy"), pod("u2", "fab12", "modest"));
    door.tell(&[&greedy, &modest]);
    let mut held = Vec::new();
    for _ in 0..SENDER_CONNECTIONS_MAX {
        let mut stream = door.connect().await.unwrap();
        say(&mut stream, &request_of(&greedy, "", b"{}")).await.unwrap();
        assert_eq!(Answer::read(&mut stream).await.unwrap().status, 202);
        held.push(stream);
    }
    let mut stream = door.connect().await.unwrap();
    say(&mut stream, &request_of(&greedy, "", b"{}")).await.unwrap();
    let answer = Answer::read(&mut stream).await.unwrap();
    assert_eq!((answer.status, &*answer.code()), (503, "sender_connections"));
    assert_eq!((answer.header("retry-after"), answer.header("connection")), (Some("1"), Some("close")));
    assert_eq!(Answer::read(&mut stream).await.map(|answer| answer.status), None, "it is closed");
    drop(stream);
    assert_eq!(door.as_pod(&modest, "", "{}").await.status, 202);
    // Those that never prove anything count for their address.
    let mut silent = Vec::new();
    while let Some(stream) = door.connect().await {
        silent.push(stream);
        assert!(silent.len() <= SENDER_CONNECTIONS_MAX);
    }
    // Of the places, what a task has not given back yet may be missing.
    assert!(silent.len() > SENDER_CONNECTIONS_MAX - 4, "{}", silent.len());
    assert!(door.limit("sender_connections") >= 2);
    drop(silent);
    drop(held);
    while door.stats.connections_open() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(door.as_pod(&greedy, "", "{}").await.status, 202, "places are given back");
}

#[tokio::test]
async fn bodies_of_one_pod_are_bounded_and_counted() {
    let (door, _) = Gatehouse::of_one_pipeline(1 << 30).await;
    let (greedy, modest) = (pod("u1", "fab12", "greedy"), pod("u2", "fab12", "modest"));
    door.tell(&[&greedy, &modest]);
    // A body that never fits, one that does, and one beside another that is under way.
    let mut stream = door.connect().await.unwrap();
    let length = format!("content-length: {}\r\n", 9 << 20);
    let token = P256.token(&claims_of(&greedy));
    let head = |length: &str| {
        format!("POST /v1/events HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\n{length}\r\n").into_bytes()
    };
    say(&mut stream, &head(&length)).await.unwrap();
    say(&mut stream, &vec![b' '; 8 << 20]).await.ok();
    let answer = Answer::read(&mut stream).await.unwrap();
    assert_eq!((answer.status, &*answer.code()), (413, "sender_body"));
    assert_eq!(answer.json()["limit"], json!(8 << 20));
    let line = format!("{{\"a\":\"{}\"}}\n", "x".repeat((1 << 20) - 100));
    let fits = line.repeat(7);
    assert_eq!(door.as_pod(&greedy, "", &fits).await.status, 202);
    let sent = door.stats.wire_bytes();
    let mut slow = door.connect().await.unwrap();
    say(&mut slow, &head(&format!("content-length: {}\r\n", fits.len()))).await.unwrap();
    say(&mut slow, &fits.as_bytes()[..fits.len() - 1]).await.unwrap();
    while door.stats.wire_bytes() < sent + fits.len() as u64 - 1 {
        tokio::task::yield_now().await;
    }
    let answer = door.as_pod(&greedy, "", &line.repeat(2)).await;
    assert_eq!((answer.status, &*answer.code()), (503, "sender_bodies_bytes"));
    assert_eq!(door.as_pod(&modest, "", &fits).await.status, 202, "another pod has its own");
    say(&mut slow, b"\n").await.unwrap();
    assert_eq!(Answer::read(&mut slow).await.unwrap().status, 202);
    assert_eq!((door.limit("sender_body"), door.limit("sender_bodies_bytes")), (1, 1));
}
