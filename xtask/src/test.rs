//! All tests by one command, with one line at the end that says what ran.
//!
//! Tests find what they need by themselves (temporary folders, free ports, certificates made on the spot). Set up here are
//! the agent's program, which the scenarios start as a real process: it lies beside them; and the real servers
//! (`cargo xtask servers`); last, the cluster of the tests on real nodes (`cargo xtask cluster test`). A test that cannot run
//! here is named at the end, and the command fails unless told otherwise.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context as _, bail};

use crate::stopwatch::Stopwatch;
use crate::workspace::{Workspace, must_succeed};
use crate::{cluster, servers};

/// What `cargo xtask test` can be told.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Arguments {
    /// Succeeds although tests were skipped, which are named all the same: any, or those on real nodes alone
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "any")]
    allow_skipped: Option<Allowed>,
    /// Passed on to `cargo test`, for example `-p spillway-delivery log::`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

/// Which tests may be skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Allowed {
    /// Any
    Any,
    /// Those that need the nodes of a cluster
    Nodes,
}

/// Runs every test of the workspace.
pub(crate) fn run_all(workspace: &Workspace) -> anyhow::Result<()> {
    run(workspace, &Arguments::default())
}

/// Runs the tests, without arguments of cargo those on nodes as well; fails when one fails, when one was ignored, and when none ran.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> anyhow::Result<()> {
    let watch = Stopwatch::start();
    let everything = arguments.rest.is_empty();
    if everything || arguments.rest.iter().any(|word| word == "spillway-tests") {
        // The same set of targets as `cargo test`, so that the agent's program and the tests share every build.
        must_succeed(&mut workspace.cargo(&["build", "--workspace", "--bins", "--tests", "--locked"]))?;
        // A server that cannot be had is a skipped test, not the end of all others.
        if let Err(error) = servers::run(workspace, &servers::Arguments::default()) {
            println!("    {error:#}");
        }
    }
    let skipped = Skipped::new(workspace)?;
    let mut command = workspace.cargo(&["test", "--locked", "--no-fail-fast"]);
    command.env(Skipped::VARIABLE, &skipped.path);
    if everything {
        command.arg("--workspace");
    }
    let mut child = command.args(&arguments.rest).stdout(Stdio::piped()).spawn().context("starting cargo test")?;
    let lines = BufReader::new(child.stdout.take().context("cargo test has no output")?).lines();
    let mut totals = Totals::default();
    for line in lines {
        let line = line.context("reading the output of cargo test")?;
        println!("{line}");
        totals.add(&line);
    }
    let status = child.wait().context("waiting for cargo test")?;
    println!();
    println!("{} passed, {} failed", totals.passed, totals.failed);
    println!("{} test programs and crates with examples, {watch}", totals.programs);
    let skipped = skipped.list();
    for line in &skipped {
        println!("skipped: {line}");
    }
    if !status.success() {
        bail!("cargo test failed ({status})");
    }
    if everything && (totals.passed == 0 || totals.ignored > 0) {
        bail!("{} tests ran and {} were ignored: all of them must run", totals.passed, totals.ignored);
    }
    if !skipped.is_empty() && arguments.allow_skipped != Some(Allowed::Any) {
        bail!("{} tests could not run here (`--allow-skipped` lets that pass)", skipped.len());
    }
    if everything { cluster::test_all(workspace, arguments.allow_skipped.is_some()) } else { Ok(()) }
}

/// The file that tests write to which cannot run.
struct Skipped {
    path: PathBuf,
}

impl Skipped {
    /// The variable by which tests know the file.
    const VARIABLE: &str = "SPILLWAY_SKIPPED";

    fn new(workspace: &Workspace) -> anyhow::Result<Self> {
        let path = workspace.target().join(format!("skipped-{}", std::process::id()));
        std::fs::create_dir_all(workspace.target()).context("making the target folder")?;
        std::fs::write(&path, "").context("making the list of skipped tests")?;
        Ok(Self { path })
    }

    fn list(&self) -> Vec<String> {
        let text = std::fs::read_to_string(&self.path).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

impl Drop for Skipped {
    fn drop(&mut self) {
        // The list has been read; a file that stays behind hurts nobody.
        std::fs::remove_file(&self.path).ok();
    }
}

/// Sums of the closing lines of test programs.
#[derive(Debug, Default, PartialEq)]
struct Totals {
    programs: u64,
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl Totals {
    /// Adds a line such as `test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; …`; other lines add nothing.
    fn add(&mut self, line: &str) {
        let Some(result) = line.strip_prefix("test result: ") else {
            return;
        };
        self.programs += 1;
        for part in result.split(['.', ';']) {
            let mut words = part.split_whitespace();
            let (Some(count), Some(what)) = (words.next().and_then(|word| word.parse::<u64>().ok()), words.next())
            else {
                continue;
            };
            match what {
                "passed" => self.passed += count,
                "failed" => self.failed += count,
                "ignored" => self.ignored += count,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_of_all_programs_are_summed() {
        let mut totals = Totals::default();
        totals.add("test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 7 filtered out; finished in 0.00s");
        totals.add("test log::tests::a_fact ... ok");
        totals
            .add("test result: FAILED. 40 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.20s");
        assert_eq!(totals, Totals { programs: 2, passed: 43, failed: 2, ignored: 1 });
    }
}
