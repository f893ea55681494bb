//! The process: settings, threads, signals, and the order in which parts start and stop.
//!
//! # End
//! The first signal: this replica stops leading and gives the Lease back, polls that wait and reviews under way are answered,
//! and the process ends. Nothing is lost by a second signal, so it ends at once. A task that panicked ends the process with 70.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use spillway_delivery::supervisor::Supervisor;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;
use tracing_subscriber::EnvFilter;

use crate::cli::{ControllerFlags, LogFlags, LogFormat, WebhookFlags};
use crate::{controller, webhook};

/// The exit code of a process that could not start.
const FAILED: u8 = 1;
/// The exit code of one of which a task panicked (`EX_SOFTWARE` of `sysexits.h`).
const PANICKED: u8 = 70;
/// How long tasks may take to end.
const STOP: Duration = Duration::from_secs(5);
/// How long blocking calls of an ended process may go on.
const RUNTIME_STOP: Duration = Duration::from_secs(1);

/// Runs the controller until a signal ends it.
pub fn controller(flags: &ControllerFlags) -> ExitCode {
    process("controller", &flags.log, async |owner: &Arc<Supervisor>| controller::start(flags, owner).await)
}

/// Runs the webhook until a signal ends it.
pub fn webhook(flags: &WebhookFlags) -> ExitCode {
    process("webhook", &flags.log, async |owner: &Arc<Supervisor>| webhook::start(flags, owner).await)
}

fn process(
    name: &'static str,
    log: &LogFlags,
    start: impl AsyncFnOnce(&Arc<Supervisor>) -> anyhow::Result<()>,
) -> ExitCode {
    start_log(log);
    let runtime = match tokio::runtime::Builder::new_multi_thread().thread_name("spillway").enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "threads cannot be started");
            return ExitCode::from(FAILED);
        }
    };
    let end = runtime.block_on(live(name, start));
    runtime.shutdown_timeout(RUNTIME_STOP);
    end.unwrap_or_else(|error| {
        tracing::error!(error = format!("{error:#}"), "the {name} cannot run");
        ExitCode::from(FAILED)
    })
}

async fn live(name: &str, start: impl AsyncFnOnce(&Arc<Supervisor>) -> anyhow::Result<()>) -> anyhow::Result<ExitCode> {
    let mut terminate = signal(SignalKind::terminate()).context("signals cannot be taken")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("signals cannot be taken")?;
    let owner = Arc::new(Supervisor::new(name));
    let failed = owner.failed();
    tokio::select! {
        started = start(&owner) => started?,
        _ = terminate.recv() => return Ok(ExitCode::SUCCESS),
        _ = interrupt.recv() => return Ok(ExitCode::SUCCESS),
    }
    let by = tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
        () = failed.cancelled() => {
            tracing::error!("a task panicked, the process ends");
            return Ok(ExitCode::from(PANICKED));
        }
    };
    tracing::info!(signal = by, "stopping");
    tokio::select! {
        in_time = owner.stop(Instant::now() + STOP) => tracing::info!(in_time, "stopped"),
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(ExitCode::SUCCESS)
}

fn start_log(flags: &LogFlags) {
    let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let format = flags.log_format.unwrap_or(if is_terminal { LogFormat::Text } else { LogFormat::Json });
    let filter = EnvFilter::builder().parse_lossy(&flags.log_level);
    let builder = tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter);
    let started = match format {
        LogFormat::Text => builder.with_ansi(is_terminal).with_target(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init(),
    };
    drop(started);
}
