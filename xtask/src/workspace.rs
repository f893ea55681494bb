//! The work tree: where it is, what belongs to it, and cargo called in it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

/// The work tree this command was built from.
#[derive(Debug)]
pub(crate) struct Workspace {
    root: PathBuf,
}

impl Workspace {
    /// Returns the work tree of the running `cargo xtask`.
    pub(crate) fn find() -> anyhow::Result<Self> {
        let own = std::env::var_os("CARGO_MANIFEST_DIR").context("not started by cargo: run it as `cargo xtask`")?;
        let root = Path::new(&own).parent().context("xtask lies in no workspace")?;
        Ok(Self { root: root.to_path_buf() })
    }

    /// Returns the folder of the workspace.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Returns a cargo command that runs in the workspace.
    pub(crate) fn cargo(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.args(arguments).current_dir(&self.root);
        command
    }

    /// Returns the folder cargo builds into: `CARGO_TARGET_DIR`, or `target`.
    pub(crate) fn target(&self) -> PathBuf {
        match std::env::var_os("CARGO_TARGET_DIR") {
            Some(folder) => self.root.join(folder),
            None => self.root.join("target"),
        }
    }

    /// Builds one program of the workspace and returns where it is. Built with the features of the whole workspace and of
    /// its tests (which `--examples` is for: there are none), so that what is below it is shared with every other step.
    pub(crate) fn build(&self, program: &str, more: &[&str]) -> anyhow::Result<PathBuf> {
        must_succeed(self.cargo(&["build", "--locked", "--workspace", "--examples", "--bin", program]).args(more))?;
        Ok(self.target().join("debug").join(program))
    }

    /// Returns the folders of the member crates, in the order of the root manifest.
    pub(crate) fn members(&self) -> anyhow::Result<Vec<String>> {
        let manifest = self.read("Cargo.toml")?;
        let list = manifest
            .split_once("members = [")
            .and_then(|(_, rest)| rest.split_once(']'))
            .context("Cargo.toml has no list of members")?;
        Ok(list.0.split(',').map(|name| name.trim().trim_matches('"').to_owned()).filter(|n| !n.is_empty()).collect())
    }

    /// Returns every file that is or would be committed, as sorted paths with `/` below the root.
    pub(crate) fn files(&self) -> anyhow::Result<Vec<String>> {
        let mut command = Command::new("git");
        command.args(["ls-files", "--cached", "--others", "--exclude-standard", "-z"]).current_dir(&self.root);
        let text = output(&mut command)?;
        let mut files: Vec<String> = text.split('\0').filter(|path| !path.is_empty()).map(str::to_owned).collect();
        files.retain(|path| self.root.join(path).is_file());
        files.sort();
        files.dedup();
        Ok(files)
    }

    /// Returns the text of a file below the root.
    pub(crate) fn read(&self, path: &str) -> anyhow::Result<String> {
        std::fs::read_to_string(self.root.join(path)).with_context(|| format!("reading {path}"))
    }
}

/// Runs a command with this terminal, fails when it fails.
pub(crate) fn must_succeed(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("starting {}", shown(command)))?;
    if !status.success() {
        bail!("`{}` failed ({status})", shown(command));
    }
    Ok(())
}

/// Runs a command, fails when it fails, returns what it printed.
pub(crate) fn output(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("starting {}", shown(command)))?;
    if !output.status.success() {
        bail!("`{}` failed ({}):\n{}", shown(command), output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("`{}` printed no text", shown(command)))
}

fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let words = std::iter::once(program).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}
