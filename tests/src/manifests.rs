//! The manifests that most scenarios run.

use std::fmt::Write as _;

/// Returns Backends, each of its name and the lines of its `spec` (two spaces in), and the pipeline `jobs`, which sends
/// every pushed event to all of them.
pub fn jobs(backends: &[(&str, &str)]) -> String {
    let refs: Vec<String> = backends.iter().map(|(name, _)| format!("{{name: {name}}}")).collect();
    whole(backends, &[EVENTS], &format!("{{name: everything, backendRefs: [{}]}}", refs.join(", ")))
}

/// The same, where the first healthy one of them gets the events: by their priorities, which are told the other way round.
pub fn first_healthy(failback: &str, backends: &[(&str, &str)]) -> String {
    let refs = backends.iter().enumerate().map(|(index, (name, _))| format!("{{name: {name}, priority: {index}}}"));
    let refs: Vec<String> = refs.rev().collect();
    let strategy = format!("strategy: FirstHealthy, failback: {failback}");
    whole(backends, &[EVENTS], &format!("{{name: everything, {strategy}, backendRefs: [{}]}}", refs.join(", ")))
}

/// Returns manifests of a pipeline `jobs` of these inputs, whose events go to files and to nowhere else.
pub fn to_archive(inputs: &[&str]) -> String {
    let backends = [("archive", "  {type: Filesystem, filesystem: {}}")];
    whole(&backends, inputs, "{name: everything, backendRefs: [{name: archive}]}")
}

/// What is pushed.
pub const EVENTS: &str = "{name: pushed, type: Events}";

fn whole(backends: &[(&str, &str)], inputs: &[&str], route: &str) -> String {
    let mut text = String::new();
    for (name, spec) in backends {
        write!(
            text,
            "
apiVersion: spillway.dev/v1alpha1
kind: Backend
metadata: {{name: {name}}}
spec:
{spec}
---"
        )
        .expect("text");
    }
    let inputs = inputs.join("\n  - ");
    format!(
        "{text}
apiVersion: spillway.dev/v1alpha1
kind: MonitoringPipeline
metadata: {{name: jobs}}
spec:
  inputs:
  - {inputs}
  routes:
  - {route}
"
    )
}
