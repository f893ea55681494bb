//! What the defaults depend on: read once from the machine, given by hand in tests.

use std::net::IpAddr;
use std::path::PathBuf;

/// The machine, as far as defaults depend on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Whether the process runs as root: a node agent or a service, not a plain user.
    pub root: bool,
    /// How many cores it may use.
    pub cores: usize,
    /// The machine's name.
    pub host_name: Option<String>,
    /// Where the kubelet puts container logs, when that is there.
    pub kubelet_logs: Option<PathBuf>,
    /// Where the API server is, as a kubelet tells every container: an address, in some clusters a name.
    pub api_server: Option<String>,
    /// The gateways of its network; in a pod the node is one.
    pub gateways: Vec<IpAddr>,
}

impl Machine {
    /// Reads this machine.
    pub fn read() -> Self {
        let kubelet_logs = PathBuf::from("/var/log/pods");
        Self {
            root: rustix::process::geteuid().is_root(),
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            host_name: rustix::system::uname().nodename().to_str().ok().map(Into::into),
            kubelet_logs: kubelet_logs.is_dir().then_some(kubelet_logs),
            api_server: std::env::var("KUBERNETES_SERVICE_HOST").ok().filter(|host| !host.is_empty()),
            gateways: super::addresses::gateways(),
        }
    }

    pub(super) fn data_dir(&self) -> PathBuf {
        if self.root { "/var/lib/spillway" } else { "./spillway-data" }.into()
    }

    pub(super) fn filesystem_root(&self) -> PathBuf {
        if self.root { "/var/lib/spillway-out" } else { "./spillway-out" }.into()
    }

    pub(super) fn pod_logs(&self) -> Option<PathBuf> {
        self.kubelet_logs.clone()
    }
}
