//! The names of CEL that conditions do not have, and the nearest of those they have.

use cel::common::ast::operators::{
    ADD, CONDITIONAL, DIVIDE, MODULO, MULTIPLY, NEGATE, OPT_INDEX, OPT_SELECT, SUBSTRACT,
};

use super::{ConditionError, nearest};

const FUNCTIONS: [&str; 4] = ["has", "startsWith", "endsWith", "contains"];

/// Operators as the parser names them, and as users write them.
const OTHER_OPERATORS: [(&str, &str); 9] = [
    (ADD, "+"),
    (CONDITIONAL, "? :"),
    (DIVIDE, "/"),
    (MODULO, "%"),
    (MULTIPLY, "*"),
    (NEGATE, "-"),
    (OPT_INDEX, "[?"),
    (OPT_SELECT, ".?"),
    (SUBSTRACT, "-"),
];

/// Functions of CEL and its usual extensions.
const OTHER_FUNCTIONS: [&str; 37] = [
    "all",
    "bool",
    "bytes",
    "charAt",
    "double",
    "duration",
    "dyn",
    "exists",
    "exists_one",
    "filter",
    "format",
    "getDate",
    "getDayOfMonth",
    "getDayOfWeek",
    "getDayOfYear",
    "getFullYear",
    "getHours",
    "getMilliseconds",
    "getMinutes",
    "getMonth",
    "getSeconds",
    "indexOf",
    "int",
    "join",
    "lowerAscii",
    "map",
    "matches",
    "orValue",
    "replace",
    "size",
    "split",
    "string",
    "substring",
    "timestamp",
    "trim",
    "type",
    "uint",
];

/// Returns what to say about an operator or a function of CEL that conditions do not have.
pub(super) fn not_available(name: &str) -> Option<String> {
    let operator = OTHER_OPERATORS.iter().find(|(parsed, _)| *parsed == name).map(|(_, written)| *written);
    let function = OTHER_FUNCTIONS.binary_search(&name).is_ok().then_some(name);
    operator.or(function).map(|written| format!("`{written}` is not available in conditions"))
}

/// Returns the error for a function nobody knows; it has no place yet.
pub(super) fn unknown_function(name: &str) -> ConditionError {
    let suggestion = nearest(name, FUNCTIONS).map(str::to_owned);
    ConditionError::new(format!("unknown function `{name}`")).suggest(suggestion)
}
