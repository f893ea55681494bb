//! The command line: one program, a subcommand per thing it is for.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use rustls::pki_types::ServerName;
use spillway_crds::served::LEASE;

/// The operator of Spillway: manifests of a cluster become what its agents run, and their status tells the truth.
#[derive(Debug, Parser)]
#[command(
    name = "spillway-operator",
    version,
    arg_required_else_help = true,
    after_help = "\
Examples:
  spillway-operator controller --namespace spillway-system
  spillway-operator webhook --certificate /etc/spillway/certificate
  spillway-operator completions bash > /etc/bash_completion.d/spillway-operator

Every flag of `controller` and `webhook` can be given as a variable, too: --namespace as SPILLWAY_NAMESPACE.
Exit codes: 0 ended by a signal, 1 could not start, 2 not understood, 70 a task panicked."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Reconcile, serve configuration to agents, and tell the truth in status; until SIGTERM or SIGINT.
    Controller(Box<ControllerFlags>),
    /// Tell at `kubectl apply` what the compiler says of an object of ours; until SIGTERM or SIGINT.
    Webhook(WebhookFlags),
    /// Print the completions of a shell.
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page.
    Man,
}

/// How the controller runs.
#[derive(Debug, Clone, Args)]
pub struct ControllerFlags {
    /// Where agents ask for their configuration (TLS, by our own CA)
    #[arg(long, env = "SPILLWAY_LISTEN", default_value = "0.0.0.0:8443", value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// Where /livez, /readyz and /metrics are (plain HTTP, no secret and no payload in them)
    #[arg(long, env = "SPILLWAY_ADMIN", default_value = "127.0.0.1:8080", value_name = "ADDRESS")]
    pub admin: SocketAddr,
    /// The namespace this runs in: of the Lease, the CA, and the agents
    #[arg(long, env = "SPILLWAY_NAMESPACE", default_value = "spillway-system", value_name = "NAME")]
    pub namespace: String,
    /// The Service under which agents reach it; its names stand in the certificate
    #[arg(long, env = "SPILLWAY_SERVICE", default_value = "spillway-controller", value_name = "NAME")]
    pub service: String,
    /// More names or addresses for the certificates, its own and the webhook's; none with a wildcard
    #[arg(long, env = "SPILLWAY_CERTIFICATE_NAMES", value_delimiter = ',', value_name = "NAME", value_parser = certificate_name)]
    pub certificate_names: Vec<String>,
    /// The service account of the agents, in the same namespace; only its tokens are taken
    #[arg(long, env = "SPILLWAY_AGENT_SERVICE_ACCOUNT", default_value = "spillway-agent", value_name = "NAME")]
    pub agent_service_account: String,
    /// The Service under which pods reach the agents of their nodes: its certificate is kept [default: none is]
    #[arg(long, env = "SPILLWAY_AGENT_SERVICE", value_name = "NAME")]
    pub agent_service: Option<String>,
    /// The name of the Lease that says which replica leads
    #[arg(long, env = "SPILLWAY_LEASE", default_value = LEASE, value_name = "NAME")]
    pub lease: String,
    /// What this replica calls itself in the Lease [default: the host's name, which is the pod's]
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    pub identity: Option<String>,
    /// The address of this pod, which replicas that follow send agents to while this one leads [default: agents find it by
    /// asking again]
    #[arg(long, env = "POD_IP", value_name = "ADDRESS")]
    pub pod_ip: Option<IpAddr>,
    /// The Service of the webhook, in the same namespace: the leader keeps its certificate in a Secret [default: no webhook]
    #[arg(long, env = "SPILLWAY_WEBHOOK_SERVICE", value_name = "NAME")]
    pub webhook_service: Option<String>,
    /// The `ValidatingWebhookConfiguration` that names it: the leader keeps our CA in it [default: none]
    #[arg(long, env = "SPILLWAY_WEBHOOK_CONFIGURATION", requires = "webhook_service", value_name = "NAME")]
    pub webhook_configuration: Option<String>,
    /// The `MutatingWebhookConfiguration` that names it, where pods are given sidecars; kept in the same way [default: none]
    #[arg(long, env = "SPILLWAY_WEBHOOK_PODS_CONFIGURATION", requires = "webhook_service", value_name = "NAME")]
    pub webhook_pods_configuration: Option<String>,
    /// How often Secrets, the webhook's certificate and its configuration are looked at again: so long a rotated value may wait
    #[arg(long, env = "SPILLWAY_LOOK_AGAIN_SECONDS", default_value_t = 30, value_name = "SECONDS",
        value_parser = clap::value_parser!(u64).range(1..=300))]
    pub look_again_seconds: u64,
    /// What sidecars are made of (JSON), as the webhook has it: pods with others are outdated [default: none is]
    #[arg(long, env = "SPILLWAY_SIDECARS", value_name = "FILE")]
    pub sidecars: Option<PathBuf>,
    /// Evict pods without the sidecar that they asked for, where their pipeline says `remediation: Recreate`
    #[arg(long, env = "SPILLWAY_RECREATE_PODS", requires = "sidecars")]
    pub recreate_pods: bool,
    /// How long such a pod, and what sidecars are made of, must have been as they are before
    #[arg(long, env = "SPILLWAY_RECREATE_AFTER_SECONDS", default_value_t = 300, value_name = "SECONDS",
        value_parser = clap::value_parser!(i64).range(1..=86_400))]
    pub recreate_after_seconds: i64,
    /// What is logged.
    #[command(flatten)]
    pub log: LogFlags,
}

/// How the webhook runs.
#[derive(Debug, Clone, Args)]
pub struct WebhookFlags {
    /// Where API servers post reviews (TLS, at /validate)
    #[arg(long, env = "SPILLWAY_LISTEN", default_value = "0.0.0.0:8443", value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// Where /livez, /readyz and /metrics are (plain HTTP, no secret and no payload in them)
    #[arg(long, env = "SPILLWAY_ADMIN", default_value = "127.0.0.1:8080", value_name = "ADDRESS")]
    pub admin: SocketAddr,
    /// The folder of its certificate: `tls.crt` and `tls.key`, waited for and read again when they change
    #[arg(long, env = "SPILLWAY_CERTIFICATE", default_value = "/etc/spillway/certificate", value_name = "FOLDER")]
    pub certificate: PathBuf,
    /// What sidecars are made of (JSON): with it pods that ask are given one, at /mutate [default: none is]
    #[arg(long, env = "SPILLWAY_SIDECARS", requires = "sidecar_ca", value_name = "FILE")]
    pub sidecars: Option<PathBuf>,
    /// The certificate authorities (PEM) by which sidecars know the operator; read again when they change, as --sidecars is
    #[arg(long, env = "SPILLWAY_SIDECAR_CA", requires = "sidecars", value_name = "FILE")]
    pub sidecar_ca: Option<PathBuf>,
    /// What is logged.
    #[command(flatten)]
    pub log: LogFlags,
}

/// What is logged, and how.
#[derive(Debug, Clone, Args)]
pub struct LogFlags {
    /// Which log lines are written: a level, or directives such as `info,spillway_operator=debug`
    #[arg(long, env = "SPILLWAY_LOG_LEVEL", default_value = "info", value_name = "LEVEL")]
    pub log_level: String,
    /// How they are written [default: text on a terminal, else json]
    #[arg(long, env = "SPILLWAY_LOG_FORMAT", value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object per line.
    Json,
}

/// Returns the command line as clap knows it.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Returns the name if a certificate for it can be looked at again: whether it serves the name is asked before each renewal.
fn certificate_name(name: &str) -> Result<String, String> {
    ServerName::try_from(name)
        .map(|_| name.to_owned())
        .map_err(|_| "not a DNS name without wildcards, such as `spillway.example.com`, or an IP address".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        command().debug_assert();
        let cli = Cli::try_parse_from(["spillway-operator", "controller", "--namespace", "x"]).unwrap();
        let Command::Controller(flags) = cli.command else { panic!("the controller") };
        assert_eq!((flags.namespace.as_str(), flags.listen.port()), ("x", 8443));
        let cli = Cli::try_parse_from(["spillway-operator", "webhook", "--certificate", "x"]).unwrap();
        let Command::Webhook(flags) = cli.command else { panic!("the webhook") };
        assert_eq!((flags.certificate, flags.log.log_level), ("x".into(), "info".to_owned()));
    }

    #[test]
    fn a_certificate_is_not_asked_for_names_that_it_cannot_be_checked_for() {
        let of = |names: &str| Cli::try_parse_from(["spillway-operator", "controller", "--certificate-names", names]);
        for names in ["spillway.example.com,127.0.0.1,::1", "localhost"] {
            let Command::Controller(flags) = of(names).unwrap().command else { panic!("the controller") };
            assert_eq!(flags.certificate_names.join(","), names);
        }
        for names in ["*.example.com", "localhost,*.example.com", "", "a b", "https://example.com"] {
            let error = of(names).unwrap_err().to_string();
            assert!(error.contains("DNS name without wildcards"), "{names}: {error}");
        }
    }
}
