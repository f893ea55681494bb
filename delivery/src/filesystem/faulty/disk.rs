//! The whole of a machine's storage: names, files, and the faults that are due.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::inode::Inode;
use super::{Call, Counts, Fault, Faults, SplitMix64};

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Node {
    /// A directory.
    Dir,
    /// A file, by inode.
    File(u64),
}

type Names = BTreeMap<PathBuf, Node>;

/// Names that change together; `None` goes away.
type NameChange = Vec<(PathBuf, Option<Node>)>;

/// The whole of it.
#[derive(Debug)]
pub(super) struct Disk {
    rng: SplitMix64,
    pub(super) faults: Faults,
    /// Faults that were ordered: the kind of call, how many to let pass, how it fails.
    pub(super) orders: Vec<(Call, u64, Fault)>,
    pub(super) counts: Counts,
    /// The count of changes after which the machine stops.
    pub(super) stop_at: Option<u64>,
    pub(super) stopped: bool,
    pub(super) inodes: BTreeMap<u64, Inode>,
    /// The most files that were open at a time.
    pub(super) open_most: usize,
    next_inode: u64,
    /// As processes see them.
    names: Names,
    /// As the disk has them.
    durable: Names,
    /// What lies between, oldest first.
    unsynced: Vec<NameChange>,
}

impl Disk {
    pub(super) fn new(seed: u64) -> Self {
        let names = Names::from([(PathBuf::from("/"), Node::Dir), (PathBuf::new(), Node::Dir)]);
        Self {
            rng: SplitMix64::new(seed),
            faults: Faults::default(),
            orders: Vec::new(),
            counts: Counts::default(),
            stop_at: None,
            stopped: false,
            inodes: BTreeMap::new(),
            open_most: 0,
            next_inode: 1,
            names: names.clone(),
            durable: names,
            unsynced: Vec::new(),
        }
    }

    // ── Whether a call fails ────────────────────────────────────────────────────────────────────────────────────

    /// Counts a call that changes nothing, and fails if it is its turn.
    pub(super) fn look(&mut self, call: Call) -> io::Result<()> {
        match self.due(call) {
            Some(fault) => Err(error_of(fault)),
            None => Ok(()),
        }
    }

    /// Counts a call, fails if it is its turn, and makes the change; as the last act of a machine that stops, the change
    /// is made and yet nobody hears of it.
    pub(super) fn change<T>(&mut self, call: Call, make: impl FnOnce(&mut Self) -> io::Result<T>) -> io::Result<T> {
        let alive = !self.stopped;
        let due = self.due(call);
        match due {
            Some(_) if alive && self.stopped => make(self).and(Err(Errno::IO.into())),
            Some(fault) => Err(error_of(fault)),
            None => make(self),
        }
    }

    /// Counts a call and returns how it is to fail. `self.stopped` turns true at the last act.
    fn due(&mut self, call: Call) -> Option<Fault> {
        if self.stopped {
            return Some(Fault::Io);
        }
        let counts = &mut self.counts;
        match call {
            Call::Read => counts.reads += 1,
            Call::Write => counts.writes += 1,
            Call::Sync => counts.syncs += 1,
            Call::Open => counts.opens += 1,
            Call::List => counts.lists += 1,
            _ => {}
        }
        if call.changes() {
            self.stopped = self.stop_at == Some(counts.changes);
            counts.changes += 1;
        }
        let fault = if self.stopped { Some(Fault::Io) } else { self.ordered(call).or_else(|| self.by_chance(call)) };
        self.counts.faults += u64::from(fault.is_some());
        fault
    }

    fn ordered(&mut self, call: Call) -> Option<Fault> {
        let mut found = None;
        self.orders.retain_mut(|(of, skip, fault)| {
            if *of == call && *skip == 0 && found.is_none() {
                found = Some(*fault);
                return false;
            }
            if *of == call {
                *skip = skip.saturating_sub(1);
            }
            true
        });
        found
    }

    fn by_chance(&mut self, call: Call) -> Option<Fault> {
        let per_million = match call {
            Call::Write | Call::Truncate => self.faults.write,
            Call::Read | Call::Open | Call::List => self.faults.read,
            Call::Sync => self.faults.sync,
            _ => self.faults.names,
        };
        (per_million > 0 && self.rng.chance(u64::from(per_million), 1_000_000)).then_some(Fault::Io)
    }

    // ── Files ───────────────────────────────────────────────────────────────────────────────────────────────────

    pub(super) fn inode(&mut self, inode: u64) -> io::Result<&mut Inode> {
        self.inodes.get_mut(&inode).ok_or_else(|| Errno::BADF.into())
    }

    /// Writes all of `bytes`, what fits, or any part of it.
    pub(super) fn write(&mut self, inode: u64, offset: usize, bytes: &[u8]) -> io::Result<()> {
        let alive = !self.stopped;
        let due = self.due(Call::Write);
        if !alive {
            return Err(Errno::IO.into());
        }
        let fits = self.fitting(inode, offset, bytes.len())?;
        let written = if due.is_some() { self.rng.below(fits as u64 + 1) as usize } else { fits };
        self.inode(inode)?.write(offset, &bytes[..written]);
        self.counts.written_bytes += written as u64;
        match due {
            Some(fault) => Err(error_of(fault)),
            None if written < bytes.len() => {
                self.counts.faults += 1;
                Err(Errno::NOSPC.into())
            }
            None => Ok(()),
        }
    }

    /// Returns how many of `len` bytes at `offset` the capacity takes.
    fn fitting(&mut self, inode: u64, offset: usize, len: usize) -> io::Result<usize> {
        let Some(capacity) = self.faults.capacity else { return Ok(len) };
        let left = capacity.saturating_sub(self.used_bytes()) as usize;
        let has = self.inode(inode)?.content().len();
        Ok((has + left).saturating_sub(offset).min(len))
    }

    pub(super) fn sync(&mut self, inode: u64) -> io::Result<()> {
        let alive = !self.stopped;
        let due = self.due(Call::Sync);
        let Some(file) = self.inodes.get_mut(&inode) else { return Err(Errno::BADF.into()) };
        match due {
            None => {
                file.sync();
                Ok(())
            }
            Some(fault) => {
                // A sync under way when the machine stops is left to the crash: none, some or all of it happened.
                if alive && !self.stopped {
                    file.fail_sync(&mut self.rng, self.faults.drops_cache);
                }
                Err(error_of(fault))
            }
        }
    }

    pub(super) fn used_bytes(&self) -> u64 {
        let named = |inode: &u64| self.names.values().any(|node| *node == Node::File(*inode));
        let used = self.inodes.iter().filter(|(id, inode)| inode.handles > 0 || named(id));
        used.map(|(_, inode)| inode.content().len() as u64).sum()
    }

    pub(super) fn put(&mut self, path: &Path, content: &[u8]) {
        for parent in path.ancestors().skip(1) {
            self.set_synced(parent, Node::Dir);
        }
        let inode = self.next_inode;
        self.next_inode += 1;
        self.inodes.insert(inode, Inode::synced(content));
        self.set_synced(path, Node::File(inode));
        self.collect();
    }

    fn set_synced(&mut self, path: &Path, node: Node) {
        self.unsynced.retain(|change| change.iter().all(|(name, _)| name != path));
        self.names.insert(path.to_owned(), node);
        self.durable.insert(path.to_owned(), node);
    }

    /// Drops a file that nothing refers to any more.
    pub(super) fn forget(&mut self, inode: u64) {
        let node = Node::File(inode);
        let open = self.inodes.get(&inode).is_some_and(|inode| inode.handles > 0);
        let named = |names: &Names| names.values().any(|other| *other == node);
        let between = self.unsynced.iter().flatten().any(|(_, other)| *other == Some(node));
        if !open && !between && !named(&self.names) && !named(&self.durable) {
            self.inodes.remove(&inode);
        }
    }

    fn collect(&mut self) {
        for inode in self.inodes.keys().copied().collect::<Vec<_>>() {
            self.forget(inode);
        }
    }

    // ── Names ───────────────────────────────────────────────────────────────────────────────────────────────────

    pub(super) fn file(&self, path: &Path) -> io::Result<u64> {
        match self.names.get(path) {
            Some(Node::File(inode)) => Ok(*inode),
            Some(Node::Dir) => Err(Errno::ISDIR.into()),
            None => Err(Errno::NOENT.into()),
        }
    }

    pub(super) fn parent_of<'a>(&self, path: &'a Path) -> io::Result<&'a Path> {
        let parent = path.parent().ok_or(Errno::INVAL)?;
        match self.names.get(parent) {
            Some(Node::Dir) => Ok(parent),
            Some(Node::File(_)) => Err(Errno::NOTDIR.into()),
            None => Err(Errno::NOENT.into()),
        }
    }

    pub(super) fn create(&mut self, path: &Path) -> io::Result<u64> {
        self.parent_of(path)?;
        if self.names.contains_key(path) {
            return Err(Errno::EXIST.into());
        }
        let inode = self.next_inode;
        self.next_inode += 1;
        self.inodes.insert(inode, Inode::default());
        self.rename(vec![(path.to_owned(), Some(Node::File(inode)))]);
        Ok(inode)
    }

    pub(super) fn create_dir_all(&mut self, path: &Path) -> io::Result<()> {
        let mut above: Vec<&Path> = path.ancestors().collect();
        above.reverse();
        for dir in above {
            match self.names.get(dir) {
                Some(Node::Dir) => {}
                Some(Node::File(_)) => return Err(Errno::NOTDIR.into()),
                None => self.rename(vec![(dir.to_owned(), Some(Node::Dir))]),
            }
        }
        Ok(())
    }

    /// Changes names for processes; the disk learns of it with the next sync of the directory.
    pub(super) fn rename(&mut self, change: NameChange) {
        apply(&mut self.names, &change);
        self.unsynced.push(change);
    }

    pub(super) fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        self.look(Call::SyncDir)?;
        if self.names.get(path) != Some(&Node::Dir) {
            return Err(Errno::NOENT.into());
        }
        let within = |change: &NameChange| change.iter().any(|(name, _)| name.parent() == Some(path));
        for change in self.unsynced.extract_if(.., |change| within(change)) {
            apply(&mut self.durable, &change);
        }
        self.collect();
        Ok(())
    }

    pub(super) fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        if self.names.get(path) != Some(&Node::Dir) {
            return Err(Errno::NOENT.into());
        }
        Ok(self.names.keys().filter(|name| name.parent() == Some(path)).cloned().collect())
    }

    pub(super) fn files(&self) -> Vec<(PathBuf, u64)> {
        let len = |node: &Node| match node {
            Node::File(inode) => self.inodes.get(inode).map(|inode| inode.content().len() as u64),
            Node::Dir => None,
        };
        self.names.iter().filter_map(|(path, node)| Some((path.clone(), len(node)?))).collect()
    }

    // ── Ends ────────────────────────────────────────────────────────────────────────────────────────────────────

    pub(super) fn after_kill(&mut self) -> Self {
        let inodes = self.inodes.iter().map(|(id, inode)| (*id, inode.after_kill())).collect();
        self.reborn(inodes, self.names.clone(), self.durable.clone(), self.unsynced.clone())
    }

    pub(super) fn after_crash(&mut self, seed: u64) -> Self {
        let mut rng = SplitMix64::new(seed);
        let mut names = self.durable.clone();
        let count = self.unsynced.len() as u64;
        let first = match rng.below(3) {
            0 => Some(rng.below(count + 1)),
            1 => Some(if rng.chance(1, 2) { count } else { 0 }),
            _ => None,
        };
        let mut lost: Vec<&Path> = Vec::new();
        for (index, change) in (0..).zip(&self.unsynced) {
            let survives = first.map_or_else(|| rng.chance(1, 2), |first| index < first);
            if survives && change.iter().all(|(name, _)| !lost.contains(&&**name)) {
                apply(&mut names, change);
            } else {
                lost.extend(change.iter().map(|(name, _)| &**name));
            }
        }
        drop_orphans(&mut names);
        let inodes = self.inodes.iter().map(|(id, inode)| (*id, inode.after_crash(&mut rng))).collect();
        self.reborn(inodes, names.clone(), names, Vec::new())
    }

    fn reborn(
        &mut self,
        inodes: BTreeMap<u64, Inode>,
        names: Names,
        durable: Names,
        unsynced: Vec<NameChange>,
    ) -> Self {
        let (faults, next_inode) = (self.faults, self.next_inode);
        let mut disk = Self { faults, inodes, next_inode, names, durable, unsynced, ..Self::new(self.rng.draw()) };
        disk.collect();
        disk
    }
}

/// Takes away what stands in a directory that did not survive.
fn drop_orphans(names: &mut Names) {
    let all = names.clone();
    names.retain(|name, _| name.ancestors().skip(1).all(|parent| all.get(parent) == Some(&Node::Dir)));
}

fn apply(names: &mut Names, change: &NameChange) {
    for (name, node) in change {
        match node {
            Some(node) => names.insert(name.clone(), *node),
            None => names.remove(name),
        };
    }
}

fn error_of(fault: Fault) -> io::Error {
    match fault {
        Fault::Io => Errno::IO.into(),
        Fault::NoSpace => Errno::NOSPC.into(),
        Fault::NoFiles => Errno::MFILE.into(),
    }
}
