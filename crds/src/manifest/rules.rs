//! The CEL rules of the CRDs, each beside the same rule in Rust, so that both hold wherever a manifest is read.
//!
//! A type names its rules with the functions here; `holds` finds the Rust side of a rule by its CEL text. A test walks
//! the CRDs and fails for a rule that has none. Rules over `oldSelf` compare two versions and hold offline.
//!
//! Messages say what must be, with fields in back-quotes and values in single quotes.

use std::fmt;

use kube::core::{Reason, Rule};
use serde_json::Value;
use spillway_backends::BackendSettings;

use crate::kinds::NAME_CHARS_MAX;

/// A rule that CEL and Rust both know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Check {
    /// The member is there only with that type.
    OnlyWith { r#type: &'static str, member: &'static str },
    /// The member is there with that type.
    NeededWith { r#type: &'static str, member: &'static str },
    /// The object's name is short enough.
    NameLength,
    /// `In` and `NotIn` have values.
    ValuesNeeded,
    /// `Exists` and `DoesNotExist` have none.
    ValuesRefused,
    /// The first back-off is at most the longest.
    InitialAtMostMax,
    /// The member of a route is there only where its first healthy backend gets the events.
    OnlyFirstHealthy { member: &'static str },
    /// References have priorities only there.
    PriorityRefused,
    /// And there they do not say what happens when they are behind: the route does.
    WhenBehindRefused,
    /// A field that is set has one value.
    ValueOrExpression,
    /// Only a time of that format has a layout, and it has one.
    LayoutWithFormat,
    /// A time that tells no zone is given one.
    ZoneNeeded,
    /// Something is looked for.
    BuiltinOrPatterns,
    /// No more is kept than there is.
    KeepAtMostOutOf,
    /// What begins an event of several lines is told, once.
    StartPatternOrPresets,
}

/// Every rule of every kind, but those of the members of a Backend and of a transform.
const CHECKS: [Check; 18] = [
    Check::OnlyWith { r#type: "ContainerLogs", member: "containerLogs" },
    Check::OnlyWith { r#type: "Events", member: "events" },
    Check::OnlyWith { r#type: "Files", member: "files" },
    Check::NeededWith { r#type: "Files", member: "files" },
    Check::NameLength,
    Check::ValuesNeeded,
    Check::ValuesRefused,
    Check::InitialAtMostMax,
    Check::OnlyFirstHealthy { member: "failback" },
    Check::OnlyFirstHealthy { member: "whenBehind" },
    Check::PriorityRefused,
    Check::WhenBehindRefused,
    Check::ValueOrExpression,
    Check::LayoutWithFormat,
    Check::ZoneNeeded,
    Check::BuiltinOrPatterns,
    Check::KeepAtMostOutOf,
    Check::StartPatternOrPresets,
];

/// The types of transform and their members.
const TRANSFORMS: [(&str, &str); 14] = [
    ("ParseJSON", "parseJSON"),
    ("ParseRegex", "parseRegex"),
    ("ParseTimestamp", "parseTimestamp"),
    ("ParseSeverity", "parseSeverity"),
    ("Set", "set"),
    ("Remove", "remove"),
    ("Rename", "rename"),
    ("Keep", "keep"),
    ("Drop", "drop"),
    ("Redact", "redact"),
    ("Sample", "sample"),
    ("RateLimit", "rateLimit"),
    ("Deduplicate", "deduplicate"),
    ("Multiline", "multiline"),
];

/// Returns every rule of every kind.
pub(crate) fn checks() -> impl Iterator<Item = Check> {
    CHECKS.into_iter().chain(members_of_backends()).chain(members_of_transforms())
}

/// Returns the rules of the members of a transform: each with its type and with no other.
pub(crate) fn members_of_transforms() -> impl Iterator<Item = Check> {
    let both = |(r#type, member)| [Check::OnlyWith { r#type, member }, Check::NeededWith { r#type, member }];
    TRANSFORMS.into_iter().flat_map(both)
}

/// Returns the rules of the members of a Backend: each only with its type, and there where the type needs it.
pub(crate) fn members_of_backends() -> impl Iterator<Item = Check> {
    BackendSettings::LIST.iter().flat_map(|row| {
        let (r#type, member) = (row.type_name, row.member_name);
        let needed = row.member_needed.then_some(Check::NeededWith { r#type, member });
        std::iter::once(Check::OnlyWith { r#type, member }).chain(needed)
    })
}

/// Returns the Rust side of the rule with that CEL text.
pub(crate) fn find(rule: &str) -> Option<Check> {
    checks().find(|check| check.to_string() == rule)
}

/// Returns whether a rule compares with the version before, so that it has nothing to say about a file.
#[cfg(test)]
pub(crate) fn is_transition(rule: &str) -> bool {
    rule.contains("oldSelf")
}

/// `member` is there only when `type` names it.
pub(crate) fn member_only_with(r#type: &'static str, member: &'static str) -> Rule {
    Check::OnlyWith { r#type, member }.rule()
}

/// `member` is there when `type` names it.
pub(crate) fn member_needed_with(r#type: &'static str, member: &'static str) -> Rule {
    Check::NeededWith { r#type, member }.rule()
}

/// The object's name leaves room for the namespace and for names made from it.
pub(crate) fn name_rule() -> Rule {
    Check::NameLength.rule()
}

/// `In` and `NotIn` compare with something.
pub(crate) fn values_needed() -> Rule {
    Check::ValuesNeeded.rule()
}

/// `Exists` and `DoesNotExist` compare with nothing.
pub(crate) fn values_refused() -> Rule {
    Check::ValuesRefused.rule()
}

/// The first back-off is at most the longest.
pub(crate) fn initial_at_most_max() -> Rule {
    Check::InitialAtMostMax.rule()
}

/// `member` of a route is there only when its first healthy backend gets the events.
pub(crate) fn only_first_healthy(member: &'static str) -> Rule {
    Check::OnlyFirstHealthy { member }.rule()
}

/// References have priorities only when the first healthy one gets the events.
pub(crate) fn priority_refused() -> Rule {
    Check::PriorityRefused.rule()
}

/// What happens when the backends are behind stands on the route when the first healthy one gets the events.
pub(crate) fn when_behind_refused() -> Rule {
    Check::WhenBehindRefused.rule()
}

/// A field that is set has a text or an expression for its value.
pub(crate) fn value_or_expression() -> Rule {
    Check::ValueOrExpression.rule()
}

/// A time has a layout with that format, and only with it.
pub(crate) fn layout_with_format() -> Rule {
    Check::LayoutWithFormat.rule()
}

/// A time that tells no zone is given one.
pub(crate) fn zone_needed() -> Rule {
    Check::ZoneNeeded.rule()
}

/// Something is looked for.
pub(crate) fn builtin_or_patterns() -> Rule {
    Check::BuiltinOrPatterns.rule()
}

/// No more is kept than there is.
pub(crate) fn keep_at_most_out_of() -> Rule {
    Check::KeepAtMostOutOf.rule()
}

/// What begins an event of several lines is told, once.
pub(crate) fn start_pattern_or_presets() -> Rule {
    Check::StartPatternOrPresets.rule()
}

/// The field never changes; `why` says what to do instead.
pub(crate) fn immutable(field: &str, why: &str) -> Rule {
    Rule::new("self == oldSelf")
        .message(&*format!("`{field}` must not change: {why}"))
        .reason(Reason::FieldValueForbidden)
}

impl Check {
    /// Returns what must be.
    pub(crate) fn message(self) -> String {
        match self {
            Self::OnlyWith { r#type, member } => format!("`{member}` must only be set when `type` is '{type}'"),
            Self::NeededWith { r#type, member } => format!("`{member}` must be set when `type` is '{type}'"),
            Self::NameLength => format!("`metadata.name` must be at most {NAME_CHARS_MAX} characters"),
            Self::ValuesNeeded => "`values` must be set when `operator` is 'In' or 'NotIn'".to_owned(),
            Self::ValuesRefused => "`values` must only be set when `operator` is 'In' or 'NotIn'".to_owned(),
            Self::InitialAtMostMax => {
                "`initialMilliseconds` must be less than or equal to `maxSeconds` in milliseconds".to_owned()
            }
            Self::OnlyFirstHealthy { member } => {
                format!("`{member}` of a route must only be set when `strategy` is 'FirstHealthy'")
            }
            Self::PriorityRefused => "`priority` must only be set when `strategy` is 'FirstHealthy'".to_owned(),
            Self::WhenBehindRefused => {
                "`whenBehind` must be set on the route and not on its backends when `strategy` is 'FirstHealthy'"
                    .to_owned()
            }
            Self::ValueOrExpression => "`value` or `valueExpression` must be set, and not both".to_owned(),
            Self::LayoutWithFormat => "`layout` must be set when `format` is 'Layout', and only then".to_owned(),
            Self::ZoneNeeded => "`zone` must be set when `format` is 'Syslog'".to_owned(),
            Self::BuiltinOrPatterns => "`builtin` or `patterns` must be set".to_owned(),
            Self::KeepAtMostOutOf => "`keep` must be less than or equal to `outOf`".to_owned(),
            Self::StartPatternOrPresets => "`startPattern` or `presets` must be set, and not both".to_owned(),
        }
    }

    /// Returns the field below the object that the message is about; empty for the object itself.
    pub(crate) fn field(self) -> &'static str {
        match self {
            Self::OnlyWith { member, .. } | Self::NeededWith { member, .. } | Self::OnlyFirstHealthy { member } => {
                member
            }
            Self::NameLength => "",
            Self::ValueOrExpression => "value",
            Self::LayoutWithFormat => "layout",
            Self::ZoneNeeded => "zone",
            Self::BuiltinOrPatterns => "builtin",
            Self::KeepAtMostOutOf => "keep",
            Self::StartPatternOrPresets => "startPattern",
            Self::ValuesNeeded | Self::ValuesRefused => "values",
            Self::InitialAtMostMax => "initialMilliseconds",
            Self::PriorityRefused | Self::WhenBehindRefused => "backendRefs",
        }
    }

    /// Returns whether the object, defaults filled in, obeys.
    pub(crate) fn holds(self, object: &Value) -> bool {
        let has = |field: &str| object.get(field).is_some();
        let text = |field: &str| object.get(field).and_then(Value::as_str).unwrap_or_default();
        let compares = matches!(text("operator"), "In" | "NotIn");
        let has_some = |field: &str| object.get(field).and_then(Value::as_array).is_some_and(|list| !list.is_empty());
        let values = has_some("values");
        let is_group = text("strategy") == "FirstHealthy";
        let some_reference_has = |field: &str| {
            let references = object.get("backendRefs").and_then(Value::as_array);
            references.is_some_and(|all| all.iter().any(|reference| reference.get(field).is_some()))
        };
        match self {
            Self::OnlyFirstHealthy { member } => is_group || !has(member),
            Self::PriorityRefused => is_group || !some_reference_has("priority"),
            Self::WhenBehindRefused => !is_group || !some_reference_has("whenBehind"),
            Self::OnlyWith { r#type, member } => !has(member) || text("type") == r#type,
            Self::NeededWith { r#type, member } => text("type") != r#type || has(member),
            Self::NameLength => object
                .pointer("/metadata/name")
                .and_then(Value::as_str)
                .is_none_or(|name| name.chars().count() as u64 <= NAME_CHARS_MAX),
            Self::ValuesNeeded => !compares || values,
            Self::ValuesRefused => compares || !values,
            Self::ValueOrExpression => has("value") != has("valueExpression"),
            Self::LayoutWithFormat => has("layout") == (text("format") == "Layout"),
            Self::ZoneNeeded => text("format") != "Syslog" || has("zone"),
            Self::BuiltinOrPatterns => ["builtin", "patterns"].into_iter().any(has_some),
            Self::StartPatternOrPresets => has("startPattern") != has_some("presets"),
            Self::KeepAtMostOutOf => {
                let number = |field: &str| object.get(field).and_then(Value::as_u64);
                number("keep").zip(number("outOf")).is_none_or(|(keep, out_of)| keep <= out_of)
            }
            Self::InitialAtMostMax => {
                let number = |field: &str| object.get(field).and_then(Value::as_u64);
                match (number("initialMilliseconds"), number("maxSeconds")) {
                    (Some(initial), Some(max)) => initial <= max.saturating_mul(1000),
                    _ => true,
                }
            }
        }
    }

    /// Returns the rule as Kubernetes takes it.
    pub(crate) fn rule(self) -> Rule {
        let rule = Rule::new(self.to_string()).message(self.message().as_str());
        let rule = match self {
            Self::NeededWith { .. } | Self::ValuesNeeded | Self::ZoneNeeded => rule.reason(Reason::FieldValueRequired),
            _ => rule.reason(Reason::FieldValueInvalid),
        };
        match self.field() {
            "" => rule,
            field => rule.field_path(format!(".{field}")),
        }
    }
}

/// The rule in CEL.
impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OnlyWith { r#type, member } => write!(f, "!has(self.{member}) || self.type == '{type}'"),
            Self::NeededWith { r#type, member } => write!(f, "self.type != '{type}' || has(self.{member})"),
            Self::NameLength => write!(f, "size(self.metadata.name) <= {NAME_CHARS_MAX}"),
            Self::ValuesNeeded => {
                f.write_str("!(self.operator in ['In', 'NotIn']) || (has(self.values) && size(self.values) > 0)")
            }
            Self::ValuesRefused => {
                f.write_str("self.operator in ['In', 'NotIn'] || !has(self.values) || size(self.values) == 0")
            }
            Self::OnlyFirstHealthy { member } => {
                write!(f, "!has(self.{member}) || self.strategy == 'FirstHealthy'")
            }
            Self::PriorityRefused => {
                f.write_str("self.strategy == 'FirstHealthy' || !self.backendRefs.exists(r, has(r.priority))")
            }
            Self::WhenBehindRefused => {
                f.write_str("self.strategy != 'FirstHealthy' || !self.backendRefs.exists(r, has(r.whenBehind))")
            }
            Self::InitialAtMostMax => f.write_str("self.initialMilliseconds <= self.maxSeconds * 1000"),
            Self::ValueOrExpression => f.write_str("has(self.value) != has(self.valueExpression)"),
            Self::LayoutWithFormat => f.write_str("has(self.layout) == (self.format == 'Layout')"),
            Self::ZoneNeeded => f.write_str("self.format != 'Syslog' || has(self.zone)"),
            Self::BuiltinOrPatterns => f.write_str(
                "(has(self.builtin) && size(self.builtin) > 0) || (has(self.patterns) && size(self.patterns) > 0)",
            ),
            Self::KeepAtMostOutOf => f.write_str("self.keep <= self.outOf"),
            Self::StartPatternOrPresets => {
                f.write_str("has(self.startPattern) != (has(self.presets) && size(self.presets) > 0)")
            }
        }
    }
}

#[cfg(test)]
mod tests;
