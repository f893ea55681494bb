use std::collections::BTreeMap;

use serde_json::json;

use super::*;

#[test]
fn each_rule_takes_the_good_and_refuses_the_bad() {
    let only = Check::OnlyWith { r#type: "HTTP", member: "http" };
    let needed = Check::NeededWith { r#type: "HTTP", member: "http" };
    let failback = Check::OnlyFirstHealthy { member: "failback" };
    for (check, object, holds) in [
        (only, json!({"type": "HTTP", "http": {}}), true),
        (only, json!({"type": "Stdout", "http": {}}), false),
        (only, json!({"type": "Stdout"}), true),
        (needed, json!({"type": "HTTP", "http": {}}), true),
        (needed, json!({"type": "HTTP"}), false),
        (needed, json!({"type": "Stdout"}), true),
        (Check::NameLength, json!({"metadata": {"name": "a".repeat(63)}}), true),
        (Check::NameLength, json!({"metadata": {"name": "a".repeat(64)}}), false),
        (Check::ValuesNeeded, json!({"operator": "In", "values": ["a"]}), true),
        (Check::ValuesNeeded, json!({"operator": "In", "values": []}), false),
        (Check::ValuesNeeded, json!({"operator": "NotIn"}), false),
        (Check::ValuesNeeded, json!({"operator": "Exists"}), true),
        (Check::ValuesRefused, json!({"operator": "Exists", "values": ["a"]}), false),
        (Check::ValuesRefused, json!({"operator": "Exists", "values": []}), true),
        (Check::ValuesRefused, json!({"operator": "In", "values": ["a"]}), true),
        (Check::InitialAtMostMax, json!({"initialMilliseconds": 1000, "maxSeconds": 1}), true),
        (Check::InitialAtMostMax, json!({"initialMilliseconds": 1001, "maxSeconds": 1}), false),
        (failback, json!({"strategy": "FirstHealthy", "failback": "Leave"}), true),
        (failback, json!({"strategy": "All", "failback": "Leave"}), false),
        (failback, json!({"strategy": "All"}), true),
        (Check::PriorityRefused, json!({"strategy": "All", "backendRefs": [{"name": "a"}]}), true),
        (Check::PriorityRefused, json!({"strategy": "All", "backendRefs": [{"name": "a"}, {"priority": 0}]}), false),
        (Check::PriorityRefused, json!({"strategy": "FirstHealthy", "backendRefs": [{"priority": 1}]}), true),
        (Check::WhenBehindRefused, json!({"strategy": "All", "backendRefs": [{"whenBehind": "Block"}]}), true),
        (Check::WhenBehindRefused, json!({"strategy": "FirstHealthy", "backendRefs": [{"name": "a"}]}), true),
        (
            Check::WhenBehindRefused,
            json!({"strategy": "FirstHealthy", "backendRefs": [{"whenBehind": "Block"}]}),
            false,
        ),
        (Check::ValueOrExpression, json!({"name": "a", "value": ""}), true),
        (Check::ValueOrExpression, json!({"name": "a", "valueExpression": "event.a"}), true),
        (Check::ValueOrExpression, json!({"name": "a"}), false),
        (Check::ValueOrExpression, json!({"name": "a", "value": "b", "valueExpression": "event.a"}), false),
        (Check::LayoutWithFormat, json!({"format": "Layout", "layout": "%F %T"}), true),
        (Check::LayoutWithFormat, json!({"format": "Layout"}), false),
        (Check::LayoutWithFormat, json!({"format": "RFC3339"}), true),
        (Check::LayoutWithFormat, json!({"format": "RFC3339", "layout": "%F %T"}), false),
        (Check::ZoneNeeded, json!({"format": "Syslog", "zone": "UTC"}), true),
        (Check::ZoneNeeded, json!({"format": "Syslog"}), false),
        (Check::ZoneNeeded, json!({"format": "RFC3339"}), true),
        (Check::BuiltinOrPatterns, json!({"builtin": ["JWT"]}), true),
        (Check::BuiltinOrPatterns, json!({"builtin": [], "patterns": ["a"]}), true),
        (Check::BuiltinOrPatterns, json!({"builtin": [], "replacement": "a"}), false),
        (Check::BuiltinOrPatterns, json!({"patterns": []}), false),
        (Check::KeepAtMostOutOf, json!({"keep": 1, "outOf": 1}), true),
        (Check::KeepAtMostOutOf, json!({"keep": 2, "outOf": 1}), false),
    ] {
        assert_eq!(check.holds(&object), holds, "{check} over {object}");
        assert_eq!(by_cel(check, &object), holds, "by CEL: {check} over {object}");
    }
}

/// Returns what the rule's CEL text says.
fn by_cel(check: Check, object: &Value) -> bool {
    let program = cel::Program::compile(&check.to_string()).unwrap();
    let mut context = cel::Context::default();
    match serde_json::from_value::<BTreeMap<String, i64>>(object.clone()) {
        // Kubernetes' numbers are signed, those of a JSON value are not.
        Ok(numbers) => context.add_variable("self", numbers).unwrap(),
        Err(_) => context.add_variable("self", object.clone()).unwrap(),
    }
    match program.execute(&context) {
        Ok(cel::Value::Bool(holds)) => holds,
        other => panic!("{check} over {object}: {other:?}"),
    }
}

#[test]
fn a_rule_is_found_by_its_text_and_no_two_are_alike() {
    for check in checks() {
        assert_eq!(find(&check.to_string()), Some(check));
    }
    assert_eq!(find("true"), None);
}
