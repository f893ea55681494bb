//! Bodies, compressed: the same bytes for the same input, and off the reactor's threads where it takes long.

use std::io::{self, Write};

use flate2::write::GzEncoder;
use spillway_delivery::backend::{Fault, FaultKind};

use crate::settings::Compression;

/// Bodies above this size are compressed off the reactor's threads: below, the hop costs more (1 ms at 64 MiB/s).
const INLINE_BYTES_MAX: usize = 64 << 10;

/// Returns `body` as `compression` says.
///
/// # Cancel safety
/// The work on a large body goes on to its end on its own thread.
pub(crate) async fn compress(body: Vec<u8>, compression: Compression) -> Result<Vec<u8>, Fault> {
    let compressed = match compression {
        Compression::None => return Ok(body),
        Compression::Gzip if body.len() <= INLINE_BYTES_MAX => gzip(&body),
        Compression::Gzip => tokio::task::spawn_blocking(move || gzip(&body))
            .await
            .map_err(|_| Fault::new(FaultKind::Local, "compression was abandoned"))?,
    };
    compressed.map_err(|error| Fault::new(FaultKind::Local, format_args!("compression failed: {error}")))
}

fn gzip(body: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), flate2::Compression::fast());
    encoder.write_all(body)?;
    encoder.finish()
}
