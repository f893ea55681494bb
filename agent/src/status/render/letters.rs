//! Dead letters and jobs in lines.

use std::fmt::Write;

use spillway_delivery::ledger::{DeadLettersReport, JobReport, JobState};

use super::super::units::{age, bytes, counted, plain};

/// Returns what to say of them; nothing where there never were any.
pub(super) fn lines(letters: &DeadLettersReport, now: i64) -> Vec<String> {
    if letters.kept_events == 0 {
        return Vec::new();
    }
    let mut text = format!("  {} of {} kept", counted(letters.held_events, "dead letter"), letters.kept_events);
    if let Some(oldest) = letters.oldest_held {
        write!(text, ", the oldest for {}", age(oldest, now)).unwrap_or_default();
    }
    let others = [("redriven", letters.redriven_events), ("rejected again", letters.rejected_again_events)];
    let dropped = letters.dropped_events.iter().map(|(reason, events)| (reason.as_str(), *events));
    for (what, events) in others.into_iter().chain(dropped).filter(|(_, events)| *events > 0) {
        write!(text, ", {events} {}", plain(what)).unwrap_or_default();
    }
    write!(text, "; {} of {}", bytes(letters.bytes), bytes(letters.bytes_max)).unwrap_or_default();
    let mut lines = vec![text];
    if letters.held_events > 0 {
        lines.push("  `spillway-agent dead-letters list` says why they were refused".to_owned());
    }
    lines
}

/// Returns what to say of the jobs that are not over.
pub(super) fn jobs(jobs: &[JobReport]) -> Vec<String> {
    let line = |job: &JobReport| {
        let state = match job.state {
            JobState::Waiting => "waiting",
            JobState::Retrying => "retrying",
            _ => "running",
        };
        let delivered = job.delivered_events + job.duplicate_events;
        let mut text = format!(
            "  {} {}, {} to {}: {state}, {delivered} of {} delivered",
            job.kind, job.id, job.route, job.backend, job.selected_events
        );
        for (what, events) in
            [("rejected", job.rejected_events), ("dropped", job.dropped_events), ("left", job.held_events)]
        {
            if events > 0 {
                write!(text, ", {events} {what}").unwrap_or_default();
            }
        }
        if let Some(error) = &job.last_error {
            write!(text, "; {error}").unwrap_or_default();
        }
        plain(&text)
    };
    jobs.iter().filter(|job| job.ended.is_none()).map(line).collect()
}
