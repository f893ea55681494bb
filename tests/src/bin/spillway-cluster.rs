//! The real Kubernetes that tests need: called by `cargo xtask cluster`.

#![expect(clippy::print_stdout, reason = "a program that talks to a person")]

use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, bail};
use spillway_tests::cluster::image::Image;
use spillway_tests::{cluster, helm, servers};

/// Nobody's number: what images run as unless a pod says otherwise.
const USER: u32 = 65532;
/// The exit code of `prepare` where no cluster can run.
const CANNOT_RUN: u8 = 3;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments == ["prepare"] {
        return prepare();
    }
    ended(run(&arguments))
}

/// Installs what a cluster and its tests need, or says why the tests are left out.
fn prepare() -> ExitCode {
    const TESTS: &str = "the tests on nodes";
    let needs = [cluster::package::PACKAGE, helm::PACKAGE];
    let hindrance = cluster::package::hindrance().or_else(|| (helm::PACKAGE.hindrance)(&helm::PACKAGE));
    let hindrance = prepared(hindrance, || {
        cluster::package::ensure_system()?;
        needs.iter().try_for_each(|package| package.ensure().map(drop))
    });
    match hindrance {
        Ok(Some(reason)) if servers::skips_are_listed() => servers::skip(TESTS, &reason),
        Ok(Some(reason)) => println!("skipped: {TESTS}: {reason}"),
        done => return ended(done.map(drop)),
    }
    ExitCode::from(CANNOT_RUN)
}

/// Installs unless something hinders, and returns what does. An installation that fails is a failure and hinders nothing:
/// nobody would see that tests no longer run where they did.
fn prepared(hindrance: Option<String>, install: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<Option<String>> {
    if hindrance.is_none() {
        install()?;
    }
    Ok(hindrance)
}

fn ended(result: anyhow::Result<()>) -> ExitCode {
    match result {
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
        ["up"] => match cluster::up().inspect_err(|_| print!("{}", cluster::last_words()))? {
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
    Image { name: name.to_owned(), program: PathBuf::from(program), user: USER, beside: &[] }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_machine_that_cannot_run_a_cluster_leaves_the_tests_out() {
        let cannot = prepared(Some("no root".to_owned()), || bail!("nothing is installed where nothing can run"));
        assert_eq!(cannot.expect("no failure"), Some("no root".to_owned()));
        let failed = prepared(None, || bail!("no compiler"));
        assert_eq!(failed.expect_err("a failure").to_string(), "no compiler");
        assert_eq!(prepared(None, || Ok(())).expect("no failure"), None);
    }
}
