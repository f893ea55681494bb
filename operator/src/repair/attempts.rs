//! Whose pods are evicted, and which pod is next.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use spillway_crds::kinds::status::{RECREATIONS_MAX, Recreation};

use super::census::{Coverage, Family, Seen, State};
use super::{APART, Eviction, FORGOTTEN_AFTER, MAKERS, Outcome, REST, REST_MAX, Repair, later, youngest};
use crate::world::ObjectKey;

/// What was asked for in this term.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    /// The attempts that stand in the status of pipelines.
    standing: BTreeMap<ObjectKey, Vec<Recreation>>,
    /// How many pods of each maker were evicted.
    evicted: BTreeMap<Arc<str>, usize>,
    /// Pods whose eviction was refused: until when they rest, and for how long next time.
    resting: BTreeMap<Arc<str>, (Timestamp, SignedDuration)>,
    /// Since when, as far as this process knows, no pod of a maker tells whether its attempt mended anything.
    absent: BTreeMap<ObjectKey, BTreeMap<String, Timestamp>>,
    under_way: Option<Eviction>,
    not_before: Timestamp,
}

impl Attempts {
    /// Forgets what was asked for; what stands in the cluster stands.
    pub(super) fn begin_term(&mut self) {
        let standing = std::mem::take(&mut self.standing);
        *self = Self { standing, ..Self::default() };
    }
}

impl Repair {
    /// Takes note of the attempts that stand in the status of a pipeline.
    pub fn stands(&mut self, key: &ObjectKey, recreations: Vec<Recreation>) {
        if recreations.is_empty() {
            self.attempts.standing.remove(key);
            self.attempts.absent.remove(key);
        } else {
            self.attempts.standing.insert(key.clone(), recreations);
        }
    }

    /// Returns the attempts that stand in the status of a pipeline.
    pub(super) fn standing(&self, key: &ObjectKey) -> &[Recreation] {
        self.attempts.standing.get(key).map(Vec::as_slice).unwrap_or_default()
    }

    /// Returns the pod to evict now, if there is one, and when to ask again otherwise; `wants` says which pipelines want that.
    pub fn next(
        &mut self,
        wants: impl Fn(&ObjectKey) -> bool,
        now: Timestamp,
    ) -> (Option<Eviction>, Option<Timestamp>) {
        if !self.rules.recreates || self.attempts.under_way.is_some() || self.attempts.standing.is_empty() {
            return (None, None);
        }
        let revision = match self.settled(now) {
            Ok(revision) => Arc::clone(revision),
            Err(again) => return (None, again),
        };
        let (mut found, mut again) = (None, None);
        let standing = self.attempts.standing.iter().filter(|(key, _)| wants(key));
        let standing = standing.flat_map(|(key, recreations)| recreations.iter().map(move |one| (key, one)));
        let current = standing.filter(|(_, one)| *one.revision == *revision);
        for (from, eviction) in current.flat_map(|(key, one)| self.candidates(key, one)) {
            if from > now {
                again = again.into_iter().chain([from]).min();
            } else {
                found.get_or_insert(eviction);
            }
        }
        self.attempts.under_way.clone_from(&found);
        (found, again)
    }

    /// Takes note of what came of an eviction.
    pub fn done(&mut self, eviction: &Eviction, outcome: Outcome, now: Timestamp) {
        self.stats.tried(outcome);
        let attempts = &mut self.attempts;
        if attempts.under_way.as_ref() != Some(eviction) {
            return;
        }
        attempts.under_way = None;
        attempts.not_before = later(now, APART);
        attempts.resting.retain(|_, (until, _)| later(*until, REST_MAX) > now);
        let before = attempts.resting.remove(&eviction.uid);
        match outcome {
            Outcome::Evicted => *attempts.evicted.entry(Arc::clone(&eviction.maker)).or_default() += 1,
            Outcome::Gone => {}
            Outcome::Held | Outcome::Failed => {
                let rest = before.map_or(REST, |(_, rest)| rest);
                let next = rest.saturating_mul(2).min(REST_MAX);
                attempts.resting.insert(Arc::clone(&eviction.uid), (later(now, rest), next));
            }
        }
        let standing: Vec<&str> = attempts.standing.values().flatten().map(|one| &*one.uid).collect();
        attempts.evicted.retain(|maker, _| standing.contains(&&**maker));
    }

    /// Returns the pods that an attempt means and that may be evicted next, each with from when.
    fn candidates(&self, key: &ObjectKey, recreation: &Recreation) -> Vec<(Timestamp, Eviction)> {
        let family = self.covered.get(key).and_then(|coverage| coverage.families.get_key_value(&*recreation.uid));
        let Some((maker, family)) = family else { return Vec::new() };
        let (until, attempts) = (youngest(recreation), &self.attempts);
        let well = family.pods.iter().filter(|pod| pod.created > until && pod.state == State::Current).count();
        if came_back(family, recreation) || well < attempts.evicted.get(maker).copied().unwrap_or_default() {
            return Vec::new();
        }
        let candidate = |pod: &Seen| {
            let rests = attempts.resting.get(&pod.uid).map_or(attempts.not_before, |(until, _)| *until);
            let eviction = Eviction {
                namespace: Arc::clone(&key.namespace),
                pod: Arc::clone(&pod.name),
                uid: Arc::clone(&pod.uid),
                maker: Arc::clone(maker),
            };
            (rests.max(attempts.not_before), eviction)
        };
        let meant = family.pods.iter().filter(|pod| pod.state.is_mendable() && pod.created <= until);
        meant.map(candidate).collect()
    }

    /// Returns the attempts that are to stand in the status of a pipeline where these stood before, and when to look again.
    pub(super) fn recreations(
        &mut self,
        key: &ObjectKey,
        before: &[Recreation],
        now: Timestamp,
    ) -> (Vec<Recreation>, Option<Timestamp>) {
        let revision = match self.settled(now) {
            Ok(revision) => Arc::clone(revision),
            Err(again) => return (before.to_vec(), again.filter(|_| self.covered.contains_key(key))),
        };
        let coverage = self.covered.get(key);
        let known = self.attempts.absent.remove(key).unwrap_or_default();
        let mut absent = BTreeMap::new();
        let mut again: Option<Timestamp> = None;
        let mut recreations = Vec::new();
        for one in before.iter().filter(|one| *one.revision == *revision) {
            let since = match ended(coverage, one) {
                Some(true) => continue,
                Some(false) => None,
                None => Some(known.get(&one.uid).copied().unwrap_or(now)),
            };
            let over = since.map(|since| later(since, FORGOTTEN_AFTER));
            if over.is_some_and(|over| over <= now) {
                continue;
            }
            again = again.into_iter().chain(over).min();
            absent.extend(since.map(|since| (one.uid.clone(), since)));
            recreations.push(one.clone());
        }
        if !absent.is_empty() {
            self.attempts.absent.insert(key.clone(), absent);
        }
        let new = self.begun(coverage, &mut recreations, &revision, now);
        (recreations, again.into_iter().chain(new).min())
    }

    /// Adds the attempts that are to begin now; returns when there are others.
    fn begun(
        &self,
        coverage: Option<&Coverage>,
        recreations: &mut Vec<Recreation>,
        revision: &str,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let mut again: Option<Timestamp> = None;
        for family in coverage.into_iter().flat_map(|coverage| coverage.families.values()) {
            let Some(maker) = family.maker.as_ref().filter(|maker| MAKERS.contains(&&*maker.kind)) else { continue };
            let is_there = recreations.iter().any(|one| *one.uid == *maker.uid);
            if is_there || !family.pods.iter().any(|pod| pod.state.is_mendable()) {
                continue;
            }
            let youngest = family.faulty().map(|pod| pod.created).max().and_then(|at| Timestamp::from_second(at).ok());
            let Some(youngest) = youngest else { continue };
            let ripe = later(youngest, self.rules.after);
            if ripe > now {
                again = Some(again.map_or(ripe, |again| again.min(ripe)));
            } else if recreations.len() < RECREATIONS_MAX as usize {
                recreations.push(Recreation {
                    kind: maker.kind.to_string(),
                    name: maker.name.to_string(),
                    uid: maker.uid.to_string(),
                    revision: revision.to_string(),
                    youngest: youngest.to_string(),
                    since: Timestamp::from_second(now.as_second()).unwrap_or(now).to_string(),
                });
            }
        }
        again
    }
}

/// Returns whether a pod that was made since does not have what it asked for.
pub(super) fn came_back(family: &Family, recreation: &Recreation) -> bool {
    family.faulty().any(|pod| pod.created > youngest(recreation))
}

/// Returns whether an attempt came to its end: no pod lacks anything any more, and one came back well. `None` where there is none
/// that would tell.
fn ended(coverage: Option<&Coverage>, recreation: &Recreation) -> Option<bool> {
    let family = coverage?.families.get(&*recreation.uid)?;
    if family.faulty().next().is_some() {
        return Some(false);
    }
    family.pods.iter().any(|pod| pod.created > youngest(recreation)).then_some(true)
}
