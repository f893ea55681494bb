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
    nodes: Vec<Node>,
}

#[derive(Debug, Clone)]
struct Node {
    key: Box<[u8]>,
    parent: usize,
    /// The place behind the last node below this one; its next sibling, if it has one.
    below_end: usize,
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
        walk.space();
        if walk.byte() != b'{' {
            return;
        }
        walk.at += 1;
        let mut node = 0;
        loop {
            walk.space();
            match walk.byte() {
                b',' => walk.at += 1,
                b'"' => node = self.member(node, &mut walk, found),
                b'}' if node != 0 => {
                    walk.at += 1;
                    if let Found::At { end, .. } = &mut found[node] {
                        *end = walk.at as u32;
                    }
                    node = self.nodes[node].parent;
                }
                _ => return,
            }
        }
    }

    /// Takes a member of the object at `node`; returns the node whose object the walk is in then.
    #[inline]
    fn member(&self, node: usize, walk: &mut Walk<'_>, found: &mut [Found]) -> usize {
        let (key, escaped) = walk.key();
        let Some(child) = self.child(node, key, escaped) else {
            walk.skip_value();
            return node;
        };
        let start = walk.at as u32;
        let below = child + 1..self.nodes[child].below_end;
        if walk.byte() == b'{' && !below.is_empty() {
            found[below].fill(Found::Absent);
            found[child] = Found::At { start, end: start };
            walk.at += 1;
            return child;
        }
        found[below].fill(Found::Blocked);
        walk.skip_value();
        found[child] = Found::At { start, end: walk.at as u32 };
        node
    }

    #[inline]
    fn child(&self, node: usize, key: &[u8], escaped: bool) -> Option<usize> {
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

/// A place in a valid object.
#[derive(Debug)]
pub(super) struct Walk<'e> {
    pub(super) bytes: &'e [u8],
    pub(super) at: usize,
    marks: Marks,
}

impl<'e> Walk<'e> {
    #[inline]
    pub(super) fn new(bytes: &'e [u8]) -> Self {
        Self { bytes, at: 0, marks: Marks::new(bytes, 0) }
    }

    /// Returns the byte here; 0, which is in no JSON, at the end.
    #[inline]
    pub(super) fn byte(&self) -> u8 {
        self.bytes.get(self.at).copied().unwrap_or(0)
    }

    #[inline]
    pub(super) fn space(&mut self) {
        while matches!(self.byte(), b' ' | b'\t' | b'\n' | b'\r') {
            self.at += 1;
        }
    }

    /// Takes a key from its quote on, and moves to its value; returns it as written, and whether with escapes.
    #[inline]
    pub(super) fn key(&mut self) -> (&'e [u8], bool) {
        let start = self.at + 1;
        let escaped = self.skip_string();
        let key = self.bytes.get(start..self.at - 1).unwrap_or_default();
        self.space();
        if self.byte() == b':' {
            self.at += 1;
        }
        self.space();
        (key, escaped)
    }

    /// Moves behind the value that starts here.
    #[inline]
    pub(super) fn skip_value(&mut self) {
        match self.byte() {
            b'"' => {
                self.skip_string();
            }
            b'{' | b'[' => self.skip_brackets(),
            _ => self.skip_scalar(),
        }
    }

    /// Moves behind the string whose quote is here; returns whether it is written with escapes.
    #[inline]
    fn skip_string(&mut self) -> bool {
        let mut at = self.marks.next(self.bytes, self.at + 1);
        let escaped = self.bytes.get(at) == Some(&b'\\');
        while let Some(&byte) = self.bytes.get(at) {
            if byte == b'"' {
                self.at = at + 1;
                return escaped;
            }
            at = self.marks.next(self.bytes, at + 1 + usize::from(byte == b'\\'));
        }
        self.at = self.bytes.len();
        escaped
    }

    #[inline]
    fn skip_scalar(&mut self) {
        while let Some(&byte) = self.bytes.get(self.at) {
            if matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r') {
                return;
            }
            self.at += 1;
        }
    }

    fn skip_brackets(&mut self) {
        let mut depth = 0_usize;
        while let Some(&byte) = self.bytes.get(self.at) {
            if byte == b'"' {
                self.skip_string();
                continue;
            }
            self.at += 1;
            match byte {
                b'{' | b'[' => depth += 1,
                b'}' | b']' => {
                    depth -= 1;
                    if depth == 0 {
                        return;
                    }
                }
                _ => {}
            }
        }
    }
}
