//! Whatever a pod looks like.

use std::collections::BTreeMap;

use proptest::collection::{btree_map, vec};
use proptest::option::of;
use proptest::prelude::*;

use super::*;

fn amount() -> impl Strategy<Value = Value> {
    prop_oneof![Just(json!(0)), Just(json!("100m")), Just(json!("0.1")), Just(json!("64Mi")), Just(json!("1Gi"))]
}

fn amounts() -> impl Strategy<Value = Value> {
    let names = prop_oneof![Just("cpu".to_owned()), Just("memory".to_owned()), Just("ephemeral-storage".to_owned())];
    btree_map(names, amount(), 0..3).prop_map(|all| json!(all))
}

/// A value of a field that nobody here knows.
fn unknown() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<i64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
        Just(json!({"deep": [1, {}]}))
    ]
}

fn environment() -> impl Strategy<Value = Value> {
    let name = prop_oneof![Just("A".to_owned()), Just(URL_VARIABLE.to_owned()), "[A-Z_]{1,8}"];
    let one = (name, unknown()).prop_map(|(name, more)| json!({"name": name, "value": "x", "newer": more}));
    prop_oneof![Just(Value::Null), vec(one, 0..3).prop_map(Value::Array)]
}

fn container() -> impl Strategy<Value = Value> {
    let name = prop_oneof![8 => "[a-z]{1,12}", 1 => Just("spillway".to_owned()), 1 => Just("istio-proxy".to_owned())];
    (name, environment(), of(amounts()), of(amounts()), unknown()).prop_map(|(name, env, requests, limits, more)| {
        let mut one = json!({"name": name, "image": "i", "env": env, "newer": more});
        if requests.is_some() || limits.is_some() {
            one["resources"] = json!({"requests": requests, "limits": limits});
        }
        one
    })
}

fn annotation() -> impl Strategy<Value = (String, String)> {
    let odd = prop_oneof![Just("x".repeat(10 << 10)), Just("a\nb".to_owned()), Just("ns/name".to_owned()), ".{0,20}"];
    let right = [("spillway.dev/cpu", "200m"), ("spillway.dev/memory", "64Mi"), ("spillway.dev/log-level", "debug")];
    prop_oneof![
        4 => ("[a-z]{1,8}", odd.clone()),
        4 => prop::sample::select(right.to_vec()).prop_map(|(key, value)| (key.to_owned(), value.to_owned())),
        4 => (Just(SAFE_TO_EVICT.to_owned()), "[a-z,]{0,12}"),
        1 => (prop::sample::select(vec![INJECT, INJECTED, REVISION, AUTHORITIES, "spillway.dev/memroy"]).prop_map(str::to_owned), odd),
    ]
}

fn pods() -> impl Strategy<Value = Value> {
    let volume = (prop_oneof![9 => "[a-z]{1,9}", 1 => Just(sidecar::SPOOL.to_owned())], unknown());
    let volumes = of(vec(volume.prop_map(|(name, more)| json!({"name": name, "newer": more})), 0..3));
    let annotations = of(btree_map("[a-z]{1}", annotation(), 0..4));
    let parts = (vec(container(), 1..4), of(vec(container(), 0..3)), volumes, annotations, unknown(), of(amounts()));
    let whole = json!({"limits": {"cpu": "0.5", "memory": "64Mi"}, "requests": {"cpu": "500m"}});
    (parts, proptest::bool::weighted(0.2)).prop_map(move |(parts, is_guaranteed)| {
        let mut pod = assembled(parts);
        let lists = ["containers", "initContainers"].iter().filter(|_| is_guaranteed);
        for list in lists {
            for one in pod["spec"][list].as_array_mut().into_iter().flatten() {
                one["resources"] = whole.clone();
            }
        }
        pod
    })
}

type Parts = (
    Vec<Value>,
    Option<Vec<Value>>,
    Option<Vec<Value>>,
    Option<BTreeMap<String, (String, String)>>,
    Value,
    Option<Value>,
);

fn assembled((containers, init, volumes, annotations, more, whole): Parts) -> Value {
    let mut annotations = annotations
        .map(|all| all.into_values().map(|(key, value)| (key, value.into())).collect::<Map<String, Value>>());
    if let Some(annotations) = &mut annotations {
        annotations.entry(INJECT).or_insert(json!("etch-line"));
    }
    let mut pod = json!({"metadata": {"name": "p", "newer": more, "annotations": annotations},
            "spec": {"containers": containers, "initContainers": init, "volumes": volumes, "newer": more}});
    if let Some(whole) = whole.filter(|_| more.is_i64()) {
        pod["spec"]["resources"] = json!({"limits": whole});
    }
    pod
}

/// Returns what stays of `after` without what we add.
fn without_ours(after: &Value, before: &Value) -> Value {
    let mut after = after.clone();
    let spec = &mut after["spec"];
    for list in ["initContainers", "volumes"] {
        let ours = |one: &Value| {
            one["name"].as_str().is_some_and(|name| name == sidecar::CONTAINER || sidecar::VOLUMES.contains(&name))
        };
        if let Some(list) = spec[list].as_array_mut() {
            list.retain(|one| !ours(one));
        }
        if before["spec"][list].as_array().is_none_or(Vec::is_empty) {
            spec[list] = before["spec"][list].clone();
        }
    }
    for (place, one) in spec["containers"].as_array_mut().unwrap().iter_mut().enumerate() {
        let known = &before["spec"]["containers"][place]["env"];
        let length = known.as_array().map_or(0, Vec::len);
        one["env"].as_array_mut().unwrap().truncate(length);
        if length == 0 {
            one["env"] = known.clone();
        }
    }
    for key in [INJECTED, REVISION, AUTHORITIES, SAFE_TO_EVICT] {
        match before["metadata"]["annotations"].get(key) {
            Some(known) => after["metadata"]["annotations"][key] = known.clone(),
            None => drop(after["metadata"]["annotations"].as_object_mut().unwrap().remove(key)),
        }
    }
    if before["metadata"]["annotations"].is_null() {
        after["metadata"]["annotations"] = Value::Null;
    }
    after
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn twice_is_once_and_everything_else_stays(pod in pods()) {
        let offer = offer(Some("jobs"));
        let text = pod.to_string();
        let once = injector().inject(&text, Some(&offer));
        let after = applied(&pod, &once.patch);
        let twice = injector().inject(&after.to_string(), Some(&offer));
        prop_assert_eq!(&twice.patch[..], &[][..]);
        prop_assert!(once.warnings.iter().all(|text| text.chars().count() <= WARNING_CHARS_MAX && !text.contains(char::is_control)));
        if once.reason == Reason::Injected {
            prop_assert_eq!(twice.reason, Reason::AlreadyInjected);
            prop_assert_eq!(class(&after), class(&pod));
            prop_assert_eq!(without_ours(&after, &pod), pod);
            let sidecar = &after["spec"]["initContainers"][0];
            prop_assert_eq!(&sidecar["image"], "registry.test/agent:1");
            prop_assert_eq!(sidecar["args"].as_array().unwrap().len(), 14);
        } else {
            prop_assert_eq!(after, pod);
            prop_assert_ne!(once.reason, Reason::AlreadyInjected);
        }
    }
}

#[test]
fn most_random_pods_are_given_a_sidecar_and_some_are_not() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let (reasons, classes): (Vec<Reason>, Vec<Class>) = (0..400)
        .map(|_| {
            let pod = pods().new_tree(&mut runner).unwrap().current();
            (injector().inject(&pod.to_string(), Some(&offer(Some("jobs")))).reason, class(&pod))
        })
        .unzip();
    let count = |reason: Reason| reasons.iter().filter(|one| **one == reason).count();
    assert!(count(Reason::Injected) > 100, "{reasons:?}");
    let refused = [Reason::UnknownAnnotation, Reason::BadAnnotation, Reason::UnknownPipeline].map(count);
    assert!(count(Reason::NameTaken) > 10 && refused.iter().sum::<usize>() > 10, "{reasons:?}");
    let of = |wanted: Class| classes.iter().filter(|one| **one == wanted).count();
    assert!([Class::Guaranteed, Class::Burstable, Class::BestEffort].into_iter().all(|one| of(one) > 5), "{classes:?}");
}
