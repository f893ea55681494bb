//! A route whose first healthy backend gets the events: the first is down for a while and comes back, and the agent is
//! killed in the midst of it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use serde_json::Value;
use spillway_tests::agent::{Agent, Place, deliveries};
use spillway_tests::manifests::first_healthy;
use spillway_tests::receiver::{Mode, Receiver};
use spillway_tests::scripted::{self, Request};
use spillway_tests::{Random, output};

use crate::fixtures;

const BATCH: u64 = 50;
const CYCLES: u64 = 3;

/// The second one: takes everything, each key once, and notes when requests came.
#[derive(Default)]
struct Second {
    keys: BTreeSet<String>,
    lines: Vec<String>,
    came: Vec<i128>,
}

impl Second {
    fn take(&mut self, request: &Request) {
        self.came.push(now());
        if self.keys.insert(request.header("idempotency-key").to_owned()) {
            self.lines.extend(String::from_utf8_lossy(&request.body).lines().map(str::to_owned));
        }
    }
}

/// Unix time in nanoseconds, as the agent tells it.
fn now() -> i128 {
    UNIX_EPOCH.elapsed().map_or(0, |since| since.as_nanos() as i128)
}

fn manifests(failback: &str, first: &str, second: &str) -> String {
    let of = |url: &str| {
        format!(
            "  type: HTTP
  http: {{url: \"{url}\"}}
  delivery:
    batch: {{maxEvents: {BATCH}}}
    timeoutSeconds: 1
    retry: {{initialMilliseconds: 20, maxSeconds: 1}}
    circuitBreaker: {{openSeconds: 2}}"
        )
    };
    first_healthy(failback, &[("first", &of(first)), ("second", &of(second))])
}

fn active(status: &Value) -> &str {
    status["pipelines"][0]["routes"][0]["active"].as_str().unwrap_or_default()
}

/// The first is down and comes back, over and over; returns how many events came twice.
fn down_and_back(failback: &str, down: &dyn Fn() -> Mode, seed: u64) -> usize {
    let mut random = Random(seed);
    let first = Receiver::start();
    let second = Arc::<Mutex<Second>>::default();
    let url = scripted::start({
        let second = second.clone();
        move |request| {
            second.lock().unwrap().take(request);
            Some((200, String::new()))
        }
    });
    let place = Place::new(&manifests(failback, &first.url, &url));
    let mut sent = 0;
    let mut post = |agent: &Agent| {
        fixtures::post(&agent.http, sent, BATCH);
        sent += BATCH;
        sent
    };
    let (five, mut all) = (0..5, 0);
    for cycle in 0..CYCLES {
        let mut agent = place.start();
        five.clone().for_each(|_| all = post(&agent));
        while active(&agent.status()) != "first" {
            post(&agent);
            agent.moment(Duration::from_millis(50));
        }
        first.mode(down());
        let before = second.lock().unwrap().came.len();
        five.clone().for_each(|_| all = post(&agent));
        let status = agent.wait_until("the second has it", |status| {
            active(status) == "second" && second.lock().unwrap().came.len() > before
        });
        let breaker = &deliveries(&status["pipelines"][0]).find(|one| one["backend"] == "first").unwrap()["breaker"];
        let came = second.lock().unwrap().came[before];
        let opened = i128::from(breaker["since"].as_i64().unwrap());
        let after = Duration::from_nanos((came - opened).max(0).try_into().unwrap());
        println!(
            "{failback}, cycle {cycle}: first event at the second {after:?} after the breaker {}",
            breaker["state"]
        );
        assert!(after < Duration::from_secs(10));
        // Killed while the second has batches under way, and again while the first comes back.
        post(&agent);
        agent.moment(Duration::from_millis(random.below(60)));
        agent.kill();
        let mut agent = place.start();
        five.clone().for_each(|_| all = post(&agent));
        agent.wait_until("the second has it again", |status| active(status) == "second");
        first.mode(Mode::Take);
        agent.moment(Duration::from_millis(random.below(400)));
        post(&agent);
        agent.kill();
    }
    let mut agent = place.start();
    all = all.max(post(&agent));
    let status = agent.wait_until_delivered(all);
    println!("{}", status["pipelines"][0]["routes"][0]);
    agent.stop();
    let (first, second) = (first.lines(), second.lock().unwrap().lines.clone());
    let both = [first.clone(), second.clone()].concat();
    let ids: BTreeSet<String> = both.iter().map(|line| id_of(line)).collect();
    assert_eq!(ids, fixtures::ids(0, all).into_iter().collect());
    if failback == "Backfill" {
        let wanted = fixtures::ids(0, all);
        output::assert_exactly_once(&first, "id", &wanted, &wanted);
    }
    println!("{failback}: {all} events, {} at the first, {} at the second", first.len(), second.len());
    both.len() - ids.len()
}

fn id_of(line: &str) -> String {
    serde_json::from_str::<Value>(line).unwrap()["id"].as_str().unwrap().to_owned()
}

#[test]
fn the_first_gets_every_event_once_when_it_is_filled_back() {
    down_and_back("Backfill", &|| Mode::TakeAndCut, 3);
}

#[test]
fn what_the_second_got_stays_there_and_little_comes_twice() {
    let refuses = || Mode::Refuse(503);
    let cuts = || Mode::TakeAndCut;
    for (down, seed) in [(&refuses as &dyn Fn() -> Mode, 5), (&cuts, 7)] {
        let twice = down_and_back("Leave", down, seed);
        // What the first has under way when it goes down, once per start and cycle, and a probe.
        let bound = 2 * CYCLES * 5 * BATCH;
        println!("{twice} events came twice, at most {bound}");
        assert!(twice as u64 <= bound);
    }
}
