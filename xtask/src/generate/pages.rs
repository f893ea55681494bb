//! The reference of the backends: one page each from one template, and an index that says what each guarantees; and a page
//! of each kind.
//!
//! By hand, in the backend's folder below `backends/src`: `page.md` (the sections [`SECTIONS`], in this order; the first
//! paragraph of the first is what the index says) and `full.yaml` (its settings, every one of them, for the manifest that
//! shows all; a backend without settings has none). All else follows from the list and the schema.

use std::fmt::Write as _;

use anyhow::{Context as _, ensure};
use serde_json::Value;
use spillway_crds::{BackendRow, BackendSettings};

use crate::workspace::Workspace;

/// Where the pages are.
const FOLDER: &str = "docs/reference/backends";
/// The sections of a `page.md`.
const SECTIONS: [&str; 4] = ["Guarantee", "Limits", "Permissions", "How it fails"];
/// Where the parts of a kind are in a CRD.
const SCHEMA: &str = "/spec/versions/0/schema/openAPIV3Schema/properties";

/// Returns every page: its path and its text.
pub(super) fn all(workspace: &Workspace) -> anyhow::Result<Vec<(String, String)>> {
    let spec = spec("Backend")?;
    let mut pages = kind_pages()?;
    let mut index = String::from(INDEX);
    for row in BackendSettings::LIST {
        let folder = format!("backends/src/{}", row.module);
        let by_hand = workspace.read(&format!("{folder}/page.md"))?;
        let guarantee = check_sections(&by_hand).with_context(|| format!("{folder}/page.md"))?;
        let file = format!("{}.md", row.member_name.to_lowercase());
        writeln!(index, "| [`{}`]({file}) |{} | {guarantee} |", row.type_name, row.what)?;
        let full = if has_settings(&spec[row.member_name]) {
            workspace.read(&format!("{folder}/full.yaml"))?
        } else {
            String::new()
        };
        let page = page(row, spec, by_hand.trim(), full.trim()).with_context(|| folder.clone())?;
        pages.push((format!("{FOLDER}/{file}"), page));
    }
    index += "\n## What every Backend has\n\nFields of `spec`, besides `type` and the member of the type.\n\n";
    index += TABLE;
    let of_a_type = |name: &String| BackendSettings::LIST.iter().any(|row| row.member_name == name);
    let common = spec.as_object().into_iter().flatten().filter(|(name, _)| *name != "type" && !of_a_type(name));
    let common: serde_json::Map<_, _> = common.map(|(name, schema)| (name.clone(), schema.clone())).collect();
    let mut rows = Vec::new();
    settings(&mut rows, &serde_json::json!({ "properties": common }), "");
    index.extend(rows);
    pages.push((format!("{FOLDER}/README.md"), index));
    Ok(pages)
}

/// Returns the fields of a kind's spec.
fn spec(kind: &str) -> anyhow::Result<&'static Value> {
    Ok(&object(kind, "spec")?["properties"])
}

/// Returns the schema of a part of a kind.
fn object(kind: &str, part: &str) -> anyhow::Result<&'static Value> {
    let mut definitions = spillway_crds::crd::definitions().iter();
    let found = definitions.find(|crd| crd["spec"]["names"]["kind"] == kind);
    found.and_then(|crd| crd.pointer(SCHEMA)?.get(part)).with_context(|| format!("no CRD of {kind}"))
}

/// Returns the pages of the kinds that are not one type of backend.
fn kind_pages() -> anyhow::Result<Vec<(String, String)>> {
    [
        ("MonitoringPipeline", PIPELINE, &[][..]),
        ("ClusterMonitoringPipeline", CLUSTER_PIPELINE, &["namespaceSelector"]),
        ("Backend", BACKEND, &["type", "metadata", "delivery"]),
        ("ClusterBackend", CLUSTER_BACKEND, &["allowedNamespaces", "secretNamespace"]),
    ]
    .into_iter()
    .map(|(kind, head, shown)| kind_page(kind, head, shown))
    .collect()
}

/// Returns the page of a kind; with `shown` only of these fields, since another page has the others.
fn kind_page(kind: &str, head: &str, shown: &[&str]) -> anyhow::Result<(String, String)> {
    let (spec, status) = (object(kind, "spec")?, object(kind, "status")?);
    let mut own = spec.clone();
    if let Some(fields) = own["properties"].as_object_mut().filter(|_| !shown.is_empty()) {
        fields.retain(|name, _| shown.contains(&name.as_str()));
        ensure!(fields.len() == shown.len(), "{kind} lacks one of {shown:?}");
    }
    let (mut of_spec, mut of_status) = (Vec::new(), Vec::new());
    settings(&mut of_spec, &own, "");
    settings(&mut of_status, status, "");
    let status_head = "\n## Fields of `status`\n\nWritten by the operator. An agent of its own writes none: its \
                       `spillway-agent status` says it.\n\n";
    let text = format!("{head}{TABLE}{}{status_head}{TABLE}{}", of_spec.concat(), of_status.concat());
    Ok((format!("docs/reference/{}.md", kind.to_lowercase()), text))
}

const PIPELINE: &str = "\
<!-- Written by `cargo xtask generate`. Do not edit. -->

# MonitoringPipeline

What is taken in, how safely it is held, and which [backends](backends/README.md) it goes to. The least it needs:

```yaml
apiVersion: spillway.dev/v1alpha1
kind: Backend
metadata: {name: archive}
spec: {type: Filesystem}
---
apiVersion: spillway.dev/v1alpha1
kind: MonitoringPipeline
metadata: {name: jobs}
spec:
  inputs:
  - {name: pushed, type: Events}
  routes:
  - {name: everything, backendRefs: [{name: archive}]}
```

More: what a [condition](conditions.md) may say, what [an accepted event survives](../explanation/durability.md), what
[failover](../explanation/failover.md) costs, what [an edit](../how-to/change-the-configuration.md) does.

## Fields of `spec`

`inputs`, `routes`, their names and types must be given; what has a default may be left out. Unknown fields are errors.

";

const CLUSTER_PIPELINE: &str = "\
<!-- Written by `cargo xtask generate`. Do not edit. -->

# ClusterMonitoringPipeline

A [MonitoringPipeline](monitoringpipeline.md) over many namespaces, for those who run the platform. Its routes name
[ClusterBackends](clusterbackend.md) alone, and need no grant. The least it needs:

```yaml
apiVersion: spillway.dev/v1alpha1
kind: ClusterBackend
metadata: {name: archive}
spec: {type: Filesystem}
---
apiVersion: spillway.dev/v1alpha1
kind: ClusterMonitoringPipeline
metadata: {name: every-log}
spec:
  namespaceSelector: {}
  inputs:
  - {name: logs, type: ContainerLogs}
  routes:
  - {name: everything, backendRefs: [{name: archive}]}
```

Where a name is made of the namespace of a pipeline, such as `{namespace}` in a template or the label `namespace` of a
metric, `_cluster` stands. The namespace of an event is in its `origin`. What a run without Kubernetes knows of namespaces
stands in [sharing a backend](../how-to/share-a-backend.md#without-kubernetes).

## Fields of `spec`

Its own. All others are those of a [MonitoringPipeline](monitoringpipeline.md#fields-of-spec); a reference has the kind
`ClusterBackend`, also where it says none.

";

const BACKEND: &str = "\
<!-- Written by `cargo xtask generate`. Do not edit. -->

# Backend

A destination that the pipelines of its namespace may name in their routes. `type` says which; the member of that name holds
its settings. The least it needs:

```yaml
apiVersion: spillway.dev/v1alpha1
kind: Backend
metadata: {name: archive}
spec: {type: Filesystem}
```

Each type has [a page of its own](backends/README.md): guarantee, limits, permissions, failures, settings.

## Fields of `spec`

Besides the member of the type. The type never changes: what is held for a destination cannot go to another.

";

const CLUSTER_BACKEND: &str = "\
<!-- Written by `cargo xtask generate`. Do not edit. -->

# ClusterBackend

A destination of the cluster, for those who run the platform: every
[ClusterMonitoringPipeline](clustermonitoringpipeline.md) may name it, and the pipelines of the namespaces that it grants.
By default it grants none.

```yaml
apiVersion: spillway.dev/v1alpha1
kind: ClusterBackend
metadata: {name: archive}
spec:
  allowedNamespaces: {selector: {matchLabels: {tier: prod}}}
  type: Filesystem
```

How a pipeline uses it, and what happens without a grant: [sharing a backend](../how-to/share-a-backend.md).

## Fields of `spec`

Its own. All others are those of a [Backend](backend.md#fields-of-spec) and of [its type](backends/README.md).

";

const INDEX: &str = "\
<!-- Written by `cargo xtask generate`. Do not edit. -->

# Backends

One page per type of `Backend`: what it guarantees, its limits, what it needs to be allowed, how it fails, its settings.

\"Exactly once\" is said where a repeat after a crash or a lost answer leaves one event at the destination; \"at least
once\" where it may leave two. Nothing accepted is lost either way: what is not delivered is held, or is in the dead
letters with the reason.

| type | what | guarantee |
| --- | --- | --- |
";

const TABLE: &str = "| field | type | default | bounds | what |\n| --- | --- | --- | --- | --- |\n";

fn has_settings(schema: &Value) -> bool {
    schema["properties"].as_object().is_some_and(|properties| !properties.is_empty())
}

/// Checks that the sections are there, and returns the first paragraph of the first.
fn check_sections(by_hand: &str) -> anyhow::Result<String> {
    let found: Vec<&str> = by_hand.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    ensure!(found == SECTIONS, "the sections are {found:?}, not {SECTIONS:?}");
    ensure!(by_hand.starts_with("## "), "text before the first section");
    let paragraph = by_hand.split("\n\n").nth(1).unwrap_or_default();
    ensure!(!paragraph.starts_with("## "), "`{}` says nothing", SECTIONS[0]);
    Ok(paragraph.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// `what` with a capital letter.
fn sentence(what: &str) -> String {
    let mut letters = what.trim().chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

fn page(row: &BackendRow, spec: &Value, by_hand: &str, full: &str) -> anyhow::Result<String> {
    let BackendRow { type_name, member_name, module, .. } = row;
    let schema = &spec[*member_name];
    let minimal = minimal(schema, full);
    let mut out = format!(
        "<!-- Written by `cargo xtask generate` from `settings.rs`, `page.md` and `full.yaml` of `backends/src/{module}`. \
         Do not edit. -->\n\n# {type_name}\n\n{}. The least it needs:\n\n",
        sentence(row.what)
    );
    manifest(&mut out, row, &minimal, None)?;
    writeln!(out, "\n{by_hand}\n\n## Settings\n")?;
    if has_settings(schema) {
        let mut rows = Vec::new();
        settings(&mut rows, schema, "");
        for (name, alternatives) in names(schema) {
            let there = alternatives.iter().any(|name| full.contains(&format!("{name}:")));
            ensure!(there, "full.yaml does not show `{name}`");
        }
        writeln!(
            out,
            "Fields of `spec.{member_name}`. What a `Backend` has besides is in the [index](README.md#what-every-backend-has).\n"
        )?;
        out += TABLE;
        out.extend(rows);
        out += "\nAll of it at once, with what every `Backend` has:\n\n";
    } else {
        writeln!(out, "There are none of its own, so `{member_name}` may be left out. What every `Backend` has:\n")?;
    }
    manifest(&mut out, row, full, Some(spec))?;
    write!(
        out,
        "\n## Metrics\n\nThe figures `spillway_delivery_…` of [the metrics](../metrics.md) have the labels `namespace`, \
         `pipeline`, `route`, `backend` (the name of the `Backend`) and `type=\"{type_name}\"`.\n"
    )?;
    Ok(out)
}

/// Appends a manifest with these settings; with `spec` also what every backend has.
fn manifest(out: &mut String, row: &BackendRow, settings: &str, spec: Option<&Value>) -> anyhow::Result<()> {
    let BackendRow { type_name, member_name, .. } = row;
    let name = member_name.to_lowercase();
    writeln!(out, "```yaml\napiVersion: spillway.dev/v1alpha1\nkind: Backend\nmetadata: {{name: {name}}}\nspec:")?;
    writeln!(out, "  type: {type_name}")?;
    if settings.is_empty() {
        writeln!(out, "  {member_name}: {{}}")?;
    } else {
        writeln!(out, "  {member_name}:")?;
        for line in settings.lines() {
            writeln!(out, "    {line}")?;
        }
    }
    for (field, schema) in spec.and_then(Value::as_object).into_iter().flatten() {
        let of_a_type = BackendSettings::LIST.iter().any(|row| row.member_name == field);
        match schema.get("default") {
            Some(Value::Object(members)) if !of_a_type => {
                writeln!(out, "  {field}:")?;
                members.iter().try_for_each(|(name, value)| writeln!(out, "    {name}: {}", flow(value)))?;
            }
            Some(value) if !of_a_type => writeln!(out, "  {field}: {}", flow(value))?,
            _ => {}
        }
    }
    out.push_str("```\n");
    Ok(())
}

/// A value on one line, as people write YAML.
fn flow(value: &Value) -> String {
    match value {
        Value::Object(members) => {
            let members: Vec<_> = members.iter().map(|(name, value)| format!("{name}: {}", flow(value))).collect();
            format!("{{{}}}", members.join(", "))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", ")),
        Value::String(text) if !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric()) => text.clone(),
        other => other.to_string(),
    }
}

/// The lines of `full` for the fields that must be there.
fn minimal(schema: &Value, full: &str) -> String {
    let required = required(schema);
    let mut keeping = false;
    let kept = full.lines().filter(|line| {
        if !line.starts_with([' ', '#', '-']) {
            keeping = line.split_once(':').is_some_and(|(name, _)| required.contains(&name));
        }
        keeping && !line.starts_with('#')
    });
    kept.collect::<Vec<_>>().join("\n")
}

fn required(schema: &Value) -> Vec<&str> {
    schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

fn properties(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    schema["properties"].as_object().into_iter().flatten()
}

/// A reference to a secret, which is the same everywhere.
fn is_secret(name: &str, schema: &Value) -> bool {
    name.to_lowercase().ends_with("secretref") && properties(schema).map(|(name, _)| name.as_str()).eq(["key", "name"])
}

/// Returns what the full manifest must show: fields, and for a choice its members.
fn names(schema: &Value) -> Vec<(String, Vec<String>)> {
    let mut found = Vec::new();
    if schema["maxProperties"] == 1 {
        let alternatives: Vec<String> = properties(schema).map(|(name, _)| name.clone()).collect();
        return vec![(alternatives.join("` or `"), alternatives)];
    }
    for (name, schema) in properties(schema) {
        found.push((name.clone(), vec![name.clone()]));
        found.extend(names(schema));
        found.extend(names(&schema["items"]));
    }
    found
}

/// Appends the rows of the table for the fields of an object, depth first.
fn settings(rows: &mut Vec<String>, schema: &Value, path: &str) {
    let required = required(schema);
    for (name, schema) in properties(schema) {
        let path = format!("{path}{name}");
        let default = match schema.get("default") {
            _ if required.contains(&name.as_str()) => "**required**".to_owned(),
            Some(Value::Object(_)) | None => String::new(),
            Some(default) => format!("`{default}`"),
        };
        let description = schema["description"].as_str().unwrap_or_default();
        // The column before says it.
        let (said, quoted) = (default.trim_matches('`'), default.trim_matches(['`', '"']));
        let description = [said, quoted]
            .iter()
            .find_map(|default| description.strip_suffix(&format!(" Default: `{default}`.")))
            .unwrap_or(description)
            .replace('|', "\\|")
            .replace("\n\n", " ");
        let secret = is_secret(name, schema);
        let kind = if secret { "`{name, key}` of a Secret".to_owned() } else { kind(schema) };
        rows.push(format!("| `{path}` | {kind} | {default} | {} | {description} |\n", bounds(schema)));
        if !secret {
            settings(rows, schema, &format!("{path}."));
            settings(rows, &schema["items"], &format!("{path}[]."));
        }
    }
}

fn kind(schema: &Value) -> String {
    if let Some(values) = schema["enum"].as_array() {
        return values.iter().map(|value| format!("`{}`", flow(value))).collect::<Vec<_>>().join(", ");
    }
    match schema["type"].as_str() {
        Some("array") => format!("list of {}", kind(&schema["items"])),
        Some(kind) => kind.to_owned(),
        None => "any".to_owned(),
    }
}

fn bounds(schema: &Value) -> String {
    let mut bounds = Vec::new();
    for (min, max, unit) in
        [("minimum", "maximum", ""), ("minLength", "maxLength", " characters"), ("minItems", "maxItems", " items")]
    {
        match (schema.get(min), schema.get(max)) {
            (Some(min), Some(max)) if min == max => bounds.push(format!("{min}{unit}")),
            (Some(min), Some(max)) => bounds.push(format!("{min} to {max}{unit}")),
            (Some(min), None) => bounds.push(format!("at least {min}{unit}")),
            (None, Some(max)) => bounds.push(format!("at most {max}{unit}")),
            (None, None) => {}
        }
    }
    if schema["maxProperties"] == 1 {
        bounds.push("exactly one of them".to_owned());
    }
    if let Some(pattern) = schema["pattern"].as_str() {
        bounds.push(format!("`{}`", pattern.replace('|', "\\|")));
    }
    bounds.join("; ")
}
