//! The client of `Stdout`.

use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use spillway_delivery::backend::{Backend, Fault, FaultKind, Items, OutBatch, Outcome, Traits};
use spillway_delivery::settings::Metadata;
use tokio::sync::Mutex;

/// Writes to the standard output, or to what a test puts in its place.
pub struct Stdout {
    metadata: Metadata,
    /// Held by the write itself, on its thread: a second one waits here, however the first one's caller ended.
    output: Arc<Mutex<Output>>,
}

struct Output {
    writer: Box<dyn Write + Send>,
    lines: Vec<u8>,
}

impl Stdout {
    /// Returns the backend over the standard output of the process.
    pub fn new(metadata: Metadata) -> Self {
        Self::over(Box::new(io::stdout()), metadata)
    }

    /// Returns the backend over `writer`.
    pub fn over(writer: Box<dyn Write + Send>, metadata: Metadata) -> Self {
        Self { metadata, output: Arc::new(Mutex::new(Output { writer, lines: Vec::new() })) }
    }
}

impl fmt::Debug for Stdout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stdout").field("metadata", &self.metadata).finish_non_exhaustive()
    }
}

impl Backend for Stdout {
    /// # Cancel safety
    /// A write that has begun goes on to its end; the batch may then be written twice.
    fn send<'a>(&'a self, batch: &'a OutBatch) -> BoxFuture<'a, Result<Items, Fault>> {
        Box::pin(async {
            let mut output = self.output.clone().lock_owned().await;
            output.lines.clear();
            batch.write_ndjson(&mut output.lines, self.metadata);
            let written = tokio::task::spawn_blocking(move || {
                let Output { writer, lines } = &mut *output;
                writer.write_all(lines).and_then(|()| writer.flush())
            });
            match written.await {
                Ok(Ok(())) => Ok(Items::All(Outcome::Delivered)),
                Ok(Err(error)) => Err(Fault::new(FaultKind::Local, format_args!("standard output: {error}"))),
                Err(_) => Err(Fault::new(FaultKind::Local, "the write was abandoned")),
            }
        })
    }

    fn traits(&self) -> Traits {
        Traits { ordered: true, local: true, ..Traits::default() }
    }
}
