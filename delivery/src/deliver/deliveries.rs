//! The deliveries of one pipeline: what each is told to do, and what it tells of itself.
//!
//! # Guarantees
//! A delivery has one task at a time, which alone moves its cursor. The task takes its leave under the same lock under which
//! it is told what to do, so that an order either reaches it or finds it gone.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::{Mutex, Notify, watch};

use super::group::{Group, Groups};
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
    /// Its seat among the backends of a route of which the first healthy one sends.
    pub(super) seat: Option<Seat>,
    /// Whether what is under way is hardly waited for, since its backend may never answer: what became of it is not known then.
    pub(super) at_once: bool,
}

/// A place in a group.
#[derive(Debug, Clone)]
pub(super) struct Seat {
    pub(super) group: Arc<Group>,
    /// Everything from here on is the group's business.
    pub(super) from: u64,
}

impl Seat {
    /// Whether two seats are in the same group, or none is in any.
    pub(super) fn is_same(one: Option<&Self>, other: Option<&Self>) -> bool {
        match (one, other) {
            (Some(one), Some(other)) => Arc::ptr_eq(&one.group, &other.group),
            (one, other) => one.is_none() && other.is_none(),
        }
    }
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
        /// Others of its group go on and have what it holds: nothing is sent.
        released: bool,
        /// It may not use its backend any more: nothing is sent, and what nobody else has is given up at once.
        revoked: bool,
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
    pub(crate) groups: Groups,
    /// How many ranges got a name after they were begun: a reference that comes back gives none again.
    pub(super) names_given: AtomicU64,
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
