//! `validate`: what stands in the cluster, compiled as operator and agents compile it.
//!
//! # Guarantees
//! - Every error of every object is told in one run; what may not be listed is told, and references to it are not judged.

use std::process::ExitCode;

use anyhow::anyhow;
use spillway_crds::manifest::{ManifestError, Referred};
use spillway_crds::{Compiled, Document, Namespaces, compile_with, render};

use crate::check;
use crate::cli::{ClusterFlags, Output, ValidateFlags};
use crate::cluster::{self, Cluster, Found};
use crate::exit::{self, Failure};
use crate::objects::Object;
use spillway_crds::kinds::Kind;

/// What of a cluster is judged.
#[derive(Debug, Default)]
struct Standing {
    objects: Vec<Object>,
    namespaces: Namespaces,
    /// What could not be looked at and others refer to.
    unseen: Vec<Referred>,
    /// What is not judged, and why.
    told: Vec<String>,
}

/// Prints what is wrong, and returns 1 when anything is.
pub fn run(cluster: &ClusterFlags, flags: &ValidateFlags) -> Result<ExitCode, Failure> {
    if !flags.manifests.is_empty() {
        return check::run(&flags.manifests, flags.output);
    }
    let standing = cluster::ask(cluster, async |cluster| read(&cluster, flags.all_namespaces).await)?;
    let compiled = judged(&standing);
    for told in &standing.told {
        exit::to_stderr(&format!("warning: {told}\n"));
    }
    exit::to_stdout(&told(&compiled, flags.output))?;
    Ok(exit::code(compiled.errors.is_empty()))
}

async fn read(cluster: &Cluster, is_all: bool) -> Result<Standing, Failure> {
    let mut standing = Standing::default();
    let namespace = (!is_all).then_some(cluster.namespace.as_str());
    for kind in [Kind::Backend, Kind::MonitoringPipeline, Kind::ClusterBackend, Kind::ClusterMonitoringPipeline] {
        // A pipeline of the cluster is no business of a namespace.
        if kind == Kind::ClusterMonitoringPipeline && !is_all {
            continue;
        }
        match cluster.objects(kind, namespace).await {
            Found::There(objects) => standing.objects.extend(objects),
            Found::Absent => {
                return Err(Failure::new(anyhow!("the cluster has no {}: is Spillway installed?", kind.plural())));
            }
            Found::Unknown(why) if kind == Kind::ClusterBackend => {
                standing.unseen.push(Referred::ClusterBackend);
                standing.told.push(format!("references to ClusterBackends are not judged: {why}"));
            }
            Found::Unknown(why) if kind == Kind::ClusterMonitoringPipeline => {
                standing.told.push(format!("pipelines of the cluster are not judged: {why}"));
            }
            Found::Unknown(why) => return Err(Failure::new(anyhow!(why))),
        }
    }
    let labels = match namespace {
        Some(name) => named(name, cluster.labels(name).await),
        None => cluster.all_labels().await,
    };
    match labels {
        Found::There(all) => all.into_iter().for_each(|(name, labels)| standing.namespaces.insert(&name, labels)),
        Found::Absent => return Err(Failure::new(anyhow!("there is no namespace {}", cluster.namespace))),
        Found::Unknown(why) => {
            standing.unseen.push(Referred::Namespace);
            standing.told.push(format!("what asks for labels of namespaces is not judged: {why}"));
        }
    }
    Ok(standing)
}

fn named<T>(name: &str, found: Found<T>) -> Found<std::collections::BTreeMap<String, T>> {
    match found {
        Found::There(there) => Found::There([(name.to_owned(), there)].into()),
        Found::Absent => Found::Absent,
        Found::Unknown(why) => Found::Unknown(why),
    }
}

/// Compiles what stands there. References to what could not be looked at are not judged.
fn judged(standing: &Standing) -> Compiled {
    let documents = standing.objects.iter().map(|object| Document::new(&object.label(), object.document().to_string()));
    let documents: Vec<Document> = documents.collect();
    let mut compiled = compile_with(&documents, standing.namespaces.clone());
    let is_seen = |error: &ManifestError| error.refers_to.is_none_or(|kind| !standing.unseen.contains(&kind));
    compiled.errors.retain(is_seen);
    compiled.warnings.retain(is_seen);
    compiled
}

/// Returns what is said: objects of a cluster have no file and no line.
fn told(compiled: &Compiled, output: Output) -> String {
    if output == Output::Json {
        return check::told(compiled, output);
    }
    let lists = [("error", &compiled.errors), ("warning", &compiled.warnings)];
    let lines = lists
        .iter()
        .flat_map(|(word, list)| list.iter().map(move |error| format!("{word}: {}: {}\n", error.file, error.words())));
    lines.collect::<String>() + &render::summary(compiled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::recorded;
    use serde_json::json;

    fn backend(spec: &serde_json::Value) -> Object {
        recorded(Kind::Backend, json!({"metadata": {"name": "search", "namespace": "fab12"}, "spec": spec}))
    }

    fn pipeline(kind: &str, name: &str) -> Object {
        recorded(
            Kind::MonitoringPipeline,
            json!({"metadata": {"name": "jobs", "namespace": "fab12"}, "spec": {
                "inputs": [{"name": "pushed", "type": "Events"}],
                "routes": [{"name": "all", "backendRefs": [{"kind": kind, "name": name}]}]}}),
        )
    }

    #[test]
    fn objects_of_a_cluster_are_told_by_name_without_a_line() {
        let objects = vec![backend(&json!({"type": "Stdou"})), pipeline("Backend", "serch")];
        let compiled = judged(&Standing { objects, ..Standing::default() });
        let text = told(&compiled, Output::Human);
        assert!(text.contains("error: Backend fab12/search: spec.type: unknown value; found \"Stdou\""), "{text}");
        assert!(text.contains("error: MonitoringPipeline fab12/jobs: spec.routes[0].backendRefs[0]"), "{text}");
        assert!(text.ends_with("0 pipelines, 0 backends, 2 errors, 0 warnings\n"), "{text}");
        let report: serde_json::Value = serde_json::from_str(&told(&compiled, Output::Json)).unwrap();
        assert_eq!(report["errors"].as_array().unwrap().len(), 2);
    }

    fn of_cluster(spec: &serde_json::Value) -> Object {
        recorded(Kind::ClusterBackend, json!({"metadata": {"name": "lake"}, "spec": spec}))
    }

    fn errors(objects: &[Object], unseen: &[Referred]) -> Vec<Option<Referred>> {
        let standing = Standing { objects: objects.to_vec(), unseen: unseen.to_vec(), ..Standing::default() };
        judged(&standing).errors.iter().map(|error| error.refers_to).collect()
    }

    #[test]
    fn references_to_what_may_not_be_listed_are_not_judged_and_others_are() {
        use Referred::{ClusterBackend, Namespace};
        let to_cluster = [pipeline("ClusterBackend", "lake")];
        assert_eq!(errors(&to_cluster, &[]), [Some(ClusterBackend)]);
        assert_eq!(errors(&to_cluster, &[ClusterBackend]), []);
        // The labels of namespaces are another matter.
        assert_eq!(errors(&to_cluster, &[Namespace]), [Some(ClusterBackend)]);
        assert_eq!(errors(&[pipeline("Backend", "lake")], &[ClusterBackend, Namespace]), [Some(Referred::Backend)]);
    }

    #[test]
    fn grants_by_labels_that_may_not_be_read_are_not_judged_and_others_are() {
        use Referred::{ClusterBackend, Namespace};
        let grant = |labels: serde_json::Value| {
            of_cluster(&json!({"type": "Stdout", "allowedNamespaces": {"selector": {"matchLabels": labels}}}))
        };
        let by_labels = [grant(json!({"tier": "prod"})), pipeline("ClusterBackend", "lake")];
        assert_eq!(errors(&by_labels, &[]), [Some(Namespace)]);
        assert_eq!(errors(&by_labels, &[Namespace]), []);
        assert_eq!(errors(&by_labels, &[ClusterBackend]), [Some(Namespace)]);
        let by_name = [grant(json!({"kubernetes.io/metadata.name": "other"})), pipeline("ClusterBackend", "lake")];
        assert_eq!(errors(&by_name, &[Namespace]), [Some(ClusterBackend)]);
    }

    #[test]
    fn an_error_that_speaks_of_another_kind_is_no_error_about_it() {
        let objects = [
            of_cluster(&json!({"type": "Stdout", "allowedNamespaces": {"selector": {}}})),
            pipeline("Backend", "lake"),
        ];
        let standing = Standing { objects: objects.to_vec(), unseen: vec![Referred::Namespace], ..Standing::default() };
        let errors = judged(&standing).errors;
        assert_eq!(errors.iter().map(|error| error.refers_to).collect::<Vec<_>>(), [Some(Referred::Backend)]);
        assert!(errors[0].words().contains("ClusterBackend"), "{}", errors[0].words());
    }
}
