//! One segment: what is known of it in memory, and reading its frames.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::format::{
    Decoded, FRAME_HEADER_BYTES, FRAME_MAGIC, Footer, FrameHeader, PREAMBLE_BYTES, SegmentHeader, TRAILER_BYTES,
    decode_frame,
};
use super::frame::{Frame, Masks};
use super::state::Tally;
use super::{INDEX_STRIDE_BYTES, READ_BYTES_MAX, format};
use crate::clock::UnixNanos;
use crate::event::Origin;
use crate::filesystem::{File, Filesystem};

/// One entry of the sparse index: a frame, and what lies before it in the segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct IndexEntry {
    pub(super) seq: u64,
    pub(super) offset: u32,
    pub(super) received: UnixNanos,
    /// Per route, all events of the segment before this frame.
    pub(super) before: Arc<[Tally]>,
}

/// What a segment holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Summary {
    /// Behind the last event.
    pub(super) end_seq: u64,
    /// Time of receipt of the first frame, 0 without one.
    pub(super) oldest: UnixNanos,
    /// Per route of the segment's table.
    pub(super) tallies: Box<[Tally]>,
    pub(super) index: Vec<IndexEntry>,
}

impl Summary {
    pub(super) fn new(base_seq: u64, routes: usize) -> Self {
        Self { end_seq: base_seq, oldest: 0, tallies: vec![Tally::default(); routes].into(), index: Vec::new() }
    }

    /// Goes on over a frame that was written at `offset`; returns its tallies per route.
    pub(super) fn push(&mut self, frame: &Frame, offset: u64) -> Box<[Tally]> {
        let due = self.index.last().is_none_or(|last| offset >= u64::from(last.offset) + INDEX_STRIDE_BYTES);
        if due {
            self.index.push(IndexEntry {
                seq: frame.first_seq,
                offset: offset as u32,
                received: frame.received,
                before: Arc::from(&*self.tallies),
            });
        }
        if self.oldest == 0 {
            self.oldest = frame.received;
        }
        let tallies = frame.tallies();
        for (sum, tally) in self.tallies.iter_mut().zip(&tallies) {
            sum.add(tally.events, tally.bytes);
        }
        self.end_seq = frame.end_seq();
        tallies
    }

    /// Returns the last index entry at or before `seq`.
    pub(super) fn entry_at(&self, seq: u64) -> Option<&IndexEntry> {
        match self.index.partition_point(|entry| entry.seq <= seq) {
            0 => self.index.first(),
            after => self.index.get(after - 1),
        }
    }
}

/// Adds, per route, the events of `frame` below `seq`.
pub(super) fn tally_below(frame: &Frame, seq: u64, tallies: &mut [Tally]) {
    let below = (seq.saturating_sub(frame.first_seq) as usize).min(frame.len());
    if below == 0 {
        return;
    }
    if let Masks::Uniform(mask) = frame.masks {
        let bytes = u64::from(frame.ends[below - 1]) - below as u64;
        for (route, tally) in tallies.iter_mut().enumerate().filter(|(route, _)| mask >> route & 1 == 1) {
            let _: usize = route;
            tally.add(below as u64, bytes);
        }
        return;
    }
    for index in 0..below {
        let mask = frame.masks.get(index);
        let (start, end) = frame.span(index);
        for (route, tally) in tallies.iter_mut().enumerate() {
            if mask >> route & 1 == 1 {
                tally.add(1, u64::from(end - start));
            }
        }
    }
}

/// A segment's file name.
pub(super) fn path_of(dir: &Path, ordinal: u64) -> PathBuf {
    dir.join(format!("{ordinal:016x}.log"))
}

/// Returns the ordinal that a segment's file name holds.
pub(super) fn ordinal_of(path: &Path) -> Option<u64> {
    let stem = path.file_name()?.to_str()?.strip_suffix(".log")?;
    (stem.len() == 16).then(|| u64::from_str_radix(stem, 16).ok())?
}

/// Why a segment of a later format is not read: it is nobody's damage, and stays where it is.
#[derive(Debug, thiserror::Error)]
#[error(
    "{} has format version {version} and this program reads version 2: a later version of it wrote the log, which holds what \
     it has; run that one",
    path.display()
)]
pub(super) struct Later {
    path: PathBuf,
    version: char,
}

impl Later {
    /// Whether this is why a segment could not be opened.
    pub(super) fn is(error: &io::Error) -> bool {
        error.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<Self>)
    }
}

/// A segment open for reading.
#[derive(Debug, Clone)]
pub(super) struct SegmentFile {
    pub(super) file: Arc<dyn File>,
    pub(super) header: Arc<SegmentHeader>,
    /// Where the first frame may be.
    pub(super) data_start: u64,
}

impl SegmentFile {
    /// Opens a segment and reads its header; `None` when that is damaged. One that a program of a later format wrote is an
    /// error of kind [`Unsupported`](io::ErrorKind::Unsupported), told from the file system's own by [`Later::is`].
    pub(super) fn open(fs: &dyn Filesystem, path: &Path) -> io::Result<Option<Self>> {
        let file = fs.open(path, false)?;
        let Some(head) = Self::head(&*file)? else { return Ok(None) };
        if let Some(version) = SegmentHeader::later_version(&head) {
            return Err(io::Error::new(io::ErrorKind::Unsupported, Later { path: path.to_owned(), version }));
        }
        let data_start = head.len() as u64;
        Ok(SegmentHeader::decode(&head).map(|header| Self { file, header: header.into(), data_start }))
    }

    /// Reads what may be a header, `None` when it cannot be one.
    fn head(file: &dyn File) -> io::Result<Option<Vec<u8>>> {
        let mut head = vec![0; 4096];
        let read = file.read_at(0, &mut head)?;
        head.truncate(read);
        let Some(len) = SegmentHeader::body_len(&head) else { return Ok(None) };
        let total = PREAMBLE_BYTES + len;
        if total <= head.len() {
            head.truncate(total);
        } else {
            if total as u64 > file.len()? {
                return Ok(None);
            }
            let have = head.len();
            head.resize(total, 0);
            let read = file.read_at(have as u64, &mut head[have..])?;
            head.truncate(have + read);
        }
        Ok(Some(head))
    }

    /// Reads the footer of a sealed segment: where it starts, and what it says.
    pub(super) fn footer(&self) -> io::Result<Option<(u64, Footer)>> {
        let len = self.file.len()?;
        let mut trailer = [0; TRAILER_BYTES];
        let Some(at) = len.checked_sub(TRAILER_BYTES as u64).filter(|at| *at >= self.data_start) else {
            return Ok(None);
        };
        if self.file.read_at(at, &mut trailer)? < TRAILER_BYTES || &trailer[4..] != format::END_MAGIC {
            return Ok(None);
        }
        let footer_len = u64::from(u32::from_le_bytes([trailer[0], trailer[1], trailer[2], trailer[3]]));
        let Some(start) = at.checked_sub(footer_len).filter(|start| *start >= self.data_start) else { return Ok(None) };
        let bytes = self.read(start, footer_len as usize)?;
        let footer = FrameHeader::decode(&bytes).filter(FrameHeader::is_footer).and_then(|header| {
            match decode_frame(&bytes, &header, &self.header) {
                Some(Decoded::Footer(footer)) => Some(*footer),
                _ => None,
            }
        });
        Ok(footer.map(|footer| (start, footer)))
    }

    fn read(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let mut buffer = BytesMut::zeroed(len);
        let read = self.file.read_at(offset, &mut buffer)?;
        buffer.truncate(read);
        Ok(buffer.freeze())
    }

    /// Reads frames from `offset` on: as many whole ones as one read holds, at least one. See [`Block`].
    pub(super) fn block(&self, offset: u64, origins: &mut Vec<Arc<Origin>>, end: u64) -> io::Result<Block> {
        self.block_of(offset, origins, (end, READ_BYTES_MAX))
    }

    /// The same; one frame alone where so many cannot be read, so that what stands before a bad place is not lost with it.
    pub(super) fn readable_block(&self, offset: u64, origins: &mut Vec<Arc<Origin>>, end: u64) -> io::Result<Block> {
        let before = origins.clone();
        self.block(offset, origins, end).or_else(|_| {
            *origins = before;
            self.block_of(offset, origins, (end, FRAME_HEADER_BYTES))
        })
    }

    /// Reads so with reads of at most `bytes_max`, unless a frame is larger.
    fn block_of(
        &self,
        offset: u64,
        origins: &mut Vec<Arc<Origin>>,
        (end, bytes_max): (u64, usize),
    ) -> io::Result<Block> {
        let want = (end.saturating_sub(offset)).min(bytes_max as u64) as usize;
        let mut bytes = self.read(offset, want)?;
        if let Some(header) = FrameHeader::decode(&bytes)
            && header.frame_len() > bytes.len()
            && offset + header.frame_len() as u64 <= end
        {
            bytes = self.read(offset, header.frame_len())?;
        }
        let mut block = Block { frames: Vec::new(), next: offset, stop: Stop::More };
        let mut at = 0;
        loop {
            let rest = bytes.slice(at..);
            block.next = offset + at as u64;
            if block.next >= end {
                block.stop = Stop::End;
                return Ok(block);
            }
            let Some(header) = FrameHeader::decode(&rest) else {
                block.stop =
                    if rest.len() < FRAME_HEADER_BYTES && at > 0 && block.next + (FRAME_HEADER_BYTES as u64) <= end {
                        Stop::More
                    } else {
                        Stop::Bad
                    };
                return Ok(block);
            };
            if header.frame_len() > rest.len() {
                let fits = block.next + header.frame_len() as u64 <= end;
                block.stop = if fits && at > 0 { Stop::More } else { Stop::Bad };
                return Ok(block);
            }
            match decode_frame(&rest, &header, &self.header) {
                Some(Decoded::Data { mut frame, origin }) => {
                    if let Some(known) = origin.and_then(|origin| origins.get(origin as usize)) {
                        frame.origin = known.clone();
                    }
                    block.frames.push(Placed { offset: block.next, synced: header.synced, frame: *frame });
                }
                Some(Decoded::Origin(number, origin)) => {
                    // One that is damaged leaves its number to nobody.
                    if origins.len() <= number as usize {
                        origins.resize_with(number as usize + 1, Arc::default);
                    }
                    origins[number as usize] = origin;
                }
                Some(Decoded::Footer(_)) => {
                    block.stop = Stop::End;
                    return Ok(block);
                }
                None => {
                    block.stop = Stop::Bad;
                    return Ok(block);
                }
            }
            at += header.frame_len();
        }
    }

    /// Finds the next place behind `offset` where a whole frame stands, its checksum right.
    pub(super) fn resync(&self, offset: u64, end: u64) -> io::Result<Option<u64>> {
        let mut at = offset + 1;
        while at < end {
            let bytes = self.read(at, (end - at).min(1 << 20) as usize)?;
            for found in memchr::memmem::find_iter(&bytes, FRAME_MAGIC) {
                if self.whole_frame_at(at + found as u64, end)? {
                    return Ok(Some(at + found as u64));
                }
            }
            if bytes.len() < FRAME_MAGIC.len() {
                return Ok(None);
            }
            at += (bytes.len() - (FRAME_MAGIC.len() - 1)) as u64;
        }
        Ok(None)
    }

    /// Returns where the frame at `offset` ends, by its header alone, where another stands there or the data ends.
    pub(super) fn behind_frame(&self, offset: u64, end: u64) -> Option<u64> {
        let header = FrameHeader::decode(&self.read(offset, FRAME_HEADER_BYTES).ok()?)?;
        let next = offset + header.frame_len() as u64;
        (next == end || next < end && self.whole_frame_at(next, end).ok()?).then_some(next)
    }

    fn whole_frame_at(&self, offset: u64, end: u64) -> io::Result<bool> {
        let head = self.read(offset, FRAME_HEADER_BYTES)?;
        let Some(header) = FrameHeader::decode(&head).filter(|header| offset + header.frame_len() as u64 <= end) else {
            return Ok(false);
        };
        let bytes = self.read(offset, header.frame_len())?;
        Ok(decode_frame(&bytes, &header, &self.header).is_some())
    }
}

/// A frame and where it stands.
#[derive(Debug)]
pub(super) struct Placed {
    pub(super) offset: u64,
    pub(super) synced: u32,
    pub(super) frame: Frame,
}

/// What one read gave.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) frames: Vec<Placed>,
    /// Where to go on.
    pub(super) next: u64,
    pub(super) stop: Stop,
}

/// Why a block ends where it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// More follows.
    More,
    /// The segment's data ends here.
    End,
    /// What stands at `next` is no frame.
    Bad,
}
