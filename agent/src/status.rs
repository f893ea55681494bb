//! `status`: asks a running agent for its ledger, prints it, and says in words what is wrong.

use std::io::IsTerminal;
use std::process::ExitCode;

use crate::ask::Asker;
use crate::cli::{Output, StatusFlags};
use crate::exit::{self, Failure};

mod problems;
mod render;
mod report;
mod units;

pub use problems::problems;
pub use render::{Paint, render};
pub use report::{Excluded, Listener, Phase, Source, StatusReport};
pub use units::{age, bytes, counted, plain, span, time};

/// Asks, prints, and returns 0 when everything flows, 1 when something is wrong; a failure to ask is 2.
pub fn run(flags: &StatusFlags) -> Result<ExitCode, Failure> {
    let json = Asker::new(&flags.agent)?.get("/v1/status")?;
    let report: StatusReport = serde_json::from_slice(&json).map_err(|error| {
        let error =
            anyhow::Error::new(error).context("the answer is not the status of a spillway-agent of this version");
        Failure::usage("status-answer", error)
    })?;
    let text = match flags.output {
        Output::Json => serde_json::to_string_pretty(&report).unwrap_or_default() + "\n",
        Output::Human => render(&report, Paint::on(std::io::stdout().is_terminal())),
    };
    exit::to_stdout(&text)?;
    Ok(if problems(&report).is_empty() { ExitCode::SUCCESS } else { ExitCode::from(exit::FAILED) })
}
