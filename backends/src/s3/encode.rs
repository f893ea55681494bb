//! Events to objects: which go together, under which key, as which bytes. No I/O.
//!
//! Events go together whose key is the same but for `{id}`. The **identity** of an object is a hash of who delivers and of
//! the id of every event in it, in order. It is `{id}` in the key and stands in the object's metadata. It depends on
//! nothing else: what is left of a batch is another batch under another plan to the engine, and yet its objects are the
//! same ones.

use std::collections::HashMap;
use std::io::{self, Write};
use std::ops::Range;
use std::sync::Arc;

use flate2::write::GzEncoder;
use spillway_delivery::backend::{DeliveryName, Fault, FaultKind, OutBatch, OutEvent};
use spillway_delivery::event::Origin;
use spillway_delivery::settings::Metadata;
use xxhash_rust::xxh3::Xxh3;

use super::key::GRAMMAR;
use crate::settings::Compression;
use crate::template::{Piece, Renderer, Template, Values};

/// Most objects of one batch: above, it is halved.
const OBJECTS_MAX: usize = 64;
/// Most bytes of a key.
const KEY_BYTES_MAX: usize = 1024;
/// Stands for the identity until it is known; as long as one.
const NO_ID: &str = "00000000000000000000000000000000";
/// NDJSON that is written before it goes through the compressor.
const SCRATCH_BYTES: usize = 64 << 10;
/// Most events that are written at once.
const EVENTS_AT_ONCE: usize = 64;
/// zstd's own default.
const ZSTD_LEVEL: i32 = 3;
const HOUR_NANOS: i64 = 3_600_000_000_000;

/// One object to be put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Object {
    /// Its key.
    pub(super) key: String,
    /// Its identity: 32 hexadecimal digits.
    pub(super) id: String,
    /// Its events as ranges of their numbers in the batch, ascending.
    pub(super) ranges: Vec<Range<usize>>,
    /// Bytes of its events.
    pub(super) payload_bytes: usize,
}

/// A batch sorted into objects.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Sorted {
    /// In the order of their first events.
    pub(super) objects: Vec<Object>,
    /// Events that cannot go anywhere, and why.
    pub(super) rejected: Vec<(usize, String)>,
}

/// Names objects for one delivery.
#[derive(Debug)]
pub(super) struct Keys {
    renderer: Renderer,
    name: DeliveryName,
    /// What is added behind the template: `.gz`, `.zst` or nothing.
    suffix: &'static str,
}

/// Events that go together.
struct Group {
    first: usize,
    ranges: Vec<Range<usize>>,
    payload_bytes: usize,
    hasher: Xxh3,
}

impl Keys {
    pub(super) fn new(template: &Template, name: DeliveryName, compression: Compression) -> Self {
        let extension = match compression {
            Compression::Gzip => ".gz",
            Compression::Zstd => ".zst",
            Compression::None => "",
        };
        let there = matches!(template.pieces().last(), Some(Piece::Literal(tail)) if tail.ends_with(extension));
        let suffix = if there { "" } else { extension };
        Self { renderer: Renderer::new(template, &GRAMMAR), name, suffix }
    }

    /// Sorts a batch into objects; one that makes too many of them is too large.
    pub(super) fn sort(&self, batch: &OutBatch) -> Result<Sorted, Fault> {
        let mut sorted = Sorted::default();
        let mut groups: Vec<Group> = Vec::new();
        let mut known: HashMap<String, usize> = HashMap::new();
        let mut last: Option<(&Arc<Origin>, i64, usize)> = None;
        for (number, event) in batch.events().enumerate() {
            let hour = event.received.div_euclid(HOUR_NANOS);
            let same = last.filter(|(origin, last_hour, _)| {
                let same_origin = !self.renderer.depends_on_origin() || Arc::ptr_eq(origin, event.origin);
                *last_hour == hour && same_origin && !self.renderer.depends_on_event()
            });
            let group = match same {
                Some((_, _, group)) => group,
                None => match self.render(&event, NO_ID) {
                    Ok(place) => *known.entry(place).or_insert_with(|| {
                        groups.push(Group {
                            first: number,
                            ranges: Vec::new(),
                            payload_bytes: 0,
                            hasher: self.hasher(),
                        });
                        groups.len() - 1
                    }),
                    Err(reason) => {
                        sorted.rejected.push((number, reason));
                        last = None;
                        continue;
                    }
                },
            };
            last = Some((event.origin, hour, group));
            groups[group].push(number, &event);
        }
        if groups.len() > OBJECTS_MAX {
            let text = format!("{} objects of one batch, at most {OBJECTS_MAX}", groups.len());
            return Err(Fault::new(FaultKind::TooLarge, text));
        }
        sorted.objects = self.name_all(batch, groups);
        Ok(sorted)
    }

    fn name_all(&self, batch: &OutBatch, groups: Vec<Group>) -> Vec<Object> {
        let mut events = batch.events().enumerate();
        let named = groups.into_iter().filter_map(|group| {
            let (_, first) = events.by_ref().find(|(number, _)| *number == group.first)?;
            let id = format!("{:032x}", group.hasher.digest128());
            // It was rendered before, with an id of this length.
            let key = self.render(&first, &id).ok()?;
            Some(Object { key, id, ranges: group.ranges, payload_bytes: group.payload_bytes })
        });
        named.collect()
    }

    fn render(&self, event: &OutEvent<'_>, id: &str) -> Result<String, String> {
        let DeliveryName { namespace, pipeline, route, .. } = &self.name;
        let values = Values {
            namespace,
            pipeline,
            route,
            id,
            origin: event.origin,
            received: event.received,
            event: event.bytes,
        };
        let mut key = String::with_capacity(128);
        self.renderer.render(&values, &mut key)?;
        key.push_str(self.suffix);
        if key.len() > KEY_BYTES_MAX {
            return Err(format!("the key is longer than {KEY_BYTES_MAX} bytes"));
        }
        Ok(key)
    }

    /// Begins an identity with who delivers: two deliveries of the same events never meet.
    fn hasher(&self) -> Xxh3 {
        let DeliveryName { namespace, pipeline, route, backend, .. } = &self.name;
        let mut hasher = Xxh3::new();
        for name in [namespace, pipeline, route, backend] {
            hasher.update(name.as_bytes());
            hasher.update(&[0]);
        }
        hasher
    }
}

impl Group {
    fn push(&mut self, number: usize, event: &OutEvent<'_>) {
        match self.ranges.last_mut() {
            Some(range) if range.end == number => range.end += 1,
            _ => self.ranges.push(number..number + 1),
        }
        self.payload_bytes += event.bytes.len();
        self.hasher.update(&event.id.incarnation.to_le_bytes());
        self.hasher.update(&event.id.seq.to_le_bytes());
    }
}

/// Returns the bytes of an object, the same for the same events: NDJSON, compressed as it is written.
pub(super) fn body(
    batch: &OutBatch,
    object: &Object,
    metadata: Metadata,
    compression: Compression,
) -> io::Result<Vec<u8>> {
    let room = object.payload_bytes / 4;
    match compression {
        Compression::None => {
            let mut out = Vec::with_capacity(object.payload_bytes + object.payload_bytes / 8);
            write_events(batch, object, metadata, &mut out)?;
            Ok(out)
        }
        Compression::Gzip => {
            let mut encoder = GzEncoder::new(Vec::with_capacity(room), flate2::Compression::fast());
            write_events(batch, object, metadata, &mut encoder)?;
            encoder.finish()
        }
        Compression::Zstd => {
            let mut encoder = zstd::stream::write::Encoder::new(Vec::with_capacity(room), ZSTD_LEVEL)?;
            encoder.include_checksum(true)?;
            write_events(batch, object, metadata, &mut encoder)?;
            encoder.finish()
        }
    }
}

fn write_events(batch: &OutBatch, object: &Object, metadata: Metadata, out: &mut impl Write) -> io::Result<()> {
    let mut scratch = Vec::with_capacity(SCRATCH_BYTES);
    // Large events are written one by one, so that what waits for the compressor stays small.
    let events: usize = object.ranges.iter().map(ExactSizeIterator::len).sum();
    let at_once = (SCRATCH_BYTES * events / object.payload_bytes.max(1)).clamp(1, EVENTS_AT_ONCE);
    let mut ranges = object.ranges.iter().cloned().peekable();
    let mut run_start = 0;
    for run in batch.runs() {
        let run_end = run_start + run.event_count();
        while let Some(range) = ranges.peek_mut() {
            let until = range.end.min(run_end);
            while range.start < until {
                let end = until.min(range.start + at_once);
                run.write_ndjson(range.start - run_start..end - run_start, usize::MAX, &mut scratch, metadata);
                range.start = end;
                if scratch.len() >= SCRATCH_BYTES {
                    out.write_all(&scratch)?;
                    scratch.clear();
                }
            }
            if range.start < range.end {
                break;
            }
            ranges.next();
        }
        run_start = run_end;
    }
    out.write_all(&scratch)
}

#[cfg(test)]
mod tests;
