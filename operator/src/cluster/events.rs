//! Events of the cluster about objects of ours and makers of pods, one for each cause.
//!
//! # Guarantees
//! - The name of an Event follows from the object and the cause, so whoever tells it, and however often, it is one object: told
//!   again, its `series` counts.
//! - An API server that takes no Event is told so once a time: nothing else waits for it, and it is not tried again.
//! - `create` and `patch` are enough: what stands there is read by a patch that changes nothing.
//!
//! # Limits
//! The API server forgets an Event an hour after it was last told, unless told otherwise. Two who count the same one at the same
//! time may count one of them.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::Client;
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use serde_json::json;
use xxhash_rust::xxh3::xxh3_64;

use super::{FIELD_MANAGER, GROUP, in_words};
use crate::repair::{About, Told};
use crate::status::News;
use crate::world::ObjectKey;

/// Who reports, as Events have it.
const CONTROLLER: &str = "spillway.dev/operator";

/// Where Events about objects of the cluster stand, as everybody's do.
const OF_THE_CLUSTER: &str = "default";

/// Most characters of the object's name in that of an Event.
const NAME_CHARS_MAX: usize = 200;

/// Most characters of the name of a replica.
const INSTANCE_CHARS_MAX: usize = 128;

/// Tells the news of an object as the replica `instance`.
pub async fn tell(client: Client, instance: String, key: ObjectKey, news: News) -> kube::Result<()> {
    put(&client, event(&instance, &key, &news), key.label(), news.at).await
}

/// Tells what a maker of pods should know, as the replica `instance`.
pub async fn tell_maker(client: Client, instance: String, about: About, told: Told) -> kube::Result<()> {
    put(&client, event_of_maker(&instance, &about, &told), about.label(), told.at).await
}

async fn put(client: &Client, event: Event, object: String, at: Timestamp) -> kube::Result<()> {
    let (namespace, name) = (event.metadata.namespace.clone(), event.metadata.name.clone());
    let api: Api<Event> = Api::namespaced(client.clone(), namespace.as_deref().unwrap_or(OF_THE_CLUSTER));
    let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
    let told = match api.create(&params, &event).await {
        Err(kube::Error::Api(status)) if status.code == 409 => {
            count(&api, name.as_deref().unwrap_or_default(), at).await
        }
        told => told.map(drop),
    };
    match told {
        Err(error) if is_refused(&error) => {
            let (reason, error) = (event.reason.unwrap_or_default(), in_words(&error));
            tracing::warn!(object, error, reason, "the API server takes no Event");
            Ok(())
        }
        told => told,
    }
}

/// Counts an Event that stands there.
async fn count(api: &Api<Event>, name: &str, at: Timestamp) -> kube::Result<()> {
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    let found = api.patch(name, &params, &Patch::Merge(json!({}))).await?;
    let count = found.series.map_or(1, |series| series.count).saturating_add(1);
    let series = json!({"series": {"count": count, "lastObservedTime": MicroTime(at)}});
    api.patch(name, &params, &Patch::Merge(series)).await.map(drop)
}

/// Returns whether trying again would not help.
fn is_refused(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if matches!(status.code, 400 | 403 | 422))
}

fn event(instance: &str, key: &ObjectKey, news: &News) -> Event {
    let is_of_the_cluster = key.kind.is_of_the_cluster();
    let namespace = if is_of_the_cluster { OF_THE_CLUSTER } else { &*key.namespace };
    let regarding = ObjectReference {
        api_version: Some(format!("{GROUP}/v1alpha1")),
        kind: Some(key.kind.name().to_owned()),
        name: Some(key.name.to_string()),
        namespace: (!is_of_the_cluster).then(|| key.namespace.to_string()),
        uid: Some(news.uid.to_string()),
        ..ObjectReference::default()
    };
    Event {
        metadata: named((namespace, &key.name), &news.uid, &news.cause.text()),
        // Anybody who may look at that namespace reads it, and what is said of an object of the cluster is not for everybody.
        note: Some(if is_of_the_cluster { "its status says more".to_owned() } else { news.note.clone() }),
        reason: Some(news.reason.name().to_owned()),
        ..said(instance, regarding, news.at)
    }
}

fn event_of_maker(instance: &str, about: &About, told: &Told) -> Event {
    let About { namespace, api_version, kind, name, uid } = about;
    let regarding = ObjectReference {
        api_version: Some(api_version.to_string()),
        kind: Some(kind.to_string()),
        name: Some(name.to_string()),
        namespace: Some(namespace.to_string()),
        uid: Some(uid.to_string()),
        ..ObjectReference::default()
    };
    Event {
        metadata: named((namespace, name), uid, &told.cause.text()),
        note: Some(told.note.clone()),
        reason: Some(told.cause.reason.name().to_owned()),
        ..said(instance, regarding, told.at)
    }
}

/// Returns the name of an Event: the same for the same cause.
fn named((namespace, name): (&str, &str), uid: &str, cause: &str) -> ObjectMeta {
    let hash = xxh3_64(format!("{uid}/{cause}").as_bytes());
    let stem: String = name.chars().take(NAME_CHARS_MAX).collect();
    ObjectMeta {
        name: Some(format!("{}.{hash:016x}", stem.trim_end_matches(['.', '-']))),
        namespace: Some(namespace.to_owned()),
        ..ObjectMeta::default()
    }
}

fn said(instance: &str, regarding: ObjectReference, at: Timestamp) -> Event {
    Event {
        action: Some("Reconcile".to_owned()),
        event_time: Some(MicroTime(at)),
        regarding: Some(regarding),
        reporting_controller: Some(CONTROLLER.to_owned()),
        reporting_instance: Some(instance.chars().take(INSTANCE_CHARS_MAX).collect()),
        type_: Some("Warning".to_owned()),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    use spillway_crds::kinds::status::{ConditionStatus, StatusCondition};

    use super::*;
    use crate::status::{self, Reason, Standing};
    use spillway_crds::kinds::Kind;

    fn news(message: &str) -> News {
        let ready = StatusCondition {
            r#type: "Ready".to_owned(),
            status: ConditionStatus::False,
            observed_generation: Some(1),
            last_transition_time: String::new(),
            reason: Reason::Invalid.name().to_owned(),
            message: message.to_owned(),
        };
        status::news(Standing::Well, &[ready], &"u".into(), Timestamp::UNIX_EPOCH).1.unwrap()
    }

    fn name(key: &ObjectKey, message: &str) -> String {
        event("first", key, &news(message)).metadata.name.unwrap()
    }

    #[test]
    fn the_same_cause_is_the_same_event_whoever_tells_it() {
        let jobs = ObjectKey::new(Kind::MonitoringPipeline, "fab12", "jobs");
        let (first, second) = (event("first", &jobs, &news("a")), event("second", &jobs, &news("a")));
        assert_eq!(first.metadata, second.metadata);
        assert_ne!(name(&jobs, "a"), name(&jobs, "b"));
        assert!(name(&jobs, "a").starts_with("jobs."));
    }

    #[test]
    fn an_event_about_an_object_of_the_cluster_stands_where_such_events_do() {
        let all = ObjectKey::new(Kind::ClusterMonitoringPipeline, "", "all");
        let event = event("first", &all, &news("a"));
        assert_eq!(event.metadata.namespace.as_deref(), Some("default"));
        assert_eq!(event.regarding.unwrap().namespace, None);
    }

    #[test]
    fn names_at_their_limits_are_cut() {
        let long = ObjectKey::new(Kind::Backend, "fab12", &format!("{}.{}", "a".repeat(199), "b".repeat(53)));
        let name = name(&long, "a");
        assert!(name.len() <= 253 && name.starts_with(&format!("{}.", "a".repeat(199))), "{name}");
        let instance = event(&"x".repeat(300), &long, &news("a")).reporting_instance.unwrap();
        assert_eq!(instance.len(), 128);
    }
}
