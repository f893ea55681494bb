//! Every text of a value, at any depth.

use super::find::Walk;

/// Calls `each` with where every text of a valid value stands there: what is between its quotes, from one place to another. Keys
/// are no texts.
pub(crate) fn each_text(value: &[u8], mut each: impl FnMut(usize, usize)) {
    let mut walk = Walk::new(value);
    let mut at = 0;
    while at < value.len() {
        if walk.byte(at) != b'"' {
            at += 1;
            continue;
        }
        let end = walk.skip_value(at);
        if walk.byte(walk.space(end)) != b':' && at + 1 < end {
            each(at + 1, end - 1);
        }
        at = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_is_found_and_no_key() {
        for (value, expected) in [
            (r#""a""#, &["a"][..]),
            (r#"{"k":"a","l" : [ "b" , {"m":"c:"}, 7, "" ],"n":{"o":null}}"#, &["a", "b", "c:", ""]),
            (r#"{"k\":":"a\"b\\","l":"}]"}"#, &[r#"a\"b\\"#, "}]"]),
            ("7", &[]),
            ("{}", &[]),
        ] {
            let mut found = Vec::new();
            each_text(value.as_bytes(), |start, end| found.push(&value[start..end]));
            assert_eq!(found, expected, "{value}");
        }
    }

    #[test]
    fn bytes_that_are_no_value_end() {
        for value in ["\"", "{\"", "{\"a\":\"", "\"\\", "[\"a\" \"b", ""] {
            each_text(value.as_bytes(), |start, end| assert!(start <= end && end <= value.len(), "{value}"));
        }
    }
}
