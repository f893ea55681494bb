//! When something is due on a connection while nothing comes. Pure, but for the clock.

use std::time::Duration;

use tokio::time::Instant;

use super::control::Answers;
use super::limits::{
    BATCH_WAIT, HELLO_TIMEOUT, IDLE_TIMEOUT, Limit, OPEN_IDLE_TIMEOUT, OPEN_TIMEOUT, STOP_IDLE, STOP_READ,
};
use crate::sources::pushed::pace::{self, Pace, Waits};

/// What is due.
pub(super) type Due = pace::Due<Limit>;

/// What happened when on a connection.
#[derive(Debug)]
pub(super) struct Times {
    /// Of its lines.
    pub(super) pace: Pace,
    /// Until when a token must be shown.
    hello_by: Option<Instant>,
    /// Since when there is no memory.
    starved_since: Option<Instant>,
}

impl Times {
    /// Returns those of a connection that was just made.
    pub(super) fn new(wants_token: bool) -> Self {
        let pace = Pace::new(Waits { batch: BATCH_WAIT, stop_idle: STOP_IDLE, stop_read: STOP_READ });
        Self { hello_by: wants_token.then(|| pace.last_read + HELLO_TIMEOUT), pace, starved_since: None }
    }

    /// Notes that it is known who sends.
    pub(super) fn greeted(&mut self) {
        self.hello_by = None;
    }

    /// Notes a read; one that filled all the room may have left something.
    pub(super) fn read(&mut self, all_room: bool) {
        self.pace.read(all_room);
        self.starved_since = None;
    }

    /// Notes that there is no memory; returns for how long already.
    pub(super) fn starved(&mut self) -> Duration {
        self.starved_since.get_or_insert_with(Instant::now).elapsed()
    }

    /// Returns what is due although more comes.
    pub(super) fn overdue(&self, batch_since: Option<Instant>, answers: Answers) -> Option<Due> {
        let now = Instant::now();
        let open = self.open(batch_since.filter(|_| answers == Answers::Batches));
        if self.pace.is_stop_over() {
            Some(Due::Stop)
        } else if open.is_some_and(|since| now >= since + OPEN_TIMEOUT) {
            Some(Due::Limit(Limit::OpenTime))
        } else {
            self.hello_by.is_some_and(|deadline| now >= deadline).then_some(Due::Limit(Limit::HelloTime))
        }
    }

    /// Returns since when something is under way that the client is to end.
    fn open(&self, batch_since: Option<Instant>) -> Option<Instant> {
        [self.pace.inside_since, batch_since].into_iter().flatten().min()
    }

    /// Returns what is due next if nothing comes.
    pub(super) fn next(&self, batch_since: Option<Instant>, answers: Answers) -> (Instant, Due) {
        if let Some(next) = self.pace.next(batch_since.filter(|_| answers != Answers::Batches)) {
            return next;
        }
        let open = self.open(batch_since);
        let (idle, limit) = match open {
            Some(_) => (OPEN_IDLE_TIMEOUT, Limit::OpenIdleTime),
            None => (IDLE_TIMEOUT, Limit::IdleTime),
        };
        let mut next = (self.pace.last_read + idle, Due::Limit(limit));
        let others = [(open.map(|since| since + OPEN_TIMEOUT), Limit::OpenTime), (self.hello_by, Limit::HelloTime)];
        for (deadline, limit) in others {
            if let Some(deadline) = deadline.filter(|deadline| *deadline < next.0) {
                next = (deadline, Due::Limit(limit));
            }
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_due_comes_due_although_more_comes() {
        let mut times = Times::new(true);
        let due = |times: &Times, since| times.overdue(since, Answers::Batches);
        tokio::time::advance(HELLO_TIMEOUT).await;
        assert_eq!(due(&times, None), Some(Due::Limit(Limit::HelloTime)));
        times.greeted();
        assert_eq!(due(&times, None), None);
        let since = Some(Instant::now());
        tokio::time::advance(OPEN_TIMEOUT).await;
        times.read(true);
        assert_eq!(due(&times, since), Some(Due::Limit(Limit::OpenTime)), "a batch that the client is to end");
        assert_eq!(times.overdue(since, Answers::None), None, "and one that the agent ends");
        times.pace.stop();
        tokio::time::advance(STOP_READ).await;
        times.read(true);
        assert_eq!(due(&times, since), Some(Due::Stop));
    }
}
