//! The nearest valid name, for "did you mean".

/// Longest text that is compared; longer ones are no slip of the finger.
const CHARS_MAX: usize = 64;

/// Returns the candidate that `found` is most likely a slip of, if any is near enough.
pub(crate) fn nearest<'a>(found: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let length = found.chars().count();
    if length == 0 || length > CHARS_MAX {
        return None;
    }
    let lower = found.to_lowercase();
    let distance_max = (length / 3).max(1);
    candidates
        .into_iter()
        .filter(|candidate| *candidate != found && candidate.len() <= 2 * CHARS_MAX)
        .map(|candidate| (strsim::damerau_levenshtein(&lower, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= distance_max && *distance < candidate.chars().count())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_its_name_and_nonsense_does_not() {
        let names = ["batch", "maxInFlight", "timeoutSeconds", "retry"];
        for (found, expected) in [
            ("bach", Some("batch")),
            ("maxinflight", Some("maxInFlight")),
            ("timeout_seconds", Some("timeoutSeconds")),
            ("rerty", Some("retry")),
            ("circuitBreaker", None),
            ("", None),
            ("x", None),
        ] {
            assert_eq!(nearest(found, names), expected, "{found}");
        }
        assert_eq!(nearest(&"batch".repeat(1_000_000), names), None);
    }
}
