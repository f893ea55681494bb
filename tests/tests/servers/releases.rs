//! Releases of the chart on a real API server, by Helm 3 and Helm 4: installed, upgraded, uninstalled, and what its accounts may.
//!
//! No node is there and no controller: pods are never made, so this is about objects alone.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use spillway_tests::helm::{Helm, NAMESPACE, RELEASE};
use spillway_tests::servers::kube_api::KubeApi;
use spillway_tests::servers::tools;

use crate::charts::{VARIANTS, helms};

#[test]
fn an_api_server_takes_every_object_and_a_release_comes_and_goes() {
    const TEST: &str = "an_api_server_takes_every_object_and_a_release_comes_and_goes";
    let Some(api) = KubeApi::of_test(TEST) else { return };
    let Some(helms) = helms(TEST) else { return };
    let ground = Ground { api };
    ground.a_release_comes_and_goes(&helms);
    ground.an_upgrade_as_documented_keeps_what_was_set_and_takes_what_is_new(&helms);
    ground.every_object_is_taken(&helms[0]);
    ground.accounts_may_what_they_must(&helms[1]);
    ground.pods_pass_the_level_that_is_promised();
    ground.the_kustomize_base_is_applied();
}

struct Ground {
    api: KubeApi,
}

impl Ground {
    fn helm(&self, helm: &Helm, words: &[&str]) -> String {
        helm.must(&self.api, words)
    }

    fn json(&self, words: &[&str]) -> Value {
        serde_json::from_str(&self.api.must(&[words, &["-o", "json"]].concat(), "")).unwrap()
    }

    fn a_release_comes_and_goes(&self, helms: &[Helm; 2]) {
        for helm in helms {
            let notes =
                self.helm(helm, &["install", RELEASE, "charts/spillway", "-n", NAMESPACE, "--create-namespace"]);
            assert!(notes.contains("helm test spillway") && notes.contains("get any Secret"), "{notes}");
            let release = format!("secret/sh.helm.release.v1.{RELEASE}.v1");
            let stored = self.api.must(&["get", "-n", NAMESPACE, &release, "-o", "jsonpath={.data.release}"], "");
            assert!(stored.len() < 512 << 10, "{} bytes", stored.len());
            self.api.must(&["wait", "--for=condition=Established", "--timeout=60s", "crd", "--all"], "");
            self.api.must(&["apply", "-f", "-"], A_PIPELINE);
            let before = self.uids();
            // The same again changes nothing.
            let versions = self.generations();
            self.helm(helm, &["upgrade", RELEASE, "charts/spillway", "-n", NAMESPACE]);
            assert_eq!(self.generations(), versions);
            self.helm(
                helm,
                &["upgrade", RELEASE, "charts/spillway", "-n", NAMESPACE, "--set", "agent.drainSeconds=40"],
            );
            let agent = self.json(&["get", "-n", NAMESPACE, "daemonset/spillway-agent"]);
            assert_eq!(agent["spec"]["template"]["spec"]["terminationGracePeriodSeconds"], 45);
            self.helm(helm, &["rollback", RELEASE, "1", "-n", NAMESPACE]);
            let agent = self.json(&["get", "-n", NAMESPACE, "daemonset/spillway-agent"]);
            assert_eq!(agent["spec"]["template"]["spec"]["terminationGracePeriodSeconds"], 30);
            self.helm(helm, &["uninstall", RELEASE, "-n", NAMESPACE]);
            let left =
                self.json(&["get", "-n", NAMESPACE, "all,networkpolicies,pdb,roles,rolebindings,serviceaccounts"]);
            assert_eq!(left["items"], json!([]));
            let left =
                self.json(&["get", "clusterroles,clusterrolebindings", "-l", "app.kubernetes.io/part-of=spillway"]);
            assert_eq!(left["items"], json!([]));
            // Kinds and objects of them survive all of it, and the next release takes the kinds over.
            assert_eq!(self.uids(), before);
        }
    }

    fn an_upgrade_as_documented_keeps_what_was_set_and_takes_what_is_new(&self, helms: &[Helm; 2]) {
        let (before, documented) = (chart_of_before(self.api.folder()), documented_upgrade());
        let upgrade: Vec<&str> = documented.iter().map(String::as_str).collect();
        let arguments = || {
            let agent = self.json(&["get", "-n", NAMESPACE, "daemonset/spillway-agent"]);
            agent["spec"]["template"]["spec"]["containers"][0]["args"].to_string()
        };
        for helm in helms {
            self.helm(helm, &["install", RELEASE, &before, "-n", NAMESPACE, "--set", "agent.drainSeconds=40"]);
            assert!(!arguments().contains("--deny-destinations"), "{}", arguments());
            self.helm(helm, &upgrade);
            let now = arguments();
            assert!(
                now.contains("--drain-seconds=40") && now.contains("--deny-destinations=$(NODE_ADDRESSES)"),
                "{now}"
            );
            self.helm(helm, &["uninstall", RELEASE, "-n", NAMESPACE]);
        }
    }

    /// Returns the uids of the kinds and of the pipeline.
    fn uids(&self) -> String {
        let form = "jsonpath={range .items[*]}{.metadata.name} {.metadata.uid}{'\\n'}{end}";
        let uids = self.api.must(&["get", "crd", "-o", form], "")
            + &self.api.must(&["get", "monitoringpipelines", "-A", "-o", form], "");
        assert_eq!(uids.lines().count(), 5, "{uids}");
        uids
    }

    fn generations(&self) -> String {
        let form = "jsonpath={range .items[*]}{.kind}/{.metadata.name} {.metadata.generation}{'\\n'}{end}";
        self.api.must(&["get", "deployments,daemonsets,networkpolicies,pdb", "-n", NAMESPACE, "-o", form], "")
    }

    fn every_object_is_taken(&self, helm: &Helm) {
        for (name, values) in VARIANTS {
            // Kinds of an operator that is not here.
            let without = ["--set", "monitoring.prometheusRule.enabled=false"];
            let said = helm.render(self.api.folder(), &[values, &without].concat()).unwrap();
            assert!(said.ok, "{name}: {}", said.err);
            let apply =
                ["apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "-f", "-"];
            let taken = self.api.must(&apply, &said.out);
            let objects = said.out.lines().filter(|line| line.starts_with("kind: ")).count();
            assert_eq!(taken.lines().count(), objects, "{name}: {taken}");
        }
    }

    /// Returns whether an account may do something with a kind, `kind/name`, `kind:subresource` or `/path`.
    fn can(&self, account: &str, verb: &str, what: &str, namespace: &str) -> bool {
        let user = format!("--as=system:serviceaccount:{NAMESPACE}:{account}");
        let (kind, part) = what.rsplit_once(':').unwrap_or((what, ""));
        let part = format!("--subresource={part}");
        let mut words = vec!["auth", "can-i", verb, kind, &user];
        if !what.starts_with('/') {
            words.extend(["-n", namespace, &part]);
        }
        let said = self.api.kubectl(&words, "").unwrap();
        let answer = said.out.trim();
        assert!(["yes", "no"].contains(&answer), "{words:?}: {}{}", said.out, said.err);
        answer == "yes"
    }

    fn accounts_may_what_they_must(&self, helm: &Helm) {
        self.api.must(&["create", "namespace", "team-a"], "");
        self.helm(helm, &["install", RELEASE, "charts/spillway", "-n", NAMESPACE]);
        let controller =
            |verb: &str, what: &str, namespace: &str| self.can("spillway-controller", verb, what, namespace);
        for kind in ["monitoringpipelines", "backends", "clustermonitoringpipelines", "clusterbackends"] {
            let kind = format!("{kind}.spillway.dev");
            assert!(controller("watch", &kind, "team-a") && !controller("update", &kind, "team-a"), "{kind}");
            assert!(controller("patch", &format!("{kind}:status"), "team-a"), "{kind}");
        }
        for (verb, what, namespace) in MAY {
            assert!(controller(verb, what, namespace), "{verb} {what} in {namespace}");
        }
        for (verb, what, namespace) in MAY_NOT {
            assert!(!controller(verb, what, namespace), "{verb} {what} in {namespace}");
        }
        // An agent may nothing at all, not even what a controller may read.
        // Keys and figures of the API server are for every account, or for none.
        for (verb, what, namespace) in MAY.iter().chain(&MAY_NOT).filter(|(_, what, _)| !what.starts_with('/')) {
            assert!(!self.can("spillway-agent", verb, what, namespace), "{verb} {what} in {namespace}");
        }
        for (verb, what, namespace) in WEBHOOK_MAY {
            assert!(self.can("spillway-webhook", verb, what, namespace), "{verb} {what} in {namespace}");
        }
        let own = WEBHOOK_MAY.map(|(verb, what, _)| (verb, what));
        let others =
            MAY.iter().chain(&MAY_NOT).filter(|(verb, what, _)| !what.starts_with('/') && !own.contains(&(verb, what)));
        for (verb, what, namespace) in others {
            assert!(!self.can("spillway-webhook", verb, what, namespace), "{verb} {what} in {namespace}");
        }
        let access = ["--set", "secrets.access=Namespaces", "--set", "secrets.namespaces={team-a}"];
        self.helm(helm, &[&["upgrade", RELEASE, "charts/spillway", "-n", NAMESPACE], &access[..]].concat());
        assert!(controller("get", "secrets", "team-a") && !controller("get", "secrets", "default"));
        assert!(!controller("get", "secrets/other", NAMESPACE) && controller("get", "secrets/spillway-ca", NAMESPACE));
        self.aggregated_roles_hold_the_kinds_of_a_namespace();
        self.helm(helm, &["uninstall", RELEASE, "-n", NAMESPACE]);
    }

    fn aggregated_roles_hold_the_kinds_of_a_namespace(&self) {
        let form = "jsonpath={range .items[*]}{.metadata.labels}{.rules}{'\\n'}{end}";
        let roles = self.api.must(&["get", "clusterroles", "-l", "app.kubernetes.io/part-of=spillway", "-o", form], "");
        let aggregated: Vec<_> = roles.lines().filter(|line| line.contains("aggregate-to-")).collect();
        assert_eq!(aggregated.len(), 2, "{roles}");
        assert!(
            aggregated.iter().all(|line| line.contains("monitoringpipelines") && !line.contains("clusterbackends"))
        );
    }

    /// Makes the pods of the workloads, for only pods are judged by Pod Security.
    fn pods_pass_the_level_that_is_promised(&self) {
        let render = self.api.must(&["kustomize", &format!("{}/charts/kustomize", root())], "");
        let workloads = ["Deployment controller", "Deployment webhook", "DaemonSet agent"];
        for (level, taken) in [("restricted", &workloads[..2]), ("privileged", &workloads)] {
            let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {
                "name": level, "labels": {"pod-security.kubernetes.io/enforce": level}}});
            self.api.must(&["apply", "-f", "-"], &namespace.to_string());
            for name in workloads {
                let (kind, part) = name.split_once(' ').unwrap();
                let (kind, part) = (format!("\nkind: {kind}\n"), format!("\n  name: spillway-{part}\n"));
                let is_it = |text: &&str| text.contains(&kind) && text.contains(&part);
                let workload = render.split("\n---\n").find(is_it).unwrap();
                let read = ["create", "--dry-run=client", "-o", "json", "-f", "-"];
                let workload: Value = serde_json::from_str(&self.api.must(&read, workload)).unwrap();
                let mut pod = workload["spec"]["template"].clone();
                pod["apiVersion"] = json!("v1");
                pod["kind"] = json!("Pod");
                pod["metadata"]["generateName"] = json!("of-a-test-");
                pod["metadata"]["namespace"] = json!(level);
                let said = self.api.kubectl(&["create", "--dry-run=server", "-f", "-"], &pod.to_string()).unwrap();
                assert_eq!(said.ok, taken.contains(&name), "{name} in {level}: {}", said.err);
                assert!(said.ok || said.err.contains("hostPath"), "{}", said.err);
            }
        }
    }

    fn the_kustomize_base_is_applied(&self) {
        let base = format!("{}/charts/kustomize", root());
        let apply = ["apply", "--server-side", "--force-conflicts", "-k", &base];
        let applied = self.api.must(&apply, "");
        assert!(applied.contains("daemonset.apps/spillway-agent") && applied.contains("namespace/spillway-system"));
        let versions = self.generations();
        self.api.must(&apply, "");
        assert_eq!(self.generations(), versions);
        let diff = self.api.kubectl(&["diff", "--server-side", "--force-conflicts", "-k", &base], "").unwrap();
        assert!(diff.ok && diff.out.is_empty(), "{}{}", diff.out, diff.err);
        // No name of a namespace stands in a command line.
        let overlay = self.api.folder().join("overlay");
        fs::create_dir_all(&overlay).unwrap();
        let up = "../".repeat(overlay.components().count() - 1);
        let resource = format!("{up}{}", base.trim_start_matches('/'));
        fs::write(overlay.join("kustomization.yaml"), format!("namespace: elsewhere\nresources: [{resource}]\n"))
            .unwrap();
        let moved = self.api.must(&["kustomize", &overlay.display().to_string()], "");
        assert!(moved.contains("namespace: elsewhere") && !moved.contains("spillway-system.svc"));
        let hook = moved.split("\n---\n").find(|text| text.contains("kind: ValidatingWebhookConfiguration")).unwrap();
        assert!(hook.contains("      namespace: elsewhere\n"), "{hook}");
        // Kustomize gives the namespace to admission policies as well; an API server takes it away.
        self.api.must(&["create", "namespace", "elsewhere"], "");
        let words = ["apply", "--server-side", "--force-conflicts", "--dry-run=server", "-k"];
        self.api.must(&[&words[..], &[&overlay.display().to_string()]].concat(), "");
    }
}

/// Makes the chart as it was without `agent.destinations`, and returns where it is.
fn chart_of_before(folder: &Path) -> String {
    let chart = folder.join("before");
    tools::run(Command::new("cp").arg("-r").arg(format!("{}/charts/spillway", root())).arg(&chart)).unwrap();
    let without = |file: &str, begin: &str, end: &str| {
        let path = chart.join(file);
        let text = fs::read_to_string(&path).unwrap();
        let (before, rest) = text.split_once(begin).unwrap();
        let (_, after) = rest.split_once(end).unwrap();
        fs::write(&path, [before, end, after].concat()).unwrap();
    };
    without("values.yaml", "  destinations:\n", "  # agent.everyNode ");
    without("templates/agent/daemon-set.yaml", "        - --deny-destinations", "        - --pod-logs");
    chart.display().to_string()
}

/// Returns the words of the upgrade that the documents tell. Nothing here becomes ready, so nobody waits for it.
fn documented_upgrade() -> Vec<String> {
    let text = fs::read_to_string(format!("{}/docs/how-to/upgrade.md", root())).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("helm ").filter(|line| line.starts_with("upgrade")));
    line.unwrap().split(' ').filter(|word| *word != "--wait").map(str::to_owned).collect()
}

fn root() -> String {
    spillway_tests::helm::root().display().to_string()
}

const WEBHOOK_MAY: [(&str, &str, &str); 3] = [
    ("watch", "backends.spillway.dev", "team-a"),
    ("list", "clusterbackends.spillway.dev", ""),
    ("list", "namespaces", ""),
];

const MAY: [(&str, &str, &str); 17] = [
    ("get", "secrets", "team-a"),
    ("watch", "pods", "team-a"),
    ("list", "namespaces", ""),
    ("watch", "nodes", ""),
    ("create", "controllerrevisions.apps", "team-a"),
    ("delete", "controllerrevisions.apps", "team-a"),
    ("create", "events.events.k8s.io", "team-a"),
    ("patch", "events.events.k8s.io", "default"),
    ("create", "leases.coordination.k8s.io", NAMESPACE),
    ("update", "leases.coordination.k8s.io/spillway-controller", NAMESPACE),
    ("patch", "configmaps/spillway-ca", NAMESPACE),
    ("create", "secrets", NAMESPACE),
    ("update", "secrets/spillway-ca", NAMESPACE),
    ("patch", "secrets/spillway-webhook-tls", NAMESPACE),
    ("patch", "secrets/spillway-agent-tls", NAMESPACE),
    ("patch", "validatingwebhookconfigurations.admissionregistration.k8s.io/spillway-spillway-system", ""),
    ("get", "/openid/v1/jwks", ""),
];

const MAY_NOT: [(&str, &str, &str); 22] = [
    ("patch", "validatingwebhookconfigurations.admissionregistration.k8s.io/other", ""),
    ("create", "validatingwebhookconfigurations.admissionregistration.k8s.io", ""),
    ("patch", "secrets/spillway-ca", NAMESPACE),
    ("list", "secrets", "team-a"),
    ("watch", "secrets", NAMESPACE),
    ("create", "secrets", "team-a"),
    ("update", "secrets/spillway-agent-state", NAMESPACE),
    ("delete", "secrets", NAMESPACE),
    ("get", "configmaps", "team-a"),
    ("patch", "configmaps/other", NAMESPACE),
    ("update", "leases.coordination.k8s.io/other", NAMESPACE),
    ("create", "events", "team-a"),
    ("list", "events.events.k8s.io", "team-a"),
    ("delete", "events.events.k8s.io", "team-a"),
    ("create", "pods", NAMESPACE),
    ("delete", "pods", "team-a"),
    ("get", "nodes:proxy", ""),
    ("create", "serviceaccounts:token", NAMESPACE),
    ("update", "controllerrevisions.apps", "kube-system"),
    ("create", "rolebindings.rbac.authorization.k8s.io", NAMESPACE),
    ("impersonate", "serviceaccounts", NAMESPACE),
    ("get", "/metrics", ""),
];

const A_PIPELINE: &str = "\
apiVersion: spillway.dev/v1alpha1
kind: MonitoringPipeline
metadata: {name: stays, namespace: default}
spec:
  inputs: [{name: pushed, type: Events}]
  routes: [{name: all, backendRefs: [{name: archive}]}]
";
