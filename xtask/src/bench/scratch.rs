//! The folder of one benchmark, on the disk that is measured; removed at the end.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// The folder. Dropping it removes it with all that is in it.
#[derive(Debug)]
pub(super) struct Scratch {
    root: PathBuf,
}

impl Scratch {
    /// Creates it, named after this process so that two benchmarks do not meet.
    pub(super) fn create(below: &Path) -> anyhow::Result<Self> {
        let root = below.join(std::process::id().to_string());
        fs::create_dir_all(&root).context("creating the folder of the benchmark")?;
        Ok(Self { root })
    }

    /// Returns a path in it.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Returns an empty folder in it: what it held before is gone.
    pub(super) fn fresh(&self, name: &str) -> anyhow::Result<PathBuf> {
        let folder = self.path(name);
        if folder.exists() {
            fs::remove_dir_all(&folder).context("clearing a folder of the benchmark")?;
        }
        fs::create_dir_all(&folder).context("creating a folder of the benchmark")?;
        Ok(folder)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed lies in the build folder, which `cargo clean` removes.
        drop(fs::remove_dir_all(&self.root));
    }
}

/// Returns every file below `folder`, sorted.
pub(super) fn files_below(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let (mut files, mut folders) = (Vec::new(), vec![folder.to_path_buf()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))? {
            let path = entry?.path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    Ok(files)
}
