//! When references were removed, as edits say it: an edit knows at once, a delivery only when it comes to its order, and
//! a process that dies in between must find what the edit said.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::{DeliveryKey, Journal, JournalError, Progress, Removed};

/// What edits said since the open.
#[derive(Debug, Default)]
pub(super) struct Removals(BTreeMap<DeliveryKey, Option<Removed>>);

impl Removals {
    /// Returns progress as it is to be stored.
    pub(super) fn applied<'a>(&self, key: &DeliveryKey, progress: &'a Progress) -> Cow<'a, Progress> {
        match self.0.get(key) {
            Some(removed) if *removed != progress.removed => {
                Cow::Owned(Progress { removed: *removed, ..progress.clone() })
            }
            _ => Cow::Borrowed(progress),
        }
    }

    /// Forgets a delivery.
    pub(super) fn forget(&mut self, key: &DeliveryKey) {
        self.0.remove(key);
    }
}

impl Journal {
    /// Stores that a reference is removed, or is not any more; later saves of its progress do not change that.
    pub fn set_removed(&mut self, key: &DeliveryKey, removed: Option<Removed>, sync: bool) -> Result<(), JournalError> {
        self.removals.0.insert(key.clone(), removed);
        match self.progress.get(key).cloned() {
            Some(progress) => self.save(key, &progress, sync),
            None => Ok(()),
        }
    }
}
