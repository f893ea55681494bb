//! How a command ends.
//!
//! | code | meaning |
//! | --- | --- |
//! | 0 | nothing is wrong |
//! | 1 | something is, and it is said what |
//! | 2 | not understood, or the cluster cannot be asked |

use std::io::{self, Write};
use std::process::ExitCode;

/// Something is wrong.
pub const WRONG: u8 = 1;
/// Not understood, or not to be had.
pub const FAILED: u8 = 2;

/// Why a command could not do what it is for.
#[derive(Debug)]
pub struct Failure(anyhow::Error);

impl Failure {
    /// Returns a failure.
    pub fn new(error: impl Into<anyhow::Error>) -> Self {
        Self(error.into())
    }

    /// Prints it with its causes on one line of stderr, and returns the exit code.
    pub fn report(&self) -> ExitCode {
        to_stderr(&format!("error: {:#}\n", self.0));
        ExitCode::from(FAILED)
    }
}

/// Returns the code of a command that found nothing wrong, or something.
pub fn code(is_well: bool) -> ExitCode {
    if is_well { ExitCode::SUCCESS } else { ExitCode::from(WRONG) }
}

/// Writes `text` to stdout. A reader that went away (`| head`) is no failure.
pub fn to_stdout(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(anyhow::Error::new(error).context("stdout cannot be written")))
        }
        _ => Ok(()),
    }
}

/// Writes `text` to stderr; when even that fails there is nobody left to tell.
pub fn to_stderr(text: &str) {
    io::stderr().lock().write_all(text.as_bytes()).unwrap_or_default();
}
