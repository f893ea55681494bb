//! What a backend is given to send.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::clock::{UnixNanos, write_rfc3339};
use crate::event::{Arenas, EventId, Origin};
use crate::json;
use crate::settings::Metadata;

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

/// A batch on its way out. The events' bytes are shared with the log; a clone shares everything.
#[derive(Debug, Clone)]
pub struct OutBatch {
    namespace: Arc<str>,
    pipeline: Arc<str>,
    route: Arc<str>,
    key: Arc<str>,
    chunks: Arc<[Chunk]>,
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

/// What an event of a run carries besides itself: rendered once for the run.
#[derive(Debug)]
pub struct EventTail(Option<Member>);

impl OutEvent<'_> {
    /// Appends the event as one line of NDJSON, with the members `extra` (as in an object, none when empty) and those of
    /// its run's `tail`.
    pub fn write_line(&self, out: &mut Vec<u8>, tail: &EventTail, extra: &[u8]) {
        if tail.0.is_none() && extra.is_empty() {
            out.extend_from_slice(self.bytes);
            return out.push(b'\n');
        }
        json::begin_extra_member(out, self.bytes);
        out.extend_from_slice(extra);
        let Some(member) = &tail.0 else {
            return out.extend_from_slice(b"}\n");
        };
        if !extra.is_empty() {
            out.push(b',');
        }
        out.extend_from_slice(&member.head);
        EventId::write_seq(self.id.seq, out);
        out.extend_from_slice(&member.tail);
        out.push(b'\n');
    }
}

impl Chunk {
    fn out_events(&self) -> impl Iterator<Item = OutEvent<'_>> {
        self.events.iter().map(|&(seq, start, end)| OutEvent {
            id: EventId { incarnation: self.incarnation, seq },
            bytes: &self.payload[start as usize..end as usize],
            origin: &self.origin,
            received: self.received,
        })
    }
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

    /// Returns the events, in the order of the log.
    pub fn events(&self) -> impl Iterator<Item = OutEvent<'a>> + use<'a> {
        self.chunk.out_events()
    }

    /// Returns what each event carries when it is written with `metadata`.
    pub fn tail(&self, metadata: Metadata) -> EventTail {
        EventTail((metadata == Metadata::Full).then(|| Member::new(self.chunk, &self.batch.pipeline)))
    }

    /// Appends the events that have these numbers in the run as NDJSON, until `out` holds `bytes_max` or more, and returns
    /// which one comes next: a buffer that is emptied between the calls stays in the processor's cache.
    pub fn write_ndjson(
        &self,
        numbers: Range<usize>,
        bytes_max: usize,
        out: &mut Vec<u8>,
        metadata: Metadata,
    ) -> usize {
        self.batch.lines(self.chunk, metadata, b'\n').write(numbers, bytes_max, out)
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
        self.chunks.iter().flat_map(Chunk::out_events)
    }

    /// Returns the runs of events that share origin and time of receipt, in the order of the log; none is empty.
    pub fn runs(&self) -> impl ExactSizeIterator<Item = OutRun<'_>> {
        self.chunks.iter().map(|chunk| OutRun { batch: self, chunk })
    }

    /// Returns the events that `kept` says, one answer per event, under another key. They are copied: what the others lie
    /// in may go.
    pub(crate) fn part(&self, kept: &[bool], key: impl Into<Arc<str>>) -> Self {
        let lengths = self.events().zip(kept).filter(|(_, kept)| **kept).map(|(event, _)| event.bytes.len());
        let mut payload = Vec::with_capacity(lengths.sum());
        let mut kept = kept.iter().copied();
        let mut builder = OutBatchBuilder::new(&self.namespace, &self.pipeline, &self.route);
        for chunk in self.chunks.iter() {
            let Chunk { origin, incarnation, received, .. } = chunk;
            builder.begin_chunk(Bytes::new(), origin.clone(), *incarnation, *received);
            for &(seq, start, end) in
                chunk.events.iter().zip(&mut kept).filter(|(_, kept)| *kept).map(|(event, _)| event)
            {
                let at = payload.len() as u32;
                payload.extend_from_slice(&chunk.payload[start as usize..end as usize]);
                builder.push(seq, at, payload.len() as u32);
            }
        }
        let payload = Bytes::from(payload);
        builder.chunks.iter_mut().for_each(|chunk| chunk.payload = payload.clone());
        builder.build(key)
    }

    /// Returns the bytes of the batch in a form.
    pub fn encoded_bytes(&self, form: Form, metadata: Metadata) -> usize {
        let lines: usize = self.chunks.iter().map(|chunk| self.lines(chunk, metadata, b'\n').bytes()).sum();
        lines + usize::from(form == Form::Array)
    }

    /// Appends the batch as NDJSON: each event, with the member `_spillway` added as `metadata` says, and a line break.
    pub fn write_ndjson(&self, out: &mut Vec<u8>, metadata: Metadata) {
        out.reserve(self.encoded_bytes(Form::Lines, metadata));
        self.pieces(Form::Lines, usize::MAX, metadata, &Arenas::default()).write(out);
    }

    /// Appends the batch as one JSON array of the events, with the member `_spillway` added as `metadata` says.
    pub fn write_json_array(&self, out: &mut Vec<u8>, metadata: Metadata) {
        out.reserve(self.encoded_bytes(Form::Array, metadata));
        self.pieces(Form::Array, usize::MAX, metadata, &Arenas::default()).write(out);
    }

    /// Returns the bytes of the batch in a form, in pieces of about `piece_bytes`, each made when it is asked for, in memory of
    /// `arenas`: what is written then is still in the processor's cache when it is sent.
    pub fn pieces(&self, form: Form, piece_bytes: usize, metadata: Metadata, arenas: &Arenas) -> Pieces {
        Pieces { batch: self.clone(), form, metadata, piece_bytes, chunk: 0, event: 0, arenas: arenas.clone() }
    }

    fn lines<'a>(&self, chunk: &'a Chunk, metadata: Metadata, end: u8) -> Lines<'a> {
        Lines { chunk, member: (metadata == Metadata::Full).then(|| Member::new(chunk, &self.pipeline)), end }
    }
}

/// How a batch is written whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Each event on its line.
    Lines,
    /// One JSON array of the events.
    Array,
}

/// The iterator of [`OutBatch::pieces`].
#[derive(Debug, Clone)]
pub struct Pieces {
    batch: OutBatch,
    form: Form,
    metadata: Metadata,
    piece_bytes: usize,
    chunk: usize,
    event: usize,
    arenas: Arenas,
}

impl Pieces {
    /// Appends the next piece to `out`, which is empty but for the first.
    fn write(&mut self, out: &mut Vec<u8>) {
        let end = match self.form {
            Form::Lines => b'\n',
            Form::Array => b',',
        };
        let mut bytes_max = self.piece_bytes.max(1);
        if self.form == Form::Array && (self.chunk, self.event) == (0, 0) {
            out.push(b'[');
            // A piece has an event, however small it shall be.
            bytes_max = bytes_max.max(2);
        }
        while let Some(chunk) = self.batch.chunks.get(self.chunk).filter(|_| out.len() < bytes_max) {
            self.event =
                self.batch.lines(chunk, self.metadata, end).write(self.event..chunk.events.len(), bytes_max, out);
            if self.event == chunk.events.len() {
                (self.chunk, self.event) = (self.chunk + 1, 0);
            }
            if self.form == Form::Array && self.chunk == self.batch.chunks.len() {
                // The comma behind the last one.
                out.pop();
                out.push(b']');
            }
        }
    }
}

impl Iterator for Pieces {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.chunk == self.batch.chunks.len() {
            return None;
        }
        // One event may follow where the piece is nearly full; most fit into an eighth more.
        let mut out = self.arenas.take(self.piece_bytes + self.piece_bytes / 8);
        self.write(&mut out);
        Some(self.arenas.seal(out))
    }
}

/// The member `_spillway` of a chunk's events, around the sequence: rendered once.
#[derive(Debug)]
struct Member {
    head: Vec<u8>,
    tail: Vec<u8>,
}

impl Member {
    fn new(chunk: &Chunk, pipeline: &str) -> Self {
        let mut head = b"\"_spillway\":{\"id\":\"".to_vec();
        EventId { incarnation: chunk.incarnation, seq: 0 }.write_incarnation(&mut head);
        let mut tail = Vec::with_capacity(chunk.origin.json().len() + 128);
        tail.extend_from_slice(b"\",\"origin\":");
        tail.extend_from_slice(chunk.origin.json());
        tail.extend_from_slice(b",\"pipeline\":");
        json::write_string(&mut tail, pipeline);
        tail.extend_from_slice(b",\"received\":\"");
        write_rfc3339(&mut tail, chunk.received);
        tail.extend_from_slice(b"\"}}");
        Self { head, tail }
    }
}

/// The events of a chunk as they are written.
struct Lines<'a> {
    chunk: &'a Chunk,
    member: Option<Member>,
    /// What stands behind each.
    end: u8,
}

impl Lines<'_> {
    /// Appends events until `out` holds `bytes_max` or more; returns which one comes next.
    fn write(&self, numbers: Range<usize>, bytes_max: usize, out: &mut Vec<u8>) -> usize {
        let Self { chunk, member, end: behind } = self;
        let mut next = numbers.start;
        for &(seq, start, end) in chunk.events.get(numbers).unwrap_or_default() {
            if out.len() >= bytes_max {
                break;
            }
            next += 1;
            let event = &chunk.payload[start as usize..end as usize];
            match member {
                None => out.extend_from_slice(event),
                Some(member) => {
                    json::begin_extra_member(out, event);
                    out.extend_from_slice(&member.head);
                    EventId::write_seq(seq, out);
                    out.extend_from_slice(&member.tail);
                }
            }
            out.push(*behind);
        }
        next
    }

    /// Returns the bytes of all of them.
    fn bytes(&self) -> usize {
        let Self { chunk, member, .. } = self;
        let of_event = |&(seq, start, end): &(u64, u32, u32)| match member {
            None => (end - start) as usize,
            Some(member) => {
                let event = json::extra_member_bytes((end - start) as usize);
                event + member.head.len() + EventId::seq_digits(seq) + member.tail.len()
            }
        };
        chunk.events.len() + chunk.events.iter().map(of_event).sum::<usize>()
    }
}

/// Builds an [`OutBatch`]: the engine from the log, tests from anything.
#[derive(Debug)]
pub struct OutBatchBuilder {
    namespace: Arc<str>,
    pipeline: Arc<str>,
    route: Arc<str>,
    chunks: Vec<Chunk>,
    len: usize,
    payload_bytes: usize,
}

impl OutBatchBuilder {
    /// Returns a builder for a batch of this route.
    pub fn new(namespace: &Arc<str>, pipeline: &Arc<str>, route: &Arc<str>) -> Self {
        Self {
            namespace: namespace.clone(),
            pipeline: pipeline.clone(),
            route: route.clone(),
            chunks: Vec::new(),
            len: 0,
            payload_bytes: 0,
        }
    }

    /// Begins events that share what they share.
    pub fn begin_chunk(&mut self, payload: Bytes, origin: Arc<Origin>, incarnation: u64, received: UnixNanos) {
        self.chunks.push(Chunk { payload, origin, incarnation, received, events: Vec::new() });
    }

    /// Appends an event of the chunk begun last: its sequence and where its bytes are, the line break left out.
    pub fn push(&mut self, seq: u64, start: u32, end: u32) {
        if let Some(chunk) = self.chunks.last_mut() {
            chunk.events.push((seq, start, end));
            self.len += 1;
            self.payload_bytes += (end - start) as usize;
        }
    }

    /// Returns how many chunks were begun so far.
    pub(crate) fn chunk_count(&self) -> usize {
        self.chunks.len()
    }

    /// Gives the events of the chunks from number `from` on bytes of their own, where they are less than half of the
    /// `held_bytes` that what they stand in keeps in memory.
    pub(crate) fn unpin(&mut self, from: usize, held_bytes: usize) {
        let chunks = self.chunks.get_mut(from..).unwrap_or_default();
        let lengths = chunks.iter().flat_map(|chunk| &chunk.events).map(|(_, start, end)| (end - start) as usize);
        let own_bytes: usize = lengths.sum();
        if own_bytes >= held_bytes.div_ceil(2) {
            return;
        }
        let mut payload = Vec::with_capacity(own_bytes);
        let mut spans = Vec::with_capacity(chunks.len());
        for chunk in chunks.iter_mut() {
            let from = payload.len();
            for (_, start, end) in &mut chunk.events {
                let at = (payload.len() - from) as u32;
                payload.extend_from_slice(&chunk.payload[*start as usize..*end as usize]);
                (*start, *end) = (at, (payload.len() - from) as u32);
            }
            spans.push(from..payload.len());
        }
        let payload = Bytes::from(payload);
        for (chunk, span) in chunks.iter_mut().zip(spans) {
            chunk.payload = payload.slice(span);
        }
    }

    /// Returns how many events there are so far.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns whether there are none so far.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the payload bytes so far.
    pub fn payload_bytes(&self) -> usize {
        self.payload_bytes
    }

    /// Returns the batch under `key`.
    pub fn build(self, key: impl Into<Arc<str>>) -> OutBatch {
        let Self { namespace, pipeline, route, mut chunks, len, payload_bytes } = self;
        chunks.retain(|chunk| !chunk.events.is_empty());
        OutBatch { namespace, pipeline, route, key: key.into(), chunks: chunks.into(), len, payload_bytes }
    }
}

#[cfg(test)]
mod tests;
