//! Pods at the door of the agent of their node, with tokens of a real API server. Tokens that are over, or of another cluster,
//! are tests of the agent's own: an API server issues none that lasts less than ten minutes.

use std::fs;
use std::net::TcpStream;
use std::sync::Arc;

use serde_json::json;
use spillway_tests::agent::Agent;
use spillway_tests::http::{Answer, Client};
use spillway_tests::operator::{Operator, Replica};
use spillway_tests::servers::process::free_port;

use crate::operator::world::{BACKEND, NODE, OWN, World};

const PIPELINE: &str = "\
apiVersion: spillway.dev/v1alpha1
kind: MonitoringPipeline
metadata: {name: jobs, namespace: fab12}
spec:
  inputs: [{name: pushed, type: Events, events: {podSelector: {matchLabels: {app: etcher}}}}]
  routes: [{name: all, backendRefs: [{name: archive}]}]
";

#[test]
fn a_pod_sends_with_its_own_token_and_nobody_else_does() {
    let Some(world) = World::start("a_pod_sends_with_its_own_token_and_nobody_else_does") else { return };
    let replica = world.replica("first");
    let (operator, mut door) = begin(&world, &replica);

    // The pod that is selected, and nothing that it says of itself.
    let etcher = token(&world, "etcher", "fab12", "spillway-agent");
    let sent = door.send(&etcher, r#"{"n":1,"_spillway":{"origin":{"pod":"evil"}}}"#);
    assert_eq!((sent.status, sent.json()), (202, json!({"accepted": 1})));
    world.wait_for_lines(&mut door.agent, 1);
    let line: serde_json::Value = serde_json::from_str(&world.lines()[0]).unwrap();
    let origin = &line["_spillway"]["origin"];
    assert_eq!(
        (&origin["namespace"], &origin["pod"], &origin["node"]),
        (&json!("fab12"), &json!("etcher"), &json!(NODE))
    );
    assert_eq!(origin["labels"], json!({"app": "etcher"}));

    // Genuine tokens of others, and of the same pod for others.
    let washer = token(&world, "washer", "fab12", "spillway-agent");
    let parts: Vec<&str> = etcher.split('.').collect();
    let of_washer = washer.split('.').nth(1).unwrap();
    let tampered = format!("{}.{of_washer}.{}", parts[0], parts[2]);
    for (token, status, code) in [
        (tampered, 401, "signature"),
        (washer.clone(), 422, "no_pipeline"),
        // No pipeline takes anything of its namespace, so nobody told of it.
        (token(&world, "hidden", "other", "spillway-agent"), 503, "pod-untold"),
        (token(&world, "elsewhere", "fab12", "spillway-agent"), 403, "pod"),
        (token(&world, "etcher", "fab12", "spillway"), 401, "audience"),
        (token(&world, "etcher", "fab12", "https://kubernetes.default.svc"), 401, "audience"),
        (format!("{etcher}x"), 401, "signature"),
        ("hunter2".to_owned(), 401, "token-malformed"),
        (String::new(), 401, "token-missing"),
    ] {
        let answer = door.send(&token, "{}");
        assert_eq!((answer.status, answer.json()["code"].as_str()), (status, Some(code)), "{:?}", answer.json());
    }
    let unbound = ["create", "token", "default", "-n", "fab12", "--audience", "spillway-agent"];
    let answer = door.send(world.api.must(&unbound, "").trim(), "{}");
    assert_eq!((answer.status, answer.json()["code"].as_str()), (401, Some("not-bound")));

    // Without a token only where the pipeline says so.
    let named = [("x-spillway-pipeline", "fab12/jobs")];
    let answer = door.send_with(&named, "{}");
    assert_eq!((answer.status, answer.json()["code"].as_str()), (401, Some("token-missing")));
    world.apply(&PIPELINE.replace("events: {", "events: {authentication: None, "));
    world.wait_for("Programmed", "True");
    assert_eq!(door.send_with(&named, r#"{"n":2}"#).status, 202);
    assert_eq!(door.send_with(&[], "{}").status, 401, "it names no pipeline");
    world.wait_for_lines(&mut door.agent, 2);
    let unverified: Vec<_> = world.lines().into_iter().filter(|line| line.contains(r#""n":2"#)).collect();
    let line: serde_json::Value = serde_json::from_str(&unverified[0]).unwrap();
    assert_eq!(line["_spillway"]["origin"], json!({"node": NODE, "source": "unverified"}));
    world.apply(PIPELINE);
    world.wait_for("Programmed", "True");
    assert_eq!(door.send_with(&named, "{}").status, 401, "nor after it was taken back");

    // Nothing that anybody showed is in its log, however talkative that is.
    operator.kill();
    let log = format!("{:?}", door.agent.kill_and_read());
    assert!(log.contains("TRACE") && parts.iter().chain([&of_washer]).all(|part| !log.contains(*part)), "{log}");

    // Without an operator it goes on, over a restart, too.
    let mut door = Door::open(&world, &replica);
    assert_eq!(door.send(&etcher, r#"{"n":3}"#).status, 202);
    world.wait_for_lines(&mut door.agent, 3);
    door.agent.stop();
}

#[test]
fn the_token_of_a_pod_that_has_ended_is_worth_nothing_although_it_is_not_over() {
    let Some(world) = World::start("the_token_of_a_pod_that_has_ended_is_worth_nothing_although_it_is_not_over") else {
        return;
    };
    let replica = world.replica("first");
    let (operator, mut door) = begin(&world, &replica);
    let of = |name: &str| token(&world, name, "fab12", "spillway-agent");
    let (etcher, other) = (of("etcher"), of("job"));
    assert_eq!((door.send(&etcher, "{}").status, door.send(&other, "{}").status), (202, 202));

    // One whose containers ended, and that is still there.
    let done = r#"{"status":{"phase":"Succeeded"}}"#;
    world
        .api
        .must(&["patch", "pod", "job", "-n", "fab12", "--subresource", "status", "--type", "merge", "-p", done], "");
    door.wait_until_refused(&other);

    // One that is deleted, and then another one of its name.
    world.api.must(&["delete", "pod", "etcher", "-n", "fab12", "--grace-period=0", "--force"], "");
    door.wait_until_refused(&etcher);
    world.pod("etcher", "fab12");
    let again = of("etcher");
    door.wait_for(&again, 202);
    assert_eq!(door.send(&etcher, "{}").status, 403, "it is not the one before");
    operator.stop();
    door.agent.stop();
}

/// Starts a replica of the operator and the agent, and applies what takes events of some pods.
fn begin(world: &World, replica: &Replica) -> (Operator, Door) {
    pods(world);
    let mut operator = replica.start();
    operator.wait_until_leading();
    world.apply(BACKEND);
    world.apply(PIPELINE);
    let mut door = Door::open(world, replica);
    door.agent.wait_for_line("operator answers");
    world.wait_for("Programmed", "True");
    (operator, door)
}

/// Makes a pod that is not selected, and one on another node.
fn pods(world: &World) {
    world.apply(&json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-2"}}).to_string());
    // There is no controller that makes these.
    for namespace in ["fab12", "other"] {
        world.api.must(&["create", "serviceaccount", "default", "-n", namespace], "");
    }
    for (name, app, node) in [("washer", "washer", NODE), ("job", "etcher", NODE), ("elsewhere", "etcher", "node-2")] {
        let pod = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "fab12", "labels": {"app": app}},
            "spec": {"nodeName": node, "serviceAccountName": "default", "containers": [{"name": "main", "image": "none"}]}});
        world.apply(&pod.to_string());
    }
}

/// Returns what a kubelet would mount into a pod.
pub(crate) fn token(world: &World, pod: &str, namespace: &str, audience: &str) -> String {
    let token = ["create", "token", "default", "-n", namespace, "--audience", audience];
    let bound = ["--bound-object-kind", "Pod", "--bound-object-name", pod];
    world.api.must(&[&token[..], &bound[..]].concat(), "").trim().to_owned()
}

/// An agent with an open door.
pub(crate) struct Door {
    /// The agent.
    pub(crate) agent: Agent,
    /// Where its door is.
    pub(crate) address: String,
    tls: Arc<rustls::ClientConfig>,
}

impl Door {
    /// Starts the agent of the node with an open door.
    pub(crate) fn open(world: &World, replica: &Replica) -> Self {
        let made = ["wait", "--for=create", "secret/spillway-agent-tls", "-n", OWN, "--timeout=60s"];
        world.api.must(&made, "");
        for (key, file) in [("tls.crt", "door.crt"), ("tls.key", "door.key")] {
            let path = format!("go-template={{{{index .data \"{key}\" | base64decode}}}}");
            let get = ["get", "secret", "spillway-agent-tls", "-n", OWN, "-o", &path];
            fs::write(world.folder.join(file), world.api.must(&get, "")).unwrap();
        }
        let address = format!("127.0.0.1:{}", free_port());
        let flags = ["--door", &address, "--door-cert", "door.crt", "--door-key", "door.key", "--log-level", "trace"];
        // What a test listens at is nothing for tenants else.
        let flags = [&flags[..], &["--allow-destinations", "127.0.0.1"]].concat();
        world.mount();
        let mut agent = world.agent_with(&replica.url(), &flags);
        agent.wait_for_line("ready");
        let mut roots = rustls::RootCertStore::empty();
        let pem = fs::read(world.folder.join("ca.crt")).unwrap();
        for certificate in rustls_certificates(&pem) {
            roots.add(certificate).unwrap();
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config =
            rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        Self { agent, address, tls: Arc::new(config.with_root_certificates(roots).with_no_client_auth()) }
    }

    /// Sends as an application does, to the name of the Service.
    fn send(&self, token: &str, body: &str) -> Answer {
        self.send_with(&[("authorization", &format!("Bearer {token}"))], body)
    }

    /// Sends until the token is refused for its pod.
    fn wait_until_refused(&mut self, token: &str) {
        let answer = self.wait_for(token, 403);
        assert_eq!(answer.json()["code"], "pod");
    }

    /// Sends until it is answered so.
    fn wait_for(&mut self, token: &str, status: u16) -> Answer {
        let (address, tls) = (self.address.clone(), self.tls.clone());
        let shown = [("authorization", &*format!("Bearer {token}"))];
        let told = || format!("an answer {status}");
        self.agent
            .eventually(told, |_| Some(send(&address, &tls, &shown, "{}")).filter(|answer| answer.status == status))
    }

    fn send_with(&self, headers: &[(&str, &str)], body: &str) -> Answer {
        send(&self.address, &self.tls, headers, body)
    }
}

/// Sends by a connection of its own.
fn send(address: &str, tls: &Arc<rustls::ClientConfig>, headers: &[(&str, &str)], body: &str) -> Answer {
    let name = "spillway-agent.spillway-system.svc".try_into().unwrap();
    let connection = rustls::ClientConnection::new(tls.clone(), name).unwrap();
    let stream = rustls::StreamOwned::new(connection, TcpStream::connect(address).unwrap());
    let mut client = Client::over(stream, "spillway-agent");
    client.send("POST", "/v1/events", headers, body.as_bytes()).unwrap()
}

fn rustls_certificates(pem: &[u8]) -> Vec<rustls::pki_types::CertificateDer<'static>> {
    use rustls::pki_types::pem::PemObject as _;
    rustls::pki_types::CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().unwrap()
}
