//! The manifests that most scenarios run.

use std::fmt::Write as _;

/// Returns Backends, each of its name and the lines of its `spec` (two spaces in), and the pipeline `jobs`, which sends
/// every pushed event to all of them.
pub fn jobs(backends: &[(&str, &str)]) -> String {
    let (mut text, mut refs) = (String::new(), Vec::new());
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
        refs.push(format!("{{name: {name}}}"));
    }
    format!(
        "{text}
apiVersion: spillway.dev/v1alpha1
kind: MonitoringPipeline
metadata: {{name: jobs}}
spec:
  inputs:
  - {{name: pushed, type: Events}}
  routes:
  - {{name: everything, backendRefs: [{}]}}
",
        refs.join(", ")
    )
}
