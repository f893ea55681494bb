//! A disk of its own at a folder of a node, which can be filled.
//!
//! # Guarantees
//! - It is in memory, and what fills it takes [`FULL_BYTES`] at most.
//! - Pods that mount the folder after it came have it; those that did before keep what they had, so that neither its coming
//!   nor its end takes anything from them. Dropped, the folder is what it was.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::PathBuf;

use anyhow::{Context as _, bail};

use super::layout::Node;
use super::processes;
use crate::servers::tools;

/// So much it has with space: a release wants a gigabyte free beside what its agents keep.
const ROOMY_BYTES: u64 = 1200 << 20;
/// So much it has when it is full: more than agents of tests keep.
pub const FULL_BYTES: u64 = 32 << 20;

/// The disk.
#[derive(Debug)]
pub struct Disk {
    node: Node,
    folder: String,
}

impl Disk {
    /// Mounts it, empty and with space.
    pub fn mount(node: &Node, folder: &str) -> anyhow::Result<Self> {
        // Of a run that was killed.
        unmount(node, folder);
        let mut mount = processes::in_node(node, "mount")?;
        mount.args(["-t", "tmpfs", "-o", &format!("size={ROOMY_BYTES},mode=755"), "tmpfs", folder]);
        tools::run(&mut mount)?;
        Ok(Self { node: *node, folder: folder.to_owned() })
    }

    /// Leaves no byte free.
    pub fn fill(&self) -> anyhow::Result<()> {
        self.resize(FULL_BYTES)?;
        let ballast = self.ballast()?;
        let mut file = File::create(&ballast).with_context(|| format!("making {}", ballast.display()))?;
        for size in [1 << 16, 1] {
            let zeros = vec![0; size];
            loop {
                match file.write_all(&zeros) {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::StorageFull => break,
                    Err(error) => return Err(error).context("filling a disk"),
                }
            }
        }
        Ok(())
    }

    /// Gives the space back.
    pub fn clear(&self) -> anyhow::Result<()> {
        fs::remove_file(self.ballast()?).context("removing what fills a disk")?;
        self.resize(ROOMY_BYTES)
    }

    fn resize(&self, bytes: u64) -> anyhow::Result<()> {
        let mut mount = processes::in_node(&self.node, "mount")?;
        tools::run(mount.args(["-o", &format!("remount,size={bytes}"), &self.folder]))
    }

    /// Returns the way from this machine to what fills it.
    fn ballast(&self) -> anyhow::Result<PathBuf> {
        let first = fs::read_to_string(self.node.folder().join("first")).context("the node has no first process")?;
        let root = PathBuf::from(format!("/proc/{first}/root"));
        if !root.join("proc").exists() {
            bail!("the node {} is gone", self.node.name);
        }
        Ok(root.join(self.folder.trim_start_matches('/')).join("ballast"))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        unmount(&self.node, &self.folder);
    }
}

/// Takes disks away that were mounted there.
fn unmount(node: &Node, folder: &str) {
    let unmounted = || tools::run(processes::in_node(node, "umount")?.args(["--lazy", folder]));
    while unmounted().is_ok() {}
}
