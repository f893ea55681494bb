//! Settings of the process, in two stages: [`RunFlags`] and [`ConfigFile`] are what a user wrote, [`Settings`] is what
//! the process uses, and [`Settings::settle`] alone goes from the first to the second and can fail.
//!
//! A flag goes before its environment variable, that before the file, the file before the default. An environment
//! variable that is set to nothing counts as not set. An error names the place the value was written at, what was
//! found and what is allowed.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use spillway_backends::SecretEnv;
use spillway_backends::destinations::Limits;

use crate::cli::{FromEnvironment, RunFlags};
use crate::sources::pushed::security::TlsFiles;

mod addresses;
mod defaults;
mod file;
mod list;
mod listeners;
mod operator;

pub use defaults::Machine;
pub use file::ConfigFile;
pub use listeners::SyslogListeners;
pub use operator::{DoorSettings, OperatorSettings, SidecarSettings};

use list::{
    ADMIN, ALLOW_DESTINATIONS, DATA_BYTES_MAX, DATA_DIR, DENY_DESTINATIONS, DRAIN, FILESYSTEM_ROOT, FREE_BYTES_MIN,
    HTTP, LOG_FORMAT, LOG_LEVEL, MANIFESTS, METRICS, NODE_NAME, OPERATOR, OTLP_GRPC, OTLP_HTTP, POD_LOGS, SECRET_ENV,
    SECRETS_DIR, Setting, TCP, THREADS, TLS_CERT, TLS_CLIENT_CA, TLS_KEY, TOKEN_FILE, UNIX, UNKNOWN_PODS, keys,
};

/// Where events are taken by default.
const HTTP_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8411);
/// Where the admin endpoint is by default.
const ADMIN_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8412);
/// Longest drain: an hour. What is held stays in the log, so a longer one saves nothing.
const DRAIN_SECONDS_MAX: u64 = 3600;
/// Default drain: a pod's grace period is 30 s, and the last 5 s are for the shutdown itself.
const DRAIN_SECONDS: u64 = 25;
/// Bytes that stay free by default: one segment of a log, so that cursors, plans and dead letters can still be written
/// when new data is refused.
const FREE_BYTES_MIN_DEFAULT: u64 = 16 << 20;
/// Least bound of the data directory: the floor of free space, and a few segments of a small log.
const DATA_BYTES_MIN: u64 = 32 << 20;
/// Most worker threads that can be asked for.
const THREADS_MAX: usize = 64;
/// Most worker threads by default: an agent shares its node, and four are more than the targets of throughput need.
const THREADS_DEFAULT_MAX: usize = 4;

/// What the process uses. Every value is checked; that a file can be read is left to who reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Who says what to run.
    pub configuration: ConfigSource,
    /// Where everything durable lives.
    pub data_dir: PathBuf,
    /// Bytes that must stay free on the volume of the data directory.
    pub free_bytes_min: u64,
    /// Most bytes that the data directory takes; `None` is what its volume has.
    pub data_bytes_max: Option<u64>,
    /// Where events are taken over HTTP; `None` is nowhere.
    pub http: Option<SocketAddr>,
    /// Where OTLP alone is taken over HTTP; `None` is nowhere.
    pub otlp_http: Option<SocketAddr>,
    /// Where OTLP is taken over gRPC; `None` is nowhere.
    pub otlp_grpc: Option<SocketAddr>,
    /// Where lines are taken over TCP; `None` is nowhere.
    pub tcp: Option<SocketAddr>,
    /// The file of the socket at which lines are taken; `None` is none.
    pub unix: Option<PathBuf>,
    /// Where messages of syslog are taken.
    pub syslog: SyslogListeners,
    /// Where the admin endpoint is; `None` is nowhere.
    pub admin: Option<SocketAddr>,
    /// Where probes and figures alone are, without TLS and token; `None` is nowhere.
    pub metrics: Option<SocketAddr>,
    /// The kubelet's folder of container logs; `None` is off.
    pub pod_logs: Option<PathBuf>,
    /// What becomes of logs of pods that the operator has not told of; without an operator nobody tells of any.
    pub unknown_pods: UnknownPods,
    /// What `Filesystem` backends write below.
    pub filesystem_root: PathBuf,
    /// What backends of namespaces may not connect to; without an operator there are none.
    pub limits: Limits,
    /// Where secrets are looked up.
    pub secrets: SecretPlaces,
    /// What listeners beyond loopback need; [`crate::sources::pushed::security::ListenerSecurity`] judges it.
    pub security: SecurityFiles,
    /// How long deliveries may go on after the first signal.
    pub drain: Duration,
    /// How the process tells what it does.
    pub logging: LogSettings,
    /// Name of the machine.
    pub node_name: Option<String>,
    /// Worker threads.
    pub threads: usize,
}

/// Who says what to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigSource {
    /// Manifests in files and folders, at least one.
    Files(Vec<PathBuf>),
    /// The operator.
    Operator(OperatorSettings),
}

impl Settings {
    /// Returns what a sidecar has, where this is one.
    pub fn sidecar(&self) -> Option<&SidecarSettings> {
        match &self.configuration {
            ConfigSource::Operator(operator) => operator.sidecar.as_deref(),
            ConfigSource::Files(_) => None,
        }
    }
}

/// What becomes of the logs of a pod of which only the kubelet's path is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UnknownPods {
    /// They are held open at their beginning until labels and annotations are known.
    #[default]
    Hold,
    /// They are read where an input selects no labels.
    Deliver,
}

/// Where a `SecretRef` is looked up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SecretPlaces {
    /// Holds `<name>/<key>`.
    pub dir: Option<PathBuf>,
    /// Environment variables that may be read, and for which reference.
    pub variables: Vec<SecretEnv>,
}

/// What listeners beyond loopback need.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SecurityFiles {
    /// Certificate chain and key.
    pub tls: TlsFiles,
    /// Authorities whose certificates senders of syslog show.
    pub client_ca: Option<PathBuf>,
    /// Bearer token.
    pub token: Option<PathBuf>,
}

/// How the process tells what it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// How lines look; `None`: text on a terminal, JSON elsewhere.
    pub format: Option<LogFormat>,
    /// Which lines there are: directives that were parsed once.
    pub level: String,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Why settings are not understood.
#[derive(Debug, thiserror::Error)]
pub enum SettingError {
    /// A value is not one of those allowed.
    #[error("{place}: found `{found}`, allowed: {allowed}")]
    Value {
        /// Where it was written.
        place: String,
        /// What was written, without line breaks, cut.
        found: String,
        /// What can be written.
        allowed: &'static str,
    },
    /// A key is not one of the settings.
    #[error("{}:{line}:{column}: found unknown key `{found}`, did you mean `{nearest}`? allowed: {}", path.display(), keys())]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// Where its value stands.
        line: u64,
        /// Where its value stands.
        column: u64,
        /// The key.
        found: String,
        /// The nearest known one.
        nearest: &'static str,
    },
    /// The configuration file is not YAML of the shape it must have.
    #[error("{}:{line}:{column}: {message}; allowed: a mapping of settings to texts, numbers and lists of texts", path.display())]
    FileParse {
        /// The file.
        path: PathBuf,
        /// Counts from 1.
        line: u64,
        /// Counts from 1.
        column: u64,
        /// What the parser says.
        message: Box<str>,
    },
    /// The configuration file cannot be read.
    #[error("configuration file {} cannot be read", path.display())]
    FileRead {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Nothing says what to run.
    #[error(
        "no manifests are given: name files or folders with -f PATH, SPILLWAY_MANIFESTS or `manifests` in --config FILE, \
         or the operator that serves them with --operator URL"
    )]
    NoManifests,
    /// Two say what to run.
    #[error("found manifests ({manifests}) and an operator ({operator}), allowed: one of the two")]
    TwoSources {
        /// Where manifests were written.
        manifests: String,
        /// Where the operator was written.
        operator: String,
    },
}

impl SettingError {
    /// Returns the stable code of this kind of error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Value { .. } => "setting-value",
            Self::UnknownKey { .. } => "setting-unknown",
            Self::FileParse { .. } | Self::FileRead { .. } => "config-file",
            Self::NoManifests => "no-manifests",
            Self::TwoSources { .. } => "two-sources",
        }
    }
}

/// A value and the place it was written at.
struct Written {
    text: String,
    place: String,
}

impl Written {
    fn refuse(&self, setting: &Setting) -> SettingError {
        let found = self.text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect();
        SettingError::Value { place: self.place.clone(), found, allowed: setting.allowed }
    }
}

/// The places a value can come from, first to last.
struct Layers<'a> {
    from_environment: &'a FromEnvironment,
    file: &'a ConfigFile,
}

impl Layers<'_> {
    fn one(&self, setting: &Setting, flag: Option<&String>) -> Result<Option<Written>, SettingError> {
        let from_environment = self.from_environment.holds(setting.id);
        if let Some(text) = flag.filter(|text| !(from_environment && text.is_empty())) {
            return Ok(Some(Written { text: text.clone(), place: self.place(setting) }));
        }
        let Some(entry) = self.file.get(setting.key) else {
            return Ok(None);
        };
        let place = self.file_place(setting, entry);
        match &entry.texts[..] {
            [text] => Ok(Some(Written { text: text.clone(), place })),
            texts => Err(Written { text: texts.join(", "), place }.refuse(setting)),
        }
    }

    fn many(&self, setting: &Setting, flags: &[String], separator: char) -> Vec<Written> {
        let place = self.place(setting);
        let texts: Vec<String> = if self.from_environment.holds(setting.id) {
            flags
                .iter()
                .flat_map(|text| text.split(separator))
                .filter(|text| !text.is_empty())
                .map(Into::into)
                .collect()
        } else {
            flags.to_vec()
        };
        if !texts.is_empty() {
            return texts.into_iter().map(|text| Written { text, place: place.clone() }).collect();
        }
        let Some(entry) = self.file.get(setting.key) else {
            return Vec::new();
        };
        let place = self.file_place(setting, entry);
        entry.texts.iter().map(|text| Written { text: text.clone(), place: place.clone() }).collect()
    }

    fn place(&self, setting: &Setting) -> String {
        if self.from_environment.holds(setting.id) {
            format!("environment variable {}", setting.variable)
        } else {
            setting.flag.into()
        }
    }

    fn file_place(&self, setting: &Setting, entry: &file::Entry) -> String {
        format!("{}:{}:{}: {}", self.file.path().display(), entry.line, entry.column, setting.key)
    }

    fn parsed<T>(
        &self,
        setting: &Setting,
        flag: Option<&String>,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, SettingError> {
        let Some(written) = self.one(setting, flag)? else {
            return Ok(None);
        };
        parse(&written.text).map(Some).ok_or_else(|| written.refuse(setting))
    }
}

impl Settings {
    /// Goes from what the user wrote to what the process uses. `machine` is what the defaults depend on.
    pub fn settle(
        flags: &RunFlags,
        from_environment: &FromEnvironment,
        file: &ConfigFile,
        machine: &Machine,
    ) -> Result<Self, SettingError> {
        let layers = Layers { from_environment, file };
        let drain = layers.parsed(&DRAIN, flags.drain_seconds.as_ref(), |text| {
            text.parse().ok().filter(|seconds| *seconds <= DRAIN_SECONDS_MAX)
        })?;
        let threads = layers.parsed(&THREADS, flags.threads.as_ref(), |text| {
            text.parse().ok().filter(|count| (1..=THREADS_MAX).contains(count))
        })?;
        Ok(Self {
            configuration: configuration(&layers, flags)?,
            data_dir: directory(&layers, &DATA_DIR, flags.data_dir.as_ref())?.unwrap_or_else(|| machine.data_dir()),
            free_bytes_min: layers
                .parsed(&FREE_BYTES_MIN, flags.free_bytes_min.as_ref(), |text| text.parse().ok())?
                .unwrap_or(FREE_BYTES_MIN_DEFAULT),
            data_bytes_max: layers.parsed(&DATA_BYTES_MAX, flags.data_bytes_max.as_ref(), |text| {
                text.parse().ok().filter(|bytes| *bytes >= DATA_BYTES_MIN)
            })?,
            http: layers.parsed(&HTTP, flags.http.as_ref(), listeners::address)?.unwrap_or(Some(HTTP_DEFAULT)),
            otlp_http: layers.parsed(&OTLP_HTTP, flags.otlp_http.as_ref(), listeners::address)?.flatten(),
            otlp_grpc: layers.parsed(&OTLP_GRPC, flags.otlp_grpc.as_ref(), listeners::address)?.flatten(),
            tcp: layers.parsed(&TCP, flags.tcp.as_ref(), listeners::address)?.flatten(),
            unix: layers.parsed(&UNIX, flags.unix.as_ref(), listeners::socket)?.flatten(),
            syslog: SyslogListeners::settle(&layers, flags)?,
            admin: layers.parsed(&ADMIN, flags.admin.as_ref(), listeners::address)?.unwrap_or(Some(ADMIN_DEFAULT)),
            metrics: layers.parsed(&METRICS, flags.metrics.as_ref(), listeners::address)?.flatten(),
            pod_logs: pod_logs(&layers, flags, machine)?,
            unknown_pods: layers.parsed(&UNKNOWN_PODS, flags.unknown_pods.as_ref(), unknown_pods)?.unwrap_or_default(),
            filesystem_root: directory(&layers, &FILESYSTEM_ROOT, flags.filesystem_root.as_ref())?
                .unwrap_or_else(|| machine.filesystem_root()),
            limits: limits(&layers, flags, machine)?,
            secrets: secrets(&layers, flags)?,
            security: SecurityFiles {
                tls: TlsFiles {
                    certificate: layers.parsed(&TLS_CERT, flags.tls_cert.as_ref(), existing_file)?,
                    key: layers.parsed(&TLS_KEY, flags.tls_key.as_ref(), existing_file)?,
                },
                client_ca: layers.parsed(&TLS_CLIENT_CA, flags.tls_client_ca.as_ref(), existing_file)?,
                token: layers.parsed(&TOKEN_FILE, flags.token_file.as_ref(), existing_file)?,
            },
            drain: Duration::from_secs(drain.unwrap_or(DRAIN_SECONDS)),
            logging: logging(&layers, flags)?,
            node_name: layers
                .parsed(&NODE_NAME, flags.node_name.as_ref(), node_name)?
                .or_else(|| machine.host_name.clone()),
            threads: threads.unwrap_or(machine.cores.clamp(1, THREADS_DEFAULT_MAX)),
        })
    }
}

fn configuration(layers: &Layers<'_>, flags: &RunFlags) -> Result<ConfigSource, SettingError> {
    let manifests = layers.many(&MANIFESTS, &flags.manifests, ':');
    let operator = layers.one(&OPERATOR, flags.operator.as_ref())?;
    match (manifests.first(), operator) {
        (None, None) => Err(SettingError::NoManifests),
        (Some(manifests), Some(operator)) => {
            Err(SettingError::TwoSources { manifests: manifests.place.clone(), operator: operator.place })
        }
        (None, Some(operator)) => operator::settle(layers, flags, &operator).map(ConfigSource::Operator),
        (Some(_), None) => {
            operator::refuse_without(layers, flags)?;
            paths(&manifests).map(ConfigSource::Files)
        }
    }
}

fn paths(written: &[Written]) -> Result<Vec<PathBuf>, SettingError> {
    let check = |written: &Written| {
        let path = PathBuf::from(&written.text);
        if path.exists() { Ok(path) } else { Err(written.refuse(&MANIFESTS)) }
    };
    written.iter().map(check).collect()
}

fn directory(layers: &Layers<'_>, setting: &Setting, flag: Option<&String>) -> Result<Option<PathBuf>, SettingError> {
    layers.parsed(setting, flag, |text| {
        let path = PathBuf::from(text);
        (!text.is_empty() && (path.is_dir() || !path.exists())).then_some(path)
    })
}

fn pod_logs(layers: &Layers<'_>, flags: &RunFlags, machine: &Machine) -> Result<Option<PathBuf>, SettingError> {
    let given = layers.parsed(&POD_LOGS, flags.pod_logs.as_ref(), |text| match text {
        "off" => Some(None),
        text => Some(PathBuf::from(text)).filter(|path| path.is_dir()).map(Some),
    })?;
    Ok(given.unwrap_or_else(|| machine.pod_logs()))
}

fn unknown_pods(text: &str) -> Option<UnknownPods> {
    match text {
        "Hold" => Some(UnknownPods::Hold),
        "Deliver" => Some(UnknownPods::Deliver),
        _ => None,
    }
}

fn limits(layers: &Layers<'_>, flags: &RunFlags, machine: &Machine) -> Result<Limits, SettingError> {
    let (mut own, mut denied_names) = (machine.gateways.clone(), Vec::new());
    if let Some(host) = &machine.api_server {
        match host.parse() {
            Ok(address) => own.push(address),
            Err(_) => denied_names.push(host.clone()),
        }
    }
    Ok(Limits {
        allowed: listed(layers, &ALLOW_DESTINATIONS, &flags.allow_destinations)?,
        denied: listed(layers, &DENY_DESTINATIONS, &flags.deny_destinations)?,
        own,
        denied_names,
    })
}

/// Reads a list whose parts may stand in one text, with `,` between them.
fn listed<T: std::str::FromStr>(
    layers: &Layers<'_>,
    setting: &Setting,
    flags: &[String],
) -> Result<Vec<T>, SettingError> {
    let mut list = Vec::new();
    for written in layers.many(setting, flags, ',') {
        for part in written.text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            list.push(part.parse().map_err(|_| written.refuse(setting))?);
        }
    }
    Ok(list)
}

fn secrets(layers: &Layers<'_>, flags: &RunFlags) -> Result<SecretPlaces, SettingError> {
    let dir = layers.parsed(&SECRETS_DIR, flags.secrets_dir.as_ref(), |text| {
        Some(PathBuf::from(text)).filter(|path| path.is_dir())
    })?;
    let check = |written: Written| written.text.parse().map_err(|_| written.refuse(&SECRET_ENV));
    let variables = layers.many(&SECRET_ENV, &flags.secret_env, ',').into_iter().map(check);
    Ok(SecretPlaces { dir, variables: variables.collect::<Result<_, _>>()? })
}

fn node_name(text: &str) -> Option<String> {
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    (plain && (1..=253).contains(&text.len())).then(|| text.into())
}

fn logging(layers: &Layers<'_>, flags: &RunFlags) -> Result<LogSettings, SettingError> {
    let format = layers.parsed(&LOG_FORMAT, flags.log_format.as_ref(), |text| match text {
        "text" => Some(LogFormat::Text),
        "json" => Some(LogFormat::Json),
        _ => None,
    })?;
    let level = layers.parsed(&LOG_LEVEL, flags.log_level.as_ref(), |text| {
        crate::logging::filter(text).is_some().then(|| text.to_string())
    })?;
    Ok(LogSettings { format, level: level.unwrap_or_else(|| "info".into()) })
}

fn existing_file(text: &str) -> Option<PathBuf> {
    Some(PathBuf::from(text)).filter(|path| path.is_file())
}

#[cfg(test)]
mod tests;
