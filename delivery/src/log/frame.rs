//! A frame: events that were appended together, as readers see them.

use std::sync::Arc;

use bytes::Bytes;

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

/// A batch on its way into the log: masks decided, events that no route wants taken out and counted.
#[derive(Debug, Clone)]
pub struct Pending {
    /// The events that some route wants.
    pub batch: Batch,
    /// Their masks; none is 0.
    pub masks: Masks,
    /// Events of the request that no route wanted.
    pub unrouted: u32,
}

impl Pending {
    /// Returns an upper bound of the bytes the frame takes on disk, its origin and the share of a footer included.
    pub fn disk_bytes(&self) -> u64 {
        let batch = &self.batch;
        let position = batch
            .position
            .as_ref()
            .map_or(0, |position| position.source.len() + position.value.as_ref().map_or(0, Bytes::len) + 16);
        let key = batch.key.as_ref().map_or(0, |key| key.sender.len() + key.key.len() + 32);
        (batch.payload.len() + batch.len() * 12 + 2 * batch.origin.json().len() + 2 * position + 2 * key + 512) as u64
    }
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
    /// The source's position behind these events.
    pub position: Option<Position>,
    /// The client's key.
    pub key: Option<IdempotencyKey>,
}

impl Frame {
    /// Returns the frame as a batch that is to be written again.
    pub(super) fn again(&self) -> Pending {
        let batch = Batch {
            payload: self.payload.clone(),
            ends: self.ends.clone(),
            origin: self.origin.clone(),
            received: self.received,
            position: self.position.clone(),
            key: self.key.clone(),
        };
        Pending { batch, masks: self.masks.clone(), unrouted: self.unrouted }
    }

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

    /// Returns roughly what the frame costs in memory.
    pub fn memory_bytes(&self) -> usize {
        self.payload.len() + self.ends.len() * 4 + 256
    }
}
