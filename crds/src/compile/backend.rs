//! A `Backend` or `ClusterBackend` object into its plan.

use std::sync::Arc;
use std::time::Duration;

use spillway_backends::BackendSettings;
use spillway_delivery::settings::{BreakerSettings, DeliverySettings, Metadata, OnUndeliverable, RateLimitSettings};

use super::BackendPlan;
use crate::kinds::backend::{BackendSpec, ClusterBackendSpec, DeliverySpec, MetadataSpec};
use crate::kinds::selector::LabelSelector;
use crate::manifest::error::{Problem, quoted};
use crate::manifest::object::Object;

/// Returns the plan of a destination of a namespace, or adds why there is none.
pub(super) fn plan(object: &Object, problems: &mut Vec<Problem>) -> Option<BackendPlan> {
    let spec: BackendSpec = super::pipeline::typed(object, problems)?;
    of(object, &spec, Some(object.namespace.as_str().into()), problems)
}

/// Returns the plan of a destination of the cluster and whom it grants, or adds why there is none.
pub(super) fn of_cluster(object: &Object, problems: &mut Vec<Problem>) -> Option<(BackendPlan, Option<LabelSelector>)> {
    let spec: ClusterBackendSpec = super::pipeline::typed(object, problems)?;
    let (allowed, secrets) = (spec.allowed_namespaces.selector.clone(), spec.secret_namespace.clone());
    let plan = of(object, &spec.into_destination(), secrets.map(Into::into), problems)?;
    if let Some(secret) = plan.settings.secrets().first().filter(|_| plan.secret_namespace.is_none()) {
        let problem =
            Problem::new(object.root.at("spec"), "spec.secretNamespace", "missing field: the spec names Secrets");
        problems.push(problem.found(quoted(&secret.name)).allowed("the namespace that the Secrets are in"));
    }
    Some((plan, allowed))
}

fn of(
    object: &Object,
    spec: &BackendSpec,
    secret_namespace: Option<Arc<str>>,
    problems: &mut Vec<Problem>,
) -> Option<BackendPlan> {
    let settings = spec.settings()?;
    validate(object, &settings, problems);
    Some(BackendPlan {
        uid: object.uid(),
        namespace: object.namespace.as_str().into(),
        name: object.name.as_str().into(),
        secret_namespace,
        settings,
        delivery: delivery(&spec.delivery),
        metadata: match spec.metadata {
            MetadataSpec::Full => Metadata::Full,
            MetadataSpec::None => Metadata::None,
        },
    })
}

/// Adds what the backend itself finds wrong, at the place of the field.
fn validate(object: &Object, settings: &BackendSettings, problems: &mut Vec<Problem>) {
    for problem in settings.validate() {
        let field = format!("spec.{}.{}", settings.member_name(), problem.path);
        problems.push(Problem::new(object.root.at(&field), &field, problem.message).allowed(problem.allowed));
    }
}

fn delivery(spec: &DeliverySpec) -> DeliverySettings {
    DeliverySettings {
        batch_bytes_max: spec.batch.max_bytes as usize,
        batch_events_max: spec.batch.max_events as usize,
        batch_wait_max: Duration::from_millis(spec.batch.max_wait_milliseconds.into()),
        in_flight_max: spec.max_in_flight as usize,
        timeout: Duration::from_secs(spec.timeout_seconds.into()),
        retry_initial: Duration::from_millis(spec.retry.initial_milliseconds.into()),
        retry_max: Duration::from_secs(spec.retry.max_seconds.into()),
        attempts_max: spec.retry.max_attempts,
        breaker: BreakerSettings {
            consecutive_failures: spec.circuit_breaker.consecutive_failures,
            failure_ratio_percent: spec.circuit_breaker.failure_ratio_percent,
            open: Duration::from_secs(spec.circuit_breaker.open_seconds.into()),
        },
        rate: spec.rate_limit.as_ref().map_or_else(RateLimitSettings::default, |limit| RateLimitSettings {
            bytes_per_second: limit.bytes_per_second,
            events_per_second: limit.events_per_second,
        }),
        // A matter of the route.
        on_undeliverable: OnUndeliverable::default(),
    }
}
