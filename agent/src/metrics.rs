//! The figures of the process as `OpenMetrics`, written at scrape time from the same reports that status shows, so that
//! there is one source of truth and nothing is counted for metrics alone.
//!
//! Names are `spillway_<part>_<what>_<unit>`, labels `namespace`, `pipeline`, `route`, `backend`. Label values come from
//! manifests and are bounded by them; no label comes from data. Counters of the ledger are of the whole life of the log
//! and go on across restarts.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use crate::config::state::ServedReport;
use crate::overview::SourceStats;
use crate::status::StatusReport;

mod ledger;
mod sources;

/// What the answer of `/metrics` is.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Returns the exposition of one moment, its `# EOF` included.
pub fn expose(report: StatusReport, sources: SourceStats) -> String {
    let mut registry = Registry::with_prefix("spillway");
    registry.register_collector(Box::new(Moment { report, sources }));
    let mut out = String::new();
    // Writing into a string cannot fail, and the collector fails only when that does.
    text::encode(&mut out, &registry).unwrap_or_default();
    out
}

#[derive(Debug)]
struct Moment {
    report: StatusReport,
    sources: SourceStats,
}

impl Collector for Moment {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut families = Families { encoder };
        process(&mut families, &self.report)?;
        ledger::write(&mut families, &self.report)?;
        sources::write(&mut families, &self.sources)
    }
}

fn process(families: &mut Families<'_>, report: &StatusReport) -> fmt::Result {
    let info = [("version", report.version.clone()), ("agent_id", report.agent_id.clone())];
    families
        .encoder
        .encode_descriptor("build", "The agent that answers.", None, MetricType::Info)?
        .encode_info(&info)?;
    let started = seconds(report.started);
    let one = |value: f64| [([("phase", format!("{:?}", report.phase).to_lowercase())], value)];
    families.one_gauge("process_start_time_seconds", "When the process started, Unix time.", started)?;
    families.gauge(
        "ready",
        "Whether the agent is ready, with its phase.",
        one(f64::from(report.not_ready.is_empty())),
    )?;
    let excluded = count(report.excluded.len() as u64);
    families.one_gauge("manifests_excluded", "Manifests that are not run as they are.", excluded)?;
    let unclaimed = report.unclaimed_logs.iter().map(|log| log.bytes).sum();
    let logs = count(report.unclaimed_logs.len() as u64);
    families.one_gauge("unclaimed_logs", "Logs in the data directory that no pipeline claims.", logs)?;
    families.one_gauge("unclaimed_logs_bytes", "What they take on disk.", count(unclaimed))?;
    configuration(families, report)
}

fn configuration(families: &mut Families<'_>, report: &StatusReport) -> fmt::Result {
    let config = &report.config;
    families
        .encoder
        .encode_descriptor("config", "The configuration that runs.", None, MetricType::Info)?
        .encode_info(&[("hash", config.hash.clone())])?;
    families.one_gauge("config_generation", "Changes of what runs since the start.", count(config.generation))?;
    families.counter(
        "config_reload",
        "Readings of the manifests since the start, by result.",
        config.reloads.iter().map(|(result, times)| ([("result", result.clone())], *times)),
    )?;
    families.one_gauge(
        "config_last_success_timestamp_seconds",
        "When everything that the manifests say ran for the last time, Unix time; 0 when it never did.",
        config.last_success.map_or(0.0, seconds),
    )?;
    if let Some(served) = &config.served {
        served_configuration(families, served)?;
    }
    let kept = report.excluded.iter().filter(|one| one.kept).count();
    families.one_gauge(
        "config_kept_objects",
        "Manifests with errors whose last good version runs on.",
        count(kept as u64),
    )
}

fn served_configuration(families: &mut Families<'_>, served: &ServedReport) -> fmt::Result {
    let running = served.running.clone().unwrap_or_default();
    families
        .encoder
        .encode_descriptor(
            "config_served",
            "The configuration that runs, as the operator names it.",
            None,
            MetricType::Info,
        )?
        .encode_info(&[("hash", running.hash)])?;
    families.one_gauge("config_served_epoch", "Its epoch, which counts leaders.", count(running.epoch))?;
    families.one_gauge("config_served_generation", "Its generation.", count(running.generation))?;
    let connected = f64::from(served.is_connected);
    families.one_gauge("operator_connected", "Whether the operator answered the last question.", connected)?;
    families.counter(
        "operator_asks",
        "Questions to the operator since the start, by result.",
        [("answered", served.answers), ("failed", served.failures)].map(|(result, n)| ([("result", result)], n)),
    )?;
    families.one_gauge(
        "operator_pods",
        "Pods of this node that the operator tells of.",
        count(served.pods.unwrap_or(0)),
    )
}

/// Returns Unix nanoseconds as seconds.
#[expect(
    clippy::cast_precision_loss,
    reason = "a float of seconds is what the format has; it is exact to microseconds"
)]
fn seconds(nanos: i64) -> f64 {
    nanos as f64 / 1e9
}

/// Returns a count as a gauge has it.
#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
fn count(value: u64) -> f64 {
    value as f64
}

/// Writes whole families, one after the other.
struct Families<'a> {
    encoder: DescriptorEncoder<'a>,
}

/// The exemplar's labels: there are no exemplars.
type NoLabels = [(&'static str, &'static str); 0];

impl Families<'_> {
    fn one_counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let mut family = self.encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        family.encode_counter::<NoLabels, _, u64>(&value, None)
    }

    fn one_gauge(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        self.encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
    }

    fn counter<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (L, u64)>,
    ) -> fmt::Result {
        let mut family = self.encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in samples {
            family.encode_family(&labels)?.encode_counter::<NoLabels, _, u64>(&value, None)?;
        }
        Ok(())
    }

    fn gauge<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (L, f64)>,
    ) -> fmt::Result {
        let mut family = self.encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in samples {
            family.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
