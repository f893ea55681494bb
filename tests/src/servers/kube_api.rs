//! A bare Kubernetes API server: `etcd` and `kube-apiserver` on loopback, no node, no controller.
//!
//! Enough for whatever the API server itself decides: schemas, rules, defaults, apply, columns. The programs are those of
//! the cluster of the tests ([`PACKAGE`]).

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;

use super::process::{Process, free_port};
use super::skip;
use crate::cluster::package::PACKAGE;

/// How long the server may take until it answers; it starts in ten seconds on two idle cores.
const PATIENCE: Duration = Duration::from_secs(120);

/// The token of the one user, who may do everything. The server listens on loopback and lives as long as its test.
const TOKEN: &str = "of-this-test";

/// A running API server.
#[derive(Debug)]
pub struct KubeApi {
    // Dropped in this order.
    server: Process,
    _etcd: Process,
    programs: PathBuf,
    folder: PathBuf,
    etcd_port: u16,
    port: u16,
    kept: Option<tempfile::TempDir>,
}

/// What a program of the command line said.
#[derive(Debug)]
pub struct Said {
    /// Whether it succeeded.
    pub ok: bool,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

impl KubeApi {
    /// Starts the server for `test` in a folder that goes with it; `None`, with the reason printed, where its programs cannot
    /// be had.
    pub fn of_test(test: &str) -> Option<Self> {
        let Some(programs) = PACKAGE.installed() else {
            let why = (PACKAGE.hindrance)(&PACKAGE).unwrap_or_else(|| "Kubernetes is not built".to_owned());
            skip(test, &why);
            return None;
        };
        let kept = tempfile::tempdir().expect("a folder");
        let mut started = Self::start(&programs, kept.path()).expect("an API server");
        started.kept = Some(kept);
        Some(started)
    }

    /// Starts the server for a program that measures, with its data in `folder`, and says so.
    pub fn of_figures(folder: &Path) -> anyhow::Result<Self> {
        let programs = PACKAGE.installed().context("Kubernetes is not built: run `cargo xtask servers kubernetes`")?;
        println!("starting an API server");
        Self::start(&programs, folder)
    }

    /// Starts the server with the programs of `programs` and its data in `folder`.
    pub fn start(programs: &Path, folder: &Path) -> anyhow::Result<Self> {
        let (client, peer, port) = (free_port(), free_port(), free_port());
        let etcd = Process::start(etcd(programs, folder, client, peer), &folder.join("etcd.log"))?;
        let key = rcgen::KeyPair::generate().context("making a key")?;
        fs::write(folder.join("service-accounts.key"), key.serialize_pem())?;
        fs::write(folder.join("service-accounts.pub"), key.public_key_pem())?;
        fs::write(folder.join("tokens"), format!("{TOKEN},tests,tests,system:masters\n"))?;
        let config = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: it\n\
             clusters: [{{name: it, cluster: {{server: 'https://127.0.0.1:{port}', insecure-skip-tls-verify: true}}}}]\n\
             users: [{{name: it, user: {{token: {TOKEN}}}}}]\ncontexts: [{{name: it, context: {{cluster: it, user: it}}}}]\n"
        );
        fs::write(folder.join("kubeconfig"), config)?;
        let server = Process::start(server(programs, folder, client, port), &folder.join("server.log"))?;
        let (programs, folder) = (programs.to_owned(), folder.to_owned());
        let mut started = Self { server, _etcd: etcd, programs, folder, etcd_port: client, port, kept: None };
        started.wait_until_it_answers()?;
        Ok(started)
    }

    fn wait_until_it_answers(&mut self) -> anyhow::Result<()> {
        let (kubectl, folder) = (self.programs.join("kubectl"), self.folder.clone());
        self.server.wait_until(PATIENCE, || {
            said(&kubectl, &folder, &["get", "namespace", "default"], "").is_ok_and(|said| said.ok)
        })
    }

    /// Returns where it listens, and the token of the one user, who may do everything.
    pub fn url_and_token(&self) -> (String, &'static str) {
        (format!("https://127.0.0.1:{}", self.port), TOKEN)
    }

    /// Returns the folder of its data, in which a test may keep files of its own.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns where `kubectl` is.
    pub fn kubectl_program(&self) -> PathBuf {
        self.programs.join("kubectl")
    }

    /// Returns the file that lets a client act as the one user, who may do everything.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.join("kubeconfig")
    }

    /// Writes a file that lets a client act as a service account, and returns where it is.
    pub fn kubeconfig_of(&self, namespace: &str, account: &str) -> anyhow::Result<PathBuf> {
        let said = self.kubectl(&["create", "token", account, "-n", namespace, "--duration", "1h"], "")?;
        anyhow::ensure!(said.ok, "no token of {namespace}/{account}: {}", said.err);
        let text = fs::read_to_string(self.kubeconfig())?.replace(TOKEN, said.out.trim());
        let path = self.folder.join(format!("kubeconfig-{account}"));
        fs::write(&path, text)?;
        Ok(path)
    }

    /// Ends the API server with SIGKILL; its data stay.
    pub fn kill(&mut self) {
        self.server.kill();
    }

    /// Starts it again after [`kill`](Self::kill), where it was and with what it knew.
    pub fn start_again(&mut self) -> anyhow::Result<()> {
        let command = server(&self.programs, &self.folder, self.etcd_port, self.port);
        self.server = Process::start(command, &self.folder.join("server-again.log"))?;
        self.wait_until_it_answers()
    }

    /// Calls `kubectl` and wants it to succeed; returns its output.
    pub fn must(&self, arguments: &[&str], input: &str) -> String {
        match self.kubectl(arguments, input) {
            Ok(Said { ok: true, out, .. }) => out,
            Ok(Said { out, err, .. }) => panic!("kubectl {arguments:?}: {err}{out}"),
            Err(error) => panic!("kubectl {arguments:?}: {error:#}"),
        }
    }

    /// Calls `kubectl` as [`kubectl`](Self::kubectl) does and wants it to run, whatever it says.
    pub fn said(&self, arguments: &[&str], input: &str) -> Said {
        self.kubectl(arguments, input).unwrap_or_else(|error| panic!("kubectl {arguments:?}: {error:#}"))
    }

    /// Calls `kubectl` with these arguments and `input` on its standard input.
    pub fn kubectl(&self, arguments: &[&str], input: &str) -> anyhow::Result<Said> {
        said(&self.programs.join("kubectl"), &self.folder, arguments, input)
    }
}

fn said(kubectl: &Path, folder: &Path, arguments: &[&str], input: &str) -> anyhow::Result<Said> {
    let mut command = Command::new(kubectl);
    command.arg("--kubeconfig").arg(folder.join("kubeconfig")).args(arguments);
    command.env("HOME", folder).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context("starting kubectl")?;
    let mut stdin = child.stdin.take().context("its input")?;
    // It may end without reading.
    stdin.write_all(input.as_bytes()).ok();
    drop(stdin);
    let output = child.wait_with_output().context("waiting for kubectl")?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Said { ok: output.status.success(), out: text(&output.stdout), err: text(&output.stderr) })
}

fn etcd(programs: &Path, folder: &Path, client: u16, peer: u16) -> Command {
    let mut command = Command::new(programs.join("etcd"));
    let url = |port: u16| format!("http://127.0.0.1:{port}");
    command.arg("--data-dir").arg(folder.join("etcd")).args(["--log-level", "warn", "--unsafe-no-fsync"]);
    command.args(["--listen-client-urls", &url(client), "--advertise-client-urls", &url(client)]);
    command.args(["--listen-peer-urls", &url(peer), "--initial-advertise-peer-urls", &url(peer)]);
    command.args(["--initial-cluster", &format!("default={}", url(peer))]);
    command
}

fn server(programs: &Path, folder: &Path, etcd: u16, port: u16) -> Command {
    let mut command = Command::new(programs.join("kube-apiserver"));
    let key = |ending: &str| folder.join(format!("service-accounts.{ending}"));
    command.args([
        format!("--etcd-servers=http://127.0.0.1:{etcd}"),
        format!("--secure-port={port}"),
        "--bind-address=127.0.0.1".to_owned(),
        format!("--cert-dir={}", folder.join("certificates").display()),
        format!("--token-auth-file={}", folder.join("tokens").display()),
        "--authorization-mode=RBAC".to_owned(),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        format!("--service-account-signing-key-file={}", key("key").display()),
        format!("--service-account-key-file={}", key("pub").display()),
        "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
        "--disable-admission-plugins=ServiceAccount".to_owned(),
        "--profiling=false".to_owned(),
    ]);
    command
}
