//! Letters of a running agent sent again, or given up.

use std::process::ExitCode;

use anyhow::anyhow;
use serde_json::json;
use spillway_delivery::deliver::dead_letters::Selection;
use spillway_delivery::deliver::jobs::Redriven;

use super::letters::{full_name, selection_of};
use crate::ask::Asker;
use crate::cli::{AskedFlags, Output, PurgeFlags, RedriveFlags};
use crate::exit::{self, Failure};
use crate::jobs::{begun, understood};
use crate::status::{counted, plain};

/// Begins redriving and says what runs.
pub(super) fn redrive(flags: &RedriveFlags) -> Result<ExitCode, Failure> {
    let (pipeline, selection) = meant(&flags.asked)?;
    let request = json!({ "pipeline": pipeline, "selection": selection, "limit": flags.limit, "to": flags.to });
    let answer = Asker::new(&flags.asked.agent)?.post("/v1/dead-letters/redrive", &request)?;
    let redriven: Redriven = understood(&answer)?;
    let text = match flags.asked.output {
        Output::Json => serde_json::to_string_pretty(&redriven).unwrap_or_default() + "\n",
        Output::Human if redriven.jobs.is_empty() => String::new(),
        Output::Human => {
            let letters = redriven.jobs.iter().map(|job| job.selected).sum();
            begun(&format!("{} again", counted(letters, "dead letter")), &redriven.jobs)
        }
    };
    exit::to_stdout(&text)?;
    for refused in &redriven.refused {
        exit::to_stderr(&format!("not redriven: {}\n", plain(refused)));
    }
    Ok(if redriven.refused.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(exit::FAILED) })
}

/// Gives letters up.
pub(super) fn purge(flags: &PurgeFlags) -> Result<ExitCode, Failure> {
    let (pipeline, selection) = meant(&flags.asked)?;
    let request = json!({ "pipeline": pipeline, "selection": selection });
    let answer = Asker::new(&flags.asked.agent)?.post("/v1/dead-letters/purge", &request)?;
    let purged: serde_json::Value = understood(&answer)?;
    let text = match flags.asked.output {
        Output::Json => format!("{purged}\n"),
        Output::Human => format!("{} purged\n", counted(purged["purged"].as_u64().unwrap_or(0), "dead letter")),
    };
    exit::to_stdout(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// Returns the pipeline and the letters that are meant; everything only where that is said.
fn meant(flags: &AskedFlags) -> Result<(Option<String>, Selection), Failure> {
    let selection = selection_of(&flags.selection, &flags.ids)?;
    let pipeline = flags.selection.pipeline.as_deref().map(full_name);
    if selection == Selection::default() && pipeline.is_none() && !flags.all {
        let error = anyhow!("nothing is selected, allowed: --pipeline, --route, --backend, --reason, --id or --all");
        return Err(Failure::usage("nothing-selected", error));
    }
    Ok((pipeline, selection))
}
