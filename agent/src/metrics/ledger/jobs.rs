//! Redrives and replays that run: one sample per job. Those that are over are in `status` alone, so that the number of series
//! is bounded by the jobs at once.

use std::fmt;

use spillway_delivery::ledger::{JobReport, JobState, PipelineReport};

use super::{Families, Figure, Labels, of_pipeline};
use crate::metrics::count;

/// Writes the families.
pub(super) fn write(families: &mut Families<'_>, pipelines: &[PipelineReport]) -> fmt::Result {
    let gauges: [Figure<JobReport>; 6] = [
        ("job_selected_events", "Events that were there when the job began.", |one| one.selected_events),
        ("job_delivered_events", "Events of the job that the backend has.", |one| one.delivered_events),
        ("job_duplicate_events", "Events of the job that the backend had already.", |one| one.duplicate_events),
        ("job_rejected_events", "Events of the job that the backend refused for good.", |one| one.rejected_events),
        ("job_held_events", "Events of the job still to be sent.", |one| one.held_events),
        ("job_retrying", "Whether the last attempt of the job failed.", |one| {
            u64::from(one.state == JobState::Retrying)
        }),
    ];
    for (name, help, value) in gauges {
        families.gauge(name, help, each(pipelines).map(|(labels, job)| (labels, count(value(job)))))?;
    }
    families.gauge(
        "job_imbalance_events",
        "selected - delivered - duplicates - rejected - dropped - held: 0, or events were lost or counted twice.",
        each(pipelines).map(|(labels, job)| {
            let size = count(job.imbalance_events.unsigned_abs());
            (labels, if job.imbalance_events < 0 { -size } else { size })
        }),
    )
}

fn each(pipelines: &[PipelineReport]) -> impl Iterator<Item = (Labels<'_>, &JobReport)> {
    let jobs = pipelines.iter().flat_map(|pipeline| pipeline.jobs.iter().map(move |job| (pipeline, job)));
    jobs.filter(|(_, job)| job.ended.is_none()).map(|(pipeline, job)| {
        let mut labels = of_pipeline(pipeline);
        labels.extend([("job", &*job.id), ("kind", &*job.kind), ("route", &*job.route), ("backend", &*job.backend)]);
        (labels, job)
    })
}
