//! What stands in the cluster of each object of ours besides its spec: its status, and its last good versions.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use crate::cluster::convert::{ObjectStatus, Stored};
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
    /// As it stands, or as it was asked for.
    status: ObjectStatus,
    /// The last good version that was asked to be kept.
    asked: Option<LastGood>,
    /// How it stood when it was told last; what the cluster said at first, while nothing was.
    told: Option<Standing>,
}

impl Objects {
    /// Takes note of an object; returns what the world is told.
    pub(super) fn there(&mut self, key: &ObjectKey, mut manifest: Manifest, status: ObjectStatus) -> Change {
        manifest.last_good = self.latest(key);
        let before = self.known.remove(key).filter(|known| known.manifest.uid == manifest.uid);
        let (asked, told) = before.map(|known| (known.asked, known.told)).unwrap_or_default();
        self.known.insert(key.clone(), Known { manifest: manifest.clone(), status, asked, told });
        Change::Object(key.clone(), Some(manifest))
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
    pub(super) fn status(&self, key: &ObjectKey) -> Option<&ObjectStatus> {
        self.known.get(key).map(|known| &known.status)
    }

    /// Returns what to tell of an object that gets this status, if anything; takes note that it was told.
    pub(super) fn news(&mut self, key: &ObjectKey, wanted: &ObjectStatus, now: Timestamp) -> Option<News> {
        let known = self.known.get_mut(key)?;
        let before = known.told.take().unwrap_or_else(|| status::standing(known.status.conditions()));
        let (stands, news) = status::news(before, wanted.conditions(), &known.manifest.uid, now);
        known.told = Some(stands);
        news
    }

    /// Takes note that this status was asked for.
    pub(super) fn set_status(&mut self, key: &ObjectKey, status: ObjectStatus) {
        if let Some(known) = self.known.get_mut(key) {
            known.status = status;
        }
    }

    /// Returns what to ask for so that this last good version is kept; `None` where that was asked already.
    pub(super) fn keep(&mut self, key: &ObjectKey, good: &LastGood) -> Option<Keep> {
        let places = self.places.get(key).into_iter().flatten();
        let before = places.map(|(_, name)| name.to_string()).collect();
        let known = self.known.get_mut(key)?;
        if known.asked.as_ref() == Some(good) {
            return None;
        }
        known.asked = Some(good.clone());
        Some(Keep { uid: known.manifest.uid.clone(), good: good.clone(), before })
    }

    fn again(&mut self, key: &ObjectKey) -> Option<Change> {
        let latest = self.latest(key);
        let known = self.known.get_mut(key)?;
        known.manifest.last_good = latest;
        Some(Change::Object(key.clone(), Some(known.manifest.clone())))
    }

    fn latest(&self, key: &ObjectKey) -> Option<LastGood> {
        let all = self.places.get(key)?.iter().filter_map(|place| self.stored.get(place));
        all.max_by_key(|stored| stored.good.generation).map(|stored| stored.good.clone())
    }
}
