//! `check`: compiles manifests and runs nothing. What `run -f` would refuse of good ones is among the warnings: in a cluster it
//! is right.

use std::process::ExitCode;

use spillway_crds::{check, render};

use crate::cli::{CheckFlags, Output};
use crate::exit::{self, Failure};

/// Prints what is wrong, and returns 1 when anything is.
pub fn run(flags: &CheckFlags) -> Result<ExitCode, Failure> {
    let compiled = check::read_standalone(&flags.manifests);
    let text = match flags.output {
        Output::Human => render::human(&compiled),
        Output::Json => render::json(&compiled),
    };
    exit::to_stdout(&text)?;
    Ok(if compiled.errors.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(exit::FAILED) })
}
