//! What a backend is given to send.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::clock::{UnixNanos, write_rfc3339};
use crate::event::{EventId, Origin};
use crate::json;
use crate::settings::Metadata;

/// What a `_spillway` member holds besides origin and pipeline: names, an id of at most 33 bytes, a time of 30, the comma.
const TAIL_FIXED_BYTES_MAX: usize = 160;

/// Events that were appended together: they share origin, incarnation and time of receipt.
#[derive(Debug, Clone)]
struct Chunk {
    payload: Bytes,
    origin: Arc<Origin>,
    incarnation: u64,
    received: UnixNanos,
    /// (sequence, start, end without line break), ascending.
    events: Vec<(u64, u32, u32)>,
}

/// A batch on its way out. The events' bytes are shared with the log.
#[derive(Debug, Clone)]
pub struct OutBatch {
    namespace: Arc<str>,
    pipeline: Arc<str>,
    route: Arc<str>,
    key: Arc<str>,
    chunks: Vec<Chunk>,
    len: usize,
    payload_bytes: usize,
}

/// One event of an [`OutBatch`].
#[derive(Debug, Clone, Copy)]
pub struct OutEvent<'a> {
    /// Its name.
    pub id: EventId,
    /// The JSON object, on one line, without a line break.
    pub bytes: &'a [u8],
    /// Who made it.
    pub origin: &'a Arc<Origin>,
    /// When it was received.
    pub received: UnixNanos,
}

/// A run of events of an [`OutBatch`] that share origin and time of receipt.
#[derive(Debug, Clone, Copy)]
pub struct OutRun<'a> {
    batch: &'a OutBatch,
    chunk: &'a Chunk,
}

impl<'a> OutRun<'a> {
    /// Returns who made the events.
    pub fn origin(&self) -> &'a Arc<Origin> {
        &self.chunk.origin
    }

    /// Returns when the events were received.
    pub fn received(&self) -> UnixNanos {
        self.chunk.received
    }

    /// Returns how many events there are; never 0.
    pub fn event_count(&self) -> usize {
        self.chunk.events.len()
    }

    /// Appends the run as NDJSON, as [`OutBatch::write_ndjson`] does.
    pub fn write_ndjson(&self, out: &mut Vec<u8>, metadata: Metadata) {
        self.write_ndjson_of(0..self.event_count(), out, metadata);
    }

    /// Appends the events of the run that have these numbers in it, as [`OutRun::write_ndjson`] does.
    ///
    /// # Panics
    /// When the range is not within the run.
    pub fn write_ndjson_of(&self, events: Range<usize>, out: &mut Vec<u8>, metadata: Metadata) {
        self.batch.write_chunk((self.chunk, events), out, (metadata, b'\n'), &mut Vec::with_capacity(512));
    }
}

impl OutBatch {
    /// Returns the key of the batch: the same for every attempt of a planned batch, and for no other batch.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Returns the namespace of the pipeline.
    pub fn namespace(&self) -> &Arc<str> {
        &self.namespace
    }

    /// Returns the name of the pipeline.
    pub fn pipeline(&self) -> &Arc<str> {
        &self.pipeline
    }

    /// Returns the name of the route.
    pub fn route(&self) -> &Arc<str> {
        &self.route
    }

    /// Returns how many events there are; never 0.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns whether there are none: never, once built by the engine.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the bytes of the events, line breaks left out.
    pub fn payload_bytes(&self) -> usize {
        self.payload_bytes
    }

    /// Returns the time of receipt of the first event.
    pub fn received(&self) -> UnixNanos {
        self.chunks.first().map_or(0, |chunk| chunk.received)
    }

    /// Returns the events in the order of the log.
    pub fn events(&self) -> impl Iterator<Item = OutEvent<'_>> {
        self.chunks.iter().flat_map(|chunk| {
            chunk.events.iter().map(|&(seq, start, end)| OutEvent {
                id: EventId { incarnation: chunk.incarnation, seq },
                bytes: &chunk.payload[start as usize..end as usize],
                origin: &chunk.origin,
                received: chunk.received,
            })
        })
    }

    /// Returns the runs of events that share origin and time of receipt, in the order of the log; none is empty.
    pub fn runs(&self) -> impl ExactSizeIterator<Item = OutRun<'_>> {
        self.chunks.iter().map(|chunk| OutRun { batch: self, chunk })
    }

    /// Returns the most bytes [`OutBatch::write_ndjson`] can append, to make room for once.
    pub fn ndjson_bytes_max(&self, metadata: Metadata) -> usize {
        if metadata == Metadata::None {
            return self.payload_bytes + self.len;
        }
        let tail = |chunk: &Chunk| chunk.origin.json().len() + 6 * self.pipeline.len() + TAIL_FIXED_BYTES_MAX;
        let members: usize = self.chunks.iter().map(|chunk| chunk.events.len() * tail(chunk)).sum();
        self.payload_bytes + members
    }

    /// Appends the batch as NDJSON: each event, with the member `_spillway` added as `metadata` says, and a line break.
    pub fn write_ndjson(&self, out: &mut Vec<u8>, metadata: Metadata) {
        self.write_ending(out, metadata, b'\n');
    }

    /// Appends the batch as one JSON array of the events, with the member `_spillway` added as `metadata` says.
    pub fn write_json_array(&self, out: &mut Vec<u8>, metadata: Metadata) {
        out.reserve(self.ndjson_bytes_max(metadata) + 2);
        out.push(b'[');
        self.write_ending(out, metadata, b',');
        match out.last_mut() {
            Some(last) if *last == b',' => *last = b']',
            _ => out.push(b']'),
        }
    }

    fn write_ending(&self, out: &mut Vec<u8>, metadata: Metadata, end: u8) {
        out.reserve(self.ndjson_bytes_max(metadata));
        let mut tail = Vec::with_capacity(512);
        for chunk in &self.chunks {
            self.write_chunk((chunk, 0..chunk.events.len()), out, (metadata, end), &mut tail);
        }
    }

    /// Appends some events of a chunk, each with `end` behind it.
    fn write_chunk(
        &self,
        (chunk, numbers): (&Chunk, Range<usize>),
        out: &mut Vec<u8>,
        (metadata, end): (Metadata, u8),
        tail: &mut Vec<u8>,
    ) {
        let (payload, events) = (&chunk.payload, &chunk.events[numbers]);
        if metadata == Metadata::None {
            for &(_, start, stop) in events {
                out.extend_from_slice(&payload[start as usize..stop as usize]);
                out.push(end);
            }
            return;
        }
        self.write_member_tail(tail, chunk, end);
        for &(seq, start, end) in events {
            json::begin_extra_member(out, &payload[start as usize..end as usize]);
            out.extend_from_slice(b"\"_spillway\":{\"id\":\"");
            EventId { incarnation: chunk.incarnation, seq }.write(out);
            out.extend_from_slice(tail);
        }
    }

    /// What follows the id in every event of a chunk: rendered once.
    fn write_member_tail(&self, tail: &mut Vec<u8>, chunk: &Chunk, end: u8) {
        tail.clear();
        tail.extend_from_slice(b"\",\"origin\":");
        tail.extend_from_slice(chunk.origin.json());
        tail.extend_from_slice(b",\"pipeline\":");
        json::write_string(tail, &self.pipeline);
        tail.extend_from_slice(b",\"received\":\"");
        write_rfc3339(tail, chunk.received);
        tail.extend_from_slice(b"\"}}");
        tail.push(end);
    }
}

/// Builds an [`OutBatch`]: the engine from the log, tests from anything.
#[derive(Debug)]
pub struct OutBatchBuilder {
    batch: OutBatch,
}

impl OutBatchBuilder {
    /// Returns a builder for a batch of this route.
    pub fn new(namespace: &Arc<str>, pipeline: &Arc<str>, route: &Arc<str>) -> Self {
        Self {
            batch: OutBatch {
                namespace: namespace.clone(),
                pipeline: pipeline.clone(),
                route: route.clone(),
                key: "".into(),
                chunks: Vec::new(),
                len: 0,
                payload_bytes: 0,
            },
        }
    }

    /// Begins events that share what they share.
    pub fn begin_chunk(&mut self, payload: Bytes, origin: Arc<Origin>, incarnation: u64, received: UnixNanos) {
        self.batch.chunks.push(Chunk { payload, origin, incarnation, received, events: Vec::new() });
    }

    /// Appends an event of the chunk begun last: its sequence and where its bytes are, the line break left out.
    pub fn push(&mut self, seq: u64, start: u32, end: u32) {
        if let Some(chunk) = self.batch.chunks.last_mut() {
            chunk.events.push((seq, start, end));
            self.batch.len += 1;
            self.batch.payload_bytes += (end - start) as usize;
        }
    }

    /// Returns how many events there are so far.
    pub fn len(&self) -> usize {
        self.batch.len
    }

    /// Returns whether there are none so far.
    pub fn is_empty(&self) -> bool {
        self.batch.len == 0
    }

    /// Returns the payload bytes so far.
    pub fn payload_bytes(&self) -> usize {
        self.batch.payload_bytes
    }

    /// Returns the batch under `key`.
    pub fn build(mut self, key: impl Into<Arc<str>>) -> OutBatch {
        self.batch.chunks.retain(|chunk| !chunk.events.is_empty());
        self.batch.key = key.into();
        self.batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch() -> OutBatch {
        let name: Arc<str> = "p".into();
        let mut builder = OutBatchBuilder::new(&"ns".into(), &name, &"r".into());
        builder.begin_chunk(Bytes::from_static(b"{}\n{\"a\":1 }\n"), Arc::default(), 1, 0);
        builder.push(7, 0, 2);
        builder.push(9, 3, 11);
        builder.build("k")
    }

    #[test]
    fn the_member_is_added_behind_the_last_one() {
        let mut out = Vec::new();
        batch().write_ndjson(&mut out, Metadata::Full);
        let lines: Vec<serde_json::Value> =
            out.split(|&b| b == b'\n').filter(|l| !l.is_empty()).map(|l| serde_json::from_slice(l).unwrap()).collect();
        assert_eq!(lines[0]["_spillway"]["id"], "0000000000000001-7");
        assert_eq!(lines[1]["a"], 1);
        assert_eq!(lines[1]["_spillway"]["received"], "1970-01-01T00:00:00.000000000Z");
        assert_eq!(lines[1]["_spillway"]["pipeline"], "p");
        assert!(out.len() <= batch().ndjson_bytes_max(Metadata::Full));
    }

    #[test]
    fn an_array_holds_the_same_objects() {
        for metadata in [Metadata::Full, Metadata::None] {
            let (mut lines, mut array) = (Vec::new(), Vec::new());
            batch().write_ndjson(&mut lines, metadata);
            batch().write_json_array(&mut array, metadata);
            let joined = String::from_utf8(lines).unwrap().trim_end().replace('\n', ",");
            assert_eq!(String::from_utf8(array).unwrap(), format!("[{joined}]"));
        }
    }

    #[test]
    fn without_metadata_the_event_is_the_event() {
        let mut out = Vec::new();
        batch().write_ndjson(&mut out, Metadata::None);
        assert_eq!(out, b"{}\n{\"a\":1 }\n");
        assert_eq!(out.len(), batch().ndjson_bytes_max(Metadata::None));
    }
}
