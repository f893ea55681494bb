//! From a mark back to exactly what was committed.
//!
//! # How
//! 1. The lock file `.spillway-<owner>` is locked: one process at a time writes as this delivery of this agent.
//! 2. Every file of the mark is cut to its committed length. One that is shorter, or gone, is kept as it is and said in
//!    the log; the next event begins a new one.
//! 3. Files of this owner whose number the mark does not know were begun after the commit: their events come again, so
//!    they are removed. They are found by their names below the fixed beginning of the template, now and at the mark.
//!
//! SIGKILL or power loss at any moment therefore leaves each event once: what is behind the mark is gone before it is
//! written again, and what is before it was synced before the mark was given out.
//!
//! # Without a mark
//! Either no commit was ever stored, then every file of ours is uncommitted and removed; or the mark is lost, then
//! removing would destroy what was delivered. The lock file tells them apart: it says `committed` as soon as a second
//! commit, or an opening with a mark, has proven that one was stored. Then all files stay, and numbering goes on.
//!
//! # Assumes
//! The engine stores a mark before it asks for the next one. Moving the filesystem root and losing power in the same
//! moment may leave uncommitted events at the old root.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use spillway_delivery::backend::{DeliveryName, Fault, FaultKind};
use spillway_delivery::filesystem::Ahead;

use super::directory::{Directory, ancestors, lock};
use super::encode::{Owner, Place, Places};
use super::mark::{MARK_VERSION, Mark, MarkFile};
use super::outputs::{Identity, Limits, OPEN_FILES_MAX, Output, Outputs, Parts, Trouble, write_all_at};

/// Deepest directory that is looked into, from the fixed beginning of the template: more than a template can have.
const DEPTH_MAX: usize = 16;
/// Most bytes of a lock file: five names and what is around them.
const IDENTITY_BYTES_MAX: usize = 4096;

/// What opening needs to know.
#[derive(Debug)]
pub(super) struct Config {
    pub(super) root: PathBuf,
    /// `directory` of the settings.
    pub(super) directory: Option<String>,
    pub(super) allow_absolute: bool,
    pub(super) name: DeliveryName,
    pub(super) places: Places,
    pub(super) limits: Limits,
}

/// The first line of a lock file.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Names<'a> {
    namespace: &'a str,
    pipeline: &'a str,
    route: &'a str,
    backend: &'a str,
    agent: &'a str,
}

/// What a walk over the files of this owner found.
#[derive(Debug, Default)]
struct Found {
    highest: u64,
    paths: BTreeMap<u64, String>,
}

/// Opens the files of `config`'s delivery as they were at `mark`.
pub(super) fn open(config: &Config, mark: Option<&[u8]>) -> Result<Outputs, Fault> {
    let mark = mark.map(parse).transpose()?;
    let directory = base(config, config.directory.as_deref())?;
    let owner = Owner::new(&config.name);
    let identity = identify(&directory, &owner, &config.name)?;
    let moved = mark.as_ref().filter(|mark| mark.directory != config.directory);
    if let Some(mark) = moved {
        leave_behind(config, &owner, mark)?;
    }
    let mut outputs = BTreeMap::new();
    let mut current = HashMap::new();
    if let Some(mark) = mark.as_ref().filter(|_| moved.is_none()) {
        outputs = cut(&directory, &owner, &mark.files)?;
        let growing = outputs.iter().filter(|(_, output)| output.extension == config.places.extension());
        current = growing.map(|(number, output)| (output.place.path.clone(), *number)).collect();
    }
    let uncommitted_from = match &mark {
        Some(mark) => mark.next,
        None if identity.confirmed => {
            tracing::warn!(%owner, "the place of the last commit is lost: files stay as they are, a new one is begun");
            u64::MAX
        }
        None => 0,
    };
    let mut found = Found::default();
    let mut below = vec![config.places.below()];
    below.extend(mark.as_ref().map(|mark| mark.below.clone()).filter(|old| *old != below[0]));
    for path in &below {
        find(&directory, &owner, path, &mut found)?;
    }
    remove_from(&directory, &mut found, uncommitted_from)?;
    let next = mark.as_ref().map_or(1, |mark| mark.next).max(found.highest + 1);
    let closed = if config.limits.keep.is_some() { found.paths } else { BTreeMap::new() };
    let confirmed = mark.is_some();
    // The process before may have made them without a sync of their names: a mark may be a checkpoint.
    let paths = outputs.values().flat_map(|output| ancestors(&output.place.path)).map(str::to_owned);
    let changed: BTreeSet<String> = paths.collect();
    let parts = Parts { directory, owner, limits: config.limits, outputs, current, closed, next, identity, changed };
    let trouble = |error| Trouble::new("begin to compress for", "this delivery", error);
    let mut opened = Outputs::new(parts).map_err(trouble)?;
    if confirmed {
        opened.confirm()?;
    }
    Ok(opened)
}

fn parse(mark: &[u8]) -> Result<Mark, Fault> {
    let parsed: Mark = serde_json::from_slice(mark)
        .map_err(|_| Fault::new(FaultKind::Local, "the mark of the last commit cannot be read"))?;
    if parsed.version != MARK_VERSION {
        let message = format!("the mark of the last commit has version {}, not {MARK_VERSION}", parsed.version);
        return Err(Fault::new(FaultKind::Local, message));
    }
    Ok(parsed)
}

fn base(config: &Config, directory: Option<&str>) -> Result<Directory, Trouble> {
    let trusted = |path: &Path| {
        let trouble = |error| Trouble::new("open directory", path.display().to_string(), error);
        Directory::open_trusted(path).map_err(trouble)
    };
    match directory {
        None => trusted(&config.root),
        Some(absolute) if absolute.starts_with('/') && config.allow_absolute => trusted(Path::new(absolute)),
        Some(path) => {
            trusted(&config.root)?.open_below(path).map_err(|error| Trouble::new("open directory", path, error))
        }
    }
}

/// Takes the lock file, and makes sure that it is ours.
fn identify(directory: &Directory, owner: &Owner, name: &DeliveryName) -> Result<Identity, Fault> {
    let path = owner.lock_name();
    let trouble = |step| {
        let path = path.clone();
        move |error| Trouble::new(step, path, error)
    };
    let mut changed = Vec::new();
    let file = match directory.create(&path, &mut changed) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => directory.open_file(&path),
        other => other,
    }
    .map_err(trouble("open"))?;
    if let Err(error) = lock(&file) {
        if error.kind() == io::ErrorKind::WouldBlock {
            return Err(Fault::new(FaultKind::Local, format_args!("another process holds {path}")));
        }
        return Err(trouble("lock")(error).into());
    }
    let DeliveryName { namespace, pipeline, route, backend, agent } = name;
    let mut line = serde_json::to_vec(&Names { namespace, pipeline, route, backend, agent }).unwrap_or_default();
    line.push(b'\n');
    let mut text = vec![0; IDENTITY_BYTES_MAX];
    let read = rustix::io::pread(&file, &mut text, 0).map_err(|error| trouble("read")(error.into()))?;
    text.truncate(read);
    let bytes = line.len() as u64;
    if let Some(rest) = text.strip_prefix(&line[..]) {
        return Ok(Identity { file, bytes, confirmed: rest.starts_with(b"committed\n") });
    }
    if !line.starts_with(&text) {
        return Err(Fault::new(FaultKind::Local, format_args!("{path} belongs to another delivery")));
    }
    let written = write_all_at(&file, &line, 0).and_then(|()| Ok(rustix::fs::fdatasync(&file)?));
    written.map_err(trouble("write"))?;
    directory.sync("").map_err(trouble("sync the directory of"))?;
    Ok(Identity { file, bytes, confirmed: false })
}

/// Cuts the files of a mark whose `directory` is no longer that of the settings, and leaves them.
fn leave_behind(config: &Config, owner: &Owner, mark: &Mark) -> Result<(), Fault> {
    let directory = match &mark.directory {
        Some(old) if old.starts_with('/') && !config.allow_absolute => {
            tracing::warn!(%owner, directory = old, "files of the former directory are not looked after");
            return Ok(());
        }
        old => base(config, old.as_deref())?,
    };
    for (number, output) in cut(&directory, owner, &mark.files)? {
        let path = owner.path(&output.place.path, number, &output.extension);
        if let Some(file) = output.file.filter(|_| output.dirty) {
            rustix::fs::fdatasync(&file).map_err(|error| Trouble::new("sync", path.as_str(), error))?;
        }
        for parent in ancestors(&path) {
            directory.sync(parent).map_err(|error| Trouble::new("sync directory", parent, error))?;
        }
    }
    let mut found = Found::default();
    find(&directory, owner, &mark.below, &mut found)?;
    remove_from(&directory, &mut found, mark.next)?;
    Ok(())
}

/// Cuts each file to its committed length and returns those that may grow on.
fn cut(directory: &Directory, owner: &Owner, files: &[MarkFile]) -> Result<BTreeMap<u64, Output>, Trouble> {
    let mut outputs = BTreeMap::new();
    for marked in files {
        let path = owner.path(&marked.place, marked.number, &marked.extension);
        let file = match directory.open_file(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                tracing::warn!(file = path, committed_bytes = marked.bytes, "a committed file is gone");
                continue;
            }
            Err(error) => return Err(Trouble::new("open", path, error)),
        };
        lock(&file).map_err(|error| Trouble::new("lock", path.as_str(), error))?;
        let stat = rustix::fs::fstat(&file).map_err(|error| Trouble::new("look at", path.as_str(), error))?;
        let bytes = u64::try_from(stat.st_size).unwrap_or(0);
        if bytes < marked.bytes {
            let committed_bytes = marked.bytes;
            tracing::warn!(
                file = path,
                bytes,
                committed_bytes,
                "a committed file is shorter: kept, a new one is begun"
            );
            continue;
        }
        let mut output =
            Output::new(Place { path: marked.place.clone(), window: marked.window }, marked.extension.clone(), file);
        output.len = marked.bytes;
        output.ahead = Ahead::of(marked.bytes);
        if let Some(file) = output.file.as_ref().filter(|_| bytes > marked.bytes) {
            rustix::fs::ftruncate(file, marked.bytes).map_err(|error| Trouble::new("cut", path, error))?;
        }
        if outputs.len() >= OPEN_FILES_MAX {
            output.file = None;
        }
        outputs.insert(marked.number, output);
    }
    Ok(outputs)
}

/// Finds the files of `owner` below `below`.
fn find(directory: &Directory, owner: &Owner, below: &str, found: &mut Found) -> Result<(), Trouble> {
    let mut left = vec![(below.to_owned(), 0)];
    while let Some((path, depth)) = left.pop() {
        let entries = match directory.list(&path) {
            Ok(entries) => entries,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => continue,
            Err(error) => return Err(Trouble::new("list", path, error)),
        };
        for entry in entries {
            let inner = if path.is_empty() { entry.name.clone() } else { format!("{path}/{}", entry.name) };
            if entry.is_directory && depth < DEPTH_MAX && !entry.name.starts_with('.') {
                left.push((inner, depth + 1));
            } else if let Some(number) = owner.number_of(&entry.name).filter(|_| !entry.is_directory) {
                found.highest = found.highest.max(number);
                found.paths.insert(number, inner);
            }
        }
    }
    Ok(())
}

/// Removes the files with numbers from `first` on.
fn remove_from(directory: &Directory, found: &mut Found, first: u64) -> Result<(), Trouble> {
    let victims = found.paths.split_off(&first);
    let mut held = Vec::new();
    for path in victims.values() {
        let file = directory.open_file(path).map_err(|error| Trouble::new("open", path.as_str(), error))?;
        lock(&file).map_err(|error| Trouble::new("lock", path.as_str(), error))?;
        held.truncate(OPEN_FILES_MAX);
        held.push(file);
    }
    for path in victims.values() {
        tracing::info!(file = path, "an uncommitted file is removed: its events come again");
        directory.remove(path).map_err(|error| Trouble::new("remove", path.as_str(), error))?;
    }
    Ok(())
}
