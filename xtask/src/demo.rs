//! The main job on real input, by one command: a real agent process between real senders and real receivers.
//!
//! ```text
//! jobs of a wafer fab ── HTTP ──►               ──► files      every job event; jobs that failed
//!                                 spillway-agent ──► receiver   starts and ends of jobs; down for some seconds
//! a container's log ──── file ──►               ──► files      every line; lines with ERROR
//! ```
//!
//! Meanwhile the container's log is rotated, the receiver fails, and the agent is killed with SIGKILL and started again.
//! Every event and every line carries a number of ours. The command ends by itself and succeeds only when each number
//! was found exactly once in every place it belongs to, and nowhere else. Bounds: [`FEED`] of feeding, then at most
//! [`DRAIN_MAX`] until nothing is held, then at most [`agent::STOP_MAX`] until the agent has ended.

mod agent;
mod http;
mod jobs;
mod ledger;
mod places;
mod pod_log;
mod receiver;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::demo::agent::{Agent, Launch};
use crate::demo::jobs::Jobs;
use crate::demo::places::Places;
use crate::demo::pod_log::PodLog;
use crate::demo::receiver::Receiver as Dashboard;
use crate::stopwatch::Stopwatch;
use crate::workspace::Workspace;

/// How long events and lines are made.
const FEED: Duration = Duration::from_secs(10);
/// How long deliveries may go on until nothing is held.
const DRAIN_MAX: Duration = Duration::from_secs(20);
/// When the receiver starts to fail, and when it is well again.
const RECEIVER_DOWN: std::ops::Range<Duration> = Duration::from_secs(3)..Duration::from_secs(6);
/// When the container's log is rotated.
const ROTATION: Duration = Duration::from_secs(5);
/// When the agent is killed without a warning (SIGKILL) and started again.
const KILL: Duration = Duration::from_secs(8);
/// How often something is made.
const TICK: Duration = Duration::from_millis(100);
/// Where the manifests say that the receiver is; replaced by where it really is.
const RECEIVER_IN_MANIFEST: &str = "127.0.0.1:8413";

/// What `cargo xtask demo` can be told.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Arguments {
    /// Shows this agent instead of building one
    #[arg(long, value_name = "PROGRAM")]
    agent: Option<PathBuf>,
}

/// Runs the demo as a step of CI.
pub(crate) fn run_default(workspace: &Workspace) -> anyhow::Result<()> {
    run(workspace, &Arguments::default())
}

/// Runs the demo.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> anyhow::Result<()> {
    let program = if let Some(program) = &arguments.agent {
        program.clone()
    } else {
        println!("building the agent (the first time takes minutes)");
        workspace.build("spillway-agent", &[])?
    };
    println!("five tools of a wafer fab send job events, a container writes a log; what goes where: examples/demo");
    let folder = Folder::fresh(workspace)?;
    let dashboard = Dashboard::start()?;
    let manifests = folder.manifests(workspace, &dashboard.address())?;
    let launch = Launch { program: program.clone(), folder: folder.root.clone(), manifests };
    let mut agent = Agent::start(&launch)?;
    println!("agent {} takes events at {} and answers at {}", agent.pid(), agent.http(), agent.admin());
    println!("follow its own log with: tail -f demo-out/agent.log\n");
    let sent = feed(&mut agent, &dashboard, &folder)?;
    agent.stop()?;
    dashboard.stop();
    let verdict = sent.compare(&folder.root.join("out"), &dashboard.received())?;
    println!("{verdict}");
    print_where_to_look(&program);
    if !verdict.is_good() {
        bail!("not every event was found exactly once where it belongs");
    }
    println!("\nok: every event and every line was found exactly once in every place it belongs to");
    Ok(())
}

/// Makes events and lines, shows what becomes of them, returns what has been made when nothing is held any longer.
fn feed(agent: &mut Agent, dashboard: &Dashboard, folder: &Folder) -> anyhow::Result<Places> {
    let watch = Stopwatch::start();
    let mut sent = Places::default();
    let mut jobs = Jobs::default();
    let mut pod_log = PodLog::create(&folder.root.join("pods"))?;
    let (mut seconds, mut killed) = (0, false);
    loop {
        agent.look(TICK)?;
        let now = watch.elapsed();
        dashboard.set_down(RECEIVER_DOWN.contains(&now));
        if now < FEED {
            let events = jobs.next_events();
            agent.send(&events)?;
            sent.add_events(&events);
            sent.add_lines(&pod_log.append()?);
            if now >= ROTATION {
                pod_log.rotate_once()?;
            }
        }
        if now >= KILL && !killed {
            killed = true;
            println!("      (the agent is killed, SIGKILL, and started again over the same data)");
            agent.kill_and_start_again()?;
        }
        if now.as_secs() > seconds {
            seconds = now.as_secs();
            let ledger = ledger::read(&agent.admin())?;
            println!("{}", ledger.line(seconds, &sent, RECEIVER_DOWN.contains(&now)));
            if now > FEED && ledger.is_settled(&sent) {
                println!("\n{}", ledger.table());
                return Ok(sent);
            }
            if now > FEED + DRAIN_MAX {
                bail!("something is still held {} s after the last event:\n{}", DRAIN_MAX.as_secs(), ledger.table());
            }
        }
    }
}

fn print_where_to_look(program: &Path) {
    println!("\nwhat is left to look at:");
    println!("  find demo-out/out -type f        # what was delivered into files");
    println!("  find demo-out/pods -type f       # the container's log, rotated once");
    println!("  cat demo-out/manifests/*         # the manifests that ran");
    println!("  {} log inspect demo-out/data/spool/default.jobs  # the durable log", program.display());
}

/// The folder of one run, empty at its start.
struct Folder {
    root: PathBuf,
}

impl Folder {
    fn fresh(workspace: &Workspace) -> anyhow::Result<Self> {
        let root = workspace.root().join("demo-out");
        if root.exists() {
            fs::remove_dir_all(&root).context("clearing demo-out")?;
        }
        for name in ["data", "out", "pods", "manifests"] {
            fs::create_dir_all(root.join(name)).with_context(|| format!("creating demo-out/{name}"))?;
        }
        Ok(Self { root })
    }

    /// Copies the manifests with the address that the receiver got.
    fn manifests(&self, workspace: &Workspace, receiver: &str) -> anyhow::Result<PathBuf> {
        let target = self.root.join("manifests");
        for entry in fs::read_dir(workspace.root().join("examples/demo")).context("reading examples/demo")? {
            let path = entry?.path();
            let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
            let name = path.file_name().context("a manifest without a name")?;
            fs::write(target.join(name), text.replace(RECEIVER_IN_MANIFEST, receiver))?;
        }
        Ok(target)
    }
}
