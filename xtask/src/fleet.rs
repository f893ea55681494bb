//! What the operator costs with a large cluster: `cargo xtask fleet`. The measuring is the business of the crate `tests`.

use crate::workspace::{Workspace, must_succeed};

/// Where the table is kept.
const TABLE: &str = "docs/explanation/fleet.md";

/// What `cargo xtask fleet` can be told.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Writes the table to docs/explanation/fleet.md
    #[arg(long)]
    write: bool,
    /// Passed on, for example `--agents 100 --pipelines 1000 --pods 2000 --quiet-seconds 60`
    #[arg(last = true)]
    rest: Vec<String>,
}

/// Builds operator and stubs for release and measures.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> anyhow::Result<()> {
    println!("building for release (the first time takes minutes)");
    let build = ["build", "--locked", "--release", "-p", "spillway-operator", "-p", "spillway-tests", "--bins"];
    must_succeed(&mut workspace.cargo(&build))?;
    let release = workspace.target().join("release");
    let mut command = std::process::Command::new(release.join("spillway-fleet"));
    command.arg("--operator").arg(release.join("spillway-operator")).args(&arguments.rest);
    if arguments.write {
        command.arg("--write").arg(workspace.root().join(TABLE));
    }
    must_succeed(&mut command)
}
