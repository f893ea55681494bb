//! Tools of others, installed once, in a pinned version, into the cache outside the work tree: `$SPILLWAY_CACHE/tools`, else
//! `~/.cache/spillway/tools`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

use crate::workspace::{must_succeed, output};

/// A tool that is a package of its own name.
#[derive(Debug)]
pub(crate) struct Tool {
    /// The package and the program.
    pub(crate) name: &'static str,
    /// Its version.
    pub(crate) version: &'static str,
}

/// Returns the folder of programs, after those of `tools` were installed whose pinned version is not there yet. They share
/// one build, since most of what they are made of is the same, and are hardly optimized: they run for seconds.
pub(crate) fn installed(tools: &[Tool]) -> anyhow::Result<PathBuf> {
    let cache = cache_folder()?;
    let (root, build) = (cache.join("tools"), cache.join("tools-build"));
    let programs = root.join("bin");
    let is_there = |tool: &Tool| version_of(&programs.join(tool.name)).is_some_and(|version| version == tool.version);
    for Tool { name, version } in tools.iter().filter(|tool| !is_there(tool)) {
        println!("    installing {name} {version} (once; takes minutes)");
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.args(["install", "--quiet", "--locked", "--force", name, "--version", version, "--root"]).arg(&root);
        command
            .args(["--profile", "dev"])
            .env("CARGO_PROFILE_DEV_DEBUG", "false")
            .env("CARGO_PROFILE_DEV_OPT_LEVEL", "1");
        must_succeed(command.current_dir(&cache).env("CARGO_TARGET_DIR", &build))?;
    }
    if build.is_dir() {
        std::fs::remove_dir_all(&build).with_context(|| format!("removing {}", build.display()))?;
    }
    Ok(programs)
}

fn version_of(program: &Path) -> Option<String> {
    let text = output(Command::new(program).arg("--version")).ok()?;
    text.split_whitespace().nth(1).map(str::to_owned)
}

/// Returns the folder of everything that outlives a work tree.
pub(crate) fn cache_folder() -> anyhow::Result<PathBuf> {
    let folder = match std::env::var_os("SPILLWAY_CACHE") {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(std::env::var_os("HOME").context("neither SPILLWAY_CACHE nor HOME is set")?)
            .join(".cache/spillway"),
    };
    std::fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    Ok(folder)
}
