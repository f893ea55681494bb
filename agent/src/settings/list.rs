//! The list of settings: the name of each in every place it can be written at, and what is allowed.

/// One setting: its name in every place.
#[derive(Debug)]
pub(super) struct Setting {
    /// The flag's name with underscores.
    pub(super) id: &'static str,
    /// The flag.
    pub(super) flag: &'static str,
    /// The environment variable.
    pub(super) variable: &'static str,
    /// The key in the configuration file.
    pub(super) key: &'static str,
    /// What is allowed.
    pub(super) allowed: &'static str,
}

const fn setting(
    id: &'static str,
    flag: &'static str,
    variable: &'static str,
    key: &'static str,
    allowed: &'static str,
) -> Setting {
    Setting { id, flag, variable, key, allowed }
}

pub(super) const MANIFESTS: Setting =
    setting("manifests", "--manifests", "SPILLWAY_MANIFESTS", "manifests", "files and folders that are there");
pub(super) const OPERATOR: Setting = setting(
    "operator",
    "--operator",
    "SPILLWAY_OPERATOR",
    "operator",
    "https://HOST[:PORT], or http:// with an address of loopback",
);
pub(super) const OPERATOR_CA: Setting =
    setting("operator_ca", "--operator-ca", "SPILLWAY_OPERATOR_CA", "operatorCA", FILE);
pub(super) const OPERATOR_TOKEN: Setting =
    setting("operator_token", "--operator-token", "SPILLWAY_OPERATOR_TOKEN", "operatorToken", "a file");
pub(super) const STATE_KEY: Setting = setting("state_key", "--state-key", "SPILLWAY_STATE_KEY", "stateKey", FILE);
pub(super) const DATA_DIR: Setting = setting("data_dir", "--data-dir", "SPILLWAY_DATA_DIR", "dataDir", DIRECTORY);
pub(super) const DATA_BYTES_MAX: Setting = setting(
    "data_bytes_max",
    "--data-bytes-max",
    "SPILLWAY_DATA_BYTES_MAX",
    "dataBytesMax",
    "a whole number of bytes, at least 33554432",
);
pub(super) const NODE_AGENT: Setting = setting(
    "node_agent",
    "--node-agent",
    "SPILLWAY_NODE_AGENT",
    "nodeAgent",
    "https://HOST[:PORT], or http:// with an address of loopback, with --operator",
);
pub(super) const NODE_AGENT_TOKEN: Setting =
    setting("node_agent_token", "--node-agent-token", "SPILLWAY_NODE_AGENT_TOKEN", "nodeAgentToken", "a file");
pub(super) const HTTP: Setting = setting("http", "--http", "SPILLWAY_HTTP", "http", ADDRESS);
pub(super) const OTLP_HTTP: Setting = setting("otlp_http", "--otlp-http", "SPILLWAY_OTLP_HTTP", "otlpHTTP", ADDRESS);
pub(super) const OTLP_GRPC: Setting = setting("otlp_grpc", "--otlp-grpc", "SPILLWAY_OTLP_GRPC", "otlpGRPC", ADDRESS);
pub(super) const TCP: Setting = setting("tcp", "--tcp", "SPILLWAY_TCP", "tcp", ADDRESS);
pub(super) const UNIX: Setting =
    setting("unix", "--unix", "SPILLWAY_UNIX", "unix", "a path of at most 107 bytes whose folder is there, or `off`");
pub(super) const SYSLOG_TCP: Setting =
    setting("syslog_tcp", "--syslog-tcp", "SPILLWAY_SYSLOG_TCP", "syslogTCP", ADDRESS);
pub(super) const SYSLOG_TLS: Setting =
    setting("syslog_tls", "--syslog-tls", "SPILLWAY_SYSLOG_TLS", "syslogTLS", ADDRESS);
pub(super) const SYSLOG_UDP: Setting =
    setting("syslog_udp", "--syslog-udp", "SPILLWAY_SYSLOG_UDP", "syslogUDP", ADDRESS);
pub(super) const DOOR: Setting = setting(
    "door",
    "--door",
    "SPILLWAY_DOOR",
    "door",
    "an IP address and a port, with --operator, --door-cert and --door-key, or `off`",
);
pub(super) const DOOR_CERT: Setting = setting("door_cert", "--door-cert", "SPILLWAY_DOOR_CERT", "doorCert", FILE);
pub(super) const DOOR_KEY: Setting = setting("door_key", "--door-key", "SPILLWAY_DOOR_KEY", "doorKey", FILE);
pub(super) const ADMIN: Setting = setting("admin", "--admin", "SPILLWAY_ADMIN", "admin", ADDRESS);
pub(super) const METRICS: Setting = setting("metrics", "--metrics", "SPILLWAY_METRICS", "metrics", ADDRESS);
pub(super) const POD_LOGS: Setting =
    setting("pod_logs", "--pod-logs", "SPILLWAY_POD_LOGS", "podLogs", "a directory that is there, or `off`");
pub(super) const UNKNOWN_PODS: Setting =
    setting("unknown_pods", "--unknown-pods", "SPILLWAY_UNKNOWN_PODS", "unknownPods", "`Hold` or `Deliver`");
pub(super) const FILESYSTEM_ROOT: Setting =
    setting("filesystem_root", "--filesystem-root", "SPILLWAY_FILESYSTEM_ROOT", "filesystemRoot", DIRECTORY);
pub(super) const ALLOW_DESTINATIONS: Setting = setting(
    "allow_destinations",
    "--allow-destinations",
    "SPILLWAY_ALLOW_DESTINATIONS",
    "allowDestinations",
    "networks (10.0.0.0/8, fd00::/8), addresses and ports (:6443); IPv4 inside IPv6 as IPv4",
);
pub(super) const DENY_DESTINATIONS: Setting = setting(
    "deny_destinations",
    "--deny-destinations",
    "SPILLWAY_DENY_DESTINATIONS",
    "denyDestinations",
    "networks (10.0.0.0/8, fd00::/8) and addresses; IPv4 inside IPv6 as IPv4",
);
pub(super) const SECRETS_DIR: Setting =
    setting("secrets_dir", "--secrets-dir", "SPILLWAY_SECRETS_DIR", "secretsDir", "a directory that is there");
pub(super) const SECRET_ENV: Setting = setting(
    "secret_env",
    "--secret-env",
    "SPILLWAY_SECRET_ENV",
    "secretEnv",
    "NAME/KEY=VARIABLE, the secret's name and key as in `…SecretRef`, and the variable that holds it",
);
pub(super) const TLS_CERT: Setting = setting("tls_cert", "--tls-cert", "SPILLWAY_TLS_CERT", "tlsCert", FILE);
pub(super) const TLS_KEY: Setting = setting("tls_key", "--tls-key", "SPILLWAY_TLS_KEY", "tlsKey", FILE);
pub(super) const TLS_CLIENT_CA: Setting =
    setting("tls_client_ca", "--tls-client-ca", "SPILLWAY_TLS_CLIENT_CA", "tlsClientCA", FILE);
pub(super) const TOKEN_FILE: Setting = setting("token_file", "--token-file", "SPILLWAY_TOKEN_FILE", "tokenFile", FILE);
pub(super) const FREE_BYTES_MIN: Setting =
    setting("free_bytes_min", "--free-bytes-min", "SPILLWAY_FREE_BYTES_MIN", "freeBytesMin", "a whole number of bytes");
pub(super) const DRAIN: Setting = setting(
    "drain_seconds",
    "--drain-seconds",
    "SPILLWAY_DRAIN_SECONDS",
    "drainSeconds",
    "a whole number of seconds, 0 to 3600",
);
pub(super) const LOG_FORMAT: Setting =
    setting("log_format", "--log-format", "SPILLWAY_LOG_FORMAT", "logFormat", "`text` or `json`");
pub(super) const LOG_LEVEL: Setting = setting(
    "log_level",
    "--log-level",
    "SPILLWAY_LOG_LEVEL",
    "logLevel",
    "`error`, `warn`, `info`, `debug`, `trace`, or directives such as `info,spillway_delivery=debug`",
);
pub(super) const NODE_NAME: Setting =
    setting("node_name", "--node-name", "SPILLWAY_NODE_NAME", "nodeName", "1 to 253 letters, digits, `-`, `_` and `.`");
pub(super) const THREADS: Setting =
    setting("threads", "--threads", "SPILLWAY_THREADS", "threads", "a whole number of threads, 1 to 64");

const ADDRESS: &str = "an IP address and a port (127.0.0.1:8411, [::1]:8411), or `off`";
const DIRECTORY: &str = "a directory; it is made when it is not there";
const FILE: &str = "a file that is there";

/// Every setting, in the order of `--help`.
pub(super) const SETTINGS: [Setting; 39] = [
    MANIFESTS,
    OPERATOR,
    OPERATOR_CA,
    OPERATOR_TOKEN,
    STATE_KEY,
    DATA_DIR,
    FREE_BYTES_MIN,
    DATA_BYTES_MAX,
    HTTP,
    OTLP_HTTP,
    OTLP_GRPC,
    TCP,
    UNIX,
    SYSLOG_TCP,
    SYSLOG_TLS,
    SYSLOG_UDP,
    DOOR,
    DOOR_CERT,
    DOOR_KEY,
    NODE_AGENT,
    NODE_AGENT_TOKEN,
    ADMIN,
    METRICS,
    POD_LOGS,
    UNKNOWN_PODS,
    FILESYSTEM_ROOT,
    ALLOW_DESTINATIONS,
    DENY_DESTINATIONS,
    SECRETS_DIR,
    SECRET_ENV,
    TLS_CERT,
    TLS_KEY,
    TLS_CLIENT_CA,
    TOKEN_FILE,
    DRAIN,
    LOG_FORMAT,
    LOG_LEVEL,
    NODE_NAME,
    THREADS,
];

/// Returns the known key that looks most like `found`, `data-dir` and `data_dir` for `dataDir` included.
pub(super) fn nearest_key(found: &str) -> &'static str {
    let plain = |text: &str| text.replace(['-', '_'], "").to_lowercase();
    let found = plain(found);
    let nearest = SETTINGS.iter().min_by_key(|setting| strsim::damerau_levenshtein(&plain(setting.key), &found));
    nearest.map_or(MANIFESTS.key, |setting| setting.key)
}

/// Returns every key, for people.
pub(super) fn keys() -> String {
    SETTINGS.map(|setting| setting.key).join(", ")
}
