//! From the pod to the agent: is it there, does it run, is its node ready, is an agent there that may read it?

use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodCondition};
use spillway_crds::served::{LOGS_MARK, MarkedBy, keeps_logs_out};

use super::facts::Facts;
use super::{State, Step};
use crate::cluster::Found;

/// Returns the steps from the pod to the agent.
pub(super) fn steps(facts: &Facts) -> Vec<Step> {
    let pod = match &facts.pod {
        Found::There(pod) => pod,
        Found::Absent => {
            let todo = format!(
                "`kubectl get pods -n {}` has those that are there; what an ended pod wrote is taken for ten minutes more",
                facts.namespace
            );
            return vec![Step::broken("pod", format!("{} is not there", facts.pod_name()), todo)];
        }
        Found::Unknown(why) => return vec![Step::unknown("pod", why)],
    };
    let mut steps = vec![of_pod(facts, pod)];
    if steps[0].state != State::Broken {
        let name = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default();
        steps.push(of_node(facts, name));
        steps.push(of_agent(facts, name));
    }
    steps.extend(of_mark(facts, pod));
    steps
}

fn of_pod(facts: &Facts, pod: &Pod) -> Step {
    let describe = format!("`kubectl describe pod {} -n {}` says why", facts.name, facts.namespace);
    let status = pod.status.clone().unwrap_or_default();
    let Some(node) = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) else {
        let why = condition(status.conditions.as_deref(), "PodScheduled").and_then(|one| one.message.clone());
        let why = why.map(|why| format!(": {why}")).unwrap_or_default();
        return Step::broken("pod", format!("{} waits for a node{why}", facts.pod_name()), describe);
    };
    let containers = [status.init_container_statuses, status.container_statuses].into_iter().flatten().flatten();
    let containers: Vec<ContainerStatus> = containers.collect();
    let has_run = |one: &ContainerStatus| {
        let mut states = [&one.state, &one.last_state].into_iter().flatten();
        states.any(|state| state.running.is_some() || state.terminated.is_some())
    };
    let phase = status.phase.unwrap_or_else(|| "Unknown".to_owned());
    if !containers.is_empty() && !containers.iter().any(has_run) {
        let why = waiting(&containers).unwrap_or_default();
        return Step::broken(
            "pod",
            format!("no container of {} has started on {node}{why}", facts.pod_name()),
            describe,
        );
    }
    let why = waiting(&containers).unwrap_or_default();
    Step::ok("pod", format!("{} is {phase} on {node}{why}", facts.pod_name()))
}

fn of_node(facts: &Facts, name: &str) -> Step {
    match &facts.node {
        Found::There(node) => {
            let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
            match conditions.iter().find(|one| one.type_ == "Ready") {
                Some(ready) if ready.status == "True" => Step::ok("node", format!("{name} is ready")),
                ready => {
                    let why = ready.and_then(|ready| ready.message.clone()).unwrap_or_default();
                    let todo = format!("`kubectl describe node {name}`; its agent goes on once its kubelet does");
                    Step::broken("node", format!("{name} is not ready: {why}"), todo)
                }
            }
        }
        Found::Absent => {
            let todo = "the pod is about to be removed with its node; look at where its owner starts the next one";
            Step::broken("node", format!("{name} is not there"), todo)
        }
        Found::Unknown(why) => Step::unknown("node", why),
    }
}

fn of_agent(facts: &Facts, node: &str) -> Step {
    let namespace = &facts.system_namespace;
    let agents = match &facts.agents {
        Found::There(agents) => agents,
        Found::Absent => return Step::unknown("agent", "not looked for"),
        Found::Unknown(why) => return Step::unknown("agent", why),
    };
    let name = |pod: &Pod| format!("{namespace}/{}", pod.metadata.name.as_deref().unwrap_or_default());
    let is_ready = |pod: &&Pod| {
        let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref());
        condition(conditions, "Ready").is_some_and(|ready| ready.status == "True")
    };
    if let Some(agent) = agents.iter().find(is_ready) {
        return Step::ok("agent", format!("{} runs on {node}", name(agent)));
    }
    let Some(agent) = agents.first() else {
        let todo = format!(
            "`kubectl get daemonset -n {namespace}`: taints of the node (`agent.everyNode`), its node selector, quotas; \
             --system-namespace where agents run elsewhere"
        );
        return Step::broken("agent", format!("no agent runs on {node} (namespace {namespace})"), todo);
    };
    let status = agent.status.clone().unwrap_or_default();
    let why = waiting(&status.container_statuses.unwrap_or_default()).unwrap_or_default();
    let phase = status.phase.unwrap_or_else(|| "Unknown".to_owned());
    let pod = agent.metadata.name.as_deref().unwrap_or_default();
    let todo = format!("`kubectl describe pod {pod} -n {namespace}`, `kubectl logs {pod} -n {namespace}`");
    Step::broken("agent", format!("{} is {phase} and not ready{why}", name(agent)), todo)
}

/// Returns what keeps a pod's logs out of every pipeline.
fn of_mark(facts: &Facts, pod: &Pod) -> Option<Step> {
    let [annotations, labels] =
        [&pod.metadata.annotations, &pod.metadata.labels].map(|marks| marks.clone().unwrap_or_default());
    let (verb, word) = match keeps_logs_out(&annotations, &labels)? {
        MarkedBy::Annotation => ("annotate", "annotation"),
        MarkedBy::Label => ("label", "label"),
    };
    let found = format!("the {word} {LOGS_MARK}=false keeps its logs out of every pipeline");
    let todo =
        format!("`kubectl {verb} pod {} -n {} {LOGS_MARK}-`, and in what makes the pod", facts.name, facts.namespace);
    Some(Step::broken("mark", found, todo))
}

fn condition<'a>(conditions: Option<&'a [PodCondition]>, name: &str) -> Option<&'a PodCondition> {
    conditions.unwrap_or_default().iter().find(|one| one.type_ == name)
}

/// Returns which containers wait, and for what.
fn waiting(containers: &[ContainerStatus]) -> Option<String> {
    let reason = |one: &ContainerStatus| {
        let waiting = one.state.as_ref()?.waiting.as_ref()?;
        Some(format!("{} waits ({})", one.name, waiting.reason.as_deref().unwrap_or("no reason")))
    };
    let all: Vec<String> = containers.iter().filter_map(reason).collect();
    (!all.is_empty()).then(|| format!("; {}", all.join(", ")))
}
