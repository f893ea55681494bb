//! The real Kubernetes that tests need: called by `cargo xtask cluster`.

#![expect(clippy::print_stdout, reason = "a program that talks to a person")]

use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use spillway_tests::cluster;
use spillway_tests::cluster::image::Image;

/// Nobody's number: what images run as unless a pod says otherwise.
const USER: u32 = 65532;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> anyhow::Result<()> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["up"] => match cluster::up()? {
            Some(time) => println!("    two nodes are ready after {:.1} s", time.as_secs_f64()),
            None => println!("    the cluster runs"),
        },
        ["down"] => {
            cluster::down()?;
            println!("    nothing is left of the cluster");
        }
        ["status", "json"] => println!("{:#}", cluster::status()),
        ["status", _] => show(&cluster::status()),
        ["load", name, program] => {
            let image = Image { name: name.to_owned(), program: PathBuf::from(program), user: USER };
            cluster::image::load(&image)?;
            println!("    {name} is on both nodes");
        }
        ["kubectl", ..] => return Err(cluster::kubectl_command()?.args(&words[1..]).exec().into()),
        _ => bail!("one of: up, down, status human|json, load NAME PROGRAM, kubectl"),
    }
    Ok(())
}

fn show(status: &serde_json::Value) {
    let running = if status["running"] == true { "running" } else { "not running" };
    println!("Kubernetes {}: {running}", status["version"].as_str().unwrap_or_default());
    for part in ["nodes", "processes"] {
        for one in status[part].as_array().into_iter().flatten() {
            let well = one["ready"] == true || one["running"] == true;
            println!("    {} {}", one["name"].as_str().unwrap_or_default(), if well { "well" } else { "NOT WELL" });
        }
    }
    if status["running"] == false {
        for left in status["remains"].as_array().into_iter().flatten() {
            println!("    left: {}", left.as_str().unwrap_or_default());
        }
    }
}
