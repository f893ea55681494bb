//! Runs of `cargo test`, shown and counted: what ran, what could not, and whether that is enough.
//!
//! # Guarantees
//! - A run in which nothing ran is no success, and neither is one in which a test was ignored.
//! - A test that cannot run is named: tests write themselves into a file that [`Count::VARIABLE`] names.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

use crate::stopwatch::Stopwatch;
use crate::workspace::Workspace;

/// What ran so far.
#[derive(Debug)]
pub(crate) struct Count {
    watch: Stopwatch,
    totals: Totals,
    /// The file that tests write to which cannot run.
    list: PathBuf,
}

impl Count {
    /// The variable by which tests know the file.
    pub(crate) const VARIABLE: &str = "SPILLWAY_SKIPPED";

    /// Returns one of nothing so far.
    pub(crate) fn start(workspace: &Workspace) -> anyhow::Result<Self> {
        let list = workspace.target().join(format!("skipped-{}", std::process::id()));
        std::fs::create_dir_all(workspace.target()).context("making the target folder")?;
        std::fs::write(&list, "").context("making the list of skipped tests")?;
        Ok(Self { watch: Stopwatch::start(), totals: Totals::default(), list })
    }

    /// Lets a command name what cannot run.
    pub(crate) fn of<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.env(Self::VARIABLE, &self.list)
    }

    /// Runs a command of `cargo test`, shows what it prints and counts what it ran.
    pub(crate) fn run(&mut self, command: &mut Command) -> anyhow::Result<()> {
        let mut child = self.of(command).stdout(Stdio::piped()).spawn().context("starting cargo test")?;
        let lines = BufReader::new(child.stdout.take().context("cargo test has no output")?).lines();
        let mut totals = Totals::default();
        for line in lines {
            let line = line.context("reading the output of cargo test")?;
            println!("{line}");
            totals.add(&line);
        }
        let status = child.wait().context("waiting for cargo test")?;
        self.totals.extend(&totals);
        if !status.success() {
            bail!("cargo test failed ({status})");
        }
        totals.must_be_all()
    }

    /// Fails when a test could not run.
    pub(crate) fn must_be_complete(&self) -> anyhow::Result<()> {
        match self.skipped().len() {
            0 => Ok(()),
            count => bail!("{count} tests could not run here (`--allow-skipped` lets that pass)"),
        }
    }

    /// Says what ran and what could not; the last lines of a command.
    pub(crate) fn say(&self) {
        let Totals { programs, passed, failed, .. } = self.totals;
        println!();
        self.skipped().iter().for_each(|line| println!("skipped: {line}"));
        println!("{programs} test programs and crates with examples, {}", self.watch);
        println!("{passed} passed, {failed} failed");
    }

    fn skipped(&self) -> Vec<String> {
        let text = std::fs::read_to_string(&self.list).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        // The list has been read; a file that stays behind hurts nobody.
        std::fs::remove_file(&self.list).ok();
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

    fn extend(&mut self, more: &Self) {
        self.programs += more.programs;
        self.passed += more.passed;
        self.failed += more.failed;
        self.ignored += more.ignored;
    }

    /// Fails when none ran, as with a name that is misspelt, and when one was ignored.
    fn must_be_all(&self) -> anyhow::Result<()> {
        match (self.passed, self.ignored) {
            (0, _) => bail!("no test ran: none has such a name"),
            (_, 0) => Ok(()),
            (_, ignored) => bail!("{ignored} tests were ignored: all of them must run"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: &str = "test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 7 filtered out; finished in 0.00s";
    const NONE: &str = "test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 9 filtered out; finished in 0.00s";

    fn totals(lines: &[&str]) -> Totals {
        let mut totals = Totals::default();
        lines.iter().for_each(|line| totals.add(line));
        totals
    }

    #[test]
    fn closing_lines_of_all_programs_are_summed() {
        let mut sum = totals(&[
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 7 filtered out; finished in 0.00s",
            "test log::tests::a_fact ... ok",
        ]);
        sum.extend(&totals(&[
            "test result: FAILED. 40 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.20s",
        ]));
        assert_eq!(sum, Totals { programs: 2, passed: 43, failed: 2, ignored: 1 });
    }

    #[test]
    fn a_run_of_nothing_and_a_run_with_less_than_all_are_no_success() {
        assert!(totals(&[ALL, NONE]).must_be_all().is_ok());
        let said = totals(&[NONE, NONE]).must_be_all().expect_err("nothing ran").to_string();
        assert!(said.contains("no test ran"), "{said}");
        let one_less = ALL.replace("0 ignored", "1 ignored");
        let said = totals(&[ALL, &one_less]).must_be_all().expect_err("one was ignored").to_string();
        assert!(said.contains("1 tests were ignored"), "{said}");
    }
}
