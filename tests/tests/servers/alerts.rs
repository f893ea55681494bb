//! Alertmanager as the target of a `Webhook`: events become alerts, read back from its own API.

use std::collections::BTreeSet;

use spillway_tests::agent::Place;
use spillway_tests::http::Client;
use spillway_tests::servers::{alertmanager, skip};

const MANIFESTS: &str = r#"
apiVersion: spillway.dev/v1alpha1
kind: Backend
metadata: {name: alerts}
spec:
  type: Webhook
  webhook:
    url: "ALERTS_URL"
    body: >-
      [{"labels": {"alertname": "{event.alert}", "job_id": "{event.id}", "pipeline": "{pipeline}"},
      "annotations": {"summary": "{event.text}", "exit_code": "{event.exit.code}", "event": "{id}"},
      "startsAt": "{event.at}"}]
  delivery: {timeoutSeconds: 5, retry: {initialMilliseconds: 20, maxSeconds: 1}}
---
apiVersion: spillway.dev/v1alpha1
kind: MonitoringPipeline
metadata: {name: jobs}
spec:
  inputs:
  - {name: pushed, type: Events}
  routes:
  - {name: failures, match: event.status == "FAILED", backendRefs: [{name: alerts}]}
"#;

/// What a template must escape.
const TEXT: &str = "said \"no\" \\ grün\n";

#[test]
fn a_failed_job_is_an_alert_in_alertmanager() {
    let package = alertmanager::PACKAGE;
    if let Some(why) = (package.hindrance)(&package) {
        return skip("a_failed_job_is_an_alert_in_alertmanager", &why);
    }
    package.ensure().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let server = alertmanager::Alertmanager::start(folder.path()).unwrap();
    let place = Place::new(&MANIFESTS.replace("ALERTS_URL", &server.alerts_url()));
    let agent = place.start();
    let mut client = Client::connect(&agent.http).unwrap();
    let (mut sent, mut expected) = (0, BTreeSet::new());
    for id in 0..60 {
        // Every third job failed; one of them at a time that Alertmanager does not understand, and refuses for good.
        let status = if id % 3 == 0 { "FAILED" } else { "SUCCEEDED" };
        let at = if id == 30 { "yesterday" } else { "2026-11-23T10:00:00Z" };
        let event = serde_json::json!({
            "id": format!("j{id}"), "status": status, "alert": "JobFailed", "text": TEXT, "exit": {"code": id}, "at": at,
        });
        let answer = client.send("POST", "/v1/events", &[], event.to_string().as_bytes()).unwrap();
        assert_eq!(answer.status, 202);
        sent += 1;
        if status == "FAILED" && id != 30 {
            expected.insert(format!("j{id}"));
        }
    }
    agent.kill();
    let mut agent = place.start();
    let status = agent.wait_until_delivered(sent);
    agent.stop();
    let alerts = server.alerts().unwrap();
    let found: BTreeSet<String> =
        alerts.iter().map(|alert| alert["labels"]["job_id"].as_str().unwrap().to_owned()).collect();
    assert_eq!((alerts.len(), &found), (expected.len(), &expected));
    for alert in &alerts {
        assert_eq!(alert["annotations"]["summary"], TEXT);
        assert_eq!(alert["labels"]["pipeline"], "jobs");
        assert_eq!(format!("j{}", alert["annotations"]["exit_code"].as_str().unwrap()), alert["labels"]["job_id"]);
    }
    let delivery = &status["pipelines"][0]["deliveries"][0];
    assert_eq!((&delivery["deliveredEvents"], &delivery["rejectedEvents"]), (&19.into(), &1.into()), "{delivery:#}");
}
