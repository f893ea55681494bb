//! What the status of a pipeline says of pods that lack what they asked for, and what is told of the makers of such pods.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use spillway_crds::inject;
use spillway_crds::kinds::status::{Recreation, SidecarCounts};
use spillway_crds::nodes::named;

use super::attempts::came_back;
use super::census::{Coverage, Family, Seen, State};
use super::{MAKERS_TOLD_MAX, Remediation, Repair};
use crate::reason::Reason;
use crate::world::ObjectKey;

/// What an Event is about: a maker of pods, or a pod that nobody made.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct About {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Group and version.
    pub api_version: Arc<str>,
    /// Its kind.
    pub kind: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// `metadata.uid`.
    pub uid: Arc<str>,
}

/// Why it is told: the same cause is the same Event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cause {
    /// The word for it.
    pub reason: Reason,
    /// Why a pod like that is given none.
    pub barred: Option<inject::Reason>,
}

/// What an Event of a maker says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Why.
    pub cause: Cause,
    /// In words.
    pub note: String,
    /// When.
    pub at: Timestamp,
}

/// What is said of the sidecars of a pipeline.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sidecars {
    /// The figures; `None` while nothing lacks anything.
    pub counts: Option<SidecarCounts>,
    /// Why, and in which words.
    pub fault: Option<(Reason, String)>,
}

impl Repair {
    /// Returns what the status of a pipeline says of the pods that asked for it, where `before` stands in it, and when to look again.
    pub fn sidecars(
        &mut self,
        key: &ObjectKey,
        before: Option<&SidecarCounts>,
        remediation: Remediation,
        now: Timestamp,
    ) -> (Sidecars, Option<Timestamp>) {
        let before = before.map(|counts| &counts.recreations[..]).unwrap_or_default();
        let (recreations, again) = match remediation {
            Remediation::Recreate if self.rules.recreates => self.recreations(key, before, now),
            _ => (Vec::new(), None),
        };
        let none = Coverage::default();
        let coverage = self.covered.get(key).unwrap_or(&none);
        let missing: Vec<&Seen> = coverage.faulty().filter(|pod| pod.state != State::Outdated).collect();
        let outdated: Vec<&Seen> = coverage.faulty().filter(|pod| pod.state == State::Outdated).collect();
        let fault = self.fault((&missing[..], &outdated[..]), coverage, &recreations, remediation);
        let is_well = missing.is_empty() && outdated.is_empty() && recreations.is_empty();
        let counts = (!is_well).then_some(SidecarCounts {
            missing: missing.len() as u32,
            outdated: outdated.len() as u32,
            recreations,
        });
        (Sidecars { counts, fault }, again)
    }

    fn fault(
        &self,
        (missing, outdated): (&[&Seen], &[&Seen]),
        coverage: &Coverage,
        recreations: &[Recreation],
        remediation: Remediation,
    ) -> Option<(Reason, String)> {
        let mut parts = Vec::new();
        if !missing.is_empty() {
            parts.push(format!("asked for a sidecar and have none: {}", names(missing)));
        }
        if !outdated.is_empty() {
            parts.push(format!("have an outdated one: {}", names(outdated)));
        }
        if parts.is_empty() {
            return None;
        }
        let is_back = |one: &&Recreation| coverage.families.get(&*one.uid).is_some_and(|family| came_back(family, one));
        let back: Vec<String> =
            recreations.iter().filter(is_back).map(|one| format!("{} {}", one.kind, one.name)).collect();
        let reason = match (back.is_empty(), missing.is_empty()) {
            (false, _) => Reason::SidecarsNotMended,
            (true, false) => Reason::SidecarsMissing,
            (true, true) => Reason::SidecarsOutdated,
        };
        if !back.is_empty() {
            let makers = named(back.iter().map(String::as_str));
            parts
                .push(format!("made anew and back without what was asked for, so not evicted again: pods of {makers}"));
        }
        if remediation == Remediation::Recreate && !self.rules.recreates {
            parts.push("the administrator has not enabled that pods are recreated".to_owned());
        }
        Some((reason, format!("pods {}", parts.join("; "))))
    }

    /// Returns what is to be told of makers of the pods of a pipeline: of each once for each cause.
    pub fn news(&mut self, key: &ObjectKey, now: Timestamp) -> Vec<(About, Told)> {
        let before = self.told.remove(key).unwrap_or_default();
        let Some(coverage) = self.covered.get(key) else { return Vec::new() };
        let recreations = self.standing(key);
        let mut told = BTreeMap::new();
        let mut news = Vec::new();
        for (uid, family) in coverage.families.iter().filter(|(_, family)| family.faulty().next().is_some()) {
            if told.len() >= MAKERS_TOLD_MAX {
                break;
            }
            let cause = cause(family, recreations.iter().find(|one| *one.uid == **uid));
            told.insert(Arc::clone(uid), cause);
            if before.get(uid) != Some(&cause) {
                news.push((about(key, uid, family), Told { cause, note: note(key, family, cause), at: now }));
            }
        }
        if !told.is_empty() {
            self.told.insert(key.clone(), told);
        }
        news
    }
}

impl Cause {
    /// Returns it as one text: what tells it from others.
    pub fn text(&self) -> String {
        format!("{}/{}", self.reason.name(), self.barred.map_or("", inject::Reason::as_str))
    }
}

impl About {
    /// Returns what it is about as log lines name it.
    pub fn label(&self) -> String {
        format!("{} {}/{}", self.kind, self.namespace, self.name)
    }
}

fn about(key: &ObjectKey, uid: &Arc<str>, family: &Family) -> About {
    let namespace = Arc::clone(&key.namespace);
    match (&family.maker, family.pods.first()) {
        (Some(maker), _) => {
            let (api_version, kind, name) = (maker.api_version.clone(), maker.kind.clone(), maker.name.clone());
            About { namespace, api_version, kind, name, uid: Arc::clone(uid) }
        }
        (None, pod) => {
            let name = pod.map(|pod| Arc::clone(&pod.name)).unwrap_or_default();
            About { namespace, api_version: "v1".into(), kind: "Pod".into(), name, uid: Arc::clone(uid) }
        }
    }
}

fn cause(family: &Family, attempt: Option<&Recreation>) -> Cause {
    let missing = family.faulty().filter_map(|pod| match pod.state {
        State::Missing(barred) => Some(barred),
        _ => None,
    });
    // What no making anew mends comes first.
    let missing = missing.max();
    let reason = match missing {
        _ if attempt.is_some_and(|attempt| came_back(family, attempt)) => Reason::SidecarsNotMended,
        Some(_) => Reason::SidecarsMissing,
        None => Reason::SidecarsOutdated,
    };
    Cause { reason, barred: missing.flatten() }
}

fn note(key: &ObjectKey, family: &Family, cause: Cause) -> String {
    let pods: Vec<&Seen> = family.faulty().collect();
    let what = match cause.reason {
        Reason::SidecarsNotMended => "came back without an up-to-date one, and are not evicted again",
        Reason::SidecarsOutdated => "have an outdated one",
        _ => "have none",
    };
    let text = format!("pods that asked for a sidecar with pipeline `{}` {what}: {}", key.name, names(&pods));
    crate::status::noted(&text)
}

/// Returns the names of pods, each with why it is given none where that is known.
fn names(pods: &[&Seen]) -> String {
    let name = |pod: &&Seen| match pod.state {
        State::Missing(Some(barred)) => format!("{} ({})", pod.name, barred.as_str()),
        _ => pod.name.to_string(),
    };
    let names: Vec<String> = pods.iter().map(name).collect();
    named(names.iter().map(String::as_str))
}
