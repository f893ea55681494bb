//! `check`: manifests of files, compiled as an agent compiles them; no cluster is asked.

use std::path::PathBuf;
use std::process::ExitCode;

use spillway_crds::{Compiled, check, render};

use crate::cli::Output;
use crate::exit::{self, Failure};

/// Prints what is wrong, and returns 1 when anything is.
pub fn run(paths: &[PathBuf], output: Output) -> Result<ExitCode, Failure> {
    let compiled = check::read(paths);
    exit::to_stdout(&told(&compiled, output))?;
    Ok(exit::code(compiled.errors.is_empty()))
}

/// Returns what is said of compiled manifests.
pub(crate) fn told(compiled: &Compiled, output: Output) -> String {
    match output {
        Output::Human => render::human(compiled),
        Output::Json => render::json(compiled, None),
    }
}
