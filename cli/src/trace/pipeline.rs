//! From a pipeline that takes the logs to its backends: what its status says of the pod's node, and what to do about it.

use spillway_crds::kinds::monitoring_pipeline::BackendRefKind;
use spillway_crds::kinds::status::{BackendHealth, BackendState, ConditionStatus, StatusCondition};
use spillway_crds::nodes;

use super::facts::Facts;
use super::{State, Step, controller};
use crate::objects::{Object, condition};
use spillway_crds::kinds::Kind;

/// The reason of a destination that agents may not connect to.
const FORBIDDEN: &str = "BackendForbidden";

/// Returns the steps behind the selection, for one pipeline and the node of the pod.
pub(super) fn steps(facts: &Facts, pipeline: &Object, node: Option<&str>) -> Vec<Step> {
    let (label, status) = (pipeline.label(), pipeline.pipeline());
    if !pipeline.is_seen(status.observed_generation) {
        let found = format!("{label}: no controller has looked at generation {} yet", pipeline.generation);
        return vec![Step::broken("controller", found, controller::todo(facts))];
    }
    let mut steps = Vec::new();
    if pipeline.spec["suspend"] == true {
        let todo = format!("set `spec.suspend: false` (`kubectl edit {}`)", pipeline.words());
        steps.push(Step::broken("suspend", format!("{label} is suspended"), todo));
    }
    for name in ["Accepted", "ResolvedRefs"] {
        steps.push(of_condition(facts, pipeline, name, condition(&status.conditions, name)));
    }
    steps.extend(of_nodes(facts, pipeline, condition(&status.conditions, "Programmed"), node));
    let flowing = condition(&status.conditions, "DataFlowing");
    let backends: Vec<Step> = status.backends.iter().map(|state| of_backend(facts, pipeline, flowing, state)).collect();
    let is_told = |one: &StatusCondition| match one.reason.as_str() {
        "Suspended" => true,
        reason => reason.starts_with("Backend") && backends.iter().any(|step| step.state == State::Broken),
    };
    // What a backend is the cause of is told there, and suspension above.
    let flowing = match flowing {
        Some(one) if one.status == ConditionStatus::False && is_told(one) => None,
        flowing => Some(of_condition(facts, pipeline, "DataFlowing", flowing)),
    };
    steps.extend(backends);
    steps.extend(flowing);
    steps
}

fn of_condition(facts: &Facts, pipeline: &Object, name: &'static str, found: Option<&StatusCondition>) -> Step {
    let Some(found) = found else {
        return Step::unknown(name, format!("{}: its status does not say", pipeline.label()));
    };
    let words = words(pipeline, found);
    match found.status {
        ConditionStatus::True => Step::ok(name, words),
        // Not known yet, or it follows from the step before, which is broken and says why.
        ConditionStatus::Unknown => Step::unknown(name, words),
        ConditionStatus::False => Step::broken(name, words, todo(facts, pipeline, &found.reason)),
    }
}

fn words(pipeline: &Object, StatusCondition { reason, message, .. }: &StatusCondition) -> String {
    format!("{}: {reason}: {message}", pipeline.label())
}

/// Returns what agents make of the pipeline, those of other nodes apart from the one of the pod's.
fn of_nodes(facts: &Facts, pipeline: &Object, found: Option<&StatusCondition>, node: Option<&str>) -> Vec<Step> {
    const NAME: &str = "Programmed";
    let of_all = || of_condition(facts, pipeline, NAME, found);
    let (Some(found), Some(node)) = (found, node) else { return vec![of_all()] };
    let said = nodes::read(&found.message);
    let is_named = match (found.status, &*found.reason) {
        (ConditionStatus::True, _) => return std::iter::once(of_all()).chain(heard(facts, &said, node)).collect(),
        // Where no node is named, it is about all of them.
        (_, "AgentsAbsent") if said == nodes::Said::default() => Some(true),
        // A node that is not among those that are to run it may be one that no controller knows to have the pod.
        (_, "AgentsAbsent") => said.absent.has(node).filter(|is_named| *is_named),
        (_, "Waiting" | "Refused") if said == nodes::Said::default() => None,
        (_, "Waiting") => said.waiting.has(node),
        (_, "Refused") => said.refused.has(node),
        _ => return vec![of_all()],
    };
    let words = words(pipeline, found);
    let step = match is_named {
        Some(true) => Step::broken(NAME, words, todo(facts, pipeline, &found.reason)),
        Some(false) => Step::note(NAME, format!("{words}; {node}, where the pod runs, is not among them")),
        None => Step::unknown(NAME, format!("{words}; whether that is so of {node}, where the pod runs, is not said")),
    };
    // Of an agent that is absent nothing else is told.
    let heard = heard(facts, &said, node).filter(|_| found.reason != "AgentsAbsent");
    std::iter::once(step).chain(heard).collect()
}

/// Returns what is wrong where the controller does not hear the agent of the node.
fn heard(facts: &Facts, said: &nodes::Said<'_>, node: &str) -> Option<Step> {
    match said.absent.has(node) {
        Some(true) => {
            let found = format!("the agent of {node}, where the pod runs, is not heard by the controller");
            Some(Step::broken("heard", found, agents(facts)))
        }
        Some(false) => None,
        None => {
            let found = format!("more agents are not heard than are named; whether the one of {node} is, is not said");
            Some(Step::unknown("heard", found))
        }
    }
}

fn of_backend(facts: &Facts, pipeline: &Object, flowing: Option<&StatusCondition>, state: &BackendState) -> Step {
    let kind = match state.kind {
        BackendRefKind::Backend => Kind::Backend,
        BackendRefKind::ClusterBackend => Kind::ClusterBackend,
    };
    let words = |said: &str| format!("route {} to {} {}: {said}", state.route, kind.name(), state.name);
    let since = state.since.as_deref().map(|since| format!(" since {since}")).unwrap_or_default();
    let object = facts.backends.iter().find(|one| one.kind == kind && one.name == state.name);
    // What the pipeline says is of its own attempts; of several backends it tells of the worst.
    let own = flowing.filter(|one| one.status == ConditionStatus::False && is_of(one, &state.name)).cloned();
    let cause = own.or_else(|| {
        let status = object?.backend();
        condition(&status.conditions, "Reachable").filter(|one| one.status != ConditionStatus::True).cloned()
    });
    let told = match (&cause, facts.why_unseen(kind)) {
        (Some(cause), _) => format!(": {}", cause.message),
        (None, Some(why)) => format!("; why cannot be looked at: {why}"),
        (None, None) => String::new(),
    };
    let what = match state.state {
        BackendHealth::Healthy => return Step::ok("backend", words("takes what is sent")),
        BackendHealth::Unknown => return Step::unknown("backend", words("no agent said")),
        _ if cause.as_ref().is_some_and(|cause| cause.reason == FORBIDDEN) => {
            let found = words(&format!("agents may not connect to it{since}{told}"));
            return Step::broken("backend", found, todo(facts, pipeline, FORBIDDEN));
        }
        BackendHealth::Retrying => "attempts fail",
        BackendHealth::Unreachable => "not reached",
    };
    let todo = match object {
        Some(object) => {
            let words = object.words();
            format!("look at the server it names; `kubectl describe {words}`; what is held is kept meanwhile")
        }
        None => format!("`kubectl describe {}`", pipeline.words()),
    };
    Step::broken("backend", words(&format!("{what}{since}{told}")), todo)
}

/// Returns whether a condition is about the backend of that name.
fn is_of(flowing: &StatusCondition, name: &str) -> bool {
    flowing.message.strip_prefix(name).is_some_and(|rest| rest.starts_with(": "))
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
        FORBIDDEN => {
            let allow = "ask who looks after the cluster to allow it (`agent.destinations` of the chart)";
            format!(
                "correct the address; if it is right, {allow}, or for a ClusterBackend; what is held is kept meanwhile"
            )
        }
        "RefNotPermitted" => format!("ask who owns the ClusterBackend to grant namespace {namespace} by its labels"),
        "SecretNotFound" | "SecretKeyNotFound" => {
            "make the Secret with that key, or let the controller read it (`secrets.access` of the chart)".to_owned()
        }
        "SecretTooLarge" => {
            "put a value there that is as small as credentials are; the message names the bound".to_owned()
        }
        "Refused" | "AgentsAbsent" | "Waiting" | "OlderVersion" | "NotServed" => agents(facts),
        _ => format!("`kubectl describe {}`", pipeline.words()),
    }
}

fn agents(facts: &Facts) -> String {
    let system = &facts.system_namespace;
    format!("`kubectl logs -n {system} -l app.kubernetes.io/component=agent --prefix`: does it reach the controller?")
}
