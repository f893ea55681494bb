//! The steps that are one cargo command each: format, lints, documentation, every crate alone.

use anyhow::Context as _;

use crate::workspace::{Workspace, must_succeed};

/// Checks the format of every file.
pub(crate) fn fmt(workspace: &Workspace) -> anyhow::Result<()> {
    must_succeed(&mut workspace.cargo(&["fmt", "--all", "--", "--check"])).context("`cargo fmt` mends it")
}

/// Runs clippy over everything there is to compile.
pub(crate) fn clippy(workspace: &Workspace) -> anyhow::Result<()> {
    let all = ["clippy", "--workspace", "--all-targets", "--all-features", "--locked", "--", "-D", "warnings"];
    must_succeed(&mut workspace.cargo(&all))
}

/// Builds the documentation of our own crates.
pub(crate) fn doc(workspace: &Workspace) -> anyhow::Result<()> {
    let mut command = workspace.cargo(&["doc", "--workspace", "--no-deps", "--document-private-items", "--locked"]);
    must_succeed(command.env("RUSTDOCFLAGS", "-D warnings"))
}

/// Checks each crate without the features that its neighbours switch on for it, and `backends` without its clients.
pub(crate) fn alone(workspace: &Workspace) -> anyhow::Result<()> {
    for member in workspace.members()? {
        let manifest = format!("{member}/Cargo.toml");
        println!("    {member}");
        must_succeed(&mut workspace.cargo(&["check", "--quiet", "--locked", "--manifest-path", &manifest]))?;
    }
    println!("    backends, without `client`");
    let settings_only = ["check", "--quiet", "--locked", "-p", "spillway-backends", "--no-default-features"];
    must_succeed(&mut workspace.cargo(&settings_only))
}
