//! Transforms by themselves: nanoseconds for an event of 400 bytes, beside the same over trees of `serde_json`.
//!
//! No process of the agent: a program of the crate that has them, built for release, which prints a line for each figure of each
//! run.

use std::process::Command;

use anyhow::Context as _;

use crate::bench::Bench;
use crate::bench::table::{Bar, Row};
use crate::workspace::{Workspace, must_succeed, output};

/// Measures transforms.
pub(super) fn run(workspace: &Workspace, bench: &Bench) -> anyhow::Result<Vec<Row>> {
    must_succeed(&mut workspace.cargo(&[
        "build",
        "--locked",
        "--release",
        "--package",
        "spillway-delivery",
        "--example",
        "transforms",
    ]))?;
    let program = workspace.target().join("release/examples/transforms");
    let figures = output(Command::new(program).arg((bench.scale.runs * 2 - 1).to_string()))?;
    let runs = |name: &str| -> anyhow::Result<Vec<f64>> {
        let lines = figures.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        lines.map(|figure| figure.parse().with_context(|| format!("the figure of {name}"))).collect()
    };
    let alone = |what: &str, name: &str, most: Option<f64>| {
        let what = format!("{what}: ns per event of 400 bytes");
        Ok::<_, anyhow::Error>(Row::alone(&what, &runs(name)?, 0, most.map_or(Bar::None, Bar::AtMost)))
    };
    let speedup = |what: &str, name: &str, trees: &str, bar: Bar| {
        let what = format!("{what}: events per microsecond, beside trees of `serde_json`");
        let of = |name: &str| Ok::<_, anyhow::Error>(runs(name)?.iter().map(|run| 1e3 / run).collect::<Vec<f64>>());
        Ok::<_, anyhow::Error>(Row::ratio(&what, &of(name)?, &of(trees)?, bar))
    };
    let rows = vec![
        alone("three edits (set, remove, rename)", "edits", Some(400.0))?,
        speedup("three edits", "edits", "edits-of-trees", Bar::AtLeast(4.0))?,
        alone("a condition on one field", "condition", Some(250.0))?,
        speedup("a condition on one field", "condition", "condition-of-trees", Bar::AtLeast(4.0))?,
        alone("`Redact` with five patterns that are not found", "redact-patterns", Some(1500.0))?,
        speedup("`Redact` with five patterns", "redact-patterns", "redact-of-trees", Bar::None)?,
        alone("`Redact` with five kinds that are not found", "redact-kinds", Some(1500.0))?,
        alone("`Redact` with a pattern that is found", "redact-found", None)?,
        alone("`Sample` by key", "sample", None)?,
        alone("`RateLimit` by key", "rate-limit", None)?,
        alone("`Deduplicate` by two fields", "deduplicate", None)?,
    ];
    rows.iter().for_each(|row| println!("{}", row.line()));
    Ok(rows)
}
