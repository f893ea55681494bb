//! How what is appended is packed, so that a file can be cut back to any batch (pure).
//!
//! | compression | a piece is | a file is whole |
//! | --- | --- | --- |
//! | none | the lines | always |
//! | gzip | part of a member, ended by a sync flush | once the member is closed, at a commit |
//! | zstd | a frame, with its own checksum | always |
//!
//! Both packers begin anew with each piece, so that a piece needs nothing of the ones before.

use std::io;

use zstd::bulk::Compressor;
use zstd::zstd_safe::{CParameter, compress_bound};

use super::gzip::{Deflate, Member, Piece, TRAILER_BYTES};
use crate::settings::Compression;

/// Level of zstd: the fastest of its usual ones, as with gzip.
const ZSTD_LEVEL: i32 = 1;

/// Packs pieces, one at a time.
#[derive(Default)]
pub(super) enum Pack {
    /// As they are.
    #[default]
    Plain,
    /// Deflated.
    Gzip(Box<(Deflate, Piece)>),
    /// As zstd frames.
    Zstd(Compressor<'static>, Vec<u8>),
}

impl Pack {
    pub(super) fn new(compression: Compression) -> io::Result<Self> {
        Ok(match compression {
            Compression::None => Self::Plain,
            Compression::Gzip => Self::Gzip(Box::new((Deflate::new(), Piece::default()))),
            Compression::Zstd => {
                let mut compressor = Compressor::new(ZSTD_LEVEL)?;
                compressor.set_parameter(CParameter::ChecksumFlag(true))?;
                Self::Zstd(compressor, Vec::new())
            }
        })
    }

    /// Packs `lines` as the next piece; returns the most bytes it adds to a file.
    pub(super) fn run(&mut self, lines: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain => Ok(lines.len()),
            Self::Gzip(gzip) => {
                gzip.0.run(lines, &mut gzip.1)?;
                Ok(gzip.1.bytes(true).len() + TRAILER_BYTES)
            }
            Self::Zstd(compressor, frame) => {
                frame.clear();
                frame.reserve(compress_bound(lines.len()));
                compressor.compress_to_buffer(lines, frame)
            }
        }
    }

    /// Returns the bytes of the piece made of `lines`, to be appended behind `member`.
    pub(super) fn bytes<'a>(&'a self, lines: &'a [u8], member: Option<&Member>) -> &'a [u8] {
        match self {
            Self::Plain => lines,
            Self::Gzip(gzip) => gzip.1.bytes(member.is_none()),
            Self::Zstd(_, frame) => frame,
        }
    }

    /// Returns the member with the piece behind it.
    pub(super) fn behind(&self, member: Option<Member>) -> Option<Member> {
        match self {
            Self::Gzip(gzip) => Some(member.unwrap_or_default().with(&gzip.1)),
            Self::Plain | Self::Zstd(..) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_behind_each_other_are_one_file_and_a_cut_one_is_noticed() {
        let mut pack = Pack::new(Compression::Zstd).unwrap();
        let (mut file, mut expected) = (Vec::new(), Vec::new());
        for round in 0..40usize {
            let text = format!("line {round} {}\n", "x".repeat(round * round * 37)).into_bytes();
            let size = pack.run(&text).unwrap();
            let frame = pack.bytes(&text, None);
            assert_eq!(frame.len(), size);
            if round % 3 != 1 {
                file.extend_from_slice(frame);
                expected.extend_from_slice(&text);
            }
        }
        assert!(zstd::decode_all(&file[..]).unwrap() == expected);
        assert!(zstd::decode_all(&file[..file.len() - 1]).is_err());
        let last = file.len() - 20;
        file[last] ^= 1;
        assert!(zstd::decode_all(&file[..]).is_err(), "the checksum tells");
    }
}
