//! `spillway-operator`: parse, then do one thing. What each command does is in the library.

use std::process::ExitCode;

use clap::Parser;
use spillway_crds::words;
use spillway_operator::cli::{self, Cli, Command};
use spillway_operator::run;

/// Gives freed memory back to the system, so that the first listing does not stay in the resident size.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // A second call would be refused; this is the first and only one.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let mut text = Vec::new();
    let made = match Cli::parse().command {
        Command::Controller(flags) => return run::controller(&flags),
        Command::Webhook(flags) => return run::webhook(&flags),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut cli::command(), "spillway-operator", &mut text);
            Ok(())
        }
        Command::Man => clap_mangen::Man::new(cli::command()).render(&mut text),
    };
    match made.and_then(|()| words::to_stdout(&String::from_utf8_lossy(&text))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            words::to_stderr(&format!("error: stdout cannot be written: {error}\n"));
            ExitCode::FAILURE
        }
    }
}
