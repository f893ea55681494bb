//! What an agent without an operator refuses of good plans: one list, so that `check` warns of all that `run` refuses.
//!
//! # Guarantees
//! - [`refused`] is what `run` asks before it applies a pipeline, and what `check` tells by
//!   [`compile_standalone`](super::compile_standalone): neither knows a rule of its own.
//! - What is refused here is good in a cluster, where the operator tells agents of pods and namespaces.
//!
//! # Must not know
//! The machine: whether its directories can be written, its secrets are there, its listeners are free.

use std::collections::BTreeMap;
use std::fmt;

use super::{Compiled, Input, PipelinePlan};
use crate::kinds::CLUSTER;
use crate::manifest::Document;
use crate::manifest::error::{Position, Problem, Reason};
use crate::manifest::object::Object;

/// One thing that is refused: the field, what was found and what is allowed. Shown without its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal(Problem);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.clone().of(&"".into(), "").words())
    }
}

/// Returns what is refused of a good pipeline; nothing where it runs. To take from every pod instead would deliver what
/// nobody asked for.
pub fn refused(plan: &PipelinePlan) -> Vec<Refusal> {
    let is_of_the_cluster = *plan.settings.namespace == *CLUSTER;
    let inputs = plan.inputs.iter().enumerate();
    inputs.filter_map(|(index, input)| of_input(index, input, is_of_the_cluster)).collect()
}

/// Returns why nothing of the manifests runs, where there is no good pipeline among them.
pub fn nothing_to_run(compiled: &Compiled) -> Option<Refusal> {
    let message = "a standalone run does not start without a pipeline";
    let found = "no valid MonitoringPipeline or ClusterMonitoringPipeline";
    compiled.pipelines.is_empty().then(|| refusal("", message, found, "at least one"))
}

/// Adds to the warnings what is refused, at the places where it is written. That nothing is left to run is told where no
/// error says so already.
pub(super) fn warn(documents: &[Document], objects: &[Object], compiled: &mut Compiled) {
    let labelled: BTreeMap<String, &Object> = objects.iter().map(|object| (object.label(), object)).collect();
    let mut warnings = Vec::new();
    for plan in &compiled.pipelines {
        let label = plan.label();
        let Some(object) = labelled.get(&label) else { continue };
        let placed = |Refusal(problem)| Problem { position: object.root.at(&problem.field), ..problem };
        warnings.extend(refused(plan).into_iter().map(|refusal| placed(refusal).of(&object.file, &label)));
    }
    let nothing = nothing_to_run(compiled).filter(|_| compiled.errors.is_empty());
    if let (Some(Refusal(problem)), Some(first)) = (nothing, documents.first()) {
        warnings.push(problem.of(&first.file, ""));
    }
    compiled.warnings.extend(warnings);
    compiled.warnings.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
}

fn of_input(index: usize, input: &Input, is_of_the_cluster: bool) -> Option<Refusal> {
    let field = |member: &str| format!("spec.inputs[{index}].{member}");
    match input {
        Input::ContainerLogs(logs) if !logs.pod_selector.is_empty() => Some(refusal(
            &field("containerLogs.podSelector"),
            "a standalone run does not know the labels of pods",
            "a podSelector",
            "`{}`, with `containers`, or `match` on `origin.pod`, to select",
        )),
        Input::Events(_) if is_of_the_cluster => Some(refusal(
            &field("type"),
            "a standalone run does not know the namespace of a sender",
            "`Events` in a ClusterMonitoringPipeline",
            "`ContainerLogs`; a MonitoringPipeline takes events",
        )),
        Input::Events(events) if !events.pod_selector.is_empty() => Some(refusal(
            &field("events.podSelector"),
            "a standalone run does not know which pod sends",
            "a podSelector",
            "`{}`",
        )),
        Input::ContainerLogs(_) | Input::Events(_) | Input::Files(_) => None,
    }
}

fn refusal(field: &str, message: &str, found: &str, allowed: &str) -> Refusal {
    let problem = Problem::new(Position::START, field, message).found(found).allowed(allowed);
    Refusal(Problem { reason: Reason::NotStandalone, ..problem })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{compile, compile_standalone};

    const BACKENDS: &str = "\
apiVersion: spillway.dev/v1alpha1
kind: Backend
metadata: {name: out}
spec: {type: Stdout}
---
apiVersion: spillway.dev/v1alpha1
kind: ClusterBackend
metadata: {name: out}
spec: {type: Stdout}
";

    /// A pipeline whose first input is in line 18.
    fn pipeline(kind: &str, name: &str, inputs: &str) -> String {
        let selector = if kind == OF_CLUSTER { "  namespaceSelector: {}\n" } else { "" };
        format!(
            "{BACKENDS}---\napiVersion: spillway.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec:\n  \
             routes:\n  - {{name: all, backendRefs: [{{name: out}}]}}\n  inputs:\n  - {inputs}\n{selector}"
        )
    }

    fn logs(settings: &str) -> String {
        format!("{{name: logs, type: ContainerLogs, containerLogs: {settings}}}")
    }

    fn events(settings: &str) -> String {
        format!("{{name: pushed, type: Events, events: {settings}}}")
    }

    const OF_NAMESPACE: &str = "MonitoringPipeline";
    const OF_CLUSTER: &str = "ClusterMonitoringPipeline";
    const SELECTOR: &str = "{podSelector: {matchLabels: {app: etcher}}}";
    const EXPRESSION: &str = "{podSelector: {matchExpressions: [{key: app, operator: Exists}]}}";

    /// What is told of good manifests: the warnings of a check, and the refusals of a run.
    fn told(text: &str) -> (Vec<String>, Vec<String>) {
        let documents = [Document::new("a.yaml", text)];
        let compiled = compile_standalone(&documents);
        assert_eq!(compiled.errors, [], "{text}");
        assert_eq!(compile(&documents).warnings, [], "a cluster refuses nothing of it: {text}");
        let of_run = compiled.pipelines.iter().flat_map(refused).map(|refusal| refusal.to_string()).collect();
        (compiled.warnings.iter().map(ToString::to_string).collect(), of_run)
    }

    #[test]
    fn what_a_run_knows_is_not_refused() {
        for text in [
            pipeline(OF_NAMESPACE, "jobs", &logs("{}")),
            pipeline(OF_NAMESPACE, "jobs", &logs("{containers: [main], podSelector: {}}")),
            pipeline(OF_NAMESPACE, "jobs", &events("{}")),
            pipeline(OF_NAMESPACE, "jobs", &events("{authentication: None, podSelector: {matchLabels: {}}}")),
            pipeline(OF_CLUSTER, "jobs", &logs("{}")),
        ] {
            assert_eq!(told(&text), (vec![], vec![]), "{text}");
        }
    }

    #[test]
    fn each_refusal_is_warned_of_at_its_field() {
        let of_namespace = "MonitoringPipeline default/jobs";
        for (text, place, object, words) in [
            (
                pipeline(OF_NAMESPACE, "jobs", &logs(SELECTOR)),
                "18:68",
                of_namespace,
                "spec.inputs[0].containerLogs.podSelector: a standalone run does not know the labels of pods; found a podSelector",
            ),
            (
                pipeline(OF_NAMESPACE, "jobs", &logs(EXPRESSION)),
                "18:68",
                of_namespace,
                "spec.inputs[0].containerLogs.podSelector: a standalone run does not know the labels of pods; found a podSelector",
            ),
            (
                pipeline(OF_NAMESPACE, "jobs", &events(SELECTOR)),
                "18:56",
                of_namespace,
                "spec.inputs[0].events.podSelector: a standalone run does not know which pod sends; found a podSelector",
            ),
            (
                pipeline(OF_CLUSTER, "jobs", &events("{}")),
                "18:26",
                "ClusterMonitoringPipeline jobs",
                "spec.inputs[0].type: a standalone run does not know the namespace of a sender; found `Events`",
            ),
        ] {
            let (warnings, refusals) = told(&text);
            let [refusal] = &refusals[..] else { panic!("{refusals:?}\n{text}") };
            assert!(refusal.starts_with(words), "{refusal}");
            assert_eq!(warnings, [format!("a.yaml:{place}: {object}: {refusal}")]);
        }
    }

    #[test]
    fn every_refusal_of_every_pipeline_is_told_in_the_order_of_the_file() {
        let two = format!("{}\n  - {}", logs(SELECTOR), events(SELECTOR));
        let second = pipeline(OF_NAMESPACE, "more", &logs(EXPRESSION)).replacen(BACKENDS, "", 1);
        let (warnings, refusals) = told(&(pipeline(OF_NAMESPACE, "jobs", &two) + &second));
        let lines: Vec<_> = warnings.iter().filter_map(|warning| warning.split(':').nth(1)).collect();
        assert_eq!((lines, refusals.len()), (vec!["18", "19", "28"], 3), "{warnings:?}");
    }

    #[test]
    fn manifests_without_a_pipeline_are_warned_of_where_no_error_tells_more() {
        let (warnings, _) = told(BACKENDS);
        assert_eq!(
            warnings,
            ["a.yaml:1:1: a standalone run does not start without a pipeline; found no valid MonitoringPipeline or \
              ClusterMonitoringPipeline; allowed: at least one"]
        );
        let broken = pipeline(OF_NAMESPACE, "jobs", "{name: pushed, type: Event}");
        let compiled = compile_standalone(&[Document::new("a.yaml", broken)]);
        assert_eq!((compiled.errors.len(), compiled.warnings.len()), (1, 0), "{:?}", compiled.warnings);
        assert!(nothing_to_run(&compiled).is_some());
    }

    #[test]
    fn programs_know_these_warnings_by_their_reason() {
        let text = pipeline(OF_NAMESPACE, "jobs", &logs(SELECTOR));
        let compiled = compile_standalone(&[Document::new("a.yaml", text)]);
        let report: serde_json::Value = serde_json::from_str(&crate::render::json(&compiled, None)).unwrap();
        let warning = &report["warnings"][0];
        assert_eq!(warning["reason"], "NotStandalone", "{warning:#}");
        assert_eq!(
            (&warning["line"], &warning["field"]),
            (&18.into(), &"spec.inputs[0].containerLogs.podSelector".into())
        );
    }
}
