//! Where events go that their backend refuses for good: a log of their own, never freed, within a quota.
//!
//! Each is a JSON object with `reason`, `route`, `backend`, `id`, `received` and the `event` as it was. At least once: a crash
//! between the dead letter and the cursor repeats it.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::OnceCell;

use super::DEAD_LETTERS_BYTES_MAX;
use crate::backend::OutEvent;
use crate::clock::{Clock, write_rfc3339};
use crate::event::BatchBuilder;
use crate::filesystem::Filesystem;
use crate::json;
use crate::log::{Log, LogOptions, Masks, Pending};
use crate::settings::LogSettings;
use crate::supervisor::Supervisor;

/// The one route of a log of dead letters.
const ROUTE: &str = "dead-letters";

/// The dead letters of one pipeline. The log is opened when the first one comes.
#[derive(Debug)]
pub(super) struct DeadLetters {
    pub(super) dir: PathBuf,
    pub(super) filesystem: Arc<dyn Filesystem>,
    pub(super) clock: Clock,
    pub(super) owner: Supervisor,
    pub(super) incarnation: u64,
    pub(super) log: OnceCell<Log>,
}

impl DeadLetters {
    /// Keeps one letter; `false` when it cannot be kept.
    pub(super) async fn keep(&self, event: OutEvent<'_>, backend: &str, route: &str, reason: &str) -> bool {
        let mut builder = BatchBuilder::default();
        builder.push_with(|out| {
            for (name, value) in [("{\"reason\":", reason), (",\"route\":", route), (",\"backend\":", backend)] {
                out.extend_from_slice(name.as_bytes());
                json::write_string(out, value);
            }
            out.extend_from_slice(b",\"id\":\"");
            event.id.write(out);
            out.extend_from_slice(b"\",\"received\":\"");
            write_rfc3339(out, event.received);
            out.extend_from_slice(b"\",\"event\":");
            out.extend_from_slice(event.bytes);
            out.push(b'}');
        });
        let batch = builder.build(event.origin.clone(), self.clock.now());
        let pending = Pending { batch, masks: Masks::Uniform(1), unrouted: 0 };
        let Some(log) = self.open().await else { return false };
        match log.reserve(pending.disk_bytes()) {
            Ok(reservation) => log.append(reservation, pending).await.is_ok(),
            Err(_) => false,
        }
    }

    /// Ends the log, where one was opened.
    pub(super) async fn end(&self) {
        if let Some(log) = self.log.get() {
            log.end().await;
        }
    }

    async fn open(&self) -> Option<&Log> {
        let opened = self.log.get_or_try_init(|| async {
            let options = LogOptions {
                dir: self.dir.clone(),
                filesystem: self.filesystem.clone(),
                clock: self.clock.clone(),
                settings: LogSettings { bytes_max: DEAD_LETTERS_BYTES_MAX, ..LogSettings::default() },
                routes: vec![ROUTE.into()],
                free_bytes_min: 0,
            };
            let (owner, incarnation) = (self.owner.clone(), self.incarnation);
            let open = tokio::task::spawn_blocking(move || Log::open(options, &owner, incarnation));
            open.await.unwrap_or_else(|error| Err(std::io::Error::other(error)))
        });
        opened.await.inspect_err(|error| tracing::error!(%error, "dead letters cannot be opened")).ok()
    }
}
