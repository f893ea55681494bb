//! Route conditions.

/// A compiled condition.
#[derive(Debug, Clone)]
pub struct Condition;
