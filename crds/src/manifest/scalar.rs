//! What a plain YAML scalar means, as `kubectl` reads it (YAML 1.1 with Go's numbers).

/// What a scalar is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scalar {
    /// Nothing, `~` or `null`.
    Null,
    /// A boolean.
    Bool(bool),
    /// An integer.
    Integer(i64),
    /// Any other number.
    Float(f64),
    /// Text.
    Text,
}

/// Returns what the plain (unquoted, untagged) scalar `text` means.
pub(crate) fn plain(text: &str) -> Scalar {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Scalar::Null,
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" | "y" | "Y" => Scalar::Bool(true),
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" | "n" | "N" => Scalar::Bool(false),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => Scalar::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => Scalar::Float(f64::NEG_INFINITY),
        ".nan" | ".NaN" | ".NAN" => Scalar::Float(f64::NAN),
        _ if text.starts_with(|first: char| first.is_ascii_digit() || "+-.".contains(first)) => number(text),
        _ => Scalar::Text,
    }
}

fn number(text: &str) -> Scalar {
    let digits: String = text.chars().filter(|character| *character != '_').collect();
    if let Some(integer) = integer(&digits) {
        return Scalar::Integer(integer);
    }
    if is_decimal(&digits) { digits.parse().map_or(Scalar::Text, Scalar::Float) } else { Scalar::Text }
}

/// Reads an integer as Go does with base 0: `0x`, `0o` or a leading zero, `0b`, or decimal.
fn integer(text: &str) -> Option<i64> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let lower = digits.to_ascii_lowercase();
    let (radix, digits) = if let Some(digits) = lower.strip_prefix("0x") {
        (16, digits)
    } else if let Some(digits) = lower.strip_prefix("0o") {
        (8, digits)
    } else if let Some(digits) = lower.strip_prefix("0b") {
        (2, digits)
    } else if lower.len() > 1 && lower.starts_with('0') {
        (8, &lower[1..])
    } else {
        (10, &lower[..])
    };
    if digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(radix)) {
        return None;
    }
    let magnitude = i128::from_str_radix(digits, radix).ok()?;
    i64::try_from(if negative { -magnitude } else { magnitude }).ok()
}

/// Whether it is digits with at most one point and an exponent: what Go's YAML takes for a float.
fn is_decimal(text: &str) -> bool {
    let text = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))),
        None => (text, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    digits(whole)
        && digits(fraction)
        && !(whole.is_empty() && fraction.is_empty())
        && exponent.is_none_or(|exponent| !exponent.is_empty() && digits(exponent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_mean_what_kubectl_takes_them_for() {
        for (text, expected) in [
            ("", Scalar::Null),
            ("~", Scalar::Null),
            ("yes", Scalar::Bool(true)),
            ("Off", Scalar::Bool(false)),
            ("12", Scalar::Integer(12)),
            ("-12", Scalar::Integer(-12)),
            ("1_000", Scalar::Integer(1000)),
            ("0644", Scalar::Integer(420)),
            ("0o17", Scalar::Integer(15)),
            ("0xff", Scalar::Integer(255)),
            ("0b101", Scalar::Integer(5)),
            ("9223372036854775807", Scalar::Integer(i64::MAX)),
            ("9223372036854775808", Scalar::Float(9_223_372_036_854_775_808.0)),
            ("08", Scalar::Float(8.0)),
            ("2.4", Scalar::Float(2.4)),
            (".5", Scalar::Float(0.5)),
            ("1e3", Scalar::Float(1000.0)),
            ("1e", Scalar::Text),
            ("+", Scalar::Text),
            (".", Scalar::Text),
            ("1.2.3", Scalar::Text),
            ("2026-01-02", Scalar::Text),
            ("-x", Scalar::Text),
            ("trUe", Scalar::Text),
            ("0x", Scalar::Text),
        ] {
            assert_eq!(plain(text), expected, "{text}");
        }
    }
}
