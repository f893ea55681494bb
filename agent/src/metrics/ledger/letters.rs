//! Dead letters, one sample per pipeline.

use std::fmt;

use spillway_delivery::ledger::{DeadLettersReport, PipelineReport};

use super::{Families, Figure, each, of_pipeline, with};
use crate::metrics::count;

/// Writes the families.
pub(super) fn write(families: &mut Families<'_>, pipelines: &[PipelineReport]) -> fmt::Result {
    let counters: [Figure<DeadLettersReport>; 3] = [
        ("dead_letters_kept_events", "Events that a backend refused for good and that were kept.", |one| {
            one.kept_events
        }),
        ("dead_letters_redriven_events", "Dead letters whose event a backend has now.", |one| one.redriven_events),
        (
            "dead_letters_rejected_again_events",
            "Dead letters that were redriven and refused again: a new letter took their place.",
            |one| one.rejected_again_events,
        ),
    ];
    for (name, help, value) in counters {
        families.counter(name, help, each(pipelines, |one| value(&one.dead_letters)))?;
    }
    families.counter(
        "dead_letters_dropped_events",
        "Dead letters given up, by reason.",
        pipelines.iter().flat_map(|one| {
            let entries = one.dead_letters.dropped_events.iter();
            entries.map(move |(reason, events)| (with(of_pipeline(one), "reason", reason), *events))
        }),
    )?;
    let gauges: [Figure<DeadLettersReport>; 3] = [
        ("dead_letters_held_events", "Dead letters that are there, counted by scanning.", |one| one.held_events),
        ("dead_letters_bytes", "Bytes of the dead letters on disk.", |one| one.bytes),
        ("dead_letters_max_bytes", "Most bytes of the dead letters; what is over is dropped.", |one| one.bytes_max),
    ];
    for (name, help, value) in gauges {
        families.gauge(name, help, each(pipelines, |one| count(value(&one.dead_letters))))?;
    }
    families.gauge(
        "dead_letters_imbalance_events",
        "kept - redriven - rejected again - dropped - held: 0, or letters were lost or counted twice.",
        each(pipelines, |one| {
            let size = count(one.dead_letters.imbalance_events.unsigned_abs());
            if one.dead_letters.imbalance_events < 0 { -size } else { size }
        }),
    )
}
