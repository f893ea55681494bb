//! The command line of `replay` and `jobs`.

use clap::{Args, Subcommand};

use super::{AgentFlags, Output};

/// What `replay` can be told.
#[derive(Debug, Args)]
#[command(
    after_help = "Data is there for `buffer.retainSeconds` after it was delivered. Events are sent as they were \
    routed then, under the ids they had, while the pipeline goes on; see `jobs list` for how far it is.\n\
    FROM and TO are `oldest`, `now`, a time (RFC 3339), a span before now (90s, 30m, 2h, 1d) or a sequence.\n\
    Exit codes: 0 begun, 1 refused (with what is left), 2 the agent cannot be asked.\n\nExamples:\n  \
    spillway-agent replay --pipeline fab12/etch-line --route errors --from 2h --dry-run\n  \
    spillway-agent replay --pipeline jobs --route all --from 2026-11-23T10:00:00Z --to 2026-11-23T11:00:00Z\n  \
    spillway-agent replay --pipeline jobs --route all --from oldest --to now --backend archive"
)]
pub struct ReplayFlags {
    /// The pipeline; without a namespace it is `default`.
    #[arg(long, value_name = "NAMESPACE/NAME")]
    pub pipeline: String,

    /// The events of this route.
    #[arg(long, value_name = "NAME")]
    pub route: String,

    /// Where to begin.
    #[arg(long, value_name = "FROM")]
    pub from: String,

    /// Where to end, not included.
    #[arg(long, value_name = "TO", default_value = "now")]
    pub to: String,

    /// Send to this backend instead of those of the route: one that the route names, else a `Backend` of
    /// the pipeline's namespace, else a `ClusterBackend`; without it, where the first healthy one sends, to
    /// the one that is active now.
    #[arg(long, value_name = "NAME")]
    pub backend: Option<String>,

    /// Only say what would be sent.
    #[arg(long)]
    pub dry_run: bool,

    /// Which agent.
    #[command(flatten)]
    pub agent: AgentFlags,

    /// How to print.
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "human")]
    pub output: Output,
}

/// The subcommands of `jobs`.
#[derive(Debug, Subcommand)]
pub enum JobsCommand {
    /// Show the redrives and replays, and how far they are.
    List(JobsFlags),
    /// End one: what is under way lands, the rest stays where it is.
    Cancel(CancelFlags),
}

/// What `jobs list` can be told.
#[derive(Debug, Args)]
#[command(after_help = "Exit codes: 0 done, 2 the agent cannot be asked.\n\nExamples:\n  \
    spillway-agent jobs list\n  \
    spillway-agent jobs list -o json")]
pub struct JobsFlags {
    /// Which agent.
    #[command(flatten)]
    pub agent: AgentFlags,

    /// How to print.
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "human")]
    pub output: Output,
}

/// What `jobs cancel` can be told.
#[derive(Debug, Args)]
#[command(
    after_help = "Dead letters that were not redriven stay dead letters.\nExit codes: 0 done, 1 no such job runs, \
    2 the agent cannot be asked.\n\nExample:\n  \
    spillway-agent jobs cancel 3f21a9c0"
)]
pub struct CancelFlags {
    /// The job, as `jobs list` names it.
    #[arg(value_name = "ID")]
    pub id: String,

    /// Which agent.
    #[command(flatten)]
    pub agent: AgentFlags,
}
