use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

mod served;

/// A pipeline of `fab12` with one route to `backend`.
fn pipeline(backend: &str) -> Value {
    json!({
        "apiVersion": "spillway.dev/v1alpha1",
        "kind": "MonitoringPipeline",
        "metadata": {"name": "jobs", "namespace": "fab12"},
        "spec": {
            "inputs": [{"name": "pushed", "type": "Events"}],
            "routes": [{"name": "all", "backendRefs": [{"name": backend}]}],
        },
    })
}

fn backend(namespace: &str, name: &str) -> Value {
    json!({
        "apiVersion": "spillway.dev/v1alpha1",
        "kind": "Backend",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"type": "Stdout"},
    })
}

/// A pipeline whose route has a wrong condition.
fn wrong() -> Value {
    let mut wrong = pipeline("search");
    wrong["spec"]["routes"][0]["match"] = json!("event.level == ");
    wrong
}

fn request(operation: &str, object: &Value, old: &Value) -> Value {
    let is_deletion = operation == "DELETE";
    let metadata = &if is_deletion { old } else { object }["metadata"];
    json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": {"group": "spillway.dev", "version": "v1alpha1", "kind": object["kind"]},
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "operation": operation,
            "userInfo": {"username": "admin"},
            "object": object,
            "oldObject": old,
            "dryRun": false,
        },
    })
}

fn known() -> Known {
    let objects = [
        (Kind::Backend, "fab12", "search"),
        (Kind::Backend, "fab13", "secret-lake"),
        (Kind::MonitoringPipeline, "fab12", "jobs"),
    ];
    let manifest = |(kind, namespace, name): (Kind, &str, &str)| {
        (
            ObjectKey { kind, namespace: namespace.into(), name: name.into() },
            backend(namespace, name).to_string().into(),
        )
    };
    Known { backends: objects.map(manifest).into(), ..Known::default() }
}

fn verdict_of(review: &Value, known: Option<&Known>) -> Verdict {
    let verdict = super::review(review.to_string().as_bytes(), known).unwrap().response;
    assert_eq!(verdict.uid, review["request"]["uid"].as_str().unwrap());
    assert_eq!(verdict.allowed, verdict.status.is_none());
    verdict
}

fn created(object: &Value) -> Verdict {
    verdict_of(&request("CREATE", object, &Value::Null), Some(&known()))
}

fn message(verdict: &Verdict) -> &str {
    verdict.status.as_ref().map_or("", |denial| &denial.message)
}

#[test]
fn a_good_object_is_allowed_without_a_word() {
    for object in [pipeline("search"), backend("fab12", "new")] {
        let verdict = created(&object);
        assert_eq!((message(&verdict), &verdict.warnings), ("", &vec![]));
    }
    let of_cluster = json!({
        "apiVersion": "spillway.dev/v1alpha1", "kind": "ClusterBackend", "metadata": {"name": "lake"},
        "spec": {"type": "Stdout"},
    });
    assert!(created(&of_cluster).allowed);
}

#[test]
fn a_wrong_object_is_denied_with_the_field_what_was_found_and_what_is_allowed() {
    let mut object = backend("fab12", "x");
    object["spec"]["type"] = json!("Stdot");
    let verdict = created(&object);
    let denial = verdict.status.as_ref().unwrap();
    assert_eq!((denial.status, denial.reason, denial.code), ("Failure", "Invalid", 422));
    let text = message(&verdict);
    assert!(text.starts_with("spec.type: "), "{text}");
    for part in [r#"found "Stdot""#, "allowed: ", "`HTTP`", "did you mean `Stdout`?"] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    let text = message(&created(&wrong())).to_owned();
    assert!(text.starts_with("spec.routes[0].match: "), "{text}");
    let mut unknown = pipeline("search");
    unknown["spec"]["rutes"] = json!([]);
    let text = message(&created(&unknown)).to_owned();
    assert!(text.starts_with("spec.rutes: ") && text.contains("did you mean `routes`?"), "{text}");
}

#[test]
fn a_reference_that_leads_nowhere_is_a_warning_of_its_own_namespace() {
    let verdict = created(&pipeline("serch"));
    assert!(verdict.allowed);
    let [warning] = &verdict.warnings[..] else { panic!("{:?}", verdict.warnings) };
    assert!(warning.starts_with("spec.routes[0].backendRefs[0].name: no such backend in namespace fab12"), "{warning}");
    assert!(warning.contains("did you mean `search`?"), "{warning}");
    let warning = created(&pipeline("secret-lake")).warnings.join("\n");
    assert!(!warning.contains("only its own namespace"), "{warning} tells of another namespace");
    let unknown = verdict_of(&request("CREATE", &pipeline("serch"), &Value::Null), None);
    assert_eq!((unknown.allowed, unknown.warnings), (true, vec![]), "nothing is known, so nothing is missing");
}

#[test]
fn errors_and_warnings_are_told_at_once_and_bounded() {
    let mut object = pipeline("serch");
    object["spec"]["routes"][0]["match"] = json!("event.level == ");
    let verdict = created(&object);
    assert!(!verdict.allowed);
    assert_eq!(verdict.warnings.len(), 1, "{:?}", verdict.warnings);
    let mut object = pipeline("x");
    let route = |number: usize, condition: &str| json!({"name": format!("r{number}"), "match": condition, "backendRefs": [{"name": "n".repeat(60)}]});
    object["spec"]["routes"] = (0..30).map(|number| route(number, "true && event.x == 1")).collect();
    let verdict = created(&object);
    assert_eq!((verdict.allowed, verdict.warnings.len()), (true, ERRORS_TOLD_MAX));
    assert!(verdict.warnings.iter().all(|warning| warning.len() <= WARNING_BYTES_MAX));
    object["spec"]["routes"] = (0..30).map(|number| route(number, "event.x ==")).collect();
    let verdict = created(&object);
    let lines: Vec<&str> = message(&verdict).lines().collect();
    assert_eq!((lines.len(), *lines.last().unwrap()), (ERRORS_TOLD_MAX + 1, "and 20 more"));
}

#[test]
fn what_does_not_change_the_spec_is_allowed_whatever_the_spec_is() {
    let stored = wrong();
    let update = |object: &Value| verdict_of(&request("UPDATE", object, &stored), Some(&known()));
    let mut relabelled = stored.clone();
    relabelled["metadata"]["labels"] = json!({"a": "b"});
    relabelled["metadata"]["finalizers"] = json!([]);
    relabelled["status"] = json!({"observedGeneration": 7});
    let reordered = r#"{"kind":"MonitoringPipeline","apiVersion":"spillway.dev/v1alpha1","metadata":{"name":"jobs"},"spec":
        {"routes":[{"match":"event.level == ","name":"all","backendRefs":[{"name":"search"}]}],
         "inputs":[{"type":"Events","name":"pushed"}]}}"#;
    for object in [stored.clone(), relabelled.clone(), serde_json::from_str(reordered).unwrap()] {
        assert_eq!((update(&object).allowed, update(&object).warnings), (true, vec![]));
    }
    relabelled["spec"]["suspend"] = json!(true);
    assert!(!update(&relabelled).allowed);
    relabelled["metadata"]["deletionTimestamp"] = json!("2026-11-28T10:00:00Z");
    assert!(update(&relabelled).allowed);
    assert!(verdict_of(&request("DELETE", &Value::Null, &stored), Some(&known())).allowed);
    let mut status = request("UPDATE", &wrong(), &pipeline("search"));
    status["request"]["subResource"] = json!("status");
    assert!(verdict_of(&status, Some(&known())).allowed);
    let mut foreign = wrong();
    foreign["apiVersion"] = json!("apps/v1");
    assert!(created(&foreign).allowed);
    foreign["kind"] = json!("Deployment");
    assert!(created(&foreign).allowed);
}

#[test]
fn metadata_of_an_api_server_is_not_judged_and_a_name_may_come_later() {
    let mut object = pipeline("search");
    object["metadata"] = json!({
        "generateName": "jobs-", "namespace": "fab12", "managedFields": [{"manager": "kubectl"}],
        "selfLink": "", "somethingNew": {"a": [1]}, "labels": {"a": "b"},
    });
    assert_eq!(message(&created(&object)), "");
    let mut long = pipeline("search");
    long["metadata"]["name"] = json!("n".repeat(300));
    assert!(!created(&long).allowed);
}

#[test]
fn a_dry_run_gets_the_same_answer() {
    for object in [pipeline("search"), pipeline("serch"), wrong()] {
        let review = request("CREATE", &object, &Value::Null);
        let mut dry = review.clone();
        dry["request"]["dryRun"] = json!(true);
        assert_eq!(verdict_of(&dry, Some(&known())), verdict_of(&review, Some(&known())));
    }
}

#[test]
fn an_answer_has_the_form_that_an_api_server_reads() {
    let reviewed = super::review(request("CREATE", &wrong(), &Value::Null).to_string().as_bytes(), None).unwrap();
    let answer = serde_json::to_value(&reviewed).unwrap();
    assert_eq!((&answer["apiVersion"], &answer["kind"]), (&json!("admission.k8s.io/v1"), &json!("AdmissionReview")));
    assert_eq!((&answer["response"]["allowed"], &answer["response"]["status"]["code"]), (&json!(false), &json!(422)));
    let good = super::review(request("CREATE", &pipeline("x"), &Value::Null).to_string().as_bytes(), None).unwrap();
    let expected = json!({"uid": "705ab4f5-6393-11e8-b7cc-42010a800002", "allowed": true});
    assert_eq!(serde_json::to_value(&good).unwrap()["response"], expected);
}

#[test]
fn what_is_no_review_is_no_verdict() {
    let of = |text: &str| super::review(text.as_bytes(), None).unwrap_err().to_string();
    for text in ["", "null", "[7]", "{", "7", r#"{"request":7}"#, r#"{"request":{"uid":"u"}}"#] {
        assert_eq!(of(text), "not an AdmissionReview", "{text}");
    }
    assert_eq!(of("{}"), "expected AdmissionReview of admission.k8s.io/v1");
    assert_eq!(of(r#"{"apiVersion":"admission.k8s.io/v1beta1","kind":"AdmissionReview"}"#), of("{}"));
    let none = "the review holds no request with a uid of at most 256 bytes";
    assert_eq!(of(r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}"#), none);
    let mut review = request("CREATE", &pipeline("x"), &Value::Null);
    for uid in [String::new(), "u".repeat(257)] {
        review["request"]["uid"] = json!(uid);
        assert_eq!(of(&review.to_string()), none);
    }
}

#[test]
fn a_spec_that_is_deep_or_large_is_denied_and_harms_nobody() {
    let with_spec = |spec: &str| {
        let review = request("UPDATE", &json!({"spec": "HERE"}), &pipeline("x")).to_string();
        let object = r#""apiVersion":"spillway.dev/v1alpha1","kind":"MonitoringPipeline","spec":"#;
        let review = review.replace(r#""spec":"HERE""#, &format!("{object}{spec}"));
        super::review(review.as_bytes(), Some(&known())).unwrap().response
    };
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let wide = format!("[{}1]", "1,".repeat(1_000_000));
    let many: BTreeMap<String, u8> = (0..100_000).map(|number| (format!("k{number}"), 0)).collect();
    let many = json!(many).to_string();
    let long = format!("{{\"routes\":[{{\"match\":\"{}\"}}]}}", "(".repeat(1_000_000));
    for spec in [&deep, &wide, &many, &long, "null", "\"\"", "1e999", "-0"] {
        let verdict = with_spec(spec);
        assert!(!verdict.allowed, "{spec:.40}");
        assert!(message(&verdict).len() < 8192, "{}", message(&verdict).len());
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
        prop_oneof![Just("Events"), Just("All"), Just("event.x == 1"), Just("Stdout"), Just("search")]
            .prop_map(Value::from),
    ];
    let key = prop_oneof![
        Just("inputs".to_owned()),
        Just("routes".to_owned()),
        Just("name".to_owned()),
        Just("type".to_owned()),
        Just("match".to_owned()),
        Just("backendRefs".to_owned()),
        Just("namespaceSelector".to_owned()),
        ".{0,8}",
    ];
    leaf.prop_recursive(5, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map(key.clone(), inner, 0..6).prop_map(|map| map.into_iter().collect()),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn any_spec_gets_an_answer_to_its_request_that_is_the_same_again(
        spec in any_json(),
        kind in prop_oneof![Just("MonitoringPipeline"), Just("Backend"), Just("ClusterBackend"), Just("ClusterMonitoringPipeline")],
        operation in prop_oneof![Just("CREATE"), Just("UPDATE")],
    ) {
        let mut object = pipeline("search");
        object["kind"] = json!(kind);
        object["spec"] = spec;
        let review = request(operation, &object, &pipeline("other"));
        let verdict = verdict_of(&review, Some(&known()));
        prop_assert_eq!(&verdict, &verdict_of(&review, Some(&known())));
        prop_assert_eq!(verdict.allowed, verdict_of(&review, None).allowed);
        let update = request("UPDATE", &object, &object);
        prop_assert!(verdict_of(&update, Some(&known())).allowed);
        prop_assert!(verdict.warnings.iter().all(|warning| warning.len() <= WARNING_BYTES_MAX));
        let tells = format!("{verdict:?}").contains("secret-lake");
        prop_assert!(!tells);
    }

    #[test]
    fn bytes_that_are_no_review_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(super::review(&bytes, Some(&known())).is_err());
    }

    #[test]
    fn a_review_with_bytes_changed_never_panics(at in 0_usize..700, byte in any::<u8>()) {
        let mut bytes = request("CREATE", &pipeline("search"), &Value::Null).to_string().into_bytes();
        let at = at % bytes.len();
        bytes[at] = byte;
        drop(super::review(&bytes, Some(&known())));
    }
}
