//! The real Kubernetes that tests need: called by `cargo xtask cluster`.

#![expect(clippy::print_stdout, reason = "a program that talks to a person")]

use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, bail};
use spillway_tests::cluster::image::Image;
use spillway_tests::{cluster, helm};

/// Nobody's number: what images run as unless a pod says otherwise.
const USER: u32 = 65532;
/// The exit code of `prepare` where no cluster can run.
const CANNOT_RUN: u8 = 3;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments == ["prepare"] {
        return prepare();
    }
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Installs what a cluster and its tests need. What cannot be had is a reason to leave the tests out, and is said.
fn prepare() -> ExitCode {
    let needs = [cluster::package::PACKAGE, helm::PACKAGE];
    let install = || {
        cluster::package::ensure_system()?;
        needs.iter().try_for_each(|package| package.ensure().map(drop))
    };
    let hindrance = cluster::package::hindrance().or_else(|| (helm::PACKAGE.hindrance)(&helm::PACKAGE));
    match hindrance.or_else(|| install().err().map(|error| format!("{error:#}"))) {
        None => ExitCode::SUCCESS,
        Some(reason) => {
            println!("skipped: the tests on nodes: {reason}");
            ExitCode::from(CANNOT_RUN)
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
            let bytes = cluster::image::load(&image(name, program))?;
            say(&format!("    {name} is on both nodes, {bytes} bytes\n"))
        }
        ["save", name, program, file] => {
            let bytes = cluster::image::save(&image(name, program), Path::new(file))?;
            say(&format!("    {name} is in {file}, {bytes} bytes\n"))
        }
        ["clear"] => cluster::release::clear(),
        ["helm", ..] => {
            if helm::PACKAGE.installed().is_none() {
                helm::PACKAGE.ensure()?;
            }
            let [_, helm] = helm::Helm::installed().context("Helm is not installed")?;
            let kubeconfig = cluster::layout::kubeconfig();
            Err(Command::new(helm.program).env("KUBECONFIG", kubeconfig).args(&words[1..]).exec().into())
        }
        ["kubectl", ..] => Err(cluster::kubectl_command()?.args(&words[1..]).exec().into()),
        _ => bail!(
            "one of: prepare, up, down, status human|json, load NAME PROGRAM, save NAME PROGRAM FILE, clear, helm, kubectl"
        ),
    }
}

fn image(name: &str, program: &str) -> Image {
    Image { name: name.to_owned(), program: PathBuf::from(program), user: USER }
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
