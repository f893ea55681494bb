//! A frame: events that were appended together, as readers see them.

use std::sync::Arc;

use bytes::Bytes;

use super::segment::tally_below;
use super::state::Tally;
use crate::clock::UnixNanos;
use crate::event::{Batch, IdempotencyKey, Origin, Position};

/// Which routes want which event: bit `i` is route `i` of the segment's table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Masks {
    /// Every event has this mask.
    Uniform(u64),
    /// One mask per event.
    Each(Box<[u64]>),
}

impl Masks {
    /// Returns the mask of event `index`.
    pub fn get(&self, index: usize) -> u64 {
        match self {
            Self::Uniform(mask) => *mask,
            Self::Each(masks) => masks.get(index).copied().unwrap_or(0),
        }
    }
}

/// A batch on its way into the log: shaped, masks decided, events that are dropped or that no route wants taken out and counted.
#[derive(Debug, Clone)]
pub struct Pending {
    /// The events that some route wants.
    pub batch: Batch,
    /// Their masks; none is 0.
    pub masks: Masks,
    /// Events of the request that no route wanted.
    pub unrouted: u32,
    /// Events of the request that a transform dropped.
    pub dropped: u32,
}

impl Pending {
    /// Returns an upper bound of the bytes the frame takes on disk, its origin and the share of a footer included.
    pub fn disk_bytes(&self) -> u64 {
        let batch = &self.batch;
        let events = batch.payload.len() + batch.len() * 12 + 2 * batch.origin.json().len();
        events as u64 + extra_bytes(batch.position.as_ref(), batch.key.as_ref())
    }

    /// Returns roughly what the frame costs in memory.
    pub(super) fn memory_bytes(&self) -> usize {
        memory_bytes(self.batch.payload.len(), self.batch.ends.len(), &self.masks)
    }

    /// Returns the frame, whose events have this first sequence and incarnation.
    pub(super) fn into_frame(self, id: (u64, u64), running_ms: u64, routes: &Arc<[Arc<str>]>) -> Frame {
        let Self { batch, masks, unrouted, dropped } = self;
        Frame {
            first_seq: id.0,
            incarnation: id.1,
            received: batch.received,
            running_ms,
            origin: batch.origin,
            routes: routes.clone(),
            masks,
            ends: batch.ends,
            payload: batch.payload,
            unrouted,
            dropped,
            position: batch.position,
            key: batch.key,
        }
    }
}

fn memory_bytes(payload_bytes: usize, events: usize, masks: &Masks) -> usize {
    let mask_bytes = match masks {
        Masks::Uniform(_) => 0,
        Masks::Each(masks) => masks.len() * 8,
    };
    payload_bytes + events * 4 + mask_bytes + 256
}

/// What a frame takes on disk beyond its events and its origin.
fn extra_bytes(position: Option<&Position>, key: Option<&IdempotencyKey>) -> u64 {
    let value_bytes = |position: &Position| position.value.as_ref().map_or(0, Bytes::len);
    let position = position.map_or(0, |position| position.source.len() + value_bytes(position) + 16);
    let key = key.map_or(0, |key| key.sender.len() + key.key.len() + 32);
    (2 * position + 2 * key + 512) as u64
}

/// Events that were appended together. Immutable and shared; the payload is the arena the source made.
#[derive(Debug, Clone)]
pub struct Frame {
    /// Sequence of the first event; the others follow without a gap.
    pub first_seq: u64,
    /// The incarnation that took them.
    pub incarnation: u64,
    /// When they were received.
    pub received: UnixNanos,
    /// Running time of the log at the append.
    pub running_ms: u64,
    /// Who made them.
    pub origin: Arc<Origin>,
    /// Names of the routes, in the order of the masks' bits.
    pub routes: Arc<[Arc<str>]>,
    /// Which routes want which event.
    pub masks: Masks,
    /// Where each event ends in `payload`, its line break included.
    pub ends: Vec<u32>,
    /// The events, one per line.
    pub payload: Bytes,
    /// Events of the same request that no route wanted.
    pub unrouted: u32,
    /// Events of the same request that a transform dropped.
    pub dropped: u32,
    /// The source's position behind these events.
    pub position: Option<Position>,
    /// The client's key.
    pub key: Option<IdempotencyKey>,
}

impl Frame {
    /// Returns how many events there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Returns whether there are none: a frame may only move a position.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Returns the sequence behind the last event.
    pub fn end_seq(&self) -> u64 {
        self.first_seq + self.ends.len() as u64
    }

    /// Returns the bit of a route in this frame's masks, 0 where the segment does not know it.
    pub fn bit(&self, route: &str) -> u64 {
        self.routes.iter().position(|known| **known == *route).map_or(0, |index| 1 << index)
    }

    /// Returns where event `index` starts and ends in `payload`, its line break left out.
    pub fn span(&self, index: usize) -> (u32, u32) {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        (start, self.ends[index] - 1)
    }

    /// Returns an upper bound of the bytes it takes on disk, as its batch said before it was a frame.
    pub(super) fn disk_bytes(&self) -> u64 {
        let events = self.payload.len() + self.ends.len() * 12 + 2 * self.origin.json().len();
        events as u64 + extra_bytes(self.position.as_ref(), self.key.as_ref())
    }

    /// Returns its events and bytes per route.
    pub(super) fn tallies(&self) -> Box<[Tally]> {
        let mut tallies = vec![Tally::default(); self.routes.len()].into_boxed_slice();
        tally_below(self, self.end_seq(), &mut tallies);
        tallies
    }

    /// Returns roughly what the frame costs in memory.
    pub fn memory_bytes(&self) -> usize {
        memory_bytes(self.payload.len(), self.ends.len(), &self.masks)
    }
}
