//! Documents that name everything there is: settings of the agent, metrics, dependencies.

use std::collections::BTreeMap;

use crate::tidy::Finding;

const SETTINGS: &str = "docs/reference/agent-settings.md";
const METRICS: &str = "docs/reference/metrics.md";
const DEPENDENCIES: &str = "ARCHITECTURE.md";

/// Checks that each document names what the code has.
pub(super) fn check(texts: &[(&str, String)], findings: &mut Vec<Finding>) {
    let texts: BTreeMap<&str, &str> = texts.iter().map(|(path, text)| (*path, text.as_str())).collect();
    let text = |path: &str| texts.get(path).copied().unwrap_or_default();
    let mut complain = |path: &str, name: &str| {
        findings.push(Finding::new(path, 1, format!("does not name `{name}`, which the code has")));
    };
    for variable in variables(text("agent/src/cli.rs")) {
        if !text(SETTINGS).contains(&format!("`{variable}`")) {
            complain(SETTINGS, variable);
        }
    }
    for (_, source) in texts.iter().filter(|(path, _)| path.starts_with("agent/src/metrics") && !path.contains("test"))
    {
        for name in metrics(source) {
            let name = format!("spillway_{name}");
            let named = ["", "_total", "_info"].iter().any(|end| text(METRICS).contains(&format!("`{name}{end}`")));
            if !named {
                complain(METRICS, &name);
            }
        }
    }
    for name in dependencies(text("Cargo.toml")) {
        if !text(DEPENDENCIES).contains(&format!("`{name}`")) {
            complain(DEPENDENCIES, name);
        }
    }
}

/// Returns the environment variables that a command line declares.
pub(super) fn variables(source: &str) -> impl Iterator<Item = &str> {
    source.split("env = \"").skip(1).filter_map(|rest| rest.split('"').next())
}

/// Returns the names of metrics: a literal of lower-case words joined by `_`, followed by the literal of its help.
pub(super) fn metrics(source: &str) -> Vec<&str> {
    let parts: Vec<&str> = source.split('"').collect();
    let is_name = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
    };
    let pairs = parts.windows(3).skip(1).step_by(2);
    let found = pairs.filter(|part| is_name(part[0]) && part[1].trim() == "," && part[2].contains(' '));
    found.map(|part| part[0]).collect()
}

/// Returns the names of the dependencies of the workspace that are not its own crates.
pub(super) fn dependencies(manifest: &str) -> impl Iterator<Item = &str> {
    let lines = manifest.lines().skip_while(|line| *line != "[workspace.dependencies]").skip(1);
    let lines = lines.take_while(|line| !line.starts_with('['));
    lines.filter(|line| !line.starts_with('#') && !line.contains("path = ")).filter_map(|line| {
        let (name, _) = line.split_once('=')?;
        Some(name.trim())
    })
}
