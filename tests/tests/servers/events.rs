//! Events about objects of ours on a real API server: one for each cause, with the rights of the chart alone.

use std::path::Path;

use serde_json::Value;
use spillway_tests::eventually;
use spillway_tests::helm::{NAMESPACE, root};
use spillway_tests::operator::{Operator, Replica};
use spillway_tests::servers::kube_api::KubeApi;

#[test]
fn a_bad_pipeline_is_one_event_however_often_it_is_looked_at() {
    const TEST: &str = "a_bad_pipeline_is_one_event_however_often_it_is_looked_at";
    let Some(api) = KubeApi::of_test(TEST) else { return };
    let ground = Ground { api };
    let rights = ground.prepare();
    let operator = start(&rights, "first");
    ground.apply(BACKEND);
    ground.apply(&pipeline("jobs", BAD));
    let event = ground.only_event_of("jobs");
    assert_eq!((&event["type"], &event["reason"]), (&"Warning".into(), &"Invalid".into()), "{event:#}");
    let (note, regarding) = (event["note"].as_str().unwrap(), &event["regarding"]);
    assert!(note.contains("spec.routes[0].match") && note.contains("origin.nope"), "{note}");
    assert_eq!(regarding["kind"], "MonitoringPipeline", "{regarding}");
    assert_eq!(event["reportingController"], "spillway.dev/operator");
    let shown = ground.api.must(&["describe", "monitoringpipeline", "jobs", "-n", "fab12"], "");
    assert!(shown.split("\nEvents:").nth(1).is_some_and(|events| events.contains("origin.nope")), "{shown}");

    // Another replica looks at everything anew, and the object itself is touched.
    operator.kill();
    let operator = start(&rights, "second");
    ground.api.must(&["label", "monitoringpipeline", "jobs", "-n", "fab12", "touched=yes"], "");
    ground.apply(&pipeline("later", BAD));
    ground.only_event_of("later");
    assert_eq!(ground.only_event_of("jobs"), event, "nothing was told again");

    // Mended and broken in the same way: the same Event counts.
    ground.apply(&pipeline("jobs", ""));
    ground.api.must(&["wait", "--for=condition=Ready", "monitoringpipeline/jobs", "-n", "fab12", "--timeout=60s"], "");
    assert_eq!(ground.only_event_of("jobs"), event, "what is well is not told");
    ground.apply(&pipeline("jobs", BAD));
    eventually("it is counted", || (ground.only_event_of("jobs")["series"]["count"] == 2).then_some(()));
    operator.stop();
}

const BAD: &str = r#"match: "origin.nope == 1", "#;

const BACKEND: &str = "apiVersion: spillway.dev/v1alpha1\nkind: Backend\nmetadata: {name: archive, namespace: fab12}\n\
                       spec: {type: Stdout}\n";

fn pipeline(name: &str, condition: &str) -> String {
    format!(
        "apiVersion: spillway.dev/v1alpha1\nkind: MonitoringPipeline\nmetadata: {{name: {name}, namespace: fab12}}\nspec:\n  \
         inputs: [{{name: pushed, type: Events}}]\n  routes:\n  - {{name: all, {condition}backendRefs: [{{name: archive}}]}}\n"
    )
}

fn start(rights: &Path, identity: &str) -> Operator {
    let mut operator = Replica::new(rights, identity).start();
    operator.wait_until_leading();
    operator
}

struct Ground {
    api: KubeApi,
}

impl Ground {
    /// Makes what an installation makes; returns the rights of the controller.
    fn prepare(&self) -> std::path::PathBuf {
        let base = root().join("charts/kustomize").display().to_string();
        self.api.must(&["apply", "--server-side", "-k", &base], "");
        // None runs here: it would say at the apply what is to be told later.
        self.api.must(&["delete", "validatingwebhookconfigurations", "--all"], "");
        self.api.must(&["wait", "--for=condition=Established", "--timeout=60s", "crd", "--all"], "");
        self.api.must(&["create", "namespace", "fab12"], "");
        self.api.kubeconfig_of(NAMESPACE, "spillway-controller").unwrap()
    }

    fn apply(&self, manifest: &str) {
        self.api.must(&["apply", "-f", "-"], manifest);
    }

    fn events(&self) -> Vec<Value> {
        let listed = self.api.must(&["get", "events.events.k8s.io", "-n", "fab12", "-o", "json"], "");
        let listed: Value = serde_json::from_str(&listed).unwrap();
        listed["items"].as_array().unwrap().clone()
    }

    /// Waits for an Event about the pipeline and returns it; there must be no other about it.
    fn only_event_of(&self, name: &str) -> Value {
        let of = || self.events().into_iter().filter(|event| event["regarding"]["name"] == name).collect::<Vec<_>>();
        let mut events = eventually("an Event", || Some(of()).filter(|events| !events.is_empty()));
        assert_eq!(events.len(), 1, "{events:#?}");
        events.remove(0)
    }
}
