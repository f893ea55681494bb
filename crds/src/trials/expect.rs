//! What is expected of an event, held against what became of it.

use serde_json::Value as Json;
use spillway_delivery::intake::Tried;
use spillway_delivery::transform::FieldPath;

use crate::manifest::error::Position;

/// What is expected; what is not said is not looked at.
#[derive(Debug, Default)]
pub(super) struct Expected {
    /// Whether a transform drops it.
    pub(super) dropped: Option<bool>,
    /// The routes that want it, each with where it is written.
    pub(super) routes: Option<Vec<(String, Position)>>,
    /// The whole event.
    pub(super) event: Option<Json>,
    /// Some of its fields.
    pub(super) fields: Vec<(FieldPath, Json)>,
    /// Fields that it does not have.
    pub(super) absent: Vec<FieldPath>,
}

impl Expected {
    /// Returns what is not as it was expected, a line each.
    pub(super) fn failures(&self, tried: &Tried) -> Vec<String> {
        let mut failures = Vec::new();
        let event = match tried.event.as_deref().map(serde_json::from_slice::<Json>).transpose() {
            Ok(event) => event,
            Err(error) => return vec![format!("what it became cannot be looked into: {error}")],
        };
        match (&event, self.dropped.unwrap_or(false)) {
            (None, false) => return vec![format!("dropped, and not expected to be{}", because(tried))],
            (Some(event), true) => failures.push(format!("expected to be dropped, and is {event}{}", because(tried))),
            _ => {}
        }
        if let Some(wanted) = &self.routes {
            let (mut wanted, mut found): (Vec<&str>, Vec<&str>) =
                (wanted.iter().map(|(name, _)| &**name).collect(), tried.routes.iter().map(|name| &**name).collect());
            wanted.sort_unstable();
            found.sort_unstable();
            if wanted != found {
                failures.push(format!(
                    "routes: expected {}, found {}{}",
                    named(&wanted),
                    named(&found),
                    because(tried)
                ));
            }
        }
        let Some(event) = event else { return failures };
        if let Some(wanted) = &self.event
            && *wanted != event
        {
            failures.push(format!("event: expected {wanted}, found {event}{}", because(tried)));
        }
        for (path, wanted) in &self.fields {
            match at(&event, path) {
                Some(found) if found == wanted => {}
                Some(found) => failures.push(format!("{path}: expected {wanted}, found {found}")),
                None => failures.push(format!("{path}: expected {wanted}, found nothing in {event}{}", because(tried))),
            }
        }
        for path in &self.absent {
            if let Some(found) = at(&event, path) {
                failures.push(format!("{path}: expected nothing, found {found}"));
            }
        }
        failures
    }
}

fn at<'e>(event: &'e Json, path: &FieldPath) -> Option<&'e Json> {
    path.keys().iter().try_fold(event, |value, key| value.as_object()?.get(key))
}

fn named(names: &[&str]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// Returns what could not be done, which is often why.
fn because(tried: &Tried) -> String {
    let failed = tried.failed.iter().map(|(name, failure)| format!("transform `{name}` failed: {}", failure.as_str()));
    let unanswered =
        tried.unanswered.iter().map(|(name, failure)| format!("`match` of route `{name}` has no answer: {failure}"));
    let all: Vec<String> = failed.chain(unanswered).collect();
    if all.is_empty() { String::new() } else { format!(" ({})", all.join("; ")) }
}
