//! Which pipelines take the logs of a pod, and why the others do not.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Pod;
use serde::Deserialize;
use serde_json::Value;
use spillway_crds::Namespaces;
use spillway_crds::compile::namespaces::NAME_LABEL;
use spillway_crds::kinds::Kind;
use spillway_crds::kinds::labels::Labelled;
use spillway_crds::kinds::selector::{LabelExpression, LabelSelector, Operator};

use super::facts::Facts;
use super::{NOT_TAKING_MAX, State, Step};
use crate::cluster::Found;
use crate::objects::Object;

/// Why a pipeline does not take the logs of a pod.
enum Not {
    /// It does not.
    Taking(String),
    /// Whether it does could not be seen.
    Known(String),
}

/// Returns the pipelines that take the pod's logs, and what is said of all.
pub(super) fn steps<'a>(facts: &'a Facts, pod: &Pod) -> (Vec<&'a Object>, Vec<Step>) {
    let unseen = facts.unseen.iter().filter(|(kind, _)| kind.is_pipeline());
    let mut steps: Vec<Step> = unseen.map(|(_, why)| Step::unknown("selection", why)).collect();
    let (mut taking, mut others) = (Vec::new(), Vec::new());
    for pipeline in &facts.pipelines {
        match takes(facts, pipeline, pod) {
            Ok(()) => taking.push(pipeline),
            Err(Not::Taking(why)) => {
                others.push(Step::note("selection", format!("{} does not: {why}", pipeline.label())));
            }
            Err(Not::Known(why)) => others.push(Step::unknown("selection", format!("{}: {why}", pipeline.label()))),
        }
    }
    for one in &taking {
        steps.push(Step::ok("selection", format!("{} takes its logs", one.label())));
        if begins_at_end(one) {
            let found = format!("{} takes only lines written after it first saw a file (startAt: End)", one.label());
            steps.push(Step::note("selection", found));
        }
    }
    let is_known = others.iter().all(|step| step.state != State::Unknown);
    let more = others.len().saturating_sub(NOT_TAKING_MAX);
    others.truncate(NOT_TAKING_MAX);
    if taking.is_empty() && is_known {
        steps.extend(none_takes(facts));
    }
    steps.extend(others);
    if more > 0 {
        steps.push(Step::note("selection", format!("and {more} more pipelines do not")));
    }
    (taking, steps)
}

/// Returns what is wrong where none that is seen takes the logs; `None` where those of the namespace are not seen.
fn none_takes(facts: &Facts) -> Option<Step> {
    let namespace = &facts.namespace;
    if facts.why_unseen(Kind::MonitoringPipeline).is_some() {
        return None;
    }
    let found = match &facts.followed {
        Some(name) => format!("pipeline {name} does not take its logs"),
        None if facts.why_unseen(Kind::ClusterMonitoringPipeline).is_none() => "no pipeline takes its logs".to_owned(),
        None => {
            let others = "those of the cluster could not be looked at";
            format!("no pipeline of namespace {namespace} takes its logs; {others}")
        }
    };
    let which = match &facts.followed {
        Some(_) => "it".to_owned(),
        None => format!("a MonitoringPipeline in namespace {namespace}"),
    };
    let todo = format!("give {which} an input of type ContainerLogs whose podSelector takes the pod's labels");
    Some(Step::broken("selection", found, todo))
}

fn begins_at_end(pipeline: &Object) -> bool {
    let mut inputs = pipeline.spec["inputs"].as_array().into_iter().flatten();
    inputs.any(|input| input["containerLogs"]["startAt"] == "End")
}

fn takes(facts: &Facts, pipeline: &Object, pod: &Pod) -> Result<(), Not> {
    if pipeline.kind.is_of_the_cluster() {
        takes_namespace(facts, &pipeline.spec["namespaceSelector"])?;
    }
    let inputs = pipeline.spec["inputs"].as_array().into_iter().flatten();
    let inputs: Vec<&Value> = inputs.filter(|input| input["type"] == "ContainerLogs").collect();
    if inputs.is_empty() {
        return Err(Not::Taking("it has no input of type ContainerLogs".to_owned()));
    }
    let labels = pod.metadata.labels.clone().unwrap_or_default();
    let containers = containers(pod);
    let mut first = None;
    for input in inputs {
        let why = match input_takes(&input["containerLogs"], &labels, &containers) {
            Ok(()) => return Ok(()),
            Err(why) => format!("input {}: {why}", input["name"].as_str().unwrap_or_default()),
        };
        first.get_or_insert(why);
    }
    Err(Not::Taking(first.unwrap_or_default()))
}

fn input_takes(logs: &Value, labels: &BTreeMap<String, String>, containers: &BTreeSet<String>) -> Result<(), String> {
    let selector = selector(&logs["podSelector"]).ok_or("its podSelector cannot be read")?;
    if let Some(why) = mismatch(&selector, labels) {
        return Err(format!("its podSelector asks for {why}"));
    }
    let wanted: Vec<&str> = logs["containers"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if !wanted.is_empty() && !wanted.iter().any(|name| containers.contains(*name)) {
        let there = containers.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        return Err(format!("it wants the containers {}; the pod has {there}", wanted.join(", ")));
    }
    Ok(())
}

fn takes_namespace(facts: &Facts, value: &Value) -> Result<(), Not> {
    let Some(selector) = selector(value) else {
        return Err(Not::Taking("its namespaceSelector cannot be read".to_owned()));
    };
    let mut known = Namespaces::default();
    let mut labels = BTreeMap::from([(NAME_LABEL.to_owned(), facts.namespace.clone())]);
    let why = match &facts.labels {
        Found::There(found) => {
            known.insert(&facts.namespace, found.clone());
            labels = found.clone().into_iter().chain(labels).collect();
            String::new()
        }
        Found::Absent => format!("there is no namespace {}", facts.namespace),
        Found::Unknown(why) => why.clone(),
    };
    match known.takes(&selector, &facts.namespace) {
        Some(true) => Ok(()),
        Some(false) => {
            let why = mismatch(&selector, &labels).unwrap_or_default();
            Err(Not::Taking(format!("its namespaceSelector asks for {why} (namespace {})", facts.namespace)))
        }
        None => Err(Not::Known(why)),
    }
}

fn selector(value: &Value) -> Option<LabelSelector> {
    if value.is_null() { Some(LabelSelector::default()) } else { LabelSelector::deserialize(value).ok() }
}

/// Returns the first thing that a selector asks for and labels do not have.
fn mismatch(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> Option<String> {
    let has = |key: &str| {
        labels.get(key).map_or_else(|| format!("there is no {key}"), |value| format!("there is {key}={value}"))
    };
    let label = selector.match_labels.iter().find(|(key, value)| labels.value(key) != Some(*value));
    let label = label.map(|(key, value)| format!("{key}={value}, and {}", has(key)));
    label.or_else(|| {
        let one = |expression: &&LabelExpression| {
            let match_expressions = vec![(*expression).clone()];
            !LabelSelector { match_expressions, ..LabelSelector::default() }.matches(labels)
        };
        selector.match_expressions.iter().find(one).map(|expression| {
            let values = expression.values.join(", ");
            let words = match expression.operator {
                Operator::In => format!("{} in ({values})", expression.key),
                Operator::NotIn => format!("{} not in ({values})", expression.key),
                Operator::Exists => format!("a label {}", expression.key),
                Operator::DoesNotExist => format!("no label {}", expression.key),
            };
            format!("{words}, and {}", has(&expression.key))
        })
    })
}

fn containers(pod: &Pod) -> BTreeSet<String> {
    let Some(spec) = &pod.spec else { return BTreeSet::new() };
    let init = spec.init_containers.iter().flatten().chain(&spec.containers).map(|one| one.name.clone());
    init.chain(spec.ephemeral_containers.iter().flatten().map(|one| one.name.clone())).collect()
}
