//! Real servers: installed once into the cache, started by tests as processes of their own.
//!
//! # Guarantees
//! - A package lies in `SPILLWAY_CACHE/servers/<name>-<key>` whole or not at all: it is built in a draft folder beside it
//!   and renamed at the end, under a lock. A run that was killed leaves a draft, which the next one removes.
//! - A started process is ended by its own number, with all that it started, when its owner is dropped.
//! - A test that cannot run is never one that passed: [`skip`].
//!
//! # Must not know
//! Where registries are: the clients (`mvn`, `apt-get`, `pip`, `cargo`) are called as they are set up.
//!
//! # A new server
//! One file below with a [`Package`], one line in [`PACKAGES`].

pub mod alertmanager;
pub mod java;
pub mod kube_api;
pub mod opensearch_security;
pub mod opentelemetry;
pub mod process;
pub mod rsyslog;
pub mod search;
pub mod seaweedfs;
pub mod tls;
pub mod tools;
mod vendor;

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rustix::fs::{FlockOperation, flock};

use crate::cluster::package as kubernetes;
use tokio::time::Instant;

/// The variable that names the file which skipped tests are written to; set by `cargo xtask test`.
const SKIPPED_VARIABLE: &str = "SPILLWAY_SKIPPED";

/// Every package, in the order they are installed.
pub const PACKAGES: &[Package] = &[
    search::ELASTICSEARCH_8,
    search::OPENSEARCH_2,
    search::ELASTICSEARCH_9,
    search::OPENSEARCH_3,
    opensearch_security::PACKAGE,
    alertmanager::PACKAGE,
    seaweedfs::PACKAGE,
    opentelemetry::PACKAGE,
    rsyslog::PACKAGE,
    kubernetes::PACKAGE,
    crate::helm::PACKAGE,
];

/// What tests need and the machine does not have: installed once.
#[derive(Debug, Clone, Copy)]
pub struct Package {
    /// What it is.
    pub name: &'static str,
    /// Version and whatever else changes what is in the folder: another key is another folder.
    pub key: &'static str,
    /// Says why this package is of no use on this machine, if so. Installs nothing.
    pub hindrance: fn(&Self) -> Option<String>,
    /// Fills an empty folder with this package.
    pub install: fn(&Self, &Path) -> anyhow::Result<()>,
}

impl Package {
    /// Returns the folder where it lies, whether it is there or not.
    pub fn folder(&self) -> PathBuf {
        cache().join(format!("{}-{}", self.name, self.key))
    }

    /// Returns the folder when it is installed.
    pub fn installed(&self) -> Option<PathBuf> {
        Some(self.folder()).filter(|folder| folder.is_dir())
    }

    /// Installs it unless it is there, and says on standard output what it does.
    pub fn ensure(&self) -> anyhow::Result<PathBuf> {
        let folder = self.folder();
        let what = format!("{} {}", self.name, self.key);
        if folder.is_dir() {
            println!("    {what}: there");
            return Ok(folder);
        }
        let since = Instant::now();
        fs::create_dir_all(cache()).with_context(|| format!("making {}", cache().display()))?;
        let lock = File::create(cache().join(format!(".lock-{}-{}", self.name, self.key))).context("making a lock")?;
        flock(&lock, FlockOperation::LockExclusive).context("waiting for another installation")?;
        if folder.is_dir() {
            println!("    {what}: installed meanwhile");
            return Ok(folder);
        }
        println!("    {what}: installing into {}", folder.display());
        let draft = cache().join(format!(".draft-{}-{}", self.name, self.key));
        if draft.exists() {
            fs::remove_dir_all(&draft).context("removing a draft that was left")?;
        }
        fs::create_dir_all(&draft).context("making a draft folder")?;
        (self.install)(self, &draft).with_context(|| format!("installing {what}"))?;
        fs::rename(&draft, &folder).context("giving the draft its name")?;
        println!("    {what}: done, {} s", since.elapsed().as_secs());
        Ok(folder)
    }
}

/// Returns the folder of all servers: below `SPILLWAY_CACHE`, or below `~/.cache/spillway`.
pub fn cache() -> PathBuf {
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/tmp".into())).join(".cache/spillway");
    std::env::var_os("SPILLWAY_CACHE").map_or_else(home, PathBuf::from).join("servers")
}

/// Returns whether [`skip`] has a list to write to.
pub fn skips_are_listed() -> bool {
    std::env::var_os(SKIPPED_VARIABLE).is_some()
}

/// Notes that a test cannot run here, and why. `cargo xtask test` shows it at its end and fails, unless told otherwise;
/// under plain `cargo test` the test fails.
pub fn skip(test: &str, reason: &str) {
    let Some(path) = std::env::var_os(SKIPPED_VARIABLE) else {
        panic!("{test} cannot run here: {reason}");
    };
    let mut file = File::options().append(true).create(true).open(path).expect("the list of skipped tests");
    writeln!(file, "{test}: {reason}").expect("a line in the list of skipped tests");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_keys_are_parts_of_one_folder() {
        for package in PACKAGES {
            let name = format!("{}-{}", package.name, package.key);
            assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)), "{name}");
            assert_eq!(PACKAGES.iter().filter(|other| other.folder() == package.folder()).count(), 1, "{name}");
        }
    }
}
