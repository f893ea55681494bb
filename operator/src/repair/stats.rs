//! What is counted of pods that asked for a sidecar. Label values are words of this program.

use std::collections::BTreeMap;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::census::{Coverage, State};
use super::{MAKERS_TOLD_MAX, Outcome};
use crate::world::ObjectKey;

/// A label and one of its words.
type Label = [(&'static str, &'static str); 1];

/// The figures of repair. Cheap to clone; a clone counts into the same.
#[derive(Debug, Clone, Default)]
pub struct RepairStats {
    pods: Family<Label, Gauge>,
    evictions: Family<Label, Counter>,
    untold: Gauge,
}

impl RepairStats {
    /// Registers all of it in a registry whose prefix is `spillway_operator`.
    pub fn register(&self, registry: &mut Registry) {
        let Self { pods, evictions, untold } = self.clone();
        registry.register("sidecar_pods", "Pods that asked for a sidecar, by what they have.", pods);
        let what = "Evictions of pods that lack what they asked for, by what came of them.";
        registry.register("sidecar_evictions", what, evictions);
        let what = "Makers of pods that lack what they asked for that are told in no Event, since there are too many.";
        registry.register("sidecar_untold_makers", what, untold);
        self.count(&BTreeMap::new());
    }

    /// Says how many pods have what.
    pub(super) fn count(&self, covered: &BTreeMap<ObjectKey, Coverage>) {
        let sum = |of: &dyn Fn(&Coverage) -> usize| covered.values().map(of).sum::<usize>();
        let faulty = sum(&|coverage| coverage.count(|_| true));
        let set = |state, count: usize| self.pods.get_or_create(&[("state", state)]).set(whole(count));
        set("current", sum(&Coverage::asked) - faulty);
        set("outdated", sum(&|coverage| coverage.count(|state| state == State::Outdated)));
        set("missing", sum(&|coverage| coverage.count(|state| state == State::Missing(None))));
        set("barred", sum(&|coverage| coverage.count(|state| matches!(state, State::Missing(Some(_))))));
        let makers =
            |coverage: &Coverage| coverage.families.values().filter(|family| family.faulty().next().is_some()).count();
        self.untold.set(whole(sum(&|coverage| makers(coverage).saturating_sub(MAKERS_TOLD_MAX))));
    }

    /// Counts an eviction.
    pub(super) fn tried(&self, outcome: Outcome) {
        self.evictions.get_or_create(&[("outcome", outcome.name())]).inc();
    }

    /// Returns how many evictions had this outcome.
    #[cfg(test)]
    pub(super) fn outcomes(&self, outcome: Outcome) -> u64 {
        self.evictions.get_or_create(&[("outcome", outcome.name())]).get()
    }

    /// Returns how many pods are in that state.
    #[cfg(test)]
    pub(super) fn pods(&self, state: &'static str) -> i64 {
        self.pods.get_or_create(&[("state", state)]).get()
    }
}

fn whole(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
