//! Fields: of the event, of its origin, and of what a macro looks at.

use cel::IdedExpr;
use cel::common::ast::operators::{INDEX, OPT_INDEX, OPT_SELECT};
use cel::common::ast::{CallExpr, ComprehensionExpr, Expr, LiteralValue, SelectExpr};

use super::{Checked, Checker, Kind, describe, is};
use crate::condition::names::not_available;
use crate::condition::node::{Node, Quantity};
use crate::condition::{ConditionError, ELEMENT_MAX, nearest, origin};
use crate::json::DEPTH_MAX;

/// Said of the macros of CEL that make a list.
const NO_LISTS: &str = "`map` and `filter` are not available in conditions";

/// One step from a value into it.
#[derive(Debug)]
enum Step {
    Key(String),
    Index(usize),
}

/// What an expression spells that reads a field.
struct Chain<'e> {
    root: &'e str,
    steps: Vec<Step>,
    /// Whether one of the steps is written with `?`.
    is_optional: bool,
}

impl Checker<'_> {
    pub(super) fn has(&mut self, expression: &IdedExpr, select: &SelectExpr) -> Checked<(Node, Kind)> {
        let mut chain = self.chain(&select.operand)?;
        if chain.is_optional {
            return Err(self.error(expression, "`has` never fails: its field is written without `?`"));
        }
        chain.steps.push(Step::Key(select.field.clone()));
        let (node, _) = self.read(&select.operand, chain)?;
        Ok((Node::Has(Box::new(node)), Kind::Bool))
    }

    pub(super) fn field(&mut self, expression: &IdedExpr) -> Checked<(Node, Kind)> {
        let chain = self.chain(expression)?;
        if chain.is_optional {
            let message = "a field that is read with `?` is followed by `.orValue(...)`";
            return Err(self.error(expression, message));
        }
        self.read(expression, chain)
    }

    /// Takes a field that is read with `?`.
    pub(super) fn or_value(&mut self, expression: &IdedExpr, call: &CallExpr) -> Checked<(Node, Kind)> {
        let wanted = "`orValue` is for a field that is read with `?`, and takes one value: `event.?a.orValue(0)`";
        let (Some(target), [or]) = (&call.target, &call.args[..]) else { return Err(self.error(expression, wanted)) };
        let chain = self.chain(target)?;
        if !chain.is_optional {
            return Err(self.error(expression, wanted));
        }
        let (node, kind) = self.read(target, chain)?;
        let (or, or_kind) = self.any(or)?;
        let kind = if kind == or_kind { kind } else { Kind::Dynamic };
        Ok((Node::OrValue(Box::new(node), Box::new(or)), kind))
    }

    /// Takes a macro over the elements of a list.
    pub(super) fn each(&mut self, expression: &IdedExpr, of: &ComprehensionExpr) -> Checked<(Node, Kind)> {
        let (quantity, condition) = match &of.loop_step.expr {
            Expr::Call(CallExpr { func_name, args, .. }) => match (func_name.as_str(), &args[..], &of.accu_init.expr) {
                ("_&&_", [_, condition], _) => (Quantity::All, condition),
                ("_||_", [_, condition], _) => (Quantity::Some, condition),
                ("_?_:_", [condition, ..], Expr::Literal(LiteralValue::Int(_))) => (Quantity::One, condition),
                _ => return Err(self.error(expression, NO_LISTS)),
            },
            _ => return Err(self.error(expression, NO_LISTS)),
        };
        if self.variable.is_some() {
            return Err(self.error(expression, "a macro inside another: what that costs is not linear in the event"));
        }
        if ["event", "origin"].contains(&&*of.iter_var) {
            let message =
                format!("`{}` is what an element of the list would be called: take another name", of.iter_var);
            return Err(self.error(expression, message));
        }
        let (list, kind) = self.any(&of.iter_range)?;
        if kind != Kind::Dynamic {
            let list = is(&describe(&list, kind, &self.paths), kind);
            return Err(self.error(expression, format!("`all`, `exists` and `exists_one` are for lists, {list}")));
        }
        self.variable = Some(of.iter_var.clone());
        let condition = self.boolean(condition, "a condition");
        self.variable = None;
        Ok((Node::Each(Box::new(list), quantity, Box::new(condition?)), Kind::Bool))
    }

    fn read(&mut self, expression: &IdedExpr, chain: Chain<'_>) -> Checked<(Node, Kind)> {
        let mut steps = chain.steps.into_iter().peekable();
        let mut keys = Vec::new();
        let is_variable = self.variable.as_deref() == Some(chain.root);
        while !is_variable && let Some(Step::Key(key)) = steps.next_if(|step| matches!(step, Step::Key(_))) {
            keys.push(key);
        }
        let start = match chain.root {
            _ if is_variable => Node::Variable,
            "origin" if steps.peek().is_some() => {
                return Err(self.error(expression, "the fields of `origin` are strings and have no elements"));
            }
            "origin" => {
                let field = origin::field(&keys).map_err(|error| self.place(expression, error))?;
                return Ok((Node::Origin(field), Kind::String));
            }
            _ if keys.is_empty() => {
                let message = "`event` alone is not a value: name a field of it, like `event.level`";
                return Err(self.error(expression, message));
            }
            _ => {
                self.paths.push(keys);
                Node::Event(self.paths.len() - 1)
            }
        };
        let node = steps.fold(start, |node, step| match step {
            Step::Key(key) => Node::Member(Box::new(node), key.into()),
            Step::Index(index) => Node::Element(Box::new(node), index),
        });
        Ok((node, Kind::Dynamic))
    }

    /// Returns the variable and the steps from it that an expression spells.
    fn chain<'e>(&self, expression: &'e IdedExpr) -> Checked<Chain<'e>> {
        let (mut steps, mut is_optional) = (Vec::new(), false);
        let mut here = expression;
        let root = loop {
            here = match &here.expr {
                Expr::Ident(name) => break name,
                Expr::Select(select) if !select.test => {
                    steps.push(Step::Key(select.field.clone()));
                    &select.operand
                }
                Expr::Call(call) if [INDEX, OPT_INDEX, OPT_SELECT].contains(&&*call.func_name) => {
                    let [operand, index] = &call.args[..] else { return Err(self.error(here, "syntax error")) };
                    is_optional |= call.func_name != INDEX;
                    steps.push(self.step(index)?);
                    operand
                }
                Expr::Call(CallExpr { func_name, .. }) if let Some(message) = not_available(func_name) => {
                    return Err(self.error(here, message));
                }
                Expr::Comprehension(of) if matches!(of.accu_init.expr, Expr::List(_)) => {
                    return Err(self.error(here, NO_LISTS));
                }
                _ => return Err(self.error(here, "fields are read from `event` and `origin` only")),
            };
        };
        if steps.len() > DEPTH_MAX as usize {
            return Err(self.error(expression, format!("more than {DEPTH_MAX} steps: no event is nested deeper")));
        }
        let known: Vec<&str> = self.variable.as_deref().into_iter().chain(["event", "origin"]).collect();
        if !known.contains(&&**root) {
            let suggestion = nearest(root, known).map_or_else(|| format!("event.{root}"), str::to_owned);
            let error = ConditionError::new(format!("unknown variable `{root}`")).suggest(Some(suggestion));
            return Err(self.place(here, error));
        }
        steps.reverse();
        Ok(Chain { root, steps, is_optional })
    }

    fn step(&self, index: &IdedExpr) -> Checked<Step> {
        match &index.expr {
            Expr::Literal(LiteralValue::String(key)) => Ok(Step::Key(key.inner().to_owned())),
            Expr::Literal(LiteralValue::Int(index_of)) => {
                let number = usize::try_from(**index_of).ok().filter(|number| *number <= ELEMENT_MAX);
                let refused = || self.error(index, format!("the number of an element is from 0 to {ELEMENT_MAX}"));
                number.map(Step::Index).ok_or_else(refused)
            }
            _ => Err(self.error(index, "a key is a constant string, like `event[\"a b\"]`, and an element a number")),
        }
    }
}
