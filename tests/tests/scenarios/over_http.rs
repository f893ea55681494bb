//! `ManagedAPI` and `Webhook` over hand-made services that answer as real ones rarely do, with the agent killed meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use aws_lc_rs::hmac;
use serde_json::Value;
use spillway_tests::agent::Place;
use spillway_tests::manifests::jobs;
use spillway_tests::scripted::{self, Reply, Request};
use spillway_tests::{Random, output};

use crate::fixtures;

/// A pipeline that sends everything to one backend of these settings.
fn manifests(settings: &str) -> String {
    let spec = format!(
        "{settings}
  metadata: None
  delivery: {{timeoutSeconds: 2, retry: {{initialMilliseconds: 10, maxSeconds: 1}}}}"
    );
    jobs(&[("service", &spec)])
}

fn write_secret(place: &Place, value: &str) {
    std::fs::create_dir_all(place.path("secrets/service")).unwrap();
    let (draft, path) = (place.path("secrets/service/draft"), place.path("secrets/service/key"));
    std::fs::write(&draft, value).unwrap();
    std::fs::rename(draft, path).unwrap();
}

/// Kills the agent after each of ten rounds of events, then lets it finish; returns how many were sent.
fn killed_ten_times(place: &Place, per_round: u64, mut between: impl FnMut(u64)) -> u64 {
    let mut random = Random(5);
    let mut sent = 0;
    for round in 0..10 {
        let mut agent = place.start();
        for _ in 0..3 {
            fixtures::post(&agent.http, sent, per_round);
            sent += per_round;
        }
        agent.moment(std::time::Duration::from_millis(20 + random.below(200)));
        between(round);
        agent.kill();
    }
    sent
}

/// A service that honours keys, and refuses a third of the events it sees first for now, and some for good.
#[derive(Default)]
struct Service {
    kept: Vec<String>,
    put_off: BTreeSet<String>,
    /// What each key was answered, and for which body.
    answers: BTreeMap<String, (Vec<u8>, (u16, String))>,
    requests: u64,
    partial: u64,
}

impl Service {
    fn answer(&mut self, request: &Request) -> Reply {
        if request.header("authorization") != "Bearer open sesame" {
            return Some((401, String::new()));
        }
        if request.line.starts_with("GET /health ") {
            return Some((200, String::new()));
        }
        self.requests += 1;
        if self.requests.is_multiple_of(11) {
            return Some((429, String::new()));
        }
        let key = request.header("idempotency-key").to_owned();
        let answer = match self.answers.get(&key) {
            Some((body, answer)) => {
                assert!(*body == request.body, "key {key} came with two bodies");
                answer.clone()
            }
            None => {
                let answer = self.take(request);
                self.answers.insert(key, (request.body.clone(), answer.clone()));
                answer
            }
        };
        // Every seventh answer is lost after the service has taken what it took.
        (!self.requests.is_multiple_of(7)).then_some(answer)
    }

    fn take(&mut self, request: &Request) -> (u16, String) {
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        let alone = request.line.starts_with("POST /v1/ingest/events ");
        assert!(alone || request.line.starts_with("POST /v1/ingest/events:batch "), "{}", request.line);
        let events = if alone { vec![body] } else { body.as_array().unwrap().clone() };
        let mut errors = Vec::new();
        for (index, event) in events.iter().enumerate() {
            let id = event["id"].as_str().unwrap().to_owned();
            if id.ends_with("13") {
                errors.push(serde_json::json!({"index": index, "code": "invalid", "message": "no such job"}));
            } else if id.len() % 3 == id.bytes().map(usize::from).sum::<usize>() % 3 && self.put_off.insert(id.clone())
            {
                errors.push(serde_json::json!({"index": index, "code": 429}));
            } else {
                self.kept.push(id);
            }
        }
        self.partial += u64::from(!errors.is_empty() && errors.len() < events.len());
        let accepted = events.len() - errors.len();
        let status = if errors.is_empty() { 202 } else { 207 };
        (status, serde_json::json!({"accepted": accepted, "refused": errors.len(), "errors": errors}).to_string())
    }
}

#[test]
fn refusals_of_single_events_lose_and_double_nothing_over_ten_kills() {
    let service: Arc<Mutex<Service>> = Arc::default();
    let url = scripted::start({
        let service = service.clone();
        move |request| service.lock().unwrap().answer(request)
    });
    let settings = format!(
        "  type: ManagedAPI
  managedAPI: {{url: \"{url}\", tokenSecretRef: {{name: service, key: key}}}}"
    );
    let place = Place::new(&manifests(&settings));
    write_secret(&place, "open sesame\n");
    let sent = killed_ten_times(&place, 500, |_| {});
    let mut agent = place.start();
    let status = agent.wait_until_delivered(sent);
    agent.stop();
    let service = service.lock().unwrap();
    let (refused, taken): (Vec<_>, Vec<_>) = fixtures::ids(0, sent).into_iter().partition(|id| id.ends_with("13"));
    let kept: Vec<String> = service.kept.iter().map(|id| format!("{{\"id\":\"{id}\"}}")).collect();
    output::assert_exactly_once(&kept, "id", &taken, &taken);
    let delivery = &status["pipelines"][0]["deliveries"][0];
    assert_eq!(delivery["rejectedEvents"], refused.len(), "{delivery:#}");
    assert_eq!(delivery["deliveredEvents"], taken.len(), "{delivery:#}");
    assert!(service.partial > 10 && service.put_off.len() > 1000, "{} partial answers", service.partial);
    println!("{sent} events, {} requests, {} answers in part", service.requests, service.partial);
}

/// A receiver that takes what is signed with the key of now, and knows a repeat by its key.
struct Hook {
    key: String,
    kept: BTreeMap<String, String>,
    refused: u64,
}

impl Hook {
    fn answer(&mut self, request: &Request) -> (u16, String) {
        let time = request.header("x-spillway-timestamp");
        let hex = request.header("x-spillway-signature").strip_prefix("sha256=").unwrap_or_default();
        let tag: Vec<u8> =
            (0..hex.len() / 2).filter_map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).ok()).collect();
        let signed = [time.as_bytes(), b".", &request.body].concat();
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.key.as_bytes());
        if hmac::verify(&key, &signed, &tag).is_err() {
            self.refused += 1;
            return (401, String::new());
        }
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        let id = body["text"].as_str().and_then(|text| text.strip_prefix("job ")).unwrap().to_owned();
        let before = self.kept.insert(request.header("idempotency-key").to_owned(), id.clone());
        assert!(before.is_none_or(|before| before == id), "a key came with two events");
        (200, String::new())
    }
}

#[test]
fn signed_requests_survive_kills_and_a_rotated_key() {
    let hook = Arc::new(Mutex::new(Hook { key: "key-0".into(), kept: BTreeMap::new(), refused: 0 }));
    let url = scripted::start({
        let hook = hook.clone();
        move |request| Some(hook.lock().unwrap().answer(request))
    });
    let settings = format!(
        "  type: Webhook
  webhook:
    url: \"{url}/hook\"
    body: '{{\"text\": \"job {{event.id}}\", \"at\": {{received}}}}'
    signature: {{secretRef: {{name: service, key: key}}}}"
    );
    let place = Place::new(&manifests(&settings));
    write_secret(&place, "key-0");
    let sent = killed_ten_times(&place, 40, |round| {
        // The receiver's key changes first: until the agent has the new one, it is refused.
        let key = format!("key-{round}");
        hook.lock().unwrap().key.clone_from(&key);
        if round % 2 == 1 {
            write_secret(&place, &key);
        }
    });
    write_secret(&place, "key-9");
    let mut agent = place.start();
    agent.wait_until_delivered(sent);
    agent.stop();
    let hook = hook.lock().unwrap();
    let kept: Vec<String> = hook.kept.values().map(|id| format!("{{\"id\":\"{id}\"}}")).collect();
    let all = fixtures::ids(0, sent);
    output::assert_exactly_once(&kept, "id", &all, &all);
    assert!(hook.refused > 0, "a wrong key is refused");
    println!("{sent} events, {} refused for their signature meanwhile", hook.refused);
}
