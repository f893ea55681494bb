//! Quantities of Kubernetes: `200m`, `64Mi`, `1.5`, `1e3`.
//!
//! # Limits
//! 30 digits; what is finer than a billionth counts as one.

use serde::{Deserialize, Deserializer, de};
use serde_json::Value;

/// Billionths in one.
const ONE: i128 = 1_000_000_000;

/// Most digits of a number.
const DIGITS_MAX: usize = 30;

/// An amount of something, exact to a billionth.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Quantity(i128);

impl Quantity {
    /// Returns so many thousandths.
    pub const fn thousandths(count: u32) -> Self {
        Self(count as i128 * (ONE / 1000))
    }

    /// Returns so many mebibytes.
    pub const fn mebibytes(count: u32) -> Self {
        Self(count as i128 * (1 << 20) * ONE)
    }

    /// Reads it as an API server does; `None` where it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let (sign, text) = match text.as_bytes().first()? {
            b'-' => (-1, &text[1..]),
            b'+' => (1, &text[1..]),
            _ => (1, text),
        };
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, suffix) = text.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let digits = whole.len() + fraction.len();
        if !(1..=DIGITS_MAX).contains(&digits) || fraction.contains('.') {
            return None;
        }
        let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
        let below = 10_i128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
        let (above, more) = scale(suffix)?;
        let scaled = digits.checked_mul(above)?;
        let under = below.checked_mul(more)?;
        Some(Self(sign * (scaled / under + i128::from(scaled % under != 0))))
    }

    /// Reads it of a manifest, in which it may be a number.
    pub fn of_value(value: &Value) -> Option<Self> {
        match value {
            Value::String(text) => Self::parse(text),
            Value::Number(number) => Self::parse(&number.to_string()),
            _ => None,
        }
    }

    /// Returns the sum of both, as far as that can be told.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// Returns the highest multiple of `unit` that is not above it.
    #[must_use]
    pub(super) fn down_to(self, unit: Self) -> Self {
        Self(self.0.div_euclid(unit.0) * unit.0)
    }

    /// Returns the lowest multiple of `unit` that is not below it.
    #[must_use]
    pub(super) fn up_to(self, unit: Self) -> Self {
        Self(rounded_up(self.0, unit.0) * unit.0)
    }

    /// Returns a part of it: one of so many, rounded up; `None` of none.
    pub(super) fn over(self, count: Self) -> Option<Self> {
        let scaled = self.0.checked_mul(ONE)?;
        (count.0 > 0).then(|| Self(rounded_up(scaled, count.0)))
    }

    /// Returns it in thousandths, with their suffix, rounded up.
    pub fn in_thousandths(self) -> String {
        format!("{}m", rounded_up(self.0, ONE / 1000))
    }

    /// Returns so many percent of it in bytes, rounded down.
    pub fn percent_in_bytes(self, percent: u32) -> String {
        (self.0 / 100 * i128::from(percent) / ONE).to_string()
    }

    /// Returns it as it is counted in bytes, rounded up.
    pub fn in_bytes(self) -> String {
        let bytes = rounded_up(self.0, ONE);
        if bytes % (1 << 20) == 0 { format!("{}Mi", bytes >> 20) } else { bytes.to_string() }
    }
}

/// Returns what a suffix multiplies billionths by, and divides them by.
fn scale(suffix: &str) -> Option<(i128, i128)> {
    if let Some(exponent) = suffix.strip_prefix(['e', 'E']).filter(|rest| !rest.is_empty() && *rest != "i") {
        let exponent: i32 = exponent.parse().ok()?;
        let power = 10_i128.checked_pow(exponent.unsigned_abs())?;
        return if exponent < 0 { Some((ONE, power)) } else { Some((ONE.checked_mul(power)?, 1)) };
    }
    let above = match suffix {
        "n" => return Some((1, 1)),
        "u" => return Some((1000, 1)),
        "m" => return Some((1_000_000, 1)),
        "" => 1,
        "k" => 1000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        "P" => 1_000_000_000_000_000,
        "E" => 1_000_000_000_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        "Pi" => 1 << 50,
        "Ei" => 1 << 60,
        _ => return None,
    };
    Some((ONE * above, 1))
}

fn rounded_up(amount: i128, unit: i128) -> i128 {
    amount / unit + i128::from(amount % unit > 0)
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        Self::of_value(&value).ok_or_else(|| de::Error::custom("expected a quantity, such as `200m` or `64Mi`"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantity_is_read_as_an_api_server_reads_it() {
        for (text, billionths) in [
            ("1", ONE),
            ("200m", ONE / 5),
            ("0.2", ONE / 5),
            (".5", ONE / 2),
            ("5.", 5 * ONE),
            ("+3", 3 * ONE),
            ("-1", -ONE),
            ("1.5Ki", 1536 * ONE),
            ("64Mi", (64 << 20) * ONE),
            ("1e3", 1000 * ONE),
            ("12E-1", 1_200_000_000),
            ("1E", ONE * ONE * ONE),
            ("1Ei", (1 << 60) * ONE),
            ("7u", 7000),
            ("0.1n", 1),
        ] {
            assert_eq!(Quantity::parse(text), Some(Quantity(billionths)), "{text}");
        }
        let long = "9".repeat(31);
        for text in ["", "-", ".", "m", "1.2.3", "1 Mi", "1mi", "0x10", "1e", "1eE", "ten", &long, "1e40", "9e99999999"]
        {
            assert_eq!(Quantity::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_quantity_is_written_in_one_way() {
        let written = |text: &str| Quantity::parse(text).map(|one| (one.in_thousandths(), one.in_bytes())).unwrap();
        assert_eq!(written("0.25"), ("250m".to_owned(), "1".to_owned()));
        assert_eq!(written("64Mi").1, "64Mi");
        assert_eq!(written("1000").1, "1000");
        assert_eq!(written("0.2001").0, "201m");
    }
}
