//! The release on the nodes of the cluster, taken away again.

use std::fs;
use std::io;

use anyhow::{Context as _, bail};

use super::kubectl;
use super::layout::{NODES, kubeconfig};
use crate::helm::{Helm, NAMESPACE, RELEASE};

/// Removes the release, its namespace, the kinds with all objects of theirs, and what agents left on the nodes. What is not
/// there is removed already.
pub fn clear() -> anyhow::Result<()> {
    let [_, helm] = Helm::installed().context("Helm is not installed")?;
    let home = tempfile::tempdir().context("making a folder for Helm")?;
    let words = ["uninstall", RELEASE, "-n", NAMESPACE, "--ignore-not-found"];
    let said = helm.call(home.path(), Some(&kubeconfig()), &words)?;
    if !said.ok {
        bail!("helm uninstall: {}", said.err.trim());
    }
    let absent = "--ignore-not-found";
    kubectl(&["delete", "namespace", NAMESPACE, absent, "--timeout=90s"])?;
    kubectl(&["delete", "crd", "-l", "app.kubernetes.io/part-of=spillway", absent, "--timeout=60s"])?;
    for node in &NODES {
        match fs::remove_dir_all(node.var_lib().join("spillway")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).context("removing what agents left");
            }
            _ => {}
        }
    }
    Ok(())
}
