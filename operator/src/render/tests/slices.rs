//! What a node is served, and nothing else.

use spillway_crds::served::SECRET_VALUE_BYTES_MAX;

use super::*;

/// Two tenants who try to get at one another, each with a pod on a node of its own.
fn hostile() -> Stage {
    Stage::of([
        namespace("red", "prod"),
        namespace("blue", "prod"),
        pod("red", "p", "x", "n-red"),
        pod("blue", "p", "x", "n-blue"),
        http("red", "api", 1, "red-secret"),
        http("blue", "api", 1, "blue-secret"),
        pipeline("red", "jobs", "x", "api"),
        pipeline("blue", "jobs", "x", "api"),
        // Names of the other tenant in every place that takes a name or a label.
        pipeline("red", "blue", "x", "api"),
        granted("red", "wants", "lake"),
        http("red", "blue", 1, "blue-secret"),
        pipeline("red", "reads", "x", "blue"),
        secret("red", "red-secret", "1"),
        secret("blue", "blue-secret", "1"),
        Change::Secret(("red".into(), "blue-secret".into()), None),
        secret("spillway-system", "lake", "1"),
        lake(1, "test"),
    ])
}

#[test]
fn no_tenant_is_served_anything_of_another() {
    let mut stage = hostile();
    stage.holding.insert("n-red".into(), [key("MonitoringPipeline red/jobs")].into());
    stage.apply([]);
    let red = format!("{:?}", stage.slice("n-red"));
    assert_eq!(
        stage.served("n-blue"),
        ["Backend blue/api", "MonitoringPipeline blue/jobs"],
        "the other tenant has an object of every kind and may not have any here"
    );
    let blue = &stage.slice("n-blue").configuration;
    assert_eq!(blue.secrets.iter().map(|one| &*one.name).collect::<Vec<_>>(), ["blue-secret"]);
    assert!(!format!("{:?}", stage.slice("n-blue")).contains("red"));
    assert!(!red.contains("Backend blue/") && !red.contains("blue-p"), "{red}");
    assert!(stage.slice("n-red").configuration.secrets.iter().all(|one| one.namespace == "red"));
    assert!(!stage.served("n-red").contains(&"MonitoringPipeline red/wants".to_owned()), "no grant");
    assert_eq!(stage.slice("n-red").pods.pods.iter().map(|pod| &*pod.uid).collect::<Vec<_>>(), ["red-p"]);
}

#[test]
fn a_tenant_is_not_told_of_secrets_of_the_cluster() {
    let mut stage = Stage::of([
        namespace("red", "prod"),
        lake(1, "prod"),
        granted("red", "jobs", "lake"),
        pod("red", "p", "x", "n"),
    ]);
    stage.apply([Change::Secret(("spillway-system".into(), "lake".into()), None)]);
    let why = |stage: &Stage, label: &str| stage.verdict(label).resolved.clone().unwrap_err();
    assert_eq!(
        why(&stage, "MonitoringPipeline red/jobs").message,
        "ClusterBackend lake: a Secret is not there, or may not be read"
    );
    assert_eq!(
        why(&stage, "ClusterBackend lake").message,
        "ClusterBackend lake: Secret spillway-system/lake is not there, or may not be read"
    );
}

#[test]
fn a_node_gets_the_pipelines_that_take_something_of_its_pods() {
    let mut stage = Stage::of([
        node("idle"),
        pod("a", "web", "web", "n1"),
        pod("a", "db", "db", "n2"),
        stdout("a", "out"),
        pipeline("a", "webs", "web", "out"),
        pipeline("a", "dbs", "db", "out"),
    ]);
    assert_eq!(stage.served("n1"), ["Backend a/out", "MonitoringPipeline a/webs"]);
    assert_eq!(stage.served("n2"), ["Backend a/out", "MonitoringPipeline a/dbs"]);
    assert!(stage.served("idle").is_empty() && stage.slice("idle").pods.pods.is_empty());
    // A pod that keeps its logs out takes no pipeline of logs to its node, and one of pushed events all the same.
    let Change::Pod(uid, Some(mut quiet)) = pod("a", "web", "web", "n1") else { unreachable!() };
    Arc::make_mut(&mut quiet.facts).annotations.insert(LOGS_MARK, "false");
    stage.apply([Change::Pod(uid, Some(quiet))]);
    assert!(stage.served("n1").is_empty());
    let pushed = json!({"inputs": [{"name": "e", "type": "Events"}], "routes": [{"name": "r", "backendRefs": [{"name": "out"}]}]});
    stage.apply([object(Kind::MonitoringPipeline, ("a", "pushed"), 1, &pushed)]);
    assert_eq!(stage.served("n1"), ["Backend a/out", "MonitoringPipeline a/pushed"]);
    assert_eq!(stage.slice("n1").pods.pods[0].annotations.get(LOGS_MARK), Some("false"));
}

#[test]
fn what_a_pod_was_stays_for_ten_minutes() {
    let mut stage =
        Stage::of([node("n"), pod("a", "p", "x", "n"), stdout("a", "out"), pipeline("a", "jobs", "x", "out")]);
    let rendered = stage.apply([ended("a", "p")]);
    assert_eq!(rendered.again, Some(Timestamp::from_second(1_800_000_600).unwrap()));
    stage.second = 599;
    stage.apply([]);
    assert_eq!((stage.served("n").len(), stage.slice("n").pods.pods.len()), (2, 1));
    stage.second = 600;
    assert_eq!(stage.apply([]).again, None);
    assert_eq!((stage.served("n").len(), stage.slice("n").pods.pods.len()), (0, 0));
    // So does what selected it by labels that it had.
    stage.apply([pod("a", "p", "x", "n")]);
    stage.apply([pod("a", "p", "y", "n")]);
    assert_eq!((stage.served("n").len(), stage.slice("n").pods.pods[0].labels.get("app").unwrap()), (2, "y"));
    stage.second = 1200;
    stage.apply([]);
    assert!(stage.served("n").is_empty());
}

#[test]
fn a_pipeline_stays_where_events_of_it_are_held() {
    let mut stage = Stage::of([
        node("n"),
        stdout("a", "out"),
        pipeline("a", "jobs", "x", "out"),
        pipeline("b", "jobs", "x", "out"),
        namespace("a", "prod"),
        lake(1, "prod"),
        over_tier("all", "prod", "lake"),
    ]);
    stage.holding.insert(
        "n".into(),
        [key("MonitoringPipeline a/jobs"), key("ClusterMonitoringPipeline all"), key("MonitoringPipeline gone/jobs")]
            .into(),
    );
    stage.apply([]);
    assert_eq!(
        stage.served("n"),
        ["Backend a/out", "ClusterBackend lake", "ClusterMonitoringPipeline all", "MonitoringPipeline a/jobs"]
    );
    stage.holding.clear();
    stage.apply([]);
    assert!(stage.served("n").is_empty());
}

#[test]
fn a_slice_is_the_same_where_nothing_of_it_changed() {
    let mut stage = Stage::of([
        pod("a", "p", "x", "n1"),
        pod("b", "p", "x", "n2"),
        stdout("a", "out"),
        stdout("b", "out"),
        pipeline("a", "jobs", "x", "out"),
        pipeline("b", "jobs", "x", "out"),
    ]);
    let before = [stage.slice("n1").clone(), stage.slice("n2").clone()];
    stage.apply([versioned("b", "jobs", 2, ("x", "out")), stdout("a", "unused")]);
    assert!(Arc::ptr_eq(&before[0], stage.slice("n1")));
    assert!(!Arc::ptr_eq(&before[1], stage.slice("n2")));
    assert_ne!(before[1].configuration.version.hash, stage.slice("n2").configuration.version.hash);
    assert_eq!(stage.slice("n2").objects["MonitoringPipeline b/jobs"].generation, 2);
}

#[test]
fn only_keys_that_are_named_are_served_and_the_hash_knows_versions_alone() {
    let mut stage = Stage::of([
        pod("a", "p", "x", "n"),
        http("a", "api", 1, "s"),
        pipeline("a", "jobs", "x", "api"),
        secret("a", "s", "1"),
        secret("a", "unnamed", "1"),
    ]);
    let served = |stage: &Stage| stage.slice("n").configuration.secrets.clone();
    assert_eq!(served(&stage).len(), 1);
    assert_eq!((&*served(&stage)[0].key, &*served(&stage)[0].value), ("token", "aHVudGVyMg=="));
    let hash = |stage: &Stage| stage.slice("n").configuration.version.hash.clone();
    let first = hash(&stage);
    assert_eq!(first.len(), 32);
    let rotated = stage.apply([secret("a", "s", "2")]);
    assert_ne!(hash(&stage), first);
    assert!(rotated.verdicts.keys().all(|key| &*key.namespace == "a"));
    stage.apply([Change::Secret(("a".into(), "s".into()), None)]);
    assert!(served(&stage).is_empty());
    let why = stage.verdict("Backend a/api").resolved.clone().unwrap_err();
    assert_eq!(
        (why.reason, &*why.message),
        (Reason::SecretNotFound, "Backend a/api: Secret a/s is not there, or may not be read")
    );
    let lacking = SecretData { version: "3".into(), ..SecretData::default() };
    stage.apply([Change::Secret(("a".into(), "s".into()), Some(lacking))]);
    let why = stage.verdict("MonitoringPipeline a/jobs").resolved.clone().unwrap_err();
    assert_eq!(
        (why.reason, &*why.message),
        (Reason::SecretKeyNotFound, "Backend a/api: Secret a/s has no key `token`")
    );
    assert_eq!(stage.renderer.secrets(), [(("a".into(), "s".into()), ["token".to_owned()].into())].into());
    let of_size = |bytes: usize, named: &str| {
        let values = [("token".to_owned(), vec![b'x'; bytes])];
        Change::Secret(("a".into(), "s".into()), Some(SecretData::of("4", values, &[named.to_owned()].into())))
    };
    let why = |stage: &Stage| stage.verdict("Backend a/api").resolved.clone().map_err(|why| (why.reason, why.message));
    stage.apply([of_size(SECRET_VALUE_BYTES_MAX, "token")]);
    assert_eq!((why(&stage), served(&stage).len()), (Ok(()), 1));
    stage.apply([of_size(SECRET_VALUE_BYTES_MAX + 1, "token")]);
    let message =
        "Backend a/api: Secret a/s has 262145 bytes under the key `token`; allowed: at most 262144".to_owned();
    assert_eq!((why(&stage), served(&stage).len()), (Err((Reason::SecretTooLarge, message)), 0));
    stage.apply([of_size(7, "other")]);
    let message = "Backend a/api: Secret a/s is being read".to_owned();
    assert_eq!((why(&stage), served(&stage).len()), (Err((Reason::Pending, message)), 0));
}

#[test]
fn what_newly_names_a_secret_waits_until_that_was_read_and_not_for_ever() {
    let mut stage = Stage::of([
        pod("a", "p", "x", "n"),
        http("a", "api", 1, "s"),
        pipeline("a", "jobs", "x", "api"),
        secret("a", "s", "1"),
        pod("b", "p", "x", "n"),
        stdout("b", "out"),
    ]);
    let served = |stage: &Stage| {
        let names = stage.slice("n").configuration.secrets.iter().map(|one| one.name.clone()).collect::<Vec<_>>();
        (stage.slice("n").objects["Backend a/api"].generation, names.join(" "))
    };
    let named =
        |stage: &Stage| stage.renderer.secrets().into_keys().map(|(_, name)| name.to_string()).collect::<Vec<_>>();
    let rendered = stage.apply([http("a", "api", 2, "t")]);
    assert_eq!(served(&stage), (1, "s".to_owned()));
    assert_eq!(named(&stage), ["s", "t"], "both are read");
    let verdict = stage.verdict("Backend a/api");
    assert_eq!((verdict.served, verdict.resolved.clone().unwrap_err().reason), (Some(1), Reason::Pending));
    assert_eq!(rendered.again, Some(Timestamp::from_second(1_800_000_015).unwrap()));
    // Nobody else waits for it.
    stage.apply([pipeline("b", "jobs", "x", "out")]);
    assert!(stage.served("n").contains(&"MonitoringPipeline b/jobs".to_owned()));
    stage.apply([secret("a", "t", "1")]);
    assert_eq!((served(&stage), named(&stage)), ((2, "t".to_owned()), vec!["t".to_owned()]));
    assert_eq!(stage.verdict("Backend a/api").served, Some(2));
    // One that cannot be read: edits that come meanwhile do not put the end of it off.
    stage.apply([http("a", "api", 3, "u")]);
    stage.second += 14;
    stage.apply([http("a", "api", 4, "u")]);
    assert_eq!(served(&stage), (2, "t".to_owned()));
    stage.second += 1;
    assert_eq!(stage.apply([]).again, None);
    assert_eq!(served(&stage), (4, String::new()));
    assert_eq!(stage.verdict("Backend a/api").resolved.clone().unwrap_err().reason, Reason::Pending);
}

#[test]
fn a_value_is_held_once_for_all_who_are_served_it() {
    let mut changes = vec![http("a", "api", 1, "s"), pipeline("a", "jobs", "x", "api"), secret("a", "s", "1")];
    changes.extend((0..3).map(|number| pod("a", &format!("p{number}"), "x", &format!("n{number}"))));
    let stage = Stage::of(changes);
    let value = |node: &str| stage.slice(node).configuration.secrets[0].value.clone();
    assert!(Arc::ptr_eq(&value("n0"), &value("n1")) && Arc::ptr_eq(&value("n1"), &value("n2")));
}

#[test]
fn what_is_left_out_is_of_the_namespace_that_takes_most() {
    let many = |namespace: &str, count: u32| -> Vec<Change> {
        let pipelines = (0..count).map(|number| pipeline(namespace, &format!("p{number:02}"), "x", "out"));
        [pod(namespace, "p", "x", "n"), stdout(namespace, "out")].into_iter().chain(pipelines).collect()
    };
    let containers: Vec<String> = (0..64).map(|number| format!("container-{number}")).collect();
    let spec = json!({
        "inputs": [{"name": "logs", "type": "ContainerLogs", "containerLogs": {"containers": containers}}],
        "routes": [{"name": "all", "backendRefs": [{"name": "out"}]}],
    });
    let mut stage = Stage::default();
    stage.renderer.limit = 6000;
    // One pipeline that is larger than any other one, and less than all of the other tenant.
    stage.apply([object(Kind::MonitoringPipeline, ("quiet", "large"), 1, &spec), pod("quiet", "p", "x", "n")]);
    stage.apply([stdout("quiet", "out")]);
    stage.apply(many("greedy", 30));
    let quiet = stage.verdict("MonitoringPipeline quiet/large");
    assert!(quiet.accepted.is_ok() && stage.served("n").contains(&"MonitoringPipeline quiet/large".to_owned()));
    let left_out = stage.renderer.verdicts().filter(|(_, verdict)| verdict.accepted.is_err());
    let left_out: BTreeSet<&str> = left_out.map(|(key, _)| &*key.namespace).collect();
    assert_eq!(left_out, ["greedy"].into());
}

#[test]
fn values_of_secrets_count_for_the_size_of_a_slice() {
    let of_size = |name: &str, bytes: usize| {
        let data = SecretData::of("1", [("token".to_owned(), vec![b'x'; bytes])], &["token".to_owned()].into());
        Change::Secret(("a".into(), name.into()), Some(data))
    };
    let mut stage = Stage::default();
    stage.renderer.limit = 7000;
    stage.apply([pod("a", "p", "x", "n"), http("a", "one", 1, "s1"), http("a", "two", 1, "s2")]);
    stage.apply([of_size("s1", 3000), of_size("s2", 1)]);
    stage.apply([pipeline("a", "p1", "x", "one"), pipeline("a", "p2", "x", "two")]);
    assert_eq!(stage.served("n").len(), 4);
    stage.apply([of_size("s2", 3000)]);
    assert_eq!((stage.served("n").len(), stage.slice("n").configuration.secrets.len()), (2, 1));
}

#[test]
fn a_pipeline_of_the_cluster_brings_the_labels_it_speaks_of_and_no_others() {
    let mut stage = Stage::of([
        namespace("a", "prod"),
        namespace("b", "test"),
        namespace("c", "prod"),
        pod("a", "p", "x", "n"),
        pod("b", "p", "x", "n"),
        secret("spillway-system", "lake", "1"),
        lake(1, "none"),
        over_tier("logs", "prod", "lake"),
    ]);
    let tier = |namespace: &str| (namespace.to_owned(), [("tier".to_owned(), "prod".to_owned())].into());
    assert_eq!(stage.served("n"), ["ClusterBackend lake", "ClusterMonitoringPipeline logs"]);
    assert_eq!(stage.slice("n").configuration.namespaces, [tier("a")].into());
    assert_eq!(stage.slice("n").pods.pods.len(), 1);
    stage.apply([namespace("b", "prod")]);
    assert_eq!(stage.slice("n").configuration.namespaces, [tier("a"), tier("b")].into());
    assert_eq!(stage.slice("n").pods.pods.len(), 2);
}

#[test]
fn a_slice_that_would_be_too_large_leaves_out_its_largest_pipelines() {
    let large = |name: &str| {
        let containers: Vec<String> = (0..64).map(|number| format!("container-{number}")).collect();
        let spec = json!({
            "inputs": [{"name": "logs", "type": "ContainerLogs", "containerLogs": {"containers": containers}}],
            "routes": [{"name": "all", "backendRefs": [{"name": "out"}]}],
        });
        object(Kind::MonitoringPipeline, ("a", name), 1, &spec)
    };
    let mut stage = Stage::default();
    stage.renderer.limit = 4000;
    stage.apply([pod("a", "p", "x", "n"), stdout("a", "out"), pipeline("a", "small", "x", "out")]);
    stage.apply([large("l1"), large("l2"), large("l3")]);
    let left_out = |stage: &Stage| -> Vec<String> {
        let is_left_out =
            |verdict: &Verdict| verdict.accepted.as_ref().is_err_and(|why| why.reason == Reason::TooLarge);
        stage
            .renderer
            .verdicts()
            .filter(|(_, verdict)| is_left_out(verdict))
            .map(|(key, _)| key.name.to_string())
            .collect()
    };
    let first = left_out(&stage);
    assert!(!first.is_empty() && first.len() < 3 && !first.contains(&"small".to_owned()), "{first:?}");
    let bytes: usize = stage.slice("n").configuration.manifests.iter().map(|text| text.len()).sum();
    assert!(bytes <= 4000 && stage.served("n").len() == 5 - first.len(), "{bytes}");
    // It stays said when the scope is compiled again, and goes when there is room.
    let rendered = stage.apply([versioned("a", "small", 2, ("x", "out"))]);
    assert_eq!(left_out(&stage), first);
    let told = &rendered.verdicts[&ObjectKey::new(Kind::MonitoringPipeline, "a", &first[0])];
    assert!(told.accepted.is_err());
    stage.apply([gone("MonitoringPipeline a/l1"), gone("MonitoringPipeline a/l2")]);
    assert!(left_out(&stage).is_empty());
}

#[test]
fn a_pod_of_another_namespace_brings_no_pipeline() {
    let stage = Stage::of([
        node("n"),
        node("m"),
        namespace("a", "prod"),
        namespace("b", "test"),
        stdout("a", "out"),
        pipeline("a", "jobs", "x", "out"),
        lake(1, "prod"),
        over_tier("all", "prod", "lake"),
        secret("spillway-system", "lake", "1"),
        // The app that is selected runs in the other namespace only, and on `m` nothing of the tier runs at all.
        pod("a", "p1", "other", "n"),
        pod("b", "p2", "x", "n"),
        pod("b", "p3", "x", "m"),
    ]);
    assert_eq!(stage.served("n"), ["ClusterBackend lake", "ClusterMonitoringPipeline all"]);
    assert!(stage.served("m").is_empty() && stage.slice("m").configuration.secrets.is_empty());
}

#[test]
fn a_node_knows_the_keys_of_tokens_where_its_pods_push_events() {
    let keys = |text: &str| Arc::new(TokenKeys { issuer: "https://cluster.test".into(), keys: text.into() });
    let pushed = json!({
        "inputs": [{"name": "pushed", "type": "Events", "events": {"podSelector": {"matchLabels": {"app": "web"}}}}],
        "routes": [{"name": "all", "backendRefs": [{"name": "out"}]}],
    });
    let mut stage = Stage::of([
        Change::TokenKeys(keys("one")),
        pod("a", "web", "web", "n1"),
        pod("a", "db", "db", "n2"),
        stdout("a", "out"),
        object(Kind::MonitoringPipeline, ("a", "pushed"), 1, &pushed),
        pipeline("a", "logs", "db", "out"),
    ]);
    assert_eq!(stage.served("n1"), ["Backend a/out", "MonitoringPipeline a/pushed"], "its selector takes a pod there");
    assert_eq!(stage.served("n2"), ["Backend a/out", "MonitoringPipeline a/logs"]);
    let known = |stage: &Stage, node: &str| {
        let configuration = &stage.slice(node).configuration;
        (configuration.token_keys.clone().map(|keys| keys.keys.clone()), configuration.version.hash.clone())
    };
    let (first, hash) = known(&stage, "n1");
    assert_eq!(first.as_deref(), Some("one"));
    let other = known(&stage, "n2");
    assert_eq!(other.0, None);
    stage.apply([Change::TokenKeys(keys("two"))]);
    let (second, after) = known(&stage, "n1");
    assert_eq!(second.as_deref(), Some("two"));
    assert_ne!(after, hash, "a rotation is a new configuration");
    assert_eq!(known(&stage, "n2"), other, "and none where nobody pushes");
}

#[test]
fn a_pod_that_ended_is_told_of_as_such() {
    let mut stage = Stage::of([pod("a", "web", "web", "n"), stdout("a", "out"), pipeline("a", "logs", "web", "out")]);
    let told = |stage: &Stage| {
        let pods = &stage.slice("n").pods;
        (pods.pods.iter().map(|pod| (pod.name.clone(), pod.has_ended)).collect::<Vec<_>>(), pods.hash.clone())
    };
    let (before, hash) = told(&stage);
    assert_eq!(before, [("web".into(), false)]);
    stage.apply([pod("a", "web", "other", "n")]);
    assert_eq!(told(&stage).0, [("web".into(), false)], "it has other labels, and is there");
    stage.apply([ended("a", "web")]);
    let (after, other) = told(&stage);
    assert_eq!(after, [("web".into(), true)]);
    assert_ne!(other, hash);
    // One that is still there, and whose containers ended, is told of the same way.
    let Change::Pod(uid, Some(mut done)) = pod("a", "web", "web", "n") else { panic!("a pod") };
    stage.apply([Change::Pod(uid.clone(), Some(done.clone()))]);
    assert_eq!(told(&stage), (before, hash));
    Arc::make_mut(&mut done.facts).has_ended = true;
    stage.apply([Change::Pod(uid, Some(done))]);
    assert_eq!(told(&stage), (after, other));
}

#[test]
fn a_pod_that_says_it_has_the_uid_of_another_one_does_not_hide_it() {
    let mut stage = Stage::of([
        stdout("victim", "out"),
        pipeline("victim", "logs", "web", "out"),
        stdout("evil", "out"),
        pipeline("evil", "logs", "web", "out"),
        pod("victim", "web", "web", "n"),
    ]);
    let Change::Pod(uid, Some(mut evil)) = pod("evil", "web", "web", "n") else { panic!("a pod") };
    Arc::make_mut(&mut evil.facts).uid = "victim-web".into();
    stage.apply([Change::Pod(uid, Some(evil))]);
    let told: Vec<_> = stage.slice("n").pods.pods.iter().map(|pod| (&*pod.uid, &*pod.namespace)).collect();
    assert_eq!(told, [("victim-web", "evil"), ("victim-web", "victim")]);
}
