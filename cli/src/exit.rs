//! How a command ends.
//!
//! | code | meaning |
//! | --- | --- |
//! | 0 | nothing is wrong |
//! | 1 | something is, and it is said what |
//! | 2 | not understood, or the cluster cannot be asked |

use std::fmt;
use std::process::ExitCode;

use spillway_crds::words;

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
        to_stderr(&format!("error: {self}\n"));
        ExitCode::from(FAILED)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.0)
    }
}

/// Returns the code of a command that found nothing wrong, or something.
pub fn code(is_well: bool) -> ExitCode {
    if is_well { ExitCode::SUCCESS } else { ExitCode::from(WRONG) }
}

/// Writes `text` to stdout. A reader that went away (`| head`) is no failure.
pub fn to_stdout(text: &str) -> Result<(), Failure> {
    words::to_stdout(text).map_err(|error| Failure::new(anyhow::Error::new(error).context("stdout cannot be written")))
}

/// Writes `text` to stderr; when even that fails there is nobody left to tell.
pub fn to_stderr(text: &str) {
    words::to_stderr(text);
}
