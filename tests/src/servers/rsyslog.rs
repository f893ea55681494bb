//! rsyslog with its TLS driver: a client of syslog that is not ours. It takes messages over TCP on loopback, and forwards them as it
//! is told.
//!
//! The system's packages are unpacked and not installed, so that nothing of them starts by itself.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

use super::process::{Process, free_port};
use super::{Package, skip, tools};
use crate::PATIENCE;

/// The package: the daemon, its modules, and the libraries that no other package of the system needs.
pub const PACKAGE: Package = Package {
    name: "rsyslog",
    key: "system",
    hindrance: |_| tools::find("apt-get").is_none().then(|| "no apt-get on this machine".to_owned()),
    install: |_, folder| {
        tools::apt_unpack(folder, &["rsyslog", "rsyslog-openssl", "libestr0", "libfastjson4"])?;
        // It links to the system's TLS, which most machines have.
        if tools::run(command(folder)?.arg("-v")).is_err() {
            tools::apt_install(&["libssl3", "libuuid1", "zlib1g"])?;
        }
        tools::run(command(folder)?.arg("-v"))
    },
};

/// The daemon. Dropping it kills the process.
#[derive(Debug)]
pub struct Rsyslog {
    process: Process,
    port: u16,
}

impl Rsyslog {
    /// Starts it for `test` with its files in `folder`; `settings` are lines of its configuration, `forward` what its one action
    /// has, with a queue in memory and without giving up. `None`, with the reason noted, where it is not installed.
    pub fn of_test(test: &str, folder: &Path, settings: &str, forward: &str) -> Option<Self> {
        let Some(programs) = PACKAGE.installed() else {
            skip(test, "rsyslog is not installed: `cargo xtask servers rsyslog`");
            return None;
        };
        Some(Self::start(&programs, folder, settings, forward).expect("rsyslog starts"))
    }

    fn start(programs: &Path, folder: &Path, settings: &str, forward: &str) -> anyhow::Result<Self> {
        fs::create_dir_all(folder)?;
        let port = free_port();
        let mut text = format!("global(workDirectory=\"{}\" maxMessageSize=\"64k\")\n{settings}\n", folder.display());
        writeln!(text, "module(load=\"imtcp\")\ninput(type=\"imtcp\" address=\"127.0.0.1\" port=\"{port}\")")?;
        writeln!(
            text,
            "action(type=\"omfwd\" target=\"127.0.0.1\" {forward} action.resumeRetryCount=\"-1\" \
             action.resumeInterval=\"1\" queue.type=\"LinkedList\" queue.size=\"200000\")"
        )?;
        let configuration = folder.join("rsyslog.conf");
        fs::write(&configuration, text)?;
        let mut command = command(programs)?;
        command.arg("-n").arg("-f").arg(&configuration).arg("-i").arg(folder.join("pid"));
        let mut process = Process::start(command, &folder.join("log"))?;
        process.wait_until(PATIENCE, || TcpStream::connect(("127.0.0.1", port)).is_ok())?;
        Ok(Self { process, port })
    }

    /// Gives it messages, each without a line break, and returns when it has read them all or has them in its buffer.
    pub fn take(&self, messages: impl IntoIterator<Item = String>) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("rsyslog listens");
        for message in messages {
            stream.write_all(format!("{message}\n").as_bytes()).expect("rsyslog takes a message");
        }
    }

    /// Returns the end of what it says.
    pub fn said(&self) -> String {
        self.process.log_tail()
    }
}

/// Returns the daemon with its modules and libraries.
fn command(programs: &Path) -> anyhow::Result<Command> {
    let libraries = fs::read_dir(programs.join("usr/lib")).context("looking for libraries")?;
    let mut libraries = libraries.flatten().map(|entry| entry.path()).filter(|path| path.join("rsyslog").is_dir());
    let libraries: PathBuf = libraries.next().context("no modules of rsyslog")?;
    let mut command = Command::new(programs.join("usr/sbin/rsyslogd"));
    command.env("LD_LIBRARY_PATH", &libraries).arg("-M").arg(libraries.join("rsyslog"));
    Ok(command)
}
