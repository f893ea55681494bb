//! A `MonitoringPipeline` or `ClusterMonitoringPipeline` object into its plan: conditions compiled, references resolved.

use std::time::Duration;

use serde::de::DeserializeOwned;
use spillway_delivery::condition::{AVAILABLE, Condition, ConditionError};
use spillway_delivery::event::OriginBuilder;
use spillway_delivery::settings::{
    BackendRefSettings, Durability, Failback, LogSettings, OnUndeliverable, PipelineSettings, RouteSettings, Strategy,
    WhenBehind,
};

use super::namespaces::Reach;
use super::references::Targets;
use super::transforms::transforms;
use super::{ContainerLogsInput, EventsInput, FilesInput, Input, PipelinePlan};
use crate::kinds::monitoring_pipeline::{
    ClusterMonitoringPipelineSpec, DurabilitySpec, EventsSpec, FailbackSpec, FilesSpec, InputSpec, InputType,
    MonitoringPipelineSpec, OnUndeliverableSpec, OriginSpec, RouteSpec, Strategy as StrategySpec,
    WhenBehind as WhenBehindSpec,
};
use crate::manifest::error::{Problem, quoted};
use crate::manifest::object::Object;
use crate::paths::PathPattern;

/// Returns the plan of a pipeline of a namespace, or adds why there is none.
pub(super) fn plan(object: &Object, targets: &Targets<'_>, problems: &mut Vec<Problem>) -> Option<PipelinePlan> {
    let spec: MonitoringPipelineSpec = typed(object, problems)?;
    Some(of(object, Reach::of(&object.namespace), spec, targets, problems))
}

/// Returns the plan of a pipeline of the cluster, or adds why there is none.
pub(super) fn of_cluster(object: &Object, targets: &Targets<'_>, problems: &mut Vec<Problem>) -> Option<PipelinePlan> {
    let (selector, spec) = typed::<ClusterMonitoringPipelineSpec>(object, problems)?.into_parts();
    Some(of(object, targets.namespaces.selected(&selector), spec, targets, problems))
}

fn of(
    object: &Object,
    namespaces: Reach,
    spec: MonitoringPipelineSpec,
    targets: &Targets<'_>,
    problems: &mut Vec<Problem>,
) -> PipelinePlan {
    let mut routes = Vec::with_capacity(spec.routes.len());
    for (index, route) in spec.routes.iter().enumerate() {
        routes.push(RouteSettings {
            name: route.name.as_str().into(),
            condition: condition(object, index, route, problems),
            strategy: strategy(route),
            backends: references(object, index, route, targets, problems),
        });
    }
    PipelinePlan {
        settings: PipelineSettings {
            uid: object.uid(),
            namespace: object.namespace.as_str().into(),
            name: object.name.as_str().into(),
            log: log(&spec),
            transforms: transforms(object, &spec.inputs, &spec.transforms, problems),
            routes,
            origin: spec.origin.map(origin).unwrap_or_default(),
            suspend: spec.suspend,
        },
        namespaces,
        inputs: inputs(object, spec.inputs, problems),
    }
}

/// Returns the object's `spec` as its type; `None` when it has errors already.
pub(super) fn typed<T: DeserializeOwned>(object: &Object, problems: &mut Vec<Problem>) -> Option<T> {
    match serde_json::from_value(object.spec.clone()?) {
        Ok(spec) => Some(spec),
        Err(error) => {
            let message = format!("does not fit its kind: {error}");
            problems.push(Problem::new(object.root.at("spec"), "spec", message));
            None
        }
    }
}

fn condition(object: &Object, index: usize, route: &RouteSpec, problems: &mut Vec<Problem>) -> Option<Condition> {
    let text = route.condition.as_deref()?;
    let refused = |error| not_compiled(object, &format!("spec.routes[{index}].match"), text, error);
    Condition::compile(text).map_err(|error| problems.push(refused(error))).ok()
}

/// Returns what is wrong with the condition or the expression in a field.
pub(super) fn not_compiled(object: &Object, field: &str, text: &str, error: ConditionError) -> Problem {
    let noun = if field.ends_with("Expression") { "expression" } else { "condition" };
    let place = error.column.map(|column| format!(" at character {column} of the {noun}")).unwrap_or_default();
    let problem = Problem::new(object.root.at(field), field, format!("{}{place}", error.message));
    let problem = problem.found(quoted(text)).suggestion(error.suggestion);
    if error.message.contains("not available") { problem.allowed(AVAILABLE) } else { problem }
}

fn references(
    object: &Object,
    index: usize,
    route: &RouteSpec,
    targets: &Targets<'_>,
    problems: &mut Vec<Problem>,
) -> Vec<BackendRefSettings> {
    let mut references = Vec::with_capacity(route.backend_refs.len());
    let is_group = route.strategy == StrategySpec::FirstHealthy;
    for (position, reference) in route.backend_refs.iter().enumerate() {
        match targets.resolve(object, reference) {
            Ok(resolved) => {
                let when_behind = when_behind(if is_group { route.when_behind } else { reference.when_behind });
                let on_undeliverable = on_undeliverable(route);
                let settings = BackendRefSettings { on_undeliverable, when_behind, ..resolved };
                references.push((reference.priority.unwrap_or_default(), settings));
            }
            Err(mut problem) => {
                problem.field = format!("spec.routes[{index}].backendRefs[{position}].name");
                problem.position = object.root.at(&problem.field);
                problems.push(problem);
            }
        }
    }
    if is_group {
        // Of equal numbers the one that stands first.
        references.sort_by_key(|(priority, _)| *priority);
    }
    references.into_iter().map(|(_, settings)| settings).collect()
}

fn strategy(route: &RouteSpec) -> Strategy {
    match route.strategy {
        StrategySpec::All => Strategy::All,
        StrategySpec::FirstHealthy => Strategy::FirstHealthy(match route.failback.unwrap_or_default() {
            FailbackSpec::Leave => Failback::Leave,
            FailbackSpec::Backfill => Failback::Backfill,
        }),
    }
}

fn when_behind(spec: Option<WhenBehindSpec>) -> WhenBehind {
    match spec.unwrap_or_default() {
        WhenBehindSpec::Block => WhenBehind::Block,
        WhenBehindSpec::DropOldest => WhenBehind::DropOldest,
    }
}

fn on_undeliverable(route: &RouteSpec) -> OnUndeliverable {
    match route.on_undeliverable {
        OnUndeliverableSpec::DeadLetter => OnUndeliverable::DeadLetter,
        OnUndeliverableSpec::Drop => OnUndeliverable::Drop,
    }
}

fn log(spec: &MonitoringPipelineSpec) -> LogSettings {
    LogSettings {
        durability: match spec.durability {
            DurabilitySpec::Disk => Durability::Disk,
            DurabilitySpec::Process => Durability::Process,
            DurabilitySpec::Memory => Durability::Memory,
        },
        bytes_max: spec.buffer.max_bytes,
        retain: Duration::from_secs(spec.buffer.retain_seconds),
        drain: Duration::from_secs(spec.drain_seconds),
        dead_letters_bytes_max: spec.dead_letters.max_bytes,
    }
}

fn inputs(object: &Object, specs: Vec<InputSpec>, problems: &mut Vec<Problem>) -> Vec<Input> {
    specs.into_iter().enumerate().map(|(index, spec)| input(object, index, spec, problems)).collect()
}

fn input(object: &Object, index: usize, spec: InputSpec, problems: &mut Vec<Problem>) -> Input {
    let name = spec.name.into();
    match spec.r#type {
        InputType::Files => {
            if object.kind == "ClusterMonitoringPipeline" {
                let field = format!("spec.inputs[{index}].type");
                let problem =
                    Problem::new(object.root.at(&field), &field, "a ClusterMonitoringPipeline reads no files");
                problems.push(
                    problem.found("`Files`").allowed("`ContainerLogs`, `Events`; a MonitoringPipeline reads files"),
                );
            }
            let (include, start_at) =
                spec.files.map(|FilesSpec { include, start_at }| (include, start_at)).unwrap_or_default();
            let include = include.iter().enumerate().filter_map(|(position, text)| {
                let refused = |(message, allowed)| {
                    let field = format!("spec.inputs[{index}].files.include[{position}]");
                    let problem = Problem::new(object.root.at(&field), &field, message);
                    problems.push(problem.found(quoted(text)).allowed(allowed));
                };
                PathPattern::parse(text).map_err(refused).ok()
            });
            Input::Files(FilesInput { name, include: include.collect(), start_at })
        }
        InputType::Events => {
            let EventsSpec { pod_selector, authentication } = spec.events.unwrap_or_default();
            Input::Events(EventsInput { name, pod_selector, authentication })
        }
        InputType::ContainerLogs => {
            let logs = spec.container_logs.unwrap_or_default();
            Input::ContainerLogs(ContainerLogsInput {
                name,
                pod_selector: logs.pod_selector,
                containers: logs.containers,
                start_at: logs.start_at,
            })
        }
    }
}

fn origin(spec: OriginSpec) -> OriginBuilder {
    OriginBuilder {
        site_id: spec.site_id,
        instance_id: spec.instance_id,
        app: spec.app,
        app_version: spec.app_version,
        ..OriginBuilder::default()
    }
}
