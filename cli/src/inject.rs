//! `inject`: a pod of a file with its sidecar, as the webhook gives it.
//!
//! # Guarantees
//! The patch has the bytes of the webhook's for the same pod, settings, authorities, pipelines and `LimitRange`s. Nothing is written anywhere.
//!
//! # Limits
//! One pod a call; a template of a Deployment or a Job is none. Files of [`TEXT_BYTES_MAX`].

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, anyhow, ensure};
use serde_json::Value;
use spillway_crds::inject::{DEFAULT_LABEL, Injector, LimitRange, Offer, Reason, Settings, patch};
use spillway_crds::kinds::Kind;
use spillway_crds::load::load;
use spillway_crds::manifest::TEXT_BYTES_MAX;
use spillway_crds::{compile, words};

use crate::cli::{ClusterFlags, InjectFlags, Rendering};
use crate::cluster::{self, Cluster, Found};
use crate::exit::{self, Failure};

/// The namespace of a pod that nobody names one for.
const NAMESPACE_DEFAULT: &str = "default";

/// Prints the pod, and returns 1 when it asked for a sidecar and has none: a warning beside a sidecar is no failure.
pub fn run(cluster: &ClusterFlags, flags: &InjectFlags) -> Result<ExitCode, Failure> {
    let pod = pod(&read(&flags.filename).map_err(Failure::new)?).map_err(Failure::new)?;
    let injector = injector(flags).map_err(Failure::new)?;
    let named = pod["metadata"]["namespace"].as_str().or(cluster.namespace.as_deref()).map(str::to_owned);
    let offer = if flags.pipelines.is_empty() {
        cluster::ask(cluster, async |cluster| standing(&cluster, named).await)?
    } else {
        let namespace = named.as_deref().unwrap_or(NAMESPACE_DEFAULT);
        written(flags, namespace).map_err(Failure::new)?
    };
    let Rendered { text, warnings, is_well } = rendered(&injector, pod, &offer, flags.output).map_err(Failure::new)?;
    for warning in &warnings {
        exit::to_stderr(&format!("warning: {warning}\n"));
    }
    exit::to_stdout(&text)?;
    Ok(exit::code(is_well))
}

/// What is printed, and what is said beside it.
struct Rendered {
    text: String,
    warnings: Vec<String>,
    /// Whether the pod has what it asked for.
    is_well: bool,
}

fn rendered(injector: &Injector, mut pod: Value, offer: &Offer, output: Rendering) -> anyhow::Result<Rendered> {
    let injection = injector.inject(&pod.to_string(), Some(offer));
    let text = match output {
        Rendering::Patch => serde_json::to_string(&injection.patch)?,
        Rendering::Json => {
            patch::apply(&mut pod, &injection.patch).context("the sidecar cannot be added to this pod")?;
            serde_json::to_string_pretty(&pod)?
        }
    };
    let has_one = matches!(injection.reason, Reason::Injected | Reason::AlreadyInjected);
    // Who did not ask, or wants none, is not warned either.
    let is_well = has_one || injection.warnings.is_empty();
    Ok(Rendered { text: text + "\n", warnings: injection.warnings, is_well })
}

/// Reads a manifest as a pod.
fn pod(text: &str) -> anyhow::Result<Value> {
    let pod: Value = serde_saphyr::from_str(text).map_err(|error| anyhow!("not one YAML document: {error}"))?;
    let kind = (pod["apiVersion"].as_str(), pod["kind"].as_str());
    ensure!(kind == (Some("v1"), Some("Pod")), "not a Pod of v1: sidecars are given to pods, not to what makes them");
    Ok(pod)
}

fn injector(flags: &InjectFlags) -> anyhow::Result<Injector> {
    let settings = Settings::read(&read(&flags.settings)?).map_err(|error| anyhow!(words::of_error(&error)))?;
    Ok(Injector::try_new(settings, &read(&flags.operator_ca)?)?)
}

/// Returns what manifests of files have for pods of a namespace.
fn written(flags: &InjectFlags, namespace: &str) -> anyhow::Result<Offer> {
    let loaded = load(&flags.pipelines);
    if let Some(error) = loaded.errors.first() {
        return Err(anyhow!(words::of_error(error)));
    }
    let compiled = compile(&loaded.documents);
    let uids = compiled.pipelines.iter().map(|plan| &*plan.settings.uid);
    let pipelines = uids.filter_map(|uid| uid.strip_prefix(namespace)?.strip_prefix('.').map(str::to_owned)).collect();
    Ok(Offer { pipelines, ..Offer::default() })
}

/// Returns what stands in the cluster for pods of a namespace.
async fn standing(cluster: &Cluster, named: Option<String>) -> Result<Offer, Failure> {
    let namespace = named.as_deref().unwrap_or(&cluster.namespace);
    let pipelines = match cluster.objects(Kind::MonitoringPipeline, Some(namespace)).await {
        Found::There(objects) => objects.into_iter().map(|object| object.name).collect(),
        Found::Absent => return Err(Failure::new(anyhow!("the cluster has no pipelines: is Spillway installed?"))),
        Found::Unknown(why) => return Err(Failure::new(anyhow!(why))),
    };
    // Who may not read the namespace gets what its pods ask for themselves.
    let default = cluster.labels(namespace).await.there().and_then(|mut labels| labels.remove(DEFAULT_LABEL));
    let limits = match cluster.limits(namespace).await {
        Found::There(limits) => limits,
        Found::Absent => LimitRange::default(),
        Found::Unknown(why) => {
            exit::to_stderr(&format!("warning: what the namespace allows containers is not known: {why}\n"));
            LimitRange::default()
        }
    };
    Ok(Offer { pipelines, default, limits })
}

/// Reads a file, or standard input as `-`.
fn read(path: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    let limit = TEXT_BYTES_MAX as u64 + 1;
    let context = || format!("cannot read {}", path.display());
    let done = if path == Path::new("-") {
        std::io::stdin().lock().take(limit).read_to_string(&mut text)
    } else {
        File::open(path).with_context(context)?.take(limit).read_to_string(&mut text)
    };
    done.with_context(context)?;
    ensure!(text.len() <= TEXT_BYTES_MAX, "{} has more than {TEXT_BYTES_MAX} bytes", path.display());
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: app, annotations: {spillway.dev/inject: jobs}}\n\
        spec: {newer: [1], containers: [{name: app, image: 'app:1'}]}\n";

    fn sidecars() -> Injector {
        let settings = Settings::read(
            r#"{"image": "agent:1", "operator": "https://o:8443", "nodeAgent": "https://a:8411", "runAsUser": 65532,
            "requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"cpu": "200m", "memory": "128Mi"},
            "max": {"cpu": "1", "memory": "1Gi"}, "spool": "256Mi"}"#,
        );
        Injector::try_new(settings.unwrap(), "-----BEGIN CERTIFICATE-----").unwrap()
    }

    fn offer(pipeline: &str) -> Offer {
        Offer { pipelines: [pipeline.to_owned()].into(), ..Offer::default() }
    }

    fn printed(pod: Value, offer: &Offer, output: Rendering) -> (String, Vec<String>, bool) {
        let Rendered { text, warnings, is_well } = rendered(&sidecars(), pod, offer, output).unwrap();
        (text, warnings, is_well)
    }

    #[test]
    fn the_patch_is_what_the_function_says_and_the_pod_is_what_it_makes() {
        let read = pod(POD).unwrap();
        let injection = sidecars().inject(&read.to_string(), Some(&offer("jobs")));
        let (text, warnings, is_well) = printed(read.clone(), &offer("jobs"), Rendering::Patch);
        let expected = serde_json::to_string(&injection.patch).unwrap();
        assert_eq!((text.trim_end(), warnings.len(), is_well), (&*expected, 0, true));
        let (text, ..) = printed(read, &offer("jobs"), Rendering::Json);
        let made: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(made["spec"]["initContainers"][0]["image"], "agent:1");
        assert_eq!((&made["spec"]["newer"][0], &made["kind"]), (&1.into(), &"Pod".into()));
        // What came out is taken again, and stays.
        let again = printed(pod(&text).unwrap(), &offer("jobs"), Rendering::Json);
        assert_eq!(again, (text, Vec::new(), true));
    }

    #[test]
    fn who_asks_for_what_is_not_there_gets_the_pod_and_a_word() {
        let (text, warnings, is_well) = printed(pod(POD).unwrap(), &offer("job"), Rendering::Json);
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), pod(POD).unwrap());
        assert_eq!(warnings, ["no sidecar: the namespace has no pipeline `jobs`; did you mean `job`?"]);
        assert!(!is_well);
    }

    #[test]
    fn a_sidecar_that_leaves_a_wish_out_is_one_and_who_wants_none_lacks_nothing() {
        let asking = POD.replace("inject: jobs", "inject: jobs, spillway.dev/cpu: 50m");
        let (_, warnings, is_well) = printed(pod(&asking).unwrap(), &offer("jobs"), Rendering::Json);
        assert_eq!((warnings.len(), is_well), (1, true), "{warnings:?}");
        let never = POD.replace("inject: jobs", "inject: 'false'");
        assert_eq!(printed(pod(&never).unwrap(), &offer("jobs"), Rendering::Patch), ("[]\n".into(), Vec::new(), true));
    }

    #[test]
    fn only_one_pod_is_taken() {
        for (text, words) in [
            ("kind: Deployment", "not a Pod of v1"),
            ("a: [", "not one YAML document"),
            ("a: 1\n---\nb: 1\n", "not one YAML document"),
        ] {
            let error = pod(text).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
