//! Edits that follow each other, as one walk over the event: which fields are cut, replaced and added is decided first, then
//! the event is written once.
//!
//! A program holds edits of different fields alone, so that their order means nothing; the chain sees to that. What an
//! expression reads is the event as it came to the program.

use tokio::time::Instant;

use super::chain::Verdict;
use super::counts::Counts;
use super::parse::{OnError, ParseJson, ParseRegex, ParseSeverity, ParseTimestamp, Parser};
use super::splice::{Append, Level, Piece, Plan, Splice};
use super::{Action, Failure, FieldPath, SetValue, Transform};
use crate::clock::UnixNanos;
use crate::condition::Expression;
use crate::event::Origin;
use crate::json::{DEPTH_MAX, Live, Member, Members, Paths, depth, write_string};

/// Edits of different fields.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) paths: Paths,
    /// By slot, the last key as it is written before a value: `"key":`.
    pub(super) keys: Vec<Box<[u8]>>,
    /// What constants are, as JSON.
    pub(super) constants: Vec<Box<[u8]>>,
    transforms: Vec<Part>,
}

/// What of a program one transform is.
#[derive(Debug)]
struct Part {
    /// Which transform of the chain.
    transform: usize,
    edits: Vec<Edit>,
    on_error: OnError,
}

/// One field.
#[derive(Debug)]
enum Edit {
    Remove(usize),
    Rename { from: usize, to: usize, to_keys: usize },
    SetConstant { slot: usize, constant: usize },
    SetExpression { slot: usize, keys: usize, expression: Expression },
    Parse(Parse),
}

/// What a field says, as others.
#[derive(Debug)]
struct Parse {
    source: usize,
    /// Whether the source goes.
    takes: bool,
    parser: Parser,
    /// Where each thing that is read goes: a slot, and how many keys lead there.
    targets: Vec<(usize, usize)>,
}

/// Memory of a program, used for one event after the other.
#[derive(Debug, Default)]
pub(super) struct EditScratch {
    pub(super) members: Members,
    /// By slot.
    pub(super) plan: Vec<Plan>,
    pub(super) appends: Vec<Append>,
    /// What expressions and parsers wrote.
    pub(super) written: Vec<u8>,
    /// Where in it each thing is that a parser read.
    places: Vec<Option<(usize, usize)>>,
    pub(super) levels: Vec<Level>,
}

/// An event on its way through a program.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subject<'e> {
    /// The event, a valid object.
    pub(super) event: &'e [u8],
    /// Who made it.
    pub(super) origin: &'e Origin,
    /// Most bytes it may have afterwards; at least what it has.
    pub(super) bytes_max: usize,
    /// When it came.
    pub(super) received: UnixNanos,
    /// The time that goes on, for what is remembered.
    pub(super) now: Instant,
}

impl Program {
    /// Compiles the transforms with these numbers; `None` when there are none. Those of other types are left out.
    pub(super) fn new(transforms: &[Transform], numbers: &[usize]) -> Option<Self> {
        let of = |number: &usize| transforms.get(*number).map(|transform| (*number, &transform.action));
        let actions: Vec<(usize, &Action)> = numbers.iter().filter_map(of).collect();
        let paths = Paths::new(actions.iter().flat_map(|(_, action)| action.paths()).map(FieldPath::keys));
        let key = |slot| {
            let mut key = Vec::new();
            write_string(&mut key, &String::from_utf8_lossy(paths.last_key(slot)));
            key.push(b':');
            key.into_boxed_slice()
        };
        let keys = (0..paths.slots()).map(key).collect();
        let mut constants = Vec::new();
        let parts = actions.into_iter().map(|(transform, action)| {
            let edits = edits(action, &paths, &mut constants);
            Part { transform, edits, on_error: action.on_error() }
        });
        let transforms: Vec<Part> = parts.collect();
        (!transforms.is_empty()).then_some(Self { paths, keys, constants, transforms })
    }

    /// Returns how many slots its paths have; the last one is that of the last path.
    pub(super) fn slots(&self) -> usize {
        self.paths.slots()
    }

    /// Writes the event as it is afterwards to `out` where it is another one.
    pub(super) fn run(
        &self,
        subject: Subject<'_>,
        scratch: &mut EditScratch,
        out: &mut Vec<u8>,
        counts: &mut [Counts],
    ) -> Verdict {
        self.paths.members(subject.event, &mut scratch.members);
        scratch.plan.clear();
        scratch.plan.resize(self.paths.slots(), Plan::Leave);
        scratch.appends.clear();
        scratch.written.clear();
        let mut deciding = Deciding { program: self, subject, scratch, bytes: subject.event.len() };
        let mut any_changed = false;
        for part in &self.transforms {
            let (mut changed, mut failure) = (false, None);
            for edit in &part.edits {
                let (done, why) = deciding.edit(edit);
                changed |= done;
                failure = failure.or(why);
            }
            if failure.is_some() && part.on_error == OnError::Drop {
                counts[part.transform].dropped_event(failure);
                return Verdict::Dropped;
            }
            counts[part.transform].event(changed, failure);
            any_changed |= changed;
        }
        if !any_changed {
            return Verdict::Same;
        }
        scratch.appends.sort_unstable_by_key(|append| append.slot);
        Splice::new(self, subject.event, scratch).write(out);
        Verdict::Changed
    }
}

fn edits(action: &Action, paths: &Paths, constants: &mut Vec<Box<[u8]>>) -> Vec<Edit> {
    let slot = |path: &FieldPath| paths.slot(path.keys()).unwrap_or_default();
    match action {
        Action::Remove(fields) => fields.iter().map(|field| Edit::Remove(slot(field))).collect(),
        Action::Rename(fields) => {
            let rename = |(from, to): (&FieldPath, &FieldPath)| Edit::Rename {
                from: slot(from),
                to: slot(to),
                to_keys: to.keys().len(),
            };
            fields.iter().map(|field| rename((&field.from, &field.to))).collect()
        }
        Action::Set(fields) => {
            let set = |(path, value): (&FieldPath, &SetValue)| match value {
                SetValue::Text(text) => {
                    let mut constant = Vec::new();
                    write_string(&mut constant, text);
                    constants.push(constant.into());
                    Edit::SetConstant { slot: slot(path), constant: constants.len() - 1 }
                }
                SetValue::Expression(expression) => {
                    let (keys, expression) = (path.keys().len(), expression.clone());
                    Edit::SetExpression { slot: slot(path), keys, expression }
                }
            };
            fields.iter().map(|field| (&field.path, &field.value)).map(set).collect()
        }
        _ => parse(action, slot).map(Edit::Parse).into_iter().collect(),
    }
}

/// Returns what a transform that parses does; `None` for any other one.
fn parse(action: &Action, slot: impl Fn(&FieldPath) -> usize) -> Option<Parse> {
    let (field, parser, targets) = match action {
        Action::ParseJson(ParseJson { field, into: Some(into), .. }) => {
            (field, Parser::Json, std::slice::from_ref(into))
        }
        Action::ParseRegex(ParseRegex { field, pattern, fields, .. }) => {
            (field, Parser::Regex(pattern.clone()), &fields[..])
        }
        Action::ParseTimestamp(ParseTimestamp { field, into, format, .. }) => {
            (field, Parser::Timestamp(format.clone()), std::slice::from_ref(into))
        }
        Action::ParseSeverity(ParseSeverity { field, into, numbers, .. }) => {
            (field, Parser::Severity(*numbers), std::slice::from_ref(into))
        }
        _ => return None,
    };
    let takes = matches!(parser, Parser::Json) && !targets.contains(field);
    let targets = targets.iter().map(|target| (slot(target), target.keys().len())).collect();
    Some(Parse { source: slot(field), takes, parser, targets })
}

/// What becomes of the fields of one event.
struct Deciding<'e, 's> {
    program: &'e Program,
    subject: Subject<'e>,
    scratch: &'s mut EditScratch,
    /// An upper bound of the bytes the event will have.
    bytes: usize,
}

impl Deciding<'_, '_> {
    /// Decides one edit; returns whether that changes anything, and why not all of it could be done.
    fn edit(&mut self, edit: &Edit) -> (bool, Option<Failure>) {
        let done = match edit {
            Edit::Parse(parse) => return self.parse(parse),
            Edit::Remove(slot) => Ok(self.remove(*slot)),
            Edit::Rename { from, to, to_keys } => self.rename(*from, (*to, *to_keys)),
            Edit::SetConstant { slot, constant } => {
                let bytes = self.program.constants[*constant].len();
                self.place(*slot, Piece::Constant(*constant), bytes).map(|()| true)
            }
            Edit::SetExpression { slot, keys, expression } => {
                let start = self.scratch.written.len();
                let placed = self.compute(*slot, *keys, expression);
                if placed.is_err() {
                    // What fits nowhere takes no memory either.
                    self.scratch.written.truncate(start);
                }
                placed.map(|()| true)
            }
        };
        (done == Ok(true), done.err())
    }

    fn parse(&mut self, parse: &Parse) -> (bool, Option<Failure>) {
        let start = self.scratch.written.len();
        let (mut changed, mut failure) = (false, None);
        match self.read(parse) {
            Ok(member) => {
                // Where it goes, it leaves its place at the same time.
                let freed = if parse.takes { (member.end - member.start) as usize } else { 0 };
                self.bytes -= freed;
                for (index, target) in parse.targets.iter().enumerate() {
                    match self.place_read(index, *target) {
                        Ok(placed) => changed |= placed,
                        Err(why) => failure = failure.or(Some(why)),
                    }
                }
                match changed {
                    true if parse.takes => self.scratch.plan[parse.source] = Plan::Cut,
                    true => {}
                    false => self.bytes += freed,
                }
            }
            Err(why) => failure = Some(why),
        }
        if !changed {
            self.scratch.written.truncate(start);
        }
        (changed, failure)
    }

    /// Reads the value of a field; returns the member that it is.
    fn read(&mut self, parse: &Parse) -> Result<Member, Failure> {
        let EditScratch { members, written, places, .. } = &mut *self.scratch;
        places.clear();
        let Live::At(index) = members.live[parse.source] else {
            let blocked = members.live[parse.source] == Live::Blocked;
            return Err(if blocked { Failure::TypeMismatch } else { Failure::Absent });
        };
        let member = members.list[index as usize];
        let value = &self.subject.event[member.value as usize..member.end as usize];
        parse.parser.read(value, self.subject.received, written, places)?;
        Ok(member)
    }

    /// Gives a field what was read for it; returns whether anything was.
    fn place_read(&mut self, index: usize, (slot, keys): (usize, usize)) -> Result<bool, Failure> {
        let Some((start, end)) = self.scratch.places.get(index).copied().flatten() else { return Ok(false) };
        check_depth(&self.scratch.written[start..end], keys)?;
        self.place(slot, Piece::Written(start, end), end - start)?;
        Ok(true)
    }

    fn compute(&mut self, slot: usize, keys: usize, expression: &Expression) -> Result<(), Failure> {
        let start = self.scratch.written.len();
        expression.write(self.subject.event, self.subject.origin, &mut self.scratch.written)?;
        let value = &self.scratch.written[start..];
        check_depth(value, keys)?;
        let (bytes, end) = (value.len(), self.scratch.written.len());
        self.place(slot, Piece::Written(start, end), bytes)
    }

    fn remove(&mut self, slot: usize) -> bool {
        self.scratch.plan[slot] = Plan::Cut;
        if let Some(member) = self.scratch.members.at(slot) {
            self.bytes -= (member.end - member.start) as usize;
            return true;
        }
        self.scratch.members.list.iter().any(|member| member.slot == slot)
    }

    fn rename(&mut self, from: usize, (to, to_keys): (usize, usize)) -> Result<bool, Failure> {
        let Some(member) = self.scratch.members.at(from) else { return Ok(false) };
        let (start, end) = (member.value as usize, member.end as usize);
        // It leaves its place at the same time.
        let freed = end - member.start as usize;
        check_depth(&self.subject.event[start..end], to_keys)?;
        self.bytes -= freed;
        if let Err(failure) = self.place(to, Piece::Event(start, end), end - start) {
            self.bytes += freed;
            return Err(failure);
        }
        self.scratch.plan[from] = Plan::Cut;
        Ok(true)
    }

    /// Gives a field a value, or says why not and changes nothing.
    fn place(&mut self, slot: usize, piece: Piece, bytes: usize) -> Result<(), Failure> {
        match self.scratch.members.live[slot] {
            Live::Blocked => Err(Failure::TypeMismatch),
            Live::At(index) => {
                let member = self.scratch.members.list[index as usize];
                self.grow(bytes, (member.end - member.value) as usize)?;
                self.scratch.plan[slot] = Plan::Replace(piece);
                Ok(())
            }
            Live::Absent => {
                let (anchor, around) = self.anchor(slot);
                self.grow(bytes + around, 0)?;
                // What does not count any more is not left beside it.
                self.scratch.plan[slot] = Plan::Cut;
                self.scratch.appends.push(Append { slot, anchor, piece });
                Ok(())
            }
        }
    }

    /// Returns the object that a field is added to, and the bytes of all keys, brackets and commas around its value.
    fn anchor(&self, slot: usize) -> (Option<u32>, usize) {
        let (mut at, mut around) = (slot, 1);
        loop {
            around += self.program.keys[at].len();
            at = self.program.paths.parent(at);
            match self.scratch.members.live[at] {
                _ if at == 0 => return (None, around),
                Live::At(index) => return (Some(index), around),
                Live::Absent | Live::Blocked => around += 2,
            }
        }
    }

    fn grow(&mut self, by: usize, less: usize) -> Result<(), Failure> {
        let bytes = self.bytes - less + by;
        if bytes > self.subject.bytes_max {
            return Err(Failure::TooLarge);
        }
        self.bytes = bytes;
        Ok(())
    }
}

/// Checks that a value may stand behind that many keys.
fn check_depth(value: &[u8], keys: usize) -> Result<(), Failure> {
    let is_nested = matches!(value, [b'{' | b'[', ..]);
    if is_nested && depth(value) + keys > DEPTH_MAX as usize { Err(Failure::TooDeep) } else { Ok(()) }
}
