//! The log under test: opened on the faulty file system, driven by the calls that the engine makes.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use spillway_delivery::clock::Clock;
use spillway_delivery::filesystem::{FaultyFs, Filesystem};
use spillway_delivery::log::{DeliveryKey, Frame, Log, LogOptions, Masks, Pending, Progress, ReadError, Refused};
use spillway_delivery::settings::{Durability, LogSettings, WhenBehind};
use spillway_delivery::supervisor::Supervisor;
use tokio::time::{Instant, timeout};

use crate::invariant::{Checked, Invariant};
use crate::model::ROUTES;

pub(crate) const DIR: &str = "/data/spool/uid";

/// The route whose delivery gives up its oldest at quota; the others block.
pub(crate) const YIELDING: usize = 2;

/// Longer than any wait within a log; time is paused, so it costs nothing.
const FOREVER: Duration = Duration::from_hours(1);

/// The log under test.
#[derive(Debug)]
pub(crate) struct Subject {
    pub(crate) log: Log,
    owner: Supervisor,
    /// Which route each bit of a mask stands for now.
    table: Mutex<[usize; 3]>,
}

impl Subject {
    pub(crate) fn open(fs: &FaultyFs, settings: LogSettings, incarnation: u64) -> io::Result<Self> {
        Self::open_at(Arc::new(fs.clone()), Path::new(DIR), settings, incarnation)
    }

    pub(crate) fn open_at(
        filesystem: Arc<dyn Filesystem>,
        dir: &Path,
        settings: LogSettings,
        incarnation: u64,
    ) -> io::Result<Self> {
        let owner = Supervisor::new("log model");
        let options = LogOptions {
            dir: dir.into(),
            filesystem,
            // Wall time steps back with every start: it is a label.
            clock: Clock::manual(i64::MAX / 2 - (incarnation >> 8).cast_signed()),
            settings,
            routes: ROUTES.map(Arc::from).to_vec(),
            free_bytes_min: 0,
        };
        let log = Log::open(options, &owner, incarnation)?;
        // Nothing may be freed before every delivery has saved anew: a cursor that came back may be in the page cache alone.
        (0..ROUTES.len()).for_each(|route| log.set_floor(&delivery(route), 0));
        log.set_when_behind(&delivery(YIELDING), WhenBehind::DropOldest);
        Ok(Self { log, owner, table: Mutex::new([0, 1, 2]) })
    }

    /// Ends as a process does that was told to.
    pub(crate) async fn close(self) -> Checked {
        let ended = self.owner.stop(Instant::now() + FOREVER).await;
        Invariant::AlwaysAnswers.check(ended, || "the committer does not stop".into())
    }

    /// Gives the routes other places in the masks, as an edit of a manifest does.
    pub(crate) async fn edit(&self, permutation: u64, level: Durability) -> Checked {
        const TABLES: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
        let table = TABLES[permutation as usize];
        let begun = self.log.edit(table.map(|route| Arc::from(ROUTES[route])).into(), &settings(level));
        let begun = answered(begun, "edit").await?;
        Invariant::AlwaysAnswers.check(begun.is_ok(), || "an edit has no answer".into())?;
        *self.table.lock().unwrap_or_else(PoisonError::into_inner) = table;
        Ok(())
    }

    /// Returns a batch with its masks as they are to be now.
    fn masked(&self, pending: Pending) -> Pending {
        let table = *self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let now = |mask: &u64| table.iter().enumerate().map(|(bit, route)| (mask >> route & 1) << bit).sum();
        let masks = match &pending.masks {
            Masks::Uniform(mask) => Masks::Uniform(now(mask)),
            Masks::Each(masks) => Masks::Each(masks.iter().map(now).collect()),
        };
        Pending { masks, ..pending }
    }

    /// Sends a group at once, as that many clients would.
    pub(crate) async fn append(&self, group: Vec<Pending>) -> Checked<Vec<Result<(), Refused>>> {
        let answers = group.into_iter().map(|pending| self.masked(pending)).map(|pending| async {
            let reservation = self.log.reserve(pending.disk_bytes())?;
            self.log.append(reservation, pending).await
        });
        let answers = answered(join_all(answers), "append").await;
        self.quiet().await;
        answers
    }

    /// Returns every frame a reader sees, from the beginning.
    pub(crate) async fn frames(&self) -> Checked<Result<Vec<Arc<Frame>>, ReadError>> {
        let mut reader = self.log.reader(0);
        let read = async {
            let mut all = Vec::new();
            while reader.has_more() {
                all.extend(reader.read().await?.into_iter().filter(|frame| !frame.is_empty()));
            }
            Ok(all)
        };
        answered(read, "read").await
    }

    pub(crate) async fn save(&self, key: &DeliveryKey, progress: &Progress, sync: bool) -> Checked<bool> {
        let saved = answered(self.log.save(key, progress, sync), "save").await?.is_ok();
        self.quiet().await;
        Ok(saved)
    }

    /// Returns when the committer has nothing more to do: paused time goes on only when nothing else does.
    async fn quiet(&self) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }

    /// Lets every timer of the log run out once, and whatever it then does come to an end.
    pub(crate) async fn settle(&self) {
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
}

async fn answered<T>(call: impl Future<Output = T>, name: &str) -> Checked<T> {
    timeout(FOREVER, call).await.map_err(|_| Invariant::AlwaysAnswers.broken(format!("{name} does not return")))
}

/// Returns the settings of the logs here: small segments, so that a short run has many.
pub(crate) fn settings(level: Durability) -> LogSettings {
    // At level `Memory` a quarter of it is held, and a short run must spill.
    let bytes_max = if level == Durability::Memory { 160 << 10 } else { 512 << 10 };
    LogSettings { durability: level, bytes_max, ..LogSettings::default() }
}

/// Returns a disk that holds nothing but the data directory.
pub(crate) fn disk(seed: u64) -> FaultyFs {
    let fs = FaultyFs::new(seed);
    fs.put(Path::new("/data/lock"), b"");
    fs
}

pub(crate) fn delivery(route: usize) -> DeliveryKey {
    DeliveryKey { route: ROUTES[route].into(), backend_uid: "backend".into() }
}
