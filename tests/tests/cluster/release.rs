//! The release of the quick start in README.md, in the hands of one test at a time.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use spillway_tests::cluster::layout::kubeconfig;
use spillway_tests::helm::{Helm, NAMESPACE, RELEASE};
use spillway_tests::http::Client;
use spillway_tests::{cluster, eventually};

/// The part of the release that runs on each node.
pub(crate) const AGENT: &str = "agent";
/// What all of these have.
const AGENTS: &str = "app.kubernetes.io/component=agent";
/// The part of it that leads.
pub(crate) const CONTROLLER: &str = "controller";

/// The release. Who has it may kill its parts; nobody else relies on them meanwhile.
pub(crate) struct Release {
    namespace: &'static str,
    helm: Helm,
    home: tempfile::TempDir,
    _alone: MutexGuard<'static, ()>,
}

impl Release {
    /// Waits for those who have it, then until all of it runs.
    pub(crate) fn take() -> Self {
        static TAKEN: Mutex<()> = Mutex::new(());
        // One that failed leaves a release that is to stand it.
        let alone = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        let [_, helm] = Helm::installed().expect("`cargo xtask cluster test` installs Helm");
        let release = Self { namespace: NAMESPACE, helm, home: tempfile::tempdir().unwrap(), _alone: alone };
        release.wait_rolled_out();
        release
    }

    /// Calls Helm.
    pub(crate) fn helm(&self, words: &[&str]) -> String {
        let said = self.helm.call(self.home.path(), Some(&kubeconfig()), words).unwrap();
        assert!(said.ok, "helm {words:?}: {}{}", said.out, said.err);
        said.out
    }

    /// Upgrades it from the chart as documented, with one value set; all others stay.
    pub(crate) fn upgrade(&self, value: &str) {
        self.helm(&[
            "upgrade",
            RELEASE,
            "charts/spillway",
            "-n",
            NAMESPACE,
            "--reset-then-reuse-values",
            "--set",
            value,
        ]);
        self.wait_rolled_out();
    }

    /// Calls `kubectl` in its namespace.
    pub(crate) fn kubectl(&self, words: &[&str]) -> String {
        cluster::kubectl(&[&["-n", self.namespace], words].concat()).unwrap()
    }

    /// Waits until all of it runs.
    pub(crate) fn wait_rolled_out(&self) {
        for deployment in ["deployment/spillway-controller", "deployment/spillway-webhook"] {
            self.kubectl(&["rollout", "status", deployment, "--timeout=180s"]);
        }
        self.wait_agents();
    }

    /// Waits until the agents run.
    pub(crate) fn wait_agents(&self) {
        self.kubectl(&["rollout", "status", "daemonset/spillway-agent", "--timeout=180s"]);
    }

    /// Runs so many controllers.
    pub(crate) fn scale_controllers(&self, replicas: u32) {
        self.ask_for_controllers(replicas).unwrap();
        self.kubectl(&["rollout", "status", "deployment/spillway-controller", "--timeout=180s"]);
    }

    /// Asks for so many controllers, and waits for none.
    pub(crate) fn ask_for_controllers(&self, replicas: u32) -> anyhow::Result<String> {
        let replicas = format!("--replicas={replicas}");
        cluster::kubectl(&["-n", self.namespace, "scale", "deployment/spillway-controller", &replicas])
    }

    /// Returns the agent of a node.
    pub(crate) fn agent_on(&self, node: &str) -> String {
        self.agents_on(node).pop().expect("an agent runs there")
    }

    fn agents_on(&self, node: &str) -> Vec<String> {
        let node = format!("--field-selector=spec.nodeName={node}");
        let listed = self.kubectl(&["get", "pods", "-l", AGENTS, &node, "-o", "name"]);
        listed.lines().map(|pod| pod.trim_start_matches("pod/").to_owned()).collect()
    }

    /// Returns the pod that leads, once one does which is not `other`.
    pub(crate) fn leader_but(&self, other: &str) -> String {
        let holder = ["get", "lease/spillway-controller", "-o", "jsonpath={.spec.holderIdentity}"];
        eventually("a leader", || Some(self.kubectl(&holder)).filter(|name| !name.is_empty() && name != other))
    }

    /// Returns the pods of a part, in an order.
    pub(crate) fn pods(&self, part: &str) -> Vec<String> {
        let label = format!("app.kubernetes.io/component={part}");
        let listed = self.kubectl(&["get", "pods", "-l", &label, "-o", "name"]);
        let mut names: Vec<String> = listed.lines().map(|pod| pod.trim_start_matches("pod/").to_owned()).collect();
        names.sort();
        assert!(!names.is_empty(), "no pod of {part}");
        names
    }

    /// Returns the address of a pod, which this machine reaches.
    pub(crate) fn address(&self, pod: &str) -> String {
        self.kubectl(&["get", "pod", pod, "-o", "jsonpath={.status.podIP}"])
    }

    /// Returns the sum of what an agent says of a metric, over the lines that have all of these labels; nothing while it
    /// cannot be asked.
    pub(crate) fn counted(&self, agent: &str, metric: &str, labels: &[&str]) -> Option<u64> {
        let mut client = Client::connect(&format!("{}:8413", self.address(agent))).ok()?;
        let answer = client.send("GET", "/metrics", &[], b"").ok().filter(|answer| answer.status == 200)?;
        let text = String::from_utf8(answer.body).ok()?;
        let is_meant =
            |name: &str| name.split('{').next() == Some(metric) && labels.iter().all(|label| name.contains(label));
        let values = text.lines().filter_map(|line| line.rsplit_once(' ')).filter(|(name, _)| is_meant(name));
        let whole = |value: &str| value.strip_suffix(".0").unwrap_or(value).parse::<u64>().ok();
        Some(values.filter_map(|(_, value)| whole(value)).sum())
    }

    /// Has another agent come on a node, and returns it once it runs.
    pub(crate) fn renew_agent(&self, node: &str) -> String {
        self.ask_for_another_agent(node).unwrap();
        let agent = eventually("another agent", || self.agents_on(node).pop());
        self.kubectl(&["wait", "--for=condition=Ready", &format!("pod/{agent}"), "--timeout=90s"]);
        agent
    }

    /// Takes the agent of a node away, and waits for none.
    pub(crate) fn ask_for_another_agent(&self, node: &str) -> anyhow::Result<String> {
        let node = format!("--field-selector=spec.nodeName={node}");
        cluster::kubectl(&["-n", self.namespace, "delete", "pods", "-l", AGENTS, &node, "--grace-period=0", "--force"])
    }

    /// Has the kernel end the process of an agent's pod for want of memory: its container may have no more than it has, and then
    /// a second process in it asks for some. Its kubelet starts it again.
    pub(crate) fn starve(&self, pod: &str) {
        const USED_AND_MOST: [(&str, &str); 2] =
            [("memory.usage_in_bytes", "memory.limit_in_bytes"), ("memory.current", "memory.max")];
        let processes = processes_of(pod);
        assert!(!processes.is_empty(), "{pod} has no process");
        for process in processes {
            let group = memory_group(process);
            eventually("an end for want of memory", || {
                // What can be given back is, and the limit follows; then the next page is one too many. The agent itself may
                // need none for long; the kernel ends the largest of the container.
                for (used, most) in USED_AND_MOST {
                    fs::read(group.join(used)).and_then(|used| fs::write(group.join(most), used)).ok();
                }
                run_in(self.namespace, pod, &["/spillway-agent", "status"]);
                test_kill_process(process).is_err().then_some(())
            });
        }
    }

    /// Ends a pod as a lost node does: its process has no time to give anything back, and another pod comes in its place.
    pub(crate) fn lose(&self, pod: &str) {
        kill(pod);
        self.kubectl(&["delete", "pod", pod, "--grace-period=0", "--force"]);
    }
}

/// Runs a program in a pod; returns its exit code and what it printed.
pub(crate) fn run_in(namespace: &str, pod: &str, words: &[&str]) -> (i32, String) {
    let mut command = cluster::kubectl_command().unwrap();
    let output = command.args(["exec", "-n", namespace, pod, "--"]).args(words).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&text).into_owned())
}

/// Ends the process of a pod at once, as the kernel does when memory is short. Its kubelet starts it again.
pub(crate) fn kill(pod: &str) {
    let processes = processes_of(pod);
    assert!(!processes.is_empty(), "{pod} has no process");
    for process in processes {
        kill_process(process, Signal::KILL).unwrap();
    }
}

/// Returns the folder of the control group that counts the memory of a process.
fn memory_group(process: Pid) -> PathBuf {
    let text = fs::read_to_string(format!("/proc/{}/cgroup", process.as_raw_nonzero())).unwrap();
    let of = |kind: &str, root: &str| {
        let path = text.lines().find_map(|line| line.split_once(':')?.1.strip_prefix(kind))?;
        Some(Path::new(root).join(path.trim_start_matches('/')))
    };
    of("memory:", "/sys/fs/cgroup/memory").or_else(|| of(":", "/sys/fs/cgroup")).unwrap()
}

/// Returns the processes of ours in a pod: containers have its name as that of their host.
fn processes_of(pod: &str) -> Vec<Pid> {
    let host = format!("HOSTNAME={pod}");
    let is_ours = |path: &PathBuf| {
        let line = fs::read(path.join("cmdline")).unwrap_or_default();
        let variables = fs::read(path.join("environ")).unwrap_or_default();
        line.starts_with(b"/spillway-") && variables.split(|byte| *byte == 0).any(|one| one == host.as_bytes())
    };
    let all = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path()).filter(is_ours);
    all.filter_map(|path| Pid::from_raw(path.file_name()?.to_str()?.parse().ok()?)).collect()
}
