//! Commits: what is acknowledged becomes durable and gets a mark.

use std::io;

use spillway_delivery::backend::Fault;

use super::{BUFFER_BYTES_KEPT, IDLE_MAX, Output, Outputs, Parts, Trouble, Undo, write_all_at};
use crate::filesystem::encode::Places;
use crate::filesystem::gzip::TRAILER_BYTES;
use crate::filesystem::mark::{MARK_BYTES_AROUND, MARK_BYTES_MAX, MARK_VERSION, Mark, MarkFile};

impl Outputs {
    /// Makes everything acknowledged durable and returns the mark.
    pub(in crate::filesystem) fn commit(&mut self, directory: Option<&str>, places: &Places) -> Result<Mark, Fault> {
        self.check_usable()?;
        self.undo()?;
        self.close_members()?;
        self.sync()?;
        self.retire();
        self.buffer.clear();
        self.buffer.shrink_to(BUFFER_BYTES_KEPT);
        self.commits += 1;
        if self.commits > 1 {
            // That the engine goes on means that it has stored the mark before this one.
            self.confirm()?;
            self.remove_old();
        }
        Ok(self.mark(directory, places))
    }

    /// Returns where everything acknowledged stands, without a sync: good after SIGKILL, not after power loss.
    pub(in crate::filesystem) fn checkpoint(
        &mut self,
        directory: Option<&str>,
        places: &Places,
    ) -> Result<Mark, Fault> {
        self.check_usable()?;
        self.undo()?;
        let cost = |output: &Output| MarkFile::cost(&output.place, &output.extension);
        if self.parts.outputs.values().map(cost).sum::<usize>() > MARK_BYTES_MAX - MARK_BYTES_AROUND {
            // Files leave the mark only once they are synced.
            return self.commit(directory, places);
        }
        self.close_members()?;
        Ok(self.mark(directory, places))
    }

    /// Notes, for good, that a mark has been stored.
    pub(in crate::filesystem) fn confirm(&mut self) -> Result<(), Trouble> {
        const CONFIRMED: &[u8] = b"committed\n";
        let identity = &mut self.parts.identity;
        if !identity.confirmed {
            let trouble = |error| Trouble::new("write", "the lock file", error);
            write_all_at(&identity.file, CONFIRMED, identity.bytes).map_err(trouble)?;
            rustix::fs::fdatasync(&identity.file).map_err(|error| trouble(error.into()))?;
            identity.confirmed = true;
        }
        Ok(())
    }

    /// Ends every gzip member, so that a file can be cut where it now ends.
    fn close_members(&mut self) -> Result<(), Trouble> {
        let open = self.parts.outputs.iter().filter(|(_, output)| output.member.is_some());
        for number in open.map(|(number, _)| *number).collect::<Vec<_>>() {
            if !self.open(number)? {
                continue;
            }
            let Some(output) = self.parts.outputs.get_mut(&number) else {
                continue;
            };
            if let (Some(file), Some(member)) = (&output.file, &output.member) {
                // Half a trailer is taken back like half a batch, before anything else is written.
                self.undo.push(Undo { number, len: output.len, member: Some(member.copy()) });
                let written = write_all_at(file, &member.trailer(), output.len);
                written.map_err(|error| Trouble::new("write", output.place.path.as_str(), error))?;
                output.len += TRAILER_BYTES as u64;
                output.dirty = true;
                output.member = None;
                self.undo.clear();
            }
        }
        Ok(())
    }

    /// Syncs every file that is not, and the directories of new ones.
    fn sync(&mut self) -> Result<(), Trouble> {
        let dirty = self.parts.outputs.iter().filter(|(_, output)| output.dirty);
        for number in dirty.map(|(number, _)| *number).collect::<Vec<_>>() {
            if !self.open(number)? {
                continue;
            }
            if let Some(output) = self.parts.outputs.get_mut(&number)
                && let Some(file) = &output.file
            {
                if let Err(error) = rustix::fs::fdatasync(file) {
                    self.sync_failed = true;
                    return Err(Trouble::new("sync", output.place.path.as_str(), error));
                }
                output.dirty = false;
            }
        }
        while let Some(path) = self.parts.changed.pop_first() {
            if let Err(error) = self.parts.directory.sync(&path) {
                self.sync_failed = true;
                return Err(Trouble::new("sync directory", path, error));
            }
        }
        Ok(())
    }

    /// Closes, for good, what will not grow any more; all of it is synced.
    fn retire(&mut self) {
        let Parts { outputs, current, owner, .. } = &mut self.parts;
        let mut growing: Vec<(u64, u64)> = current.values().map(|&number| (outputs[&number].used, number)).collect();
        growing.sort_unstable_by_key(|&(used, number)| std::cmp::Reverse((used, number)));
        let mut cost = MARK_BYTES_AROUND;
        for (position, (_, number)) in growing.into_iter().enumerate() {
            let output = &outputs[&number];
            cost += MarkFile::cost(&output.place, &output.extension);
            if cost > MARK_BYTES_MAX || (position > 0 && output.written.elapsed() >= IDLE_MAX) {
                current.remove(&output.place.path);
            }
        }
        let closed = outputs.extract_if(.., |number, output| current.get(&output.place.path) != Some(number));
        self.closing
            .extend(closed.map(|(number, output)| (number, owner.path(&output.place.path, number, &output.extension))));
    }

    /// Removes the oldest closed files beyond `keep`. Only those that were closed before the last mark.
    fn remove_old(&mut self) {
        let growing = &self.parts.outputs;
        let Some(keep) = self.parts.limits.keep else {
            self.closing.clear();
            return;
        };
        let closed = &mut self.parts.closed;
        closed.retain(|number, _| !growing.contains_key(number));
        while closed.len() + self.closing.len() > keep as usize {
            let Some((_, path)) = closed.pop_first() else {
                break;
            };
            match self.parts.directory.remove(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(file = path, %error, "an old file could not be removed");
                }
                _ => tracing::debug!(file = path, "old file removed"),
            }
        }
        closed.extend(self.closing.drain(..));
    }

    fn mark(&self, directory: Option<&str>, places: &Places) -> Mark {
        let Parts { outputs, .. } = &self.parts;
        let file = |(number, output): (&u64, &Output)| MarkFile {
            place: output.place.path.clone(),
            window: output.place.window,
            extension: output.extension.clone(),
            number: *number,
            bytes: output.len,
        };
        Mark {
            version: MARK_VERSION,
            next: self.parts.next,
            directory: directory.map(str::to_owned),
            below: places.below(),
            files: outputs.iter().map(file).collect(),
        }
    }
}
