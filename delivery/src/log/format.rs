//! Bytes to structures and back, pure. The layout stands in the header of [`super`].

use std::sync::Arc;

use bytes::Bytes;

use super::codec::{Get, Put};
use super::frame::{Frame, Masks};
use super::segment::{IndexEntry, Summary};
use super::state::{State, Tally};
use crate::clock::UnixNanos;
use crate::event::{BATCH_BYTES_MAX, BATCH_EVENTS_MAX, IdempotencyKey, Origin, Position};

pub(super) const SEGMENT_MAGIC: &[u8; 8] = b"SPWYLOG2";
/// What the magic of every version begins with; a digit follows. Length and checksum of the header stand behind it in all;
/// from version 3 on the checksum covers the magic as well, so that a damaged digit makes no later format.
const FAMILY_MAGIC: &[u8] = b"SPWYLOG";
pub(super) const END_MAGIC: &[u8; 8] = b"SPWYEND1";
pub(super) const FRAME_MAGIC: &[u8; 4] = b"SPF1";

/// Magic, length and checksum before a segment's header body.
pub(super) const PREAMBLE_BYTES: usize = 16;
/// A frame's fixed part.
pub(super) const FRAME_HEADER_BYTES: usize = 60;
/// Length and magic behind a footer.
pub(super) const TRAILER_BYTES: usize = 12;
/// Most bytes of anything that a length field may claim; what claims more is damage. Holds the largest frame (16 MiB of
/// payload, 12 bytes of masks and ends per event) and the largest header (65,536 positions and keys of 1 KiB).
pub(super) const BODY_BYTES_MAX: usize = 192 << 20;

const KIND_DATA: u8 = 1;
const KIND_ORIGIN: u8 = 2;
const KIND_FOOTER: u8 = 3;
const FLAG_POSITION: u8 = 1;
const FLAG_KEY: u8 = 2;
const FLAG_DROPPED: u8 = 4;
const NO_ORIGIN: u32 = u32::MAX;
/// Most origins of a segment: each has a frame, and a segment has at most 16 MiB and a frame more.
const ORIGINS_MAX: u32 = 1 << 20;

/// What a segment says of itself at its start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) incarnation: u64,
    pub(super) ordinal: u64,
    /// First sequence it may hold; it hides everything older segments hold from here on.
    pub(super) base_seq: u64,
    pub(super) running_ms: u64,
    pub(super) created: UnixNanos,
    /// Length the file had when it began: what stands below may be left of the segment it was before.
    pub(super) stale_end: u64,
    pub(super) routes: Arc<[Arc<str>]>,
    pub(super) state: State,
    /// Behind the last event that was written before: what lies from there to the base never was in a file.
    pub(super) follows_seq: u64,
    /// Whether the log may hold events in memory alone.
    pub(super) in_memory: bool,
}

impl SegmentHeader {
    /// Returns what the checksums of this segment's frames begin with, so that what another segment left in the file is no
    /// frame here.
    pub(super) fn seed(&self) -> u32 {
        let mut name = [0; 16];
        name[..8].copy_from_slice(&self.incarnation.to_le_bytes());
        name[8..].copy_from_slice(&self.ordinal.to_le_bytes());
        crc32c::crc32c(&name)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        body.put_u64(self.incarnation);
        body.put_u64(self.ordinal);
        body.put_u64(self.base_seq);
        body.put_u64(self.running_ms);
        body.put_u64(self.created as u64);
        body.put_u64(self.stale_end);
        body.put_u16(self.routes.len() as u16);
        for route in &*self.routes {
            body.put_bytes(route.as_bytes());
        }
        self.state.write(&mut body);
        body.put_u64(self.follows_seq);
        body.push(u8::from(self.in_memory));
        body.put_u64(self.state.totals.dropped);
        let mut out = Vec::with_capacity(body.len() + PREAMBLE_BYTES);
        out.extend_from_slice(SEGMENT_MAGIC);
        out.put_u32(body.len() as u32);
        out.put_u32(crc32c::crc32c(&body));
        out.extend_from_slice(&body);
        out
    }

    /// Returns the length of the body that a preamble announces, whatever the version.
    pub(super) fn body_len(preamble: &[u8]) -> Option<usize> {
        let mut get = Get(preamble);
        get.take(8)?.starts_with(FAMILY_MAGIC).then_some(())?;
        get.u32().map(|len| len as usize).filter(|len| *len <= BODY_BYTES_MAX)
    }

    /// Returns the magic, the checksum and the body.
    fn parts(bytes: &[u8]) -> Option<(&[u8], u32, &[u8])> {
        let len = Self::body_len(bytes)?;
        let mut get = Get(bytes);
        let magic = get.take(SEGMENT_MAGIC.len())?;
        let mut get = Get(bytes.get(12..)?);
        Some((magic, get.u32()?, get.take(len)?))
    }

    /// Returns the version's digit of a whole header that a program of a later format wrote.
    pub(super) fn later_version(bytes: &[u8]) -> Option<char> {
        let (magic, crc, body) = Self::parts(bytes)?;
        let version = magic.last().filter(|version| SEGMENT_MAGIC.last() < Some(version))?;
        (crc32c::crc32c_append(crc32c::crc32c(magic), body) == crc).then_some((*version).into())
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (_, _, body) =
            Self::parts(bytes).filter(|(magic, crc, body)| magic == SEGMENT_MAGIC && crc32c::crc32c(body) == *crc)?;
        let mut get = Get(body);
        let (incarnation, ordinal, base_seq) = (get.u64()?, get.u64()?, get.u64()?);
        Some(Self {
            incarnation,
            ordinal,
            base_seq,
            running_ms: get.u64()?,
            created: get.i64()?,
            stale_end: get.u64()?,
            routes: {
                let count = get.u16()?;
                (0..count).map(|_| get.text().map(Arc::from)).collect::<Option<Vec<Arc<str>>>>()?.into()
            },
            state: State::read(&mut get)?,
            follows_seq: get.u64()?,
            in_memory: get.u8()? == 1,
        })
        .map(|header| header.with_dropped(get.u64()))
    }

    /// Takes the total that an earlier program of this version did not write.
    fn with_dropped(mut self, dropped: Option<u64>) -> Self {
        self.state.totals.dropped = dropped.unwrap_or(0);
        self
    }
}

/// The fixed part of a frame.
#[derive(Debug, Clone, Copy)]
pub(super) struct FrameHeader {
    pub(super) body_len: usize,
    crc: u32,
    events: u32,
    pub(super) first_seq: u64,
    received: UnixNanos,
    running_ms: u64,
    origin: u32,
    unrouted: u32,
    kind: u8,
    mask_form: u8,
    codec: u8,
    flags: u8,
    /// Up to this offset of the segment, everything had been synced when the frame was written.
    pub(super) synced: u32,
    meta_len: usize,
}

impl FrameHeader {
    /// Reads a header that can be one; whether it is, the checksum says.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut get = Get(bytes);
        (get.take(4)? == FRAME_MAGIC).then_some(())?;
        let header = Self {
            body_len: get.u32()? as usize,
            crc: get.u32()?,
            events: get.u32()?,
            first_seq: get.u64()?,
            received: get.i64()?,
            running_ms: get.u64()?,
            origin: get.u32()?,
            unrouted: get.u32()?,
            kind: get.u8()?,
            mask_form: get.u8()?,
            codec: get.u8()?,
            flags: get.u8()?,
            synced: get.u32()?,
            meta_len: get.u32()? as usize,
        };
        (header.body_len <= BODY_BYTES_MAX && header.meta_len <= header.body_len).then_some(header)
    }

    /// Returns the bytes of the whole frame.
    pub(super) fn frame_len(&self) -> usize {
        FRAME_HEADER_BYTES + self.body_len
    }

    pub(super) fn is_footer(&self) -> bool {
        self.kind == KIND_FOOTER
    }
}

/// A frame, decoded. Its origin is still a number of its segment.
#[derive(Debug)]
pub(super) enum Decoded {
    Data {
        frame: Box<Frame>,
        origin: Option<u32>,
    },
    /// Its number, and what it says.
    Origin(u32, Arc<Origin>),
    Footer(Box<Footer>),
}

/// What a sealed segment says of itself at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Footer {
    pub(super) summary: Summary,
    pub(super) origins: Vec<Bytes>,
    pub(super) running_ms: u64,
    pub(super) state: State,
}

/// Encodes a frame's header and meta; the payload follows as it is.
pub(super) fn encode_data(out: &mut Vec<u8>, frame: &Frame, origin: u32, place: Place) {
    let start = out.len();
    out.resize(start + FRAME_HEADER_BYTES, 0);
    let mask_form = encode_masks(out, &frame.masks);
    for end in &frame.ends {
        out.put_u32(*end);
    }
    let mut flags = 0;
    if let Some(position) = &frame.position {
        flags |= FLAG_POSITION;
        out.put_bytes(&position.source);
        out.push(u8::from(position.value.is_some()));
        out.put_bytes(position.value.as_deref().unwrap_or_default());
    }
    if let Some(key) = &frame.key {
        flags |= FLAG_KEY;
        out.put_bytes(&key.sender);
        out.put_bytes(&key.key);
        out.extend_from_slice(&key.body_hash.to_le_bytes());
    }
    if frame.dropped > 0 {
        flags |= FLAG_DROPPED;
        out.put_u32(frame.dropped);
    }
    let tags = Tags { kind: KIND_DATA, mask_form, flags };
    let counts = Counts { events: frame.len() as u32, unrouted: frame.unrouted, received: frame.received };
    let fixed = Fixed { first_seq: frame.first_seq, running_ms: frame.running_ms, origin: Some(origin), place };
    finish_header(out, start, &frame.payload, (fixed, tags, counts));
}

/// Where a frame is written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// Up to this offset of the segment, everything has been synced.
    pub(super) synced: u32,
    /// See [`SegmentHeader::seed`].
    pub(super) seed: u32,
}

struct Fixed {
    first_seq: u64,
    running_ms: u64,
    origin: Option<u32>,
    place: Place,
}

struct Tags {
    kind: u8,
    mask_form: u8,
    flags: u8,
}

struct Counts {
    events: u32,
    unrouted: u32,
    received: UnixNanos,
}

fn finish_header(out: &mut [u8], start: usize, payload: &[u8], (fixed, tags, counts): (Fixed, Tags, Counts)) {
    let meta_len = out.len() - start - FRAME_HEADER_BYTES;
    let mut header = Vec::with_capacity(FRAME_HEADER_BYTES);
    header.extend_from_slice(FRAME_MAGIC);
    header.put_u32((meta_len + payload.len()) as u32);
    header.put_u32(0);
    header.put_u32(counts.events);
    header.put_u64(fixed.first_seq);
    header.put_u64(counts.received as u64);
    header.put_u64(fixed.running_ms);
    header.put_u32(fixed.origin.unwrap_or(NO_ORIGIN));
    header.put_u32(counts.unrouted);
    header.extend_from_slice(&[tags.kind, tags.mask_form, 0, tags.flags]);
    header.put_u32(fixed.place.synced);
    header.put_u32(meta_len as u32);
    out[start..start + FRAME_HEADER_BYTES].copy_from_slice(&header);
    let crc = crc32c::crc32c_append(crc32c::crc32c_append(fixed.place.seed, &out[start + 12..]), payload);
    out[start + 8..start + 12].copy_from_slice(&crc.to_le_bytes());
}

fn encode_masks(out: &mut Vec<u8>, masks: &Masks) -> u8 {
    match masks {
        Masks::Uniform(mask) => {
            out.put_u64(*mask);
            0
        }
        Masks::Each(masks) if masks.iter().all(|mask| *mask < 256) => {
            out.extend(masks.iter().map(|mask| *mask as u8));
            1
        }
        Masks::Each(masks) => {
            masks.iter().for_each(|mask| out.put_u64(*mask));
            2
        }
    }
}

/// Encodes an origin frame whole.
pub(super) fn encode_origin(out: &mut Vec<u8>, number: u32, origin: &Origin, place: Place) {
    encode_blob(out, (KIND_ORIGIN, Some(number)), origin.json(), place);
}

fn encode_blob(out: &mut Vec<u8>, (kind, origin): (u8, Option<u32>), payload: &[u8], place: Place) {
    let start = out.len();
    out.resize(start + FRAME_HEADER_BYTES, 0);
    let fixed = Fixed { first_seq: 0, running_ms: 0, origin, place };
    let tags = Tags { kind, mask_form: 0, flags: 0 };
    finish_header(out, start, payload, (fixed, tags, Counts { events: 0, unrouted: 0, received: 0 }));
    out.extend_from_slice(payload);
}

impl Footer {
    /// Returns the origins in the order of their numbers.
    pub(super) fn known_origins(&self) -> Vec<Arc<Origin>> {
        self.origins.iter().map(|json| Origin::from_json(json).unwrap_or_default()).collect()
    }

    /// Encodes the footer frame and the trailer behind it.
    pub(super) fn encode(&self, place: Place) -> Vec<u8> {
        let mut body = Vec::new();
        let summary = &self.summary;
        body.put_u64(summary.end_seq);
        body.put_u64(summary.oldest as u64);
        body.put_u64(self.running_ms);
        put_tallies(&mut body, &summary.tallies);
        body.put_u32(summary.index.len() as u32);
        for entry in &summary.index {
            body.put_u64(entry.seq);
            body.put_u32(entry.offset);
            body.put_u64(entry.received as u64);
            put_tallies(&mut body, &entry.before);
        }
        body.put_u32(self.origins.len() as u32);
        self.origins.iter().for_each(|origin| body.put_bytes(origin));
        self.state.write(&mut body);
        body.put_u64(self.state.totals.dropped);
        let mut out = Vec::with_capacity(body.len() + FRAME_HEADER_BYTES + TRAILER_BYTES);
        encode_blob(&mut out, (KIND_FOOTER, None), &body, place);
        let len = out.len() as u32;
        out.put_u32(len);
        out.extend_from_slice(END_MAGIC);
        out
    }

    fn decode(payload: &[u8]) -> Option<Self> {
        let mut get = Get(payload);
        let (end_seq, oldest, running_ms) = (get.u64()?, get.i64()?, get.u64()?);
        let tallies = get_tallies(&mut get)?;
        let count = get.count(24)?;
        let mut index = Vec::with_capacity(count);
        for _ in 0..count {
            index.push(IndexEntry {
                seq: get.u64()?,
                offset: get.u32()?,
                received: get.i64()?,
                before: get_tallies(&mut get)?.into(),
            });
        }
        let count = get.count(4)?;
        let origins = (0..count).map(|_| get.bytes().map(Bytes::copy_from_slice)).collect::<Option<Vec<_>>>()?;
        let mut state = State::read(&mut get)?;
        state.totals.dropped = get.u64().unwrap_or(0);
        Some(Self { summary: Summary { end_seq, oldest, tallies, index }, origins, running_ms, state })
    }
}

fn put_tallies(out: &mut Vec<u8>, tallies: &[Tally]) {
    out.put_u16(tallies.len() as u16);
    for tally in tallies {
        out.put_u32(tally.events as u32);
        out.put_u64(tally.bytes);
    }
}

fn get_tallies(get: &mut Get<'_>) -> Option<Box<[Tally]>> {
    let count = get.u16()?;
    (0..count).map(|_| Some(Tally { events: u64::from(get.u32()?), bytes: get.u64()? })).collect()
}

/// Decodes a whole frame, its checksum verified. `frame` is a view of the bytes read, and the payload stays one.
pub(super) fn decode_frame(bytes: &Bytes, header: &FrameHeader, segment: &SegmentHeader) -> Option<Decoded> {
    let len = header.frame_len();
    let whole = bytes.get(..len)?;
    (crc32c::crc32c_append(segment.seed(), &whole[12..]) == header.crc && header.codec == 0).then_some(())?;
    let meta_end = FRAME_HEADER_BYTES + header.meta_len;
    let payload = bytes.slice(meta_end..len);
    match header.kind {
        KIND_DATA => decode_data(&whole[FRAME_HEADER_BYTES..meta_end], payload, header, segment),
        KIND_ORIGIN if header.origin < ORIGINS_MAX => {
            Some(Decoded::Origin(header.origin, Origin::from_json(&payload)?))
        }
        KIND_FOOTER => Footer::decode(&payload).map(|footer| Decoded::Footer(Box::new(footer))),
        _ => None,
    }
}

fn decode_data(meta: &[u8], payload: Bytes, header: &FrameHeader, segment: &SegmentHeader) -> Option<Decoded> {
    let mut get = Get(meta);
    let events = header.events as usize;
    (events <= BATCH_EVENTS_MAX && payload.len() <= BATCH_BYTES_MAX).then_some(())?;
    let masks = match header.mask_form {
        0 => Masks::Uniform(get.u64()?),
        1 => Masks::Each(get.take(events)?.iter().map(|mask| u64::from(*mask)).collect()),
        _ => Masks::Each((0..events).map(|_| get.u64()).collect::<Option<_>>()?),
    };
    let ends: Vec<u32> =
        get.take(events * 4)?.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    let ascending = ends.windows(2).all(|pair| pair[0] < pair[1]) && ends.first().is_none_or(|end| *end > 0);
    (ascending && ends.last().is_none_or(|end| *end as usize == payload.len())).then_some(())?;
    let position = match header.flags & FLAG_POSITION {
        0 => None,
        _ => {
            let source = Bytes::copy_from_slice(get.bytes()?);
            let (some, value) = (get.u8()?, Bytes::copy_from_slice(get.bytes()?));
            Some(Position { source, value: (some == 1).then_some(value) })
        }
    };
    let key = match header.flags & FLAG_KEY {
        0 => None,
        _ => Some(IdempotencyKey {
            sender: Bytes::copy_from_slice(get.bytes()?),
            key: Bytes::copy_from_slice(get.bytes()?),
            body_hash: get.u128()?,
        }),
    };
    let dropped = match header.flags & FLAG_DROPPED {
        0 => 0,
        _ => get.u32()?,
    };
    let frame = Frame {
        first_seq: header.first_seq,
        incarnation: segment.incarnation,
        received: header.received,
        running_ms: header.running_ms,
        origin: Arc::default(),
        routes: segment.routes.clone(),
        masks,
        ends,
        payload,
        unrouted: header.unrouted,
        dropped,
        position,
        key,
    };
    Some(Decoded::Data { frame: Box::new(frame), origin: (header.origin != NO_ORIGIN).then_some(header.origin) })
}

#[cfg(test)]
mod tests;
