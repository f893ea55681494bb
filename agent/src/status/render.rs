//! The ledger as text. Nothing is said by colour alone; colour is only a hint on a terminal.

use spillway_delivery::ledger::{FailoverReport, LogReport, PipelineReport, RouteReport, TransformReport};

use super::problems::{accounted, name, problems};
use super::report::{Phase, StatusReport};
use super::units::{age, bytes, counted, plain, time};
use crate::config::state::ServedReport;

mod deliveries;
mod letters;

/// Whether there is colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Paint {
    colour: bool,
}

impl Paint {
    /// Returns paint for a terminal, or for what is none. `NO_COLOR` is obeyed.
    pub fn on(terminal: bool) -> Self {
        Self { colour: terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) }
    }

    /// Returns no colour.
    pub fn plain() -> Self {
        Self { colour: false }
    }

    /// Returns `text` as good news.
    pub(crate) fn good(self, text: &str) -> String {
        self.wrap("32", text)
    }

    /// Returns `text` as bad news.
    pub(crate) fn bad(self, text: &str) -> String {
        self.wrap("1;31", text)
    }

    fn wrap(self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.into() }
    }
}

/// Returns the report as text for people, what is wrong at its end.
pub fn render(report: &StatusReport, paint: Paint) -> String {
    let mut out = String::new();
    head(report, &mut out);
    for pipeline in &report.pipelines {
        out.push('\n');
        pipeline_block(pipeline, report.now, paint, &mut out);
    }
    for excluded in &report.excluded {
        let what = if excluded.kept { "refused, the last good version runs" } else { "not run" };
        line(&mut out, &format!("\n{what}: {}", plain(&excluded.object)));
        for error in &excluded.errors {
            line(&mut out, &format!("  {}", error.lines().map(plain).collect::<Vec<_>>().join("\n    ")));
        }
    }
    out.push('\n');
    let problems = problems(report);
    if problems.is_empty() {
        line(&mut out, &paint.good("everything flows"));
    } else {
        line(&mut out, &paint.bad(&format!("wrong ({}):", problems.len())));
        for problem in &problems {
            line(&mut out, &format!("  - {problem}"));
        }
    }
    out
}

fn line(out: &mut String, text: &str) {
    out.push_str(text.trim_end());
    out.push('\n');
}

fn head(report: &StatusReport, out: &mut String) {
    let phase = match report.phase {
        Phase::Starting => "starting",
        Phase::Running => "running",
        Phase::Draining => "draining",
    };
    let up = age(report.started, report.now);
    let (version, id) = (plain(&report.version), plain(&report.agent_id));
    line(out, &format!("spillway-agent {version}, agent {id}: {phase}, up {up}"));
    let config = &report.config;
    if config.generation > 0 {
        let since = config.last_change.map_or("-".into(), time);
        line(out, &format!("configuration: generation {}, {} since {since}", config.generation, plain(&config.hash)));
    }
    if let Some(served) = &config.served {
        operator(served, out);
    }
    for listener in &report.listeners {
        let secured = if listener.secured { "TLS and token" } else { "plain" };
        line(out, &format!("listening: {} on {} ({secured})", plain(&listener.name), plain(&listener.address)));
    }
    for source in &report.sources {
        let counts: Vec<String> =
            source.counts.iter().filter(|(_, n)| **n > 0).map(|(what, n)| format!("{} {n}", plain(what))).collect();
        let counts = if counts.is_empty() { "nothing yet".into() } else { counts.join(", ") };
        line(out, &format!("source {}: {counts}", plain(&source.name)));
    }
}

fn operator(served: &ServedReport, out: &mut String) {
    let running = served.running.as_ref().map_or("nothing yet".into(), |version| {
        format!("epoch {}, generation {}, {}", version.epoch, version.generation, plain(&version.hash))
    });
    let since = served.since.map_or("-".into(), time);
    let state = if served.is_connected { "answers" } else { "does not answer" };
    line(out, &format!("operator {}: {state} since {since}; serves {running}", plain(&served.operator)));
}

fn pipeline_block(pipeline: &PipelineReport, now: i64, paint: Paint, out: &mut String) {
    let log = &pipeline.log;
    let suspended = match (pipeline.removed, pipeline.suspended) {
        (true, _) => ", removed, draining",
        (false, true) => ", suspended",
        (false, false) => "",
    };
    line(out, &format!("pipeline {}{suspended}", name(pipeline)));
    line(
        out,
        &format!(
            "  log {}: {} of {} in {}, {}",
            plain(&log.state),
            bytes(log.bytes),
            bytes(log.bytes_max),
            counted(log.segments, "segment"),
            events(log)
        ),
    );
    memory(log, out);
    line(
        out,
        &format!(
            "  accepted {} = {}unrouted {} + routed {}",
            pipeline.accepted_events,
            dropped(pipeline),
            pipeline.unrouted_events,
            pipeline.routed_events
        ),
    );
    pipeline.transforms.iter().for_each(|one| line(out, &transform(one)));
    for (reason, requests) in &pipeline.refused_requests {
        line(out, &format!("  refused {}: {}", counted(*requests, "request"), plain(reason)));
    }
    for route in &pipeline.routes {
        failovers(route, out);
        for (reason, times) in &route.condition_errors {
            let events = counted(*times, "event");
            let text = format!("  route {}: `match` was false for {events} by {}", plain(&route.name), plain(reason));
            line(out, &text);
        }
    }
    for text in deliveries::lines(pipeline, now, paint) {
        line(out, &text);
    }
    letters::lines(&pipeline.dead_letters, now).iter().for_each(|text| line(out, text));
    letters::jobs(&pipeline.jobs).iter().for_each(|text| line(out, text));
    line(out, &balance(pipeline, paint));
}

/// What of the accepted events transforms dropped; nothing where there is nothing to say.
fn dropped(pipeline: &PipelineReport) -> String {
    let silent = pipeline.dropped_events == 0 && pipeline.transforms.is_empty();
    if silent { String::new() } else { format!("dropped {} + ", pipeline.dropped_events) }
}

/// What one transform did since the start.
fn transform(transform: &TransformReport) -> String {
    let TransformReport { name, r#type, in_events, changed_events, dropped_events, failed_events } = transform;
    let mut parts = vec![format!("  transform {} ({}): in {in_events}", plain(name), plain(r#type))];
    let figures = [("changed", *changed_events), ("dropped", *dropped_events)];
    parts.extend(figures.iter().filter(|(_, events)| *events > 0).map(|(what, events)| format!("{what} {events}")));
    let failed = failed_events.iter();
    parts.extend(failed.map(|(why, events)| format!("failed for {} by {}", counted(*events, "event"), plain(why))));
    parts.join(", ")
}

/// Which backend gets the events of a route whose first healthy one does, and how that changed.
fn failovers(route: &RouteReport, out: &mut String) {
    let name = plain(&route.name);
    if let Some(active) = &route.active {
        line(out, &format!("  route {name}: events go to {}", plain(active)));
    }
    for FailoverReport { from, to, times } in &route.failovers {
        line(out, &format!("  route {name}: {} took over from {} {}", plain(to), plain(from), counted(*times, "time")));
    }
}

/// What a log at level `Memory` has beyond its files.
fn memory(log: &LogReport, out: &mut String) {
    if log.memory_bytes + log.spilled_bytes > 0 {
        let (held, spilled) = (bytes(log.memory_bytes), bytes(log.spilled_bytes));
        line(out, &format!("  in memory alone {held}, spilled {spilled} since the start"));
    }
    if log.lost_events > 0 {
        line(out, &format!("  lost with the process before: at least {}", counted(log.lost_events, "event")));
    }
}

fn events(log: &LogReport) -> String {
    match log.next_seq.checked_sub(1) {
        Some(last) if last >= log.first_seq => format!("events {} to {last}", log.first_seq),
        _ => "no events".into(),
    }
}

fn balance(pipeline: &PipelineReport, paint: Paint) -> String {
    let deliveries = pipeline.deliveries.iter().map(|delivery| delivery.imbalance_events.unsigned_abs());
    let jobs = pipeline.jobs.iter().map(|job| job.imbalance_events.unsigned_abs());
    let letters = pipeline.dead_letters.imbalance_events.unsigned_abs();
    let imbalance = deliveries.chain(jobs).sum::<u64>() + letters;
    let accepted = accounted(pipeline).abs_diff(pipeline.accepted_events);
    match imbalance + accepted {
        0 => format!("  {}", paint.good("ledger balanced")),
        events => format!("  {}", paint.bad(&format!("ledger NOT balanced: {}", counted(events, "event")))),
    }
}

#[cfg(test)]
mod tests;
