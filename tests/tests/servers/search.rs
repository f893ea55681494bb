//! Elasticsearch and OpenSearch: every event once, whatever happens to the agent, the server, the answers, the password
//! or one index of several.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;
use spillway_tests::agent::{Agent, Place, deliveries};
use spillway_tests::http::Client;
use spillway_tests::manifests::jobs;
use spillway_tests::proxy::CuttingProxy;
use spillway_tests::servers::search::{OPENSEARCH_2, SearchServer, USERS, runnable};
use spillway_tests::servers::tls::Authority;
use spillway_tests::servers::{Package, skip};

/// What differs between the manifests of these scenarios.
pub(crate) struct To<'a> {
    pub(crate) url: &'a str,
    pub(crate) index: &'a str,
    pub(crate) more: &'a str,
}

pub(crate) fn manifests(to: &To<'_>) -> String {
    let To { url, index, more } = to;
    let spec = format!(
        "  type: Elasticsearch
  elasticsearch: {{urls: [\"{url}\"], index: \"{index}\"{more}}}
  delivery:
    batch: {{maxEvents: 500}}
    timeoutSeconds: 10
    retry: {{initialMilliseconds: 20, maxSeconds: 1}}
    circuitBreaker: {{openSeconds: 1}}"
    );
    jobs(&[("search", &spec)])
}

/// A place whose agent speaks TLS with the server and proves who it is by `auth`, with the secret `es/password`.
pub(crate) fn secured(server: &SearchServer, url: &str, index: &str, auth: &str) -> Place {
    let more = format!(", auth: {{{auth}}}, tls: {{caSecretRef: {{name: es, key: ca.crt}}}}");
    let place = Place::new(&manifests(&To { url, index, more: &more }));
    fs::create_dir_all(place.path("secrets/es")).unwrap();
    fs::write(place.path("secrets/es/ca.crt"), server.ca_pem()).unwrap();
    place
}

pub(crate) fn password(place: &Place, password: &str) {
    let path = place.path("secrets/es/password");
    fs::write(path.with_extension("new"), password).unwrap();
    fs::rename(path.with_extension("new"), path).unwrap();
}

/// Posts events of some kinds in turn (`a,b`), numbered on from what was sent so far.
pub(crate) fn post(agent: &Agent, kind: &str, count: u64, sent: &Cell<u64>) {
    post_to(&agent.http, kind, count, sent);
}

pub(crate) fn post_to(address: &str, kinds: &str, count: u64, sent: &Cell<u64>) {
    let mut client = Client::connect(address).unwrap();
    let kinds: Vec<&str> = kinds.split(',').collect();
    let event = |n: u64| {
        let kind = kinds[n as usize % kinds.len()];
        format!("{{\"n\":{n},\"kind\":\"{kind}\",\"pad\":\"{}\"}}\n", "x".repeat(200))
    };
    for start in (0..count).step_by(500) {
        let numbers = sent.get() + start..sent.get() + count.min(start + 500);
        let lines: Vec<String> = numbers.map(event).collect();
        let answer = client.send("POST", "/v1/events", &[], lines.concat().as_bytes()).unwrap();
        assert_eq!(answer.status, 202, "{}", answer.json());
    }
    sent.set(sent.get() + count);
}

pub(crate) fn delivery(status: &Value) -> Value {
    deliveries(&status["pipelines"][0]).next().cloned().unwrap_or_default()
}

/// Every event is there once: by its number, and under the id that it carries.
pub(crate) fn assert_each_once(server: &SearchServer, indices: &str, sent: u64) {
    let documents = server.documents(indices);
    let mut counts: BTreeMap<u64, u64> = BTreeMap::new();
    for (index, id, document) in &documents {
        assert_eq!(document["_spillway"]["id"].as_str(), Some(&**id), "{index}");
        assert!(document["@timestamp"].is_string());
        *counts.entry(document["n"].as_u64().unwrap()).or_default() += 1;
    }
    let doubled: Vec<_> = counts.iter().filter(|(_, count)| **count != 1).take(5).collect();
    assert!(doubled.is_empty(), "more than once: {doubled:?}");
    let missing: Vec<_> = (0..sent).filter(|n| !counts.contains_key(n)).take(5).collect();
    assert!(missing.is_empty(), "accepted and not there: {missing:?} of {sent}");
    assert_eq!(counts.len() as u64, sent, "nothing was invented");
}

pub(crate) fn newest(name: &str) -> Option<Package> {
    runnable().into_iter().rfind(|package| package.name == name)
}

#[test]
fn a_secured_elasticsearch_has_every_event_once_after_kills_lost_answers_and_rotated_passwords() {
    match newest("elasticsearch") {
        Some(package) => {
            let server = SearchServer::start(package, true).unwrap();
            println!("{}", server.version());
            each_once_under_kills_and_rotation(server);
        }
        None => skip("servers::search (secured)", "no version of Elasticsearch runs with the Java of this machine"),
    }
}

#[test]
fn a_secured_opensearch_has_every_event_once_after_kills_lost_answers_and_rotated_passwords() {
    let server = SearchServer::start(OPENSEARCH_2, true).unwrap();
    println!("{}", server.version());
    each_once_under_kills_and_rotation(server);
}

fn each_once_under_kills_and_rotation(mut server: SearchServer) {
    let proxy = CuttingProxy::start(&server.address());
    let auth = "basic: {username: sink, passwordSecretRef: {name: es, key: password}}";
    let place = secured(&server, &format!("https://{}", proxy.address), "jobs-{event.kind}", auth);
    let sent = Cell::new(0);

    // A wrong password is waited out, without a word of it anywhere.
    password(&place, "not-the-password");
    let mut agent = place.start();
    post(&agent, "a", 1000, &sent);
    let status = agent.wait_until("a refused password", |status| delivery(status)["state"] == "retrying");
    let error = delivery(&status)["lastError"].as_str().unwrap().to_owned();
    assert!(error.contains("401") && !error.contains("not-the-password"), "{error}");
    password(&place, USERS[1].1);
    agent.wait_until_delivered(sent.get());

    // Answers are lost after the server has taken the batch.
    proxy.cut_answers(true);
    post(&agent, "a", 2000, &sent);
    agent.wait_until("answers lost", |_| proxy.answers_cut() >= 3);
    // The agent is killed with batches of unknown outcome.
    agent.kill();
    proxy.cut_answers(false);
    agent = place.start();
    agent.wait_until_delivered(sent.get());
    assert!(delivery(&agent.status())["duplicateEvents"].as_u64() > Some(0), "the server knew them by their ids");

    // The server is killed in the midst of it, and the agent as well.
    for round in 0..3 {
        post(&agent, "b", 2000, &sent);
        agent.moment(std::time::Duration::from_millis(20 * round));
        if round == 1 {
            server.kill();
            post(&agent, "b", 500, &sent);
            agent.wait_until("nobody there", |status| delivery(status)["state"] == "retrying");
        }
        agent.kill();
        if round == 1 {
            server.start_process().unwrap();
        }
        agent = place.start();
    }
    agent.wait_until_delivered(sent.get());

    // The password is rotated at the server first.
    server.set_password(USERS[1].0, "another-secret").unwrap();
    let address = agent.http.clone();
    agent.wait_until("the old password refused", |status| {
        post_to(&address, "c", 1, &sent);
        delivery(status)["state"] == "retrying"
    });
    post(&agent, "c", 500, &sent);
    password(&place, "another-secret");
    agent.wait_until_delivered(sent.get());
    agent.stop();
    assert_each_once(&server, "jobs-*", sent.get());
}

#[test]
fn events_wait_while_an_api_key_is_revoked_and_a_new_one_delivers_them() {
    let Some(package) = newest("elasticsearch") else {
        return skip("servers::search (API keys)", "no version of Elasticsearch runs with the Java of this machine");
    };
    let server = SearchServer::start(package, true).unwrap();
    println!("{}", server.version());
    let place = secured(&server, &server.url(), "jobs-{event.kind}", "apiKeySecretRef: {name: es, key: password}");
    let sent = Cell::new(0);
    let (mut id, mut key) = server.make_api_key();
    password(&place, &format!("{id}:{key}"));
    // A stranger's CA first: a key is not shown to a server that is not trusted.
    let ca = place.path("secrets/es/ca.crt");
    fs::write(&ca, Authority::new().unwrap().pem()).unwrap();
    let mut agent = place.start();
    post(&agent, "a", 500, &sent);
    let status = agent.wait_until("a stranger", |status| delivery(status)["faults"]["unreachable"].as_u64() > Some(0));
    assert!(delivery(&status)["lastError"].as_str().unwrap().contains("certificate"), "{status:#}");
    fs::write(&ca, server.ca_pem()).unwrap();
    for round in 0..3 {
        post(&agent, "a", 1000, &sent);
        agent.wait_until_delivered(sent.get());
        server.revoke_api_key(&id);
        post(&agent, "a", 500, &sent);
        let status = agent.wait_until("a refused key", |status| {
            delivery(status)["state"] == "retrying" && delivery(status)["faults"]["unauthorized"].as_u64() > Some(0)
        });
        let told = format!("{status} {} {:?}", agent.metrics(), agent.seen);
        assert!(told.contains("401") && !told.contains(&key), "{told}");
        assert_eq!(delivery(&status)["heldEvents"], 500, "{status:#}");
        if round > 0 {
            agent.kill();
            agent = place.start();
        }
        (id, key) = server.make_api_key();
        password(&place, &format!("{id}:{key}"));
    }
    agent.wait_until_delivered(sent.get());
    agent.stop();
    assert_each_once(&server, "jobs-*", sent.get());
}

#[test]
fn one_busy_closed_or_picky_index_holds_up_only_its_own_events() {
    let Some(package) = newest("elasticsearch") else {
        return skip("servers::search (indices)", "no version of Elasticsearch runs with the Java of this machine");
    };
    let server = SearchServer::start(package, false).unwrap();
    println!("{}", server.version());
    let place = Place::new(&manifests(&To { url: &server.url(), index: "jobs-{event.kind}", more: "" }));
    let mut agent = place.start();
    let sent = Cell::new(0);
    for kind in ["free", "busy", "closed", "typed"] {
        post(&agent, kind, 1, &sent);
    }
    agent.wait_until_delivered(sent.get());
    let set = |block: &str| {
        server.must("PUT", "/jobs-busy/_settings", &format!("{{\"index.blocks.read_only_allow_delete\":{block}}}"));
    };
    set("true");
    server.must("POST", "/jobs-closed/_close", "");
    // Of one batch, so that the server takes some of it and not the rest.
    post(&agent, "busy,closed,free,free,free", 3000, &sent);
    let count = |index: &str| {
        server.must("POST", &format!("/{index}/_refresh"), "");
        server.must("GET", &format!("/{index}/_count"), "")["count"].as_u64().unwrap()
    };
    agent.wait_until("the free index has all", |_| count("jobs-free") == 1801);
    let held = delivery(&agent.status());
    // The server may lift the block of the busy index by itself; the closed one stays closed.
    assert!((600..=1200).contains(&held["heldEvents"].as_u64().unwrap()), "{held:#}");
    set("null");
    server.must("POST", "/jobs-closed/_open", "");
    agent.wait_until_delivered(sent.get());

    // One document of a thousand does not fit the mapping: a dead letter, and no other.
    let lines: Vec<String> = (0..1000)
        .map(|n| {
            let number = if n == 500 { "\"no number\"".to_owned() } else { (sent.get() + n).to_string() };
            format!("{{\"n\":{number},\"kind\":\"typed\"}}\n")
        })
        .collect();
    let answer = agent.post(lines.concat().as_bytes(), &[]);
    assert_eq!(answer.status, 202);
    let status = agent.wait_until_delivered(sent.get() + 1000);
    assert_eq!(delivery(&status)["rejectedEvents"], 1, "{status:#}");
    assert_eq!(count("jobs-typed"), 1000);

    // Labels that would shadow one another live in one field.
    let labels = r#"{"@timestamp":"2026-11-24T00:00:00Z","_spillway":{"origin":{"labels":{"app":"a","app.kubernetes.io/name":"b"}}}}"#;
    server.must("POST", "/jobs-labels/_create/1", labels);
    let mapping = server.must("GET", "/jobs-labels/_mapping", "");
    let origin = &mapping["jobs-labels"]["mappings"]["properties"]["_spillway"]["properties"]["origin"];
    assert_eq!(origin["properties"]["labels"]["type"], "flattened");
    agent.stop();
}

/// Waits until the destination holds so many events, says `why`, and is killed three times meanwhile.
fn hold_over_kills(place: &Place, mut agent: Agent, held: u64, why: &str) -> Agent {
    for _ in 0..3 {
        let told = agent.wait_for_line("not taken now").to_string();
        assert!(told.contains(why), "{told}");
        // What was delivered just before the kill may be held again, and be found there later.
        agent.wait_until(why, |status| delivery(status)["heldEvents"].as_u64() >= Some(held));
        agent.kill();
        agent = place.start();
    }
    agent
}

#[test]
fn a_missing_closed_or_read_only_index_is_waited_for_over_kills_and_a_misfit_is_one_dead_letter() {
    let Some(package) = newest("elasticsearch") else {
        return skip("servers::search (kills)", "no version of Elasticsearch runs with the Java of this machine");
    };
    let server = SearchServer::start(package, false).unwrap();
    println!("{}", server.version());
    server.must("PUT", "/_cluster/settings", r#"{"persistent": {"action.auto_create_index": "false"}}"#);
    let more = ", createTemplate: false";
    let place = Place::new(&manifests(&To { url: &server.url(), index: "jobs-only", more }));
    let sent = Cell::new(0);
    let mut agent = place.start();
    post(&agent, "a", 1000, &sent);
    agent = hold_over_kills(&place, agent, 1000, "index_not_found_exception");
    let mapping = r#"{"mappings": {"properties": {"n": {"type": "long"}, "_spillway.id": {"type": "keyword"}}}}"#;
    server.must("PUT", "/jobs-only", mapping);
    agent.wait_until_delivered(sent.get());
    for (block, lift, why) in [
        ("/jobs-only/_close", "/jobs-only/_open", "index_closed_exception"),
        (r#"{"index.blocks.write": true}"#, r#"{"index.blocks.write": null}"#, "cluster_block_exception"),
    ] {
        let set = |what: &str| {
            let (method, path, body) =
                if what.starts_with('/') { ("POST", what, "") } else { ("PUT", "/jobs-only/_settings", what) };
            server.must(method, path, body);
        };
        set(block);
        post(&agent, "a", 1000, &sent);
        agent = hold_over_kills(&place, agent, 1000, why);
        set(lift);
        agent.wait_until_delivered(sent.get());
    }
    // One of a thousand does not fit; the agent is killed while they are on their way.
    for round in 0..3 {
        let misfit = "{\"n\":\"no number\",\"kind\":\"a\"}\n";
        post(&agent, "a", 500, &sent);
        assert_eq!(agent.post(misfit.as_bytes(), &[]).status, 202);
        post(&agent, "a", 499, &sent);
        agent.moment(std::time::Duration::from_millis(10 * round));
        agent.kill();
        agent = place.start();
    }
    let status = agent.wait_until_delivered(sent.get() + 3);
    assert_eq!(delivery(&status)["rejectedEvents"], 3, "{status:#}");
    agent.stop();
    assert_each_once(&server, "jobs-only", sent.get());
}

#[test]
fn a_data_stream_of_every_version_has_every_event_once() {
    std::thread::scope(|versions| {
        for package in runnable() {
            versions.spawn(move || each_once_in_a_data_stream(package));
        }
    });
}

fn each_once_in_a_data_stream(package: Package) {
    let mut server = SearchServer::start(package, false).unwrap();
    let proxy = CuttingProxy::start(&server.address());
    let url = format!("http://{}", proxy.address);
    let more = ", dataStream: true, compression: Gzip";
    let place = Place::new(&manifests(&To { url: &url, index: "jobs-stream", more }));
    let mut agent = place.start();
    let sent = Cell::new(0);
    post(&agent, "a", 1000, &sent);
    agent.wait_until_delivered(sent.get());
    proxy.cut_answers(true);
    post(&agent, "a", 500, &sent);
    agent.wait_until("an answer lost", |_| proxy.answers_cut() >= 1);
    agent.kill();
    proxy.cut_answers(false);
    if server.version().starts_with("opensearch") {
        server.kill();
        server.start_process().unwrap();
    }
    agent = place.start();
    agent.wait_until_delivered(sent.get());
    agent.stop();
    assert_each_once(&server, "jobs-stream", sent.get());
}
