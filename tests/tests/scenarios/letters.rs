//! What a backend refuses is listed with its reason, and sent again once the backend is mended; nothing secret is in it.

use std::fs;
use std::process::{Command, Output};

use serde_json::Value;
use spillway_tests::agent::{Agent, Place, assert_balanced, program};
use spillway_tests::manifests::jobs as jobs_to;
use spillway_tests::output;
use spillway_tests::receiver::{Mode, Receiver};

use crate::fixtures;

const CANARY: &str = "canary-8d1f0c2b7a";

/// Events to an HTTP destination that wants a token.
fn manifests(url: &str) -> String {
    let spec = format!(
        "  type: HTTP
  http: {{url: \"{url}\", auth: {{bearer: {{tokenSecretRef: {{name: api, key: token}}}}}}}}
  delivery: {{timeoutSeconds: 2, retry: {{initialMilliseconds: 20, maxSeconds: 1}}, circuitBreaker: {{openSeconds: 1}}}}"
    );
    jobs_to(&[("api", &spec)])
}

/// Runs a command of the agent's program against the agent that runs.
pub(crate) fn ask(agent: &Agent, arguments: &[&str]) -> Output {
    let mut command = Command::new(program("spillway-agent"));
    command.args(arguments).args(["--admin", &agent.admin]).env_remove("SPILLWAY_ADMIN");
    command.output().unwrap()
}

pub(crate) fn text(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Returns the jobs of the one pipeline.
pub(crate) fn jobs(status: &Value) -> Vec<Value> {
    status["pipelines"][0]["jobs"].as_array().cloned().unwrap_or_default()
}

/// Waits until so many jobs are there and all of them done.
pub(crate) fn wait_for_jobs(agent: &mut Agent, count: usize) -> Value {
    let status = agent.wait_until("the jobs are done", |status| {
        let jobs = jobs(status);
        jobs.len() == count && jobs.iter().all(|job| job["state"] == "done")
    });
    assert_balanced(&status);
    for job in jobs(&status) {
        assert_eq!(job["imbalanceEvents"], 0, "{status:#}");
    }
    status
}

#[test]
fn what_was_refused_is_sent_again_over_a_kill_and_is_there_once() {
    let receiver = Receiver::start();
    receiver.mode(Mode::RejectEvery(100));
    let place = Place::new(&manifests(&receiver.url));
    fs::create_dir(place.path("secrets/api")).unwrap();
    fs::write(place.path("secrets/api/token"), CANARY).unwrap();
    let mut agent = place.start();
    for batch in 0..4 {
        fixtures::post(&agent.http, batch * 500, 500);
    }
    let status = agent.wait_until_delivered(2000);
    assert_eq!(status["pipelines"][0]["deadLetters"]["heldEvents"], 20, "{status:#}");

    let listed: Value = serde_json::from_str(&text(&ask(&agent, &["dead-letters", "list", "-o", "json"]))).unwrap();
    let group = &listed[0]["groups"][0];
    assert_eq!((listed.as_array().unwrap().len(), listed[0]["groups"].as_array().unwrap().len()), (1, 1), "{listed:#}");
    assert_eq!((&group["count"], &group["backend"]), (&20.into(), &"api".into()));
    assert!(group["reason"].as_str().unwrap().starts_with("HTTP 400: cannot take #"), "{listed:#}");
    let human = text(&ask(&agent, &["dead-letters", "list"]));
    let shown = text(&ask(&agent, &["dead-letters", "show", group["example"].as_str().unwrap()]));
    let exported = text(&ask(&agent, &["dead-letters", "export"]));
    assert_eq!(output::lines(exported.as_bytes()).len(), 20);
    let data_dir = place.data_dir();
    let offline = ["dead-letters", "export", "--data-dir", data_dir.to_str().unwrap()];
    assert_eq!(text(&ask(&agent, &offline)), exported);
    for text in [&human, &shown, &exported] {
        assert!(text.contains("cannot take") && !text.contains(CANARY), "{text}");
    }
    for file in output::files(&place.data_dir()) {
        let bytes = fs::read(&file).unwrap();
        assert!(!bytes.windows(CANARY.len()).any(|bytes| bytes == CANARY.as_bytes()), "{}", file.display());
    }
    let unselected = ask(&agent, &["dead-letters", "redrive"]);
    assert_eq!(unselected.status.code(), Some(2), "{unselected:?}");

    // Letters and cursors outlive the process. Ended well, so that no cursor lags behind a letter when it is killed next.
    agent.stop();
    let agent = place.start();
    // Mended; the first batch of the redrive is taken, its answer is lost, and the agent dies.
    receiver.mode(Mode::TakeAndCut);
    text(&ask(&agent, &["dead-letters", "redrive", "--all"]));
    receiver.wait_for_lines(1981);
    agent.kill();
    receiver.mode(Mode::Take);
    let mut agent = place.start();
    let status = wait_for_jobs(&mut agent, 1);
    let letters = &status["pipelines"][0]["deadLetters"];
    assert_eq!((&letters["heldEvents"], &letters["redrivenEvents"]), (&0.into(), &20.into()), "{status:#}");
    assert_eq!(letters["imbalanceEvents"], 0, "{status:#}");
    assert_eq!(text(&ask(&agent, &["dead-letters", "list"])), "no dead letters\n");
    let listed = text(&ask(&agent, &["jobs", "list"]));
    assert!(listed.contains("redrive") && listed.contains("20 of 20"), "{listed}");
    agent.stop();
    let all = fixtures::ids(0, 2000);
    output::assert_exactly_once(&receiver.lines(), "id", &all, &all);
}
