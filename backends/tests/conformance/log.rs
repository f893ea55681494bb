//! What was logged, to be searched.

use std::io::Write;
use std::sync::{Arc, Mutex, OnceLock};

/// The lines of one thread.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// Returns the lines of our own crates that hold any of `parts`: what a dependency tells at trace level is the host's
    /// choice to print.
    pub(crate) fn lines_with(&self, parts: &[&str]) -> Vec<String> {
        let text = String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned();
        let lines =
            text.lines().filter(|line| line.contains(" spillway_") && parts.iter().any(|part| line.contains(part)));
        lines.map(str::to_owned).collect()
    }
}

/// Logs everything of this thread to `log` for as long as the guard lives.
pub(crate) fn logged_to(log: &Log) -> tracing::subscriber::DefaultGuard {
    // With a single subscriber in the process, a place that logs is switched off for good by the first thread without one
    // that comes along there.
    static ANOTHER: OnceLock<tracing::Dispatch> = OnceLock::new();
    ANOTHER.get_or_init(|| tracing::Dispatch::new(tracing_subscriber::registry()));
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::set_default(subscriber)
}
