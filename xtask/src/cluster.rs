//! A real Kubernetes of two nodes for tests, on this machine.
//!
//! How it is built and run is the business of the crate `tests`; this step builds its program and runs it.

use crate::workspace::{Workspace, must_succeed};

/// What `cargo xtask cluster` can be told.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Action {
    /// Builds what is missing (once, about ten minutes) and starts the cluster unless it runs
    Up,
    /// Ends the cluster and removes all of it but what was built
    Down,
    /// Says what runs, and what a run that was killed left
    Status {
        /// How to say it
        #[arg(short, long, value_parser = ["human", "json"], default_value = "human")]
        output: String,
    },
    /// Makes an image of one static program and puts it on both nodes (`imagePullPolicy: Never`)
    Load {
        /// The name of the image, such as `spillway.test/agent:1`
        name: String,
        /// The program
        program: std::path::PathBuf,
    },
    /// Calls kubectl as administrator: `cargo xtask cluster kubectl get pods -A`
    Kubectl {
        /// Passed on
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
}

/// Runs one action.
pub(crate) fn run(workspace: &Workspace, action: &Action) -> anyhow::Result<()> {
    let mut command =
        workspace.cargo(&["run", "-q", "--locked", "-p", "spillway-tests", "--bin", "spillway-cluster", "--"]);
    match action {
        Action::Up => command.arg("up"),
        Action::Down => command.arg("down"),
        Action::Status { output } => command.args(["status", output]),
        Action::Load { name, program } => command.arg("load").arg(name).arg(std::path::absolute(program)?),
        Action::Kubectl { rest } => command.arg("kubectl").args(rest),
    };
    must_succeed(&mut command)
}
