//! The shape of the work tree: root, members, lock file, big files.

use std::collections::BTreeSet;

use crate::tidy::Finding;
use crate::workspace::Workspace;

/// Most visible entries of the root: `ls` is the architecture.
pub(super) const ROOT_ENTRIES_MAX: usize = 22;
/// Most crates of the workspace.
pub(super) const MEMBERS_MAX: usize = 11;
/// Most packages in `Cargo.lock`, ours included; raised only on purpose, with a line in `ARCHITECTURE.md`.
pub(super) const LOCK_PACKAGES_MAX: usize = 460;
/// Most bytes of one file.
pub(super) const FILE_BYTES_MAX: u64 = 1 << 20;

/// Checks the work tree.
pub(super) fn check(
    workspace: &Workspace,
    files: &[String],
    members: &[String],
    findings: &mut Vec<Finding>,
) -> anyhow::Result<()> {
    let root: BTreeSet<&str> = files.iter().filter_map(|path| path.split('/').next()).collect();
    let visible = root.iter().filter(|name| !name.starts_with('.')).count();
    if visible > ROOT_ENTRIES_MAX {
        findings.push(Finding::new(".", 1, format!("{visible} visible entries; at most {ROOT_ENTRIES_MAX}")));
    }
    if members.len() > MEMBERS_MAX {
        findings.push(Finding::new("Cargo.toml", 1, format!("{} crates; at most {MEMBERS_MAX}", members.len())));
    }
    for member in members {
        let path = format!("{member}/Cargo.toml");
        if !inherits_lints(&workspace.read(&path)?) {
            findings.push(Finding::new(&path, 1, "does not inherit the lints: `[lints]` with `workspace = true`"));
        }
    }
    findings.extend(over_budget(&workspace.read("Cargo.lock")?));
    for path in files {
        let bytes = std::fs::metadata(workspace.root().join(path))?.len();
        if bytes > FILE_BYTES_MAX {
            findings.push(Finding::new(path, 1, format!("{bytes} bytes; at most {FILE_BYTES_MAX}")));
        }
    }
    Ok(())
}

/// Returns what is wrong with how many packages a lock file names.
pub(super) fn over_budget(lock: &str) -> Option<Finding> {
    let packages = lock.lines().filter(|line| *line == "[[package]]").count();
    let text = format!("{packages} packages; the budget is {LOCK_PACKAGES_MAX}");
    (packages > LOCK_PACKAGES_MAX).then(|| Finding::new("Cargo.lock", 1, text))
}

/// Returns whether a manifest takes the lint table of the workspace.
pub(super) fn inherits_lints(manifest: &str) -> bool {
    let mut lines = manifest.lines().map(str::trim).skip_while(|line| *line != "[lints]").skip(1);
    lines.find(|line| !line.is_empty()) == Some("workspace = true")
}
