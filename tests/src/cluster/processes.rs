//! Processes of the cluster: started so that they outlive the command, found by the network they are in.
//!
//! # Guarantees
//! - What is ended is in a network namespace that only this module makes: no number of a process is trusted.
//! - Each node is a process namespace: with its first process the kernel ends all of it, pods and shims too.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::Instant;

use super::layout::{Node, state};
use crate::servers::process::moment;
use crate::servers::tools;

/// How long an end may take.
const END_MAX: Duration = Duration::from_secs(20);
/// How often things are asked again.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// Returns a command inside the network of a node, and nothing else of it.
pub(super) fn in_network(node: &Node, program: impl AsRef<Path>) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", node.network().display())).arg("--").arg(program.as_ref());
    command
}

/// Returns a command inside all namespaces of a node.
pub(super) fn in_node(node: &Node, program: impl AsRef<Path>) -> anyhow::Result<Command> {
    let first = fs::read_to_string(node.folder().join("first")).context("the node has no first process")?;
    let mut command = Command::new("nsenter");
    let names = [("net", "net"), ("mount", "mnt"), ("pid", "pid")];
    command.args(names.map(|(option, name)| format!("--{option}=/proc/{first}/ns/{name}")));
    command.arg("--").arg(program.as_ref());
    Ok(command)
}

/// Starts a process that outlives this one, with a log of its name; returns its number.
pub(super) fn start(name: &str, mut command: Command) -> anyhow::Result<u32> {
    let folder = state().join("log");
    fs::create_dir_all(&folder)?;
    let log = File::options().append(true).create(true).open(folder.join(format!("{name}.log")))?;
    command.current_dir("/").stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
    let child = command.spawn().with_context(|| format!("starting {name}"))?;
    fs::create_dir_all(state().join("processes"))?;
    fs::write(state().join("processes").join(name), format!("{} {}", child.id(), start_of(child.id())))?;
    Ok(child.id())
}

/// Returns names and numbers of the started processes, and whether each still runs.
pub(super) fn started() -> Vec<(String, u32, bool)> {
    let mut all: Vec<_> = fs::read_dir(state().join("processes"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let text = fs::read_to_string(entry.path()).ok()?;
            let (pid, start) = text.split_once(' ')?;
            let pid = pid.parse().ok()?;
            let runs = !start.is_empty() && start_of(pid) == start;
            Some((entry.file_name().into_string().ok()?, pid, runs))
        })
        .collect();
    all.sort();
    all
}

/// Ends one of the started processes at once and waits until it is gone. What was started in a node is the child of a process
/// that waits for it.
pub(super) fn kill(name: &str) -> anyhow::Result<()> {
    wait_until(name, END_MAX, || {
        let Some((_, pid, _)) = started().into_iter().find(|(known, _, runs)| known == name && *runs) else {
            return true;
        };
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        for child in children.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)) {
            kill_process(child, Signal::KILL).ok();
        }
        false
    })
}

/// Returns when a process was started, in ticks since the machine was; nothing for one that is not there or ended.
fn start_of(pid: u32) -> String {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<_> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ended = matches!(fields.first(), None | Some(&("Z" | "X" | "")));
    if ended { String::new() } else { fields.get(19).copied().unwrap_or_default().to_owned() }
}

/// Asks until `holds`, at most so long.
pub(super) fn wait_until(what: &str, patience: Duration, mut holds: impl FnMut() -> bool) -> anyhow::Result<()> {
    let deadline = Instant::now() + patience;
    while !holds() {
        if Instant::now() > deadline {
            bail!("{what}: not within {} s; logs are in {}", patience.as_secs(), state().join("log").display());
        }
        moment(ASK_EVERY);
    }
    Ok(())
}

/// Ends every process in the network of a node and waits until they are gone.
pub(super) fn end(node: &Node) -> anyhow::Result<()> {
    wait_until("the end of a node", END_MAX, || {
        let all = numbers(node);
        // One that ended meanwhile is fine.
        all.iter().filter_map(|pid| Pid::from_raw(*pid)).for_each(|pid| {
            kill_process(pid, Signal::KILL).ok();
        });
        all.is_empty()
    })
}

/// Returns the processes in the network of a node; the kernel keeps the list.
pub(super) fn numbers(node: &Node) -> Vec<i32> {
    let output = Command::new("ip").args(["netns", "pids", node.name]).stderr(Stdio::null()).output();
    let text = output.map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&text).lines().filter_map(|line| line.trim().parse().ok()).collect()
}

/// Returns the root of every hierarchy of control groups.
pub(super) fn cgroup_roots() -> Vec<PathBuf> {
    let root = PathBuf::from("/sys/fs/cgroup");
    if root.join("cgroup.controllers").exists() {
        return vec![root];
    }
    let below = fs::read_dir(&root).into_iter().flatten().flatten().map(|entry| entry.path());
    below.filter(|path| path.join("cgroup.procs").exists()).collect()
}

/// Returns the control groups of a node that are there.
pub(super) fn cgroups(node: &Node) -> Vec<PathBuf> {
    cgroup_roots().into_iter().map(|root| root.join(node.name)).filter(|path| path.exists()).collect()
}

/// Makes the control groups below which the kubelet of a node makes its own.
pub(super) fn make_cgroups(node: &Node) -> anyhow::Result<()> {
    for root in cgroup_roots() {
        let group = root.join(node.name);
        fs::create_dir_all(&group).with_context(|| format!("making {}", group.display()))?;
        for set in ["cpuset.cpus", "cpuset.mems"].iter().filter(|set| root.join(set).exists()) {
            // A set of version 1 begins empty, and nothing runs in an empty one.
            fs::write(group.join(set), fs::read(root.join(set))?).ok();
        }
    }
    Ok(())
}

/// Removes the control groups of a node; those of ended processes take a moment to empty.
pub(super) fn remove_cgroups(node: &Node) -> anyhow::Result<()> {
    wait_until("the end of control groups", END_MAX, || cgroups(node).iter().all(|group| remove_group(group)))
}

fn remove_group(group: &Path) -> bool {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove_group(&entry.path());
        }
    }
    fs::remove_dir(group).is_ok()
}

/// Runs `ip` with words.
pub(super) fn ip(words: &str) -> anyhow::Result<()> {
    tools::run(Command::new("ip").args(words.split(' ')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_a_start_until_it_ends() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().expect("cat starts");
        let start = start_of(child.id());
        assert!(start.parse::<u64>().expect("ticks") > 0);
        assert_eq!(start, start_of(child.id()));
        child.kill().expect("it ends");
        child.wait().expect("it ended");
        assert_eq!(start_of(child.id()), "");
    }
}
