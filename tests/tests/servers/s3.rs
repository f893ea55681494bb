//! The backend `S3` against `SeaweedFS`.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
use spillway_tests::agent::{Agent, Place, deliveries};
use spillway_tests::http::Client;
use spillway_tests::manifests::jobs;
use spillway_tests::request_proxy::{Passage, RequestProxy};
use spillway_tests::servers::seaweedfs::{ACCESS_KEY, SECRET_KEY, SeaweedFs};
use spillway_tests::{Random, output, scripted};

/// Keys that the manifest names.
const CREDENTIALS: &str = "
      accessKeyIDSecretRef: {name: s3, key: id}
      secretAccessKeySecretRef: {name: s3, key: secret}";

/// Events go to the bucket `lake` at `endpoint`; `more` are settings of it, `delivery` those of the delivery.
pub(crate) fn manifests(endpoint: &str, more: &str, delivery: &str) -> String {
    let spec = format!(
        "  type: S3
  s3:
    bucket: lake
    endpoint: \"{endpoint}\"
    forcePathStyle: true
    {more}
  delivery: {{retry: {{initialMilliseconds: 20, maxSeconds: 1}}, circuitBreaker: {{openSeconds: 1}}, {delivery}}}"
    );
    jobs(&[("lake", &spec)])
}

/// A place whose agent signs with the store's key from a Secret.
fn to_bucket_at(endpoint: &str, more: &str, delivery: &str) -> Place {
    let more = format!("credentials:{CREDENTIALS}\n    {more}");
    let place = Place::new(&manifests(endpoint, &more, delivery));
    fs::create_dir(place.path("secrets/s3")).unwrap();
    secret(&place, "id", ACCESS_KEY);
    secret(&place, "secret", SECRET_KEY);
    place
}

fn to_bucket(address: &str, more: &str, delivery: &str) -> Place {
    to_bucket_at(&format!("http://{address}"), more, delivery)
}

/// Returns the ids of events `first..first + count`.
pub(crate) fn ids(first: u64, count: u64) -> Vec<String> {
    (first..first + count).map(|id| format!("e{id}")).collect()
}

/// Posts events of some 250 bytes and wants them accepted.
pub(crate) fn post(address: &str, first: u64, count: u64) {
    let pad = "x".repeat(200);
    let lines: Vec<_> = ids(first, count).iter().map(|id| format!("{{\"id\":\"{id}\",\"pad\":\"{pad}\"}}\n")).collect();
    let mut client = Client::connect(address).expect("the agent listens");
    let answer = client.send("POST", "/v1/events", &[], lines.concat().as_bytes()).expect("the agent answers");
    assert_eq!(answer.status, 202, "{}", answer.json());
}

fn secret(place: &Place, key: &str, value: &str) {
    fs::write(place.path("secrets/s3").join(key), value).unwrap();
}

pub(crate) fn wait_for_fault(agent: &mut Agent, kind: &str, error: &str) {
    agent.wait_until(error, |status| {
        let pipelines = status["pipelines"].as_array().into_iter().flatten();
        pipelines.flat_map(deliveries).all(|delivery| {
            let told = delivery["lastError"].as_str().is_some_and(|told| told.contains(error));
            told && delivery["faults"][kind].as_u64() > Some(0)
        })
    });
}

/// Waits until everything is delivered, and finds each event once in the store; returns the last status.
fn each_once(mut agent: Agent, store: &SeaweedFs, sent: u64) -> Value {
    let status = agent.wait_until_delivered(sent);
    agent.stop();
    let all = ids(0, sent);
    output::assert_exactly_once(&store.lines("lake"), "id", &all, &all);
    status
}

#[test]
fn kills_of_agent_and_store_in_mid_batch_leave_each_event_once() {
    let mut random = Random(11);
    let Some(mut store) = SeaweedFs::start() else { return };
    let place = to_bucket(&store.address(), "compression: Gzip", "batch: {maxEvents: 200}, timeoutSeconds: 5");
    let mut sent = 0;
    for round in 0..6 {
        let mut agent = place.start();
        for _ in 0..4 + random.below(6) {
            post(&agent.http, sent, 500);
            sent += 500;
        }
        agent.moment(Duration::from_millis(random.below(150)));
        match round % 3 {
            0 => agent.kill(),
            1 => {
                store.kill();
                agent.moment(Duration::from_millis(random.below(200)));
                agent.kill();
                store.restart();
            }
            _ => {
                store.restart();
                agent.moment(Duration::from_millis(random.below(200)));
                agent.kill();
            }
        }
    }
    each_once(place.start(), &store, sent);
    println!("{sent} events in {} objects, each once", store.keys("lake").len());
}

#[test]
fn an_answer_lost_after_the_put_was_carried_out_gives_no_second_object() {
    let Some(store) = SeaweedFs::start() else { return };
    let proxy = RequestProxy::start(&store.address());
    let place = to_bucket(&proxy.address, "compression: Gzip", "batch: {maxEvents: 100}");
    let agent = place.start();
    proxy.set(Passage::LoseAnswers("PUT /lake/", 3));
    post(&agent.http, 0, 500);
    proxy.wait_until_lost(3);
    // The process that knew what it had tried is gone, too.
    agent.kill();
    let status = each_once(place.start(), &store, 500);
    let duplicates: u64 = status["pipelines"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(deliveries)
        .map(|delivery| delivery["duplicateEvents"].as_u64().unwrap_or_default())
        .sum();
    assert!(duplicates > 0, "{status:#}");
    println!("3 answers lost, {duplicates} events were there already, each once");
}

#[test]
fn wrong_keys_hold_the_events_and_rotated_ones_deliver_them_without_a_restart() {
    let Some(store) = SeaweedFs::start() else { return };
    let place = to_bucket(&store.address(), "compression: Zstd", "");
    secret(&place, "secret", "wrong-secret");
    let mut agent = place.start();
    post(&agent.http, 0, 100);
    wait_for_fault(&mut agent, "unauthorized", "SignatureDoesNotMatch");
    secret(&place, "id", "AKNOBODY");
    for _ in 0..3 {
        wait_for_fault(&mut agent, "unauthorized", "InvalidAccessKeyId");
        agent.kill();
        agent = place.start();
    }
    assert_eq!(store.keys("lake"), [""; 0]);
    secret(&place, "secret", SECRET_KEY);
    secret(&place, "id", ACCESS_KEY);
    agent.wait_until_delivered(100);
    let told = format!("{:?} {} {}", agent.seen, agent.status(), agent.metrics());
    assert!(!told.contains("wrong-secret") && !told.contains(SECRET_KEY));
    agent.stop();
    assert_eq!(store.keys("lake").len(), 1);
}

#[test]
fn a_bucket_that_is_missing_holds_the_events_until_it_is_there() {
    let Some(store) = SeaweedFs::start() else { return };
    assert!(matches!(store.call("DELETE", "/lake", b"").status, 200 | 204));
    let place = to_bucket(&store.address(), "compression: None", "");
    let mut agent = place.start();
    post(&agent.http, 0, 100);
    // This store says so to a key that may not make buckets; others say `NoSuchBucket`.
    for _ in 0..3 {
        wait_for_fault(&mut agent, "unauthorized", "AccessDenied");
        agent.kill();
        agent = place.start();
    }
    assert_eq!(store.call("PUT", "/lake", b"").status, 200);
    each_once(agent, &store, 100);
}

#[test]
fn objects_in_parts_are_whole_and_single_after_lost_answers_and_kills() {
    let Some(store) = SeaweedFs::start() else { return };
    let proxy = RequestProxy::start(&store.address());
    let batch = "batch: {maxBytes: 16777216, maxEvents: 100000, maxWaitMilliseconds: 1000}";
    let place = to_bucket(&proxy.address, "compression: None\n    multipartAboveBytes: 5242880", batch);
    // The first batch is small, as with every backend that has not answered yet.
    let mut agent = place.start();
    let mut sent = 1000;
    post(&agent.http, 0, sent);
    agent.wait_until_delivered(sent);
    proxy.set(Passage::LoseAnswers("POST /lake/", 1));
    for _ in 0..60 {
        post(&agent.http, sent, 1000);
        sent += 1000;
    }
    proxy.wait_until_lost(1);
    agent.kill();
    each_once(place.start(), &store, sent);
    assert_eq!(store.open_uploads("lake"), [""; 0]);
}

#[test]
fn an_object_of_somebody_else_under_our_key_is_no_success() {
    let Some(store) = SeaweedFs::start() else { return };
    let proxy = RequestProxy::start(&store.address());
    proxy.set(Passage::Closed("PUT /lake/"));
    let place = to_bucket(&proxy.address, "compression: None", "");
    let mut agent = place.start();
    post(&agent.http, 0, 100);
    let line = proxy.wait_for_request("PUT /lake/");
    let path = line.split([' ', '?']).nth(1).unwrap();
    assert_eq!(store.call("PUT", path, b"of somebody else").status, 200);
    proxy.set(Passage::Open);
    wait_for_fault(&mut agent, "broken", "not ours");
    assert_eq!(store.call("GET", path, b"").body, b"of somebody else");
    assert!(matches!(store.call("DELETE", path, b"").status, 200 | 204));
    each_once(agent, &store, 100);
}

#[test]
fn a_store_behind_the_certificate_of_a_stranger_gets_nothing() {
    let own = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let of_another = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let named_otherwise = rcgen::generate_simple_self_signed(["example.test".to_owned()]).unwrap();
    let trusting = |store: &SeaweedFs, trusted: &rcgen::Certificate| {
        let tls = "tls: {caSecretRef: {name: s3, key: ca.crt}}";
        let place = to_bucket_at(&format!("https://{}", store.tls_address()), tls, "");
        secret(&place, "ca.crt", &trusted.pem());
        place
    };
    let pair = |pair: &rcgen::CertifiedKey<rcgen::KeyPair>| (pair.cert.pem(), pair.signing_key.serialize_pem());
    let Some(store) = SeaweedFs::start_with_certificate(Some(pair(&named_otherwise))) else { return };
    let place = trusting(&store, &named_otherwise.cert);
    let mut agent = place.start();
    post(&agent.http, 0, 100);
    wait_for_fault(&mut agent, "unreachable", "certificate");
    agent.kill();
    assert_eq!(store.keys("lake"), [""; 0]);
    drop(store);
    let Some(store) = SeaweedFs::start_with_certificate(Some(pair(&own))) else { return };
    let place = trusting(&store, &of_another.cert);
    let mut agent = place.start();
    post(&agent.http, 0, 100);
    wait_for_fault(&mut agent, "unreachable", "certificate");
    assert_eq!(store.keys("lake"), [""; 0]);
    // The right one is trusted at once.
    secret(&place, "ca.crt", &own.cert.pem());
    each_once(agent, &store, 100);
}

#[test]
fn keys_of_the_machine_are_asked_for_where_the_manifest_names_none() {
    let Some(store) = SeaweedFs::start() else { return };
    let gives = Arc::new(AtomicBool::new(false));
    let giving = gives.clone();
    // What a container is told: where it gets its keys.
    let keys = scripted::start(move |_| {
        let keys = serde_json::json!({
            "AccessKeyId": ACCESS_KEY, "SecretAccessKey": SECRET_KEY, "Token": "", "Expiration": "2099-01-01T00:00:00Z",
        });
        let status = if giving.load(Ordering::Acquire) { 200 } else { 404 };
        Some((status, keys.to_string()))
    });
    let place = Place::new(&manifests(&format!("http://{}", store.address()), "compression: Gzip", ""))
        .variable("AWS_CONTAINER_CREDENTIALS_FULL_URI", &format!("{keys}/keys"));
    let mut agent = place.start();
    post(&agent.http, 0, 100);
    wait_for_fault(&mut agent, "unauthorized", "no keys");
    gives.store(true, Ordering::Release);
    each_once(agent, &store, 100);
}
