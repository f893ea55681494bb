//! Who must not reach whom: each forbidden edge is asked of `cargo tree`, which follows what is really compiled.

use anyhow::bail;

use crate::workspace::{Workspace, output};

/// One crate and what must not be below it.
struct Invariant {
    /// What a person should remember.
    rule: &'static str,
    /// Which part of the graph is asked: arguments of `cargo tree`.
    graph: &'static [&'static str],
    /// Packages that must not be in it.
    forbidden: &'static [&'static str],
}

const INVARIANTS: &[Invariant] = &[
    Invariant {
        rule: "delivery knows no HTTP, no Kubernetes and nothing of ours",
        graph: &["-p", "spillway-delivery", "--all-features"],
        forbidden: &[
            "hyper",
            "hyper-util",
            "reqwest",
            "axum",
            "http",
            "tower",
            "rustls",
            "kube",
            "kube-core",
            "k8s-openapi",
            "schemars",
            "spillway-backends",
            "spillway-crds",
        ],
    },
    Invariant {
        rule: "backends without `client` are settings only",
        graph: &["-p", "spillway-backends", "--no-default-features"],
        forbidden: &["reqwest", "hyper", "http", "tokio", "rustls", "kube-core", "k8s-openapi", "spillway-delivery"],
    },
    Invariant {
        rule: "backends know no Kubernetes, with or without `client`",
        graph: &["-p", "spillway-backends", "--all-features"],
        forbidden: &["kube", "kube-core", "k8s-openapi", "spillway-crds"],
    },
    Invariant {
        rule: "crds pull in no client and no server",
        graph: &["-p", "spillway-crds"],
        forbidden: &["reqwest", "hyper", "axum", "kube-client", "kube-runtime"],
    },
    Invariant {
        rule: "tokens know no server, no Kubernetes and nothing of ours",
        graph: &["-p", "spillway-tokens"],
        forbidden: &[
            "hyper",
            "axum",
            "reqwest",
            "kube",
            "kube-core",
            "k8s-openapi",
            "spillway-crds",
            "spillway-delivery",
        ],
    },
    Invariant {
        rule: "the agent talks to no Kubernetes API, and has one TLS provider",
        graph: &["-p", "spillway-agent"],
        forbidden: &["kube-client", "kube-runtime", "ring", "openssl-sys", "native-tls"],
    },
    Invariant {
        rule: "the command line knows no client of a backend and no program of ours, and has one TLS provider",
        graph: &["-p", "spillway-cli"],
        forbidden: &[
            "reqwest",
            "aws-sdk-s3",
            "axum",
            "spillway-agent",
            "spillway-operator",
            "kube-runtime",
            "ring",
            "openssl-sys",
            "native-tls",
        ],
    },
    Invariant {
        rule: "tests know nothing of ours but crds: programs are asked from outside",
        graph: &["-p", "spillway-tests", "--depth", "1", "-e", "normal,build,dev"],
        forbidden: &[
            "spillway-agent",
            "spillway-operator",
            "spillway-cli",
            "spillway-backends",
            "spillway-delivery",
            "xtask",
        ],
    },
];

/// Checks every invariant.
pub(crate) fn run(workspace: &Workspace) -> anyhow::Result<()> {
    let mut broken = 0;
    for invariant in INVARIANTS {
        let names = reached(workspace, invariant)?;
        let found: Vec<_> = invariant.forbidden.iter().filter(|name| names.iter().any(|n| n == *name)).collect();
        if found.is_empty() {
            println!("    holds: {}", invariant.rule);
            continue;
        }
        broken += found.len();
        println!("    BROKEN: {}", invariant.rule);
        for name in found {
            println!("      {name}: see `cargo tree {} -i {name}`", invariant.graph.join(" "));
        }
    }
    if broken > 0 {
        bail!("{broken} forbidden dependencies");
    }
    Ok(())
}

/// Returns the names of all packages in the graph. One listing answers for every forbidden name, where
/// `cargo tree -i NAME` fails alike for "not reached" and for "no such package".
fn reached(workspace: &Workspace, invariant: &Invariant) -> anyhow::Result<Vec<String>> {
    let mut command = workspace.cargo(&["tree", "--locked", "--prefix", "none"]);
    if !invariant.graph.contains(&"-e") {
        command.args(["-e", "normal,build"]);
    }
    let text = output(command.args(["--format", "{p}", "--no-dedupe"]).args(invariant.graph))?;
    let mut names: Vec<String> = text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect();
    names.sort();
    names.dedup();
    if names.len() < 2 {
        bail!("`cargo tree` listed no dependencies for: {}", invariant.rule);
    }
    Ok(names)
}
