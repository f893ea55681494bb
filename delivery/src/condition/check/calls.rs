//! Functions.

use cel::IdedExpr;
use cel::common::ast::{CallExpr, Expr, LiteralValue};

use super::{Checked, Checker, Kind, describe, is};
use crate::condition::names::{not_available, unknown_function};
use crate::condition::node::Node;
use crate::condition::operate::{Function, Place, Search};
use crate::pattern::Pattern;

impl Checker<'_> {
    pub(super) fn function(&mut self, expression: &IdedExpr, call: &CallExpr) -> Checked<(Node, Kind)> {
        let name = call.func_name.as_str();
        match name {
            "startsWith" => self.search(expression, call, Place::Start),
            "endsWith" => self.search(expression, call, Place::End),
            "contains" => self.search(expression, call, Place::Anywhere),
            "matches" => self.matches(expression, call),
            "size" => self.size(expression, call),
            "lowerAscii" => self.of_text(expression, call, Function::LowerAscii),
            "upperAscii" => self.of_text(expression, call, Function::UpperAscii),
            "trim" => self.of_text(expression, call, Function::Trim),
            "string" => self.conversion(expression, call, (Function::String, Kind::String)),
            "int" => self.conversion(expression, call, (Function::Int, Kind::Number)),
            "double" => self.conversion(expression, call, (Function::Double, Kind::Number)),
            "orValue" => self.or_value(expression, call),
            "has" => {
                let message = "`has` takes one field selected with a dot, like `has(event.a.b)`";
                Err(self.error(expression, message))
            }
            "all" | "exists" | "exists_one" => {
                let message =
                    format!("`{name}` takes a name for an element and a condition: `event.a.{name}(x, x > 1)`");
                Err(self.error(expression, message))
            }
            _ if let Some(message) = not_available(name) => Err(self.error(expression, message)),
            _ => Err(self.place(expression, unknown_function(name))),
        }
    }

    /// Returns the string that a function is called on.
    fn target(&mut self, expression: &IdedExpr, call: &CallExpr, argument: &str) -> Checked<Node> {
        let name = &call.func_name;
        let Some(target) = &call.target else {
            let message = format!("`{name}` is called on a field, like `event.x.{name}({argument})`");
            return Err(self.error(expression, message));
        };
        let (node, kind) = self.any(target)?;
        if !matches!(kind, Kind::Dynamic | Kind::String) {
            let node = describe(&node, kind, &self.paths);
            return Err(self.error(expression, format!("`{name}` is for strings, {}", is(&node, kind))));
        }
        Ok(node)
    }

    fn search(&mut self, expression: &IdedExpr, call: &CallExpr, place: Place) -> Checked<(Node, Kind)> {
        let target = Box::new(self.target(expression, call, "\"a\"")?);
        let [wanted] = &call.args[..] else {
            return Err(self.error(expression, format!("`{}` takes one string", call.func_name)));
        };
        if let Expr::Literal(LiteralValue::String(text)) = &wanted.expr {
            return Ok((Node::Search(target, Search::new(place, text.inner())), Kind::Bool));
        }
        let (node, kind) = self.any(wanted)?;
        if !matches!(kind, Kind::Dynamic | Kind::String) {
            let node = is(&describe(&node, kind, &self.paths), kind);
            return Err(self.error(wanted, format!("`{}` takes one string, {node}", call.func_name)));
        }
        Ok((Node::SearchFor(target, place, Box::new(node)), Kind::Bool))
    }

    fn matches(&mut self, expression: &IdedExpr, call: &CallExpr) -> Checked<(Node, Kind)> {
        let target = self.target(expression, call, "\"a.*\"")?;
        let [IdedExpr { expr: Expr::Literal(LiteralValue::String(text)), .. }] = &call.args[..] else {
            return Err(self.error(expression, "`matches` takes one constant string, a regular expression"));
        };
        let pattern = Pattern::compile(text.inner()).map_err(|error| {
            let place = error.column.map_or_else(String::new, |column| format!(" at its character {column}"));
            self.error(&call.args[0], format!("no regular expression: {}{place}", error.message))
        })?;
        Ok((Node::Matches(Box::new(target), pattern), Kind::Bool))
    }

    /// `size(event.a)` and `event.a.size()` are the same.
    fn size(&mut self, expression: &IdedExpr, call: &CallExpr) -> Checked<(Node, Kind)> {
        let ((None, [of]) | (Some(of), [])) = (call.target.as_deref(), &call.args[..]) else {
            return Err(self.error(expression, "`size` takes one string, list or object, like `size(event.a)`"));
        };
        let (node, kind) = self.any(of)?;
        if !matches!(kind, Kind::Dynamic | Kind::String) {
            let node = is(&describe(&node, kind, &self.paths), kind);
            return Err(self.error(expression, format!("`size` is for strings, lists and objects, {node}")));
        }
        Ok((Node::Call(Function::Size, Box::new(node)), Kind::Number))
    }

    fn of_text(&mut self, expression: &IdedExpr, call: &CallExpr, function: Function) -> Checked<(Node, Kind)> {
        let target = self.target(expression, call, "")?;
        if !call.args.is_empty() {
            return Err(self.error(expression, format!("`{}` takes nothing", call.func_name)));
        }
        Ok((Node::Call(function, Box::new(target)), Kind::String))
    }

    fn conversion(
        &mut self,
        expression: &IdedExpr,
        call: &CallExpr,
        (function, kind): (Function, Kind),
    ) -> Checked<(Node, Kind)> {
        let (None, [of]) = (&call.target, &call.args[..]) else {
            return Err(self.error(expression, format!("`{0}` takes one value, like `{0}(event.a)`", call.func_name)));
        };
        let (node, of_kind) = self.any(of)?;
        if of_kind == Kind::Null || of_kind == Kind::Bool && function != Function::String {
            let node = is(&describe(&node, of_kind, &self.paths), of_kind);
            return Err(self.error(expression, format!("`{}` is for strings and numbers, {node}", call.func_name)));
        }
        Ok((Node::Call(function, Box::new(node)), kind))
    }
}
