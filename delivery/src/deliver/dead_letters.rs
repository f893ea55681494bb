//! Where events go that their backend refuses for good: a log of their own, within a quota.
//!
//! What became of letters afterwards is a cursor over that log, as for any delivery: a letter is there until it is
//! resolved (redriven, or purged), and a segment goes when all its letters are.
//!
//! # Guarantees
//! - A letter is synced before the event counts as rejected. At least once: a crash between the letter and the cursor of the
//!   delivery repeats it.
//! - Only the quota keeps a letter out for good. A log that cannot be opened or written says so ([`Unkept::Fault`]): its
//!   event is sent again later.
//! - Reasons are one bounded line without what looks like a credential (`letter`).
//! - `kept = redriven + rejected again + purged + held`, `held` counted by scanning.
//!
//! # Limits
//! The quota of the pipeline. Letters of what is redriven and refused again may take a quarter more, since the ones they
//! replace go only afterwards. [`PAGE_BYTES`] of letters are shown at once, [`groups::GROUPS_MAX`] groups.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OnceCell;

use crate::backend::OutEvent;
use crate::clock::Clock;
use crate::event::BatchBuilder;
use crate::filesystem::Filesystem;
use crate::intake::RefusalReason;
use crate::ledger::DeadLettersReport;
use crate::log::{DeliveryKey, Frame, Log, LogOptions, Masks, Pending, Progress, ReadError, Reservation};
use crate::settings::{LogSettings, PipelineSettings};
use crate::supervisor::Supervisor;

mod groups;
mod letter;
mod offline;
mod selection;
mod settling;

pub use groups::{GROUPS_MAX, Group, Groups};
pub use letter::{Letter, gist};
pub use offline::Offline;
pub use selection::{IDS_MAX, Selection};

use super::{EngineSettings, status};
use groups::Grouping;
use settling::Hidden;
pub(super) use settling::{is_settled, note_settled};

/// The one route of a log of dead letters.
pub(super) const ROUTE: &str = "dead-letters";

/// Most bytes of one frame of letters, unless one letter is larger.
const FRAME_BYTES: usize = 1 << 20;

/// Most bytes of one page of letters, unless one letter is larger.
pub const PAGE_BYTES: usize = 2 << 20;

/// Most letters of one page.
pub const PAGE_LETTERS: usize = 10_000;

/// The dead letters of one pipeline. The log is opened when the first one comes, or when there are some at the start.
#[derive(Debug)]
pub struct DeadLetters {
    pub(super) dir: PathBuf,
    pub(super) filesystem: Arc<dyn Filesystem>,
    pub(super) clock: Clock,
    pub(super) owner: Supervisor,
    pub(super) incarnation: u64,
    /// Most bytes of letters; an edit changes it.
    pub(super) bytes_max: AtomicU64,
    /// Bytes that stay free on the volume for what is accepted.
    pub(super) free_bytes_min: u64,
    pub(super) shelf: OnceCell<Shelf>,
    /// It was told that it cannot be opened, and it was not since.
    pub(super) is_told: AtomicBool,
}

/// The log, open, and which of its letters are resolved.
#[derive(Debug)]
pub(super) struct Shelf {
    pub(super) log: Log,
    progress: Mutex<Progress>,
    /// What redrives that run have resolved is not shown any more.
    hidden: Mutex<Vec<Hidden>>,
}

/// An event that was refused for good.
#[derive(Debug, Clone, Copy)]
pub(super) struct Refused<'a> {
    /// Where it stands in the log that it was read from.
    pub(super) seq: u64,
    pub(super) event: OutEvent<'a>,
    pub(super) reason: &'a str,
}

/// Why not all letters were kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unkept {
    /// There is no room for them within the quota.
    Quota,
    /// They cannot be written now: the disk fails or is full, or the process ends.
    Fault,
}

/// Some letters, shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// One JSON object a line.
    pub lines: Vec<u8>,
    /// How many there are.
    pub count: usize,
    /// Where to go on, if there may be more.
    pub next: Option<u64>,
}

impl DeadLetters {
    /// Returns those of a pipeline; nothing is opened.
    pub(super) fn of(
        pipeline: &PipelineSettings,
        engine: &EngineSettings,
        (owner, incarnation): (Supervisor, u64),
    ) -> Self {
        Self {
            dir: engine.data_dir.join("dead-letters").join(&*pipeline.uid),
            filesystem: engine.filesystem.clone(),
            clock: engine.clock.clone(),
            owner,
            incarnation,
            bytes_max: pipeline.log.dead_letters_bytes_max.into(),
            free_bytes_min: engine.free_bytes_min,
            shelf: OnceCell::new(),
            is_told: AtomicBool::new(false),
        }
    }

    /// Keeps letters, in order; returns how many of them, and why not the others. `again` lets them take more than the quota:
    /// they replace letters that are there.
    pub(super) async fn keep(
        &self,
        refused: &[Refused<'_>],
        names: (&str, &str),
        again: bool,
    ) -> (usize, Option<Unkept>) {
        let Some(shelf) = self.open().await else { return (0, Some(Unkept::Fault)) };
        let log = &shelf.log;
        let quota = if again { u64::MAX } else { self.bytes_max() };
        let (mut kept, mut letters_max) = (0, usize::MAX);
        while let Some(first) = refused.get(kept) {
            let origin = first.event.origin;
            let mut builder = BatchBuilder::default();
            for one in refused[kept..].iter().take_while(|one| Arc::ptr_eq(one.event.origin, origin)).take(letters_max)
            {
                if builder.bytes() >= FRAME_BYTES {
                    break;
                }
                builder.push_with(|out| letter::write(out, one.event, names, &letter::clean(one.reason)));
            }
            let count = builder.len();
            let batch = builder.build(origin.clone(), self.clock.now());
            let pending = Pending { batch, masks: Masks::Uniform(1), unrouted: 0, dropped: 0 };
            let bytes = pending.disk_bytes();
            let reserved = if log.bytes() + bytes > quota { Err(RefusalReason::Full) } else { reserve(log, bytes) };
            match reserved {
                Ok(reservation) => match log.append(reservation, pending).await {
                    Ok(()) => kept += count,
                    Err(_) => return (kept, Some(Unkept::Fault)),
                },
                Err(RefusalReason::Full) if count > 1 => letters_max = count / 2,
                Err(RefusalReason::Full) => return (kept, Some(Unkept::Quota)),
                Err(_) => return (kept, Some(Unkept::Fault)),
            }
        }
        (kept, None)
    }

    fn bytes_max(&self) -> u64 {
        self.bytes_max.load(Ordering::Relaxed)
    }

    /// A redrive may take a quarter more, for letters that replace others.
    fn log_settings(&self) -> LogSettings {
        LogSettings { bytes_max: self.bytes_max() / 4 * 5, ..LogSettings::default() }
    }

    /// Changes how much room there is for letters.
    pub(super) async fn edit(&self, bytes_max: u64) {
        if self.bytes_max.swap(bytes_max, Ordering::Relaxed) == bytes_max {
            return;
        }
        if let Some(shelf) = self.shelf.get() {
            // A log that has ended has no room to change.
            drop(shelf.log.edit([ROUTE.into()].into(), &self.log_settings()).await);
        }
    }

    /// Opens the log where there is one already.
    pub(super) async fn open_if_there(&self) {
        let (filesystem, dir) = (self.filesystem.clone(), self.dir.clone());
        let look = tokio::task::spawn_blocking(move || filesystem.list(&dir).unwrap_or_default());
        let files = look.await.unwrap_or_default();
        if files.iter().any(|path| path.extension().is_some_and(|extension| extension == "log")) {
            self.open().await;
        }
    }

    /// Ends the log, where one was opened.
    pub(super) async fn end(&self) {
        if let Some(log) = self.shelf.get() {
            log.log.end().await;
        }
    }

    pub(super) async fn open(&self) -> Option<&Shelf> {
        let opened = self.shelf.get_or_try_init(|| async {
            let options = LogOptions {
                dir: self.dir.clone(),
                filesystem: self.filesystem.clone(),
                clock: self.clock.clone(),
                settings: self.log_settings(),
                routes: vec![ROUTE.into()],
                // More than for events: those who fill a volume with letters hold up themselves and not all who take events in.
                free_bytes_min: 2 * self.free_bytes_min,
            };
            let (owner, incarnation) = (self.owner.clone(), self.incarnation);
            let open = tokio::task::spawn_blocking(move || Log::open(options, &owner, incarnation));
            let log = open.await.unwrap_or_else(|error| Err(io::Error::other(error)))?;
            let progress = resolved(&log);
            // Saved before anybody else reads here: nothing below goes that is not resolved.
            if let Err(error) = log.save(&key(), &progress, true).await {
                // Nobody else ends its writer, and the next attempt opens the same files.
                log.end().await;
                return Err(io::Error::other(error));
            }
            Ok::<_, io::Error>(Shelf { log, progress: Mutex::new(progress), hidden: Mutex::default() })
        });
        let opened = opened.await;
        let was_told = self.is_told.swap(opened.is_err(), Ordering::Relaxed);
        match opened {
            Ok(shelf) => Some(shelf),
            Err(error) => {
                // It is tried again for each letter that waits: one line for the first.
                if !was_told {
                    tracing::error!(%error, "dead letters cannot be opened; events that would be some wait");
                }
                None
            }
        }
    }

    /// Returns the letters that are meant, grouped.
    pub async fn groups(&self, selection: &Selection, pipeline: &str) -> Result<Groups, ReadError> {
        let mut grouping = Grouping::default();
        if let Some(shelf) = self.shelf.get() {
            shelf
                .each((0, u64::MAX), |found| {
                    if selection.takes(&found.letter) {
                        grouping.add(&found.letter, found.frame.received);
                    }
                    true
                })
                .await?;
        }
        Ok(grouping.finish(pipeline))
    }

    /// Returns letters that are meant, from sequence `from` on, at most `max` of them.
    pub async fn page(&self, selection: &Selection, from: u64, max: usize) -> Result<Page, ReadError> {
        let mut page = Page::default();
        if let Some(shelf) = self.shelf.get() {
            shelf.each((from, u64::MAX), |found| !selection.takes(&found.letter) || page.add(&found, max)).await?;
        }
        Ok(page)
    }

    /// Returns the figures; reads the log where a cursor stands in the midst of a segment, so it may block briefly.
    pub fn report(&self) -> DeadLettersReport {
        let mut report = DeadLettersReport { bytes_max: self.bytes_max(), ..DeadLettersReport::default() };
        let Some(shelf) = self.shelf.get() else { return report };
        let progress = shelf.progress();
        report.bytes = shelf.log.bytes();
        report.redriven_events = progress.delivered + progress.duplicates;
        report.rejected_again_events = progress.rejected;
        report.dropped_events = progress.dropped.iter().map(|(why, events)| (why.to_string(), *events)).collect();
        if let Ok(account) = status::account(&shelf.log, &key(), &progress) {
            report.kept_events = account.routed;
            report.held_events = account.held;
            let oldest = || shelf.log.oldest_held(ROUTE, &progress).ok().flatten();
            report.oldest_held = (account.held > 0).then(oldest).flatten();
            report.imbalance_events = account.imbalance;
        }
        report
    }
}

fn reserve(log: &Log, bytes: u64) -> Result<Reservation, RefusalReason> {
    log.reserve(bytes).map_err(|refused| refused.reason)
}

/// Names what is resolved of the letters.
pub(super) fn key() -> DeliveryKey {
    DeliveryKey { route: ROUTE.into(), backend_uid: "resolved".into() }
}

/// Returns what is resolved, as it was saved, or the beginning. What damage took is counted.
fn resolved(log: &Log) -> Progress {
    let mut progress = log.progress(&key()).unwrap_or_else(|| super::engine::first_progress(log, ROUTE, true));
    if let Ok(account) = status::account(log, &key(), &progress) {
        if account.imbalance > 0 {
            *progress.dropped.entry("damaged".into()).or_default() += account.imbalance as u64;
        } else {
            progress.routed_before += account.imbalance;
        }
    }
    progress
}

/// One letter in its frame.
pub(super) struct Found<'a> {
    pub(super) seq: u64,
    pub(super) frame: &'a Frame,
    pub(super) letter: Letter<'a>,
}

impl Shelf {
    pub(super) fn progress(&self) -> Progress {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Calls `visit` for every letter of `[from, to)` that is there, until it returns `false`.
    pub(super) async fn each(
        &self,
        (from, to): (u64, u64),
        mut visit: impl FnMut(Found<'_>) -> bool,
    ) -> Result<(), ReadError> {
        let (progress, hidden) = (self.progress(), self.hidden());
        let mut reader = self.log.reader(from.max(progress.cursor));
        let there = |seq, letter: &Letter<'_>| {
            !progress.is_resolved(seq) && !hidden.iter().any(|hidden| hidden.covers(seq, letter))
        };
        let mut visit_frame = |frame: &Frame, from: u64| {
            (from.saturating_sub(frame.first_seq) as usize..frame.len()).all(|index| {
                let seq = frame.first_seq + index as u64;
                match read(frame, index).filter(|letter| there(seq, letter)) {
                    Some(letter) if seq < to => visit(Found { seq, frame, letter }),
                    _ => seq < to,
                }
            })
        };
        while reader.seq() < to {
            let from = reader.seq();
            let frames = reader.read().await?;
            if frames.is_empty() || !frames.iter().all(|frame| visit_frame(frame, from)) {
                break;
            }
            tokio::task::yield_now().await;
        }
        Ok(())
    }
}

/// Returns a frame's letter.
pub(super) fn read(frame: &Frame, index: usize) -> Option<Letter<'_>> {
    let (start, end) = frame.span(index);
    Letter::read(frame.payload.get(start as usize..end as usize)?)
}

impl Page {
    /// Adds a letter; returns `false`, and where to go on, when the page is full.
    fn add(&mut self, found: &Found<'_>, max: usize) -> bool {
        if self.count >= max.min(PAGE_LETTERS) || self.lines.len() >= PAGE_BYTES {
            self.next = Some(found.seq);
            return false;
        }
        found.letter.write(&mut self.lines, &found.frame.origin, found.frame.received);
        self.lines.push(b'\n');
        self.count += 1;
        true
    }
}
