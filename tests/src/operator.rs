//! The operator as a process, against an API server.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::agent::{Agent as Process, program};
use crate::servers::process::free_port;

/// How one replica of the controller is started.
#[derive(Debug, Clone)]
pub struct Replica {
    kubeconfig: PathBuf,
    identity: String,
    /// Where agents ask.
    pub port: u16,
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
        Self { kubeconfig, identity, port: free_port(), admin: free_port() }
    }

    /// Starts it and waits for nothing.
    pub fn start(&self) -> Operator {
        let mut command = Command::new(program("spillway-operator"));
        command.args(["controller", "--log-format", "json", "--namespace", "spillway-system"]);
        command.args(["--listen", &format!("127.0.0.1:{}", self.port)]);
        command.args(["--admin", &format!("127.0.0.1:{}", self.admin)]);
        command.args(["--identity", &self.identity, "--certificate-names", "127.0.0.1"]);
        command.env("KUBECONFIG", &self.kubeconfig);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        Operator { process: Process::spawn(command) }
    }

    /// Returns where agents ask.
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }
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
