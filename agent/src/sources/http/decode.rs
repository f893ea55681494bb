//! Decoders of bodies that do one bounded step at a time and allocate nothing for the output.
//!
//! Whoever drives one gives it the next piece of the wire and some room, and learns why it stopped: it needs more
//! wire, more room, or, before a zstd frame is begun, memory for the frame's window. So every limit is looked at before
//! the memory is there. Members of gzip and frames of zstd may follow each other; each frame's window counts.

use flate2::{Decompress, FlushDecompress, Status};
use zstd::stream::raw::{Decoder as ZstdContext, Operation};

use super::limits::{BODY_BYTES_MAX, Limit, MEMBERS_MAX, ZSTD_WINDOW_BYTES_MAX};

/// How a body is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sources) enum Coding {
    Identity,
    Gzip,
    Zstd,
}

/// What a decoder needs to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// The next piece of the wire.
    Input,
    /// More room.
    Room,
    /// So many bytes for the window of a zstd frame that begins; the next step allocates them.
    Window(usize),
}

/// Why a body cannot be decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum DecodeError {
    /// It is not what its encoding says.
    Corrupt(String),
    /// It asks for more than it may.
    Limit(Limit),
}

/// A decoder of one body.
pub(super) enum Decoder {
    /// Members of gzip.
    Gzip(Gzip),
    /// Frames of zstd.
    Zstd(Zstd),
}

impl Decoder {
    /// Returns the decoder of `coding`; a plain body needs none.
    pub(super) fn new(coding: Coding) -> Result<Option<Self>, DecodeError> {
        match coding {
            Coding::Identity => Ok(None),
            Coding::Gzip => Ok(Some(Self::Gzip(Gzip::new()))),
            Coding::Zstd => Zstd::new().map(|zstd| Some(Self::Zstd(zstd))),
        }
    }

    /// Decodes from the front of `input` into `room`. Returns the bytes written and why it stopped.
    pub(super) fn step(&mut self, input: &mut &[u8], room: &mut [u8]) -> Result<(usize, Step), DecodeError> {
        match self {
            Self::Gzip(gzip) => gzip.step(input, room),
            Self::Zstd(zstd) => zstd.step(input, room),
        }
    }

    /// Checks that the wire did not end in the middle.
    pub(super) fn finish(&self) -> Result<(), DecodeError> {
        let (name, whole) = match self {
            Self::Gzip(gzip) => ("gzip", gzip.members > 0 && !gzip.inside),
            Self::Zstd(zstd) => ("zstd", zstd.frames > 0 && zstd.state == FrameState::Header && zstd.header_len == 0),
        };
        if whole { Ok(()) } else { Err(DecodeError::Corrupt(format!("the {name} body ends in the middle"))) }
    }
}

/// Members of gzip, one behind the other.
pub(super) struct Gzip {
    inflate: Box<Decompress>,
    inside: bool,
    members: u32,
}

/// The largest window of deflate, 2^15 bytes.
const GZIP_WINDOW_BITS: u8 = 15;

impl Gzip {
    fn new() -> Self {
        Self { inflate: Box::new(Decompress::new_gzip(GZIP_WINDOW_BITS)), inside: false, members: 0 }
    }

    fn step(&mut self, input: &mut &[u8], room: &mut [u8]) -> Result<(usize, Step), DecodeError> {
        let mut written = 0;
        while !input.is_empty() {
            if written == room.len() {
                return Ok((written, Step::Room));
            }
            if !self.inside {
                self.begin_member()?;
            }
            let (in_before, out_before) = (self.inflate.total_in(), self.inflate.total_out());
            let status = self
                .inflate
                .decompress(input, &mut room[written..], FlushDecompress::None)
                .map_err(|error| DecodeError::Corrupt(format!("the gzip body is damaged: {error}")))?;
            let read = (self.inflate.total_in() - in_before) as usize;
            let wrote = (self.inflate.total_out() - out_before) as usize;
            *input = &input[read..];
            written += wrote;
            self.inside = status != Status::StreamEnd;
            if read == 0 && wrote == 0 && self.inside {
                return Err(DecodeError::Corrupt("the gzip body makes no progress".to_owned()));
            }
        }
        let full = self.inside && written == room.len();
        Ok((written, if full { Step::Room } else { Step::Input }))
    }

    fn begin_member(&mut self) -> Result<(), DecodeError> {
        if self.members == MEMBERS_MAX {
            return Err(DecodeError::Limit(Limit::Members));
        }
        if self.members > 0 {
            // `true` keeps the format it was made for.
            self.inflate.reset(true);
        }
        self.members += 1;
        self.inside = true;
        Ok(())
    }
}

/// Frames of zstd, one behind the other.
pub(super) struct Zstd {
    context: ZstdContext<'static>,
    state: FrameState,
    header: [u8; FRAME_HEADER_BYTES_MAX],
    header_len: usize,
    frames: u32,
}

/// Magic number, descriptor, window, dictionary id and content size at their longest (RFC 8878, 3.1.1.1).
const FRAME_HEADER_BYTES_MAX: usize = 4 + 1 + 1 + 4 + 8;

/// Where in a frame the decoder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FrameState {
    /// Collecting the header, to know what the frame asks for.
    Header,
    /// The header is known and is to be given to the library.
    Feed,
    /// In the blocks.
    Blocks,
}

impl Zstd {
    fn new() -> Result<Self, DecodeError> {
        let context = ZstdContext::new().map_err(corrupt_zstd)?;
        let header = [0; FRAME_HEADER_BYTES_MAX];
        Ok(Self { context, state: FrameState::Header, header, header_len: 0, frames: 0 })
    }

    fn step(&mut self, input: &mut &[u8], room: &mut [u8]) -> Result<(usize, Step), DecodeError> {
        let mut written = 0;
        loop {
            match self.state {
                FrameState::Header => match self.collect_header(input)? {
                    Some(window) => return Ok((written, Step::Window(window))),
                    None => return Ok((written, Step::Input)),
                },
                FrameState::Feed => {
                    let header = self.header;
                    let mut rest = &header[..self.header_len];
                    self.state = FrameState::Blocks;
                    written += self.run(&mut rest, &mut room[written..])?;
                    if !rest.is_empty() {
                        return Err(DecodeError::Corrupt("the zstd body has a damaged frame header".to_owned()));
                    }
                }
                FrameState::Blocks => {
                    let before = input.len();
                    let wrote = self.run(input, &mut room[written..])?;
                    written += wrote;
                    if self.state == FrameState::Header {
                        continue;
                    }
                    if written == room.len() {
                        return Ok((written, Step::Room));
                    }
                    if input.is_empty() || (wrote == 0 && input.len() == before) {
                        return Ok((written, Step::Input));
                    }
                }
            }
        }
    }

    /// Runs the library over `input`; notes the end of a frame. Returns the bytes written.
    fn run(&mut self, input: &mut &[u8], room: &mut [u8]) -> Result<usize, DecodeError> {
        let status = self.context.run_on_buffers(input, room).map_err(corrupt_zstd)?;
        *input = &input[status.bytes_read..];
        if status.remaining == 0 {
            self.state = FrameState::Header;
            self.header_len = 0;
        }
        Ok(status.bytes_written)
    }

    /// Takes bytes of a frame's header. Returns the memory its window needs once it is whole.
    fn collect_header(&mut self, input: &mut &[u8]) -> Result<Option<usize>, DecodeError> {
        while let Some((byte, rest)) = input.split_first() {
            *input = rest;
            self.header[self.header_len] = *byte;
            self.header_len += 1;
            let Some(window) = frame_window(&self.header[..self.header_len])? else {
                continue;
            };
            if self.frames == MEMBERS_MAX {
                return Err(DecodeError::Limit(Limit::Members));
            }
            self.frames += 1;
            self.state = FrameState::Feed;
            return Ok(Some(window));
        }
        Ok(None)
    }
}

/// Magic number of a frame, as it travels.
const FRAME_MAGIC: [u8; 4] = 0xFD2F_B528_u32.to_le_bytes();

/// Returns the bytes of window that the frame asks for, `None` while the header is not whole, and refuses what asks for
/// too much. A frame that may be skipped asks for none.
fn frame_window(header: &[u8]) -> Result<Option<usize>, DecodeError> {
    let Some((magic, rest)) = header.split_at_checked(4) else {
        return Ok(None);
    };
    if magic[0] & 0xF0 == 0x50 && magic[1..] == [0x2A, 0x4D, 0x18] {
        return Ok(Some(0));
    }
    if magic != FRAME_MAGIC {
        return Err(DecodeError::Corrupt("the body is not zstd, its magic number is missing".to_owned()));
    }
    let Some((descriptor, fields)) = rest.split_first() else {
        return Ok(None);
    };
    let single_segment = descriptor & 0x20 != 0;
    let window_len = usize::from(!single_segment);
    let dictionary_len = [0, 1, 2, 4][usize::from(descriptor & 3)];
    let content_len = [usize::from(single_segment), 2, 4, 8][usize::from(descriptor >> 6)];
    if fields.len() < window_len + dictionary_len + content_len {
        return Ok(None);
    }
    let content = content_size(&fields[window_len + dictionary_len..]);
    if content.is_some_and(|content| content > BODY_BYTES_MAX as u64) {
        return Err(DecodeError::Limit(Limit::BodyBytes));
    }
    let window = if single_segment { content.unwrap_or(0) } else { window_size(fields[0]) };
    // A frame of one segment may be as long as a body: its window is its content, and no more than that.
    let window_max = if single_segment { BODY_BYTES_MAX as u64 } else { ZSTD_WINDOW_BYTES_MAX };
    if window > window_max {
        return Err(DecodeError::Limit(Limit::ZstdWindow));
    }
    Ok(Some(window as usize))
}

/// Returns the size of the content that a header states (RFC 8878, 3.1.1.1.4).
fn content_size(field: &[u8]) -> Option<u64> {
    let mut bytes = [0; 8];
    bytes[..field.len()].copy_from_slice(field);
    let size = u64::from_le_bytes(bytes);
    match field.len() {
        0 => None,
        2 => Some(size + 256),
        _ => Some(size),
    }
}

/// Returns the size of the window that a descriptor states (RFC 8878, 3.1.1.1.2).
fn window_size(descriptor: u8) -> u64 {
    let base = 1_u64 << (10 + (descriptor >> 3));
    base + base / 8 * u64::from(descriptor & 7)
}

#[expect(clippy::needless_pass_by_value, reason = "the shape `map_err` wants")]
fn corrupt_zstd(error: std::io::Error) -> DecodeError {
    DecodeError::Corrupt(format!("the zstd body is damaged: {error}"))
}
