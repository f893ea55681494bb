//! When something is due on a connection while nothing comes. Pure, but for the clock.

use tokio::time::Instant;

use super::limits::{
    BATCH_WAIT, FIRST_TIMEOUT, IDLE_TIMEOUT, Limit, OPEN_IDLE_TIMEOUT, OPEN_TIMEOUT, STOP_IDLE, STOP_READ,
};
use crate::sources::pushed::pace::{self, Pace, Waits};

/// What is due.
pub(super) type Due = pace::Due<Limit>;

/// What happened when on a connection.
#[derive(Debug)]
pub(super) struct Times {
    /// Of its messages.
    pub(super) pace: Pace,
    /// Whether nothing came yet.
    is_new: bool,
}

impl Times {
    /// Returns those of a connection that was just made.
    pub(super) fn new() -> Self {
        let pace = Pace::new(Waits { batch: BATCH_WAIT, stop_idle: STOP_IDLE, stop_read: STOP_READ });
        Self { pace, is_new: true }
    }

    /// Notes a read; one that filled all the room may have left something.
    pub(super) fn read(&mut self, all_room: bool) {
        self.pace.read(all_room);
        self.is_new = false;
    }

    /// Returns what is due although more comes.
    pub(super) fn overdue(&self) -> Option<Due> {
        if self.pace.is_stop_over() {
            return Some(Due::Stop);
        }
        let is_over = self.pace.inside_since.is_some_and(|since| since.elapsed() >= OPEN_TIMEOUT);
        is_over.then_some(Due::Limit(Limit::OpenTime))
    }

    /// Returns what is due next if nothing comes.
    pub(super) fn next(&self, batch_since: Option<Instant>) -> (Instant, Due) {
        if let Some(next) = self.pace.next(batch_since) {
            return next;
        }
        let last_read = self.pace.last_read;
        let Some(since) = self.pace.inside_since else {
            let (idle, limit) =
                if self.is_new { (FIRST_TIMEOUT, Limit::FirstTime) } else { (IDLE_TIMEOUT, Limit::IdleTime) };
            return (last_read + idle, Due::Limit(limit));
        };
        let (idle, in_all) = (last_read + OPEN_IDLE_TIMEOUT, since + OPEN_TIMEOUT);
        if in_all < idle { (in_all, Due::Limit(Limit::OpenTime)) } else { (idle, Due::Limit(Limit::OpenIdleTime)) }
    }
}
