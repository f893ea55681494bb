//! A real Kubernetes of two nodes on this machine, without a container engine and without a registry.
//!
//! # Guarantees
//! - One cluster per machine. [`up`] does nothing where it runs; what a killed run left is removed first.
//! - A node is a network, mount and process namespace, a control group and a folder: with containerd, kubelet, kube-proxy
//!   and its own `/run`, `/var/lib` and `/var/log`, so that what a pod mounts of its host is of its node alone.
//! - [`down`] leaves nothing, and fails when something is left: [`remains`].
//! - This machine reaches nodes, pods and services at their addresses; pods reach it at [`layout::HOST`].
//!
//! # Caveats
//! Network policies are not enforced by this network. Pods find names of the cluster and no others.

mod certificates;
mod configuration;
pub mod disk;
pub mod image;
pub mod layout;
pub mod package;
mod processes;
pub mod release;

use std::fs::{self, File};
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::fs::{FlockOperation, flock};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::servers::tools;
use image::Image;
use layout::{LINKS, NODES, Node, state};
use processes::wait_until;

/// How long the start of a part may take.
const START_MAX: Duration = Duration::from_secs(120);
/// How long the end of one may take.
const END_MAX: Duration = Duration::from_secs(20);

/// Starts the cluster unless it runs; returns how long that took, or nothing when it ran.
pub fn up() -> anyhow::Result<Option<Duration>> {
    if let Some(hindrance) = package::hindrance() {
        bail!("a cluster cannot run here: {hindrance}");
    }
    package::ensure_system()?;
    let programs = package::PACKAGE.ensure()?;
    let _lock = lock()?;
    if runs() {
        return Ok(None);
    }
    remove()?;
    let since = Instant::now();
    start(&programs)?;
    Ok(Some(since.elapsed()))
}

/// Ends the cluster, if there is one, and removes all of it.
pub fn down() -> anyhow::Result<()> {
    let _lock = lock()?;
    remove()?;
    let left = remains();
    if left.is_empty() { Ok(()) } else { bail!("left behind: {}", left.join(", ")) }
}

/// Returns the last lines of the log of each process, for people who see a start fail.
pub fn last_words() -> String {
    const LINES: usize = 5;
    let mut text = String::new();
    for file in fs::read_dir(state().join("log")).into_iter().flatten().flatten() {
        let log = fs::read(file.path()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let begin = log.lines().count().saturating_sub(LINES);
        let name = file.file_name();
        text.extend(log.lines().skip(begin).map(|line| format!("    {}: {line}\n", name.display())));
    }
    text
}

/// Returns whether every process runs and the API server answers.
pub fn runs() -> bool {
    let started = processes::started();
    let whole = state().join("ready").exists() && !started.is_empty() && started.iter().all(|(_, _, runs)| *runs);
    whole && kubectl(&["get", "--raw", "/readyz"]).is_ok()
}

/// Returns a call of `kubectl` as administrator.
pub fn kubectl_command() -> anyhow::Result<Command> {
    let programs = package::PACKAGE.installed().context("Kubernetes is not built: `cargo xtask cluster up`")?;
    let mut command = Command::new(programs.join("kubectl"));
    command.env("KUBECONFIG", layout::kubeconfig());
    Ok(command)
}

/// Runs `kubectl` and returns what it printed.
pub fn kubectl(arguments: &[&str]) -> anyhow::Result<String> {
    let output = kubectl_command()?.args(arguments).stdin(Stdio::null()).output().context("starting kubectl")?;
    if !output.status.success() {
        bail!("kubectl {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Returns what there is of a cluster, for people and programs.
pub fn status() -> Value {
    let processes: Vec<_> = processes::started()
        .into_iter()
        .map(|(name, pid, runs)| json!({"name": name, "pid": pid, "running": runs}))
        .collect();
    let nodes: Value = kubectl(&["get", "nodes", "-o", "json"])
        .ok()
        .and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or_default();
    let ready = |node: &Value| {
        let conditions = node["status"]["conditions"].as_array().into_iter().flatten();
        conditions.into_iter().any(|one| one["type"] == "Ready" && one["status"] == "True")
    };
    let nodes: Vec<_> = nodes["items"].as_array().into_iter().flatten().collect();
    let nodes: Vec<_> =
        nodes.iter().map(|node| json!({"name": node["metadata"]["name"], "ready": ready(node)})).collect();
    json!({
        "running": runs(), "version": package::VERSION, "kubeconfig": layout::kubeconfig(),
        "nodes": nodes, "processes": processes, "remains": remains(),
    })
}

/// Returns what of a cluster is on this machine, running or not.
pub fn remains() -> Vec<String> {
    let mut found = Vec::new();
    for node in &NODES {
        if node.network().exists() {
            found.push(format!("network {}", node.name));
        }
        found.extend(processes::numbers(node).into_iter().map(|pid| {
            let command = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            format!("process {pid} {}", command.trim())
        }));
        found.extend(processes::cgroups(node).iter().map(|path| path.display().to_string()));
    }
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    found.extend(mounts.lines().filter(|line| line.contains("spillway")).map(|line| format!("mount {line}")));
    found.extend(links().into_iter().map(|link| format!("link {link}")));
    if state().exists() {
        found.push(state().display().to_string());
    }
    found
}

/// Returns the links of a cluster on this machine: its bridge, and the outer ends of those into nodes.
fn links() -> Vec<String> {
    let all = fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    let names = all.filter_map(|link| link.file_name().into_string().ok());
    names.filter(|name| LINKS.contains(&&**name)).collect()
}

/// Takes the machine's one lock, on a folder that is there anyway.
fn lock() -> anyhow::Result<File> {
    let folder = state().parent().map(PathBuf::from).context("a state folder has a parent")?;
    let lock = File::open(&folder).with_context(|| format!("opening {}", folder.display()))?;
    flock(&lock, FlockOperation::LockExclusive).context("waiting for another run")?;
    Ok(lock)
}

fn remove() -> anyhow::Result<()> {
    for node in &NODES {
        processes::end(node)?;
        if node.network().exists() {
            processes::ip(&format!("netns del {}", node.name))?;
        }
        processes::remove_cgroups(node)?;
    }
    // The kernel takes the links of a name space that is gone away some time later, and then this does nothing.
    wait_until("the end of links", END_MAX, || {
        let links = links();
        links.iter().for_each(|link| drop(processes::ip(&format!("link del {link}"))));
        links.is_empty()
    })?;
    // The first network name space makes the folder a mount; without any it has no use. One of others keeps it.
    let networks = Path::new("/run/netns");
    if fs::read_dir(networks).is_ok_and(|mut inside| inside.next().is_none()) {
        tools::run(Command::new("umount").arg(networks)).ok();
        fs::remove_dir(networks).ok();
    }
    if state().exists() {
        fs::remove_dir_all(state()).context("removing the state of a cluster")?;
    }
    Ok(())
}

fn start(programs: &Path) -> anyhow::Result<()> {
    certificates::write(&state().join("certificates"))?;
    for node in &NODES {
        configuration::write_node(node)?;
        processes::make_cgroups(node)?;
        processes::ip(&format!("netns add {}", node.name))?;
    }
    configuration::network_commands().iter().try_for_each(|words| processes::ip(words))?;
    let [etcd, api, manager, scheduler] = configuration::control_plane();
    for (name, arguments) in [etcd, api] {
        start_control(programs, name, &arguments)?;
    }
    for node in &NODES {
        start_runtime(node)?;
    }
    let name = configuration::PAUSE_IMAGE.to_owned();
    let pause = Image { name, program: programs.join("pause"), user: 65535, beside: &[] };
    image::load(&pause)?;
    wait_until("the API server", START_MAX, || kubectl(&["get", "--raw", "/readyz"]).is_ok())?;
    for (name, arguments) in [manager, scheduler] {
        start_control(programs, name, &arguments)?;
    }
    let names = state().join("Corefile");
    fs::write(&names, configuration::names())?;
    start_control(programs, "coredns", &["-conf".to_owned(), names.display().to_string()])?;
    for node in &NODES {
        start_kubelet_of(programs, node)?;
    }
    for node in &NODES {
        wait_until(node.name, START_MAX, || kubectl(&["get", "node", node.name]).is_ok())?;
        // Only now: it ends itself when the node's address appears later.
        let mut proxy = processes::in_node(node, programs.join("kube-proxy"))?;
        proxy.arg(format!("--config={}/proxy.yaml", node.folder().display()));
        processes::start(&format!("{}-kube-proxy", node.name), proxy)?;
    }
    kubectl(&["wait", "--for=condition=Ready", "node", "--all", "--timeout=120s"])?;
    wait_until("the name service", START_MAX, name_is_found)?;
    wait_until("service accounts", START_MAX, || kubectl(&["get", "serviceaccount", "default"]).is_ok())?;
    fs::write(state().join("ready"), "")?;
    Ok(())
}

/// Asks the name service for the address of the API server's service, with a question written out byte by byte.
fn name_is_found() -> bool {
    let labels = ["kubernetes", "default", "svc", "cluster", "local"];
    let mut question = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in labels {
        question.push(label.len() as u8);
        question.extend(label.as_bytes());
    }
    question.extend([0, 0, 1, 0, 1]);
    let asked = || -> std::io::Result<Vec<u8>> {
        let socket = UdpSocket::bind((layout::HOST, 0))?;
        socket.set_read_timeout(Some(Duration::from_millis(500)))?;
        socket.send_to(&question, (NODES[0].address, 53))?;
        let mut answer = vec![0; 512];
        let length = socket.recv(&mut answer)?;
        answer.truncate(length);
        Ok(answer)
    };
    let address = layout::SERVICE_OF_API.parse::<std::net::Ipv4Addr>().map(|address| address.octets());
    asked().is_ok_and(|answer| address.is_ok_and(|address| answer.ends_with(&address)))
}

fn start_control(programs: &Path, name: &str, arguments: &[String]) -> anyhow::Result<()> {
    let mut command = processes::in_network(&NODES[0], programs.join(name));
    command.args(arguments);
    processes::start(name, command).map(drop)
}

/// Starts the first process of a node and containerd in it.
fn start_runtime(node: &Node) -> anyhow::Result<()> {
    let folder = node.folder();
    let mut hold = processes::in_network(node, "unshare");
    hold.args(["--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "sh"]);
    hold.arg(folder.join("hold.sh")).arg(&folder);
    let outer = processes::start(node.name, hold)?;
    wait_until("the first process of a node", START_MAX, || folder.join("held").exists())?;
    let first = fs::read_to_string(format!("/proc/{outer}/task/{outer}/children")).context("finding a process")?;
    fs::write(folder.join("first"), first.trim())?;
    tools::run(processes::in_network(node, "sh").args(["-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"]))?;
    let mut containerd = processes::in_node(node, "containerd")?;
    containerd.arg("-c").arg(folder.join("containerd.toml"));
    processes::start(&format!("{}-containerd", node.name), containerd)?;
    wait_until("containerd", START_MAX, || {
        processes::in_node(node, "ctr").is_ok_and(|mut ctr| tools::run(ctr.arg("version")).is_ok())
    })
}

/// Ends the kubelet of a node at once; its pods go on.
pub fn stop_kubelet(node: &Node) -> anyhow::Result<()> {
    processes::kill(&kubelet_of(node))
}

/// Starts the kubelet of a node again.
pub fn start_kubelet(node: &Node) -> anyhow::Result<()> {
    start_kubelet_of(&package::PACKAGE.installed().context("Kubernetes is not built")?, node)
}

fn kubelet_of(node: &Node) -> String {
    format!("{}-kubelet", node.name)
}

fn start_kubelet_of(programs: &Path, node: &Node) -> anyhow::Result<()> {
    let mut kubelet = processes::in_node(node, programs.join("kubelet"))?;
    kubelet.arg(format!("--config={}/kubelet.yaml", node.folder().display()));
    kubelet.arg(format!("--kubeconfig={}/certificates/{}.kubeconfig", state().display(), node.name));
    kubelet.arg(format!("--hostname-override={}", node.name)).arg(format!("--node-ip={}", node.address));
    processes::start(&kubelet_of(node), kubelet).map(drop)
}
