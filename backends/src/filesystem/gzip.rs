//! A gzip member that grows batch by batch and can be cut back to any of them.
//!
//! Each piece is deflated by itself and ends in a sync flush, so at a byte: cutting the file to where a piece ended leaves
//! a good beginning of a member, and the next piece needs nothing of the ones before. The price is a window that begins
//! anew with each piece. A member is `header, piece…, end, CRC32, length` (RFC 1952).

use std::io;

use flate2::{Compress, Compression, Crc, FlushCompress, Status};

/// Deflate, modification time 0, fastest, written on Unix.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 4, 3];
/// A last block that holds nothing.
const END: [u8; 2] = [3, 0];

/// Bytes of a member's end.
pub(super) const TRAILER_BYTES: usize = END.len() + 8;

/// What of an open member has been written.
#[derive(Debug, Default)]
pub(super) struct Member {
    crc: Crc,
}

impl Member {
    /// Returns the same state once more.
    pub(super) fn copy(&self) -> Self {
        self.with(&Piece::default())
    }

    /// Returns the member with `piece` behind it.
    pub(super) fn with(&self, piece: &Piece) -> Self {
        let mut crc = Crc::new();
        crc.combine(&self.crc);
        crc.combine(&piece.crc);
        Self { crc }
    }

    /// Returns the end of the member.
    pub(super) fn trailer(&self) -> [u8; TRAILER_BYTES] {
        let mut trailer = [0; TRAILER_BYTES];
        trailer[..2].copy_from_slice(&END);
        trailer[2..6].copy_from_slice(&self.crc.sum().to_le_bytes());
        trailer[6..].copy_from_slice(&self.crc.amount().to_le_bytes());
        trailer
    }
}

/// Deflates pieces, one at a time.
#[derive(Debug)]
pub(super) struct Deflate {
    stream: Compress,
}

/// A deflated piece.
#[derive(Debug, Default)]
pub(super) struct Piece {
    bytes: Vec<u8>,
    crc: Crc,
}

impl Deflate {
    pub(super) fn new() -> Self {
        Self { stream: Compress::new(Compression::fast(), false) }
    }

    /// Makes `piece` the deflated form of `input`.
    pub(super) fn run(&mut self, input: &[u8], piece: &mut Piece) -> io::Result<()> {
        self.stream.reset();
        piece.crc.reset();
        piece.crc.update(input);
        piece.bytes.clear();
        piece.bytes.extend_from_slice(&HEADER);
        loop {
            piece.bytes.reserve((input.len() / 4).max(1024));
            let taken = self.stream.total_in() as usize;
            let status = self.stream.compress_vec(&input[taken..], &mut piece.bytes, FlushCompress::Sync);
            let done = self.stream.total_in() as usize == input.len() && piece.bytes.len() < piece.bytes.capacity();
            match status.map_err(io::Error::other)? {
                Status::Ok | Status::BufError if done => return Ok(()),
                Status::Ok | Status::BufError => {}
                Status::StreamEnd => return Err(io::Error::other("deflate ended by itself")),
            }
        }
    }
}

impl Piece {
    /// Returns the bytes to append: with the member's header where the piece begins one.
    pub(super) fn bytes(&self, begins: bool) -> &[u8] {
        if begins { &self.bytes } else { &self.bytes[HEADER.len()..] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::read::MultiGzDecoder;
    use std::io::Read;

    #[test]
    fn a_member_cut_back_and_gone_on_with_is_whole() {
        let mut deflate = Deflate::new();
        let mut piece = Piece::default();
        let mut file = Vec::new();
        let mut member = Member::default();
        let mut expected = Vec::new();
        for round in 0..40usize {
            let text = format!("line {round} {}\n", "x".repeat(round * round * 37)).into_bytes();
            deflate.run(&text, &mut piece).unwrap();
            let before = file.len();
            file.extend_from_slice(piece.bytes(before == 0));
            if round % 3 == 1 {
                file.truncate(before);
            } else {
                member = member.with(&piece);
                expected.extend_from_slice(&text);
            }
        }
        file.extend_from_slice(&member.trailer());
        let two = [file.clone(), file].concat();
        let mut plain = Vec::new();
        MultiGzDecoder::new(&two[..]).read_to_end(&mut plain).unwrap();
        assert!(plain == [expected.clone(), expected].concat());
    }
}
