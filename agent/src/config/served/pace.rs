//! When to ask next.
//!
//! # Must not know
//! What is asked, and of whom.
//!
//! # Limits
//! After failures pauses of full jitter: up to 5 s at first, doubling up to [`PAUSE_MAX`]; while nobody leads they do not
//! grow, and the first few are short, as they are where who leads has not been told of this pod yet.

use std::time::Duration;

use tokio::time::Instant;

use super::client::AskError;

/// Longest pause after the first failure: agents that lose an operator together do not come back together.
pub(super) const PAUSE_FIRST: Duration = Duration::from_secs(5);
/// Longest pause: an operator that comes back is heard of within that time, and 10,000 agents are 700 connections a second.
const PAUSE_MAX: Duration = Duration::from_secs(15);
/// The status of an operator that has not been told of this pod yet: soon it is.
const UNTOLD: u16 = 403;
/// How often another replica is looked for at once, before it counts as a failure.
const LEADER_LOOKS_MAX: u32 = 10;
/// Longest pause while replicas answer of which none leads: one will within the time of a Lease.
const LEADER_PAUSE_MAX: Duration = Duration::from_secs(3);

/// When to ask.
#[derive(Debug)]
pub(super) struct Pace {
    pub(super) not_before: Instant,
    pub(super) is_connected: bool,
    pub(super) failures: u32,
    pub(super) looks: u32,
    pub(super) error: String,
}

impl Pace {
    /// Returns how long to wait after one more failure.
    pub(super) fn pause(&mut self, error: &AskError) -> Duration {
        let is_nobody = matches!(error, AskError::NotLeader);
        let is_untold = matches!(error, AskError::Refused { status: UNTOLD, retry_after: Some(_), .. });
        if (is_nobody || is_untold) && self.looks < LEADER_LOOKS_MAX {
            self.looks += 1;
            return Duration::from_millis(100) + Duration::from_millis(200).mul_f64(unit());
        }
        if is_nobody {
            return LEADER_PAUSE_MAX.mul_f64(unit()).max(LEADER_PAUSE_MAX / 10);
        }
        let ceiling = PAUSE_FIRST.saturating_mul(1 << self.failures.min(10)).min(PAUSE_MAX);
        self.failures = self.failures.saturating_add(1);
        let asked = match error {
            AskError::Refused { retry_after, .. } => retry_after.unwrap_or_default(),
            _ => Duration::ZERO,
        };
        asked + ceiling.mul_f64(unit()).max(ceiling / 100)
    }
}

/// A random number in [0, 1).
pub(super) fn unit() -> f64 {
    let mut bytes = [0; 4];
    // Without the system's numbers half of the pause is as good as any.
    let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    filled.map_or(0.5, |_| f64::from(u32::from_le_bytes(bytes)) / (f64::from(u32::MAX) + 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_bound_and_another_leader_is_looked_for_at_once() {
        let mut pace =
            Pace { not_before: Instant::now(), is_connected: true, failures: 0, looks: 0, error: String::new() };
        for _ in 0..LEADER_LOOKS_MAX {
            let pause = pace.pause(&AskError::NotLeader);
            assert!((Duration::from_millis(100)..=Duration::from_millis(300)).contains(&pause), "{pause:?}");
        }
        // Nobody leads for the time of a Lease, and that is no reason to stay away for longer.
        let pauses: Vec<Duration> = (0..200).map(|_| pace.pause(&AskError::NotLeader)).collect();
        assert!(pauses.iter().all(|pause| *pause <= LEADER_PAUSE_MAX && !pause.is_zero()), "{pauses:?}");
        let pauses: Vec<Duration> = (0..200).map(|_| pace.pause(&AskError::TooLarge)).collect();
        assert!(pauses[0] <= PAUSE_FIRST && pauses.iter().all(|pause| *pause <= PAUSE_MAX), "{pauses:?}");
        assert!(pauses.iter().any(|pause| *pause > PAUSE_MAX / 2), "{pauses:?}");
        // A pod that the operator has not been told of soon is; one that is gone is no reason to ask for ever.
        let untold = AskError::Refused { status: 403, told: String::new(), retry_after: Some(Duration::from_secs(1)) };
        let mut new =
            Pace { not_before: Instant::now(), is_connected: false, failures: 0, looks: 0, error: String::new() };
        let pauses: Vec<Duration> = (0..200).map(|_| new.pause(&untold)).collect();
        assert!(
            pauses[..LEADER_LOOKS_MAX as usize].iter().all(|pause| *pause <= Duration::from_millis(300)),
            "{pauses:?}"
        );
        assert!(pauses[LEADER_LOOKS_MAX as usize..].iter().any(|pause| *pause > PAUSE_FIRST), "{pauses:?}");
        let busy = AskError::Refused { status: 503, told: String::new(), retry_after: Some(Duration::from_secs(90)) };
        assert!(pace.pause(&busy) >= Duration::from_secs(90));
    }
}
