//! From the parser's tree to ours: everything that can be known before an event is seen is refused here.

use cel::IdedExpr;
use cel::common::ast::operators::{
    EQUALS, GREATER, GREATER_EQUALS, IN, INDEX, LESS, LESS_EQUALS, LOGICAL_AND, LOGICAL_NOT, LOGICAL_OR, NOT_EQUALS,
};
use cel::common::ast::{CallExpr, Expr, LiteralValue, SelectExpr, SourceInfo};
use memchr::memmem::Finder;

use super::evaluate::{Constant, Node, Relation, Search};
use super::names::{not_available, unknown_function};
use super::parse::Parsed;
use super::{ConditionError, nearest, origin};
use crate::json::{Number, Paths};

/// Most operators inside each other, so that evaluation needs little stack: each of 16 brackets may hold an `||` of
/// `&&` of `!` of a comparison.
const OPERATORS_MAX: usize = 4 * super::NESTING_MAX;

/// Checks one condition.
pub(super) struct Checker<'s> {
    source: &'s SourceInfo,
    /// The paths below `event` in order of appearance; a node holds the index here until all are known.
    paths: Vec<Vec<String>>,
    depth: usize,
}

/// What an expression is, as far as it is known without an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A field of an event: anything.
    Dynamic,
    Null,
    Bool,
    Number,
    String,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Dynamic => "a field",
            Self::Null => "null",
            Self::Bool => "a boolean",
            Self::Number => "a number",
            Self::String => "a string",
        }
    }
}

type Checked<T> = Result<T, ConditionError>;

impl<'s> Checker<'s> {
    /// Returns a checker of the expression that `source` belongs to.
    pub(super) fn new(source: &'s SourceInfo) -> Self {
        Self { source, paths: Vec::new(), depth: 0 }
    }

    /// Checks a whole condition.
    pub(super) fn condition(mut self, expression: &IdedExpr) -> Checked<Parsed> {
        let node = self.boolean(expression, "a condition")?;
        Ok(self.finish(node))
    }

    /// Checks a whole expression of any value.
    pub(super) fn value(mut self, expression: &IdedExpr) -> Checked<Parsed> {
        let (node, _) = self.any(expression)?;
        Ok(self.finish(node))
    }

    fn finish(self, mut node: Node) -> Parsed {
        let paths = Paths::new(&self.paths);
        let slots: Vec<usize> = self.paths.iter().filter_map(|path| paths.slot(path)).collect();
        set_slots(&mut node, &slots);
        Parsed { node, paths, fields: self.paths }
    }

    fn boolean(&mut self, expression: &IdedExpr, wanted: &str) -> Checked<Node> {
        let (node, kind) = self.any(expression)?;
        if !matches!(kind, Kind::Bool | Kind::Dynamic) {
            let message = format!("{} is {}, not {wanted}", describe(&node, &self.paths), kind.name());
            return Err(self.error(expression, message));
        }
        Ok(node)
    }

    fn any(&mut self, expression: &IdedExpr) -> Checked<(Node, Kind)> {
        self.depth += 1;
        if self.depth > OPERATORS_MAX {
            return Err(self.error(expression, format!("more than {OPERATORS_MAX} operators inside each other")));
        }
        let checked = match &expression.expr {
            Expr::Literal(literal) => self.literal(expression, literal),
            Expr::Select(select) if select.test => self.has(select),
            Expr::Ident(_) | Expr::Select(_) => self.field(expression),
            Expr::Call(call) => self.call(expression, call),
            Expr::List(_) => Err(self.error(expression, "a list stands only on the right of `in`")),
            Expr::Map(_) => Err(self.error(expression, "a map is not available in conditions")),
            Expr::Struct(_) => Err(self.error(expression, "a message is not available in conditions")),
            Expr::Comprehension(_) => {
                let message = "`all`, `exists`, `exists_one`, `map` and `filter` are not available in conditions";
                Err(self.error(expression, message))
            }
            Expr::Unspecified => Err(self.error(expression, "syntax error")),
        };
        self.depth -= 1;
        checked
    }

    fn literal(&self, expression: &IdedExpr, literal: &LiteralValue) -> Checked<(Node, Kind)> {
        let (constant, kind) = match literal {
            LiteralValue::Null => (Constant::Null, Kind::Null),
            LiteralValue::Boolean(value) => (Constant::Bool(**value), Kind::Bool),
            LiteralValue::Int(value) => (Constant::Number(Number::Int(**value)), Kind::Number),
            LiteralValue::UInt(value) => (Constant::Number(Number::Uint(**value)), Kind::Number),
            LiteralValue::Double(value) => (Constant::Number(Number::Float(**value)), Kind::Number),
            LiteralValue::String(value) => (Constant::String(value.inner().into()), Kind::String),
            LiteralValue::Bytes(_) => return Err(self.error(expression, "bytes are not available in conditions")),
        };
        Ok((Node::Constant(constant), kind))
    }

    fn call(&mut self, expression: &IdedExpr, call: &CallExpr) -> Checked<(Node, Kind)> {
        let relation = match call.func_name.as_str() {
            INDEX => return self.field(expression),
            LOGICAL_AND => return Ok((Node::All(self.operands(expression, call)?), Kind::Bool)),
            LOGICAL_OR => return Ok((Node::Any(self.operands(expression, call)?), Kind::Bool)),
            LOGICAL_NOT => return self.not(expression, call),
            IN => return self.in_list(expression, call),
            EQUALS => Relation::Equal,
            NOT_EQUALS => Relation::Different,
            LESS => Relation::Less,
            LESS_EQUALS => Relation::LessOrEqual,
            GREATER => Relation::Greater,
            GREATER_EQUALS => Relation::GreaterOrEqual,
            _ => return self.function(expression, call),
        };
        self.comparison(expression, call, relation)
    }

    /// Takes the operands of a chain of one operator, flat. The parser balances chains, so this is shallow.
    fn operands(&mut self, expression: &IdedExpr, call: &CallExpr) -> Checked<Vec<Node>> {
        let wanted = format!("an operand of `{}`", call.func_name.trim_matches('_'));
        let mut nodes = Vec::new();
        let mut pending: Vec<&IdedExpr> = call.args.iter().rev().collect();
        while let Some(operand) = pending.pop() {
            match &operand.expr {
                Expr::Call(inner) if inner.func_name == call.func_name => pending.extend(inner.args.iter().rev()),
                _ => nodes.push(self.boolean(operand, &wanted)?),
            }
        }
        if nodes.len() < 2 { Err(self.error(expression, "syntax error")) } else { Ok(nodes) }
    }

    fn not(&mut self, expression: &IdedExpr, call: &CallExpr) -> Checked<(Node, Kind)> {
        let [operand] = &call.args[..] else { return Err(self.error(expression, "syntax error")) };
        let node = self.boolean(operand, "an operand of `!`")?;
        Ok((Node::Not(Box::new(node)), Kind::Bool))
    }

    fn comparison(&mut self, expression: &IdedExpr, call: &CallExpr, relation: Relation) -> Checked<(Node, Kind)> {
        let [left, right] = &call.args[..] else { return Err(self.error(expression, "syntax error")) };
        let (left, left_kind) = self.any(left)?;
        let (right, right_kind) = self.any(right)?;
        let equality = matches!(relation, Relation::Equal | Relation::Different);
        if !equality && [left_kind, right_kind].contains(&Kind::Null) {
            return Err(self.error(expression, "null has no order"));
        }
        if left_kind != right_kind && left_kind != Kind::Dynamic && right_kind != Kind::Dynamic {
            let (left, right) = (describe(&left, &self.paths), describe(&right, &self.paths));
            let message = never(&left, left_kind, &right, right_kind, equality);
            return Err(self.error(expression, message));
        }
        Ok((Node::Compare(Box::new(left), relation, Box::new(right)), Kind::Bool))
    }

    fn in_list(&mut self, expression: &IdedExpr, call: &CallExpr) -> Checked<(Node, Kind)> {
        let [value, list] = &call.args[..] else { return Err(self.error(expression, "syntax error")) };
        let (value, value_kind) = self.any(value)?;
        let Expr::List(list) = &list.expr else {
            return Err(self.error(expression, "`in` takes a list of constants on its right"));
        };
        if list.elements.is_empty() {
            return Err(self.error(expression, "nothing is in an empty list"));
        }
        let mut constants = Vec::with_capacity(list.elements.len());
        for element in &list.elements {
            let (node, kind) = self.any(element)?;
            if kind != value_kind && kind != Kind::Dynamic && value_kind != Kind::Dynamic {
                let (value, node) = (describe(&value, &self.paths), describe(&node, &self.paths));
                return Err(self.error(element, never(&value, value_kind, &node, kind, true)));
            }
            let Node::Constant(constant) = node else {
                return Err(self.error(element, "`in` takes a list of constants on its right"));
            };
            constants.push(constant);
        }
        Ok((Node::In(Box::new(value), constants), Kind::Bool))
    }

    fn function(&mut self, expression: &IdedExpr, call: &CallExpr) -> Checked<(Node, Kind)> {
        let name = call.func_name.as_str();
        let search: fn(&str) -> Search = match name {
            "startsWith" => |text| Search::Start(text.as_bytes().into()),
            "endsWith" => |text| Search::End(text.as_bytes().into()),
            "contains" => |text| Search::Anywhere(Box::new(Finder::new(text).into_owned())),
            "has" => {
                let message = "`has` takes one field selected with a dot, like `has(event.a.b)`";
                return Err(self.error(expression, message));
            }
            _ if let Some(message) = not_available(name) => return Err(self.error(expression, message)),
            _ => return Err(self.place(expression, unknown_function(name))),
        };
        let Some(target) = &call.target else {
            return Err(self.error(expression, format!("`{name}` is called on a field, like `event.x.{name}(\"a\")`")));
        };
        let (target, kind) = self.any(target)?;
        if !matches!(kind, Kind::Dynamic | Kind::String) {
            let message = format!("`{name}` is for strings, {} is {}", describe(&target, &self.paths), kind.name());
            return Err(self.error(expression, message));
        }
        let text = match &call.args[..] {
            [IdedExpr { expr: Expr::Literal(LiteralValue::String(text)), .. }] => text.inner(),
            _ => return Err(self.error(expression, format!("`{name}` takes one constant string"))),
        };
        Ok((Node::Search(Box::new(target), search(text)), Kind::Bool))
    }

    fn has(&mut self, select: &SelectExpr) -> Checked<(Node, Kind)> {
        let (root, mut keys) = self.keys(&select.operand)?;
        keys.push(select.field.clone());
        let node = if root == "event" {
            Node::HasEvent(self.path(keys))
        } else {
            Node::HasOrigin(origin::field(&keys).map_err(|error| self.place(&select.operand, error))?)
        };
        Ok((node, Kind::Bool))
    }

    fn field(&mut self, expression: &IdedExpr) -> Checked<(Node, Kind)> {
        let (root, keys) = self.keys(expression)?;
        if root == "origin" {
            let field = origin::field(&keys).map_err(|error| self.place(expression, error))?;
            return Ok((Node::Origin(field), Kind::String));
        }
        if keys.is_empty() {
            let message = "`event` alone is not a value: name a field of it, like `event.level`";
            return Err(self.error(expression, message));
        }
        Ok((Node::Event(self.path(keys)), Kind::Dynamic))
    }

    fn path(&mut self, keys: Vec<String>) -> usize {
        self.paths.push(keys);
        self.paths.len() - 1
    }

    /// Returns the variable and the keys below it that an expression spells.
    fn keys<'e>(&self, expression: &'e IdedExpr) -> Checked<(&'e str, Vec<String>)> {
        let mut keys = Vec::new();
        let mut here = expression;
        let root = loop {
            here = match &here.expr {
                Expr::Ident(name) => break name,
                Expr::Select(select) if !select.test => {
                    keys.push(select.field.clone());
                    &select.operand
                }
                Expr::Call(call) if call.func_name == INDEX => {
                    let [operand, index] = &call.args[..] else { return Err(self.error(here, "syntax error")) };
                    keys.push(self.key(index)?);
                    operand
                }
                Expr::Call(CallExpr { func_name, .. }) if let Some(message) = not_available(func_name) => {
                    return Err(self.error(here, message));
                }
                _ => return Err(self.error(here, "fields are read from `event` and `origin` only")),
            };
        };
        if root != "event" && root != "origin" {
            let suggestion = nearest(root, ["event", "origin"]).map_or_else(|| format!("event.{root}"), str::to_owned);
            let error = ConditionError::new(format!("unknown variable `{root}`")).suggest(Some(suggestion));
            return Err(self.place(here, error));
        }
        keys.reverse();
        Ok((root, keys))
    }

    fn key(&self, index: &IdedExpr) -> Checked<String> {
        match &index.expr {
            Expr::Literal(LiteralValue::String(key)) => Ok(key.inner().to_owned()),
            Expr::Literal(_) => Err(self.error(index, "an element of an array is not available in conditions")),
            _ => Err(self.error(index, "a key is a constant string, like `event[\"a b\"]`")),
        }
    }

    fn error(&self, expression: &IdedExpr, message: impl Into<String>) -> ConditionError {
        self.place(expression, ConditionError::new(message))
    }

    fn place(&self, expression: &IdedExpr, error: ConditionError) -> ConditionError {
        // The parser counts bytes here, and characters in its own errors.
        let start = self.source.offset_for(expression.id).map(|(start, _)| start as usize);
        match start.and_then(|start| self.source.source.get(..start)) {
            Some(before) => error.at(before.chars().count() + 1),
            None => error,
        }
    }
}

fn never(left: &str, left_kind: Kind, right: &str, right_kind: Kind, equality: bool) -> String {
    let what = if equality { "never equal" } else { "in no order" };
    let is =
        |text: &str, kind: Kind| if text == kind.name() { text.into() } else { format!("{text} is {}", kind.name()) };
    format!("{} and {}: they are {what}", is(left, left_kind), is(right, right_kind))
}

/// Returns a node as users wrote it, or near to it.
fn describe(node: &Node, paths: &[Vec<String>]) -> String {
    match node {
        Node::Event(index) => format!("`event.{}`", paths.get(*index).map_or(String::new(), |path| path.join("."))),
        Node::Origin(field) => format!("`{}`", origin::name(field)),
        Node::Constant(Constant::Null) => "null".into(),
        Node::Constant(Constant::Bool(value)) => format!("`{value}`"),
        Node::Constant(Constant::String(text)) => format!("`{text:?}`"),
        Node::Constant(Constant::Number(Number::Int(value))) => format!("`{value}`"),
        Node::Constant(Constant::Number(Number::Uint(value))) => format!("`{value}u`"),
        Node::Constant(Constant::Number(Number::Float(value))) => format!("`{value:?}`"),
        _ => "a boolean".into(),
    }
}

/// Turns indexes of paths into slots of the walk.
fn set_slots(node: &mut Node, slots: &[usize]) {
    match node {
        Node::Event(index) | Node::HasEvent(index) => *index = slots[*index],
        Node::Not(operand) | Node::In(operand, _) | Node::Search(operand, _) => set_slots(operand, slots),
        Node::All(operands) | Node::Any(operands) => {
            for operand in operands {
                set_slots(operand, slots);
            }
        }
        Node::Compare(left, _, right) => {
            set_slots(left, slots);
            set_slots(right, slots);
        }
        Node::Constant(_) | Node::Origin(_) | Node::HasOrigin(_) => {}
    }
}
