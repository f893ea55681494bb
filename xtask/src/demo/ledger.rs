//! The agent's own account of what it took and what became of it, read from `/v1/status`.

use anyhow::{Context as _, bail};
use serde::Deserialize;

use crate::demo::http;
use crate::demo::places::Places;

/// What `/v1/status` says, as far as it is shown here.
#[derive(Debug, Deserialize)]
pub(super) struct Ledger {
    pipelines: Vec<Pipeline>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Pipeline {
    name: String,
    accepted_events: u64,
    deliveries: Vec<Delivery>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Delivery {
    route: String,
    backend: String,
    state: String,
    routed_events: u64,
    delivered_events: u64,
    held_events: u64,
    imbalance_events: i64,
}

/// Asks the agent.
pub(super) fn read(admin: &str) -> anyhow::Result<Ledger> {
    let answer = http::get(admin, "/v1/status").context("asking the agent for its status")?;
    if answer.status != 200 {
        bail!("/v1/status answered {}: {}", answer.status, answer.text());
    }
    serde_json::from_value(answer.json()?).context("reading /v1/status")
}

impl Ledger {
    /// Returns one line: what was sent, and what each delivery has done with it.
    pub(super) fn line(&self, seconds: u64, sent: &Places, receiver_is_down: bool) -> String {
        let deliveries = self.deliveries().map(|(_, delivery)| match delivery.held_events {
            0 => format!("{} {}", delivery.backend, delivery.delivered_events),
            held => format!("{} {} +{held} held", delivery.backend, delivery.delivered_events),
        });
        let deliveries = deliveries.collect::<Vec<_>>().join(", ");
        let note = if receiver_is_down { "  (the receiver answers 503)" } else { "" };
        format!(
            "{seconds:>3} s  {:>4} events, {:>4} lines sent | delivered: {deliveries}{note}",
            sent.events(),
            sent.lines()
        )
    }

    /// Returns the whole account.
    pub(super) fn table(&self) -> String {
        let mut rows = vec![
            "the agent's own ledger".to_owned(),
            format!(
                "{:<46} {:>6} {:>11} {:>8} {:>9}  state",
                "pipeline/route -> backend", "routed", "delivered", "held", "imbalance"
            ),
        ];
        rows.extend(self.deliveries().map(|(pipeline, delivery)| {
            let name = format!("{}/{} -> {}", pipeline.name, delivery.route, delivery.backend);
            let Delivery { routed_events, delivered_events, held_events, imbalance_events, state, .. } = delivery;
            format!(
                "{name:<46} {routed_events:>6} {delivered_events:>11} {held_events:>8} {imbalance_events:>9}  {state}"
            )
        }));
        rows.join("\n")
    }

    /// Returns whether all that was sent is taken, and nothing of it is held.
    pub(super) fn is_settled(&self, sent: &Places) -> bool {
        let accepted: u64 = self.pipelines.iter().map(|pipeline| pipeline.accepted_events).sum();
        accepted == sent.events() + sent.lines() && self.deliveries().all(|(_, delivery)| delivery.held_events == 0)
    }

    fn deliveries(&self) -> impl Iterator<Item = (&Pipeline, &Delivery)> {
        self.pipelines.iter().flat_map(|pipeline| pipeline.deliveries.iter().map(move |delivery| (pipeline, delivery)))
    }
}
