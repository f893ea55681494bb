//! `replay` and `jobs`: bounded deliveries of a running agent, begun, told and ended.

use std::fmt::Write;
use std::io::{self, IsTerminal};
use std::process::ExitCode;

use anyhow::Context;
use serde::Deserialize;
use serde_json::json;
use spillway_delivery::deliver::jobs::{Job, Replayed};
use spillway_delivery::ledger::{JobReport, JobState};

use crate::ask::Asker;
use crate::cli::{CancelFlags, JobsCommand, JobsFlags, Output, ReplayFlags};
use crate::dead_letters::full_name;
use crate::exit::{self, Failure};
use crate::status::{Paint, StatusReport, bytes, counted, plain, time};
use crate::table::{self, Cell, Column, Lean, Mood};

/// Does what was asked of `jobs`.
pub fn run(command: &JobsCommand) -> Result<ExitCode, Failure> {
    match command {
        JobsCommand::List(flags) => list(flags),
        JobsCommand::Cancel(flags) => cancel(flags),
    }
}

/// Begins a replay, or says what it would send.
pub fn replay(flags: &ReplayFlags) -> Result<ExitCode, Failure> {
    let request = json!({
        "pipeline": full_name(&flags.pipeline),
        "route": flags.route,
        "from": flags.from,
        "to": flags.to,
        "backend": flags.backend,
        "dryRun": flags.dry_run,
    });
    let replayed: Replayed = understood(&Asker::new(&flags.agent)?.post("/v1/replay", &request)?)?;
    let text = match flags.output {
        Output::Json => serde_json::to_string_pretty(&replayed).unwrap_or_default() + "\n",
        Output::Human => {
            let Replayed { from, end, events, bytes: size, backends, .. } = &replayed;
            let range = format!("sequences {from} to {end}, not included");
            let what = format!("{} ({}), {range}, to {}", counted(*events, "event"), bytes(*size), backends.join(", "));
            if flags.dry_run { format!("would send {}\n", plain(&what)) } else { begun(&plain(&what), &replayed.jobs) }
        }
    };
    exit::to_stdout(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// Says what begins.
pub(crate) fn begun(what: &str, jobs: &[Job]) -> String {
    let mut text = format!("sending {what}\n");
    for job in jobs {
        let line = format!("job {}: {} to {}, {}", job.id, job.route, job.backend, counted(job.selected, "event"));
        text.push_str(&plain(&line));
        text.push('\n');
    }
    text + "how far it is: spillway-agent jobs list\n"
}

/// Reads an answer of the agent.
pub(crate) fn understood<T: for<'a> Deserialize<'a>>(answer: &[u8]) -> Result<T, Failure> {
    let read = serde_json::from_slice(answer).context("the agent answers what this version does not know");
    read.map_err(|error| Failure::usage("status-answer", error))
}

fn list(flags: &JobsFlags) -> Result<ExitCode, Failure> {
    let report: StatusReport = understood(&Asker::new(&flags.agent)?.get("/v1/status")?)?;
    let name = |namespace: &str, name: &str| format!("{namespace}/{name}");
    let jobs: Vec<(String, JobReport)> = report
        .pipelines
        .into_iter()
        .flat_map(|pipeline| {
            let name = name(&pipeline.namespace, &pipeline.name);
            pipeline.jobs.into_iter().map(move |job| (name.clone(), job))
        })
        .collect();
    let text = match flags.output {
        Output::Json => {
            let told: Vec<_> = jobs.iter().map(|(pipeline, job)| json!({ "pipeline": pipeline, "job": job })).collect();
            serde_json::to_string_pretty(&told).unwrap_or_default() + "\n"
        }
        Output::Human => human(&jobs, Paint::on(io::stdout().is_terminal())),
    };
    exit::to_stdout(&text)?;
    Ok(ExitCode::SUCCESS)
}

const COLUMNS: [Column; 10] = [
    ("JOB", Lean::Left),
    ("KIND", Lean::Left),
    ("PIPELINE", Lean::Left),
    ("ROUTE", Lean::Left),
    ("BACKEND", Lean::Left),
    ("BEGUN", Lean::Left),
    ("STATE", Lean::Left),
    ("DELIVERED", Lean::Right),
    ("REJECTED", Lean::Right),
    ("LEFT", Lean::Right),
];

fn human(jobs: &[(String, JobReport)], paint: Paint) -> String {
    if jobs.is_empty() {
        return "no jobs\n".into();
    }
    let rows: Vec<[Cell; 10]> = jobs
        .iter()
        .map(|(pipeline, job)| {
            let delivered = job.delivered_events + job.duplicate_events;
            [
                plain(&job.id).into(),
                plain(&job.kind).into(),
                plain(pipeline).into(),
                plain(&job.route).into(),
                plain(&job.backend).into(),
                time(job.created).into(),
                state(job),
                format!("{delivered} of {}", job.selected_events).into(),
                (job.rejected_events + job.dropped_events).to_string().into(),
                job.held_events.to_string().into(),
            ]
        })
        .collect();
    let mut text = table::lines(&COLUMNS, &rows, paint).join("\n") + "\n";
    for (_, job) in jobs {
        if let Some(error) = &job.last_error {
            let what = if job.state == JobState::Failed { "failed" } else { "tries again" };
            write!(text, "\njob {} {what}: {}\n", plain(&job.id), plain(error)).unwrap_or_default();
        }
    }
    text
}

fn state(job: &JobReport) -> Cell {
    match job.state {
        JobState::Waiting => "waiting".into(),
        JobState::Running => Cell::new("running", Mood::Good),
        JobState::Retrying => Cell::new("retrying", Mood::Bad),
        JobState::Done => Cell::new("done", Mood::Good),
        JobState::Cancelled => "cancelled".into(),
        JobState::Failed => Cell::new("failed", Mood::Bad),
    }
}

fn cancel(flags: &CancelFlags) -> Result<ExitCode, Failure> {
    Asker::new(&flags.agent)?.post("/v1/jobs/cancel", &json!({ "id": flags.id }))?;
    exit::to_stdout("told to end; what is under way lands first\n")?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_are_a_table_with_what_keeps_them() {
        let job = || JobReport {
            id: "3f21a9c0".into(),
            kind: "replay".into(),
            state: JobState::Retrying,
            route: "all".into(),
            backend: "api".into(),
            selected_events: 10,
            delivered_events: 3,
            duplicate_events: 1,
            held_events: 6,
            last_error: Some("connection refused\x1b".into()),
            ..JobReport::default()
        };
        let text = human(&[("default/jobs".into(), job())], Paint::plain());
        assert!(text.contains("3f21a9c0  replay  default/jobs  all    api"), "{text}");
        assert!(text.contains("retrying    4 of 10         0     6\n"), "{text}");
        assert!(text.ends_with("job 3f21a9c0 tries again: connection refused\u{fffd}\n"), "{text}");
        let failed = JobReport { state: JobState::Failed, last_error: Some("no such Backend".into()), ..job() };
        let text = human(&[("default/jobs".into(), failed)], Paint::plain());
        assert!(
            text.contains("failed    4 of 10") && text.ends_with("job 3f21a9c0 failed: no such Backend\n"),
            "{text}"
        );
        assert_eq!(human(&[], Paint::plain()), "no jobs\n");
    }
}
