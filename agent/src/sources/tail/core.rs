//! The readers of all units and whose turn it is, without tasks, locks and waiting: hands out batches one by one. What is
//! followed, and where it is found, says the source.
//!
//! # Guarantees
//! A pipeline that takes nothing holds up its own readers only: each has its own queue, its own readers and its own bound
//! of batches under way. Readers of one pipeline take turns, each of one batch.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use spillway_delivery::clock::{Clock, UnixNanos, write_rfc3339};
use spillway_delivery::event::{Arenas, Batch, BatchBuilder, Origin, Position};
use tokio::time::Instant;

use super::assemble::{Form, TIME_BYTES_MAX};
use super::file::{CHUNK_BYTES, Opener};
use super::lane::{Lane, Next};
use super::reader::{After, Taking, Turn};
use super::sink::{Joined, Sink};
use super::stats::{Counts, Shares, TailStats};
use super::unit::{Gate, Seat, SeatState, Unit};

/// Whom a batch belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sources) struct Ticket {
    /// The pipeline, by its place in the list.
    pub(in crate::sources) pipeline: usize,
    /// Unit and seat; `None` for a batch that only forgets or marks.
    seat: Option<(u32, usize)>,
}

/// A batch to be kept by one pipeline.
#[derive(Debug)]
pub(in crate::sources) struct Outgoing {
    /// Whose it is.
    pub(in crate::sources) ticket: Ticket,
    /// The batch, with its position.
    pub(in crate::sources) batch: Batch,
    /// How its lines were joined, to be counted once it is kept.
    pub(in crate::sources) joined: Joined,
}

/// The units, their readers, and whose turn it is.
#[derive(Debug)]
pub(in crate::sources) struct Core<F> {
    /// Opens files.
    pub(in crate::sources) opener: Opener,
    /// What was done.
    pub(in crate::sources) stats: Arc<TailStats>,
    /// Its share in the gauges.
    pub(in crate::sources) shares: Shares,
    /// The pipelines.
    pub(in crate::sources) lanes: Vec<Lane>,
    /// What is followed.
    pub(in crate::sources) units: BTreeMap<u32, Unit<F>>,
    /// Units that the timer looks at.
    pub(in crate::sources) timed: BTreeSet<u32>,
    /// When units with an open group of lines are looked at again.
    due: BTreeMap<u32, Instant>,
    /// The read buffer, shared by all readers.
    pub(in crate::sources) chunk: Vec<u8>,
    /// Bytes of unfinished lines held, over all files.
    pub(in crate::sources) group_bytes: usize,
    clock: Clock,
    lane_next: usize,
    key_next: u32,
    arenas: Arenas,
}

impl<F: Form> Core<F> {
    /// Returns one that follows nothing yet, for the pipelines of `lanes`.
    pub(in crate::sources) fn new(opener: Opener, clock: Clock, lanes: Vec<Lane>) -> Self {
        let stats = opener.stats.clone();
        Self {
            opener,
            shares: Shares::new(stats.clone()),
            stats,
            lanes,
            units: BTreeMap::new(),
            timed: BTreeSet::new(),
            due: BTreeMap::new(),
            chunk: vec![0; CHUNK_BYTES],
            group_bytes: 0,
            clock,
            lane_next: 0,
            key_next: 0,
            arenas: Arenas::default(),
        }
    }

    /// Begins to follow a unit.
    pub(in crate::sources) fn add(&mut self, unit: Unit<F>) -> u32 {
        self.key_next += 1;
        self.units.insert(self.key_next, unit);
        self.key_next
    }

    /// Has `change` done to a unit, with what a reader takes its place with.
    pub(in crate::sources) fn with_taking<T>(
        &mut self,
        key: u32,
        change: impl FnOnce(&mut Unit<F>, &mut Taking<'_>) -> T,
    ) -> Option<T> {
        let unit = self.units.get_mut(&key)?;
        let mut taking = Taking { opener: &self.opener, chunk: &mut self.chunk, counts: Counts::default() };
        let changed = change(unit, &mut taking);
        self.stats.add_turn(&taking.counts);
        Some(changed)
    }

    /// Returns whether the timer has to look.
    pub(in crate::sources) fn is_timed(&self) -> bool {
        !self.timed.is_empty() || !self.due.is_empty()
    }

    /// Looks at every unit the timer looks at; returns those that went quiet, whose writes are to be told again.
    pub(in crate::sources) fn tick(&mut self, now: Instant) -> Vec<u32> {
        let due: Vec<u32> = self.due.iter().filter(|(_, due)| **due <= now).map(|(key, _)| *key).collect();
        for key in due {
            self.due.remove(&key);
            self.wake(key);
        }
        let mut quiet = Vec::new();
        for key in std::mem::take(&mut self.timed) {
            let Some(unit) = self.units.get_mut(&key) else {
                continue;
            };
            if unit.note_tick() {
                quiet.push(key);
            } else if unit.is_timed() {
                self.timed.insert(key);
            }
            // Also after the last look: what was written before writes were told again is found by this one.
            self.wake(key);
        }
        quiet
    }

    /// Takes note that a unit is gone: what is held of its files is read to the end.
    pub(in crate::sources) fn lose(&mut self, key: u32, now: Instant) {
        if self.with_taking(key, |unit, taking| unit.lose(taking, now)).is_some() {
            self.wake(key);
        }
    }

    /// Forgets a unit that is gone and that every reader has left.
    pub(in crate::sources) fn leave(&mut self, key: u32) {
        let Some(unit) = self.units.get(&key).filter(|unit| unit.is_gone && unit.seats.iter().all(Seat::is_through))
        else {
            return;
        };
        for seat in unit.seats.iter().filter(|seat| seat.state != SeatState::Left && seat.is_known) {
            self.lanes[seat.reader.pipeline].farewells.push_back(seat.reader.source().clone());
        }
        self.units.remove(&key);
        self.timed.remove(&key);
        self.due.remove(&key);
        self.shares.set_units(self.units.len());
    }

    /// Hands out the next batch, one reader after the other, pipelines in turn.
    pub(in crate::sources) fn poll(&mut self, now: Instant) -> Option<Outgoing> {
        for _ in 0..self.lanes.len() {
            let pipeline = self.lane_next;
            self.lane_next = (pipeline + 1) % self.lanes.len();
            let mut next = None;
            while next.is_none() && self.lanes[pipeline].may_send() {
                next = match self.lanes[pipeline].next() {
                    Next::Nothing => break,
                    Next::Forget(source) => Some(note(pipeline, source, None)),
                    Next::Mark(source, value) => Some(note(pipeline, source, Some(value))),
                    Next::Seat(key, seat) => self.turn(key, seat, now),
                };
            }
            if next.is_some() {
                self.lanes[pipeline].in_flight += 1;
                return next;
            }
        }
        None
    }

    /// Takes note that a batch is in the log.
    pub(in crate::sources) fn kept(&mut self, ticket: Ticket) {
        let lane = &mut self.lanes[ticket.pipeline];
        lane.in_flight -= 1;
        let Some((key, seat)) = ticket.seat else {
            return;
        };
        let Some(unit) = self.units.get_mut(&key) else {
            return;
        };
        let seat_state = &mut unit.seats[seat];
        seat_state.is_known = true;
        if seat_state.announces {
            seat_state.announces = false;
            lane.announcing -= 1;
        }
        if seat_state.state == SeatState::Leaving {
            seat_state.state = SeatState::Left;
            self.leave(key);
        } else {
            seat_state.state = SeatState::Idle;
            if seat_state.has_more {
                seat_state.state = SeatState::Queued;
                lane.ready.push_back((key, seat));
            }
        }
    }

    /// Has the readers of a unit take their turn.
    pub(in crate::sources) fn wake(&mut self, key: u32) {
        let Some(unit) = self.units.get_mut(&key) else {
            return;
        };
        for (index, seat) in unit.seats.iter_mut().enumerate() {
            match seat.state {
                SeatState::Idle if seat.gate != Gate::Open => {}
                SeatState::Idle => {
                    seat.state = SeatState::Queued;
                    self.lanes[seat.reader.pipeline].ready.push_back((key, index));
                }
                SeatState::InFlight => seat.has_more = true,
                SeatState::Queued | SeatState::Leaving | SeatState::Left => {}
            }
        }
    }

    fn turn(&mut self, key: u32, index: usize, now: Instant) -> Option<Outgoing> {
        let seat = &mut self.units.get_mut(&key)?.seats[index];
        if seat.gate != Gate::Open || !seat.reader.is_placed() {
            seat.state = SeatState::Idle;
            self.leave(key);
            return None;
        }
        let received = self.clock.now();
        let (out, joined, after) = self.read(key, index, (now, received))?;
        let unit = self.units.get_mut(&key)?;
        if after == After::Soon {
            self.timed.insert(key);
        }
        if !out.is_empty() {
            unit.note_news();
        }
        let seat = &mut unit.seats[index];
        if let Some(due) = seat.reader.due() {
            // Looked at too early, it is asked again; never too late.
            let known = self.due.entry(key).or_insert(due);
            *known = due.min(*known);
        }
        seat.has_more = after == After::More;
        seat.bytes_expected = out.bytes() + out.bytes() / 8;
        let leaves = after == After::Drained && unit.is_gone;
        let position = if leaves {
            (seat.is_known || !out.is_empty()).then(|| seat.reader.farewell())
        } else if out.is_empty() && !seat.announces {
            None
        } else {
            seat.reader.position(&unit.files)
        };
        let goes = position.is_some() || !out.is_empty();
        seat.state = match (goes, leaves) {
            (true, true) => SeatState::Leaving,
            (true, false) => SeatState::InFlight,
            (false, true) => SeatState::Left,
            (false, false) => SeatState::Idle,
        };
        let pipeline = seat.reader.pipeline;
        if !goes && std::mem::take(&mut seat.announces) {
            self.lanes[pipeline].announcing -= 1;
        }
        let mut batch = out.build(seat.reader.origin.clone(), received);
        batch.position = position;
        unit.release();
        self.leave(key);
        goes.then_some(Outgoing { ticket: Ticket { pipeline, seat: Some((key, index)) }, batch, joined })
    }

    fn read(
        &mut self,
        key: u32,
        index: usize,
        (now, received): (Instant, UnixNanos),
    ) -> Option<(BatchBuilder, Joined, After)> {
        let unit = self.units.get_mut(&key)?;
        let seat = &mut unit.seats[index];
        let mut read_at = Vec::with_capacity(TIME_BYTES_MAX);
        write_rfc3339(&mut read_at, received);
        let mut turn = Turn {
            now,
            opener: &self.opener,
            chunk: &mut self.chunk,
            sink: Sink {
                out: BatchBuilder::in_arena(&self.arenas, seat.bytes_expected),
                counts: Counts::default(),
                group_bytes: &mut self.group_bytes,
                joined: Joined::default(),
                now,
                read_at: &read_at,
                members: &unit.members,
            },
        };
        let after = seat.reader.turn(&mut unit.files, &mut turn);
        let Sink { out, counts, joined, .. } = turn.sink;
        self.stats.add_turn(&counts);
        Some((out, joined, after))
    }
}

fn note(pipeline: usize, source: Bytes, value: Option<Bytes>) -> Outgoing {
    let mut batch = BatchBuilder::default().build(Arc::<Origin>::default(), 0);
    batch.position = Some(Position { source, value });
    Outgoing { ticket: Ticket { pipeline, seat: None }, batch, joined: Joined::default() }
}
