//! The arena of events.

use std::sync::Arc;

use bytes::Bytes;

use super::{Arenas, Origin};
use crate::clock::UnixNanos;

/// Where a source stands in one of its inputs, opaque to the log: it keeps the last one for each `source` and gives it
/// back after a restart. It travels in the frame that holds the data, so neither is there without the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// Names the input within its pipeline, at most 512 bytes (a file's identity, for instance).
    pub source: Bytes,
    /// Where to go on, at most 512 bytes; `None` forgets the input.
    pub value: Option<Bytes>,
}

/// A client's promise that a repeat of this request carries the same key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// Who sent it; keys of two senders never meet. At most 256 bytes.
    pub sender: Bytes,
    /// The key, 1 to 256 bytes.
    pub key: Bytes,
    /// Hash of the body as it was sent: the same key with another body is refused.
    pub body_hash: u128,
}

/// Events of one origin that arrived together.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The events, each one line with its `\n`: a valid object of JSON from its `{` to its `}`, `{}` where it has no member.
    pub payload: Bytes,
    /// Where each event ends in `payload`, its `\n` included; ascending.
    pub ends: Vec<u32>,
    /// Who made them.
    pub origin: Arc<Origin>,
    /// When they were received; a label, it may go backwards.
    pub received: UnixNanos,
    /// Where the source stands once these are kept. A batch without events may carry one.
    pub position: Option<Position>,
    /// The client's idempotency key.
    pub key: Option<IdempotencyKey>,
}

impl Batch {
    /// Returns how many events there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Returns event `index` without its line break.
    ///
    /// # Panics
    /// When `index` is not below [`Batch::len`], as slices do.
    pub fn event(&self, index: usize) -> &[u8] {
        let start = if index == 0 { 0 } else { self.ends[index - 1] as usize };
        &self.payload[start..self.ends[index] as usize - 1]
    }

    /// Returns the events in order, without their line breaks.
    pub fn events(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        (0..self.len()).map(|index| self.event(index))
    }
}

/// Builds an arena line by line.
#[derive(Debug, Default)]
pub struct BatchBuilder {
    payload: Vec<u8>,
    ends: Vec<u32>,
    arenas: Option<Arenas>,
}

impl BatchBuilder {
    /// Returns an empty builder with room for `bytes`.
    pub fn with_capacity(bytes: usize) -> Self {
        Self { payload: Vec::with_capacity(bytes), ..Self::default() }
    }

    /// Returns an empty builder with room for `bytes`, whose memory comes from `arenas` and goes back there.
    pub fn in_arena(arenas: &Arenas, bytes: usize) -> Self {
        Self { payload: arenas.take(bytes), ends: Vec::new(), arenas: Some(arenas.clone()) }
    }

    /// Returns a builder that holds the first `events` of a batch, with room for as many bytes as all of it.
    pub fn with_first(batch: &Batch, events: usize) -> Self {
        let mut builder = Self::with_capacity(batch.payload.len());
        let ends = &batch.ends[..events];
        builder.payload.extend_from_slice(&batch.payload[..ends.last().map_or(0, |end| *end as usize)]);
        builder.ends.reserve(batch.len());
        builder.ends.extend_from_slice(ends);
        builder
    }

    /// Appends one event by letting `write` append its line, without the line break.
    pub fn push_with(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.payload);
        self.payload.push(b'\n');
        self.ends.push(self.payload.len() as u32);
    }

    /// Appends one event: a validated JSON object on one line, as [`Batch::payload`] says.
    pub fn push(&mut self, event: &[u8]) {
        self.push_with(|out| out.extend_from_slice(event));
    }

    /// Returns the bytes so far.
    pub fn bytes(&self) -> usize {
        self.payload.len()
    }

    /// Returns the events so far.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Returns whether there are no events yet.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Returns the batch, in memory of about its own size: what it was made of may have been far larger.
    pub fn build(mut self, origin: Arc<Origin>, received: UnixNanos) -> Batch {
        if self.ends.capacity() > 2 * self.ends.len() {
            self.ends.shrink_to_fit();
        }
        if self.arenas.is_none() && self.payload.capacity() > 2 * self.payload.len() {
            self.payload.shrink_to_fit();
        }
        let payload = match &self.arenas {
            Some(arenas) => arenas.seal(self.payload),
            None => self.payload.into(),
        };
        Batch { payload, ends: self.ends, origin, received, position: None, key: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_back_as_they_were_pushed() {
        let mut builder = BatchBuilder::default();
        builder.push(b"{}");
        builder.push(br#"{"a":1}"#);
        let batch = builder.build(Arc::default(), 0);
        assert_eq!(batch.events().collect::<Vec<_>>(), [b"{}".as_slice(), br#"{"a":1}"#]);
        assert_eq!(&batch.payload[..], b"{}\n{\"a\":1}\n");
    }

    #[test]
    fn little_of_a_large_batch_keeps_little_memory() {
        let mut builder = BatchBuilder::default();
        (0..1000).for_each(|_| builder.push(&[b' '; 1000]));
        let large = builder.build(Arc::default(), 0);
        let little = BatchBuilder::with_first(&large, 10).build(Arc::default(), 0);
        assert!(little.ends.capacity() <= 20, "{}", little.ends.capacity());
        // What of the bytes is kept can be had back where nobody shares them.
        let payload = Vec::from(little.payload.try_into_mut().unwrap());
        assert!(payload.capacity() <= 2 * payload.len(), "{}", payload.capacity());
    }
}
