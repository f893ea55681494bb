//! The bytes of all batches under way, and of what is kept to be sent again, over all deliveries.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{BUDGET_BYTES, LEFT_BYTES, PROBE_BYTES};

const UNIT_BYTES: usize = 1 << 10;

/// Shared by every delivery of an engine.
#[derive(Debug, Clone)]
pub(super) struct Budget {
    under_way: Arc<Semaphore>,
    left: Arc<Semaphore>,
}

/// Bytes taken; given back when dropped. `None` for a small batch, which takes nothing.
pub(super) type Share = Option<OwnedSemaphorePermit>;

impl Budget {
    pub(super) fn new() -> Self {
        let of = |bytes| Arc::new(Semaphore::new(bytes / UNIT_BYTES));
        Self { under_way: of(BUDGET_BYTES), left: of(LEFT_BYTES) }
    }

    /// Takes `bytes`, or returns `false` when others have them; a batch larger than the budget takes all of it.
    pub(super) fn take(&self, bytes: usize) -> Result<Share, ()> {
        if bytes <= PROBE_BYTES {
            return Ok(None);
        }
        let units = bytes.min(BUDGET_BYTES).div_ceil(UNIT_BYTES) as u32;
        self.under_way.clone().try_acquire_many_owned(units).map(Some).map_err(|_| ())
    }

    /// Takes `bytes` for events that wait in memory to be sent again; `None` when there is no room: they are read again.
    pub(super) fn keep(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES)).ok()?;
        self.left.clone().try_acquire_many_owned(units).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_has_a_bound_of_its_own_and_gives_back() {
        let budget = Budget::new();
        let all = budget.keep(LEFT_BYTES).unwrap();
        assert!(budget.keep(1).is_none());
        assert!(budget.take(BUDGET_BYTES).is_ok());
        drop(all);
        assert!(budget.keep(LEFT_BYTES + 1).is_none());
        assert!(budget.keep(LEFT_BYTES / 2).is_some());
    }
}
