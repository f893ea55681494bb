//! What `check --explain` says of conditions: which fields each reads, and what it costs.

use std::fmt::Write as _;

use serde::Serialize;
use spillway_delivery::condition::Condition;

use crate::compile::Compiled;

/// One condition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explained {
    /// The pipeline, as errors name it.
    pub object: String,
    /// Where it stands: `route alarms`, `transform quiet`.
    pub place: String,
    /// What it does for each event, a word of [`Cost`](spillway_delivery::condition::Cost).
    pub cost: &'static str,
    /// The fields of the event that it reads.
    pub reads: Vec<String>,
    /// The condition.
    pub condition: String,
}

/// Returns the conditions of all good pipelines, in the order in which events meet them.
pub fn conditions(compiled: &Compiled) -> Vec<Explained> {
    let mut all = Vec::new();
    for plan in &compiled.pipelines {
        let object = plan.label();
        let mut tell = |place: String, condition: &Condition| all.push(explained(&object, place, condition));
        for transform in &plan.settings.transforms {
            if let Some(condition) = transform.action.when() {
                tell(format!("transform {}", transform.name), condition);
            }
        }
        for route in &plan.settings.routes {
            if let Some(condition) = &route.condition {
                tell(format!("route {}", route.name), condition);
            }
        }
    }
    all
}

fn explained(object: &str, place: String, condition: &Condition) -> Explained {
    let mut reads: Vec<String> = condition.fields().iter().map(|keys| format!("event.{}", keys.join("."))).collect();
    reads.sort_unstable();
    reads.dedup();
    let (cost, condition) = (condition.cost().as_str(), condition.text().to_owned());
    Explained { object: object.to_owned(), place, cost, reads, condition }
}

/// Returns two lines for each condition: where it stands, what it costs and reads; and the condition itself.
pub fn human(explained: &[Explained]) -> String {
    let mut out = String::new();
    for Explained { object, place, cost, reads, condition } in explained {
        let reads = if reads.is_empty() { "nothing of the event".to_owned() } else { reads.join(", ") };
        // Writing to a String cannot fail.
        _ = writeln!(out, "{object}: {place}: costs `{cost}`, reads {reads}");
        _ = writeln!(out, "    {}", condition.split_whitespace().collect::<Vec<_>>().join(" "));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Document, compile};

    #[test]
    fn each_condition_says_where_it_stands_what_it_reads_and_what_it_costs() {
        let manifest = "
apiVersion: spillway.dev/v1alpha1
kind: MonitoringPipeline
metadata: {name: jobs}
spec:
  inputs: [{name: pushed, type: Events}]
  transforms:
  - {name: quiet, type: Drop, drop: {when: 'event.tags.exists(t, t == \"quiet\")'}}
  routes:
  - {name: all, backendRefs: [{name: out}]}
  - {name: alarms, match: 'event.b == 1 && event.a.x > event.b', backendRefs: [{name: out}]}
  - {name: mine, match: origin.pod == 'a', backendRefs: [{name: out}]}
---
apiVersion: spillway.dev/v1alpha1
kind: Backend
metadata: {name: out}
spec: {type: Stdout}
";
        let compiled = compile(&[Document::new("p.yaml", manifest)]);
        assert_eq!(compiled.errors, []);
        let told = human(&conditions(&compiled));
        let lines: Vec<&str> = told.lines().collect();
        let object = "MonitoringPipeline default/jobs";
        assert_eq!(
            lines,
            [
                &*format!("{object}: transform quiet: costs `list`, reads event.tags"),
                "    event.tags.exists(t, t == \"quiet\")",
                &*format!("{object}: route alarms: costs `walk`, reads event.a.x, event.b"),
                "    event.b == 1 && event.a.x > event.b",
                &*format!("{object}: route mine: costs `origin`, reads nothing of the event"),
                "    origin.pod == 'a'",
            ]
        );
    }
}
