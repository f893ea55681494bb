//! How a command ends: exit codes that scripts may rely on, and the one place that prints a failure.
//!
//! | code | meaning |
//! | --- | --- |
//! | 0 | done; `run`: ended by a signal after its drain, `status`: everything flows |
//! | 1 | failed; `run`: could not start, `check`: errors in the manifests, `status`: something is wrong |
//! | 2 | not understood: bad flag, variable or configuration file; `status`: the agent cannot be asked |
//! | 70 | `run`: a task of the process panicked; what was acknowledged is in the log |
//! | 130, 143 | `run`: a second SIGINT or SIGTERM cut the drain short |

use std::fmt;
use std::process::ExitCode;

use spillway_crds::words;

/// Failed.
pub const FAILED: u8 = 1;
/// Not understood.
pub const USAGE: u8 = 2;
/// A task of the process panicked (`EX_SOFTWARE` of `sysexits.h`).
pub const PANICKED: u8 = 70;
/// A second SIGINT came during the drain: 128 + 2.
pub const INTERRUPTED: u8 = 130;
/// A second SIGTERM came during the drain: 128 + 15.
pub const TERMINATED: u8 = 143;

/// Why a command failed: what people read, and what scripts read.
#[derive(Debug)]
pub struct Failure {
    exit: u8,
    code: &'static str,
    error: anyhow::Error,
    next: Option<&'static str>,
}

impl Failure {
    /// Returns a failure to do what was asked. `code` is stable and names the kind of failure.
    pub fn failed(code: &'static str, error: impl Into<anyhow::Error>) -> Self {
        Self { exit: FAILED, code, error: error.into(), next: None }
    }

    /// Returns a failure to understand what was asked.
    pub fn usage(code: &'static str, error: impl Into<anyhow::Error>) -> Self {
        Self { exit: USAGE, code, error: error.into(), next: None }
    }

    /// Adds what to do next.
    #[must_use]
    pub fn next(self, step: &'static str) -> Self {
        Self { next: Some(step), ..self }
    }

    /// Returns the stable code.
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// Prints the failure with all its causes on one line of stderr and returns the exit code.
    pub fn report(&self) -> ExitCode {
        to_stderr(&format!("{self}\n"));
        ExitCode::from(self.exit)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error[{}]: {:#}", self.code, self.error)?;
        self.next.map_or(Ok(()), |step| write!(f, "; next: {step}"))
    }
}

/// Writes `text` to stdout. A reader that went away (`| head`) is no failure.
pub fn to_stdout(text: &str) -> Result<(), Failure> {
    words::to_stdout(text)
        .map_err(|error| Failure::failed("stdout", anyhow::Error::new(error).context("stdout cannot be written")))
}

/// Writes `text` to stderr; when even that fails there is nobody left to tell.
pub fn to_stderr(text: &str) {
    words::to_stderr(text);
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn a_failure_prints_each_cause_once_and_what_to_do_next() {
        let cause = io::Error::other("no such device");
        let failure = Failure::failed("data-dir", anyhow::Error::new(cause).context("data directory d is not usable"));
        assert_eq!(failure.to_string(), "error[data-dir]: data directory d is not usable: no such device");
        let next = failure.next("give another one").to_string();
        assert!(next.ends_with("no such device; next: give another one"), "{next}");
    }
}
