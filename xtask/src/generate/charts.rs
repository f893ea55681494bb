//! The parts of the charts that follow from something: templates of the kinds, the chart of the kinds inside the other, the
//! places where a Secret may be named, the settings of Argo CD, and the tables of values.
//!
//! A value is documented where it stands: by a comment that begins with its name and ends above its line. Every value has
//! one, except a map that only groups others.

use std::fmt::Write as _;

use anyhow::{Context as _, bail};

use crate::workspace::Workspace;

/// The chart of the kinds.
const KINDS: &str = "charts/spillway-crds";
/// Where the other chart has it.
const KINDS_INSIDE: &str = "charts/spillway/charts/spillway-crds";
/// Where the policy about Secrets finds the places that may name one.
const REFERENCES: &str = "charts/spillway/files/secret-references.yaml";
/// The health check for Argo CD, and its settings that hold it.
const HEALTH: [&str; 2] = ["charts/argocd/health.lua", "charts/argocd/argocd-cm.yaml"];
/// Files of the chart of the kinds that are written by hand.
const BY_HAND: [&str; 5] =
    [".helmignore", "Chart.yaml", "values.yaml", "values.schema.json", "templates/_metadata.tpl"];

/// Returns every file of the charts that is generated, with its text.
pub(super) fn all(workspace: &Workspace, kinds: &[(String, String)]) -> anyhow::Result<Vec<(String, String)>> {
    let mut files = Vec::new();
    for (name, text) in kinds {
        let template = template(text).with_context(|| format!("{name} is not what a template can be made of"))?;
        for chart in [KINDS, KINDS_INSIDE] {
            files.push((format!("{chart}/templates/{name}"), template.clone()));
        }
    }
    files.push((REFERENCES.to_owned(), references()));
    files.push((HEALTH[1].to_owned(), settings_of_argo_cd(&workspace.read(HEALTH[0])?)));
    for name in BY_HAND {
        files.push((format!("{KINDS_INSIDE}/{name}"), workspace.read(&format!("{KINDS}/{name}"))?));
    }
    for chart in ["charts/spillway", KINDS] {
        let values = values(&workspace.read(&format!("{chart}/values.yaml"))?)
            .with_context(|| format!("reading {chart}/values.yaml"))?;
        let path = format!("{chart}/README.md");
        let page =
            with_table(&workspace.read(&path)?, &values).with_context(|| format!("{path} has no place for it"))?;
        files.push((path, page));
    }
    Ok(files)
}

/// Returns the settings that give Argo CD the script for each kind.
fn settings_of_argo_cd(script: &str) -> String {
    let head = "# From health.lua, by `cargo xtask generate`. Do not edit.\napiVersion: v1\nkind: ConfigMap\n\
                metadata: {name: argocd-cm}\ndata:\n";
    let script = format!("    {}\n", script.trim_end().replace('\n', "\n    "));
    let kinds = ["Backend", "ClusterBackend", "ClusterMonitoringPipeline", "MonitoringPipeline"];
    kinds.iter().fold(head.to_owned(), |text, kind| {
        format!("{text}  resource.customizations.health.spillway.dev_{kind}: |\n{script}")
    })
}

/// Returns the places of all destinations that may name a Secret.
fn references() -> String {
    let mut places = ["Backend", "ClusterBackend"].map(spillway_crds::crd::secret_references).concat();
    places.sort();
    places.dedup();
    let head =
        "# From the kinds, by `cargo xtask generate`: where, below `spec`, a key of a Secret is named. Do not edit.\n";
    places.iter().fold(head.to_owned(), |text, place| format!("{text}- {place}\n"))
}

/// Makes a template of a CRD: labels and annotations come from the release. What Helm could take for a template of its own is
/// none.
fn template(crd: &str) -> Option<String> {
    if crd.contains("{{") {
        return None;
    }
    let (head, rest) = crd.split_once("metadata:\n")?;
    Some(format!("{head}metadata:\n  {{{{- include \"spillway-crds.metadata\" . | nindent 2 }}}}\n{rest}"))
}

/// A documented value.
#[derive(Debug, PartialEq)]
struct Documented {
    path: String,
    default: String,
    text: String,
}

/// Reads documented values: lines `key: default` in block style, each below its comment, nested by two spaces.
fn values(yaml: &str) -> anyhow::Result<Vec<Documented>> {
    let (mut found, mut groups, mut comment) = (Vec::new(), Vec::<&str>::new(), Vec::new());
    for line in yaml.lines() {
        let indent = line.len() - line.trim_start().len();
        if let Some(text) = line.trim_start().strip_prefix("# ") {
            comment.push(text);
            continue;
        }
        let Some((key, default)) = line.trim_start().split_once(':') else {
            if !line.trim().is_empty() {
                bail!("`{line}` is neither a comment nor a key; values that are lists and maps stand in one line");
            }
            comment.clear();
            continue;
        };
        groups.truncate(indent / 2);
        groups.push(key);
        let (path, default) = (groups.join("."), default.trim());
        if default.is_empty() {
            continue;
        }
        let text = comment.join(" ");
        comment.clear();
        // `{enabled: true}` is documented as what is in it.
        let switch = default == "{enabled: true}" || default == "{enabled: false}";
        let path = if switch { format!("{path}.enabled") } else { path };
        let default = if switch { default.trim_matches(['{', '}']).trim_start_matches("enabled: ") } else { default };
        let Some(text) = text.strip_prefix(&path).and_then(|rest| rest.strip_prefix(' ')) else {
            bail!("`{path}` stands below no comment that begins with its name");
        };
        found.push(Documented { path, default: default.to_owned(), text: text.to_owned() });
    }
    Ok(found)
}

/// Puts the table between the marks of a page.
fn with_table(page: &str, values: &[Documented]) -> Option<String> {
    let (begin, end) = ("<!-- values -->\n", "<!-- /values -->");
    let (before, rest) = page.split_once(begin)?;
    let (_, after) = rest.split_once(end)?;
    let mut table = "| value | default | what it is |\n| --- | --- | --- |\n".to_owned();
    for Documented { path, default, text } in values {
        writeln!(table, "| `{path}` | `{default}` | {text} |").ok()?;
    }
    Some(format!("{before}{begin}\n{table}\n{end}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_with_their_paths_and_comments() {
        let yaml = "# a is one.\na: 1\n\ngroup:\n  # group.b is\n  # a switch.\n  b: {x: 1}\n  # group.c.enabled is on.\n  c: {enabled: true}\n";
        let found = values(yaml).unwrap();
        let rows: Vec<_> = found.iter().map(|value| [&*value.path, &*value.default, &*value.text]).collect();
        assert_eq!(
            rows,
            [["a", "1", "is one."], ["group.b", "{x: 1}", "is a switch."], ["group.c.enabled", "true", "is on."]]
        );
    }

    #[test]
    fn a_value_without_its_comment_is_told() {
        for yaml in ["a: 1\n", "# b is one.\na: 1\n", "# a is one.\na: 1\nb: 2\n", "a:\n- 1\n"] {
            values(yaml).unwrap_err();
        }
    }

    #[test]
    fn a_kind_becomes_a_template_and_nothing_of_it_is_one_already() {
        let made = template("kind: X\nmetadata:\n  name: x\nspec: {}\n").unwrap();
        assert_eq!(
            made,
            "kind: X\nmetadata:\n  {{- include \"spillway-crds.metadata\" . | nindent 2 }}\n  name: x\nspec: {}\n"
        );
        assert!(template("metadata:\n  a: '{{ b }}'\n").is_none() && template("kind: X\n").is_none());
    }

    #[test]
    fn the_table_takes_the_place_of_the_one_before() {
        let values = [Documented { path: "a".into(), default: "1".into(), text: "is one.".into() }];
        let page = "# X\n\n<!-- values -->\n<!-- /values -->\n";
        let once = with_table(page, &values).unwrap();
        assert!(once.contains("| `a` | `1` | is one. |\n"));
        assert_eq!(with_table(&once, &values).unwrap(), once);
        assert!(with_table("# X\n", &values).is_none());
    }
}
