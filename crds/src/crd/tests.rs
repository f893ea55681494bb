use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::*;
use crate::manifest::{check, rules};

/// Client-side apply keeps the object in an annotation of at most 256 KiB; half of that leaves room for growth.
const COMPACT_BYTES_MAX: usize = 64 << 10;

/// Calls `visit` with the path and value of every schema inside a CRD's schema.
fn walk(path: &str, schema: &Value, visit: &mut impl FnMut(&str, &Value)) {
    visit(path, schema);
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        walk(&format!("{path}.{name}"), inner, visit);
    }
    for inner in ["items", "additionalProperties"] {
        if schema[inner].is_object() {
            walk(&format!("{path}.{inner}"), &schema[inner], visit);
        }
    }
}

fn every_schema(mut visit: impl FnMut(&str, &Value)) {
    let mut count = 0;
    for definition in definitions() {
        let kind = definition["spec"]["names"]["kind"].as_str().unwrap();
        walk(kind, definition.pointer(SCHEMA).unwrap(), &mut |path, schema| {
            count += 1;
            visit(path, schema);
        });
    }
    assert!(count > 100, "only {count} schemas were walked");
}

/// Fails with every path for which `wrong` says something.
fn none_is(mut wrong: impl FnMut(&str, &Value) -> Option<String>) {
    let mut found = Vec::new();
    every_schema(|path, schema| found.extend(wrong(path, schema).map(|why| format!("{path}: {why}"))));
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn the_committed_files_are_what_the_types_give() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let regenerate = std::env::var_os("SPILLWAY_REGENERATE").is_some_and(|value| value == "1");
    let mut names = Vec::new();
    for (name, yaml) in crd_yaml() {
        let path = folder.join(&name);
        if regenerate {
            fs::write(&path, &yaml).unwrap();
        }
        let committed = fs::read_to_string(&path).unwrap_or_default();
        assert!(committed == yaml, "crds/{name} is not what the types give: run `cargo xtask generate`");
        names.push(name);
    }
    assert_eq!(names, ["monitoringpipelines.spillway.dev.yaml", "backends.spillway.dev.yaml"]);
}

#[test]
fn the_yaml_reads_back_as_the_definition() {
    for ((_, yaml), definition) in crd_yaml().iter().zip(definitions()) {
        let read: Value = serde_saphyr::from_str(yaml).unwrap();
        assert_eq!(&read, definition);
    }
}

#[test]
fn every_string_is_bounded() {
    none_is(|_, schema| {
        let bounded = schema["enum"].is_array() || schema["maxLength"].is_u64();
        (schema["type"] == "string" && !bounded).then(|| "no maxLength".to_owned())
    });
}

#[test]
fn every_list_is_bounded_and_has_a_list_type() {
    none_is(|_, schema| {
        let map_keys = schema["x-kubernetes-list-map-keys"].is_array() || schema["x-kubernetes-list-type"] != "map";
        let fine = schema["maxItems"].is_u64() && schema["x-kubernetes-list-type"].is_string() && map_keys;
        (schema["type"] == "array" && !fine).then(|| schema.to_string())
    });
}

#[test]
fn the_keys_of_every_list_map_are_required_or_have_a_default() {
    none_is(|_, schema| {
        let items = &schema["items"];
        let loose = schema["x-kubernetes-list-map-keys"].as_array()?.iter().filter_map(Value::as_str).find(|key| {
            let required = items["required"].as_array().is_some_and(|required| required.contains(&json!(key)));
            !required && items["properties"][key]["default"].is_null()
        })?;
        Some(loose.to_owned())
    });
}

#[test]
fn every_number_is_a_bounded_integer_within_what_json_keeps() {
    const EXACT_MAX: i64 = 1 << 53;
    none_is(|_, schema| {
        let integer = schema["type"] == "integer";
        let bound = |name: &str| schema[name].as_i64().filter(|bound| bound.abs() <= EXACT_MAX);
        let bounded = bound("minimum").zip(bound("maximum")).is_some_and(|(min, max)| min < max);
        let format = ["int32", "int64"].iter().any(|format| schema["format"] == *format);
        let wrong = schema["type"] == "number" || integer && !(bounded && format);
        wrong.then(|| schema.to_string())
    });
}

#[test]
fn every_map_is_bounded() {
    none_is(|_, schema| {
        (schema["additionalProperties"].is_object() && !schema["maxProperties"].is_u64())
            .then(|| "no maxProperties".to_owned())
    });
}

#[test]
fn every_field_is_described_in_sentences() {
    none_is(|path, schema| {
        if path.rsplit('.').next().is_some_and(|last| ["items", "additionalProperties"].contains(&last)) {
            return None; // The list describes its items.
        }
        let description = schema["description"].as_str().unwrap_or_default();
        let fine = description.len() >= 12 && description.ends_with(['.', '`']) && !description.contains(" \n");
        (!fine).then(|| format!("description {description:?}"))
    });
}

#[test]
fn every_schema_is_structural() {
    const KNOWN: [&str; 24] = [
        "type",
        "format",
        "description",
        "properties",
        "required",
        "items",
        "additionalProperties",
        "default",
        "enum",
        "minimum",
        "maximum",
        "minLength",
        "maxLength",
        "pattern",
        "minItems",
        "maxItems",
        "minProperties",
        "maxProperties",
        "x-kubernetes-list-type",
        "x-kubernetes-list-map-keys",
        "x-kubernetes-map-type",
        "x-kubernetes-validations",
        "fieldPath",
        "reason",
    ];
    none_is(|_, schema| {
        let unknown = schema.as_object().unwrap().keys().find(|key| !KNOWN.contains(&key.as_str()));
        unknown.cloned().or_else(|| schema["type"].is_null().then(|| "no type".to_owned()))
    });
}

#[test]
fn every_default_is_valid_under_its_own_schema() {
    let mut count = 0;
    none_is(|_, schema| {
        let default = schema.get("default")?;
        count += 1;
        let roots = crate::manifest::tree::read(&default.to_string());
        let mut problems = Vec::new();
        if let Some(root) = roots.first().and_then(|read| read.root.as_ref()) {
            check::check(root, schema, "", &mut problems);
        }
        (!problems.is_empty()).then(|| format!("{problems:?}"))
    });
    assert!(count > 15, "only {count} defaults");
}

#[test]
fn every_pattern_compiles_and_every_rule_has_a_side_in_rust() {
    let mut patterns = 0;
    let mut used = Vec::new();
    none_is(|_, schema| {
        if let Some(pattern) = schema["pattern"].as_str() {
            patterns += 1;
            if check::regex(pattern).is_none() {
                return Some(pattern.to_owned());
            }
        }
        for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
            let text = rule["rule"].as_str().unwrap();
            match rules::find(text) {
                Some(check) => used.push(check),
                None if rules::is_transition(text) => {}
                None => return Some(text.to_owned()),
            }
        }
        None
    });
    assert!(patterns > 5);
    let unused: Vec<_> = rules::checks().filter(|check| !used.contains(check)).collect();
    assert!(unused.is_empty(), "no kind has the rules {unused:?}");
}

#[test]
fn every_rule_says_what_must_be_and_where() {
    none_is(|_, schema| {
        schema["x-kubernetes-validations"].as_array()?.iter().find_map(|rule| {
            let message = rule["message"].as_str().unwrap_or_default();
            let fine = message.starts_with('`') && message.contains(" must ") && rule["reason"].is_string();
            (!fine).then(|| rule.to_string())
        })
    });
}

#[test]
fn the_definitions_are_small_enough_to_apply() {
    for definition in definitions() {
        let bytes = definition.to_string().len();
        assert!(bytes <= COMPACT_BYTES_MAX, "{} has {bytes} bytes", definition["metadata"]["name"]);
    }
}

#[test]
fn a_new_object_is_not_taken_for_a_ready_one() {
    for definition in definitions() {
        let status = definition.pointer(SCHEMA).unwrap()["properties"]["status"].clone();
        assert_eq!(status["default"]["observedGeneration"], -1);
        let ready = &status["default"]["conditions"][0];
        assert_eq!(
            (&ready["type"], &ready["status"], &ready["reason"]),
            (&json!("Ready"), &json!("Unknown"), &json!("Pending"))
        );
        assert_eq!(definition["spec"]["versions"][0]["subresources"]["status"], json!({}));
    }
}

#[test]
fn columns_fit_a_terminal_and_names_collide_with_nothing() {
    // Short names of the built-in kinds and of operators often found beside this one.
    const TAKEN: [&str; 40] = [
        "po", "svc", "ns", "no", "cm", "ds", "deploy", "rs", "sts", "hpa", "ing", "pv", "pvc", "sa", "ep", "ev",
        "limits", "quota", "pdb", "pc", "sc", "crd", "crds", "csr", "netpol", "psp", "rc", "cs", "cj", "cert",
        "issuer", "vs", "gw", "dr", "se", "smon", "pmon", "prom", "vp", "be",
    ];
    for definition in definitions() {
        let version = &definition["spec"]["versions"][0];
        let columns: Vec<_> = version["additionalPrinterColumns"].as_array().unwrap().iter().collect();
        let shown: Vec<&str> = columns
            .iter()
            .filter(|column| column["priority"].is_null())
            .map(|column| column["name"].as_str().unwrap())
            .collect();
        assert_eq!((shown[0], shown[1], shown.last().copied()), ("Ready", "Reason", Some("Age")));
        // A name of 30, then each column as wide as its heading or its longest usual value (18 for a reason), three between.
        let width: usize =
            30 + shown.iter().map(|name| 3 + if *name == "Reason" { 18 } else { name.len().max(4) }).sum::<usize>();
        assert!(width <= 80, "{width} characters");
        let names = &definition["spec"]["names"];
        assert_eq!(names["categories"], json!(["monitoring-pipelines"]));
        let short = names["shortNames"][0].as_str().unwrap();
        assert!(!TAKEN.contains(&short), "{short}");
    }
}

#[test]
fn the_type_of_a_backend_cannot_change_and_can_be_selected() {
    let backend = definitions().iter().find(|definition| definition["spec"]["names"]["kind"] == "Backend").unwrap();
    let kind = &backend.pointer(SCHEMA).unwrap()["properties"]["spec"]["properties"]["type"];
    assert_eq!(kind["x-kubernetes-validations"][0]["rule"], "self == oldSelf");
    assert_eq!(kind["enum"], json!(spillway_backends::BackendSettings::type_names().collect::<Vec<_>>()));
    assert_eq!(backend["spec"]["versions"][0]["selectableFields"], json!([{"jsonPath": ".spec.type"}]));
}
