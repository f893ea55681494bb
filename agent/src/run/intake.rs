//! The sources over the pipelines that take from them, as these come, go and change.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use spillway_crds::kinds::CLUSTER;
use spillway_crds::kinds::monitoring_pipeline as manifest;
use spillway_crds::{Input, Reach};
use spillway_delivery::clock::Clock;
use spillway_delivery::intake::{Intake, Pipeline};
use spillway_delivery::settings::PipelineUid;

use super::followed::{ContainerLogs, Files, Followed};
use super::{Parts, Served};
use crate::exit::Failure;
use crate::settings::{ConfigSource, OperatorSettings, Settings};
use crate::sources::container_logs::ContainerLogsSettings;
use crate::sources::files::FilesSettings;
use crate::sources::grpc::{self, GrpcContext, GrpcSettings, GrpcStats};
use crate::sources::http::{BindError, HttpContext, HttpSettings, HttpSource, HttpStats, Paths, PodSenders};
use crate::sources::ndjson::{self, NdjsonContext, NdjsonStats, TcpSettings};
use crate::sources::pushed::own_pod::OwnPod;
use crate::sources::pushed::targets::{PushTargets, Takes};
use crate::sources::syslog::{self, MutualTls, SyslogContext, SyslogStats};
use crate::status::Listener;

/// One pipeline that runs, with what its sources need to know.
#[derive(Debug, Clone)]
pub(super) struct Opened {
    /// The pipeline.
    pub(super) pipeline: Arc<Pipeline>,
    /// The namespaces whose data it takes.
    pub(super) namespaces: Reach,
    /// Where its data comes from.
    pub(super) inputs: Vec<Input>,
}

/// The sources that run.
#[derive(Debug)]
pub(super) struct Sources {
    /// Whether manifests are anybody's, so that who sends must be known to be of a namespace.
    is_served: bool,
    http: PushTargets,
    /// What pods of this node, or the one that this sits in, may send to, and what is known of them; without an operator there
    /// are none.
    door: PushTargets,
    senders: Option<PodSenders>,
    /// A sidecar has none: those of its pod are for the agent of the node.
    logs: Option<Followed<ContainerLogs>>,
    /// Of the machine, whose files they are: manifests that an operator serves read none.
    files: Followed<Files>,
}

impl Sources {
    /// Returns sources that take nothing yet.
    pub(super) fn new(parts: &Parts, settings: &Settings, clock: &Clock, served: Option<Served>) -> Self {
        let is_served = served.is_some();
        let pods = served.as_ref().map(|served| served.pods.clone());
        let senders = served.map(|Served { pods, token_keys, .. }| PodSenders {
            keys: token_keys,
            pods,
            node: settings.node_name.clone(),
            clock: clock.clone(),
        });
        let machine = settings.pod_logs.clone().map(|root| ContainerLogsSettings {
            root,
            node: settings.node_name.clone(),
            clock: clock.clone(),
            pods,
            unknown_pods: settings.unknown_pods,
            ..ContainerLogsSettings::default()
        });
        let logs = settings.sidecar().is_none().then(|| Followed::new(ContainerLogs(machine), parts));
        let files =
            FilesSettings { node: settings.node_name.clone(), clock: clock.clone(), ..FilesSettings::default() };
        let files = Followed::new(Files((!is_served).then_some(files)), parts);
        Self { is_served, http: PushTargets::default(), door: PushTargets::default(), senders, logs, files }
    }

    /// Listens for events where the machine's settings say so.
    pub(super) async fn listen(&self, parts: &Parts, settings: &Settings, clock: &Clock) -> Result<(), Failure> {
        self.listen_for_http(parts, settings, clock).await?;
        self.listen_for_otlp(parts, settings, clock).await?;
        self.listen_for_lines(parts, settings, clock).await?;
        self.listen_for_syslog(parts, settings, clock).await?;
        let ConfigSource::Operator(OperatorSettings { door: Some(door), .. }) = &settings.configuration else {
            return Ok(());
        };
        let Some(senders) = self.senders.clone() else { return Ok(()) };
        let (context, stats) = context(parts, clock);
        let at = (door.address, &door.tls);
        let source = HttpSource::bind_for_pods(at, senders, self.door.clone(), context).await.map_err(|error| {
            Failure::failed("door-listen", error).next("name another address with --door, or `off` to do without")
        })?;
        let address = source.local_address().to_string();
        parts.overview.add_listener(Listener { name: "door".into(), address, secured: true });
        parts.overview.with_sources(|sources| sources.door = Some(stats));
        Ok(())
    }

    async fn listen_for_http(&self, parts: &Parts, settings: &Settings, clock: &Clock) -> Result<(), Failure> {
        let Some(address) = settings.http else {
            return Ok(());
        };
        let (context, stats) = context(parts, clock);
        let bound = self.bind_http(settings, (address, Paths::All), context).await;
        let address = bound.map_err(|error| match error {
            BindError::Security(_) => Failure::failed("insecure-listener", error),
            BindError::Listen { .. } => {
                Failure::failed("http-listen", error).next("name another address with --http, or `off` to do without")
            }
        })?;
        add_listener(parts, settings, "http", address);
        parts.overview.with_sources(|sources| sources.http = Some(stats));
        Ok(())
    }

    async fn bind_http(
        &self,
        settings: &Settings,
        (address, paths): (SocketAddr, Paths),
        context: HttpContext,
    ) -> Result<SocketAddr, BindError> {
        let (tls, token_file) = (settings.security.tls.clone(), settings.security.token.clone());
        let at = HttpSettings { address, paths, tls, token_file };
        let source = match self.whoever_gets_here(settings) {
            (Some(pod), targets) => HttpSource::bind_for_own_pod(at, pod, targets, context).await,
            (None, targets) => HttpSource::bind(at, targets, context).await,
        };
        Ok(source?.local_address())
    }

    /// Listens for OTLP by itself, at the ports where its clients look for it.
    async fn listen_for_otlp(&self, parts: &Parts, settings: &Settings, clock: &Clock) -> Result<(), Failure> {
        if let Some(address) = settings.otlp_http {
            let (context, stats) = context(parts, clock);
            let bound = self.bind_http(settings, (address, Paths::Otlp), context).await;
            let address = bound.map_err(|error| match error {
                BindError::Security(_) => Failure::failed("insecure-listener", error),
                BindError::Listen { .. } => Failure::failed("otlp-http-listen", error)
                    .next("name another address with --otlp-http, or `off` to do without"),
            })?;
            add_listener(parts, settings, "otlp-http", address);
            parts.overview.with_sources(|sources| sources.otlp_http = Some(stats));
        }
        let Some(address) = settings.otlp_grpc else { return Ok(()) };
        let (own_pod, targets) = self.whoever_gets_here(settings);
        let stats = Arc::<GrpcStats>::default();
        let context = GrpcContext {
            intake: Intake,
            targets,
            own_pod,
            clock: clock.clone(),
            supervisor: parts.sources.clone(),
            stats: stats.clone(),
        };
        let (tls, token_file) = (settings.security.tls.clone(), settings.security.token.clone());
        let bound = grpc::bind(GrpcSettings { address, tls, token_file }, context).await;
        let address = bound.map_err(|error| match error {
            grpc::BindError::Security(_) => Failure::failed("insecure-listener", error),
            grpc::BindError::Listen { .. } => Failure::failed("otlp-grpc-listen", error)
                .next("name another address with --otlp-grpc, or `off` to do without"),
        })?;
        add_listener(parts, settings, "otlp-grpc", address);
        parts.overview.with_sources(|sources| sources.otlp_grpc = Some(stats));
        Ok(())
    }

    async fn listen_for_lines(&self, parts: &Parts, settings: &Settings, clock: &Clock) -> Result<(), Failure> {
        let context = |name: &'static str| {
            let (own_pod, targets) = self.whoever_gets_here(settings);
            let stats = Arc::<NdjsonStats>::default();
            parts.overview.with_sources(|sources| drop(sources.lines.insert(name, stats.clone())));
            NdjsonContext {
                intake: Intake,
                targets,
                own_pod,
                clock: clock.clone(),
                supervisor: parts.sources.clone(),
                stats,
            }
        };
        if let Some(address) = settings.tcp {
            let (tls, token_file) = (settings.security.tls.clone(), settings.security.token.clone());
            let secured = tls.certificate.is_some();
            let bound = ndjson::bind_tcp(TcpSettings { address, tls, token_file }, context("tcp")).await;
            let bound = bound.map_err(|error| match error {
                ndjson::BindError::Security(_) => Failure::failed("insecure-listener", error),
                _ => {
                    Failure::failed("tcp-listen", error).next("name another address with --tcp, or `off` to do without")
                }
            })?;
            parts.overview.add_listener(Listener { name: "tcp".into(), address: bound.to_string(), secured });
        }
        if let Some(path) = &settings.unix {
            ndjson::bind_unix(path, context("unix")).await.map_err(|error| {
                Failure::failed("unix-listen", error).next("name another file with --unix, or `off` to do without")
            })?;
            let address = path.display().to_string();
            parts.overview.add_listener(Listener { name: "unix".into(), address, secured: false });
        }
        Ok(())
    }

    async fn listen_for_syslog(&self, parts: &Parts, settings: &Settings, clock: &Clock) -> Result<(), Failure> {
        let context = |name: &'static str| {
            let (own_pod, targets) = self.whoever_gets_here(settings);
            let stats = Arc::<SyslogStats>::default();
            parts.overview.with_sources(|sources| drop(sources.syslog.insert(name, stats.clone())));
            let (clock, supervisor) = (clock.clone(), parts.sources.clone());
            SyslogContext { intake: Intake, targets, own_pod, clock, supervisor, stats }
        };
        let failed = |error: syslog::BindError| match error {
            syslog::BindError::Listen { .. } => Failure::failed("syslog-listen", error)
                .next("name another address with --syslog-tcp, --syslog-tls, --syslog-udp, or `off` to do without"),
            _ => Failure::failed("insecure-listener", error),
        };
        let listens = |name: &str, address: SocketAddr, secured: bool| {
            let name = format!("syslog-{name}");
            parts.overview.add_listener(Listener { name, address: address.to_string(), secured });
        };
        if let Some(address) = settings.syslog.tcp {
            let bound = syslog::bind_tcp(address, context("tcp")).await;
            listens("tcp", bound.map_err(failed)?, false);
        }
        if let Some(address) = settings.syslog.tls {
            let security =
                MutualTls { tls: settings.security.tls.clone(), client_ca: settings.security.client_ca.clone() };
            let bound = syslog::bind_tls(address, &security, context("tls")).await;
            listens("tls", bound.map_err(failed)?, true);
        }
        if let Some(address) = settings.syslog.udp {
            let bound = syslog::bind_udp(address, context("udp")).await;
            listens("udp", bound.map_err(failed)?, false);
        }
        Ok(())
    }

    /// Returns whose whoever reaches a listener without a token is, and what it may send to.
    fn whoever_gets_here(&self, settings: &Settings) -> (Option<OwnPod>, PushTargets) {
        match self.senders.clone().filter(|_| settings.sidecar().is_some()) {
            Some(PodSenders { pods, node, .. }) => (Some(OwnPod { pods, node }), self.door.clone()),
            None => (None, self.http.clone()),
        }
    }

    /// Takes from now on for `opened` and for no other. Sources of pipelines whose inputs did not change are not touched.
    pub(super) async fn follow(&mut self, opened: &BTreeMap<PipelineUid, Opened>) {
        let taking = || opened.values().filter_map(|one| Some((one, takes(one)?)));
        let of_anybody = taking().filter(|(one, takes)| self.takes_of_anybody(&one.pipeline, takes));
        self.http.set(of_anybody.map(|(one, _)| one.pipeline.clone()).collect());
        if self.senders.is_some() {
            self.door.set_for_pods(taking().map(|(one, takes)| (one.pipeline.clone(), takes)).collect());
        }
        if let Some(logs) = &mut self.logs {
            logs.follow(opened).await;
        }
        self.files.follow(opened).await;
    }

    /// Returns whether a pipeline takes events of whoever reaches the listener of which no sender is known. Manifests that an
    /// operator serves must say so, and none of the cluster does: it takes of some namespaces and not of others.
    fn takes_of_anybody(&self, pipeline: &Pipeline, takes: &Takes) -> bool {
        !self.is_served || (takes.is_open && **pipeline.namespace() != *CLUSTER)
    }
}

/// Notes a listener that has the protection of all that take events.
fn add_listener(parts: &Parts, settings: &Settings, name: &str, address: SocketAddr) {
    let secured = settings.security.tls.certificate.is_some();
    parts.overview.add_listener(Listener { name: name.into(), address: address.to_string(), secured });
}

fn context(parts: &Parts, clock: &Clock) -> (HttpContext, Arc<HttpStats>) {
    let stats = Arc::new(HttpStats::default());
    let (clock, supervisor) = (clock.clone(), parts.sources.clone());
    (HttpContext { intake: Intake, clock, supervisor, stats: stats.clone() }, stats)
}

/// Returns which pods a pipeline takes events of; `None` where it has no such input.
fn takes(opened: &Opened) -> Option<Takes> {
    let events = || {
        opened.inputs.iter().filter_map(|input| match input {
            Input::Events(events) => Some(events),
            Input::ContainerLogs(_) | Input::Files(_) => None,
        })
    };
    let pods: Vec<_> = events().map(|events| events.pod_selector.clone()).collect();
    let is_open = events().any(|events| events.authentication == manifest::EventsAuthentication::None);
    (!pods.is_empty()).then(|| Takes { namespaces: opened.namespaces.clone(), pods, is_open })
}
