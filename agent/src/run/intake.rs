//! Starts the sources over the pipelines that take from them.

use std::sync::Arc;

use spillway_crds::Input;
use spillway_crds::kinds::monitoring_pipeline as manifest;
use spillway_delivery::clock::Clock;
use spillway_delivery::intake::Intake;

use super::Parts;
use super::pipelines::Opened;
use crate::exit::Failure;
use crate::settings::Settings;
use crate::sources::container_logs::{self, ContainerLogStats, ContainerLogsSettings, LogInput, StartAt};
use crate::sources::http::{BindError, HttpContext, HttpSettings, HttpSource, HttpStats};
use crate::status::Listener;

/// Starts every source that is on.
pub(super) async fn start(
    parts: &Parts,
    settings: &Settings,
    clock: &Clock,
    opened: Vec<Opened>,
) -> Result<(), Failure> {
    start_container_logs(parts, settings, clock, &opened);
    start_http(parts, settings, clock, &opened).await
}

fn start_container_logs(parts: &Parts, settings: &Settings, clock: &Clock, opened: &[Opened]) {
    let inputs: Vec<LogInput> = opened.iter().flat_map(log_inputs).collect();
    if inputs.is_empty() {
        return;
    }
    let Some(root) = settings.pod_logs.clone() else {
        tracing::warn!(inputs = inputs.len(), "container logs are off, no folder of them is there: see --pod-logs");
        return;
    };
    let settings = ContainerLogsSettings {
        root,
        node: settings.node_name.clone(),
        clock: clock.clone(),
        ..ContainerLogsSettings::default()
    };
    let stats = Arc::new(ContainerLogStats::default());
    container_logs::start(settings, inputs, &parts.sources, stats.clone());
    parts.overview.with_sources(|sources| sources.container_logs = Some(stats));
}

fn log_inputs(opened: &Opened) -> impl Iterator<Item = LogInput> {
    let wanted = opened.inputs.iter().filter_map(|input| match input {
        Input::ContainerLogs(wanted) => Some(wanted),
        Input::Events { .. } => None,
    });
    wanted.map(|wanted| LogInput {
        pipeline: opened.pipeline.clone(),
        namespace: Some(opened.pipeline.settings().namespace.clone()),
        containers: wanted.containers.clone(),
        start_at: match wanted.start_at {
            manifest::StartAt::Beginning => StartAt::Beginning,
            manifest::StartAt::End => StartAt::End,
        },
    })
}

async fn start_http(parts: &Parts, settings: &Settings, clock: &Clock, opened: &[Opened]) -> Result<(), Failure> {
    let Some(address) = settings.http else {
        return Ok(());
    };
    let takes_events = |one: &&Opened| one.inputs.iter().any(|input| matches!(input, Input::Events { .. }));
    let pipelines = opened.iter().filter(takes_events).map(|one| one.pipeline.clone()).collect();
    let stats = Arc::new(HttpStats::default());
    let context =
        HttpContext { intake: Intake, clock: clock.clone(), supervisor: parts.sources.clone(), stats: stats.clone() };
    let (tls, token_file) = (settings.security.tls.clone(), settings.security.token.clone());
    let secured = tls.certificate.is_some();
    let source = HttpSource::bind(HttpSettings { address, tls, token_file }, pipelines, context).await;
    let source = source.map_err(|error| match error {
        BindError::Security(_) => Failure::failed("insecure-listener", error),
        BindError::Listen { .. } => {
            Failure::failed("http-listen", error).next("name another address with --http, or `off` to do without")
        }
    })?;
    let address = source.local_address().to_string();
    parts.overview.add_listener(Listener { name: "http".into(), address, secured });
    parts.overview.with_sources(|sources| sources.http = Some(stats));
    Ok(())
}
