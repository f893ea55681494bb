//! The names of CEL that conditions do not have, and the nearest of those they have.

use super::{ConditionError, nearest};

const FUNCTIONS: [&str; 15] = [
    "has",
    "startsWith",
    "endsWith",
    "contains",
    "matches",
    "size",
    "lowerAscii",
    "upperAscii",
    "trim",
    "string",
    "int",
    "double",
    "orValue",
    "exists",
    "all",
];

/// Functions of CEL and its usual extensions.
const OTHER_FUNCTIONS: [&str; 28] = [
    "bool",
    "bytes",
    "charAt",
    "duration",
    "dyn",
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
    "hasValue",
    "indexOf",
    "join",
    "map",
    "replace",
    "split",
    "substring",
    "timestamp",
    "type",
    "uint",
    "value",
];

/// Returns what to say about a function of CEL that conditions do not have.
pub(super) fn not_available(name: &str) -> Option<String> {
    OTHER_FUNCTIONS.binary_search(&name).ok().map(|_| format!("`{name}` is not available in conditions"))
}

/// Returns the error for a function nobody knows; it has no place yet.
pub(super) fn unknown_function(name: &str) -> ConditionError {
    let suggestion = nearest(name, FUNCTIONS).map(str::to_owned);
    ConditionError::new(format!("unknown function `{name}`")).suggest(suggestion)
}
