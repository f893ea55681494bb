//! The dead letters of a data directory, read without the process that writes them and without changing a byte.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::groups::{Grouping, Groups};
use super::selection::Selection;
use super::settling::Hidden;
use super::{Found, Page, key, read};
use crate::deliver::jobs::{JobKind, Store};
use crate::filesystem::Filesystem;
use crate::log::{Progress, progress_in, scan};

/// The dead letters of one pipeline, at rest or not.
#[derive(Debug)]
pub struct Offline {
    filesystem: Arc<dyn Filesystem>,
    dir: PathBuf,
    progress: Progress,
    hidden: Vec<Hidden>,
    /// Key of the pipeline: `<namespace>.<name>`.
    pub pipeline: String,
}

impl Offline {
    /// Returns the pipelines of a data directory that have dead letters, in the order of their names.
    pub fn all(filesystem: &Arc<dyn Filesystem>, data_dir: &Path) -> io::Result<Vec<Self>> {
        let mut dirs = filesystem.list(&data_dir.join("dead-letters"))?;
        dirs.sort();
        let open = |dir: PathBuf| {
            let pipeline = dir.file_name()?.to_str()?.to_owned();
            let mut saved = progress_in(filesystem, &dir);
            let progress = saved.remove(&key()).unwrap_or_default();
            let jobs = Store::new(filesystem, data_dir, &pipeline.as_str().into()).read().unwrap_or_default();
            let redrives = jobs.into_iter().filter(|job| job.kind == JobKind::Redrive && job.outcome.is_none());
            let hide = |job: crate::deliver::jobs::Job| Some(Hidden::new(&job, saved.remove(&job.key())?));
            let hidden = redrives.filter_map(hide).collect();
            Some(Self { filesystem: filesystem.clone(), dir, progress, hidden, pipeline })
        };
        Ok(dirs.into_iter().filter_map(open).collect())
    }

    /// Returns the letters that are meant, grouped.
    pub fn groups(&self, selection: &Selection) -> io::Result<Groups> {
        let mut grouping = Grouping::default();
        self.each(0, |found| {
            if selection.takes(&found.letter) {
                grouping.add(&found.letter, found.frame.received);
            }
            true
        })?;
        Ok(grouping.finish(&self.pipeline))
    }

    /// Returns letters that are meant, from sequence `from` on, at most `max` of them.
    pub fn page(&self, selection: &Selection, from: u64, max: usize) -> io::Result<Page> {
        let mut page = Page::default();
        self.each(from, |found| !selection.takes(&found.letter) || page.add(&found, max))?;
        Ok(page)
    }

    fn each(&self, from: u64, mut visit: impl FnMut(Found<'_>) -> bool) -> io::Result<()> {
        scan(&*self.filesystem, &self.dir, from.max(self.progress.cursor), |frame| {
            (0..frame.len()).all(|index| {
                let seq = frame.first_seq + index as u64;
                let there = seq >= from && !self.progress.is_resolved(seq);
                match read(frame, index).filter(|_| there) {
                    Some(letter) if self.hidden.iter().any(|hidden| hidden.covers(seq, &letter)) => true,
                    Some(letter) => visit(Found { seq, frame, letter }),
                    None => true,
                }
            })
        })
    }
}
