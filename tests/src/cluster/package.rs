//! Kubernetes, etcd and `CoreDNS`, built from the modules below `tests/cluster`, whose `go.sum` files pin every source.
//!
//! Go's own caches (about 5 GB) lie beside the package while it is built, so that a killed build goes on where it was, and
//! are removed at its end: the programs (660 MB) change only with the version.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use rustix::fs::{Access, access};

use crate::servers::{Package, cache, tools};

/// The version of Kubernetes, as in `tests/cluster/kubernetes/go.mod`.
pub const VERSION: &str = "1.37.2";
/// Programs of that version.
const PROGRAMS: [&str; 6] =
    ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl"];

/// Programs of the system that nodes and their tests need, and the packages that have them.
const SYSTEM: [(&str, &str); 8] = [
    ("containerd", "containerd"),
    ("runc", "runc"),
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("iptables", "iptables"),
    ("nsenter", "util-linux"),
    ("unshare", "util-linux"),
    ("curl", "curl"),
];
/// Where the system has the plug-ins of pod networks.
pub const NETWORK_PLUGINS: &str = "/usr/lib/cni";

/// The package. The key counts recipes: another way to build is another number.
pub const PACKAGE: Package = Package {
    name: "kubernetes",
    key: "1.37.2-1",
    hindrance: |package| {
        let needs = package.installed().is_none() && tools::find("go").is_none();
        needs.then(|| "Go is not installed, and Kubernetes is built with it".to_owned())
    },
    install,
};

/// Says why a cluster cannot run on this machine, if so.
pub fn hindrance() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("a cluster needs root".to_owned());
    }
    if let Some(hindrance) = (PACKAGE.hindrance)(&PACKAGE) {
        return Some(hindrance);
    }
    let absent = absent();
    if !absent.is_empty() && tools::find("apt-get").is_none() {
        return Some(format!("apt-get is not there, and nodes need {}", absent.join(" ")));
    }
    let filesystems = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if !filesystems.contains("\toverlay\n") {
        return Some("the kernel has no overlay file system".to_owned());
    }
    let new_namespaces = Command::new("unshare").args(["--net", "--mount", "--pid", "--fork", "true"]).output();
    if !new_namespaces.is_ok_and(|output| output.status.success()) {
        return Some("namespaces cannot be made here".to_owned());
    }
    let is_fixed = |root: &PathBuf| access(root, Access::WRITE_OK).is_err();
    if let Some(root) = super::processes::cgroup_roots().into_iter().find(is_fixed) {
        return Some(format!("control groups cannot be made in {}", root.display()));
    }
    None
}

/// Installs from the system's packages what nodes need and is absent.
pub fn ensure_system() -> anyhow::Result<()> {
    let packages = absent();
    if packages.is_empty() { Ok(()) } else { tools::apt_install(&packages) }
}

/// Returns the packages of the system that nodes need and that are absent.
fn absent() -> Vec<&'static str> {
    let mut packages: Vec<_> =
        SYSTEM.iter().filter(|(program, _)| tools::find(program).is_none()).map(|(_, package)| *package).collect();
    if !Path::new(NETWORK_PLUGINS).join("bridge").exists() {
        packages.push("containernetworking-plugins");
    }
    if !Path::new(super::image::AUTHORITIES).exists() {
        packages.push("ca-certificates");
    }
    packages
}

fn install(_: &Package, folder: &Path) -> anyhow::Result<()> {
    let pause = folder.join("pause");
    let source = sources().join("pause.c");
    tools::run(Command::new("cc").args(["-static", "-Os", "-s", "-o"]).args([&pause, &source]))?;
    let caches = cache().join(".go-kubernetes");
    println!("      go: Kubernetes {VERSION} and etcd, about ten minutes on two cores");
    let mut kubernetes = build("kubernetes", folder, &caches);
    kubernetes.args(PROGRAMS.map(|program| format!("k8s.io/kubernetes/cmd/{program}"))).arg("./etcd");
    tools::run(&mut kubernetes)?;
    println!("      go: CoreDNS, about two minutes");
    tools::run(build("coredns", folder, &caches).arg("."))?;
    std::fs::remove_dir_all(&caches).context("removing the caches of the build")
}

/// Returns the command that builds packages of a module, which are still to be named. The servers of Kubernetes say their
/// version only when it is stamped into them.
fn build(module: &str, folder: &Path, caches: &Path) -> Command {
    let mut stamp = String::new();
    let (major, minor) = version();
    for package in ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"] {
        let values = [
            ("gitVersion", format!("v{VERSION}")),
            ("gitMajor", major.to_owned()),
            ("gitMinor", minor.to_owned()),
            ("gitTreeState", "clean".to_owned()),
            ("gitCommit", "0".repeat(40)),
            ("buildDate", "2026-01-01T00:00:00Z".to_owned()),
        ];
        for (name, value) in values {
            stamp.extend([" -X ", package, ".", name, "=", &value]);
        }
    }
    go_build(module, &stamp, &format!("{}/", folder.display()), caches)
}

/// Returns major and minor version of Kubernetes.
pub(crate) fn version() -> (&'static str, &'static str) {
    let mut parts = VERSION.split('.');
    (parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
}

/// Returns the command that builds packages of a module below `tests/cluster` into `output`; they are still to be named.
pub(crate) fn go_build(module: &str, stamp: &str, output: &str, caches: &Path) -> Command {
    let mut command = Command::new("go");
    command.current_dir(sources().join(module)).env("CGO_ENABLED", "0").env("GOTOOLCHAIN", "local");
    command.env("GOFLAGS", "-mod=readonly -buildvcs=false -modcacherw");
    command.env("GOCACHE", caches.join("build")).env("GOMODCACHE", caches.join("modules"));
    command.args(["build", "-trimpath", "-ldflags", &format!("-s -w{stamp}"), "-o", output]);
    command
}

pub(crate) fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_module_requires_the_version_that_is_stamped() {
        let module = std::fs::read_to_string(sources().join("kubernetes/go.mod")).expect("the module");
        assert!(module.contains(&format!("k8s.io/kubernetes v{VERSION}\n")));
        let (_, minor) = VERSION.split_once('.').expect("parts");
        assert!(module.contains(&format!("replace k8s.io/api => k8s.io/api v0.{minor}\n")));
        assert!(PACKAGE.key.starts_with(VERSION));
    }
}
