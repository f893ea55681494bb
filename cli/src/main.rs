//! `kubectl-spillway`: parse, then do one thing. What each command does is in the library.

use std::io;
use std::process::ExitCode;

use clap::Parser;
use spillway_cli::cli::{self, Cli, Command};
use spillway_cli::exit::{self, Failure};
use spillway_cli::{check, inject, status, trace, validate};

fn main() -> ExitCode {
    // A second call would be refused; this is the first and only one.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let cli = Cli::parse();
    let done = match &cli.command {
        Command::Check(flags) => check::run(&flags.manifests, flags.output),
        Command::Validate(flags) => validate::run(&cli.cluster, flags),
        Command::Status(flags) => status::run(&cli.cluster, flags),
        Command::Trace(flags) => trace::run(&cli.cluster, flags),
        Command::Inject(flags) => inject::run(&cli.cluster, flags),
        Command::Completions { shell } => completions(*shell),
        Command::Man => man(),
    };
    done.unwrap_or_else(|failure| failure.report())
}

fn completions(shell: clap_complete::Shell) -> Result<ExitCode, Failure> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut cli::command(), cli::PROGRAM, &mut text);
    exit::to_stdout(&String::from_utf8_lossy(&text))?;
    Ok(ExitCode::SUCCESS)
}

fn man() -> Result<ExitCode, Failure> {
    let render = || -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        clap_mangen::Man::new(cli::command()).render(&mut text)?;
        Ok(text)
    };
    exit::to_stdout(&String::from_utf8_lossy(&render().map_err(Failure::new)?))?;
    Ok(ExitCode::SUCCESS)
}
