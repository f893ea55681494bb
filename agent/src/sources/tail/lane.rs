//! A pipeline and what waits in it.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use spillway_delivery::transform::Multiline;

use super::IN_FLIGHT_MAX;

/// A pipeline and what waits in it.
#[derive(Debug)]
pub(in crate::sources) struct Lane {
    /// Recovered positions of units that were not found yet.
    pub(in crate::sources) positions: HashMap<Bytes, Bytes>,
    /// Markers that were recovered: what the pipeline saw before.
    pub(in crate::sources) seen: HashMap<Bytes, Bytes>,
    /// Markers that it has yet to keep.
    pub(in crate::sources) marks: VecDeque<(Bytes, Bytes)>,
    /// Positions to forget: their units are gone for good.
    pub(in crate::sources) farewells: VecDeque<Bytes>,
    /// Seats whose first position has yet to be kept.
    pub(in crate::sources) announcing: usize,
    /// Seats that wait for their turn.
    pub(in crate::sources) ready: VecDeque<(u32, usize)>,
    /// Batches on their way.
    pub(in crate::sources) in_flight: usize,
    /// How its lines are joined.
    pub(in crate::sources) multiline: Option<Multiline>,
}

/// What a lane does next.
pub(super) enum Next {
    /// Nothing.
    Nothing,
    /// Forgets a unit.
    Forget(Bytes),
    /// Notes what was seen.
    Mark(Bytes, Bytes),
    /// Lets a seat read.
    Seat(u32, usize),
}

impl Lane {
    /// Returns a lane that recovered `positions`: those of the source `name` are `<name>/…`, its markers `<name>` and
    /// `<name>-…`.
    pub(in crate::sources) fn new(positions: Vec<(Bytes, Bytes)>, name: &str) -> Self {
        let is_of = |source: &Bytes, next: &[Option<u8>]| {
            source.strip_prefix(name.as_bytes()).is_some_and(|rest| next.contains(&rest.first().copied()))
        };
        let mut lane = Self {
            positions: HashMap::new(),
            seen: HashMap::new(),
            marks: VecDeque::new(),
            farewells: VecDeque::new(),
            announcing: 0,
            ready: VecDeque::new(),
            in_flight: 0,
            multiline: None,
        };
        for (source, value) in positions {
            if is_of(&source, &[Some(b'/')]) {
                lane.positions.insert(source, value);
            } else if is_of(&source, &[None, Some(b'-')]) {
                lane.seen.insert(source, value);
            }
        }
        lane
    }

    /// Returns whether another batch may be under way.
    pub(super) fn may_send(&self) -> bool {
        self.in_flight < IN_FLIGHT_MAX
    }

    /// Returns what is next.
    pub(super) fn next(&mut self) -> Next {
        if let Some(source) = self.farewells.pop_front() {
            return Next::Forget(source);
        }
        if self.announcing == 0
            && let Some((source, value)) = self.marks.pop_front()
        {
            return Next::Mark(source, value);
        }
        self.ready.pop_front().map_or(Next::Nothing, |(key, seat)| Next::Seat(key, seat))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_takes_what_is_of_its_source_alone() {
        let of = |source: &'static str| (Bytes::from_static(source.as_bytes()), Bytes::from_static(b"1"));
        let stored = ["files/a", "files-seen/b", "files", "file", "filesystem/c", "container-logs/u/c"].map(of).into();
        let lane = Lane::new(stored, "files");
        assert_eq!(lane.positions.keys().collect::<Vec<_>>(), ["files/a"]);
        assert_eq!(lane.seen.len(), 2, "{:?}", lane.seen);
    }
}
