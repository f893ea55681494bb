//! The end of an engine: intake closes, deliveries go on for a while, logs are closed.
//!
//! # Guarantees
//! - Logs are closed last, and in every case: what only memory holds is written and synced unless the time is over or the
//!   disk refuses it.
//! - A drain that is cut short ends within [`CUT_SHORT_MAX`].

use std::time::Duration;

use tokio::time::Instant;

use super::engine::Engine;

/// How long a drain goes on at most once it is cut short.
pub const CUT_SHORT_MAX: Duration = Duration::from_secs(CUT_LANDING.as_secs() + CUT_CLOSING.as_secs());

/// What the end of a drain keeps for landing what is under way, commits and syncs.
const LANDING: Duration = Duration::from_secs(5);
/// How long deliveries may let land what is under way and save their cursors once the drain is cut short.
const CUT_LANDING: Duration = Duration::from_secs(1);
/// How long logs may take to write what memory holds, 24 MiB each at most, once the drain is cut short.
const CUT_CLOSING: Duration = Duration::from_secs(4);

impl Engine {
    /// Refuses new batches, lets deliveries go on until nothing is held, `deadline` has come or it is [cut
    /// short](Self::cut_short), then syncs logs, commits cursors and closes backends. What is held stays in the log. Returns
    /// whether nothing was held at the end.
    pub async fn drain(&self, deadline: Instant) -> bool {
        let landing = LANDING.min(deadline.duration_since(Instant::now()) / 2);
        let drained = self.flush(deadline - landing).await;
        let landed = self.deliveries.stop_by(self.over(deadline - landing / 4, CUT_LANDING)).await;
        let synced = self.logs.stop_by(self.over(deadline, CUT_CLOSING)).await;
        if !(landed && synced) {
            tracing::warn!(landed, synced, "the time was over before everything was at rest");
        }
        drained
    }

    /// Refuses new batches and lets deliveries go on until nothing is held, `deadline` has come or it is [cut
    /// short](Self::cut_short). Returns whether nothing was held at the end; a drain is to follow.
    pub async fn flush(&self, deadline: Instant) -> bool {
        let pipelines = self.pipelines();
        pipelines.iter().for_each(|pipeline| pipeline.stop_intake());
        self.hurry.send_replace(true);
        let idle = async {
            let mut look = tokio::time::interval(Duration::from_millis(20));
            while !pipelines.iter().all(|pipeline| pipeline.is_drained()) {
                look.tick().await;
            }
        };
        tokio::select! {
            biased;
            () = idle => true,
            () = self.over(deadline, Duration::ZERO) => false,
        }
    }

    /// Returns the deliveries that a drain would wait for now, as `namespace/pipeline/route/backend`.
    pub fn undrained(&self) -> Vec<String> {
        self.pipelines().iter().flat_map(|pipeline| pipeline.undrained()).collect()
    }

    /// Makes a drain, under way or to come, wait for deliveries no longer. What memory holds is still written and logs are
    /// closed, within [`CUT_SHORT_MAX`].
    pub fn cut_short(&self) {
        self.cut.cancel();
    }

    /// Resolves at `deadline`, or `within` of the moment that the drain is cut short, whichever comes first.
    async fn over(&self, deadline: Instant, within: Duration) {
        tokio::select! {
            () = tokio::time::sleep_until(deadline) => {}
            () = async {
                self.cut.cancelled().await;
                tokio::time::sleep(within).await;
            } => {}
        }
    }
}
