//! What stands in the cluster of each object of ours besides its spec: its status, and its last good versions.
//!
//! # Guarantees
//! - A last good version counts for the pipeline that owns it by `metadata.uid`, and of a pipeline of the cluster only where it
//!   stands in the operator's own namespace: what somebody else wrote under that name, or a pipeline of that name had before,
//!   is nobody's.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use crate::cluster::convert::{ObjectStatus, Place, StatusText, Stored};
use crate::cluster::keep::Keep;
use crate::status::{self, News, Standing};
use crate::world::{Change, LastGood, Manifest, ObjectKey};

/// What is known of objects; see the module.
#[derive(Debug)]
pub(super) struct Objects {
    /// The operator's namespace.
    own: Arc<str>,
    known: BTreeMap<ObjectKey, Known>,
    /// The last good versions under the name of a pipeline: one, but for the time until an earlier one is removed.
    stored: BTreeMap<ObjectKey, Vec<Stored>>,
}

#[derive(Debug)]
struct Known {
    /// `metadata.uid`.
    uid: Arc<str>,
    /// Its status, as it stands in the cluster.
    stands: StatusText,
    asked: Asked,
}

/// What was asked for, and said, of an object since we lead.
#[derive(Debug, Default)]
struct Asked {
    status: Option<StatusText>,
    /// The last good version that is to be kept.
    good: Option<Arc<LastGood>>,
    /// How it stood when it was told last; what the cluster says, while nothing was.
    told: Option<Standing>,
}

impl Objects {
    /// Returns those of an operator in the namespace `own`, of which nothing is known yet.
    pub(super) fn new(own: &str) -> Self {
        Self { own: own.into(), known: BTreeMap::new(), stored: BTreeMap::new() }
    }

    /// Takes note of an object; returns what the world is told.
    pub(super) fn there(&mut self, key: &ObjectKey, mut manifest: Manifest, status: StatusText) -> Change {
        let before = self.known.remove(key).filter(|known| known.uid == manifest.uid);
        let (uid, asked) = match before {
            Some(Known { uid, asked, .. }) => (uid, Asked { status: None, ..asked }),
            None => (Arc::clone(&manifest.uid), Asked::default()),
        };
        manifest.uid = Arc::clone(&uid);
        self.known.insert(key.clone(), Known { uid, stands: status, asked });
        manifest.last_good = self.latest(key);
        Change::Object(key.clone(), Some(manifest))
    }

    /// Forgets what was asked for and told: it was not written, or not by us, or long ago.
    pub(super) fn begin_term(&mut self) {
        self.known.values_mut().for_each(|known| known.asked = Asked::default());
    }

    /// Forgets an object.
    pub(super) fn gone(&mut self, key: &ObjectKey) {
        self.known.remove(key);
    }

    /// Takes note of a last good version; returns what the world is told.
    pub(super) fn good(&mut self, key: ObjectKey, mut stored: Stored) -> Change {
        // What was asked for and what came of it are the same, and held once.
        let asked = self.known.get(&key).and_then(|known| known.asked.good.as_ref());
        if let Some(asked) = asked.filter(|asked| **asked == stored.good) {
            stored.good = Arc::clone(asked);
        }
        let all = self.stored.entry(key.clone()).or_insert_with(|| Vec::with_capacity(1));
        all.retain(|known| known.place != stored.place);
        all.push(stored);
        let latest = self.latest(&key);
        Change::LastGood(key, latest)
    }

    /// Forgets a last good version; returns what the world is told.
    pub(super) fn good_gone(&mut self, key: ObjectKey, place: &Place) -> Change {
        if let Some(all) = self.stored.get_mut(&key) {
            all.retain(|known| known.place != *place);
            all.shrink_to_fit();
            if all.is_empty() {
                self.stored.remove(&key);
            }
        }
        let latest = self.latest(&key);
        Change::LastGood(key, latest)
    }

    /// Returns the status of an object as it stands, or as it was asked for.
    pub(super) fn status(&self, key: &ObjectKey) -> Option<&StatusText> {
        self.known.get(key).map(|known| known.asked.status.as_ref().unwrap_or(&known.stands))
    }

    /// Returns what to tell of an object that gets this status, if anything; takes note that it was told.
    pub(super) fn news(&mut self, key: &ObjectKey, wanted: &ObjectStatus, now: Timestamp) -> Option<News> {
        let known = self.known.get_mut(key)?;
        let before =
            known.asked.told.take().unwrap_or_else(|| status::standing(known.stands.read(key.kind).conditions()));
        let (stands, news) = status::news(before, wanted.conditions(), &known.uid, now);
        known.asked.told = Some(stands);
        news
    }

    /// Takes note that this status was asked for.
    pub(super) fn set_status(&mut self, key: &ObjectKey, status: StatusText) {
        if let Some(known) = self.known.get_mut(key) {
            known.asked.status = Some(status);
        }
    }

    /// Returns what to ask for so that `good` is kept, or what is kept where that is right, and nothing besides; `None` where
    /// that is so, or was asked for already.
    pub(super) fn keep(&mut self, key: &ObjectKey, good: Option<&Arc<LastGood>>) -> Option<Keep> {
        let good = match good {
            Some(good) => Arc::clone(good),
            None if self.stored_of(key).nth(1).is_some() => self.latest(key)?,
            None => return None,
        };
        let is_there = self.stored_of(key).any(|stored| stored.good == good);
        let others = self.stored_of(key).filter(|stored| stored.good != good);
        let before: Vec<String> = others.map(|stored| stored.place.1.to_string()).collect();
        let known = self.known.get_mut(key)?;
        // One that was asked for before this one was there may stand beside it.
        let stands_beside = is_there && !before.is_empty();
        if known.asked.good.as_ref() == Some(&good) && !stands_beside {
            return None;
        }
        known.asked.good = Some(good.clone());
        Some(Keep { uid: known.uid.clone(), good, before })
    }

    /// Returns how many last good versions of a pipeline are there.
    #[cfg(test)]
    pub(super) fn places_of(&self, key: &ObjectKey) -> usize {
        self.stored.get(key).map_or(0, Vec::len)
    }

    /// Returns the last good versions that the pipeline there is owns, where they belong.
    fn stored_of<'a>(&'a self, key: &'a ObjectKey) -> impl Iterator<Item = &'a Stored> {
        let owner = self.known.get(key).map(|known| &known.uid);
        let namespace = if key.kind.is_of_the_cluster() { &self.own } else { &key.namespace };
        let all = self.stored.get(key).into_iter().flatten();
        all.filter(move |stored| owner == Some(&stored.owner) && stored.place.0 == *namespace)
    }

    fn latest(&self, key: &ObjectKey) -> Option<Arc<LastGood>> {
        let latest = self.stored_of(key).max_by_key(|stored| (stored.made, stored.good.generation))?;
        Some(Arc::clone(&latest.good))
    }
}
