//! What one node is given: the slice of now, and which objects its last few slices held.

use std::collections::VecDeque;
use std::sync::Arc;

use spillway_crds::served::{Ask, Version};
use tokio::sync::watch;

use super::news::News;
use super::{EARLIER_MAX, Edition, Objects, Slice};

/// One node.
#[derive(Debug)]
pub(super) struct Node {
    current: Option<Current>,
    /// What was given before, the latest first.
    earlier: VecDeque<Earlier>,
    changes: watch::Sender<()>,
}

/// What a slice changed for who waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Given {
    /// Nothing.
    Same,
    /// The pods alone.
    Pods,
    /// The configuration, which took the generation offered.
    Configuration,
}

#[derive(Debug)]
struct Current {
    slice: Arc<Slice>,
    version: Version,
}

/// A slice that was given before: its objects as they differ from those of the one after it.
#[derive(Debug)]
struct Earlier {
    hash: String,
    differences: Vec<(Arc<str>, Option<Edition>)>,
}

impl Default for Node {
    fn default() -> Self {
        Self { current: None, earlier: VecDeque::new(), changes: watch::channel(()).0 }
    }
}

impl Given {
    pub(super) fn is_news(self) -> bool {
        self != Self::Same
    }
}

impl Node {
    /// Gives `slice`, whose configuration takes epoch and generation `next` where its content is another.
    pub(super) fn give(&mut self, slice: Arc<Slice>, next: (u64, u64)) -> Given {
        let hash = &slice.configuration.version.hash;
        let Some(current) = self.current.as_mut() else {
            let version = Version { epoch: next.0, generation: next.1, hash: hash.clone() };
            self.current = Some(Current { slice, version });
            self.wake();
            return Given::Configuration;
        };
        let given = if current.version.hash != *hash {
            let differences = differences(&slice.objects, &current.slice.objects);
            self.earlier.push_front(Earlier { hash: std::mem::take(&mut current.version.hash), differences });
            self.earlier.truncate(EARLIER_MAX);
            current.version = Version { epoch: next.0, generation: next.1, hash: hash.clone() };
            Given::Configuration
        } else if current.slice.pods.hash != slice.pods.hash {
            Given::Pods
        } else {
            Given::Same
        };
        current.slice = slice;
        if given.is_news() {
            self.wake();
        }
        given
    }

    /// Gives nothing from now on. Returns whether it gave anything before.
    pub(super) fn clear(&mut self) -> bool {
        self.earlier.clear();
        self.current.take().is_some()
    }

    /// Puts what is given under `epoch`.
    pub(super) fn renumber(&mut self, epoch: u64) {
        if let Some(current) = &mut self.current {
            current.version.epoch = epoch;
        }
    }

    /// Wakes who waits.
    pub(super) fn wake(&self) {
        self.changes.send_modify(|()| {});
    }

    /// Returns what resolves at the next change.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// Returns whether it gives something or somebody waits for it.
    pub(super) fn is_needed(&self) -> bool {
        self.current.is_some() || self.changes.receiver_count() > 0
    }

    /// Returns what is new to who asks.
    pub(super) fn news(&self, ask: &Ask) -> News {
        match &self.current {
            Some(Current { slice, version }) => News::of(slice, version, ask),
            None => News::default(),
        }
    }

    /// Returns whether what is given now has an object, by its label.
    pub(super) fn serves(&self, label: &str) -> bool {
        self.current.as_ref().is_some_and(|current| current.slice.objects.contains_key(label))
    }

    /// Returns the objects of a slice that was given lately, by the hash of its configuration.
    pub(super) fn objects_of(&self, hash: &str) -> Option<Arc<Objects>> {
        let Current { slice, version } = self.current.as_ref()?;
        if version.hash == hash {
            return Some(Arc::clone(&slice.objects));
        }
        let last = self.earlier.iter().position(|earlier| earlier.hash == hash)?;
        let mut objects = Objects::clone(&slice.objects);
        for (name, edition) in self.earlier.iter().take(last + 1).flat_map(|earlier| &earlier.differences) {
            match edition {
                Some(edition) => objects.insert(Arc::clone(name), *edition),
                None => objects.remove(name),
            };
        }
        Some(Arc::new(objects))
    }
}

/// Returns what makes `before` of `after`.
fn differences(after: &Objects, before: &Objects) -> Vec<(Arc<str>, Option<Edition>)> {
    let changed = before.iter().filter(|(name, edition)| after.get(*name) != Some(edition));
    let came = after.keys().filter(|name| !before.contains_key(*name));
    let changed = changed.map(|(name, edition)| (Arc::clone(name), Some(*edition)));
    changed.chain(came.map(|name| (Arc::clone(name), None))).collect()
}
