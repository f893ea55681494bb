//! Pods that lack the sidecar that they asked for, on a real API server: told, and evicted as far as a disruption budget allows it,
//! with the rights of the chart alone.
//!
//! No controllers run: what made a pod, and says what a budget allows, is the test.

use serde_json::{Value, json};
use spillway_tests::eventually;
use spillway_tests::helm::NAMESPACE;
use spillway_tests::operator::{Replica, Webhook};
use spillway_tests::servers::kube_api::KubeApi;

use crate::charts::helms;
use crate::injection::{Ground, pod, sidecar};

const EVICTIONS: &str = "spillway_operator_sidecar_evictions_total";

#[test]
fn a_pod_without_its_sidecar_is_told_and_made_anew_once_its_budget_allows_it() {
    const TEST: &str = "a_pod_without_its_sidecar_is_told_and_made_anew_once_its_budget_allows_it";
    let Some([_, helm]) = helms(TEST) else { return };
    let Some(api) = KubeApi::of_test(TEST) else { return };
    let stage = Stage { ground: Ground { api } };
    stage.ground.prepare(&helm);
    stage.prepare();
    let replica = stage.ground.replica().that_recreates(&stage.ground.mounted().join("settings.json"));
    let operator = stage.ground.operator(&replica);
    stage.ground.mount();

    // The webhook is away, and the budget forbids.
    let first = stage.running("web-a", "ReplicaSet", "web");
    assert_eq!(sidecar(&first), None);
    let told = stage.told("SidecarsMissing");
    assert_eq!(told["message"], "pods asked for a sidecar and have none: web-a");
    assert_eq!(stage.status()["sidecars"]["missing"], 1);
    stage.event("SidecarsMissing", "web");
    let counted = |outcome: &str| replica.total(&format!("{EVICTIONS}{{outcome=\"{outcome}\"}}"));
    eventually("the budget forbids it", || (counted("held") > 0).then_some(()));
    assert_eq!((counted("evicted"), stage.uid("web-a")), (0, first["metadata"]["uid"].clone()));

    // It allows one, and what comes back has its sidecar.
    let port = stage.ground.lead_here();
    let rights = stage.ground.api.kubeconfig_of(NAMESPACE, "spillway-webhook").unwrap();
    let webhook = Webhook::start_with_sidecars(&rights, &stage.ground.mounted(), port);
    let asking = pod("fab12", "tried", Some("etch-line"));
    eventually("the API server asks the webhook", || {
        sidecar(&stage.ground.created(&asking, &["--dry-run=server"])).map(drop)
    });
    stage.allow(1);
    stage.gone("web-a");
    let second = stage.running("web-b", "ReplicaSet", "web");
    assert!(sidecar(&second).is_some());
    stage.well();
    assert_eq!(counted("evicted"), 1);
    stage.an_image_of_a_mirror_makes_none_outdated(&replica);

    // The webhook is away again: what comes back without is told, and not evicted again.
    webhook.process.kill();
    stage.running("late-a", "StatefulSet", "late");
    stage.gone("late-a");
    let fourth = stage.running("late-b", "StatefulSet", "late");
    let told = stage.told("SidecarsNotMended");
    let words = "so not evicted again: pods of StatefulSet late";
    assert!(told["message"].as_str().unwrap().ends_with(words), "{told}");
    stage.event("SidecarsNotMended", "late");
    // Another maker's pod goes before it, at its turn: so it had one, too.
    stage.running("other-a", "ReplicaSet", "other");
    stage.gone("other-a");
    // The pod may be gone a moment before its eviction is answered.
    eventually("the eviction is counted", || (counted("evicted") >= 3).then_some(()));
    assert_eq!((counted("evicted"), stage.uid("late-b")), (3, fourth["metadata"]["uid"].clone()));
    operator.stop();
}

struct Stage {
    ground: Ground,
}

impl Stage {
    /// Makes a node, and a budget for the pods of `web`.
    fn prepare(&self) {
        let api = &self.ground.api;
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-1"}});
        let budget = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
            "metadata": {"name": "web", "namespace": "fab12"},
            "spec": {"minAvailable": 1, "selector": {"matchLabels": {"maker": "web"}}}});
        for object in [node, budget] {
            api.must(&["apply", "-f", "-"], &object.to_string());
        }
        self.allow(0);
        let recreate = json!({"spec": {"remediation": "Recreate"}}).to_string();
        let pipeline = ["patch", "monitoringpipeline", "etch-line", "-n", "fab12", "--type", "merge", "-p", &recreate];
        api.must(&pipeline, "");
    }

    /// Says how many pods of the budget may go.
    fn allow(&self, count: u32) {
        let status = json!({"status": {"observedGeneration": 1, "disruptionsAllowed": count, "currentHealthy": 1 + count,
            "desiredHealthy": 1, "expectedPods": 1 + count}});
        let words = ["patch", "pdb", "web", "-n", "fab12", "--subresource", "status", "--type", "merge", "-p"];
        self.ground.api.must(&[&words[..], &[&status.to_string()]].concat(), "");
    }

    /// Makes a pod as what makes it would, and has it run; returns it.
    fn running(&self, name: &str, kind: &str, maker: &str) -> Value {
        let mut asking = pod("fab12", name, Some("etch-line"));
        asking["metadata"]["labels"] = json!({"maker": maker});
        asking["metadata"]["ownerReferences"] = json!([{"apiVersion": "apps/v1", "kind": kind, "name": maker,
            "uid": format!("00000000-0000-0000-0000-{:0>12}", maker.as_bytes()[0]), "controller": true}]);
        asking["spec"]["nodeName"] = json!("node-1");
        asking["spec"]["terminationGracePeriodSeconds"] = json!(0);
        let made = self.ground.created(&asking, &[]);
        let status = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
        let words = ["patch", "pod", name, "-n", "fab12", "--subresource", "status", "--type", "merge", "-p"];
        self.ground.api.must(&[&words[..], &[&status.to_string()]].concat(), "");
        made
    }

    fn status(&self) -> Value {
        let shown = ["get", "monitoringpipeline", "etch-line", "-n", "fab12", "-o", "json"];
        let object: Value = serde_json::from_str(&self.ground.api.must(&shown, "")).unwrap();
        object["status"].clone()
    }

    fn condition(&self) -> Option<Value> {
        let status = self.status();
        status["conditions"].as_array()?.iter().find(|one| one["type"] == "SidecarsCurrent").cloned()
    }

    fn told(&self, reason: &str) -> Value {
        eventually(reason, || self.condition().filter(|one| one["status"] == "False" && one["reason"] == reason))
    }

    fn well(&self) {
        eventually("all is well", || (self.condition().is_none() && self.status()["sidecars"].is_null()).then_some(()));
    }

    /// Waits for the Event of a maker of pods; there is one for a cause.
    fn event(&self, reason: &str, maker: &str) {
        eventually("an Event of the maker", || {
            let listed = self.ground.api.must(&["get", "events.events.k8s.io", "-n", "fab12", "-o", "json"], "");
            let listed: Value = serde_json::from_str(&listed).unwrap();
            let is_one = |event: &&Value| event["reason"] == reason && event["regarding"]["name"] == maker;
            let count = listed["items"].as_array().unwrap().iter().filter(is_one).count();
            assert!(count <= 1, "{listed:#}");
            (count == 1).then_some(())
        });
    }

    fn gone(&self, name: &str) {
        eventually(name, || {
            let left =
                self.ground.api.must(&["get", "pod", name, "-n", "fab12", "--ignore-not-found", "-o", "name"], "");
            left.trim().is_empty().then_some(())
        });
    }

    fn uid(&self, name: &str) -> Value {
        self.ground.api.must(&["get", "pod", name, "-n", "fab12", "-o", "jsonpath={.metadata.uid}"], "").into()
    }

    /// Does to a pod what a webhook of a mirror of registries would.
    fn an_image_of_a_mirror_makes_none_outdated(&self, replica: &Replica) {
        let patch = json!([{"op": "replace", "path": "/spec/initContainers/0/image", "value": "mirror.test/agent:1"}]);
        self.ground.api.must(&["patch", "pod", "web-b", "-n", "fab12", "--type", "json", "-p", &patch.to_string()], "");
        // What comes after it was seen, so was this.
        self.running("seen", "Job", "seen");
        eventually("both are current", || {
            (replica.total("spillway_operator_sidecar_pods{state=\"current\"}") == 2).then_some(())
        });
        assert_eq!(self.condition(), None);
    }
}
