//! What this process says of itself to an operator, and the parts that follow one.

use std::sync::Arc;

use spillway_crds::kinds::CLUSTER;
use spillway_crds::served::{BackendCondition, BackendReport};
use spillway_delivery::clock::Clock;
use spillway_delivery::deliver::{Engine, Standing};
use spillway_delivery::ledger::{BreakerState, DeliveryState};
use tokio::sync::watch;

use super::Parts;
use super::node_agent::NodeAgent;
use crate::config::served::client::Client;
use crate::config::served::follow::{self, Follower, Host};
use crate::config::served::seal::StateKey;
use crate::config::served::secrets::ServedSecrets;
use crate::config::served::store::Store;
use crate::config::state::ServedReport;
use crate::exit::Failure;
use crate::overview::Overview;
use crate::pods::{PodsSender, TokenKeysSender};
use crate::settings::{OperatorSettings, Settings};

/// The process, as an operator hears of it.
#[derive(Debug)]
struct Process {
    engine: Arc<Engine>,
    overview: Arc<Overview>,
}

/// Where what an operator serves besides manifests is put.
#[derive(Debug)]
pub(super) struct Taking {
    pub(super) secrets: ServedSecrets,
    pub(super) pods: PodsSender,
    pub(super) token_keys: TokenKeysSender,
    /// The authorities that it tells of.
    pub(super) trusted: watch::Sender<String>,
}

/// Returns what follows the operator of `served`.
pub(super) fn follower(
    parts: &Parts,
    settings: &Settings,
    served: &OperatorSettings,
    (clock, taking): (&Clock, Taking),
) -> Result<Follower, Failure> {
    let key = served.state_key.as_deref().map(StateKey::read).transpose();
    let key = key.map_err(|error| Failure::failed("state-key", error))?;
    parts.overview.with_config(|config| config.served = Some(ServedReport::default()));
    Ok(Follower::new(follow::Parts {
        client: Client::new(served.clone()),
        store: Store::new(&settings.data_dir, key),
        secrets: taking.secrets,
        pods: taking.pods,
        token_keys: taking.token_keys,
        trusted: taking.trusted,
        host: Arc::new(Process { engine: parts.engine.clone(), overview: parts.overview.clone() }),
        clock: clock.clone(),
        agent: parts.engine.agent_id(),
    }))
}

impl Host for Process {
    fn backends(&self) -> Vec<BackendReport> {
        self.engine.standings().iter().filter_map(report).collect()
    }

    fn holding(&self) -> Vec<String> {
        self.engine.holding().iter().filter_map(|uid| uid.split_once('.')).map(|(of, name)| object(of, name)).collect()
    }

    fn note(&self, change: &mut dyn FnMut(&mut ServedReport)) {
        self.overview.with_config(|config| config.served.iter_mut().for_each(change));
    }
}

/// Returns what is worth a word of a delivery.
fn report(standing: &Standing) -> Option<BackendReport> {
    if standing.state != DeliveryState::Retrying {
        return None;
    }
    Some(BackendReport {
        object: object(&standing.namespace, &standing.pipeline),
        route: standing.route.to_string(),
        backend: named(&standing.backend_uid),
        state: match standing.breaker {
            BreakerState::Closed => BackendCondition::Retrying,
            BreakerState::Open | BreakerState::HalfOpen => BackendCondition::Unreachable,
        },
        fault: standing.fault.map(|kind| kind.as_str().to_owned()).unwrap_or_default(),
        error: match standing.last_error.clone().unwrap_or_default() {
            error if NodeAgent::is_meant(&standing.backend_uid) => format!("agent of the node: {error}"),
            error => error,
        },
        since_unix_seconds: u64::try_from(standing.since / 1_000_000_000).unwrap_or_default(),
    })
}

/// Returns a pipeline as errors name it.
fn object(namespace: &str, name: &str) -> String {
    match namespace {
        CLUSTER => format!("ClusterMonitoringPipeline {name}"),
        namespace => format!("MonitoringPipeline {namespace}/{name}"),
    }
}

/// Returns `<namespace>.<name>` with nothing for a namespace that is none.
fn named(uid: &str) -> String {
    uid.strip_prefix(CLUSTER).unwrap_or(uid).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use spillway_crds::served::FORBIDDEN;
    use spillway_delivery::backend::FaultKind;

    #[test]
    fn only_what_fails_is_told_and_by_the_names_that_the_operator_uses() {
        let standing = Standing {
            namespace: CLUSTER.into(),
            pipeline: "all".into(),
            route: "r".into(),
            backend_uid: "_cluster.lake".into(),
            state: DeliveryState::Retrying,
            since: 1_700_000_000_123_456_789,
            breaker: BreakerState::Open,
            fault: Some(FaultKind::Forbidden),
            last_error: Some("refused".into()),
        };
        let told = report(&standing).unwrap();
        assert_eq!((told.object.as_str(), told.backend.as_str()), ("ClusterMonitoringPipeline all", ".lake"));
        assert_eq!(told.fault, FORBIDDEN);
        assert_eq!((told.state, told.since_unix_seconds), (BackendCondition::Unreachable, 1_700_000_000));
        let own = Standing {
            namespace: "fab12".into(),
            backend_uid: "fab12.lake".into(),
            breaker: BreakerState::Closed,
            ..standing.clone()
        };
        let told = report(&own).unwrap();
        assert_eq!((told.object.as_str(), told.backend.as_str()), ("MonitoringPipeline fab12/all", "fab12.lake"));
        assert_eq!(told.state, BackendCondition::Retrying);
        for state in [DeliveryState::Healthy, DeliveryState::Suspended, DeliveryState::Draining, DeliveryState::Standby]
        {
            assert_eq!(report(&Standing { state, ..standing.clone() }), None);
        }
    }
}
