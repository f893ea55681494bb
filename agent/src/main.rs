//! `spillway-agent`: parse, then do one thing. What each command does is in the library.

use std::io;
use std::process::ExitCode;

use spillway_agent::cli::{self, Command, LogCommand};
use spillway_agent::exit::{self, Failure};
use spillway_agent::{check, dead_letters, inspect, jobs, round_trip, run, status, trials};

/// Gives freed memory back to the system, so that a burst does not stay in the resident size.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // A second call would be refused; this is the first and only one.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let (cli, from_environment) = match cli::parse(std::env::args_os()) {
        Ok(parsed) => parsed,
        Err(error) => return usage(&error),
    };
    let done = match &cli.command {
        Command::Run(flags) => run::run(flags, &from_environment),
        Command::Check(flags) => check::run(flags),
        Command::Test(flags) => trials::run(flags),
        Command::Status(flags) => status::run(flags),
        Command::Log(LogCommand::Inspect(flags)) => inspect::run(flags),
        Command::DeadLetters(command) => dead_letters::run(command),
        Command::Replay(flags) => jobs::replay(flags),
        Command::Jobs(command) => jobs::run(command),
        Command::RoundTrip(flags) => round_trip::run(flags),
        Command::Completions { shell } => completions(*shell),
        Command::Man => man(),
    };
    done.unwrap_or_else(|failure| failure.report())
}

/// Prints `--help`, `--version`, or what was not understood.
fn usage(error: &clap::Error) -> ExitCode {
    // The text of `--help` may be cut by a reader that went away; the exit code stays.
    error.print().unwrap_or_default();
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(exit::USAGE))
}

fn completions(shell: clap_complete::Shell) -> Result<ExitCode, Failure> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut cli::command(), "spillway-agent", &mut text);
    exit::to_stdout(&String::from_utf8_lossy(&text))?;
    Ok(ExitCode::SUCCESS)
}

fn man() -> Result<ExitCode, Failure> {
    let render = || -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        clap_mangen::Man::new(cli::command()).render(&mut text)?;
        Ok(text)
    };
    let text = render().map_err(|error| Failure::failed("man", error))?;
    exit::to_stdout(&String::from_utf8_lossy(&text))?;
    Ok(ExitCode::SUCCESS)
}
