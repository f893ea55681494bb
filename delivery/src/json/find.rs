//! Many fields of one object in one lazy walk.

use std::collections::BTreeSet;

use super::marks::Marks;
use super::text::Text;

/// What a walk found at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Found {
    /// Some key on the way is not there.
    #[default]
    Absent,
    /// A value on the way is there and is no object.
    Blocked,
    /// The value is at these bytes of the object.
    At {
        /// Where it starts.
        start: u32,
        /// The place behind it.
        end: u32,
    },
}

impl Found {
    /// Returns the bytes of the value in the object that was walked.
    #[inline]
    pub fn of(self, object: &[u8]) -> Option<&[u8]> {
        match self {
            Self::At { start, end } => object.get(start as usize..end as usize),
            Self::Absent | Self::Blocked => None,
        }
    }
}

/// The paths one walk looks for, compiled to a tree of keys.
#[derive(Debug, Clone)]
pub struct Paths {
    /// In preorder: what is below a node follows it. The root, the object itself, comes first.
    pub(super) nodes: Vec<Node>,
}

#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) key: Box<[u8]>,
    pub(super) parent: usize,
    /// The place behind the last node below this one; its next sibling, if it has one.
    pub(super) below_end: usize,
}

impl Paths {
    /// Compiles paths; a path may be the start of another, and may be there twice.
    pub fn new<P: AsRef<[S]>, S: AsRef<str>>(paths: impl IntoIterator<Item = P>) -> Self {
        let mut prefixes = BTreeSet::from([Vec::new()]);
        for path in paths {
            let keys: Vec<Box<[u8]>> = path.as_ref().iter().map(|key| key.as_ref().as_bytes().into()).collect();
            prefixes.extend((1..=keys.len()).map(|length| keys[..length].to_vec()));
        }
        // Sorted, a prefix stands directly before all it starts: that is the preorder.
        let prefixes: Vec<_> = prefixes.into_iter().collect();
        let node = |(index, prefix): (usize, &Vec<Box<[u8]>>)| {
            let below = prefixes[index..].iter().take_while(|other| other.starts_with(prefix)).count();
            let parent = prefix.split_last().and_then(|(_, parent)| prefixes.binary_search(&parent.to_vec()).ok());
            let key = prefix.last().cloned().unwrap_or_default();
            Node { key, parent: parent.unwrap_or(0), below_end: index + below }
        };
        Self { nodes: prefixes.iter().enumerate().map(node).collect() }
    }

    /// Returns how many places [`Paths::find`] fills.
    pub fn slots(&self) -> usize {
        self.nodes.len()
    }

    /// Returns the place of `path`, `None` when it is not among the paths.
    pub fn slot<S: AsRef<str>>(&self, path: &[S]) -> Option<usize> {
        path.iter().try_fold(0, |node, key| self.child(node, key.as_ref().as_bytes(), false))
    }

    /// Walks a valid object once and says for each slot what is there. Of equal keys the last one counts, with all that
    /// is below it.
    ///
    /// # Panics
    /// When `found` is shorter than [`Paths::slots`].
    pub fn find(&self, object: &[u8], found: &mut [Found]) {
        let found = &mut found[..self.nodes.len()];
        found.fill(Found::Absent);
        let mut walk = Walk::new(object);
        let mut at = walk.space(0);
        if walk.byte(at) != b'{' {
            return;
        }
        at += 1;
        let mut node = 0;
        loop {
            at = walk.space(at);
            match walk.byte(at) {
                b',' => at += 1,
                b'"' => (at, node) = self.member(node, &mut walk, at, found),
                b'}' if node != 0 => {
                    at += 1;
                    if let Found::At { end, .. } = &mut found[node] {
                        *end = at as u32;
                    }
                    node = self.nodes[node].parent;
                }
                _ => return,
            }
        }
    }

    /// Takes the member whose key is at `at`, in the object at `node`; returns the place behind, and the node whose
    /// object it is in.
    #[inline]
    fn member(&self, node: usize, walk: &mut Walk<'_>, at: usize, found: &mut [Found]) -> (usize, usize) {
        let (key, escaped, value) = walk.key(at);
        let child = self.child(node, key, escaped);
        let start = value as u32;
        if let Some(child) = child {
            let below = child + 1..self.nodes[child].below_end;
            let entered = walk.byte(value) == b'{' && !below.is_empty();
            found[below].fill(if entered { Found::Absent } else { Found::Blocked });
            if entered {
                found[child] = Found::At { start, end: start };
                return (value + 1, child);
            }
        }
        let end = walk.skip_value(value);
        if let Some(child) = child {
            found[child] = Found::At { start, end: end as u32 };
        }
        (end, node)
    }

    #[expect(clippy::inline_always, reason = "measured: as a call it costs more than it does")]
    #[inline(always)]
    pub(super) fn child(&self, node: usize, key: &[u8], escaped: bool) -> Option<usize> {
        let end = self.nodes[node].below_end;
        let mut child = node + 1;
        while child < end {
            let known = &self.nodes[child];
            let same = if escaped { Text::from_raw(key).is(&known.key) } else { *known.key == *key };
            if same {
                return Some(child);
            }
            child = known.below_end;
        }
        None
    }
}

/// Steps over a valid object. As in the scanner, the place travels through arguments and results.
#[derive(Debug)]
pub(super) struct Walk<'e> {
    bytes: &'e [u8],
    marks: Marks,
}

impl<'e> Walk<'e> {
    #[inline]
    pub(super) fn new(bytes: &'e [u8]) -> Self {
        Self { bytes, marks: Marks::new(bytes) }
    }

    /// Returns the byte at a place; 0, which is in no JSON, behind the end.
    #[inline]
    pub(super) fn byte(&self, at: usize) -> u8 {
        self.bytes.get(at).copied().unwrap_or(0)
    }

    #[inline]
    pub(super) fn space(&self, mut at: usize) -> usize {
        while matches!(self.byte(at), b' ' | b'\t' | b'\n' | b'\r') {
            at += 1;
        }
        at
    }

    /// Takes a key from its quote on; returns it as written, whether with escapes, and where its value is.
    #[expect(clippy::inline_always, reason = "measured: as a call it costs more than it does")]
    #[inline(always)]
    pub(super) fn key(&mut self, at: usize) -> (&'e [u8], bool, usize) {
        let (end, escaped) = self.skip_string(at);
        let key = self.bytes.get(at + 1..end - 1).unwrap_or_default();
        let colon = self.space(end);
        (key, escaped, self.space(colon + usize::from(self.byte(colon) == b':')))
    }

    /// Returns the place behind the value at `at`.
    #[expect(clippy::inline_always, reason = "measured: as a call it costs more than it does")]
    #[inline(always)]
    pub(super) fn skip_value(&mut self, at: usize) -> usize {
        match self.byte(at) {
            b'"' => self.skip_string(at).0,
            b'{' | b'[' => self.skip_brackets(at),
            _ => self.skip_scalar(at),
        }
    }

    /// Returns the place behind the string whose quote is at `at`, and whether it is written with escapes.
    #[expect(clippy::inline_always, reason = "measured: as a call it costs more than it does")]
    #[inline(always)]
    fn skip_string(&mut self, at: usize) -> (usize, bool) {
        let end = self.marks.next(self.bytes, at + 1);
        if self.byte(end) == b'"' { (end + 1, false) } else { (self.skip_escaped(end), true) }
    }

    fn skip_escaped(&mut self, mut at: usize) -> usize {
        while let Some(&byte) = self.bytes.get(at) {
            if byte == b'"' {
                return at + 1;
            }
            at = self.marks.next(self.bytes, at + 1 + usize::from(byte == b'\\'));
        }
        self.bytes.len()
    }

    #[inline]
    fn skip_scalar(&self, mut at: usize) -> usize {
        while let Some(&byte) = self.bytes.get(at) {
            if matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r') {
                break;
            }
            at += 1;
        }
        at
    }

    fn skip_brackets(&mut self, mut at: usize) -> usize {
        let mut depth = 0_usize;
        while let Some(&byte) = self.bytes.get(at) {
            at += 1;
            match byte {
                b'"' => at = self.skip_string(at - 1).0,
                b'{' | b'[' => depth += 1,
                b'}' | b']' => {
                    depth -= 1;
                    if depth == 0 {
                        break;
                    }
                }
                _ => {}
            }
        }
        at
    }
}
