//! The charts in the hands of Helm 3 and Helm 4, without a cluster: what they render, and what they refuse.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use spillway_tests::helm::{Helm, PACKAGE, kustomize_base, root};
use spillway_tests::servers::skip;

/// Values that differ in what they make: the name of each, and how they are given.
pub(crate) const VARIANTS: [(&str, &[&str]); 7] = [
    ("none", &[]),
    ("sidecars", &["--set", "injection.enabled=true,injection.runAsUser=1000,agent.destinations.allow={10.1.0.0/16}"]),
    ("everything", &EVERYTHING),
    ("little", &LITTLE),
    (
        "secrets of namespaces",
        &["--set", "secrets.access=Namespaces", "--set", "secrets.namespaces={kube-public,default}"],
    ),
    ("no secrets", &["--set", "secrets.access=Namespaces"]),
    ("own accounts", &["--set", "rbac.create=false,rbac.aggregate=false", "--set", OWN_ACCOUNTS]),
];

const EVERYTHING: [&str; 22] = [
    "--set",
    "agent.destinations.allow={10.1.0.0/16,:6443},agent.destinations.deny={10.0.0.0/8,fd00::/8}",
    "--set",
    "monitoring.prometheusRule.enabled=true,monitoring.dashboard.enabled=true,monitoring.labels.release=prometheus",
    "--set",
    "global.imageRegistry=registry.example.test,global.imagePullSecrets[0]=pull,global.imagePullSecrets[1].name=more",
    "--set",
    "commonLabels.team=platform,crds.labels.team=platform,crds.annotations.note=ours,agent.seLinuxType=container_logreader_t",
    "--set",
    "agent.image.digest=sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef,controller.image.tag=9.9.9",
    "--set-json",
    r#"agent.extraVolumes=[{"name":"x","emptyDir":{}}]"#,
    "--set-json",
    r#"agent.extraVolumeMounts=[{"name":"x","mountPath":"/x"}]"#,
    "--set-json",
    r#"controller.extraEnv=[{"name":"HTTPS_PROXY","value":"http://proxy.example.test:3128"}]"#,
    "--set-json",
    r#"controller.tolerations=[{"key":"infra","operator":"Exists"}]"#,
    "--set",
    "agent.podAnnotations.x=y,controller.podLabels.x=y,agent.extraArgs={--threads=2},controller.priorityClassName=system-cluster-critical",
    "--set",
    "agent.serviceAccount.annotations.role=x,controller.serviceAccount.name=named,webhook.serviceAccount.name=hook",
];

const LITTLE: [&str; 4] = [
    "--set",
    "controller.replicas=1,networkPolicy.enabled=false,agent.everyNode=false,controller.topologySpread.enabled=false,\
     webhook.enabled=false,secrets.authorPolicy.enabled=false",
    "--set",
    "agent.priorityClassName=,fullnameOverride=a-name-as-long-as-names-of-this-may-be",
];

/// What pods that send events need: the flags of both programs, the right to keep a certificate, its mount, a Service that stays
/// on the node, and a way for any pod through the policy of the network.
const DOOR: [&str; 7] = [
    "- --door=0.0.0.0:8411",
    "- --agent-service=",
    "resourceNames: [spillway-agent-tls]",
    "{secretName: spillway-agent-tls, defaultMode: 0400}",
    "internalTrafficPolicy: Local",
    "- {name: https, port: 8411, targetPort: events, protocol: TCP}",
    "  - ports:\n    - {port: events, protocol: TCP}\n",
];

/// What pods that ask for a sidecar need: flags, settings, the right to know pipelines and to keep the authority, and that nobody
/// else's pod is looked at or held up.
const SIDECARS: [&str; 13] = [
    "- --sidecars=/etc/spillway/sidecars/settings.json",
    "- --sidecar-ca=/etc/spillway/ca/ca.crt",
    "- --webhook-pods-configuration=spillway-spillway-system",
    "resources: [backends, clusterbackends, monitoringpipelines]",
    "resources: [namespaces, limitranges]",
    "resources: [validatingwebhookconfigurations, mutatingwebhookconfigurations]",
    "\"operator\": \"https://spillway-controller.spillway-system.svc:8443\"",
    "\"runAsUser\": 1000,",
    "\"destinations\": {\"allow\":[\"10.1.0.0/16\"],\"deny\":[]}",
    "name: annotated.pods.spillway.dev",
    "{key: spillway.dev/inject-default, operator: Exists}",
    "operator: NotIn, values: [kube-system, kube-node-lease, \"spillway-system\"]}",
    "reinvocationPolicy: IfNeeded",
];

const OWN_ACCOUNTS: &str = "controller.serviceAccount.create=false,webhook.serviceAccount.create=false,agent.serviceAccount.create=false,agent.serviceAccount.name=ours";

/// Returns both versions of Helm, or notes that the test cannot run.
pub(crate) fn helms(test: &str) -> Option<[Helm; 2]> {
    let found = Helm::installed();
    if found.is_none() {
        skip(test, &(PACKAGE.hindrance)(&PACKAGE).unwrap_or_else(|| "Helm is not built".to_owned()));
    }
    found
}

fn rendered(helm: &Helm, home: &Path, values: &[&str]) -> String {
    let said = helm.render(home, values).unwrap();
    assert!(said.ok, "Helm {} with {values:?}: {}", helm.major, said.err);
    said.out
}

#[test]
fn charts_pass_the_linters_without_a_warning() {
    let Some(helms) = helms("charts_pass_the_linters_without_a_warning") else { return };
    let home = tempfile::tempdir().unwrap();
    for helm in &helms {
        for chart in ["charts/spillway", "charts/spillway-crds"] {
            let said = helm.call(home.path(), None, &["lint", "--strict", chart]).unwrap();
            assert!(said.ok && !said.out.contains("[WARNING]"), "{}{}", said.out, said.err);
        }
    }
}

#[test]
fn two_renderings_are_the_same_bytes_and_both_versions_of_helm_agree() {
    let Some([old, new]) = helms("two_renderings_are_the_same_bytes_and_both_versions_of_helm_agree") else { return };
    let (home, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let documents = |text: &str| {
        let lines = |document: &str| document.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect();
        let mut documents: Vec<Vec<String>> = text.split("\n---\n").map(lines).collect();
        documents.sort();
        documents
    };
    for (name, values) in VARIANTS {
        let first = rendered(&old, home.path(), values);
        assert!(first == rendered(&old, other.path(), values), "{name}");
        // They differ in empty lines between documents, and in when webhooks have their turn.
        assert_eq!(documents(&first), documents(&rendered(&new, home.path(), values)), "{name}");
    }
}

#[test]
fn a_value_that_is_not_understood_is_refused_by_its_name() {
    let Some(helms) = helms("a_value_that_is_not_understood_is_refused_by_its_name") else { return };
    let home = tempfile::tempdir().unwrap();
    let wrong = [
        ("agent.pirorityClassName=x", "pirorityClassName"),
        ("agnet.enabled=false", "agnet"),
        ("injection.enabled=true,webhook.enabled=false", "needs webhook.enabled: true"),
        ("injection.enabled=true,agent.enabled=false", "needs agent.enabled: true"),
        ("injection.enabled=true,agent.events.enabled=false", "needs agent.events.enabled: true"),
        ("controller.image.digets=x", "digets"),
        ("controller.replicas=0", "replicas"),
        ("controller.replicas=two", "replicas"),
        ("agent.image.digest=sha256:12", "digest"),
        ("agent.stateDirectory=/etc", "stateDirectory"),
        ("agent.stateDirectory=/", "stateDirectory"),
        ("agent.podLogs=var/log", "podLogs"),
        ("agent.drainSeconds=-1", "drainSeconds"),
        ("agent.destinations.allow={example.test}", "allow"),
        ("agent.destinations.deny={:80}", "deny"),
        ("secrets.access=All", "access"),
        ("secrets.namespaces={a}", "namespaces"),
        ("monitoring.interval=soon", "interval"),
        ("crds.kepe=false", "kepe"),
        ("webhook.timeoutSeconds=30", "timeoutSeconds"),
        ("secrets.authorPolicy=false", "authorPolicy"),
    ];
    for helm in &helms {
        for (value, named) in wrong {
            let said = helm.render(home.path(), &["--set", value]).unwrap();
            assert!(!said.ok && said.err.contains(named), "Helm {}, {value}: {}", helm.major, said.err);
        }
    }
}

#[test]
fn no_rendering_asks_for_a_right_that_is_too_much() {
    let Some([helm, _]) = helms("no_rendering_asks_for_a_right_that_is_too_much") else { return };
    let home = tempfile::tempdir().unwrap();
    let never = [
        "\"*\"",
        "'*'",
        "[*",
        "nodes/proxy",
        "pods/exec",
        "pods/attach",
        "escalate",
        "impersonate",
        "serviceaccounts/token",
        "privileged: true",
        "hostPID",
        "hostNetwork",
        "hostIPC",
        "hostPort",
        "SYS_ADMIN",
        "cluster-admin",
        "caBundle:",
        "kind: Secret\n",
        "docker.sock",
        "containerd.sock",
        "allowPrivilegeEscalation: true",
    ];
    for (name, values) in VARIANTS {
        // The texts of our kinds speak of anything.
        let text = rendered(&helm, home.path(), &[values, &["--set", "crds.enabled=false"]].concat());
        for word in never {
            assert!(!text.contains(word), "{name}: {word}");
        }
        let paths: BTreeSet<_> = text.lines().filter(|line| line.contains("hostPath")).collect();
        assert_eq!(paths.len(), 2, "{name}: {paths:?}");
        let rules: Vec<_> =
            text.split("- apiGroups:").skip(1).map(|rest| rest.split("\n---").next().unwrap()).collect();
        let rules: Vec<_> = rules.into_iter().filter(|rule| rule.contains("secrets")).collect();
        assert!(!rules.is_empty() || name == "own accounts", "{name}");
        assert!(rules.iter().all(|rule| !rule.contains("list") && !rule.contains("watch")), "{name}: {rules:?}");
    }
}

#[test]
fn values_give_what_they_say() {
    let Some([helm, _]) = helms("values_give_what_they_say") else { return };
    let home = tempfile::tempdir().unwrap();
    let everything = rendered(&helm, home.path(), &EVERYTHING);
    for line in [
        "image: \"registry.example.test/spillway/agent@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\"",
        "image: \"registry.example.test/spillway/operator:9.9.9\"",
        "- name: \"pull\"",
        "- name: \"more\"",
        "seLinuxOptions: {type: \"container_logreader_t\"}",
        "- \"--threads=2\"",
        "- --allow-destinations=10.1.0.0/16,:6443",
        "- --deny-destinations=$(NODE_ADDRESSES),10.0.0.0/8,fd00::/8",
        "team: platform",
        "helm.sh/resource-policy: keep",
        "kind: PrometheusRule",
        "serviceAccountName: named",
        "serviceAccountName: hook",
    ] {
        assert!(everything.contains(line), "{line}");
    }
    let monitors = ["--set", "monitoring.serviceMonitor.enabled=true,monitoring.podMonitor.enabled=true"];
    let monitors = rendered(&helm, home.path(), &monitors);
    assert!(monitors.contains("kind: ServiceMonitor") && monitors.contains("kind: PodMonitor"));
    let little = rendered(&helm, home.path(), &LITTLE);
    for kind in [
        "kind: NetworkPolicy",
        "kind: PodDisruptionBudget",
        "priorityClassName",
        "tolerations:",
        "component: webhook",
        "--webhook",
        "admissionregistration",
    ] {
        assert!(!little.contains(kind), "{kind}");
    }
    let no_kinds = rendered(&helm, home.path(), &["--set", "crds.enabled=false"]);
    assert!(!no_kinds.contains("kind: CustomResourceDefinition"));
    let no_door = rendered(&helm, home.path(), &["--set", "agent.events.enabled=false"]);
    for line in DOOR {
        assert!(everything.contains(line) && !no_door.contains(line), "{line}");
    }
    let sidecars = rendered(&helm, home.path(), VARIANTS[1].1);
    for line in SIDECARS {
        assert!(sidecars.contains(line) && !everything.contains(line), "{line}");
    }
    let gone = rendered(&helm, home.path(), &["--set", "crds.keep=false"]);
    assert!(gone.contains("kind: CustomResourceDefinition") && !gone.contains("helm.sh/resource-policy"));
}

#[test]
fn the_kustomize_base_is_what_the_chart_renders() {
    let Some([helm, _]) = helms("the_kustomize_base_is_what_the_chart_renders") else { return };
    let home = tempfile::tempdir().unwrap();
    let committed = fs::read_to_string(root().join("charts/kustomize/spillway.yaml")).unwrap();
    assert!(committed == kustomize_base(&helm, home.path()).unwrap(), "run `cargo xtask generate`");
}

#[test]
fn versions_of_charts_and_programs_go_together() {
    let read = |path: &str| fs::read_to_string(root().join(path)).unwrap();
    let version = format!("version: {}\n", env!("CARGO_PKG_VERSION"));
    for chart in ["charts/spillway/Chart.yaml", "charts/spillway-crds/Chart.yaml"] {
        let text = read(chart);
        // That of the chart, that of the dependency and `appVersion`.
        let versions = text.lines().filter(|line| line.trim_start().starts_with("version: "));
        assert!(versions.clone().count() > 0);
        assert!(versions.into_iter().all(|line| line.trim() == version.trim()), "{chart}");
        assert!(text.contains(&format!("appVersion: {}", version.trim_start_matches("version: "))), "{chart}");
    }
}
