//! `trace`: one pod, step by step: why are its logs not there, and what to do about the first step that is broken.
//!
//! Expected flow: [`facts`] reads what there is once; [`walk`] goes from the pod over its node and agent to the pipelines that
//! take its logs, to who writes their status, and to their backends. [`walk`] is pure, so that every broken step is a test over recorded objects.
//!
//! # Guarantees
//! - What may not be looked at is `unknown`, never `ok`.
//! - Every pipeline that does not take the logs says why.
//!
//! # Limits
//! [`NOT_TAKING_MAX`] pipelines that do not take the logs are told.

mod controller;
pub mod facts;
mod pipeline;
mod pod;
mod selection;

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::anyhow;
use serde::Serialize;

use crate::cli::{ClusterFlags, Output, TraceFlags};
use crate::cluster::{self, Found};
use crate::exit::{self, Failure};
use facts::Facts;

/// Most pipelines that are told of which do not take the logs.
pub const NOT_TAKING_MAX: usize = 20;

/// How a step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It holds.
    Ok,
    /// It does not, and nothing gets past it.
    Broken,
    /// It could not be looked at.
    Unknown,
    /// Worth knowing.
    Note,
}

/// One step on the way of a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Which.
    pub step: &'static str,
    /// How it is.
    pub state: State,
    /// What was found.
    pub found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub todo: Option<String>,
}

#[derive(Serialize)]
struct Report<'a> {
    pod: String,
    broken: Option<&'a Step>,
    steps: &'a [Step],
}

impl Step {
    fn ok(step: &'static str, found: impl Into<String>) -> Self {
        Self { step, state: State::Ok, found: found.into(), todo: None }
    }

    fn note(step: &'static str, found: impl Into<String>) -> Self {
        Self { step, state: State::Note, found: found.into(), todo: None }
    }

    fn unknown(step: &'static str, found: impl Into<String>) -> Self {
        Self { step, state: State::Unknown, found: found.into(), todo: None }
    }

    fn broken(step: &'static str, found: impl Into<String>, todo: impl Into<String>) -> Self {
        Self { step, state: State::Broken, found: found.into(), todo: Some(todo.into()) }
    }
}

/// Prints every step, and returns 1 when one is broken.
pub fn run(cluster: &ClusterFlags, flags: &TraceFlags) -> Result<ExitCode, Failure> {
    let facts = cluster::ask(cluster, async |cluster| facts::read(&cluster, flags).await)?;
    if let Found::Unknown(why) = &facts.pod {
        return Err(Failure::new(anyhow!("pod {} cannot be looked at: {why}", facts.pod_name())));
    }
    let steps = walk(&facts);
    exit::to_stdout(&match flags.output {
        Output::Human => human(&facts, &steps),
        Output::Json => json(&facts, &steps),
    })?;
    Ok(exit::code(first_broken(&steps).is_none()))
}

/// Returns every step on the way of the pod's lines.
pub fn walk(facts: &Facts) -> Vec<Step> {
    let mut steps = pod::steps(facts);
    if let Found::There(pod) = &facts.pod {
        let (taking, told) = selection::steps(facts, pod);
        steps.extend(told);
        steps.push(controller::step(facts));
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
        steps.extend(taking.into_iter().flat_map(|one| pipeline::steps(facts, one, node)));
    }
    steps
}

fn first_broken(steps: &[Step]) -> Option<&Step> {
    steps.iter().find(|step| step.state == State::Broken)
}

fn human(facts: &Facts, steps: &[Step]) -> String {
    let width = steps.iter().map(|step| step.step.len()).max().unwrap_or(0);
    let mut text = String::new();
    for Step { step, state, found, todo } in steps {
        let word = match state {
            State::Ok => "ok",
            State::Broken => "BROKEN",
            State::Unknown => "unknown",
            State::Note => "note",
        };
        // Writing to a String cannot fail.
        _ = writeln!(text, "{word:<7}  {step:<width$}  {found}");
        if let Some(todo) = todo {
            _ = writeln!(text, "{:<7}  {:<width$}  -> {todo}", "", "");
        }
    }
    let end = match first_broken(steps) {
        Some(first) => format!("broken: {}: {}", first.step, first.found),
        None if steps.iter().any(|step| step.state == State::Unknown) => {
            "nothing broken in what could be looked at".to_owned()
        }
        None => format!("nothing broken: lines of {} reach their backends", facts.pod_name()),
    };
    format!("{text}\n{end}\n")
}

fn json(facts: &Facts, steps: &[Step]) -> String {
    let report = Report { pod: facts.pod_name(), broken: first_broken(steps), steps };
    serde_json::to_string_pretty(&report).unwrap_or_default() + "\n"
}

#[cfg(test)]
mod tests;
