//! From the parser's tree to ours: everything that can be known before an event is seen is refused here.

use cel::IdedExpr;
use cel::common::ast::operators::{
    ADD, CONDITIONAL, DIVIDE, EQUALS, GREATER, GREATER_EQUALS, IN, INDEX, LESS, LESS_EQUALS, LOGICAL_AND, LOGICAL_NOT,
    LOGICAL_OR, MODULO, MULTIPLY, NEGATE, NOT_EQUALS, OPT_INDEX, OPT_SELECT, SUBSTRACT,
};
use cel::common::ast::{CallExpr, Expr, LiteralValue, SourceInfo};

use super::node::{Constant, Node, Relation};
use super::operate::{Function, Operator};
use super::parse::Parsed;
use super::{ConditionError, origin};
use crate::json::{Number, Paths};

mod calls;
mod fields;

/// Most operators inside each other, so that evaluation needs little stack: each of 16 brackets may hold an `||` of
/// `&&` of `!` of a comparison.
const OPERATORS_MAX: usize = 4 * super::NESTING_MAX;

/// Checks one condition.
pub(super) struct Checker<'s> {
    source: &'s SourceInfo,
    /// The paths below `event` in order of appearance; a node holds the index here until all are known.
    paths: Vec<Vec<String>>,
    depth: usize,
    /// What the element of a list is called, inside a macro.
    variable: Option<String>,
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
        Self { source, paths: Vec::new(), depth: 0, variable: None }
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
        let cost = node.settle(&slots);
        Parsed { node, paths, fields: self.paths, cost }
    }

    fn boolean(&mut self, expression: &IdedExpr, wanted: &str) -> Checked<Node> {
        let (node, kind) = self.any(expression)?;
        if !matches!(kind, Kind::Bool | Kind::Dynamic) {
            let message = format!("{}, not {wanted}", is(&describe(&node, kind, &self.paths), kind));
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
            Expr::Select(select) if select.test => self.has(expression, select),
            Expr::Ident(_) | Expr::Select(_) => self.field(expression),
            Expr::Call(call) => self.call(expression, call),
            Expr::List(_) => Err(self.error(expression, "a list stands only on the right of `in`")),
            Expr::Map(_) => Err(self.error(expression, "a map is not available in conditions")),
            Expr::Struct(_) => Err(self.error(expression, "a message is not available in conditions")),
            Expr::Comprehension(of) => self.each(expression, of),
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
            INDEX | OPT_INDEX | OPT_SELECT => return self.field(expression),
            LOGICAL_AND => return Ok((Node::All(self.operands(expression, call)?), Kind::Bool)),
            LOGICAL_OR => return Ok((Node::Any(self.operands(expression, call)?), Kind::Bool)),
            LOGICAL_NOT => return self.not(expression, call),
            IN => return self.within(expression, call),
            CONDITIONAL => return self.choice(expression, call),
            NEGATE => return self.negative(expression, call),
            ADD => return self.operation(expression, call, Operator::Add),
            SUBSTRACT => return self.operation(expression, call, Operator::Subtract),
            MULTIPLY => return self.operation(expression, call, Operator::Multiply),
            DIVIDE => return self.operation(expression, call, Operator::Divide),
            MODULO => return self.operation(expression, call, Operator::Remainder),
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
            let (left, right) = (describe(&left, left_kind, &self.paths), describe(&right, right_kind, &self.paths));
            let message = never(&left, left_kind, &right, right_kind, equality);
            return Err(self.error(expression, message));
        }
        Ok((Node::Compare(Box::new(left), relation, Box::new(right)), Kind::Bool))
    }

    fn choice(&mut self, expression: &IdedExpr, call: &CallExpr) -> Checked<(Node, Kind)> {
        let [condition, yes, no] = &call.args[..] else { return Err(self.error(expression, "syntax error")) };
        let condition = self.boolean(condition, "what stands before `?`")?;
        let ((yes, yes_kind), (no, no_kind)) = (self.any(yes)?, self.any(no)?);
        let kind = if yes_kind == no_kind { yes_kind } else { Kind::Dynamic };
        Ok((Node::Choice(Box::new([condition, yes, no])), kind))
    }

    fn negative(&mut self, expression: &IdedExpr, call: &CallExpr) -> Checked<(Node, Kind)> {
        let [operand] = &call.args[..] else { return Err(self.error(expression, "syntax error")) };
        let node = self.number(operand, "-")?;
        Ok((Node::Call(Function::Negate, Box::new(node)), Kind::Number))
    }

    fn number(&mut self, operand: &IdedExpr, operator: &str) -> Checked<Node> {
        let (node, kind) = self.any(operand)?;
        if !matches!(kind, Kind::Number | Kind::Dynamic) {
            let node = describe(&node, kind, &self.paths);
            return Err(self.error(operand, format!("`{operator}` is for numbers, {}", is(&node, kind))));
        }
        Ok(node)
    }

    fn operation(&mut self, expression: &IdedExpr, call: &CallExpr, operator: Operator) -> Checked<(Node, Kind)> {
        let [left, right] = &call.args[..] else { return Err(self.error(expression, "syntax error")) };
        let (left, right, kind) = if operator == Operator::Add {
            self.addition(expression, left, right)?
        } else {
            let sign = call.func_name.trim_matches('_');
            (self.number(left, sign)?, self.number(right, sign)?, Kind::Number)
        };
        Ok((Node::Operate(Box::new(left), operator, Box::new(right)), kind))
    }

    /// `+` of two numbers, or of two strings.
    fn addition(&mut self, expression: &IdedExpr, left: &IdedExpr, right: &IdedExpr) -> Checked<(Node, Node, Kind)> {
        let ((left, left_kind), (right, right_kind)) = (self.any(left)?, self.any(right)?);
        let kind = if left_kind == Kind::Dynamic { right_kind } else { left_kind };
        let fits = |one: Kind| one == Kind::Dynamic || one == kind;
        if !matches!(kind, Kind::Dynamic | Kind::Number | Kind::String) || !fits(left_kind) || !fits(right_kind) {
            let left = is(&describe(&left, left_kind, &self.paths), left_kind);
            let right = is(&describe(&right, right_kind, &self.paths), right_kind);
            return Err(self.error(expression, format!("`+` is for two numbers or two strings: {left} and {right}")));
        }
        Ok((left, right, kind))
    }

    fn within(&mut self, expression: &IdedExpr, call: &CallExpr) -> Checked<(Node, Kind)> {
        let [value, list] = &call.args[..] else { return Err(self.error(expression, "syntax error")) };
        let (value, value_kind) = self.any(value)?;
        let Expr::List(list) = &list.expr else {
            let (list_node, kind) = self.any(list)?;
            if kind != Kind::Dynamic {
                let list_node = describe(&list_node, kind, &self.paths);
                return Err(self.error(list, format!("`in` takes a list, {}", is(&list_node, kind))));
            }
            return Ok((Node::Within(Box::new(value), Box::new(list_node)), Kind::Bool));
        };
        if list.elements.is_empty() {
            return Err(self.error(expression, "nothing is in an empty list"));
        }
        if !list.optional_indices.is_empty() {
            return Err(self.error(expression, "an element with `?` is not available in conditions"));
        }
        let mut constants = Vec::with_capacity(list.elements.len());
        for element in &list.elements {
            let (node, kind) = self.any(element)?;
            if kind != value_kind && kind != Kind::Dynamic && value_kind != Kind::Dynamic {
                let (value, node) = (describe(&value, value_kind, &self.paths), describe(&node, kind, &self.paths));
                return Err(self.error(element, never(&value, value_kind, &node, kind, true)));
            }
            let Node::Constant(constant) = node else {
                return Err(self.error(element, "a list that is written here is of constants"));
            };
            constants.push(constant);
        }
        Ok((Node::In(Box::new(value), constants), Kind::Bool))
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

/// Returns what something is, in words.
fn is(text: &str, kind: Kind) -> String {
    if text == kind.name() { text.into() } else { format!("{text} is {}", kind.name()) }
}

fn never(left: &str, left_kind: Kind, right: &str, right_kind: Kind, equality: bool) -> String {
    let what = if equality { "never equal" } else { "in no order" };
    format!("{} and {}: they are {what}", is(left, left_kind), is(right, right_kind))
}

/// Returns a node as users wrote it, or near to it.
fn describe(node: &Node, kind: Kind, paths: &[Vec<String>]) -> String {
    match node {
        Node::Event(index) => format!("`event.{}`", paths.get(*index).map_or(String::new(), |path| path.join("."))),
        Node::Origin(field) => format!("`{}`", origin::name(field)),
        Node::Constant(Constant::Null) => "null".into(),
        Node::Constant(Constant::Bool(value)) => format!("`{value}`"),
        Node::Constant(Constant::String(text)) => format!("`{text:?}`"),
        Node::Constant(Constant::Number(Number::Int(value))) => format!("`{value}`"),
        Node::Constant(Constant::Number(Number::Uint(value))) => format!("`{value}u`"),
        Node::Constant(Constant::Number(Number::Float(value))) => format!("`{value:?}`"),
        _ => kind.name().into(),
    }
}
