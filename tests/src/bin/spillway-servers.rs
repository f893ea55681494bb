//! Installs the real servers that tests need: called by `cargo xtask servers`.

#![expect(clippy::print_stdout, reason = "a program that talks to a person")]

use std::process::ExitCode;

use spillway_tests::servers::PACKAGES;

fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let mut failed = 0;
    for package in PACKAGES {
        if !wanted.is_empty() && !wanted.iter().any(|name| name == package.name) {
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
