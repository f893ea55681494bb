//! A body, read and decoded piece by piece into one bounded piece of memory.
//!
//! # Guarantees
//! No memory is taken before the budget gave it and the limits of its size were looked at: bytes on the wire, bytes
//! decoded, their ratio, members, windows. A plain body is copied once from the connection's read buffer; one above
//! [`BODY_FIRST_BYTES`] is moved while it grows, at most once more in all.
//!
//! # Cancel safety
//! What was read so far is given up, and its budget with it.

use axum::body::HttpBody;
use axum::body::{Body, Bytes};
use http_body_util::BodyExt;
use spillway_delivery::event::Arenas;
use tokio::time::{Instant, timeout_at};

use super::decode::{Coding, DecodeError, Decoder, Step};
use super::limits::{
    BODY_BYTES_MAX, BODY_FIRST_BYTES, BODY_IDLE_TIMEOUT, BODY_TOTAL_TIMEOUT, GZIP_CONTEXT_BYTES, Limit,
    RATIO_FLOOR_BYTES, RATIO_MAX, WIRE_BYTES_MAX, ZSTD_CONTEXT_BYTES,
};
use super::stats::HttpStats;
use crate::sources::pushed::budget::Lease;

/// A body that was read, and the budget it holds.
#[derive(Debug)]
pub(in crate::sources) struct ReadBody {
    /// The decoded bytes, with room for one more.
    pub(in crate::sources) bytes: Vec<u8>,
    /// To be kept until the bytes are gone.
    pub(in crate::sources) lease: Lease,
}

/// Why a body was not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::sources) enum ReadError {
    /// It ran into a limit.
    Limit(Limit),
    /// It is not what its encoding says.
    Corrupt(String),
    /// The connection broke or its framing did, and how.
    Broken(&'static str),
}

impl From<DecodeError> for ReadError {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::Corrupt(why) => Self::Corrupt(why),
            DecodeError::Limit(limit) => Self::Limit(limit),
        }
    }
}

/// Reads `body` to its end.
pub(super) async fn read(
    mut body: Body,
    coding: Coding,
    (lease, arenas): (Lease, &Arenas),
    stats: &HttpStats,
) -> Result<ReadBody, ReadError> {
    let announced = body.size_hint().exact();
    let plain = coding == Coding::Identity;
    if announced.is_some_and(|bytes| bytes > WIRE_BYTES_MAX) {
        return Err(ReadError::Limit(Limit::WireBytes));
    }
    if plain && announced.is_some_and(|bytes| bytes > BODY_BYTES_MAX as u64) {
        return Err(ReadError::Limit(Limit::BodyBytes));
    }
    let mut buffer = Buffer::new((lease, arenas), if plain { announced } else { None });
    buffer.lease(context_bytes(coding)).await?;
    let mut decoder = Decoder::new(coding)?;
    let deadline = Instant::now() + BODY_TOTAL_TIMEOUT;
    let mut wire = 0;
    while let Some(piece) = next_piece(&mut body, deadline).await? {
        wire += piece.len() as u64;
        stats.read_from_wire(piece.len() as u64);
        if wire > WIRE_BYTES_MAX {
            return Err(ReadError::Limit(Limit::WireBytes));
        }
        match &mut decoder {
            None => buffer.append(&piece).await?,
            Some(decoder) => decode(decoder, &piece, &mut buffer, wire).await?,
        }
    }
    if let Some(decoder) = &decoder {
        decoder.finish()?;
    }
    Ok(buffer.finish())
}

/// How a body broke, said by who framed it.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("{0}")]
pub(in crate::sources) struct Broken(pub(in crate::sources) &'static str);

/// What is told where nobody says how a body broke.
pub(in crate::sources) const CUT: &str = "the body ended before its end";

fn why_broken(error: axum::Error) -> &'static str {
    error.into_inner().downcast_ref::<Broken>().map_or(CUT, |broken| broken.0)
}

/// Returns what the decoder of `coding` needs before it has decoded anything.
fn context_bytes(coding: Coding) -> usize {
    match coding {
        Coding::Identity => 0,
        Coding::Gzip => GZIP_CONTEXT_BYTES,
        Coding::Zstd => ZSTD_CONTEXT_BYTES,
    }
}

async fn next_piece(body: &mut Body, deadline: Instant) -> Result<Option<Bytes>, ReadError> {
    loop {
        let idle = Instant::now() + BODY_IDLE_TIMEOUT;
        let frame = match timeout_at(idle.min(deadline), body.frame()).await {
            Err(_) if idle < deadline => return Err(ReadError::Limit(Limit::BodyIdleTime)),
            Err(_) => return Err(ReadError::Limit(Limit::BodyTime)),
            Ok(None) => return Ok(None),
            Ok(Some(frame)) => frame.map_err(|error| ReadError::Broken(why_broken(error)))?,
        };
        // What is no data are trailers, which mean nothing here.
        if let Ok(data) = frame.into_data() {
            return Ok(Some(data));
        }
    }
}

async fn decode(decoder: &mut Decoder, piece: &[u8], buffer: &mut Buffer<'_>, wire: u64) -> Result<(), ReadError> {
    let mut input = piece;
    loop {
        buffer.make_room().await?;
        let (written, step) = decoder.step(&mut input, buffer.room())?;
        buffer.filled += written;
        if buffer.filled > BODY_BYTES_MAX {
            return Err(ReadError::Limit(Limit::BodyBytes));
        }
        let filled = buffer.filled as u64;
        if filled > RATIO_FLOOR_BYTES && filled > (wire - input.len() as u64) * RATIO_MAX {
            return Err(ReadError::Limit(Limit::Ratio));
        }
        match step {
            Step::Input => return Ok(()),
            Step::Room => {}
            Step::Window(bytes) => buffer.lease_window(bytes).await?,
        }
    }
}

/// The memory of one body. `bytes` is as long as there is room, `filled` as far as there is data.
struct Buffer<'a> {
    arenas: &'a Arenas,
    bytes: Vec<u8>,
    filled: usize,
    lease: Lease,
    window: usize,
    announced: Option<u64>,
}

impl<'a> Buffer<'a> {
    fn new((lease, arenas): (Lease, &'a Arenas), announced: Option<u64>) -> Self {
        Self { arenas, bytes: Vec::new(), filled: 0, lease, window: 0, announced }
    }

    /// Appends a piece of a plain body.
    async fn append(&mut self, piece: &[u8]) -> Result<(), ReadError> {
        self.grow(piece.len()).await?;
        self.bytes.truncate(self.filled);
        self.bytes.extend_from_slice(piece);
        self.filled += piece.len();
        Ok(())
    }

    /// Makes room for at least one decoded byte, and for all that was paid for.
    async fn make_room(&mut self) -> Result<(), ReadError> {
        if self.bytes.len() == self.filled {
            self.grow(1).await?;
            self.bytes.resize(self.bytes.capacity() - 1, 0);
        }
        Ok(())
    }

    fn room(&mut self) -> &mut [u8] {
        &mut self.bytes[self.filled..]
    }

    /// Gets capacity for `more` bytes, a line break behind them, and one byte that shows a body to be too long: what
    /// was announced while that is little, else twice what there is.
    async fn grow(&mut self, more: usize) -> Result<(), ReadError> {
        let needed = self.filled + more;
        if needed > BODY_BYTES_MAX {
            return Err(ReadError::Limit(Limit::BodyBytes));
        }
        let capacity = self.bytes.capacity();
        if needed < capacity {
            return Ok(());
        }
        let announced = self.announced.map_or(0, |bytes| bytes as usize);
        let first = if self.announced.is_some() { announced.min(BODY_FIRST_BYTES) } else { READ_FIRST_BYTES };
        let most = if announced >= needed { announced } else { BODY_BYTES_MAX };
        let target = needed.max(2 * capacity).max(first).min(most) + 2;
        self.lease(target - capacity).await?;
        if capacity == 0 {
            self.bytes = self.arenas.take(target);
        } else {
            self.bytes.reserve_exact(target - self.bytes.len());
        }
        Ok(())
    }

    async fn lease(&mut self, bytes: usize) -> Result<(), ReadError> {
        self.lease.grow(bytes).await.map_err(|found| ReadError::Limit(found.into()))
    }

    /// Pays for the window of a frame; windows of later frames take the same memory.
    async fn lease_window(&mut self, bytes: usize) -> Result<(), ReadError> {
        let more = bytes.saturating_sub(self.window);
        self.window += more;
        self.lease(more).await
    }

    fn finish(mut self) -> ReadBody {
        self.bytes.truncate(self.filled);
        ReadBody { bytes: self.bytes, lease: self.lease }
    }
}

/// First room of a body that announced no length, or whose decoded length is unknown.
const READ_FIRST_BYTES: usize = 32 << 10;
