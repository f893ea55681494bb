//! An answer as bytes: JSON, compressed with gzip where the client takes it, bounded before compression.
//!
//! # Guarantees
//! Secrets are not compressed, neither with what is around them nor with one another: they stand in stored blocks of the
//! gzip stream. So the length of an answer tells the length of a secret and nothing of what is in it, to whoever sees the
//! lengths of records on the wire and may put text of his own beside it, into a manifest or another secret.

use bytes::Bytes;
use flate2::{Compress, Compression, Crc, FlushCompress, Status};
use http::HeaderMap;
use http::header::ACCEPT_ENCODING;
use spillway_crds::served::ANSWER_BYTES_MAX;

use crate::hub::News;

/// What a gzip stream of unknown time and system begins with.
const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

/// Most bytes of a stored block.
const STORED_BYTES_MAX: usize = 65_535;

/// How much room a step of compression is given.
const ROOM_BYTES: usize = 16 * 1024;

/// How the body of an answer is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    /// As it is.
    Identity,
    /// With gzip.
    Gzip,
}

/// Why there is no body.
#[derive(Debug, thiserror::Error)]
pub(super) enum EncodeError {
    /// It is not JSON.
    #[error("the answer is not JSON")]
    Json(#[from] serde_json::Error),
    /// It is too large.
    #[error("the answer has {bytes} bytes, at most {ANSWER_BYTES_MAX} are sent")]
    TooLarge {
        /// How large.
        bytes: usize,
    },
    /// It is not gzip.
    #[error("the answer cannot be compressed")]
    Gzip(#[from] flate2::CompressError),
}

impl Coding {
    /// Returns what a client takes that sends these headers.
    pub(super) fn taken(headers: &HeaderMap) -> Self {
        let values = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
        let mut codings = values.flat_map(|value| value.split(',')).map(|coding| {
            let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
            let is_taken = weight.trim().strip_prefix("q=").is_none_or(|q| q.parse::<f32>().is_ok_and(|q| q > 0.0));
            (name.trim(), is_taken)
        });
        let is_gzip = codings.any(|(name, is_taken)| is_taken && name.eq_ignore_ascii_case("gzip"));
        if is_gzip { Self::Gzip } else { Self::Identity }
    }

    /// Returns `news` in this coding.
    pub(super) fn encode(self, news: &News) -> Result<Bytes, EncodeError> {
        let pieces = news.to_json()?;
        let bytes = pieces.iter().map(Vec::len).sum();
        if bytes > ANSWER_BYTES_MAX {
            return Err(EncodeError::TooLarge { bytes });
        }
        Ok(Bytes::from(match self {
            Self::Identity => pieces.concat(),
            Self::Gzip => gzip(&pieces)?,
        }))
    }
}

/// Returns the three pieces as one gzip stream, the one in the middle stored.
fn gzip([before, apart, after]: &[Vec<u8>; 3]) -> Result<Vec<u8>, flate2::CompressError> {
    let mut out = GZIP_HEADER.to_vec();
    // The fastest level: on manifests it is within a tenth of the default one in size.
    let mut compress = Compress::new(Compression::fast(), false);
    // A full flush ends at a byte, and nothing behind it refers to anything before.
    deflate(&mut compress, before, FlushCompress::Full, &mut out)?;
    for block in apart.chunks(STORED_BYTES_MAX) {
        let length = block.len() as u16;
        out.push(0);
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&(!length).to_le_bytes());
        out.extend_from_slice(block);
    }
    deflate(&mut compress, after, FlushCompress::Finish, &mut out)?;
    let mut checksum = Crc::new();
    [before, apart, after].into_iter().for_each(|piece| checksum.update(piece));
    out.extend_from_slice(&checksum.sum().to_le_bytes());
    out.extend_from_slice(&checksum.amount().to_le_bytes());
    Ok(out)
}

fn deflate(
    compress: &mut Compress,
    piece: &[u8],
    flush: FlushCompress,
    out: &mut Vec<u8>,
) -> Result<(), flate2::CompressError> {
    let began = compress.total_in();
    loop {
        out.reserve(ROOM_BYTES);
        let left = &piece[(compress.total_in() - began) as usize..];
        let status = compress.compress_vec(left, out, flush)?;
        let is_whole = compress.total_in() - began == piece.len() as u64;
        // A flush is over when it left room.
        if status == Status::StreamEnd || (flush == FlushCompress::Full && is_whole && out.len() < out.capacity()) {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn taken(value: &'static str) -> Coding {
        Coding::taken(&HeaderMap::from_iter([(ACCEPT_ENCODING, http::HeaderValue::from_static(value))]))
    }

    fn unpacked(packed: &[u8]) -> Vec<u8> {
        let mut unpacked = Vec::new();
        flate2::read::GzDecoder::new(packed).read_to_end(&mut unpacked).unwrap();
        unpacked
    }

    /// Returns bytes that do not compress, others for each seed.
    fn noise(seed: u64, length: usize) -> Vec<u8> {
        let next =
            |state: &u64| Some(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963));
        std::iter::successors(Some(seed), next).skip(8).take(length).map(|state| (state >> 56) as u8).collect()
    }

    #[test]
    fn gzip_is_used_where_it_is_taken() {
        assert_eq!(Coding::taken(&HeaderMap::new()), Coding::Identity);
        for value in ["gzip", "br, GZIP", "zstd;q=1.0, gzip;q=0.5", "gzip ; q=1"] {
            assert_eq!(taken(value), Coding::Gzip, "{value}");
        }
        for value in ["", "br", "gzip;q=0", "gzip;q=0.000", "gzip;q=x", "x-gzip2"] {
            assert_eq!(taken(value), Coding::Identity, "{value}");
        }
    }

    #[test]
    fn what_was_packed_is_unpacked_to_the_same() {
        let text = b"the same again ".repeat(10_000);
        let sizes = [0, 1, 100, ROOM_BYTES - 1, ROOM_BYTES, STORED_BYTES_MAX, STORED_BYTES_MAX + 1, 300_000];
        for size in sizes {
            for pieces in [
                [text.clone(), noise(1, size), text.clone()],
                [noise(2, size), text.clone(), noise(3, size)],
                [text[..size.min(text.len())].to_vec(), Vec::new(), Vec::new()],
                [Vec::new(), noise(4, size), Vec::new()],
            ] {
                assert_eq!(unpacked(&gzip(&pieces).unwrap()), pieces.concat(), "{size}");
            }
        }
        assert!(gzip(&[text.clone(), Vec::new(), text.clone()]).unwrap().len() * 10 < text.len());
    }

    #[test]
    fn the_length_tells_nothing_of_what_a_secret_has_in_common_with_the_rest() {
        let (secret, other) = (noise(1, 64), noise(2, 64));
        let around = |text: &[u8]| [b"manifests of a tenant: ", text].concat();
        let length =
            |text: &[u8], secrets: &[&[u8]]| gzip(&[around(text), secrets.concat(), around(text)]).unwrap().len();
        assert_eq!(length(&secret, &[&secret]), length(&secret, &[&other]), "a guess in a manifest");
        assert_eq!(length(b"", &[&secret, &secret]), length(b"", &[&secret, &other]), "a guess in a secret");
        assert_eq!(length(b"", &[&secret]), length(b"", &[&[b'a'; 64]]), "a secret that compresses well");
    }
}
