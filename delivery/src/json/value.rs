//! What the bytes of one value mean.

use std::cmp::Ordering;

use super::text::Text;

/// A value of an event, read no deeper than asked.
#[derive(Debug, Clone, Copy)]
#[expect(missing_docs, reason = "the kinds of JSON")]
pub enum Value<'e> {
    Null,
    Bool(bool),
    Number(Number),
    String(Text<'e>),
    Array(&'e [u8]),
    Object(&'e [u8]),
}

impl<'e> Value<'e> {
    /// Reads the bytes of one valid value, without white space around it.
    #[inline]
    pub fn read(bytes: &'e [u8]) -> Self {
        match bytes {
            [b'"', raw @ .., b'"'] => Self::String(Text::from_raw(raw)),
            [b'{', ..] => Self::Object(bytes),
            [b'[', ..] => Self::Array(bytes),
            [b't', ..] => Self::Bool(true),
            [b'f', ..] => Self::Bool(false),
            [b'n', ..] => Self::Null,
            number => Self::Number(Number::read(number)),
        }
    }
}

/// A number, compared by value: integers of 64 bits exactly, also with floats.
///
/// An integer beyond `i64` and `u64` is the nearest float. A number beyond `f64` is infinite: greater than every other,
/// and equal to others beyond.
#[derive(Debug, Clone, Copy)]
pub enum Number {
    /// Fits `i64`.
    Int(i64),
    /// Fits `u64`; may be as small as an `Int`, when a constant was written so.
    Uint(u64),
    /// Written with a fraction or an exponent, or too large for the others.
    Float(f64),
}

impl Number {
    /// Reads a valid JSON number.
    pub fn read(bytes: &[u8]) -> Self {
        let text = std::str::from_utf8(bytes).unwrap_or_default();
        if let Ok(int) = text.parse() {
            return Self::Int(int);
        }
        if let Ok(uint) = text.parse() {
            return Self::Uint(uint);
        }
        Self::Float(text.parse().unwrap_or(f64::NAN))
    }

    /// Compares by value; `None` only with a NaN, which no JSON holds.
    pub fn compare(self, other: Self) -> Option<Ordering> {
        match (self.integer(), other.integer()) {
            (Ok(left), Ok(right)) => Some(left.cmp(&right)),
            (Ok(left), Err(right)) => compare_with_float(left, right),
            (Err(left), Ok(right)) => compare_with_float(right, left).map(Ordering::reverse),
            (Err(left), Err(right)) => left.partial_cmp(&right),
        }
    }

    /// Returns the integer that fits 64 bits; `None` where it does not.
    pub(crate) fn from_integer(integer: i128) -> Option<Self> {
        let int = i64::try_from(integer).map(Self::Int);
        int.or_else(|_| u64::try_from(integer).map(Self::Uint)).ok()
    }

    /// Returns it as an integer, or as the float that it is.
    pub(crate) fn integer(self) -> Result<i128, f64> {
        match self {
            Self::Int(int) => Ok(int.into()),
            Self::Uint(uint) => Ok(uint.into()),
            Self::Float(float) => Err(float),
        }
    }
}

/// Compares without rounding the integer, as a cast to `f64` would.
fn compare_with_float(integer: i128, float: f64) -> Option<Ordering> {
    if float.is_nan() {
        return None;
    }
    // The cast cuts the fraction off and saturates at +-2^127, beyond every integer of 64 bits.
    let whole = float as i128;
    Some(integer.cmp(&whole).then_with(|| 0.0_f64.partial_cmp(&float.fract()).unwrap_or(Ordering::Equal)))
}
