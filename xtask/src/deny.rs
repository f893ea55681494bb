//! Licences, bans and sources of every dependency (cargo-deny, `deny.toml`) and known advisories (cargo-audit).
//!
//! The two tools are installed as [`tools`](crate::tools) says. The advisory database cannot be fetched everywhere: it is read from a folder beside
//! the work tree, and its absence is said, not hidden.

use std::process::Command;

use crate::tools::{Tool, installed};
use crate::workspace::{Workspace, must_succeed};

const DENY: Tool = Tool { name: "cargo-deny", version: "0.20.2" };
const AUDIT: Tool = Tool { name: "cargo-audit", version: "0.22.2" };

/// Where the advisory database lies, seen from the work tree.
const ADVISORIES: &str = "../shared/advisory-db";

/// Checks all dependencies.
pub(crate) fn run(workspace: &Workspace) -> anyhow::Result<()> {
    let advisories = workspace.root().join(ADVISORIES);
    let audits = advisories.is_dir();
    let folder = installed(if audits { &[DENY, AUDIT] } else { &[DENY] })?;
    let mut command = Command::new(folder.join(DENY.name));
    command.current_dir(workspace.root()).args(["--locked", "check", "bans", "licenses", "sources"]);
    must_succeed(&mut command)?;
    if !audits {
        println!("    skipped: cargo audit, because there is no advisory database at {ADVISORIES}");
        return Ok(());
    }
    let mut command = Command::new(folder.join(AUDIT.name));
    command.current_dir(workspace.root()).arg("audit").arg("--db").arg(&advisories);
    must_succeed(command.args(["--no-fetch", "--stale"]))
}
