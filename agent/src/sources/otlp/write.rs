//! Requests of OTLP become events: one for a log record, a span, or a point of a metric.
//!
//! It guarantees: one pass over the request, no tree of values; memory is that of the events, which end at `bytes_max`. A record that
//! is no event (too large, too deep, a time that does not exist) is refused alone; bytes that are no message refuse all, since
//! behind them nothing says where the next record begins.
//!
//! # Limits
//! [`EVENT_BYTES_MAX`](spillway_delivery::event::EVENT_BYTES_MAX) for an event with its resource and scope; [`DEPTH_MAX`] for values in values.

use spillway_delivery::event::BATCH_EVENTS_MAX;

use super::out::{Fault, Out};
use super::schema::{self, Message};
use super::wire::{Fields, Value, WireError};

/// Most values in each other.
pub(super) const DEPTH_MAX: u32 = 64;

/// What is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    Logs,
    Metrics,
    Traces,
}

/// The events of a request.
#[derive(Debug, Default)]
pub(crate) struct Written {
    /// The events, each with its `\n`.
    pub(crate) payload: Vec<u8>,
    /// Where each ends.
    pub(crate) ends: Vec<u32>,
    /// Records that are no events, by reason.
    pub(crate) refused: [u64; 3],
}

/// Why a record is no event, in the order of [`Written::refused`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    TooLarge,
    TooDeep,
    Time,
}

/// Why a request has no events.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    /// It is no message.
    #[error("the body is no request of OTLP")]
    Wire(#[from] WireError),
    /// Its events take more room.
    #[error("the events take too many bytes")]
    Room,
    /// It holds more events than a batch.
    #[error("there are too many events")]
    Events,
}

impl Signal {
    /// Returns the message of a request.
    pub(super) fn request(self) -> &'static Message {
        match self {
            Self::Logs => &schema::LOGS,
            Self::Metrics => &schema::METRICS,
            Self::Traces => &schema::TRACES,
        }
    }
}

/// Writes the events of a request, at most so many bytes, behind each other into `payload`, which is empty.
pub(crate) fn events(signal: Signal, request: &[u8], payload: Vec<u8>, bytes_max: usize) -> Result<Written, Error> {
    let mut writer = Writer { written: Written { payload, ..Written::default() }, bytes_max };
    for field in Fields::of(request) {
        if let (1, Value::Bytes(of_resource)) = field? {
            let (resource, schema_url) = around(of_resource, &schema::RESOURCE, "resource")?;
            for field in Fields::of(of_resource) {
                if let (2, Value::Bytes(of_scope)) = field? {
                    writer.scope(signal, of_scope, &resource, schema_url)?;
                }
            }
        }
    }
    Ok(writer.written)
}

/// A member, or why there is none, and a schema.
type Told<'a> = (Result<Vec<u8>, Refusal>, Option<&'a [u8]>);

/// Returns the member `name` of what `bytes` are about, in front of what comes of it, and its schema.
fn around<'a>(bytes: &'a [u8], message: &'static Message, name: &str) -> Result<Told<'a>, WireError> {
    let (mut member, mut schema_url) = (Ok(Vec::new()), None);
    for field in Fields::of(bytes) {
        match field? {
            (1, Value::Bytes(about)) => {
                let mut out = Out { bytes: Vec::new(), start: 0 };
                out.name(name);
                member = match out.object(message, about, DEPTH_MAX) {
                    Ok(()) => Ok(out.bytes),
                    Err(Fault::Refused(refusal)) => Err(refusal),
                    Err(Fault::Wire(error)) => return Err(error),
                };
            }
            (3, Value::Bytes(url)) if !url.is_empty() => schema_url = Some(url),
            _ => {}
        }
    }
    Ok((member, schema_url))
}

struct Writer {
    written: Written,
    bytes_max: usize,
}

/// What every event of a scope carries.
pub(super) struct Around<'a> {
    pub(super) resource: &'a [u8],
    pub(super) scope: &'a [u8],
    pub(super) schema_url: Option<&'a [u8]>,
}

impl Writer {
    fn scope(
        &mut self,
        signal: Signal,
        of_scope: &[u8],
        resource: &Result<Vec<u8>, Refusal>,
        schema_url: Option<&[u8]>,
    ) -> Result<(), Error> {
        let (scope, own_url) = around(of_scope, &schema::SCOPE, "scope")?;
        let around = match (resource, &scope) {
            (Ok(resource), Ok(scope)) => Ok(Around { resource, scope, schema_url: own_url.or(schema_url) }),
            (Err(refusal), _) | (_, Err(refusal)) => Err(*refusal),
        };
        for field in Fields::of(of_scope) {
            let (2, Value::Bytes(record)) = field? else { continue };
            match signal {
                Signal::Logs => self.record(&schema::LOG_RECORD, record, b"\"signal\":\"log\",", &around)?,
                Signal::Traces => self.record(&schema::SPAN, record, b"\"signal\":\"span\",", &around)?,
                Signal::Metrics => self.metric(record, &around)?,
            }
        }
        Ok(())
    }

    /// Writes an event for each point of a metric.
    fn metric(&mut self, metric: &[u8], around: &Result<Around<'_>, Refusal>) -> Result<(), Error> {
        let mut head = Out { bytes: b"\"signal\":\"metric\",".to_vec(), start: 0 };
        let described = head.members(&schema::METRIC, metric, DEPTH_MAX);
        let described_bytes = head.bytes.len();
        for field in Fields::of(metric) {
            let (number, Value::Bytes(data)) = field? else { continue };
            let known = schema::METRIC_TYPES.iter().find(|(known, ..)| *known == number);
            let Some((_, name, message, point)) = known else { continue };
            head.bytes.truncate(described_bytes);
            head.name("type");
            head.quoted(name);
            head.bytes.push(b',');
            let around = match described.and(head.members(message, data, DEPTH_MAX)) {
                Ok(()) => around.as_ref().map_err(|refusal| *refusal),
                Err(Fault::Refused(refusal)) => Err(refusal),
                Err(Fault::Wire(error)) => return Err(Error::Wire(error)),
            };
            for field in Fields::of(data) {
                if let (schema::POINTS, Value::Bytes(bytes)) = field? {
                    self.event(point, bytes, &head.bytes, around)?;
                }
            }
        }
        Ok(())
    }

    fn record(
        &mut self,
        message: &'static Message,
        record: &[u8],
        head: &[u8],
        around: &Result<Around<'_>, Refusal>,
    ) -> Result<(), Error> {
        self.event(message, record, head, around.as_ref().map_err(|refusal| *refusal))
    }

    fn event(
        &mut self,
        message: &'static Message,
        record: &[u8],
        head: &[u8],
        around: Result<&Around<'_>, Refusal>,
    ) -> Result<(), Error> {
        let start = self.written.payload.len();
        let mut out = Out { bytes: std::mem::take(&mut self.written.payload), start };
        let wrote = around.map_err(Fault::Refused).and_then(|around| out.event(message, record, head, around));
        self.written.payload = out.bytes;
        match wrote {
            Ok(()) => {}
            Err(Fault::Wire(error)) => return Err(Error::Wire(error)),
            Err(Fault::Refused(refusal)) => {
                self.written.payload.truncate(start);
                self.written.refused[refusal as usize] += 1;
                return Ok(());
            }
        }
        if self.written.payload.len() > self.bytes_max {
            return Err(Error::Room);
        }
        if self.written.ends.len() == BATCH_EVENTS_MAX {
            return Err(Error::Events);
        }
        self.written.ends.push(self.written.payload.len() as u32);
        Ok(())
    }
}

/// Returns where event `index` stands.
#[cfg(test)]
pub(super) fn span(ends: &[u32], index: usize) -> std::ops::Range<usize> {
    let start = if index == 0 { 0 } else { ends[index - 1] as usize };
    start..ends[index] as usize
}
