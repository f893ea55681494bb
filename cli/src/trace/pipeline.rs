//! From a pipeline that takes the logs to its backends: what its status says, and what to do about it.

use spillway_crds::kinds::monitoring_pipeline::BackendRefKind;
use spillway_crds::kinds::status::{BackendHealth, BackendState, ConditionStatus, StatusCondition};

use super::Step;
use super::facts::Facts;
use crate::objects::{Object, condition};
use spillway_crds::kinds::Kind;

/// Returns the steps behind the selection, for one pipeline and the node of the pod.
pub(super) fn steps(facts: &Facts, pipeline: &Object, node: Option<&str>) -> Vec<Step> {
    let (label, status) = (pipeline.label(), pipeline.pipeline());
    let system = &facts.system_namespace;
    if !pipeline.is_seen(status.observed_generation) {
        let found = format!("{label}: no controller has looked at generation {} yet", pipeline.generation);
        let todo =
            format!("`kubectl get pods -n {system} -l app.kubernetes.io/component=controller`: does one run and lead?");
        return vec![Step::broken("controller", found, todo)];
    }
    let mut steps = Vec::new();
    if pipeline.spec["suspend"] == true {
        let todo = format!("set `spec.suspend: false` (`kubectl edit {}`)", pipeline.words());
        steps.push(Step::broken("suspend", format!("{label} is suspended"), todo));
    }
    for name in ["Accepted", "ResolvedRefs", "Programmed"] {
        steps.push(of_condition(facts, pipeline, name, condition(&status.conditions, name)));
    }
    let programmed = condition(&status.conditions, "Programmed");
    steps.extend(programmed.zip(node).and_then(|(programmed, node)| of_node(facts, programmed, node)));
    steps.extend(status.backends.iter().map(|state| of_backend(facts, pipeline, state)));
    let flowing = condition(&status.conditions, "DataFlowing");
    // What a backend is the cause of is told there, and suspension above.
    let is_told = |one: &StatusCondition| one.reason.starts_with("Backend") || one.reason == "Suspended";
    if !flowing.is_some_and(|one| one.status == ConditionStatus::False && is_told(one)) {
        steps.push(of_condition(facts, pipeline, "DataFlowing", flowing));
    }
    steps
}

fn of_condition(facts: &Facts, pipeline: &Object, name: &'static str, found: Option<&StatusCondition>) -> Step {
    let label = pipeline.label();
    let Some(StatusCondition { status, reason, message, .. }) = found else {
        return Step::unknown(name, format!("{label}: its status does not say"));
    };
    let words = format!("{label}: {reason}: {message}");
    match status {
        ConditionStatus::True => Step::ok(name, words),
        // It follows from the step before, which is broken and says why.
        ConditionStatus::Unknown if reason == "NotAccepted" || reason == "NotServed" => Step::unknown(name, words),
        ConditionStatus::False | ConditionStatus::Unknown => Step::broken(name, words, todo(facts, pipeline, reason)),
    }
}

/// Returns what the agents of a pipeline that runs say of the pod's own node.
fn of_node(facts: &Facts, programmed: &StatusCondition, node: &str) -> Option<Step> {
    if programmed.status != ConditionStatus::True {
        return None;
    }
    let (_, absent) = programmed.message.split_once("not ready or not heard: ")?;
    let is_named = absent.split([',', ' ', ';']).any(|word| word == node);
    is_named.then(|| {
        let found = format!("the agent of {node}, where the pod runs, is not heard by the controller");
        Step::broken("heard", found, agents(facts))
    })
}

fn of_backend(facts: &Facts, pipeline: &Object, state: &BackendState) -> Step {
    let kind = match state.kind {
        BackendRefKind::Backend => Kind::Backend,
        BackendRefKind::ClusterBackend => Kind::ClusterBackend,
    };
    let words = |said: &str| format!("route {} to {} {}: {said}", state.route, kind.name(), state.name);
    let since = state.since.as_deref().map(|since| format!(" since {since}")).unwrap_or_default();
    let is_it = |one: &&Object| one.kind == kind && one.name == state.name;
    let object = facts.backends.iter().find(is_it);
    let told = object.and_then(|one| {
        let status = one.backend();
        condition(&status.conditions, "Reachable")
            .filter(|one| one.status != ConditionStatus::True)
            .map(|one| one.message.clone())
    });
    let told = told.map(|told| format!(": {told}")).unwrap_or_default();
    let todo = || match object {
        Some(object) => format!(
            "look at the server it names; `kubectl describe {}`; what is held is kept meanwhile",
            object.words()
        ),
        None => format!("`kubectl describe {}`", pipeline.words()),
    };
    match state.state {
        BackendHealth::Healthy => Step::ok("backend", words("takes what is sent")),
        BackendHealth::Unknown => Step::unknown("backend", words("no agent said")),
        BackendHealth::Retrying => Step::broken("backend", words(&format!("attempts fail{since}{told}")), todo()),
        BackendHealth::Unreachable => Step::broken("backend", words(&format!("not reached{since}{told}")), todo()),
    }
}

/// Returns what to do about a reason of the catalogue.
fn todo(facts: &Facts, pipeline: &Object, reason: &str) -> String {
    let namespace = &facts.namespace;
    match reason {
        "Invalid" => {
            format!("correct the field it names; `kubectl spillway validate -n {namespace}` tells all at once")
        }
        "TooLarge" => "make it smaller, or let it select less: the configuration of a node has a bound".to_owned(),
        "BackendNotFound" => "apply the backend it names, or correct the name".to_owned(),
        "BackendInvalid" => format!("correct the backend; `kubectl spillway validate -n {namespace}` names the field"),
        "RefNotPermitted" => format!("ask who owns the ClusterBackend to grant namespace {namespace} by its labels"),
        "SecretNotFound" | "SecretKeyNotFound" => {
            "make the Secret with that key, or let the controller read it (`secrets.access` of the chart)".to_owned()
        }
        "Refused" | "AgentsAbsent" | "Waiting" | "OlderVersion" | "NotServed" => agents(facts),
        _ => format!("`kubectl describe {}`", pipeline.words()),
    }
}

fn agents(facts: &Facts) -> String {
    let system = &facts.system_namespace;
    format!("`kubectl logs -n {system} -l app.kubernetes.io/component=agent --prefix`: does it reach the controller?")
}
