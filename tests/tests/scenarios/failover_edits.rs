//! A route with `strategy: FirstHealthy` whose members are reordered, removed and added under load: every event is at exactly
//! one of them, and at none twice.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
use spillway_tests::agent::{Agent, Place, deliveries};
use spillway_tests::http::Client;
use spillway_tests::receiver::Receiver;
use spillway_tests::{Random, output};

use crate::fixtures;

const NAMES: [&str; 3] = ["one", "two", "three"];
const BATCH: u64 = 50;
const EDITS: u64 = 40;

/// The backends, and the pipeline whose route has `members`, best first.
fn manifests(receivers: &[Receiver], members: &[usize], failback: &str, serial: u64) -> String {
    let mut text = format!("# {serial}\n");
    for (name, receiver) in NAMES.iter().zip(receivers) {
        let (url, more) = (&receiver.url, "batch: {maxEvents: 50}, retry: {initialMilliseconds: 20, maxSeconds: 1}");
        writeln!(
            text,
            "apiVersion: spillway.dev/v1alpha1\nkind: Backend\nmetadata: {{name: {name}}}\nspec: {{type: HTTP, http: {{url: \
             \"{url}\"}}, delivery: {{{more}}}}}\n---"
        )
        .unwrap();
    }
    let refs: Vec<String> = members
        .iter()
        .enumerate()
        .map(|(priority, member)| format!("{{name: {}, priority: {priority}}}", NAMES[*member]))
        .collect();
    text + &format!(
        "apiVersion: spillway.dev/v1alpha1\nkind: MonitoringPipeline\nmetadata: {{name: jobs}}\nspec:\n  drainSeconds: \
         3600\n  inputs: [{{name: pushed, type: Events}}]\n  routes:\n  - {{name: everything, strategy: FirstHealthy, \
         failback: {failback}, backendRefs: [{}]}}\n",
        refs.join(", ")
    )
}

/// Replaces the manifests at once, as editors and mounts do.
fn replace(place: &Place, text: &str) {
    let draft = place.path("draft");
    fs::write(&draft, text).unwrap();
    fs::rename(&draft, place.path("manifests/all.yaml")).unwrap();
}

/// Some of the three in some order; at least one.
fn members(random: &mut Random) -> Vec<usize> {
    let mut left: Vec<usize> = (0..NAMES.len()).collect();
    let count = 1 + random.below(3);
    (0..count).map(|_| left.remove(random.below(left.len() as u64) as usize)).collect()
}

fn readings(status: &Value) -> u64 {
    status["config"]["reloads"].as_object().map_or(0, |all| all.values().filter_map(Value::as_u64).sum())
}

/// Sends until told to stop; returns how many events were accepted.
fn send(address: &str, over: &AtomicBool) -> u64 {
    let mut client = Client::connect(address).unwrap();
    let mut sent = 0;
    while !over.load(Ordering::Acquire) {
        let answer = client.send("POST", "/v1/events", &[], &fixtures::events(sent, BATCH)).unwrap();
        assert_eq!(answer.status, 202, "{}", answer.json());
        sent += BATCH;
    }
    sent
}

fn edit(place: &Place, agent: &mut Agent, receivers: &[Receiver], failback: &str, seed: u64) -> BTreeSet<Vec<usize>> {
    let mut random = Random(seed);
    let mut seen = BTreeSet::new();
    for serial in 1..=EDITS {
        let before = readings(&agent.status());
        let members = members(&mut random);
        replace(place, &manifests(receivers, &members, failback, serial));
        agent.wait_until("the edit is read", |status| readings(status) > before);
        agent.moment(Duration::from_millis(random.below(60)));
        seen.insert(members);
    }
    seen
}

fn edited_under_load(failback: &str, seed: u64) {
    let receivers: Vec<Receiver> = NAMES.iter().map(|_| Receiver::start()).collect();
    let place = Place::new(&manifests(&receivers, &[0, 1, 2], failback, 0));
    let mut agent = place.start();
    let over = Arc::new(AtomicBool::new(false));
    let load = {
        let (address, over) = (agent.http.clone(), over.clone());
        std::thread::spawn(move || send(&address, &over))
    };
    let versions = edit(&place, &mut agent, &receivers, failback, seed);
    over.store(true, Ordering::Release);
    let sent = load.join().unwrap();
    let status = agent.wait_until("everything is somewhere", |status| {
        let pipeline = &status["pipelines"][0];
        pipeline["acceptedEvents"].as_u64() >= Some(sent) && deliveries(pipeline).all(|one| one["heldEvents"] == 0)
    });
    assert!(deliveries(&status["pipelines"][0]).all(|one| one["imbalanceEvents"] == 0), "{status:#}");
    agent.stop();
    let lines: Vec<Vec<String>> = receivers.iter().map(Receiver::lines).collect();
    let counts: Vec<usize> = lines.iter().map(Vec::len).collect();
    println!("{failback}: {} versions, {sent} events, at the three {counts:?}", versions.len());
    assert!(counts.iter().all(|count| *count > 0), "each has had its turn: {counts:?}");
    let all = fixtures::ids(0, sent);
    match failback {
        // Whoever leads last is given what others took before.
        "Backfill" => {
            for lines in &lines {
                let counts = output::count_by(lines, "id");
                assert!(counts.values().all(|count| *count == 1), "{failback}: twice at one");
            }
            let ids: BTreeSet<String> =
                lines.iter().flat_map(|lines| output::count_by(lines, "id").into_keys()).collect();
            assert_eq!(ids, all.into_iter().collect());
        }
        _ => output::assert_exactly_once(&lines.concat(), "id", &all, &all),
    }
}

#[test]
fn members_of_a_route_are_edited_under_load_and_each_event_is_at_one_of_them() {
    for seed in [11, 12] {
        edited_under_load("Leave", seed);
    }
}

#[test]
fn members_of_a_route_that_fills_back_are_edited_under_load_and_none_has_an_event_twice() {
    edited_under_load("Backfill", 13);
}
