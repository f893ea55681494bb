//! What `GitOps` compares: nothing differs between what was applied and what stands there, however certificates and Secrets change.

use spillway_tests::eventually;
use spillway_tests::helm::{Helm, NAMESPACE, RELEASE};
use spillway_tests::operator::{Operator, Replica};
use spillway_tests::servers::kube_api::KubeApi;

use crate::charts::helms;

/// The name of the chart's configuration of the webhook.
const CONFIGURATION: &str = "spillway-spillway-system";

#[test]
fn a_live_release_does_not_drift_when_certificates_and_secrets_change() {
    const TEST: &str = "a_live_release_does_not_drift_when_certificates_and_secrets_change";
    let Some(api) = KubeApi::of_test(TEST) else { return };
    let Some(helms) = helms(TEST) else { return };
    let ground = Ground { api };
    for helm in &helms {
        let release = ground.install(helm);
        let operator = ground.operator();
        let trusted = ground.trusted();
        assert!(trusted.len() > 500, "{trusted}");
        ground.nothing_differs(&release, "as it was installed");

        ground.another_certificate();
        ground.another_secret();
        ground.nothing_differs(&release, "after another certificate and another Secret");

        // The same release again takes nothing away either.
        let before = ground.generations();
        ground.helm(helm, &["upgrade", RELEASE, "charts/spillway", "-n", NAMESPACE]);
        assert_eq!((ground.generations(), ground.trusted()), (before, trusted), "Helm {}", helm.major);
        ground.nothing_differs(&release, "after an upgrade to the same");
        operator.stop();
        ground.remove(helm);
    }
}

/// What a user applies besides the release; the Secret is looked after elsewhere.
const APPLIED: &str = r#"
apiVersion: spillway.dev/v1alpha1
kind: Backend
metadata: {name: api, namespace: fab12}
spec: {type: HTTP, http: {url: "https://api.example.test/", auth: {bearer: {tokenSecretRef: {name: api, key: token}}}}}
---
apiVersion: spillway.dev/v1alpha1
kind: MonitoringPipeline
metadata: {name: jobs, namespace: fab12}
spec:
  inputs: [{name: pushed, type: Events}]
  routes: [{name: all, backendRefs: [{name: api}]}]
"#;

struct Ground {
    api: KubeApi,
}

impl Ground {
    fn helm(&self, helm: &Helm, words: &[&str]) -> String {
        helm.must(&self.api, words)
    }

    /// Installs the release and what a user applies; returns the manifests of the release.
    fn install(&self, helm: &Helm) -> String {
        self.helm(helm, &["install", RELEASE, "charts/spillway", "-n", NAMESPACE, "--create-namespace"]);
        self.api.must(&["wait", "--for=condition=Established", "--timeout=60s", "crd", "--all"], "");
        let namespace = r#"{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "fab12"}}"#;
        self.api.must(&["apply", "-f", "-"], namespace);
        self.api.must(&["create", "secret", "generic", "api", "-n", "fab12", "--from-literal=token=first"], "");
        self.api.must(&["apply", "--server-side", "-f", "-"], APPLIED);
        self.helm(helm, &["get", "manifest", RELEASE, "-n", NAMESPACE])
    }

    fn operator(&self) -> Operator {
        let rights = self.api.kubeconfig_of(NAMESPACE, "spillway-controller").unwrap();
        let mut operator = Replica::new(&rights, "first").with_webhook(CONFIGURATION).start();
        operator.process.wait_for_line("gave API servers our CA for the webhook");
        eventually("the webhook's certificate", || self.certificate());
        self.wait_for_backend("True");
        operator
    }

    fn remove(&self, helm: &Helm) {
        self.helm(helm, &["uninstall", RELEASE, "-n", NAMESPACE]);
        self.api.must(&["delete", "monitoringpipelines,backends", "--all", "-n", "fab12"], "");
        self.api.must(&["delete", "secret", "api", "-n", "fab12"], "");
    }

    fn trusted(&self) -> String {
        let form = "jsonpath={.webhooks[0].clientConfig.caBundle}";
        self.api.must(&["get", "validatingwebhookconfiguration", CONFIGURATION, "-o", form], "")
    }

    fn nothing_differs(&self, release: &str, when: &str) {
        for (what, manifests) in [("the release", release), ("what a user applied", APPLIED)] {
            let words = ["diff", "--server-side", "--force-conflicts", "-f", "-"];
            let diff = self.api.kubectl(&words, manifests).unwrap();
            assert!(diff.ok && diff.out.is_empty(), "{what} {when}: {}{}", diff.out, diff.err);
        }
    }

    fn another_certificate(&self) {
        let before = self.certificate();
        self.api.must(&["delete", "secret", "spillway-webhook-tls", "-n", NAMESPACE], "");
        eventually("another certificate", || self.certificate().filter(|now| Some(now) != before.as_ref()));
    }

    fn certificate(&self) -> Option<String> {
        let of = ["get", "secret", "spillway-webhook-tls", "-n", NAMESPACE, "-o", r"jsonpath={.data.tls\.crt}"];
        let said = self.api.kubectl(&of, "").unwrap();
        said.ok.then_some(said.out)
    }

    /// Takes the key out of the Secret until status tells, and puts another value in: so the change was seen for certain.
    fn another_secret(&self) {
        let patch = |data: &str| {
            self.api.must(&["patch", "secret", "api", "-n", "fab12", "--type", "json", "-p", data], "");
        };
        patch(r#"[{"op": "remove", "path": "/data/token"}, {"op": "add", "path": "/data/other", "value": "eA=="}]"#);
        self.wait_for_backend("False");
        patch(r#"[{"op": "add", "path": "/data/token", "value": "c2Vjb25k"}]"#);
        self.wait_for_backend("True");
    }

    fn wait_for_backend(&self, ready: &str) {
        let form = r#"jsonpath={.status.conditions[?(@.type=="Ready")].status}"#;
        let said = || self.api.must(&["get", "backend", "api", "-n", "fab12", "-o", form], "");
        eventually(&format!("Ready is {ready}"), || (said() == ready).then_some(()));
    }

    fn generations(&self) -> String {
        let form = "jsonpath={range .items[*]}{.kind}/{.metadata.name} {.metadata.generation}{'\\n'}{end}";
        self.api.must(&["get", "deployments,daemonsets,networkpolicies,pdb", "-n", NAMESPACE, "-o", form], "")
    }
}
