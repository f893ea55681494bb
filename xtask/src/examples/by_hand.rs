//! The commands that README.md gives to type by hand: run as they stand, and judged by what README.md says of them.
//!
//! # Expected flow
//! The two blocks of shell of the section are found by their place: the first terminal checks manifests and starts the agent, the
//! other sends events and looks for them. Each line goes to `sh` as it is written, in a folder of its own in which `examples`
//! is that of the work tree and `target/release` holds the program that was just built. Then the agent gets SIGTERM.
//!
//! # Guarantees
//! - Every line is run and judged, or the step fails: a line of a kind that is not known is no pass. The one that builds is
//!   looked at alone: it must build the program that the other lines call.
//! - An event counts as sent with the answer that README.md says, and as there when the line that shows the files shows it,
//!   once, with the agent's own member.
//!
//! # Limits
//! Ports are those of README.md: where another process listens, the step fails and names the port. Each line may take
//! [`LINE_MAX`], the start [`READY_MAX`], the files [`FILES_MAX`], the end [`STOP_MAX`].

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::stopwatch::Stopwatch;
use crate::workspace::Workspace;

/// Where the lines stand.
const DOCUMENT: &str = "README.md";
const HEADING: &str = "\n## Run it by hand\n";

/// How long a line may take that ends by itself.
const LINE_MAX: Duration = Duration::from_secs(30);
/// How long the agent may take to be ready.
const READY_MAX: Duration = Duration::from_secs(20);
/// How long events may take until the files show them.
const FILES_MAX: Duration = Duration::from_secs(10);
/// How long the agent may take to end after SIGTERM: its own drain of at most 25 s and a little more.
const STOP_MAX: Duration = Duration::from_secs(30);
/// How often the files are looked at.
const TICK: Duration = Duration::from_millis(100);
/// Lines of the agent's own log that may wait to be looked at.
const LOG_LINES_MAX: usize = 1024;

/// The member that a delivered event has and a sent one has not.
const OWN_MEMBER: &str = "_spillway";

/// What `timeout` ends with when the time was over.
const TIMED_OUT: i32 = 124;

/// Runs the lines with `program`, the agent that was just built.
pub(super) fn run(workspace: &Workspace, program: &Path) -> anyhow::Result<()> {
    if Command::new("curl").arg("--version").stdout(Stdio::null()).status().is_err() {
        println!("    skipped: the lines by hand of {DOCUMENT}, because there is no curl");
        return Ok(());
    }
    let document = workspace.read(DOCUMENT)?;
    let lines = Lines::of(&document).with_context(|| format!("{DOCUMENT}, {}", HEADING.trim()))?;
    let folder = Folder::fresh(workspace, &lines.program, program)?;
    for address in lines.addresses() {
        TcpListener::bind(&address).with_context(|| {
            format!("{DOCUMENT} needs {address}, and something listens there: end it, and run this again")
        })?;
    }
    for line in &lines.before {
        println!("    {DOCUMENT}: {line}");
        folder.must_succeed(line)?;
    }
    let mut agent = Agent::start(&folder, lines.runs)?;
    let mut judge = Judge { folder: &folder, promised: &lines.answer, sent: Vec::new(), shown: 0 };
    let judged = lines.after.iter().try_for_each(|line| judge.line(line, &lines.program, &mut agent));
    judged.and_then(|()| judge.finish()).inspect_err(|_| agent.print_log())?;
    let took = agent.stop()?;
    println!(
        "    {DOCUMENT}: {} lines by hand do what it says, events sent and found: {}; the agent ended {took} after SIGTERM",
        lines.before.len() + 1 + lines.after.len(),
        judge.sent.len()
    );
    Ok(())
}

/// The lines of the two terminals, and what is said of them.
#[derive(Debug)]
struct Lines<'a> {
    /// What the first line builds, as the others call it.
    program: String,
    /// What ends by itself, before the agent starts.
    before: Vec<&'a str>,
    /// What starts the agent.
    runs: &'a str,
    /// What is typed in the other terminal.
    after: Vec<&'a str>,
    /// The answer to events.
    answer: Answer,
}

impl<'a> Lines<'a> {
    fn of(document: &'a str) -> anyhow::Result<Self> {
        let (_, section) = document.split_once(HEADING).context("the section is not there")?;
        let section = section.split("\n## ").next().unwrap_or_default();
        let mut blocks = section.split("```sh\n").skip(1).map(|rest| rest.split_once("```").unwrap_or((rest, "")));
        let (Some((first, _)), Some((second, words)), None) = (blocks.next(), blocks.next(), blocks.next()) else {
            bail!("found another number of blocks of shell than two, one for each terminal");
        };
        let lines = |block: &'a str| block.lines().filter(|line| !line.trim().is_empty()).collect::<Vec<_>>();
        let (first, after) = (lines(first), lines(second));
        let [build, before @ .., runs] = &first[..] else { bail!("the first terminal has fewer lines than two") };
        let program = built(build).with_context(|| format!("`{build}` does not build a program for release"))?;
        ensure!(runs.starts_with(&format!("{program} run ")), "`{runs}` does not run {program}");
        ensure!(!runs.contains(['#', '|', ';', '&']), "`{runs}` is more than one command");
        let spans = words.split('`').skip(1).step_by(2);
        let answer = spans.filter_map(Answer::promised).next().context("no answer is said after the second block")?;
        Ok(Self { program, before: before.to_vec(), runs, after, answer })
    }

    /// Returns where the agent is expected to listen.
    fn addresses(&self) -> BTreeSet<String> {
        const HOST: &str = "127.0.0.1:";
        let after = self.after.iter().flat_map(|line| line.split(HOST).skip(1));
        let ports = after.map(|rest| rest.chars().take_while(char::is_ascii_digit).collect::<String>());
        ports.map(|port| format!("{HOST}{port}")).collect()
    }
}

/// Returns the program that a line builds, as it is called from the folder of the workspace.
fn built(line: &str) -> Option<String> {
    let words: Vec<&str> = line.strip_prefix("cargo build ")?.split_whitespace().collect();
    let package = words.iter().position(|word| *word == "-p").and_then(|at| words.get(at + 1))?;
    words.contains(&"--release").then(|| format!("target/release/{package}"))
}

/// An answer to events.
#[derive(Debug, PartialEq)]
struct Answer {
    status: u16,
    body: Value,
}

impl Answer {
    /// Returns the answer that a document names, as `202 {"accepted": 1}`.
    fn promised(span: &str) -> Option<Self> {
        let (status, body) = span.split_once(' ')?;
        Some(Self { status: status.parse().ok()?, body: serde_json::from_str(body).ok()? })
    }

    /// Returns the answer that `curl -i` shows.
    fn shown(text: &str) -> Option<Self> {
        let (head, body) = text.split_once("\r\n\r\n")?;
        let status = head.strip_prefix("HTTP/")?.split(' ').nth(1)?;
        Some(Self { status: status.parse().ok()?, body: serde_json::from_str(body).ok()? })
    }
}

/// Judges the lines of the other terminal, one after the other.
struct Judge<'a> {
    folder: &'a Folder,
    promised: &'a Answer,
    /// Every event that was sent.
    sent: Vec<Value>,
    /// How many of them were found in the files.
    shown: usize,
}

impl Judge<'_> {
    fn line(&mut self, line: &str, program: &str, agent: &mut Agent) -> anyhow::Result<()> {
        println!("    {DOCUMENT}: {line}");
        match line.split_whitespace().next().unwrap_or_default() {
            "curl" if line.contains(" -d ") => self.sends(line),
            "curl" => {
                let text = self.folder.must_succeed(line)?;
                ensure!(text.ends_with("# EOF\n"), "`{line}` shows no metrics:\n{text}");
                Ok(())
            }
            "find" => self.shows(line, agent),
            word if word == program => self.folder.must_succeed(line).map(drop),
            _ => bail!("`{line}` is of no kind that is known here: teach this step what it must do"),
        }
    }

    fn sends(&mut self, line: &str) -> anyhow::Result<()> {
        let body = line.split_once(" -d '").and_then(|(_, rest)| rest.split_once('\'')).map(|(body, _)| body);
        let event = body.and_then(|body| serde_json::from_str(body).ok());
        self.sent.push(event.with_context(|| format!("`{line}` sends no JSON"))?);
        let text = self.folder.must_succeed(line)?;
        let answer =
            Answer::shown(&text).with_context(|| format!("`{line}` shows no answer with its status:\n{text}"))?;
        ensure!(answer == *self.promised, "`{line}`: the answer is {answer:?}, {DOCUMENT} says {:?}", self.promised);
        Ok(())
    }

    /// Looks until exactly the events that were sent are shown.
    fn shows(&mut self, line: &str, agent: &mut Agent) -> anyhow::Result<()> {
        let watch = Stopwatch::start();
        loop {
            let text = self.folder.must_succeed(line)?;
            if delivered(&text).is_some_and(|events| events == self.sent) {
                self.shown = self.sent.len();
                return Ok(());
            }
            if watch.elapsed() > FILES_MAX {
                let sent: Vec<String> = self.sent.iter().map(Value::to_string).collect();
                bail!("`{line}` must show {}, and shows {text:?} after {} s", sent.join(", "), FILES_MAX.as_secs());
            }
            agent.look(TICK)?;
        }
    }

    fn finish(&self) -> anyhow::Result<()> {
        ensure!(!self.sent.is_empty(), "no line sends an event");
        ensure!(self.shown == self.sent.len(), "no line shows where the last event is");
        Ok(())
    }
}

/// Returns the events of files without the agent's own member; `None` where a line is none that was delivered.
fn delivered(text: &str) -> Option<Vec<Value>> {
    let event = |line: &str| {
        let mut event: Value = serde_json::from_str(line).ok()?;
        event.as_object_mut()?.remove(OWN_MEMBER).map(|_| event)
    };
    text.lines().map(event).collect()
}

/// Where the lines are typed.
struct Folder {
    root: PathBuf,
}

impl Folder {
    /// Makes it anew, with `program` where the lines call `called`.
    fn fresh(workspace: &Workspace, called: &str, program: &Path) -> anyhow::Result<Self> {
        let root = workspace.target().join("xtask-by-hand");
        if root.exists() {
            fs::remove_dir_all(&root).with_context(|| format!("clearing {}", root.display()))?;
        }
        let called = root.join(called);
        fs::create_dir_all(called.parent().unwrap_or(&root)).with_context(|| format!("creating {}", root.display()))?;
        symlink(program, &called).context("putting the agent where it is called")?;
        symlink(workspace.root().join("examples"), root.join("examples")).context("putting the examples there")?;
        Ok(Self { root })
    }

    /// Returns a command here, without what this terminal sets for agents and for the network.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let ours = std::env::vars_os().map(|(name, _)| name);
        ours.filter(|name| name.to_string_lossy().starts_with("SPILLWAY_")).for_each(|name| {
            command.env_remove(name);
        });
        command.env("no_proxy", "127.0.0.1").current_dir(&self.root).stdin(Stdio::null());
        command
    }

    /// Runs a line as it stands and returns what it prints.
    fn must_succeed(&self, line: &str) -> anyhow::Result<String> {
        let mut command = self.command("timeout");
        command.arg(LINE_MAX.as_secs().to_string()).args(["sh", "-c", line]);
        let output = command.output().with_context(|| format!("starting `{line}`"))?;
        ensure!(output.status.code() != Some(TIMED_OUT), "`{line}` did not end within {} s", LINE_MAX.as_secs());
        let (text, told) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "`{line}` failed ({}):\n{text}{told}", output.status);
        Ok(text.into_owned())
    }
}

/// The agent of the first terminal. Dropping it ends the process the hard way.
struct Agent {
    child: Child,
    lines: Receiver<String>,
    /// Its log so far.
    seen: Vec<String>,
}

impl Agent {
    /// Starts it by the line and waits until it is ready.
    fn start(folder: &Folder, line: &str) -> anyhow::Result<Self> {
        println!("    {DOCUMENT}: {line}");
        let mut command = folder.command("sh");
        // The shell makes room, so that the process is the agent's.
        command.args(["-c", &format!("exec {line}")]).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("starting `{line}`"))?;
        let log = child.stderr.take().context("the agent has no log")?;
        let (sender, lines) = sync_channel(LOG_LINES_MAX);
        std::thread::spawn(move || {
            for line in BufReader::new(log).lines().map_while(Result::ok) {
                // An agent that cannot log would wait: what nobody looks at goes.
                drop(sender.try_send(line));
            }
        });
        let mut agent = Self { child, lines, seen: Vec::new() };
        let watch = Stopwatch::start();
        while let Some(left) = READY_MAX.checked_sub(watch.elapsed()) {
            let Ok(line) = agent.lines.recv_timeout(left) else { break };
            agent.seen.push(line);
            let record: Value = agent.seen.last().and_then(|line| serde_json::from_str(line).ok()).unwrap_or_default();
            if record["message"] == "ready" {
                return Ok(agent);
            }
        }
        bail!("`{line}` is not ready after {watch}:\n{}", agent.seen.join("\n"))
    }

    /// Prints its log so far, for whoever looks for a cause.
    fn print_log(&mut self) {
        self.seen.extend(self.lines.try_iter());
        self.seen.iter().for_each(|line| println!("    {line}"));
    }

    /// Lets `pause` pass while it runs; fails as soon as it has ended.
    fn look(&mut self, pause: Duration) -> anyhow::Result<()> {
        match self.lines.recv_timeout(pause) {
            Ok(line) => self.seen.push(line),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => bail!("the agent has ended by itself"),
        }
        Ok(())
    }

    /// Ends it as a person would and wants it to end well; returns how long that took.
    fn stop(mut self) -> anyhow::Result<Stopwatch> {
        let watch = Stopwatch::start();
        kill_process(Pid::from_child(&self.child), Signal::TERM).context("sending SIGTERM to the agent")?;
        while let Some(left) = STOP_MAX.checked_sub(watch.elapsed()) {
            match self.lines.recv_timeout(left) {
                Ok(line) => self.seen.push(line),
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => {
                    let status = self.child.wait().context("waiting for the agent")?;
                    ensure!(status.success(), "the agent ended with {status} after SIGTERM:\n{}", self.seen.join("\n"));
                    return Ok(watch);
                }
            }
        }
        bail!("the agent did not end within {} s:\n{}", STOP_MAX.as_secs(), self.seen.join("\n"))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Already ended in the good case; otherwise nobody else would end it.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "# X\n\n## Run it by hand\n\n```yaml\na: 1\n```\n\n```sh\ncargo build --release -p agent\n\
                        target/release/agent check -f a\ntarget/release/agent run -f a\n```\n\nOther:\n\n```sh\n\
                        curl -i http://127.0.0.1:81/e -d '{\"a\": 1}'\n\nfind out # there\ncurl http://127.0.0.1:82/m\n```\n\n\
                        `a member` and `202 {\"accepted\": 1}` mean: here.\n\n## Next\n\n```sh\nls\n```\n";

    #[test]
    fn lines_are_found_by_their_place() {
        let lines = Lines::of(GOOD).unwrap();
        assert_eq!(lines.program, "target/release/agent");
        assert_eq!(
            (&lines.before[..], lines.runs),
            (&["target/release/agent check -f a"][..], "target/release/agent run -f a")
        );
        assert_eq!(lines.after.len(), 3);
        assert_eq!(lines.answer, Answer { status: 202, body: serde_json::json!({"accepted": 1}) });
        assert_eq!(lines.addresses().into_iter().collect::<Vec<_>>(), ["127.0.0.1:81", "127.0.0.1:82"]);
    }

    #[test]
    fn a_section_of_another_shape_is_refused() {
        for (from, to, told) in [
            ("## Run it by hand", "## Run it", "the section is not there"),
            ("Other:\n\n```sh", "Other:\n\n```text", "another number of blocks"),
            ("--release ", "", "does not build a program for release"),
            ("-p agent", "-p other", "does not run target/release/other"),
            ("run -f a", "run -f a &", "more than one command"),
            ("`202 ", "`", "no answer is said"),
        ] {
            assert!(GOOD.contains(from), "{from}");
            let error = format!("{:#}", Lines::of(&GOOD.replace(from, to)).unwrap_err());
            assert!(error.contains(told), "{from}: {error}");
        }
    }

    #[test]
    fn an_answer_is_read_with_its_status() {
        let shown = "HTTP/1.1 202 Accepted\r\ncontent-length: 14\r\n\r\n{\"accepted\":1}";
        assert_eq!(Answer::shown(shown), Answer::promised("202 {\"accepted\": 1}"));
        assert_ne!(Answer::shown(&shown.replace("202", "207")), Answer::promised("202 {\"accepted\": 1}"));
        assert_eq!(Answer::shown("{\"accepted\":1}"), None);
    }

    #[test]
    fn an_event_is_delivered_with_the_agent_s_own_member_alone() {
        assert_eq!(delivered("{\"a\":1,\"_spillway\":{}}\n"), Some(vec![serde_json::json!({"a": 1})]));
        assert_eq!(delivered("{\"a\":1}\n"), None);
        assert_eq!(delivered(""), Some(vec![]));
    }
}
