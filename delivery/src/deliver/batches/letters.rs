//! Batches of dead letters: the events in them, under their original names.

use std::sync::Arc;

use tokio::time::Instant;

use super::{Bounds, Former};
use crate::backend::OutBatchBuilder;
use crate::deliver::dead_letters::{self, Selection};
use crate::log::{Frame, Progress};

/// Adds letters to a batch; events that share incarnation and time of receipt are one chunk.
#[derive(Default)]
pub(super) struct Adding {
    chunk: Option<(u64, i64)>,
}

/// The event of one letter.
struct Member {
    incarnation: u64,
    received: i64,
    seq: u64,
    start: u32,
    end: u32,
}

fn member(frame: &Frame, index: usize, selection: &Selection) -> Option<Member> {
    let (start, end) = frame.span(index);
    let letter = dead_letters::read(frame, index).filter(|letter| selection.takes(letter))?;
    let (event_start, event_end) = letter.event_span((end - start) as usize);
    Some(Member {
        incarnation: letter.id.incarnation,
        received: letter.received,
        seq: letter.id.seq,
        start: start + event_start as u32,
        end: start + event_end as u32,
    })
}

impl Adding {
    fn push(&mut self, frame: &Frame, member: &Member, builder: &mut OutBatchBuilder) {
        let chunk = Some((member.incarnation, member.received));
        if self.chunk != chunk {
            builder.begin_chunk(frame.payload.clone(), frame.origin.clone(), member.incarnation, member.received);
            self.chunk = chunk;
        }
        builder.push(member.seq, member.start, member.end);
    }
}

impl Former {
    /// Adds a frame's letters; returns whether the batch is full.
    pub(super) fn take_letters(
        &mut self,
        selection: &Selection,
        frame: &Arc<Frame>,
        bounds: Bounds,
        skip: &Progress,
    ) -> bool {
        let mut adding = Adding::default();
        for index in self.at.saturating_sub(frame.first_seq) as usize..frame.len() {
            let seq = frame.first_seq + index as u64;
            if seq >= self.end {
                break;
            }
            if skip.is_resolved(seq) {
                continue;
            }
            let Some(member) = member(frame, index, selection) else { continue };
            let size = (member.end - member.start) as usize;
            let (builder, members, _, _) = self
                .forming
                .get_or_insert_with(|| (self.names.builder(), Vec::new(), Instant::now(), frame.incarnation));
            let full = builder.len() >= bounds.events || builder.payload_bytes() + size > bounds.bytes;
            if full && !builder.is_empty() {
                self.at = seq;
                return true;
            }
            adding.push(frame, &member, builder);
            members.push(seq);
        }
        false
    }
}

/// Adds the letters of `[first, end)` that a batch was made of before.
pub(super) fn add_letters(
    frame: &Arc<Frame>,
    (first, end): (u64, u64),
    (selection, progress): (&Selection, &Progress),
    (builder, members): (&mut OutBatchBuilder, &mut Vec<u64>),
) {
    let mut adding = Adding::default();
    for index in first.saturating_sub(frame.first_seq) as usize..frame.len() {
        let seq = frame.first_seq + index as u64;
        if seq >= end {
            break;
        }
        if progress.is_resolved(seq) {
            continue;
        }
        if let Some(member) = member(frame, index, selection) {
            adding.push(frame, &member, builder);
            members.push(seq);
        }
    }
}
