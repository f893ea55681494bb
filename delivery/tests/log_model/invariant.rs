//! What must hold, each with a name that a failure prints.

use std::fmt;

/// A promise of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Invariant {
    /// What was acknowledged at `Disk`, or synced, is there after power loss.
    NoAckedLossDisk,
    /// What was acknowledged at `Process` is there after SIGKILL and after a clean start.
    NoAckedLossProcess,
    /// An event that is there is there byte for byte, with its id, mask, origin, position and key.
    ContentExact,
    /// Events stand in the order in which they were accepted, without a hole in what was not synced.
    OrderKept,
    /// No id names two events, over all incarnations ever.
    IdNeverNamesTwo,
    /// What was refused or lost does not come back, and nothing is there that nobody sent.
    NothingComesBack,
    /// A position is that of the last event kept of its source: neither ahead of the data nor behind.
    PositionMatchesData,
    /// The key of what was kept is known, that of what was not is free, and nothing is kept twice under one key.
    KeyRemembered,
    /// A cursor that comes back is one that was saved, so it passes no event that was not resolved.
    CursorNeverAhead,
    /// A cursor never comes back behind one that was saved and synced.
    CursorMonotone,
    /// Routed is delivered and held together, whatever happened.
    LedgerBalances,
    /// What every cursor has passed is freed.
    SpaceFreed,
    /// Nothing is given up at quota but what no other delivery needs, and what makes room.
    GivesUpWhatHelps,
    /// A start never refuses, whatever the damage and however full the disk.
    OpenNeverFails,
    /// A start reads by the number of segments, not by their bytes.
    BoundedRecovery,
    /// Without faults nothing is refused but for want of room, and nothing fails.
    WorksWithoutFaults,
    /// Every call returns, faults or not.
    AlwaysAnswers,
}

/// A promise that was broken, and how.
#[derive(Debug)]
pub(crate) struct Violation {
    pub(crate) invariant: Invariant,
    pub(crate) detail: String,
}

pub(crate) type Checked<T = ()> = Result<T, Violation>;

impl Invariant {
    /// Returns the violation of this invariant.
    pub(crate) fn broken(self, detail: impl Into<String>) -> Violation {
        Violation { invariant: self, detail: detail.into() }
    }

    /// Passes where `holds`, else tells.
    pub(crate) fn check(self, holds: bool, detail: impl FnOnce() -> String) -> Checked {
        if holds { Ok(()) } else { Err(self.broken(detail())) }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is broken: {}", self.invariant, self.detail)
    }
}
