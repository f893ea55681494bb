//! The command line of `dead-letters`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};
use spillway_delivery::event::EventId;

use super::{AgentFlags, Output};

/// The subcommands of `dead-letters`.
#[derive(Debug, Subcommand)]
pub enum DeadLettersCommand {
    /// Show what there is, grouped by pipeline, route, backend and reason.
    List(ListFlags),
    /// Show events with their reasons.
    Show(ShowFlags),
    /// Write the events out as NDJSON: `event` as it was, with `id`, `origin`, `route`, `backend`, `reason` and times.
    Export(ExportFlags),
    /// Send events again, under the ids they had, to the backend that refused them or to another.
    Redrive(RedriveFlags),
    /// Give events up for good.
    Purge(PurgeFlags),
}

/// Which letters are meant.
#[derive(Debug, Clone, Default, Args)]
pub struct SelectionFlags {
    /// Of this pipeline only; without a namespace it is `default`.
    #[arg(long, value_name = "NAMESPACE/NAME")]
    pub pipeline: Option<String>,

    /// Of this route only.
    #[arg(long, value_name = "NAME")]
    pub route: Option<String>,

    /// Refused by this backend only, as the route names it.
    #[arg(long, value_name = "NAME")]
    pub backend: Option<String>,

    /// Whose reason contains this text, as `list` or `show` prints it.
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

/// Which letters are meant, and where they are.
#[derive(Debug, Clone, Args)]
pub struct LetterFlags {
    /// Which letters.
    #[command(flatten)]
    pub selection: SelectionFlags,

    /// Read this data directory instead of asking an agent; nothing in it is changed, and an agent may run over it.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub data_dir: Option<PathBuf>,

    /// Which agent.
    #[command(flatten)]
    pub agent: AgentFlags,
}

/// What `dead-letters list` can be told.
#[derive(Debug, Args)]
#[command(after_help = "Numbers and ids in reasons are written `#`, so that letters refused for one reason stand \
    together.\nExit codes: 0 done, 1 not readable or refused, 2 the agent cannot be asked.\n\nExamples:\n  \
    spillway-agent dead-letters list\n  \
    spillway-agent dead-letters list --backend search -o json\n  \
    spillway-agent dead-letters list --data-dir ./spillway-data")]
pub struct ListFlags {
    /// Which letters.
    #[command(flatten)]
    pub letters: LetterFlags,

    /// How to print.
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "human")]
    pub output: Output,
}

/// What `dead-letters show` can be told.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 done, 1 no such letter, not readable or refused, 2 the agent cannot be asked.\n\n\
    Examples:\n  \
    spillway-agent dead-letters show 8d3c1f0a5b7e9924-1f\n  \
    spillway-agent dead-letters show --reason 'mapping' --limit 5\n  \
    spillway-agent dead-letters show --route errors -o json"
)]
pub struct ShowFlags {
    /// Events by their ids.
    #[arg(value_name = "ID")]
    pub ids: Vec<EventId>,

    /// Which letters.
    #[command(flatten)]
    pub letters: LetterFlags,

    /// Show at most so many.
    #[arg(long, value_name = "COUNT", default_value_t = 20)]
    pub limit: usize,

    /// How to print: `json` is one object a line.
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "human")]
    pub output: Output,
}

/// What `dead-letters export` can be told.
#[derive(Debug, Args)]
#[command(after_help = "The letters stay where they are.\nExit codes: 0 done, 1 not readable or refused, 2 the agent \
    cannot be asked.\n\nExamples:\n  \
    spillway-agent dead-letters export > letters.ndjson\n  \
    spillway-agent dead-letters export --backend search --file letters.ndjson\n  \
    spillway-agent dead-letters export | jq -c .event")]
pub struct ExportFlags {
    /// Events by their ids. Repeatable.
    #[arg(long = "id", value_name = "ID")]
    pub ids: Vec<EventId>,

    /// Which letters.
    #[command(flatten)]
    pub letters: LetterFlags,

    /// Write to this file, which must not be there, instead of stdout.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: Option<PathBuf>,
}

/// Which letters of a running agent are meant.
#[derive(Debug, Clone, Args)]
pub struct AskedFlags {
    /// Events by their ids. Repeatable.
    #[arg(long = "id", value_name = "ID")]
    pub ids: Vec<EventId>,

    /// Which letters.
    #[command(flatten)]
    pub selection: SelectionFlags,

    /// All of them: needed where nothing else is selected.
    #[arg(long)]
    pub all: bool,

    /// Which agent.
    #[command(flatten)]
    pub agent: AgentFlags,

    /// How to print.
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "human")]
    pub output: Output,
}

/// What `dead-letters redrive` can be told.
#[derive(Debug, Args)]
#[command(
    after_help = "One job begins for each route and backend; `spillway-agent jobs list` shows how far it is. A letter \
    goes when a backend has its event; one that is refused again is a dead letter again.\n\
    Exit codes: 0 begun, 1 refused or nothing to redrive, 2 the agent cannot be asked.\n\nExamples:\n  \
    spillway-agent dead-letters redrive --all\n  \
    spillway-agent dead-letters redrive --backend search --reason 'mapping' --limit 100\n  \
    spillway-agent dead-letters redrive --id 8d3c1f0a5b7e9924-1f --to archive"
)]
pub struct RedriveFlags {
    /// Which letters.
    #[command(flatten)]
    pub asked: AskedFlags,

    /// At most so many, the oldest first.
    #[arg(long, value_name = "COUNT")]
    pub limit: Option<u64>,

    /// Send to this backend of the pipeline's namespace instead of the one that refused them.
    #[arg(long, value_name = "NAME")]
    pub to: Option<String>,
}

/// What `dead-letters purge` can be told.
#[derive(Debug, Args)]
#[command(after_help = "They are counted `purged` in the ledger; `export` first what may still be wanted.\n\
    Exit codes: 0 done, 1 refused, 2 the agent cannot be asked.\n\nExamples:\n  \
    spillway-agent dead-letters purge --reason 'too old'\n  \
    spillway-agent dead-letters purge --all")]
pub struct PurgeFlags {
    /// Which letters.
    #[command(flatten)]
    pub asked: AskedFlags,
}
