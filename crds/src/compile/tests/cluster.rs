//! The kinds of the cluster, and what they have to do with namespaces.

use super::*;

/// Two namespaces, a destination of the cluster for one of them, and a pipeline there.
const GRANTED: &str = "\
apiVersion: v1
kind: Namespace
metadata: {name: fab12, labels: {tier: prod}}
---
apiVersion: v1
kind: Namespace
metadata: {name: lab}
spec: {finalizers: [kubernetes]}
---
apiVersion: spillway.dev/v1alpha1
kind: ClusterBackend
metadata: {name: lake}
spec: {type: Stdout, allowedNamespaces: {selector: {matchLabels: {tier: prod}}}}
---
apiVersion: spillway.dev/v1alpha1
kind: MonitoringPipeline
metadata: {name: jobs, namespace: fab12}
spec:
  inputs: [{name: pushed, type: Events}]
  routes: [{name: all, backendRefs: [{kind: ClusterBackend, name: lake}]}]
";

/// A pipeline over namespaces.
const OVER_ALL: &str = "\
apiVersion: v1
kind: Namespace
metadata: {name: fab12, labels: {tier: prod}}
---
apiVersion: spillway.dev/v1alpha1
kind: ClusterBackend
metadata: {name: lake}
spec:
  secretNamespace: spillway-system
  type: HTTP
  http: {url: \"https://lake.example.test/\", auth: {bearer: {tokenSecretRef: {name: lake, key: token}}}}
---
apiVersion: spillway.dev/v1alpha1
kind: ClusterMonitoringPipeline
metadata: {name: every-log}
spec:
  namespaceSelector: {matchLabels: {tier: prod}}
  inputs: [{name: logs, type: ContainerLogs}]
  routes: [{name: all, backendRefs: [{name: lake}]}]
";

fn replaced(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "{from}");
    text.replacen(from, to, 1)
}

/// What is told of a text, without the file's name.
fn told_of(text: &str) -> Vec<String> {
    told(&of(text)).into_iter().map(|error| error.trim_start_matches("m.yaml:").to_owned()).collect()
}

#[test]
fn a_granted_namespace_may_send_to_a_destination_of_the_cluster() {
    let compiled = of(GRANTED);
    assert_eq!(told(&compiled), [""; 0]);
    assert!(compiled.warnings.is_empty(), "{:?}", compiled.warnings);
    let reference = &compiled.pipelines[0].settings.routes[0].backends[0];
    assert_eq!((&*reference.uid, &*reference.name), ("_cluster.lake", "lake"));
    let lake = &compiled.backends[0];
    assert_eq!((&*lake.uid, &*lake.namespace, &lake.secret_namespace), ("_cluster.lake", CLUSTER, &None));
    assert_eq!(compiled.pipelines[0].namespaces, Reach::of("fab12"));
    let names: Vec<&String> = compiled.objects.keys().collect();
    assert_eq!(names, ["ClusterBackend lake", "MonitoringPipeline fab12/jobs"]);
}

#[test]
fn without_a_grant_nobody_is_told_whether_the_destination_is_there() {
    let refused = |from: &str, to: &str, line: usize, name: &str| {
        let error = format!(
            "{line}:67: MonitoringPipeline fab12/jobs: spec.routes[0].backendRefs[0].name: no ClusterBackend of this name \
             grants namespace fab12; found \"{name}\"; allowed: a ClusterBackend whose `spec.allowedNamespaces` takes the \
             namespace"
        );
        let text = replaced(GRANTED, from, to);
        assert_eq!(told_of(&text), [error], "{to}");
        let compiled = of(&text);
        assert_eq!(compiled.errors[0].reason, crate::manifest::Reason::RefNotPermitted);
        assert_eq!((compiled.pipelines.len(), compiled.backends.len()), (0, 1), "only what depends on it is left out");
    };
    refused("{selector: {matchLabels: {tier: prod}}}", "{selector: {matchLabels: {tier: test}}}", 20, "lake");
    refused(", allowedNamespaces: {selector: {matchLabels: {tier: prod}}}", "", 20, "lake");
    refused("{selector: {matchLabels: {tier: prod}}}", "{}", 20, "lake");
    refused("tier: prod}}\n---\napiVersion: v1", "tier: test}}\n---\napiVersion: v1", 20, "lake");
    let absent = replaced(GRANTED, ", allowedNamespaces: {selector: {matchLabels: {tier: prod}}}", "");
    let absent = of(&replaced(&absent, "ClusterBackend, name: lake", "ClusterBackend, name: sea"));
    let there = of(&replaced(GRANTED, "{tier: prod}}\n---", "{}}\n---"));
    assert_eq!(absent.errors[0].message, there.errors[0].message);
    assert_eq!(absent.errors[0].allowed, there.errors[0].allowed);
    assert_eq!((&absent.errors[0].suggestion, &there.errors[0].suggestion), (&None, &None));
}

#[test]
fn names_are_suggested_among_those_that_grant() {
    let typo = replaced(GRANTED, "ClusterBackend, name: lake", "ClusterBackend, name: lkae");
    assert_eq!(
        told_of(&typo),
        [
            "20:67: MonitoringPipeline fab12/jobs: spec.routes[0].backendRefs[0].name: no ClusterBackend of this name grants \
             namespace fab12; found \"lkae\"; allowed: `lake`; help: did you mean `lake`?"
        ]
    );
    let of_the_namespace = replaced(GRANTED, "{kind: ClusterBackend, name: lake}", "{name: lake}");
    assert_eq!(
        told_of(&of_the_namespace),
        [
            "20:45: MonitoringPipeline fab12/jobs: spec.routes[0].backendRefs[0].name: no such backend in namespace fab12; a \
             ClusterBackend of this name is named with `kind: ClusterBackend`; found \"lake\""
        ]
    );
}

#[test]
fn labels_that_are_not_known_are_asked_for() {
    let unknown = replaced(GRANTED, "name: fab12, labels", "name: fab13, labels");
    assert_eq!(
        told_of(&unknown),
        [
            "20:67: MonitoringPipeline fab12/jobs: spec.routes[0].backendRefs[0].name: the labels of namespace fab12 are not \
             known, and the ClusterBackend grants namespaces by labels; found \"lake\"; allowed: a manifest of kind `Namespace` \
             with the name `fab12` and its labels"
        ]
    );
    // A grant by name, or to everybody, needs none.
    for selector in ["{}", "{matchLabels: {kubernetes.io/metadata.name: fab12}}"] {
        let by_name = replaced(&unknown, "{matchLabels: {tier: prod}}", selector);
        assert_eq!(told_of(&by_name), [""; 0], "{selector}");
    }
    // The caller may know them.
    let mut known = Namespaces::default();
    known.insert("fab12", BTreeMap::from([("tier".to_owned(), "prod".to_owned())]));
    let compiled = compile_with(&[Document::new("m.yaml", unknown)], known);
    assert_eq!(told(&compiled), [""; 0]);
}

#[test]
fn a_pipeline_of_the_cluster_takes_the_namespaces_it_selects() {
    let compiled = of(OVER_ALL);
    assert_eq!(told(&compiled), [""; 0]);
    let plan = &compiled.pipelines[0];
    assert_eq!((&*plan.settings.uid, &*plan.settings.namespace), ("_cluster.every-log", CLUSTER));
    assert_eq!(plan.label(), "ClusterMonitoringPipeline every-log");
    assert_eq!(plan.namespaces, Reach::of("fab12"));
    // It needs no grant.
    assert_eq!(&*plan.settings.routes[0].backends[0].uid, "_cluster.lake");
    assert_eq!(compiled.backends[0].secret_namespace.as_deref(), Some("spillway-system"));
    let everywhere = of(&replaced(OVER_ALL, "{matchLabels: {tier: prod}}", "{}"));
    assert_eq!(everywhere.pipelines[0].namespaces, Reach::everywhere());
}

#[test]
fn a_selector_that_takes_nothing_is_a_warning() {
    let compiled = of(&replaced(OVER_ALL, "{matchLabels: {tier: prod}}", "{matchLabels: {tier: prd}}"));
    assert_eq!((told(&compiled).len(), compiled.pipelines.len()), (0, 1));
    assert_eq!(
        compiled.warnings.iter().map(ToString::to_string).collect::<Vec<_>>(),
        [
            "m.yaml:17:22: ClusterMonitoringPipeline every-log: spec.namespaceSelector: selects no namespace whose labels are \
             known, so the pipeline takes nothing; found 1 namespace; allowed: labels of a manifest of kind `Namespace`, or names \
             in `kubernetes.io/metadata.name`"
        ]
    );
}

#[test]
fn each_mistake_in_a_kind_of_the_cluster_is_told() {
    for (from, to, expected) in [
        (
            "{name: lake}]}]",
            "{kind: Backend, name: lake}]}]",
            "19:45: ClusterMonitoringPipeline every-log: spec.routes[0].backendRefs[0].kind: unknown value; found \"Backend\"; \
             allowed: `ClusterBackend`",
        ),
        (
            "{name: lake}]}]",
            "{name: lkae}]}]",
            "19:45: ClusterMonitoringPipeline every-log: spec.routes[0].backendRefs[0].name: no such ClusterBackend; found \
             \"lkae\"; allowed: `lake`; help: did you mean `lake`?",
        ),
        (
            "{name: every-log}",
            "{name: every-log, namespace: fab12}",
            "15:29: ClusterMonitoringPipeline every-log: metadata.namespace: a ClusterMonitoringPipeline belongs to the cluster \
             and has no namespace; found \"fab12\"",
        ),
        (
            "  namespaceSelector: {matchLabels: {tier: prod}}\n",
            "",
            "17:3: ClusterMonitoringPipeline every-log: spec.namespaceSelector: missing field; allowed: an object with \
             `matchExpressions`, `matchLabels`",
        ),
        (
            "namespaceSelector",
            "namespaceselector",
            "17:3: ClusterMonitoringPipeline every-log: spec.namespaceSelector: missing field; allowed: an object with \
             `matchExpressions`, `matchLabels`",
        ),
        (
            "  secretNamespace: spillway-system\n",
            "",
            "9:3: ClusterBackend lake: spec.secretNamespace: missing field: the spec names Secrets; found \"lake\"; allowed: the \
             namespace that the Secrets are in",
        ),
    ] {
        let told = told_of(&replaced(OVER_ALL, from, to));
        assert!(told.iter().any(|error| error == expected), "{to}: {told:#?}");
        assert!(of(&replaced(OVER_ALL, from, to)).pipelines.is_empty());
    }
}

#[test]
fn a_kind_of_a_namespace_has_no_fields_of_the_cluster() {
    let told = told_of(&changed("  inputs:", "  namespaceSelector: {}\n  inputs:"));
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("spec.namespaceSelector: unknown field"), "{told:?}");
}

#[test]
fn the_word_for_the_cluster_is_no_namespace() {
    let told = told_of(&changed("metadata: {name: archive}", "metadata: {name: archive, namespace: _cluster}"));
    let expected = "Backend /archive: metadata.namespace: not of the form that is needed; found \"_cluster\"";
    assert!(told[0].contains(expected), "{told:?}");
    let told = told_of(&changed("metadata: {name: archive}", "metadata: {name: archive, namespace: a.b}"));
    assert!(told[0].contains("metadata.namespace: not of the form that is needed; found \"a.b\""), "{told:?}");
}

#[test]
fn two_backends_of_one_name_in_one_route_are_refused_whatever_their_kind() {
    let both = changed(
        "backendRefs: [{name: archive}]",
        "backendRefs: [{name: archive}, {kind: ClusterBackend, name: archive}]",
    );
    let told = told_of(&both);
    assert!(told[0].contains("spec.routes[0].backendRefs[1].name: duplicate of item [0] of the list"), "{told:?}");
}

#[test]
fn what_is_wrong_in_a_namespace_is_told_and_costs_nobody_else() {
    for (from, to, expected) in [
        (
            "{name: fab12, labels: {tier: prod}}",
            "{labels: {tier: prod}}",
            "3:11: Namespace: metadata.name: missing field",
        ),
        ("{tier: prod}}\n---", "{tier: yes}}\n---", "3:40: Namespace: metadata.labels.tier: wrong type; found"),
        (
            "name: fab12, labels",
            "name: Fab12, labels",
            "3:18: Namespace: metadata.name: not of the form that is needed",
        ),
        (
            "{tier: prod}}\n---",
            "{tier: a b}}\n---",
            "3:40: Namespace: metadata.labels.tier: not of the form that is needed",
        ),
        (
            "metadata: {name: lab}",
            "metadata: {name: fab12}",
            "7:18: Namespace fab12: metadata.name: an object of this kind and name is already in m.yaml, line 3",
        ),
    ] {
        let text = replaced(GRANTED, from, to);
        let told = told_of(&text);
        assert!(told[0].starts_with(expected), "{to}: {told:#?}");
        assert_eq!(of(&text).backends.len(), 1, "{to}");
    }
}

#[test]
fn a_reference_without_a_kind_does_not_tell_of_the_cluster() {
    let absent = replaced(GRANTED, ", allowedNamespaces: {selector: {matchLabels: {tier: prod}}}", "");
    assert_eq!(
        told_of(&replaced(&absent, "{kind: ClusterBackend, name: lake}", "{name: lake}")),
        [
            "20:45: MonitoringPipeline fab12/jobs: spec.routes[0].backendRefs[0].name: no such backend in namespace fab12; found \
             \"lake\""
        ]
    );
}

#[test]
fn the_reason_says_for_programs_what_is_wrong_with_a_reference() {
    use crate::manifest::Reason::{Invalid, RefInvalid, RefNotFound, RefNotPermitted};
    use crate::manifest::Referred::{Backend, ClusterBackend, Namespace};
    for (text, expected) in [
        (replaced(OVER_ALL, "name: lake}]}]", "name: lkae}]}]"), (RefNotFound, ClusterBackend)),
        (replaced(OVER_ALL, "  secretNamespace: spillway-system\n", ""), (RefInvalid, ClusterBackend)),
        (
            replaced(GRANTED, "ClusterBackend, name: lake", "ClusterBackend, name: lkae"),
            (RefNotPermitted, ClusterBackend),
        ),
        (replaced(GRANTED, "{kind: ClusterBackend, name: lake}", "{name: lake}"), (RefNotFound, Backend)),
        (replaced(GRANTED, "name: fab12, labels", "name: fab13, labels"), (RefNotPermitted, Namespace)),
    ] {
        let errors = of(&text).errors;
        let reference = errors.iter().find(|error| error.field.ends_with("backendRefs[0].name")).unwrap();
        assert_eq!((reference.reason, reference.refers_to), (expected.0, Some(expected.1)), "{reference}");
        let others = errors.iter().filter(|error| error.object != reference.object);
        others.for_each(|error| assert_eq!((error.reason, error.refers_to), (Invalid, None), "{error}"));
    }
}

#[test]
fn of_many_names_some_are_listed() {
    let tank = |number: i32| {
        format!(
            "---\napiVersion: spillway.dev/v1alpha1\nkind: ClusterBackend\nmetadata: {{name: tank-{number:02}}}\n\
             spec: {{type: Stdout, allowedNamespaces: {{selector: {{}}}}}}\n"
        )
    };
    let none = replaced(GRANTED, "ClusterBackend, name: lake", "ClusterBackend, name: sea");
    let text = none + &(0..30).map(tank).collect::<Vec<_>>().concat();
    let allowed = of(&text).errors[0].allowed.clone().unwrap();
    assert_eq!(allowed.split(", ").count(), 20, "{allowed}");
    assert!(allowed.ends_with(", `tank-18`"), "{allowed}");
}

#[test]
fn keys_of_labels_are_those_that_an_api_server_takes() {
    let (longest, domain) = ("k".repeat(63), format!("{}a.a", "a.".repeat(125)));
    for (key, is_taken) in [
        ("example.test/tier".to_owned(), true),
        (longest.clone(), true),
        (format!("{longest}k"), false),
        (format!("{domain}/tier"), true),
        (format!("a{domain}/tier"), false),
        ("a b".to_owned(), false),
        ("a/b/c".to_owned(), false),
        ("/tier".to_owned(), false),
        ("tier/".to_owned(), false),
    ] {
        for text in [
            replaced(GRANTED, "labels: {tier: prod}", &format!("labels: {{tier: prod, \"{key}\": x}}")),
            replaced(GRANTED, "{name: lake}\nspec", &format!("{{name: lake, annotations: {{\"{key}\": x}}}}\nspec")),
        ] {
            let compiled = of(&text);
            assert_eq!(compiled.pipelines.len(), usize::from(is_taken), "{key}: {:?}", told(&compiled));
            let is_told = compiled.errors.iter().any(|error| error.message == "not of the form that is needed");
            assert_eq!(is_told, !is_taken, "{key}: {:?}", told(&compiled));
        }
    }
}

#[test]
fn labels_of_a_namespace_with_a_mistake_are_not_known() {
    let twice = replaced(GRANTED, "labels: {tier: prod}", "labels: {tier: prod, tier: test}");
    let told = told_of(&twice);
    assert_eq!(told[0], "3:46: Namespace fab12: duplicate field, first set in line 3; found \"tier\"");
    assert!(told[1].contains("the labels of namespace fab12 are not known"), "{told:#?}");
}
