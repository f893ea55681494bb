//! What is said at `kubectl apply`: the webhook and the policy of the chart on a real API server.
//!
//! The API server finds the webhook by the chart's own configuration, its Service, its name and our CA; only where the Service
//! leads is of the test: to this machine, since there is no kube-proxy. The test does what a kubelet does with a mounted Secret.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use spillway_tests::eventually;
use spillway_tests::helm::{NAMESPACE, root};
use spillway_tests::operator::{Operator, Replica, Webhook};
use spillway_tests::servers::kube_api::{KubeApi, Said};
use spillway_tests::servers::process::free_port;
use tokio::time::Instant;

/// The name of the chart's configuration, and how its policy begins.
const CONFIGURATION: &str = "spillway-spillway-system";

#[test]
fn what_is_wrong_is_said_at_apply_and_who_writes_a_backend_may_read_its_secrets() {
    const TEST: &str = "what_is_wrong_is_said_at_apply_and_who_writes_a_backend_may_read_its_secrets";
    let Some(api) = KubeApi::of_test(TEST) else { return };
    let ground = Ground { api };
    ground.prepare();
    let operator = ground.operator();
    ground.nothing_drifts();
    ground.mount();
    let port = ground.lead_here();
    let rights = ground.api.kubeconfig_of(NAMESPACE, "spillway-webhook").unwrap();
    let mut webhook = Webhook::start(&rights, &ground.mounted(), port);
    ground.wait_until_denied();
    ground.a_verdict_is_that_of_the_compiler();
    ground.what_is_missing_warns_until_it_comes(&webhook);
    ground.another_certificate_changes_nothing(&mut webhook);
    ground.only_who_may_read_secrets_names_them();
    println!("{}", ground.figures());
    webhook.process.kill();
    let took = ground.without_it_objects_are_taken_and_status_tells();
    println!("without a webhook an object is taken after {:.1} s", took.as_secs_f64());
    operator.stop();
}

struct Ground {
    api: KubeApi,
}

impl Ground {
    /// Asks again until it holds.
    fn wait_until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        eventually(what, || holds(self).then_some(()));
    }

    fn prepare(&self) {
        self.api.must(&["apply", "--server-side", "-k", &base()], "");
        self.api.must(&["wait", "--for=condition=Established", "--timeout=60s", "crd", "--all"], "");
        self.api.must(&["create", "namespace", "fab12"], "");
    }

    fn operator(&self) -> Operator {
        let rights = self.api.kubeconfig_of(NAMESPACE, "spillway-controller").unwrap();
        let mut operator = Replica::new(&rights, "first").with_webhook(CONFIGURATION).start();
        operator.process.wait_for_line("gave API servers our CA for the webhook");
        eventually("the webhook's certificate", || self.certificate("tls.crt"));
        operator
    }

    /// The CA in the configuration is the operator's; whoever applies the rest takes nothing away and sees no difference.
    fn nothing_drifts(&self) {
        self.api.must(&["apply", "--server-side", "-k", &base()], "");
        let form = "jsonpath={.webhooks[0].clientConfig.caBundle}";
        let bundle = self.api.must(&["get", "validatingwebhookconfiguration", CONFIGURATION, "-o", form], "");
        assert!(bundle.len() > 500, "{bundle}");
        let diff = self.api.said(&["diff", "--server-side", "-k", &base()], "");
        assert!(diff.ok && diff.out.is_empty(), "{}{}", diff.out, diff.err);
    }

    fn mounted(&self) -> PathBuf {
        self.api.folder().join("certificate")
    }

    /// Does with the Secret what a kubelet does.
    fn mount(&self) -> String {
        let values = ["tls.crt", "tls.key"].map(|key| (key, self.certificate(key).expect("a certificate")));
        fs::create_dir_all(self.mounted()).unwrap();
        for (key, value) in &values {
            fs::write(self.mounted().join(key), value).unwrap();
        }
        values[0].1.clone()
    }

    /// Returns a value of the Secret of the webhook's certificate; `None` while there is none.
    fn certificate(&self, key: &str) -> Option<String> {
        let form = format!("go-template={{{{index .data \"{key}\" | base64decode}}}}");
        let said = self.api.said(&["get", "secret", "spillway-webhook-tls", "-n", NAMESPACE, "-o", &form], "");
        said.ok.then_some(said.out)
    }

    /// Lets the Service lead to a port of this machine.
    fn lead_here(&self) -> u16 {
        let port = free_port();
        self.api.must(&["delete", "service", "spillway-webhook", "-n", NAMESPACE], "");
        let service = json!({"apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "spillway-webhook", "namespace": NAMESPACE},
            "spec": {"type": "ExternalName", "externalName": "localhost"}});
        self.api.must(&["create", "-f", "-"], &service.to_string());
        let patch = json!([{"op": "replace", "path": "/webhooks/0/clientConfig/service/port", "value": port}]);
        let words = ["patch", "validatingwebhookconfiguration", CONFIGURATION, "--type", "json", "-p"];
        self.api.must(&[&words[..], &[&patch.to_string()]].concat(), "");
        port
    }

    fn wait_until_denied(&self) {
        self.wait_until("the API server asks the webhook", |ground| {
            !ground.api.said(&["apply", "--dry-run=server", "-f", "-"], &bad("probe")).ok
        });
    }

    fn a_verdict_is_that_of_the_compiler(&self) {
        let applied = self.api.said(&["apply", "-f", "-"], &bad("jobs"));
        let tried = self.api.said(&["apply", "--dry-run=server", "-f", "-"], &bad("jobs"));
        assert!(!applied.ok && !tried.ok);
        assert_eq!(applied.err, tried.err);
        for part in ["validate.spillway.dev", "spec.routes[0].match", "origin.nope", "did you mean `origin.node`?"] {
            assert!(applied.err.contains(part), "{part}: {}", applied.err);
        }
        let stored = self.api.must(&["get", "monitoringpipelines", "-n", "fab12", "-o", "name"], "");
        assert_eq!(stored, "");
    }

    fn what_is_missing_warns_until_it_comes(&self, webhook: &Webhook) {
        let before = webhook.reviews();
        let said = self.api.said(&["apply", "-f", "-"], &pipeline("jobs", ""));
        assert!(said.ok && said.err.contains("Warning: ") && said.err.contains("archive"), "{}", said.err);
        self.api.must(&["apply", "-f", "-"], &backend("archive", "type: Stdout"));
        self.wait_until("the webhook knows the Backend", |ground| {
            let said = ground.api.said(&["apply", "--dry-run=server", "-f", "-"], &pipeline("later", ""));
            assert!(said.ok, "{}", said.err);
            said.err.is_empty()
        });
        let known = webhook.reviews();
        assert!(known >= before + 3);
        // What is no new spec costs nothing: labels, the status that the operator writes, the end.
        self.api.must(&["label", "monitoringpipeline", "jobs", "-n", "fab12", "a=b"], "");
        let observed = "--for=jsonpath={.status.observedGeneration}=1";
        self.api.must(&["wait", observed, "monitoringpipeline/jobs", "-n", "fab12", "--timeout=60s"], "");
        self.api.must(&["delete", "monitoringpipeline", "jobs", "-n", "fab12"], "");
        assert_eq!(webhook.reviews(), known);
    }

    fn another_certificate_changes_nothing(&self, webhook: &mut Webhook) {
        let before = self.mount();
        self.api.must(&["delete", "secret", "spillway-webhook-tls", "-n", NAMESPACE], "");
        eventually("another certificate", || self.certificate("tls.crt").filter(|now| *now != before));
        self.mount();
        webhook.process.wait_for_line("another certificate is shown");
        assert!(!self.api.said(&["apply", "-f", "-"], &bad("jobs")).ok);
    }

    fn only_who_may_read_secrets_names_them(&self) {
        self.allow("writes", "backends.spillway.dev", &["get", "create", "patch"], None);
        let ann = ["apply", "--as", "ann", "-f", "-"];
        self.wait_until("ann may write", |ground| ground.api.said(&ann, &backend("open", "type: Stdout")).ok);
        let naming = |url: &str| {
            let auth = "auth: {bearer: {tokenSecretRef: {name: api, key: token}}}";
            backend("api", &format!("type: HTTP, http: {{url: 'https://{url}/', {auth}}}"))
        };
        let refused = |said: &Said, place: &str, secret: &str| {
            let words = format!("{place}: who writes this must be allowed to `get` Secret {secret}");
            assert!(!said.ok && said.err.contains(&words), "{}{}", said.out, said.err);
        };
        let place = "spec.http.auth.bearer.tokenSecretRef";
        refused(&self.api.said(&ann, &naming("api.example.test")), place, "fab12/api");
        let tried = ["apply", "--dry-run=server", "--as", "ann", "-f", "-"];
        refused(&self.api.said(&tried, &naming("api.example.test")), place, "fab12/api");
        self.allow("reads", "secrets", &["get"], Some(&["api"]));
        self.wait_until("ann may read", |ground| ground.api.said(&ann, &naming("api.example.test")).ok);

        // Who may not read it may not send it elsewhere, and may do all that leaves the spec as it is.
        self.api.must(&["delete", "rolebinding", "reads", "-n", "fab12"], "");
        self.wait_until("ann may not read", |ground| !ground.api.said(&tried, &naming("elsewhere.example.test")).ok);
        refused(&self.api.said(&ann, &naming("elsewhere.example.test")), place, "fab12/api");
        self.api.must(&["label", "backend", "api", "-n", "fab12", "--as", "ann", "a=b"], "");

        // Four at a time, the most that one object names, are within the budget; the one that is missing is named.
        self.allow("reads", "secrets", &["get"], Some(&["id", "key", "session"]));
        self.wait_until("ann may read three", |ground| ground.api.said(&ann, &lake("")).ok);
        refused(
            &self.api.said(&ann, &lake(", tls: {caSecretRef: {name: ca, key: x}}")),
            "spec.s3.tls.caSecretRef",
            "fab12/ca",
        );
        self.api.must(&["apply", "-f", "-"], &lake(", tls: {caSecretRef: {name: ca, key: x}}"));

        // A kind of the cluster names the namespace of its Secrets.
        let of_cluster = "apiVersion: spillway.dev/v1alpha1\nkind: ClusterBackend\nmetadata: {name: lake}\n\
            spec: {secretNamespace: fab12, type: HTTP, http: {url: 'https://x.example.test/', \
            auth: {bearer: {tokenSecretRef: {name: api, key: token}}}}}\n";
        self.api.must(
            &[
                "create",
                "clusterrole",
                "cluster-writer",
                "--verb",
                "get,create,patch",
                "--resource",
                "clusterbackends.spillway.dev",
            ],
            "",
        );
        self.api.must(&["create", "clusterrolebinding", "bob", "--clusterrole", "cluster-writer", "--user", "bob"], "");
        let bob = ["apply", "--as", "bob", "-f", "-"];
        self.wait_until("bob is asked for the Secret", |ground| {
            ground.api.said(&bob, of_cluster).err.contains("to `get` Secret fab12/api")
        });
        self.api.must(&["apply", "-f", "-"], of_cluster);
    }

    /// Lets ann do something in `fab12`, by a role of that name.
    fn allow(&self, role: &str, resource: &str, verbs: &[&str], names: Option<&[&str]>) {
        let (group, resource) = resource.split_once('.').map_or(("", resource), |(resource, group)| (group, resource));
        let mut rule = json!({"apiGroups": [group], "resources": [resource], "verbs": verbs});
        if let Some(names) = names {
            rule["resourceNames"] = json!(names);
        }
        let metadata = json!({"name": role, "namespace": "fab12"});
        let group = "rbac.authorization.k8s.io";
        let version = format!("{group}/v1");
        let objects = json!({"apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": version, "kind": "Role", "metadata": metadata, "rules": [rule]},
            {"apiVersion": version, "kind": "RoleBinding", "metadata": metadata,
                "roleRef": {"apiGroup": group, "kind": "Role", "name": role},
                "subjects": [{"apiGroup": group, "kind": "User", "name": "ann"}]}]});
        self.api.must(&["apply", "-f", "-"], &objects.to_string());
    }

    /// Both were asked; how long a verdict takes an API server is a figure.
    fn figures(&self) -> String {
        let metrics = self.api.must(&["get", "--raw", "/metrics"], "");
        let figures = [
            ("webhook", "apiserver_admission_webhook_admission_duration_seconds", "validate.spillway.dev"),
            ("policy", "apiserver_validating_admission_policy_check_duration_seconds", "secret-references"),
        ]
        .map(|(what, metric, name)| {
            let total = |end: &str| {
                let begin = format!("{metric}_{end}{{");
                let lines = metrics.lines().filter(|line| line.starts_with(&begin) && line.contains(name));
                lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>()
            };
            let (seconds, count) = (total("sum"), total("count"));
            assert!(count > 5.0, "{what}: {count}");
            format!("{what}: {count} verdicts, {:.1} ms each", seconds / count * 1000.0)
        });
        figures.join("; ")
    }

    fn without_it_objects_are_taken_and_status_tells(&self) -> Duration {
        let since = Instant::now();
        self.api.must(&["apply", "-f", "-"], &bad("jobs"));
        let took = since.elapsed();
        let holds = "--for=condition=Accepted=False";
        self.api.must(&["wait", holds, "monitoringpipeline/jobs", "-n", "fab12", "--timeout=60s"], "");
        took
    }
}

fn base() -> String {
    Path::new(&root()).join("charts/kustomize").display().to_string()
}

fn pipeline(name: &str, condition: &str) -> String {
    format!(
        "apiVersion: spillway.dev/v1alpha1\nkind: MonitoringPipeline\nmetadata: {{name: {name}, namespace: fab12}}\nspec:\n  \
         inputs: [{{name: pushed, type: Events}}]\n  routes:\n  - {{name: all, {condition}backendRefs: [{{name: archive}}]}}\n"
    )
}

/// A pipeline with a condition that no schema can refuse.
fn bad(name: &str) -> String {
    pipeline(name, "match: 'origin.nope == \"x\"', ")
}

fn backend(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: spillway.dev/v1alpha1\nkind: Backend\nmetadata: {{name: {name}, namespace: fab12}}\nspec: {{{spec}}}\n"
    )
}

fn lake(more: &str) -> String {
    let keys = "accessKeyIDSecretRef: {name: id, key: x}, secretAccessKeySecretRef: {name: key, key: x}, \
                sessionTokenSecretRef: {name: session, key: x}";
    backend(
        "lake",
        &format!(
            "type: S3, s3: {{bucket: lake, region: eu-central-1, endpoint: 'https://store.example.test:9000', credentials: {{{keys}}}{more}}}"
        ),
    )
}
