//! Logs in the data directory that no pipeline claims: their manifest went while no process ran, so nothing drains them.
//!
//! Guarantees: such a log is told and never touched: what it holds is delivered when its pipeline comes back.
//! Limits: one look at the directory per call, no log is opened.

use super::Engine;
use super::edit::REMOVED_PREFIX;
use crate::ledger::UnclaimedLog;

impl Engine {
    /// Returns the logs that no pipeline claims, by name. Blocks briefly.
    pub fn unclaimed(&self) -> Vec<UnclaimedLog> {
        let directories = std::fs::read_dir(self.spool_dir()).into_iter().flatten().flatten();
        let mut found: Vec<UnclaimedLog> = directories
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .filter_map(|entry| {
                let name = entry.file_name().to_string_lossy().into_owned();
                let known = name.starts_with(REMOVED_PREFIX) || self.running.find(&name).is_some();
                let files = || std::fs::read_dir(entry.path()).into_iter().flatten().flatten();
                let sizes = || files().filter_map(|file| file.metadata().ok()).map(|file| file.len());
                (!known).then(|| UnclaimedLog { bytes: sizes().sum(), name })
            })
            .collect();
        found.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        found
    }
}
