//! Owned tasks: every task has a name, an owner and an awaited end.
//!
//! The only place of the workspace that spawns. A [`Supervisor`] is a tree node: it holds the tasks it spawned, tells
//! them to stop in two steps (drain, then abort), and reports the first that ended by panic.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

/// How long an aborted task may take to notice. One that is held in a call to the system, a read of a volume that hangs for
/// instance, never does: it is told by number and left to the end of the process.
pub const ABORT_MAX: Duration = Duration::from_millis(500);

/// Owns tasks. Dropping it aborts what still runs.
#[derive(Debug, Clone)]
pub struct Supervisor {
    name: Arc<str>,
    tasks: Arc<Mutex<JoinSet<()>>>,
    stop: CancellationToken,
    failed: CancellationToken,
}

impl Supervisor {
    /// Returns a supervisor that owns nothing yet.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            tasks: Arc::default(),
            stop: CancellationToken::new(),
            failed: CancellationToken::new(),
        }
    }

    /// Returns the token that is cancelled when the tasks shall come to an end by themselves.
    pub fn stopping(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Returns the token that is cancelled when a task has panicked: the process should end, loudly.
    pub fn failed(&self) -> CancellationToken {
        self.failed.clone()
    }

    /// Runs `task` until it ends or the supervisor aborts it.
    pub fn spawn(&self, name: &str, task: impl Future<Output = ()> + Send + 'static) {
        let guard = PanicGuard { name: name.into(), owner: self.name.clone(), failed: self.failed.clone() };
        let Ok(mut tasks) = self.tasks.lock() else {
            return;
        };
        while tasks.try_join_next().is_some() {}
        tasks.spawn(async move {
            let guard = guard;
            task.await;
            guard.disarm();
        });
    }

    /// Tells the tasks to stop, waits for them until `deadline`, aborts the rest. Returns whether all ended in time.
    ///
    /// A task that cannot be aborted, since it is held in a call to the system, is waited for [`ABORT_MAX`] longer and no more.
    pub async fn stop(&self, deadline: Instant) -> bool {
        self.stop_by(tokio::time::sleep_until(deadline)).await
    }

    /// As [`stop`](Self::stop), where the time is over when `end` resolves.
    pub async fn stop_by(&self, end: impl Future<Output = ()>) -> bool {
        self.stop.cancel();
        let mut end = pin!(end);
        // Tasks may have begun others before they heard of it.
        while let Some(mut tasks) = self.take() {
            let all_ended = tokio::select! {
                biased;
                () = async { while tasks.join_next().await.is_some() {} } => true,
                () = end.as_mut() => false,
            };
            if !all_ended {
                self.abort(tasks).await;
                return false;
            }
        }
        true
    }

    /// Takes the tasks there are; `None` where there is none.
    fn take(&self) -> Option<JoinSet<()>> {
        let tasks = self.tasks.lock().map(|mut tasks| std::mem::take(&mut *tasks)).ok()?;
        Some(tasks).filter(|tasks| !tasks.is_empty())
    }

    async fn abort(&self, mut tasks: JoinSet<()>) {
        tasks.abort_all();
        if let Some(mut late) = self.take() {
            late.abort_all();
        }
        let noticed = timeout(ABORT_MAX, async { while tasks.join_next().await.is_some() {} }).await;
        if noticed.is_err() {
            tracing::warn!(owner = %self.name, tasks = tasks.len(), "tasks are held in calls to the system; not waiting for them");
        }
    }
}

struct PanicGuard {
    name: Box<str>,
    owner: Arc<str>,
    failed: CancellationToken,
}

impl PanicGuard {
    fn disarm(self) {
        drop(self);
    }
}

impl Drop for PanicGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!(task = %self.name, owner = %self.owner, "task panicked");
            self.failed.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn tasks_that_ignore_the_stop_are_aborted_at_the_deadline() {
        let owner = Supervisor::new("test");
        owner.spawn("polite", owner.stopping().cancelled_owned());
        assert!(owner.stop(Instant::now() + Duration::from_secs(1)).await);
        let owner = Supervisor::new("test");
        owner.spawn("deaf", std::future::pending());
        assert!(!owner.stop(Instant::now() + Duration::from_secs(1)).await);
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_task_begins_at_the_stop_is_waited_for_too() {
        let (owner, ended) = (Supervisor::new("test"), CancellationToken::new());
        let (inner, told) = (owner.clone(), ended.clone());
        owner.spawn("first", async move {
            inner.stopping().cancelled().await;
            inner.spawn("second", async move {
                tokio::task::yield_now().await;
                told.cancel();
            });
        });
        assert!(owner.stop(Instant::now() + Duration::from_secs(1)).await);
        assert!(ended.is_cancelled());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_task_that_is_held_in_a_call_to_the_system_is_not_waited_for() {
        let owner = Supervisor::new("test");
        let (release, held) = std::sync::mpsc::sync_channel::<()>(0);
        let (began, begun) = tokio::sync::oneshot::channel();
        owner.spawn("held", async move {
            began.send(()).unwrap();
            // Stands for a read of a volume that hangs.
            held.recv().ok();
        });
        begun.await.unwrap();
        let since = Instant::now();
        assert!(!owner.stop(since).await);
        assert!(since.elapsed() < ABORT_MAX * 10, "{:?}", since.elapsed());
        drop(release);
    }

    #[tokio::test]
    async fn a_panic_is_told() {
        let owner = Supervisor::new("test");
        owner.spawn("bad", async { panic!("on purpose") });
        owner.failed().cancelled().await;
    }
}
