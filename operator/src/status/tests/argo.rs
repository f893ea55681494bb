//! The health check for Argo CD, run by a Lua of the version that Argo CD has and with no more of its libraries.

use std::fs;
use std::path::{Path, PathBuf};

use mlua::{Lua, LuaOptions, StdLib, Table};
use serde_json::{Value, json};

use super::*;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/argocd")
}

fn read(name: &str) -> String {
    fs::read_to_string(folder().join(name)).unwrap()
}

fn yaml(name: &str) -> Value {
    serde_saphyr::from_str(&read(name)).unwrap()
}

/// Puts a value into the interpreter as Argo CD does: maps and lists are tables.
fn in_lua(lua: &Lua, value: &Value) -> mlua::Value {
    match value {
        Value::Null => mlua::Value::Nil,
        Value::Bool(value) => mlua::Value::Boolean(*value),
        Value::Number(number) => mlua::Value::Number(number.as_f64().unwrap()),
        Value::String(text) => mlua::Value::String(lua.create_string(text).unwrap()),
        Value::Array(list) => {
            mlua::Value::Table(lua.create_sequence_from(list.iter().map(|one| in_lua(lua, one))).unwrap())
        }
        Value::Object(map) => {
            let pairs = map.iter().map(|(key, one)| (key.as_str(), in_lua(lua, one)));
            mlua::Value::Table(lua.create_table_from(pairs).unwrap())
        }
    }
}

/// Returns what the script says of an object: health and message.
fn health(object: &Value) -> (String, String) {
    let lua = Lua::new_with(StdLib::TABLE, LuaOptions::default()).unwrap();
    lua.globals().set("obj", in_lua(&lua, object)).unwrap();
    let said: Table = lua.load(read("health.lua")).eval().unwrap();
    (said.get("status").unwrap(), said.get("message").unwrap())
}

fn object(generation: i64, status: &impl serde::Serialize) -> Value {
    json!({"metadata": {"name": "jobs", "generation": generation}, "status": status})
}

/// Returns what Argo CD is to call what kstatus calls so.
fn of_kstatus(kstatus: &str, ready: &StatusCondition) -> &'static str {
    match kstatus {
        "Current" if ready.reason == "Suspended" => "Suspended",
        "Current" => "Healthy",
        "Failed" => "Degraded",
        _ => "Progressing",
    }
}

#[test]
fn the_health_of_every_example_is_as_it_is_written() {
    let tests = yaml("health_test.yaml");
    let tests = tests["tests"].as_array().unwrap();
    let mut kinds = std::collections::BTreeSet::new();
    for test in tests {
        let path = test["inputPath"].as_str().unwrap();
        let object = yaml(path);
        let (status, message) = health(&object);
        assert_eq!(json!({"status": status, "message": message}), test["healthStatus"], "{path}");
        kinds.insert(object["kind"].as_str().unwrap().to_owned());
        for condition in object["status"]["conditions"].as_array().into_iter().flatten() {
            let reason = condition["reason"].as_str().unwrap();
            assert!(Reason::of_name(reason).is_some(), "{path}: no reason of ours: {reason}");
        }
    }
    assert_eq!(kinds.len(), 4, "{kinds:?}");
    let files = fs::read_dir(folder().join("testdata")).unwrap().count();
    assert_eq!(files, tests.len(), "every file is a test");
}

#[test]
fn the_health_of_every_reason_is_what_kstatus_makes_of_it() {
    let mut seen = BTreeMap::<&str, usize>::new();
    for reason in Reason::ALL {
        for (status, observed) in [(True, 2), (False, 2), (Unknown, 2), (True, 1), (False, 1)] {
            let ready = conditions::Said::new(status, *reason, "why");
            let more = conditions::of_kstatus(&ready);
            let said = std::iter::once(("Ready", ready)).chain(more);
            let conditions: Vec<_> = said.map(|(kind, said)| said.settled(kind, observed, &[], at(0))).collect();
            let wanted = of_kstatus(kstatus(2, Some(observed), &conditions), &conditions[0]);
            let status = json!({"observedGeneration": observed, "conditions": conditions});
            let (health, message) = health(&object(2, &status));
            assert_eq!(health, wanted, "{} {status}", reason.name());
            assert_eq!(message == "why", observed == 2, "{message}");
            *seen.entry(wanted).or_default() += 1;
        }
    }
    assert_eq!(
        seen.keys().copied().collect::<Vec<_>>(),
        ["Degraded", "Healthy", "Progressing", "Suspended"],
        "{seen:?}"
    );
}

#[test]
fn the_health_of_what_the_controller_writes_follows_the_object() {
    let mut fleet = Fleet::running(&["n1"], 1);
    let health = |status: &PipelineStatus| health(&object(1, status)).0;
    assert_eq!(health(&PipelineStatus::default()), "Progressing");
    let (well, _) = fleet.pipeline(&good(1), &PipelineStatus::default(), at(1));
    assert_eq!(health(&well), "Healthy");
    let suspended = Verdict { is_suspended: true, ..good(1) };
    assert_eq!(health(&fleet.pipeline(&suspended, &well, at(2)).0), "Suspended");
    fleet.of("n1").refused = vec![Refused { object: PIPELINE.into(), reason: "the volume is full".into(), kept: true }];
    assert_eq!(health(&fleet.pipeline(&good(1), &well, at(3)).0), "Degraded");
}

#[test]
fn the_settings_of_argo_cd_hold_the_script_for_each_kind() {
    let settings = yaml("argocd-cm.yaml");
    let data = settings["data"].as_object().unwrap();
    assert_eq!(settings["metadata"]["name"], "argocd-cm");
    for kind in [Kind::MonitoringPipeline, Kind::ClusterMonitoringPipeline, Kind::Backend, Kind::ClusterBackend] {
        let key = format!("resource.customizations.health.spillway.dev_{}", kind.name());
        assert_eq!(data[&key].as_str().unwrap(), read("health.lua"), "{key}");
    }
    assert_eq!(data.len(), 4);
}
