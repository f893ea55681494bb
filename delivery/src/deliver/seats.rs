//! Which seats in groups the references of a pipeline get, at its opening and at an edit.
//!
//! # Guarantees
//! - A backend that is added to a group begins with what the group has not resolved: where its slowest member stands; also where
//!   an edit puts others in the place of all members, which leave what they hold to them, whether or not a process ran then.
//! - Every member that has saved something is seated before any of them sends, so that none sends what another has.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

use super::DeliverySpec;
use super::deliveries::{Order, Orders, Seat, Task};
use super::engine::Bed;
use super::group::{Done, Group};
use super::jobs::is_job;
use crate::log::{DeliveryKey, Progress};
use crate::settings::{PipelineSettings, Strategy};

/// The groups of a pipeline as settings want them.
pub(super) struct Seats {
    groups: BTreeMap<Arc<str>, Wanted>,
}

struct Wanted {
    group: Arc<Group>,
    /// Where the slowest member stands that has saved something.
    from: Option<u64>,
    /// Where the earliest of these began: what lies above is theirs to deliver.
    began: Option<u64>,
    /// Whether all of them come in the place of others, that are gone.
    replaces: bool,
}

impl Seats {
    /// Returns the groups that `settings` want; `saved` is what an earlier process left, where this one has not begun.
    pub(super) fn of(
        bed: &Bed,
        settings: &PipelineSettings,
        orders: &Orders,
        saved: &[(DeliveryKey, Progress)],
    ) -> Self {
        let mut groups = BTreeMap::new();
        for route in settings.routes.iter().filter(|route| route.strategy != Strategy::All) {
            let known = bed.deliveries.groups.find(&route.name);
            let group = known.unwrap_or_else(|| Group::new(&settings.name, &route.name));
            let (mut from, mut began) = (None, None);
            for backend in &route.backends {
                let key = DeliveryKey { route: route.name.clone(), backend_uid: backend.uid.clone() };
                let Some(progress) = bed.log.progress(&key) else { continue };
                from = Some(from.map_or(progress.cursor, |from: u64| from.min(progress.cursor)));
                began = began.into_iter().chain(progress.began).min();
            }
            let from = from.or_else(|| slowest(bed, orders, &group));
            let left = slowest_left(saved, &route.name).filter(|_| from.is_none());
            let wanted = Wanted { group, from: from.or(left), began: began.or(left), replaces: left.is_some() };
            groups.insert(route.name.clone(), wanted);
        }
        Self { groups }
    }

    /// Returns where a reference that is new begins, unless that is at the edit.
    pub(super) fn begins(&self, route: &str) -> Option<u64> {
        self.groups.get(route)?.from
    }

    /// Whether the references of a route are a group.
    pub(super) fn is_group(&self, route: &str) -> bool {
        self.groups.contains_key(route)
    }

    /// Returns the seat of a reference; `at` is where its route begins if nothing of it is known.
    pub(super) fn seat(&self, route: &str, at: u64) -> Option<Seat> {
        self.groups.get(route).map(|wanted| Seat { group: wanted.group.clone(), from: wanted.from.unwrap_or(at) })
    }

    /// Seats what begins, before any of it sends.
    pub(super) fn sit(&self, begun: &[(DeliverySpec, Progress)]) {
        for (spec, progress) in begun {
            if let Some(wanted) = self.groups.get(&spec.route) {
                wanted.group.seat(&spec.backend_uid, &spec.backend_name, Done::of(progress));
            }
        }
    }

    /// Whether a reference that was removed while the process was away leaves what it holds to others; they learn what it had
    /// resolved.
    pub(super) fn releases(&self, key: &DeliveryKey, progress: &Progress) -> bool {
        // Whoever began behind events never delivers them; and what each had to get by itself those who come have nothing of.
        let has_all = |wanted: &&Wanted| wanted.began.is_some_and(|began| began <= progress.cursor);
        let is_theirs = |wanted: &&Wanted| progress.grouped || !wanted.replaces;
        let Some(wanted) = self.groups.get(&key.route).filter(has_all).filter(is_theirs) else { return false };
        wanted.group.remember(Done::of(progress));
        true
    }

    /// Whether a reference that runs leaves what it holds to others of its group, which go on.
    pub(super) fn releases_running(
        &self,
        bed: &Bed,
        key: &DeliveryKey,
        orders: &Orders,
        wanted: &[DeliveryKey],
    ) -> bool {
        let seat = |key: &DeliveryKey| orders.get(key).and_then(|sender| sender.borrow().seat.clone());
        let Some(own) = seat(key) else { return false };
        let Some(cursor) = bed.log.progress(key).map(|progress| progress.cursor) else { return false };
        let has_all = |other: &DeliveryKey| {
            bed.log.progress(other).and_then(|progress| progress.began).is_some_and(|began| began <= cursor)
        };
        let stays = |other| seat(other).is_some_and(|other| Arc::ptr_eq(&own.group, &other.group));
        // One that comes is seated there.
        let goes_on = self.groups.get(&key.route).is_some_and(|wanted| Arc::ptr_eq(&own.group, &wanted.group));
        let comes = |other: &DeliveryKey| goes_on && other.route == key.route;
        wanted.iter().any(|other| (stays(other) || comes(other)) && has_all(other))
    }

    /// Brings the groups of the pipeline to what is wanted, now that it is, and keeps the places of those that come.
    pub(super) fn arrange(&self, bed: &Bed, settings: &PipelineSettings) {
        let groups = self.groups.values().map(|wanted| wanted.group.clone()).collect();
        bed.deliveries.groups.arrange(settings, groups);
        for route in settings.routes.iter().filter(|_| !settings.suspend) {
            let Some(wanted) = self.groups.get(&route.name) else { continue };
            for backend in &route.backends {
                let key = DeliveryKey { route: route.name.clone(), backend_uid: backend.uid.clone() };
                let Some(progress) = bed.log.progress(&key) else { continue };
                // One that runs may be brought back to what it synced last.
                let done = Done::up_to(&progress, bed.log.floor(&key));
                wanted.group.reserve(&backend.uid, &backend.name, done);
            }
        }
    }
}

/// Returns where the slowest of those stands that sat in the group of a route when their process ended.
fn slowest_left(saved: &[(DeliveryKey, Progress)], route: &str) -> Option<u64> {
    let of_group = saved.iter().filter(|(key, progress)| *key.route == *route && progress.grouped && !is_job(key));
    of_group.map(|(_, progress)| progress.cursor).min()
}

/// Returns where the slowest of those stands that sit in a group now and do not go yet.
fn slowest(bed: &Bed, orders: &Orders, group: &Arc<Group>) -> Option<u64> {
    let is_member = |sender: &watch::Sender<Order>| {
        let order = sender.borrow();
        let is_there = order.seat.as_ref().is_some_and(|seat| Arc::ptr_eq(&seat.group, group));
        is_there && !matches!(order.task, Task::Drain { .. })
    };
    let members = orders.iter().filter(|(_, sender)| is_member(sender));
    members.filter_map(|(key, _)| bed.log.progress(key)).map(|progress| progress.cursor).min()
}
