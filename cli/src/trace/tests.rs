//! Each broken step, over recorded objects: what is named first, and what is said to do about it.

use std::collections::BTreeMap;

use k8s_openapi::api::coordination::v1::Lease;
use serde_json::{Value, json};

use super::*;
use crate::objects::{Object, recorded};
use spillway_crds::kinds::Kind;
use spillway_crds::nodes;

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

pub(super) fn taking() -> Value {
    pipeline(&json!({"matchLabels": {"app": "etcher"}}))
}

fn of(pipeline: Value) -> Object {
    recorded(Kind::MonitoringPipeline, pipeline)
}

/// A cluster in which the lines of the pod reach their backend.
pub(super) fn well() -> Facts {
    Facts {
        namespace: "fab12".to_owned(),
        name: "etcher-0".to_owned(),
        system_namespace: "spillway-system".to_owned(),
        now: "2026-01-01T10:00:03Z".parse().unwrap(),
        pod: there(running()),
        node: there(ready("node-1", "True")),
        agents: there(json!([ready("agent-x", "True")])),
        lease: lease("controller-a", "2026-01-01T10:00:00.000000Z"),
        labels: Found::There(BTreeMap::from([("tier".to_owned(), "prod".to_owned())])),
        pipelines: vec![of(taking())],
        followed: None,
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

fn lease(holder: &str, renewed: &str) -> Found<Lease> {
    there(
        json!({"metadata": {"name": "spillway-controller"}, "spec": {"holderIdentity": holder, "renewTime": renewed}}),
    )
}

fn of_step<'a>(steps: &'a [Step], name: &str) -> Vec<(State, &'a str)> {
    steps.iter().filter(|step| step.step == name).map(|step| (step.state, step.found.as_str())).collect()
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
    let expected = [
        "pod",
        "node",
        "agent",
        "selection",
        "controller",
        "Accepted",
        "ResolvedRefs",
        "Programmed",
        "backend",
        "DataFlowing",
    ];
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
fn a_controller_that_does_not_lead_is_named_and_one_that_is_not_seen_is_unknown() {
    let with = |lease: Found<Lease>| Facts { lease, ..well() };
    let old = with(lease("controller-a", "2026-01-01T09:58:00.000000Z"));
    let found = "no controller leads: the Lease spillway-system/spillway-controller was last renewed at 2026-01-01T09:58:00Z, \
                 123 seconds ago";
    assert_broken(
        &old,
        "controller",
        found,
        "kubectl get pods -n spillway-system -l app.kubernetes.io/component=controller",
    );
    assert_broken(&with(there(json!({"metadata": {}}))), "controller", "never renewed", "kubectl get pods");
    assert_broken(
        &with(Found::Absent),
        "controller",
        "no controller has led yet: there is no Lease",
        "--system-namespace",
    );
    let is = |lease: Found<Lease>| {
        let steps = walk(&with(lease));
        assert!(first_broken(&steps).is_none(), "{steps:#?}");
        let told = of_step(&steps, "controller");
        (told[0].0, told[0].1.to_owned())
    };
    assert_eq!(is(lease("controller-a", "2026-01-01T09:59:30.000000Z")), (State::Ok, "controller-a leads".to_owned()));
    // A clock that goes ahead of the one here.
    assert_eq!(is(lease("controller-a", "2026-01-01T11:00:00.000000Z")).0, State::Ok);
    assert_eq!(is(lease("", "2026-01-01T10:00:00.000000Z")).0, State::Unknown);
    let forbidden = "leases is forbidden";
    assert_eq!(is(Found::Unknown(forbidden.to_owned())), (State::Unknown, forbidden.to_owned()));
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
    // The annotation counts before the label, as it does for agents.
    let mut both = running();
    both["metadata"]["annotations"] = json!({"spillway.dev/logs": "true"});
    both["metadata"]["labels"]["spillway.dev/logs"] = json!("false");
    assert!(first_broken(&walk(&Facts { pod: there(both), ..well() })).is_none());
}

#[test]
fn that_no_pipeline_of_the_namespace_takes_the_logs_is_told_where_those_of_the_cluster_are_not_seen() {
    let other = || vec![of(pipeline(&json!({"matchLabels": {"app": "web"}})))];
    let unseen = |kinds: &[Kind]| kinds.iter().map(|kind| (*kind, format!("{} is forbidden", kind.plural()))).collect();
    let of_cluster = [Kind::ClusterBackend, Kind::ClusterMonitoringPipeline];
    let facts = Facts { pipelines: other(), unseen: unseen(&of_cluster), ..well() };
    let found = "no pipeline of namespace fab12 takes its logs; those of the cluster could not be looked at";
    assert_broken(&facts, "selection", found, "a MonitoringPipeline in namespace fab12");
    let expected = (State::Unknown, "clustermonitoringpipelines is forbidden");
    assert_eq!(of_step(&walk(&facts), "selection")[0], expected);
    // Destinations have no part in the selection.
    let facts = Facts { pipelines: other(), unseen: unseen(&[Kind::Backend, Kind::ClusterBackend]), ..well() };
    assert_broken(&facts, "selection", "no pipeline takes its logs", "");
    assert!(walk(&facts).iter().all(|step| step.state != State::Unknown));
    let facts = Facts { pipelines: Vec::new(), unseen: unseen(&[Kind::MonitoringPipeline]), ..well() };
    assert!(first_broken(&walk(&facts)).is_none());
    let facts = Facts { pipelines: other(), followed: Some("jobs".to_owned()), ..well() };
    assert_broken(&facts, "selection", "pipeline jobs does not take its logs", "give it an input");
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
    let flowing = with(&said(4, "False", "Other", "in words"));
    assert_broken(&flowing, "DataFlowing", "Other: in words", "kubectl describe monitoringpipeline jobs -n fab12");
}

/// Returns what is told where `Programmed` has that message.
fn programmed(status: &str, reason: &str, message: &str) -> Vec<Step> {
    let mut pipeline = taking();
    let condition = &mut pipeline["status"]["conditions"][3];
    for (member, value) in [("status", status), ("reason", reason), ("message", message)] {
        condition[member] = json!(value);
    }
    walk(&Facts { pipelines: vec![of(pipeline)], ..well() })
}

const OTHERS: [&str; 6] = ["node-11", "node-2", "node-3", "node-4", "node-5", "node-6"];

#[test]
fn what_is_said_of_other_nodes_is_not_broken_for_this_one() {
    let run = |waiting: &[&str], absent: &[&str]| nodes::run(3, 3 + waiting.len(), waiting, absent);
    let refused = |names: &[&str]| nodes::refused(names, 9, false, &[]) + "full";
    let many_and_own = [&OTHERS[..], &["node-1"]].concat();
    for (status, reason, message, expected) in [
        ("False", "Waiting", run(&["node-1"], &[]), State::Broken),
        ("False", "Waiting", run(&OTHERS[..5], &[]), State::Note),
        ("False", "Waiting", run(&many_and_own, &[]), State::Unknown),
        ("False", "Refused", refused(&["node-2", "node-1"]), State::Broken),
        ("False", "Refused", refused(&OTHERS[..5]), State::Note),
        ("False", "Refused", refused(&OTHERS), State::Unknown),
        ("False", "Refused", "in other words".to_owned(), State::Unknown),
        ("Unknown", "AgentsAbsent", nodes::unheard(&["node-1"]), State::Broken),
        ("Unknown", "AgentsAbsent", nodes::unheard(&OTHERS[..1]), State::Unknown),
        ("Unknown", "Pending", "agents are about to be heard".to_owned(), State::Unknown),
        ("False", "NotServed", "no version of it can be run".to_owned(), State::Broken),
        ("True", "Programmed", run(&[], &[]), State::Ok),
    ] {
        let steps = programmed(status, reason, &message);
        let told = of_step(&steps, "Programmed");
        assert_eq!(told.iter().map(|(state, _)| *state).collect::<Vec<_>>(), [expected], "{steps:#?}");
        assert!(told[0].1.starts_with(&format!("MonitoringPipeline fab12/jobs: {reason}: {message}")), "{steps:#?}");
        assert_eq!(first_broken(&steps).is_some(), expected == State::Broken, "{steps:#?}");
        assert_eq!(of_step(&steps, "heard"), [], "{steps:#?}");
    }
}

#[test]
fn an_agent_that_is_not_heard_is_this_ones_or_anothers_or_that_is_not_said() {
    let mut own_last = OTHERS.to_vec();
    own_last.push("node-1");
    for (absent, expected) in [
        (&["node-0", "node-1"][..], Some(State::Broken)),
        (&OTHERS[..5], None),
        (&OTHERS[..], Some(State::Unknown)),
        (&own_last[..], Some(State::Unknown)),
    ] {
        let running = programmed("True", "Programmed", &nodes::run(1, 1, &[], absent));
        let waiting = programmed("False", "Waiting", &nodes::run(1, 2, &["node-9"], absent));
        for steps in [running, waiting] {
            let told: Vec<_> = of_step(&steps, "heard").into_iter().map(|(state, _)| state).collect();
            assert_eq!(told, expected.into_iter().collect::<Vec<_>>(), "{steps:#?}");
            assert_eq!(first_broken(&steps).is_some(), expected == Some(State::Broken), "{steps:#?}");
        }
    }
    let steps = programmed("True", "Programmed", &nodes::run(1, 1, &[], &["node-1"]));
    let broken = first_broken(&steps).unwrap();
    assert!(broken.found.contains("the agent of node-1") && broken.todo.as_deref().unwrap().contains("kubectl logs"));
}

#[test]
fn a_backend_that_agents_may_not_connect_to_is_told_with_who_allows_it() {
    let message = "search: forbidden since 2026-01-01T10:04:12Z on 2 agents: 127.0.0.1 is the machine's own";
    let mut pipeline = taking();
    pipeline["status"]["backends"][0]["state"] = json!("Unreachable");
    let backend = json!({"metadata": {"name": "search", "namespace": "fab12"}, "spec": {}, "status": {"conditions": [{"type": "Reachable",
            "status": "False", "reason": "BackendForbidden", "message": message, "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
    let of_backend =
        Facts { pipelines: vec![of(pipeline.clone())], backends: vec![recorded(Kind::Backend, backend)], ..well() };
    // The destination is another's, and may not be looked at.
    let flowing = &mut pipeline["status"]["conditions"][4];
    for (member, value) in [("status", "False"), ("reason", "BackendForbidden"), ("message", message)] {
        flowing[member] = json!(value);
    }
    let of_pipeline = Facts { pipelines: vec![of(pipeline.clone())], backends: Vec::new(), ..well() };
    let found = "route all to Backend search: agents may not connect to it";
    for facts in [&of_backend, &of_pipeline] {
        assert_broken(facts, "backend", found, "ask who looks after the cluster to allow it");
        assert!(first_broken(&walk(facts)).unwrap().found.ends_with("127.0.0.1 is the machine's own"));
    }
    assert_eq!(of_step(&walk(&of_pipeline), "DataFlowing"), []);
    // Where no state of a backend tells it, the condition does.
    pipeline["status"]["backends"] = json!([]);
    let untold = Facts { pipelines: vec![of(pipeline)], ..well() };
    assert_broken(
        &untold,
        "DataFlowing",
        "BackendForbidden: search: forbidden",
        "ask who looks after the cluster to allow it",
    );
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
