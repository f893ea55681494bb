//! The operator as a process, against an API server.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::agent::{Agent as Process, program};
use crate::http::Client;
use crate::servers::process::free_port;

/// How one replica of the controller is started.
#[derive(Debug, Clone)]
pub struct Replica {
    kubeconfig: PathBuf,
    identity: String,
    /// Where agents ask.
    pub port: u16,
    admin: u16,
    /// The configuration of the webhook that it looks after, if any.
    webhook: Option<String>,
    leads_agents: bool,
    gives_sidecars: bool,
    /// What sidecars are made of, where it evicts pods without.
    recreates: Option<PathBuf>,
}

/// A running webhook. Dropping it kills the process.
#[derive(Debug)]
pub struct Webhook {
    /// The process, with the lines of its log.
    pub process: Process,
    admin: u16,
}

/// A running replica. Dropping it kills the process.
#[derive(Debug)]
pub struct Operator {
    /// The process, with the lines of its log.
    pub process: Process,
}

impl Replica {
    /// Returns a replica that calls itself `identity` and acts as the user of `kubeconfig`.
    pub fn new(kubeconfig: &Path, identity: &str) -> Self {
        let (kubeconfig, identity) = (kubeconfig.to_owned(), identity.to_owned());
        Self {
            kubeconfig,
            identity,
            port: free_port(),
            admin: free_port(),
            webhook: None,
            leads_agents: false,
            gives_sidecars: false,
            recreates: None,
        }
    }

    /// Lets it look after the webhook that this configuration names.
    #[must_use]
    pub fn with_webhook(self, configuration: &str) -> Self {
        Self { webhook: Some(configuration.to_owned()), ..self }
    }

    /// Lets it look after the configuration of pods as well, which has the same name.
    #[must_use]
    pub fn that_gives_sidecars(self) -> Self {
        Self { gives_sidecars: true, ..self }
    }

    /// Lets it evict pods without the sidecar of these settings that they asked for, after a second.
    #[must_use]
    pub fn that_recreates(self, settings: &Path) -> Self {
        Self { recreates: Some(settings.to_owned()), ..self }
    }

    /// Tells it its address, to which others send agents while it leads.
    #[must_use]
    pub fn that_leads_agents(self) -> Self {
        Self { leads_agents: true, ..self }
    }

    /// Starts it and waits for nothing.
    pub fn start(&self) -> Operator {
        let mut command = Command::new(program("spillway-operator"));
        command.args(["controller", "--log-format", "json", "--namespace", "spillway-system"]);
        command.args(["--listen", &format!("127.0.0.1:{}", self.port)]);
        command.args(["--admin", &format!("127.0.0.1:{}", self.admin)]);
        command.args(["--identity", &self.identity, "--certificate-names", "127.0.0.1"]);
        // Who waits for it waits less.
        command.args(["--look-again-seconds", "2"]);
        if self.leads_agents {
            command.args(["--pod-ip", "127.0.0.1"]);
        }
        if let Some(configuration) = &self.webhook {
            command.args(["--webhook-service", "spillway-webhook", "--webhook-configuration", configuration]);
            if self.gives_sidecars {
                command.args(["--webhook-pods-configuration", configuration]);
            }
        }
        if let Some(settings) = &self.recreates {
            command.args(["--recreate-pods", "--recreate-after-seconds", "1", "--sidecars"]).arg(settings);
        }
        command.args(["--agent-service", "spillway-agent"]);
        command.env("KUBECONFIG", &self.kubeconfig);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        Operator { process: Process::spawn(command) }
    }

    /// Returns where agents ask.
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// Returns the sum of the figures whose lines begin so.
    pub fn total(&self, metric: &str) -> u64 {
        total(self.admin, metric)
    }
}

impl Webhook {
    /// Starts it at that port of the loopback address, with the certificate in `folder`, and waits until it answers.
    pub fn start(kubeconfig: &Path, folder: &Path, port: u16) -> Self {
        Self::start_with(kubeconfig, folder, port, &[])
    }

    /// The same with `settings.json` and `ca.crt` of `folder`, of which sidecars are made.
    pub fn start_with_sidecars(kubeconfig: &Path, folder: &Path, port: u16) -> Self {
        Self::start_with(kubeconfig, folder, port, &[("--sidecars", "settings.json"), ("--sidecar-ca", "ca.crt")])
    }

    fn start_with(kubeconfig: &Path, folder: &Path, port: u16, files: &[(&str, &str)]) -> Self {
        let admin = free_port();
        let mut command = Command::new(program("spillway-operator"));
        command.args(["webhook", "--log-format", "json", "--listen", &format!("127.0.0.1:{port}")]);
        command.args(["--admin", &format!("127.0.0.1:{admin}")]).arg("--certificate").arg(folder);
        for (flag, name) in files {
            command.arg(flag).arg(folder.join(name));
        }
        command.env("KUBECONFIG", kubeconfig);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = Process::spawn(command);
        process.wait_for_line("references are looked up");
        Self { process, admin }
    }

    /// Returns how many reviews of our kinds it had.
    pub fn reviews(&self) -> u64 {
        self.total("spillway_operator_webhook_reviews_total{")
    }

    /// Returns how many reviews of pods it had.
    pub fn pods(&self) -> u64 {
        self.total("spillway_operator_webhook_pods_total{")
    }

    fn total(&self, metric: &str) -> u64 {
        total(self.admin, metric)
    }
}

fn total(admin: u16, metric: &str) -> u64 {
    let mut client = Client::connect(&format!("127.0.0.1:{admin}")).expect("the admin endpoint listens");
    let answer = client.send("GET", "/metrics", &[], b"").expect("the admin endpoint answers");
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    let counts = text.lines().filter_map(|line| line.strip_prefix(metric));
    counts.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

impl Operator {
    /// Waits until it leads.
    pub fn wait_until_leading(&mut self) {
        self.process.wait_for_line("leading");
    }

    /// Ends it with SIGKILL.
    pub fn kill(self) {
        self.process.kill();
    }

    /// Ends it with SIGTERM and wants it to end well.
    pub fn stop(self) {
        self.process.signal(Signal::TERM);
        let status = self.process.wait();
        assert!(status.success(), "ended with {status}");
    }
}
