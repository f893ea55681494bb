//! What the transforms of pipelines did since the start.

use std::fmt;

use spillway_delivery::ledger::{PipelineReport, TransformReport};

use super::{Families, Figure, Labels, of_pipeline, with};

fn of_transform<'a>(pipeline: &'a PipelineReport, transform: &'a TransformReport) -> Labels<'a> {
    with(with(of_pipeline(pipeline), "transform", &transform.name), "type", &transform.r#type)
}

fn each(pipelines: &[PipelineReport]) -> impl Iterator<Item = (&PipelineReport, &TransformReport)> {
    pipelines.iter().flat_map(|pipeline| pipeline.transforms.iter().map(move |transform| (pipeline, transform)))
}

/// Writes the families of transforms.
pub(super) fn write(families: &mut Families<'_>, pipelines: &[PipelineReport]) -> fmt::Result {
    let counters: [Figure<TransformReport>; 3] = [
        ("transform_in_events", "Events that came to a transform, since the start.", |one| one.in_events),
        ("transform_changed_events", "Events that a transform changed, since the start.", |one| one.changed_events),
        ("transform_dropped_events", "Events that a transform dropped, since the start.", |one| one.dropped_events),
    ];
    for (name, help, value) in counters {
        let samples = each(pipelines).map(|(pipeline, one)| (of_transform(pipeline, one), value(one)));
        families.counter(name, help, samples)?;
    }
    families.counter(
        "transform_failed_events",
        "Events for which a transform could not do all it is told, since the start, by reason.",
        each(pipelines).flat_map(|(pipeline, one)| {
            let entries = one.failed_events.iter();
            entries.map(move |(reason, events)| (with(of_transform(pipeline, one), "reason", reason), *events))
        }),
    )
}
