//! What people may ask of a pipeline besides its deliveries: its dead letters, and jobs.

use std::sync::Arc;

use super::Engine;
use super::dead_letters::DeadLetters;
use super::jobs::{Hand, Jobs, Workshop};
use crate::intake::Pipeline;
use crate::ledger::PipelineReport;

/// One pipeline's desk.
#[derive(Debug)]
pub struct Desk {
    pub(super) pipeline: Arc<Pipeline>,
    pub(super) dead_letters: Arc<DeadLetters>,
    pub(super) jobs: Jobs,
}

impl Desk {
    /// Opens the desk of a pipeline, and goes on with its jobs where jobs are served.
    pub(super) async fn open(pipeline: &Arc<Pipeline>, dead_letters: Arc<DeadLetters>, hand: Hand) -> Arc<Self> {
        dead_letters.open_if_there().await;
        let resumes = hand.workshop.get().is_some();
        let jobs = Jobs::new(hand, pipeline.uid());
        let desk = Arc::new(Self { pipeline: pipeline.clone(), dead_letters, jobs });
        if resumes {
            desk.resume().await;
        }
        desk
    }

    /// Returns the pipeline.
    pub fn pipeline(&self) -> &Arc<Pipeline> {
        &self.pipeline
    }

    /// Returns its dead letters.
    pub fn dead_letters(&self) -> &DeadLetters {
        &self.dead_letters
    }

    /// Adds its figures to those of the pipeline.
    fn report(&self, report: &mut PipelineReport) {
        report.dead_letters = self.dead_letters.report();
        self.report_jobs(report);
    }

    /// Ends the jobs of a pipeline whose log goes.
    pub(super) async fn close(&self) {
        for job in self.jobs().into_iter().filter(|job| job.outcome.is_none()) {
            if let Err(error) = self.cancel(&job.id).await {
                tracing::warn!(job = %job.id, %error, "job of a removed pipeline cannot be ended");
            }
        }
    }
}

impl Engine {
    /// Makes jobs possible, and goes on with those that an earlier process began. Call once; jobs of pipelines that are added
    /// later go on by themselves.
    pub async fn serve_jobs(&self, workshop: Arc<Workshop>) {
        let _edits = self.running.edits.lock().await;
        if self.workshop.set(workshop).is_err() {
            return;
        }
        for desk in self.desks() {
            desk.resume().await;
        }
    }

    /// Returns the desks of all pipelines, in the order they were added.
    pub fn desks(&self) -> Vec<Arc<Desk>> {
        self.running.list().iter().map(|running| running.desk.clone()).collect()
    }

    /// Returns the figures of every pipeline. Reads logs, so it may block briefly.
    pub fn reports(&self) -> Vec<PipelineReport> {
        let report = |running: &Arc<super::engine::Running>| {
            let mut report = running.pipeline.report();
            running.desk.report(&mut report);
            report
        };
        self.running.list().iter().map(report).collect()
    }
}
