//! The CRDs on a real API server: taken, applied either way, defaulted, explained, shown; and what it refuses, the agent's
//! `check` refuses as well.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use spillway_tests::agent;
use spillway_tests::servers::kube_api::{KubeApi, Said};

const KINDS: [&str; 4] = ["monitoringpipelines", "backends", "clustermonitoringpipelines", "clusterbackends"];

#[test]
fn an_api_server_takes_the_kinds_and_agrees_with_the_compiler() {
    let Some(api) = KubeApi::of_test("an_api_server_takes_the_kinds_and_agrees_with_the_compiler") else { return };
    the_kinds_are_established(&api);
    rules_cost_less_than_a_tenth_of_the_budget(&api);
    every_example_is_applied(&api);
    defaults_are_stored(&api);
    columns_fit(&api);
    every_field_is_explained(&api);
    refused_by_both(&api);
    the_type_of_a_destination_stays(&api);
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn json_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn crd_file(plural: &str) -> String {
    root().join(format!("crds/{plural}.spillway.dev.yaml")).display().to_string()
}

fn the_kinds_are_established(api: &KubeApi) {
    for plural in KINDS {
        // Client-side first: the last applied object must fit into an annotation.
        api.must(&["apply", "-f", &crd_file(plural)], "");
        api.must(&["apply", "--server-side", "--force-conflicts", "-f", &crd_file(plural)], "");
        let name = format!("crd/{plural}.spillway.dev");
        api.must(&["wait", "--for=condition=Established", "--timeout=60s", &name], "");
        let stored = json_of(&api.must(&["get", &name, "-o", "json"], ""));
        let conditions = stored["status"]["conditions"].as_array().unwrap();
        let structural = conditions.iter().find(|condition| condition["type"] == "NonStructuralSchema");
        assert!(structural.is_none_or(|condition| condition["status"] == "False"), "{conditions:?}");
    }
}

/// Returns the CRD under other names, each of its rules so many times over.
fn with_rules_repeated(crd: &Value, times: usize) -> Value {
    fn repeat(value: &mut Value, times: usize) {
        match value {
            Value::Object(fields) => {
                for (name, inner) in fields {
                    match inner {
                        Value::String(rule) if name == "rule" => *rule = vec![format!("({rule})"); times].join(" && "),
                        inner => repeat(inner, times),
                    }
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| repeat(item, times)),
            _ => {}
        }
    }
    let mut crd = crd.clone();
    repeat(&mut crd["spec"]["versions"], times);
    let plural = format!("x{}", crd["spec"]["names"]["plural"].as_str().unwrap());
    let kind = format!("X{}", crd["spec"]["names"]["kind"].as_str().unwrap());
    crd["metadata"] = json!({"name": format!("{plural}.spillway.dev")});
    crd["spec"]["names"] = json!({"plural": plural, "kind": kind});
    crd
}

fn rules_cost_less_than_a_tenth_of_the_budget(api: &KubeApi) {
    let create = ["create", "--dry-run=server", "-f", "-"];
    for plural in KINDS {
        let crd = json_of(&api.must(&["create", "--dry-run=client", "-o", "json", "-f", &crd_file(plural)], ""));
        let mut repeated = with_rules_repeated(&crd, 10);
        api.must(&create, &repeated.to_string());
        // Lists without a bound show that this can fail.
        if plural.ends_with("pipelines") {
            let routes = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/routes";
            for list in [routes.to_owned(), format!("{routes}/items/properties/backendRefs")] {
                repeated.pointer_mut(&list).unwrap().as_object_mut().unwrap().remove("maxItems");
            }
            let said = api.kubectl(&create, &repeated.to_string()).unwrap();
            assert!(!said.ok && said.err.contains("budget"), "{}", said.err);
        }
    }
}

fn every_example_is_applied(api: &KubeApi) {
    let mut folders: Vec<_> = fs::read_dir(root().join("examples")).unwrap().map(|entry| entry.unwrap()).collect();
    folders.sort_by_key(std::fs::DirEntry::file_name);
    assert!(folders.len() >= 3);
    for folder in folders {
        let (name, path) = (folder.file_name().display().to_string(), folder.path().display().to_string());
        api.must(&["create", "namespace", &name], "");
        api.must(&["apply", "-n", &name, "-f", &path], "");
        let versions = || {
            let path = "jsonpath={range .items[*]}{.metadata.name} {.metadata.generation} {.spec}{'\\n'}{end}";
            api.must(&["get", "spillway", "-n", &name, "-o", path], "")
        };
        // Applied again it says the same, in the same generation, though `kubectl` sends lists without the defaults in them.
        let before = versions();
        api.must(&["apply", "-n", &name, "-f", &path], "");
        assert_eq!(versions(), before);
        assert!(before.lines().count() >= 2, "{before}");
        api.must(&["apply", "-n", &name, "--server-side", "--force-conflicts", "-f", &path], "");
    }
    api.must(&["apply", "-f", "-"], OF_THE_CLUSTER);
    api.must(&["apply", "--server-side", "--force-conflicts", "-f", "-"], OF_THE_CLUSTER);
}

const OF_THE_CLUSTER: &str = "\
apiVersion: spillway.dev/v1alpha1
kind: ClusterBackend
metadata: {name: lake}
spec: {type: Filesystem}
---
apiVersion: spillway.dev/v1alpha1
kind: ClusterMonitoringPipeline
metadata: {name: every-log}
spec:
  namespaceSelector: {}
  inputs: [{name: logs, type: ContainerLogs, containerLogs: {startAt: Beginning}}]
  routes: [{name: all, backendRefs: [{name: lake}]}]
";

fn defaults_are_stored(api: &KubeApi) {
    let get = |object: &str| json_of(&api.must(&["get", "-n", "quickstart", "-o", "json", object], ""));
    let all = get("spillway");
    let pipeline = all["items"].as_array().unwrap().iter().find(|item| item["kind"] == "MonitoringPipeline").unwrap();
    assert_eq!((&pipeline["spec"]["durability"], &pipeline["spec"]["drainSeconds"]), (&json!("Disk"), &json!(300)));
    assert_eq!(pipeline["spec"]["routes"][0]["strategy"], "All");
    assert_eq!(pipeline["spec"]["routes"][0]["backendRefs"][0]["kind"], "Backend");
    let cluster = get("cmpl/every-log");
    assert_eq!(cluster["spec"]["routes"][0]["backendRefs"][0]["kind"], "ClusterBackend");
    assert_eq!(cluster["spec"]["inputs"][0]["containerLogs"]["podSelector"], json!({}));
    assert_eq!(get("cmbe/lake")["spec"]["allowedNamespaces"], json!({}));
    for object in [pipeline, &cluster] {
        assert_eq!(object["status"]["observedGeneration"], -1);
        let conditions = object["status"]["conditions"].as_array().unwrap();
        assert_eq!(conditions.len(), 5);
        assert!(conditions.iter().all(|one| one["status"] == "Unknown" && one["reason"] == "Pending"), "{object}");
    }
    // Nothing that waits takes it for ready.
    let waited = api.kubectl(&["wait", "--for=condition=Ready", "--timeout=1s", "cmpl/every-log"], "").unwrap();
    assert!(!waited.ok, "{}", waited.out);
}

fn columns_fit(api: &KubeApi) {
    let condition = json!({"type": "Ready", "status": "False", "reason": "BackendUnreachable",
        "message": "lake: connection refused", "lastTransitionTime": "2026-01-02T03:04:05Z", "observedGeneration": 1});
    let status = json!({"status": {"observedGeneration": 1, "conditions": [condition],
        "agents": {"desired": 12, "programmed": 12, "failing": 0},
        "backends": [{"route": "all", "kind": "ClusterBackend", "name": "lake", "state": "Unreachable", "agents": 3,
                      "since": "2026-01-02T03:04:05Z"}]}});
    let patch = status.to_string();
    api.must(&["patch", "cmpl/every-log", "--subresource=status", "--type=merge", "-p", &patch], "");
    let shown = api.must(&["get", "cmpl"], "");
    assert!(shown.contains("BackendUnreachable") && shown.starts_with("NAME"), "{shown}");
    for kind in ["cmpl", "cmbe", "mpl -A", "mbe -A"] {
        let arguments: Vec<&str> = std::iter::once("get").chain(kind.split(' ')).collect();
        let shown = api.must(&arguments, "");
        assert!(shown.lines().all(|line| line.trim_end().chars().count() <= 80), "{shown}");
    }
}

fn every_field_is_explained(api: &KubeApi) {
    for plural in KINDS {
        let whole = api.must(&["explain", plural, "--recursive"], "");
        assert!(whole.contains("spec") && !whole.contains("<empty>"), "{whole}");
    }
    let matched = api.must(&["explain", "mpl.spec.routes.match"], "");
    assert!(matched.contains("Condition over `event.<path>`"), "{matched}");
    let behind = api.must(&["explain", "mpl.spec.routes.whenBehind"], "");
    assert!(behind.split_whitespace().collect::<Vec<_>>().join(" ").contains("Default: `Block`."), "{behind}");
    assert!(api.must(&["explain", "cmbe.spec.secretNamespace"], "").contains("SecretRef"));
}

/// A kind, the rest of the object's `spec`, and what the server's refusal holds.
const REFUSED: &[(&str, &str, &str)] = &[
    ("Backend", "{type: Stdou}", "spec.type: Unsupported value"),
    ("Backend", "{type: HTTP}", "`http` must be set when `type` is 'HTTP'"),
    ("Backend", "{type: Stdout, filesystem: {}}", "`filesystem` must only be set when `type` is 'Filesystem'"),
    ("Backend", "{type: Stdout, stdoutt: {}}", "unknown field \"spec.stdoutt\""),
    ("Backend", "{type: Stdout, delivery: {maxInFlight: 65}}", "spec.delivery.maxInFlight"),
    ("Backend", "{type: Stdout, delivery: {maxInFlight: 1.5}}", "spec.delivery.maxInFlight"),
    ("Backend", "{type: Stdout, delivery: {maxInFlight: \"4\"}}", "spec.delivery.maxInFlight"),
    (
        "Backend",
        "{type: Stdout, delivery: {retry: {initialMilliseconds: 5000, maxSeconds: 2}}}",
        "`initialMilliseconds` must be less than or equal to `maxSeconds`",
    ),
    ("Backend", "{type: Stdout, allowedNamespaces: {}}", "unknown field \"spec.allowedNamespaces\""),
    ("Backend", "{}", "spec.type: Required value"),
    ("ClusterBackend", "{type: Stdout, allowedNamespaces: {selectors: {}}}", "unknown field"),
    ("ClusterBackend", "{type: Stdout, secretNamespace: A_b}", "spec.secretNamespace"),
    (
        "ClusterBackend",
        "{type: Stdout, allowedNamespaces: {selector: {matchExpressions: [{key: a, operator: In}]}}}",
        "`values` must be set when `operator` is 'In' or 'NotIn'",
    ),
    ("MonitoringPipeline", "{inputs: [], routes: [ROUTE]}", "spec.inputs"),
    ("MonitoringPipeline", "{inputs: [INPUT]}", "spec.routes: Required value"),
    ("MonitoringPipeline", "{inputs: [INPUT, INPUT], routes: [ROUTE]}", "Duplicate value"),
    ("MonitoringPipeline", "{inputs: [{name: In, type: Events}], routes: [ROUTE]}", "spec.inputs[0].name"),
    (
        "MonitoringPipeline",
        "{inputs: [{name: in, type: Events, containerLogs: {}}], routes: [ROUTE]}",
        "`containerLogs` must only be set when `type` is 'ContainerLogs'",
    ),
    (
        "MonitoringPipeline",
        "{inputs: [INPUT], routes: [{name: r, failback: Leave, backendRefs: [{name: out}]}]}",
        "`failback` of a route must only be set when `strategy` is 'FirstHealthy'",
    ),
    (
        "MonitoringPipeline",
        "{inputs: [INPUT], routes: [{name: r, backendRefs: [{name: out, priority: 1}]}]}",
        "`priority` must only be set when `strategy` is 'FirstHealthy'",
    ),
    (
        "MonitoringPipeline",
        "{inputs: [INPUT], routes: [{name: r, strategy: FirstHealthy, backendRefs: [{name: out, whenBehind: Block}]}]}",
        "`whenBehind` must be set on the route",
    ),
    (
        "MonitoringPipeline",
        "{inputs: [INPUT], routes: [{name: r, backendRefs: [{name: out}, {kind: ClusterBackend, name: out}]}]}",
        "Duplicate value",
    ),
    (
        "MonitoringPipeline",
        "{inputs: [INPUT], routes: [{name: r, backendRefs: [{name: out, namespace: other}]}]}",
        "unknown field \"spec.routes[0].backendRefs[0].namespace\"",
    ),
    ("MonitoringPipeline", "{inputs: [INPUT], routes: [ROUTE], buffer: {maxBytes: 1}}", "spec.buffer.maxBytes"),
    ("MonitoringPipeline", "{inputs: [INPUT], routes: [ROUTE], namespaceSelector: {}}", "unknown field"),
    ("ClusterMonitoringPipeline", "{inputs: [INPUT], routes: [ROUTE]}", "spec.namespaceSelector: Required value"),
    (
        "ClusterMonitoringPipeline",
        "{namespaceSelector: {}, inputs: [INPUT], routes: [{name: r, backendRefs: [{kind: Backend, name: out}]}]}",
        "spec.routes[0].backendRefs[0].kind: Unsupported value",
    ),
];

/// What the two good documents beside it are: whatever a refused one may refer to.
const TARGETS: &str = "\
apiVersion: spillway.dev/v1alpha1
kind: Backend
metadata: {name: out}
spec: {type: Stdout}
---
apiVersion: spillway.dev/v1alpha1
kind: ClusterBackend
metadata: {name: out}
spec: {type: Stdout, allowedNamespaces: {selector: {}}}
---
";

fn check(folder: &Path, text: &str) -> Said {
    let file = folder.join("checked.yaml");
    fs::write(&file, text).unwrap();
    let output = Command::new(agent::program("spillway-agent")).args(["check", "-f"]).arg(&file).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Said { ok: output.status.success(), out: text(&output.stdout), err: text(&output.stderr) }
}

fn refused_by_both(api: &KubeApi) {
    let folder = api.folder();
    let object = |kind: &str, name: &str, spec: &str| {
        let spec = spec.replace("INPUT", "{name: in, type: Events}");
        let spec = spec.replace("ROUTE", "{name: r, backendRefs: [{name: out}]}");
        format!("apiVersion: spillway.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n")
    };
    let good = object("MonitoringPipeline", "good", "{inputs: [INPUT], routes: [ROUTE]}");
    assert!(check(folder, &format!("{TARGETS}{good}")).ok);
    api.must(&["apply", "--dry-run=server", "-f", "-"], &format!("{TARGETS}{good}"));
    let long = "a".repeat(64);
    let names = [("A", "metadata.name"), (&*long, "`metadata.name` must be at most 63 characters")];
    let by_name = names.map(|(name, expected)| (object("Backend", name, "{type: Stdout}"), expected));
    let by_spec = REFUSED.iter().map(|(kind, spec, expected)| (object(kind, "bad", spec), *expected));
    let mut wrong = Vec::new();
    for (text, expected) in by_spec.chain(by_name) {
        for side in ["--server-side=false", "--server-side=true"] {
            let said = api.kubectl(&["apply", side, "--dry-run=server", "-f", "-"], &text).unwrap();
            // Server-side apply tells some of it in its own words.
            let same_words = side.ends_with("true") || said.err.contains(expected);
            if said.ok || !same_words {
                wrong.push(format!("{side}: {text}{}", said.err));
            }
        }
        let checked = check(folder, &format!("{TARGETS}{text}"));
        if checked.ok {
            wrong.push(format!("the compiler takes what the API server refuses: {text}{}", checked.out));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn the_type_of_a_destination_stays(api: &KubeApi) {
    let changed =
        "apiVersion: spillway.dev/v1alpha1\nkind: ClusterBackend\nmetadata: {name: lake}\nspec: {type: Stdout}\n";
    let said = api.kubectl(&["apply", "-f", "-"], changed).unwrap();
    assert!(!said.ok && said.err.contains("`type` must not change: create a new object"), "{}", said.err);
}
