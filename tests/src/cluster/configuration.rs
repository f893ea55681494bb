//! What the servers are told: flags and files, each with the reason where it is not the usual.

use std::fs;
use std::path::Path;

use super::layout::{BRIDGE, HOST, LINKS, NODES, Node, PODS, SERVICES, state};
use super::package::NETWORK_PLUGINS;

/// The image that holds the namespaces of a pod.
pub(super) const PAUSE_IMAGE: &str = "spillway.test/pause:1";

/// Returns the programs of the control plane before and after the API server answers, with their arguments.
pub(super) fn control_plane() -> [(&'static str, Vec<String>); 4] {
    let state = state();
    let (state, pki, api) = (state.display(), state.join("certificates"), NODES[0].address);
    let pki = pki.display();
    let etcd = format!(
        "--data-dir={state}/etcd --unsafe-no-fsync --listen-client-urls=http://127.0.0.1:2379
        --advertise-client-urls=http://127.0.0.1:2379 --listen-peer-urls=http://127.0.0.1:2380 --log-level=warn"
    );
    // Addresses and not names: no name of a node can be looked up here.
    let apiserver = format!(
        "--etcd-servers=http://127.0.0.1:2379 --advertise-address={api} --service-cluster-ip-range={SERVICES}
        --tls-cert-file={pki}/api.pem --tls-private-key-file={pki}/api-key.pem --client-ca-file={pki}/ca.pem
        --kubelet-certificate-authority={pki}/ca.pem --kubelet-client-certificate={pki}/to-kubelets.pem
        --kubelet-client-key={pki}/to-kubelets-key.pem --kubelet-preferred-address-types=InternalIP
        --service-account-issuer=https://kubernetes.default.svc --service-account-key-file={pki}/accounts.pem
        --service-account-signing-key-file={pki}/accounts-key.pem --authorization-mode=Node,RBAC
        --enable-admission-plugins=NodeRestriction --allow-privileged=true"
    );
    let manager = format!(
        "--kubeconfig={pki}/controller-manager.kubeconfig --authentication-kubeconfig={pki}/controller-manager.kubeconfig
        --authorization-kubeconfig={pki}/controller-manager.kubeconfig --bind-address=127.0.0.1 --leader-elect=false
        --root-ca-file={pki}/ca.pem --service-account-private-key-file={pki}/accounts-key.pem
        --use-service-account-credentials=true --node-monitor-grace-period=20s --node-monitor-period=2s"
    );
    let scheduler = format!(
        "--kubeconfig={pki}/scheduler.kubeconfig --authentication-kubeconfig={pki}/scheduler.kubeconfig
        --authorization-kubeconfig={pki}/scheduler.kubeconfig --bind-address=127.0.0.1 --leader-elect=false"
    );
    let words = |text: String| text.split_whitespace().map(str::to_owned).collect();
    [
        ("etcd", words(etcd)),
        ("kube-apiserver", words(apiserver)),
        ("kube-controller-manager", words(manager)),
        ("kube-scheduler", words(scheduler)),
    ]
}

/// Writes the files of one node into its folder.
pub(super) fn write_node(node: &Node) -> anyhow::Result<()> {
    let folder = node.folder();
    for inside in ["lib", "log", "network"] {
        fs::create_dir_all(folder.join(inside))?;
    }
    fs::write(folder.join("hold.sh"), HOLD)?;
    fs::write(folder.join("containerd.toml"), containerd(&folder))?;
    fs::write(folder.join("network/10-spillway.conflist"), network(node))?;
    fs::write(folder.join("resolv.conf"), format!("nameserver {}\n", NODES[0].address))?;
    fs::write(folder.join("kubelet.yaml"), kubelet(node))?;
    fs::write(folder.join("proxy.yaml"), proxy(node))?;
    Ok(())
}

/// The first process of a node: hides what nodes may not share, then waits, and reaps what is left to it.
const HOLD: &str = "set -e
mount --make-rshared /
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock
mount --bind \"$1/lib\" /var/lib
mount --bind \"$1/log\" /var/log
mount -t proc proc /proc
echo done > \"$1/held\"
sleep infinity &
wait
";

/// Returns containerd's settings: without the capability that lowers scores of the OOM killer.
fn containerd(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "version = 2
root = \"/var/lib/containerd\"
state = \"/run/containerd\"
[grpc]
address = \"/run/containerd/containerd.sock\"
[plugins.\"io.containerd.grpc.v1.cri\"]
sandbox_image = \"{PAUSE_IMAGE}\"
restrict_oom_score_adj = true
[plugins.\"io.containerd.grpc.v1.cri\".cni]
bin_dir = \"{NETWORK_PLUGINS}\"
conf_dir = \"{folder}/network\"
[plugins.\"io.containerd.grpc.v1.cri\".containerd]
snapshotter = \"overlayfs\"
default_runtime_name = \"runc\"
[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]
runtime_type = \"io.containerd.runc.v2\"
[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc.options]
SystemdCgroup = false
"
    )
}

fn network(node: &Node) -> String {
    format!(
        r#"{{"cniVersion": "0.4.0", "name": "spillway", "plugins": [
  {{"type": "bridge", "bridge": "pods0", "isGateway": true, "hairpinMode": true, "ipMasq": false,
   "ipam": {{"type": "host-local", "ranges": [[{{"subnet": "{}"}}]], "routes": [{{"dst": "0.0.0.0/0"}}]}}}},
  {{"type": "portmap", "capabilities": {{"portMappings": true}}}}
]}}
"#,
        node.pods
    )
}

/// Returns the kubelet's settings: images are never collected, since no registry would bring them back. A node that is gone
/// is missed sooner than usual, and logs are rotated much sooner, so that tests need not wait minutes.
fn kubelet(node: &Node) -> String {
    let pki = state().join("certificates");
    let (pki, folder, name) = (pki.display(), node.folder(), node.name);
    format!(
        "apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: {address}
failCgroupV1: false
cgroupDriver: cgroupfs
cgroupRoot: /{name}
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
oomScoreAdj: 0
maxOpenFiles: 20000
readOnlyPort: 0
nodeLeaseDurationSeconds: 16
containerLogMaxSize: 1Mi
containerLogMonitorInterval: 3s
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
evictionHard: {{memory.available: 100Mi, nodefs.available: 1%, nodefs.inodesFree: 1%, imagefs.available: 1%}}
authentication: {{anonymous: {{enabled: false}}, webhook: {{enabled: true}}, x509: {{clientCAFile: {pki}/ca.pem}}}}
authorization: {{mode: Webhook}}
tlsCertFile: {pki}/{name}.pem
tlsPrivateKeyFile: {pki}/{name}-key.pem
resolvConf: {folder}/resolv.conf
clusterDomain: cluster.local
clusterDNS: [{dns}]
",
        address = node.address,
        folder = folder.display(),
        dns = NODES[0].address
    )
}

/// Returns the settings of kube-proxy, which may set no limit of the kernel's connection tracking here.
fn proxy(node: &Node) -> String {
    format!(
        "apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
clusterCIDR: {PODS}
hostnameOverride: {name}
bindAddress: {address}
clientConnection: {{kubeconfig: {kubeconfig}}}
conntrack: {{maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}}
oomScoreAdj: 0
",
        name = node.name,
        address = node.address,
        kubeconfig = state().join("certificates/proxy.kubeconfig").display()
    )
}

/// Returns what the name service is told: names of the cluster, and that there are no others. Two blocks, since within one
/// `template` would answer before `kubernetes`, whatever their order here.
pub(super) fn names() -> String {
    let kubeconfig = state().join("certificates/admin.kubeconfig");
    format!(
        "cluster.local:53 in-addr.arpa:53 {{
  bind {address}
  errors
  kubernetes cluster.local in-addr.arpa {{
    kubeconfig {kubeconfig} spillway
  }}
}}
.:53 {{
  bind {address}
  errors
  template ANY ANY . {{
    rcode NXDOMAIN
  }}
}}
",
        address = NODES[0].address,
        kubeconfig = kubeconfig.display()
    )
}

/// Returns commands of `ip` that make the bridge and join the nodes to it, routes to pods and services included.
pub(super) fn network_commands() -> Vec<String> {
    let mut commands = vec![
        format!("link add {BRIDGE} type bridge"),
        format!("addr add {HOST}/24 dev {BRIDGE}"),
        format!("link set {BRIDGE} up"),
        format!("route add {SERVICES} via {}", NODES[0].address),
    ];
    for (node, link) in NODES.iter().zip(&LINKS[1..]) {
        let Node { name, address, pods } = node;
        // In the name space of the node from its making on: no link is left when a run is killed in between.
        commands.extend([
            format!("link add {link} type veth peer name eth0 netns {name}"),
            format!("link set {link} master {BRIDGE} up"),
            format!("-n {name} link set lo up"),
            format!("-n {name} addr add {address}/24 dev eth0"),
            format!("-n {name} link set eth0 up"),
            format!("-n {name} route add default via {HOST}"),
            format!("route add {pods} via {address}"),
        ]);
        for other in NODES.iter().filter(|other| other.name != *name) {
            commands.push(format!("-n {name} route add {} via {}", other.pods, other.address));
        }
    }
    // Routes need the addresses of their gateways: those between nodes come last.
    commands.sort_by_key(|command| command.starts_with("route"));
    commands
}
