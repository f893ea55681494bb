//! Whether connections are accepted: one log line when that begins to fail and one when it is well again.

use std::io;
use std::time::Duration;

use tokio::time::Instant;

/// How long nothing must have failed before accepting counts as well again: with no file descriptor left every connection
/// that ends lets one more in, and what fails and succeeds by turns would be told ten times a second.
pub(crate) const ACCEPT_CALM: Duration = Duration::from_secs(10);

/// Failures of one listener, since it was well last.
#[derive(Debug, Default)]
pub(crate) struct Accepts {
    /// How many failed, and when the last did; `None` while it is well.
    failing: Option<(u64, Instant)>,
}

impl Accepts {
    /// Takes note of a failure; returns whether it is the first.
    pub(crate) fn failed(&mut self, error: &io::Error) -> bool {
        let before = self.failing.map_or(0, |(failures, _)| failures);
        self.failing = Some((before + 1, Instant::now()));
        if before == 0 {
            tracing::warn!(%error, "connections cannot be accepted");
        }
        before == 0
    }

    /// Takes note of a connection; returns the failures before where accepting is well again since now.
    pub(crate) fn accepted(&mut self) -> Option<u64> {
        let (failures, _) = self.failing.filter(|(_, last)| last.elapsed() >= ACCEPT_CALM)?;
        self.failing = None;
        tracing::info!(failures, "connections are accepted again");
        Some(failures)
    }
}

/// Returns whether an error of `accept` concerns the connection and not the listener.
pub(crate) fn is_of_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;

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
