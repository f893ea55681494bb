//! A pod that asks for it comes back with its sidecar: the webhook and its configuration of the chart on a real API server.
//!
//! As in [`webhook`](crate::webhook), only where the Service leads is of the test, and what a kubelet does with what is mounted.
//! No node runs: pods are objects. They name their account, as the plugin of API servers does that this one is without.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};
use spillway_tests::agent::program;
use spillway_tests::eventually;
use spillway_tests::helm::{Helm, NAMESPACE};
use spillway_tests::operator::{Operator, Replica, Webhook};
use spillway_tests::servers::kube_api::KubeApi;
use spillway_tests::servers::process::free_port;

use crate::charts::helms;

/// The name of the chart's configuration.
const CONFIGURATION: &str = "spillway-spillway-system";

#[test]
fn a_pod_that_asks_has_a_sidecar_and_no_other_pod_costs_a_call() {
    const TEST: &str = "a_pod_that_asks_has_a_sidecar_and_no_other_pod_costs_a_call";
    let Some([_, helm]) = helms(TEST) else { return };
    let Some(api) = KubeApi::of_test(TEST) else { return };
    let ground = Ground { api };
    ground.prepare(&helm);
    let operator = ground.operator(&ground.replica());
    ground.mount();
    let port = ground.lead_here();
    let rights = ground.api.kubeconfig_of(NAMESPACE, "spillway-webhook").unwrap();
    let webhook = Webhook::start_with_sidecars(&rights, &ground.mounted(), port);
    ground.a_pod_that_asks_has_its_sidecar();
    ground.what_is_asked_wrongly_is_said();
    ground.a_namespace_asks_for_its_pods();
    ground.a_sidecar_keeps_within_a_limit_range();
    ground.the_command_line_makes_the_same();
    println!("1,000 pods that do not ask: {} calls", ground.a_thousand_others_cost_nothing(&webhook));
    webhook.process.kill();
    ground.without_it_pods_are_created_as_they_are();
    operator.stop();
}

/// An API server with what the chart installs where it gives sidecars.
pub(crate) struct Ground {
    /// The API server.
    pub(crate) api: KubeApi,
}

impl Ground {
    pub(crate) fn prepare(&self, helm: &Helm) {
        let values = "injection.enabled=true,injection.recreate.enabled=true";
        let text = helm.render(self.api.folder(), &["--no-hooks", "--set", values]).unwrap();
        assert!(text.ok, "{}", text.err);
        self.api.must(&["create", "namespace", NAMESPACE], "");
        // Kinds first: what is of them is not in the chart.
        self.api.must(&["apply", "--server-side", "-f", "-"], &text.out);
        self.api.must(&["wait", "--for=condition=Established", "--timeout=60s", "crd", "--all"], "");
        for namespace in ["fab12", "fab13", "fab14"] {
            self.api.must(&["create", "namespace", namespace], "");
        }
        self.api.must(&["label", "namespace", "fab13", "spillway.dev/inject-default=etch-line"], "");
        for namespace in ["fab12", "fab13", "fab14"] {
            let pipeline = json!({"apiVersion": "spillway.dev/v1alpha1", "kind": "MonitoringPipeline",
                "metadata": {"name": "etch-line", "namespace": namespace},
                "spec": {"inputs": [{"name": "pushed", "type": "Events"}],
                    "routes": [{"name": "all", "backendRefs": [{"name": "out"}]}]}});
            self.api.must(&["apply", "-f", "-"], &pipeline.to_string());
        }
    }

    /// Returns a replica with the rights of the chart.
    pub(crate) fn replica(&self) -> Replica {
        let rights = self.api.kubeconfig_of(NAMESPACE, "spillway-controller").unwrap();
        Replica::new(&rights, "first").with_webhook(CONFIGURATION).that_gives_sidecars()
    }

    /// Starts it and waits until API servers trust the webhook.
    pub(crate) fn operator(&self, replica: &Replica) -> Operator {
        let operator = replica.start();
        let form = "jsonpath={.webhooks[*].clientConfig.caBundle}";
        eventually("API servers have our CA for both webhooks", || {
            let bundles = self.api.must(&["get", "mutatingwebhookconfiguration", CONFIGURATION, "-o", form], "");
            (bundles.split(' ').filter(|bundle| bundle.len() > 500).count() == 2).then_some(())
        });
        operator
    }

    /// Returns the folder of what the webhook mounts.
    pub(crate) fn mounted(&self) -> PathBuf {
        self.api.folder().join("mounted")
    }

    /// Does with what the webhook mounts what a kubelet does.
    pub(crate) fn mount(&self) {
        fs::create_dir_all(self.mounted()).unwrap();
        let value = |words: &[&str]| {
            let said = self.api.said(words, "");
            (said.ok && !said.out.is_empty()).then_some(said.out)
        };
        for key in ["tls.crt", "tls.key"] {
            let form = format!("go-template={{{{index .data \"{key}\" | base64decode}}}}");
            let words = ["get", "secret", "spillway-webhook-tls", "-n", NAMESPACE, "-o", &form];
            fs::write(self.mounted().join(key), eventually("the certificate", || value(&words))).unwrap();
        }
        for (name, key) in [("spillway-webhook-sidecars", "settings.json"), ("spillway-ca", "ca.crt")] {
            let form = format!("go-template={{{{index .data \"{key}\"}}}}");
            let words = ["get", "configmap", name, "-n", NAMESPACE, "-o", &form];
            fs::write(self.mounted().join(key), eventually(name, || value(&words))).unwrap();
        }
    }

    /// Lets the Service lead to a port of this machine.
    pub(crate) fn lead_here(&self) -> u16 {
        let port = free_port();
        self.api.must(&["delete", "service", "spillway-webhook", "-n", NAMESPACE], "");
        let service = json!({"apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "spillway-webhook", "namespace": NAMESPACE},
            "spec": {"type": "ExternalName", "externalName": "localhost"}});
        self.api.must(&["create", "-f", "-"], &service.to_string());
        let to = |place: usize| json!({"op": "replace", "path": format!("/webhooks/{place}/clientConfig/service/port"), "value": port});
        let patch = json!([to(0), to(1)]).to_string();
        self.api.must(&["patch", "mutatingwebhookconfiguration", CONFIGURATION, "--type", "json", "-p", &patch], "");
        port
    }

    pub(crate) fn created(&self, pod: &Value, more: &[&str]) -> Value {
        let said = self.api.must(&[&["create", "-f", "-", "-o", "json"], more].concat(), &pod.to_string());
        serde_json::from_str(&said).unwrap()
    }

    fn a_pod_that_asks_has_its_sidecar(&self) {
        let asking = pod("fab12", "asking", Some("etch-line"));
        let dry = ["--dry-run=server"];
        eventually("the API server asks the webhook", || sidecar(&self.created(&asking, &dry)).map(drop));
        let tried = self.created(&asking, &dry);
        let made = self.created(&asking, &[]);
        assert_eq!(made["spec"], tried["spec"]);
        let sidecar = sidecar(&made).unwrap();
        assert_eq!((&sidecar["name"], &sidecar["restartPolicy"]), (&json!("spillway"), &json!("Always")));
        assert_eq!(made["status"]["qosClass"], "BestEffort");
        let url = json!([{"name": "SPILLWAY_URL", "value": "http://127.0.0.1:8411"}]);
        assert_eq!(made["spec"]["containers"][0]["env"], url);
        let amounts = json!({"cpu": "1", "memory": "64Mi"});
        for (name, resources, class) in [
            ("burstable", json!({"requests": amounts}), "Burstable"),
            ("guaranteed", json!({"limits": amounts}), "Guaranteed"),
        ] {
            let mut asking = pod("fab12", name, Some("etch-line"));
            asking["spec"]["containers"][0]["resources"] = resources;
            let made = self.created(&asking, &[]);
            assert_eq!((&made["status"]["qosClass"], self::sidecar(&made).is_some()), (&json!(class), true));
        }
    }

    fn what_is_asked_wrongly_is_said(&self) {
        let said = self.api.said(&["create", "-f", "-"], &pod("fab12", "wrong", Some("etch-lin")).to_string());
        let words = "Warning: no sidecar: the namespace has no pipeline `etch-lin`; did you mean `etch-line`?";
        assert!(said.ok && said.err.contains(words), "{}", said.err);
        let stands = self.api.must(&["get", "pod", "wrong", "-n", "fab12", "-o", "json"], "");
        assert_eq!(sidecar(&serde_json::from_str(&stands).unwrap()), None);
    }

    fn a_namespace_asks_for_its_pods(&self) {
        let of = |name: &str, asks: Option<&str>| sidecar(&self.created(&pod("fab13", name, asks), &[])).is_some();
        assert!(of("silent", None) && of("asking", Some("etch-line")));
        assert!(!of("never", Some("false")));
    }

    /// Amounts that it gives to containers decide over the class of the pod, and the sidecar is brought within its bounds.
    fn a_sidecar_keeps_within_a_limit_range(&self) {
        let limits = json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "small", "namespace": "fab14"},
            "spec": {"limits": [{"type": "Container", "default": {"cpu": "100m", "memory": "64Mi"},
                "defaultRequest": {"cpu": "50m", "memory": "32Mi"}, "max": {"cpu": "150m", "memory": "128Mi"},
                "maxLimitRequestRatio": {"cpu": "2"}}]}});
        self.api.must(&["apply", "-f", "-"], &limits.to_string());
        let within = |made: &Value| sidecar(made).is_some_and(|one| one["resources"]["limits"]["cpu"] == "150m");
        // The webhook hears of it a moment later; until then the API server refuses such pods.
        let made = (0..50).find_map(|number| {
            let asking = pod("fab14", &format!("asking-{number}"), Some("etch-line"));
            let said = self.api.said(&["create", "-f", "-", "-o", "json"], &asking.to_string());
            serde_json::from_str::<Value>(&said.out).ok().filter(within)
        });
        let made = made.expect("a pod with a sidecar within the limits");
        assert_eq!(made["status"]["qosClass"], "Burstable");
        let resources = &sidecar(&made).unwrap()["resources"];
        assert_eq!(resources["limits"], json!({"cpu": "150m", "memory": "128Mi"}));
        assert_eq!(resources["requests"]["cpu"], "75m");
    }

    /// What the command line prints is created as it is, and has what the webhook gives.
    fn the_command_line_makes_the_same(&self) {
        let manifest = self.api.folder().join("pod.json");
        fs::write(&manifest, pod("fab12", "offline", Some("etch-line")).to_string()).unwrap();
        let mut command = Command::new(program("kubectl-spillway"));
        command.arg("inject").arg("-f").arg(&manifest).arg("--settings").arg(self.mounted().join("settings.json"));
        command.arg("--operator-ca").arg(self.mounted().join("ca.crt")).env("KUBECONFIG", self.api.kubeconfig());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let offline: Value = serde_json::from_slice(&output.stdout).unwrap();
        let made = self.created(&offline, &[]);
        let asked = self.created(&pod("fab12", "online", Some("etch-line")), &[]);
        assert_eq!(made["spec"], asked["spec"]);
        assert_eq!(made["metadata"]["annotations"], asked["metadata"]["annotations"]);
    }

    /// Returns how many calls they cost, as the API server counts.
    fn a_thousand_others_cost_nothing(&self, webhook: &Webhook) -> u64 {
        let calls = || {
            let metrics = self.api.must(&["get", "--raw", "/metrics"], "");
            let lines = metrics.lines().filter(|line| {
                line.starts_with("apiserver_admission_webhook_admission_duration_seconds_count{")
                    && line.contains("pods.spillway.dev")
            });
            lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum::<u64>()
        };
        let (before, reviews) = (calls(), webhook.pods());
        assert!(before > 5 && reviews > 5, "{before}, {reviews}");
        let pods: Vec<_> = (0..1000).map(|number| pod("fab12", &format!("other-{number}"), None)).collect();
        let list = json!({"apiVersion": "v1", "kind": "List", "items": pods});
        self.api.must(&["create", "-f", "-"], &list.to_string());
        let after = calls();
        assert_eq!((after, webhook.pods()), (before, reviews));
        after - before
    }

    fn without_it_pods_are_created_as_they_are(&self) {
        let made = self.created(&pod("fab12", "later", Some("etch-line")), &[]);
        assert_eq!(sidecar(&made), None);
    }
}

pub(crate) fn pod(namespace: &str, name: &str, asks: Option<&str>) -> Value {
    let annotations = asks.map(|name| json!({"spillway.dev/inject": name}));
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace, "annotations": annotations},
        "spec": {"serviceAccountName": "default", "containers": [{"name": "app", "image": "example.test/app:1"}]}})
}

/// Returns the sidecar of a pod, which comes before every other container.
pub(crate) fn sidecar(pod: &Value) -> Option<Value> {
    pod["spec"]["initContainers"].get(0).cloned()
}
