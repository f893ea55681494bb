//! An answer as bytes: JSON, compressed with gzip where the client takes it, bounded before compression.

use std::io::{self, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::HeaderMap;
use http::header::ACCEPT_ENCODING;
use serde::Serialize;
use spillway_crds::served::ANSWER_BYTES_MAX;

/// How the body of an answer is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    /// As it is.
    Identity,
    /// With gzip.
    Gzip,
}

/// The answer has more than [`ANSWER_BYTES_MAX`].
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLarge;

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

    /// Returns `answer` in this coding.
    pub(super) fn encode(self, answer: &impl Serialize) -> Result<Bytes, TooLarge> {
        match self {
            Self::Identity => write(answer, Vec::new()),
            // The fastest level: on manifests it is within a tenth of the default one in size.
            Self::Gzip => write(answer, GzEncoder::new(Vec::new(), Compression::fast()))
                .and_then(|encoder| encoder.finish().map_err(|_| TooLarge)),
        }
        .map(Bytes::from)
    }
}

fn write<W: Write>(answer: &impl Serialize, inner: W) -> Result<W, TooLarge> {
    let mut bounded = Bounded { inner, left: ANSWER_BYTES_MAX };
    // Writing into memory fails at the bound alone, and an answer has no keys that JSON has not.
    serde_json::to_writer(&mut bounded, answer).map_err(|_| TooLarge)?;
    Ok(bounded.inner)
}

/// Takes so many bytes and no more.
struct Bounded<W> {
    inner: W,
    left: usize,
}

impl<W: Write> Write for Bounded<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.left = self.left.checked_sub(bytes.len()).ok_or(io::ErrorKind::FileTooLarge)?;
        self.inner.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn taken(value: &'static str) -> Coding {
        Coding::taken(&HeaderMap::from_iter([(ACCEPT_ENCODING, http::HeaderValue::from_static(value))]))
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
    fn what_was_encoded_is_decoded_to_the_same_and_smaller_in_between() {
        let answer = vec!["the same again"; 1000];
        let plain = Coding::Identity.encode(&answer).unwrap();
        let packed = Coding::Gzip.encode(&answer).unwrap();
        assert!(packed.len() * 10 < plain.len());
        let mut unpacked = Vec::new();
        flate2::read::GzDecoder::new(&*packed).read_to_end(&mut unpacked).unwrap();
        assert_eq!(unpacked, plain);
    }

    #[test]
    fn an_answer_beyond_the_bound_is_told_in_either_coding() {
        let large = "x".repeat(ANSWER_BYTES_MAX - 1);
        for coding in [Coding::Identity, Coding::Gzip] {
            assert_eq!(coding.encode(&large), Err(TooLarge));
            assert!(coding.encode(&&large[1..]).is_ok());
        }
    }
}
