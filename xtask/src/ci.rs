//! Every step of CI, in order of speed: what fails often and fast comes first.

use anyhow::Context as _;

use crate::stopwatch::Stopwatch;
use crate::workspace::Workspace;
use crate::{cargo_steps, demo, deny, examples, generate, invariants, test, tidy};

/// What `cargo xtask ci` can be told.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Leaves out the last step, `cargo xtask test`
    #[arg(long)]
    checks_only: bool,
}

type Step = (&'static str, fn(&Workspace) -> anyhow::Result<()>);

const CHECKS: &[Step] = &[
    ("fmt", cargo_steps::fmt),
    ("tidy", tidy::run),
    ("invariants", invariants::run),
    ("deny", deny::run),
    ("clippy", cargo_steps::clippy),
    ("generate --check", generate::check),
    ("doc", cargo_steps::doc),
    ("alone", cargo_steps::alone),
    ("examples", examples::run),
    ("demo", demo::run_default),
];

/// Runs the steps until one fails.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> anyhow::Result<()> {
    for (name, step) in CHECKS {
        run_step(workspace, name, *step)?;
    }
    if arguments.checks_only {
        return Ok(());
    }
    run_step(workspace, "test", test::run_all)
}

fn run_step(
    workspace: &Workspace,
    name: &str,
    step: impl FnOnce(&Workspace) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let watch = Stopwatch::start();
    println!("==> cargo xtask {name}");
    step(workspace).with_context(|| format!("step `cargo xtask {name}`"))?;
    println!("<== cargo xtask {name}: ok, {watch}");
    Ok(())
}
