//! One of the two files that cursors are saved in.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{RECORD_HEADER_BYTES, SLOT_BYTES};
use crate::filesystem::{File, Filesystem};
use crate::log::device::Device;

#[derive(Debug)]
pub(super) struct Slot {
    path: PathBuf,
    pub(super) file: Option<Arc<dyn File>>,
    /// Bytes it has for sure, under a durable name.
    pub(super) size: u64,
}

impl Slot {
    /// Returns a slot and what stands in it; nothing where it is not there, an error where it cannot be read.
    pub(super) fn open(device: &Device<'_>, path: PathBuf) -> (Self, io::Result<Vec<u8>>) {
        match device.ask(|| read_file(device.fs, &path)) {
            Ok(Some((file, bytes))) => (Self { path, file: Some(file), size: bytes.len() as u64 }, Ok(bytes)),
            Ok(None) => (Self { path, file: None, size: 0 }, Ok(Vec::new())),
            Err(error) => (Self { path, file: None, size: 0 }, Err(error)),
        }
    }

    #[cfg(test)]
    pub(super) fn path(&self) -> PathBuf {
        self.path.clone()
    }

    /// Opens the file, or makes it, and gives it at least `size` bytes. What stands in it stays: zeros behind the records are
    /// read as their end.
    pub(super) fn grow(&mut self, fs: &dyn Filesystem, size: u64) -> io::Result<Arc<dyn File>> {
        let file = match &self.file {
            Some(file) => file.clone(),
            None => match fs.open(&self.path, true) {
                Ok(file) => file,
                Err(_) => fs.create(&self.path)?,
            },
        };
        if self.size < size {
            let len = file.len()?;
            if len < size {
                file.write_at(len, &[&vec![0; (size - len) as usize]])?;
            }
            self.size = size;
        }
        self.file = Some(file.clone());
        Ok(file)
    }
}

/// Gives slots their bytes and their names before anything needs them: the first save may come when the disk is full. A
/// disk that is full already is no error; a save tries again then.
pub(super) fn set_aside(slots: &mut [Slot], fs: &dyn Filesystem, dir: &Path) {
    let grown: io::Result<()> = slots.iter_mut().try_for_each(|slot| slot.grow(fs, SLOT_BYTES).map(drop));
    if let Err(error) = grown.and_then(|()| fs.sync_dir(dir)) {
        tracing::warn!(%error, dir = %dir.display(), "no room is set aside for cursors");
        // A name that may not be durable is made so by the first save.
        slots.iter_mut().for_each(|slot| slot.size = 0);
    }
}

/// Takes back a record that was not synced: the page cache must not show a later process what the disk does not hold.
pub(super) fn blank(file: &dyn File, at: u64) {
    if let Err(error) = file.write_at(at, &[&[0; RECORD_HEADER_BYTES]]) {
        tracing::debug!(%error, "could not blank a record whose sync failed");
    }
}

type OpenSlot = (Arc<dyn File>, Vec<u8>);

/// Reads a slot whole; `None` where there is none.
fn read_file(fs: &dyn Filesystem, path: &Path) -> io::Result<Option<OpenSlot>> {
    let file = match fs.open(path, true) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let mut bytes = vec![0; file.len()? as usize];
    let read = file.read_at(0, &mut bytes)?;
    bytes.truncate(read);
    Ok(Some((file, bytes)))
}
