//! Pods that lack the sidecar that they asked for, on a real API server: told, with the rights of the chart alone. That they are
//! evicted is shown by unit tests only.
//!
//! No controllers run: what made a pod, and says what a budget allows, is the test.

use serde_json::{Value, json};
use spillway_tests::eventually;
use spillway_tests::servers::kube_api::KubeApi;

use crate::charts::helms;
use crate::injection::{Ground, pod, sidecar};

#[test]
fn a_pod_without_its_sidecar_is_told_with_its_name() {
    const TEST: &str = "a_pod_without_its_sidecar_is_told_with_its_name";
    let Some([_, helm]) = helms(TEST) else { return };
    let Some(api) = KubeApi::of_test(TEST) else { return };
    let stage = Stage { ground: Ground { api } };
    stage.ground.prepare(&helm);
    stage.prepare();
    let replica = stage.ground.replica().that_recreates(&stage.ground.mounted().join("settings.json"));
    let operator = stage.ground.operator(&replica);
    stage.ground.mount();

    // The webhook is away.
    let first = stage.running("web-a", "ReplicaSet", "web");
    assert_eq!(sidecar(&first), None);
    let told = stage.told("SidecarsMissing");
    assert_eq!(told["message"], "pods asked for a sidecar and have none: web-a");
    assert_eq!(stage.status()["sidecars"]["missing"], 1);
    stage.event("SidecarsMissing", "web");
    assert_eq!(stage.uid("web-a"), first["metadata"]["uid"], "and it is there");
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
        let recreate = json!({"spec": {"remediation": "Recreate"}}).to_string();
        let pipeline = ["patch", "monitoringpipeline", "etch-line", "-n", "fab12", "--type", "merge", "-p", &recreate];
        api.must(&pipeline, "");
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

    fn uid(&self, name: &str) -> Value {
        self.ground.api.must(&["get", "pod", name, "-n", "fab12", "-o", "jsonpath={.metadata.uid}"], "").into()
    }
}
