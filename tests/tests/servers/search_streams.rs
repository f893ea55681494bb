//! Data streams of real servers that are not there, or not there yet: no plain index is made in place of one, what is missing
//! is said, and events go on when it is there.

use std::cell::Cell;

use serde_json::Value;
use spillway_tests::agent::{Agent, Place};
use spillway_tests::proxy::CuttingProxy;
use spillway_tests::servers::search::{SearchServer, runnable};
use spillway_tests::servers::{Package, skip};

use crate::search::{To, assert_each_once, delivery, manifests, newest, post};

#[test]
fn every_version_makes_no_plain_index_where_a_data_stream_is_wanted() {
    std::thread::scope(|versions| {
        for package in runnable() {
            versions.spawn(move || no_plain_index(package));
        }
    });
}

/// What a server has under a name: indices, data streams.
fn there(server: &SearchServer, name: &str) -> (usize, usize) {
    let answer = server.ask("GET", &format!("/_resolve/index/{name}"), "").unwrap();
    let (status, found) = (answer.status, answer.json());
    assert!(matches!(status, 200 | 404), "{status}: {found}");
    let count = |kind: &str| found[kind].as_array().map_or(0, Vec::len);
    (count("indices"), count("data_streams"))
}

fn make_template(server: &SearchServer, name: &str, pattern: &str, is_stream: bool, priority: u32) {
    let stream = if is_stream { r#""data_stream": {},"# } else { "" };
    let mapping = r#"{"mappings": {"properties": {"_spillway": {"properties": {"id": {"type": "keyword"}}}}}}"#;
    let body =
        format!(r#"{{"index_patterns": ["{pattern}"], {stream} "priority": {priority}, "template": {mapping}}}"#);
    server.must("PUT", &format!("/_index_template/{name}"), &body);
}

fn to_stream(server: &SearchServer, index: &str, create_template: bool) -> Place {
    let more = format!(", dataStream: true, createTemplate: {create_template}");
    Place::new(&manifests(&To { url: &server.url(), index, more: &more }))
}

/// Waits until the destination says so.
fn wait_for_error(agent: &mut Agent, text: &str) -> Value {
    agent.wait_until(text, |status| delivery(status)["lastError"].as_str().is_some_and(|error| error.contains(text)))
}

fn no_plain_index(package: Package) {
    let server = SearchServer::start(package, false).unwrap();
    let version = server.version();

    // Neither a stream nor a template; the agent is killed meanwhile.
    let place = to_stream(&server, "jobs-alone", false);
    let (mut agent, sent) = (place.start(), Cell::new(0));
    post(&agent, "a", 700, &sent);
    for _ in 0..2 {
        let missing = "no data stream: jobs-alone is not there, and no index template with data_stream matches it";
        let status = wait_for_error(&mut agent, missing);
        assert_eq!(delivery(&status)["heldEvents"], 700, "{version}: {status:#}");
        assert_eq!(there(&server, "jobs-alone"), (0, 0), "{version}");
        agent.kill();
        agent = place.start();
    }
    make_template(&server, "alone", "jobs-alone", true, 300);
    agent.wait_until_delivered(sent.get());
    agent.stop();
    assert_eq!(there(&server, "jobs-alone"), (0, 1), "{version}");
    assert_each_once(&server, "jobs-alone", sent.get());

    // A plain index has the name.
    server.must("PUT", "/jobs-taken", "");
    make_template(&server, "taken", "jobs-taken", true, 300);
    let place = to_stream(&server, "jobs-taken", false);
    let mut agent = place.start();
    post(&agent, "a", 100, &Cell::new(0));
    wait_for_error(&mut agent, "no data stream: jobs-taken is a plain index, or an alias of one");
    server.must("POST", "/jobs-taken/_refresh", "");
    assert_eq!(server.must("GET", "/jobs-taken/_count", "")["count"], 0, "{version}");
    drop(agent);

    // Somebody else's template has the last word.
    make_template(&server, "over", "jobs-over*", false, 400);
    let place = to_stream(&server, "jobs-over", true);
    let (mut agent, sent) = (place.start(), Cell::new(0));
    post(&agent, "a", 100, &sent);
    wait_for_error(&mut agent, "jobs-over is not there, and index template over would make a plain index");
    assert_eq!(there(&server, "jobs-over"), (0, 0), "{version}");
    make_template(&server, "over", "jobs-over*", true, 400);
    agent.wait_until_delivered(sent.get());
    agent.stop();
    assert_eq!(there(&server, "jobs-over"), (0, 1), "{version}");

    // Of several names each is looked at by itself.
    make_template(&server, "kinds", "jobs-kind-good", true, 300);
    let place = to_stream(&server, "jobs-kind-{event.kind}", false);
    let (mut agent, sent) = (place.start(), Cell::new(0));
    post(&agent, "good,bad", 1000, &sent);
    agent.wait_until("the good ones are there", |status| delivery(status)["heldEvents"] == 500);
    assert_eq!((there(&server, "jobs-kind-good"), there(&server, "jobs-kind-bad")), ((0, 1), (0, 0)), "{version}");
    make_template(&server, "kinds", "jobs-kind-*", true, 300);
    agent.wait_until_delivered(sent.get());
    agent.stop();
    assert_eq!(there(&server, "jobs-kind-bad"), (0, 1), "{version}");
    assert_each_once(&server, "jobs-kind-*", sent.get());
    println!("{version}: no plain index");
}

#[test]
fn behind_a_proxy_that_hides_the_product_the_template_is_made_as_it_should_be() {
    let Some(package) = newest("elasticsearch") else {
        return skip("servers::search_streams", "no version of Elasticsearch runs with the Java of this machine");
    };
    let server = SearchServer::start(package, false).unwrap();
    let proxy = CuttingProxy::start(&server.address());
    proxy.hide_product();
    let url = format!("http://{}", proxy.address);
    let place = Place::new(&manifests(&To { url: &url, index: "jobs-hidden", more: "" }));
    let (mut agent, sent) = (place.start(), Cell::new(0));
    post(&agent, "a", 100, &sent);
    agent.wait_until_delivered(sent.get());
    let mapping = server.must("GET", "/jobs-hidden/_mapping", "");
    let origin = &mapping["jobs-hidden"]["mappings"]["properties"]["_spillway"]["properties"]["origin"];
    assert_eq!(origin["properties"]["labels"]["type"], "flattened", "{mapping:#}");
    agent.stop();
    assert_each_once(&server, "jobs-hidden", sent.get());
}
