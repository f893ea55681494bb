//! Bodies, compressed: the same bytes for the same input, and off the reactor's threads where it takes long.

use std::io::{self, Write};

use flate2::write::GzEncoder;
use spillway_delivery::backend::{Fault, FaultKind};

use crate::settings::Compression;

/// Bodies above this size are compressed off the reactor's threads: below, the hop costs more (1 ms at 64 MiB/s).
const INLINE_BYTES_MAX: usize = 64 << 10;

/// Level of zstd: the fastest of its usual ones, as with gzip.
const ZSTD_LEVEL: i32 = 1;

/// Returns `body` as `compression` says.
///
/// # Cancel safety
/// The work on a large body goes on to its end on its own thread.
pub(crate) async fn compress(body: Vec<u8>, compression: Compression) -> Result<Vec<u8>, Fault> {
    let compress: fn(&[u8]) -> io::Result<Vec<u8>> = match compression {
        Compression::None => return Ok(body),
        Compression::Gzip => gzip,
        Compression::Zstd => |body| zstd::bulk::compress(body, ZSTD_LEVEL),
    };
    let compressed = if body.len() <= INLINE_BYTES_MAX {
        compress(&body)
    } else {
        let compressing = tokio::task::spawn_blocking(move || compress(&body));
        compressing.await.map_err(|_| Fault::new(FaultKind::Local, "compression was abandoned"))?
    };
    compressed.map_err(|error| Fault::new(FaultKind::Local, format_args!("compression failed: {error}")))
}

fn gzip(body: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), flate2::Compression::fast());
    encoder.write_all(body)?;
    encoder.finish()
}
