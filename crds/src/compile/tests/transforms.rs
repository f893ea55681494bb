//! Transforms in manifests: what is refused and where, and what the reference shows.

use spillway_delivery::event::{BatchBuilder, OriginBuilder};
use spillway_delivery::transform::{Action, Chain};

use super::*;

/// The smallest example with these transforms, each on a line from the 12th on, indented by two.
fn with(transforms: &str) -> String {
    let indented: Vec<String> = transforms.lines().map(|line| format!("  {line}")).collect();
    changed("  inputs:\n", &format!("  transforms:\n{}\n  inputs:\n", indented.join("\n")))
}

fn chain(transforms: &str) -> Chain {
    let compiled = of(&with(transforms));
    assert_eq!(told(&compiled), [""; 0], "{transforms}");
    Chain::new(&compiled.pipelines[0].settings.transforms)
}

#[test]
fn every_example_of_the_reference_is_what_it_says() {
    let page = include_str!("../../../../docs/reference/transforms.md");
    let origin = OriginBuilder { pod: Some("etcher-0".into()), ..OriginBuilder::default() }.build();
    let mut rows = 0;
    for block in page.split("```yaml\n- ").skip(1) {
        let (transform, rest) = block.split_once("```").unwrap();
        let chain = chain(&format!("- {transform}"));
        let table = rest.split("\n\n").find(|part| part.starts_with("| event | becomes |")).unwrap();
        // As one batch, for some transforms remember what came before.
        let (mut batch, mut expected) = (BatchBuilder::default(), Vec::new());
        for row in table.lines().skip(2) {
            let cells: Vec<&str> = row.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
            batch.push(cells[1].as_bytes());
            expected.extend(Some(cells[2]).filter(|after| *after != "dropped"));
            rows += 1;
        }
        let shaped = chain.shape(&batch.build(origin.clone(), 0), &origin).batch;
        let after: Vec<&str> = shaped.events().map(|event| std::str::from_utf8(event).unwrap()).collect();
        assert_eq!(after, expected, "{transform}");
    }
    assert!(rows >= 55, "only {rows} rows were tried");
}

/// A transform, the field that is wrong, and what is said of it.
const WRONG: &[(&str, &str, &str)] = &[
    (
        "- {name: a, type: Rmove, remove: {fields: [a]}}",
        "spec.transforms[0].type",
        "unknown value; found \"Rmove\"; allowed: `ParseJSON`, `ParseRegex`, `ParseTimestamp`, `ParseSeverity`, `Set`, `Remove`, \
             `Rename`, `Keep`, `Drop`, `Redact`, `Sample`, `RateLimit`, `Deduplicate`, `Multiline`; help: did you mean `Remove`?",
    ),
    ("- {name: a, type: Drop}", "spec.transforms[0].drop", "`drop` must be set when `type` is 'Drop'; found 'Drop'"),
    (
        "- {name: a, type: Drop, drop: {when: event.a}, keep: {fields: [a]}}",
        "spec.transforms[0].keep",
        "`keep` must only be set when `type` is 'Keep'; found 'Drop'",
    ),
    (
        "- {name: a, type: Set, set: {fields: [{name: b}]}}",
        "spec.transforms[0].set.fields[0].value",
        "`value` or `valueExpression` must be set, and not both",
    ),
    (
        "- {name: a, type: Set, set: {fields: [{name: b, value: 12}]}}",
        "spec.transforms[0].set.fields[0].value",
        "wrong type; found the number 12; allowed: text of at most 1024 characters; help: did you mean `\"12\"`?",
    ),
    (
        "- {name: a, type: Set, set: {fields: [{name: b, valueExpression: evnt.c}]}}",
        "spec.transforms[0].set.fields[0].valueExpression",
        "unknown variable `evnt` at character 1 of the expression; found \"evnt.c\"; help: did you mean `event`?",
    ),
    (
        "- {name: a, type: Drop, drop: {when: 'event.a.charAt(1) == 2'}}",
        "spec.transforms[0].drop.when",
        "`charAt` is not available in conditions at character 15 of the condition; found \"event.a.charAt(1) == 2\"; allowed: fields",
    ),
    (
        "- {name: a, type: Keep, keep: {fields: [b, 'c d']}}",
        "spec.transforms[0].keep.fields[1]",
        "not the name of a field: ` ` cannot stand at character 2; found \"c d\"; allowed: keys between dots",
    ),
    (
        "- {name: a, type: Remove, remove: {fields: [_spillway.id]}}",
        "spec.transforms[0].remove.fields[0]",
        "not the name of a field: `_spillway` is the agent's own member, which no event has; found \"_spillway.id\"",
    ),
    (
        "- {name: a, type: Rename, rename: {fields: [{from: a, to: b}, {from: c, to: a.d}]}}",
        "spec.transforms[0].rename.fields[1].to",
        "the field is also that of `spec.transforms[0].rename.fields[0].from`, or one is in the other; found \"a.d\"; allowed:",
    ),
    (
        "- {name: a, type: Remove, remove: {fields: [a, a]}}",
        "spec.transforms[0].remove.fields[1]",
        "duplicate of item [0] of the list; found \"a\"",
    ),
    (
        "- {name: a, type: ParseJson, parseJSON: {field: m}}",
        "spec.transforms[0].type",
        "unknown value; found \"ParseJson\"; allowed: `ParseJSON`,",
    ),
    (
        "- {name: a, type: ParseJSON, parseJSON: {field: m, onError: Kep}}",
        "spec.transforms[0].parseJSON.onError",
        "unknown value; found \"Kep\"; allowed: `Keep`, `Drop`; help: did you mean `Keep`?",
    ),
    (
        "- {name: a, type: ParseJSON, parseJSON: {field: m, into: m.n}}",
        "spec.transforms[0].parseJSON.into",
        "the field is also that of `spec.transforms[0].parseJSON.field`, or one is in the other; found \"m.n\"",
    ),
    (
        "- {name: a, type: ParseRegex, parseRegex: {field: m, pattern: '(?<a>x'}}",
        "spec.transforms[0].parseRegex.pattern",
        "not a pattern: unclosed group at character 1; found \"(?<a>x\"; allowed: the syntax of RE2",
    ),
    (
        "- {name: a, type: ParseRegex, parseRegex: {field: m, pattern: '(?=x)(?<a>x)'}}",
        "spec.transforms[0].parseRegex.pattern",
        "not a pattern: look-around, including look-ahead and look-behind, is not supported at character 1",
    ),
    (
        "- {name: a, type: ParseRegex, parseRegex: {field: m, pattern: '(x)'}}",
        "spec.transforms[0].parseRegex.pattern",
        "no group has a name: nothing becomes a field; found \"(x)\"; allowed: `(?<name>…)` around what becomes a field",
    ),
    (
        "- {name: a, type: ParseRegex, parseRegex: {field: m, pattern: '(?<a..b>x)'}}",
        "spec.transforms[0].parseRegex.pattern",
        "not the name of a field: a key is missing at character 3; found \"a..b\"",
    ),
    (
        "- {name: a, type: ParseRegex, parseRegex: {field: m, pattern: '(?<_spillway.id>x)'}}",
        "spec.transforms[0].parseRegex.pattern",
        "not the name of a field: `_spillway` is the agent's own member",
    ),
    (
        "- {name: a, type: ParseRegex, parseRegex: {field: m, pattern: '(?<a>x)(?<a.b>y)'}}",
        "spec.transforms[0].parseRegex.pattern",
        "the field is also that of `spec.transforms[0].parseRegex.pattern`, or one is in the other; found \"a.b\"",
    ),
    (
        "- {name: a, type: ParseTimestamp, parseTimestamp: {field: t, format: RFC3338}}",
        "spec.transforms[0].parseTimestamp.format",
        "unknown value; found \"RFC3338\"; allowed: `RFC3339`, `RFC2822`, `CommonLog`,",
    ),
    (
        "- {name: a, type: ParseTimestamp, parseTimestamp: {field: t, format: Layout}}",
        "spec.transforms[0].parseTimestamp.layout",
        "`layout` must be set when `format` is 'Layout', and only then",
    ),
    (
        "- {name: a, type: ParseTimestamp, parseTimestamp: {field: t, format: Layout, layout: '%H:%M', zone: UTC}}",
        "spec.transforms[0].parseTimestamp.layout",
        "times of this layout cannot be read: ",
    ),
    (
        "- {name: a, type: ParseTimestamp, parseTimestamp: {field: t, format: Layout, layout: '%F %T'}}",
        "spec.transforms[0].parseTimestamp.zone",
        "times of this form tell no zone; found \"%F %T\"; allowed: `UTC`, or an offset such as `+01:00`",
    ),
    (
        "- {name: a, type: ParseTimestamp, parseTimestamp: {field: t, format: Syslog}}",
        "spec.transforms[0].parseTimestamp.zone",
        "`zone` must be set when `format` is 'Syslog'",
    ),
    (
        "- {name: a, type: ParseTimestamp, parseTimestamp: {field: t, format: RFC3339, zone: Europe/Berlin}}",
        "spec.transforms[0].parseTimestamp.zone",
        "",
    ),
    (
        "- {name: a, type: ParseSeverity, parseSeverity: {field: l, numbers: Pyno}}",
        "spec.transforms[0].parseSeverity.numbers",
        "unknown value; found \"Pyno\"; allowed: `Syslog`, `Pino`, `Python`, `OpenTelemetry`; help: did you mean `Pino`?",
    ),
    (
        "- {name: a, type: Redact, redact: {replacement: x}}",
        "spec.transforms[0].redact.builtin",
        "`builtin` or `patterns` must be set",
    ),
    (
        "- {name: a, type: Redact, redact: {builtin: [JWT, Jwt]}}",
        "spec.transforms[0].redact.builtin[1]",
        "unknown value; found \"Jwt\"; allowed: `AWSAccessKey`, `BearerToken`, `CreditCard`, `Email`, `IPv4`, `JWT`, `PrivateKey`, \
             `URLPassword`; help: did you mean `JWT`?",
    ),
    (
        "- {name: a, type: Redact, redact: {patterns: [a, 'b(']}}",
        "spec.transforms[0].redact.patterns[1]",
        "not a pattern: unclosed group at character 2; found \"b(\"; allowed: the syntax of RE2",
    ),
    (
        "- {name: a, type: Redact, redact: {patterns: ['a*']}}",
        "spec.transforms[0].redact.patterns[0]",
        "not a pattern: it finds a text of no characters, too; found \"a*\"",
    ),
    (
        "- {name: a, type: Redact, redact: {patterns: ['(\\w{1000}){1000}']}}",
        "spec.transforms[0].redact.patterns[0]",
        "not a pattern: its program is larger than 256 KiB",
    ),
    (
        "- {name: a, type: Redact, redact: {patterns: ['[a-z]{2000}x', '[a-z]{2000}y', '[a-z]{2000}z']}}",
        "spec.transforms[0].redact.patterns",
        "not a pattern: its program is larger than 256 KiB; found \"[a-z]{2000}x|",
    ),
    (
        "- {name: a, type: Redact, redact: {builtin: [JWT], fields: [a, a.b]}}",
        "spec.transforms[0].redact.fields[1]",
        "the field is also that of `spec.transforms[0].redact.fields[0]`, or one is in the other",
    ),
    (
        "- {name: a, type: Sample, sample: {keep: 3, outOf: 2}}",
        "spec.transforms[0].sample.keep",
        "`keep` must be less than or equal to `outOf`",
    ),
    ("- {name: a, type: Sample, sample: {keep: 0, outOf: 2}}", "spec.transforms[0].sample.keep", ""),
    (
        "- {name: a, type: Sample, sample: {keep: 1, outOf: 2, keyExpression: evnt.a}}",
        "spec.transforms[0].sample.keyExpression",
        "unknown variable `evnt` at character 1 of the expression",
    ),
    (
        "- {name: a, type: RateLimit, rateLimit: {eventsPerSecond: 1, when: event.a + 1}}",
        "spec.transforms[0].rateLimit.when",
        "a number, not a condition at character 9",
    ),
    (
        "- {name: a, type: RateLimit, rateLimit: {eventsPerSecond: 1, maxKeys: 100001}}",
        "spec.transforms[0].rateLimit.maxKeys",
        "",
    ),
    (
        "- {name: a, type: Deduplicate, deduplicate: {fields: ['a b']}}",
        "spec.transforms[0].deduplicate.fields[0]",
        "not the name of a field: ` ` cannot stand at character 2",
    ),
    (
        "- {name: a, type: Deduplicate, deduplicate: {fields: [a], windowSeconds: 0}}",
        "spec.transforms[0].deduplicate.windowSeconds",
        "",
    ),
    (
        "- {name: a, type: Multiline, multiline: {}}",
        "spec.transforms[0].multiline.startPattern",
        "`startPattern` or `presets` must be set, and not both",
    ),
    (
        "- {name: a, type: Multiline, multiline: {startPattern: a, presets: [Go]}}",
        "spec.transforms[0].multiline.startPattern",
        "`startPattern` or `presets` must be set, and not both",
    ),
    (
        "- {name: a, type: Multiline, multiline: {presets: [Jawa]}}",
        "spec.transforms[0].multiline.presets[0]",
        "unknown value; found \"Jawa\"; allowed: `Java`, `Python`, `Go`; help: did you mean `Java`?",
    ),
    (
        "- {name: a, type: Multiline, multiline: {startPatern: a}}",
        "spec.transforms[0].multiline.startPatern",
        "unknown field; found \"startPatern\"; allowed: `maxBytes`, `maxLines`, `maxWaitMilliseconds`, `presets`, `startPattern`; help: did you mean \
             `startPattern`?",
    ),
    (
        "- {name: a, type: Multiline, multiline: {presets: [Go], maxLines: 1}}",
        "spec.transforms[0].multiline.maxLines",
        "",
    ),
    (
        "- {name: a, type: Multiline, multiline: {presets: [Go], maxBytes: 131073}}",
        "spec.transforms[0].multiline.maxBytes",
        "",
    ),
    (
        "- {name: a, type: Multiline, multiline: {presets: [Go], maxWaitMilliseconds: 60001}}",
        "spec.transforms[0].multiline.maxWaitMilliseconds",
        "",
    ),
    (
        "- {name: a, type: Multiline, multiline: {presets: [Go]}}",
        "spec.transforms[0].type",
        "no input of the pipeline reads files, and what is pushed is an event already: there are no lines to be joined; found \
             \"Multiline\"; allowed: an input of type `ContainerLogs` or `Files`",
    ),
];

/// The same, with an input that reads files.
fn of_files(transforms: &str) -> Compiled {
    let inputs = "  inputs:\n  - {name: tool, type: Files, files: {include: [/var/log/tool/*.log]}}\n";
    of(&with(transforms).replacen("  inputs:\n", inputs, 1))
}

#[test]
fn lines_are_joined_first_or_not_at_all_and_its_settings_have_defaults() {
    let first = "- {name: a, type: Multiline, multiline: {startPattern: '^\\d{4}-'}}";
    let other = "- {name: b, type: Remove, remove: {fields: [a]}}";
    let compiled = of_files(&format!("{first}\n{other}"));
    assert_eq!(told(&compiled), [""; 0]);
    let Action::Multiline(multiline) = &compiled.pipelines[0].settings.transforms[0].action else { panic!() };
    let limits = (multiline.lines_max, multiline.bytes_max, multiline.wait.as_millis());
    assert_eq!(limits, (500, 65_536, 1_000));
    let [error] = &of_files(&format!("{other}\n{first}")).errors[..] else { panic!() };
    assert_eq!((&*error.field, error.line), ("spec.transforms[1].type", 14));
    assert!(error.to_string().contains("no other transform may stand before it"), "{error}");
    let [error] = &of_files("- {name: a, type: Multiline, multiline: {startPattern: '('}}").errors[..] else {
        panic!()
    };
    assert_eq!(&*error.field, "spec.transforms[0].multiline.startPattern");
}

#[test]
fn what_is_wrong_is_told_at_its_place() {
    for (transform, field, words) in WRONG {
        let compiled = of(&with(transform));
        let [error] = &compiled.errors[..] else { panic!("{transform}: {:?}", super::told(&compiled)) };
        assert_eq!((&*error.field, error.line), (*field, 13), "{error}");
        let said = error.words();
        assert!(said.starts_with(&format!("{field}: {words}")), "{said}");
        assert!(compiled.pipelines.is_empty(), "{transform}");
    }
}

#[test]
fn every_wrong_field_of_every_transform_is_told() {
    let text = "- {name: a, type: Set, set: {fields: [{name: '', value: b}]}}\n\
                - {name: b, type: Remove, remove: {fields: ['x y', 'a..b', fine]}}\n\
                - {name: c, type: Drop, drop: {when: orgin.pod}}";
    let compiled = of(&with(text));
    let fields: Vec<&str> = compiled.errors.iter().map(|error| &*error.field).collect();
    // What the schema finds is told first, alone.
    assert_eq!(fields, ["spec.transforms[0].set.fields[0].name"]);
    let compiled = of(&with(&text.replace("name: ''", "name: a.")));
    let fields: Vec<&str> = compiled.errors.iter().map(|error| &*error.field).collect();
    assert_eq!(
        fields,
        [
            "spec.transforms[0].set.fields[0].name",
            "spec.transforms[1].remove.fields[0]",
            "spec.transforms[1].remove.fields[1]",
            "spec.transforms[2].drop.when"
        ]
    );
}

#[test]
fn two_transforms_of_one_name_are_refused() {
    let text = "- {name: a, type: Drop, drop: {when: event.a}}\n- {name: a, type: Drop, drop: {when: event.b}}";
    let compiled = of(&with(text));
    assert_eq!(compiled.errors[0].field, "spec.transforms[1].name");
}

#[test]
fn a_pipeline_of_the_cluster_has_transforms_too() {
    let text = with("- {name: a, type: Drop, drop: {when: event.a}}")
        .replace("kind: Backend\n", "kind: ClusterBackend\n")
        .replace("kind: MonitoringPipeline\n", "kind: ClusterMonitoringPipeline\n")
        .replace("spec:\n  transforms:", "spec:\n  namespaceSelector: {}\n  transforms:");
    let compiled = of(&text);
    assert_eq!(told(&compiled), [""; 0]);
    assert_eq!(compiled.pipelines[0].settings.transforms.len(), 1);
}
