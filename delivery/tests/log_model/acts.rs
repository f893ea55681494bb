//! What single stories do and the random runs do too rarely.

use std::path::Path;

use spillway_delivery::filesystem::{Call, Fault, Faults};

use crate::invariant::{Checked, Invariant};
use crate::model::{End, ROUTES};
use crate::subject::{self, DIR, YIELDING};
use crate::world::{World, count, is_segment};

impl World {
    pub(crate) fn disk_is_full(&mut self) {
        self.note("the disk is full");
        self.fs.set_faults(Faults { capacity: Some(self.fs.used_bytes()), ..Faults::default() });
    }

    /// Begins the next life after SIGKILL, whatever faults there are.
    pub(crate) async fn must_open(&mut self) -> Checked {
        self.note("Kill");
        self.fs = self.fs.kill();
        self.subject = None;
        self.try_open().map_err(|error| Invariant::OpenNeverFails.broken(error.to_string()))?;
        let frames = self.subject()?.frames().await?;
        let frames = frames.map_err(|error| Invariant::NoAckedLossProcess.broken(format!("{error:?}")))?;
        self.model.check_running(&frames)?;
        for route in 0..ROUTES.len() {
            self.compare_progress(End::Kill, route)?;
        }
        Ok(())
    }

    /// Appends until the log says that it is full.
    pub(crate) async fn fill(&mut self) -> Checked {
        for _ in 0..60 {
            if self.append().await?.contains(&Some("full")) {
                return Ok(());
            }
        }
        Err(Invariant::SpaceFreed.broken("the log never gets full"))
    }

    /// Gives up what the full log asks of the delivery that drops its oldest, in one save.
    pub(crate) async fn give_way(&mut self) -> Checked {
        let below = self.subject()?.log.give_up_below();
        let Ok(frames) = self.subject()?.frames().await? else { return Ok(()) };
        self.model.check_running(&frames)?;
        let live = &mut self.readers[YIELDING].live;
        if below <= live.cursor {
            return Ok(());
        }
        let events = count(&frames, YIELDING, |seq| seq < below && !live.is_resolved(seq));
        live.drop_events("quota", events, 0);
        live.resolve(live.cursor, below);
        let blocking =
            (0..YIELDING).filter_map(|route| self.readers[route].saves.first()).map(|save| save.cursor).min();
        Invariant::GivesUpWhatHelps
            .check(Some(below) <= blocking, || format!("{below} is asked for, and {blocking:?} blocks"))?;
        self.note(format!("give up {events} events below {below}"));
        self.save_one(YIELDING, true).await
    }

    /// Appends far more than the log holds while one delivery stands still, with ends of one kind in between.
    pub(crate) async fn overflow(&mut self, end: End) -> Checked {
        self.model.bulky = true;
        for round in 0..60 {
            self.deliver_blocking().await?;
            let full = self.append().await?.contains(&Some("full"));
            if full {
                self.deliver_blocking().await?;
                // What was refused may be larger than what comes now, never smaller than the log thinks.
                let again = self.append().await?;
                let live = &self.readers[YIELDING].live;
                let gave = live.dropped.values().sum::<u64>() > 0;
                Invariant::SpaceFreed.check(again.contains(&None) || !gave, || format!("{again:?}, {live:?}"))?;
            }
            self.compare().await?;
            if round % 12 == 11 {
                self.end(end).await?;
            }
        }
        let gave = !self.readers[YIELDING].live.dropped.is_empty();
        Invariant::GivesUpWhatHelps.check(gave, || "nothing was ever given up".into())
    }

    /// Appends and delivers, segment after segment. Returns whether the machine lived to the end.
    pub(crate) async fn flow(&mut self, rounds: u64) -> Checked<bool> {
        self.model.bulky = true;
        for _ in 0..rounds {
            self.append().await?;
            self.deliver_all().await?;
            self.compare().await?;
        }
        Ok(!self.fs.stopped())
    }

    /// Whether the log's directory holds a path with this in it.
    pub(crate) fn holds(&self, part: &str) -> bool {
        self.fs.files().iter().any(|(path, _)| path.to_string_lossy().contains(part))
    }

    /// Resolves and saves everything, but for the delivery that drops its oldest.
    async fn deliver_blocking(&mut self) -> Checked {
        let Ok(frames) = self.subject()?.frames().await? else { return Ok(()) };
        self.model.check_running(&frames)?;
        for route in 0..YIELDING {
            self.resolve_frames(route, &frames, true);
            let end = self.subject()?.log.visible_end();
            let live = &mut self.readers[route].live;
            live.resolve(live.cursor, end);
            self.note_passed(route);
            self.save_one(route, true).await?;
        }
        Ok(())
    }

    /// Appends, and nothing may be refused.
    pub(crate) async fn append_all_taken(&mut self) -> Checked {
        let answers = self.append().await?;
        Invariant::SpaceFreed.check(answers.iter().all(Option::is_none), || format!("{answers:?}"))
    }

    /// Ends with SIGKILL; one call of the next start that opens a file fails. The start may fail then, or reading may: but
    /// a reader never passes over what it cannot read, for its cursor would follow.
    pub(crate) async fn live_with_unreadable(&mut self, skip: u64) -> Checked {
        self.note(format!("Kill, and call {skip} of the next start that opens a file fails"));
        self.fs = self.fs.kill();
        self.subject = None;
        self.fs.fail(Call::Open, skip, Fault::Io);
        if self.try_open().is_err() {
            return Ok(());
        }
        for route in 0..ROUTES.len() {
            self.compare_progress(End::Kill, route)?;
        }
        match self.subject()?.frames().await? {
            Ok(frames) => self.model.check_running(&frames),
            Err(_) => Ok(()),
        }
    }

    /// Ends and counts what the next start reads.
    pub(crate) async fn end_counting_reads(&mut self, end: End) -> Checked {
        if end == End::Clean {
            self.close().await?;
        }
        // A copy has counts of its own.
        self.fs = if end == End::PowerLoss { self.fs.crash(7) } else { self.fs.kill() };
        self.try_open().map_err(|error| Invariant::OpenNeverFails.broken(error.to_string()))?;
        let (counts, files) = (self.fs.counts(), self.fs.files());
        let segments: Vec<u64> = files.iter().filter(|(path, _)| is_segment(path)).map(|(_, len)| *len).collect();
        let total: u64 = segments.iter().sum();
        let journal = 2 * (256 << 10);
        let bounded = counts.reads <= 12 * segments.len() as u64 + 16 && counts.read_bytes <= journal + total / 2;
        Invariant::BoundedRecovery.check(bounded && segments.len() >= 6, || format!("{counts:?}, {segments:?}"))?;
        self.compare_opened(end).await
    }

    /// Ends cleanly and turns over one bit of the journal. A cursor may go back then, but only to one it had.
    pub(crate) async fn end_with_journal_damage(&mut self, slot: &str, at: u64) -> Checked {
        self.close().await?;
        let done = self.fs.flip_bit(&Path::new(DIR).join(slot), at, 3);
        self.note(format!("damage {slot} at {at}: {done}"));
        self.try_open().map_err(|error| Invariant::OpenNeverFails.broken(error.to_string()))?;
        for route in 0..ROUTES.len() {
            let is = self.subject()?.log.progress(&subject::delivery(route)).unwrap_or_default();
            let ever = &self.readers[route].ever;
            Invariant::CursorNeverAhead.check(ever.contains(&is), || format!("{is:?} of {ever:?}"))?;
        }
        Ok(())
    }
}
