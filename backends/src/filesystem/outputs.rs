//! The files one delivery writes: append, undo, rotate, commit.
//!
//! # Guarantees
//! - A batch is provisional until `Outputs::acknowledge`: whatever comes next, another batch or a commit, first cuts
//!   every file back to where it was before it. So a batch whose sender went away, or that failed half-way, leaves nothing.
//! - `Outputs::commit` returns a mark only when all bytes up to it, and the names of the files, survive power loss.
//! - After a failed sync nothing since the last commit is trusted: everything is refused until the backend is opened anew
//!   at that mark.
//! - A file is written at offsets this part counts itself, is locked while open, is never renamed, and is never written
//!   again once closed for good.
//!
//! # Limits
//! [`OPEN_FILES_MAX`] descriptors: the least recently used is synced before it is let go, and opened again when needed.
//! Files that may still grow fill at most 60 KiB of a mark; beyond it the least recently used are closed for
//! good at a commit, as is every older file that was not written for [`IDLE_MAX`]. Buffers: one piece of
//! [`PIECE_BYTES`] plus the largest event, shrunk at each commit.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use spillway_delivery::backend::{Fault, FaultKind, Items, OutBatch, OutRun, Outcome};
use spillway_delivery::filesystem::{Ahead, begin_sync};
use spillway_delivery::settings::Metadata;
use tokio::time::Instant;

use super::directory::{Directory, lock};
use super::encode::{Owner, Place, Places};
use super::gzip::Member;
use super::pack::Pack;
use crate::settings::Compression;

mod commit;

/// Most files open at once.
pub(super) const OPEN_FILES_MAX: usize = 64;
/// Bytes after which a buffer is written: small enough for the processor's cache, large enough for one call to be cheap.
const PIECE_BYTES: usize = 256 << 10;
/// Most bytes a buffer keeps over a commit.
const BUFFER_BYTES_KEPT: usize = 512 << 10;
/// How long a file that is not the latest stays open without a write.
const IDLE_MAX: Duration = Duration::from_hours(24);

/// One file.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) place: Place,
    pub(super) extension: String,
    /// Where the next byte goes.
    pub(super) len: u64,
    pub(super) file: Option<OwnedFd>,
    /// Whether anything is not synced.
    pub(super) dirty: bool,
    /// How far its bytes are on their way to the disk: a commit shall find little to wait for.
    pub(super) ahead: Ahead,
    pub(super) member: Option<Member>,
    used: u64,
    written: Instant,
}

impl Output {
    pub(super) fn new(place: Place, extension: String, file: OwnedFd) -> Self {
        let written = Instant::now();
        let ahead = Ahead::default();
        Self { place, extension, len: 0, file: Some(file), dirty: true, ahead, member: None, used: 0, written }
    }
}

/// What the files are told by the settings.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) rotate_bytes: u64,
    pub(super) keep: Option<u32>,
    pub(super) compression: Compression,
}

/// The parts of a recovered state.
pub(super) struct Parts {
    pub(super) directory: Directory,
    pub(super) owner: Owner,
    pub(super) limits: Limits,
    pub(super) outputs: BTreeMap<u64, Output>,
    /// The file that a path grows by now.
    pub(super) current: HashMap<String, u64>,
    pub(super) closed: BTreeMap<u64, String>,
    pub(super) next: u64,
    pub(super) identity: Identity,
    /// Directories whose entries may not be synced.
    pub(super) changed: BTreeSet<String>,
}

/// The file that is locked as long as this delivery writes; it remembers that a mark has been stored once.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) file: OwnedFd,
    pub(super) bytes: u64,
    pub(super) confirmed: bool,
}

/// All files of one delivery.
pub(super) struct Outputs {
    parts: Parts,
    /// How far to go back in which file, if the batch under way does not come to its end.
    undo: Vec<Undo>,
    /// Closed by the last commit, whose mark may not be stored yet.
    closing: Vec<(u64, String)>,
    commits: u64,
    tick: u64,
    sync_failed: bool,
    buffer: Vec<u8>,
    pack: Pack,
}

struct Undo {
    number: u64,
    len: u64,
    member: Option<Member>,
}

/// A step that failed at a file.
#[derive(Debug)]
pub(super) struct Trouble {
    step: &'static str,
    path: String,
    source: io::Error,
}

impl Trouble {
    pub(super) fn new(step: &'static str, path: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self { step, path: path.into(), source: source.into() }
    }

    /// Whether another path might do.
    fn is_of_the_path(&self) -> bool {
        let crossed = self.source.raw_os_error() == Some(rustix::io::Errno::XDEV.raw_os_error());
        let kinds = [io::ErrorKind::NotADirectory, io::ErrorKind::IsADirectory, io::ErrorKind::InvalidFilename];
        let looped = self.source.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error());
        crossed || looped || kinds.contains(&self.source.kind())
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {} {}: {}", self.step, self.path, self.source)
    }
}

impl From<Trouble> for Fault {
    fn from(trouble: Trouble) -> Self {
        Fault::new(FaultKind::Local, trouble)
    }
}

impl fmt::Debug for Outputs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outputs")
            .field("owner", &self.parts.owner)
            .field("next", &self.parts.next)
            .finish_non_exhaustive()
    }
}

impl Outputs {
    pub(super) fn new(parts: Parts) -> io::Result<Self> {
        Ok(Self {
            pack: Pack::new(parts.limits.compression)?,
            parts,
            undo: Vec::new(),
            closing: Vec::new(),
            commits: 0,
            tick: 0,
            sync_failed: false,
            buffer: Vec::new(),
        })
    }

    /// Writes a batch, provisionally. On error nothing of it stays.
    pub(super) fn write(&mut self, batch: &OutBatch, places: &Places, metadata: Metadata) -> Result<Items, Fault> {
        self.check_usable()?;
        self.undo()?;
        let runs: Vec<OutRun<'_>> = batch.runs().collect();
        let plan = places.plan(batch);
        let mut refused: BTreeMap<usize, Outcome> = BTreeMap::new();
        refused.extend(plan.rejected.into_iter().map(|(run, reason)| (run, Outcome::Rejected(reason.into()))));
        let mut path_trouble = None;
        let mut written = false;
        for (place, indexes) in &plan.groups {
            match self.prepare(place, places.extension()) {
                Err(trouble) if places.depends_on_origin() && trouble.is_of_the_path() => {
                    refused.extend(indexes.iter().map(|&run| (run, Outcome::Retry)));
                    path_trouble.get_or_insert(trouble);
                    continue;
                }
                Err(trouble) => return Err(self.give_up(trouble)),
                Ok(()) => {}
            }
            let group = indexes.iter().map(|&run| runs[run]);
            if let Err(trouble) = self.write_runs(place, group, metadata) {
                return Err(self.give_up(trouble));
            }
            written = true;
        }
        match path_trouble {
            Some(trouble) if !written && refused.values().all(|outcome| *outcome == Outcome::Retry) => {
                Err(trouble.into())
            }
            _ => Ok(items(&runs, &refused)),
        }
    }

    /// Ends the provisional state of the last batch: its sender knows what became of it.
    pub(super) fn acknowledge(&mut self) {
        self.undo.clear();
    }

    /// Cuts every file back to where it was before the batch that nobody acknowledged.
    pub(super) fn undo(&mut self) -> Result<(), Trouble> {
        while let Some(undo) = self.undo.last() {
            let (number, len) = (undo.number, undo.len);
            if self.open(number)? {
                let output = self.parts.outputs.get_mut(&number);
                let output = output.ok_or_else(|| Trouble::new("find", "", io::ErrorKind::NotFound))?;
                let file = output.file.as_ref().ok_or_else(|| Trouble::new("find", "", io::ErrorKind::NotFound))?;
                rustix::fs::ftruncate(file, len)
                    .map_err(|error| Trouble::new("cut back", output.place.path.as_str(), error))?;
                output.len = len;
                output.dirty = true;
                output.member = self.undo.pop().and_then(|undo| undo.member);
            } else {
                self.undo.pop();
            }
        }
        Ok(())
    }

    fn check_usable(&self) -> Result<(), Fault> {
        if self.sync_failed {
            return Err(Fault::new(FaultKind::Local, "a sync has failed: to be opened anew at the last commit"));
        }
        Ok(())
    }

    fn give_up(&mut self, trouble: Trouble) -> Fault {
        self.buffer.clear();
        if let Err(again) = self.undo() {
            tracing::warn!(owner = %self.parts.owner, error = %again, "half a batch could not be cut off yet");
        }
        trouble.into()
    }

    fn write_runs<'a>(
        &mut self,
        place: &Place,
        runs: impl Iterator<Item = OutRun<'a>>,
        metadata: Metadata,
    ) -> Result<(), Trouble> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        let mut result = Ok(());
        'runs: for run in runs {
            let mut next = 0;
            while next < run.event_count() {
                next = run.write_ndjson(next..run.event_count(), PIECE_BYTES, &mut buffer, metadata);
                if buffer.len() >= PIECE_BYTES {
                    result = self.append(place, &buffer);
                    buffer.clear();
                }
                if result.is_err() {
                    break 'runs;
                }
            }
        }
        if result.is_ok() && !buffer.is_empty() {
            result = self.append(place, &buffer);
        }
        self.buffer = buffer;
        result
    }

    fn append(&mut self, place: &Place, lines: &[u8]) -> Result<(), Trouble> {
        let mut pack = std::mem::take(&mut self.pack);
        let result = self.append_piece(place, lines, &mut pack);
        self.pack = pack;
        result
    }

    fn append_piece(&mut self, place: &Place, lines: &[u8], pack: &mut Pack) -> Result<(), Trouble> {
        let size = pack.run(lines).map_err(|error| Trouble::new("compress for", place.path.as_str(), error))?;
        let gone = || Trouble::new("find the file of", place.path.as_str(), io::ErrorKind::NotFound);
        let mut number = *self.parts.current.get(&place.path).ok_or_else(gone)?;
        let output = self.parts.outputs.get(&number).ok_or_else(gone)?;
        if output.len > 0 && output.len + size as u64 > self.parts.limits.rotate_bytes {
            let extension = output.extension.clone();
            number = self.begin(place, &extension)?;
        }
        self.open(number)?;
        let output = self.parts.outputs.get_mut(&number).ok_or_else(gone)?;
        if !self.undo.iter().any(|undo| undo.number == number) {
            let member = output.member.as_ref().map(Member::copy);
            self.undo.push(Undo { number, len: output.len, member });
        }
        let bytes = pack.bytes(lines, output.member.as_ref());
        let file = output.file.as_ref().ok_or_else(gone)?;
        output.dirty = true;
        write_all_at(file, bytes, output.len).map_err(|error| Trouble::new("write", place.path.as_str(), error))?;
        output.len += bytes.len() as u64;
        if let Some(bytes) = output.ahead.due(output.len) {
            begin_sync(file, bytes);
        }
        output.member = pack.behind(output.member.take());
        self.tick += 1;
        output.used = self.tick;
        output.written = Instant::now();
        Ok(())
    }

    /// Makes sure that `place` has an open file that is still there and is of its window.
    fn prepare(&mut self, place: &Place, extension: &str) -> Result<(), Trouble> {
        if let Some(&number) = self.parts.current.get(&place.path)
            && self.open(number)?
            && let Some(output) = self.parts.outputs.get_mut(&number)
        {
            if output.len == 0 {
                output.place.window = place.window;
            }
            if output.place.window != place.window {
                return self.begin(place, extension).map(drop);
            }
            let file = output.file.as_ref();
            let there = file.map_or(Ok(false), |file| rustix::fs::fstat(file).map(|stat| stat.st_nlink > 0));
            if there.map_err(|error| Trouble::new("look at", place.path.as_str(), error))? {
                return Ok(());
            }
            self.abandon(number, "a file was removed by somebody else");
        }
        self.begin(place, extension).map(drop)
    }

    /// Begins the next file of `place`; the one before is closed for good at the next commit.
    fn begin(&mut self, place: &Place, extension: &str) -> Result<u64, Trouble> {
        self.make_room()?;
        let parts = &mut self.parts;
        let number = parts.next;
        let path = parts.owner.path(&place.path, number, extension);
        let mut changed = Vec::new();
        let created = parts.directory.create(&path, &mut changed);
        parts.changed.extend(changed);
        let file = created.map_err(|error| Trouble::new("create", path.as_str(), error))?;
        parts.next += 1;
        lock(&file).map_err(|error| Trouble::new("lock", path, error))?;
        parts.outputs.insert(number, Output::new(place.clone(), extension.to_owned(), file));
        parts.current.insert(place.path.clone(), number);
        Ok(number)
    }

    /// Opens a file that was let go. Returns whether it is still the file it was; if not, it is given up.
    fn open(&mut self, number: u64) -> Result<bool, Trouble> {
        let Some(output) = self.parts.outputs.get(&number) else {
            return Ok(false);
        };
        if output.file.is_some() {
            return Ok(true);
        }
        let path = self.parts.owner.path(&output.place.path, number, &output.extension);
        let expected = output.len;
        self.make_room()?;
        let file = match self.parts.directory.open_file(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.abandon(number, "a file was removed by somebody else");
                return Ok(false);
            }
            Err(error) => return Err(Trouble::new("open", path, error)),
        };
        lock(&file).map_err(|error| Trouble::new("lock", path.as_str(), error))?;
        let size = rustix::fs::fstat(&file).map_err(|error| Trouble::new("look at", path, error))?.st_size;
        if u64::try_from(size).is_ok_and(|size| size < expected) {
            self.abandon(number, "a file was cut by somebody else");
            return Ok(false);
        }
        if let Some(output) = self.parts.outputs.get_mut(&number) {
            output.file = Some(file);
        }
        Ok(true)
    }

    /// Lets the least recently used file go, synced, where as many are open as may be.
    fn make_room(&mut self) -> Result<(), Trouble> {
        let open = self.parts.outputs.values_mut().filter(|output| output.file.is_some());
        let (mut count, mut oldest) = (0, None::<&mut Output>);
        for output in open {
            count += 1;
            if oldest.as_ref().is_none_or(|oldest| output.used < oldest.used) {
                oldest = Some(output);
            }
        }
        if count < OPEN_FILES_MAX {
            return Ok(());
        }
        let Some(oldest) = oldest else {
            return Ok(());
        };
        if let Some(file) = &oldest.file
            && oldest.dirty
        {
            if let Err(error) = rustix::fs::fdatasync(file) {
                self.sync_failed = true;
                return Err(Trouble::new("sync", oldest.place.path.as_str(), error));
            }
            oldest.dirty = false;
        }
        oldest.file = None;
        Ok(())
    }

    fn abandon(&mut self, number: u64, why: &str) {
        if let Some(output) = self.parts.outputs.remove(&number) {
            if self.parts.current.get(&output.place.path) == Some(&number) {
                self.parts.current.remove(&output.place.path);
            }
            let path = self.parts.owner.path(&output.place.path, number, &output.extension);
            tracing::warn!(file = path, bytes = output.len, "{why}; a new one is begun");
        }
    }
}

fn items(runs: &[OutRun<'_>], refused: &BTreeMap<usize, Outcome>) -> Items {
    if refused.is_empty() {
        return Items::All(Outcome::Delivered);
    }
    let outcome = |(index, run): (usize, &OutRun<'_>)| {
        let outcome = refused.get(&index).cloned().unwrap_or(Outcome::Delivered);
        std::iter::repeat_n(outcome, run.event_count())
    };
    Items::Each(runs.iter().enumerate().flat_map(outcome).collect())
}

/// Writes all of `bytes` at `offset`; on error any part of it may be there.
pub(super) fn write_all_at(file: &OwnedFd, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::pwrite(file, bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                bytes = &bytes[count..];
                offset += count as u64;
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
