//! Dead letters sent again, or given up.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{ACTIVE_MAX, Job, JobError, JobKind, dead_letters, draw_id};
use crate::deliver::dead_letters::Selection;
use crate::deliver::desk::Desk;
use crate::log::Progress;

/// What is to be redriven.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct RedriveRequest {
    /// Which letters.
    pub selection: Selection,
    /// At most so many, the oldest first.
    pub limit: Option<u64>,
    /// To this backend instead of the one that refused them.
    pub to: Option<String>,
}

/// What came of it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Redriven {
    /// The jobs that run now: one for each route and backend.
    pub jobs: Vec<Job>,
    /// Why letters of a route and backend are not redriven, in words.
    pub refused: Vec<String>,
}

/// The letters of one route and backend.
struct Lane {
    first: u64,
    count: u64,
}

impl Desk {
    /// Sends letters again: each to the backend that refused it, or all to another; one job for each route and backend.
    pub async fn redrive(self: &Arc<Self>, request: &RedriveRequest) -> Result<Redriven, JobError> {
        let _turn = self.jobs.turn.lock().await;
        let (lanes, end) = self.lanes(request).await?;
        if lanes.is_empty() {
            return Err(JobError::Nothing("no dead letter is there that is meant".into()));
        }
        let mut redriven = Redriven::default();
        for ((route, backend), lane) in lanes {
            match self.redrive_lane(request, (&route, &backend), &lane, end).await {
                Ok(job) => redriven.jobs.push(job),
                Err(error @ (JobError::Read(_) | JobError::Save(_))) => return Err(error),
                Err(error) => redriven.refused.push(format!("{route} to {backend}: {error}")),
            }
        }
        Ok(redriven)
    }

    /// Finds the letters that are meant: by route and backend, and where the last of them ends.
    async fn lanes(&self, request: &RedriveRequest) -> Result<(BTreeMap<(String, String), Lane>, u64), JobError> {
        let mut lanes: BTreeMap<(String, String), Lane> = BTreeMap::new();
        let (mut end, mut left) = (0, request.limit.unwrap_or(u64::MAX));
        let Some(shelf) = self.dead_letters.shelf.get() else { return Ok((lanes, end)) };
        shelf
            .each((0, u64::MAX), |found| {
                if left == 0 {
                    return false;
                }
                if request.selection.takes(&found.letter) {
                    let key = (found.letter.route.to_string(), found.letter.backend.to_string());
                    lanes.entry(key).or_insert(Lane { first: found.seq, count: 0 }).count += 1;
                    end = found.seq + 1;
                    left -= 1;
                }
                true
            })
            .await?;
        Ok((lanes, end))
    }

    async fn redrive_lane(
        self: &Arc<Self>,
        request: &RedriveRequest,
        (route, backend): (&str, &str),
        lane: &Lane,
        end: u64,
    ) -> Result<Job, JobError> {
        let selection =
            Selection { route: Some(route.to_owned()), backend: Some(backend.to_owned()), ..request.selection.clone() };
        let jobs = self.jobs();
        if let Some(job) = jobs.iter().find(|job| job.shares_letters(&selection)) {
            return Err(JobError::UnderWay(format!("job {} redrives them; wait for it or cancel it", job.id)));
        }
        if self.jobs.active() >= ACTIVE_MAX {
            return Err(JobError::UnderWay(format!(
                "{ACTIVE_MAX} jobs of the pipeline run; wait for one or cancel it"
            )));
        }
        let job = Job {
            id: draw_id(&jobs),
            kind: JobKind::Redrive,
            created: self.jobs.hand.clock.now(),
            route: route.into(),
            backend: request.to.as_deref().unwrap_or(backend).into(),
            selection,
            from: lane.first,
            end,
            selected: lane.count,
            cancelled: false,
            fails_for: None,
            outcome: None,
        };
        let _making = self.jobs.making.lock().await;
        let spec = self.spec(&job).map_err(JobError::Request)?;
        let Some(shelf) = self.dead_letters.shelf.get() else {
            return Err(JobError::Nothing("the dead letters are not open".into()));
        };
        self.begin(&job, spec, shelf.log.clone()).await?;
        Ok(job)
    }

    /// Gives letters up for good; returns how many.
    pub async fn purge(&self, selection: &Selection) -> Result<u64, JobError> {
        let _turn = self.jobs.turn.lock().await;
        let redriving = |job: &Job| job.kind == JobKind::Redrive && job.outcome.is_none();
        if let Some(job) = self.jobs().into_iter().find(redriving) {
            return Err(JobError::UnderWay(format!("job {} redrives dead letters; wait for it or cancel it", job.id)));
        }
        let Some(shelf) = self.dead_letters.shelf.get() else { return Ok(0) };
        let count = |progress: &mut Progress, letters| {
            if letters > 0 {
                *progress.dropped.entry("purged".into()).or_default() += letters;
            }
        };
        let purged = shelf.resolve((0, u64::MAX), |_, letter| selection.takes(letter), count).await?;
        tracing::info!(uid = %self.pipeline.uid(), letters = purged, "dead letters purged");
        Ok(purged)
    }
}

impl dead_letters::Shelf {
    /// Counts in what a redrive has resolved, once, and lets those letters go.
    pub(super) async fn settle(&self, job: &Job, done: &Progress) -> Result<(), JobError> {
        if dead_letters::is_settled(&self.progress(), &job.id) {
            return Ok(());
        }
        let takes = |seq, letter: &dead_letters::Letter<'_>| done.is_resolved(seq) && job.selection.takes(letter);
        let count = |progress: &mut Progress, _| {
            progress.delivered += done.delivered;
            progress.duplicates += done.duplicates;
            progress.rejected += done.rejected;
            for (reason, events) in &done.dropped {
                *progress.dropped.entry(reason.clone()).or_default() += events;
            }
            dead_letters::note_settled(progress, &job.id);
        };
        self.resolve((job.from, job.end), takes, count).await.map(drop)
    }
}
