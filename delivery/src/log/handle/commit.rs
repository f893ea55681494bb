//! The committer: the one task that writes a log. What touches files it does off the runtime's threads; at level `Memory`,
//! where most turns touch none, it does those where it stands.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    Answer, GROUP_BYTES_MAX, Keep, Log, MEMORY_PERIOD, MEND_PERIOD, Refused, TAIL_BYTES_MAX, UNSYNCED_BYTES_MAX,
    UNSYNCED_TIME_MAX, Waiting, fill, room,
};
use crate::intake::RefusalReason;
use crate::log::core::{Committed, LogCore};
use crate::log::frame::Pending;
use crate::log::state::LeftOut;
use crate::log::{KEYS_MAX, POSITIONS_MAX};
use crate::settings::Durability;

/// What one turn of the committer shall do.
struct Turn {
    /// Comes before everything else.
    edit: Option<super::edit::Order>,
    group: Vec<Pending>,
    answers: Vec<Answer>,
    sync: bool,
    seal: bool,
    free: Option<(u64, Keep)>,
    /// Below, no delivery reads again.
    passed: u64,
    /// What only memory holds shall be looked after.
    tend: bool,
}

impl Turn {
    fn is_idle(&self) -> bool {
        self.edit.is_none() && self.group.is_empty() && !self.tend && !self.touches_files()
    }

    fn touches_files(&self) -> bool {
        self.sync || self.seal || self.free.is_some()
    }
}

/// What one turn did.
#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "what was done, each for itself")]
struct Done {
    committed: Option<Committed>,
    synced: bool,
    error: Option<std::io::Error>,
    sealed: bool,
    freed: bool,
    passed: bool,
    /// `None`: not looked at.
    free_bytes: Option<u64>,
}

pub(super) async fn run(log: Log, stop: CancellationToken) {
    // When a sync is due at the latest; kept over other wake-ups, so that a steady trickle does not put it off for ever.
    let mut due: Option<Instant> = None;
    loop {
        tokio::select! {
            () = log.inner.work.notified() => {}
            () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            () = stop.cancelled() => {
                finish(&log).await;
                return;
            }
        }
        loop {
            let timed_out = due.is_some_and(|due| due <= Instant::now());
            let turn = next_turn(&log, timed_out);
            let idle = turn.is_idle();
            if !idle {
                let look_again = take_turn(&log, turn).await;
                due = look_again.map(|period| due.filter(|_| !timed_out).unwrap_or_else(|| Instant::now() + period));
            }
            if idle && timed_out {
                due = None;
            }
            if idle || (log.shared().queue.is_empty() && !has_orders(&log)) {
                break;
            }
        }
    }
}

fn has_orders(log: &Log) -> bool {
    let shared = log.shared();
    !shared.edits.is_empty()
        || shared.free_wanted
        || shared.seal_wanted
        || (shared.sync_wanted > shared.synced_seq && shared.trouble.is_none())
}

/// Writes what is queued, syncs, and says goodbye.
async fn finish(log: &Log) {
    log.shared().closed = true;
    loop {
        let mut turn = next_turn(log, true);
        turn.sync = true;
        let empty = turn.group.is_empty();
        take_turn(log, turn).await;
        if empty && log.shared().edits.is_empty() {
            break;
        }
    }
    let last = log.clone();
    let sealed = tokio::task::spawn_blocking(move || {
        let mut core = last.inner.core.lock().unwrap_or_else(PoisonError::into_inner);
        let since = last.inner.opened.elapsed();
        core.pass(last.shared().passed_low());
        sync_journal(&core, &last);
        core.close(since)
    });
    if let Ok(Err((error, events))) = sealed.await {
        let dir = log.inner.options.dir.display();
        tracing::error!(%error, %dir, lost_events = events, "log could not be sealed at the end");
    }
    log.inner.ended.cancel();
}

fn next_turn(log: &Log, timed_out: bool) -> Turn {
    let mut shared = log.shared();
    let edit = shared.take_edit();
    let mut turn = Turn {
        edit,
        group: Vec::new(),
        answers: Vec::new(),
        sync: false,
        seal: false,
        free: None,
        passed: shared.passed_low(),
        tend: timed_out && shared.memory.is_busy(),
    };
    let mut bytes = 0;
    while bytes < GROUP_BYTES_MAX as u64 && shared.until_edit() > 0 {
        let Some(Waiting { pending, bytes: size, answer }) = shared.queue.pop_front() else { break };
        shared.taken += 1;
        bytes += size;
        turn.group.push(pending);
        turn.answers.push(answer);
    }
    turn.sync = shared.sync_wanted > shared.synced_seq || (timed_out && (shared.unsynced || shared.trouble.is_some()));
    shared.sync_wanted = 0;
    turn.seal = std::mem::take(&mut shared.seal_wanted) && room::seal_frees(&mut shared);
    if std::mem::take(&mut shared.free_wanted) || turn.seal {
        let settings = &shared.settings;
        let low = shared.floors.values().copied().min().unwrap_or(0);
        let over = (shared.used_bytes() + shared.reserved + bytes).saturating_sub(settings.bytes_max / 10 * 9);
        let over = over.max(log.lacking(&shared));
        turn.free = Some((low, Keep { retain: settings.retain, bytes_over: over }));
    }
    turn
}

/// Does one turn and tells everybody. Returns when there is something to do even if nothing happens.
async fn take_turn(log: &Log, turn: Turn) -> Option<Duration> {
    let mut turn = turn;
    if let Some(done) = take_in_memory(log, &mut turn) {
        return done.look_again;
    }
    let worker = log.clone();
    let work = tokio::task::spawn_blocking(move || {
        let mut core = worker.inner.core.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(order) = turn.edit.take() {
            // Who asked may have gone away; the edit stands.
            order.reply.send(core.edit(order.edit)).ok();
        }
        let answers = std::mem::take(&mut turn.answers);
        let done = work(&mut core, &worker, turn);
        publish(&worker, &core, done, answers)
    });
    match work.await {
        Ok(look_again) => look_again,
        // A writer that panicked is in no known state: the task ends with it, and the process says so.
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => None,
    }
}

/// A turn that was done, and when there is something to do even if nothing happens.
struct Taken {
    look_again: Option<Duration>,
}

/// Does a turn that touches no file; `None` for one that does.
fn take_in_memory(log: &Log, turn: &mut Turn) -> Option<Taken> {
    let calm = turn.edit.is_none() && !turn.tend && !turn.touches_files() && log.shared().trouble.is_none();
    if !calm || log.durability() != Durability::Memory {
        return None;
    }
    let mut core = log.inner.core.lock().unwrap_or_else(PoisonError::into_inner);
    let passed = core.pass(turn.passed);
    let incoming = turn.group.iter().map(Pending::memory_bytes).sum();
    if core.to_spill(incoming) > 0 || core.unsynced_bytes() > 0 {
        turn.tend |= passed;
        return None;
    }
    let committed = Some(core.commit(std::mem::take(&mut turn.group), log.inner.opened.elapsed()));
    let done = Done { committed, passed, ..Done::default() };
    Some(Taken { look_again: publish(log, &core, done, std::mem::take(&mut turn.answers)) })
}

fn work(core: &mut LogCore, log: &Log, turn: Turn) -> Done {
    let since = log.inner.opened.elapsed();
    let mut done = Done { passed: core.pass(turn.passed) || turn.tend, ..Done::default() };
    let incoming = turn.group.iter().map(Pending::memory_bytes).sum();
    let checkpoint = core.checkpoint_due(since);
    if checkpoint || turn.seal || core.to_spill(incoming) > 0 {
        sync_journal(core, log);
    }
    if !turn.group.is_empty() {
        done.committed = Some(core.commit(turn.group, since));
        done.synced = log.durability() == Durability::Disk;
    }
    let failed = done.committed.as_ref().is_some_and(|committed| committed.error.is_some());
    if log.durability() == Durability::Memory && !failed {
        // After a failure only what frees half the bound counts as mended, so that the state does not flutter.
        let in_trouble = log.shared().trouble.is_some();
        let to_spill = core.to_spill(if in_trouble { core.memory_bytes_max() / 2 } else { 0 });
        if to_spill > 0 {
            done.note(core.spill(to_spill, since));
        }
    }
    if turn.sync || core.unsynced_bytes() >= UNSYNCED_BYTES_MAX {
        done.synced = done.note(core.sync(since)) && done.error.is_none();
    }
    if checkpoint {
        done.note(core.checkpoint(since));
    }
    if turn.seal {
        done.sealed = done.note(core.seal(since));
    }
    if let Some((below, keep)) = turn.free {
        done.freed = !core.free(below, keep, since).is_empty();
    }
    done.free_bytes = Some(log.inner.options.filesystem.free_bytes(&log.inner.options.dir).unwrap_or(u64::MAX));
    done
}

/// Cursors come before the state of the log that counts what they have passed, on the disk too.
fn sync_journal(core: &LogCore, log: &Log) {
    if core.passed_any()
        && let Err(error) = log.journal().sync()
    {
        tracing::debug!(%error, "cursors are not synced; after a power loss they may stand behind what was passed");
    }
}

impl Done {
    /// Keeps what went wrong; returns whether nothing did.
    fn note(&mut self, result: std::io::Result<()>) -> bool {
        let is_good = result.is_ok();
        self.error = result.err().or(self.error.take());
        is_good
    }
}

fn publish(log: &Log, core: &LogCore, done: Done, answers: Vec<Answer>) -> Option<Duration> {
    let mut shared = log.shared();
    let (frames, error) = done.committed.map_or((Vec::new(), None), |committed| (committed.frames, committed.error));
    let failed = error.as_ref().map(|error| (reason_of(&error.source), error.maybe_kept));
    let kept = frames.len();
    let left_out_before = shared.state.left_out;
    for frame in frames {
        shared.state.apply(&frame, &frame.tallies());
        if !frame.is_empty() {
            shared.tail_bytes += frame.memory_bytes();
            shared.tail.push_back(frame);
        }
    }
    note_left_out(log, left_out_before, shared.state.left_out);
    shared.memory.update(core);
    trim_tail(&mut shared);
    let trouble = error.map(|error| error.source).or(done.error);
    let mended = shared.trouble.is_some();
    // What was taken into memory says nothing of the disk.
    let wrote = kept > 0 && shared.settings.durability != Durability::Memory;
    note_trouble(log, &mut shared, trouble.as_ref(), wrote || done.synced);
    let mended = mended && shared.trouble.is_none();
    let room = done.freed || done.sealed || mended || (done.passed && shared.room.is_pressed());
    if done.freed {
        shared.room.freed();
    }
    if room {
        shared.room.changed();
    }
    shared.free_bytes = done.free_bytes.unwrap_or(shared.free_bytes);
    shared.unsynced = core.unsynced_bytes() > 0;
    shared.syncs = core.syncs();
    if done.free_bytes.is_some() {
        shared.disk_bytes = core.bytes();
        refresh_segments(&mut shared, core);
    }
    fill::note_backlogs(&mut shared);
    let end = core.next_seq();
    if !shared.unsynced && core.is_writing() {
        shared.synced_seq = core.memory_start();
    }
    let look_again = look_again(&shared);
    drop(shared);
    log.inner.visible.send_replace(end);
    if room {
        log.inner.room.notify_waiters();
    }
    for (index, Answer { reply, claim }) in answers.into_iter().enumerate() {
        let (reason, maybe_kept) = failed.unwrap_or((RefusalReason::Faulted, true));
        let result = if index < kept { Ok(()) } else { Err(Refused { reason, maybe_kept, room_soon: false }) };
        drop(claim);
        // A caller that went away does not want to know.
        reply.send(result).ok();
    }
    look_again
}

/// Returns when there is something to do even if nothing happens.
fn look_again(shared: &super::Shared) -> Option<Duration> {
    match shared {
        _ if shared.trouble.is_some() => Some(MEND_PERIOD),
        _ if shared.unsynced => Some(UNSYNCED_TIME_MAX),
        _ => shared.memory.is_busy().then_some(MEMORY_PERIOD),
    }
}

/// One log line for the first of a kind; the figures say how many there are.
fn note_left_out(log: &Log, before: LeftOut, now: LeftOut) {
    let dir = log.inner.options.dir.display();
    if before.keys == 0 && now.keys > 0 {
        tracing::warn!(%dir, limit = KEYS_MAX, "idempotency keys are forgotten before their time; a repeat may be taken twice");
    }
    if before.positions == 0 && now.positions > 0 {
        tracing::warn!(%dir, limit = POSITIONS_MAX, "more sources than a log keeps positions of; a restart reads the rest again");
    }
}

/// Only what changed is copied: the segments at the end, and those that went.
fn refresh_segments(shared: &mut super::Shared, core: &LogCore) {
    shared.segments.retain(|ordinal, _| core.segments.contains_key(ordinal));
    shared.damaged_at.retain(|(ordinal, _)| core.segments.contains_key(ordinal));
    shared.unreadable.retain(|(ordinal, _), _| core.segments.contains_key(ordinal));
    for (ordinal, info) in core.segments.iter().rev() {
        let known = shared.segments.get(ordinal);
        if known.is_some_and(|known| known.sealed_ms.is_some()) {
            break;
        }
        shared.segments.insert(*ordinal, Arc::new(info.clone()));
    }
    shared.active = core.active_file().map(|(ordinal, file, origins)| (ordinal, file, origins.into()));
}

pub(super) fn trim_tail(shared: &mut super::Shared) {
    // What only memory holds stays, whoever reads.
    while let Some(front) = shared.tail.front().filter(|front| front.first_seq < shared.memory.start) {
        // Who is behind the tail reads from the segments and keeps nothing in memory.
        let near = shared.readers.values().copied().filter(|seq| *seq >= shared.tail_start);
        if shared.tail_bytes <= TAIL_BYTES_MAX && near.min().is_some_and(|seq| front.end_seq() > seq) {
            break;
        }
        shared.tail_start = front.end_seq();
        shared.tail_bytes -= front.memory_bytes();
        shared.tail.pop_front();
    }
}

fn reason_of(error: &std::io::Error) -> RefusalReason {
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => RefusalReason::NoSpace,
        _ => RefusalReason::Faulted,
    }
}

/// One log line per change of state.
fn note_trouble(log: &Log, shared: &mut super::Shared, error: Option<&std::io::Error>, good: bool) {
    let dir = log.inner.options.dir.display();
    match error {
        Some(error) => {
            let reason = reason_of(error);
            shared.failures += 1;
            shared.room.write_failed();
            shared.last_error = Some(error.to_string());
            if shared.trouble.replace(reason) != Some(reason) {
                tracing::error!(%error, %dir, state = reason.as_str(), "log cannot be written; refusing until it can");
            }
        }
        None if good => {
            if let Some(before) = shared.trouble.take() {
                tracing::info!(%dir, before = before.as_str(), "log can be written again");
            }
        }
        None => {}
    }
}
