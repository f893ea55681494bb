//! Helm 3 and Helm 4, and the charts of this project in their hands.
//!
//! Both are built from published modules that `go.sum` files below `tests/cluster` pin, as Kubernetes is.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::cluster::package::{go_build, sources, version};
use crate::servers::kube_api::{KubeApi, Said};
use crate::servers::{Package, cache, tools};

/// Both versions. The key counts recipes: another way to build is another number.
pub const PACKAGE: Package = Package {
    name: "helm",
    key: "3.22.0-4.3.1-1",
    hindrance: |package| {
        let needs = package.installed().is_none() && tools::find("go").is_none();
        needs.then(|| "Go is not installed, and Helm is built with it".to_owned())
    },
    install,
};

/// The name and the namespace that documents and tests install under.
pub const RELEASE: &str = "spillway";
/// See [`RELEASE`].
pub const NAMESPACE: &str = "spillway-system";

/// One version of Helm.
#[derive(Debug, Clone)]
pub struct Helm {
    /// Its major version.
    pub major: u32,
    /// Where it lies.
    pub program: PathBuf,
}

impl Helm {
    /// Returns both versions, the older first, when they are installed.
    pub fn installed() -> Option<[Self; 2]> {
        let folder = PACKAGE.installed()?;
        Some([3, 4].map(|major| Self { major, program: folder.join(format!("helm{major}")) }))
    }

    /// Calls it. What it keeps of its own lies in `home`; without a kubeconfig it reaches no cluster.
    pub fn call(&self, home: &Path, kubeconfig: Option<&Path>, words: &[&str]) -> anyhow::Result<Said> {
        let mut command = Command::new(&self.program);
        command.args(words).env("HOME", home).current_dir(root());
        for (variable, folder) in
            [("HELM_CACHE_HOME", "cache"), ("HELM_CONFIG_HOME", "config"), ("HELM_DATA_HOME", "data")]
        {
            command.env(variable, home.join(folder));
        }
        command.env("KUBECONFIG", kubeconfig.unwrap_or(Path::new("/nowhere")));
        let output = command.output().with_context(|| format!("starting {}", self.program.display()))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(Said { ok: output.status.success(), out: text(&output.stdout), err: text(&output.stderr) })
    }

    /// Renders the chart `spillway`.
    pub fn render(&self, home: &Path, more: &[&str]) -> anyhow::Result<Said> {
        let words = ["template", RELEASE, "charts/spillway", "--namespace", NAMESPACE];
        self.call(home, None, &[&words, more].concat())
    }

    /// Calls it with a cluster and wants it to succeed; returns its output.
    pub fn must(&self, api: &KubeApi, words: &[&str]) -> String {
        match self.call(api.folder(), Some(&api.kubeconfig()), words) {
            Ok(Said { ok: true, out, .. }) => out,
            Ok(Said { out, err, .. }) => panic!("Helm {} {words:?}: {err}{out}", self.major),
            Err(error) => panic!("Helm {} {words:?}: {error:#}", self.major),
        }
    }
}

/// The kustomize base as the chart renders it: everything but kinds (which `crds/` has) and tests.
pub fn kustomize_base(helm: &Helm, home: &Path) -> anyhow::Result<String> {
    let said = helm.render(home, &["--set", "crds.enabled=false", "--no-hooks"])?;
    if !said.ok {
        bail!("helm template: {}", said.err);
    }
    let lines = said.out.lines().filter(|line| !line.contains("helm.sh/chart: "));
    let lines =
        lines.map(|line| line.replace("app.kubernetes.io/managed-by: Helm", "app.kubernetes.io/managed-by: kustomize"));
    let head = "# Rendered from the chart `spillway` by `cargo xtask generate`. Do not edit.\n";
    Ok(head.to_owned() + &lines.filter(|line| !line.trim().is_empty()).map(|line| line + "\n").collect::<String>())
}

/// Returns the folder of the project.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_owned).unwrap_or_default()
}

fn install(_: &Package, folder: &Path) -> anyhow::Result<()> {
    let caches = cache().join(".go-helm");
    let (major, minor) = version();
    for (helm, module) in [(3, "helm"), (4, "helm4")] {
        println!("      go: Helm {helm}, about two minutes");
        let path = format!("helm.sh/helm/v{helm}");
        let own = required(module, &path)?;
        // Without these, rendering without a cluster is for Kubernetes 1.20.
        let mut stamp = format!(" -X {path}/internal/version.version={own}");
        for place in ["pkg/chartutil", "pkg/lint/rules"].iter().filter(|_| helm == 3) {
            write!(stamp, " -X {path}/{place}.k8sVersionMajor={major} -X {path}/{place}.k8sVersionMinor={minor}")?;
        }
        let output = folder.join(format!("helm{helm}")).display().to_string();
        tools::run(go_build(module, &stamp, &output, &caches).arg(format!("{path}/cmd/helm")))?;
    }
    fs::remove_dir_all(&caches).context("removing the caches of the build")
}

/// Returns the version that a module below `tests/cluster` requires of a package.
fn required(module: &str, path: &str) -> anyhow::Result<String> {
    let file = sources().join(module).join("go.mod");
    let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    let found =
        text.lines().find_map(|line| line.trim().trim_start_matches("require ").strip_prefix(path)?.split(' ').nth(1));
    found.map(str::to_owned).with_context(|| format!("{} requires no {path}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_modules_require_the_versions_that_the_key_names() {
        let versions =
            [("helm", "helm.sh/helm/v3"), ("helm4", "helm.sh/helm/v4")].map(|(m, p)| required(m, p).expect("one"));
        assert_eq!(PACKAGE.key, format!("{}-{}-1", &versions[0][1..], &versions[1][1..]));
    }
}
