//! Files that follow from code: written by `generate`, compared by `generate --check`, never edited by hand.
//!
//! | files | follow from |
//! | --- | --- |
//! | `crds/*.yaml` | the kinds in `crds/src/kinds` |
//! | `docs/reference/<kind>.md` | the kinds |
//! | `charts/spillway-crds/templates/*.yaml` | the kinds |
//! | `charts/spillway/charts/spillway-crds/*` | the chart `charts/spillway-crds`, so that the other installs without a step before |
//! | `charts/spillway/files/secret-references.yaml` | the kinds: where a key of a Secret is named |
//! | `charts/argocd/argocd-cm.yaml` | `charts/argocd/health.lua` |
//! | `charts/*/README.md`, the table of values | the comments in `values.yaml` |
//! | `charts/kustomize/spillway.yaml` | the chart, rendered by Helm (not part of `--check`: a test of the crate `tests` compares it) |
//! | `docs/reference/backends/*.md` | the list of backends, the schema of each, and `page.md` and `full.yaml` in its folder |
//!
//! The code they follow from is the `crds` crate with all of Kubernetes' types below it. So that every other command
//! builds in seconds, this one alone is behind the feature `generate`: without it the command runs itself again with it.

#[cfg(feature = "generate")]
mod charts;
#[cfg(feature = "generate")]
mod pages;

use crate::workspace::Workspace;

/// What `cargo xtask generate` can be told.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Writes nothing; fails when a file differs from what would be written
    #[arg(long)]
    check: bool,
}

/// Compares the generated files, writes nothing.
pub(crate) fn check(workspace: &Workspace) -> anyhow::Result<()> {
    run(workspace, &Arguments { check: true })
}

/// Runs this command again, built with the feature that it needs. Built as part of the whole workspace, so that the
/// crates below are those of every other step and are compiled once.
#[cfg(not(feature = "generate"))]
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> anyhow::Result<()> {
    let program = workspace.build("xtask", &["--features", "xtask/generate"])?;
    let mut command = std::process::Command::new(program);
    command.arg("generate").args(arguments.check.then_some("--check")).current_dir(workspace.root());
    crate::workspace::must_succeed(&mut command)
}

/// Writes or compares every generated file.
#[cfg(feature = "generate")]
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> anyhow::Result<()> {
    let mut changed = Vec::new();
    let kinds = spillway_crds::crd_yaml();
    let charts = charts::all(workspace, &kinds)?;
    let crds = kinds.into_iter().map(|(name, text)| (format!("crds/{name}"), text));
    for (path, text) in crds.chain(pages::all(workspace)?).chain(charts) {
        if workspace.read(&path).is_ok_and(|present| present == text) {
            continue;
        }
        if !arguments.check {
            let path = workspace.root().join(&path);
            path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
            std::fs::write(path, text)?;
        }
        changed.push(path);
    }
    match (changed.is_empty(), arguments.check) {
        (true, _) => println!("    every generated file is up to date"),
        (false, false) => println!("    written: {}", changed.join(", ")),
        (false, true) => anyhow::bail!("not up to date: {}; run `cargo xtask generate`", changed.join(", ")),
    }
    if arguments.check {
        return Ok(());
    }
    let program = workspace.build("spillway-charts", &["-q"])?;
    crate::workspace::must_succeed(&mut std::process::Command::new(program))
}
