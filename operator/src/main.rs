//! `spillway-operator`: parse, then do one thing. What each command does is in the library.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use spillway_operator::cli::{self, Cli, Command};
use spillway_operator::run;

/// Gives freed memory back to the system, so that the first listing does not stay in the resident size.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // A second call would be refused; this is the first and only one.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let done = match Cli::parse().command {
        Command::Controller(flags) => return run::controller(&flags),
        Command::Webhook(flags) => return run::webhook(&flags),
        Command::Completions { shell } => completions(shell),
        Command::Man => clap_mangen::Man::new(cli::command()).render(&mut io::stdout()),
    };
    match done {
        // A reader that went away is no failure.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    }
}

fn completions(shell: clap_complete::Shell) -> io::Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut cli::command(), "spillway-operator", &mut text);
    io::stdout().write_all(&text)
}
