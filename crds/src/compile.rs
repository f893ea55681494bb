//! The one pure function from manifests to a plan.
//!
//! Expected flow: every document is read and checked against its kind's schema; objects without errors become plans;
//! conditions are compiled and references resolved. Guarantees: an object with an error is left out with all its errors
//! and every other object is there; a pipeline that refers to a backend that is missing or left out is left out too;
//! the answer does not depend on the order of documents, but for two objects of one name, of which the first counts.
//!
//! A reference reaches Backends of the pipeline's own namespace, and cluster ones that grant it. Selectors of namespaces ask
//! for their labels: those of `Namespace` manifests among the documents, and those that the caller knows. Labels that
//! nobody knows are not guessed.
//!
//! Caveats: objects of other groups are told in a warning, since a folder may hold them for `kubectl`.

mod backend;
pub mod namespaces;
mod pipeline;
mod references;
pub mod standalone;
mod transforms;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use spillway_backends::BackendSettings;
use spillway_delivery::settings::{DeliverySettings, Metadata, PipelineSettings};

use crate::kinds::CLUSTER;
use crate::kinds::monitoring_pipeline::{EventsAuthentication, StartAt};
use crate::kinds::selector::LabelSelector;
use crate::manifest::error::{ERRORS_MAX, Position, Problem, Referred};
use crate::manifest::object::{self, Class, Object};
use crate::manifest::tree::{self, Node};
use crate::manifest::{Document, ManifestError, TEXT_BYTES_MAX};
use crate::paths::PathPattern;
pub use namespaces::{Namespaces, Reach};
use references::Targets;

/// What became of the documents.
#[derive(Debug, Clone, Default)]
pub struct Compiled {
    /// The good pipelines, by namespace and name.
    pub pipelines: Vec<PipelinePlan>,
    /// The good backends, by namespace and name.
    pub backends: Vec<BackendPlan>,
    /// Why other objects are not there, by file and line.
    pub errors: Vec<ManifestError>,
    /// What is worth knowing and stops nothing, by file and line.
    pub warnings: Vec<ManifestError>,
    /// Every object of ours that has a name, good or not, as errors name it, and the file it is in.
    pub objects: BTreeMap<String, Arc<str>>,
    /// Whom each good `ClusterBackend` grants, by what names it for good; `None` is nobody.
    grants: BTreeMap<Arc<str>, Option<LabelSelector>>,
    namespaces: Namespaces,
}

impl Compiled {
    /// Returns whether the `ClusterBackend` that `uid` names grants a namespace; `None` when that hangs on labels that are not
    /// known.
    pub fn is_granted(&self, namespace: &str, uid: &str) -> Option<bool> {
        match self.grants.get(uid) {
            Some(Some(selector)) => self.namespaces.takes(selector, namespace),
            Some(None) | None => Some(false),
        }
    }
}

/// One pipeline, ready to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PipelinePlan {
    /// What the engine is told. The namespace of a pipeline of the cluster is [`CLUSTER`].
    pub settings: PipelineSettings,
    /// The namespaces whose data it takes.
    pub namespaces: Reach,
    /// Where its data comes from.
    pub inputs: Vec<Input>,
}

/// One source of a pipeline's data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// The log files of containers.
    ContainerLogs(ContainerLogsInput),
    /// Pushed to the agent.
    Events(EventsInput),
    /// Files of lines.
    Files(FilesInput),
}

/// Which files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilesInput {
    /// Unique within the pipeline.
    pub name: Arc<str>,
    /// Which files, by their paths.
    pub include: Vec<PathPattern>,
    /// Where a file is begun that is there when its pattern is seen for the first time.
    pub start_at: StartAt,
}

/// Who may push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventsInput {
    /// Unique within the pipeline.
    pub name: Arc<str>,
    /// Which pods of the pipeline's namespaces.
    pub pod_selector: LabelSelector,
    /// Whether they must show who they are, at the door of an agent in a cluster.
    pub authentication: EventsAuthentication,
}

/// Which container logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerLogsInput {
    /// Unique within the pipeline.
    pub name: Arc<str>,
    /// Which pods of the pipeline's namespaces.
    pub pod_selector: LabelSelector,
    /// Which of their containers; empty is every one.
    pub containers: Vec<String>,
    /// Where a file seen for the first time is begun.
    pub start_at: StartAt,
}

/// One backend, ready to be built.
#[derive(Debug, Clone, PartialEq)]
pub struct BackendPlan {
    /// Names the backend for good: `<namespace>.<name>`.
    pub uid: Arc<str>,
    /// The namespace the manifest is in; [`CLUSTER`] for a destination of the cluster.
    pub namespace: Arc<str>,
    /// The manifest's name.
    pub name: Arc<str>,
    /// The namespace of the Secrets it names; `None` where it names none.
    pub secret_namespace: Option<Arc<str>>,
    /// Where it is and how it is talked to.
    pub settings: BackendSettings,
    /// How batches are formed and sent.
    pub delivery: DeliverySettings,
    /// What the delivered event carries besides itself.
    pub metadata: Metadata,
}

/// A namespace, or [`CLUSTER`], and a name.
type Key = (String, String);

impl BackendPlan {
    /// Returns the object as errors name it.
    pub fn label(&self) -> String {
        let kind = if *self.namespace == *CLUSTER { "ClusterBackend" } else { "Backend" };
        object::labelled(kind, &self.namespace, &self.name)
    }
}

impl PipelinePlan {
    /// Returns the object as errors name it.
    pub fn label(&self) -> String {
        let PipelineSettings { namespace, name, .. } = &self.settings;
        let kind = if **namespace == *CLUSTER { "ClusterMonitoringPipeline" } else { "MonitoringPipeline" };
        object::labelled(kind, namespace, name)
    }
}

/// Compiles documents into plans and errors; see the module. Of namespaces it knows those among the documents.
pub fn compile(documents: &[Document]) -> Compiled {
    compile_with(documents, Namespaces::default())
}

/// Compiles documents as an agent without an operator takes them: what it refuses of good objects is among the warnings.
pub fn compile_standalone(documents: &[Document]) -> Compiled {
    let (mut compiled, objects) = compile_objects(documents, Namespaces::default());
    standalone::warn(documents, &objects, &mut compiled);
    compiled
}

/// Compiles documents into plans and errors, where `namespaces` are known, too; see the module.
pub fn compile_with(documents: &[Document], namespaces: Namespaces) -> Compiled {
    compile_objects(documents, namespaces).0
}

/// Returns the plans and errors, and the objects that they are of.
fn compile_objects(documents: &[Document], namespaces: Namespaces) -> (Compiled, Vec<Object>) {
    let mut reader = Reader { namespaces, ..Reader::default() };
    documents.iter().for_each(|document| reader.document(document));
    let Reader { objects, namespaces, mut told, .. } = reader;
    let objects = unique(objects, &mut told);
    let named = objects.iter().map(|object| (object.label(), Arc::clone(&object.file))).collect();
    let of_kind = |kind: &'static str| objects.iter().filter(move |object| object.kind == kind);

    let (mut good, mut excluded, mut grants) = (BTreeMap::new(), BTreeSet::new(), BTreeMap::new());
    for object in of_kind("Backend") {
        match told.of(object, |problems| backend::plan(object, problems)) {
            Some(plan) => drop(good.insert(object.key(), plan)),
            None => drop(excluded.insert(object.key())),
        }
    }
    for object in of_kind("ClusterBackend") {
        let Some((plan, allowed)) = told.of(object, |problems| backend::of_cluster(object, problems)) else {
            excluded.insert(object.key());
            continue;
        };
        good.insert(object.key(), plan);
        grants.insert(object.key(), allowed);
    }
    let targets = Targets { good: &good, excluded: &excluded, grants: &grants, namespaces: &namespaces };
    let mut pipelines = BTreeMap::new();
    for object in of_kind("MonitoringPipeline") {
        let plan = told.of(object, |problems| pipeline::plan(object, &targets, problems));
        pipelines.extend(plan.map(|plan| (object.key(), plan)));
    }
    for object in of_kind("ClusterMonitoringPipeline") {
        let plan = told.of(object, |problems| pipeline::of_cluster(object, &targets, problems));
        if plan.as_ref().is_some_and(|plan| plan.namespaces == Reach::Only(BTreeSet::new())) {
            told.warnings.push(selects_nothing(object, namespaces.len()));
        }
        pipelines.extend(plan.map(|plan| (object.key(), plan)));
    }
    let (errors, warnings) = told.finish();
    let pipelines = pipelines.into_values().collect();
    let by_uid = grants.iter().filter_map(|(key, allowed)| Some((good.get(key)?.uid.clone(), allowed.clone())));
    let grants = by_uid.collect();
    let backends = good.into_values().collect();
    (Compiled { pipelines, backends, errors, warnings, objects: named, grants, namespaces }, objects)
}

fn selects_nothing(object: &Object, known: usize) -> ManifestError {
    const FIELD: &str = "spec.namespaceSelector";
    let message = "selects no namespace whose labels are known, so the pipeline takes nothing";
    let found = if known == 1 { "1 namespace".to_owned() } else { format!("{known} namespaces") };
    let allowed = "labels of a manifest of kind `Namespace`, or names in `kubernetes.io/metadata.name`";
    let problem = Problem::new(object.root.at(FIELD), FIELD, message).found(found).allowed(allowed);
    problem.refers_to(Referred::Namespace).of(&object.file, &object.label())
}

/// What is read out of documents.
#[derive(Default)]
struct Reader {
    objects: Vec<Object>,
    namespaces: Namespaces,
    /// Where the namespaces among the documents stand.
    places: BTreeMap<String, (Arc<str>, Position)>,
    told: Told,
}

impl Reader {
    /// Reads the objects of ours, and the namespaces, out of a document.
    fn document(&mut self, document: &Document) {
        let file = &document.file;
        if document.text.len() > TEXT_BYTES_MAX {
            let problem =
                Problem::new(Position::START, "", "file too large").found(format!("{} bytes", document.text.len()));
            self.told.errors(file, "", vec![problem.allowed(format!("at most {TEXT_BYTES_MAX} bytes"))]);
            return;
        }
        for tree::Read { root, problems } in tree::read(&document.text) {
            match root {
                Some(root) => self.object(file, root, problems),
                None => self.told.errors(file, "", problems),
            }
        }
    }

    /// Reads one object, or each object of a list.
    fn object(&mut self, file: &Arc<str>, root: Node, mut problems: Vec<Problem>) {
        match object::classify(&root) {
            Ok(Class::Ours(kind)) => {
                let broken = !problems.is_empty();
                let label = object::label(kind, &root);
                let object = object::read(file, kind, root, &mut problems);
                self.told.errors(file, &label, problems);
                self.objects.extend(object.map(|object| Object { spec: object.spec.filter(|_| !broken), ..object }));
            }
            Ok(Class::Namespace) => self.namespace(file, &root, problems),
            Ok(Class::List) => {
                self.told.errors(file, "List", problems);
                for item in root.into_items("items") {
                    self.object(file, item, Vec::new());
                }
            }
            Ok(Class::Foreign(name)) => {
                let warning = Problem::new(root.position, "", "not a kind of Spillway, left to others").found(name);
                self.told.warnings.push(warning.of(file, ""));
                self.told.errors(file, "", problems);
            }
            Err(more) => {
                problems.extend(more);
                self.told.errors(file, "", problems);
            }
        }
    }

    fn namespace(&mut self, file: &Arc<str>, root: &Node, mut problems: Vec<Problem>) {
        let Some((name, labels)) = object::read_namespace(root, &mut problems) else {
            return self.told.errors(file, "Namespace", problems);
        };
        let label = format!("Namespace {name}");
        let position = root.at("metadata.name");
        match self.places.get(&name) {
            Some((file, earlier)) => problems.push(twice(position, file, *earlier)),
            None if problems.is_empty() => {
                self.namespaces.insert(&name, labels);
                self.places.insert(name, (Arc::clone(file), position));
            }
            None => {}
        }
        self.told.errors(file, &label, problems);
    }
}

fn twice(position: Position, file: &str, earlier: Position) -> Problem {
    let message = format!("an object of this kind and name is already in {file}, line {}", earlier.line);
    Problem::new(position, "metadata.name", message)
}

/// Leaves out objects whose name is taken by one before.
fn unique(objects: Vec<Object>, told: &mut Told) -> Vec<Object> {
    let mut first: BTreeMap<String, (Arc<str>, Position)> = BTreeMap::new();
    let mut unique = Vec::with_capacity(objects.len());
    for object in objects {
        let (label, position) = (object.label(), object.position());
        if let Some((file, earlier)) = first.get(&label) {
            told.errors(&object.file, &label, vec![twice(position, file, *earlier)]);
        } else {
            first.insert(label, (Arc::clone(&object.file), position));
            unique.push(object);
        }
    }
    unique
}

/// Everything that is told, at most [`ERRORS_MAX`] errors a file.
#[derive(Default)]
struct Told {
    errors: Vec<ManifestError>,
    warnings: Vec<ManifestError>,
    counts: BTreeMap<Arc<str>, usize>,
}

impl Told {
    fn errors(&mut self, file: &Arc<str>, object: &str, problems: Vec<Problem>) {
        let count = self.counts.entry(Arc::clone(file)).or_default();
        for problem in problems {
            *count += 1;
            if *count <= ERRORS_MAX {
                self.errors.push(problem.of(file, object));
            }
        }
    }

    /// Returns the object's plan, and takes its problems; an object that has any has no plan.
    fn of<T>(&mut self, object: &Object, plan: impl FnOnce(&mut Vec<Problem>) -> Option<T>) -> Option<T> {
        let mut problems = Vec::new();
        let plan = plan(&mut problems).filter(|_| problems.is_empty());
        self.errors(&object.file, &object.label(), problems);
        plan
    }

    fn finish(mut self) -> (Vec<ManifestError>, Vec<ManifestError>) {
        for list in [&mut self.errors, &mut self.warnings] {
            list.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
        }
        for (file, _) in self.counts.iter().filter(|(_, count)| **count > ERRORS_MAX) {
            let line = self.errors.iter().filter(|error| error.file == *file).map(|error| error.line).max();
            let at = Position { line: line.unwrap_or(1), column: 1 };
            let message = format!("more than {ERRORS_MAX} errors in this file: those told are the first");
            self.errors.push(Problem::new(at, "", message).of(file, ""));
        }
        (self.errors, self.warnings)
    }
}

#[cfg(test)]
mod tests;
