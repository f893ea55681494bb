//! An intake for tests of sources: keeps what it is given.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use spillway_delivery::intake::{Accepted, RefusalReason, SubmitError};
use tokio::sync::Semaphore;

use super::sender::Sender;
use super::targets::{Door, Selection, Submission, Submitted, TargetName};

/// Wall time in every test.
pub(crate) const RECEIVED: i64 = 1_700_000_000_000_000_000;

/// Keeps what it is given and answers as it is told; without orders it accepts.
#[derive(Clone)]
pub(crate) struct Recorder {
    pub(crate) names: Arc<[TargetName]>,
    pub(crate) kept: Arc<Mutex<Vec<(Selection, Submission)>>>,
    pub(crate) answers: Arc<Mutex<VecDeque<SubmitError>>>,
    /// A submission takes one permit; closed doors have none.
    pub(crate) gate: Arc<Semaphore>,
}

impl Recorder {
    /// Returns one that takes for pipelines of these namespaces and names.
    pub(crate) fn new(names: &[(&str, &str)]) -> Self {
        let names =
            names.iter().map(|(namespace, name)| TargetName { namespace: (*namespace).into(), name: (*name).into() });
        Self {
            names: names.collect(),
            kept: Arc::default(),
            answers: Arc::default(),
            gate: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
        }
    }

    /// Refuses the next submission so.
    pub(crate) fn answer(&self, error: SubmitError) {
        self.answers.lock().unwrap().push_back(error);
    }

    /// Refuses the next submission for this reason.
    pub(crate) fn refuse(&self, reason: RefusalReason) {
        let retry_after = std::time::Duration::from_secs(1);
        self.answer(SubmitError::Refused { pipeline: "jobs".into(), reason, retry_after });
    }

    /// Has nothing be kept until permits are added to the gate.
    pub(crate) fn close_gate(&self) {
        self.gate.forget_permits(Semaphore::MAX_PERMITS);
    }

    /// Takes what was kept since.
    pub(crate) fn take(&self) -> Vec<(Selection, Submission)> {
        std::mem::take(&mut *self.kept.lock().unwrap())
    }

    /// Takes the payloads that were kept since.
    pub(crate) fn payloads(&self) -> Vec<String> {
        self.take().into_iter().map(|(_, kept)| String::from_utf8(kept.payload.to_vec()).unwrap()).collect()
    }
}

impl Door for Recorder {
    fn names(&self, _: &Sender) -> Vec<TargetName> {
        self.names.to_vec()
    }

    fn submit(&self, _: &Sender, selection: Selection, submission: Submission) -> Submitted<'_> {
        Box::pin(async move {
            self.gate.acquire().await.unwrap().forget();
            if let Some(error) = self.answers.lock().unwrap().pop_front() {
                return Err(error);
            }
            let events = submission.ends.len() as u64;
            assert_eq!(memchr::memchr_iter(b'\n', &submission.payload).count() as u64, events);
            assert_eq!(submission.ends.last().copied(), Some(submission.payload.len() as u32));
            assert_eq!(submission.received, RECEIVED);
            self.kept.lock().unwrap().push((selection, submission));
            Ok(Accepted { events, repeated: false })
        })
    }
}
