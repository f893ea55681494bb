//! What an API server waits for when it asks for a sidecar: called by `cargo xtask reviews`.

#![expect(clippy::print_stdout, reason = "a program that talks to a person")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use serde_json::{Value, json};
use spillway_tests::servers::kube_api::KubeApi;
use spillway_tests::servers::process::{Process, free_port};
use tokio::time::{Instant, MissedTickBehavior, interval};

/// How long the webhook may take until it knows pipelines.
const PATIENCE: Duration = Duration::from_secs(60);

/// Most milliseconds that 99 of 100 reviews may take, and 999 of 1,000.
const BARS: [f64; 2] = [5.0, 20.0];

/// The namespace of the pods.
const NAMESPACE: &str = "fab12";

/// Measures the webhook for pods: recorded reviews at a steady rate, to one replica over TLS.
#[derive(Debug, Parser)]
struct Arguments {
    /// The operator's program
    #[arg(long)]
    operator: PathBuf,
    /// How many reviews come in a second
    #[arg(long, default_value_t = 200)]
    rate: u32,
    /// How long
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// How many pipelines the namespace has
    #[arg(long, default_value_t = 1000)]
    pipelines: usize,
    /// Writes the table to this file as well
    #[arg(long)]
    write: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let arguments = Arguments::parse();
    let folder = tempfile::tempdir()?;
    let server = KubeApi::of_figures(folder.path())?;
    fill(&server, arguments.pipelines)?;
    let reviews = record(&server)?;
    let desk = Desk::start(&arguments.operator, &server, folder.path())?;
    desk.wait_until_ready(&reviews[0]).await?;
    println!("{} reviews a second for {} s", arguments.rate, arguments.seconds);
    let mut times = desk.measure(&reviews, &arguments).await?;
    times.sort();
    let at = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize].as_secs_f64() * 1e3;
    let figures = [at(0.5), at(0.99), at(0.999), at(1.0)];
    let table = table(&arguments, &reviews, times.len(), figures)?;
    println!("{table}");
    if let Some(path) = &arguments.write {
        fs::write(path, table)?;
    }
    anyhow::ensure!(figures[1] <= BARS[0] && figures[2] <= BARS[1], "a bar does not hold");
    Ok(())
}

/// Makes pipelines, and a namespace for pods.
fn fill(server: &KubeApi, pipelines: usize) -> anyhow::Result<()> {
    let charts = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the repository")?.join("charts/kustomize");
    server.must(&["apply", "--server-side", "-k", &charts.display().to_string()], "");
    // Nobody answers where its Service leads.
    server.must(&["delete", "validatingwebhookconfigurations", "--all"], "");
    server.must(&["wait", "--for=condition=Established", "--timeout=60s", "crd", "--all"], "");
    server.must(&["create", "namespace", NAMESPACE], "");
    let pipeline = |number: usize| {
        json!({"apiVersion": "spillway.dev/v1alpha1", "kind": "MonitoringPipeline",
            "metadata": {"name": format!("jobs-{number}"), "namespace": NAMESPACE},
            "spec": {"inputs": [{"name": "pushed", "type": "Events"}],
                "routes": [{"name": "all", "backendRefs": [{"name": "out"}]}]}})
    };
    let all: Vec<Value> = (0..pipelines).map(pipeline).collect();
    server.must(&["create", "-f", "-"], &json!({"apiVersion": "v1", "kind": "List", "items": all}).to_string());
    Ok(())
}

/// Returns reviews of pods as this API server makes them: of one container, of three with probes and volumes, and of one that asks
/// for a pipeline that is not there.
fn record(server: &KubeApi) -> anyhow::Result<Vec<String>> {
    let container = |name: &str| {
        let variables: Vec<Value> =
            (0..20).map(|n| json!({"name": format!("V{n}"), "value": "x".repeat(40)})).collect();
        json!({"name": name, "image": "registry.example.test/app:1", "env": variables,
            "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
            "livenessProbe": {"httpGet": {"path": "/", "port": 8080}},
            "volumeMounts": [{"name": "data", "mountPath": "/data"}]})
    };
    let small = json!({"containers": [{"name": "main", "image": "registry.example.test/app:1"}]});
    let large = json!({"containers": [container("a"), container("b"), container("c")],
        "volumes": [{"name": "data", "emptyDir": {}}]});
    let mut reviews = Vec::new();
    for (name, asks, spec) in [("small", "jobs-1", &small), ("large", "jobs-2", &large), ("wrong", "job-3", &small)] {
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": NAMESPACE, "annotations": {"spillway.dev/inject": asks}}, "spec": spec});
        pod["spec"]["serviceAccountName"] = json!("default");
        let made = server.must(&["create", "--dry-run=server", "-o", "json", "-f", "-"], &pod.to_string());
        let object: Value = serde_json::from_str(&made).context("a pod")?;
        let of_pods = json!({"group": "", "version": "v1", "resource": "pods"});
        let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
            "uid": format!("0f{name}"), "kind": {"group": "", "version": "v1", "kind": "Pod"}, "resource": of_pods,
            "requestKind": {"group": "", "version": "v1", "kind": "Pod"}, "requestResource": of_pods, "name": name,
            "namespace": NAMESPACE, "operation": "CREATE", "userInfo": {"username": "tests", "groups": ["system:masters"]},
            "object": object, "oldObject": null, "dryRun": false, "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"}}});
        reviews.push(review.to_string());
    }
    Ok(reviews)
}

/// One replica of the webhook, and the way to it.
struct Desk {
    url: String,
    client: reqwest::Client,
    _webhook: Process,
}

impl Desk {
    fn start(operator: &Path, server: &KubeApi, folder: &Path) -> anyhow::Result<Self> {
        let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
        let mounted = folder.join("mounted");
        fs::create_dir_all(&mounted)?;
        let amounts = |cpu: &str, memory: &str| json!({"cpu": cpu, "memory": memory});
        let settings = json!({"image": "registry.spillway.dev/spillway/agent:1", "operator": "https://operator.test:8443",
            "nodeAgent": "https://agent.test:8411", "runAsUser": 65532, "requests": amounts("10m", "32Mi"),
            "limits": amounts("200m", "128Mi"), "max": amounts("1", "1Gi"), "spool": "256Mi"});
        for (name, text) in [
            ("tls.crt", certificate.cert.pem()),
            ("tls.key", certificate.signing_key.serialize_pem()),
            ("ca.crt", certificate.cert.pem()),
            ("settings.json", settings.to_string()),
        ] {
            fs::write(mounted.join(name), text)?;
        }
        let (port, admin) = (free_port(), free_port());
        let mut command = Command::new(operator);
        command.args(["webhook", "--log-format", "json", "--listen", &format!("127.0.0.1:{port}")]);
        command.args(["--admin", &format!("127.0.0.1:{admin}")]).arg("--certificate").arg(&mounted);
        command.arg("--sidecars").arg(mounted.join("settings.json")).arg("--sidecar-ca").arg(mounted.join("ca.crt"));
        command.env("KUBECONFIG", server.kubeconfig());
        let webhook = Process::start(command, &folder.join("webhook.log"))?;
        let trusted = reqwest::Certificate::from_pem(certificate.cert.pem().as_bytes())?;
        let client = reqwest::Client::builder().no_proxy().tls_certs_only([trusted]).build()?;
        Ok(Self { url: format!("https://localhost:{port}/mutate?timeout=3s"), client, _webhook: webhook })
    }

    async fn ask(&self, review: &str) -> anyhow::Result<Value> {
        let response = self.client.post(&self.url).body(review.to_owned()).send().await?.error_for_status()?;
        serde_json::from_slice(&response.bytes().await?).context("an answer")
    }

    async fn wait_until_ready(&self, review: &str) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut looks = interval(Duration::from_millis(100));
        loop {
            looks.tick().await;
            match self.ask(review).await {
                Ok(answer) if answer["response"]["patch"].is_string() => return Ok(()),
                found => anyhow::ensure!(Instant::now() < deadline, "no sidecar: {found:?}"),
            }
        }
    }

    /// Returns how long each review took, from when it was due.
    async fn measure(&self, reviews: &[String], arguments: &Arguments) -> anyhow::Result<Vec<Duration>> {
        let count = u64::from(arguments.rate) * arguments.seconds;
        let mut due = interval(Duration::from_secs(1) / arguments.rate);
        // What comes late waits, and that counts.
        due.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let (mut under_way, mut times, mut asked) = (FuturesUnordered::new(), Vec::new(), 0);
        while (times.len() as u64) < count {
            tokio::select! {
                at = due.tick(), if asked < count => {
                    let review = &reviews[asked as usize % reviews.len()];
                    asked += 1;
                    under_way.push(async move {
                        let answer = self.ask(review).await?;
                        anyhow::ensure!(answer["response"]["allowed"] == true, "refused: {answer}");
                        Ok(at.elapsed())
                    });
                }
                Some(took) = under_way.next(), if !under_way.is_empty() => times.push(took?),
            }
        }
        Ok(times)
    }
}

fn table(arguments: &Arguments, reviews: &[String], count: usize, figures: [f64; 4]) -> anyhow::Result<String> {
    let cpu = fs::read_to_string("/proc/cpuinfo")?;
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let model = model.trim_start_matches(['\t', ' ', ':']);
    let cores = std::thread::available_parallelism()?;
    let sizes: Vec<String> = reviews.iter().map(|review| review.len().to_string()).collect();
    let [p50, p99, p999, most] = figures;
    let verdict = |holds: bool| if holds { "PASS" } else { "FAIL" };
    Ok(format!(
        "# What a pod waits for its sidecar\n\n`cargo xtask reviews --write` made this table: one replica of the webhook (release \
         build) on a real API server 1.37.2 with {} pipelines, asked over TLS {} times a second for {} s, with reviews of pods as \
         that API server makes them ({} bytes). Client, webhook and API server share one machine ({model}, {cores} cores).\n\n\
         | what | figure | bar | |\n| --- | --- | --- | --- |\n\
         | a review: ms, median of {count} | {p50:.2} |  |  |\n\
         | 99 of 100 | {p99:.2} | ≤ {} | {} |\n\
         | 999 of 1,000 | {p999:.2} | ≤ {} | {} |\n\
         | the slowest | {most:.2} |  |  |\n",
        arguments.pipelines,
        arguments.rate,
        arguments.seconds,
        sizes.join(", "),
        BARS[0],
        verdict(p99 <= BARS[0]),
        BARS[1],
        verdict(p999 <= BARS[1]),
    ))
}
