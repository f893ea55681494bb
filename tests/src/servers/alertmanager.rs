//! Prometheus Alertmanager: a real API over HTTP to post to and to read from.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;

use super::process::{Process, free_port};
use super::{Package, tools};
use crate::http::Client;

/// Where the system's package puts it; its templates lie at a fixed place, so it is installed and not unpacked.
const PROGRAM: &str = "prometheus-alertmanager";

/// The server, as the system's packages have it.
pub const PACKAGE: Package = Package {
    name: "alertmanager",
    key: "system",
    hindrance: |_| {
        let absent = tools::find(PROGRAM).is_none() && tools::find("apt-get").is_none();
        absent.then(|| format!("neither {PROGRAM} nor apt-get on this machine"))
    },
    install: |_, folder| {
        let program = tools::program(PROGRAM, PROGRAM)?;
        std::fs::write(folder.join("program"), program.display().to_string()).context("noting where it lies")
    },
};

/// A running Alertmanager without a cluster and without receivers.
#[derive(Debug)]
pub struct Alertmanager {
    process: Process,
    address: String,
}

impl Alertmanager {
    /// Starts it with its data in `folder`.
    pub fn start(folder: &Path) -> anyhow::Result<Self> {
        let config = folder.join("alertmanager.yml");
        std::fs::write(&config, "route: {receiver: nobody}\nreceivers: [{name: nobody}]\n")?;
        let address = format!("127.0.0.1:{}", free_port());
        let mut command = Command::new(tools::program(PROGRAM, PROGRAM)?);
        command.arg(format!("--config.file={}", config.display()));
        command.arg(format!("--storage.path={}", folder.join("data").display()));
        command.arg(format!("--web.listen-address={address}")).arg("--cluster.listen-address=");
        let mut alertmanager = Self { process: Process::start(command, &folder.join("log"))?, address };
        let address = alertmanager.address.clone();
        alertmanager.process.wait_until(Duration::from_secs(30), || {
            let answer = Client::connect(&address).and_then(|mut client| client.send("GET", "/-/ready", &[], b""));
            answer.is_ok_and(|answer| answer.status == 200)
        })?;
        Ok(alertmanager)
    }

    /// Returns where alerts are posted to.
    pub fn alerts_url(&self) -> String {
        format!("http://{}/api/v2/alerts", self.address)
    }

    /// Returns the alerts it holds.
    pub fn alerts(&self) -> anyhow::Result<Vec<Value>> {
        let answer = Client::connect(&self.address)?.send("GET", "/api/v2/alerts", &[], b"")?;
        answer.json().as_array().cloned().context("an answer without alerts")
    }
}
