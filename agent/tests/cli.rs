//! The command line from outside: what it prints where, and with which exit code.

#![expect(clippy::unwrap_used, reason = "a test fails by it, in its helpers too")]

use std::path::PathBuf;

use assert_cmd::Command;
use assert_cmd::assert::Assert;

const GOOD: &str = "\
apiVersion: spillway.dev/v1alpha1
kind: Backend
metadata: {name: archive}
spec:
  type: Filesystem
  filesystem: {}
---
apiVersion: spillway.dev/v1alpha1
kind: MonitoringPipeline
metadata: {name: jobs}
spec:
  inputs:
  - {name: pushed, type: Events}
  routes:
  - {name: everything, backendRefs: [{name: archive}]}
";

/// Runs the agent with an environment of its own, in a folder of its own.
struct Agent {
    dir: tempfile::TempDir,
}

impl Agent {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::cargo_bin("spillway-agent").unwrap();
        command.current_dir(self.dir.path()).env_clear().args(args);
        command
    }

    fn run(&self, args: &[&str]) -> Assert {
        self.command(args).assert()
    }
}

fn stdout(assert: &Assert) -> String {
    String::from_utf8(assert.get_output().stdout.clone()).unwrap()
}

fn stderr(assert: &Assert) -> String {
    String::from_utf8(assert.get_output().stderr.clone()).unwrap()
}

#[test]
fn good_manifests_pass_the_check() {
    let agent = Agent::new();
    agent.file("good.yaml", GOOD);
    let checked = agent.run(&["check", "-f", "good.yaml"]).success();
    assert!(stdout(&checked).ends_with("1 pipeline, 1 backend, 0 errors, 0 warnings\n"), "{}", stdout(&checked));
    let json = agent.run(&["check", "-f", ".", "-o", "json"]).success();
    let report: serde_json::Value = serde_json::from_str(&stdout(&json)).unwrap();
    assert_eq!(report["pipelines"][0], "default.jobs");
}

#[test]
fn a_bad_manifest_is_told_with_its_place_and_exit_code_1() {
    let agent = Agent::new();
    agent.file("bad.yaml", &GOOD.replace("type: Filesystem", "type: Filesytem"));
    let checked = agent.run(&["check", "-f", "bad.yaml"]).code(1);
    let text = stdout(&checked);
    assert!(text.contains("bad.yaml:5:9: Backend default/archive: spec.type"), "{text}");
    assert!(text.contains("did you mean `Filesystem`?"), "{text}");
    let json = agent.run(&["check", "-f", "bad.yaml", "-o", "json"]).code(1);
    let report: serde_json::Value = serde_json::from_str(&stdout(&json)).unwrap();
    assert_eq!((&report["errors"][0]["line"], &report["errors"][0]["column"]), (&5.into(), &9.into()));
}

/// What `check` warns of, each as the object it is about (where there is one) and the words.
fn warnings(agent: &Agent, file: &str) -> Vec<(Option<String>, String)> {
    let checked = stdout(&agent.run(&["check", "-f", file]).success());
    let human: Vec<&str> = checked.lines().filter_map(|line| line.strip_prefix("warning: ")).collect();
    let report = stdout(&agent.run(&["check", "-f", file, "-o", "json"]).success());
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    let json = report["warnings"].as_array().unwrap();
    assert_eq!(human.len(), json.len(), "{checked}{report:#}");
    let both = human.iter().zip(json).map(|(line, warning)| {
        assert_eq!(warning["reason"], "NotStandalone", "{warning:#}");
        let place = format!("{file}:{}:{}: ", warning["line"], warning["column"]);
        assert!(line.starts_with(&place), "{place}: {line}");
        let words = &line[place.len()..];
        let object = warning["object"].as_str().map(str::to_owned);
        let words = object.iter().fold(words, |words, object| words.strip_prefix(&format!("{object}: ")).unwrap());
        (object, words.to_owned())
    });
    both.collect()
}

#[test]
fn whatever_a_run_refuses_of_good_manifests_the_check_warned_of_in_the_same_words() {
    let input = "{name: pushed, type: Events}";
    let selector = "{podSelector: {matchLabels: {app: etcher}}}";
    let logs = format!("{{name: logs, type: ContainerLogs, containerLogs: {selector}}}");
    let events = format!("{{name: pushed, type: Events, events: {selector}}}");
    let of_cluster = GOOD.replace("kind: Backend", "kind: ClusterBackend");
    let of_cluster = of_cluster.replace("kind: MonitoringPipeline", "kind: ClusterMonitoringPipeline");
    for (text, count) in [
        (GOOD.replace(input, &logs), 1),
        (GOOD.replace(input, &events), 1),
        (GOOD.replace(input, &format!("{logs}\n  - {events}")), 2),
        (of_cluster.replace("  inputs:", "  namespaceSelector: {}\n  inputs:"), 1),
    ] {
        let agent = Agent::new();
        agent.file("m.yaml", &text);
        let warned = warnings(&agent, "m.yaml");
        assert_eq!(warned.len(), count, "{warned:?}");
        let words: Vec<&str> = warned.iter().map(|(_, words)| words.as_str()).collect();
        let object = warned[0].0.as_deref().unwrap();
        let dirs = ["--data-dir", "data", "--filesystem-root", "out", "--pod-logs", "off"];
        let listeners = ["--http", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
        let refused = agent.run(&[&["run", "-f", "m.yaml"][..], &dirs, &listeners].concat()).code(1);
        let refused = stderr(&refused);
        let expected = format!("error[no-pipeline]: no pipeline can be opened; {object}: {}", words.join("; "));
        assert_eq!(refused.lines().last(), Some(&*expected));
    }
}

#[test]
fn manifests_of_which_nothing_runs_are_warned_of() {
    let agent = Agent::new();
    agent.file("m.yaml", GOOD.split("---").next().unwrap());
    let [(None, words)] = &warnings(&agent, "m.yaml")[..] else { panic!("one warning without an object") };
    let refused = stderr(&agent.run(&["run", "-f", "m.yaml", "--data-dir", "data"]).code(1));
    assert!(refused.starts_with(&format!("error[no-pipeline]: m.yaml: {words}; next: ")), "{refused}");
}

#[test]
fn a_path_that_is_not_there_fails_the_check() {
    let checked = Agent::new().run(&["check", "-f", "none.yaml"]).code(1);
    assert!(stdout(&checked).contains("cannot read none.yaml: No such file"), "{}", stdout(&checked));
}

#[test]
fn help_is_there_for_every_command_and_goes_to_stdout() {
    let agent = Agent::new();
    let commands: [&[&str]; 7] =
        [&["run"], &["check"], &["status"], &["log"], &["log", "inspect"], &["completions"], &["man"]];
    for command in commands {
        let help = agent.run(&[command, &["--help"]].concat()).success();
        assert!(stdout(&help).contains("Usage: spillway-agent"), "{command:?}");
        assert!(stderr(&help).is_empty(), "{command:?}");
    }
    let run = stdout(&agent.run(&["run", "--help"]).success());
    for part in ["SPILLWAY_HTTP", "127.0.0.1:8411", "Examples:", "Exit codes:"] {
        assert!(run.contains(part), "{part}");
    }
}

#[test]
fn the_version_is_the_package_s() {
    let agent = Agent::new();
    let short = stdout(&agent.run(&["-V"]).success());
    assert_eq!(short, format!("spillway-agent {}\n", env!("CARGO_PKG_VERSION")));
    let long = stdout(&agent.run(&["--version"]).success());
    assert!(long.starts_with(short.trim_end()) && long.contains("spillway.dev/v1alpha1"), "{long}");
}

#[test]
fn what_is_not_understood_exits_with_2() {
    let agent = Agent::new();
    agent.file("good.yaml", GOOD);
    for args in [&["rum"][..], &["check"], &["run", "--htp", "x"], &["check", "-f", "good.yaml", "-o", "yaml"], &[]] {
        let refused = agent.run(args).code(2);
        assert!(stdout(&refused).is_empty() && !stderr(&refused).is_empty(), "{args:?}");
    }
}

#[test]
fn a_setting_is_refused_with_the_place_it_was_written_at() {
    let agent = Agent::new();
    agent.file("good.yaml", GOOD);
    agent.file("agent.yaml", "manifests: good.yaml\nthreads: many\n");
    let refused = agent.run(&["run", "--config", "agent.yaml"]).code(2);
    let expected = "error[setting-value]: agent.yaml:2:10: threads: found `many`, allowed: a whole number of threads, \
                    1 to 64\n";
    assert_eq!(stderr(&refused), expected);
    let refused = agent.command(&["run", "--config", "agent.yaml"]).env("SPILLWAY_THREADS", "0").assert().code(2);
    let expected = "error[setting-value]: environment variable SPILLWAY_THREADS: found `0`, allowed: a whole number of \
                    threads, 1 to 64\n";
    assert_eq!(stderr(&refused), expected);
    let refused = agent
        .command(&["run", "--config", "agent.yaml", "--threads", "x"])
        .env("SPILLWAY_THREADS", "0")
        .assert()
        .code(2);
    assert!(stderr(&refused).starts_with("error[setting-value]: --threads: found `x`"), "{}", stderr(&refused));
}

#[test]
fn an_agent_without_a_good_pipeline_does_not_start() {
    let agent = Agent::new();
    agent.file("bad.yaml", &GOOD.replace("type: Events", "type: Event"));
    let refused = agent.run(&["run", "-f", "bad.yaml", "--data-dir", "data"]).code(1);
    let text = stderr(&refused);
    assert!(text.contains("bad.yaml:13:26: MonitoringPipeline default/jobs: spec.inputs[0].type"), "{text}");
    let nothing = "error[no-pipeline]: bad.yaml: a standalone run does not start without a pipeline; found no valid \
                   MonitoringPipeline or ClusterMonitoringPipeline; allowed: at least one; next: ";
    assert!(text.contains(nothing), "{text}");
    assert!(text.ends_with("next: correct what `spillway-agent check -f PATH` tells\n"), "{text}");
    assert!(!agent.dir.path().join("data").exists());
}

#[test]
fn a_listener_beyond_loopback_without_protection_does_not_start() {
    let agent = Agent::new();
    agent.file("good.yaml", GOOD);
    let args = ["run", "-f", "good.yaml", "--data-dir", "data", "--filesystem-root", "out", "--admin", "0.0.0.0:0"];
    let refused = agent.run(&args).code(1);
    assert!(stderr(&refused).contains("error[insecure-listener]:"), "{}", stderr(&refused));
    assert!(stderr(&refused).contains("--tls-cert, --tls-key and --token-file"), "{}", stderr(&refused));
}

#[test]
fn an_agent_that_cannot_be_asked_is_exit_code_2() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let asked = Agent::new().run(&["status", "--admin", &free.to_string()]).code(2);
    let text = stderr(&asked);
    assert!(
        text.starts_with(&format!("error[status-ask]: the agent at http://{free}/v1/status cannot be asked:")),
        "{text}"
    );
    assert!(text.ends_with("next: see that it runs and that --admin is its address\n"), "{text}");
    assert_eq!(text.lines().count(), 1);
}

#[test]
fn a_folder_that_is_no_log_is_told() {
    let agent = Agent::new();
    let refused = agent.run(&["log", "inspect", "."]).code(1);
    assert!(stderr(&refused).contains(". is no log: found no segment"), "{}", stderr(&refused));
}

#[test]
fn completions_and_the_manual_page_are_printed() {
    let agent = Agent::new();
    assert!(stdout(&agent.run(&["completions", "bash"]).success()).contains("--filesystem-root"));
    assert!(stdout(&agent.run(&["man"]).success()).contains(".TH spillway-agent 1"));
}

/// The files of `examples/etch-line`.
fn with_examples() -> Agent {
    let agent = Agent::new();
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../examples/etch-line");
    std::fs::create_dir(agent.dir.path().join("tests")).unwrap();
    for name in ["etch-line.yaml", "tests/etch-line.yaml"] {
        agent.file(name, &std::fs::read_to_string(folder.join(name)).unwrap());
    }
    agent
}

#[test]
fn tests_of_a_pipeline_pass_as_the_page_shows_it() {
    let page = include_str!("../../docs/how-to/test-pipelines.md");
    let shown = page.split("```console\n").nth(1).unwrap().split("```").next().unwrap();
    let (command, printed) = shown.split_once('\n').unwrap();
    assert!(command.ends_with("/tests/etch-line.yaml"), "{command}");
    let run = with_examples().run(&["test", "tests/etch-line.yaml"]).success();
    assert_eq!(stdout(&run), printed);
}

#[test]
fn a_test_that_fails_and_one_that_cannot_be_tried_exit_with_1() {
    let agent = with_examples();
    let failing = "\
manifests: [etch-line.yaml]
tests:
- {name: a job without a status, pipeline: etch-line, events: [{event: {kind: finished, ms: 5}, expect: {routes: [archive, alarms]}}]}
";
    agent.file("failing.yaml", failing);
    let run = agent.run(&["test", "failing.yaml"]).code(1);
    let told = "event 1: routes: expected alarms, archive, found archive (`match` of route `alarms` has no answer: absent field)";
    assert!(stdout(&run).contains(told), "{}", stdout(&run));
    assert!(stdout(&run).ends_with("0 passed, 1 failed, 0 errors\n"), "{}", stdout(&run));
    let run = agent.run(&["test", "tests/etch-line.yaml", "none.yaml", "-o", "json"]).code(1);
    let report: serde_json::Value = serde_json::from_str(&stdout(&run)).unwrap();
    assert_eq!((&report["passed"], &report["errors"][0]["file"]), (&3.into(), &"none.yaml".into()));
    agent.file("alone.yaml", "tests: [{name: a, pipeline: p, events: [{event: {}, expect: {dropped: true}}]}]");
    let run = agent.run(&["test", "alone.yaml"]).code(1);
    assert!(stdout(&run).contains("no manifests: name them in `manifests`, or with -f"), "{}", stdout(&run));
}

#[test]
fn conditions_are_explained() {
    let agent = with_examples();
    let told = stdout(&agent.run(&["check", "-f", "etch-line.yaml", "--explain"]).success());
    let line = "MonitoringPipeline default/etch-line: route alarms: costs `walk`, reads event.kind, event.retries, event.status\n";
    assert!(told.contains(line), "{told}");
    let report = stdout(&agent.run(&["check", "-f", "etch-line.yaml", "--explain", "-o", "json"]).success());
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["conditions"][0]["place"], "transform quiet");
    let report = stdout(&agent.run(&["check", "-f", "etch-line.yaml", "-o", "json"]).success());
    assert!(!report.contains("conditions"), "{report}");
}
