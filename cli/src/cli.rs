//! The command line: a plugin of kubectl, with its flags for which cluster and which namespace.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum, ValueHint};
use k8s_openapi::jiff::SignedDuration;

/// Most time of one request, where it has an end.
const TIMEOUT_MAX: Duration = Duration::from_hours(24);

/// The program's name, by which kubectl finds it.
pub const PROGRAM: &str = "kubectl-spillway";

/// Asks a cluster that runs Spillway: what is wrong, what runs, and why a pod's logs are not there. It reads and never writes.
#[derive(Debug, Parser)]
#[command(
    name = PROGRAM,
    bin_name = "kubectl spillway",
    version,
    arg_required_else_help = true,
    after_help = "\
Exit codes: 0 nothing is wrong, 1 something is and it is said what, 2 not understood or the cluster cannot be asked.

Examples:
  kubectl spillway check -f pipelines/            # manifests of files, without a cluster
  kubectl spillway validate -A                    # everything that stands in the cluster
  kubectl spillway status -n fab12                # the pipelines of a namespace
  kubectl spillway trace etcher-0 -n fab12        # why are the logs of this pod not there
  kubectl-spillway completions bash > /etc/bash_completion.d/kubectl-spillway"
)]
pub struct Cli {
    /// Which cluster.
    #[command(flatten)]
    pub cluster: ClusterFlags,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Which cluster, as whom, and which namespace: as kubectl has it.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Cluster")]
pub struct ClusterFlags {
    /// The file with clusters and users [default: KUBECONFIG, else ~/.kube/config]
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub kubeconfig: Option<PathBuf>,

    /// The context of that file [default: its current one]
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,

    /// The cluster of that file [default: the context's]
    #[arg(long, global = true, value_name = "NAME")]
    pub cluster: Option<String>,

    /// The user of that file [default: the context's]
    #[arg(long, global = true, value_name = "NAME")]
    pub user: Option<String>,

    /// The user to act as
    #[arg(long = "as", global = true, value_name = "USER")]
    pub act_as: Option<String>,

    /// The namespace [default: the context's]
    #[arg(short, long, global = true, value_name = "NAME")]
    pub namespace: Option<String>,

    /// How long one request may take: seconds, or with a unit (1s, 2m, 3h); 0 is without an end
    #[arg(long, global = true, value_name = "DURATION", default_value = "30s", value_parser = timeout)]
    pub request_timeout: Duration,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Compile manifests of files as an agent does, and say what is wrong; needs no cluster.
    Check(CheckFlags),
    /// Compile what stands in the cluster (or in files) and say what is wrong.
    Validate(ValidateFlags),
    /// Show the pipelines: whether they are ready, why not, and on how many agents they run.
    Status(StatusFlags),
    /// Say why the logs of a pod are not there: every step on their way, and the first that is broken.
    Trace(TraceFlags),
    /// Print the pod of a file with its sidecar, as the webhook gives it; writes nothing.
    Inject(InjectFlags),
    /// Print the completions of a shell.
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page.
    Man,
}

/// How it is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Human,
    /// One JSON object.
    Json,
}

/// What `check` can be told.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  kubectl spillway check -f pipelines/\n  \
                        kubectl spillway check -f jobs.yaml -f backends.yaml -o json")]
pub struct CheckFlags {
    /// Manifests: files, or folders whose .yaml, .yml and .json files are taken. Repeatable.
    #[arg(short = 'f', long, value_name = "PATH", num_args = 1.., required = true, value_hint = ValueHint::AnyPath)]
    pub manifests: Vec<PathBuf>,

    /// How to print.
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "human")]
    pub output: Output,
}

/// What `validate` can be told.
#[derive(Debug, Args)]
#[command(
    after_help = "Without -f it judges pipelines and backends of the namespace, or of all of them and of the cluster \
                        (-A). What the reader may not list is told, and references to it are not judged.\n\n\
                        Examples:\n  kubectl spillway validate -n fab12\n  kubectl spillway validate -A -o json\n  \
                        kubectl spillway validate -f pipelines/"
)]
pub struct ValidateFlags {
    /// Manifests to judge instead of what stands in the cluster: files or folders. Repeatable.
    #[arg(short = 'f', long, value_name = "PATH", num_args = 1.., value_hint = ValueHint::AnyPath)]
    pub manifests: Vec<PathBuf>,

    /// Every namespace, and the kinds of the cluster.
    #[arg(short = 'A', long, conflicts_with = "manifests")]
    pub all_namespaces: bool,

    /// How to print.
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "human")]
    pub output: Output,
}

/// What `status` can be told.
#[derive(Debug, Args)]
#[command(after_help = "Exit code 1 when a pipeline that is shown is not Ready.\n\n\
                        Examples:\n  kubectl spillway status\n  kubectl spillway status jobs logs -n fab12\n  \
                        kubectl spillway status -A -o json")]
pub struct StatusFlags {
    /// The pipelines to show [default: all of the namespace]
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,

    /// Every namespace, and the pipelines of the cluster.
    #[arg(short = 'A', long, conflicts_with = "names")]
    pub all_namespaces: bool,

    /// How to print.
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "human")]
    pub output: Output,
}

/// What `inject` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Rendering {
    /// The pod, for `kubectl apply -f -`.
    Json,
    /// The JSON Patch, as the webhook answers it.
    Patch,
}

/// What `inject` can be told.
#[derive(Debug, Args)]
#[command(after_help = "Exit code 1 when the pod asks for something that it is not given, which is said.\n\n\
                        Examples:\n  kubectl spillway inject -f pod.yaml --settings settings.json --operator-ca ca.crt\n  \
                        kubectl spillway inject -f pod.yaml --settings settings.json --operator-ca ca.crt \
                        --pipelines pipelines/ -o patch")]
pub struct InjectFlags {
    /// The manifest of one pod, YAML or JSON; `-` is standard input.
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub filename: PathBuf,

    /// What sidecars are made of (JSON): image, addresses, amounts.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub settings: PathBuf,

    /// The certificate authorities (PEM) by which a sidecar knows the operator: `ca.crt` of the `ConfigMap` spillway-ca.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub operator_ca: PathBuf,

    /// Manifests of the pipelines that there are: files or folders. Repeatable. [default: those of the cluster, which is asked]
    #[arg(long, value_name = "PATH", num_args = 1.., value_hint = ValueHint::AnyPath)]
    pub pipelines: Vec<PathBuf>,

    /// What to print.
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "json")]
    pub output: Rendering,
}

/// What `trace` can be told.
#[derive(Debug, Args)]
#[command(after_help = "Exit code 1 when a step is broken. What the reader may not look at is told as unknown.\n\n\
                        Examples:\n  kubectl spillway trace etcher-0 -n fab12\n  \
                        kubectl spillway trace etcher-0 --pipeline jobs -o json")]
pub struct TraceFlags {
    /// The pod
    #[arg(value_name = "POD")]
    pub pod: String,

    /// Follow this pipeline alone [default: every one that takes the pod's logs]
    #[arg(long, value_name = "NAME")]
    pub pipeline: Option<String>,

    /// The namespace of the operator and its agents
    #[arg(long, value_name = "NAME", default_value = "spillway-system")]
    pub system_namespace: String,

    /// How to print.
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "human")]
    pub output: Output,
}

/// Reads a time as kubectl does: whole seconds, or numbers with units.
fn timeout(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().map(Duration::from_secs);
    let parsed = seconds.or_else(|| text.parse::<SignedDuration>().ok()?.try_into().ok());
    parsed.filter(|timeout| *timeout <= TIMEOUT_MAX).ok_or_else(|| {
        "neither seconds nor a number with a unit (1s, 2m, 3h), at most 24 hours, and 0 for no end".to_owned()
    })
}

/// Returns the command line as clap knows it.
pub fn command() -> clap::Command {
    Cli::command()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_of_kubectl_stand_before_and_after_the_command() {
        command().debug_assert();
        for words in [["-n", "fab12", "trace", "etcher-0"], ["trace", "etcher-0", "-n", "fab12"]] {
            let cli = Cli::try_parse_from(std::iter::once(PROGRAM).chain(words)).unwrap();
            assert_eq!(cli.cluster.namespace.as_deref(), Some("fab12"));
            let Command::Trace(flags) = cli.command else { panic!("trace") };
            assert_eq!((&*flags.pod, &*flags.system_namespace), ("etcher-0", "spillway-system"));
        }
        assert!(Cli::try_parse_from([PROGRAM, "status", "-A", "jobs"]).is_err());
    }

    #[test]
    fn the_time_of_a_request_is_written_as_for_kubectl() {
        for (text, milliseconds) in [
            ("30", 30_000),
            ("30s", 30_000),
            ("2m", 120_000),
            ("1h30m", 5_400_000),
            ("1.5h", 5_400_000),
            ("300ms", 300),
            ("0", 0),
            ("0s", 0),
            ("24h", 86_400_000),
        ] {
            assert_eq!(timeout(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "-1", "-1s", "soon", "1 x", "25h", "18446744073709551615", "99999999999999999999"] {
            assert!(timeout(text).unwrap_err().contains("(1s, 2m, 3h)"), "{text}");
        }
        let cli = Cli::try_parse_from([PROGRAM, "status", "--request-timeout=30s"]).unwrap();
        assert_eq!(cli.cluster.request_timeout, Duration::from_secs(30));
        assert_eq!(Cli::try_parse_from([PROGRAM, "status"]).unwrap().cluster.request_timeout, Duration::from_secs(30));
    }

    #[test]
    fn help_has_examples_for_every_command_that_asks() {
        for name in ["check", "validate", "status", "trace", "inject"] {
            let mut command = command();
            let help = command.find_subcommand_mut(name).unwrap().render_long_help().to_string();
            assert!(help.contains("Examples:\n") && help.contains(&format!("kubectl spillway {name}")), "{help}");
        }
    }
}
