//! `run`: settle, compile, open, announce, run, drain.
//!
//! Manifests of files are compiled first, and without a good pipeline the process does not start. With an operator it starts
//! with what was served last, or with nothing, and waits.
//!
//! # Drain
//! The first signal: `/readyz` says no, sources stop (what is under way is answered), intake refuses, deliveries go on
//! until nothing is held or `--drain-seconds` are over, logs are synced and cursors committed, and the admin endpoint
//! goes last. What is still held stays in the log and is delivered after the next start; a sidecar has none, and hands it to
//! the agent of its node (`hand_over`). A second signal cuts the waiting
//! short: sources are cut off, what only memory holds (durability `Memory`) is written and logs are closed, within
//! [`CUT_SHORT_MAX`]. A third one ends the process at once, and then what only memory holds is lost. So does a task that
//! panicked: the process ends with 70, and its supervisor starts it anew over the same log.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, anyhow};
use spillway_crds::standalone;
use spillway_delivery::clock::Clock;
use spillway_delivery::deliver::{CUT_SHORT_MAX, Engine, EngineSettings};
use spillway_delivery::filesystem::{BoundedFs, RealFs};
use spillway_delivery::supervisor::Supervisor;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::cli::{FromEnvironment, RunFlags};
use crate::config::manifests::{Manifests, Read};
use crate::config::served::secrets::ServedSecrets;
use crate::exit::{self, Failure};
use crate::overview::Overview;
use crate::pods::{PodsReceiver, TokenKeysReceiver};
use crate::settings::{ConfigFile, ConfigSource, Machine, OperatorSettings, Settings};
use crate::sources::pushed::security::ListenerSecurity;
use crate::status::{Listener, Phase};
use crate::{admin, logging};

mod feed;
mod followed;
mod hand_over;
mod intake;
mod live;
mod node_agent;
mod operator;
mod pipelines;
mod signals;
mod workshop;

use feed::Feed;
use live::Live;
use operator::Taking;
use pipelines::Binder;
use signals::{Signals, Stop};

/// How long sources may answer what is under way once told to stop; part of the drain.
const SOURCES_STOP: Duration = Duration::from_secs(5);
/// How long the parts of a process that could not start may take to stop.
const START_FAILED_DRAIN: Duration = Duration::from_secs(1);
/// How long the admin endpoint may answer at the very end.
const ADMIN_STOP: Duration = Duration::from_secs(1);
/// Most deliveries that the line at the end names.
const NAMED_MAX: usize = 8;
/// How long blocking calls of an ended process may go on: a sync of the volume at most.
const RUNTIME_STOP: Duration = Duration::from_secs(2);

/// Runs the agent until a signal ends it.
pub fn run(flags: &RunFlags, from_environment: &FromEnvironment) -> Result<ExitCode, Failure> {
    let settings = settle(flags, from_environment)?;
    logging::start(&settings.logging);
    let origin = match &settings.configuration {
        ConfigSource::Files(paths) => {
            let mut manifests = Manifests::new(paths.clone());
            let read = compile(paths, &mut manifests)?;
            Origin::Files(Box::new((manifests, read)))
        }
        ConfigSource::Operator(operator) => Origin::Operator(operator.clone()),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(settings.threads)
        .thread_name("spillway")
        .enable_all()
        .build()
        .map_err(|error| Failure::failed("runtime", anyhow::Error::new(error).context("threads cannot be started")))?;
    let end = runtime.block_on(live(&settings, origin));
    runtime.shutdown_timeout(RUNTIME_STOP);
    end
}

fn settle(flags: &RunFlags, from_environment: &FromEnvironment) -> Result<Settings, Failure> {
    let file = flags.config.as_deref().map(ConfigFile::read).transpose();
    let settled =
        file.and_then(|file| Settings::settle(flags, from_environment, &file.unwrap_or_default(), &Machine::read()));
    settled.map_err(|error| Failure::usage(error.code(), error))
}

/// Compiles the manifests. Bad ones are told and left out; without a good pipeline there is nothing to run.
fn compile(paths: &[PathBuf], manifests: &mut Manifests) -> Result<Read, Failure> {
    let read = manifests.first();
    let compiled = &read.compiled;
    if let Some(nothing) = standalone::nothing_to_run(compiled) {
        for error in &compiled.errors {
            exit::to_stderr(&format!("error[manifest]: {error}\n"));
        }
        let paths: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
        let error = anyhow!("{}: {nothing}", paths.join(", "));
        return Err(Failure::failed("no-pipeline", error).next("correct what `spillway-agent check -f PATH` tells"));
    }
    for warning in &compiled.warnings {
        tracing::warn!(%warning, "manifest");
    }
    Ok(read)
}

/// Where configuration comes from, as far as it is there before anything is open.
enum Origin {
    /// Manifests, and what they say.
    Files(Box<(Manifests, Read)>),
    /// An operator.
    Operator(OperatorSettings),
}

/// What an operator serves besides manifests.
#[derive(Debug, Clone)]
struct Served {
    secrets: ServedSecrets,
    pods: PodsReceiver,
    token_keys: TokenKeysReceiver,
    /// The authorities that it tells of, in PEM.
    trusted: watch::Receiver<String>,
}

/// The parts of the process, in the order they are stopped.
struct Parts {
    configuration: Supervisor,
    sources: Supervisor,
    engine: Arc<Engine>,
    admin: Supervisor,
    overview: Arc<Overview>,
    /// What hands over what is held at the end; a sidecar has it.
    hands_over: OnceLock<Binder>,
    /// Cancelled when the end shall not wait any longer.
    cut: CancellationToken,
}

async fn live(settings: &Settings, origin: Origin) -> Result<ExitCode, Failure> {
    let signals = Signals::take().context("signals cannot be taken").map_err(|error| Failure::failed("signals", error));
    let mut signals = signals?;
    let clock = Clock::system();
    let parts = open(settings, &clock)?;
    let started = tokio::select! {
        started = start(&parts, settings, &clock, origin) => started.map(|()| None),
        stop = signals.next() => Ok(Some(stop)),
        () = parts.panicked() => Ok(None),
    };
    let stop = match started {
        Err(failure) => {
            parts.drain(START_FAILED_DRAIN).await;
            return Err(failure);
        }
        Ok(Some(stop)) => Some(stop),
        Ok(None) => tokio::select! {
            stop = signals.next() => Some(stop),
            () = parts.panicked() => None,
        },
    };
    let Some(stop) = stop else {
        return Ok(panicked());
    };
    tracing::info!(
        signal = stop.name(),
        at_most_seconds = settings.drain.as_secs(),
        waits_for = named(&parts.engine.undrained()),
        hint =
            "deliveries go on until nothing is held; a second signal ends that wait, and what is held stays in the log",
        "stopping"
    );
    Ok(end(&parts, settings.drain, signals).await)
}

/// Drains for as long as the signals let it.
async fn end(parts: &Parts, within: Duration, mut signals: Signals) -> ExitCode {
    let drain = parts.drain(within);
    tokio::pin!(drain);
    let second = tokio::select! {
        empty = &mut drain => return stopped(empty, ExitCode::SUCCESS),
        () = parts.panicked() => return panicked(),
        second = signals.next() => second,
    };
    tracing::warn!(
        signal = second.name(),
        at_most_seconds = CUT_SHORT_MAX.as_secs(),
        "second signal, the drain is cut short; what is held is written to the log and stays there; another signal ends at once"
    );
    parts.cut_short();
    let code = ExitCode::from(second.exit_code());
    tokio::select! {
        empty = drain => stopped(empty, code),
        () = parts.panicked() => panicked(),
        third = signals.next() => ended_at_once(third),
    }
}

/// Returns the first few of `deliveries`, and how many more there are.
fn named(deliveries: &[String]) -> String {
    let first = deliveries.iter().take(NAMED_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
    match deliveries.len().saturating_sub(NAMED_MAX) {
        0 if first.is_empty() => "nothing".into(),
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

fn stopped(empty: bool, code: ExitCode) -> ExitCode {
    tracing::info!(held = !empty, "stopped");
    code
}

fn panicked() -> ExitCode {
    tracing::error!(
        "a task panicked, the process ends; what was acknowledged is in the log, unless only memory held it"
    );
    ExitCode::from(exit::PANICKED)
}

fn ended_at_once(signal: Stop) -> ExitCode {
    tracing::warn!(
        signal = signal.name(),
        "third signal, the process ends at once; what is held stays in the log, unless only memory held it"
    );
    ExitCode::from(signal.exit_code())
}

/// Takes the data directory. The first thing that can collide with another agent, and the clearest to say.
fn open(settings: &Settings, clock: &Clock) -> Result<Parts, Failure> {
    let engine = EngineSettings {
        data_dir: settings.data_dir.clone(),
        filesystem: match settings.data_bytes_max {
            Some(bytes_max) => Arc::new(BoundedFs::new(settings.data_dir.clone(), bytes_max)),
            None => Arc::new(RealFs),
        },
        clock: clock.clone(),
        free_bytes_min: settings.free_bytes_min,
    };
    let next = "name a directory of this agent alone, which it may write, with --data-dir";
    let engine = Engine::open(engine).map_err(|error| Failure::failed("data-dir", error).next(next))?;
    let engine = Arc::new(engine);
    let overview = Arc::new(Overview::new(engine.clone(), clock.clone()));
    Ok(Parts {
        configuration: Supervisor::new("configuration"),
        sources: Supervisor::new("sources"),
        engine,
        admin: Supervisor::new("admin"),
        overview,
        hands_over: OnceLock::new(),
        cut: CancellationToken::new(),
    })
}

async fn start(parts: &Parts, settings: &Settings, clock: &Clock, origin: Origin) -> Result<(), Failure> {
    // From here on it is a call to read the manifests again; before, it would end the process.
    let hangup =
        signals::hangup().context("signals cannot be taken").map_err(|error| Failure::failed("signals", error))?;
    start_admin(parts, settings).await?;
    let needs_pipeline = matches!(origin, Origin::Files(_));
    let (feed, served) = match origin {
        Origin::Files(files) => (Feed::files(files.0, files.1, hangup), None),
        Origin::Operator(operator) => {
            let (pods, of_pods) = watch::channel(None);
            let (token_keys, of_keys) = watch::channel(None);
            let (trusted, of_trusted) = watch::channel(String::new());
            let secrets = ServedSecrets::default();
            let taking = Taking { secrets: secrets.clone(), pods, token_keys, trusted };
            let follower = operator::follower(parts, settings, &operator, (clock, taking))?;
            let served = Served { secrets, pods: of_pods, token_keys: of_keys, trusted: of_trusted };
            (Feed::operator(follower, hangup), Some(served))
        }
    };
    let mut live = Live::new(parts, settings, clock, (feed, served));
    if settings.sidecar().is_some() {
        parts.hands_over.get_or_init(|| live.binder().clone());
    }
    live.start(needs_pipeline).await?;
    live.sources().listen(parts, settings, clock).await?;
    parts.overview.enter(Phase::Running);
    announce(parts, settings, live.pipelines(), live.backends());
    for log in parts.engine.unclaimed() {
        tracing::warn!(
            log = log.name,
            bytes = log.bytes,
            "no pipeline claims this log; it is kept, and delivered when its manifest is back (`log inspect` reads it)"
        );
    }
    parts.configuration.spawn("configuration", live.follow(parts.configuration.stopping()));
    Ok(())
}

async fn start_admin(parts: &Parts, settings: &Settings) -> Result<(), Failure> {
    parts.overview.beat(&parts.admin);
    if let Some(address) = settings.metrics {
        let address = admin::serve_figures(address, parts.overview.clone(), &parts.admin).await.map_err(|error| {
            Failure::failed("metrics-listen", error).next("name another address with --metrics, or `off` to do without")
        })?;
        parts.overview.add_listener(Listener { name: "metrics".into(), address: address.to_string(), secured: false });
    }
    let Some(address) = settings.admin else {
        return Ok(());
    };
    let files = &settings.security;
    let security = ListenerSecurity::check(address, &files.tls, files.token.as_deref())
        .context("admin endpoint is not protected as it must be")
        .map_err(|error| Failure::failed("insecure-listener", error))?;
    let secured = security.tls().is_some();
    let address = admin::serve(address, security, parts.overview.clone(), &parts.admin).await.map_err(|error| {
        Failure::failed("admin-listen", error).next("name another address with --admin, or `off` to do without")
    })?;
    parts.overview.add_listener(Listener { name: "admin".into(), address: address.to_string(), secured });
    Ok(())
}

fn announce(parts: &Parts, settings: &Settings, pipelines: usize, backends: usize) {
    let listeners = parts.overview.listeners();
    let address = |name: &str| {
        let found = listeners.iter().find(|listener| listener.name == name);
        found.map_or("off".into(), |listener| listener.address.clone())
    };
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        agent = %parts.engine.agent_id(),
        http = address("http"),
        otlp_http = address("otlp-http"),
        otlp_grpc = address("otlp-grpc"),
        tcp = address("tcp"),
        unix = address("unix"),
        syslog_tcp = address("syslog-tcp"),
        syslog_tls = address("syslog-tls"),
        syslog_udp = address("syslog-udp"),
        door = address("door"),
        admin = address("admin"),
        metrics = address("metrics"),
        data_dir = %settings.data_dir.display(),
        filesystem_root = %settings.filesystem_root.display(),
        pod_logs = %settings.pod_logs.as_deref().map_or("off".into(), |dir| dir.display().to_string()),
        pipelines,
        backends,
        excluded = parts.overview.excluded_count(),
        "ready"
    );
}

impl Parts {
    /// Resolves when a task of any part has panicked.
    async fn panicked(&self) {
        let [logs, deliveries] = self.engine.failed();
        let (sources, admin) = (self.sources.failed(), self.admin.failed());
        let configuration = self.configuration.failed();
        tokio::select! {
            () = configuration.cancelled() => {}
            () = sources.cancelled() => {}
            () = logs.cancelled() => {}
            () = deliveries.cancelled() => {}
            () = admin.cancelled() => {}
        }
    }

    /// Stops the parts in the order of the flow. Returns whether nothing was held at the end.
    async fn drain(&self, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        self.overview.enter(Phase::Draining);
        if !self.configuration.stop_by(self.over(deadline.min(Instant::now() + SOURCES_STOP))).await {
            tracing::warn!("a change of the configuration was cut off");
        }
        if !self.sources.stop_by(self.over(deadline.min(Instant::now() + SOURCES_STOP))).await {
            tracing::warn!("sources did not stop in time and were cut off");
        }
        let hands_over = self.hands_over.get();
        if let Some(binder) = hands_over {
            let handing = hand_over::run(&self.engine, binder, deadline);
            self.cut.run_until_cancelled(handing).await;
        }
        let empty = self.engine.drain(deadline).await;
        if hands_over.is_some() {
            hand_over::tell_lost(&self.engine);
        }
        // Connections under way are scrapes; one that is cut off is repeated.
        self.admin.stop_by(self.over(Instant::now() + ADMIN_STOP)).await;
        empty
    }

    /// Makes a drain that is under way wait no longer; it closes the logs and ends within [`CUT_SHORT_MAX`].
    fn cut_short(&self) {
        self.cut.cancel();
        self.engine.cut_short();
    }

    /// Resolves at `deadline`, or once the drain is cut short.
    async fn over(&self, deadline: Instant) {
        tokio::select! {
            () = tokio::time::sleep_until(deadline) => {}
            () = self.cut.cancelled() => {}
        }
    }
}

#[cfg(test)]
mod tests;
