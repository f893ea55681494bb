//! Real servers for tests, installed once into the cache.
//!
//! What they are and how they are had is the business of the crate `tests`; this step builds its program and runs it.

use std::process::Command;

use crate::workspace::{Workspace, must_succeed};

/// What `cargo xtask servers` can be told.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Arguments {
    /// Names such as `elasticsearch`; all when none is given
    names: Vec<String>,
}

/// Installs what is not there yet into `SPILLWAY_CACHE` (default `~/.cache/spillway`), below `servers/`.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> anyhow::Result<()> {
    let program = workspace.build("spillway-servers", &["-q"])?;
    must_succeed(Command::new(program).args(&arguments.names))
}
