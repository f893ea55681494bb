//! A real Kubernetes of two nodes for tests, on this machine.
//!
//! How it is built and run is the business of the crate `tests`; this step builds its program and runs it.

use std::path::PathBuf;

use anyhow::Context as _;

use crate::workspace::{Workspace, must_succeed};

/// What `cargo xtask cluster` can be told.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Action {
    /// Builds what is missing (once, about ten minutes) and starts the cluster unless it runs
    Up,
    /// Starts the cluster unless it runs, and runs the tests that need its nodes; it stays
    Test {
        /// Passed on to the tests, for example a part of a name
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
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
        program: PathBuf,
    },
    /// Builds agent and operator as static programs and puts them on both nodes under the names that the chart gives
    Images,
    /// Calls kubectl as administrator: `cargo xtask cluster kubectl get pods -A`
    Kubectl {
        /// Passed on
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
}

/// Runs one action.
pub(crate) fn run(workspace: &Workspace, action: &Action) -> anyhow::Result<()> {
    match action {
        Action::Test { rest } => return test(workspace, rest),
        Action::Images => return images(workspace),
        _ => {}
    }
    let mut command =
        workspace.cargo(&["run", "-q", "--locked", "-p", "spillway-tests", "--bin", "spillway-cluster", "--"]);
    match action {
        Action::Up | Action::Test { .. } | Action::Images => command.arg("up"),
        Action::Down => command.arg("down"),
        Action::Status { output } => command.args(["status", output]),
        Action::Load { name, program } => command.arg("load").arg(name).arg(std::path::absolute(program)?),
        Action::Kubectl { rest } => command.arg("kubectl").args(rest),
    };
    must_succeed(&mut command)
}

fn test(workspace: &Workspace, rest: &[String]) -> anyhow::Result<()> {
    run(workspace, &Action::Up)?;
    let agent = static_program(workspace, "spillway-agent")?;
    let mut command = workspace.cargo(&["test", "--locked", "-p", "spillway-tests", "--features", "cluster"]);
    command.args(["--test", "cluster", "--"]).args(rest).env("SPILLWAY_STATIC_AGENT", agent);
    must_succeed(&mut command)
}

/// The names stand in `charts/spillway/values.yaml`.
fn images(workspace: &Workspace) -> anyhow::Result<()> {
    for short in ["agent", "operator"] {
        let program = static_program(workspace, &format!("spillway-{short}"))?;
        let name = format!("registry.spillway.dev/spillway/{short}:{}", env!("CARGO_PKG_VERSION"));
        run(workspace, &Action::Load { name, program })?;
    }
    Ok(())
}

/// Links a program of ours once more, statically: images have no libraries. Everything before the link is that of the
/// tests, and the program of the tests stays what it is.
fn static_program(workspace: &Workspace, name: &str) -> anyhow::Result<PathBuf> {
    let folder = workspace.target().join("static").join(name);
    if folder.exists() {
        std::fs::remove_dir_all(&folder).context("removing the static program of before")?;
    }
    std::fs::create_dir_all(&folder).context("making a folder for the static program")?;
    let mut command = workspace.cargo(&["rustc", "-q", "--locked", "-p", name, "--bin", name]);
    command.args(["--", "-C", "target-feature=+crt-static", "-C", "strip=symbols", "-o"]);
    // The compiler adds a part to the name, and says on standard error that it puts the program elsewhere.
    must_succeed(command.arg(folder.join(name)))?;
    let mut programs = std::fs::read_dir(&folder)?.flatten().map(|entry| entry.path());
    let made = programs.find(|path| path.extension().is_none()).context("no static program was made")?;
    let program = folder.join(name);
    std::fs::rename(made, &program)?;
    Ok(program)
}
