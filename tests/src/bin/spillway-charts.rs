//! Renders the kustomize base from the chart: called by `cargo xtask generate`.

#![expect(clippy::print_stdout, reason = "a program that talks to a person")]

use std::fs;
use std::process::ExitCode;

use anyhow::Context as _;
use spillway_tests::helm::{Helm, PACKAGE, kustomize_base, root};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    if let Some(hindrance) = (PACKAGE.hindrance)(&PACKAGE) {
        println!("    charts/kustomize is left as it is: {hindrance}");
        return Ok(());
    }
    PACKAGE.ensure()?;
    let [helm, _] = Helm::installed().context("Helm is installed")?;
    let home = tempfile::tempdir().context("a folder of its own")?;
    let (path, text) = (root().join("charts/kustomize/spillway.yaml"), kustomize_base(&helm, home.path())?);
    if fs::read_to_string(&path).is_ok_and(|present| present == text) {
        return Ok(());
    }
    fs::write(&path, text).context("writing the kustomize base")?;
    println!("    written: charts/kustomize/spillway.yaml");
    Ok(())
}
