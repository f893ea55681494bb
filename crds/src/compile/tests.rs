use std::time::Duration;

use proptest::prelude::*;
use spillway_delivery::settings::{
    BreakerSettings, Durability, Failback, OnUndeliverable, RateLimitSettings, WhenBehind,
};

use super::*;

mod cluster;
mod transforms;

/// The smallest useful one of the manual.
const SMALLEST: &str = "\
apiVersion: spillway.dev/v1alpha1
kind: Backend
metadata: {name: archive}
spec:
  type: Filesystem
  filesystem: {}                  # below the agent's filesystem root
---
apiVersion: spillway.dev/v1alpha1
kind: MonitoringPipeline
metadata: {name: jobs}
spec:
  inputs:
  - {name: pushed, type: Events}
  routes:
  - {name: everything, backendRefs: [{name: archive}]}
";

/// Every field there is.
const FULL: &str = r#"apiVersion: spillway.dev/v1alpha1
kind: MonitoringPipeline
metadata: {name: etch-line, namespace: fab12, labels: {team: etch}}
spec:
  suspend: true
  origin: {siteID: fab12, instanceID: etch-07, app: etcher, appVersion: "2.4"}
  inputs:
  - name: logs
    type: ContainerLogs
    containerLogs:
      podSelector: {matchLabels: {app: etcher}, matchExpressions: [{key: tier, operator: In, values: [prod]}]}
      containers: [main]
      startAt: End
  - {name: job-events, type: Events, events: {}}
  transforms:
  - {name: json, type: ParseJSON, parseJSON: {field: message, into: data, onError: Keep}}
  - {name: line, type: ParseRegex, parseRegex: {field: text, pattern: '^(?<level>\w+) (?<http.status>\d+)', onError: Drop}}
  - name: time
    type: ParseTimestamp
    parseTimestamp: {field: ts, into: time, format: Layout, layout: "%d.%m.%Y %H:%M:%S", zone: "+01:00", onError: Drop}
  - {name: level, type: ParseSeverity, parseSeverity: {field: level, into: severity, numbers: Pino, onError: Keep}}
  - {name: site, type: Set, set: {fields: [{name: fab, value: "12"}, {name: late, valueExpression: "event.ms > 500"}]}}
  - {name: secrets, type: Remove, remove: {fields: [password]}}
  - {name: names, type: Rename, rename: {fields: [{from: msg, to: message}]}}
  - {name: short, type: Keep, keep: {fields: [message, fab, late]}}
  - {name: quiet, type: Drop, drop: {when: 'event.level == "debug"'}}
  durability: Process
  buffer: {maxBytes: 536870912, retainSeconds: 86400}
  deadLetters: {maxBytes: 8388608}
  drainSeconds: 60
  routes:
  - name: errors
    match: event.level in ["error", "fatal"] || event.kind == "finished" && event.status != "SUCCEEDED"
    strategy: All
    backendRefs:
    - {kind: Backend, name: search, whenBehind: Block}
    onUndeliverable: Drop
  - {name: all, backendRefs: [{name: search, whenBehind: DropOldest}, {name: files}]}
---
apiVersion: spillway.dev/v1alpha1
kind: Backend
metadata: {name: search, namespace: fab12}
spec:
  type: HTTP
  http:
    url: "https://search.example.test/v1"
    headers: [{name: X-Site, value: fab12}]
    auth: {bearer: {tokenSecretRef: {name: search, key: token}}}
  metadata: None
  delivery:
    batch: {maxBytes: 8388608, maxEvents: 5000, maxWaitMilliseconds: 1000}
    maxInFlight: 2
    timeoutSeconds: 10
    retry: {initialMilliseconds: 100, maxSeconds: 30, maxAttempts: 7}
    circuitBreaker: {consecutiveFailures: 3, failureRatioPercent: 20, openSeconds: 15}
    rateLimit: {bytesPerSecond: 52428800, eventsPerSecond: 5000}
---
apiVersion: spillway.dev/v1alpha1
kind: Backend
metadata: {name: files, namespace: fab12}
spec: {type: Filesystem, filesystem: {directory: team-a, rotate: {maxBytes: 1048576}, compression: Gzip}}
"#;

fn of(text: &str) -> Compiled {
    compile(&[Document::new("m.yaml", text)])
}

fn told(compiled: &Compiled) -> Vec<String> {
    compiled.errors.iter().map(ToString::to_string).collect()
}

/// The smallest example with one piece of its text replaced.
fn changed(from: &str, to: &str) -> String {
    assert!(SMALLEST.contains(from), "{from}");
    SMALLEST.replacen(from, to, 1)
}

#[test]
fn the_smallest_example_of_the_manual_compiles() {
    let compiled = of(SMALLEST);
    assert_eq!(told(&compiled), [""; 0]);
    let [pipeline] = &compiled.pipelines[..] else { panic!("{compiled:?}") };
    let [backend] = &compiled.backends[..] else { panic!("{compiled:?}") };
    assert_eq!(&*pipeline.settings.uid, "default.jobs");
    assert_eq!(pipeline.settings.log, spillway_delivery::settings::LogSettings::default());
    assert_eq!(
        pipeline.inputs,
        [Input::Events(EventsInput {
            name: "pushed".into(),
            pod_selector: LabelSelector::default(),
            authentication: EventsAuthentication::PodToken
        })]
    );
    assert!(!pipeline.settings.suspend);
    let route = &pipeline.settings.routes[0];
    assert_eq!((&*route.name, route.condition.is_none()), ("everything", true));
    assert_eq!((&*route.backends[0].uid, &*route.backends[0].name), ("default.archive", "archive"));
    assert_eq!((&*backend.uid, backend.settings.type_name()), ("default.archive", "Filesystem"));
    assert_eq!(backend.delivery, DeliverySettings::default());
    assert_eq!(backend.metadata, Metadata::Full);
}

#[test]
fn every_field_reaches_the_plan() {
    let compiled = of(FULL);
    assert_eq!(told(&compiled), [""; 0]);
    let pipeline = &compiled.pipelines[0];
    assert_eq!((&*pipeline.settings.namespace, &*pipeline.settings.name), ("fab12", "etch-line"));
    assert!(pipeline.settings.suspend);
    let log = &pipeline.settings.log;
    assert_eq!((log.durability, log.bytes_max), (Durability::Process, 512 << 20));
    assert_eq!((log.retain, log.drain), (Duration::from_hours(24), Duration::from_mins(1)));
    assert_eq!(log.dead_letters_bytes_max, 8 << 20);
    let of_route = |route: usize| pipeline.settings.routes[route].backends[0].on_undeliverable;
    assert_eq!((of_route(0), of_route(1)), (OnUndeliverable::Drop, OnUndeliverable::DeadLetter));
    assert_eq!(pipeline.settings.origin.site_id.as_deref(), Some("fab12"));
    assert_eq!(pipeline.settings.origin.instance_id.as_deref(), Some("etch-07"));
    assert_eq!(pipeline.settings.origin.app.as_deref(), Some("etcher"));
    assert_eq!(pipeline.settings.origin.app_version.as_deref(), Some("2.4"));
    let Input::ContainerLogs(logs) = &pipeline.inputs[0] else { panic!("{:?}", pipeline.inputs) };
    assert_eq!((&*logs.name, &logs.containers[..], logs.start_at), ("logs", &["main".to_owned()][..], StartAt::End));
    assert!(logs.pod_selector.matches(&crate::kinds::labels::Labels::from([("app", "etcher"), ("tier", "prod")])));
    let transforms = pipeline.settings.transforms.iter().map(|one| (&*one.name, one.action.type_name()));
    assert_eq!(
        transforms.collect::<Vec<_>>(),
        [
            ("json", "ParseJSON"),
            ("line", "ParseRegex"),
            ("time", "ParseTimestamp"),
            ("level", "ParseSeverity"),
            ("site", "Set"),
            ("secrets", "Remove"),
            ("names", "Rename"),
            ("short", "Keep"),
            ("quiet", "Drop"),
        ]
    );
    let condition = pipeline.settings.routes[0].condition.as_ref().unwrap();
    assert!(condition.text().starts_with("event.level in"));
    assert_eq!(
        pipeline.settings.routes[1].backends.iter().map(|b| &*b.uid).collect::<Vec<_>>(),
        ["fab12.search", "fab12.files"]
    );
    let behind =
        |route: usize| pipeline.settings.routes[route].backends.iter().map(|b| b.when_behind).collect::<Vec<_>>();
    assert_eq!((behind(0), behind(1)), (vec![WhenBehind::Block], vec![WhenBehind::DropOldest, WhenBehind::Block]));

    let [files, search] = &compiled.backends[..] else { panic!("{:?}", compiled.backends) };
    assert_eq!((files.settings.type_name(), search.settings.type_name()), ("Filesystem", "HTTP"));
    assert_eq!(search.metadata, Metadata::None);
    assert_eq!(
        search.delivery,
        DeliverySettings {
            batch_bytes_max: 8 << 20,
            batch_events_max: 5000,
            batch_wait_max: Duration::from_secs(1),
            in_flight_max: 2,
            timeout: Duration::from_secs(10),
            retry_initial: Duration::from_millis(100),
            retry_max: Duration::from_secs(30),
            attempts_max: Some(7),
            breaker: BreakerSettings {
                consecutive_failures: 3,
                failure_ratio_percent: 20,
                open: Duration::from_secs(15),
            },
            rate: RateLimitSettings { bytes_per_second: Some(52_428_800), events_per_second: Some(5000) },
            on_undeliverable: OnUndeliverable::DeadLetter,
        }
    );
    assert_eq!(search.settings.secrets()[0].key, "token");
}

#[test]
fn each_level_of_durability_is_the_engines() {
    for (name, level) in [("Disk", Durability::Disk), ("Process", Durability::Process), ("Memory", Durability::Memory)]
    {
        let compiled = of(&FULL.replace("durability: Process", &format!("durability: {name}")));
        assert_eq!(told(&compiled), [""; 0]);
        let log = &compiled.pipelines[0].settings.log;
        // Retention goes with every level.
        assert_eq!((log.durability, log.retain), (level, Duration::from_hours(24)));
    }
}

#[test]
fn the_first_healthy_backend_is_found_by_priority_then_by_place() {
    let backend = |name: &str| {
        format!(
            "apiVersion: spillway.dev/v1alpha1\nkind: Backend\nmetadata: {{name: {name}}}\nspec: {{type: Stdout}}\n---\n"
        )
    };
    let of_route = |route: &str| {
        let pipeline = "apiVersion: spillway.dev/v1alpha1\nkind: MonitoringPipeline\nmetadata: {name: jobs}\nspec:\n  \
                        inputs: [{name: pushed, type: Events}]\n  routes: [";
        let compiled =
            of(&format!("{}{}{}{pipeline}{{name: r, {route}}}]\n", backend("a"), backend("b"), backend("c")));
        assert_eq!(told(&compiled), [""; 0], "{route}");
        let route = compiled.pipelines[0].settings.routes[0].clone();
        let names: Vec<String> = route.backends.iter().map(|backend| backend.name.to_string()).collect();
        (route.strategy, names.join(" "), route.backends[0].when_behind)
    };
    let first = |failback| spillway_delivery::settings::Strategy::FirstHealthy(failback);
    for (route, expected) in [
        (
            "strategy: FirstHealthy, backendRefs: [{name: b}, {name: a}]",
            (first(Failback::Leave), "b a", WhenBehind::Block),
        ),
        (
            "strategy: FirstHealthy, failback: Backfill, whenBehind: DropOldest, \
             backendRefs: [{name: b, priority: 7}, {name: c}, {name: a, priority: 7}]",
            (first(Failback::Backfill), "c b a", WhenBehind::DropOldest),
        ),
    ] {
        assert_eq!(of_route(route), (expected.0, expected.1.to_owned(), expected.2), "{route}");
    }
}

#[test]
fn defaults_of_the_schema_are_defaults_of_the_engine() {
    let spec: crate::kinds::backend::BackendSpec = serde_json::from_str(r#"{"type": "Stdout"}"#).unwrap();
    let schema = crate::crd::schema("Backend").unwrap();
    assert_eq!(
        schema["properties"]["spec"]["properties"]["delivery"]["default"],
        serde_json::to_value(&spec.delivery).unwrap()
    );
    // The test of the smallest example compares them with `DeliverySettings::default()` and `LogSettings::default()`.
}

#[test]
fn one_bad_object_is_left_out_and_the_others_are_there() {
    let text = format!(
        "{SMALLEST}---\napiVersion: spillway.dev/v1alpha1\nkind: MonitoringPipeline\nmetadata: {{name: bad}}\nspec: {{inputs: [], routes: []}}\n\
         ---\napiVersion: spillway.dev/v1alpha1\nkind: MonitoringPipeline\nmetadata: {{name: good}}\nspec:\n  inputs: [{{name: in, type: Events}}]\n  \
         routes: [{{name: r, backendRefs: [{{name: archive}}]}}]\n"
    );
    let compiled = of(&text);
    let names: Vec<&str> = compiled.pipelines.iter().map(|pipeline| &*pipeline.settings.name).collect();
    assert_eq!(names, ["good", "jobs"]);
    assert_eq!(
        told(&compiled),
        [
            "m.yaml:20:16: MonitoringPipeline default/bad: spec.inputs: out of bounds; found 0; allowed: a list of 1 to 16 items",
            "m.yaml:20:28: MonitoringPipeline default/bad: spec.routes: out of bounds; found 0; allowed: a list of 1 to 64 items",
        ]
    );
}

#[test]
fn a_pipeline_of_a_bad_backend_is_left_out_too() {
    let compiled = of(&changed("filesystem: {}", "filesystem: {directroy: x}"));
    assert!(compiled.pipelines.is_empty() && compiled.backends.is_empty());
    assert_eq!(
        told(&compiled),
        [
            "m.yaml:6:16: Backend default/archive: spec.filesystem.directroy: unknown field; found \"directroy\"; allowed: \
             `compression`, `directory`, `file`, `rotate`; help: did you mean `directory`?",
            "m.yaml:15:45: MonitoringPipeline default/jobs: spec.routes[0].backendRefs[0].name: the backend is there but has \
             errors; found \"archive\"",
        ]
    );
}

/// Text to replace in the smallest example, by what, and the errors that follow, without the file's name.
const WRONG: &[(&str, &str, &[&str])] = &[
    (
        "backendRefs: [{name: archive}]",
        "backendRefs: [{name: archvie}]",
        &[
            "15:45: MonitoringPipeline default/jobs: spec.routes[0].backendRefs[0].name: no such backend in namespace default; \
           found \"archvie\"; allowed: `archive`; help: did you mean `archive`?",
        ],
    ),
    (
        "metadata: {name: archive}",
        "metadata: {name: archive, namespace: other}",
        &[
            "15:45: MonitoringPipeline default/jobs: spec.routes[0].backendRefs[0].name: no such backend in namespace default; a \
           reference reaches only its own namespace; found \"archive\"",
        ],
    ),
    (
        "backendRefs: [{name: archive}]",
        "backendRefs: [{name: archive}, {name: archive}]",
        &[
            "15:62: MonitoringPipeline default/jobs: spec.routes[0].backendRefs[1].name: duplicate of item [0] of the list; found \
           \"archive\"",
        ],
    ),
    (
        "kind: MonitoringPipeline",
        "kind: MonitoringPipline",
        &["9:7: kind: unknown kind; found \"MonitoringPipline\"; allowed: `MonitoringPipeline`, `Backend`, \
           `ClusterMonitoringPipeline`, `ClusterBackend`; help: did you mean \
           `MonitoringPipeline`?"],
    ),
    (
        "apiVersion: spillway.dev/v1alpha1\nkind: M",
        "apiVersion: spillway.dev/v1\nkind: M",
        &[
            "8:13: apiVersion: unknown apiVersion; found \"spillway.dev/v1\"; allowed: `spillway.dev/v1alpha1`; help: did you mean \
           `spillway.dev/v1alpha1`?",
        ],
    ),
    (
        "apiVersion: spillway.dev/v1alpha1\nkind: M",
        "apiVersion: spilway.dev/v1alpha1\nkind: M",
        &[
            "8:13: apiVersion: unknown apiVersion; found \"spilway.dev/v1alpha1\"; allowed: `spillway.dev/v1alpha1`; help: did you \
           mean `spillway.dev/v1alpha1`?",
        ],
    ),
    (
        "apiVersion: spillway.dev/v1alpha1\nkind: M",
        "apiversion: spillway.dev/v1alpha1\nkind: M",
        &["8:1: apiVersion: missing field; found \"apiversion\"; help: did you mean `apiVersion`?"],
    ),
    (
        "metadata: {name: jobs}\nspec:",
        "metadata: {name: jobs}\nspecs:",
        &[
            "8:1: MonitoringPipeline default/jobs: spec: missing field; allowed: an object with `buffer`, `deadLetters`, `drainSeconds`, \
             `durability`, `inputs`, `origin`, `remediation`, `routes`, `suspend`, `transforms`",
            "11:1: MonitoringPipeline default/jobs: specs: unknown field; found \"specs\"; allowed: `apiVersion`, `kind`, \
             `metadata`, `spec`, `status`; help: did you mean `spec`?",
        ],
    ),
    (
        "metadata: {name: jobs}",
        "metadata: {nmae: jobs}",
        &[
            "10:11: MonitoringPipeline: metadata.name: missing field; allowed: text of 1 to 253 characters matching \
             ^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
            "10:12: MonitoringPipeline: metadata.nmae: unknown field; found \"nmae\"; allowed: `annotations`, \
             `creationTimestamp`, `deletionGracePeriodSeconds`, `deletionTimestamp`, `finalizers`, `generation`, `labels`, \
             `managedFields`, `name`, `namespace`, `ownerReferences`, `resourceVersion`, `selfLink`, `uid`; help: did you mean \
             `name`?",
        ],
    ),
    (
        "metadata: {name: jobs}",
        "metadata: {name: a123456789-123456789-123456789-123456789-123456789-123456789-123}",
        &[
            "8:1: MonitoringPipeline default/a123456789-123456789-123456789-123456789-123456789-123456789-123: `metadata.name` must \
           be at most 63 characters",
        ],
    ),
    (
        "filesystem: {}  ",
        "http: {url: \"http://x/\"}",
        &[
            "6:3: Backend default/archive: spec.http: `http` must only be set when `type` is 'HTTP'; found 'Filesystem'",
            "15:45: MonitoringPipeline default/jobs: spec.routes[0].backendRefs[0].name: the backend is there but has errors; \
             found \"archive\"",
        ],
    ),
    (
        "  type: Filesystem\n  filesystem: {}",
        "  type: HTTP\n  stdout: {}\n  filesystem: {}",
        &[
            "5:3: Backend default/archive: spec.http: `http` must be set when `type` is 'HTTP'; found 'HTTP'",
            "6:3: Backend default/archive: spec.stdout: `stdout` must only be set when `type` is 'Stdout'; found 'HTTP'",
            "7:3: Backend default/archive: spec.filesystem: `filesystem` must only be set when `type` is 'Filesystem'; found \
             'HTTP'",
            "16:45: MonitoringPipeline default/jobs: spec.routes[0].backendRefs[0].name: the backend is there but has errors; \
             found \"archive\"",
        ],
    ),
    (
        "{name: pushed, type: Events}",
        "{name: pushed, type: Events, containerLogs: {}}",
        &[
            "13:34: MonitoringPipeline default/jobs: spec.inputs[0].containerLogs: `containerLogs` must only be set when `type` is \
           'ContainerLogs'; found 'Events'",
        ],
    ),
    (
        "{name: pushed, type: Events}",
        "{name: pushed, type: Files}",
        &["13:5: MonitoringPipeline default/jobs: spec.inputs[0].files: `files` must be set when `type` is 'Files'; \
             found 'Files'"],
    ),
    (
        "{name: pushed, type: Events}",
        "{name: pushed, type: Files, files: {include: [\"/a/**\", \"/a/../b\", \"/a/*.log\"], starts: End}}",
        &[
            "13:84: MonitoringPipeline default/jobs: spec.inputs[0].files.starts: unknown field; found \"starts\"; allowed: \
             `include`, `startAt`; help: did you mean `startAt`?",
        ],
    ),
    (
        "{name: pushed, type: Events}",
        "{name: pushed, type: Files, files: {include: [\"/a/**\", \"/a/../b\", \"/a/*.log\"]}}",
        &[
            "13:51: MonitoringPipeline default/jobs: spec.inputs[0].files.include[0]: a pattern of files ends with `**`; found \"/a/**\"; \
             allowed: a name after it, such as `**/*.log`",
            "13:60: MonitoringPipeline default/jobs: spec.inputs[0].files.include[1]: a pattern of files has an empty name, `.` or `..`; \
             found \"/a/../b\"; allowed: an absolute path like `/var/log/tool/*.log`",
        ],
    ),
    (
        "{name: pushed, type: Events}",
        "{name: Pushed, type: Folders}",
        &[
            "13:12: MonitoringPipeline default/jobs: spec.inputs[0].name: not of the form that is needed; found \"Pushed\"; \
             allowed: text of 1 to 63 characters matching ^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
            "13:26: MonitoringPipeline default/jobs: spec.inputs[0].type: unknown value; found \"Folders\"; \
             allowed: `ContainerLogs`, `Events`, `Files`",
        ],
    ),
    (
        "  - {name: pushed, type: Events}",
        "  - {name: pushed, type: Events}\n  - {name: pushed, type: Events}",
        &[
            "14:12: MonitoringPipeline default/jobs: spec.inputs[1].name: duplicate of item [0] of the list; found \"pushed\"",
        ],
    ),
    (
        "  routes:",
        "  buffer: {maxBytes: 1, retainDays: 1}\n  drainSeconds: soon\n  routes:",
        &[
            "14:22: MonitoringPipeline default/jobs: spec.buffer.maxBytes: out of bounds; found 1; allowed: an integer from \
             16777216 to 17592186044416",
            "14:25: MonitoringPipeline default/jobs: spec.buffer.retainDays: unknown field; found \"retainDays\"; allowed: \
             `maxBytes`, `retainSeconds`",
            "15:17: MonitoringPipeline default/jobs: spec.drainSeconds: wrong type; found \"soon\"; allowed: an integer from 0 to \
             86400",
        ],
    ),
    (
        "  filesystem: {}  ",
        "  delivery: {retry: {initialMilliseconds: 5000, maxSeconds: 2}, maxInflight: 1}\n#",
        &[
            "6:65: Backend default/archive: spec.delivery.maxInflight: unknown field; found \"maxInflight\"; allowed: `batch`, \
             `circuitBreaker`, `maxInFlight`, `rateLimit`, `retry`, `timeoutSeconds`; help: did you mean `maxInFlight`?",
            "6:22: Backend default/archive: spec.delivery.retry.initialMilliseconds: `initialMilliseconds` must be less than or \
             equal to `maxSeconds` in milliseconds",
            "16:45: MonitoringPipeline default/jobs: spec.routes[0].backendRefs[0].name: the backend is there but has errors; \
             found \"archive\"",
        ],
    ),
    (
        "backendRefs: [{name: archive}]",
        "failback: Leave, whenBehind: Block, backendRefs: [{name: archive, priority: 1}]",
        &[
            "15:24: MonitoringPipeline default/jobs: spec.routes[0].failback: `failback` of a route must only be set when \
             `strategy` is 'FirstHealthy'",
            "15:41: MonitoringPipeline default/jobs: spec.routes[0].whenBehind: `whenBehind` of a route must only be set when \
             `strategy` is 'FirstHealthy'",
            "15:60: MonitoringPipeline default/jobs: spec.routes[0].backendRefs: `priority` must only be set when `strategy` is \
             'FirstHealthy'",
        ],
    ),
    (
        "backendRefs: [{name: archive}]",
        "strategy: FirstHealthy, backendRefs: [{name: archive, priority: 1, whenBehind: Block}]",
        &[
            "15:48: MonitoringPipeline default/jobs: spec.routes[0].backendRefs: `whenBehind` must be set on the route and not on \
             its backends when `strategy` is 'FirstHealthy'",
        ],
    ),
    (
        "metadata: {name: jobs}",
        "metadata: {name: jobs}\nkind: Backend",
        &["11:1: MonitoringPipeline default/jobs: duplicate field, first set in line 9; found \"kind\""],
    ),
];

#[test]
fn each_mistake_is_told_with_its_place_and_what_is_allowed() {
    for (from, to, expected) in WRONG {
        let compiled = of(&changed(from, to));
        assert!(compiled.pipelines.is_empty(), "{from} -> {to}");
        let mut told: Vec<String> = told(&compiled);
        let mut expected: Vec<String> = expected.iter().map(|error| format!("m.yaml:{error}")).collect();
        expected.sort();
        told.sort();
        assert_eq!(told, expected, "{from} -> {to}");
    }
}

#[test]
fn what_is_not_yaml_is_told_where_the_reader_stopped() {
    for (from, to, line) in [
        ("  type: Filesystem", "\ttype: Filesystem", 5),
        ("  type: Filesystem", "  type: Filesystem: x", 5),
        ("  type: Filesystem", "  type: \"Filesystem", 5),
        ("  type: Filesystem", "  type: *unknown", 5),
        ("metadata: {name: archive}", "metadata: {name: archive", 4),
        ("metadata: {name: archive}", "metadata: {name: archive}}", 3),
    ] {
        let compiled = of(&changed(from, to));
        let error = &compiled.errors[0];
        assert!(error.message.starts_with("not YAML: "), "{to}: {error}");
        assert_eq!(error.line, line, "{to}: {error}");
    }
}

#[test]
fn a_wrong_condition_is_told_at_its_place_with_the_nearest_name() {
    let compiled = of(&changed("{name: everything, ", "{name: everything, match: 'orgin.pod == \"x\"', "));
    let [error] = &compiled.errors[..] else { panic!("{compiled:?}") };
    assert_eq!((error.line, error.column, &*error.field), (15, 31, "spec.routes[0].match"));
    assert_eq!(error.suggestion.as_deref(), Some("origin"), "{error}");
    assert!(compiled.pipelines.is_empty());
}

#[test]
fn what_a_backend_finds_wrong_is_told_at_the_field() {
    let compiled = of(&changed("filesystem: {}", "filesystem: {file: \"{nonsense}.ndjson\"}"));
    assert_eq!(
        (compiled.errors[0].line, compiled.errors[0].column, &*compiled.errors[0].field),
        (6, 22, "spec.filesystem.file")
    );
    assert!(compiled.errors[0].allowed.is_some());
}

#[test]
fn an_object_in_two_files_is_told_in_the_second() {
    let backend = "apiVersion: spillway.dev/v1alpha1\nkind: Backend\nmetadata: {name: archive}\nspec: {type: Stdout}\n";
    let compiled = compile(&[Document::new("a.yaml", SMALLEST), Document::new("b.yaml", backend)]);
    assert_eq!(
        told(&compiled),
        [
            "b.yaml:3:18: Backend default/archive: metadata.name: an object of this kind and name is already in a.yaml, line 3"
        ]
    );
    assert_eq!((compiled.pipelines.len(), compiled.backends.len()), (1, 1));
    assert_eq!(compiled.backends[0].settings.type_name(), "Filesystem");
}

#[test]
fn a_reference_reaches_a_backend_of_another_file_in_any_order() {
    let (backend, pipeline) = SMALLEST.split_once("---\n").unwrap();
    let compiled = compile(&[Document::new("a.yaml", pipeline), Document::new("b.yaml", backend)]);
    assert_eq!(told(&compiled), [""; 0]);
    assert_eq!((compiled.pipelines.len(), compiled.backends.len()), (1, 1));
}

#[test]
fn objects_of_others_are_a_warning_and_nonsense_is_an_error() {
    let compiled = of("apiVersion: v1\nkind: Secret\nmetadata: {name: x}\n---\n---\n[1]\n---\njust text\n---\n{}\n");
    assert_eq!(
        compiled.warnings.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["m.yaml:1:1: not a kind of Spillway, left to others; found \"v1 Secret\""]
    );
    assert_eq!(
        told(&compiled),
        [
            "m.yaml:6:1: a manifest must be an object; found a list of 1; allowed: an object with `apiVersion`, `kind`, `metadata` and `spec`",
            "m.yaml:8:1: a manifest must be an object; found \"just text\"; allowed: an object with `apiVersion`, `kind`, `metadata` and `spec`",
            "m.yaml:10:1: apiVersion: missing field",
            "m.yaml:10:1: kind: missing field",
        ]
    );
}

#[test]
fn json_and_lists_are_taken_as_kubectl_takes_them() {
    let json = r#"{"apiVersion": "v1", "kind": "List", "items": [
	{"apiVersion": "spillway.dev/v1alpha1", "kind": "Backend", "metadata": {"name": "out", "uid": "1", "managedFields": [{}]},
	 "spec": {"type": "Stdout"}, "status": {"conditions": [{"type": "Ready"}]}},
	{"apiVersion": "spillway.dev/v1alpha1", "kind": "Backend", "metadata": {"name": "bad"}, "spec": {"type": 5}}
]}"#;
    let compiled = compile(&[Document::new("m.json", json)]);
    assert_eq!(compiled.backends.len(), 1);
    let types = spillway_backends::BackendSettings::type_names().map(|name| format!("`{name}`"));
    assert_eq!(
        told(&compiled),
        [format!(
            "m.json:4:107: Backend default/bad: spec.type: wrong type; found the number 5; allowed: {}",
            types.collect::<Vec<_>>().join(", ")
        )]
    );
    let twice = json.replacen("\"items\"", "\"kind\": \"List\", \"items\"", 1);
    let told = told(&compile(&[Document::new("m.json", twice)]));
    assert_eq!(told[0], "m.json:1:38: List: duplicate field, first set in line 1; found \"kind\"");
    assert_eq!(told.len(), 2, "its items are read all the same");
}

#[test]
fn a_broken_document_does_not_hide_errors_of_the_next() {
    let compiled = of("a: [\n---\napiVersion: spillway.dev/v1alpha1\nkind: Backend\nmetadata: {name: x}\nspec: {}\n");
    let lines: Vec<usize> = compiled.errors.iter().map(|error| error.line).collect();
    assert_eq!(lines, [1, 6]);
}

#[test]
fn errors_of_one_file_are_bounded_and_the_rest_is_counted() {
    let compiled = of(&"a: b: c\n---\n".repeat(5_000));
    assert_eq!(compiled.errors.len(), ERRORS_MAX + 1);
    assert_eq!(compiled.errors.last().unwrap().message, "more than 200 errors in this file: those told are the first");
    let fields = (0..5_000).map(|index| format!(", f{index}: 1")).collect::<Vec<_>>().concat();
    let compiled = of(&changed("{name: pushed", &format!("{{name: pushed{fields}")));
    assert_eq!(compiled.errors.len(), ERRORS_MAX + 1);
}

#[test]
fn a_file_of_nothing_but_mistakes_is_cut_short() {
    const BYTES: usize = TEXT_BYTES_MAX - 200;
    let head = "apiVersion: spillway.dev/v1alpha1\nkind: Backend\nmetadata: {name: x}\nspec:\n";
    let unknown: String = (0..BYTES / 12).map(|index| format!("  f{index}: 1\n")).collect::<Vec<_>>().concat();
    for text in [
        format!("{head}{unknown}"),
        format!("{head}{}", "  a: 1\n".repeat(BYTES / 7)),
        format!("{head}  type: [{}]\n", "[],".repeat(BYTES / 3)),
        format!("{head}  type: {}\n", "x".repeat(BYTES)),
        format!("{head}  {}: 1\n", "x".repeat(900)),
        "[],\n--- \n".repeat(BYTES / 9),
        "- ".repeat(BYTES / 2),
        "{}\n---\n".repeat(BYTES / 7),
        "\"".repeat(BYTES),
    ] {
        let compiled = of(&text);
        assert!((1..=ERRORS_MAX + 1).contains(&compiled.errors.len()), "{}", compiled.errors.len());
        let told: usize = compiled.errors.iter().map(|error| error.to_string().len()).sum();
        assert!(told < 1000 * compiled.errors.len(), "{told} bytes");
    }
}

#[test]
fn a_file_that_is_too_large_is_told_and_not_read() {
    let compiled = of(&format!("{SMALLEST}{}", " ".repeat(TEXT_BYTES_MAX)));
    assert_eq!(compiled.errors.len(), 1);
    assert_eq!(compiled.errors[0].message, "file too large");
}

#[test]
fn nothing_in_an_error_acts_on_a_terminal() {
    let compiled = of(&changed("type: Events", "\"ty\\e[31mpe\": \"\\e[2J\", type: Events"));
    let error = compiled.errors[0].to_string();
    assert!(!error.contains('\u{1b}') && error.contains("\\u{1b}"), "{error}");
}

/// One change of a text: bytes cut out at a place, and other ones put there.
fn change() -> impl Strategy<Value = (prop::sample::Index, usize, String)> {
    let pieces = prop::sample::select(vec![
        "",
        " ",
        "\n",
        "\t",
        ":",
        "- ",
        "[",
        "]",
        "{",
        "}",
        "\"",
        "'",
        "&a ",
        "*a",
        "<<: ",
        "---\n",
        "? ",
        "!!int ",
        "| ",
        "null",
        "1e999",
        "-1",
        "x",
        "\u{0}",
        "\u{feff}",
        "ä",
        "#",
        "%YAML 9.9\n",
        "kind: Backend\n",
        "name",
        "99999999999999999999",
        "yes",
        "~",
    ]);
    (any::<prop::sample::Index>(), 0usize..12, pieces.prop_map(str::to_owned))
}

fn mutated(text: &str, changes: &[(prop::sample::Index, usize, String)]) -> String {
    let mut characters: Vec<char> = text.chars().collect();
    for (index, cut, piece) in changes {
        let at = index.index(characters.len() + 1);
        let end = (at + cut).min(characters.len());
        characters.splice(at..end, piece.chars());
    }
    characters.into_iter().collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn a_mutated_manifest_never_panics_and_every_error_has_a_line_of_it(
        changes in prop::collection::vec(change(), 1..6),
        full in any::<bool>(),
    ) {
        let text = mutated(if full { FULL } else { SMALLEST }, &changes);
        let compiled = of(&text);
        let lines = text.split('\n').count();
        for error in compiled.errors.iter().chain(&compiled.warnings) {
            prop_assert!((1..=lines).contains(&error.line) && error.column >= 1, "{error}\n{text}");
            prop_assert!(!error.message.is_empty());
            prop_assert!(!error.message.starts_with("does not fit"), "the schema is looser than the type: {error}\n{text}");
        }
    }

    #[test]
    fn any_text_is_taken_or_told(text in "\\PC{0,200}|[-:\\[\\]{}&*!|>'\"%@`#,? \n\ta-c]{0,200}") {
        let compiled = of(&text);
        prop_assert!(compiled.pipelines.is_empty() && compiled.backends.is_empty());
        prop_assert!(compiled.errors.iter().all(|error| error.line >= 1));
    }
}
