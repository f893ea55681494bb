//! A real Kubernetes of two nodes for tests, on this machine, and the images of our programs.
//!
//! How a cluster is built and run is the business of the crate `tests`; this step builds its program and runs it. It leaves
//! a cluster as it found it: what a step starts for itself, it ends.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::stopwatch::Stopwatch;
use crate::test::{self, Count};
use crate::workspace::{Workspace, must_succeed, output};

/// What `cargo xtask cluster` can be told.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Action {
    /// Builds what is missing (once, about a quarter of an hour on two cores) and starts the cluster unless it runs
    Up,
    /// Runs the commands of README.md and the tests that need nodes, on a cluster that goes with them unless it ran before
    Test {
        /// Succeeds where no cluster can run, which is said all the same
        #[arg(long)]
        allow_skipped: bool,
        /// Passed on to the tests, for example a part of a name
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
    /// Ends the cluster and removes all of it but what was built
    Down,
    /// Says what runs, and what a run that was killed left
    Status {
        /// How to say it
        #[arg(short, long, value_parser = ["human", "json"], default_value = "human")]
        output: String,
    },
    /// Makes an image of one static program and puts it on both nodes (`imagePullPolicy: Never`)
    Load {
        /// The name of the image, such as `spillway.test/agent:1`
        name: String,
        /// The program
        program: PathBuf,
    },
    /// Builds the images of agent and operator under the names that the chart gives, and puts them on both nodes
    Images(Images),
    /// Calls Helm 4 as administrator: `cargo xtask cluster helm list -A`
    Helm {
        /// Passed on
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
    /// Calls kubectl as administrator: `cargo xtask cluster kubectl get pods -A`
    Kubectl {
        /// Passed on
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
}

/// How images are built, and where they go.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Images {
    /// Writes `spillway-agent.tar` and `spillway-operator.tar` (`…-arm64.tar` with `--architecture arm64`) into this folder
    /// instead: for `ctr images import`, `skopeo copy oci-archive:…`, `kind load image-archive`
    #[arg(long, value_name = "FOLDER")]
    to: Option<PathBuf>,
    /// Optimizes them, which takes many minutes
    #[arg(long)]
    release: bool,
    /// What they are for, when it is not this machine; optimized, and only into files. Needs `rustup target add` of it, and
    /// its C compiler (Debian: `gcc-aarch64-linux-gnu` and `libc6-dev-arm64-cross`)
    #[arg(long, requires = "to", requires = "release")]
    architecture: Option<Architecture>,
}

/// A kind of machines.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Architecture {
    Amd64,
    Arm64,
}

impl Architecture {
    /// Returns its name in compilers.
    fn machine(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64",
            Self::Arm64 => "aarch64",
        }
    }
}

/// The exit code of `spillway-cluster prepare` where a cluster cannot run; it says why.
const CANNOT_RUN: i32 = 3;

/// Our programs, as the chart names their images: `charts/spillway/values.yaml`.
const PROGRAMS: [&str; 2] = ["agent", "operator"];

/// Runs one action.
pub(crate) fn run(workspace: &Workspace, action: &Action) -> anyhow::Result<()> {
    let mut command = Command::new(program(workspace)?);
    match action {
        Action::Test { allow_skipped, rest } => return test_alone(workspace, *allow_skipped, rest),
        Action::Images(how) => return images(workspace, how),
        Action::Up => command.arg("up"),
        Action::Down => command.arg("down"),
        Action::Status { output } => command.args(["status", output]),
        Action::Load { name, program } => command.arg("load").arg(name).arg(std::path::absolute(program)?),
        Action::Helm { rest } => command.arg("helm").args(rest),
        Action::Kubectl { rest } => command.arg("kubectl").args(rest),
    };
    must_succeed(&mut command)
}

/// Builds the program that makes clusters and returns where it is.
fn program(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    workspace.build("spillway-cluster", &["-q"])
}

fn test_alone(workspace: &Workspace, allow_skipped: bool, rest: &[String]) -> anyhow::Result<()> {
    test::refuse_misplaced(allow_skipped, rest)?;
    let mut count = Count::start(workspace)?;
    let ran = test(workspace, &mut count, allow_skipped, rest);
    count.say();
    ran
}

/// Runs the tests that need nodes: the last part of `cargo xtask test`.
pub(crate) fn test(
    workspace: &Workspace,
    count: &mut Count,
    allow_skipped: bool,
    rest: &[String],
) -> anyhow::Result<()> {
    let program = program(workspace)?;
    let mut prepare = Command::new(&program);
    let prepared = count.of(prepare.arg("prepare")).status().context("starting spillway-cluster")?;
    match prepared.code() {
        Some(0) => {}
        Some(CANNOT_RUN) if allow_skipped => return Ok(()),
        Some(CANNOT_RUN) => bail!("the tests on nodes could not run here (`--allow-skipped` lets that pass)"),
        _ => bail!("a cluster cannot be prepared ({prepared})"),
    }
    let status = output(Command::new(&program).args(["status", "json"]))?;
    let status: serde_json::Value = serde_json::from_str(&status).context("reading the status of the cluster")?;
    let ran = status["running"] == true;
    between(
        || run(workspace, &Action::Up),
        || test_release(workspace, &program, count, rest),
        || if ran { clear(&program) } else { run(workspace, &Action::Down) },
    )
}

/// Runs `work` between `begin` and `end`: what has begun half is ended as well, and no failure hides another.
fn between(
    begin: impl FnOnce() -> anyhow::Result<()>,
    work: impl FnOnce() -> anyhow::Result<()>,
    end: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let worked = begin().and_then(|()| work());
    match (worked, end()) {
        (Err(first), Err(second)) => bail!("{first:#}; and then: {second:#}"),
        (worked, ended) => worked.and(ended),
    }
}

/// Installs the release as README.md says and runs the tests on it.
fn test_release(workspace: &Workspace, program: &Path, count: &mut Count, rest: &[String]) -> anyhow::Result<()> {
    // Of a run that was killed.
    clear(program)?;
    let watch = Stopwatch::start();
    for command in quick_start(&workspace.read("README.md")?)? {
        println!("    $ {command}");
        must_succeed(Command::new("sh").args(["-c", &command]).current_dir(workspace.root()))?;
    }
    println!("    the quick start of README.md: {watch}");
    let mut command = workspace.cargo(&["test", "--locked", "--workspace", "--features", "spillway-tests/cluster"]);
    count.run(command.args(["--test", "cluster", "--", "--nocapture"]).args(rest))
}

/// Removes the release and what it leaves.
fn clear(program: &Path) -> anyhow::Result<()> {
    must_succeed(Command::new(program).arg("clear"))
}

/// Most commands of the quick start on Kubernetes.
const COMMANDS_MAX: usize = 5;

/// Returns the commands of the quick start on Kubernetes.
fn quick_start(readme: &str) -> anyhow::Result<Vec<String>> {
    let (_, section) = readme.split_once("\n## On Kubernetes\n").context("README.md has no section on Kubernetes")?;
    let block = section.split_once("\n```sh\n").and_then(|(_, rest)| rest.split_once("\n```\n"));
    let (commands, _) = block.context("its section on Kubernetes has no commands")?;
    let commands: Vec<String> = commands.lines().map(str::to_owned).collect();
    if commands.len() > COMMANDS_MAX {
        bail!("the quick start on Kubernetes has {} commands, allowed: {COMMANDS_MAX}", commands.len());
    }
    Ok(commands)
}

fn images(workspace: &Workspace, how: &Images) -> anyhow::Result<()> {
    let machine = how.architecture.map_or(std::env::consts::ARCH, Architecture::machine);
    let programs = if how.release { optimized(workspace, machine)? } else { static_programs(workspace)? };
    if let Some(folder) = &how.to {
        std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    let end = how.architecture.map(|what| format!("-{what:?}").to_lowercase()).unwrap_or_default();
    for (short, path) in PROGRAMS.iter().zip(programs) {
        let name = format!("registry.spillway.dev/spillway/{short}:{}", env!("CARGO_PKG_VERSION"));
        let mut command = Command::new(program(workspace)?);
        match &how.to {
            None => command.arg("load").arg(name).arg(path),
            Some(folder) => {
                command.arg("save").arg(name).arg(path).arg(folder.join(format!("spillway-{short}{end}.tar")))
            }
        };
        must_succeed(&mut command)?;
    }
    Ok(())
}

/// Builds agent and operator as a release has them, linked statically: images have no libraries.
fn optimized(workspace: &Workspace, machine: &str) -> anyhow::Result<[PathBuf; 2]> {
    let target = format!("{machine}-unknown-linux-gnu");
    let variable = target.to_uppercase().replace('-', "_");
    let names = PROGRAMS.map(|short| format!("spillway-{short}"));
    let mut command = workspace.cargo(&["build", "-q", "--locked", "--workspace", "--release", "--target", &target]);
    command.args(names.iter().flat_map(|name| ["--bin", name.as_str()]));
    command.env(format!("CARGO_TARGET_{variable}_RUSTFLAGS"), "-C target-feature=+crt-static");
    if machine != std::env::consts::ARCH {
        command.env(format!("CARGO_TARGET_{variable}_LINKER"), format!("{machine}-linux-gnu-gcc"));
    }
    must_succeed(&mut command)?;
    Ok(names.map(|name| workspace.target().join(&target).join("release").join(name)))
}

/// Builds agent and operator as tests have them, but linked statically.
///
/// Crates of others are those of the tests, with the same features; cargo keeps what a wrapper made of ours apart from what
/// it made without. Both put the programs at the same place, so these are copied, and those of the tests put back.
fn static_programs(workspace: &Workspace) -> anyhow::Result<[PathBuf; 2]> {
    let folder = workspace.target().join("static");
    std::fs::create_dir_all(&folder).context("making a folder for static programs")?;
    let wrapper = write_wrapper(&folder, WRAPPER)?;
    let names = PROGRAMS.map(|short| format!("spillway-{short}"));
    let build = || {
        // `--examples`, of which there are none, makes cargo take the features of tests.
        let mut command = workspace.cargo(&["build", "-q", "--locked", "--workspace", "--examples"]);
        command.args(names.iter().flat_map(|name| ["--bin", name.as_str()]));
        command
    };
    must_succeed(build().env("RUSTC_WORKSPACE_WRAPPER", &wrapper))?;
    let programs = names.each_ref().map(|name| folder.join(name));
    for (name, program) in names.iter().zip(&programs) {
        std::fs::copy(workspace.target().join("debug").join(name), program)
            .with_context(|| format!("copying {name}"))?;
    }
    must_succeed(&mut build())?;
    Ok(programs)
}

/// What cargo calls instead of the compiler for crates of ours. What it adds when it links is a tenth less to load: no
/// relocations, and functions that are the same are one.
const WRAPPER: &str = "#!/bin/sh
case \" $* \" in
*\" --crate-name spillway_\"*\" --crate-type bin \"*)
  set -- \"$@\" -C target-feature=+crt-static -C relocation-model=static -C strip=symbols
  [ \"$(uname -m)\" != x86_64 ] || set -- \"$@\" -C link-arg=-Wl,--icf=all ;;
esac
exec \"$@\"
";

/// Writes it into a folder and returns where it is. Cargo looks at the path alone, so another text has another name.
fn write_wrapper(folder: &Path, text: &str) -> anyhow::Result<PathBuf> {
    let path = folder.join(wrapper_name(text));
    std::fs::write(&path, text).context("writing the wrapper of the compiler")?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).context("making it a program")?;
    Ok(path)
}

fn wrapper_name(text: &str) -> String {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    format!("rustc-{:016x}", hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_of_the_section_on_kubernetes_are_found_and_counted() {
        let readme = |commands: &str| {
            format!(
                "# A\n\n```sh\nno\n```\n\n## On Kubernetes\n\nText.\n\n```sh\n{commands}```\n\n## B\n\n```sh\nno\n```\n"
            )
        };
        assert_eq!(quick_start(&readme("a b\nc\n")).expect("two"), ["a b", "c"]);
        let error = quick_start(&readme("1\n2\n3\n4\n5\n6\n")).expect_err("six").to_string();
        assert!(error.contains("has 6 commands, allowed: 5"), "{error}");
        assert!(quick_start("# A\n").is_err());
    }

    #[test]
    fn what_began_half_is_ended_and_no_failure_hides_another() {
        let failing = |text: &'static str| move || -> anyhow::Result<()> { bail!(text) };
        let said = between(failing("no etcd"), || Ok(()), failing("a mount is left")).expect_err("both failed");
        assert_eq!(said.to_string(), "no etcd; and then: a mount is left");
        let mut ended = false;
        let mark = || {
            ended = true;
            Ok(())
        };
        let said = between(failing("no etcd"), || panic!("there is nothing to work on"), mark).expect_err("no start");
        assert_eq!((said.to_string().as_str(), ended), ("no etcd", true));
        assert!(between(|| Ok(()), || Ok(()), failing("left")).is_err());
        assert!(between(|| Ok(()), failing("red"), || Ok(())).is_err());
        assert!(between(|| Ok(()), || Ok(()), || Ok(())).is_ok());
    }

    #[test]
    fn another_wrapper_has_another_name() {
        assert_eq!(wrapper_name(WRAPPER), wrapper_name(WRAPPER));
        assert_ne!(wrapper_name(WRAPPER), wrapper_name("#!/bin/sh\nexec \"$@\"\n"));
    }
}
