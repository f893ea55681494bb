mod random;

use std::collections::BTreeSet;

use super::patch::apply;
use super::pod::Class;
use super::quantity::Quantity;
use super::*;

const AUTHORITY: &str = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";

fn settings() -> Settings {
    let text = json!({
        "image": "registry.test/agent:1", "operator": "https://controller.own.svc:8443",
        "nodeAgent": "https://agent.own.svc:8411", "runAsUser": 65532,
        "requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"cpu": "200m", "memory": "128Mi"},
        "max": {"cpu": 1, "memory": "1Gi"}, "spool": "256Mi",
    });
    Settings::read(&text.to_string()).unwrap()
}

fn injector() -> Injector {
    Injector::try_new(settings(), AUTHORITY).unwrap()
}

fn offer(default: Option<&str>) -> Offer {
    let pipelines = ["etch-line", "jobs"].map(str::to_owned).into();
    Offer { pipelines, default: default.map(str::to_owned), limits: LimitRange::default() }
}

fn pod() -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "app", "annotations": {INJECT: "etch-line"}},
        "spec": {"containers": [{"name": "app", "image": "app:1"}]}})
}

fn with(pointer: &str, value: Value) -> Value {
    let mut pod = pod();
    let (parent, last) = pointer.rsplit_once('/').unwrap();
    pod.pointer_mut(parent).unwrap()[last] = value;
    pod
}

fn annotated(more: &Value) -> Value {
    let mut pod = pod();
    pod["metadata"]["annotations"].as_object_mut().unwrap().append(&mut more.as_object().unwrap().clone());
    pod
}

fn inject(pod: &Value) -> Injection {
    injector().inject(&pod.to_string(), Some(&offer(None)))
}

fn applied(pod: &Value, patch: &[Add]) -> Value {
    let mut pod = pod.clone();
    apply(&mut pod, patch).unwrap();
    pod
}

/// Returns what became of a pod that is given a sidecar.
fn injected(pod: &Value) -> Value {
    let injection = inject(pod);
    assert_eq!(injection.reason, Reason::Injected, "{:?}", injection.warnings);
    applied(pod, &injection.patch)
}

fn class(pod: &Value) -> Class {
    Pod::read(&pod.to_string()).unwrap().spec.class().unwrap()
}

fn unchanged(pod: &Value, reason: Reason, words: &str) {
    let injection = inject(pod);
    assert_eq!((injection.reason, &*injection.patch), (reason, &[][..]), "{:?}", injection.warnings);
    let [warning] = &*injection.warnings else { panic!("{:?}", injection.warnings) };
    assert!(warning.contains(words), "{warning}");
    assert!(warning.chars().count() <= WARNING_CHARS_MAX && !warning.contains(char::is_control), "{warning}");
}

#[test]
fn the_sidecar_comes_first_and_what_was_there_stays() {
    let mut asking =
        with("/spec/initContainers", json!([{"name": "migrate", "image": "m"}, {"name": "proxy", "image": "p"}]));
    asking["spec"]["volumes"] = json!([{"name": "data", "emptyDir": {}}]);
    asking["spec"]["containers"] = json!([
        {"name": "app", "image": "app:1", "env": [{"name": "A", "value": "1"}], "new": {"field": [1.50]}},
        {"name": "told", "image": "app:1", "env": [{"name": "SPILLWAY_URL", "value": "http://else"}]},
        {"name": "bare", "image": "app:1", "env": []},
    ]);
    let after = injected(&asking);
    let names = |list: &Value| -> Vec<String> {
        list.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&after["spec"]["initContainers"]), ["spillway", "migrate", "proxy"]);
    assert_eq!(names(&after["spec"]["volumes"]), ["data", "spillway-spool", "spillway-identity"]);
    let environment = |place: usize| after["spec"]["containers"][place]["env"].clone();
    let ours = json!({"name": "SPILLWAY_URL", "value": "http://127.0.0.1:8411"});
    assert_eq!(environment(0), json!([{"name": "A", "value": "1"}, ours]));
    assert_eq!(environment(1), asking["spec"]["containers"][1]["env"]);
    assert_eq!(environment(2), json!([ours]));
    let annotations = &after["metadata"]["annotations"];
    assert_eq!((&annotations[INJECTED], &annotations[AUTHORITIES]), (&json!("etch-line"), &json!(AUTHORITY)));
}

#[test]
fn a_sidecar_passes_the_restricted_standard_and_decides_neither_start_nor_readiness() {
    let after = injected(&with("/spec/securityContext", json!({"runAsUser": 0, "runAsNonRoot": false})));
    let sidecar = &after["spec"]["initContainers"][0];
    assert_eq!(sidecar["restartPolicy"], "Always");
    assert_eq!(
        sidecar["securityContext"],
        json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}, "privileged": false,
            "readOnlyRootFilesystem": true, "runAsGroup": 65532, "runAsNonRoot": true, "runAsUser": 65532,
            "seccompProfile": {"type": "RuntimeDefault"}})
    );
    for absent in ["readinessProbe", "startupProbe", "lifecycle", "ports"] {
        assert_eq!(sidecar.get(absent), None);
    }
    assert_eq!(sidecar["livenessProbe"]["httpGet"], json!({"path": "/livez", "port": 8413}));
    // The kubelet asks at the address of the pod, of whichever family that is.
    assert!(sidecar["args"].as_array().unwrap().contains(&json!("--metrics=[::]:8413")));
    let volumes = &after["spec"]["volumes"];
    assert_eq!(volumes[0], json!({"name": "spillway-spool", "emptyDir": {"sizeLimit": "256Mi"}}));
    let sources = &volumes[1]["projected"]["sources"];
    for (place, audience, path) in [(0, "spillway", "operator"), (1, "spillway-agent", "node-agent")] {
        let token = json!({"audience": audience, "expirationSeconds": 3600, "path": path});
        assert_eq!(sources[place]["serviceAccountToken"], token);
    }
    // Nobody but the sidecar sees them, and where they lie an API server mounts no token of the pod's account.
    assert_eq!(after["spec"]["containers"][0].get("volumeMounts"), None);
    let mounts = &sidecar["volumeMounts"];
    assert_eq!(mounts[1]["mountPath"], "/var/run/secrets/kubernetes.io/serviceaccount");
}

#[test]
fn the_class_of_service_stays_in_all_three() {
    let of = |resources: Value| with("/spec/containers", json!([{"name": "app", "resources": resources}]));
    let both = json!({"cpu": "1", "memory": "1Gi"});
    for (asking, expected, resources) in [
        (of(json!({})), Class::BestEffort, Value::Null),
        (of(json!({"requests": {"cpu": 0, "nvidia.com/gpu": 1}})), Class::BestEffort, Value::Null),
        (
            of(json!({"requests": {"cpu": "1"}})),
            Class::Burstable,
            json!({"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"cpu": "200m", "memory": "128Mi"}}),
        ),
        (
            of(json!({"limits": both})),
            Class::Guaranteed,
            json!({"requests": {"cpu": "200m", "memory": "128Mi"}, "limits": {"cpu": "200m", "memory": "128Mi"}}),
        ),
        (
            of(json!({"limits": both, "requests": {"cpu": "1000m", "memory": "1024Mi"}})),
            Class::Guaranteed,
            json!({"requests": {"cpu": "200m", "memory": "128Mi"}, "limits": {"cpu": "200m", "memory": "128Mi"}}),
        ),
    ] {
        let after = injected(&asking);
        assert_eq!((class(&asking), class(&after)), (expected, expected), "{asking}");
        assert_eq!(after["spec"]["initContainers"][0]["resources"], resources, "{asking}");
    }
    // What a pod has as a whole is divided by nobody but the kernel.
    let whole = with("/spec/resources", json!({"limits": both, "requests": both}));
    let after = injected(&whole);
    assert_eq!((class(&whole), class(&after)), (Class::Guaranteed, Class::Guaranteed));
    assert_eq!(after["spec"]["initContainers"][0].get("resources"), None);
}

#[test]
fn a_class_is_that_of_every_container() {
    let both = |cpu: &str| json!({"limits": {"cpu": cpu, "memory": "1Gi"}});
    let of = |first: Value, init: Value| {
        let mut pod =
            with("/spec/containers", json!([{"name": "a", "resources": first}, {"name": "b", "resources": both("1")}]));
        pod["spec"]["initContainers"] = json!([{"name": "c", "resources": init}]);
        class(&pod)
    };
    assert_eq!(of(both("1"), both("1")), Class::Guaranteed);
    assert_eq!(of(both("1"), json!({})), Class::Burstable);
    assert_eq!(of(json!({}), both("1")), Class::Burstable);
    assert_eq!(of(both("0"), both("1")), Class::Burstable);
    let less = json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "999m"}});
    assert_eq!(of(less, both("1")), Class::Burstable);
}

#[test]
fn annotations_tune_within_bounds_and_no_text_of_theirs_arrives() {
    let wish = json!({"spillway.dev/cpu": "0.50", "spillway.dev/memory": "64Mi", "spillway.dev/log-level": "debug",
        "spillway.dev/logs": "false"});
    let mut asking = annotated(&wish);
    asking["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": 1}});
    let sidecar = injected(&asking)["spec"]["initContainers"][0].clone();
    assert_eq!(sidecar["resources"]["limits"], json!({"cpu": "500m", "memory": "64Mi"}));
    assert!(sidecar["args"].as_array().unwrap().contains(&json!("--log-level=debug")));
    asking["metadata"]["annotations"]["spillway.dev/memory"] = json!("32Mi");
    let sidecar = injected(&asking)["spec"]["initContainers"][0].clone();
    assert_eq!(sidecar["resources"]["requests"], json!({"cpu": "10m", "memory": "32Mi"}));

    let long = "x".repeat(10 << 10);
    for (key, value, words) in [
        ("spillway.dev/cpu", "2", "is `2`, not 10m to 1000m"),
        ("spillway.dev/cpu", "9m", "not 10m to 1000m"),
        ("spillway.dev/cpu", "-1", "not 10m"),
        ("spillway.dev/memory", "2Gi", "is `2Gi`, not 32Mi to 1024Mi"),
        ("spillway.dev/memory", "", "is ``"),
        ("spillway.dev/memory", &long, "not 32Mi"),
        ("spillway.dev/log-level", "info,\n--operator=https://x", "not one of error, warn, info, debug, trace"),
    ] {
        unchanged(&annotated(&json!({key: value})), Reason::BadAnnotation, words);
    }
    for (key, words) in [
        ("spillway.dev/memroy", "`spillway.dev/memroy` is not known; did you mean `spillway.dev/memory`?"),
        ("spillway.dev/image", "`spillway.dev/image` is not known"),
        ("spillway.dev/command", "is not known"),
        ("spillway.dev/files", "is not known"),
    ] {
        unchanged(&annotated(&json!({key: "x"})), Reason::UnknownAnnotation, words);
    }
}

#[test]
fn a_wish_that_would_change_the_class_is_left_out_and_said() {
    let asking = annotated(&json!({"spillway.dev/memory": "64Mi"}));
    let injection = inject(&asking);
    assert_eq!(injection.reason, Reason::Injected);
    assert_eq!(injection.warnings, ["spillway.dev/memory is left out: the pod is BestEffort, and stays so"]);
    assert_eq!(class(&applied(&asking, &injection.patch)), Class::BestEffort);
}

#[test]
fn a_pipeline_that_is_not_there_is_said_with_the_nearest() {
    let long = format!("etch\n{}", "line".repeat(2500));
    for (name, reason, words) in [
        (
            "etch-lin",
            Reason::UnknownPipeline,
            "no sidecar: the namespace has no pipeline `etch-lin`; did you mean `etch-line`?",
        ),
        ("true", Reason::UnknownPipeline, "no pipeline `true`; there is `etch-line`"),
        ("", Reason::UnknownPipeline, "no pipeline ``"),
        ("other/jobs", Reason::BadAnnotation, "pod's own namespace, without a `/`"),
        (&long, Reason::UnknownPipeline, "no pipeline `etch line"),
    ] {
        unchanged(&with("/metadata/annotations", json!({INJECT: name})), reason, words);
    }
    let injection = injector().inject(&pod().to_string(), Some(&Offer::default()));
    assert_eq!(injection.warnings, ["no sidecar: the namespace has no pipeline `etch-line`; it has none"]);
}

#[test]
fn a_warning_is_short_whatever_the_names_are() {
    let pipelines: BTreeSet<String> = [format!("{}a", "n".repeat(62))].into();
    let name = format!("{}b", "n".repeat(62));
    let asking = with("/metadata/annotations", json!({INJECT: name}));
    let injection = injector().inject(&asking.to_string(), Some(&Offer { pipelines, ..Offer::default() }));
    assert!(injection.warnings[0].chars().count() <= WARNING_CHARS_MAX);
    assert!(injection.warnings[0].contains("did you mean"), "{:?}", injection.warnings);
}

#[test]
fn who_does_not_ask_is_left_alone_without_a_word() {
    let silent = |pod: &Value, offer: Option<&Offer>, reason: Reason| {
        let nothing = Injection { patch: Vec::new(), warnings: Vec::new(), reason };
        assert_eq!(injector().inject(&pod.to_string(), offer), nothing);
    };
    let (none, jobs) = (offer(None), offer(Some("jobs")));
    let plain = with("/metadata", json!({"name": "app"}));
    let never = with("/metadata/annotations", json!({INJECT: "false"}));
    silent(&plain, Some(&none), Reason::NotAsked);
    silent(&never, Some(&jobs), Reason::OptedOut);
    silent(&never, None, Reason::OptedOut);
    silent(&plain, Some(&offer(Some("false"))), Reason::OptedOut);
    silent(&annotated(&json!({"kubernetes.io/config.mirror": "x"})), Some(&none), Reason::MirrorPod);

    // The label of the namespace asks for those that say nothing, and what a pod says goes before it.
    let asked = |pod: &Value| {
        let injection = injector().inject(&pod.to_string(), Some(&jobs));
        applied(pod, &injection.patch)["metadata"]["annotations"][INJECTED].clone()
    };
    assert_eq!((asked(&plain), asked(&pod())), (json!("jobs"), json!("etch-line")));
}

#[test]
fn before_pipelines_are_known_a_pod_is_taken_as_it_is() {
    let injection = injector().inject(&pod().to_string(), None);
    assert_eq!((injection.reason, injection.patch.len()), (Reason::NotSynced, 0));
    assert!(injection.warnings[0].contains("not known yet"));
}

#[test]
fn where_no_sidecar_can_run_none_is_given() {
    unchanged(&with("/spec/hostNetwork", json!(true)), Reason::HostNetwork, "network of its node");
    unchanged(&with("/spec/os", json!({"name": "windows"})), Reason::OperatingSystem, "Linux");
    unchanged(&with("/spec/nodeSelector", json!({"kubernetes.io/os": "windows"})), Reason::OperatingSystem, "Linux");
    assert_eq!(inject(&with("/spec/nodeSelector", json!({"kubernetes.io/os": "linux"}))).reason, Reason::Injected);
    let crowded = annotated(&json!({"notes": "x".repeat(ANNOTATION_BYTES_MAX - 100)}));
    unchanged(&crowded, Reason::NoRoom, "no room");
}

#[test]
fn a_container_or_volume_of_our_name_that_is_not_ours_stays() {
    for (pointer, value) in [
        ("/spec/containers", json!([{"name": "spillway", "image": "x"}])),
        ("/spec/initContainers", json!([{"name": "spillway", "image": "x"}])),
        ("/spec/volumes", json!([{"name": "spillway-spool", "hostPath": {"path": "/"}}])),
        ("/spec/volumes", json!([{"name": "a"}, {"name": "spillway-identity"}])),
    ] {
        unchanged(&with(pointer, value), Reason::NameTaken, "call it otherwise");
    }
    // The mark alone is no proof.
    let mut forged = with("/spec/initContainers", json!([{"name": "spillway", "image": "x", "args": ["run"]}]));
    forged["metadata"]["annotations"][INJECTED] = json!("etch-line");
    unchanged(&forged, Reason::Outdated, "another pipeline or version");
    let mut copied = injected(&pod());
    copied["metadata"]["annotations"][INJECT] = json!("jobs");
    unchanged(&copied, Reason::Outdated, "another pipeline or version");
    let mut older = injected(&pod());
    older["metadata"]["annotations"][REVISION] = json!("0123456789abcdef");
    unchanged(&older, Reason::Outdated, "another pipeline or version");
    older["metadata"]["annotations"].as_object_mut().unwrap().remove(REVISION);
    unchanged(&older, Reason::Outdated, "another pipeline or version");
}

#[test]
fn a_sidecar_whose_image_comes_from_a_mirror_is_the_same_sidecar() {
    let mut mirrored = injected(&pod());
    mirrored["spec"]["initContainers"][0]["image"] = json!("mirror.test/registry.test/agent:1");
    mirrored["spec"]["containers"].as_array_mut().unwrap().push(json!({"name": "proxy", "image": "mirror.test/p"}));
    let injection = inject(&mirrored);
    assert_eq!((injection.reason, &*injection.warnings), (Reason::AlreadyInjected, &[][..]));
    let after = applied(&mirrored, &injection.patch);
    assert_eq!(
        after["spec"]["containers"][1]["env"],
        json!([{"name": "SPILLWAY_URL", "value": "http://127.0.0.1:8411"}])
    );
    assert_eq!(after["spec"]["initContainers"][0]["image"], "mirror.test/registry.test/agent:1");
}

#[test]
fn what_every_sidecar_is_made_of_decides_the_revision_and_nothing_else_does() {
    let revision = |change: fn(&mut Settings)| {
        let mut settings = settings();
        change(&mut settings);
        settings.revision()
    };
    let before = settings().revision();
    assert_eq!((before.len(), injected(&pod())["metadata"]["annotations"][REVISION].as_str()), (16, Some(&*before)));
    assert_eq!(revision(|settings| settings.max.cpu = Quantity::thousandths(2000)), before, "a bound is no part of it");
    let others = [
        revision(|settings| settings.image = "registry.test/agent:2".to_owned()),
        revision(|settings| settings.operator = "https://other.own.svc:8443".to_owned()),
        revision(|settings| settings.limits.memory = Quantity::mebibytes(256)),
        revision(|settings| settings.spool = Quantity::mebibytes(512)),
        revision(|settings| settings.run_as_user = 1000),
    ];
    assert_eq!(others.iter().chain([&before]).collect::<BTreeSet<_>>().len(), 6, "{others:?}");
    let louder = injected(&annotated(&json!({"spillway.dev/log-level": "debug"})));
    assert_eq!(louder["metadata"]["annotations"][REVISION], before, "nor is what a pod says for itself");
}

#[test]
fn a_pod_that_listens_where_the_sidecar_does_is_taken_as_it_is() {
    let with_ports = |ports: Value| with("/spec/containers/0/ports", ports);
    for port in PORTS {
        let words = format!("container `app` has port {port}; a sidecar needs 8411 to 8413");
        unchanged(&with_ports(json!([{"containerPort": 80}, {"containerPort": port}])), Reason::PortTaken, &words);
    }
    let of_init =
        json!([{"name": "x".repeat(63), "image": "p", "ports": [{"containerPort": 8412, "protocol": "TCP"}]}]);
    unchanged(&with("/spec/initContainers", of_init), Reason::PortTaken, "has port 8412; a sidecar needs 8411 to 8413");
    for ports in [
        json!([{"containerPort": 8410}, {"containerPort": 8414}]),
        json!([{"containerPort": 8411, "protocol": "UDP"}]),
        json!([{}]),
        Value::Null,
    ] {
        injected(&with_ports(ports));
    }
}

#[test]
fn a_container_that_comes_later_is_told_where_the_sidecar_is() {
    let mut later = injected(&pod());
    later["spec"]["containers"].as_array_mut().unwrap().push(json!({"name": "proxy", "image": "p"}));
    // As an API server and others leave it.
    later["spec"]["initContainers"].as_array_mut().unwrap().insert(0, json!({"name": "other", "image": "o"}));
    later["spec"]["initContainers"][1]["terminationMessagePath"] = json!("/dev/termination-log");
    later["spec"]["initContainers"][1]["resources"] = json!({"requests": {"cpu": "5m"}});
    let injection = inject(&later);
    assert_eq!(injection.reason, Reason::AlreadyInjected);
    let paths: Vec<_> = injection.patch.iter().map(Add::path).collect();
    assert_eq!(paths, ["/spec/containers/1/env"]);
    let after = applied(&later, &injection.patch);
    assert_eq!(inject(&after), Injection { patch: Vec::new(), warnings: Vec::new(), reason: Reason::AlreadyInjected });
}

#[test]
fn volumes_that_may_be_lost_are_added_to_those_named() {
    let of = |text: &str| {
        injected(&annotated(&json!({SAFE_TO_EVICT: text})))["metadata"]["annotations"][SAFE_TO_EVICT].clone()
    };
    assert_eq!(injected(&pod())["metadata"]["annotations"][SAFE_TO_EVICT], "spillway-spool");
    for (before, after) in [
        ("", "spillway-spool"),
        ("cache,tmp", "cache,tmp,spillway-spool"),
        ("cache, spillway-spool", "cache, spillway-spool"),
        ("my-spillway-spool", "my-spillway-spool,spillway-spool"),
    ] {
        assert_eq!(of(before), after);
    }
}

#[test]
fn what_is_no_pod_is_taken_as_it_is() {
    for text in [
        "",
        "{",
        "null",
        "[]",
        "{}",
        "{\"metadata\":{},\"spec\":{\"containers\":[]}}",
        "{\"metadata\":{},\"spec\":{\"containers\":{}}}",
    ] {
        let injection = injector().inject(text, Some(&offer(None)));
        assert_eq!((injection.reason, injection.patch.len()), (Reason::NotUnderstood, 0), "{text}");
    }
    let odd = with("/spec/containers/0/resources", json!({"limits": {"cpu": "much"}}));
    unchanged(&odd, Reason::NotUnderstood, "amount");
}

#[test]
fn the_same_pod_gets_the_same_bytes() {
    let bytes = |text: &str| serde_json::to_string(&injector().inject(text, Some(&offer(None))).patch).unwrap();
    let text = pod().to_string();
    assert_eq!(bytes(&text), bytes(&text));
    // Whatever the order of its fields is.
    let turned = r#"{"spec":{"containers":[{"image":"app:1","name":"app"}]},"metadata":{"annotations":{"spillway.dev/inject":"etch-line"}}}"#;
    assert_eq!(bytes(turned), bytes(&text));
    assert!(
        bytes(turned)
            .starts_with(r#"[{"op":"add","path":"/metadata/annotations/spillway.dev~1injected","value":"etch-line"},"#)
    );
}

#[test]
fn settings_are_bounded() {
    let fault = |change: fn(&mut Settings)| {
        let mut settings = settings();
        change(&mut settings);
        Injector::try_new(settings, AUTHORITY).unwrap_err().to_string()
    };
    for (found, words) in [
        (fault(|settings| settings.image.clear()), "image"),
        (fault(|settings| settings.operator = "http://x".to_owned()), "operator"),
        (fault(|settings| settings.node_agent = "https://".to_owned()), "nodeAgent"),
        (fault(|settings| settings.run_as_user = 0), "root"),
        (fault(|settings| settings.requests.cpu = Quantity::default()), "too low"),
        (fault(|settings| settings.requests.memory = Quantity::mebibytes(129)), "above `limits`"),
        (fault(|settings| settings.limits.cpu = Quantity::thousandths(1001)), "above `max`"),
        (fault(|settings| settings.spool = Quantity::mebibytes(63)), "spool"),
        (fault(|settings| settings.destinations.allow.push("api.example.test".to_owned())), "destinations"),
        (fault(|settings| settings.destinations.deny.push("10.0.0.0/8,:80".to_owned())), "destinations"),
    ] {
        assert!(found.contains(words), "{found}");
    }
    assert!(Injector::try_new(settings(), "no certificate").is_err());
    assert!(Injector::try_new(settings(), &AUTHORITY.repeat(1000)).is_err());
    assert!(Settings::read("{\"image\": \"x\", \"more\": 1}").is_err());
    let text = json!({
        "image": "", "operator": "https://o:8443", "nodeAgent": "https://a:8411", "runAsUser": 1, "spool": "256Mi",
        "requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"cpu": "10m", "memory": "32Mi"},
        "max": {"cpu": "10m", "memory": "32Mi"},
    });
    let error = Settings::read(&text.to_string()).unwrap_err().to_string();
    assert!(error.contains("`image` is empty"), "they are not read: {error}");
}

#[test]
fn while_nothing_is_known_of_sidecars_who_asks_is_told_and_nobody_else() {
    let told = |pod: &Value, offer: Option<&Offer>| {
        let Injection { patch, warnings, reason } = without_settings(&pod.to_string(), offer);
        assert!(patch.is_empty());
        (reason, warnings.len())
    };
    let plain = json!({"metadata": {}, "spec": {"containers": [{"name": "app"}]}});
    assert_eq!(told(&pod(), Some(&offer(None))), (Reason::NoSettings, 1));
    assert_eq!(told(&plain, Some(&offer(Some("jobs")))), (Reason::NoSettings, 1));
    assert_eq!(told(&plain, Some(&offer(None))), (Reason::NotAsked, 0));
    assert_eq!(told(&pod(), None), (Reason::NotSynced, 1));
}

#[test]
fn a_sidecar_keeps_within_the_limit_range_of_its_namespace_or_is_not_given() {
    let within = |max: &str, asking: &Value| {
        let limits = LimitRange::of(&json!({"limits": [{"type": "Container", "max": {"cpu": max}}]}));
        let offer = Offer { limits, ..offer(None) };
        let injection = injector().inject(&asking.to_string(), Some(&offer));
        let made = applied(asking, &injection.patch);
        let amounts = made["spec"]["initContainers"][0]["resources"].clone();
        // What is given once stays.
        assert!(injector().inject(&made.to_string(), Some(&offer)).patch.is_empty());
        (injection.reason, injection.warnings, amounts, made)
    };
    let burstable = with("/spec/containers", json!([{"name": "app", "resources": {"requests": {"cpu": "1m"}}}]));
    let (reason, warnings, amounts, _) = within("150m", &burstable);
    assert_eq!((reason, warnings.len(), &amounts["limits"]["cpu"]), (Reason::Injected, 0, &json!("150m")));
    let mut wishing = burstable.clone();
    wishing["metadata"]["annotations"]["spillway.dev/cpu"] = json!("500m");
    let (reason, warnings, amounts, _) = within("150m", &wishing);
    assert_eq!((reason, &amounts["limits"]["cpu"]), (Reason::Injected, &json!("150m")));
    assert_eq!(warnings, ["spillway.dev/cpu is brought within the LimitRange of the namespace"]);
    let (reason, warnings, _, made) = within("5m", &burstable);
    assert_eq!((reason, made), (Reason::LimitRange, burstable));
    assert_eq!(warnings, ["no sidecar: a LimitRange of the namespace allows no container as a sidecar is one"]);
}

#[test]
fn a_pod_that_comes_with_its_sidecar_is_given_the_authorities_of_now() {
    let before = injected(&pod());
    let other = "-----BEGIN CERTIFICATE-----\nMIIC\n-----END CERTIFICATE-----\n";
    let later = Injector::try_new(settings(), other).unwrap();
    let injection = later.inject(&before.to_string(), Some(&offer(None)));
    assert_eq!((injection.reason, injection.patch.len()), (Reason::AlreadyInjected, 1));
    let after = applied(&before, &injection.patch);
    assert_eq!(after["metadata"]["annotations"][AUTHORITIES], other);
    assert!(later.inject(&after.to_string(), Some(&offer(None))).patch.is_empty());
}

#[test]
fn where_backends_may_be_is_told_to_sidecars_and_changes_none_where_nothing_is_said() {
    let plain = settings();
    let limited = Settings {
        destinations: Destinations {
            allow: vec!["10.1.0.0/16".to_owned(), ":6443".to_owned()],
            deny: vec!["10.0.0.0/8".to_owned()],
        },
        ..plain.clone()
    };
    let args = |settings: &Settings| sidecar::container(settings, Tuning::NOTHING, None)["args"].clone();
    let told = args(&limited);
    let last = &told.as_array().unwrap()[args(&plain).as_array().unwrap().len()..];
    assert_eq!(last, ["--allow-destinations=10.1.0.0/16,:6443", "--deny-destinations=10.0.0.0/8"]);
    assert!(!args(&plain).to_string().contains("destinations"));
    assert_ne!(plain.revision(), limited.revision(), "those that run without are outdated");
    let injection = Injector::try_new(limited, AUTHORITY).unwrap().inject(&pod().to_string(), Some(&offer(None)));
    assert_eq!(injection.reason, Reason::Injected);
}
