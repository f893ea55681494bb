//! Tests of pipelines: events, and what the manifests are to make of them; no agent, no cluster, no network.
//!
//! ```yaml
//! manifests: [pipelines/]
//! tests:
//! - name: an error goes to both
//!   pipeline: etch-line
//!   origin: {pod: etcher-0, labels: {app: etcher}}
//!   events:
//!   - event: {level: error, wafer: 7}
//!     expect: {routes: [lake, pager], fields: {site: fab12}}
//!   - json: '{"level": "debug"}'
//!     expect: {dropped: true}
//! ```
//!
//! # Guarantees
//! - What is tried is what an agent would run: the same compiler, and the code that a running pipeline goes through
//!   ([`Trial`]).
//! - Whatever is wrong in a file is told as in a manifest, with its place and the nearest name, before anything is tried; an
//!   expectation of a route that is not there is wrong, not failed.
//! - The events of a test go through one pipeline, in their order; each test begins anew. Time passes as the events say, whatever the
//!   clock does.
//!
//! # It must not know
//! Files: who calls has read them.
//!
//! # Limits
//! Those of a manifest ([`crate::manifest`]); an event has at most 1 MiB as anywhere.

mod expect;
mod file;
mod render;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use spillway_delivery::intake::Trial;
use spillway_delivery::transform::Action;

pub use file::read;
pub use render::{human, json};

use crate::compile::{Compiled, PipelinePlan};
use crate::manifest::ManifestError;
use crate::manifest::error::{Position, Problem, listed, quoted};
use crate::manifest::nearest::nearest;
use file::Given;

/// When the first event of a test is received: the first second of 2026, in nanoseconds of Unix time.
const RECEIVED: i64 = 1_767_225_600 * 1_000_000_000;

/// A file of tests.
#[derive(Debug)]
pub struct TestFile {
    /// Its name.
    pub file: Arc<str>,
    /// The manifests that it names, as they are written there.
    pub manifests: Vec<PathBuf>,
    tests: Vec<Test>,
}

/// One test.
#[derive(Debug)]
struct Test {
    name: String,
    position: Position,
    pipeline: String,
    pipeline_position: Position,
    given: Vec<Given>,
}

/// What came of one test.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// The file it is in.
    pub file: Arc<str>,
    /// The line at which it begins.
    pub line: usize,
    /// What it is called.
    pub name: String,
    /// What is not as it was expected; nothing where it passed.
    pub failures: Vec<String>,
    /// What of its pipeline it does not show.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<&'static str>,
}

/// Of a pipeline that joins lines.
const JOINS_LINES: &str =
    "`Multiline` joins lines where files are read: an event of a test stands for what was joined already";

/// Tries the tests of a file on compiled manifests; what is wrong in a test is among `errors`, and that one is not tried.
pub fn run(file: &TestFile, compiled: &Compiled, errors: &mut Vec<ManifestError>) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for (index, test) in file.tests.iter().enumerate() {
        let told = |problem: Problem| problem.of(&file.file, "");
        match test.plan(index, compiled) {
            Err(problem) => errors.push(told(problem)),
            Ok(plan) => {
                let wrong = test.wrong_names(index, plan);
                if wrong.is_empty() {
                    let (line, name) = (test.position.line, test.name.clone());
                    let is_joined = matches!(
                        plan.settings.transforms.first().map(|first| &first.action),
                        Some(Action::Multiline(_))
                    );
                    let (failures, note) = (test.run(plan), is_joined.then_some(JOINS_LINES));
                    outcomes.push(Outcome { file: file.file.clone(), line, name, failures, note });
                }
                errors.extend(wrong.into_iter().map(told));
            }
        }
    }
    outcomes
}

impl Test {
    /// Returns the pipeline that is tried: `name`, or `namespace/name`.
    fn plan<'c>(&self, index: usize, compiled: &'c Compiled) -> Result<&'c PipelinePlan, Problem> {
        let whole = |plan: &PipelinePlan| format!("{}/{}", plan.settings.namespace, plan.settings.name);
        let is_it = |plan: &&PipelinePlan| *plan.settings.name == *self.pipeline || whole(plan) == self.pipeline;
        let found: Vec<&PipelinePlan> = compiled.pipelines.iter().filter(is_it).collect();
        let field = format!("tests[{index}].pipeline");
        let problem =
            |message: &str| Problem::new(self.pipeline_position, &field, message).found(quoted(&self.pipeline));
        match &found[..] {
            [one] => Ok(one),
            [] => {
                let names: Vec<&str> = compiled.pipelines.iter().map(|plan| &*plan.settings.name).collect();
                let suggestion = nearest(&self.pipeline, names.iter().copied());
                let problem = problem("no pipeline without errors has this name");
                Err(problem.allowed(listed(names.iter().copied())).suggestion(suggestion))
            }
            several => {
                let names: Vec<String> = several.iter().map(|plan| whole(plan)).collect();
                Err(problem("several pipelines have this name").allowed(listed(names.iter().map(String::as_str))))
            }
        }
    }

    /// Returns what is wrong with routes that are expected.
    fn wrong_names(&self, index: usize, plan: &PipelinePlan) -> Vec<Problem> {
        let routes: Vec<&str> = plan.settings.routes.iter().map(|route| &*route.name).collect();
        let mut wrong = Vec::new();
        for (number, given) in self.given.iter().enumerate() {
            let field = format!("tests[{index}].events[{number}].expect.routes");
            for (name, position) in given.expected.routes.iter().flatten() {
                if !routes.contains(&&**name) {
                    let problem = Problem::new(*position, &field, "the pipeline has no such route").found(quoted(name));
                    let suggestion = nearest(name, routes.iter().copied());
                    wrong.push(problem.allowed(listed(routes.iter().copied())).suggestion(suggestion));
                }
            }
        }
        wrong
    }

    fn run(&self, plan: &PipelinePlan) -> Vec<String> {
        let trial = Trial::new(plan.settings.clone());
        let mut failures = Vec::new();
        let mut since = Duration::ZERO;
        for (number, Given { event, origin, after, expected }) in self.given.iter().enumerate() {
            since += *after;
            let tried = trial.take(event, origin, RECEIVED + since.as_nanos() as i64, since);
            let told = expected.failures(&tried);
            failures.extend(told.into_iter().map(|failure| format!("event {}: {failure}", number + 1)));
        }
        failures
    }
}

#[cfg(test)]
mod tests;
