//! `status`: the pipelines in a table, and in words what is wrong with those that are not ready.
//!
//! It says what the status of the objects says, and one thing more: a status that speaks of an older generation than the one
//! that stands there is no answer, so such a pipeline is `Unknown`.

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::anyhow;
use serde::Serialize;
use spillway_crds::kinds::status::{AgentCounts, BackendHealth, BackendState, ConditionStatus};

use crate::cli::{ClusterFlags, Output, StatusFlags};
use crate::cluster::{self, Cluster, Found};
use crate::exit::{self, Failure};
use crate::objects::{Object, condition, status_word};
use crate::table;
use spillway_crds::kinds::Kind;

/// The reason of a pipeline that no controller has looked at as it is now.
const NOT_SEEN: &str = "NotSeen";

/// What is shown of a pipeline.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    kind: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    namespace: String,
    name: String,
    generation: i64,
    ready: &'static str,
    reason: String,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    agents: Option<AgentCounts>,
    backends: Vec<BackendState>,
}

#[derive(Serialize)]
struct Report<'a> {
    pipelines: &'a [Row],
}

/// Prints the pipelines, and returns 1 when one is not ready.
pub fn run(cluster: &ClusterFlags, flags: &StatusFlags) -> Result<ExitCode, Failure> {
    let (pipelines, unseen) = cluster::ask(cluster, async |cluster| read(&cluster, flags).await)?;
    if let Some(why) = unseen {
        exit::to_stderr(&format!("warning: pipelines of the cluster are not shown: {why}\n"));
    }
    let rows: Vec<Row> = pipelines.iter().map(row).collect();
    exit::to_stdout(&match flags.output {
        Output::Human => human(&rows, flags.all_namespaces),
        Output::Json => json(&rows),
    })?;
    Ok(exit::code(rows.iter().all(Row::is_ready)))
}

/// Reads the pipelines, and why those of the cluster could not be.
async fn read(cluster: &Cluster, flags: &StatusFlags) -> Result<(Vec<Object>, Option<String>), Failure> {
    let namespace = (!flags.all_namespaces).then_some(cluster.namespace.as_str());
    let kinds = [Kind::MonitoringPipeline, Kind::ClusterMonitoringPipeline];
    let (mut pipelines, mut unseen) = (Vec::new(), None);
    for kind in kinds.into_iter().filter(|kind| flags.all_namespaces || !kind.is_of_the_cluster()) {
        match cluster.objects(kind, namespace).await {
            Found::There(objects) => pipelines.extend(objects),
            Found::Absent => {
                return Err(Failure::new(anyhow!("the cluster has no {}: is Spillway installed?", kind.plural())));
            }
            Found::Unknown(why) if kind.is_of_the_cluster() => unseen = Some(why),
            Found::Unknown(why) => return Err(Failure::new(anyhow!(why))),
        }
    }
    if let Some(missing) = flags.names.iter().find(|name| pipelines.iter().all(|one| one.name != **name)) {
        return Err(Failure::new(anyhow!("there is no MonitoringPipeline {}/{missing}", cluster.namespace)));
    }
    pipelines.retain(|one| flags.names.is_empty() || flags.names.contains(&one.name));
    Ok((pipelines, unseen))
}

impl Row {
    fn is_ready(&self) -> bool {
        self.ready == status_word(ConditionStatus::True)
    }

    /// Returns how many backends are in which state, those with a fault first.
    fn backends(&self) -> String {
        let of = |state: BackendHealth| self.backends.iter().filter(|one| one.state == state).count();
        let states = [
            (BackendHealth::Unreachable, "unreachable"),
            (BackendHealth::Retrying, "retrying"),
            (BackendHealth::Healthy, "healthy"),
            (BackendHealth::Unknown, "unknown"),
        ];
        let counts = states.into_iter().map(|(state, word)| (of(state), word)).filter(|(count, _)| *count > 0);
        counts.map(|(count, word)| format!("{count} {word}")).collect::<Vec<_>>().join(", ")
    }
}

fn row(pipeline: &Object) -> Row {
    let status = pipeline.pipeline();
    let (ready, reason, message) = match condition(&status.conditions, "Ready") {
        Some(ready) if pipeline.is_seen(status.observed_generation) => {
            (status_word(ready.status), ready.reason.clone(), ready.message.clone())
        }
        _ => {
            let message = format!("no controller has looked at generation {} yet", pipeline.generation);
            (status_word(ConditionStatus::Unknown), NOT_SEEN.to_owned(), message)
        }
    };
    Row {
        kind: pipeline.kind.name(),
        namespace: pipeline.namespace.clone(),
        name: pipeline.name.clone(),
        generation: pipeline.generation,
        ready,
        reason,
        message,
        agents: status.agents,
        backends: status.backends,
    }
}

fn human(rows: &[Row], with_namespace: bool) -> String {
    if rows.is_empty() {
        return "no pipeline\n".to_owned();
    }
    let agents =
        |row: &Row| row.agents.map_or_else(|| "-".to_owned(), |all| format!("{}/{}", all.programmed, all.desired));
    let cells = |row: &Row| [row.name.clone(), row.ready.to_owned(), row.reason.clone(), agents(row), row.backends()];
    let mut text = if with_namespace {
        let place = |row: &Row| if row.namespace.is_empty() { "(cluster)".to_owned() } else { row.namespace.clone() };
        let rows: Vec<[String; 6]> = rows
            .iter()
            .map(|row| {
                let [name, ready, reason, agents, backends] = cells(row);
                [place(row), name, ready, reason, agents, backends]
            })
            .collect();
        table::lines(["NAMESPACE", "NAME", "READY", "REASON", "AGENTS", "BACKENDS"], &rows)
    } else {
        let rows: Vec<[String; 5]> = rows.iter().map(cells).collect();
        table::lines(["NAME", "READY", "REASON", "AGENTS", "BACKENDS"], &rows)
    };
    for row in rows.iter().filter(|row| !row.is_ready()) {
        let place =
            if with_namespace && !row.namespace.is_empty() { format!("{}/", row.namespace) } else { String::new() };
        // Writing to a String cannot fail.
        _ = writeln!(text, "\n{place}{}: {}", row.name, row.message);
    }
    text
}

fn json(rows: &[Row]) -> String {
    serde_json::to_string_pretty(&Report { pipelines: rows }).unwrap_or_default() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::recorded;
    use serde_json::{Value, json};

    fn pipeline(name: &str, generation: i64, ready: &str, reason: &str) -> Object {
        recorded(
            Kind::MonitoringPipeline,
            json!({"metadata": {"name": name, "namespace": "fab12", "generation": generation}, "spec": {}, "status": {
                "observedGeneration": 2,
                "conditions": [{"type": "Ready", "status": ready, "reason": reason, "message": format!("{reason}, in words"),
                    "lastTransitionTime": "2026-01-01T00:00:00Z"}],
                "agents": {"desired": 12, "programmed": 11, "failing": 0},
                "backends": [
                    {"route": "all", "kind": "Backend", "name": "search", "state": "Unreachable", "agents": 3},
                    {"route": "all", "kind": "Backend", "name": "lake", "state": "Healthy"}]}}),
        )
    }

    #[test]
    fn a_table_says_what_is_ready_and_words_say_what_is_not() {
        let objects = [pipeline("jobs", 2, "True", "Ready"), pipeline("logs", 2, "False", "BackendUnreachable")];
        let rows: Vec<Row> = objects.iter().map(row).collect();
        assert_eq!(
            human(&rows, false),
            "NAME   READY   REASON               AGENTS   BACKENDS\n\
             jobs   True    Ready                11/12    1 unreachable, 1 healthy\n\
             logs   False   BackendUnreachable   11/12    1 unreachable, 1 healthy\n\
             \nlogs: BackendUnreachable, in words\n"
        );
        assert!(human(&rows, true).starts_with("NAMESPACE   NAME   READY"));
        assert_eq!([rows[0].is_ready(), rows[1].is_ready()], [true, false]);
        let report: Value = serde_json::from_str(&json(&rows)).unwrap();
        assert_eq!(report["pipelines"][1]["reason"], "BackendUnreachable");
        assert_eq!(report["pipelines"][1]["agents"]["desired"], 12);
    }

    #[test]
    fn a_status_of_an_older_generation_and_none_at_all_are_no_answer() {
        let never =
            recorded(Kind::MonitoringPipeline, json!({"metadata": {"name": "new", "generation": 1}, "spec": {}}));
        for object in [pipeline("jobs", 3, "True", "Ready"), never] {
            let row = row(&object);
            assert_eq!((row.ready, &*row.reason), ("Unknown", NOT_SEEN));
            assert!(row.message.contains(&format!("generation {}", object.generation)));
        }
        assert_eq!(human(&[], false), "no pipeline\n");
    }
}
