//! When something is due on a connection while nothing comes. Pure, but for the clock.

use std::time::Duration;

use tokio::time::Instant;

use super::control::Answers;
use super::limits::{
    BATCH_WAIT, HELLO_TIMEOUT, IDLE_TIMEOUT, Limit, OPEN_IDLE_TIMEOUT, OPEN_TIMEOUT, STOP_IDLE, STOP_READ,
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
    /// Until when a token must be shown.
    hello_by: Option<Instant>,
    last_read: Instant,
    /// Since when a line is under way.
    inside_since: Option<Instant>,
    /// Since when there is no memory.
    starved_since: Option<Instant>,
    stop_since: Option<Instant>,
    /// Whether all that was there is read.
    is_drained: bool,
}

impl Times {
    /// Returns those of a connection that was just made.
    pub(super) fn new(wants_token: bool) -> Self {
        let now = Instant::now();
        Self {
            hello_by: wants_token.then(|| now + HELLO_TIMEOUT),
            last_read: now,
            inside_since: None,
            starved_since: None,
            stop_since: None,
            is_drained: false,
        }
    }

    /// Notes that it is known who sends.
    pub(super) fn greeted(&mut self) {
        self.hello_by = None;
    }

    /// Notes a read; one that filled all the room may have left something.
    pub(super) fn read(&mut self, all_room: bool) {
        self.last_read = Instant::now();
        self.starved_since = None;
        self.is_drained = !all_room;
    }

    /// Notes that nothing more is waited for.
    pub(super) fn drained(&mut self) {
        self.is_drained = true;
    }

    /// Notes that a line is whole.
    pub(super) fn whole_line(&mut self) {
        self.inside_since = None;
    }

    /// Notes whether a line is under way.
    pub(super) fn inside(&mut self, is_inside: bool) {
        self.inside_since = is_inside.then(|| self.inside_since.unwrap_or_else(Instant::now));
    }

    /// Notes that there is no memory; returns for how long already.
    pub(super) fn starved(&mut self) -> Duration {
        self.starved_since.get_or_insert_with(Instant::now).elapsed()
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

    /// Returns whether a batch whose first line came then is to be ended by the agent.
    pub(super) fn is_due(&self, batch_since: Option<Instant>) -> bool {
        batch_since.is_some_and(|since| self.is_drained || since.elapsed() >= BATCH_WAIT)
    }

    /// Notes that the connection was not read from until now, for a reason that is not its own.
    pub(super) fn resume(&mut self) {
        self.last_read = Instant::now();
        self.inside_since = self.inside_since.map(|_| self.last_read);
    }

    /// Returns what is due although more comes.
    pub(super) fn overdue(&self, batch_since: Option<Instant>, answers: Answers) -> Option<Due> {
        let now = Instant::now();
        let open = self.open(batch_since.filter(|_| answers == Answers::Batches));
        if self.stop_since.is_some_and(|since| now >= since + STOP_READ) {
            Some(Due::Stop)
        } else if open.is_some_and(|since| now >= since + OPEN_TIMEOUT) {
            Some(Due::Limit(Limit::OpenTime))
        } else {
            self.hello_by.is_some_and(|deadline| now >= deadline).then_some(Due::Limit(Limit::HelloTime))
        }
    }

    /// Returns since when something is under way that the client is to end.
    fn open(&self, batch_since: Option<Instant>) -> Option<Instant> {
        [self.inside_since, batch_since].into_iter().flatten().min()
    }

    /// Returns what is due next if nothing comes.
    pub(super) fn next(&self, batch_since: Option<Instant>, answers: Answers) -> (Instant, Due) {
        let keyed = answers == Answers::Batches;
        if let Some(since) = batch_since.filter(|_| !keyed) {
            return (since + BATCH_WAIT, Due::Batch);
        }
        if let Some(since) = self.stop_since {
            return ((self.last_read + STOP_IDLE).min(since + STOP_READ), Due::Stop);
        }
        let open = self.open(batch_since);
        let (idle, limit) = match open {
            Some(_) => (OPEN_IDLE_TIMEOUT, Limit::OpenIdleTime),
            None => (IDLE_TIMEOUT, Limit::IdleTime),
        };
        let mut next = (self.last_read + idle, Due::Limit(limit));
        let others = [(open.map(|since| since + OPEN_TIMEOUT), Limit::OpenTime), (self.hello_by, Limit::HelloTime)];
        for (deadline, limit) in others {
            if let Some(deadline) = deadline.filter(|deadline| *deadline < next.0) {
                next = (deadline, Due::Limit(limit));
            }
        }
        next
    }
}
