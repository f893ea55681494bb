//! Every member at a path in one lazy walk: where it stands, so that it can be cut, replaced or copied.
//!
//! As [`Paths::find`], but nothing is passed over: of duplicate keys each one is listed, and what counts is said beside it.
//! Who cuts a field must cut all of them, or the one before would count in its place.

use super::find::{Paths, Walk};
use super::text::Text;

/// One member at a path, as places in the object that was walked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Member {
    /// Which path it stands at.
    pub(crate) slot: usize,
    /// The member in whose object it is, by its number; `None` for the object that was walked.
    pub(crate) outer: Option<u32>,
    /// Whether it is an object that the walk went into: its own members may follow.
    pub(crate) entered: bool,
    /// Behind what is before it in its object: another member, or the brace.
    pub(crate) before: u32,
    /// Where its key begins, at the quote.
    pub(crate) start: u32,
    /// Where its value begins.
    pub(crate) value: u32,
    /// The place behind its value.
    pub(crate) end: u32,
}

/// What counts at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Live {
    /// Some key on the way is not there.
    #[default]
    Absent,
    /// A value on the way is there and is no object.
    Blocked,
    /// The member with this number.
    At(u32),
}

/// What a walk listed. Its memory is used again by the next one.
#[derive(Debug, Default)]
pub(crate) struct Members {
    /// In the order of their bytes, an object before what is in it.
    pub(crate) list: Vec<Member>,
    /// What counts, by slot.
    pub(crate) live: Vec<Live>,
    /// Behind the brace that opens the object.
    pub(crate) open: usize,
    /// Where the brace is that closes it.
    pub(crate) close: usize,
}

impl Members {
    /// Returns the member that counts at a slot.
    pub(crate) fn at(&self, slot: usize) -> Option<&Member> {
        match self.live.get(slot) {
            Some(Live::At(index)) => self.list.get(*index as usize),
            _ => None,
        }
    }
}

impl Paths {
    /// Walks a valid object once and lists every member at one of the paths, or on the way to one.
    pub(crate) fn members(&self, object: &[u8], into: &mut Members) {
        into.list.clear();
        into.live.clear();
        into.live.resize(self.nodes.len(), Live::Absent);
        let mut walk = Walk::new(object);
        let mut at = walk.space(0) + 1;
        (into.open, into.close) = (at.min(object.len()), object.len());
        if walk.byte(at - 1) != b'{' {
            return;
        }
        let (mut inside, mut node, mut before): (Option<u32>, usize, usize) = (None, 0, at);
        loop {
            at = walk.space(at);
            match walk.byte(at) {
                b',' => at += 1,
                b'"' => {
                    let (key, escaped, value) = walk.key(at);
                    let Some(child) = self.child(node, key, escaped) else {
                        at = walk.skip_value(value);
                        before = at;
                        continue;
                    };
                    let entered = self.list(child, walk.byte(value) == b'{', into);
                    let place = (before as u32, at as u32, value as u32);
                    let index = into.list.len() as u32;
                    into.live[child] = Live::At(index);
                    at = if entered { value + 1 } else { walk.skip_value(value) };
                    before = at;
                    into.list.push(Member {
                        slot: child,
                        outer: inside,
                        entered,
                        before: place.0,
                        start: place.1,
                        value: place.2,
                        end: at as u32,
                    });
                    if entered {
                        (inside, node) = (Some(index), child);
                    }
                }
                b'}' => {
                    let Some(index) = inside else {
                        into.close = at;
                        return;
                    };
                    at += 1;
                    before = at;
                    let member = &mut into.list[index as usize];
                    member.end = at as u32;
                    (inside, node) = (member.outer, self.nodes[node].parent);
                }
                _ => return,
            }
        }
    }

    /// Says what counts below a member that is there now; returns whether the walk goes into it.
    fn list(&self, child: usize, is_object: bool, into: &mut Members) -> bool {
        let below = child + 1..self.nodes[child].below_end;
        let entered = is_object && !below.is_empty();
        into.live[below].fill(if entered { Live::Absent } else { Live::Blocked });
        entered
    }

    /// Returns the slot above; the object itself, slot 0, is its own.
    pub(crate) fn parent(&self, slot: usize) -> usize {
        self.nodes[slot].parent
    }

    /// Returns whether `slot` is `outer` or below it.
    pub(crate) fn is_within(&self, slot: usize, outer: usize) -> bool {
        (outer..self.nodes[outer].below_end).contains(&slot)
    }

    /// Returns the last key of a slot's path, as it means.
    pub(crate) fn last_key(&self, slot: usize) -> &[u8] {
        &self.nodes[slot].key
    }
}

/// Calls `each` with every member of a valid object: its key as it is written, without the quotes, its value, and all of its bytes.
pub(crate) fn each_member<'o>(object: &'o [u8], mut each: impl FnMut(&'o [u8], &'o [u8], &'o [u8])) {
    let mut walk = Walk::new(object);
    let mut at = walk.space(0) + 1;
    loop {
        at = walk.space(at);
        match walk.byte(at) {
            b',' => at += 1,
            b'"' => {
                let (key, _, value) = walk.key(at);
                let end = walk.skip_value(value);
                let bytes = |from: usize| object.get(from..end).unwrap_or_default();
                each(key, bytes(value), bytes(at));
                at = end;
            }
            _ => return,
        }
    }
}

/// Returns the value at a key of a valid object: of duplicate keys the last one counts.
pub(crate) fn value_at_key<'o>(object: &'o [u8], wanted: &str) -> Option<&'o [u8]> {
    let mut found = None;
    each_member(object, |key, value, _| {
        if Text::from_raw(key).is(wanted.as_bytes()) {
            found = Some(value);
        }
    });
    found
}

/// Calls `each` with every element of a valid array, in order, until it returns `false`.
pub(crate) fn each_element<'o>(array: &'o [u8], mut each: impl FnMut(&'o [u8]) -> bool) {
    let mut walk = Walk::new(array);
    let mut at = walk.space(0) + 1;
    loop {
        at = walk.space(at);
        match walk.byte(at) {
            b',' => at += 1,
            b']' | 0 => return,
            _ => {
                let end = walk.skip_value(at);
                // What is no array may not go on.
                if end <= at || !each(array.get(at..end).unwrap_or_default()) {
                    return;
                }
                at = end;
            }
        }
    }
}

/// Returns how many brackets are open at once in a valid value, at most.
pub(crate) fn depth(value: &[u8]) -> usize {
    let mut walk = Walk::new(value);
    let (mut open, mut most, mut at) = (0_usize, 0, 0);
    loop {
        match walk.byte(at) {
            b'"' => at = walk.skip_value(at) - 1,
            b'{' | b'[' => {
                open += 1;
                most = most.max(open);
            }
            b'}' | b']' => open = open.saturating_sub(1),
            0 => return most,
            _ => {}
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the members as (slot, bytes), and what counts.
    fn walked(paths: &[&[&str]], object: &str) -> (Vec<(usize, String)>, Vec<Option<String>>) {
        let paths = Paths::new(paths.iter().map(|path| path.to_vec()));
        let mut members = Members::default();
        paths.members(object.as_bytes(), &mut members);
        let text = |member: &Member| object[member.start as usize..member.end as usize].to_owned();
        let live = (0..paths.slots()).map(|slot| members.at(slot).map(text)).collect();
        (members.list.iter().map(|member| (member.slot, text(member))).collect(), live)
    }

    #[test]
    fn every_occurrence_is_listed_and_the_last_one_counts() {
        let (list, live) = walked(&[&["a"]], r#"{"a":1,"\u0061":{"a":3},"b":{"a":4}}"#);
        assert_eq!(list, [(1, r#""a":1"#.to_owned()), (1, r#""\u0061":{"a":3}"#.to_owned())]);
        assert_eq!(live[1].as_deref(), Some(r#""\u0061":{"a":3}"#));
    }

    #[test]
    fn what_is_in_an_object_that_is_there_again_does_not_count() {
        let object = r#"{"a":{"b":1},"a":{"c":2}}"#;
        let (list, live) = walked(&[&["a", "b"]], object);
        assert_eq!(list.len(), 3);
        assert_eq!(live[1].as_deref(), Some(r#""a":{"c":2}"#));
        assert_eq!(live[2], None);
        let paths = Paths::new([["a", "b"]]);
        let mut members = Members::default();
        paths.members(br#"{"a":{"b":1},"a":3}"#, &mut members);
        assert_eq!(members.live, [Live::Absent, Live::At(2), Live::Blocked]);
    }

    #[test]
    fn elements_come_in_order_until_it_is_enough() {
        let elements = |array: &str, most: usize| {
            let mut found = Vec::new();
            each_element(array.as_bytes(), |element| {
                found.push(String::from_utf8_lossy(element).into_owned());
                found.len() < most
            });
            found
        };
        assert_eq!(
            elements(r#" [ 1 , "a,]" , [2,[3]],{"k":[4]},null ] "#, 9),
            ["1", r#""a,]""#, "[2,[3]]", r#"{"k":[4]}"#, "null"]
        );
        assert_eq!(elements("[1,2,3]", 2), ["1", "2"]);
        assert_eq!(elements("[]", 9), [""; 0]);
        for bytes in ["", "[", "[,", "[}", "[1", "[\"", "{}", "7"] {
            elements(bytes, 9);
        }
    }

    #[test]
    fn a_value_is_found_by_its_key() {
        let object = r#"{"a":1,"b":{"a":2},"\u0061" : [3] }"#;
        assert_eq!(value_at_key(object.as_bytes(), "a"), Some(&b"[3]"[..]));
        assert_eq!(value_at_key(object.as_bytes(), "b"), Some(&br#"{"a":2}"#[..]));
        assert_eq!(value_at_key(object.as_bytes(), "c"), None);
    }

    #[test]
    fn depth_counts_brackets_outside_strings() {
        for (value, expected) in [("1", 0), ("\"[[\\\"[\"", 0), ("[]", 1), (r#"{"a":[{},"}"],"b":[]}"#, 3)] {
            assert_eq!(depth(value.as_bytes()), expected, "{value}");
        }
    }
}
