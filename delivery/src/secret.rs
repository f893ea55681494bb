//! Values that never print.

use std::fmt;

/// A secret value: `Debug` and `Display` print `(secret)`, and nothing serialises it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<str>);

impl Secret {
    /// Wraps `value`. One trailing line break is dropped, because files that people make end in one.
    pub fn new(value: &str) -> Self {
        let value = value.strip_suffix('\n').unwrap_or(value);
        Self(value.strip_suffix('\r').unwrap_or(value).into())
    }

    /// Returns the value, to be used and not kept.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_never_prints_and_loses_its_line_break() {
        let secret = Secret::new("canary\r\n");
        assert_eq!(format!("{secret} {secret:?}"), "(secret) (secret)");
        assert_eq!(secret.reveal(), "canary");
    }
}
