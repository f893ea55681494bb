//! What a delivery tells of itself.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::reasons::Reasons;
use super::standing::Standing;
use crate::backend::{Fault, FaultKind};
use crate::clock::Clock;
use crate::ledger::{BreakerReport, BreakerState, DeliveryReport, DeliveryState};
use crate::log::{Census, DeliveryKey, Log, Progress, ReadError};

/// How often a report is made anew, at most, until progress and log agree.
const LOOKS_MAX: usize = 5;

/// What a delivery tells of itself; shared with whoever asks.
#[derive(Debug)]
pub struct DeliveryStatus {
    key: DeliveryKey,
    backend: Arc<str>,
    clock: Clock,
    figures: Mutex<Figures>,
    /// Its reference is gone and everything is resolved; shown for what it dropped.
    ended: AtomicBool,
}

#[derive(Debug)]
struct Figures {
    /// What the state is when nothing is wrong.
    faultless: DeliveryState,
    backend_type: Arc<str>,
    state: DeliveryState,
    since: i64,
    /// Whether its backend has failed since it took something last.
    fails: bool,
    breaker: BreakerReport,
    /// What is reported as resolved: durable for backends that commit, the latest for others.
    progress: Progress,
    saved_cursor: u64,
    attempts: u64,
    faults: BTreeMap<&'static str, u64>,
    delivered_bytes: u64,
    in_flight: u64,
    in_flight_limit: u64,
    late: u64,
    unknown_batches: u64,
    rejections: Reasons,
    last_fault: Option<FaultKind>,
    last_error: Option<String>,
}

impl DeliveryStatus {
    pub(super) fn new(spec: &super::DeliverySpec, progress: Progress, state: DeliveryState, clock: Clock) -> Arc<Self> {
        let since = clock.now();
        Arc::new(Self {
            key: DeliveryKey { route: spec.route.clone(), backend_uid: spec.backend_uid.clone() },
            backend: spec.backend_name.clone(),
            clock,
            ended: AtomicBool::new(false),
            figures: Mutex::new(Figures {
                faultless: state,
                backend_type: spec.backend_type.clone(),
                state,
                since,
                fails: false,
                breaker: BreakerReport { since, ..BreakerReport::default() },
                saved_cursor: progress.cursor,
                progress,
                attempts: 0,
                faults: BTreeMap::new(),
                delivered_bytes: 0,
                in_flight: 0,
                in_flight_limit: 1,
                late: 0,
                unknown_batches: 0,
                rejections: Reasons::default(),
                last_fault: None,
                last_error: None,
            }),
        })
    }

    fn figures(&self) -> MutexGuard<'_, Figures> {
        self.figures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns which delivery this is.
    pub(crate) fn key(&self) -> &DeliveryKey {
        &self.key
    }

    /// Returns the backend as the route names it.
    pub(crate) fn backend_name(&self) -> &str {
        &self.backend
    }

    /// Takes note of what kind of backend it has now.
    pub(super) fn bind(&self, spec: &super::DeliverySpec) {
        self.figures().backend_type.clone_from(&spec.backend_type);
    }

    /// Goes over to another task, whose state without a fault is `state`. Where its breaker does not begin closed the fault
    /// before still counts: it is not told again.
    pub(super) fn enter(&self, state: DeliveryState, breaker: BreakerState) {
        self.breaker(breaker);
        let mut figures = self.figures();
        let is_well = breaker == BreakerState::Closed;
        figures.faultless = state;
        figures.fails &= !is_well;
        let retries = !is_well && state == DeliveryState::Healthy;
        self.change(&mut figures, if retries { DeliveryState::Retrying } else { state });
    }

    /// Returns whether events were given up.
    pub(super) fn has_dropped(&self) -> bool {
        !self.figures().progress.dropped.is_empty()
    }

    /// Notes that nothing will come any more.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    /// Returns whether nothing will come any more.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// Shows progress that may be told.
    pub(super) fn show(&self, progress: &Progress) {
        self.figures().progress.clone_from(progress);
    }

    pub(super) fn saved(&self, cursor: u64) {
        self.figures().saved_cursor = cursor;
    }

    pub(crate) fn saved_cursor(&self) -> u64 {
        self.figures().saved_cursor
    }

    pub(super) fn attempt(&self, in_flight: usize, in_flight_limit: usize) {
        let mut figures = self.figures();
        figures.attempts += 1;
        figures.in_flight = in_flight as u64;
        figures.in_flight_limit = in_flight_limit as u64;
    }

    pub(super) fn landed(&self, in_flight: usize, in_flight_limit: usize) {
        let mut figures = self.figures();
        figures.in_flight = in_flight as u64;
        figures.in_flight_limit = in_flight_limit as u64;
    }

    /// Counts the bytes of events that it is shown to have delivered.
    pub(super) fn delivered(&self, bytes: u64) {
        self.figures().delivered_bytes += bytes;
    }

    /// Notes events that the backend has and that were given up before it said so.
    pub(super) fn late(&self, events: u64) {
        self.figures().late += events;
    }

    /// Notes batches that may have been taken, and go again under another key.
    pub(super) fn unknown(&self, batches: u64) {
        self.figures().unknown_batches += batches;
    }

    /// Returns how it stands, for the pipeline that is named.
    pub(crate) fn standing(&self, namespace: &Arc<str>, pipeline: &Arc<str>) -> Standing {
        let figures = self.figures();
        Standing {
            namespace: namespace.clone(),
            pipeline: pipeline.clone(),
            route: self.key.route.clone(),
            backend_uid: self.key.backend_uid.clone(),
            state: figures.state,
            since: figures.since,
            breaker: figures.breaker.state,
            fault: figures.last_fault,
            last_error: figures.last_error.clone(),
        }
    }

    /// Returns the lowest event that is not resolved.
    pub(crate) fn cursor(&self) -> u64 {
        self.figures().progress.cursor
    }

    /// Notes an event that went to the dead letters, and why.
    pub(super) fn rejected(&self, reason: &str) {
        self.figures().rejections.count(reason);
    }

    /// Notes that progress could not be saved; deliveries go on.
    pub(super) fn unsaved(&self, error: &str) {
        let mut figures = self.figures();
        figures.last_fault = Some(FaultKind::Local);
        figures.last_error = Some(error.to_owned());
    }

    /// Notes a fault and returns whether that is the first since the last success. One that drains goes on draining.
    pub(super) fn failed(&self, fault: &Fault) -> bool {
        let mut figures = self.figures();
        *figures.faults.entry(fault.kind.as_str()).or_default() += 1;
        figures.last_fault = Some(fault.kind);
        figures.last_error = Some(fault.to_string());
        if figures.faultless != DeliveryState::Draining {
            self.change(&mut figures, DeliveryState::Retrying);
        }
        !std::mem::replace(&mut figures.fails, true)
    }

    /// Notes that some events were left behind while others were taken.
    pub(super) fn left(&self, fault: &Fault) {
        let mut figures = self.figures();
        *figures.faults.entry(fault.kind.as_str()).or_default() += 1;
        figures.last_fault = Some(fault.kind);
        figures.last_error = Some(fault.to_string());
    }

    /// Shows where the breaker stands and returns whether that is a change.
    pub(super) fn breaker(&self, state: BreakerState) -> bool {
        let mut figures = self.figures();
        if figures.breaker.state == state {
            return false;
        }
        figures.breaker.state = state;
        figures.breaker.since = self.clock.now();
        *figures.breaker.changes.entry(state.as_str().to_owned()).or_default() += 1;
        true
    }

    /// Notes whether it stands by because a better backend of its route is healthy.
    pub(super) fn stand(&self, by: bool) {
        let mut figures = self.figures();
        let faultless = if by { DeliveryState::Standby } else { DeliveryState::Healthy };
        if !matches!(figures.faultless, DeliveryState::Healthy | DeliveryState::Standby)
            || figures.faultless == faultless
        {
            return;
        }
        figures.faultless = faultless;
        let is_well = figures.breaker.state == BreakerState::Closed;
        self.change(&mut figures, if by || is_well { faultless } else { DeliveryState::Retrying });
    }

    /// Notes a success and returns whether that is the first since the last fault.
    pub(super) fn succeeded(&self) -> bool {
        let mut figures = self.figures();
        let faultless = figures.faultless;
        self.change(&mut figures, faultless);
        std::mem::take(&mut figures.fails)
    }

    fn change(&self, figures: &mut Figures, state: DeliveryState) -> bool {
        let changed = figures.state != state;
        if changed {
            figures.state = state;
            figures.since = self.clock.now();
        }
        changed
    }

    /// Returns the figures. Held events are counted by scanning the log; may block briefly.
    pub(crate) fn report(&self, log: &Log) -> DeliveryReport {
        let (mut report, mut agrees) = self.report_once(log);
        // Segments may be freed between the look at the progress and the look at the log: then the log says too little, or
        // cannot say anything; another look agrees.
        for _ in 0..LOOKS_MAX {
            if agrees {
                break;
            }
            (report, agrees) = self.report_once(log);
        }
        report
    }

    /// Returns the figures, and whether progress and log agree.
    fn report_once(&self, log: &Log) -> (DeliveryReport, bool) {
        let (progress, mut report) = {
            let figures = self.figures();
            (figures.progress.clone(), self.outline(&figures))
        };
        // A log that cannot be read now says nothing of what it holds.
        let Ok(account) = account(log, &self.key, &progress) else { return (report, false) };
        report.routed_events = account.routed;
        report.held_events = account.held;
        report.held_bytes = account.held_bytes;
        let oldest = || log.oldest_held(&self.key.route, &progress).ok().flatten();
        report.oldest_held = (account.held > 0).then(oldest).flatten();
        report.imbalance_events = account.imbalance;
        report.seconds_until_full = log.seconds_until_full(&self.key).filter(|_| account.held > 0);
        (report, account.imbalance == 0)
    }

    fn outline(&self, figures: &Figures) -> DeliveryReport {
        let progress = &figures.progress;
        DeliveryReport {
            route: self.key.route.clone(),
            backend: self.backend.clone(),
            backend_type: figures.backend_type.clone(),
            state: figures.state,
            since: figures.since,
            breaker: figures.breaker.clone(),
            routed_events: 0,
            delivered_events: progress.delivered,
            duplicate_events: progress.duplicates,
            rejected_events: progress.rejected,
            elsewhere_events: progress.elsewhere,
            dropped_events: by_reason(&progress.dropped),
            dropped_bytes: by_reason(&progress.dropped_bytes),
            late_events: figures.late,
            unknown_batches: figures.unknown_batches,
            rejections: figures.rejections.counts().clone(),
            seconds_until_full: None,
            held_events: 0,
            held_bytes: 0,
            oldest_held: None,
            imbalance_events: 0,
            attempts: figures.attempts,
            faults: figures.faults.iter().map(|(kind, count)| ((*kind).to_owned(), *count)).collect(),
            delivered_bytes: figures.delivered_bytes,
            in_flight: figures.in_flight,
            in_flight_limit: figures.in_flight_limit,
            last_error: figures.last_error.clone(),
        }
    }
}

fn by_reason(counts: &BTreeMap<Arc<str>, u64>) -> BTreeMap<String, u64> {
    counts.iter().map(|(reason, count)| (reason.to_string(), *count)).collect()
}

/// A delivery's side of the ledger.
pub(super) struct Account {
    pub(super) routed: u64,
    pub(super) held: u64,
    pub(super) held_bytes: u64,
    pub(super) imbalance: i64,
}

/// Counts what the log holds for a delivery, by scanning masks against its progress, and holds it against what was routed.
pub(super) fn account(log: &Log, key: &DeliveryKey, progress: &Progress) -> Result<Account, ReadError> {
    let census = log.census();
    let end = progress.removed.map_or(u64::MAX, |removed| removed.end_seq);
    let (held, held_bytes) = unresolved(log, &census, &key.route, progress, end)?;
    let dropped = progress.dropped.values().sum::<u64>();
    let resolved = progress.delivered + progress.duplicates + progress.rejected + progress.elsewhere + dropped;
    // What was routed since a reference was removed is not its business.
    let routed = match progress.removed {
        Some(_) => (resolved + held) as i64,
        None => census.routed_events(&key.route) as i64 - progress.routed_before,
    };
    Ok(Account { routed: routed.max(0) as u64, held, held_bytes, imbalance: routed - (resolved + held) as i64 })
}

/// Counts the events of a route, and their payload bytes, that stand in the log below `to` and are not resolved.
pub(super) fn unresolved(
    log: &Log,
    census: &Census,
    route: &str,
    progress: &Progress,
    to: u64,
) -> Result<(u64, u64), ReadError> {
    let count = |from, to| log.count_events(census, route, from, to);
    let (mut events, mut bytes) = count(progress.cursor, to)?;
    for (from, end) in progress.resolved.iter().filter(|(from, _)| *from < to) {
        let (resolved, resolved_bytes) = count(*from, to.min(*end))?;
        events = events.saturating_sub(resolved);
        bytes = bytes.saturating_sub(resolved_bytes);
    }
    Ok((events, bytes))
}
