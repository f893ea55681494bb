//! YAML (and JSON) into a small tree in which every value knows its line and column.
//!
//! Expected flow: `read` takes the text of a file and returns the root of each document; a document that cannot be
//! read is left out with its problem, and reading goes on at the next `---`. Anchors, aliases and merge keys are
//! resolved within [`WEIGHT_MAX`] and [`DEPTH_MAX`]; a value that came through an alias keeps the place where it is
//! written. Duplicate keys are problems, and the first one counts.

use std::collections::HashMap;

use granit_parser::{Event, Parser, ScalarStyle, Span, Tag};

pub use super::error::Position;
use super::error::{PROBLEMS_MAX, Problem, quoted, shortened};
pub use super::scalar::Scalar;
use super::scalar::plain;

/// Most that the documents of one file may weigh with all aliases resolved: bytes of text plus [`NODE_WEIGHT`] a value.
pub const WEIGHT_MAX: usize = 16 << 20;

/// What a value weighs besides its text; about half of what it takes in memory.
pub const NODE_WEIGHT: usize = 32;

/// Most levels of lists and mappings inside one another.
pub const DEPTH_MAX: usize = 64;

/// A value and where it begins.
#[derive(Debug, Clone)]
pub struct Node {
    pub(crate) position: Position,
    pub(crate) value: Value,
    weight: usize,
    height: usize,
}

/// What a node is.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Scalar { text: String, scalar: Scalar },
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// One field of a mapping.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) position: Position,
    pub(crate) node: Node,
}

impl Node {
    /// Returns the entry of a mapping.
    pub(crate) fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|entry| entry.key == key),
            _ => None,
        }
    }

    /// Returns the value of a mapping's entry.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.node)
    }

    /// Returns the items of a list; anything else has none.
    pub(crate) fn items(&self) -> &[Node] {
        match &self.value {
            Value::List(items) => items,
            _ => &[],
        }
    }

    /// Returns the fields of a mapping; anything else has none.
    pub(crate) fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    /// Returns whether it is a mapping.
    pub(crate) fn is_map(&self) -> bool {
        matches!(self.value, Value::Map(_))
    }

    /// Returns the names of a mapping's fields.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        let entries = match &self.value {
            Value::Map(entries) => &entries[..],
            _ => &[],
        };
        entries.iter().map(|entry| entry.key.as_str())
    }

    /// Returns the items of the list under that key.
    pub(crate) fn into_items(self, key: &str) -> Vec<Node> {
        let Value::Map(entries) = self.value else { return Vec::new() };
        match entries.into_iter().find(|entry| entry.key == key).map(|entry| entry.node.value) {
            Some(Value::List(items)) => items,
            _ => Vec::new(),
        }
    }

    /// Returns where the value at that path (`spec.routes[1].name`) is, or the nearest value around it.
    pub(crate) fn at(&self, path: &str) -> Position {
        let mut node = self;
        for step in path.split(['.', '[', ']']).filter(|step| !step.is_empty()) {
            let next = node.get(step).or_else(|| node.items().get(step.parse::<usize>().ok()?));
            let Some(next) = next else { break };
            node = next;
        }
        node.position
    }

    /// Returns the text, if it is text.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, scalar: Scalar::Text } => Some(text),
            _ => None,
        }
    }

    /// Returns whether nothing is there.
    pub(crate) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { scalar: Scalar::Null, .. })
    }

    /// Returns what it is, for "found".
    pub(crate) fn described(&self) -> String {
        match &self.value {
            Value::Scalar { scalar: Scalar::Null, .. } => "nothing (null)".to_owned(),
            Value::Scalar { text, scalar: Scalar::Bool(_) } => format!("the boolean {text}"),
            Value::Scalar { text, scalar: Scalar::Integer(_) | Scalar::Float(_) } => {
                format!("the number {}", shortened(text))
            }
            Value::Scalar { text, scalar: Scalar::Text } => quoted(text),
            Value::List(items) => format!("a list of {}", items.len()),
            Value::Map(_) => "an object".to_owned(),
        }
    }
}

/// One document of a file: its root unless it could not be read, and what is wrong with it as YAML.
#[derive(Debug)]
pub(crate) struct Read {
    pub(crate) root: Option<Node>,
    pub(crate) problems: Vec<Problem>,
}

/// Returns the documents of a file; empty ones are left out.
pub(crate) fn read(text: &str) -> Vec<Read> {
    let mut options = granit_parser::options! { flow_nesting_limit: DEPTH_MAX, block_nesting_limit: DEPTH_MAX };
    options.set_emit_comments(false);
    let mut parser = Parser::new_from_str_with_options(text, options);
    let mut builder = Builder::default();
    while let Some(event) = parser.next_event() {
        let Err(problem) = event
            .map_err(|error| Problem::new(position(*error.marker()), "", format!("not YAML: {}", error.info())))
            .and_then(|(event, span)| builder.take(event, span))
        else {
            continue;
        };
        builder.abandon(problem);
        if builder.weight > WEIGHT_MAX
            || builder.told >= PROBLEMS_MAX
            || !parser.proceed_next_document().unwrap_or(false)
        {
            break;
        }
    }
    builder.documents
}

fn position(marker: granit_parser::Marker) -> Position {
    Position { line: marker.line().max(1), column: marker.col() + 1 }
}

#[derive(Default)]
struct Builder {
    stack: Vec<Frame>,
    anchors: HashMap<usize, Node>,
    weight: usize,
    root: Option<Node>,
    problems: Vec<Problem>,
    /// Problems of the documents that have ended.
    told: usize,
    documents: Vec<Read>,
}

/// A list or mapping that is being read.
struct Frame {
    position: Position,
    anchor: usize,
    weight: usize,
    height: usize,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    Map { entries: Vec<Entry>, places: HashMap<String, Position>, key: Option<(String, Position)>, merged: Vec<Entry> },
}

impl Builder {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Problem> {
        let at = position(span.start);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let scalar = scalar(&text, style, tag.as_deref(), at)?;
                let weight = NODE_WEIGHT + text.len();
                let value = Value::Scalar { text: text.into_owned(), scalar };
                self.complete(Node { position: at, value, weight, height: 0 }, anchor)
            }
            Event::SequenceStart(_, anchor, tag) => {
                refuse_tag(tag.as_deref(), "seq", at)?;
                self.open(at, anchor, Content::List(Vec::new()))
            }
            Event::MappingStart(_, anchor, tag) => {
                refuse_tag(tag.as_deref(), "map", at)?;
                let (entries, merged) = (Vec::new(), Vec::new());
                self.open(at, anchor, Content::Map { entries, places: HashMap::new(), key: None, merged })
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Alias(anchor) => {
                let node = self.anchored(anchor, at)?;
                self.place(node)
            }
            Event::DocumentEnd => {
                self.finish();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Returns a copy of the anchored value; its depth and weight are counted before it is made.
    fn anchored(&mut self, anchor: usize, at: Position) -> Result<Node, Problem> {
        let Some((weight, height)) = self.anchors.get(&anchor).map(|node| (node.weight, node.height)) else {
            return Err(Problem::new(at, "", "an alias inside the value that it stands for"));
        };
        self.fits(at, height)?;
        self.charge(weight, at)?;
        Ok(self.anchors[&anchor].clone())
    }

    fn charge(&mut self, weight: usize, at: Position) -> Result<(), Problem> {
        self.weight = self.weight.saturating_add(weight);
        if self.weight <= WEIGHT_MAX {
            return Ok(());
        }
        Err(Problem::new(at, "", "too much data with every alias resolved")
            .allowed(format!("{WEIGHT_MAX} bytes in a file")))
    }

    fn fits(&self, at: Position, height: usize) -> Result<(), Problem> {
        if self.stack.len() + height <= DEPTH_MAX {
            return Ok(());
        }
        Err(Problem::new(at, "", "nested too deeply").allowed(format!("at most {DEPTH_MAX} levels")))
    }

    fn open(&mut self, position: Position, anchor: usize, content: Content) -> Result<(), Problem> {
        self.fits(position, 1)?;
        self.stack.push(Frame { position, anchor, weight: NODE_WEIGHT, height: 1, content });
        Ok(())
    }

    fn close(&mut self) -> Result<(), Problem> {
        let Some(frame) = self.stack.pop() else { return Ok(()) };
        let value = match frame.content {
            Content::List(items) => Value::List(items),
            Content::Map { mut entries, mut places, merged, .. } => {
                // What is written in the mapping itself goes before what a merge key brings.
                for entry in merged {
                    if places.insert(entry.key.clone(), entry.position).is_none() {
                        entries.push(entry);
                    }
                }
                Value::Map(entries)
            }
        };
        let node = Node { position: frame.position, value, weight: frame.weight, height: frame.height };
        self.complete(node, frame.anchor)
    }

    /// Takes a value that has been read: remembers it under its anchor and puts it where it belongs.
    fn complete(&mut self, node: Node, anchor: usize) -> Result<(), Problem> {
        let own = if node.height == 0 { node.weight } else { NODE_WEIGHT };
        self.charge(own, node.position)?;
        if anchor != 0 {
            self.charge(node.weight, node.position)?;
            self.anchors.insert(anchor, node.clone());
        }
        self.place(node)
    }

    fn place(&mut self, node: Node) -> Result<(), Problem> {
        let Some(frame) = self.stack.last_mut() else {
            self.root = (!node.is_null()).then_some(node);
            return Ok(());
        };
        frame.weight = frame.weight.saturating_add(node.weight);
        frame.height = frame.height.max(node.height + 1);
        match &mut frame.content {
            Content::List(items) => items.push(node),
            Content::Map { entries, places, key, merged } => match key.take() {
                None => *key = Some(field_name(node)?),
                Some((name, at)) if name == "<<" => merge(node, at, merged)?,
                Some((name, at)) => {
                    if let Some(first) = places.get(&name) {
                        let message = format!("duplicate field, first set in line {}", first.line);
                        if self.problems.len() < PROBLEMS_MAX {
                            self.problems.push(Problem::new(at, "", message).found(quoted(&name)));
                        }
                    } else {
                        places.insert(name.clone(), at);
                        entries.push(Entry { key: name, position: at, node });
                    }
                }
            },
        }
        Ok(())
    }

    /// Gives up the document that is being read.
    fn abandon(&mut self, problem: Problem) {
        self.problems.push(problem);
        self.root = None;
        self.stack.clear();
        self.finish();
    }

    /// Ends a document.
    fn finish(&mut self) {
        self.anchors.clear();
        let (root, problems) = (self.root.take(), std::mem::take(&mut self.problems));
        self.told += problems.len();
        if root.is_some() || !problems.is_empty() {
            self.documents.push(Read { root, problems });
        }
    }
}

fn field_name(node: Node) -> Result<(String, Position), Problem> {
    match node.value {
        Value::Scalar { text, .. } => Ok((text, node.position)),
        _ => Err(Problem::new(node.position, "", "a field name must be text").found(node.described())),
    }
}

/// Takes the entries that a merge key brings: those of one mapping, or of each mapping of a list.
fn merge(node: Node, at: Position, merged: &mut Vec<Entry>) -> Result<(), Problem> {
    let described = node.described();
    match node.value {
        Value::Map(entries) => merged.extend(entries),
        Value::List(items) => {
            for item in items {
                let Value::Map(entries) = item.value else { return Err(not_mergeable(at, &described)) };
                merged.extend(entries);
            }
        }
        Value::Scalar { .. } => return Err(not_mergeable(at, &described)),
    }
    Ok(())
}

fn not_mergeable(at: Position, found: &str) -> Problem {
    Problem::new(at, "", "a merge key must name an object").found(found)
}

/// Returns what a scalar is: a quoted or block one is text, a plain one what it looks like, a tagged one what it says.
fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>, at: Position) -> Result<Scalar, Problem> {
    let by_look = plain(text);
    let fits = match tag.map(Tag::core_suffix) {
        None if matches!(style, ScalarStyle::Plain) => return Ok(by_look),
        None | Some(Some("str")) => return Ok(Scalar::Text),
        Some(Some("int")) => matches!(by_look, Scalar::Integer(_)),
        Some(Some("float")) => matches!(by_look, Scalar::Integer(_) | Scalar::Float(_)),
        Some(Some("bool")) => matches!(by_look, Scalar::Bool(_)),
        Some(Some("null")) => matches!(by_look, Scalar::Null),
        Some(_) => false,
    };
    if fits { Ok(by_look) } else { Err(wrong_tag(tag, at)) }
}

fn refuse_tag(tag: Option<&Tag>, allowed: &str, at: Position) -> Result<(), Problem> {
    match tag {
        Some(tag) if tag.core_suffix() != Some(allowed) => Err(wrong_tag(Some(tag), at)),
        _ => Ok(()),
    }
}

fn wrong_tag(tag: Option<&Tag>, at: Position) -> Problem {
    Problem::new(at, "", "a tag that is not known here or does not fit its value")
        .found(quoted(&tag.map(Tag::original).unwrap_or_default()))
}

#[cfg(test)]
mod tests;
