//! The command line: what a user may write, and nothing about what it means.
//!
//! Values stay text here. [`crate::settings`] turns them into what the process uses, because only there is it known
//! whether a value came from a flag, the environment or the configuration file, and an error must say so.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum, ValueHint};

mod dead_letters;
mod jobs;

pub use dead_letters::{
    AskedFlags, DeadLettersCommand, ExportFlags, LetterFlags, ListFlags, PurgeFlags, RedriveFlags, SelectionFlags,
    ShowFlags,
};
pub use jobs::{CancelFlags, JobsCommand, JobsFlags, ReplayFlags};

/// Takes monitoring data in, keeps it in a durable log, delivers it to every backend that wants it.
#[derive(Debug, Parser)]
#[command(
    name = "spillway-agent",
    version,
    long_version = LONG_VERSION,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    max_term_width = 110,
    after_help = "Examples:\n  \
        spillway-agent check -f pipelines/\n  \
        spillway-agent run -f pipelines/\n  \
        spillway-agent status"
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const LONG_VERSION: &str =
    concat!(env!("CARGO_PKG_VERSION"), "\nmanifests: spillway.dev/v1alpha1", "\nlicence:   Apache-2.0");

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the agent until SIGTERM or SIGINT; a second signal cuts the drain short, a third ends at once. SIGHUP reads the manifests again.
    Run(Box<RunFlags>),
    /// Check manifests without running anything; what `run -f` would refuse of good ones is a warning.
    Check(CheckFlags),
    /// Test pipelines: events, and what the manifests are to make of them. Nothing is started, stored or sent.
    Test(TestFlags),
    /// Ask a running agent what became of its data: the ledger, a line per delivery, and what is wrong.
    Status(StatusFlags),
    /// Look at the durable log.
    #[command(subcommand)]
    Log(LogCommand),
    /// Look at the events that backends refused for good.
    #[command(subcommand)]
    DeadLetters(DeadLettersCommand),
    /// Send a range of a pipeline's log again, also to another backend, while the agent runs.
    Replay(ReplayFlags),
    /// Look at redrives and replays, and end them.
    #[command(subcommand)]
    Jobs(JobsCommand),
    /// Write a line to standard output each second, and wait until a pipeline posts one back: what `helm test` runs.
    RoundTrip(RoundTripFlags),
    /// Print completions for a shell.
    #[command(after_help = "Example:\n  spillway-agent completions bash > /etc/bash_completion.d/spillway-agent")]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the manual page.
    #[command(after_help = "Example:\n  spillway-agent man | man -l -")]
    Man,
}

/// The subcommands of `log`.
#[derive(Debug, Subcommand)]
pub enum LogCommand {
    /// Read a log without the process: its segments, what is held, what is damaged.
    Inspect(InspectFlags),
}

/// How a command prints what it found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Human,
    /// For programs.
    Json,
}

/// What `run` can be told. Every flag has an environment variable and a key in the configuration file; a flag goes
/// before the environment, the environment before the file, the file before the default.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = "Every flag but --config has a key in the configuration file: its name in camelCase \
    (--data-dir is `dataDir`).\nA flag goes before its environment variable, that before the file, the file before \
    the default.\n\nExamples:\n  \
    spillway-agent run -f pipelines/\n  \
    spillway-agent run -f jobs.yaml --http 127.0.0.1:9000 --data-dir ./data\n  \
    spillway-agent run -f pipelines/ --http 0.0.0.0:8411 --tls-cert tls.crt --tls-key tls.key --token-file token\n  \
    spillway-agent run --operator https://spillway-operator:8443 --operator-ca ca.crt --state-key state.key\n\n\
    Exit codes: 0 ended by a signal after its drain, 1 could not start, 2 settings not understood,\n\
    70 a task panicked, 130 or 143 a second signal cut the drain short.")]
pub struct RunFlags {
    /// Manifests to run: files, or folders whose .yaml, .yml and .json files are taken. Repeatable. In the environment
    /// separated by `:`.
    #[arg(short = 'f', long, value_name = "PATH", num_args = 1.., env = "SPILLWAY_MANIFESTS", value_hint = ValueHint::AnyPath)]
    pub manifests: Vec<String>,

    /// The operator that serves this agent its configuration, instead of -f: `https://HOST[:PORT]`.
    #[arg(long, value_name = "URL", env = "SPILLWAY_OPERATOR")]
    pub operator: Option<String>,

    /// Certificate authorities (PEM) of the operator, trusted alone; read again when the file changes. Default: those of
    /// the machine.
    #[arg(long, value_name = "FILE", env = "SPILLWAY_OPERATOR_CA", value_hint = ValueHint::FilePath)]
    pub operator_ca: Option<String>,

    /// File with the token that is shown to the operator; read again for each request. Default:
    /// /var/run/secrets/spillway/token.
    #[arg(long, value_name = "FILE", env = "SPILLWAY_OPERATOR_TOKEN", value_hint = ValueHint::FilePath)]
    pub operator_token: Option<String>,

    /// File with a key of 32 bytes, as they are or in base64: encrypts the values of secrets in the copy of the
    /// configuration that is kept in the data directory. Without it they are not kept.
    #[arg(long, value_name = "FILE", env = "SPILLWAY_STATE_KEY", value_hint = ValueHint::FilePath)]
    pub state_key: Option<String>,

    /// A configuration file in YAML with any of these settings.
    #[arg(long, value_name = "FILE", env = "SPILLWAY_CONFIG", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,

    /// Where the durable logs live; one agent per directory. Default: /var/lib/spillway for root, ./spillway-data for
    /// a plain user.
    #[arg(long, value_name = "DIR", env = "SPILLWAY_DATA_DIR", value_hint = ValueHint::DirPath)]
    pub data_dir: Option<String>,

    /// Bytes that must stay free on the volume of the data directory; below, new data is refused and deliveries go on.
    /// Default: 16777216.
    #[arg(long, value_name = "BYTES", env = "SPILLWAY_FREE_BYTES_MIN")]
    pub free_bytes_min: Option<String>,

    /// Most bytes that the data directory takes: a bound of its volume that the system does not know of, such as the
    /// `sizeLimit` of an emptyDir. Default: none.
    #[arg(long, value_name = "BYTES", env = "SPILLWAY_DATA_BYTES_MAX")]
    pub data_bytes_max: Option<String>,

    /// Where events are taken over HTTP, or `off`. Default: 127.0.0.1:8411.
    #[arg(long, value_name = "ADDRESS:PORT", env = "SPILLWAY_HTTP")]
    pub http: Option<String>,

    /// Where OTLP alone is taken over HTTP, as it is at --http too, or `off`; others listen at port 4318. Default: off.
    #[arg(long, value_name = "ADDRESS:PORT", env = "SPILLWAY_OTLP_HTTP")]
    pub otlp_http: Option<String>,

    /// Where OTLP is taken over gRPC, or `off`; others listen at port 4317. Default: off.
    #[arg(long, value_name = "ADDRESS:PORT", env = "SPILLWAY_OTLP_GRPC")]
    pub otlp_grpc: Option<String>,

    /// Where events are taken as lines over TCP, one JSON object on each, or `off`. Default: off.
    #[arg(long, value_name = "ADDRESS:PORT", env = "SPILLWAY_TCP")]
    pub tcp: Option<String>,

    /// The file of a Unix socket at which events are taken as lines, or `off`; its permissions say who may send. Default: off.
    #[arg(long, value_name = "FILE", env = "SPILLWAY_UNIX", value_hint = ValueHint::FilePath)]
    pub unix: Option<String>,

    /// Where messages of syslog are taken over TCP, at a loopback address, or `off`. Default: off.
    #[arg(long, value_name = "ADDRESS:PORT", env = "SPILLWAY_SYSLOG_TCP")]
    pub syslog_tcp: Option<String>,

    /// Where messages of syslog are taken over TLS, of senders with a certificate of --tls-client-ca, or `off`. Needs --tls-cert and
    /// --tls-key, too. Default: off.
    #[arg(long, value_name = "ADDRESS:PORT", env = "SPILLWAY_SYSLOG_TLS")]
    pub syslog_tls: Option<String>,

    /// Where messages of syslog are taken in datagrams (UDP), at a loopback address, or `off`. Default: off.
    #[arg(long, value_name = "ADDRESS:PORT", env = "SPILLWAY_SYSLOG_UDP")]
    pub syslog_udp: Option<String>,

    /// Where pods of this node send events, each with a token of its service account for the audience spillway-agent, or
    /// `off`. Needs --operator, --door-cert and --door-key. Default: off.
    #[arg(long, value_name = "ADDRESS:PORT", env = "SPILLWAY_DOOR")]
    pub door: Option<String>,

    /// Certificate chain (PEM) of --door; read again when it changes.
    #[arg(long, value_name = "FILE", env = "SPILLWAY_DOOR_CERT", value_hint = ValueHint::FilePath)]
    pub door_cert: Option<String>,

    /// Private key (PEM) of --door-cert.
    #[arg(long, value_name = "FILE", env = "SPILLWAY_DOOR_KEY", value_hint = ValueHint::FilePath)]
    pub door_key: Option<String>,

    /// Runs as the sidecar of a pod: what comes to --http is of this pod, and this is the agent of its node, `https://HOST[:PORT]`,
    /// which delivers what only it may. Needs --operator. Default: none.
    #[arg(long, value_name = "URL", env = "SPILLWAY_NODE_AGENT")]
    pub node_agent: Option<String>,

    /// File with the token that a sidecar shows to --node-agent; read again for each request. Default:
    /// /var/run/secrets/spillway/node-agent.
    #[arg(long, value_name = "FILE", env = "SPILLWAY_NODE_AGENT_TOKEN", value_hint = ValueHint::FilePath)]
    pub node_agent_token: Option<String>,

    /// Where /livez, /readyz, /metrics and /v1/status are served, or `off`. Default: 127.0.0.1:8412.
    #[arg(long, value_name = "ADDRESS:PORT", env = "SPILLWAY_ADMIN")]
    pub admin: Option<String>,

    /// Where /livez, /readyz and /metrics are served, and nothing else, without TLS and token: for a kubelet and a
    /// scraper that reach no loopback. Default: off.
    #[arg(long, value_name = "ADDRESS:PORT", env = "SPILLWAY_METRICS")]
    pub metrics: Option<String>,

    /// The kubelet's folder of container logs, or `off`. Default: /var/log/pods, off when that is absent.
    #[arg(long, value_name = "DIR", env = "SPILLWAY_POD_LOGS", value_hint = ValueHint::DirPath)]
    pub pod_logs: Option<String>,

    /// What becomes of logs of pods whose labels and annotations the operator has not told yet: `Hold` (held open at their
    /// beginning until it does) or `Deliver`. Default: Hold.
    #[arg(long, value_name = "WHAT", env = "SPILLWAY_UNKNOWN_PODS")]
    pub unknown_pods: Option<String>,

    /// The folder that Filesystem backends write below. Default: /var/lib/spillway-out for root, ./spillway-out for a
    /// plain user.
    #[arg(long, value_name = "DIR", env = "SPILLWAY_FILESYSTEM_ROOT", value_hint = ValueHint::DirPath)]
    pub filesystem_root: Option<String>,

    /// What Backends of namespaces that the operator serves may connect to although it is refused else: a network
    /// (10.0.0.0/8), an address, or a port (:6443). Goes before --deny-destinations. Repeatable; separated by `,`.
    #[arg(long, value_name = "NETWORK", env = "SPILLWAY_ALLOW_DESTINATIONS")]
    pub allow_destinations: Vec<String>,

    /// What these Backends may not connect to, besides loopback, link-local, cloud metadata and what else no tenant means:
    /// a network or an address. `0.0.0.0/0` and `::/0` leave what is allowed. Repeatable; separated by `,`.
    #[arg(long, value_name = "NETWORK", env = "SPILLWAY_DENY_DESTINATIONS")]
    pub deny_destinations: Vec<String>,

    /// Where a reference {name, key} to a secret is looked up: the file `DIR/<name>/<key>`.
    #[arg(long, value_name = "DIR", env = "SPILLWAY_SECRETS_DIR", value_hint = ValueHint::DirPath)]
    pub secrets_dir: Option<String>,

    /// An environment variable that holds a secret: the reference {name, key} that may read it, and its name.
    /// Repeatable; separated by `,` in the environment.
    #[arg(long, value_name = "NAME/KEY=VARIABLE", env = "SPILLWAY_SECRET_ENV")]
    pub secret_env: Vec<String>,

    /// Certificate chain (PEM) of listeners; needed beyond loopback.
    #[arg(long, value_name = "FILE", env = "SPILLWAY_TLS_CERT", value_hint = ValueHint::FilePath)]
    pub tls_cert: Option<String>,

    /// Private key (PEM) of listeners; needed beyond loopback.
    #[arg(long, value_name = "FILE", env = "SPILLWAY_TLS_KEY", value_hint = ValueHint::FilePath)]
    pub tls_key: Option<String>,

    /// Certificate authorities (PEM) whose certificates senders show at --syslog-tls.
    #[arg(long, value_name = "FILE", env = "SPILLWAY_TLS_CLIENT_CA", value_hint = ValueHint::FilePath)]
    pub tls_client_ca: Option<String>,

    /// File with the bearer token that clients must show; needed beyond loopback.
    #[arg(long, value_name = "FILE", env = "SPILLWAY_TOKEN_FILE", value_hint = ValueHint::FilePath)]
    pub token_file: Option<String>,

    /// How long deliveries may go on after the first signal. Default: 25, which fits a grace period of 30 s.
    #[arg(long, value_name = "SECONDS", env = "SPILLWAY_DRAIN_SECONDS")]
    pub drain_seconds: Option<String>,

    /// `text` or `json`. Default: text on a terminal, json elsewhere.
    #[arg(long, value_name = "FORMAT", env = "SPILLWAY_LOG_FORMAT")]
    pub log_format: Option<String>,

    /// `error`, `warn`, `info`, `debug`, `trace`, or directives such as `info,spillway_delivery=debug`. Default: info.
    #[arg(long, value_name = "LEVEL", env = "SPILLWAY_LOG_LEVEL")]
    pub log_level: Option<String>,

    /// Name of the machine, for `origin.node`. Default: the host's name.
    #[arg(long, value_name = "NAME", env = "SPILLWAY_NODE_NAME")]
    pub node_name: Option<String>,

    /// Worker threads, 1 to 64. Default: one per core, at most 4.
    #[arg(long, value_name = "COUNT", env = "SPILLWAY_THREADS")]
    pub threads: Option<String>,
}

/// What `check` can be told.
#[derive(Debug, Args)]
#[command(after_help = "Warnings also say what `run -f` refuses and a cluster takes: selectors of pods, events in a\n\
    ClusterMonitoringPipeline, manifests without a pipeline. In JSON their `reason` is `NotStandalone`.\n\n\
    Exit codes: 0 no error (there may be warnings), 1 errors in the manifests or they cannot be read, 2 bad flags.\n\n\
    Examples:\n  \
    spillway-agent check -f pipelines/\n  \
    spillway-agent check -f jobs.yaml -f backends.yaml -o json")]
pub struct CheckFlags {
    /// Manifests to check: files, or folders whose .yaml, .yml and .json files are taken. Repeatable.
    #[arg(short = 'f', long, value_name = "PATH", num_args = 1.., required = true, value_hint = ValueHint::AnyPath)]
    pub manifests: Vec<PathBuf>,

    /// Say of every condition which fields of an event it reads, and what it costs: `origin`, `walk`, `text`, `pattern` or `list`.
    #[arg(long)]
    pub explain: bool,

    /// How to print.
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "human")]
    pub output: Output,
}

/// What `test` can be told.
#[derive(Debug, Clone, Args)]
#[command(after_help = "A file of tests:\n  \
    manifests: [..]                    # seen from the file; -f adds others\n  \
    tests:\n  \
    - name: an error goes to the pager\n    \
    pipeline: etch-line\n    \
    origin: {pod: etcher-0}\n    \
    events:\n    \
    - event: {level: error, wafer: 7}  # or json: '{\"level\": \"error\"}'\n      \
      expect: {routes: [pager], fields: {site: fab12}, absent: [secret]}\n    \
    - event: {level: debug}\n      \
      expect: {dropped: true}\n\n\
    Exit codes: 0 all passed, 1 one failed or could not be tried.\n\n\
    Examples:\n  \
    spillway-agent test pipelines/tests/etch-line.yaml\n  \
    spillway-agent test tests/*.yaml -f pipelines/ -o json")]
pub struct TestFlags {
    /// Files of tests.
    #[arg(value_name = "FILE", num_args = 1.., required = true, value_hint = ValueHint::FilePath)]
    pub files: Vec<PathBuf>,

    /// Manifests to test, besides those that the files name. Repeatable.
    #[arg(short = 'f', long, value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub manifests: Vec<PathBuf>,

    /// How to print.
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "human")]
    pub output: Output,
}

/// Which running agent is asked.
#[derive(Debug, Clone, Args)]
pub struct AgentFlags {
    /// Where the agent's admin endpoint is: a URL, or an address and port.
    #[arg(long, value_name = "URL", env = "SPILLWAY_ADMIN", default_value = "http://127.0.0.1:8412")]
    pub admin: String,

    /// File with the bearer token the endpoint asks for.
    #[arg(long, value_name = "FILE", env = "SPILLWAY_TOKEN_FILE", value_hint = ValueHint::FilePath)]
    pub token_file: Option<PathBuf>,

    /// Certificate authority (PEM) that signed the endpoint's certificate.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub ca_cert: Option<PathBuf>,
}

/// What `status` can be told.
#[derive(Debug, Args)]
#[command(after_help = "Exit codes: 0 everything flows, 1 the agent answers and something is wrong (said in words), \
    2 the agent cannot be asked.\n\nExamples:\n  \
    spillway-agent status\n  \
    spillway-agent status --admin 127.0.0.1:9412 -o json")]
pub struct StatusFlags {
    /// Which agent.
    #[command(flatten)]
    pub agent: AgentFlags,

    /// How to print.
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "human")]
    pub output: Output,
}

/// What `round-trip` can be told.
#[derive(Debug, Args)]
#[command(after_help = "Exit codes: 0 a line came back, 1 none did, 2 bad flags.\n\nExample:\n  \
    spillway-agent round-trip --listen 0.0.0.0:8411 --within-seconds 60")]
pub struct RoundTripFlags {
    /// Where an HTTP backend posts to. It keeps nothing of what it is sent, and needs neither TLS nor token.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8411")]
    pub listen: SocketAddr,

    /// How long a line may take.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub within_seconds: u64,
}

/// What `log inspect` can be told.
#[derive(Debug, Args)]
#[command(after_help = "Exit codes: 0 readable and whole, 1 damaged or not readable, 2 bad flags.\n\nExamples:\n  \
    spillway-agent log inspect ./spillway-data/spool/default.jobs\n  \
    spillway-agent log inspect ./spillway-data/spool/default.jobs --events -o json")]
pub struct InspectFlags {
    /// The log's directory: `<data-dir>/spool/<pipeline>`.
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub dir: PathBuf,

    /// Also print the events, one per line.
    #[arg(long)]
    pub events: bool,

    /// How to print.
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "human")]
    pub output: Output,
}

/// Which flags of `run` came from the environment.
#[derive(Debug, Clone, Default)]
pub struct FromEnvironment {
    ids: Vec<String>,
}

impl FromEnvironment {
    /// Returns the set of these flags, by their names with underscores.
    pub fn of(ids: &[&str]) -> Self {
        Self { ids: ids.iter().map(ToString::to_string).collect() }
    }

    /// Returns whether the flag's value came from its variable.
    pub fn holds(&self, id: &str) -> bool {
        self.ids.iter().any(|known| known == id)
    }
}

/// Reads the command line. The error prints itself and knows its exit code (2, or 0 for `--help`).
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<(Cli, FromEnvironment), clap::Error> {
    let matches = command().try_get_matches_from(args)?;
    let from_environment = matches.subcommand().map(|(_, sub)| {
        let ids = sub.ids().map(clap::Id::as_str);
        let ids = ids.filter(|id| matches!(sub.try_get_raw(id), Ok(Some(_))));
        ids.filter(|id| sub.value_source(id) == Some(ValueSource::EnvVariable)).map(String::from).collect()
    });
    let cli = Cli::from_arg_matches(&matches)?;
    Ok((cli, FromEnvironment { ids: from_environment.unwrap_or_default() }))
}

/// Returns the definition of the command line, for completions and the manual page.
pub fn command() -> clap::Command {
    Cli::command()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn every_subcommand_has_an_example() {
        fn look(command: &clap::Command) {
            for sub in command.get_subcommands() {
                if sub.has_subcommands() {
                    look(sub);
                } else {
                    let help = sub.clone().render_long_help().to_string();
                    assert!(help.contains("Example"), "{}", sub.get_name());
                }
            }
        }
        look(&command());
    }

    #[test]
    fn several_manifests_follow_one_flag() {
        let args = ["spillway-agent", "run", "-f", "a", "b", "-f", "c", "--threads", "2"].map(OsString::from);
        let (cli, from_environment) = parse(args).unwrap();
        let Command::Run(flags) = cli.command else { panic!("not run") };
        assert_eq!(flags.manifests, ["a", "b", "c"]);
        assert!(!from_environment.holds("threads"));
    }
}
