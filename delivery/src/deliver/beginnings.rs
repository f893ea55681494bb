//! Where deliveries began that an earlier version saved, which did not write that down: found by their ledger.

use super::jobs::is_job;
use crate::log::{Log, Progress, ReadError};

/// Writes down where deliveries began that an earlier version saved, which did not.
pub(super) async fn find(log: &Log) {
    for (key, progress) in log.saved_deliveries().into_iter().filter(|(key, _)| !is_job(key)) {
        if progress.began.is_some() {
            continue;
        }
        let (reader, route, old) = (log.clone(), key.route.clone(), progress.clone());
        let found = tokio::task::spawn_blocking(move || beginning(&reader, &route, &old)).await;
        let Ok(Ok(began)) = found else {
            tracing::warn!(route = %key.route, "where a delivery of an earlier version began cannot be found out now");
            continue;
        };
        if let Err(error) = log.save(&key, &Progress { began: Some(began), ..progress }, true).await {
            tracing::warn!(%error, route = %key.route, "could not note where a delivery of an earlier version began");
        }
    }
}

/// Returns where a delivery began: behind as many events of its route as were routed before it. The first sequence there is
/// where it began before that.
fn beginning(log: &Log, route: &str, progress: &Progress) -> Result<u64, ReadError> {
    let census = log.census();
    let routed = census.routed_events(route) as i64;
    let before = |seq| log.count_events(&census, route, seq, u64::MAX).map(|(events, _)| routed - events as i64);
    let (mut low, mut high) = (log.first_seq().min(progress.cursor), progress.cursor);
    while low < high {
        let middle = high - (high - low) / 2;
        if before(middle)? <= progress.routed_before {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    Ok(low)
}
