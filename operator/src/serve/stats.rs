//! What the endpoint counts. Names begin with `spillway_operator_`, by the prefix of the registry they are registered in.
//!
//! Label values are words of this program: nothing that a request says becomes one.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;

use super::certificates::Certificates;
use super::expires::described;
use crate::hub::Knowing;
use crate::succession::Change;

/// The name of a figure, and what it is.
type Told = (&'static str, &'static str);

/// A label and one of its words.
type Label = [(&'static str, &'static str); 1];

/// The figures of the endpoint. Cheap to clone; a clone counts into the same.
#[derive(Debug, Clone, Default)]
pub struct Stats {
    requests: Family<Label, Counter>,
    refusals: Family<Label, Counter>,
    /// Asks that wait.
    pub(super) waiting: Gauge,
    /// Connections of agents.
    pub(super) connections: Connections,
    /// Bytes of answers as they go over the wire, inside TLS.
    pub(super) answer_bytes: Counter,
}

impl Stats {
    /// Registers all of it in a registry whose prefix is `spillway_operator`.
    pub fn register(&self, registry: &mut Registry) {
        let Self { requests, refusals, waiting, connections, answer_bytes } = self.clone();
        registry.register("config_requests", "Requests of agents, by what became of them.", requests);
        registry.register("config_refusals", "Requests that were refused, by reason.", refusals);
        registry.register("config_waiting_polls", "Asks of agents that wait for news.", waiting);
        connections.register(
            registry,
            ("config_connections", "Open connections of agents."),
            ("config_connections_turned_away", "Connections of agents for which there was no place."),
            ("config_connections_ended", "Connections of agents that were ended here, by reason."),
        );
        registry.register("config_answer_bytes", "Bytes of answers to agents, compressed.", answer_bytes);
    }

    /// Counts a request that was answered.
    pub(super) fn answered(&self, outcome: &'static str) {
        self.requests.get_or_create(&[("outcome", outcome)]).inc();
    }

    /// Counts a request that was refused.
    pub(super) fn refused(&self, reason: &'static str) {
        self.answered("refused");
        self.refusals.get_or_create(&[("reason", reason)]).inc();
    }

    /// Returns how many requests had this outcome.
    #[cfg(test)]
    pub(super) fn outcomes(&self, outcome: &'static str) -> u64 {
        self.requests.get_or_create(&[("outcome", outcome)]).get()
    }

    /// Returns how many requests were refused for this reason.
    #[cfg(test)]
    pub(super) fn refusals(&self, reason: &'static str) -> u64 {
        self.refusals.get_or_create(&[("reason", reason)]).get()
    }
}

/// The figures of the connections of one endpoint. A clone counts into the same.
#[derive(Debug, Clone, Default)]
pub struct Connections {
    /// Those that are open.
    pub(crate) open: Gauge,
    /// Those for which there was no place.
    pub(crate) turned_away: Counter,
    /// Those that this process ended, by reason.
    ended: Family<Label, Counter>,
}

/// Nobody asked over the connection.
pub(crate) const IDLE: &str = "idle";

/// The pod has others.
pub(crate) const SUPERSEDED: &str = "superseded";

impl Connections {
    /// Registers them, each with its name and what it is.
    pub(crate) fn register(self, registry: &mut Registry, open: Told, turned_away: Told, ended: Told) {
        registry.register(open.0, open.1, self.open);
        registry.register(turned_away.0, turned_away.1, self.turned_away);
        registry.register(ended.0, ended.1, self.ended);
    }

    /// Counts one that is ended.
    pub(crate) fn ended(&self, reason: &'static str) {
        self.ended.get_or_create(&[("reason", reason)]).inc();
    }

    /// Returns how many were ended for this reason.
    #[cfg(test)]
    pub(crate) fn endings(&self, reason: &'static str) -> u64 {
        self.ended.get_or_create(&[("reason", reason)]).get()
    }
}

/// The figures of our CA. A clone counts into the same.
#[derive(Debug, Clone, Default)]
pub struct Authorities {
    changes: Family<Label, Counter>,
    unaware: Gauge,
}

impl Authorities {
    /// Registers them.
    pub fn register(&self, registry: &mut Registry) {
        let Self { changes, unaware } = self.clone();
        registry.register("authority_changes", "Changes of our CA that this replica made, by what happened.", changes);
        let what = "Agents that do not say yet that they trust the successor of our CA.";
        registry.register("authority_unaware_agents", what, unaware);
    }

    /// Counts a change.
    pub fn changed(&self, change: Change) {
        self.changes.get_or_create(&[("change", change.name())]).inc();
    }

    /// Says how far agents know a successor; `None` where there is none.
    pub fn unaware(&self, knowing: Option<Knowing>) {
        let count = knowing.map_or(0, |knowing| knowing.live.saturating_sub(knowing.acknowledged));
        self.unaware.set(i64::try_from(count).unwrap_or(i64::MAX));
    }
}

/// When certificates are over, read at each scrape, once there are any.
#[derive(Debug, Clone, Default)]
pub struct Expiry(pub Arc<OnceLock<Arc<Certificates>>>);

impl Collector for Expiry {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut family = described(&mut encoder)?;
        let Some(certificates) = self.0.get() else { return Ok(()) };
        let authority = certificates.authority();
        let mut times = BTreeMap::from([
            ("authority", authority.expires().as_second()),
            ("leaf", certificates.leaf_expires().as_second()),
        ]);
        let own = authority.certificate_pem().trim();
        for other in certificates.trusted().certificates.iter().filter(|other| other.pem.trim() != own) {
            let until = i64::try_from(other.until_unix_seconds).unwrap_or(i64::MAX);
            let is_next = until > authority.expires().as_second();
            times.insert(if is_next { "successor" } else { "previous" }, until);
        }
        for (certificate, at) in times {
            ConstGauge::new(at).encode(family.encode_family(&[("certificate", certificate)])?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;
    use spillway_delivery::clock::Clock;

    use crate::serve::certificates::Authority;
    use crate::succession::trusted;

    #[test]
    fn every_figure_has_its_name_and_its_labels() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let clock = Clock::manual(1_800_000_000_000_000_000);
        let authority = Authority::generate(now).unwrap();
        let certificates = Certificates::new(authority, vec!["localhost".into()], clock).unwrap();
        let stats = Stats::default();
        let mut registry = Registry::with_prefix("spillway_operator");
        stats.register(&mut registry);
        let (expiry, authorities) = (Expiry::default(), Authorities::default());
        registry.register_collector(Box::new(expiry.clone()));
        authorities.register(&mut registry);
        certificates.trust(Arc::new(trusted([
            ("before", Timestamp::from_second(1_800_000_060).unwrap()),
            (certificates.authority().certificate_pem(), certificates.authority().expires()),
            ("after", Timestamp::MAX),
        ])));
        expiry.0.set(Arc::new(certificates)).unwrap();
        authorities.changed(Change::Made);
        authorities.unaware(Some(Knowing { live: 3, heard: 2, acknowledged: 1 }));
        stats.answered("news");
        stats.connections.ended(IDLE);
        stats.refused("expired");
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            "spillway_operator_config_requests_total{outcome=\"news\"} 1",
            "spillway_operator_config_requests_total{outcome=\"refused\"} 1",
            "spillway_operator_config_refusals_total{reason=\"expired\"} 1",
            "spillway_operator_config_waiting_polls 0",
            "spillway_operator_config_connections 0",
            "spillway_operator_config_connections_turned_away_total 0",
            "spillway_operator_config_connections_ended_total{reason=\"idle\"} 1",
            "spillway_operator_config_answer_bytes_total 0",
            "spillway_operator_certificate_expiry_timestamp_seconds{certificate=\"leaf\"} 1802592000",
            "spillway_operator_certificate_expiry_timestamp_seconds{certificate=\"previous\"} 1800000060",
            "spillway_operator_certificate_expiry_timestamp_seconds{certificate=\"successor\"} 253402207200",
            "spillway_operator_authority_changes_total{change=\"made\"} 1",
            "spillway_operator_authority_unaware_agents 2",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
