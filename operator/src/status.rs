//! Verdicts and reports into the status of every object. Pure: the time is handed in.
//!
//! # Guarantees
//! - Where nothing changed the answer equals what was before, so that nothing is written: `lastTransitionTime` moves with
//!   `status` alone, and an error that differs in numbers only (ports, attempts) keeps its first words.
//! - Every reason is one of [`Reason`], the documented catalogue; `docs/reference/status.md` has a row for each.
//! - `Programmed` counts agents on nodes that are ready, heard within [`HEARD`]. Others are named and hold nothing up. Of sidecars,
//!   which come and go with pods, is told what they refuse and which backends they cannot reach.
//! - `Ready` is `True` where data can flow, and idle is ready. A backend that takes nothing lowers it after [`LOWERED_AFTER`].
//! - As kstatus reads it: `Stalled` stands only where waiting does not help, `Reconciling` only while it does.
//! - A new leader, who has heard nobody yet, leaves what the last one saw for [`SETTLING`].
//!
//! # It must not know
//! How status is written, and when: it answers when to look again where time alone changes something.
//!
//! # Limits
//! A message has at most [`MESSAGE_CHARS_MAX`] characters and names at most [`NAMED_MAX`](spillway_crds::nodes::NAMED_MAX) nodes; of the backends of a pipeline
//! [`BACKENDS_MAX`] are told, those with a fault first.

mod agents;
mod backend;
mod conditions;
mod faults;
mod news;
mod pipeline;

use jiff::{SignedDuration, Timestamp};

pub use crate::reason::Reason;
pub use crate::reports::HEARD;
pub use agents::Agents;
pub use backend::backend;
pub use news::{Cause, NOTE_BYTES_MAX, News, Standing, news, noted, standing};
pub use pipeline::{pipeline, with_sidecars};

/// How long data must not flow before `Ready` says so.
pub const LOWERED_AFTER: SignedDuration = SignedDuration::from_secs(60);

/// How long attempts must fail before that is worth a word.
pub const RETRYING_AFTER: SignedDuration = SignedDuration::from_secs(10);

/// How long a new leader waits for agents that it has not heard: a poll and a half.
pub const SETTLING: SignedDuration = SignedDuration::from_secs(90);

/// Most characters of a message.
pub const MESSAGE_CHARS_MAX: usize = 2048;

/// Most backends that the status of a pipeline names; its type says so, too.
pub const BACKENDS_MAX: usize = 64;

/// How the words begin that say which generation runs on.
const GENERATION: &str = "; generation ";

/// The words that say that what ran before may run on.
const BEFORE: &str = "; what ran before runs on where it can";

/// When to look again, the earliest that was asked for.
#[derive(Debug, Clone, Copy)]
struct Again {
    now: Timestamp,
    at: Option<Timestamp>,
}

impl Again {
    fn new(now: Timestamp) -> Self {
        Self { now, at: None }
    }

    /// Returns whether `after` has passed since `from`; where it has not, asks to look again then.
    fn has_passed(&mut self, from: Timestamp, after: SignedDuration) -> bool {
        let then = from.saturating_add(after).unwrap_or(Timestamp::MAX);
        if then <= self.now {
            return true;
        }
        self.at = Some(self.at.map_or(then, |at| at.min(then)));
        false
    }
}

/// Returns the time as status has it: RFC 3339 in whole seconds.
fn text(time: Timestamp) -> String {
    Timestamp::from_second(time.as_second()).unwrap_or(time).to_string()
}

#[cfg(test)]
mod tests;
