//! From plans to what the engine runs: backends built, references bound.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use spillway_backends::destinations::Limits;
use spillway_backends::{
    BODIES_KEPT_BYTES_MAX, BuildContext, BuildError, Destinations, SecretDir, SecretSource, Secrets,
};
use spillway_crds::kinds::CLUSTER;
use spillway_crds::served::{NODE_AGENT, Revoked};
use spillway_crds::{BackendPlan, PipelinePlan, standalone};
use spillway_delivery::backend::{Backend, DeliveryName};
use spillway_delivery::clock::Clock;
use spillway_delivery::deliver::{DeliverySpec, Engine};
use spillway_delivery::event::Arenas;
use spillway_delivery::intake::Pipeline;
use spillway_delivery::log::DeliveryKey;
use spillway_delivery::settings::{BreakerSettings, DeliverySettings, Metadata, WhenBehind};

use super::Served;
use super::node_agent::NodeAgent;
use crate::config::diff::{Change, Unit};
use crate::config::manifests::Read;
use crate::config::served::secrets::ServedSecrets;
use crate::settings::Settings;

/// What kind of backend what is handed over goes to.
const HANDED_OVER: &str = "NodeAgent";

/// How long the agent of the node may take for a batch at the end of a pod, and how soon it is asked again.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(5);
const HAND_OVER_AGAIN: Duration = Duration::from_millis(100);

/// Refuses what an agent without an operator does not run, with all of it at once.
fn check_standalone(plan: &PipelinePlan) -> anyhow::Result<()> {
    let refused: Vec<String> = standalone::refused(plan).iter().map(ToString::to_string).collect();
    if !refused.is_empty() {
        bail!("{}", refused.join("; "));
    }
    Ok(())
}

/// Namespace and name of a pipeline.
type Names = (Arc<str>, Arc<str>);

/// The backends of a configuration.
#[derive(Debug)]
pub(super) struct Backends<'a> {
    all: BTreeMap<&'a Arc<str>, &'a BackendPlan>,
    revoked: &'a [Revoked],
}

impl<'a> Backends<'a> {
    /// Returns those of what was read.
    pub(super) fn of(read: &'a Read) -> Self {
        let all = read.compiled.backends.iter().map(|backend| (&backend.uid, backend));
        Self { all: all.collect(), revoked: &read.revoked }
    }

    /// Returns the backend that is named so for good, as far as pipelines of that namespace may use it.
    fn find(&self, namespace: &str, uid: &Arc<str>) -> Option<&'a BackendPlan> {
        let is_revoked = self.revoked.iter().any(|revoked| revoked.is_about(namespace, uid));
        self.all.get(uid).copied().filter(|_| !is_revoked)
    }
}

/// Where values of secrets come from, which also says whose the manifests are.
#[derive(Debug, Clone)]
enum SecretPlace {
    /// This machine: this is a standalone run.
    Machine(Arc<dyn SecretSource>),
    /// The operator.
    Served(ServedSecrets),
}

/// Binds the references of pipelines to backends of this machine.
#[derive(Debug, Clone)]
pub(super) struct Binder {
    secrets: SecretPlace,
    filesystem_root: std::path::PathBuf,
    limits: Arc<Limits>,
    clock: Clock,
    bodies: Arenas,
    agent: Arc<str>,
    /// Most bytes of all logs together.
    bytes_max: Option<u64>,
    /// Where a sidecar sends what it must not deliver itself.
    node_agent: Option<NodeAgent>,
}

impl Binder {
    /// Returns the binder of an agent.
    pub(super) fn new(settings: &Settings, clock: &Clock, agent: Arc<str>, served: Option<&Served>) -> Self {
        let machine = || SecretDir::new(settings.secrets.dir.clone(), settings.secrets.variables.clone());
        Self {
            secrets: served.map_or_else(
                || SecretPlace::Machine(Arc::new(machine())),
                |served| SecretPlace::Served(served.secrets.clone()),
            ),
            filesystem_root: settings.filesystem_root.clone(),
            limits: Arc::new(settings.limits.clone()),
            clock: clock.clone(),
            bodies: Arenas::keeping(BODIES_KEPT_BYTES_MAX),
            agent,
            bytes_max: settings.data_bytes_max,
            node_agent: served.and_then(|served| NodeAgent::of(settings, served.trusted.clone())),
        }
    }

    /// Brings a pipeline of the engine to what `unit` says; an edit makes anew what `change` names, and what is new. What a
    /// removed reference of an earlier process still holds goes to its backend as `all` has it now, unless it may not.
    pub(super) async fn apply(
        &self,
        engine: &Engine,
        unit: &Unit,
        change: Option<&Change>,
        all: &Backends<'_>,
    ) -> anyhow::Result<Arc<Pipeline>> {
        if matches!(self.secrets, SecretPlace::Machine(_)) {
            check_standalone(&unit.plan)?;
        }
        let unbound = engine.unbound(&unit.plan.settings).await;
        let wanted = |key: &DeliveryKey| {
            unbound.contains(key) || change.is_some_and(|change| change.backends.contains(&key.backend_uid))
        };
        let specs = self.deliveries(unit, wanted)?;
        let names = names_of(&unit.plan);
        let removed = |key: &DeliveryKey| {
            let backend = all.find(&unit.plan.settings.namespace, &key.backend_uid)?;
            self.delivery(&names, &key.route, backend, backend.name.clone()).ok()
        };
        let mut settings = unit.plan.settings.clone();
        // A small volume has small segments.
        let bytes_max = self.bytes_max.unwrap_or(u64::MAX);
        settings.log.bytes_max = settings.log.bytes_max.min(bytes_max);
        settings.log.dead_letters_bytes_max = settings.log.dead_letters_bytes_max.min(bytes_max / 4);
        Ok(engine.apply(settings, specs, &removed).await?)
    }

    fn deliveries(&self, unit: &Unit, wanted: impl Fn(&DeliveryKey) -> bool) -> anyhow::Result<Vec<DeliverySpec>> {
        let names = names_of(&unit.plan);
        let mut deliveries = Vec::new();
        for route in &unit.plan.settings.routes {
            for reference in &route.backends {
                let key = DeliveryKey { route: route.name.clone(), backend_uid: reference.uid.clone() };
                if !wanted(&key) {
                    continue;
                }
                let missing = || anyhow!("backend {} of route {} is not there", reference.name, route.name);
                let backend = unit.backends.get(&reference.uid).ok_or_else(missing)?;
                self.check_secrets(backend)?;
                let unusable = || format!("backend {} of route {}", reference.name, route.name);
                let made = self.delivery(&names, &route.name, backend, backend.name.clone());
                let mut delivery = made.with_context(unusable)?;
                delivery.settings.on_undeliverable = reference.on_undeliverable;
                delivery.when_behind = reference.when_behind;
                deliveries.push(delivery);
            }
        }
        Ok(deliveries)
    }

    /// Refuses a backend of which this machine did not keep what it needs: it would fail until the operator answers.
    fn check_secrets(&self, backend: &BackendPlan) -> anyhow::Result<()> {
        if let SecretPlace::Served(secrets) = &self.secrets
            && let Some(secret) = secrets.not_kept(backend)
        {
            bail!(
                "backend {} needs secret {secret}, whose value is not stored on this machine (see --state-key); waits for \
                 the operator",
                backend.name
            );
        }
        Ok(())
    }

    /// Builds the delivery of a pipeline (namespace and name) from `route` to `backend`, which calls itself `known_as` where
    /// it names files and keys.
    pub(super) fn delivery(
        &self,
        names: &Names,
        route: &Arc<str>,
        backend: &BackendPlan,
        known_as: Arc<str>,
    ) -> Result<DeliverySpec, BuildError> {
        let name = DeliveryName {
            namespace: names.0.clone(),
            pipeline: names.1.clone(),
            route: route.clone(),
            backend: known_as,
            agent: self.agent.clone(),
        };
        Ok(DeliverySpec {
            route: route.clone(),
            backend_uid: backend.uid.clone(),
            backend_name: backend.name.clone(),
            backend_type: backend.settings.type_name().into(),
            backend: self.build(name, backend)?,
            settings: backend.delivery.clone(),
            when_behind: WhenBehind::Block,
        })
    }

    fn build(&self, name: DeliveryName, backend: &BackendPlan) -> Result<Arc<dyn Backend>, BuildError> {
        match &self.node_agent {
            Some(node) if NodeAgent::is_meant(&backend.uid) => self.build_to_node(node, name),
            _ => spillway_backends::build(&backend.settings, self.context(name, backend)),
        }
    }

    fn build_to_node(&self, node: &NodeAgent, name: DeliveryName) -> Result<Arc<dyn Backend>, BuildError> {
        let settings = node.settings((&name.namespace, &name.pipeline), &name.route);
        let context = BuildContext {
            name,
            // The agent of the node adds its own.
            metadata: Metadata::None,
            secrets: Secrets::new(node.secrets()),
            filesystem_root: self.filesystem_root.clone(),
            allow_absolute: false,
            destinations: Destinations::Any,
            clock: self.clock.clone(),
            bodies: self.bodies.clone(),
        };
        spillway_backends::build(&settings, context)
    }

    /// Returns how what a delivery of a pipeline (namespace and name) holds is handed to the agent of the node, as fast as that
    /// takes it; `None` where this is no sidecar.
    pub(super) fn to_node(
        &self,
        (namespace, pipeline): (&Arc<str>, &Arc<str>),
        DeliveryKey { route, backend_uid }: DeliveryKey,
        backend_name: Arc<str>,
    ) -> Option<DeliverySpec> {
        let name = DeliveryName {
            namespace: namespace.clone(),
            pipeline: pipeline.clone(),
            route: route.clone(),
            backend: NODE_AGENT.into(),
            agent: self.agent.clone(),
        };
        let backend = self.build_to_node(self.node_agent.as_ref()?, name).ok()?;
        // It may come back within the time that is left.
        let breaker = BreakerSettings {
            consecutive_failures: u32::MAX,
            failure_ratio_percent: 100,
            ..BreakerSettings::default()
        };
        Some(DeliverySpec {
            route,
            backend_uid,
            backend_name,
            backend_type: HANDED_OVER.into(),
            backend,
            settings: DeliverySettings {
                timeout: HAND_OVER_TIMEOUT,
                retry_initial: HAND_OVER_AGAIN,
                retry_max: HAND_OVER_AGAIN,
                batch_wait_max: Duration::ZERO,
                breaker,
                ..DeliverySettings::default()
            },
            when_behind: WhenBehind::Block,
        })
    }

    fn context(&self, name: DeliveryName, backend: &BackendPlan) -> BuildContext {
        BuildContext {
            name,
            metadata: backend.metadata,
            secrets: Secrets::new(match &self.secrets {
                SecretPlace::Machine(source) => source.clone(),
                SecretPlace::Served(secrets) => secrets.of(backend),
            }),
            filesystem_root: self.filesystem_root.clone(),
            // Manifests from files are the machine's own; those that are served are anybody's.
            allow_absolute: matches!(self.secrets, SecretPlace::Machine(_)),
            destinations: self.destinations(backend),
            clock: self.clock.clone(),
            bodies: self.bodies.clone(),
        }
    }

    /// Returns what a backend may connect to. Whoever may write a `ClusterBackend`, or files of this machine, is trusted with
    /// its network; whoever may write a `Backend` in a namespace is a tenant.
    fn destinations(&self, backend: &BackendPlan) -> Destinations {
        match &self.secrets {
            SecretPlace::Served(_) if *backend.namespace != *CLUSTER => Destinations::Limited(self.limits.clone()),
            SecretPlace::Served(_) | SecretPlace::Machine(_) => Destinations::Any,
        }
    }
}

fn names_of(plan: &PipelinePlan) -> Names {
    (plan.settings.namespace.clone(), plan.settings.name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use spillway_crds::{Document, compile};

    #[test]
    fn what_a_namespace_may_not_use_any_more_is_not_found_for_it() {
        let text =
            "apiVersion: spillway.dev/v1alpha1\nkind: ClusterBackend\nmetadata: {name: lake}\nspec: {type: Stdout}\n";
        let revoked = vec![Revoked { namespace: "a".into(), backend: "lake".into() }];
        let read = Read { compiled: compile(&[Document::new("a.yaml", text)]), revoked, ..Read::default() };
        let found = |namespace: &str| Backends::of(&read).find(namespace, &"_cluster.lake".into()).is_some();
        assert_eq!((found("a"), found("b")), (false, true));
    }

    #[test]
    fn all_that_is_refused_is_told_at_once() {
        let selector = "{podSelector: {matchLabels: {app: etcher}}}";
        let text = format!(
            "apiVersion: spillway.dev/v1alpha1\nkind: Backend\nmetadata: {{name: out}}\nspec: {{type: Stdout}}\n---\n\
             apiVersion: spillway.dev/v1alpha1\nkind: MonitoringPipeline\nmetadata: {{name: jobs}}\nspec:\n  inputs:\n  \
             - {{name: logs, type: ContainerLogs, containerLogs: {selector}}}\n  \
             - {{name: pushed, type: Events, events: {selector}}}\n  routes:\n  \
             - {{name: all, backendRefs: [{{name: out}}]}}\n"
        );
        let checked = |text: &str| check_standalone(&compile(&[Document::new("a.yaml", text)]).pipelines[0]);
        assert!(checked(&text.replace(selector, "{}")).is_ok());
        let error = checked(&text).unwrap_err().to_string();
        assert!(error.starts_with("spec.inputs[0].containerLogs.podSelector: a standalone run"), "{error}");
        assert!(error.contains("; spec.inputs[1].events.podSelector: a standalone run"), "{error}");
    }
}
