//! The jobs of one pipeline on disk: `<data>/jobs/<pipeline uid>.json`, replaced as a whole.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{ENDED_MAX, Job};
use crate::filesystem::Filesystem;

/// Most bytes of the file: a thousand ids for each job.
const FILE_BYTES_MAX: u64 = 8 << 20;

/// The stored form.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "version")]
enum Stored {
    #[serde(rename = "1")]
    V1 { jobs: Vec<Job> },
}

/// Where the jobs of one pipeline are stored.
#[derive(Debug, Clone)]
pub(in crate::deliver) struct Store {
    filesystem: Arc<dyn Filesystem>,
    dir: PathBuf,
    uid: Arc<str>,
}

impl Store {
    pub(in crate::deliver) fn new(filesystem: &Arc<dyn Filesystem>, data_dir: &Path, uid: &Arc<str>) -> Self {
        Self { filesystem: filesystem.clone(), dir: data_dir.join("jobs"), uid: uid.clone() }
    }

    fn path(&self) -> PathBuf {
        self.dir.join(format!("{}.json", self.uid))
    }

    /// Returns the stored jobs, oldest first; none where there is no file. Blocks.
    pub(in crate::deliver) fn read(&self) -> io::Result<Vec<Job>> {
        let file = match self.filesystem.open(&self.path(), false) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            opened => opened?,
        };
        let mut bytes = vec![0; file.len()?.min(FILE_BYTES_MAX) as usize];
        let read = file.read_at(0, &mut bytes)?;
        bytes.truncate(read);
        let Stored::V1 { jobs } = serde_json::from_slice(&bytes)?;
        Ok(jobs)
    }

    /// Stores the jobs so that they survive power loss; of those that are over only the newest stay. Blocks.
    pub(in crate::deliver) fn write(&self, jobs: &mut Vec<Job>) -> io::Result<()> {
        let over = jobs.iter().filter(|job| job.outcome.is_some()).count();
        let mut surplus = over.saturating_sub(ENDED_MAX);
        jobs.retain(|job| {
            let goes = surplus > 0 && job.outcome.is_some();
            surplus -= usize::from(goes);
            !goes
        });
        let bytes = serde_json::to_vec(&Stored::V1 { jobs: jobs.clone() })?;
        let fs = &self.filesystem;
        fs.create_dir_all(&self.dir)?;
        let draft = self.dir.join(format!("{}.new", self.uid));
        match fs.remove(&draft) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = fs.create(&draft)?;
        file.write_at(0, &[&bytes])?;
        file.sync()?;
        fs.rename(&draft, &self.path())?;
        fs.sync_dir(&self.dir)?;
        self.dir.parent().map_or(Ok(()), |parent| fs.sync_dir(parent))
    }
}
