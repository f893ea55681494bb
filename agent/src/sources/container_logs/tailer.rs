//! The whole source without tasks, locks and waiting: told to look, it hands out batches one by one.
//!
//! # Expected flow
//! [`Tailer::scan`] and the hints of the watch find pods, containers and files; [`Tailer::poll`] hands out the next
//! batch of a reader that has one; [`Tailer::kept`] says that it is in the log. Until then that reader makes no other.
//!
//! # Guarantees
//! A pipeline that takes nothing holds up its own readers only: each has its own queue, its own readers and its own bound
//! of batches under way. Readers of one pipeline take turns, each of one batch.

mod discover;
mod pods;
mod state;

use std::collections::BTreeSet;
use std::sync::Arc;

use spillway_delivery::clock::{UnixNanos, write_rfc3339};
use spillway_delivery::event::{Arenas, Batch, BatchBuilder, Origin, Position};
use tokio::time::Instant;

use self::pods::Told;
use self::state::{Lane, Pods};
use super::assemble::Sink;
use super::container::{Gate, SeatState};
use super::cri::TIME_BYTES_MAX;
use super::file::{CHUNK_BYTES, Opener};
use super::layout::PodFacts;
use super::position::MARKER;
use super::reader::{After, Turn};
use super::stats::{ContainerLogStats, Counts, Shares};
use super::watch::{Hints, Place, Watch, Writes};
use super::{ContainerLogsSettings, StartAt};

pub(super) use self::state::Want;

/// Most batches of one pipeline on their way into its log: enough for one group commit to take several.
pub(super) const IN_FLIGHT_MAX: usize = 4;

/// Whom a batch belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket {
    /// The pipeline, by its place in the list.
    pub(super) pipeline: usize,
    /// Container and seat; `None` for a batch that only forgets or marks.
    seat: Option<(u32, usize)>,
}

/// A batch to be kept by one pipeline.
#[derive(Debug)]
pub(super) struct Outgoing {
    /// Whose it is.
    pub(super) ticket: Ticket,
    /// The batch, with its position.
    pub(super) batch: Batch,
}

/// The whole source without tasks.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "facts of the root, each for itself")]
pub(super) struct Tailer {
    settings: ContainerLogsSettings,
    opener: Opener,
    stats: Arc<ContainerLogStats>,
    shares: Shares,
    wants: Vec<Want>,
    lanes: Vec<Lane>,
    lane_next: usize,
    pods: Pods,
    told: Told,
    timed: BTreeSet<u32>,
    watch: Option<Watch>,
    chunk: Vec<u8>,
    arenas: Arenas,
    group_bytes: usize,
    is_started: bool,
    /// Whether recovered positions of what is not there any more were let go of.
    is_settled: bool,
    /// Whether the last listing of the root showed no directory at all.
    is_root_empty: bool,
    is_unwatched: bool,
}

impl Tailer {
    /// Returns a tailer of `wants`; `positions` are those each pipeline recovered.
    pub(super) fn new(
        settings: ContainerLogsSettings,
        wants: Vec<Want>,
        positions: Vec<Vec<(bytes::Bytes, bytes::Bytes)>>,
        stats: Arc<ContainerLogStats>,
    ) -> Self {
        let held_max = settings.held_files_max;
        Self {
            opener: Opener {
                links: settings.links,
                held_max,
                stats: stats.clone(),
                #[cfg(test)]
                between: super::tests::between::Between::default(),
            },
            settings,
            shares: Shares::new(stats.clone()),
            stats,
            wants,
            lanes: positions.into_iter().map(Lane::new).collect(),
            lane_next: 0,
            pods: Pods::default(),
            told: Told::default(),
            timed: BTreeSet::new(),
            watch: None,
            chunk: vec![0; CHUNK_BYTES],
            arenas: Arenas::default(),
            group_bytes: 0,
            is_started: false,
            is_settled: false,
            is_root_empty: false,
            is_unwatched: false,
        }
    }

    /// Watches from now on; directories are added as scans find them.
    pub(super) fn attach(&mut self, watch: Watch) {
        self.watch = Some(watch);
    }

    /// What comes between two steps of a listing.
    #[cfg(test)]
    pub(super) fn between(&mut self) -> &mut super::tests::between::Between {
        &mut self.opener.between
    }

    /// Looks where the watch says.
    pub(super) fn take_hints(&mut self, now: Instant) {
        if let Some(hints) = self.watch.as_mut().map(Watch::take) {
            self.follow(hints, now);
        }
    }

    /// Looks where `hints` say.
    pub(super) fn follow(&mut self, Hints { changed, written, overflowed }: Hints, now: Instant) {
        if overflowed {
            ContainerLogStats::add(&self.stats.overflows, 1);
            return self.scan(now);
        }
        for place in changed {
            match place {
                Place::Root => self.scan_root(now),
                Place::Pod(name) => self.scan_pod(&name, now),
                Place::Container(key) => self.scan_container(key, now),
            }
        }
        for key in written {
            if self.pods.container(key).is_some_and(|container| container.note_write(now)) {
                self.watch_container(key, Writes::Untold);
                self.timed.insert(key);
            }
            self.wake(key);
        }
    }

    /// Returns whether some directory is found by scans only.
    pub(super) fn is_unwatched(&self) -> bool {
        self.is_unwatched
    }

    /// Returns whether the timer has to look.
    pub(super) fn is_timed(&self) -> bool {
        !self.timed.is_empty()
    }

    /// Looks at every container the timer looks at.
    pub(super) fn tick(&mut self) {
        for key in std::mem::take(&mut self.timed) {
            let Some(container) = self.pods.container(key) else {
                continue;
            };
            if container.note_tick() {
                self.watch_container(key, Writes::Told);
            } else if container.is_timed() {
                self.timed.insert(key);
            }
            // Also after the last look: what was written before writes were told again is found by this one.
            self.wake(key);
        }
    }

    /// Hands out the next batch, one reader after the other, pipelines in turn.
    pub(super) fn poll(&mut self, now: Instant) -> Option<Outgoing> {
        for _ in 0..self.lanes.len() {
            let pipeline = self.lane_next;
            self.lane_next = (pipeline + 1) % self.lanes.len();
            let mut next = None;
            while next.is_none() && self.lanes[pipeline].may_send() {
                next = match self.lanes[pipeline].next() {
                    state::Next::Nothing => break,
                    state::Next::Forget(source) => Some(note(pipeline, source, None)),
                    state::Next::Mark => Some(note(pipeline, MARKER.into(), Some(bytes::Bytes::from_static(b"1")))),
                    state::Next::Seat(key, seat) => self.turn(key, seat, now),
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
    pub(super) fn kept(&mut self, ticket: Ticket) {
        let lane = &mut self.lanes[ticket.pipeline];
        lane.in_flight -= 1;
        let Some((key, seat)) = ticket.seat else {
            return;
        };
        let Some(container) = self.pods.container(key) else {
            return;
        };
        let seat_state = &mut container.seats[seat];
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

    fn wake(&mut self, key: u32) {
        let Some(container) = self.pods.container(key) else {
            return;
        };
        for (index, seat) in container.seats.iter_mut().enumerate() {
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
        let seat = &mut self.pods.container(key)?.seats[index];
        if seat.gate != Gate::Open || !seat.reader.is_placed() {
            seat.state = SeatState::Idle;
            self.leave(key);
            return None;
        }
        let received = self.settings.clock.now();
        let (out, after) = self.read(key, index, (now, received))?;
        let container = self.pods.container(key)?;
        if after == After::Soon {
            self.timed.insert(key);
        }
        if !out.is_empty() {
            container.note_news();
        }
        let seat = &mut container.seats[index];
        seat.has_more = after == After::More;
        seat.bytes_expected = out.bytes() + out.bytes() / 8;
        let leaves = after == After::Drained && container.is_gone;
        let position = if leaves {
            (seat.is_known || !out.is_empty()).then(|| seat.reader.farewell())
        } else if out.is_empty() && !seat.announces {
            None
        } else {
            seat.reader.position(&container.files)
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
        container.release();
        self.leave(key);
        goes.then_some(Outgoing { ticket: Ticket { pipeline, seat: Some((key, index)) }, batch })
    }

    fn read(&mut self, key: u32, index: usize, (now, received): (Instant, UnixNanos)) -> Option<(BatchBuilder, After)> {
        let container = self.pods.container(key)?;
        let seat = &mut container.seats[index];
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
                read_at: &read_at,
            },
        };
        let after = seat.reader.turn(&mut container.files, &mut turn);
        let Sink { out, counts, .. } = turn.sink;
        self.stats.add_turn(&counts);
        Some((out, after))
    }
}

fn note(pipeline: usize, source: bytes::Bytes, value: Option<bytes::Bytes>) -> Outgoing {
    let mut batch = BatchBuilder::default().build(Arc::<Origin>::default(), 0);
    batch.position = Some(Position { source, value });
    Outgoing { ticket: Ticket { pipeline, seat: None }, batch }
}
