//! The fuzz targets of `tests/fuzz/targets`, each for some seconds (cargo-fuzz, libFuzzer).
//!
//! They need a nightly toolchain, for the sanitizer. Not a step of CI: the property tests of
//! `tests/fuzz/tests`, which have the same bodies, are. What a run finds that is new goes to the cache, so that the next one goes on
//! from there; an input that breaks something is left in `tests/fuzz/targets/artifacts`.

use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

use crate::tools::{Tool, cache_folder, installed};
use crate::workspace::{Workspace, must_succeed};

const FUZZ: Tool = Tool { name: "cargo-fuzz", version: "0.13.2" };

/// Where the targets are.
const TARGETS: &str = "tests/fuzz/targets";
/// Most bytes of an input, as the bodies have it.
const BYTES_MAX: u64 = 16 << 10;
/// Seconds after which one input counts as a hang.
const HANG_SECONDS: u64 = 10;

/// What `cargo xtask fuzz` can be told.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  cargo xtask fuzz\n  cargo xtask fuzz json splice --seconds 600")]
pub(crate) struct Arguments {
    /// The targets; all of them where none is named
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
    /// How long each runs
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
}

/// Runs what was asked for.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> anyhow::Result<()> {
    if !has_nightly() {
        bail!("there is no nightly toolchain; run: rustup toolchain install nightly");
    }
    let all = all(workspace)?;
    if let Some(unknown) = arguments.targets.iter().find(|target| !all.contains(target)) {
        bail!("there is no target `{unknown}`; there are: {}", all.join(", "));
    }
    let targets = if arguments.targets.is_empty() { &all } else { &arguments.targets };
    fuzz(workspace, targets, arguments.seconds)
}

fn has_nightly() -> bool {
    let mut asked = Command::new("rustup");
    asked.args(["run", "nightly", "rustc", "--version"]).stdout(Stdio::null()).stderr(Stdio::null());
    asked.status().is_ok_and(|status| status.success())
}

fn all(workspace: &Workspace) -> anyhow::Result<Vec<String>> {
    let files = std::fs::read_dir(workspace.root().join(TARGETS)).context("reading the fuzz targets")?;
    let names = files.filter_map(|file| Some(file.ok()?.file_name().to_str()?.strip_suffix(".rs")?.to_owned()));
    let mut names: Vec<String> = names.collect();
    names.sort();
    Ok(names)
}

fn fuzz(workspace: &Workspace, targets: &[String], seconds: u64) -> anyhow::Result<()> {
    let (program, cache) = (installed(&[FUZZ])?.join(FUZZ.name), cache_folder()?);
    let build = cache.join("fuzz-target");
    for target in targets {
        let found = cache.join("fuzz").join(target);
        std::fs::create_dir_all(&found).with_context(|| format!("creating {}", found.display()))?;
        println!("    {target}, for {seconds} s");
        let mut command = Command::new(&program);
        command.current_dir(workspace.root()).args(["fuzz", "run", "--fuzz-dir", TARGETS, "--target-dir"]).arg(&build);
        command.arg(target).arg(&found).arg(workspace.root().join("tests/fuzz/corpus").join(target)).arg("--");
        command.arg(format!("-max_total_time={seconds}")).arg(format!("-max_len={BYTES_MAX}"));
        command.args([format!("-timeout={HANG_SECONDS}"), "-verbosity=0".into(), "-print_final_stats=1".into()]);
        // The build folder of this run is none of a sanitizer.
        command
            .env("RUSTUP_TOOLCHAIN", "nightly")
            .env_remove("CARGO_TARGET_DIR")
            .env_remove("CARGO")
            .env_remove("RUSTC");
        must_succeed(&mut command)
            .with_context(|| format!("target `{target}`; what broke it is in {TARGETS}/artifacts"))?;
    }
    Ok(())
}
