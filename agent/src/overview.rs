//! What the process is and does now: written by `run`, read by the admin endpoint, by nobody else.
//!
//! Figures are not kept here; they are read from the engine and the sources at the moment someone asks.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use spillway_delivery::clock::{Clock, UnixNanos};
use spillway_delivery::deliver::{Desk, Engine};
use spillway_delivery::supervisor::Supervisor;
use tokio::time::Instant;

use crate::config::state::ConfigReport;
use crate::sources::grpc::GrpcStats;
use crate::sources::http::HttpStats;
use crate::sources::ndjson::{Figure, NdjsonStats};
use crate::sources::pushed::tally::{Listed, Named, Tally};
use crate::sources::syslog::{self, SyslogStats};
use crate::sources::tail::TailStats;
use crate::status::{Excluded, Listener, Phase, Source, StatusReport};

/// How often the runtime shows that it makes progress.
const BEAT: Duration = Duration::from_secs(1);
/// How old the last beat may be before the process counts as stuck: ten missed beats, so that a busy machine is not
/// taken for a dead one.
const BEAT_AGE_MAX: Duration = Duration::from_secs(10);

/// What the process is and does now.
#[derive(Debug)]
pub struct Overview {
    engine: Arc<Engine>,
    clock: Clock,
    started: UnixNanos,
    epoch: Instant,
    beat_ms: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    listeners: Vec<Listener>,
    excluded: Vec<Excluded>,
    config: ConfigReport,
    sources: SourceStats,
}

/// The counters of the sources that run.
#[derive(Debug, Clone, Default)]
pub struct SourceStats {
    /// Of the HTTP source.
    pub http: Option<Arc<HttpStats>>,
    /// Of the listener for OTLP alone over HTTP.
    pub otlp_http: Option<Arc<HttpStats>>,
    /// Of OTLP over gRPC.
    pub otlp_grpc: Option<Arc<GrpcStats>>,
    /// Of the lines over TCP and Unix sockets, by the name of the listener.
    pub lines: BTreeMap<&'static str, Arc<NdjsonStats>>,
    /// Of syslog, by the name of the listener.
    pub syslog: BTreeMap<&'static str, Arc<SyslogStats>>,
    /// Of the door for pods.
    pub door: Option<Arc<HttpStats>>,
    /// Of the container logs.
    pub container_logs: Option<Arc<TailStats>>,
    /// Of the files.
    pub files: Option<Arc<TailStats>>,
}

impl Overview {
    /// Returns the overview of a process that is starting.
    pub fn new(engine: Arc<Engine>, clock: Clock) -> Self {
        let state = State {
            phase: Phase::Starting,
            listeners: Vec::new(),
            excluded: Vec::new(),
            config: ConfigReport::default(),
            sources: SourceStats::default(),
        };
        let started = clock.now();
        Self { engine, clock, started, epoch: Instant::now(), beat_ms: AtomicU64::new(0), state: Mutex::new(state) }
    }

    /// Beats until `owner` stops: shows that the runtime makes progress.
    pub fn beat(self: &Arc<Self>, owner: &Supervisor) {
        let (overview, stopping) = (self.clone(), owner.stopping());
        owner.spawn("heartbeat", async move {
            let mut ticks = tokio::time::interval(BEAT);
            while stopping.run_until_cancelled(ticks.tick()).await.is_some() {
                overview.beat_ms.store(overview.now_ms(), Ordering::Relaxed);
            }
        });
    }

    /// Returns how long ago the runtime last showed progress, and whether that is recent enough.
    pub fn alive(&self) -> (Duration, bool) {
        let age = Duration::from_millis(self.now_ms().saturating_sub(self.beat_ms.load(Ordering::Relaxed)));
        (age, age <= BEAT_AGE_MAX)
    }

    /// Returns why the agent is not ready; empty when it is.
    pub fn not_ready(&self) -> Vec<String> {
        self.state().not_ready()
    }

    /// Moves on to `phase`.
    pub fn enter(&self, phase: Phase) {
        self.state().phase = phase;
    }

    /// Notes a bound listener.
    pub fn add_listener(&self, listener: Listener) {
        self.state().listeners.push(listener);
    }

    /// Returns the bound listeners.
    pub fn listeners(&self) -> Vec<Listener> {
        self.state().listeners.clone()
    }

    /// Returns how many manifests are not run.
    pub fn excluded_count(&self) -> usize {
        self.state().excluded.len()
    }

    /// Returns the manifests that are not run as they are.
    pub fn excluded(&self) -> Vec<Excluded> {
        self.state().excluded.clone()
    }

    /// Notes which manifests are not run as they are.
    pub fn set_excluded(&self, excluded: Vec<Excluded>) {
        self.state().excluded = excluded;
    }

    /// Changes what became of the configuration.
    pub fn with_config<T>(&self, change: impl FnOnce(&mut ConfigReport) -> T) -> T {
        change(&mut self.state().config)
    }

    /// Changes which sources run.
    pub fn with_sources(&self, change: impl FnOnce(&mut SourceStats)) {
        change(&mut self.state().sources);
    }

    /// Returns the counters of the sources.
    pub fn sources(&self) -> SourceStats {
        self.state().sources.clone()
    }

    /// Returns what may be asked of each pipeline besides its figures.
    pub fn desks(&self) -> Vec<Arc<Desk>> {
        self.engine.desks()
    }

    /// Returns everything at this moment.
    pub fn report(&self) -> StatusReport {
        let pipelines = self.engine.reports();
        let state = self.state();
        StatusReport {
            version: env!("CARGO_PKG_VERSION").into(),
            agent_id: self.engine.agent_id().to_string(),
            started: self.started,
            now: self.clock.now(),
            phase: state.phase,
            not_ready: state.not_ready(),
            listeners: state.listeners.clone(),
            pipelines,
            config: state.config.clone(),
            excluded: state.excluded.clone(),
            unclaimed_logs: self.engine.unclaimed(),
            sources: state.sources.report(),
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// A panic while it was held leaves plain data that is still whole.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn not_ready(&self) -> Vec<String> {
        match self.phase {
            Phase::Starting => vec!["logs are being opened and listeners bound".into()],
            Phase::Running if self.config.served.as_ref().is_some_and(|served| !served.is_settled) => {
                vec!["the operator has not served a configuration yet, and none is stored".into()]
            }
            Phase::Running => Vec::new(),
            Phase::Draining => vec!["the agent was told to stop and delivers what it holds".into()],
        }
    }
}

impl SourceStats {
    fn report(&self) -> Vec<Source> {
        let container_logs = self.container_logs.iter().map(|stats| container_log_source(stats));
        let files = self.files.iter().map(|stats| file_source(stats));
        let http = self.http.iter().map(|stats| http_source("http", stats));
        let http = http.chain(self.otlp_http.iter().map(|stats| http_source("otlp-http", stats)));
        let http = http.chain(self.otlp_grpc.iter().map(|stats| grpc_source(stats)));
        let http = http.chain(self.lines.iter().map(|(name, stats)| line_source(name, stats)));
        let http = http.chain(self.syslog.iter().map(|(name, stats)| syslog_source(name, stats)));
        http.chain(self.door.iter().map(|stats| http_source("door", stats)))
            .chain(container_logs)
            .chain(files)
            .collect()
    }
}

fn http_source(name: &str, stats: &HttpStats) -> Source {
    let mut counts = BTreeMap::from([
        ("accepted events".into(), stats.accepted_events()),
        ("connections".into(), stats.connections()),
        ("requests".into(), stats.requests().map(|(_, requests)| requests).sum()),
    ]);
    counts.extend(stats.refused_events().map(|(code, events)| (format!("refused events ({code})"), events)));
    counts.extend(stats.limits().map(|(limit, times)| (format!("limit hit ({limit})"), times)));
    counts.extend(stats.senders_turned_back().into_iter().map(|(reason, n)| (format!("turned back ({reason})"), n)));
    Source { name: name.into(), counts }
}

fn grpc_source(stats: &GrpcStats) -> Source {
    let http = stats.of_http();
    let mut counts = BTreeMap::from([
        ("accepted events".into(), http.accepted_events()),
        ("connections".into(), http.connections()),
        ("calls".into(), stats.calls().map(|(_, calls)| calls).sum()),
    ]);
    counts.extend(stats.calls().filter(|(_, n)| *n > 0).map(|(code, calls)| (format!("calls ({code})"), calls)));
    counts.extend(http.refused_events().map(|(code, events)| (format!("refused events ({code})"), events)));
    counts.extend(stats.limits().map(|(limit, times)| (format!("limit hit ({limit})"), times)));
    Source { name: "otlp-grpc".into(), counts }
}

fn line_source(name: &str, stats: &NdjsonStats) -> Source {
    let figures = [
        ("connections", Figure::Connections),
        ("connections that wait", Figure::WaitingConnections),
        ("batches", Figure::Batches),
        ("accepted events", Figure::AcceptedEvents),
        ("lost events", Figure::LostEvents),
        ("cut lines", Figure::CutLines),
    ];
    Source { name: name.into(), counts: counts_of(stats, &figures, "refused events") }
}

fn syslog_source(name: &str, stats: &SyslogStats) -> Source {
    use syslog::Figure;
    let figures = [
        ("connections", Figure::Connections),
        ("datagrams", Figure::Datagrams),
        ("datagrams dropped by the kernel", Figure::KernelDrops),
        ("senders that wait", Figure::WaitingSenders),
        ("batches", Figure::Batches),
        ("accepted events", Figure::AcceptedEvents),
        ("lost events", Figure::LostEvents),
    ];
    Source { name: format!("syslog-{name}"), counts: counts_of(stats, &figures, "malformed events") }
}

/// Returns what a listener counts, each under what it is; of the kinds of events under `kind`.
fn counts_of<F: Listed, L: Named, K: Named>(
    stats: &Tally<F, L, K>,
    figures: &[(&str, F)],
    kind: &str,
) -> BTreeMap<String, u64> {
    let figures = figures.iter().map(|(what, figure)| ((*what).to_owned(), stats.figure(*figure)));
    let kinds = stats.kinds().map(|(name, events)| (format!("{kind} ({name})"), events));
    let limits = stats.limits().map(|(limit, times)| (format!("limit hit ({limit})"), times));
    let refusals = stats.refusals().into_iter().map(|(code, times)| (format!("refused ({code})"), times));
    figures.chain(kinds).chain(limits).chain(refusals).collect()
}

fn container_log_source(stats: &TailStats) -> Source {
    let counts = [
        ("containers", &stats.units),
        ("containers held until their pod is known", &stats.held_units),
        ("open files", &stats.open_files),
        ("lines", &stats.lines),
        ("malformed lines", &stats.malformed),
        ("lines split", &stats.split_lines),
        ("truncated files", &stats.truncated),
        ("rotated files", &stats.rotated),
        ("missed files", &stats.missed_files),
        ("missed bytes", &stats.missed_bytes),
        ("lost tail bytes", &stats.lost_tail_bytes),
        ("read errors", &stats.read_errors),
        ("refused entries", &stats.refused_entries),
        ("refused batches", &stats.refusals),
    ];
    let counts = counts.map(|(what, counter)| (what.into(), counter.load(Ordering::Relaxed)));
    Source { name: "containerLogs".into(), counts: counts.into() }
}

fn file_source(stats: &TailStats) -> Source {
    let counts = [
        ("files", &stats.units),
        ("files left out", &stats.left_out_files),
        ("open files", &stats.open_files),
        ("lines", &stats.lines),
        ("lines split", &stats.split_lines),
        ("truncated files", &stats.truncated),
        ("renamed files", &stats.rotated),
        ("missed files", &stats.missed_files),
        ("missed bytes", &stats.missed_bytes),
        ("lost tail bytes", &stats.lost_tail_bytes),
        ("read errors", &stats.read_errors),
        ("refused entries", &stats.refused_entries),
        ("refused batches", &stats.refusals),
    ];
    let counts = counts.map(|(what, counter)| (what.into(), counter.load(Ordering::Relaxed)));
    Source { name: "files".into(), counts: counts.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::state::ServedReport;
    use spillway_delivery::deliver::EngineSettings;
    use spillway_delivery::filesystem::RealFs;

    fn overview(dir: &tempfile::TempDir) -> Arc<Overview> {
        let settings = EngineSettings {
            data_dir: dir.path().into(),
            filesystem: Arc::new(RealFs),
            clock: Clock::manual(7_000_000_000),
            free_bytes_min: 0,
        };
        let engine = Engine::open(settings).unwrap();
        Arc::new(Overview::new(Arc::new(engine), Clock::manual(7_000_000_000)))
    }

    #[tokio::test(start_paused = true)]
    async fn a_runtime_without_beats_is_not_alive() {
        let dir = tempfile::tempdir().unwrap();
        let overview = overview(&dir);
        let owner = Supervisor::new("test");
        overview.beat(&owner);
        tokio::time::advance(Duration::from_mins(1)).await;
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert!(overview.alive().1);
        assert!(owner.stop(Instant::now() + Duration::from_secs(1)).await);
        tokio::time::advance(BEAT_AGE_MAX + BEAT * 2).await;
        assert!(!overview.alive().1);
    }

    #[tokio::test]
    async fn only_a_running_agent_is_ready() {
        let dir = tempfile::tempdir().unwrap();
        let overview = overview(&dir);
        assert_eq!(overview.not_ready().len(), 1);
        overview.enter(Phase::Running);
        assert!(overview.not_ready().is_empty());
        overview.with_config(|config| config.served = Some(ServedReport::default()));
        assert!(overview.not_ready()[0].contains("has not served a configuration"));
        overview.with_config(|config| config.served.iter_mut().for_each(|served| served.is_settled = true));
        assert!(overview.not_ready().is_empty());
        overview.enter(Phase::Draining);
        assert_eq!(overview.report().not_ready.len(), 1);
    }
}
