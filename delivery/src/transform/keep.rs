//! `Keep`: an event of nothing but some of its fields, in the order of its bytes.

use super::FieldPath;
use crate::json::{Live, Member, Members, Paths};

/// The fields that stay.
#[derive(Debug)]
pub(super) struct Keep {
    paths: Paths,
    /// By slot: whether it stays whole.
    is_kept: Vec<bool>,
}

/// Memory of a `Keep`, used for one event after the other.
#[derive(Debug, Default)]
pub(super) struct KeepScratch {
    members: Members,
    /// The members whose objects are being written, and whether anything is in them.
    open: Vec<(u32, bool)>,
    way: Vec<u32>,
}

impl Keep {
    /// Returns what keeps these fields.
    pub(super) fn new(fields: &[FieldPath]) -> Self {
        let paths = Paths::new(fields.iter().map(FieldPath::keys));
        let mut is_kept = vec![false; paths.slots()];
        fields.iter().filter_map(|field| paths.slot(field.keys())).for_each(|slot| is_kept[slot] = true);
        Self { paths, is_kept }
    }

    /// Writes what stays of the event to `out`, and returns whether it is another one; nothing is written where not.
    pub(super) fn run(&self, event: &[u8], scratch: &mut KeepScratch, out: &mut Vec<u8>) -> bool {
        let KeepScratch { members, open, way } = scratch;
        self.paths.members(event, members);
        open.clear();
        let start = out.len();
        out.push(b'{');
        let mut any = false;
        for (index, member) in members.list.iter().enumerate() {
            if !self.is_kept[member.slot] || members.live[member.slot] != Live::At(index as u32) {
                continue;
            }
            way.clear();
            let mut outer = member.outer;
            while let Some(index) = outer {
                way.push(index);
                outer = members.list[index as usize].outer;
            }
            way.reverse();
            let shared = open.iter().zip(&*way).take_while(|((open, _), way)| open == *way).count();
            while open.len() > shared {
                open.pop();
                out.push(b'}');
            }
            for index in &way[shared..] {
                let outer = &members.list[*index as usize];
                comma(open.last_mut().map_or(&mut any, |(_, any)| any), out);
                out.extend_from_slice(bytes(event, outer, outer.value + 1));
                open.push((*index, false));
            }
            comma(open.last_mut().map_or(&mut any, |(_, any)| any), out);
            out.extend_from_slice(bytes(event, member, member.end));
        }
        out.resize(out.len() + open.len() + 1, b'}');
        let is_other = out[start..] != *event;
        if !is_other {
            out.truncate(start);
        }
        is_other
    }
}

fn comma(any: &mut bool, out: &mut Vec<u8>) {
    if std::mem::replace(any, true) {
        out.push(b',');
    }
}

fn bytes<'e>(event: &'e [u8], member: &Member, to: u32) -> &'e [u8] {
    event.get(member.start as usize..to as usize).unwrap_or_default()
}
