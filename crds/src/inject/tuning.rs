//! What annotations of a pod may change of its sidecar: a closed list with bounds.
//!
//! # Guarantees
//! Numbers and words of a list come out, never a text of the pod.

use std::collections::BTreeMap;

use super::quantity::Quantity;
use super::{AUTHORITIES, Amounts, INJECT, INJECTED, REVISION, Reason, Settings, quoted};
use crate::manifest::nearest::nearest;
use crate::served::LOGS_MARK;

/// What the sidecar is limited to of processors.
pub(super) const CPU: &str = "spillway.dev/cpu";

/// What the sidecar is limited to of memory.
pub(super) const MEMORY: &str = "spillway.dev/memory";

/// What the sidecar logs.
pub(super) const LOG_LEVEL: &str = "spillway.dev/log-level";

/// Every annotation of our group that a pod may have.
const KEYS: [&str; 8] = [INJECT, CPU, MEMORY, LOG_LEVEL, LOGS_MARK, INJECTED, REVISION, AUTHORITIES];

/// Those that a user writes.
const WRITTEN: [&str; 5] = [INJECT, CPU, MEMORY, LOG_LEVEL, LOGS_MARK];

/// The least that a sidecar may be limited to of processors.
pub(super) const CPU_MIN: Quantity = Quantity::thousandths(10);

/// The least that a sidecar may be limited to of memory.
pub(super) const MEMORY_MIN: Quantity = Quantity::mebibytes(32);

/// How much is logged, from the least.
const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

/// What is logged where the pod says nothing.
const LEVEL_DEFAULT: &str = "info";

/// What a pod wants of its sidecar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tuning {
    cpu: Option<Quantity>,
    memory: Option<Quantity>,
    /// What is logged.
    pub(super) log_level: &'static str,
}

impl Tuning {
    /// What a pod wants that says nothing.
    pub(super) const NOTHING: Self = Self { cpu: None, memory: None, log_level: LEVEL_DEFAULT };

    /// Reads the annotations of a pod that asks for a sidecar; says what is wrong with the first that is.
    pub(super) fn of(
        annotations: &BTreeMap<String, Option<String>>,
        settings: &Settings,
    ) -> Result<Self, (Reason, String)> {
        if let Some(key) = annotations.keys().find(|key| key.starts_with("spillway.dev/") && !KEYS.contains(&&***key)) {
            let hint = nearest(key, WRITTEN).map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
            return Err((Reason::UnknownAnnotation, format!("annotation `{}` is not known{hint}", quoted(key))));
        }
        let value = |key: &str| annotations.get(key).map(|value| value.as_deref().unwrap_or_default());
        let amount = |key: &str, least: (Quantity, &str), most: (Quantity, String)| {
            let Some(text) = value(key) else { return Ok(None) };
            let parsed = Quantity::parse(text).filter(|amount| (least.0..=most.0).contains(amount));
            let refused = || format!("{key} is `{}`, not {} to {}", quoted(text), least.1, most.1);
            parsed.map(Some).ok_or_else(|| (Reason::BadAnnotation, refused()))
        };
        let level = value(LOG_LEVEL).unwrap_or(LEVEL_DEFAULT);
        let log_level = LEVELS.into_iter().find(|known| *known == level).ok_or_else(|| {
            let words = format!("{LOG_LEVEL} is `{}`, not one of {}", quoted(level), LEVELS.join(", "));
            (Reason::BadAnnotation, words)
        })?;
        let max = settings.max;
        Ok(Self {
            cpu: amount(CPU, (CPU_MIN, "10m"), (max.cpu, max.cpu.in_thousandths()))?,
            memory: amount(MEMORY, (MEMORY_MIN, "32Mi"), (max.memory, max.memory.in_bytes()))?,
            log_level,
        })
    }

    /// Returns the amounts that the pod wants, else those given.
    pub(super) fn over(self, given: Amounts) -> Amounts {
        Amounts { cpu: self.cpu.unwrap_or(given.cpu), memory: self.memory.unwrap_or(given.memory) }
    }

    /// Returns an annotation with which the pod wants an amount, if it does.
    pub(super) fn wish(self) -> Option<&'static str> {
        self.cpu.map(|_| CPU).or(self.memory.map(|_| MEMORY))
    }
}
