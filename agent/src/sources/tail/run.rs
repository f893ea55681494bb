//! The task around the tailer: waits for something to do, submits, tries again.

use std::io;
use std::os::fd::OwnedFd;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use spillway_delivery::event::Batch;
use spillway_delivery::intake::{Intake, Pipeline, SubmitError};
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at, sleep_until};
use tokio_util::sync::CancellationToken;

use super::RESCAN_UNWATCHED;
use super::assemble::Form;
use super::core::{Core, Outgoing, Ticket};
use super::stats::TailStats;
use super::unit::TICK;
use crate::pods::PodsReceiver;

/// Everything that wakes the task.
enum Wake {
    Stop,
    Kept(Option<Ticket>),
    Hints,
    Tick,
    Rescan,
    Pods,
}

/// A source without tasks: what it follows, told to look.
pub(in crate::sources) trait Tails: Send + 'static {
    /// What its lines are.
    type Form: Form;

    /// Its units and their readers.
    fn core(&mut self) -> &mut Core<Self::Form>;

    /// Watches from now on; directories are added as scans find them. Returns what becomes readable when there are hints.
    fn attach(&mut self) -> io::Result<Arc<AsyncFd<OwnedFd>>>;

    /// Looks at everything.
    fn scan(&mut self, now: Instant);

    /// Looks where the watch says.
    fn take_hints(&mut self, now: Instant);

    /// Looks where it is time to look.
    fn tick(&mut self, now: Instant);

    /// Returns whether the timer has to look.
    fn is_timed(&self) -> bool;

    /// Returns whether some directory is found by scans only.
    fn is_unwatched(&self) -> bool;

    /// Hands out the next batch, one reader after the other, pipelines in turn.
    fn poll(&mut self, now: Instant) -> Option<Outgoing> {
        self.core().poll(now)
    }

    /// Takes in what is told of pods.
    fn take_pods(&mut self, _: Instant) {}
}

/// What the task works with.
#[derive(Debug)]
pub(in crate::sources) struct Runner<T> {
    /// What reads.
    pub(in crate::sources) tailer: T,
    /// Where batches go, in the order the tailer numbers them.
    pub(in crate::sources) pipelines: Vec<Arc<Pipeline>>,
    /// What tells of pods.
    pub(in crate::sources) pods: Option<PodsReceiver>,
    /// How often everything is looked at.
    pub(in crate::sources) rescan: Duration,
    /// How long hints are left to gather after some were taken.
    pub(in crate::sources) gather: Duration,
    /// Counts refusals.
    pub(in crate::sources) stats: Arc<TailStats>,
    /// When to come to an end.
    pub(in crate::sources) stop: CancellationToken,
}

impl<T: Tails> Runner<T> {
    /// Runs until told to stop; batches under way are waited for, unless their pipeline refuses them.
    pub(in crate::sources) async fn run(mut self) {
        let hints = self.open_watch();
        let mut rescan = interval(if hints.is_some() { self.rescan } else { self.rescan.min(RESCAN_UNWATCHED) });
        let mut tick = interval_at(Instant::now() + TICK, TICK);
        let mut pods = self.pods.take();
        let mut flights = FuturesUnordered::new();
        let mut hints_at = Instant::now();
        rescan.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            while let Some(outgoing) = self.tailer.poll(Instant::now()) {
                let pipeline = self.pipelines[outgoing.ticket.pipeline].clone();
                flights.push(keep(pipeline, outgoing, Flight { stats: self.stats.clone(), stop: self.stop.clone() }));
            }
            let wake = tokio::select! {
                biased;
                () = self.stop.cancelled() => Wake::Stop,
                Some(ticket) = flights.next() => Wake::Kept(ticket),
                () = readable(hints.as_deref(), hints_at) => Wake::Hints,
                _ = tick.tick(), if self.tailer.is_timed() => Wake::Tick,
                _ = rescan.tick() => Wake::Rescan,
                () = told(pods.as_mut()) => Wake::Pods,
            };
            match wake {
                Wake::Stop => break,
                Wake::Kept(Some(ticket)) => self.tailer.core().kept(ticket),
                Wake::Kept(None) => {}
                Wake::Hints => {
                    self.tailer.take_hints(Instant::now());
                    hints_at = Instant::now() + self.gather;
                }
                Wake::Tick => self.tailer.tick(Instant::now()),
                Wake::Pods => self.tailer.take_pods(Instant::now()),
                Wake::Rescan => {
                    self.tailer.scan(Instant::now());
                    if self.tailer.is_unwatched() && rescan.period() > RESCAN_UNWATCHED {
                        rescan = interval_at(Instant::now() + RESCAN_UNWATCHED, RESCAN_UNWATCHED);
                    }
                }
            }
        }
        while flights.next().await.is_some() {}
    }

    fn open_watch(&mut self) -> Option<Arc<AsyncFd<OwnedFd>>> {
        match self.tailer.attach() {
            Ok(hints) => Some(hints),
            Err(error) => {
                tracing::warn!(%error, "no file events from the kernel, scanning instead");
                None
            }
        }
    }
}

/// What a batch under way needs besides itself.
struct Flight {
    stats: Arc<TailStats>,
    stop: CancellationToken,
}

/// Submits until the batch is kept; `None` when the process stops before it was.
async fn keep(pipeline: Arc<Pipeline>, outgoing: Outgoing, flight: Flight) -> Option<Ticket> {
    let Outgoing { ticket, batch, joined } = outgoing;
    loop {
        match Intake.submit(slice::from_ref(&pipeline), batch.clone()).await {
            Ok(_) => {
                pipeline.count_joined(&joined);
                tokio::select! {
                    () = flight.stop.cancelled() => {}
                    () = pipeline.followed() => {}
                }
                return Some(ticket);
            }
            Err(SubmitError::Refused { .. }) => {}
            // With one log and no key nothing is kept elsewhere; whether it is kept here, its position tells.
            Err(_) if is_kept(&pipeline, &batch) => {
                pipeline.count_joined(&joined);
                return Some(ticket);
            }
            // The log tells by itself when it begins to fail and when it is well again.
            Err(error) => tracing::debug!(%error, "a batch of lines is submitted again"),
        }
        flight.stats.refusals.fetch_add(1, Ordering::Relaxed);
        tokio::select! {
            () = flight.stop.cancelled() => return None,
            () = pipeline.room() => {}
        }
    }
}

fn is_kept(pipeline: &Pipeline, batch: &Batch) -> bool {
    batch.position.as_ref().is_some_and(|position| pipeline.position(&position.source) == position.value)
}

/// Waits for the next table of pods; for ever when there is none to come.
async fn told(pods: Option<&mut PodsReceiver>) {
    let changed = match pods {
        Some(pods) => pods.changed().await.is_ok(),
        None => false,
    };
    if !changed {
        std::future::pending::<()>().await;
    }
}

/// Waits for hints, not before `from`; for ever when there are none to come.
async fn readable(hints: Option<&AsyncFd<OwnedFd>>, from: Instant) {
    if hints.is_some() && Instant::now() < from {
        sleep_until(from).await;
    }
    let ready: io::Result<()> = match hints {
        Some(hints) => hints.readable().await.map(|mut ready| ready.clear_ready()),
        None => std::future::pending().await,
    };
    if ready.is_err() {
        std::future::pending::<()>().await;
    }
}
