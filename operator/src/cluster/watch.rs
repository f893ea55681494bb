//! Watches: what the API server holds, as one stream of [`Noted`] in a bounded queue.
//!
//! # Guarantees
//! - An object that went while a watch was away is noted as gone once the watch is back.
//! - [`Noted::Synced`] follows the last object of the first listing of each watch.
//! - A watch that fails is begun again with growing pauses; the failure is told once per cause, not at every try.
//!
//! # Limits
//! [`QUEUE_MAX`] notes wait at most; the watches wait behind them.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;

use futures_util::{Stream, StreamExt};
use kube::Client;
use kube::api::{Api, ApiResource};
use kube::core::{ObjectMeta, Resource};
use kube::runtime::watcher::{self, Config, DefaultBackoff, Event, watcher};
use spillway_delivery::supervisor::Supervisor;
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::convert::{self, KIND_LABEL, Place, StatusText, Stored};
use super::slim::{SlimLimitRange, SlimNamespace, SlimNode, SlimObject, SlimPod, SlimRevision};
use super::{GROUP, in_words};
use crate::texts::held;
use crate::world::{Change, Manifest, ObjectKey};
use spillway_crds::inject::LimitRange;
use spillway_crds::kinds::Kind;

/// Most notes that wait to be taken.
pub const QUEUE_MAX: usize = 1024;

/// Objects per page of a listing: some hundred kilobytes at a time, of every watch at once when the process starts.
const PAGE_OBJECTS: u32 = 200;

/// What one watch is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// Objects of ours.
    Ours(Kind),
    /// Last good versions.
    Good,
    /// Namespaces.
    Namespaces,
    /// Pods.
    Pods,
    /// Nodes.
    Nodes,
    /// What namespaces allow containers.
    LimitRanges,
}

impl Over {
    /// All that a controller looks at.
    pub const ALL: [Self; 8] = [
        Self::Ours(Kind::Backend),
        Self::Ours(Kind::ClusterBackend),
        Self::Ours(Kind::MonitoringPipeline),
        Self::Ours(Kind::ClusterMonitoringPipeline),
        Self::Good,
        Self::Namespaces,
        Self::Pods,
        Self::Nodes,
    ];
}

/// What a watch saw.
#[derive(Debug)]
pub enum Noted {
    /// An object of ours, with its status as it stands.
    Object(ObjectKey, Box<(Manifest, StatusText)>),
    /// An object of ours that is gone.
    Gone(ObjectKey),
    /// A last good version of a pipeline.
    Good(ObjectKey, Box<Stored>),
    /// A last good version of a pipeline that is gone.
    GoodGone(ObjectKey, Place),
    /// What a `LimitRange` (namespace and name) allows containers; `None` where it is gone.
    LimitRange([Arc<str>; 2], Option<LimitRange>),
    /// Anything else of the world.
    World(Change),
    /// The first listing of this watch is complete.
    Synced(&'static str),
}

/// What is made of the objects of one watch.
trait Eye<K>: Send + 'static {
    /// What names an object for good.
    type Id: Ord + Clone + Debug + Send;
    /// What the watch is over, as log lines name it.
    fn over(&self) -> &'static str;
    /// Returns what names `object`; `None` for one to be passed over.
    fn id(&self, object: &K) -> Option<Self::Id>;
    /// Returns what is noted of an object that is there, under what names it.
    fn there(&self, id: Self::Id, object: K) -> Option<Noted>;
    /// Returns what is noted of one that is gone.
    fn gone(&self, id: Self::Id) -> Noted;
}

/// Starts these watches; they end with `owner`. Each notes [`Noted::Synced`] once.
pub fn start(client: &Client, owner: &Supervisor, over: &[Over]) -> mpsc::Receiver<Noted> {
    let (out, notes) = mpsc::channel(QUEUE_MAX);
    for one in over {
        let (client, out, all) = (client.clone(), out.clone(), Config::default());
        match *one {
            Over::Ours(kind) => {
                let api: Api<SlimObject> = Api::all_with(client, &resource(kind));
                owner.spawn(kind.plural(), follow(watch(api, all), Ours(kind), out));
            }
            Over::Good => {
                let api: Api<SlimRevision> = Api::all(client);
                owner.spawn("last good versions", follow(watch(api, all.labels(KIND_LABEL)), Goods, out));
            }
            Over::Namespaces => {
                let api: Api<SlimNamespace> = Api::all(client);
                owner.spawn("namespaces", follow(watch(api, all), Namespaces, out));
            }
            Over::Pods => {
                let api: Api<SlimPod> = Api::all(client);
                owner.spawn("pods", follow(watch(api, all), Pods, out));
            }
            Over::Nodes => {
                let api: Api<SlimNode> = Api::all(client);
                owner.spawn("nodes", follow(watch(api, all), Nodes, out));
            }
            Over::LimitRanges => {
                let api: Api<SlimLimitRange> = Api::all(client);
                owner.spawn("limit ranges", follow(watch(api, all), LimitRanges, out));
            }
        }
    }
    notes
}

/// Returns what names a kind of ours in paths.
pub fn resource(kind: Kind) -> ApiResource {
    ApiResource {
        group: GROUP.to_owned(),
        version: "v1alpha1".to_owned(),
        api_version: format!("{GROUP}/v1alpha1"),
        kind: kind.name().to_owned(),
        plural: kind.plural().to_owned(),
    }
}

fn watch<K>(api: Api<K>, config: Config) -> impl Stream<Item = watcher::Result<Event<K>>> + Send
where
    K: Resource + Clone + serde::de::DeserializeOwned + Debug + Send + 'static,
{
    watcher(api, config.page_size(PAGE_OBJECTS))
}

/// Notes what a watch says until nobody takes the notes any more.
async fn follow<K, E>(events: impl Stream<Item = watcher::Result<Event<K>>> + Send, eye: E, out: mpsc::Sender<Noted>)
where
    K: Resource + Send,
    E: Eye<K>,
{
    let mut events = std::pin::pin!(events);
    let (mut known, mut listed) = (BTreeSet::new(), BTreeSet::new());
    let (mut is_synced, mut told, mut pauses) = (false, String::new(), DefaultBackoff::default());
    while let Some(event) = events.next().await {
        let mut notes = Vec::new();
        let is_whole = !matches!(event, Ok(Event::InitApply(_)));
        match event {
            // A listing that begins, or goes on for a page, is no sign yet that the next answer is not an error.
            Ok(Event::Init) => {
                listed.clear();
                continue;
            }
            Ok(Event::InitApply(object)) => {
                if let Some(id) = eye.id(&object) {
                    listed.insert(id.clone());
                    known.insert(id.clone());
                    notes.extend(eye.there(id, object));
                }
            }
            Ok(Event::InitDone) => {
                notes.extend(known.difference(&listed).cloned().map(|id| eye.gone(id)));
                known = std::mem::take(&mut listed);
                notes.extend((!is_synced).then(|| Noted::Synced(eye.over())));
                is_synced = true;
            }
            Ok(Event::Apply(object)) => {
                if let Some(id) = eye.id(&object) {
                    known.insert(id.clone());
                    notes.extend(eye.there(id, object));
                }
            }
            Ok(Event::Delete(object)) => {
                if let Some(id) = eye.id(&object) {
                    known.remove(&id);
                    notes.push(eye.gone(id));
                }
            }
            Err(error) => {
                tell(eye.over(), &error, &mut told);
                sleep(pauses.next().unwrap_or_default()).await;
                continue;
            }
        }
        if is_whole {
            pauses = DefaultBackoff::default();
            if !std::mem::take(&mut told).is_empty() {
                tracing::info!(over = eye.over(), "the watch goes on");
            }
        }
        for note in notes {
            if out.send(note).await.is_err() {
                return;
            }
        }
    }
}

/// Says that a watch fails, once per cause.
fn tell(over: &'static str, error: &watcher::Error, told: &mut String) {
    let text = match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => in_words(error),
        watcher::Error::WatchError(status) => status.message.clone(),
        watcher::Error::NoResourceVersion => "no resourceVersion in its answer".to_owned(),
    };
    // The end of a watch that the API server forgot is the usual course of things.
    let is_expired = matches!(error, watcher::Error::WatchError(status) if status.code == 410);
    if is_expired || *told == text {
        return;
    }
    tracing::warn!(
        over,
        error = text,
        "the API server cannot be watched; what is known goes on, and it is tried again"
    );
    *told = text;
}

struct Ours(Kind);
struct Goods;
struct Namespaces;
struct Pods;
struct Nodes;
struct LimitRanges;

impl Eye<SlimObject> for Ours {
    type Id = ObjectKey;

    fn over(&self) -> &'static str {
        self.0.plural()
    }

    fn id(&self, object: &SlimObject) -> Option<ObjectKey> {
        convert::key(self.0, &object.metadata)
    }

    fn there(&self, key: ObjectKey, mut object: SlimObject) -> Option<Noted> {
        let manifest = convert::manifest(self.0, &mut object)?;
        let both = (manifest, convert::status(self.0, object.status).to_text());
        Some(Noted::Object(key, Box::new(both)))
    }

    fn gone(&self, id: ObjectKey) -> Noted {
        Noted::Gone(id)
    }
}

impl Eye<SlimRevision> for Goods {
    type Id = (ObjectKey, Place);

    fn over(&self) -> &'static str {
        "controllerrevisions"
    }

    fn id(&self, object: &SlimRevision) -> Option<Self::Id> {
        convert::stored_of(&object.metadata)
    }

    fn there(&self, (of, place): Self::Id, object: SlimRevision) -> Option<Noted> {
        convert::stored(&of, place, &object).map(|stored| Noted::Good(of, Box::new(stored)))
    }

    fn gone(&self, (of, place): Self::Id) -> Noted {
        Noted::GoodGone(of, place)
    }
}

impl Eye<SlimNamespace> for Namespaces {
    type Id = Arc<str>;

    fn over(&self) -> &'static str {
        "namespaces"
    }

    fn id(&self, object: &SlimNamespace) -> Option<Arc<str>> {
        object.metadata.name.as_deref().map(held)
    }

    fn there(&self, name: Arc<str>, object: SlimNamespace) -> Option<Noted> {
        Some(Noted::World(Change::Namespace(name, Some(object.metadata.labels.unwrap_or_default()))))
    }

    fn gone(&self, id: Arc<str>) -> Noted {
        Noted::World(Change::Namespace(id, None))
    }
}

impl Eye<SlimPod> for Pods {
    type Id = Arc<str>;

    fn over(&self) -> &'static str {
        "pods"
    }

    fn id(&self, object: &SlimPod) -> Option<Arc<str>> {
        object.metadata.uid.as_deref().map(Into::into)
    }

    fn there(&self, uid: Arc<str>, object: SlimPod) -> Option<Noted> {
        let pod = convert::pod(uid, &object)?;
        Some(Noted::World(Change::Pod(pod.uid.clone(), Some(pod))))
    }

    fn gone(&self, id: Arc<str>) -> Noted {
        Noted::World(Change::Pod(id, None))
    }
}

impl Eye<SlimNode> for Nodes {
    type Id = Arc<str>;

    fn over(&self) -> &'static str {
        "nodes"
    }

    fn id(&self, object: &SlimNode) -> Option<Arc<str>> {
        object.metadata.name.as_deref().map(held)
    }

    fn there(&self, name: Arc<str>, object: SlimNode) -> Option<Noted> {
        let is_ready = object.is_ready();
        Some(Noted::World(Change::Node(name, Some(is_ready))))
    }

    fn gone(&self, id: Arc<str>) -> Noted {
        Noted::World(Change::Node(id, None))
    }
}

impl Eye<SlimLimitRange> for LimitRanges {
    type Id = [Arc<str>; 2];

    fn over(&self) -> &'static str {
        "limitranges"
    }

    fn id(&self, object: &SlimLimitRange) -> Option<Self::Id> {
        let ObjectMeta { namespace, name, .. } = &object.metadata;
        Some([held(namespace.as_deref()?), held(name.as_deref()?)])
    }

    fn there(&self, id: Self::Id, object: SlimLimitRange) -> Option<Noted> {
        Some(Noted::LimitRange(id, Some(LimitRange::of(&object.spec))))
    }

    fn gone(&self, id: Self::Id) -> Noted {
        Noted::LimitRange(id, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream;

    fn node(name: &str) -> SlimNode {
        serde_json::from_value(serde_json::json!({"metadata": {"name": name}})).unwrap()
    }

    async fn notes_of(events: Vec<watcher::Result<Event<SlimNode>>>) -> Vec<String> {
        let (out, mut notes) = mpsc::channel(QUEUE_MAX);
        follow(stream::iter(events), Nodes, out).await;
        let mut seen = Vec::new();
        while let Some(note) = notes.recv().await {
            seen.push(match note {
                Noted::World(Change::Node(name, Some(_))) => format!("+{name}"),
                Noted::World(Change::Node(name, None)) => format!("-{name}"),
                Noted::Synced(over) => format!("synced {over}"),
                other => format!("{other:?}"),
            });
        }
        seen
    }

    #[tokio::test]
    async fn what_went_while_the_watch_was_away_is_noted_as_gone() {
        let listing = |names: &[&str]| {
            let mut events = vec![Ok(Event::Init)];
            events.extend(names.iter().map(|name| Ok(Event::InitApply(node(name)))));
            events.push(Ok(Event::InitDone));
            events
        };
        let mut events = listing(&["a", "b"]);
        events.push(Ok(Event::Apply(node("c"))));
        events.push(Ok(Event::Delete(node("a"))));
        events.push(Err(watcher::Error::NoResourceVersion));
        events.extend(listing(&["c", "d"]));
        let seen = notes_of(events).await;
        assert_eq!(seen, ["+a", "+b", "synced nodes", "+c", "-a", "+c", "+d", "-b"]);
    }

    #[tokio::test]
    async fn a_listing_that_breaks_off_deletes_nothing() {
        let events = vec![
            Ok(Event::Init),
            Ok(Event::InitApply(node("a"))),
            Ok(Event::InitDone),
            Ok(Event::Init),
            Err(watcher::Error::NoResourceVersion),
            Ok(Event::Init),
            Ok(Event::InitApply(node("a"))),
            Ok(Event::InitDone),
        ];
        assert_eq!(notes_of(events).await, ["+a", "synced nodes", "+a"]);
    }
}
