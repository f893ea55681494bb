//! All tests by one command, with lines at the end that say what ran.
//!
//! Tests find what they need by themselves (temporary folders, free ports, certificates made on the spot). Set up here are
//! the agent's program, which the scenarios start as a real process: it lies beside them; and the real servers
//! (`cargo xtask servers`); last, the cluster of the tests on real nodes (`cargo xtask cluster test`). A test that cannot run
//! here is named at the end, and the command fails unless told otherwise.

mod count;

use anyhow::bail;

pub(crate) use self::count::Count;
use crate::workspace::{Workspace, must_succeed};
use crate::{cluster, servers};

/// What `cargo xtask test` can be told.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Arguments {
    /// Succeeds although tests were skipped, which are named all the same: any, or those on real nodes alone
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "any")]
    allow_skipped: Option<Allowed>,
    /// Passed on to `cargo test`, for example `-p spillway-delivery log::`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

/// Which tests may be skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Allowed {
    /// Any
    Any,
    /// Those that need the nodes of a cluster
    Nodes,
}

/// How many tests of a program run at a time; who sets it is listened to.
const THREADS: &str = "RUST_TEST_THREADS";

/// As many on a machine with fewer cores: the programs started by four tests take 3 GB at most.
const THREADS_MIN: usize = 4;

/// Runs every test of the workspace.
pub(crate) fn run_all(workspace: &Workspace) -> anyhow::Result<()> {
    run(workspace, &Arguments::default())
}

/// Runs the tests, without arguments of cargo those on nodes as well; fails when one fails, when one was ignored, and when none ran.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> anyhow::Result<()> {
    refuse_misplaced(arguments.allow_skipped.is_some(), &arguments.rest)?;
    let mut count = Count::start(workspace)?;
    let ran = run_counted(workspace, arguments, &mut count);
    count.say();
    ran
}

fn run_counted(workspace: &Workspace, arguments: &Arguments, count: &mut Count) -> anyhow::Result<()> {
    let everything = arguments.rest.is_empty();
    if everything || arguments.rest.iter().any(|word| word == "spillway-tests") {
        // The same set of targets as `cargo test`, so that the agent's program and the tests share every build.
        must_succeed(&mut workspace.cargo(&["build", "--workspace", "--bins", "--tests", "--locked"]))?;
        // A server that cannot be had is a skipped test, not the end of all others.
        if let Err(error) = servers::run(workspace, &servers::Arguments::default()) {
            println!("    {error:#}");
        }
    }
    let mut command = workspace.cargo(&["test", "--locked", "--no-fail-fast"]);
    if everything {
        command.arg("--workspace");
    }
    // The tests of one program run side by side; most of the time they wait for servers and processes that they have started.
    if std::env::var_os(THREADS).is_none() {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        command.env(THREADS, cores.max(THREADS_MIN).to_string());
    }
    count.run(command.args(&arguments.rest))?;
    if arguments.allow_skipped != Some(Allowed::Any) {
        count.must_be_complete()?;
    }
    if everything { cluster::test(workspace, count, arguments.allow_skipped.is_some(), &[]) } else { Ok(()) }
}

/// Refuses words that look like a permission to skip and would be taken as names of tests, or by the tests themselves.
pub(crate) fn refuse_misplaced(allow_skipped: bool, rest: &[String]) -> anyhow::Result<()> {
    match rest.first().map(String::as_str) {
        Some(value @ ("any" | "nodes")) if allow_skipped => {
            bail!("`{value}` is the name of no test: write `--allow-skipped={value}`")
        }
        _ if rest.iter().any(|word| word.starts_with("--allow-skipped")) => {
            bail!("`--allow-skipped` stands before all that is passed on to tests")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permission_to_skip_at_the_wrong_place_is_refused() {
        let said = |allow_skipped, words: &[&str]| {
            let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
            refuse_misplaced(allow_skipped, &words).err().map(|error| error.to_string()).unwrap_or_default()
        };
        assert!(said(true, &["nodes"]).contains("--allow-skipped=nodes"));
        assert!(said(false, &["kubelet", "--allow-skipped"]).contains("stands before"));
        assert!(said(true, &["kubelet", "--allow-skipped=nodes"]).contains("stands before"));
        for words in [&["nodes"][..], &["-p", "spillway-delivery", "log::"], &[]] {
            assert_eq!(said(false, words), "", "{words:?}");
        }
    }
}
