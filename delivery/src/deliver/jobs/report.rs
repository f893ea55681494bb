//! Jobs as they are told.

use super::{Job, JobEnd, JobKind, Outcome, dead_letters};
use crate::deliver::desk::Desk;
use crate::ledger::{DeliveryState, JobReport, JobState, PipelineReport};

impl Desk {
    /// Adds the jobs' figures to those of the pipeline. Letters that a job has resolved are not held any more.
    pub(in crate::deliver) fn report_jobs(&self, report: &mut PipelineReport) {
        let running = self.jobs.running().clone();
        for job in self.jobs() {
            let mut told = outline(&job);
            if let (Some(running), None) = (running.get(&job.id), &job.outcome) {
                let figures = running.status.report(&running.log);
                told.backend_type = figures.backend_type.to_string();
                told.state =
                    if figures.state == DeliveryState::Healthy { JobState::Running } else { JobState::Retrying };
                told.delivered_events = figures.delivered_events;
                told.duplicate_events = figures.duplicate_events;
                told.rejected_events = figures.rejected_events;
                told.dropped_events = figures.dropped_events.values().sum();
                told.attempts = figures.attempts;
                told.last_error = figures.last_error.filter(|_| figures.state != DeliveryState::Healthy);
                let resolved =
                    told.delivered_events + told.duplicate_events + told.rejected_events + told.dropped_events;
                match job.kind {
                    JobKind::Redrive if self.is_settled(&job.id) => {}
                    JobKind::Redrive => {
                        told.held_events = told.selected_events.saturating_sub(resolved);
                        let letters = &mut report.dead_letters;
                        letters.held_events = letters.held_events.saturating_sub(resolved);
                        letters.redriven_events += told.delivered_events + told.duplicate_events;
                        letters.rejected_again_events += told.rejected_events;
                    }
                    JobKind::Replay => {
                        told.held_events = figures.held_events;
                        told.imbalance_events = told.selected_events as i64 - (resolved + told.held_events) as i64;
                    }
                }
            }
            report.jobs.push(told);
        }
    }
}

impl Desk {
    fn is_settled(&self, id: &str) -> bool {
        self.dead_letters.shelf.get().is_some_and(|shelf| dead_letters::is_settled(&shelf.progress(), id))
    }
}

fn outline(job: &Job) -> JobReport {
    let mut told = JobReport {
        id: job.id.clone(),
        kind: match job.kind {
            JobKind::Redrive => "redrive",
            JobKind::Replay => "replay",
        }
        .to_owned(),
        state: JobState::Waiting,
        route: job.route.to_string(),
        backend: job.backend.to_string(),
        created: job.created,
        from_seq: job.from,
        end_seq: job.end,
        selected_events: job.selected,
        held_events: job.selected,
        ..JobReport::default()
    };
    if let Some(Outcome { end, ended, delivered, duplicates, rejected, dropped, reason }) = &job.outcome {
        told.state = match (end, reason) {
            (JobEnd::Done, _) => JobState::Done,
            (JobEnd::Cancelled, None) => JobState::Cancelled,
            (JobEnd::Cancelled, Some(_)) => JobState::Failed,
        };
        told.last_error.clone_from(reason);
        told.ended = Some(*ended);
        told.delivered_events = *delivered;
        told.duplicate_events = *duplicates;
        told.rejected_events = *rejected;
        told.dropped_events = *dropped;
        let resolved = delivered + duplicates + rejected + dropped;
        told.held_events = job.selected.saturating_sub(resolved);
        // What a job that is done did not meet any more was lost.
        if *end == JobEnd::Done {
            told.held_events = 0;
            told.imbalance_events = job.selected as i64 - resolved as i64;
        }
    }
    told
}
