//! What the operator costs with a large cluster, and how soon an edit is on every agent: called by `cargo xtask fleet`.

#![expect(clippy::print_stdout, reason = "a program that talks to a person")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use reqwest::Method;
use serde_json::{Value, json};
use spillway_tests::fleet::agents::Fleet;
use spillway_tests::fleet::api::{Api, Counts, difference, writes};
use spillway_tests::fleet::objects::{
    EVERYWHERE, OWN, Size, WATCH_EVERYWHERE, WATCH_KEPT, WATCH_LEASE, WATCH_PIPELINES, everywhere, node,
};
use spillway_tests::servers::kube_api::KubeApi;
use spillway_tests::servers::process::{Process, free_port};
use tokio::time::{Instant, timeout};

/// How long anything may take before the run fails.
const PATIENCE: Duration = Duration::from_secs(900);

/// What the operator calls itself.
const IDENTITY: &str = "one";

/// Measures the operator on a real API server with many objects and many stubs of agents.
#[derive(Debug, Parser)]
struct Arguments {
    /// The operator's program
    #[arg(long)]
    operator: PathBuf,
    /// How many nodes there are, each with a stub of an agent
    #[arg(long, default_value_t = 1000)]
    agents: usize,
    /// How many pipelines there are, ten to a namespace
    #[arg(long, default_value_t = 10_000)]
    pipelines: usize,
    /// How many pods there are
    #[arg(long, default_value_t = 20_000)]
    pods: usize,
    /// How many edits of the pipeline that every agent runs are timed
    #[arg(long, default_value_t = 100)]
    edits: usize,
    /// How long nothing happens while requests are counted
    #[arg(long, default_value_t = 600)]
    quiet_seconds: u64,
    /// Writes the table to this file as well
    #[arg(long)]
    write: Option<PathBuf>,
}

/// What is measured, as lines of a table.
#[derive(Debug, Default)]
struct Rows {
    lines: Vec<String>,
    failed: usize,
}

impl Rows {
    fn add(&mut self, what: &str, figure: &str, bar: &str, holds: Option<bool>) {
        let verdict = holds.map_or("", |holds| if holds { "PASS" } else { "FAIL" });
        println!("  {what}: {figure} {bar} {verdict}");
        self.failed += usize::from(holds == Some(false));
        self.lines.push(format!("| {what} | {figure} | {bar} | {verdict} |"));
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let arguments = Arguments::parse();
    let folder = tempfile::tempdir()?;
    let server = KubeApi::of_figures(folder.path())?;
    let api = Api::of(&server)?;
    let size = Size { agents: arguments.agents, pipelines: arguments.pipelines, pods: arguments.pods };
    fill(&server, &api, size).await?;
    let mut rows = Rows::default();
    let run = Run { arguments: &arguments, server: &server, api: &api, folder: folder.path(), size };
    run.measure(&mut rows).await?;
    if let Some(path) = &arguments.write {
        fs::write(path, table(&rows, size)?)?;
        println!("written to {}", path.display());
    }
    anyhow::ensure!(rows.failed == 0, "{} of the bars do not hold", rows.failed);
    Ok(())
}

/// Creates every object.
async fn fill(server: &KubeApi, api: &Api, size: Size) -> anyhow::Result<()> {
    let charts = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the repository")?.join("charts/kustomize");
    server.must(&["apply", "--server-side", "-k", &charts.display().to_string()], "");
    // Nobody answers where its Service leads.
    server.must(&["delete", "validatingwebhookconfigurations", "--all"], "");
    server.must(&["wait", "--for=condition=Established", "--timeout=60s", "crd", "--all"], "");
    let begun = Instant::now();
    api.create_all(size.all_namespaces()).await?;
    api.create_all(size.nodes()).await?;
    let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True", "reason": "Stub", "message": "",
        "lastHeartbeatTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
    for number in 0..size.agents {
        api.send(Method::PATCH, &format!("/api/v1/nodes/{}/status", node(number)), &ready).await?;
    }
    api.create_all(size.all_pods()).await?;
    api.create_all(size.ours()).await?;
    println!("objects are there after {:.0} s", begun.elapsed().as_secs_f64());
    Ok(())
}

struct Run<'a> {
    arguments: &'a Arguments,
    server: &'a KubeApi,
    api: &'a Api,
    folder: &'a Path,
    size: Size,
}

impl Run<'_> {
    async fn measure(&self, rows: &mut Rows) -> anyhow::Result<()> {
        let port = free_port();
        let before = self.api.counts().await?;
        let begun = Instant::now();
        let mut operator = Process::start(self.operator(port)?, &self.folder.join("operator.log"))?;
        self.see(WATCH_LEASE, |lease| lease["spec"]["holderIdentity"] == IDENTITY).await?;
        rows.add("from the start of the operator until it leads: s", &seconds(begun.elapsed()), "", None);
        self.see_all(WATCH_PIPELINES, "Accepted").await?;
        rows.add("until every pipeline is looked at and says so: s", &seconds(begun.elapsed()), "", None);
        self.kept().await?;
        rows.add("until every last good version is kept: s", &seconds(begun.elapsed()), "", None);
        let made = difference(&before, &self.api.counts().await?);
        rows.add("writes of that first time", &writes(&made).to_string(), "", None);
        let ca =
            self.server.must(&["get", "configmap", "spillway-ca", "-n", OWN, "-o", r"jsonpath={.data.ca\.crt}"], "");
        let begun = Instant::now();
        let mut fleet = Fleet::start(self.api, &format!("https://127.0.0.1:{port}"), &ca, self.size.agents).await?;
        let generation = self.generation().await?;
        fleet.wait_for(generation, PATIENCE).await?;
        rows.add("until every agent has its configuration, tokens included: s", &seconds(begun.elapsed()), "", None);
        self.see_all(WATCH_PIPELINES, "Programmed").await?;
        rows.add("until every pipeline says that it runs: s", &seconds(begun.elapsed()), "", None);
        self.edits(&mut fleet, rows).await?;
        self.memory(&operator, "after the edits", rows)?;
        self.quiet(&mut fleet, rows).await?;
        self.memory(&operator, "after the quiet time", rows)?;
        operator.kill();
        Ok(())
    }

    /// Waits until an object of a collection is as it is to be.
    async fn see(&self, path: &str, is_last: impl FnMut(&Value) -> bool) -> anyhow::Result<()> {
        timeout(PATIENCE, self.api.watch(path, is_last)).await.with_context(|| format!("{path} never said it"))?
    }

    /// Waits until every pipeline but the one of the cluster has this condition.
    async fn see_all(&self, path: &str, condition: &str) -> anyhow::Result<()> {
        let mut seen = BTreeSet::new();
        let all = self.size.pipelines;
        let is_last = |object: &Value| {
            let holds = |one: &Value| one["type"] == condition && one["status"] == "True";
            if object["status"]["conditions"].as_array().is_some_and(|all| all.iter().any(holds)) {
                seen.insert(object["metadata"]["uid"].to_string());
            }
            seen.len() == all
        };
        self.see(path, is_last).await
    }

    /// Waits until a last good version of every pipeline is kept.
    async fn kept(&self) -> anyhow::Result<()> {
        let mut seen = BTreeSet::new();
        let all = self.size.pipelines + 1;
        let is_last = |object: &Value| {
            seen.insert(object["metadata"]["uid"].to_string());
            seen.len() == all
        };
        self.see(WATCH_KEPT, is_last).await
    }

    fn operator(&self, port: u16) -> anyhow::Result<Command> {
        let mut command = Command::new(&self.arguments.operator);
        command.args([
            "controller",
            "--log-format",
            "json",
            "--certificate-names",
            "127.0.0.1",
            "--identity",
            IDENTITY,
        ]);
        command.args(["--listen", &format!("127.0.0.1:{port}"), "--admin", &format!("127.0.0.1:{}", free_port())]);
        command.env("KUBECONFIG", self.server.kubeconfig_of(OWN, "spillway-controller")?);
        // As in the chart.
        command.env("MIMALLOC_PURGE_DELAY", "0");
        Ok(command)
    }

    async fn generation(&self) -> anyhow::Result<u64> {
        let object: Value = self.api.get(EVERYWHERE).await?;
        object["metadata"]["generation"].as_u64().context("a generation")
    }

    /// Edits the pipeline that every agent runs, one edit after the other.
    async fn edits(&self, fleet: &mut Fleet, rows: &mut Rows) -> anyhow::Result<()> {
        let (mut acknowledged, mut told) = (Vec::new(), Vec::new());
        for edit in 0..self.arguments.edits {
            let begun = Instant::now();
            let spec = json!({"spec": everywhere(400 + edit)});
            let edited = self.api.send(Method::PATCH, EVERYWHERE, &spec).await?;
            let generation = edited["metadata"]["generation"].as_u64().context("a generation")?;
            fleet.wait_for(generation, PATIENCE).await?;
            acknowledged.push(begun.elapsed());
            let all = self.size.agents as u64;
            let tells = |object: &Value| {
                let status = &object["status"];
                status["observedGeneration"] == generation && status["agents"]["programmed"] == all
            };
            self.see(WATCH_EVERYWHERE, tells).await?;
            told.push(begun.elapsed());
        }
        let agents = self.size.agents;
        for (what, mut times, bar) in [
            (format!("from an edit until {agents} agents acknowledged it"), acknowledged, Some(2.0)),
            ("until its status says so".to_owned(), told, None),
        ] {
            times.sort();
            let at = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize].as_secs_f64();
            let (p50, p99) = (at(0.5), at(0.99));
            let figure = format!("{p50:.2} / {p99:.2} / {:.2}", at(1.0));
            let holds = bar.map(|bar: f64| p99 <= bar);
            let bar = bar.map(|bar| format!("p99 ≤ {bar:.0}")).unwrap_or_default();
            rows.add(&format!("{what}: s, median / p99 / most of {}", times.len()), &figure, &bar, holds);
        }
        Ok(())
    }

    /// Counts requests while nothing happens.
    async fn quiet(&self, fleet: &mut Fleet, rows: &mut Rows) -> anyhow::Result<()> {
        println!("{} quiet seconds", self.arguments.quiet_seconds);
        let before = self.api.counts().await?;
        fleet.goes_on_for(Duration::from_secs(self.arguments.quiet_seconds)).await?;
        let made = difference(&before, &self.api.counts().await?);
        let others = without_leases(&made);
        let made_writes: BTreeSet<String> = others
            .iter()
            .filter(|_| writes(&others) > 0)
            .map(|((verb, of), count)| format!("{verb} {of} {count}"))
            .collect();
        println!("  requests: {made:?}; {made_writes:?}");
        let seconds = self.arguments.quiet_seconds;
        let what = format!("writes in {seconds} quiet seconds, but for the Lease");
        rows.add(&what, &writes(&others).to_string(), "0", Some(writes(&others) == 0));
        // What reads the counts is a request, too.
        let all: u64 = made.iter().filter(|((_, of), _)| !of.is_empty()).map(|(_, count)| count).sum();
        let rate = all as f64 / seconds as f64;
        rows.add(
            "requests a second in that time, the API server's own included",
            &format!("{rate:.1}"),
            "≤ 5",
            Some(rate <= 5.0),
        );
        Ok(())
    }

    fn memory(&self, operator: &Process, when: &str, rows: &mut Rows) -> anyhow::Result<()> {
        let status = fs::read_to_string(format!("/proc/{}/status", operator.pid()))?;
        let field = |name: &str| -> Option<f64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<f64>().ok().map(|kib| kib * 1024.0 / 1e6)
        };
        let (now, most) = (field("VmRSS:").context("VmRSS")?, field("VmHWM:").context("VmHWM")?);
        let Size { pipelines, pods, .. } = self.size;
        let what = format!("resident memory with {pipelines} pipelines and {pods} pods, {when}: MB, now / most");
        rows.add(&what, &format!("{now:.0} / {most:.0}"), "≤ 150", Some(most <= 150.0));
        Ok(())
    }
}

fn without_leases(counts: &Counts) -> Counts {
    counts.iter().filter(|((_, of), _)| of != "leases").map(|(key, count)| (key.clone(), *count)).collect()
}

fn seconds(time: Duration) -> String {
    format!("{:.1}", time.as_secs_f64())
}

fn table(rows: &Rows, size: Size) -> anyhow::Result<String> {
    let cpu = fs::read_to_string("/proc/cpuinfo")?;
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let model = model.trim_start_matches(['\t', ' ', ':']);
    let cores = std::thread::available_parallelism()?;
    let Size { agents, pipelines, pods } = size;
    Ok(format!(
        "# What the operator costs\n\n`cargo xtask fleet --write` made this table: one replica of the operator (release build) on a real API \
         server 1.37.2 with {pipelines} pipelines in {} namespaces, {pods} pods and {agents} nodes as plain objects. Agents are stubs: each \
         has a token and a connection of its own, speaks the real protocol, and runs nothing. API server, etcd, operator and stubs share \
         one machine ({model}, {cores} cores), so times are those of a busy machine.\n\n| what | figure | bar | |\n| --- | --- | --- | --- |\n{}\n\n\
         The pipeline that is edited is one of the cluster that every agent runs. \"Acknowledged\" is when the last of them has the operator's \
         answer to a question that names the new configuration. Status is written at most once a second per object, so that it follows by up to a second.\n",
        pipelines.div_ceil(spillway_tests::fleet::objects::PIPELINES_EACH),
        rows.lines.join("\n")
    ))
}
