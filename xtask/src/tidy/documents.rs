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
    for (path, source) in texts.iter().filter(|(path, _)| !path.contains("test")) {
        let Some(prefix) = prefix(path, source) else { continue };
        for name in metrics(source) {
            let name = format!("{prefix}{name}");
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

/// Returns how the names of the metrics of a file begin; `None` for a file that has none.
pub(super) fn prefix(path: &str, source: &str) -> Option<&'static str> {
    if path.starts_with("agent/src/metrics") {
        Some("spillway_")
    } else if path.starts_with("operator/src/") && source.contains("prometheus_client::registry::Registry") {
        Some("spillway_operator_")
    } else {
        None
    }
}

/// Returns the environment variables that a command line declares.
pub(super) fn variables(source: &str) -> impl Iterator<Item = &str> {
    source.split("env = \"").skip(1).filter_map(|rest| rest.split('"').next())
}

/// Returns the names of metrics: the first of a list of arguments, a literal of lower-case words joined by `_`, followed by the
/// literal of its help.
pub(super) fn metrics(source: &str) -> Vec<&str> {
    let parts: Vec<&str> = source.split('"').collect();
    let is_name = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
    };
    let firsts = parts.windows(4).step_by(2).filter(|part| part[0].trim_end().ends_with('('));
    let found = firsts.filter(|part| is_name(part[1]) && part[2].trim() == "," && part[3].contains(' '));
    found.map(|part| part[1]).collect()
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
