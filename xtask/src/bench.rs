//! The numbers of the agent beside a bare floor, in one run on one machine: `cargo xtask bench`.
//!
//! ```text
//! core 1: this process (senders, receivers)  ◄──►  core 0: the agent, release build, or the floor
//! ```
//!
//! A floor ([`floor`]) does the same input and the same output as the agent and nothing else. Agent and floor take turns,
//! so that what else the machine does meets both. CPU is user and system time of the whole process as the kernel counts
//! it, from its start to its end; memory is `RssAnon`. Every figure is the median of some runs and is shown with the
//! lowest and the highest. What is measured is never a test: a missed bar is said in the table, and the command succeeds.
//!
//! Bounds: every wait ends after [`process::WAIT_MAX`]; at most some 12 GB of scratch files below the build folder, removed
//! at the end.

mod bulk;
mod fanout;
mod floor;
mod http;
mod http2;
mod intake;
mod load;
mod machine;
mod memory;
mod otlp;
mod process;
mod receiver;
mod scratch;
mod server;
mod table;
mod tail;
mod transforms;

use std::path::PathBuf;

use crate::bench::machine::Machine;
use crate::bench::scratch::Scratch;
use crate::bench::table::{Row, Table};
use crate::workspace::{Workspace, must_succeed};

/// Where the table is kept.
const TABLE: &str = "docs/explanation/benchmarks.md";

/// What `cargo xtask bench` can be told.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Few events and one run each: says whether the benchmark works, not how fast the agent is
    #[arg(long)]
    quick: bool,
    /// Measures this alone
    #[arg(long, value_name = "NAME")]
    only: Option<Case>,
    /// Measures this agent instead of building one
    #[arg(long, value_name = "PROGRAM")]
    agent: Option<PathBuf>,
    /// Reads and writes in this folder instead of the build folder: on another disk, or in memory
    #[arg(long, value_name = "FOLDER")]
    scratch: Option<PathBuf>,
    /// Writes the table to docs/explanation/benchmarks.md
    #[arg(long)]
    write: bool,
    #[command(subcommand)]
    role: Option<Role>,
}

/// What this program is when the benchmark starts it as a child.
#[derive(Debug, clap::Subcommand)]
enum Role {
    /// A bare loop to compare the agent with
    #[command(subcommand, hide = true)]
    Floor(floor::Floor),
}

/// One thing that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Case {
    Tail,
    Process,
    Disk,
    Memory,
    Held,
    Bulk,
    Dead,
    Transforms,
    Otlp,
}

/// How much is done.
#[derive(Debug, Clone, Copy)]
struct Scale {
    runs: usize,
    tail_lines: u64,
    intake_bodies: u64,
    rate_seconds: u64,
    held: &'static [Held],
}

/// How much a dead receiver makes the agent hold.
#[derive(Debug, Clone, Copy)]
struct Held {
    bytes: u64,
    runs: usize,
    /// Within how many seconds a start with it shall be ready.
    start_max: f64,
}

impl Scale {
    const FULL: Self = Self {
        runs: 3,
        tail_lines: 1_000_000,
        intake_bodies: 2_000,
        rate_seconds: 20,
        held: &[Held { bytes: 1 << 30, runs: 2, start_max: 0.5 }, Held { bytes: 5 << 30, runs: 1, start_max: 1.0 }],
    };
    const QUICK: Self = Self {
        runs: 1,
        tail_lines: 200_000,
        intake_bodies: 100,
        rate_seconds: 4,
        held: &[Held { bytes: 128 << 20, runs: 1, start_max: 0.5 }],
    };
}

/// What every case needs.
#[derive(Debug)]
struct Bench {
    agent: PathBuf,
    /// This program, built for release like the agent: it is the floor.
    floor: PathBuf,
    scratch: Scratch,
    scale: Scale,
}

/// Runs the benchmark, or the floor it has started.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> anyhow::Result<()> {
    if let Some(Role::Floor(floor)) = &arguments.role {
        return floor.run();
    }
    let release = workspace.target().join("release");
    println!("building for release (the first time takes minutes)");
    must_succeed(&mut workspace.cargo(&["build", "--locked", "--release", "--package", "xtask"]))?;
    if arguments.agent.is_none() {
        must_succeed(&mut workspace.cargo(&["build", "--locked", "--release", "--package", "spillway-agent"]))?;
    }
    let wanted = |case: Case| arguments.only.is_none_or(|only| only == case);
    // Built before anything is measured, and before this process has one core alone.
    let collector = if wanted(Case::Otlp) { otlp::collector(workspace)? } else { None };
    let agent = arguments.agent.clone().unwrap_or_else(|| release.join("spillway-agent"));
    process::pin_this_process()?;
    let machine = Machine::read()?;
    let scale = if arguments.quick { Scale::QUICK } else { Scale::FULL };
    let scratch = arguments.scratch.clone().unwrap_or_else(|| workspace.target().join("bench"));
    let scratch = Scratch::create(&scratch)?;
    let bench = Bench { agent, floor: release.join("xtask"), scratch, scale };
    let mut rows: Vec<Row> = Vec::new();
    if wanted(Case::Tail) {
        rows.extend(tail::run(&bench)?);
    }
    if wanted(Case::Process) {
        rows.extend(intake::run(&bench, intake::Level::Process)?);
    }
    if wanted(Case::Disk) {
        rows.extend(intake::run(&bench, intake::Level::Disk)?);
    }
    if wanted(Case::Memory) {
        rows.extend(memory::run(&bench)?);
    }
    if wanted(Case::Held) {
        for held in scale.held {
            rows.extend(memory::run_held(&bench, *held)?);
        }
    }
    if wanted(Case::Bulk) {
        rows.extend(fanout::run_bulk(&bench)?);
    }
    if wanted(Case::Dead) {
        rows.extend(fanout::run_dead(&bench)?);
    }
    if wanted(Case::Transforms) {
        rows.extend(transforms::run(workspace, &bench)?);
    }
    if wanted(Case::Otlp) {
        match &collector {
            Some(collector) => rows.extend(otlp::run(&bench, collector)?),
            None => println!("OTLP: left out, there is no Collector"),
        }
    }
    let table = Table { machine, rows, quick: arguments.quick }.markdown();
    println!("\n{table}");
    if arguments.write {
        std::fs::write(workspace.root().join(TABLE), table)?;
        println!("written to {TABLE}");
    }
    Ok(())
}
