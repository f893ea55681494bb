//! The committer: the one task that writes a log.

use std::sync::{Arc, PoisonError};

use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    GROUP_BYTES_MAX, Keep, Log, MEND_PERIOD, Refused, TAIL_BYTES_MAX, UNSYNCED_BYTES_MAX, UNSYNCED_TIME_MAX, Waiting,
    fill, room,
};
use crate::intake::RefusalReason;
use crate::log::core::{Committed, LogCore};
use crate::log::frame::Pending;
use crate::settings::Durability;

/// What one turn of the committer shall do.
struct Turn {
    /// Comes before everything else.
    edit: Option<super::edit::Order>,
    group: Vec<Pending>,
    replies: Vec<oneshot::Sender<Result<(), Refused>>>,
    sync: bool,
    seal: bool,
    free: Option<(u64, Keep)>,
}

/// What one turn did.
struct Done {
    committed: Option<Committed>,
    synced: bool,
    error: Option<std::io::Error>,
    sealed: bool,
    freed: bool,
    free_bytes: u64,
    unsynced_bytes: usize,
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
            let idle = turn.edit.is_none() && turn.group.is_empty() && !turn.sync && !turn.seal && turn.free.is_none();
            if !idle {
                let unsynced = take_turn(&log, turn).await;
                let period = if log.shared().trouble.is_some() {
                    Some(MEND_PERIOD)
                } else {
                    unsynced.then_some(UNSYNCED_TIME_MAX)
                };
                due = period.map(|period| due.filter(|_| !timed_out).unwrap_or_else(|| Instant::now() + period));
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
        core.seal(since)
    });
    if let Ok(Err(error)) = sealed.await {
        tracing::warn!(%error, dir = %log.inner.options.dir.display(), "log could not be sealed at the end");
    }
    log.inner.ended.cancel();
}

fn next_turn(log: &Log, timed_out: bool) -> Turn {
    let mut shared = log.shared();
    let edit = shared.take_edit();
    let mut turn = Turn { edit, group: Vec::new(), replies: Vec::new(), sync: false, seal: false, free: None };
    let mut bytes = 0;
    while bytes < GROUP_BYTES_MAX as u64 && shared.until_edit() > 0 {
        let Some(Waiting { pending, bytes: size, reply }) = shared.queue.pop_front() else { break };
        shared.taken += 1;
        bytes += size;
        turn.group.push(pending);
        turn.replies.push(reply);
    }
    turn.sync = shared.sync_wanted > shared.synced_seq || (timed_out && (shared.unsynced || shared.trouble.is_some()));
    shared.sync_wanted = 0;
    turn.seal = std::mem::take(&mut shared.seal_wanted) && room::seal_frees(&mut shared);
    if std::mem::take(&mut shared.free_wanted) || turn.seal {
        let settings = &shared.settings;
        let low = shared.floors.values().copied().min().unwrap_or(0);
        let over = (shared.disk_bytes + shared.reserved + bytes).saturating_sub(settings.bytes_max / 10 * 9);
        let over = over.max(log.lacking(&shared));
        turn.free = Some((low, Keep { retain: settings.retain, bytes_over: over }));
    }
    turn
}

/// Does one turn off the runtime's threads and tells everybody. Returns whether something stays unsynced.
async fn take_turn(log: &Log, turn: Turn) -> bool {
    let Turn { edit, group, replies, sync, seal, free } = turn;
    let worker = log.clone();
    let work = tokio::task::spawn_blocking(move || {
        let mut core = worker.inner.core.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(order) = edit {
            // Who asked may have gone away; the edit stands.
            order.reply.send(core.edit(order.edit)).ok();
        }
        let done = work(&mut core, &worker, (group, sync, seal, free));
        publish(&worker, &core, done, replies)
    });
    match work.await {
        Ok(unsynced) => unsynced,
        // A writer that panicked is in no known state: the task ends with it, and the process says so.
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => false,
    }
}

fn work(
    core: &mut LogCore,
    log: &Log,
    (group, sync, seal, free): (Vec<Pending>, bool, bool, Option<(u64, Keep)>),
) -> Done {
    let since = log.inner.opened.elapsed();
    let mut done = Done {
        committed: None,
        synced: false,
        error: None,
        sealed: false,
        freed: false,
        free_bytes: 0,
        unsynced_bytes: 0,
    };
    if !group.is_empty() {
        done.committed = Some(core.commit(group, since));
        done.synced = log.durability() == Durability::Disk;
    }
    if sync || core.unsynced_bytes() >= UNSYNCED_BYTES_MAX {
        match core.sync(since) {
            Ok(()) => done.synced = true,
            Err(error) => done.error = Some(error),
        }
    }
    if seal {
        match core.seal(since) {
            Ok(()) => done.sealed = true,
            Err(error) => done.error = Some(error),
        }
    }
    if let Some((below, keep)) = free {
        done.freed = !core.free(below, keep, since).is_empty();
    }
    done.free_bytes = log.inner.options.filesystem.free_bytes(&log.inner.options.dir).unwrap_or(u64::MAX);
    done.unsynced_bytes = core.unsynced_bytes();
    done
}

fn publish(log: &Log, core: &LogCore, done: Done, replies: Vec<oneshot::Sender<Result<(), Refused>>>) -> bool {
    let mut shared = log.shared();
    let (frames, error) = done.committed.map_or((Vec::new(), None), |committed| (committed.frames, committed.error));
    let failed = error.as_ref().map(|error| (reason_of(&error.source), error.maybe_kept));
    let kept = frames.len();
    for frame in frames {
        let tallies = tallies_of(&frame);
        shared.state.apply(&frame, &tallies);
        if !frame.is_empty() {
            shared.tail_bytes += frame.memory_bytes();
            shared.tail.push_back(frame);
        }
    }
    trim_tail(&mut shared);
    let trouble = error.map(|error| error.source).or(done.error);
    let mended = shared.trouble.is_some();
    note_trouble(log, &mut shared, trouble.as_ref(), kept > 0 || done.synced);
    let mended = mended && shared.trouble.is_none();
    let room = done.freed || done.sealed || mended;
    if done.freed {
        shared.room.freed();
    }
    if room {
        shared.room.changed();
    }
    shared.disk_bytes = core.bytes();
    shared.free_bytes = done.free_bytes;
    refresh_segments(&mut shared, core);
    fill::note_backlogs(&mut shared);
    let end = core.next_seq();
    shared.unsynced = done.unsynced_bytes > 0;
    if !shared.unsynced {
        shared.synced_seq = end;
    }
    drop(shared);
    log.inner.visible.send_replace(end);
    if room {
        log.inner.room.notify_waiters();
    }
    for (index, reply) in replies.into_iter().enumerate() {
        let (reason, maybe_kept) = failed.unwrap_or((RefusalReason::Faulted, true));
        let answer = if index < kept { Ok(()) } else { Err(Refused { reason, maybe_kept, room_soon: false }) };
        // A caller that went away does not want to know.
        reply.send(answer).ok();
    }
    done.unsynced_bytes > 0
}

fn tallies_of(frame: &crate::log::Frame) -> Box<[crate::log::state::Tally]> {
    let mut tallies = vec![crate::log::state::Tally::default(); frame.routes.len()].into_boxed_slice();
    crate::log::segment::tally_below(frame, frame.end_seq(), &mut tallies);
    tallies
}

/// Only what changed is copied: the segments at the end, and those that went.
fn refresh_segments(shared: &mut super::Shared, core: &LogCore) {
    shared.segments.retain(|ordinal, _| core.segments.contains_key(ordinal));
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
    while let Some(front) = shared.tail.front() {
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
