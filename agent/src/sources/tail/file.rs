//! One log file, plain or compressed: opened without following links, read by decompressed offset, known by its head.

use std::fs::{File, Metadata, ReadDir};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use flate2::read::MultiGzDecoder;
use rustix::fs::{Mode, OFlags};
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::order::{FileKey, FileName};
use super::position::FileId;
use super::stats::TailStats;

/// Most bytes of a file's beginning that tell it from others. A runtime's line begins with a time in nanoseconds, so
/// the first line alone is enough; more makes forged ones harder.
pub(in crate::sources) const HEAD_BYTES_MAX: usize = 1024;

/// Fewest bytes of a beginning that are taken for the file's own without its inode: a time stamp.
pub(in crate::sources) const HEAD_BYTES_MIN: usize = 32;

/// Most bytes of one read.
pub(in crate::sources) const CHUNK_BYTES: usize = 256 << 10;

/// An entry of a container's directory.
#[derive(Debug, Clone)]
pub(in crate::sources) struct Entry {
    /// What its name says.
    pub(in crate::sources) name: FileName,
    /// Where it is.
    pub(in crate::sources) path: PathBuf,
    /// Its inode.
    pub(in crate::sources) inode: u64,
    /// Its size on disk.
    pub(in crate::sources) size: u64,
    /// The directory below which no link is followed on the way to it; `None` where only the file itself must be none.
    pub(in crate::sources) beneath: Option<Arc<Path>>,
}

/// One log file, under whatever name it has now.
#[derive(Debug)]
pub(in crate::sources) struct LogFile {
    /// Names it within its container.
    pub(in crate::sources) serial: u32,
    /// Its place among the others.
    pub(in crate::sources) key: FileKey,
    /// Whether `path` is compressed; an open descriptor may still be the plain file.
    pub(in crate::sources) gzip: bool,
    /// When it was first seen.
    pub(in crate::sources) seen_at: Instant,
    /// Since when it has no name any more.
    pub(in crate::sources) gone_at: Option<Instant>,
    /// How often it was begun anew; every reader finds out by itself.
    pub(in crate::sources) generation: u32,
    /// Whether the last listing of the directory had it.
    pub(in crate::sources) listed: bool,
    /// Whether it begins as another that still has its name: a copy made before a truncation.
    pub(in crate::sources) is_copy: bool,
    /// Its size on disk when the directory was last listed.
    pub(in crate::sources) size_listed: u64,
    /// What it was known by before it was begun anew the last time.
    pub(in crate::sources) before: Option<FileId>,
    pub(in crate::sources) path: PathBuf,
    beneath: Option<Arc<Path>>,
    inode: u64,
    head: Vec<u8>,
    open: Option<Handle>,
}

#[derive(Debug)]
struct Handle {
    file: Arc<File>,
    gzip: bool,
    _held: Held,
}

/// Counts one descriptor while it lives.
#[derive(Debug)]
struct Held(Arc<TailStats>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.open_files.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Opens files and knows how many may be held.
#[derive(Debug, Clone)]
pub(in crate::sources) struct Opener {
    /// Whether links are followed.
    pub(in crate::sources) links: Links,
    /// Most descriptors held for files that are not being read this moment.
    pub(in crate::sources) held_max: u64,
    /// Counts them.
    pub(in crate::sources) stats: Arc<TailStats>,
    /// What comes between two steps.
    #[cfg(test)]
    pub(in crate::sources) between: super::between::Between,
}

/// What is done to a path; whoever rotates and deletes may come before any of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sources) enum Step {
    /// The names below it are read.
    List,
    /// It is looked at.
    Look,
    /// It is opened.
    Open,
}

impl Opener {
    /// Returns what opens files and holds at most `held_max` of them.
    pub(in crate::sources) fn new(links: Links, held_max: u64, stats: Arc<TailStats>) -> Self {
        Self {
            links,
            held_max,
            stats,
            #[cfg(test)]
            between: super::between::Between::default(),
        }
    }

    /// Lists a directory.
    pub(in crate::sources) fn list(&self, directory: &Path) -> io::Result<ReadDir> {
        self.before(Step::List, directory)?;
        directory.read_dir()
    }

    /// Reads what an entry is.
    pub(in crate::sources) fn look(&self, path: &Path) -> io::Result<Metadata> {
        self.before(Step::Look, path)?;
        self.links.metadata(path)
    }

    fn open(&self, path: &Path, beneath: Option<&Path>) -> io::Result<File> {
        self.before(Step::Open, path)?;
        match beneath {
            None => open_regular(path, self.links),
            Some(root) => open_beneath(root, path),
        }
    }

    #[cfg(test)]
    fn before(&self, step: Step, path: &Path) -> io::Result<()> {
        self.between.come(step, path)
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "what comes between is told by tests alone")]
    fn before(&self, _: Step, _: &Path) -> io::Result<()> {
        Ok(())
    }

    /// Returns whether what is open may stay open.
    pub(in crate::sources) fn may_hold(&self) -> bool {
        self.stats.open_files.load(Ordering::Relaxed) <= self.held_max
    }

    fn hold(&self) -> Held {
        self.stats.open_files.fetch_add(1, Ordering::Relaxed);
        Held(self.stats.clone())
    }
}

/// What a descriptor reads when its file is compressed: decompression goes forward only.
#[derive(Debug)]
pub(in crate::sources) struct GzipStream {
    decoder: MultiGzDecoder<FromStart>,
    at: u64,
    carry: Vec<u8>,
}

/// Reads a shared file from its start, with an offset of its own.
#[derive(Debug)]
struct FromStart {
    file: Arc<File>,
    at: u64,
}

impl Read for FromStart {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let length = self.file.read_at(out, self.at)?;
        self.at += length as u64;
        Ok(length)
    }
}

impl LogFile {
    /// Opens a file that was not known yet and reads its head.
    pub(in crate::sources) fn open(serial: u32, entry: Entry, now: Instant, opener: &Opener) -> io::Result<Self> {
        let mut file = Self {
            serial,
            key: entry.name.key,
            gzip: entry.name.gzip,
            seen_at: now,
            gone_at: None,
            generation: 0,
            listed: true,
            is_copy: false,
            size_listed: entry.size,
            path: entry.path,
            beneath: entry.beneath,
            inode: entry.inode,
            head: Vec::new(),
            before: None,
            open: None,
        };
        file.reopen(opener)?;
        file.read_head()?;
        if !opener.may_hold() {
            file.close();
        }
        Ok(file)
    }

    /// Opens the file again by its name, if it is still the one that was known.
    pub(in crate::sources) fn reopen(&mut self, opener: &Opener) -> io::Result<()> {
        if self.open.is_some() {
            return Ok(());
        }
        let file = opener.open(&self.path, self.beneath.as_deref())?;
        if !self.gzip && file.metadata()?.ino() != self.inode {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.open = Some(Handle { file: Arc::new(file), gzip: self.gzip, _held: opener.hold() });
        Ok(())
    }

    /// Gives the descriptor back.
    pub(in crate::sources) fn close(&mut self) {
        self.open = None;
    }

    /// Returns whether a descriptor is held.
    pub(in crate::sources) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Returns whether `entry` is this file, under this or another name.
    pub(in crate::sources) fn is_entry(&self, entry: &Entry) -> bool {
        !entry.name.gzip
            && !self.reads_gzip()
            && entry.inode == self.inode
            && (self.is_open() || entry.name.key == self.key && entry.size >= self.size_listed)
    }

    /// Returns whether `entry` is a plain file with this one's inode.
    pub(in crate::sources) fn has_inode_of(&self, entry: &Entry) -> bool {
        !entry.name.gzip && entry.inode == self.inode
    }

    /// Returns whether `other` begins as this file does, so that it is a copy of it.
    pub(in crate::sources) fn has_head_of(&self, other: &LogFile) -> bool {
        self.head.len() >= HEAD_BYTES_MIN && other.head.starts_with(&self.head)
    }

    /// Returns whether `other` begins as this file does, or did before it was begun anew.
    pub(in crate::sources) fn had_head_of(&self, other: &LogFile) -> bool {
        self.before.is_some_and(|before| other.matches(&before, false)) || self.has_head_of(other)
    }

    /// Takes a name and what was listed under it.
    pub(in crate::sources) fn rename(&mut self, entry: &Entry) {
        self.key = entry.name.key.clone();
        self.path.clone_from(&entry.path);
        self.beneath.clone_from(&entry.beneath);
        self.gzip = entry.name.gzip;
        if self.reads_gzip() == entry.name.gzip || !self.is_open() {
            // Else the descriptor keeps the plain file's inode, and the compressed one's may be another file's tomorrow; nor does
            // its size say how far the plain file goes.
            self.inode = entry.inode;
            self.size_listed = entry.size;
        }
        self.gone_at = None;
        self.listed = true;
    }

    /// Returns whether its bytes have to be decompressed.
    pub(in crate::sources) fn reads_gzip(&self) -> bool {
        self.open.as_ref().map_or(self.gzip, |handle| handle.gzip)
    }

    /// Returns what a position knows it by.
    pub(in crate::sources) fn id(&self) -> FileId {
        FileId { inode: self.inode, head_bytes: self.head.len() as u16, head_hash: hash(&self.head, 0) }
    }

    /// Returns whether a position means this file; `exactly` asks for the same inode too.
    pub(in crate::sources) fn matches(&self, id: &FileId, exactly: bool) -> bool {
        let known = usize::from(id.head_bytes) >= HEAD_BYTES_MIN || exactly;
        known && (!exactly || id.inode == self.inode) && self.begins_as(id)
    }

    /// Returns whether its head is the one in a position, as far as that goes, which may not be far.
    pub(in crate::sources) fn begins_as(&self, id: &FileId) -> bool {
        self.head.get(..usize::from(id.head_bytes)).map(|head| hash(head, 0)) == Some(id.head_hash)
    }

    /// Returns what a position lists it by once it is done, `None` while it is empty. A short head is not enough alone.
    pub(in crate::sources) fn done_hash(&self) -> Option<u64> {
        let seed = if self.head.len() < HEAD_BYTES_MIN { self.inode } else { 0 };
        (!self.head.is_empty()).then(|| hash(&self.head, seed))
    }

    /// Reads at `offset` into `chunk`; a short read is the end of the file.
    pub(in crate::sources) fn read(
        &self,
        offset: u64,
        chunk: &mut [u8],
        gzip: &mut Option<Box<GzipStream>>,
    ) -> io::Result<usize> {
        let Some(handle) = &self.open else {
            return Err(io::ErrorKind::NotFound.into());
        };
        if !handle.gzip {
            return read_full_at(&handle.file, chunk, offset);
        }
        let stream = match gzip {
            Some(stream) if stream.at <= offset => stream,
            _ => gzip.insert(Box::new(GzipStream::open(handle.file.clone()))),
        };
        stream.read(offset, chunk)
    }

    /// Returns whether an open file has no name any more, wherever; `None` while it is not open.
    pub(in crate::sources) fn is_unlinked(&self) -> Option<bool> {
        let metadata = self.open.as_ref()?.file.metadata().ok()?;
        Some(metadata.nlink() == 0)
    }

    /// Returns how long the plain file is.
    pub(in crate::sources) fn size(&self) -> io::Result<u64> {
        self.open.as_ref().map_or(Err(io::ErrorKind::NotFound.into()), |handle| Ok(handle.file.metadata()?.len()))
    }

    /// Looks whether the plain file still begins as it did, as far as it goes, and learns more of its beginning; counts
    /// up [`LogFile::generation`] when it does not.
    pub(in crate::sources) fn check_head(&mut self) -> io::Result<()> {
        let Some(handle) = self.open.as_ref().filter(|handle| !handle.gzip) else {
            return Ok(());
        };
        let mut head = [0; HEAD_BYTES_MAX];
        let length = read_full_at(&handle.file, &mut head, 0)?;
        let head = &head[..length];
        if head.starts_with(&self.head) {
            self.head.extend_from_slice(&head[self.head.len()..]);
            return Ok(());
        }
        // Less than a time stamp is the beginning of any file.
        let shorter = head.len() >= HEAD_BYTES_MIN && self.head.starts_with(head);
        if !shorter {
            self.generation += 1;
            if self.head.len() >= HEAD_BYTES_MIN {
                self.before = Some(self.id());
            }
        }
        self.head = head.to_vec();
        Ok(())
    }

    fn read_head(&mut self) -> io::Result<()> {
        let mut head = [0; HEAD_BYTES_MAX];
        let length = self.read(0, &mut head, &mut None)?;
        self.head = head[..length].to_vec();
        Ok(())
    }
}

/// Whether a log file may be a link: so it is with Docker, never with containerd and CRI-O.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Links {
    /// A link is not opened, and counted.
    #[default]
    Refuse,
    /// A link is followed. Only where no container can write below the root.
    Follow,
}

impl Links {
    /// Reads what an entry is, or what it links to.
    fn metadata(self, path: &Path) -> io::Result<Metadata> {
        match self {
            Self::Refuse => path.symlink_metadata(),
            Self::Follow => path.metadata(),
        }
    }
}

fn open_regular(path: &Path, links: Links) -> io::Result<File> {
    // Without O_NONBLOCK the opening of a pipe would wait for its writer.
    let mut flags = OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    if links == Links::Refuse {
        flags |= OFlags::NOFOLLOW;
    }
    let file = File::options().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
    regular(file)
}

/// Opens a file below `root` without following a link on the way from there.
fn open_beneath(root: &Path, path: &Path) -> io::Result<File> {
    let below = path.strip_prefix(root).map_err(|_| io::ErrorKind::InvalidInput)?;
    let on_the_way = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut directory = rustix::fs::open(root, on_the_way, Mode::empty())?;
    let mut names = below.iter().peekable();
    while let Some(name) = names.next() {
        if names.peek().is_none() {
            // Without O_NONBLOCK the opening of a pipe would wait for its writer.
            let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
            return regular(rustix::fs::openat(&directory, name, flags, Mode::empty())?.into());
        }
        directory = rustix::fs::openat(&directory, name, on_the_way | OFlags::NOFOLLOW, Mode::empty())?;
    }
    Err(io::ErrorKind::InvalidInput.into())
}

fn regular(file: File) -> io::Result<File> {
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::ErrorKind::InvalidInput.into()) }
}

fn read_full_at(file: &File, chunk: &mut [u8], offset: u64) -> io::Result<usize> {
    loop {
        match file.read_at(chunk, offset) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

fn hash(head: &[u8], seed: u64) -> u64 {
    xxh3_64_with_seed(head, seed)
}

impl GzipStream {
    fn open(file: Arc<File>) -> Self {
        Self { decoder: MultiGzDecoder::new(FromStart { file, at: 0 }), at: 0, carry: Vec::new() }
    }

    /// Reads at `offset`, which never goes back before what the last call was asked for.
    fn read(&mut self, offset: u64, chunk: &mut [u8]) -> io::Result<usize> {
        while self.at + (self.carry.len() as u64) < offset {
            self.at += self.carry.len() as u64;
            self.carry.clear();
            let length = read_full(&mut self.decoder, chunk)?;
            if length == 0 {
                return Ok(0);
            }
            self.carry.extend_from_slice(&chunk[..length]);
        }
        self.carry.drain(..(offset - self.at) as usize);
        self.at = offset;
        let known = self.carry.len().min(chunk.len());
        chunk[..known].copy_from_slice(&self.carry[..known]);
        let more = read_full(&mut self.decoder, &mut chunk[known..])?;
        self.carry.extend_from_slice(&chunk[known..known + more]);
        Ok(known + more)
    }

    /// Returns where the decompressed bytes end, once a read came back empty.
    pub(in crate::sources) fn end(&self) -> u64 {
        self.at + self.carry.len() as u64
    }
}

fn read_full(from: &mut impl Read, chunk: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < chunk.len() {
        match from.read(&mut chunk[length..]) {
            Ok(0) => break,
            Ok(more) => length += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // What came before the damage is worth having; the next read tells the error again.
            Err(_) if length > 0 => break,
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}
