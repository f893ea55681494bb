//! Owned tasks: every task has a name, an owner and an awaited end.
//!
//! The only place of the workspace that spawns. A [`Supervisor`] is a tree node: it holds the tasks it spawned, tells
//! them to stop in two steps (drain, then abort), and reports the first that ended by panic.

use std::future::Future;
use std::sync::Arc;
use std::sync::Mutex;

use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

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
    pub async fn stop(&self, deadline: Instant) -> bool {
        self.stop_by(tokio::time::sleep_until(deadline)).await
    }

    /// As [`stop`](Self::stop), where the time is over when `end` resolves.
    pub async fn stop_by(&self, end: impl Future<Output = ()>) -> bool {
        self.stop.cancel();
        let mut tasks = match self.tasks.lock() {
            Ok(mut tasks) => std::mem::take(&mut *tasks),
            Err(_) => return false,
        };
        let all_ended = tokio::select! {
            biased;
            () = async { while tasks.join_next().await.is_some() {} } => true,
            () = end => false,
        };
        tasks.shutdown().await;
        all_ended
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

    #[tokio::test]
    async fn a_panic_is_told() {
        let owner = Supervisor::new("test");
        owner.spawn("bad", async { panic!("on purpose") });
        owner.failed().cancelled().await;
    }
}
