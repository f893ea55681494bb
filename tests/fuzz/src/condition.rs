//! Conditions: of any text and of any event.

use spillway_delivery::condition::{CHARACTERS_MAX, Condition};
use spillway_delivery::event::OriginBuilder;
use spillway_delivery::json::{normalize_into, validate_object};

/// See the table of [the crate](crate).
///
/// # Panics
/// Where it does not hold.
pub fn check(bytes: &[u8]) {
    let (text, event) = bytes
        .iter()
        .position(|byte| *byte == b'\n')
        .map_or((bytes, &b"{}"[..]), |line| (&bytes[..line], &bytes[line + 1..]));
    let Ok(text) = std::str::from_utf8(text) else { return };
    let Ok(condition) = Condition::compile(text) else { return };
    assert!(text.chars().count() <= CHARACTERS_MAX);
    let mut normal = Vec::new();
    if validate_object(event).is_ok() {
        normalize_into(event, &mut normal);
    } else {
        normal.extend_from_slice(b"{}");
    }
    let origin = OriginBuilder { pod: Some("etcher-0".into()), ..OriginBuilder::default() }.build();
    let meant = condition.eval(&normal, &origin);
    assert_eq!(meant, condition.eval(&normal, &origin), "{text}");
    // The same in other words, as far as they are not too long or too deep.
    let others =
        [(format!("!({text})"), true), (format!("({text}) && true"), false), (format!("({text}) || false"), false)];
    for (other, is_negated) in others {
        if let Ok(condition) = Condition::compile(&other) {
            let expected = meant.map(|holds| holds != is_negated);
            assert_eq!(condition.eval(&normal, &origin), expected, "{other} of {}", normal.escape_ascii());
        }
    }
}
