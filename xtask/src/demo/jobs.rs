//! Jobs of a made-up wafer fab: each starts, tells its progress and its measures, and succeeds or fails.

use serde_json::{Value, json};

/// Jobs that run at once.
const TOOLS: &[&str] = &["etch-07", "etch-09", "litho-02", "cmp-01", "implant-03"];
/// Events of one job: started, progress and metrics by turns, finished.
const STEPS: u64 = 8;
/// Every so many jobs one fails.
const FAILS_EVERY: u64 = 7;

/// Makes events, each with a number of its own.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    next_number: u64,
    round: u64,
}

impl Jobs {
    /// Returns the next event of every tool.
    pub(super) fn next_events(&mut self) -> Vec<Value> {
        let (generation, step) = (self.round / STEPS, self.round % STEPS);
        self.round += 1;
        let jobs = TOOLS.iter().enumerate();
        let events = jobs.map(|(index, tool)| {
            let job = generation * TOOLS.len() as u64 + index as u64;
            self.next_number += 1;
            event(self.next_number, job, tool, step)
        });
        events.collect()
    }
}

fn event(number: u64, job: u64, tool: &str, step: u64) -> Value {
    let mut event = json!({
        "number": number,
        "job_id": format!("job-{job:05}"),
        "tool": tool,
        "lot": format!("L{:04}", 400 + job % 25),
    });
    let detail = match step {
        0 => json!({"kind": "started", "recipe": format!("{}-standard", tool.split('-').next().unwrap_or(tool))}),
        step if step == STEPS - 1 => {
            let failed = job % FAILS_EVERY == FAILS_EVERY - 1;
            json!({"kind": "finished", "status": if failed { "FAILED" } else { "SUCCEEDED" }})
        }
        step if step % 2 == 0 => json!({"kind": "metrics", "chamber_kelvin": 293.15 + f64::from(step as u32) * 4.2}),
        step => json!({"kind": "progress", "percent": step * 100 / STEPS}),
    };
    if let (Some(event), Value::Object(detail)) = (event.as_object_mut(), detail) {
        event.extend(detail);
    }
    event
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_job_starts_and_ends_and_some_fail() {
        let mut jobs = Jobs::default();
        let events: Vec<Value> = (0..STEPS * FAILS_EVERY).flat_map(|_| jobs.next_events()).collect();
        let count = |kind: &str| events.iter().filter(|event| event["kind"] == kind).count();
        assert_eq!(count("started"), count("finished"));
        assert_eq!(events.iter().filter(|event| event["status"] == "FAILED").count(), TOOLS.len());
        assert_eq!(events.last().unwrap()["number"], events.len());
    }
}
