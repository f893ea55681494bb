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
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at};
use tokio_util::sync::CancellationToken;

use super::RESCAN_UNWATCHED;
use super::container::TICK;
use super::stats::ContainerLogStats;
use super::tailer::{Outgoing, Tailer, Ticket};
use super::watch::Watch;
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

/// What the task works with.
#[derive(Debug)]
pub(super) struct Runner {
    /// What reads.
    pub(super) tailer: Tailer,
    /// Where batches go, in the order the tailer numbers them.
    pub(super) pipelines: Vec<Arc<Pipeline>>,
    /// What tells of pods.
    pub(super) pods: Option<PodsReceiver>,
    /// How often everything is looked at.
    pub(super) rescan: Duration,
    /// Counts refusals.
    pub(super) stats: Arc<ContainerLogStats>,
    /// When to come to an end.
    pub(super) stop: CancellationToken,
}

impl Runner {
    /// Runs until told to stop; batches under way are waited for, unless their pipeline refuses them.
    pub(super) async fn run(mut self) {
        let hints = self.open_watch();
        let mut rescan = interval(if hints.is_some() { self.rescan } else { self.rescan.min(RESCAN_UNWATCHED) });
        let mut tick = interval_at(Instant::now() + TICK, TICK);
        let mut pods = self.pods.take();
        let mut flights = FuturesUnordered::new();
        rescan.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            while let Some(Outgoing { ticket, batch }) = self.tailer.poll(Instant::now()) {
                let pipeline = self.pipelines[ticket.pipeline].clone();
                flights.push(keep(
                    pipeline,
                    ticket,
                    batch,
                    Flight { stats: self.stats.clone(), stop: self.stop.clone() },
                ));
            }
            let wake = tokio::select! {
                biased;
                () = self.stop.cancelled() => Wake::Stop,
                Some(ticket) = flights.next() => Wake::Kept(ticket),
                () = readable(hints.as_deref()) => Wake::Hints,
                _ = tick.tick(), if self.tailer.is_timed() => Wake::Tick,
                _ = rescan.tick() => Wake::Rescan,
                () = told(pods.as_mut()) => Wake::Pods,
            };
            match wake {
                Wake::Stop => break,
                Wake::Kept(Some(ticket)) => self.tailer.kept(ticket),
                Wake::Kept(None) => {}
                Wake::Hints => self.tailer.take_hints(Instant::now()),
                Wake::Tick => self.tailer.tick(),
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
        match Watch::open() {
            Ok(watch) => {
                let hints = watch.readiness();
                self.tailer.attach(watch);
                Some(hints)
            }
            Err(error) => {
                tracing::warn!(%error, "no file events from the kernel, scanning instead");
                None
            }
        }
    }
}

/// What a batch under way needs besides itself.
struct Flight {
    stats: Arc<ContainerLogStats>,
    stop: CancellationToken,
}

/// Submits until the batch is kept; `None` when the process stops before it was.
async fn keep(pipeline: Arc<Pipeline>, ticket: Ticket, batch: Batch, flight: Flight) -> Option<Ticket> {
    loop {
        match Intake.submit(slice::from_ref(&pipeline), batch.clone()).await {
            Ok(_) => {
                tokio::select! {
                    () = flight.stop.cancelled() => {}
                    () = pipeline.followed() => {}
                }
                return Some(ticket);
            }
            Err(SubmitError::Refused { .. }) => {}
            // With one log and no key nothing is kept elsewhere; whether it is kept here, its position tells.
            Err(_) if is_kept(&pipeline, &batch) => return Some(ticket),
            // The log tells by itself when it begins to fail and when it is well again.
            Err(error) => tracing::debug!(%error, "container log batch is submitted again"),
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

/// Waits for hints; for ever when there are none to come.
async fn readable(hints: Option<&AsyncFd<OwnedFd>>) {
    let ready: io::Result<()> = match hints {
        Some(hints) => hints.readable().await.map(|mut ready| ready.clear_ready()),
        None => std::future::pending().await,
    };
    if ready.is_err() {
        std::future::pending::<()>().await;
    }
}
