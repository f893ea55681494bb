//! `Sample`, `RateLimit` and `Deduplicate`: transforms that pass an event on or drop it by what came before.
//!
//! # Guarantees
//! - **Nothing is lost to a refusal.** What a batch did is taken back where its log does not take it ([`Effects`]): a sender who is
//!   refused and comes again meets no duplicate of its own, and no bucket that it emptied.
//! - **A duplicate is one of an event that a log has**, or of an earlier one of the same batch. Two batches on their way at once
//!   do not know of each other, so that both may pass.
//! - **Monotonic time.** Wall time means nothing here: it may jump.
//! - **An edit** of another transform leaves the state alone, one of this transform begins anew; so does a start.
//!
//! # Limits
//! [`KEYS_MAX`] keys of each transform, or fewer where it says so. Behind it keys share one bucket, and the oldest duplicate is
//! forgotten; each is counted ([`Failure::TooManyKeys`]).

mod buckets;
mod effects;
mod key;
mod state;
mod window;

use std::time::Duration;

use super::chain::Verdict;
use super::counts::Counts;
use super::edit::Subject;
use super::parse::OnError;
use super::{Action, Failure, FieldPath};
use crate::condition::{Condition, Expression};
use key::{Key, KeyScratch, sample_point};

pub use effects::Effects;
pub(super) use state::State;

/// Most keys that one transform remembers.
pub const KEYS_MAX: u32 = 100_000;

/// Most events of a bucket, and most that are told for a second.
pub const RATE_MAX: u32 = 10_000_000;

/// The longest time for which an event is remembered.
pub const WINDOW_MAX: Duration = Duration::from_secs(86_400);

/// Which events a gate looks at; all others go on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Looks {
    /// Those for which it holds; all where there is none.
    pub when: Option<Condition>,
    /// Each value by itself; all events alike where there is none.
    pub key: Option<Expression>,
    /// What becomes of an event whose key cannot be told.
    pub on_error: OnError,
}

/// Passes some of many events on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Which events. All of one key have the same verdict, everywhere; without a key they take turns.
    pub looks: Looks,
    /// So many pass,
    pub keep: u32,
    /// out of so many; at least as many as pass.
    pub out_of: u32,
}

/// Passes so many events a second on, and no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimit {
    /// Which events, and what has a limit of its own.
    pub looks: Looks,
    /// How many pass in a second, in the long run.
    pub events_per_second: u32,
    /// How many pass at once after a rest.
    pub burst_events: u32,
    /// How many keys have a limit of their own.
    pub keys_max: u32,
}

/// Passes an event on once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deduplicate {
    /// Which events; those of different keys are different.
    pub looks: Looks,
    /// Two events of which all these are the same are the same.
    pub fields: Vec<FieldPath>,
    /// How long an event that was passed on is remembered.
    pub window: Duration,
    /// How many events are remembered.
    pub keys_max: u32,
}

/// The transform, compiled, with what it remembers.
#[derive(Debug)]
pub(super) struct Gate {
    /// Which transform of the chain.
    transform: usize,
    when: Option<Condition>,
    key: Key,
    on_error: OnError,
    state: State,
}

/// Memory of the gates of a chain, used for one event after the other.
#[derive(Debug, Default)]
pub(super) struct GateScratch {
    key: KeyScratch,
    /// What the batch did so far.
    pub(super) effects: Effects,
}

impl Gate {
    /// Returns the gate of a transform that is one.
    pub(super) fn new(transform: usize, action: &Action, state: &State) -> Option<Self> {
        let (looks, fields) = match action {
            Action::Sample(sample) => (&sample.looks, &[][..]),
            Action::RateLimit(limit) => (&limit.looks, &[][..]),
            Action::Deduplicate(deduplicate) => (&deduplicate.looks, &deduplicate.fields[..]),
            _ => return None,
        };
        let (when, on_error) = (looks.when.clone(), looks.on_error);
        Some(Self { transform, when, key: Key::new(looks.key.clone(), fields), on_error, state: state.clone() })
    }

    /// Returns whether the event goes on, which it does as it is.
    pub(super) fn run(&self, subject: Subject<'_>, scratch: &mut GateScratch, counts: &mut [Counts]) -> Verdict {
        let counts = &mut counts[self.transform];
        match self.when.as_ref().map_or(Ok(true), |when| when.eval(subject.event, subject.origin)) {
            Ok(true) => {}
            other => {
                counts.event(false, other.err().map(Failure::from));
                return Verdict::Same;
            }
        }
        let passed = match self.key.read(subject, &mut scratch.key) {
            Ok(key) => self.pass(key, subject, scratch),
            Err(failure) => (self.on_error == OnError::Keep, Some(failure)),
        };
        match passed {
            (true, failure) => {
                counts.event(false, failure);
                Verdict::Same
            }
            (false, failure) => {
                counts.dropped_event(failure);
                Verdict::Dropped
            }
        }
    }

    /// Returns whether an event of that key passes, and whether the key is one too many.
    fn pass(&self, key: Option<u128>, subject: Subject<'_>, scratch: &mut GateScratch) -> (bool, Option<Failure>) {
        match (&self.state, key) {
            (State::None, _) => (true, None),
            (State::Sample { keep, out_of, .. }, Some(_)) => (sample_point(&scratch.key, *out_of) < *keep, None),
            (State::Sample { keep, out_of, count }, None) => {
                let turn = u128::from(scratch.effects.turn(self.transform, count));
                let (keep, out_of) = (u128::from(*keep), u128::from(*out_of));
                // Those that pass stand as far from each other as can be, the first one first.
                (turn * keep % out_of < keep, None)
            }
            (State::Buckets(buckets), key) => {
                let key = key.unwrap_or_default();
                let (passes, is_own) = buckets.take(key, subject.now);
                if passes {
                    scratch.effects.spent(self.transform, buckets, is_own.then_some(key));
                }
                (passes, (!is_own).then_some(Failure::TooManyKeys))
            }
            (State::Window(window), key) => {
                let key = key.unwrap_or_default();
                (scratch.effects.is_fresh(self.transform, window, key, subject.now), None)
            }
        }
    }
}
