//! From plans to running pipelines: backends built, logs opened, deliveries started.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use spillway_backends::{BuildContext, BuildError, SecretDir, SecretSource};
use spillway_crds::kinds::selector::PodSelector;
use spillway_crds::{BackendPlan, Compiled, Input, PipelinePlan};
use spillway_delivery::backend::DeliveryName;
use spillway_delivery::clock::Clock;
use spillway_delivery::deliver::{DeliverySpec, Engine};
use spillway_delivery::intake::Pipeline;
use spillway_delivery::log::DeliveryKey;

use crate::exit::Failure;
use crate::settings::Settings;
use crate::status::Excluded;

/// One pipeline that runs, with what its sources need to know.
#[derive(Debug)]
pub(super) struct Opened {
    /// The pipeline.
    pub(super) pipeline: Arc<Pipeline>,
    /// Where its data comes from.
    pub(super) inputs: Vec<Input>,
}

/// What came of the plans.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// The pipelines that run.
    pub(super) opened: Vec<Opened>,
    /// Those that cannot, and why.
    pub(super) excluded: Vec<Excluded>,
}

/// Opens every pipeline. One that cannot be opened is left out and the others run; without any there is nothing to do.
pub(super) async fn open(
    engine: &Engine,
    settings: &Settings,
    clock: &Clock,
    compiled: Compiled,
) -> Result<Outcome, Failure> {
    let builder = Builder {
        backends: compiled.backends.iter().map(|backend| (backend.uid.clone(), backend)).collect(),
        secrets: Arc::new(SecretDir::new(settings.secrets.dir.clone(), settings.secrets.variables.clone())),
        settings,
        clock,
        agent: engine.agent_id(),
    };
    let mut outcome = Outcome::default();
    for plan in compiled.pipelines {
        let label = format!("MonitoringPipeline {}/{}", plan.settings.namespace, plan.settings.name);
        match open_one(engine, &builder, plan).await {
            Ok(opened) => outcome.opened.push(opened),
            Err(error) => {
                let error = format!("{error:#}");
                tracing::error!(object = %label, %error, "pipeline is left out");
                outcome.excluded.push(Excluded { object: label, errors: vec![error] });
            }
        }
    }
    if let (true, Some(first)) = (outcome.opened.is_empty(), outcome.excluded.first()) {
        let error = anyhow!("no pipeline can be opened; {}: {}", first.object, first.errors.join("; "));
        return Err(Failure::failed("no-pipeline", error));
    }
    Ok(outcome)
}

async fn open_one(engine: &Engine, builder: &Builder<'_>, plan: PipelinePlan) -> anyhow::Result<Opened> {
    check_inputs(&plan)?;
    let deliveries = builder.deliveries(&plan)?;
    // What a removed reference still holds goes to the backend as it is now, where its manifest is still there.
    let names = (plan.settings.namespace.clone(), plan.settings.name.clone());
    let removed = |key: &DeliveryKey| {
        let backend = builder.backends.get(&key.backend_uid)?;
        builder.delivery(&names, &key.route, backend).ok()
    };
    let pipeline = engine.add(plan.settings, deliveries, &removed).await?;
    Ok(Opened { pipeline, inputs: plan.inputs })
}

/// Refuses what an agent without an operator cannot know. Reading every pod instead would deliver what nobody asked for.
fn check_inputs(plan: &PipelinePlan) -> anyhow::Result<()> {
    for input in &plan.inputs {
        let Input::ContainerLogs(logs) = input else {
            continue;
        };
        if logs.pod_selector != PodSelector::default() {
            bail!(
                "input {}: found a podSelector, allowed in a standalone run: {{}}, since it does not know the labels of \
                 pods; leave podSelector out, or select by `containers` or by `match` on origin.pod",
                logs.name
            );
        }
    }
    Ok(())
}

/// Namespace and name of a pipeline.
type Names = (Arc<str>, Arc<str>);

/// Builds the deliveries of pipelines.
struct Builder<'a> {
    backends: BTreeMap<Arc<str>, &'a BackendPlan>,
    secrets: Arc<dyn SecretSource>,
    settings: &'a Settings,
    clock: &'a Clock,
    agent: Arc<str>,
}

impl Builder<'_> {
    fn deliveries(&self, plan: &PipelinePlan) -> anyhow::Result<Vec<DeliverySpec>> {
        let names = (plan.settings.namespace.clone(), plan.settings.name.clone());
        let mut deliveries = Vec::new();
        for route in &plan.settings.routes {
            for reference in &route.backends {
                let missing = || anyhow!("backend {} of route {} is not there", reference.name, route.name);
                let backend = self.backends.get(&reference.uid).ok_or_else(missing)?;
                let unusable = || format!("backend {} of route {}", reference.name, route.name);
                deliveries.push(self.delivery(&names, &route.name, backend).with_context(unusable)?);
            }
        }
        Ok(deliveries)
    }

    /// Builds the delivery of a pipeline (namespace and name) from `route` to `backend`.
    fn delivery(&self, names: &Names, route: &Arc<str>, backend: &BackendPlan) -> Result<DeliverySpec, BuildError> {
        let name = DeliveryName {
            namespace: names.0.clone(),
            pipeline: names.1.clone(),
            route: route.clone(),
            backend: backend.name.clone(),
            agent: self.agent.clone(),
        };
        Ok(DeliverySpec {
            route: route.clone(),
            backend_uid: backend.uid.clone(),
            backend_name: backend.name.clone(),
            backend_type: backend.settings.type_name().into(),
            backend: spillway_backends::build(&backend.settings, self.context(name, backend))?,
            settings: backend.delivery.clone(),
        })
    }

    fn context(&self, name: DeliveryName, backend: &BackendPlan) -> BuildContext {
        BuildContext {
            name,
            metadata: backend.metadata,
            secrets: self.secrets.clone(),
            filesystem_root: self.settings.filesystem_root.clone(),
            // Manifests from files are the machine's own: this is the standalone run.
            allow_absolute: true,
            clock: self.clock.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spillway_crds::{Document, compile};

    fn logs_of(settings: &str) -> anyhow::Result<()> {
        let text = format!(
            "apiVersion: spillway.dev/v1alpha1\nkind: Backend\nmetadata: {{name: out}}\nspec: {{type: Stdout}}\n---\n\
             apiVersion: spillway.dev/v1alpha1\nkind: MonitoringPipeline\nmetadata: {{name: jobs}}\nspec:\n  inputs:\n  \
             - {{name: logs, type: ContainerLogs, containerLogs: {settings}}}\n  routes:\n  \
             - {{name: all, backendRefs: [{{name: out}}]}}\n"
        );
        let compiled = compile(&[Document::new("a.yaml", text)]);
        assert!(compiled.errors.is_empty(), "{:?}", compiled.errors);
        check_inputs(&compiled.pipelines[0])
    }

    #[test]
    fn labels_of_pods_are_not_guessed() {
        assert!(logs_of("{}").is_ok());
        assert!(logs_of("{containers: [main]}").is_ok());
        let error = logs_of("{podSelector: {matchLabels: {app: etcher}}}").unwrap_err().to_string();
        assert!(error.starts_with("input logs: found a podSelector, allowed in a standalone run: {}"), "{error}");
    }
}
