//! Names that a rotation gives: `tool.log` becomes `tool.log.1`, `tool.log-20260101`, `tool.log.2026-01-01` or `tool.log.old`.

/// Most bytes of what a rotation adds.
const SUFFIX_BYTES_MAX: usize = 32;

/// Returns the name that a file had before it was rotated to `name`; `None` where its name does not tell, and where it is
/// compressed.
pub(super) fn before(name: &str) -> Option<&str> {
    if let Some(base) = name.strip_suffix(".old") {
        return Some(base).filter(|base| !base.is_empty());
    }
    let base = name.trim_end_matches(|last: char| last.is_ascii_digit() || matches!(last, '-' | '.' | '_' | 'T' | ':'));
    let suffix = &name[base.len()..];
    let is_stamp = suffix.len() <= SUFFIX_BYTES_MAX
        && suffix.starts_with(['.', '-', '_'])
        && suffix[1..].starts_with(|first: char| first.is_ascii_digit())
        && suffix.ends_with(|last: char| last.is_ascii_digit());
    (is_stamp && !base.is_empty()).then_some(base)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_before_a_rotation_is_found() {
        for (name, expected) in [
            ("tool.log.1", Some("tool.log")),
            ("tool.log.12", Some("tool.log")),
            ("tool.log-20260101", Some("tool.log")),
            ("tool.log.2026-01-01", Some("tool.log")),
            ("tool.log.2026-01-01T10:00:00", Some("tool.log")),
            ("tool.log.old", Some("tool.log")),
            ("tool.1", Some("tool")),
            ("tool.log", None),
            ("tool.log.1.gz", None),
            ("tool1", None),
            ("tool.log.", None),
            ("1.2", None),
            (".old", None),
            ("tool-20260101.log", None),
        ] {
            assert_eq!(before(name), expected, "{name}");
        }
    }
}
