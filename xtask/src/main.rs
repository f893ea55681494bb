//! The project's own commands: `cargo xtask <command>`. One command is one step of CI, by the same name.
//!
//! This crate may print, start processes and read the wall clock; nothing of the product depends on it. It must build
//! fast and alone: it knows the other crates only as programs and files (`generate` alone is behind a feature).

#![expect(clippy::print_stdout, reason = "a command line tool talks to a person")]

mod bench;
mod cargo_steps;
mod ci;
mod cluster;
mod demo;
mod deny;
mod examples;
mod fleet;
mod fuzz;
mod generate;
mod invariants;
mod servers;
mod stopwatch;
mod test;
mod tidy;
mod tools;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::workspace::Workspace;

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "The project's own commands")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Checks that every file is formatted (`cargo fmt` mends it)
    Fmt,
    /// Checks what no compiler checks: sizes, structure, headers, links, wording
    Tidy,
    /// Checks which crate must not reach which, by `cargo tree`
    Invariants,
    /// Runs clippy over every target of every crate; a warning fails
    Clippy,
    /// Writes the files that follow from code (`crds/*.yaml`, `docs/reference/backends/*.md`)
    Generate(generate::Arguments),
    /// Checks licences, bans, sources and known advisories of every dependency
    Deny,
    /// Builds the documentation of every crate; a warning fails
    Doc,
    /// Checks that each crate builds alone, with the features it asks for itself
    Alone,
    /// Checks every manifest in `examples/` and in the documents with the agent itself, and runs README.md's lines by hand
    Examples,
    /// Shows the main job on real input: takes about 15 seconds, leaves ./demo-out
    Demo(demo::Arguments),
    /// Measures the agent beside a bare floor: CPU, events per second, memory, start
    Bench(bench::Arguments),
    /// Measures the operator on a real API server with 10,000 pipelines, 20,000 pods and 1,000 stubs of agents (20 minutes)
    Fleet(fleet::Arguments),
    /// Measures the webhook that gives pods their sidecars on a real API server, at 200 reviews a second (two minutes)
    Reviews(fleet::Arguments),
    /// Runs the fuzz targets, each for a minute; needs a nightly toolchain
    Fuzz(fuzz::Arguments),
    /// Installs the real servers that tests need into the cache; does nothing where they are there
    Servers(servers::Arguments),
    /// A real Kubernetes of two nodes for tests: up, test, down, status, images, load, helm, kubectl
    Cluster {
        /// What to do
        #[command(subcommand)]
        action: cluster::Action,
    },
    /// Runs all tests: unit, conformance, model, scenarios, examples in the documentation, and those on real nodes
    Test(test::Arguments),
    /// Runs every step of CI in order of speed, the tests last
    Ci(ci::Arguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match Workspace::find().and_then(|workspace| run(&workspace, arguments.command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(workspace: &Workspace, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Fmt => cargo_steps::fmt(workspace),
        Command::Tidy => tidy::run(workspace),
        Command::Invariants => invariants::run(workspace),
        Command::Clippy => cargo_steps::clippy(workspace),
        Command::Generate(arguments) => generate::run(workspace, &arguments),
        Command::Deny => deny::run(workspace),
        Command::Doc => cargo_steps::doc(workspace),
        Command::Alone => cargo_steps::alone(workspace),
        Command::Examples => examples::run(workspace),
        Command::Demo(arguments) => demo::run(workspace, &arguments),
        Command::Bench(arguments) => bench::run(workspace, &arguments),
        Command::Fleet(arguments) => fleet::run(workspace, fleet::What::Fleet, &arguments),
        Command::Reviews(arguments) => fleet::run(workspace, fleet::What::Reviews, &arguments),
        Command::Fuzz(arguments) => fuzz::run(workspace, &arguments),
        Command::Servers(arguments) => servers::run(workspace, &arguments),
        Command::Cluster { action } => cluster::run(workspace, &action),
        Command::Test(arguments) => test::run(workspace, &arguments),
        Command::Ci(arguments) => ci::run(workspace, &arguments),
    }
}
