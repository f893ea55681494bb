//! The deliveries of one pipeline: what each is told to do, and what it tells of itself.
//!
//! # Guarantees
//! A delivery has one task at a time, which alone moves its cursor. The task takes its leave under the same lock under which
//! it is told what to do, so that an order either reaches it or finds it gone.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::{Mutex, Notify, watch};

use super::{DeliverySpec, DeliveryStatus};
use crate::log::{DeliveryKey, Removed};

/// Most removed references that are still shown because they dropped something.
const ENDED_MAX: usize = 64;

/// What a delivery is told to do. The latest order counts.
#[derive(Debug, Clone)]
pub(super) struct Order {
    /// The backend and how to send.
    pub(super) spec: DeliverySpec,
    /// What to do.
    pub(super) task: Task,
}

/// What a delivery does.
#[derive(Debug, Clone)]
pub(super) enum Task {
    /// Delivers.
    Deliver,
    /// Keeps what it holds.
    Rest,
    /// Its reference is gone: delivers what is left for so long, in running time, then drops the rest.
    Drain {
        /// Since when, and up to where.
        removed: Removed,
        /// For how long.
        within: Duration,
    },
}

/// The orders of a pipeline's deliveries.
pub(super) type Orders = BTreeMap<DeliveryKey, watch::Sender<Order>>;

/// The deliveries of one pipeline.
#[derive(Debug, Default)]
pub(crate) struct Deliveries {
    pub(super) orders: Mutex<Orders>,
    /// Rung when one has ended.
    pub(super) ended: Notify,
    statuses: RwLock<Vec<Arc<DeliveryStatus>>>,
}

impl Deliveries {
    /// Returns what each tells of itself, those that came to their end and dropped something included.
    pub(crate) fn statuses(&self) -> Vec<Arc<DeliveryStatus>> {
        self.statuses.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Adds one that begins, in the place of one that ended.
    pub(super) fn begin(&self, status: Arc<DeliveryStatus>) {
        let mut statuses = self.statuses.write().unwrap_or_else(PoisonError::into_inner);
        statuses.retain(|known| known.key() != status.key());
        statuses.push(status);
    }

    /// Takes out one that ended; it stays shown while it has something to tell.
    pub(super) fn end(&self, key: &DeliveryKey) {
        let mut statuses = self.statuses.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = statuses.iter().position(|status| status.key() == key) {
            let ended = statuses.remove(at);
            if ended.has_dropped() {
                ended.end();
                statuses.push(ended);
            }
        }
        let ended = statuses.iter().filter(|status| status.has_ended()).count();
        if ended > ENDED_MAX
            && let Some(oldest) = statuses.iter().position(|status| status.has_ended())
        {
            statuses.remove(oldest);
        }
        drop(statuses);
        self.ended.notify_waiters();
    }
}
