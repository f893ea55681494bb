//! Installs the real servers that tests need: called by `cargo xtask servers`.

#![expect(clippy::print_stdout, reason = "a program that talks to a person")]

use std::process::ExitCode;

use spillway_tests::servers::{ON_DEMAND, PACKAGES};

fn main() -> ExitCode {
    let mut wanted: Vec<String> = std::env::args().skip(1).collect();
    // Says where they are, and nothing else.
    let asks = wanted.iter().position(|word| word == "--folder").map(|at| wanted.remove(at)).is_some();
    let named = |name: &str| wanted.iter().any(|word| word == name);
    let mut failed = 0;
    for package in PACKAGES.iter().chain(ON_DEMAND.iter().filter(|package| named(package.name))) {
        if !wanted.is_empty() && !named(package.name) {
            continue;
        }
        if asks {
            println!("{}", package.folder().display());
            continue;
        }
        if let Some(hindrance) = (package.hindrance)(package) {
            println!("    {} {}: left out: {hindrance}", package.name, package.key);
            continue;
        }
        if let Err(error) = package.ensure() {
            println!("    {} {}: {error:#}", package.name, package.key);
            failed += 1;
        }
    }
    if failed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
