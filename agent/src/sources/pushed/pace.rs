//! When something happened on a connection over which lines or messages come, and whether a batch of them is due.
//! Pure, but for the clock.
//!
//! # What it must not know
//! Which limits of time a source has: those stand with the source.

use std::time::Duration;

use tokio::time::Instant;

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due<L> {
    /// The end of the batch.
    Batch,
    /// The end of the connection, since the source stops.
    Stop,
    /// Its end, since it ran into a limit.
    Limit(L),
}

/// How long a batch waits for more, and a connection for its end where the source stops.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Waits {
    /// How long the first of a batch waits for others.
    pub(crate) batch: Duration,
    /// How long nothing comes before a connection ends at a stop.
    pub(crate) stop_idle: Duration,
    /// How long something may still come at a stop.
    pub(crate) stop_read: Duration,
}

/// What happened when on a connection.
#[derive(Debug)]
pub(crate) struct Pace {
    waits: Waits,
    pub(crate) last_read: Instant,
    /// Since when half a line or message is there.
    pub(crate) inside_since: Option<Instant>,
    stop_since: Option<Instant>,
    /// Whether all that was there is read.
    is_drained: bool,
}

impl Pace {
    /// Returns that of a connection that was just made.
    pub(crate) fn new(waits: Waits) -> Self {
        Self { waits, last_read: Instant::now(), inside_since: None, stop_since: None, is_drained: false }
    }

    /// Notes a read; one that filled all the room may have left something.
    pub(crate) fn read(&mut self, all_room: bool) {
        (self.last_read, self.is_drained) = (Instant::now(), !all_room);
    }

    /// Notes that nothing more is waited for.
    pub(crate) fn drained(&mut self) {
        self.is_drained = true;
    }

    /// Notes that what was under way is whole.
    pub(crate) fn whole(&mut self) {
        self.inside_since = None;
    }

    /// Notes whether half a line or message is there.
    pub(crate) fn inside(&mut self, is_inside: bool) {
        self.inside_since = is_inside.then(|| self.inside_since.unwrap_or_else(Instant::now));
    }

    /// Notes that the source is told to stop.
    pub(crate) fn stop(&mut self) {
        let now = Instant::now();
        (self.stop_since, self.last_read) = (Some(now), now);
    }

    /// Returns whether the source is told to stop.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stop_since.is_some()
    }

    /// Notes that the connection was not read from until now, for a reason that is not its own.
    pub(crate) fn resume(&mut self) {
        self.last_read = Instant::now();
        self.inside_since = self.inside_since.map(|_| self.last_read);
    }

    /// Returns whether a batch whose first line or message came then is to be ended.
    pub(crate) fn is_due(&self, batch_since: Option<Instant>) -> bool {
        batch_since.is_some_and(|since| self.is_drained || since.elapsed() >= self.waits.batch)
    }

    /// Returns whether enough came since the source was told to stop.
    pub(crate) fn is_stop_over(&self) -> bool {
        self.stop_since.is_some_and(|since| since.elapsed() >= self.waits.stop_read)
    }

    /// Returns when the batch is due, or the end at a stop, if nothing comes.
    pub(crate) fn next<L>(&self, batch_since: Option<Instant>) -> Option<(Instant, Due<L>)> {
        let batch = batch_since.map(|since| (since + self.waits.batch, Due::Batch));
        let end = |since| (self.last_read + self.waits.stop_idle).min(since + self.waits.stop_read);
        batch.or_else(|| self.stop_since.map(|since| (end(since), Due::Stop)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const WAITS: Waits = Waits { batch: SECOND, stop_idle: SECOND, stop_read: Duration::from_secs(3) };

    #[tokio::test(start_paused = true)]
    async fn a_batch_is_due_when_nothing_is_left_or_it_has_waited_long_enough() {
        let mut pace = Pace::new(WAITS);
        let since = Some(Instant::now());
        pace.read(true);
        assert!(!pace.is_due(since) && !pace.is_due(None));
        assert_eq!(pace.next::<()>(since), Some((Instant::now() + SECOND, Due::Batch)));
        tokio::time::advance(SECOND).await;
        assert!(pace.is_due(since));
        let since = Some(Instant::now());
        assert!(!pace.is_due(since));
        pace.read(false);
        assert!(pace.is_due(since));
    }

    #[tokio::test(start_paused = true)]
    async fn at_a_stop_what_still_comes_is_read_for_a_while_and_no_longer() {
        let mut pace = Pace::new(WAITS);
        assert_eq!((pace.next::<()>(None), pace.is_stop_over()), (None, false));
        pace.stop();
        let begun = Instant::now();
        for _ in 0..5 {
            tokio::time::advance(SECOND / 2).await;
            pace.read(true);
        }
        assert!(!pace.is_stop_over());
        assert_eq!(pace.next::<()>(None), Some((begun + WAITS.stop_read, Due::Stop)));
        tokio::time::advance(SECOND / 2).await;
        assert!(pace.is_stop_over());
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_not_read_from_has_his_time_anew() {
        let mut pace = Pace::new(WAITS);
        pace.inside(true);
        let since = pace.inside_since;
        tokio::time::advance(SECOND).await;
        pace.inside(true);
        assert_eq!(pace.inside_since, since, "it is the same half still");
        pace.resume();
        assert_eq!((pace.inside_since, pace.last_read), (Some(Instant::now()), Instant::now()));
        pace.whole();
        pace.resume();
        assert_eq!(pace.inside_since, None);
    }
}
