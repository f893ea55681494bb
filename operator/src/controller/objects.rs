//! What stands in the cluster of each object of ours besides its spec: its status, and its last good versions.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use crate::cluster::convert::{ObjectStatus, StatusText, Stored};
use crate::cluster::keep::Keep;
use crate::status::{self, News, Standing};
use crate::world::{Change, LastGood, Manifest, ObjectKey};

/// An object's namespace and name.
type Place = (Arc<str>, Arc<str>);

/// What is known of objects; see the module.
#[derive(Debug, Default)]
pub(super) struct Objects {
    known: BTreeMap<ObjectKey, Known>,
    /// Last good versions by the object they stand in.
    stored: BTreeMap<Place, Stored>,
    /// The objects that hold the last good versions of a pipeline.
    places: BTreeMap<ObjectKey, Vec<Place>>,
}

#[derive(Debug)]
struct Known {
    manifest: Manifest,
    /// Its status, as it stands in the cluster.
    stands: StatusText,
    asked: Asked,
}

/// What was asked for, and said, of an object since we lead.
#[derive(Debug, Default)]
struct Asked {
    status: Option<StatusText>,
    /// The last good version that is to be kept.
    good: Option<LastGood>,
    /// How it stood when it was told last; what the cluster says, while nothing was.
    told: Option<Standing>,
}

impl Objects {
    /// Takes note of an object; returns what the world is told.
    pub(super) fn there(&mut self, key: &ObjectKey, mut manifest: Manifest, status: StatusText) -> Change {
        manifest.last_good = self.latest(key);
        let before = self.known.remove(key).filter(|known| known.manifest.uid == manifest.uid);
        let asked = before.map(|known| Asked { status: None, ..known.asked }).unwrap_or_default();
        self.known.insert(key.clone(), Known { manifest: manifest.clone(), stands: status, asked });
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
    pub(super) fn good(&mut self, stored: Stored) -> Option<Change> {
        let (key, place) = (stored.of.clone(), stored.place.clone());
        self.stored.insert(place.clone(), stored);
        let places = self.places.entry(key.clone()).or_default();
        if !places.contains(&place) {
            places.push(place);
        }
        self.again(&key)
    }

    /// Forgets a last good version; returns what the world is told.
    pub(super) fn good_gone(&mut self, place: &Place) -> Option<Change> {
        let stored = self.stored.remove(place)?;
        if let Some(places) = self.places.get_mut(&stored.of) {
            places.retain(|known| known != place);
            if places.is_empty() {
                self.places.remove(&stored.of);
            }
        }
        self.again(&stored.of)
    }

    /// Returns the status of an object as it stands, or as it was asked for.
    pub(super) fn status(&self, key: &ObjectKey) -> Option<&StatusText> {
        self.known.get(key).map(|known| known.asked.status.as_ref().unwrap_or(&known.stands))
    }

    /// Returns what to tell of an object that gets this status, if anything; takes note that it was told.
    pub(super) fn news(&mut self, key: &ObjectKey, wanted: &ObjectStatus, now: Timestamp) -> Option<News> {
        let known = self.known.get_mut(key)?;
        let before = known.asked.told.take().unwrap_or_else(|| status::standing(known.stands.read(key.kind).conditions()));
        let (stands, news) = status::news(before, wanted.conditions(), &known.manifest.uid, now);
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
    pub(super) fn keep(&mut self, key: &ObjectKey, good: Option<&LastGood>) -> Option<Keep> {
        let places = self.places.get(key).map(Vec::as_slice).unwrap_or_default();
        let good = match good {
            Some(good) => good.clone(),
            None if places.len() > 1 => self.latest(key)?,
            None => return None,
        };
        let holds = |place: &&Place| self.stored.get(*place).is_some_and(|stored| stored.good == good);
        let is_there = places.iter().any(|place| holds(&place));
        let before: Vec<String> =
            places.iter().filter(|place| !holds(place)).map(|(_, name)| name.to_string()).collect();
        let known = self.known.get_mut(key)?;
        // One that was asked for before this one was there may stand beside it.
        let stands_beside = is_there && !before.is_empty();
        if known.asked.good.as_ref() == Some(&good) && !stands_beside {
            return None;
        }
        known.asked.good = Some(good.clone());
        Some(Keep { uid: known.manifest.uid.clone(), good, before })
    }

    /// Returns how many last good versions of a pipeline are there.
    #[cfg(test)]
    pub(super) fn places_of(&self, key: &ObjectKey) -> usize {
        self.places.get(key).map_or(0, Vec::len)
    }

    fn again(&mut self, key: &ObjectKey) -> Option<Change> {
        let latest = self.latest(key);
        let known = self.known.get_mut(key)?;
        known.manifest.last_good = latest;
        Some(Change::Object(key.clone(), Some(known.manifest.clone())))
    }

    fn latest(&self, key: &ObjectKey) -> Option<LastGood> {
        let all = self.places.get(key)?.iter().filter_map(|place| self.stored.get(place));
        all.max_by_key(|stored| (stored.made, stored.good.generation)).map(|stored| stored.good.clone())
    }
}
