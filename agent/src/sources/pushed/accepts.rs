//! What comes of accepting, at every door: one log line when that begins to fail and one when it is well again.

use std::io;
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How long nothing is accepted after the system refused to: for want of file descriptors or of memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long nothing must have failed before accepting counts as well again: with no file descriptor left every connection
/// that ends lets one more in, and what fails and succeeds by turns would be told ten times a second.
const ACCEPT_CALM: Duration = Duration::from_secs(10);

/// Failures of one listener, since it was well last.
#[derive(Debug, Default)]
pub(crate) struct Accepts {
    /// How many failed, and when the last did; `None` while it is well.
    failing: Option<(u64, Instant)>,
}

impl Accepts {
    /// Returns the connection, where there is one. A failure of the listener is told to `failed` and followed by a pause
    /// ([`ACCEPT_PAUSE`]); what became of one connection before it was taken is its own affair.
    ///
    /// # Cancel safety
    /// A connection is returned at once; the pause may be cut short.
    pub(crate) async fn take<C>(&mut self, accepted: io::Result<C>, failed: impl FnOnce()) -> Option<C> {
        match accepted {
            Ok(connection) => {
                self.accepted();
                return Some(connection);
            }
            Err(error) if is_of_connection(&error) => {}
            Err(error) => {
                failed();
                self.failed(&error);
                sleep(ACCEPT_PAUSE).await;
            }
        }
        None
    }

    /// Takes note of a failure; returns whether it is the first.
    fn failed(&mut self, error: &io::Error) -> bool {
        let before = self.failing.map_or(0, |(failures, _)| failures);
        self.failing = Some((before + 1, Instant::now()));
        if before == 0 {
            tracing::warn!(%error, "connections cannot be accepted");
        }
        before == 0
    }

    /// Takes note of a connection; returns the failures before where accepting is well again since now.
    fn accepted(&mut self) -> Option<u64> {
        let (failures, _) = self.failing.filter(|(_, last)| last.elapsed() >= ACCEPT_CALM)?;
        self.failing = None;
        tracing::info!(failures, "connections are accepted again");
        Some(failures)
    }
}

/// Returns whether an error of `accept` concerns the connection and not the listener.
fn is_of_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_listener_that_fails_pauses_and_a_connection_that_failed_costs_nothing() {
        let (mut accepts, begun) = (Accepts::default(), Instant::now());
        let mut failures = 0;
        let mut taken = Vec::new();
        for one in [Err(24), Ok('a'), Err(103), Err(24), Ok('b')] {
            let connection = accepts.take(one.map_err(io::Error::from_raw_os_error), || failures += 1).await;
            taken.extend(connection.map(|connection| (connection, begun.elapsed())));
        }
        assert_eq!(taken, [('a', ACCEPT_PAUSE), ('b', ACCEPT_PAUSE * 2)]);
        assert_eq!(failures, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn what_fails_and_succeeds_by_turns_is_told_once() {
        let mut accepts = Accepts::default();
        let error = io::Error::from_raw_os_error(24);
        assert_eq!(accepts.accepted(), None, "nothing was wrong");
        let told = (0..50).filter(|_| {
            let first = accepts.failed(&error);
            assert_eq!(accepts.accepted(), None);
            first
        });
        assert_eq!(told.count(), 1);
        tokio::time::advance(ACCEPT_CALM.saturating_sub(Duration::from_millis(1))).await;
        assert_eq!(accepts.accepted(), None);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!((accepts.accepted(), accepts.accepted()), (Some(50), None));
        assert!(accepts.failed(&error), "what fails anew is told anew");
    }
}
