//! Elasticsearch and OpenSearch, in the versions that the Java of this machine can run.

use std::fmt::Write as _;
use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::Instant;

use super::process::{Process, free_port, moment};
use super::tls::{Authority, Flaw};
use super::{Package, java, opensearch_security, tools, vendor};
use crate::http::{Answer, Client};

/// The oldest Java that the older versions take.
const JAVA_OLD: u32 = 17;

/// The oldest Java that the newer versions take.
const JAVA_NEW: u32 = 21;

/// How long a server may take to be ready: 10 to 30 s alone, more beside other tests.
const START_PATIENCE: Duration = Duration::from_secs(360);

/// The user that servers run as when the tests run as root, which they refuse.
const NOBODY: u32 = 65_534;

/// Settings that make a server small and quick to start.
const JVM_OPTIONS: &str = "-Xms384m\n-Xmx384m\n-XX:-UseG1GC\n-XX:+UseSerialGC\n-XX:TieredStopAtLevel=1\n";

/// Most servers at a time: each takes some 650 MB.
const AT_A_TIME: usize = 2;

/// How many run.
static RUNNING: (Mutex<usize>, Condvar) = (Mutex::new(0), Condvar::new());

/// The permission to run one.
#[derive(Debug)]
struct Turn(());

impl Turn {
    /// Waits for several at once: whoever had one and waited for another could wait for itself.
    fn wait<const N: usize>() -> [Self; N] {
        let running = RUNNING.0.lock().unwrap_or_else(PoisonError::into_inner);
        let free = RUNNING.1.wait_while(running, |running| *running + N > AT_A_TIME);
        *free.unwrap_or_else(PoisonError::into_inner) += N;
        [(); N].map(Self)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *RUNNING.0.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        RUNNING.1.notify_all();
    }
}

/// Who may do what at a secured server.
pub const USERS: [(&str, &str, &str); 2] = [("root", "secret-of-root", "admin"), ("sink", "secret-of-sink", "writer")];

/// `Authorization` of the first of them.
const BASIC_OF_FIRST: &str = "Basic cm9vdDpzZWNyZXQtb2Ytcm9vdA==";

/// What those roles may do; `writer` has what the documentation says the agent needs.
const ROLES: &str = "
admin: {cluster: [all], indices: [{names: ['*'], privileges: [all]}]}
writer: {cluster: [manage_index_templates], indices: [{names: ['jobs-*'], privileges: [create_doc, auto_configure]}]}
";

/// What a secured Elasticsearch is told.
const SECURITY_SETTINGS: &str = "xpack.security.autoconfiguration.enabled: false
xpack.security.transport.ssl.enabled: false
xpack.security.http.ssl: {enabled: true, key: key.pem, certificate: cert.pem}
";

/// A key with the rights of `writer`.
const API_KEY: &str = r#"{"name": "agent", "role_descriptors": {"writer": {"cluster": ["manage_index_templates"],
"indices": [{"names": ["jobs-*"], "privileges": ["create_doc", "auto_configure"]}]}}}"#;

/// Elasticsearch 8.
pub const ELASTICSEARCH_8: Package = package("elasticsearch", "8.19.9");
/// OpenSearch 2.
pub const OPENSEARCH_2: Package = package("opensearch", "2.19.4");
/// Elasticsearch 9.
pub const ELASTICSEARCH_9: Package = package("elasticsearch", "9.2.4");
/// OpenSearch 3.
pub const OPENSEARCH_3: Package = package("opensearch", "3.4.0");

/// Returns a server, unpacked as it comes.
const fn package(name: &'static str, key: &'static str) -> Package {
    Package {
        name,
        key,
        hindrance: |package| {
            // The system's Java is old enough for the older ones, and is installed for them.
            let version = java_of(package);
            let absent = version > JAVA_OLD && java::find(version).is_none();
            absent.then(|| format!("no Java of at least {version} on this machine"))
        },
        install: |package, folder| {
            let Package { name, key, .. } = package;
            java::ensure(java_of(package))?;
            tools::maven_zip(&format!("org.{name}.distribution.integ-test-zip:{name}:{key}:zip"), folder)
        },
    }
}

/// A started server. Dropped, its processes are killed.
#[derive(Debug)]
pub struct SearchServer {
    package: Package,
    home: PathBuf,
    dir: tempfile::TempDir,
    port: u16,
    security: Option<Security>,
    process: Option<Process>,
    _turn: Turn,
}

/// TLS with a CA of its own, and users.
#[derive(Debug)]
struct Security {
    ca: Authority,
    config: Arc<rustls::ClientConfig>,
}

impl SearchServer {
    /// Starts a server, once at most one other is running; with TLS and [`USERS`] when `secured`, which
    /// Elasticsearch and OpenSearch 2 take.
    pub fn start(package: Package, secured: bool) -> anyhow::Result<Self> {
        let [turn] = Turn::wait();
        Self::start_in(turn, package, secured)
    }

    /// Starts two, once no other is running.
    pub fn start_two(packages: [Package; 2]) -> anyhow::Result<[Self; 2]> {
        let ([one, two], [first, second]) = (Turn::wait(), packages);
        Ok([Self::start_in(one, first, false)?, Self::start_in(two, second, false)?])
    }

    fn start_in(turn: Turn, package: Package, secured: bool) -> anyhow::Result<Self> {
        let installed = package.installed().context("not installed: run `cargo xtask servers`")?;
        let dir = tempfile::tempdir()?;
        // What the server's user may read: the cache may lie in a home that is closed to it.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
        let home = dir.path().join("home");
        let unpacked = installed.join(format!("{}-{}", package.name, package.key));
        tools::run(Command::new("cp").args(["-a", "--reflink=auto"]).arg(&unpacked).arg(&home))?;
        tools::run(Command::new("cp").arg("-r").arg(home.join("config")).arg(dir.path().join("conf")))?;
        let port = free_port();
        let mut server = Self { package, home, dir, port, security: None, process: None, _turn: turn };
        server.configure(secured)?;
        server.start_process()?;
        Ok(server)
    }

    /// Returns name and version.
    pub fn version(&self) -> String {
        format!("{} {}", self.package.name, self.package.key)
    }

    /// Returns where it listens.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Returns its URL.
    pub fn url(&self) -> String {
        format!("{}://{}", if self.security.is_some() { "https" } else { "http" }, self.address())
    }

    /// Returns the CA of a secured server.
    pub fn ca_pem(&self) -> String {
        self.security.as_ref().map(|security| security.ca.pem()).unwrap_or_default()
    }

    /// Gives a secured Elasticsearch a certificate with a flaw, or a good one, and waits until it has taken it, which it does
    /// within seconds for connections that are made from then on.
    pub fn set_certificate(&self, flaw: Option<Flaw>) -> anyhow::Result<()> {
        let ca = &self.security.as_ref().context("the server speaks no TLS")?.ca;
        let (certificate, key) = flaw.map_or_else(|| ca.certificate(), |flaw| ca.flawed(flaw))?;
        for (name, text) in [("key.pem", key), ("cert.pem", certificate)] {
            fs::write(self.dir.path().join("conf").join(name), text)?;
        }
        crate::eventually("the server has taken its certificate", || {
            let trusted = self.ask("GET", "/_cluster/health", "").is_ok();
            (trusted == flaw.is_none()).then_some(())
        });
        Ok(())
    }

    /// Ends it with SIGKILL, with everything it has started.
    pub fn kill(&mut self) {
        self.process = None;
        let deadline = Instant::now() + crate::PATIENCE;
        while TcpStream::connect(self.address()).is_ok() {
            assert!(Instant::now() < deadline, "the server still listens");
            moment(Duration::from_millis(20));
        }
    }

    /// Starts it again, with the data and the address it had.
    pub fn start_process(&mut self) -> anyhow::Result<()> {
        let name = self.package.name;
        let java = java::find(java_of(&self.package));
        let mut command = self.command(&format!("bin/{name}"), &java.context("no Java")?);
        command.current_dir(&self.home);
        let mut process = Process::start(command, &self.dir.path().join("log"))?;
        process.wait_until(START_PATIENCE, || {
            self.ask("GET", "/_cluster/health?wait_for_status=yellow&timeout=1s", "")
                .is_ok_and(|answer| answer.status == 200 && answer.json()["timed_out"] == false)
        })?;
        self.process = Some(process);
        Ok(())
    }

    /// Asks the server as its first user.
    pub fn ask(&self, method: &str, path: &str, body: &str) -> anyhow::Result<Answer> {
        let stream = TcpStream::connect(self.address())?;
        stream.set_read_timeout(Some(crate::PATIENCE))?;
        let mut headers = vec![("Content-Type", "application/json")];
        let Some(security) = &self.security else {
            return Client::over(stream, &self.address()).send(method, path, &headers, body.as_bytes());
        };
        headers.push(("Authorization", BASIC_OF_FIRST));
        let connection = rustls::ClientConnection::new(security.config.clone(), "127.0.0.1".try_into()?)?;
        let stream = rustls::StreamOwned::new(connection, stream);
        Client::over(stream, &self.address()).send(method, path, &headers, body.as_bytes())
    }

    /// Asks the server and wants a 2xx.
    pub fn must(&self, method: &str, path: &str, body: &str) -> serde_json::Value {
        let answer = self.ask(method, path, body).unwrap_or_else(|error| panic!("{method} {path}: {error:#}"));
        let text = String::from_utf8_lossy(&answer.body);
        assert!((200..300).contains(&answer.status), "{method} {path}: {} {text}", answer.status);
        answer.json()
    }

    /// Returns every document below `indices` as (index, id, document), refreshed first.
    pub fn documents(&self, indices: &str) -> Vec<(String, String, serde_json::Value)> {
        let of_makers = self.package.key == ELASTICSEARCH_9.key && self.security.is_none();
        let hits = if of_makers {
            vendor::hits(&self.url(), indices).expect("the client of its makers reads it")
        } else {
            self.hits(indices)
        };
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        hits.iter().map(|hit| (text(&hit["_index"]), text(&hit["_id"]), hit["_source"].clone())).collect()
    }

    fn hits(&self, indices: &str) -> Vec<serde_json::Value> {
        self.must("POST", &format!("/{indices}/_refresh"), "");
        let mut all = Vec::new();
        let mut after = String::new();
        loop {
            let body = format!(r#"{{"size":5000,"sort":[{{"_spillway.id":"asc"}}]{after}}}"#);
            let found = self.must("POST", &format!("/{indices}/_search"), &body);
            let hits = found["hits"]["hits"].as_array().cloned().unwrap_or_default();
            let Some(last) = hits.last() else { return all };
            after = format!(r#","search_after":{}"#, last["sort"]);
            all.extend(hits);
        }
    }

    fn command(&self, program: &str, java: &Path) -> Command {
        let prefix = if self.is_elasticsearch() { "ES" } else { "OPENSEARCH" };
        let mut command = Command::new(self.home.join(program));
        command.env(format!("{prefix}_JAVA_HOME"), java).env("HOME", self.dir.path());
        let conf = if prefix == "ES" { "ES_PATH_CONF" } else { "OPENSEARCH_PATH_CONF" };
        command.env(conf, self.dir.path().join("conf")).env(format!("{prefix}_TMPDIR"), self.dir.path().join("tmp"));
        if rustix::process::geteuid().is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }

    fn configure(&mut self, secured: bool) -> anyhow::Result<()> {
        let at = |name: &str| self.dir.path().join(name).display().to_string();
        for name in ["data", "logs", "tmp"] {
            fs::create_dir(at(name))?;
        }
        let mut settings = format!(
            "discovery.type: single-node\nnetwork.host: 127.0.0.1\nhttp.port: {}\ntransport.port: {}\npath.data: {}\n\
             path.logs: {}\ncluster.routing.allocation.disk.threshold_enabled: false\n",
            self.port,
            free_port(),
            at("data"),
            at("logs")
        );
        match (self.package.name, self.package.key.starts_with('3')) {
            ("elasticsearch", _) => writeln!(settings, "xpack.security.enabled: {secured}")?,
            (_, true) => settings.push_str("aux.transport.types: []\n"),
            _ => {}
        }
        if secured {
            settings.push_str(self.secure()?);
        }
        fs::write(self.dir.path().join(format!("conf/{}.yml", self.package.name)), settings)?;
        fs::write(self.dir.path().join("conf/jvm.options.d/heap.options"), JVM_OPTIONS)?;
        if rustix::process::geteuid().is_root() {
            let owner = format!("{NOBODY}:{NOBODY}");
            let parts = ["conf", "data", "home", "logs", "tmp"].map(|name| self.dir.path().join(name));
            tools::run(Command::new("chown").arg("-R").arg(owner).args(parts))?;
        }
        match (secured, self.is_elasticsearch()) {
            (false, _) => Ok(()),
            (true, true) => USERS.iter().try_for_each(|(name, password, _)| self.set_password(name, password)),
            (true, false) => {
                let java = java::find(java_of(&self.package)).context("no Java")?;
                let installer = self.command("bin/opensearch-plugin", &java);
                opensearch_security::install(self.dir.path(), installer, || self.command("/bin/bash", &java))
            }
        }
    }

    /// Makes what TLS and users need before the server's user owns it; returns the settings for it.
    fn secure(&mut self) -> anyhow::Result<&'static str> {
        let at = |name: &str| self.dir.path().join("conf").join(name);
        let ca = Authority::new()?;
        let (certificate, key) = ca.certificate()?;
        for (name, text) in
            [("cert.pem", &*certificate), ("key.pem", &key), ("ca.pem", &ca.pem()), ("roles.yml", ROLES)]
        {
            fs::write(at(name), text)?;
        }
        self.security = Some(Security { config: ca.client_config()?, ca });
        if self.is_elasticsearch() {
            self.add_mail_analysis()?;
            return Ok(SECURITY_SETTINGS);
        }
        opensearch_security::prepare(self.dir.path())?;
        Ok(opensearch_security::SETTINGS)
    }

    fn is_elasticsearch(&self) -> bool {
        self.package.name == "elasticsearch"
    }

    /// Adds what the distribution lacks for API keys.
    fn add_mail_analysis(&self) -> anyhow::Result<()> {
        const SOURCE: &str = include_str!("MailAnalysis.java");
        let java = java::find(java_of(&self.package)).context("no Java")?;
        let (folder, classes) = (self.home.join("plugins/mail-analysis"), self.dir.path().join("classes"));
        fs::create_dir(&folder)?;
        fs::create_dir(&classes)?;
        let source = classes.join("MailAnalysis.java");
        fs::write(&source, SOURCE)?;
        let libraries = self.home.join("lib/*");
        let mut compiler = Command::new(java.join("bin/javac"));
        tools::run(compiler.arg("-cp").arg(libraries).arg("-d").arg(&classes).arg(&source))?;
        let archive = folder.join("mail-analysis.jar");
        let mut packer = Command::new(java.join("bin/jar"));
        tools::run(packer.arg("--create").arg("--file").arg(archive).arg("-C").arg(&classes).arg("."))?;
        let descriptor = format!(
            "description=analysis of mail addresses\nversion=1\nname=mail-analysis\nclassname=MailAnalysis\n\
             java.version=17\nelasticsearch.version={}\n",
            self.package.key
        );
        Ok(fs::write(folder.join("plugin-descriptor.properties"), descriptor)?)
    }

    /// Makes an API key that may do what a [`USERS`]' `writer` may; returns its id, and the key itself.
    pub fn make_api_key(&self) -> (String, String) {
        let made = self.must("POST", "/_security/api_key", API_KEY);
        let text = |name: &str| made[name].as_str().unwrap_or_default().to_owned();
        (text("id"), text("api_key"))
    }

    /// Takes an API key back.
    pub fn revoke_api_key(&self, id: &str) {
        let revoked = self.must("DELETE", "/_security/api_key", &serde_json::json!({"ids": [id]}).to_string());
        assert_eq!(revoked["invalidated_api_keys"], serde_json::json!([id]));
    }

    /// Gives a user of a secured server a password; the server sees it within seconds.
    pub fn set_password(&self, user: &str, password: &str) -> anyhow::Result<()> {
        let (_, _, role) = USERS.iter().find(|(name, _, _)| *name == user).context("no such user")?;
        if !self.is_elasticsearch() {
            let body = serde_json::json!({ "password": password }).to_string();
            self.must("PUT", &format!("/_plugins/_security/api/internalusers/{user}"), &body);
            return Ok(());
        }
        let java = java::find(java_of(&self.package)).context("no Java")?;
        let known = fs::read_to_string(self.dir.path().join("conf/users")).unwrap_or_default();
        let mut command = self.command("bin/elasticsearch-users", &java);
        if known.lines().any(|line| line.starts_with(&format!("{user}:"))) {
            tools::run(command.args(["passwd", user, "-p", password]))
        } else {
            tools::run(command.args(["useradd", user, "-p", password, "-r", role]))
        }
    }
}

/// Returns the versions that run on this machine, each product's newest last.
pub fn runnable() -> Vec<Package> {
    let all = [ELASTICSEARCH_8, OPENSEARCH_2, ELASTICSEARCH_9, OPENSEARCH_3];
    all.into_iter().filter(|package| (package.hindrance)(package).is_none()).collect()
}

/// Returns the oldest Java that a version takes.
fn java_of(package: &Package) -> u32 {
    if matches!(package.key, "8.19.9" | "2.19.4") { JAVA_OLD } else { JAVA_NEW }
}
