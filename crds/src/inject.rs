//! A pod that asks for it is given the agent as a sidecar: the pod as JSON in, a JSON Patch out.
//!
//! Expected flow: the webhook calls [`Injector::inject`] with the pod of an admission review, `kubectl spillway inject` with that
//! of a file. One function, so that both say the same to the byte.
//!
//! | module | holds |
//! | --- | --- |
//! | [`pod`] | as much of a pod as is read, and its class of service |
//! | [`tuning`] | what annotations of a pod may change, within which bounds |
//! | [`limits`] | what a namespace allows a container |
//! | [`settings`] | what sidecars are made of |
//! | [`sidecar`] | the container and its volumes |
//! | [`patch`] | the operations, and how they are applied |
//! | [`quantity`] | quantities of Kubernetes |
//!
//! # Guarantees
//! - A pure function: nothing is asked and nothing written, so that a dry run gets the same answer.
//! - Nothing of a pod is removed, moved or changed: entries of ours are added, and annotations of ours. The pod itself is never
//!   written, so that fields unknown here stay as they are.
//! - `inject(inject(pod)) == inject(pod)`; a container that somebody else adds in between is told where its sidecar is.
//! - The class of service of a pod stays what it was.
//! - A sidecar is known again by what we wrote into annotations and by its arguments, not by its image: a mirror of a registry may
//!   write another into every pod.
//! - Whatever a pod asks for wrongly, it is taken unchanged, with a [warning](Injection::warnings) that says what to write.
//! - No text of a pod reaches an image, a command, a mount or a variable of the sidecar.
//!
//! # It must not know
//! The API server, agents, what a pipeline holds.
//!
//! # Limits
//! A warning has [`WARNING_CHARS_MAX`] characters. A quota, or a `LimitRange` of whole pods, that leaves no room for the sidecar refuses
//! the pod: neither is known here.

mod limits;
pub mod patch;
mod pod;
pub mod quantity;
mod settings;
mod sidecar;
mod tuning;

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::manifest::nearest::nearest;
pub use limits::LimitRange;
use patch::Add;
use pod::{Container, Pod, Spec};
pub use settings::{Amounts, Destinations, PullPolicy, Settings};
pub use sidecar::{CONTAINER, PORTS};
use tuning::Tuning;

/// The annotation with which a pod asks: the name of a pipeline of its namespace, or `false`.
pub const INJECT: &str = "spillway.dev/inject";

/// The label of a namespace whose pods are given a sidecar unless they say otherwise.
pub const DEFAULT_LABEL: &str = "spillway.dev/inject-default";

/// The annotation that says which pipeline the sidecar runs; ours alone.
pub const INJECTED: &str = "spillway.dev/injected";

/// The annotation that says what the sidecar was made of, as [`Settings::revision`] does; ours alone.
pub const REVISION: &str = "spillway.dev/injected-revision";

/// The annotation that holds our certificate authorities, which the kubelet shows to the sidecar as a file; ours alone.
pub const AUTHORITIES: &str = "spillway.dev/ca";

/// The annotation that lets an autoscaler move a pod although it has local volumes.
const SAFE_TO_EVICT: &str = "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes";

/// The annotation of a pod that a kubelet made from a file of its own.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// The variable that tells an application where its sidecar listens.
const URL_VARIABLE: &str = "SPILLWAY_URL";

/// Where the annotations of a pod stand.
const ANNOTATIONS_PATH: &str = "/metadata/annotations";

/// Most characters of a warning; an API server may cut what is longer.
pub const WARNING_CHARS_MAX: usize = 120;

/// Most characters of a text of a pod in a warning.
const QUOTED_CHARS_MAX: usize = 40;

/// Most bytes of all annotations of an object, of Kubernetes.
const ANNOTATION_BYTES_MAX: usize = 256 << 10;

/// Most bytes of our certificate authorities: a few certificates of one kilobyte each.
const AUTHORITIES_BYTES_MAX: usize = 32 << 10;

/// Why there can be no sidecars.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The settings are not of the form that is needed.
    #[error("the settings of sidecars are not understood")]
    Read(#[source] serde_json::Error),
    /// A setting is out of bounds.
    #[error("settings of sidecars: {0}")]
    Bounds(&'static str),
}

/// What a namespace has for its pods.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Offer {
    /// Its pipelines.
    pub pipelines: BTreeSet<String>,
    /// The value of its label [`DEFAULT_LABEL`].
    pub default: Option<String>,
    /// What it allows a container.
    pub limits: LimitRange,
}

/// What becomes of a pod.
#[derive(Debug, Clone, PartialEq)]
pub struct Injection {
    /// What is added to it, in this order; nothing where it stays as it is.
    pub patch: Vec<Add>,
    /// What its author should know.
    pub warnings: Vec<String>,
    /// What became of it, in a word.
    pub reason: Reason,
}

/// What became of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// It is given a sidecar.
    Injected,
    /// It has its sidecar; what was missing beside it is added.
    AlreadyInjected,
    /// It did not ask.
    NotAsked,
    /// It said that it wants none.
    OptedOut,
    /// It is the picture of a pod that a kubelet has from a file.
    MirrorPod,
    /// The pipelines are not known yet.
    NotSynced,
    /// Nothing is known of what sidecars are made of.
    NoSettings,
    /// Its namespace has no such pipeline.
    UnknownPipeline,
    /// It has an annotation of our group that is not known.
    UnknownAnnotation,
    /// The value of an annotation is not one.
    BadAnnotation,
    /// It shares the ports of its node.
    HostNetwork,
    /// It is of another operating system.
    OperatingSystem,
    /// A container of it listens at a port that the sidecar needs.
    PortTaken,
    /// It has a container or a volume of our name that is not ours.
    NameTaken,
    /// It carries a sidecar of another pipeline or version.
    Outdated,
    /// There is no room for our annotations.
    NoRoom,
    /// A `LimitRange` of its namespace allows no container as small as a sidecar, or as large.
    LimitRange,
    /// It cannot be read.
    NotUnderstood,
}

impl Reason {
    /// Returns the word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Injected => "injected",
            Self::AlreadyInjected => "already-injected",
            Self::NotAsked => "not-asked",
            Self::OptedOut => "opted-out",
            Self::MirrorPod => "mirror-pod",
            Self::NotSynced => "not-synced",
            Self::NoSettings => "no-settings",
            Self::UnknownPipeline => "unknown-pipeline",
            Self::UnknownAnnotation => "unknown-annotation",
            Self::BadAnnotation => "bad-annotation",
            Self::HostNetwork => "host-network",
            Self::OperatingSystem => "operating-system",
            Self::PortTaken => "port-taken",
            Self::NameTaken => "name-taken",
            Self::Outdated => "outdated",
            Self::NoRoom => "no-room",
            Self::LimitRange => "limit-range",
            Self::NotUnderstood => "not-understood",
        }
    }
}

/// Gives sidecars to pods.
#[derive(Debug, Clone)]
pub struct Injector {
    settings: Settings,
    revision: String,
    authorities: String,
}

/// A pod that stays as it is.
struct Unchanged(Reason, Option<String>);

impl Unchanged {
    fn silent(reason: Reason) -> Self {
        Self(reason, None)
    }

    fn told(reason: Reason, warning: impl Into<String>) -> Self {
        Self(reason, Some(warning.into()))
    }
}

impl From<Unchanged> for Injection {
    fn from(Unchanged(reason, warning): Unchanged) -> Self {
        let warnings = warning.map(|text| cut(&format!("no sidecar: {text}"))).into_iter().collect();
        Self { patch: Vec::new(), warnings, reason }
    }
}

/// Says what becomes of a pod while nothing is known of what sidecars are made of.
pub fn without_settings(pod: &str, offer: Option<&Offer>) -> Injection {
    let asks = read(pod).and_then(|pod| pipeline(&pod, offer).map(drop));
    let words = "the webhook does not know what to make it of; its log says why";
    asks.err().unwrap_or_else(|| Unchanged::told(Reason::NoSettings, words)).into()
}

fn read(text: &str) -> Result<Pod, Unchanged> {
    let pod = Pod::read(text).ok_or_else(|| Unchanged::told(Reason::NotUnderstood, "this is not read as a pod"))?;
    let is_mirror = pod.annotations().contains_key(MIRROR);
    if is_mirror { Err(Unchanged::silent(Reason::MirrorPod)) } else { Ok(pod) }
}

impl Injector {
    /// Returns one that makes sidecars of `settings`, which trust the certificates `authorities` (PEM).
    pub fn try_new(settings: Settings, authorities: &str) -> Result<Self, SettingsError> {
        let is_pem = authorities.contains("-----BEGIN CERTIFICATE-----");
        let fault = settings.fault().or((!is_pem).then_some("the authorities are no certificates in PEM"));
        let fault =
            fault.or((authorities.len() > AUTHORITIES_BYTES_MAX).then_some("the authorities have above 32 KiB"));
        match fault {
            Some(words) => Err(SettingsError::Bounds(words)),
            None => Ok(Self { revision: settings.revision(), settings, authorities: authorities.to_owned() }),
        }
    }

    /// Says what becomes of a pod (JSON) in a namespace with that offer; `None` where that is not known yet.
    pub fn inject(&self, pod: &str, offer: Option<&Offer>) -> Injection {
        self.injection(pod, offer).unwrap_or_else(Injection::from)
    }

    fn injection(&self, text: &str, offer: Option<&Offer>) -> Result<Injection, Unchanged> {
        let pod = read(text)?;
        let pipeline = pipeline(&pod, offer)?;
        takes_one(&pod.spec)?;
        let tuning =
            Tuning::of(pod.annotations(), &self.settings).map_err(|fault| Unchanged(fault.0, Some(fault.1)))?;
        let allowed = offer.map(|offer| offer.limits).unwrap_or_default();
        let (resources, left_out) = self.resources(&pod.spec, tuning, allowed)?;
        let container = sidecar::container(&self.settings, tuning, resources);
        if !self.is_there(&pod, pipeline, &container)? {
            let patch = self.whole(&pod, pipeline, container)?;
            return Ok(Injection { patch, warnings: left_out.into_iter().collect(), reason: Reason::Injected });
        }
        let mut patch = variables(&pod.spec);
        // The sidecar of a manifest that was written before our authority had a successor would meet nobody.
        let is_other = pod.annotation(AUTHORITIES) != Some(&*self.authorities);
        let authorities = is_other.then(|| (AUTHORITIES, self.authorities.clone()));
        patch.extend(annotations(&pod, authorities.into_iter().chain(evictable(&pod)).collect())?);
        Ok(Injection { patch, warnings: Vec::new(), reason: Reason::AlreadyInjected })
    }

    /// Returns whether the pod has its sidecar; refuses where what has its name is another.
    fn is_there(&self, pod: &Pod, pipeline: &str, container: &Value) -> Result<bool, Unchanged> {
        let spec = &pod.spec;
        let mut containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        let mut volumes = spec.volumes.iter().flatten().map(|volume| &*volume.name);
        let taken = containers.find(|one| one.name == CONTAINER).map(|_| CONTAINER);
        let taken = taken.or_else(|| volumes.find(|name| sidecar::VOLUMES.contains(name)));
        let Some(name) = taken else { return Ok(false) };
        let Some(injected) = pod.annotation(INJECTED) else {
            let warning = format!("the pod has a container or volume of the name `{name}`; call it otherwise");
            return Err(Unchanged::told(Reason::NameTaken, warning));
        };
        let is_ours = |one: &Container| {
            one.name == CONTAINER
                && container["args"].as_array().is_some_and(|args| args.iter().eq(one.args.iter().flatten()))
        };
        let is_marked = injected == pipeline && pod.annotation(REVISION) == Some(&*self.revision);
        if is_marked && spec.init_containers.iter().flatten().any(is_ours) {
            return Ok(true);
        }
        let warning = "the pod came with a sidecar of another pipeline or version; leave it out of the manifest";
        Err(Unchanged::told(Reason::Outdated, warning))
    }

    /// Returns everything that a pod without a sidecar is given.
    fn whole(&self, pod: &Pod, pipeline: &str, container: Value) -> Result<Vec<Add>, Unchanged> {
        let ours = [
            (INJECTED, pipeline.to_owned()),
            (REVISION, self.revision.clone()),
            (AUTHORITIES, self.authorities.clone()),
        ];
        let mut patch = annotations(pod, ours.into_iter().chain(evictable(pod)).collect())?;
        patch.push(first("/spec/initContainers", pod.spec.init_containers.as_deref().unwrap_or_default(), container));
        let volumes = sidecar::volumes(&self.settings);
        match pod.spec.volumes.as_deref() {
            None | Some([]) => patch.push(Add::new("/spec/volumes", Value::Array(volumes.into()))),
            Some(_) => patch.extend(volumes.map(|volume| Add::new("/spec/volumes/-", volume))),
        }
        patch.extend(variables(&pod.spec));
        Ok(patch)
    }

    /// Returns the resources that leave the class of the pod as it is and that its namespace allows, and what to say of a wish that is
    /// left out.
    fn resources(
        &self,
        spec: &Spec,
        tuning: Tuning,
        allowed: LimitRange,
    ) -> Result<(Option<Value>, Option<String>), Unchanged> {
        let not_read = || Unchanged::told(Reason::NotUnderstood, "an amount of its resources is not read");
        let class = spec.class().ok_or_else(not_read)?;
        if spec.shares_resources() || class == pod::Class::BestEffort {
            let why =
                if spec.shares_resources() { "the pod has resources of its own" } else { "the pod is BestEffort" };
            let wish = tuning.wish().map(|key| cut(&format!("{key} is left out: {why}, and stays so")));
            return Ok((None, wish));
        }
        let wished = tuning.over(self.settings.limits);
        let requests = match class {
            pod::Class::Guaranteed => wished,
            _ => Amounts {
                cpu: self.settings.requests.cpu.min(wished.cpu),
                memory: self.settings.requests.memory.min(wished.memory),
            },
        };
        let (limits, requests) = allowed.fit(wished, requests).ok_or_else(|| {
            Unchanged::told(Reason::LimitRange, "a LimitRange of the namespace allows no container as a sidecar is one")
        })?;
        let other = tuning.wish().filter(|_| limits != wished);
        let other = other.map(|key| cut(&format!("{key} is brought within the LimitRange of the namespace")));
        Ok((Some(json!({"requests": sidecar::amounts(requests), "limits": sidecar::amounts(limits)})), other))
    }
}

/// Returns the pipeline that a pod asks for.
fn pipeline<'a>(pod: &'a Pod, offer: Option<&'a Offer>) -> Result<&'a str, Unchanged> {
    let of_namespace = || offer.and_then(|offer| offer.default.as_deref());
    let asked = pod.annotation(INJECT).or_else(of_namespace);
    if asked == Some("false") {
        return Err(Unchanged::silent(Reason::OptedOut));
    }
    let Some(offer) = offer else {
        return Err(Unchanged::told(
            Reason::NotSynced,
            "pipelines are not known yet; create the pod again in a moment",
        ));
    };
    let Some(name) = asked else { return Err(Unchanged::silent(Reason::NotAsked)) };
    if offer.pipelines.contains(name) {
        return Ok(name);
    }
    if name.contains('/') {
        let words = format!("{INJECT} names a pipeline of the pod's own namespace, without a `/`");
        return Err(Unchanged::told(Reason::BadAnnotation, words));
    }
    let known = || offer.pipelines.iter().map(String::as_str);
    let hint = match (nearest(name, known()), known().next()) {
        (Some(near), _) => format!("did you mean `{}`?", quoted(near)),
        (None, Some(one)) => format!("there is `{}`", quoted(one)),
        (None, None) => "it has none".to_owned(),
    };
    let warning = format!("the namespace has no pipeline `{}`; {hint}", quoted(name));
    Err(Unchanged::told(Reason::UnknownPipeline, warning))
}

/// Refuses pods in which no sidecar can run.
fn takes_one(spec: &Spec) -> Result<(), Unchanged> {
    if spec.host_network == Some(true) {
        let words =
            "the pod has the network of its node, where ports would clash; the agent of the node takes its logs";
        return Err(Unchanged::told(Reason::HostNetwork, words));
    }
    if spec.is_of_another_system() {
        return Err(Unchanged::told(Reason::OperatingSystem, "the agent runs on Linux only"));
    }
    if let Some((container, port)) = spec.clash() {
        let [first, _, last] = PORTS;
        let words = format!("container `{}` has port {port}; a sidecar needs {first} to {last}", quoted(container));
        return Err(Unchanged::told(Reason::PortTaken, words));
    }
    Ok(())
}

/// Returns the variable for each container of the application that lacks it.
fn variables(spec: &Spec) -> Vec<Add> {
    let variable = || json!({"name": URL_VARIABLE, "value": sidecar::URL});
    let lacking = |(place, container): (usize, &Container)| {
        let path = format!("/spec/containers/{place}/env");
        match container.env.as_deref() {
            None | Some([]) => Some(Add::new(&path, json!([variable()]))),
            Some(env) if env.iter().any(|known| known.name == URL_VARIABLE) => None,
            Some(_) => Some(Add::new(&format!("{path}/-"), variable())),
        }
    };
    spec.containers.iter().enumerate().filter_map(lacking).collect()
}

/// Returns the annotation that lets the pod be moved in spite of our volume, where it is not so yet.
fn evictable(pod: &Pod) -> Option<(&'static str, String)> {
    let known = pod.annotation(SAFE_TO_EVICT).filter(|text| !text.trim().is_empty());
    match known {
        Some(text) if text.split(',').any(|name| name.trim() == sidecar::SPOOL) => None,
        Some(text) => Some((SAFE_TO_EVICT, format!("{text},{}", sidecar::SPOOL))),
        None => Some((SAFE_TO_EVICT, sidecar::SPOOL.to_owned())),
    }
}

/// Returns how annotations are added.
fn annotations(pod: &Pod, ours: Vec<(&'static str, String)>) -> Result<Vec<Add>, Unchanged> {
    let kept = pod.annotations().iter().filter(|(key, _)| ours.iter().all(|(ours, _)| ours != key));
    let bytes: usize = kept.map(|(key, value)| key.len() + value.as_ref().map_or(0, String::len)).sum();
    let bytes = bytes + ours.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>();
    if bytes > ANNOTATION_BYTES_MAX {
        return Err(Unchanged::told(Reason::NoRoom, "the annotations of the pod leave no room for ours"));
    }
    if pod.metadata.annotations.is_some() {
        let one = |(key, value): (&str, String)| {
            Add::new(&format!("{ANNOTATIONS_PATH}/{}", patch::escaped(key)), value.into())
        };
        return Ok(ours.into_iter().map(one).collect());
    }
    let all: Map<String, Value> = ours.into_iter().map(|(key, value)| (key.to_owned(), value.into())).collect();
    Ok(if all.is_empty() { Vec::new() } else { vec![Add::new(ANNOTATIONS_PATH, Value::Object(all))] })
}

fn first<T>(path: &str, known: &[T], entry: Value) -> Add {
    if known.is_empty() { Add::new(path, json!([entry])) } else { Add::new(&format!("{path}/0"), entry) }
}

/// Returns a text of a pod, fit for a warning.
fn quoted(text: &str) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    let mut short: String = text.chars().take(QUOTED_CHARS_MAX).map(plain).collect();
    if text.chars().nth(QUOTED_CHARS_MAX).is_some() {
        short.push('…');
    }
    short
}

fn cut(text: &str) -> String {
    text.chars().take(WARNING_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests;
