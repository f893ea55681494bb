//! Where configuration comes from: manifests in files, or an operator.
//!
//! Guarantees: one reading at a time, and what became of it is told to where it came from. Must not know: how a reading is
//! carried out.

use std::sync::Arc;

use spillway_crds::Compiled;
use tokio::signal::unix::Signal;

use crate::config::manifests::{Manifests, Read, Reading};
use crate::config::served::follow::Follower;
use crate::config::watch::Watch;
use crate::status::Excluded;

/// Where configuration comes from.
#[derive(Debug)]
pub(super) enum Feed {
    /// From files.
    Files(Box<Files>),
    /// From an operator.
    Operator(Box<Operator>),
}

/// Manifests in files.
#[derive(Debug)]
pub(super) struct Files {
    manifests: Manifests,
    first: Option<Read>,
    watch: Option<Watch>,
    hangup: Signal,
}

/// An operator.
#[derive(Debug)]
pub(super) struct Operator {
    follower: Follower,
    hangup: Signal,
}

impl Feed {
    /// Returns a feed of manifests, of which `first` was read already.
    pub(super) fn files(manifests: Manifests, first: Read, hangup: Signal) -> Self {
        Self::Files(Box::new(Files { manifests, first: Some(first), watch: None, hangup }))
    }

    /// Returns a feed of what an operator serves.
    pub(super) fn operator(follower: Follower, hangup: Signal) -> Self {
        Self::Operator(Box::new(Operator { follower, hangup }))
    }

    /// Returns what to begin with, if there is anything.
    pub(super) async fn first(&mut self) -> Option<Arc<Read>> {
        match self {
            Self::Files(files) => files.first.take().map(Arc::new),
            Self::Operator(operator) => operator.follower.start().await,
        }
    }

    /// Waits for the next reading; with `again` it may be the last one, to be tried again.
    ///
    /// # Cancel safety
    /// May be cancelled, but not to go on with: the process ends.
    pub(super) async fn next(&mut self, again: bool) -> Reading {
        match self {
            Self::Files(files) => files.next(again).await,
            Self::Operator(operator) => operator.next(again).await,
        }
    }

    /// Tells what became of a reading.
    pub(super) fn applied(&mut self, compiled: &Compiled, excluded: &[Excluded]) {
        if let Self::Operator(operator) = self {
            operator.follower.applied(compiled, excluded);
        }
    }
}

impl Files {
    async fn next(&mut self, again: bool) -> Reading {
        let force = match &self.watch {
            None => {
                self.watch = Some(Watch::new(self.manifests.paths().to_vec()));
                // What changed between the first reading and the watch.
                false
            }
            Some(watch) => {
                watch.refresh();
                tokio::select! {
                    () = watch.changed() => false,
                    signal = self.hangup.recv() => signal.is_some(),
                }
            }
        };
        let mut manifests = std::mem::replace(&mut self.manifests, Manifests::new(Vec::new()));
        let work = tokio::task::spawn_blocking(move || {
            let reading = manifests.again(force || again);
            (manifests, reading)
        });
        // Reading fails with the runtime only.
        let Ok((manifests, reading)) = work.await else { return Reading::Same };
        self.manifests = manifests;
        reading
    }
}

impl Operator {
    async fn next(&mut self, again: bool) -> Reading {
        let hurry = self.follower.hurry();
        let next = self.follower.next(again);
        tokio::pin!(next);
        loop {
            tokio::select! {
                read = &mut next => return Reading::Read(read),
                // A question that is under way is not given up for it.
                _ = self.hangup.recv() => hurry.notify_one(),
            }
        }
    }
}
