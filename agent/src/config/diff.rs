//! What runs held against what is wanted: pure, so that every case is a test.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use spillway_crds::{BackendPlan, Compiled, PipelinePlan};
use spillway_delivery::settings::{RouteSettings, Strategy};

use super::manifests::Read;
use crate::manifests::{excluded, object_of};
use crate::status::Excluded;

/// A pipeline with the backends it refers to: what an action is about, whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Unit {
    /// The pipeline.
    pub plan: PipelinePlan,
    /// Its backends, by what names them for good.
    pub backends: BTreeMap<Arc<str>, BackendPlan>,
    /// The file it came from.
    pub file: Arc<str>,
}

/// The pipelines by what names them for good.
pub type Units = BTreeMap<Arc<str>, Unit>;

/// One thing to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// A pipeline that does not run.
    Add(Box<Unit>),
    /// A pipeline that runs as something else.
    Edit(Box<Unit>, Change),
    /// A pipeline that is not in the manifests any more.
    Remove(Arc<str>),
}

/// What an edit changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// In words, for people.
    pub what: Vec<String>,
    /// Backends that are to be made anew.
    pub backends: BTreeSet<Arc<str>>,
}

/// What is to be done.
#[derive(Debug, Default, PartialEq)]
pub struct Diff {
    /// In this order.
    pub actions: Vec<Action>,
    /// Objects with errors, and whether an older version of theirs runs on.
    pub refused: Vec<Excluded>,
}

impl Unit {
    /// Returns it as errors name it.
    pub fn label(&self) -> String {
        self.plan.label()
    }
}

/// Returns the good pipelines of what was compiled.
pub fn units(compiled: &Compiled) -> Units {
    let backends: BTreeMap<&Arc<str>, &BackendPlan> = compiled.backends.iter().map(|one| (&one.uid, one)).collect();
    let unit = |plan: &PipelinePlan| {
        let references = plan.settings.routes.iter().flat_map(|route| &route.backends);
        let used = references.filter_map(|reference| {
            backends.get(&reference.uid).map(|backend| (reference.uid.clone(), (*backend).clone()))
        });
        let mut unit = Unit { plan: plan.clone(), backends: used.collect(), file: "".into() };
        if let Some(file) = compiled.objects.get(&unit.label()) {
            unit.file = file.clone();
        }
        (plan.settings.uid.clone(), unit)
    };
    compiled.pipelines.iter().map(unit).collect()
}

/// Returns what brings `running` to what was read.
pub fn diff(running: &Units, read: &Read) -> Diff {
    let wanted = units(&read.compiled);
    let mut diff = Diff { actions: Vec::new(), refused: excluded(&read.compiled.errors) };
    for error in read.compiled.errors.iter().filter(|error| read.kept.contains(&error.file)) {
        let object = object_of(error);
        diff.refused.iter_mut().filter(|one| one.object == object).for_each(|one| one.kept = true);
    }
    for (uid, unit) in running {
        let label = unit.label();
        // An object that is there and not good, or whose file is not readable, was not deleted.
        let is_there = read.compiled.objects.contains_key(&label) || read.unread.contains(&unit.file);
        match wanted.get(uid) {
            Some(new) if is_same(new, unit) => {}
            Some(new) => diff.actions.push(Action::Edit(Box::new(new.clone()), change(unit, new))),
            None if is_there => keep(&mut diff.refused, &label, &unit.file),
            None => diff.actions.push(Action::Remove(uid.clone())),
        }
    }
    let new = wanted.into_iter().filter(|(uid, _)| !running.contains_key(uid));
    diff.actions.extend(new.map(|(_, unit)| Action::Add(Box::new(unit))));
    // Room is made before it is taken.
    diff.actions.sort_by_key(|action| !matches!(action, Action::Remove(_)));
    diff
}

/// In which file a pipeline stands changes nothing.
fn is_same(new: &Unit, old: &Unit) -> bool {
    new.plan == old.plan && new.backends == old.backends
}

/// Notes that an older version runs on.
fn keep(refused: &mut Vec<Excluded>, label: &str, file: &str) {
    let of_file = refused.iter_mut().find(|one| one.object == file).map(|one| {
        one.kept = true;
        one.errors.clone()
    });
    match refused.iter_mut().find(|one| one.object == label) {
        Some(known) => known.kept = true,
        None => refused.push(Excluded {
            object: label.to_owned(),
            errors: of_file.unwrap_or_else(|| vec![format!("its file {file} cannot be read")]),
            kept: true,
        }),
    }
}

/// Says what changes from one version of a pipeline to another.
pub fn change(old: &Unit, new: &Unit) -> Change {
    let mut change = Change::default();
    let (before, after) = (&old.plan.settings, &new.plan.settings);
    routes(&before.routes, &after.routes, &mut change);
    for (uid, backend) in &new.backends {
        if old.backends.get(uid).is_some_and(|known| known != backend) {
            change.what.push(format!("backend {} changed", backend.name));
            change.backends.insert(uid.clone());
        }
    }
    let mut note = |differs: bool, what: &str| change.what.extend(differs.then(|| what.to_owned()));
    note(old.plan.namespaces != new.plan.namespaces, "namespaces changed");
    note(old.plan.inputs != new.plan.inputs, "inputs changed");
    note(before.log != after.log, "buffer, durability or drain time changed");
    note(before.origin != after.origin, "origin changed");
    note(before.transforms != after.transforms, "transforms changed");
    note(!before.suspend && after.suspend, "suspended");
    note(before.suspend && !after.suspend, "resumed");
    change
}

fn routes(before: &[RouteSettings], after: &[RouteSettings], change: &mut Change) {
    let named = |routes: &'_ [RouteSettings], name: &str| routes.iter().find(|route| *route.name == *name).cloned();
    for route in after {
        let Some(old) = named(before, &route.name) else {
            change.what.push(format!("route {} added", route.name));
            continue;
        };
        if old.condition != route.condition {
            change.what.push(format!("condition of route {} changed", route.name));
        }
        if old.strategy != route.strategy {
            change.what.push(format!("strategy of route {} changed", route.name));
        }
        let order = |route: &RouteSettings| -> Vec<Arc<str>> {
            let known =
                |uid: &Arc<str>| [&old, route].iter().all(|one| one.backends.iter().any(|backend| backend.uid == *uid));
            route.backends.iter().map(|backend| backend.uid.clone()).filter(known).collect()
        };
        if route.strategy != Strategy::All && order(&old) != order(route) {
            change.what.push(format!("priorities of route {} changed", route.name));
        }
        references(&old, route, change);
    }
    let removed = before.iter().filter(|route| named(after, &route.name).is_none());
    change.what.extend(removed.map(|route| format!("route {} removed", route.name)));
}

fn references(old: &RouteSettings, new: &RouteSettings, change: &mut Change) {
    let find =
        |route: &'_ RouteSettings, uid: &str| route.backends.iter().find(|backend| *backend.uid == *uid).cloned();
    for backend in &new.backends {
        match find(old, &backend.uid) {
            None => change.what.push(format!("backend {} added to route {}", backend.name, new.name)),
            Some(known) if known != *backend => {
                change.what.push(format!("reference to backend {} of route {} changed", backend.name, new.name));
                // What a reference says is bound with its backend.
                change.backends.insert(backend.uid.clone());
            }
            Some(_) => {}
        }
    }
    let removed = old.backends.iter().filter(|backend| find(new, &backend.uid).is_none());
    change.what.extend(removed.map(|backend| format!("backend {} removed from route {}", backend.name, new.name)));
}
