//! An agent whose configuration comes from an operator: applied, acknowledged, kept, refused.
//!
//! The operator is [`stand_in`]: the real protocol, and nothing behind it but what a test says.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by them, in its helpers too")]

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::process::Signal;
use serde_json::{Value, json};
use spillway_crds::served::{
    Authorities, AuthorityCertificate, BackendCondition, Configuration, FORBIDDEN, Held, Owner, PROTOCOL, PodFacts,
    Pods, Revoked, ServedSecret, Version,
};

#[path = "served/agent.rs"]
mod agent;
#[path = "served/sidecar.rs"]
mod sidecar;
#[path = "served/stand_in.rs"]
mod stand_in;

use agent::{Agent, Backend, delivered};
use stand_in::{Operator, State, certificate};

/// What no log, status or file may show.
const CANARY: &str = "canary-hunter2";

fn version(epoch: u64, generation: u64) -> Version {
    Version { epoch, generation, hash: format!("hash-{epoch}-{generation}") }
}

fn object(kind: &str, name: &str, spec: &Value) -> String {
    let metadata = json!({"namespace": "fab12", "name": name, "generation": 1});
    json!({"apiVersion": "spillway.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}).to_string()
}

fn archive() -> String {
    object("Backend", "archive", &json!({"type": "Filesystem", "filesystem": {"directory": "lake"}}))
}

fn events(name: &str, route: &Value) -> String {
    let inputs = json!([{"name": "pushed", "type": "Events", "events": {"authentication": "None"}}]);
    object("MonitoringPipeline", name, &json!({"inputs": inputs, "routes": [route]}))
}

fn everything(name: &str) -> String {
    events(name, &json!({"name": "all", "backendRefs": [{"name": "archive"}]}))
}

fn logs(name: &str, settings: &Value) -> String {
    let inputs = json!([{"name": "logs", "type": "ContainerLogs", "containerLogs": settings}]);
    let routes = json!([{"name": "all", "backendRefs": [{"name": "archive"}]}]);
    object("MonitoringPipeline", name, &json!({"inputs": inputs, "routes": routes}))
}

fn configuration(epoch: u64, generation: u64, manifests: &[String]) -> Configuration {
    let version = version(epoch, generation);
    Configuration {
        version,
        manifests: manifests.iter().map(|one| one.as_str().into()).collect(),
        ..Configuration::default()
    }
}

fn serving(configuration: Configuration) -> State {
    State { configuration: Some(configuration), ..State::default() }
}

fn listen(configuration: Configuration) -> (Operator, String) {
    let operator = Operator::listen("127.0.0.1:0", None, serving(configuration));
    let url = format!("http://{}", operator.address);
    (operator, url)
}

/// Posts event `n` and waits until it is in a file of `pipeline`.
fn flows(agent: &mut Agent, dir: &Path, (pipeline, n): (&str, u32)) {
    agent.post(&format!("{{\"n\":{n}}}"));
    let part = format!("/{pipeline}/");
    agent.wait_until("the event is delivered", |_| delivered(dir, &part, "n").contains(&n.to_string()));
}

#[test]
fn a_listener_that_knows_no_pod_takes_for_pipelines_that_say_so_alone() {
    let dir = tempfile::tempdir().unwrap();
    let routes = json!([{"name": "all", "backendRefs": [{"name": "archive"}]}]);
    let strict = |name: &str, settings: &Value| {
        let inputs = json!([{"name": "pushed", "type": "Events", "events": settings}]);
        object("MonitoringPipeline", name, &json!({"inputs": inputs, "routes": routes}))
    };
    let manifests = [
        archive(),
        everything("open"),
        strict("strict", &json!({})),
        strict("own", &json!({"authentication": "PodToken"})),
    ];
    let (operator, url) = listen(configuration(7, 1, &manifests));
    let mut agent = Agent::start(dir.path(), &url, &[]);
    operator.wait_for("it runs 7.1", |ask| ask.running == Some(version(7, 1)));
    flows(&mut agent, dir.path(), ("open", 1));
    let status = agent.status();
    let accepted: Vec<_> = status["pipelines"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["name"].as_str().unwrap(), one["acceptedEvents"].as_u64().unwrap()))
        .collect();
    assert_eq!(accepted, [("open", 1), ("own", 0), ("strict", 0)]);
}

#[test]
fn an_agent_trusts_who_it_is_told_of_before_the_operator_changes_also_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let ((first, of_first), (second, of_second)) = (certificate(), certificate());
    std::fs::write(dir.path().join("ca.crt"), &of_first).unwrap();
    let served = configuration(7, 1, &[archive(), everything("jobs")]);
    let state = State { configuration: Some(served.clone()), ..State::default() };
    let operator = Operator::listen("127.0.0.1:0", Some(first), state);
    let address = operator.address.to_string();
    let url = format!("https://{address}");
    let with_ca = ["--operator-ca", "ca.crt"];
    let mut agent = Agent::start(dir.path(), &url, &with_ca);
    operator.wait_for("it takes authorities and has none", |ask| ask.authorities.as_deref() == Some(""));
    let certificates = [of_first, of_second].map(|pem| AuthorityCertificate { pem, until_unix_seconds: 4_000_000_000 });
    let told = Authorities { hash: "both".into(), certificates: certificates.into() };
    operator.set(|state| state.authorities = Some(told.clone()));
    operator.wait_for("it trusts both", |ask| ask.authorities.as_deref() == Some("both"));
    drop(operator);

    // Another issuer at the same place, and what is mounted is as it was.
    let listen = |configuration, tls: &Arc<rustls::ServerConfig>| {
        let state = State { configuration: Some(configuration), authorities: Some(told.clone()), ..State::default() };
        Operator::listen(&address, Some(tls.clone()), state)
    };
    let operator = listen(configuration(7, 2, &[archive(), everything("other")]), &second);
    operator.wait_for("it runs 7.2", |ask| ask.running == Some(version(7, 2)));
    flows(&mut agent, dir.path(), ("other", 1));
    agent.signal(Signal::KILL);
    drop((agent, operator));
    let operator = listen(configuration(7, 3, &[archive(), everything("other")]), &second);
    let mut agent = Agent::start(dir.path(), &url, &with_ca);
    let ask = operator.wait_for("it runs 7.3", |ask| ask.running == Some(version(7, 3)));
    assert_eq!(ask.authorities.as_deref(), Some("both"));
    assert!(agent.seen.iter().all(|line| !line.contains("invalid peer certificate")), "{:#?}", agent.seen);
    drop((agent, operator));

    // Without what it kept it trusts nobody but who is mounted.
    std::fs::remove_file(dir.path().join("data/authorities.json")).unwrap();
    let operator = listen(served, &second);
    agent = Agent::start(dir.path(), &url, &with_ca);
    let line = agent.wait_for_line("no configuration from the operator");
    assert!(line["error"].as_str().unwrap().contains("invalid peer certificate"), "{line}");
    drop(operator);
}

#[test]
fn a_configuration_is_applied_edited_refused_and_acknowledged_over_tls() {
    let dir = tempfile::tempdir().unwrap();
    let (tls, ca) = certificate();
    std::fs::write(dir.path().join("ca.crt"), ca).unwrap();
    let operator = Operator::listen("127.0.0.1:0", Some(tls), State::default());
    let url = format!("https://{}", operator.address);
    let mut agent = Agent::start(dir.path(), &url, &["--operator-ca", "ca.crt"]);

    // Nothing is served: the agent runs and waits. With something it is ready.
    let first = operator.wait_for("anything", |_| true);
    assert_eq!((first.protocol, first.running, first.pods), (PROTOCOL, None, None));
    agent.wait_until("ready without a configuration", |agent| agent.get("/readyz").starts_with("HTTP/1.1 200"));
    operator.set(|state| state.configuration = Some(configuration(7, 1, &[archive(), everything("jobs")])));
    operator.wait_for("it runs 7.1", |ask| ask.running == Some(version(7, 1)) && ask.refused.is_empty());
    flows(&mut agent, dir.path(), ("jobs", 1));

    // One bad object costs nobody else, and is acknowledged with its reason.
    let bad = events("bad", &json!({"name": "all", "backendRefs": [{"name": "nobody"}]}));
    operator.set(|state| state.configuration = Some(configuration(7, 2, &[archive(), everything("jobs"), bad])));
    let told = operator.wait_for("it runs 7.2", |ask| ask.running == Some(version(7, 2)));
    assert_eq!(told.refused.len(), 1, "{told:?}");
    assert_eq!((told.refused[0].object.as_str(), told.refused[0].kept), ("MonitoringPipeline fab12/bad", false));
    assert!(told.refused[0].reason.contains("no such backend"), "{told:?}");
    flows(&mut agent, dir.path(), ("jobs", 2));

    // A bad edit leaves the last good version; an absolute directory is nothing for a tenant.
    let root = object("Backend", "root", &json!({"type": "Filesystem", "filesystem": {"directory": "/etc"}}));
    let escapes = events("escapes", &json!({"name": "all", "backendRefs": [{"name": "root"}]}));
    let worse = events("jobs", &json!({"name": "all", "match": "evnt.n == 1", "backendRefs": [{"name": "archive"}]}));
    operator.set(|state| state.configuration = Some(configuration(7, 3, &[archive(), worse, root, escapes])));
    let told = operator.wait_for("it runs 7.3", |ask| ask.running == Some(version(7, 3)));
    let refused = |name: &str| told.refused.iter().find(|one| one.object.ends_with(name)).unwrap();
    assert!(refused("fab12/jobs").kept && !refused("fab12/escapes").kept, "{told:?}");
    assert!(refused("fab12/escapes").reason.contains("is absolute"), "{told:?}");
    flows(&mut agent, dir.path(), ("jobs", 3));

    // What is not served any more goes.
    operator.set(|state| state.configuration = Some(configuration(8, 1, &[archive(), everything("other")])));
    operator.wait_for("it runs 8.1", |ask| ask.running == Some(version(8, 1)) && ask.refused.is_empty());
    flows(&mut agent, dir.path(), ("other", 4));
    assert!(!delivered(dir.path(), "/jobs/", "n").contains(&"4".to_owned()));
    let served = agent.status()["config"]["served"].clone();
    assert_eq!((&served["isConnected"], &served["running"]["epoch"]), (&json!(true), &json!(8)), "{served}");
    operator.set(|state| assert!(state.tokens.iter().all(|token| token == "token-1"), "{:?}", state.tokens));
    assert!(agent.get("/metrics").contains("spillway_config_served_epoch 8"));
}

#[test]
fn whatever_is_answered_what_runs_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (operator, url) = listen(configuration(7, 5, &[archive(), everything("jobs")]));
    let mut agent = Agent::start(dir.path(), &url, &[]);
    operator.wait_for("it runs 7.5", |ask| ask.running == Some(version(7, 5)));
    let answer = |status: &str, headers: &str, body: &[u8]| {
        let length = body.len();
        [format!("HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\n\r\n").as_bytes(), body].concat()
    };
    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let zeros = vec![0; 1 << 20];
    (0..1024).for_each(|_| bomb.write_all(&zeros).unwrap());
    let older = json!({"configuration": configuration(7, 4, &[])}).to_string();
    let odd = json!({"configuration": {"version": {"epoch": "nine"}, "manifests": [CANARY], "secrets": CANARY}});
    let hostile = [
        answer("200 OK", "", b"<html>"),
        answer("200 OK", "", odd.to_string().as_bytes()),
        answer("200 OK", "content-encoding: gzip\r\n", &bomb.finish().unwrap()),
        answer("200 OK", "content-encoding: br\r\n", b"{}"),
        answer("200 OK", "", older.as_bytes()),
        answer("500 Oops", "retry-after: 1\r\n", b"out of order"),
        answer("400 Bad Request", "", br#"{"reason":"protocol","detail":"protocol 2 is not spoken here, but 3 is"}"#),
        answer("421 Misdirected Request", "connection: close\r\n", b""),
        b"no HTTP at all\r\n\r\n".to_vec(),
    ];
    let expected = ["not JSON", "another form", "larger than", "not asked for", "older configuration", "answers 500"];
    let expected = [&expected[..], &["protocol 2 is not spoken here, but 3 is"]].concat();
    for (n, raw) in (10..).zip(hostile) {
        operator.set(|state| state.raw.push(raw));
        if agent.status()["config"]["served"]["isConnected"] == false {
            // A call to read again does not wait for the end of the pause.
            agent.signal(Signal::HUP);
        }
        operator.wait_until_given();
        if let Some(text) = expected.get(n as usize - 10) {
            agent.wait_until(text, |agent| agent.seen.iter().any(|line| line.contains(text)));
        }
        flows(&mut agent, dir.path(), ("jobs", n));
    }
    operator.set(|state| state.configuration = Some(configuration(7, 6, &[archive(), everything("more")])));
    agent.signal(Signal::HUP);
    operator.wait_for("it runs 7.6", |ask| ask.running == Some(version(7, 6)));
    flows(&mut agent, dir.path(), ("more", 99));
    assert!(agent.peak_kib() < 256 << 10, "{} KiB for an answer of 1 GiB", agent.peak_kib());
    let log = agent.kill();
    assert!(!log.contains(CANARY), "{log}");
}

fn secret(version: &str, value: &str) -> ServedSecret {
    let [namespace, name, key] = ["fab12", "api", "token"].map(str::to_owned);
    ServedSecret { namespace, name, key, version: version.to_owned(), value: STANDARD.encode(value).into() }
}

/// A pipeline to `backend`, which asks for a secret, and one to files.
fn with_secret(generation: u64, backend: &Backend, secrets: Vec<ServedSecret>) -> Configuration {
    let url = format!("http://{}/", backend.address);
    let auth = json!({"bearer": {"tokenSecretRef": {"name": "api", "key": "token"}}});
    let api = object("Backend", "api", &json!({"type": "HTTP", "http": {"url": url, "auth": auth}}));
    let secured = events("secured", &json!({"name": "all", "backendRefs": [{"name": "api"}]}));
    let tickets = [("MonitoringPipeline fab12/secured".to_owned(), "ticket".to_owned())].into();
    Configuration { secrets, tickets, ..configuration(7, generation, &[archive(), api, everything("jobs"), secured]) }
}

#[test]
fn a_secret_is_used_as_it_is_now_and_shown_nowhere() {
    let (dir, backend) = (tempfile::tempdir().unwrap(), Backend::listen());
    std::fs::write(dir.path().join("key"), [9; 32]).unwrap();
    let first = format!("{CANARY}-1");
    let (operator, url) = listen(with_secret(1, &backend, vec![secret("1", &first)]));
    let mut agent = Agent::start(dir.path(), &url, &["--state-key", "key"]);
    operator.wait_for("it runs 7.1", |ask| ask.running == Some(version(7, 1)));
    flows(&mut agent, dir.path(), ("jobs", 1));
    agent.wait_until("the first value is shown", |_| backend.has_seen(&format!("Bearer {first}")));

    let second = format!("{CANARY}-2");
    operator.set(|state| state.configuration = Some(with_secret(2, &backend, vec![secret("2", &second)])));
    operator.wait_for("it runs 7.2", |ask| ask.running == Some(version(7, 2)));
    let made_anew = agent.status()["config"]["generation"].clone();
    assert_eq!(made_anew, json!(1), "a rotation changes nothing that runs");
    flows(&mut agent, dir.path(), ("jobs", 2));
    agent.wait_until("the second value is shown", |_| backend.has_seen(&format!("Bearer {second}")));

    // Without the value: told by name, and acknowledged as a backend that fails.
    operator.set(|state| state.configuration = Some(with_secret(3, &backend, Vec::new())));
    operator.wait_for("it runs 7.3", |ask| ask.running == Some(version(7, 3)));
    flows(&mut agent, dir.path(), ("jobs", 3));
    let told = operator.wait_for("the backend fails", |ask| !ask.backends.is_empty());
    let report = &told.backends[0];
    assert_eq!((report.object.as_str(), report.backend.as_str()), ("MonitoringPipeline fab12/secured", "fab12.api"));
    // Which of the two it is depends on how many attempts there were by then.
    assert!([BackendCondition::Retrying, BackendCondition::Unreachable].contains(&report.state), "{report:?}");
    assert_eq!(report.route, "all");
    assert!(report.error.contains("secret fab12/api/token is not in the cluster"), "{report:?}");
    let held = Held { object: "MonitoringPipeline fab12/secured".into(), ticket: "ticket".into() };
    assert_eq!(told.holding, [held], "with the ticket that was served for it");

    let shown = format!("{}{}", agent.get("/v1/status"), agent.get("/metrics"));
    let (log, encoded) = (agent.kill(), STANDARD.encode(&second));
    let kept = std::fs::read_to_string(dir.path().join("data/configuration.json")).unwrap();
    for text in [shown, log, kept] {
        assert!(!text.contains(CANARY) && !text.contains(&encoded[..16]), "{text}");
    }
}

#[test]
fn a_tenants_backend_reaches_no_loopback_and_one_of_the_cluster_does() {
    let (dir, backend) = (tempfile::tempdir().unwrap(), Backend::listen_at("127.0.0.2:0"));
    let http = |name: &str| json!({"type": "HTTP", "http": {"url": format!("http://{}/{name}", backend.address)}});
    let shared = json!({"apiVersion": "spillway.dev/v1alpha1", "kind": "ClusterBackend", "metadata": {"name": "shared"},
        "spec": {"type": "HTTP", "http": http("shared")["http"], "allowedNamespaces": {"selector": {}}}});
    let keys = object("Backend", "keys", &json!({"type": "S3", "s3": {"bucket": "lake"}}));
    let manifests = [
        archive(),
        object("Backend", "own", &http("own")),
        shared.to_string(),
        keys,
        events("tenant", &json!({"name": "all", "backendRefs": [{"name": "own"}]})),
        events("platform", &json!({"name": "all", "backendRefs": [{"kind": "ClusterBackend", "name": "shared"}]})),
        events("borrows", &json!({"name": "all", "backendRefs": [{"name": "keys"}]})),
        everything("jobs"),
    ];
    let namespaces = [("fab12".to_owned(), std::collections::BTreeMap::new())].into();
    let tickets = [("MonitoringPipeline fab12/tenant".to_owned(), "ticket".to_owned())].into();
    let (operator, url) = listen(Configuration { namespaces, tickets, ..configuration(7, 1, &manifests) });
    let mut agent = Agent::start(dir.path(), &url, &[]);
    let told = operator.wait_for("it runs 7.1", |ask| ask.running == Some(version(7, 1)));
    assert_eq!(told.refused.len(), 1, "{told:?}");
    assert!(told.refused[0].object.ends_with("/borrows"), "{told:?}");
    assert!(told.refused[0].reason.contains("the keys of the machine are for ClusterBackends"), "{told:?}");
    flows(&mut agent, dir.path(), ("jobs", 1));
    agent.wait_until("the platform's request arrives", |_| backend.requests() > 0);

    // Held, told to the operator with its kind, and counted.
    let told = operator.wait_for("the tenant's is told", |ask| !ask.backends.is_empty());
    let report = &told.backends[0];
    assert_eq!((report.backend.as_str(), report.fault.as_str()), ("fab12.own", FORBIDDEN), "{told:?}");
    assert!(report.error.starts_with("not sent: 127.0.0.2 is loopback; a Backend of a namespace"), "{report:?}");
    let counted =
        |line: &str| line.contains("\"tenant\"") && line.contains("kind=\"forbidden\"") && !line.ends_with(" 0");
    assert!(agent.get("/metrics").lines().any(counted), "{}", agent.get("/metrics"));
    assert_eq!(told.holding.len(), 1, "{told:?}");
    assert_eq!(backend.requests(), 1, "only what the cluster's own backend sent");
}

#[test]
fn what_is_granted_no_longer_does_not_drain() {
    let dir = tempfile::tempdir().unwrap();
    // Takes what comes and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.2:0").unwrap();
    let http = json!({"url": format!("http://{}/", silent.local_addr().unwrap())});
    let shared = json!({"apiVersion": "spillway.dev/v1alpha1", "kind": "ClusterBackend", "metadata": {"name": "shared"},
        "spec": {"type": "HTTP", "http": http, "allowedNamespaces": {"selector": {}}}});
    let platform =
        events("platform", &json!({"name": "all", "backendRefs": [{"kind": "ClusterBackend", "name": "shared"}]}));
    let manifests = [archive(), shared.to_string(), platform, everything("jobs")];
    let (operator, url) = listen(configuration(7, 1, &manifests));
    let mut agent = Agent::start(dir.path(), &url, &[]);
    operator.wait_for("it runs 7.1", |ask| ask.running == Some(version(7, 1)));
    flows(&mut agent, dir.path(), ("jobs", 1));
    let revoked = vec![Revoked { namespace: "fab12".into(), backend: "shared".into() }];
    let after = Configuration { revoked, ..configuration(7, 2, &[archive(), everything("jobs")]) };
    operator.set(|state| state.configuration = Some(after));
    operator.wait_for("it runs 7.2", |ask| ask.running == Some(version(7, 2)));
    // What it has under way is given up, not what it may do for the five minutes of its drain.
    agent.wait_until("its log goes", |agent| agent.seen.iter().any(|line| line.contains("its log is gone")));
    flows(&mut agent, dir.path(), ("jobs", 2));
}

/// A proxy would connect where the agent must not, and see what it sends.
#[test]
fn no_proxy_of_the_environment_is_used() {
    let dir = tempfile::tempdir().unwrap();
    let (backend, proxy) = (Backend::listen(), Backend::listen());
    let http = |name: &str| json!({"type": "HTTP", "http": {"url": format!("http://{}/{name}", backend.address)}});
    let shared = json!({"apiVersion": "spillway.dev/v1alpha1", "kind": "ClusterBackend", "metadata": {"name": "shared"},
        "spec": {"type": "HTTP", "http": http("shared")["http"], "allowedNamespaces": {"selector": {}}}});
    let manifests = [
        object("Backend", "own", &http("own")),
        shared.to_string(),
        events("tenant", &json!({"name": "all", "backendRefs": [{"name": "own"}]})),
        events("platform", &json!({"name": "all", "backendRefs": [{"kind": "ClusterBackend", "name": "shared"}]})),
    ];
    let namespaces = [("fab12".to_owned(), std::collections::BTreeMap::new())].into();
    let (operator, url) = listen(Configuration { namespaces, ..configuration(7, 1, &manifests) });
    let at = format!("http://{}", proxy.address);
    let names = ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
    let mut agent = Agent::start_in(&names.map(|name| (name, &*at)), dir.path(), &url, &[]);
    operator.wait_for("it runs 7.1", |ask| ask.running == Some(version(7, 1)));
    agent.post("{\"n\":1}");
    agent.wait_until("both requests arrive somewhere", |_| backend.requests() + proxy.requests() > 1);
    assert_eq!((backend.requests(), proxy.requests()), (2, 0));
}

#[test]
fn the_files_of_a_tenant_stay_below_the_root() {
    let dir = tempfile::tempdir().unwrap();
    let outside = dir.path().join("outside");
    std::fs::create_dir_all(dir.path().join("out/inner")).unwrap();
    std::fs::create_dir(&outside).unwrap();
    // The root itself is the administrator's and may be a link; what is below it is anybody's.
    for link in ["out/linked", "out/inner/linked"] {
        std::os::unix::fs::symlink(&outside, dir.path().join(link)).unwrap();
    }
    let files =
        |name: &str, settings: &Value| object("Backend", name, &json!({"type": "Filesystem", "filesystem": settings}));
    let to = |name: &str| events(name, &json!({"name": "all", "backendRefs": [{"name": name}]}));
    let mut manifests = vec![archive(), everything("jobs")];
    for (name, settings) in [
        ("absolute", json!({"directory": "/tmp"})),
        ("climbs", json!({"directory": "../outside"})),
        ("climbs-later", json!({"directory": "inner/../../outside"})),
        ("names", json!({"file": "../outside/x.ndjson"})),
        ("linked", json!({"directory": "linked"})),
        ("inner", json!({"directory": "inner/linked/deeper"})),
        ("file", json!({"file": "linked/x.ndjson"})),
    ] {
        manifests.extend([files(name, &settings), to(name)]);
    }
    let (operator, url) = listen(configuration(7, 1, &manifests));
    let mut agent = Agent::start(dir.path(), &url, &[]);
    let told = operator.wait_for("it runs 7.1", |ask| ask.running == Some(version(7, 1)));
    let mut refused: Vec<&str> =
        told.refused.iter().filter_map(|one| one.object.strip_prefix("MonitoringPipeline fab12/")).collect();
    refused.sort_unstable();
    assert_eq!(refused, ["absolute", "climbs", "climbs-later", "names"], "{told:?}");
    flows(&mut agent, dir.path(), ("jobs", 1));
    let told = operator.wait_for("the linked ones fail", |ask| ask.backends.len() == 3);
    assert!(told.backends.iter().all(|report| report.fault == "local"), "{told:?}");
    agent.kill();
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
}

#[test]
fn without_an_operator_a_killed_agent_runs_on_as_it_was_served() {
    let (dir, backend) = (tempfile::tempdir().unwrap(), Backend::listen());
    std::fs::write(dir.path().join("key"), STANDARD.encode([9; 32])).unwrap();
    let served = with_secret(1, &backend, vec![secret("1", CANARY)]);
    let (operator, url) = listen(served.clone());
    let address = operator.address.to_string();
    let mut agent = Agent::start(dir.path(), &url, &["--state-key", "key"]);
    operator.wait_for("it runs 7.1", |ask| ask.running == Some(version(7, 1)));
    flows(&mut agent, dir.path(), ("jobs", 1));
    drop(operator);
    flows(&mut agent, dir.path(), ("jobs", 2));
    agent.kill();

    // With the key everything is there.
    let mut agent = Agent::start(dir.path(), &url, &["--state-key", "key"]);
    assert!(agent.get("/readyz").starts_with("HTTP/1.1 200"), "a stored configuration is one");
    flows(&mut agent, dir.path(), ("jobs", 3));
    let ledger = |agent: &Agent, name: &str| {
        let status = agent.status();
        let pipeline = status["pipelines"].as_array().unwrap().iter().find(|one| one["name"] == name).cloned();
        pipeline.map(|one| one["deliveries"][0]["deliveredEvents"].clone())
    };
    agent.wait_until("the secret is there", |agent| ledger(agent, "secured") == Some(json!(3)));
    let log = agent.kill();
    assert!(log.contains("starting from the stored configuration"), "{log}");

    // Without the key what needs a secret waits for the operator, and says so.
    let mut agent = Agent::start(dir.path(), &url, &[]);
    flows(&mut agent, dir.path(), ("jobs", 4));
    assert_eq!(ledger(&agent, "secured"), None);
    let excluded = agent.status()["excluded"].to_string();
    assert!(excluded.contains("fab12/api/token") && excluded.contains("waits for the operator"), "{excluded}");
    let operator = Operator::listen(&address, None, serving(served));
    agent.signal(Signal::HUP);
    operator.wait_for("it runs whole", |ask| ask.running == Some(version(7, 1)) && ask.refused.is_empty());
    flows(&mut agent, dir.path(), ("jobs", 5));
    agent.wait_until("the secret is served", |agent| ledger(agent, "secured") == Some(json!(4)));
}

#[test]
fn a_damaged_stored_configuration_is_set_aside_and_served_again() {
    let dir = tempfile::tempdir().unwrap();
    let (operator, url) = listen(configuration(7, 1, &[archive(), everything("jobs")]));
    let agent = Agent::start(dir.path(), &url, &[]);
    operator.wait_for("it runs 7.1", |ask| ask.running == Some(version(7, 1)));
    agent.kill();
    let stored = dir.path().join("data/configuration.json");
    let mut text = std::fs::read(&stored).unwrap();
    let middle = text.len() / 2;
    text[middle] ^= 4;
    std::fs::write(&stored, text).unwrap();
    operator.set(|state| state.asks.clear());
    let mut agent = Agent::start(dir.path(), &url, &[]);
    assert_eq!(operator.wait_for("anything", |_| true).running, None, "it has none");
    flows_again(&mut agent, &operator, dir.path());
    assert!(dir.path().join("data/configuration.json.damaged").exists());
    assert!(agent.kill().contains("stored configuration is damaged"));
}

fn flows_again(agent: &mut Agent, operator: &Operator, dir: &Path) {
    operator.wait_for("it runs 7.1 again", |ask| ask.running == Some(version(7, 1)));
    flows(agent, dir, ("jobs", 1));
}

/// The kubelet's folder of a pod, and its facts.
fn pod(dir: &Path, name: &str, labels: &[(&str, &str)]) -> (std::path::PathBuf, PodFacts) {
    let uid = format!("uid-{name}");
    let folder = dir.join("pods").join(format!("fab12_{name}_{uid}")).join("main");
    std::fs::create_dir_all(&folder).unwrap();
    let facts = PodFacts {
        uid: uid.into(),
        namespace: "fab12".into(),
        name: name.into(),
        labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        owner: Some(Owner { kind: "Deployment".into(), name: "etcher".into() }),
        ..PodFacts::default()
    };
    (folder.join("0.log"), facts)
}

fn write(log: &Path, texts: &[&str]) {
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
    for text in texts {
        writeln!(file, "2026-11-23T10:00:00.000000000Z stdout F {text}").unwrap();
    }
}

#[test]
fn a_pod_is_read_from_its_beginning_once_it_is_told_of_and_not_before() {
    let dir = tempfile::tempdir().unwrap();
    let (etcher, etcher_facts) = pod(dir.path(), "etch", &[("app", "etcher")]);
    let (other, other_facts) = pod(dir.path(), "other", &[("app", "other")]);
    let (silent, mut silent_facts) = pod(dir.path(), "silent", &[("app", "etcher")]);
    silent_facts.annotations.insert("spillway.dev/logs", "false");
    for log in [&etcher, &other, &silent] {
        write(log, &["one", "two"]);
    }
    let selector = json!({"podSelector": {"matchLabels": {"app": "etcher"}}});
    let (operator, url) = listen(configuration(7, 1, &[archive(), logs("logs", &selector)]));
    let mut agent = Agent::start(dir.path(), &url, &[]);
    operator.wait_for("it runs 7.1", |ask| ask.running == Some(version(7, 1)));
    agent.wait_until("all are held", |agent| agent.get("/metrics").contains("container_log_held_containers 3"));
    write(&etcher, &["three"]);
    assert!(delivered(dir.path(), "", "message").is_empty());

    let told = |hash: &str, pods: &[&PodFacts]| Pods {
        hash: hash.into(),
        pods: pods.iter().map(|one| Arc::new((*one).clone())).collect(),
    };
    operator.set(|state| state.pods = Some(told("p1", &[&etcher_facts, &other_facts, &silent_facts])));
    let three = ["one", "three", "two"];
    agent.wait_until("the lines", |_| delivered(dir.path(), "", "message") == three);
    operator.wait_for("it knows the pods", |ask| ask.pods.as_deref() == Some("p1"));
    agent.wait_until("none is held", |agent| agent.get("/metrics").contains("container_log_held_containers 0"));
    let origins = delivered(dir.path(), "", "_spillway");
    assert!(origins.iter().all(|origin| origin.contains("\"ownerKind\":\"Deployment\"")), "{origins:?}");
    assert!(origins.iter().all(|origin| origin.contains("\"labels\":{\"app\":\"etcher\"}")), "{origins:?}");

    // The facts are there after a restart without the operator, and nothing is read twice.
    let address = operator.address.to_string();
    drop(operator);
    agent.kill();
    let mut agent = Agent::start(dir.path(), &url, &[]);
    write(&etcher, &["four"]);
    write(&other, &["never"]);
    let four = ["four", "one", "three", "two"];
    agent.wait_until("the fourth line", |_| delivered(dir.path(), "", "message") == four);

    // Selection follows a change of labels.
    let (_, moved) = pod(dir.path(), "etch", &[("app", "moved")]);
    let (_, joined) = pod(dir.path(), "other", &[("app", "etcher")]);
    let state = serving(configuration(7, 1, &[archive(), logs("logs", &selector)]));
    let pods = Some(told("p2", &[&moved, &joined, &silent_facts]));
    let operator = Operator::listen(&address, None, State { pods, ..state });
    agent.signal(Signal::HUP);
    operator.wait_for("it knows the change", |ask| ask.pods.as_deref() == Some("p2"));
    agent.wait_until("the other pod", |_| delivered(dir.path(), "", "message").contains(&"never".to_owned()));
    write(&etcher, &["five"]);
    write(&other, &["last"]);
    agent.wait_until("its last line", |_| delivered(dir.path(), "", "message").contains(&"last".to_owned()));
    let mut all: Vec<&str> = [&four[..], &["last", "never", "one", "two"]].concat();
    all.sort_unstable();
    assert_eq!(delivered(dir.path(), "", "message"), all);
}
