//! The one pure function from manifests to a plan.
//!
//! Expected flow: every document is read and checked against its kind's schema; objects without errors become plans;
//! conditions are compiled and references resolved. Guarantees: an object with an error is left out with all its errors
//! and every other object is there; a pipeline that refers to a backend that is missing or left out is left out too;
//! the answer does not depend on the order of documents, but for two objects of one name, of which the first counts.
//!
//! Caveats: a reference reaches backends of the pipeline's own namespace only. Objects of other groups are told in a
//! warning, since a folder may hold them for `kubectl`.

mod backend;
mod pipeline;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use spillway_backends::BackendSettings;
use spillway_delivery::settings::{DeliverySettings, Metadata, PipelineSettings};

use crate::kinds::monitoring_pipeline::StartAt;
use crate::kinds::selector::PodSelector;
use crate::manifest::error::{ERRORS_MAX, Position, Problem};
use crate::manifest::object::{self, Class, Object};
use crate::manifest::tree::{self, Node};
use crate::manifest::{Document, ManifestError, TEXT_BYTES_MAX};

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
}

/// One pipeline, ready to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PipelinePlan {
    /// What the engine is told.
    pub settings: PipelineSettings,
    /// Where its data comes from.
    pub inputs: Vec<Input>,
}

/// One source of a pipeline's data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// The log files of containers.
    ContainerLogs(ContainerLogsInput),
    /// Pushed to the agent.
    Events {
        /// Unique within the pipeline.
        name: Arc<str>,
    },
}

/// Which container logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerLogsInput {
    /// Unique within the pipeline.
    pub name: Arc<str>,
    /// Which pods of the pipeline's namespace.
    pub pod_selector: PodSelector,
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
    /// The namespace the manifest is in.
    pub namespace: Arc<str>,
    /// The manifest's name.
    pub name: Arc<str>,
    /// Where it is and how it is talked to.
    pub settings: BackendSettings,
    /// How batches are formed and sent.
    pub delivery: DeliverySettings,
    /// What the delivered event carries besides itself.
    pub metadata: Metadata,
}

/// Compiles documents into plans and errors; see the module.
pub fn compile(documents: &[Document]) -> Compiled {
    let mut told = Told::default();
    let objects: Vec<Object> = documents.iter().flat_map(|document| read(document, &mut told)).collect();
    let objects = unique(objects, &mut told);
    let named = objects.iter().map(|object| (object.label(), Arc::clone(&object.file))).collect();
    let of_kind = |kind: &'static str| objects.iter().filter(move |object| object.kind == kind);

    let mut backends = BTreeMap::new();
    let mut excluded = BTreeSet::new();
    for object in of_kind("Backend") {
        let key = (object.namespace.clone(), object.name.clone());
        match told.of(object, |problems| backend::plan(object, problems)) {
            Some(plan) => drop(backends.insert(key, plan)),
            None => drop(excluded.insert(key)),
        }
    }
    let known = Backends { good: &backends, excluded: &excluded };
    let mut pipelines = BTreeMap::new();
    for object in of_kind("MonitoringPipeline") {
        if let Some(plan) = told.of(object, |problems| pipeline::plan(object, &known, problems)) {
            pipelines.insert((object.namespace.clone(), object.name.clone()), plan);
        }
    }
    let (errors, warnings) = told.finish();
    Compiled {
        pipelines: pipelines.into_values().collect(),
        backends: backends.into_values().collect(),
        errors,
        warnings,
        objects: named,
    }
}

/// The backends there are, by namespace and name.
struct Backends<'a> {
    good: &'a BTreeMap<(String, String), BackendPlan>,
    excluded: &'a BTreeSet<(String, String)>,
}

/// Reads the objects of ours out of a document.
fn read(document: &Document, told: &mut Told) -> Vec<Object> {
    let file = &document.file;
    if document.text.len() > TEXT_BYTES_MAX {
        let problem =
            Problem::new(Position::START, "", "file too large").found(format!("{} bytes", document.text.len()));
        told.errors(file, "", vec![problem.allowed(format!("at most {TEXT_BYTES_MAX} bytes"))]);
        return Vec::new();
    }
    let mut objects = Vec::new();
    for tree::Read { root, problems } in tree::read(&document.text) {
        match root {
            Some(root) => read_object(file, root, problems, told, &mut objects),
            None => told.errors(file, "", problems),
        }
    }
    objects
}

/// Reads one object, or each object of a list.
fn read_object(file: &Arc<str>, root: Node, mut problems: Vec<Problem>, told: &mut Told, objects: &mut Vec<Object>) {
    match object::classify(&root) {
        Ok(Class::Ours(kind)) => {
            let broken = !problems.is_empty();
            let label = object::label(kind, &root);
            let object = object::read(file, kind, root, &mut problems);
            told.errors(file, &label, problems);
            objects.extend(object.map(|object| Object { spec: object.spec.filter(|_| !broken), ..object }));
        }
        Ok(Class::List) => {
            told.errors(file, "List", problems);
            for item in root.into_items("items") {
                read_object(file, item, Vec::new(), told, objects);
            }
        }
        Ok(Class::Foreign(name)) => {
            let warning = Problem::new(root.position, "", "not a kind of Spillway, left to others").found(name);
            told.warnings.push(warning.of(file, ""));
            told.errors(file, "", problems);
        }
        Err(more) => {
            problems.extend(more);
            told.errors(file, "", problems);
        }
    }
}

/// Leaves out objects whose name is taken by one before.
fn unique(objects: Vec<Object>, told: &mut Told) -> Vec<Object> {
    let mut first: BTreeMap<String, (Arc<str>, Position)> = BTreeMap::new();
    let mut unique = Vec::with_capacity(objects.len());
    for object in objects {
        let (label, position) = (object.label(), object.position());
        if let Some((file, earlier)) = first.get(&label) {
            let message = format!("an object of this kind and name is already in {file}, line {}", earlier.line);
            told.errors(&object.file, &label, vec![Problem::new(position, "metadata.name", message)]);
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
