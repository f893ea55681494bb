//! Configuration that changes all the time under load, on a real API server.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use reqwest::Method;
use serde_json::json;
use spillway_tests::fleet::api::Api;
use spillway_tests::receiver::Receiver;
use tokio::time::Instant;

use super::world::{World, pipeline_into};

/// How many edits there are, each with its lines; `SPILLWAY_CHURN_EDITS` sets another number for a figure.
const EDITS: usize = 100;

/// How many lines come between two edits.
const LINES_EACH: usize = 2000;

/// Most connections of a receiver while edits go on: more batches are not under way at a time.
const CONNECTIONS_MAX: u64 = 8;

fn edits() -> usize {
    std::env::var("SPILLWAY_CHURN_EDITS").ok().and_then(|text| text.parse().ok()).unwrap_or(EDITS)
}

/// Returns the lines of an edit, as a pod writes them.
fn lines(edit: usize) -> String {
    let mut text = String::new();
    for line in edit * LINES_EACH..(edit + 1) * LINES_EACH {
        writeln!(text, "2026-11-28T10:00:00.{line:09}Z stdout F line={line}.").unwrap();
    }
    text
}

fn number(line: &str) -> usize {
    let (_, rest) = line.split_once("line=").expect("a line of ours");
    rest.split_once('.').unwrap().0.parse().unwrap()
}

#[test]
fn a_pipeline_edited_all_the_time_under_load_loses_and_repeats_no_line() {
    let Some(world) = World::start("a_pipeline_edited_all_the_time_under_load_loses_and_repeats_no_line") else {
        return;
    };
    let (operator, agent) = world.run(&world.replica("first"));
    let receiver = Receiver::start();
    let lake = json!({"apiVersion": "spillway.dev/v1alpha1", "kind": "ClusterBackend", "metadata": {"name": "lake"},
        "spec": {"type": "HTTP", "allowedNamespaces": {"selector": {}}, "http": {"url": receiver.url}}});
    world.apply(&lake.to_string());
    world.apply(&pipeline_into("", "{kind: ClusterBackend, name: lake}"));
    world.wait_for("Ready", "True");
    let etcher = world.uid("etcher", "fab12");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let api = Api::of(&world.api).unwrap();
    let path = "/apis/spillway.dev/v1alpha1/namespaces/fab12/monitoringpipelines/jobs";

    let (begun, edits) = (Instant::now(), edits());
    for edit in 0..edits {
        world.append("etcher", "fab12", &etcher, &lines(edit));
        let route = json!({"name": "all", "match": format!("origin.pod != \"p{edit}\""),
            "backendRefs": [{"kind": "ClusterBackend", "name": "lake"}]});
        runtime.block_on(api.send(Method::PATCH, path, &json!({"spec": {"routes": [route]}}))).unwrap();
    }
    let edited = begun.elapsed().as_secs_f64();
    world.wait_for("Programmed", "True");
    let written = edits * LINES_EACH;
    receiver.wait_for_lines(written);
    let all = begun.elapsed().as_secs_f64();
    println!(
        "{edits} edits and {written} lines in {edited:.1} s ({:.1} edits and {:.0} lines a second), all there after {all:.1} s; \
         {} connections",
        edits as f64 / edited,
        written as f64 / edited,
        receiver.connections()
    );
    let came = receiver.lines();
    let unlike: BTreeSet<usize> = came.iter().map(|line| number(line)).collect();
    assert_eq!((came.len(), unlike.len(), unlike.last().copied()), (written, written, written.checked_sub(1)));
    assert!(receiver.connections() <= CONNECTIONS_MAX, "{} connections", receiver.connections());
    agent.stop();
    assert_eq!(receiver.lines().len(), written, "nothing came again at the end");
    operator.stop();
}
