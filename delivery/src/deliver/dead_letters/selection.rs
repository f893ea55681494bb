//! Which letters are meant.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::letter::{Letter, gist};
use crate::event::EventId;

/// Most ids that one selection names.
pub const IDS_MAX: usize = 1000;

/// Which letters are meant: those for which everything that is given holds. Empty: every letter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Selection {
    /// Of this route.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// Refused by this backend.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    /// Whose reason, or its gist, contains this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// With one of these ids, at most [`IDS_MAX`].
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub ids: BTreeSet<EventId>,
}

impl Selection {
    /// Returns whether a letter is meant.
    pub fn takes(&self, letter: &Letter<'_>) -> bool {
        let named = |wanted: &Option<String>, name: &str| wanted.as_deref().is_none_or(|wanted| wanted == name);
        let because = |reason: &str| {
            let wanted = self.reason.as_deref();
            wanted.is_none_or(|wanted| reason.contains(wanted) || gist(reason).contains(wanted))
        };
        named(&self.route, &letter.route)
            && named(&self.backend, &letter.backend)
            && (self.ids.is_empty() || self.ids.contains(&letter.id))
            && because(&letter.reason)
    }
}
