//! The real Kubernetes that tests need: called by `cargo xtask cluster`.

#![expect(clippy::print_stdout, reason = "a program that talks to a person")]

use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
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
            Some(time) => say(&format!("    two nodes are ready after {:.1} s\n", time.as_secs_f64())),
            None => say("    the cluster runs\n"),
        },
        ["down"] => {
            cluster::down()?;
            say("    nothing is left of the cluster\n")
        }
        ["status", "json"] => say(&format!("{:#}\n", cluster::status())),
        ["status", _] => say(&shown(&cluster::status())),
        ["load", name, program] => {
            let image = Image { name: name.to_owned(), program: PathBuf::from(program), user: USER };
            cluster::image::load(&image)?;
            say(&format!("    {name} is on both nodes\n"))
        }
        ["kubectl", ..] => Err(cluster::kubectl_command()?.args(&words[1..]).exec().into()),
        _ => bail!("one of: up, down, status human|json, load NAME PROGRAM, kubectl"),
    }
}

fn shown(status: &serde_json::Value) -> String {
    let running = if status["running"] == true { "running" } else { "not running" };
    let mut text = format!("Kubernetes {}: {running}\n", status["version"].as_str().unwrap_or_default());
    for part in ["nodes", "processes"] {
        for one in status[part].as_array().into_iter().flatten() {
            let well = one["ready"] == true || one["running"] == true;
            let name = one["name"].as_str().unwrap_or_default();
            text.extend(["    ", name, if well { " well" } else { " NOT WELL" }, "\n"]);
        }
    }
    if status["running"] == false {
        for left in status["remains"].as_array().into_iter().flatten() {
            text.extend(["    left: ", left.as_str().unwrap_or_default(), "\n"]);
        }
    }
    text
}

/// Writes to stdout. A reader that went away (`| head`) is no failure.
fn say(text: &str) -> anyhow::Result<()> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context("writing to stdout"),
        _ => Ok(()),
    }
}
