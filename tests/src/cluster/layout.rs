//! Names, addresses and folders: one cluster per machine, so all of them are fixed.

use std::path::{Path, PathBuf};

/// One node: a network, mount and process namespace of its own.
#[derive(Debug, Clone, Copy)]
pub struct Node {
    /// Its name in the cluster, and of its network namespace and cgroup.
    pub name: &'static str,
    /// Its address, reachable from this machine.
    pub address: &'static str,
    /// The addresses of its pods.
    pub pods: &'static str,
}

/// The nodes; the control plane runs in the network of the first.
pub const NODES: [Node; 2] = [
    Node { name: "spillway-node1", address: "10.212.0.11", pods: "10.213.1.0/24" },
    Node { name: "spillway-node2", address: "10.212.0.12", pods: "10.213.2.0/24" },
];

/// The bridge that joins the nodes and this machine.
pub const BRIDGE: &str = "spillway0";
/// The links that a cluster has on this machine: the bridge, and one to each node in their order.
pub const LINKS: [&str; NODES.len() + 1] = [BRIDGE, "spillway1", "spillway2"];
/// The address of this machine on the bridge: what pods call to reach a test.
pub const HOST: &str = "10.212.0.1";
/// The addresses of all pods.
pub const PODS: &str = "10.213.0.0/16";
/// The addresses of services.
pub const SERVICES: &str = "10.214.0.0/16";
/// The first of them, which the API server takes.
pub const SERVICE_OF_API: &str = "10.214.0.1";
/// Where the API server is.
pub const API_URL: &str = "https://10.212.0.11:6443";

/// Everything of the running cluster; gone after `down`.
pub fn state() -> PathBuf {
    PathBuf::from("/var/cache/spillway-cluster")
}

/// The kubeconfig of an administrator.
pub fn kubeconfig() -> PathBuf {
    state().join("certificates/admin.kubeconfig")
}

impl Node {
    /// Its folder in [`state`].
    pub fn folder(&self) -> PathBuf {
        state().join(self.name)
    }

    /// What is `/var/lib` on the node.
    pub fn var_lib(&self) -> PathBuf {
        self.folder().join("lib")
    }

    /// What is `/var/log` on the node.
    pub fn logs(&self) -> PathBuf {
        self.folder().join("log")
    }

    /// The file that names its network namespace.
    pub fn network(&self) -> PathBuf {
        Path::new("/run/netns").join(self.name)
    }
}
