//! Each broken step, over recorded objects: what is named first, and what is said to do about it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::objects::{Object, recorded};
use spillway_crds::kinds::Kind;

fn pod(spec: &Value, status: &Value) -> Value {
    json!({"metadata": {"name": "etcher-0", "namespace": "fab12", "labels": {"app": "etcher"}}, "spec": spec, "status": status})
}

fn running() -> Value {
    pod(
        &json!({"nodeName": "node-1", "containers": [{"name": "main", "image": "x"}]}),
        &json!({"phase": "Running", "containerStatuses": [{"name": "main", "image": "x", "imageID": "x", "ready": true,
            "restartCount": 0, "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}]}),
    )
}

fn ready(name: &str, status: &str) -> Value {
    json!({"metadata": {"name": name}, "status": {"phase": "Running", "conditions": [
        {"type": "Ready", "status": status, "message": "said by the kubelet"}]}})
}

fn pipeline(selector: &Value) -> Value {
    let conditions = ["Ready", "Accepted", "ResolvedRefs", "Programmed", "DataFlowing"].map(|name| {
        json!({"type": name, "status": "True", "reason": name, "message": "as it should be",
            "lastTransitionTime": "2026-01-01T00:00:00Z"})
    });
    json!({"metadata": {"name": "jobs", "namespace": "fab12", "generation": 3},
        "spec": {"inputs": [{"name": "logs", "type": "ContainerLogs", "containerLogs": {"podSelector": selector}}]},
        "status": {"observedGeneration": 3, "conditions": conditions,
            "backends": [{"route": "all", "kind": "Backend", "name": "search", "state": "Healthy"}]}})
}

fn taking() -> Value {
    pipeline(&json!({"matchLabels": {"app": "etcher"}}))
}

fn of(pipeline: Value) -> Object {
    recorded(Kind::MonitoringPipeline, pipeline)
}

/// A cluster in which the lines of the pod reach their backend.
fn well() -> Facts {
    Facts {
        namespace: "fab12".to_owned(),
        name: "etcher-0".to_owned(),
        system_namespace: "spillway-system".to_owned(),
        pod: there(running()),
        node: there(ready("node-1", "True")),
        agents: there(json!([ready("agent-x", "True")])),
        labels: Found::There(BTreeMap::from([("tier".to_owned(), "prod".to_owned())])),
        pipelines: vec![of(taking())],
        backends: vec![recorded(
            Kind::Backend,
            json!({"metadata": {"name": "search", "namespace": "fab12"}, "spec": {}, "status": {"conditions": [
                {"type": "Reachable", "status": "False", "reason": "BackendUnreachable", "message": "connection refused",
                    "lastTransitionTime": "2026-01-01T00:00:00Z"}]}}),
        )],
        unseen: Vec::new(),
    }
}

fn there<T: serde::de::DeserializeOwned>(recorded: Value) -> Found<T> {
    Found::There(serde_json::from_value(recorded).unwrap())
}

/// Asserts which step is the first that is broken, with words of what was found and of what to do.
#[track_caller]
fn assert_broken(facts: &Facts, step: &str, found: &str, todo: &str) {
    let steps = walk(facts);
    let first = first_broken(&steps).unwrap_or_else(|| panic!("nothing is broken: {steps:#?}"));
    assert_eq!(first.step, step, "{steps:#?}");
    assert!(first.found.contains(found), "{first:?}");
    assert!(first.todo.as_deref().unwrap().contains(todo), "{first:?}");
    assert!(human(facts, &steps).ends_with(&format!("broken: {step}: {}\n", first.found)));
    let report: Value = serde_json::from_str(&json(facts, &steps)).unwrap();
    assert_eq!((&report["broken"]["step"], &report["pod"]), (&json!(step), &json!("fab12/etcher-0")));
}

#[test]
fn nothing_is_broken_where_every_step_holds() {
    let facts = well();
    let steps = walk(&facts);
    assert!(steps.iter().all(|step| step.state == State::Ok), "{steps:#?}");
    let names: Vec<_> = steps.iter().map(|step| step.step).collect();
    let expected =
        ["pod", "node", "agent", "selection", "Accepted", "ResolvedRefs", "Programmed", "backend", "DataFlowing"];
    assert_eq!(names, expected);
    let text = human(&facts, &steps);
    assert!(text.starts_with("ok       pod           fab12/etcher-0 is Running on node-1\n"), "{text}");
    assert!(text.ends_with("nothing broken: lines of fab12/etcher-0 reach their backends\n"), "{text}");
}

#[test]
fn a_pod_that_is_not_there_waits_or_never_started_is_the_first_step() {
    assert_broken(&Facts { pod: Found::Absent, ..well() }, "pod", "is not there", "ten minutes");
    let unscheduled = pod(
        &json!({"containers": []}),
        &json!({"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/2 nodes are available"}]}),
    );
    assert_broken(
        &Facts { pod: there(unscheduled), ..well() },
        "pod",
        "0/2 nodes",
        "kubectl describe pod etcher-0 -n fab12",
    );
    let mut never = running();
    never["status"]["containerStatuses"][0]["state"] = json!({"waiting": {"reason": "ImagePullBackOff"}});
    assert_broken(&Facts { pod: there(never), ..well() }, "pod", "main waits (ImagePullBackOff)", "describe");
    // One that crashes again and again did write.
    let mut crashing = running();
    crashing["status"]["containerStatuses"][0]["state"] = json!({"waiting": {"reason": "CrashLoopBackOff"}});
    crashing["status"]["containerStatuses"][0]["lastState"] = json!({"terminated": {"exitCode": 1}});
    let steps = walk(&Facts { pod: there(crashing), ..well() });
    assert!(first_broken(&steps).is_none() && steps[0].found.contains("CrashLoopBackOff"), "{steps:#?}");
}

#[test]
fn a_node_that_is_not_ready_and_an_agent_that_is_not_there_are_named() {
    assert_broken(
        &Facts { node: there(ready("node-1", "Unknown")), ..well() },
        "node",
        "said by the kubelet",
        "describe node",
    );
    assert_broken(&Facts { node: Found::Absent, ..well() }, "node", "node-1 is not there", "removed");
    assert_broken(&Facts { agents: there(json!([])), ..well() }, "agent", "no agent runs on node-1", "agent.everyNode");
    let mut ill = ready("agent-x", "False");
    ill["status"]["containerStatuses"] = json!([{"name": "agent", "image": "x", "imageID": "x", "ready": false,
        "restartCount": 9, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]);
    assert_broken(
        &Facts { agents: there(json!([ill])), ..well() },
        "agent",
        "CrashLoopBackOff",
        "kubectl logs agent-x",
    );
}

#[test]
fn a_mark_that_keeps_logs_out_is_named_wherever_it_stands() {
    for (place, verb) in [("annotations", "annotate"), ("labels", "label")] {
        let mut marked = running();
        marked["metadata"][place]["spillway.dev/logs"] = json!("false");
        assert_broken(
            &Facts { pod: there(marked), ..well() },
            "mark",
            "spillway.dev/logs=false",
            &format!("kubectl {verb}"),
        );
    }
}

#[test]
fn every_pipeline_that_does_not_take_the_logs_says_why() {
    let mut pushed = taking();
    pushed["spec"]["inputs"] = json!([{"name": "pushed", "type": "Events"}]);
    let mut other_container = taking();
    other_container["spec"]["inputs"][0]["containerLogs"]["containers"] = json!(["sidecar"]);
    let expression = |operator: &str| {
        let values = if operator == "Exists" { json!([]) } else { json!(["web"]) };
        pipeline(&json!({"matchExpressions": [{"key": "app", "operator": operator, "values": values}]}))
    };
    for (pipeline, why) in [
        (
            pipeline(&json!({"matchLabels": {"app": "web"}})),
            "input logs: its podSelector asks for app=web, and there is app=etcher",
        ),
        (pipeline(&json!({"matchLabels": {"tier": "x"}})), "asks for tier=x, and there is no tier"),
        (expression("In"), "asks for app in (web), and there is app=etcher"),
        (pipeline(&json!({"matchLabels": 7})), "its podSelector cannot be read"),
        (pushed, "it has no input of type ContainerLogs"),
        (other_container, "it wants the containers sidecar; the pod has main"),
    ] {
        let facts = Facts { pipelines: vec![of(pipeline)], ..well() };
        assert_broken(&facts, "selection", "no pipeline takes its logs", "input of type ContainerLogs");
        let steps = walk(&facts);
        let told = format!("MonitoringPipeline fab12/jobs does not: {why}");
        assert!(steps.iter().any(|step| step.state == State::Note && step.found.contains(why)), "{told}: {steps:#?}");
    }
    let both = Facts { pipelines: vec![of(expression("NotIn")), of(expression("Exists"))], ..well() };
    assert!(first_broken(&walk(&both)).is_none());
    let mut late = taking();
    late["spec"]["inputs"][0]["containerLogs"]["startAt"] = json!("End");
    let steps = walk(&Facts { pipelines: vec![of(late)], ..well() });
    assert!(steps.iter().any(|step| step.state == State::Note && step.found.contains("startAt: End")), "{steps:#?}");
    let many = (0..30).map(|_| of(pipeline(&json!({"matchLabels": {"app": "web"}})))).collect();
    let steps = walk(&Facts { pipelines: many, ..well() });
    assert!(steps.iter().any(|step| step.found == "and 10 more pipelines do not"), "{steps:#?}");
}

#[test]
fn a_pipeline_of_the_cluster_takes_namespaces_by_their_labels_and_what_is_not_seen_is_unknown() {
    let of_cluster = |selector: Value| {
        let mut pipeline = taking();
        pipeline["metadata"] = json!({"name": "all", "generation": 3});
        pipeline["spec"]["namespaceSelector"] = selector;
        vec![recorded(Kind::ClusterMonitoringPipeline, pipeline)]
    };
    let tier = |value: &str| json!({"matchLabels": {"tier": value}});
    assert!(first_broken(&walk(&Facts { pipelines: of_cluster(tier("prod")), ..well() })).is_none());
    let named = json!({"matchLabels": {"kubernetes.io/metadata.name": "fab12"}});
    let unseen = || Found::Unknown("namespaces is forbidden".to_owned());
    assert!(first_broken(&walk(&Facts { pipelines: of_cluster(named), labels: unseen(), ..well() })).is_none());
    let facts = Facts { pipelines: of_cluster(tier("test")), ..well() };
    assert_broken(&facts, "selection", "no pipeline takes", "");
    let steps = walk(&facts);
    let why = "its namespaceSelector asks for tier=test, and there is tier=prod (namespace fab12)";
    assert!(steps.iter().any(|step| step.found.ends_with(why)), "{steps:#?}");
    // What may not be looked at is neither well nor broken.
    let facts = Facts { pipelines: of_cluster(tier("prod")), labels: unseen(), ..well() };
    let steps = walk(&facts);
    assert!(
        first_broken(&steps).is_none() && human(&facts, &steps).contains("nothing broken in what could be looked at")
    );
}

#[test]
fn what_the_status_of_a_pipeline_says_is_told_with_what_to_do() {
    let with = |change: &dyn Fn(&mut Value)| {
        let mut pipeline = taking();
        change(&mut pipeline);
        Facts { pipelines: vec![of(pipeline)], ..well() }
    };
    let said = |index: usize, status: &str, reason: &str, message: &str| {
        let (status, reason, message) = (status.to_owned(), reason.to_owned(), message.to_owned());
        move |pipeline: &mut Value| {
            let condition = &mut pipeline["status"]["conditions"][index];
            condition["status"] = json!(status);
            condition["reason"] = json!(reason);
            condition["message"] = json!(message);
        }
    };
    let older = with(&|pipeline| pipeline["metadata"]["generation"] = json!(4));
    assert_broken(&older, "controller", "no controller has looked at generation 4", "component=controller");
    let suspended = with(&|pipeline| pipeline["spec"]["suspend"] = json!(true));
    assert_broken(&suspended, "suspend", "is suspended", "kubectl edit monitoringpipeline jobs -n fab12");
    let invalid = with(&said(1, "False", "Invalid", "spec.routes[0].match: unknown"));
    assert_broken(&invalid, "Accepted", "Invalid: spec.routes[0].match", "kubectl spillway validate -n fab12");
    let missing = with(&said(2, "False", "BackendNotFound", "no Backend serch"));
    assert_broken(&missing, "ResolvedRefs", "no Backend serch", "apply the backend");
    let refused = with(&said(3, "False", "Refused", "refused by 1 of 2 agents (node-1): full"));
    assert_broken(&refused, "Programmed", "refused by 1 of 2 agents (node-1)", "component=agent");
    let absent = with(&said(3, "Unknown", "AgentsAbsent", "no agent that is to run it was heard"));
    assert_broken(&absent, "Programmed", "no agent that is to run it was heard", "kubectl logs");
    let unheard =
        with(&said(3, "True", "Programmed", "1 of 1 agent run it; 2 nodes not ready or not heard: node-0, node-1"));
    assert_broken(&unheard, "heard", "the agent of node-1", "kubectl logs");
    let others = with(&said(3, "True", "Programmed", "1 of 1 agent run it; 1 node not ready or not heard: node-11"));
    assert!(first_broken(&walk(&others)).is_none());
    let flowing = with(&said(4, "False", "Other", "in words"));
    assert_broken(&flowing, "DataFlowing", "Other: in words", "kubectl describe monitoringpipeline jobs -n fab12");
}

#[test]
fn a_backend_that_is_not_reached_is_told_with_what_it_last_said() {
    let mut pipeline = taking();
    pipeline["status"]["backends"][0]["state"] = json!("Unreachable");
    pipeline["status"]["backends"][0]["since"] = json!("2026-01-01T10:04:12Z");
    let facts = Facts { pipelines: vec![of(pipeline)], ..well() };
    let found = "route all to Backend search: not reached since 2026-01-01T10:04:12Z: connection refused";
    assert_broken(&facts, "backend", found, "kubectl describe backend search -n fab12");
}
