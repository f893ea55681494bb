//! When something is due on a connection while nothing comes. Pure, but for the clock.

use std::time::Duration;

use tokio::time::Instant;

use super::limits::{
    BATCH_WAIT, FIRST_TIMEOUT, IDLE_TIMEOUT, Limit, OPEN_IDLE_TIMEOUT, OPEN_TIMEOUT, STOP_IDLE, STOP_READ,
};

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// The end of the batch.
    Batch,
    /// The end of the connection, since the source stops.
    Stop,
    /// Its end, since it ran into a limit.
    Limit(Limit),
}

/// What happened when on a connection.
#[derive(Debug)]
pub(super) struct Times {
    last_read: Instant,
    /// Whether nothing came yet.
    is_new: bool,
    /// Since when a message is under way.
    inside_since: Option<Instant>,
    stop_since: Option<Instant>,
    /// Whether all that was there is read.
    is_drained: bool,
}

impl Times {
    /// Returns those of a connection that was just made.
    pub(super) fn new() -> Self {
        Self { last_read: Instant::now(), is_new: true, inside_since: None, stop_since: None, is_drained: false }
    }

    /// Notes a read; one that filled all the room may have left something.
    pub(super) fn read(&mut self, all_room: bool) {
        (self.last_read, self.is_new, self.is_drained) = (Instant::now(), false, !all_room);
    }

    /// Notes that nothing more is waited for.
    pub(super) fn drained(&mut self) {
        self.is_drained = true;
    }

    /// Notes that a message is whole.
    pub(super) fn whole_message(&mut self) {
        self.inside_since = None;
    }

    /// Notes whether a message is under way.
    pub(super) fn inside(&mut self, is_inside: bool) {
        self.inside_since = is_inside.then(|| self.inside_since.unwrap_or_else(Instant::now));
    }

    /// Notes that the source is told to stop.
    pub(super) fn stop(&mut self) {
        let now = Instant::now();
        (self.stop_since, self.last_read) = (Some(now), now);
    }

    /// Returns whether the source is told to stop.
    pub(super) fn is_stopping(&self) -> bool {
        self.stop_since.is_some()
    }

    /// Returns whether a batch whose first message came then is to be ended.
    pub(super) fn is_due(&self, batch_since: Option<Instant>) -> bool {
        batch_since.is_some_and(|since| self.is_drained || since.elapsed() >= BATCH_WAIT)
    }

    /// Notes that the connection was not read from until now, for a reason that is not its own.
    pub(super) fn resume(&mut self) {
        self.last_read = Instant::now();
        self.inside_since = self.inside_since.map(|_| self.last_read);
    }

    /// Returns what is due although more comes.
    pub(super) fn overdue(&self) -> Option<Due> {
        let is_over = |since: Option<Instant>, most: Duration| since.is_some_and(|since| since.elapsed() >= most);
        if is_over(self.stop_since, STOP_READ) {
            return Some(Due::Stop);
        }
        is_over(self.inside_since, OPEN_TIMEOUT).then_some(Due::Limit(Limit::OpenTime))
    }

    /// Returns what is due next if nothing comes.
    pub(super) fn next(&self, batch_since: Option<Instant>) -> (Instant, Due) {
        if let Some(since) = batch_since {
            return (since + BATCH_WAIT, Due::Batch);
        }
        if let Some(since) = self.stop_since {
            return ((self.last_read + STOP_IDLE).min(since + STOP_READ), Due::Stop);
        }
        let Some(since) = self.inside_since else {
            let (idle, limit) =
                if self.is_new { (FIRST_TIMEOUT, Limit::FirstTime) } else { (IDLE_TIMEOUT, Limit::IdleTime) };
            return (self.last_read + idle, Due::Limit(limit));
        };
        let (idle, in_all) = (self.last_read + OPEN_IDLE_TIMEOUT, since + OPEN_TIMEOUT);
        if in_all < idle { (in_all, Due::Limit(Limit::OpenTime)) } else { (idle, Due::Limit(Limit::OpenIdleTime)) }
    }
}
