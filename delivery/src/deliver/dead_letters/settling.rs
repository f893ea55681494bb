//! Which letters are resolved: by redrives that run, and for good.

use std::sync::PoisonError;

use super::letter::Letter;
use super::selection::Selection;
use super::{Shelf, key, read};
use crate::deliver::jobs::{Job, JobError};
use crate::log::{DeliveryKey, Progress};

/// Most redrives that are remembered as counted in: more than can be at their end at once.
const SETTLED_MAX: usize = 64;

/// What a redrive that runs has resolved.
#[derive(Debug, Clone)]
pub(super) struct Hidden {
    id: String,
    key: DeliveryKey,
    selection: Selection,
    from: u64,
    end: u64,
    progress: Progress,
}

impl Hidden {
    pub(super) fn new(job: &Job, progress: Progress) -> Self {
        let (id, selection) = (job.id.clone(), job.selection.clone());
        Self { id, key: job.key(), selection, from: job.from, end: job.end, progress }
    }

    pub(super) fn covers(&self, seq: u64, letter: &Letter<'_>) -> bool {
        (self.from..self.end).contains(&seq) && self.progress.is_resolved(seq) && self.selection.takes(letter)
    }
}

impl Shelf {
    /// From now on what the job has resolved is not shown.
    pub(in crate::deliver) fn hide(&self, job: &Job) {
        let mut hidden = self.hidden.lock().unwrap_or_else(PoisonError::into_inner);
        hidden.retain(|known| known.id != job.id);
        hidden.push(Hidden::new(job, Progress::default()));
    }

    /// The job is over.
    pub(in crate::deliver) fn unhide(&self, id: &str) {
        self.hidden.lock().unwrap_or_else(PoisonError::into_inner).retain(|known| known.id != id);
    }

    /// Returns what the jobs that run have resolved by now.
    pub(super) fn hidden(&self) -> Vec<Hidden> {
        let mut hidden = self.hidden.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for job in &mut hidden {
            job.progress = self.log.progress(&job.key).unwrap_or_default();
        }
        hidden
    }

    /// Lets the letters of `[from, to)` go that `takes` says, durably, and `count`s them; returns how many there were. One
    /// caller at a time.
    pub(in crate::deliver) async fn resolve(
        &self,
        (from, to): (u64, u64),
        takes: impl Fn(u64, &Letter<'_>) -> bool,
        count: impl FnOnce(&mut Progress, u64),
    ) -> Result<u64, JobError> {
        let mut progress = self.progress();
        let mut reader = self.log.reader(from.max(progress.cursor));
        let (mut letters, mut at) = (0, reader.seq());
        while reader.seq() < to {
            let frames = reader.read().await?;
            if frames.is_empty() {
                break;
            }
            for frame in &frames {
                // Sequences that no event has, or none any more.
                progress.resolve(at, frame.first_seq.min(to));
                let first = at.saturating_sub(frame.first_seq) as usize;
                let there = |seq: &u64| *seq < to && !progress.is_resolved(*seq);
                let meant = |seq: &u64| {
                    let letter = read(frame, (seq - frame.first_seq) as usize);
                    letter.is_some_and(|letter| takes(*seq, &letter))
                };
                let seqs = (first..frame.len()).map(|index| frame.first_seq + index as u64);
                let taken: Vec<u64> = seqs.filter(there).filter(meant).collect();
                letters += taken.len() as u64;
                taken.into_iter().for_each(|seq| progress.resolve(seq, seq + 1));
                at = at.max(frame.end_seq());
            }
            tokio::task::yield_now().await;
        }
        count(&mut progress, letters);
        self.log.save(&key(), &progress, true).await.map_err(|error| JobError::Save(std::io::Error::other(error)))?;
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner) = progress;
        self.log.make_room();
        Ok(letters)
    }
}

/// Whether a redrive has been counted in.
pub(in crate::deliver) fn is_settled(progress: &Progress, id: &str) -> bool {
    progress.mark.as_ref().is_some_and(|mark| mark.split(|byte| *byte == b',').any(|known| known == id.as_bytes()))
}

/// Notes that a redrive is counted in, in the same record as its counts.
pub(in crate::deliver) fn note_settled(progress: &mut Progress, id: &str) {
    let mark = progress.mark.take().unwrap_or_default();
    let known: Vec<&[u8]> = mark.split(|byte| *byte == b',').filter(|known| !known.is_empty()).collect();
    let mut ids = known[known.len().saturating_sub(SETTLED_MAX - 1)..].to_vec();
    ids.push(id.as_bytes());
    progress.mark = Some(ids.join(&b',').into());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redrive_is_counted_in_once_and_old_ones_are_forgotten() {
        let mut progress = Progress::default();
        assert!(!is_settled(&progress, "a"));
        for number in 0..200 {
            note_settled(&mut progress, &format!("{number:08x}"));
            assert!(is_settled(&progress, &format!("{number:08x}")));
        }
        assert!(!is_settled(&progress, "00000000") && is_settled(&progress, "000000c0"));
    }
}
