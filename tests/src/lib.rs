//! What scenarios are made of: the real agent as a process, a destination that misbehaves when told, container logs as a
//! kubelet writes them, real servers, and readers of what came out.
//!
//! Everything is bounded in time by [`PATIENCE`]. Nothing waits by sleeping: a scenario waits for a line of the agent's
//! log, for a request at the receiver, or asks the agent again. Only processes started here are ended here.

#![expect(
    clippy::panic,
    clippy::missing_panics_doc,
    clippy::print_stdout,
    reason = "a scenario that cannot go on says so, and an installation what it does"
)]

pub mod agent;
pub mod cluster;
pub mod fleet;
pub mod helm;
pub mod http;
pub mod manifests;
pub mod operator;
pub mod output;
pub mod pods;
pub mod proxy;
pub mod receiver;
pub mod request_proxy;
pub mod scripted;
pub mod servers;

use std::time::Duration;

use servers::process::moment;
use tokio::time::Instant;

/// How long anything may take before a scenario fails: generous, because two cores are shared with other tests.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// How often things are asked again.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// Asks others until there is an answer, for at most [`PATIENCE`].
pub fn eventually<T>(what: &str, mut answer: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = answer() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {} s: {what}", PATIENCE.as_secs());
        moment(ASK_EVERY);
    }
}

/// Numbers that look random and come again with the same seed (splitmix64; Steele et al., 2014).
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    /// Returns a number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}
