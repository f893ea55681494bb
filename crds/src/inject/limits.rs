//! What a namespace allows a container: of its `LimitRange`s as much as a sidecar is brought within.
//!
//! # Guarantees
//! Amounts that come out of [`LimitRange::fit`] are taken by an API server that has the same limits, and are nearest to those wished
//! for; where there are none it says so.
//!
//! # It must not know
//! Limits of whole pods (type `Pod`), and quotas: what else a namespace holds, or a pod has, decides over these.
//!
//! # Limits
//! Six amounts, however many `LimitRange`s there are.

use serde_json::Value;

use super::Amounts;
use super::quantity::Quantity;
use super::tuning::{CPU_MIN, MEMORY_MIN};

/// What a namespace allows a container; nothing is a limit by default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LimitRange {
    cpu: Bounds,
    memory: Bounds,
}

/// What is allowed of one resource.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Bounds {
    min: Option<Quantity>,
    max: Option<Quantity>,
    /// The most that the limit may be of the request.
    ratio: Option<Quantity>,
}

impl LimitRange {
    /// Reads the `spec` of a `LimitRange`. What is no amount limits nothing, as an API server takes none such.
    pub fn of(spec: &Value) -> Self {
        let items = spec["limits"].as_array().into_iter().flatten();
        let of_containers = items.filter(|item| item["type"] == "Container");
        of_containers.fold(Self::default(), |all, item| {
            let bounds = |resource: &str| {
                let amount = |key: &str| Quantity::of_value(&item[key][resource]);
                Bounds { min: amount("min"), max: amount("max"), ratio: amount("maxLimitRequestRatio") }
            };
            all.and(Self { cpu: bounds("cpu"), memory: bounds("memory") })
        })
    }

    /// Returns what both allow.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { cpu: self.cpu.and(other.cpu), memory: self.memory.and(other.memory) }
    }

    /// Returns limits and requests that are allowed; `None` where no sidecar can do with them. Requests that are the limits stay so.
    pub(super) fn fit(self, limits: Amounts, requests: Amounts) -> Option<(Amounts, Amounts)> {
        let (cpu, cpu_request) = self.cpu.fit((limits.cpu, requests.cpu), CPU_MIN, Quantity::thousandths(1))?;
        let one = Quantity::thousandths(1000);
        let (memory, memory_request) = self.memory.fit((limits.memory, requests.memory), MEMORY_MIN, one)?;
        Some((Amounts { cpu, memory }, Amounts { cpu: cpu_request, memory: memory_request }))
    }
}

impl Bounds {
    fn and(self, other: Self) -> Self {
        let least = |one: Option<Quantity>, other: Option<Quantity>| one.into_iter().chain(other).min();
        Self { min: self.min.max(other.min), max: least(self.max, other.max), ratio: least(self.ratio, other.ratio) }
    }

    /// `unit` is what amounts are written in; `least` is what a sidecar needs.
    fn fit(
        self,
        (limit, request): (Quantity, Quantity),
        least: Quantity,
        unit: Quantity,
    ) -> Option<(Quantity, Quantity)> {
        let max = self.max.map(|max| max.down_to(unit));
        let min = self.min.map(|min| min.up_to(unit)).unwrap_or_default();
        let is_within = |amount: Quantity| amount >= min.max(least) && max.is_none_or(|max| amount <= max);
        let bounded = max.map_or(limit, |max| limit.min(max)).max(min);
        let asked = match self.ratio {
            _ if request == limit => bounded,
            None => request.min(bounded).max(min),
            Some(ratio) => request.min(bounded).max(min).max(bounded.over(ratio)?.up_to(unit)),
        };
        (is_within(bounded) && asked <= bounded).then_some((bounded, asked))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn amounts(cpu: &str, memory: &str) -> Amounts {
        Amounts { cpu: Quantity::parse(cpu).unwrap(), memory: Quantity::parse(memory).unwrap() }
    }

    /// Returns what becomes of the usual amounts within such limits of containers, as they are written.
    fn fitted(limits: &Value) -> Option<[String; 4]> {
        let range = LimitRange::of(&json!({"limits": [limits]}));
        let (limits, requests) = range.fit(amounts("200m", "128Mi"), amounts("10m", "32Mi"))?;
        Some([
            limits.cpu.in_thousandths(),
            requests.cpu.in_thousandths(),
            limits.memory.in_bytes(),
            requests.memory.in_bytes(),
        ])
    }

    #[test]
    fn amounts_are_brought_within_what_is_allowed_and_no_further() {
        for (limits, expected) in [
            (json!({"type": "Container"}), ["200m", "10m", "128Mi", "32Mi"]),
            (json!({"type": "Pod", "max": {"cpu": "1m"}}), ["200m", "10m", "128Mi", "32Mi"]),
            (json!({"type": "Container", "max": {"cpu": "150m", "memory": "64Mi"}}), ["150m", "10m", "64Mi", "32Mi"]),
            (json!({"type": "Container", "max": {"cpu": "0.0155"}}), ["15m", "10m", "128Mi", "32Mi"]),
            (json!({"type": "Container", "min": {"cpu": "50m", "memory": "256Mi"}}), ["200m", "50m", "256Mi", "256Mi"]),
            (
                json!({"type": "Container", "maxLimitRequestRatio": {"cpu": "3", "memory": 2}}),
                ["200m", "67m", "128Mi", "64Mi"],
            ),
            (
                json!({"type": "Container", "min": {"cpu": 1}, "max": {"cpu": 1}, "maxLimitRequestRatio": {"cpu": 1}}),
                ["1000m", "1000m", "128Mi", "32Mi"],
            ),
        ] {
            assert_eq!(fitted(&limits), Some(expected.map(str::to_owned)), "{limits}");
        }
        let range = LimitRange::of(&json!({"limits": [{"type": "Container", "max": {"cpu": "150m"}}]}));
        let same = amounts("200m", "128Mi");
        assert_eq!(range.fit(same, same), Some((amounts("150m", "128Mi"), amounts("150m", "128Mi"))), "guaranteed");
    }

    #[test]
    fn what_a_sidecar_cannot_do_with_fits_not() {
        for limits in [
            json!({"type": "Container", "max": {"cpu": "9m"}}),
            json!({"type": "Container", "max": {"memory": "31Mi"}}),
            json!({"type": "Container", "min": {"cpu": "2"}, "max": {"cpu": "1"}}),
            json!({"type": "Container", "maxLimitRequestRatio": {"cpu": "0.5"}}),
            json!({"type": "Container", "maxLimitRequestRatio": {"cpu": "0"}}),
        ] {
            assert_eq!(fitted(&limits), None, "{limits}");
        }
    }

    #[test]
    fn of_several_the_tightest_counts_in_any_order() {
        let one = json!({"type": "Container", "max": {"cpu": "150m"}, "min": {"memory": "48Mi"}});
        let other = json!({"type": "Container", "max": {"cpu": "100m", "memory": "64Mi"}, "min": {"memory": "40Mi"}});
        let both = [json!({"limits": [one, other]}), json!({"limits": [other, one]})].map(|spec| LimitRange::of(&spec));
        let (limits, requests) = both[0].fit(amounts("200m", "128Mi"), amounts("10m", "32Mi")).unwrap();
        assert_eq!((limits, requests), (amounts("100m", "64Mi"), amounts("10m", "48Mi")));
        assert_eq!(both[0], both[1]);
        assert_eq!(LimitRange::of(&json!({"limits": "odd"})), LimitRange::default());
    }
}
