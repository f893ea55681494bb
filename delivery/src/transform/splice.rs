//! An event written anew: runs of its bytes, with members cut out, values replaced, and members added.

use super::edit::{EditScratch, Program};
use crate::json::{Live, Member, Members};

/// What becomes of the members at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plan {
    /// They stay.
    Leave,
    /// They go, all of them.
    Cut,
    /// The one that counts gets this value, the others go.
    Replace(Piece),
}

/// Where the bytes of a value are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece {
    /// In the event, from one place to another.
    Event(usize, usize),
    /// In what expressions and parsers wrote.
    Written(usize, usize),
    /// A constant of the program.
    Constant(usize),
}

/// A member that is added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Append {
    /// Where it shall stand.
    pub(super) slot: usize,
    /// The member whose object is there already, `None` for the event itself; all in between is made.
    pub(super) anchor: Option<u32>,
    pub(super) piece: Piece,
}

/// An object that is being written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Level {
    /// Which member it is, `None` for the event itself.
    member: Option<u32>,
    /// Whether a member of it was written.
    any: bool,
}

/// One event on its way to `out`.
pub(super) struct Splice<'e> {
    program: &'e Program,
    event: &'e [u8],
    members: &'e Members,
    plan: &'e [Plan],
    appends: &'e [Append],
    written: &'e [u8],
    levels: &'e mut Vec<Level>,
    /// Everything before is written, or gone.
    at: usize,
}

impl<'e> Splice<'e> {
    /// Returns the splice that the scratch's plan says; its additions in the order of their slots.
    pub(super) fn new(program: &'e Program, event: &'e [u8], scratch: &'e mut EditScratch) -> Self {
        let EditScratch { members, plan, appends, written, levels, .. } = scratch;
        levels.clear();
        Self { program, event, members, plan, appends, written, levels, at: 0 }
    }

    /// Appends the event as it is now, `{}` where no member is left.
    pub(super) fn write(mut self, out: &mut Vec<u8>) {
        let (members, start) = (self.members, out.len());
        out.extend_from_slice(self.slice(0, members.open));
        self.at = members.open;
        self.levels.push(Level { member: None, any: false });
        for (index, member) in members.list.iter().enumerate() {
            while self.level_end().is_some_and(|end| end <= member.start as usize) {
                self.close(out);
            }
            self.member(index as u32, member, out);
        }
        while !self.levels.is_empty() {
            self.close(out);
        }
        out.extend_from_slice(self.slice(self.at, self.event.len()));
        if let [b'{', inside @ .., b'}'] = &out[start..]
            && inside.trim_ascii_start().is_empty()
        {
            out.truncate(start);
            out.extend_from_slice(b"{}");
        }
    }

    fn member(&mut self, index: u32, member: &Member, out: &mut Vec<u8>) {
        if (member.start as usize) < self.at {
            return; // In something that is gone.
        }
        match self.plan[member.slot] {
            Plan::Leave if member.entered => {
                self.copy_to(member.value as usize + 1, out);
                self.levels.push(Level { member: Some(index), any: false });
            }
            Plan::Leave => {}
            Plan::Replace(piece) if self.members.live[member.slot] == Live::At(index) => {
                self.copy_to(member.value as usize, out);
                self.piece(piece, out);
                self.at = member.end as usize;
            }
            Plan::Cut | Plan::Replace(_) => {
                self.copy_to(member.before as usize, out);
                self.at = member.end as usize;
            }
        }
    }

    /// Returns the place behind the object that is being written; `None` for the event itself.
    fn level_end(&self) -> Option<usize> {
        let member = self.levels.last()?.member?;
        Some(self.members.list[member as usize].end as usize)
    }

    /// Ends the object that is being written, up to its closing brace.
    fn close(&mut self, out: &mut Vec<u8>) {
        let brace = self.level_end().map_or(self.members.close, |end| end - 1);
        self.copy_to(brace, out);
        if let Some(level) = self.levels.pop() {
            self.append(level, out);
        }
    }

    /// Writes what stands from here to `to`. Of what follows a member that is gone, the comma goes where nothing is before it.
    fn copy_to(&mut self, to: usize, out: &mut Vec<u8>) {
        let mut bytes = self.slice(self.at, to);
        self.at = to;
        if let Some(level) = self.levels.last_mut().filter(|level| !level.any) {
            if let Some(behind) = bytes.trim_ascii_start().strip_prefix(b",") {
                bytes = behind.trim_ascii_start();
            }
            level.any = !bytes.trim_ascii_start().is_empty();
        }
        out.extend_from_slice(bytes);
    }

    /// Adds members to the end of an object, with the objects on the way to them: members that share a way share it.
    fn append(&self, level: Level, out: &mut Vec<u8>) {
        let paths = &self.program.paths;
        let outermost = level.member.map_or(0, |member| self.members.list[member as usize].slot);
        let (mut open, mut any) = (outermost, level.any);
        for Append { slot, piece, .. } in self.appends.iter().filter(|append| append.anchor == level.member) {
            while !paths.is_within(*slot, open) {
                out.push(b'}');
                (open, any) = (paths.parent(open), true);
            }
            let parent = paths.parent(*slot);
            while open != parent {
                // The next one on the way down.
                let mut next = parent;
                while paths.parent(next) != open {
                    next = paths.parent(next);
                }
                self.key(next, any, out);
                out.push(b'{');
                (open, any) = (next, false);
            }
            self.key(*slot, any, out);
            self.piece(*piece, out);
            any = true;
        }
        while open != outermost {
            out.push(b'}');
            open = paths.parent(open);
        }
    }

    fn key(&self, slot: usize, follows: bool, out: &mut Vec<u8>) {
        if follows {
            out.push(b',');
        }
        out.extend_from_slice(&self.program.keys[slot]);
    }

    fn piece(&self, piece: Piece, out: &mut Vec<u8>) {
        out.extend_from_slice(match piece {
            Piece::Event(start, end) => self.slice(start, end),
            Piece::Written(start, end) => self.written.get(start..end).unwrap_or_default(),
            Piece::Constant(constant) => &self.program.constants[constant],
        });
    }

    fn slice(&self, from: usize, to: usize) -> &'e [u8] {
        self.event.get(from..to).unwrap_or_default()
    }
}
