//! Every manifest that a person may copy is one that the agent takes: folders of `examples/`, blocks of the documents. And
//! the commands that README.md gives to type by hand do what it says.

mod by_hand;

use std::fs;
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::workspace::{Workspace, must_succeed};

/// Checks every example with the agent itself, and runs the lines of README.md.
pub(crate) fn run(workspace: &Workspace) -> anyhow::Result<()> {
    let agent = workspace.build("spillway-agent", &[])?;
    let check =
        |path: &str| must_succeed(Command::new(&agent).current_dir(workspace.root()).args(["check", "-f", path]));
    let files = workspace.files()?;
    let mut folders: Vec<&str> =
        files.iter().filter_map(|path| path.strip_prefix("examples/")?.split('/').next()).collect();
    folders.dedup();
    if folders.is_empty() {
        bail!("examples/ is empty");
    }
    for folder in &folders {
        check(&format!("examples/{folder}"))?;
    }
    let mut blocks = 0;
    for document in files.iter().filter(|path| path.strip_suffix(".md").is_some()) {
        for manifest in manifests(&workspace.read(document)?) {
            blocks += 1;
            println!("    {document}: manifest {blocks}");
            let path = workspace.target().join(format!("xtask-manifest-{blocks}.yaml"));
            fs::write(&path, manifest).with_context(|| format!("writing {}", path.display()))?;
            check(&path.to_string_lossy())?;
        }
    }
    println!("    {} folders and {blocks} blocks of documents: the agent takes them", folders.len());
    by_hand::run(workspace, &agent)
}

/// Returns the YAML blocks of a document that are whole manifests.
fn manifests(document: &str) -> impl Iterator<Item = &str> {
    document
        .split("```yaml\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .filter(|block| block.contains("apiVersion: spillway.dev/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_manifests_are_taken_from_a_document() {
        let document =
            "text\n```yaml\nspec: {}\n```\n```sh\nls\n```\n```yaml\napiVersion: spillway.dev/v1alpha1\n```\n";
        assert_eq!(manifests(document).collect::<Vec<_>>(), ["apiVersion: spillway.dev/v1alpha1\n"]);
    }
}
