//! Expressions: what conditions are made of, with any value.

use std::fmt;
use std::sync::Arc;

use super::parse::Wanted;
use super::{Compiled, ConditionError, EvalFailure, evaluate};
use crate::event::Origin;

/// A compiled expression; clones share it. What there is, what is refused and the limits are those of a
/// [`Condition`](super::Condition).
#[derive(Clone)]
pub struct Expression(Arc<Compiled>);

impl Expression {
    /// Checks `text` and compiles it. Blocks for the parser's time, so not for the hot path.
    pub fn compile(text: &str) -> Result<Self, ConditionError> {
        let compiled = Compiled::of(text, Wanted::Value).map_err(|error| ConditionError {
            message: error.message.replace("in conditions", "in expressions"),
            ..error
        })?;
        Ok(Self(Arc::new(compiled)))
    }

    /// Appends the value for an event (a valid JSON object) of this origin as JSON; nothing on a failure. The value of a
    /// field is copied as it is written, whatever it is.
    pub fn write(&self, event: &[u8], origin: &Origin, out: &mut Vec<u8>) -> Result<(), EvalFailure> {
        let Compiled { node, paths, .. } = &*self.0;
        evaluate::write(node, paths, (event, origin), out)
    }

    /// Returns the paths of the event that it reads.
    pub fn fields(&self) -> &[Vec<String>] {
        &self.0.fields
    }

    /// Returns the expression as it was written.
    pub fn text(&self) -> &str {
        &self.0.text
    }
}

/// Two expressions are the same when they are written the same.
impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.text() == other.text()
    }
}

impl Eq for Expression {}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Expression").field(&self.text()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::OriginBuilder;

    fn compiled(text: &str) -> Expression {
        Expression::compile(text).unwrap()
    }

    fn value(text: &str) -> Result<String, EvalFailure> {
        let event = br#"{"ms":612,"big":12345678901234567890.50,"s":"a\u0062","o":{"x":[1, 2]},"n":null}"#;
        let origin = OriginBuilder { pod: Some("etcher-\"0\"".into()), ..OriginBuilder::default() }.build();
        let mut out = b"=".to_vec();
        let written = compiled(text).write(event, &origin, &mut out);
        assert!(written.is_ok() || out == b"=", "nothing is written on a failure");
        written.map(|()| String::from_utf8_lossy(&out[1..]).into_owned())
    }

    #[test]
    fn a_field_is_copied_as_it_is_written() {
        for (text, expected) in [
            ("event.big", "12345678901234567890.50"),
            ("event.s", r#""a\u0062""#),
            ("event.o", r#"{"x":[1, 2]}"#),
            ("event.o.x", "[1, 2]"),
            ("event.n", "null"),
            ("event.?big.orValue(0)", "12345678901234567890.50"),
            ("true ? event.big : 0", "12345678901234567890.50"),
            ("event.o.x[1]", "2"),
        ] {
            assert_eq!(value(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_field_is_written_as_json() {
        for (text, expected) in [
            ("event.ms > 500", "true"),
            ("!(event.ms > 500)", "false"),
            ("origin.pod", r#""etcher-\"0\"""#),
            ("\"tab\\there\"", r#""tab\there""#),
            ("-3", "-3"),
            ("18446744073709551615u", "18446744073709551615"),
            ("2.0", "2.0"),
            ("1e300", "1e300"),
            ("null", "null"),
            ("true", "true"),
            ("event.ms + 1", "613"),
            ("event.ms / 1000.0", "0.612"),
            ("event.s + \"-\" + string(event.ms)", r#""ab-612""#),
            ("event.?none.orValue(\"?\")", r#""?""#),
            ("size(event.o.x)", "2"),
            ("event.s.upperAscii()", r#""AB""#),
        ] {
            assert_eq!(value(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_evaluated_is_no_value() {
        assert_eq!(value("event.none"), Err(EvalFailure::Absent));
        assert_eq!(value("event.ms.x"), Err(EvalFailure::TypeMismatch));
        assert_eq!(value("event.ms.x == 1"), Err(EvalFailure::TypeMismatch));
        assert_eq!(value("origin.node"), Err(EvalFailure::Absent));
    }

    #[test]
    fn what_is_refused_is_said_of_expressions() {
        let refused = |text: &str| Expression::compile(text).unwrap_err().to_string();
        assert_eq!(refused("event.a.split(',')"), "`split` is not available in expressions at character 14");
        assert_eq!(refused("evnt.a"), "unknown variable `evnt` at character 1; did you mean `event`?");
        assert_eq!(refused("1e400"), "invalid double literal at character 1");
    }

    #[test]
    fn it_says_which_fields_it_reads() {
        let expression = compiled("event.a.b == event[\"x y\"]");
        assert_eq!(expression.fields(), [vec!["a", "b"], vec!["x y"]]);
    }
}
