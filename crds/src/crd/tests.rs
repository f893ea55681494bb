use std::collections::BTreeSet;
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
    let plurals = ["monitoringpipelines", "backends", "clustermonitoringpipelines", "clusterbackends"];
    assert_eq!(names, plurals.map(|plural| format!("{plural}.spillway.dev.yaml")));
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
    none_is(|path, schema| {
        schema["x-kubernetes-validations"].as_array()?.iter().find_map(|rule| {
            let message = rule["message"].as_str().unwrap_or_default();
            // A rule over the whole object, or over one value, is told at that place anyway.
            let placed = rule["fieldPath"].is_string() || path.ends_with("Backend") || path.ends_with("Pipeline");
            let fine = message.starts_with('`')
                && message.contains(" must ")
                && rule["reason"].is_string()
                && (placed || schema["type"] != "object");
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
        let conditions = status["default"]["conditions"].as_array().unwrap();
        assert!(conditions.len() >= 4);
        assert_eq!(conditions[0]["type"], "Ready");
        for condition in conditions {
            assert_eq!((&condition["status"], &condition["reason"]), (&json!("Unknown"), &json!("Pending")));
            let told = status["properties"]["conditions"]["description"].as_str().unwrap();
            assert!(told.contains(&format!("`{}`", condition["type"].as_str().unwrap())), "{told}");
        }
        assert_eq!(definition["spec"]["versions"][0]["subresources"], json!({"status": {}}));
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
    let mut used = BTreeSet::new();
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
        assert_eq!(names["categories"], json!(["spillway"]));
        let short = names["shortNames"][0].as_str().unwrap();
        assert!(!TAKEN.contains(&short), "{short}");
        assert!(used.insert(short), "{short}");
        assert!(columns.iter().all(|column| column["description"].is_string()));
    }
}

#[test]
fn the_type_of_a_backend_cannot_change_and_can_be_selected() {
    for backend in ["Backend", "ClusterBackend"] {
        let definition = definition_of(backend);
        let kind = &definition.pointer(SCHEMA).unwrap()["properties"]["spec"]["properties"]["type"];
        assert_eq!(kind["x-kubernetes-validations"][0]["rule"], "self == oldSelf");
        assert_eq!(kind["enum"], json!(spillway_backends::BackendSettings::type_names().collect::<Vec<_>>()));
        assert_eq!(definition["spec"]["versions"][0]["selectableFields"], json!([{"jsonPath": ".spec.type"}]));
    }
}

fn definition_of(kind: &str) -> &'static Value {
    definitions().iter().find(|definition| definition["spec"]["names"]["kind"] == kind).unwrap()
}

/// The fields of a kind's spec.
fn fields_of(kind: &str) -> serde_json::Map<String, Value> {
    schema(kind).unwrap()["properties"]["spec"]["properties"].as_object().unwrap().clone()
}

#[test]
fn kinds_of_the_cluster_have_what_those_of_a_namespace_have_and_little_else() {
    for (of_namespace, of_cluster, own) in [
        ("Backend", "ClusterBackend", &["allowedNamespaces", "secretNamespace"][..]),
        ("MonitoringPipeline", "ClusterMonitoringPipeline", &["namespaceSelector"]),
    ] {
        assert_eq!(definition_of(of_namespace)["spec"]["scope"], "Namespaced");
        assert_eq!(definition_of(of_cluster)["spec"]["scope"], "Cluster");
        let mut fields = fields_of(of_cluster);
        own.iter().for_each(|name| assert!(fields.remove(*name).is_some(), "{name}"));
        let mut expected = json!(fields_of(of_namespace));
        if of_cluster == "ClusterMonitoringPipeline" {
            // A sidecar runs a pipeline of its namespace.
            assert!(expected.as_object_mut().unwrap().remove("remediation").is_some());
            let reference = "/routes/items/properties/backendRefs/items/properties/kind";
            let kind = expected.pointer_mut(reference).unwrap();
            assert_eq!(kind["enum"], json!(["Backend", "ClusterBackend"]));
            *kind = json!(fields).pointer(reference).unwrap().clone();
            assert_eq!(kind["enum"], json!(["ClusterBackend"]));
        }
        assert_eq!(json!(fields), expected);
        assert_eq!(
            schema(of_namespace).unwrap()["properties"]["spec"]["x-kubernetes-validations"],
            schema(of_cluster).unwrap()["properties"]["spec"]["x-kubernetes-validations"]
        );
    }
}

#[test]
fn the_status_of_a_pipeline_of_the_cluster_names_backends_of_the_cluster() {
    for (of, kinds) in
        [("MonitoringPipeline", &["Backend", "ClusterBackend"][..]), ("ClusterMonitoringPipeline", &["ClusterBackend"])]
    {
        let state = &schema(of).unwrap()["properties"]["status"]["properties"]["backends"]["items"];
        let kind = &state["properties"]["kind"];
        assert_eq!((&kind["enum"], &kind["default"]), (&json!(kinds), &json!(kinds[0])), "{of}");
    }
}

#[test]
fn nobody_is_granted_by_default() {
    let allowed = &fields_of("ClusterBackend")["allowedNamespaces"];
    assert_eq!(allowed["default"], json!({}));
    assert!(allowed["properties"]["selector"]["default"].is_null());
    let required = schema("ClusterMonitoringPipeline").unwrap()["properties"]["spec"]["required"].clone();
    assert!(required.as_array().unwrap().contains(&json!("namespaceSelector")), "{required}");
}

#[test]
fn conditions_are_those_of_kubernetes_and_there_is_no_phase() {
    none_is(|path, _| (path.rsplit('.').next() == Some("phase")).then(|| "a phase".to_owned()));
    for definition in definitions() {
        let conditions = &definition.pointer(SCHEMA).unwrap()["properties"]["status"]["properties"]["conditions"];
        assert_eq!(conditions["x-kubernetes-list-map-keys"], json!(["type"]));
        let fields: Vec<&String> = conditions["items"]["properties"].as_object().unwrap().keys().collect();
        assert_eq!(fields, ["lastTransitionTime", "message", "observedGeneration", "reason", "status", "type"]);
        assert_eq!(
            conditions["items"]["required"],
            json!(["lastTransitionTime", "message", "reason", "status", "type"])
        );
    }
}

#[test]
fn what_status_lists_is_little() {
    for definition in definitions() {
        let status = &definition.pointer(SCHEMA).unwrap()["properties"]["status"]["properties"];
        for (name, field) in status.as_object().unwrap() {
            assert!(field["maxItems"].as_u64().is_none_or(|most| most <= 64), "{name}");
        }
    }
}

#[test]
fn values_are_modes_in_camel_case_and_names_say_their_unit() {
    // What is on or off and nothing else.
    // What the destination itself calls so.
    const FOREIGN: [&str; 1] = ["aws:kms"];
    const SWITCHES: &[&str] = &["suspend", "forcePathStyle", "createTemplate", "dataStream", "idempotencyKey"];
    none_is(|path, schema| {
        let name = path.rsplit('.').next().unwrap_or_default();
        if schema["type"] == "boolean" && !SWITCHES.contains(&name) {
            return Some("a new switch".to_owned());
        }
        let odd = schema["enum"].as_array().into_iter().flatten().filter_map(Value::as_str).find(|value| {
            !value.starts_with(|c: char| c.is_ascii_uppercase()) || !value.bytes().all(|b| b.is_ascii_alphanumeric())
        });
        let odd = odd.filter(|value| !FOREIGN.contains(value));
        // Bounds in time and size are told by the name alone.
        let unitless = schema["type"] == "integer"
            && ["timeout", "interval", "delay", "size", "duration", "period", "wait"]
                .iter()
                .any(|word| name.to_lowercase().ends_with(word));
        odd.map(str::to_owned).or_else(|| unitless.then(|| "no unit".to_owned()))
    });
}

#[test]
fn each_type_of_destination_has_one_optional_member_and_its_rule() {
    for kind in ["Backend", "ClusterBackend"] {
        let spec = &schema(kind).unwrap()["properties"]["spec"];
        assert_eq!(spec["required"], json!(["type"]), "{kind}");
        let rules = spec["x-kubernetes-validations"].as_array().unwrap();
        for row in spillway_backends::BackendSettings::LIST {
            assert!(spec["properties"][row.member_name].is_object());
            let rule = format!("!has(self.{}) || self.type == '{}'", row.member_name, row.type_name);
            assert!(rules.iter().any(|known| known["rule"] == *rule), "{kind}: {rule}");
        }
    }
}

#[test]
fn references_are_called_so_and_carry_no_namespace() {
    let mut references = 0;
    none_is(|path, schema| {
        let name = path.trim_end_matches(".items").rsplit('.').next().unwrap_or_default();
        let fields: Vec<&str> = schema["properties"].as_object()?.keys().map(String::as_str).collect();
        let refers = fields.contains(&"name") && (fields.contains(&"kind") || fields.contains(&"key"));
        if !path.contains(".spec.") || !refers {
            return None;
        }
        references += 1;
        let fine = (name.ends_with("Ref") || name.ends_with("Refs")) && !fields.contains(&"namespace");
        (!fine).then(|| format!("{fields:?}"))
    });
    assert!(references > 10, "only {references} references");
}

/// An expression of an admission policy has room for two questions about rights, the whole policy for 28; the chart's asks one
/// for each place, and an object has one type.
#[test]
fn every_secret_that_may_be_named_is_known_by_its_place_and_few_enough_to_ask_about() {
    const QUESTIONS_MAX: usize = 28;
    let mut found = BTreeSet::new();
    every_schema(|path, schema| {
        if path.rsplit('.').next().is_some_and(spillway_backends::is_secret_member) {
            assert_eq!(schema["required"], json!(["key", "name"]), "{path}");
            found.insert(path.to_owned());
        }
    });
    let known = ["Backend", "ClusterBackend"].map(|kind| {
        let places = secret_references(kind);
        let of_type = |place: &String| place.split('.').next().unwrap().to_owned();
        let types: BTreeSet<String> = places.iter().map(of_type).collect();
        for of in types {
            assert!(places.iter().filter(|place| of_type(place) == of).count() <= QUESTIONS_MAX, "{of}");
        }
        places.into_iter().map(|place| format!("{kind}.spec.{place}")).collect::<Vec<_>>()
    });
    // Also: none stands in a list or a map, where a place has no name.
    assert_eq!(known.concat().into_iter().collect::<BTreeSet<_>>(), found);
    assert!(found.contains("Backend.spec.http.auth.bearer.tokenSecretRef"), "{found:?}");
    assert_eq!(secret_references("MonitoringPipeline"), Vec::<String>::new());
}

#[test]
fn every_field_that_may_be_left_out_says_what_then_counts() {
    none_is(|path, schema| {
        let required = schema["required"].as_array().cloned().unwrap_or_default();
        let optional = schema["properties"].as_object()?.iter().filter(|(name, _)| !required.contains(&json!(name)));
        let silent: Vec<&String> = optional
            .filter(|(_, field)| field["type"] != "object")
            .filter(|(_, field)| {
                let description = field["description"].as_str().unwrap_or_default();
                !["Default", " absent", "left out", "without"].iter().any(|word| description.contains(word))
            })
            .map(|(name, _)| name)
            .collect();
        (path.contains(".spec") && !silent.is_empty()).then(|| format!("{silent:?}"))
    });
}

/// The static budget of an API server for one rule; see [`cost`].
const RULE_COST_MAX: u64 = 10_000_000;

/// Returns more than an API server estimates for a rule that stands below lists of `outer` items: every word costs one,
/// comparing text its longest length, and a word within `exists` as often as the list below has items.
fn cost(rule: &str, schema: &Value, outer: u64) -> u64 {
    let words = rule.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).count() as u64;
    let below = |name: &str| schema["properties"][name]["maxItems"].as_u64().unwrap_or(1);
    let repeated: u64 = schema["properties"]
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(name, _)| rule.contains(&format!("self.{name}.exists(")))
        .map(|(name, _)| below(name))
        .product();
    // The longest text that a rule compares is a value of a selection, of at most 63 characters: a tenth of it each.
    words * 8 * repeated * outer
}

#[test]
fn every_rule_costs_less_than_a_tenth_of_the_budget() {
    fn walk_costs(path: &str, schema: &Value, outer: u64, costs: &mut Vec<(String, u64)>) {
        for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
            let rule = rule["rule"].as_str().unwrap();
            costs.push((format!("{path}: {rule}"), cost(rule, schema, outer)));
        }
        for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
            walk_costs(&format!("{path}.{name}"), inner, outer, costs);
        }
        if schema["items"].is_object() {
            walk_costs(path, &schema["items"], outer * schema["maxItems"].as_u64().unwrap(), costs);
        }
    }
    for definition in definitions() {
        let mut costs = Vec::new();
        walk_costs("", definition.pointer(SCHEMA).unwrap(), 1, &mut costs);
        for (rule, cost) in &costs {
            assert!(*cost <= RULE_COST_MAX / 10, "{cost}: {rule}");
        }
        let whole: u64 = costs.iter().map(|(_, cost)| cost).sum();
        assert!((1..=10 * RULE_COST_MAX / 10).contains(&whole), "{whole}");
    }
}

#[test]
fn only_what_has_replicas_can_be_scaled() {
    for definition in definitions() {
        assert!(definition["spec"]["versions"][0]["subresources"]["scale"].is_null());
    }
}
