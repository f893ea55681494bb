//! What the operator costs with a large cluster, `cargo xtask fleet`, and how soon it gives a pod its sidecar, `cargo xtask
//! reviews`. The measuring is the business of the crate `tests`.

use crate::workspace::{Workspace, must_succeed};

/// What is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) enum What {
    /// The controller, by many agents.
    Fleet,
    /// The webhook for pods, by many reviews.
    Reviews,
}

impl What {
    /// Returns the program that measures, and where its table is kept.
    fn program_and_table(self) -> (&'static str, &'static str) {
        match self {
            Self::Fleet => ("spillway-fleet", "docs/explanation/fleet.md"),
            Self::Reviews => ("spillway-reviews", "docs/explanation/injection.md"),
        }
    }
}

/// What such a command can be told.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Writes the table to its page in docs/explanation
    #[arg(long)]
    write: bool,
    /// Passed on, for example `--agents 100 --pipelines 1000 --pods 2000 --quiet-seconds 60`, or `--seconds 10`
    #[arg(last = true)]
    rest: Vec<String>,
}

/// Builds what is needed for release and measures.
pub(crate) fn run(workspace: &Workspace, what: What, arguments: &Arguments) -> anyhow::Result<()> {
    let (program, table) = what.program_and_table();
    println!("building for release (the first time takes minutes)");
    let build = ["build", "--locked", "--release", "-p", "spillway-operator", "-p", "spillway-tests", "--bins"];
    must_succeed(&mut workspace.cargo(&build))?;
    let release = workspace.target().join("release");
    let mut command = std::process::Command::new(release.join(program));
    command.arg("--operator").arg(release.join("spillway-operator")).args(&arguments.rest);
    if arguments.write {
        command.arg("--write").arg(workspace.root().join(table));
    }
    must_succeed(&mut command)
}
