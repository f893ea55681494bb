//! Manifests in files that change, held against what runs.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use super::diff::{Action, Diff, Units, diff, units};
use super::manifests::{Manifests, Read, Reading};

const ARCHIVE: &str = "apiVersion: spillway.dev/v1alpha1\nkind: Backend\nmetadata: {name: archive}\nspec: {type: Filesystem, filesystem: {}}\n";

fn http(timeout: u32) -> String {
    format!(
        "apiVersion: spillway.dev/v1alpha1\nkind: Backend\nmetadata: {{name: api}}\nspec: {{type: HTTP, http: {{url: \
         \"http://127.0.0.1:1/\"}}, delivery: {{timeoutSeconds: {timeout}}}}}\n"
    )
}

fn pipeline(name: &str, rest: &str, routes: &[(&str, &str, &str)]) -> String {
    let mut text = format!(
        "apiVersion: spillway.dev/v1alpha1\nkind: MonitoringPipeline\nmetadata: {{name: {name}}}\nspec:\n  {rest}\n  \
         inputs: [{{name: pushed, type: Events}}]\n  routes:\n"
    );
    for (route, condition, backend) in routes {
        writeln!(text, "  - {{name: {route}, {condition} backendRefs: [{{name: {backend}}}]}}").unwrap();
    }
    text
}

fn plain(name: &str) -> String {
    pipeline(name, "", &[("all", "", "archive")])
}

/// A folder of manifests, and what runs of it.
struct World {
    folder: tempfile::TempDir,
    manifests: Manifests,
    running: Units,
}

impl World {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let mut manifests = Manifests::new(vec![folder.path().to_owned()]);
        let read = manifests.first();
        assert!(read.compiled.errors.is_empty(), "{:?}", read.compiled.errors);
        Self { folder, manifests, running: units(&read.compiled) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn read(&mut self) -> std::sync::Arc<Read> {
        match self.manifests.again(false) {
            Reading::Read(read) => read,
            other => panic!("{other:?}"),
        }
    }

    /// Reads again and returns what is to be done, having done it.
    fn turn(&mut self) -> Diff {
        let read = self.read();
        let diff = diff(&self.running, &read);
        for action in &diff.actions {
            match action {
                Action::Add(unit) | Action::Edit(unit, _) => {
                    drop(self.running.insert(unit.plan.settings.uid.clone(), (**unit).clone()));
                }
                Action::Remove(uid) => drop(self.running.remove(uid)),
            }
        }
        diff
    }
}

/// Returns the actions in short: `+name`, `-name`, `name: what, what`.
fn short(diff: &Diff) -> Vec<String> {
    let each = diff.actions.iter().map(|action| match action {
        Action::Add(unit) => format!("+{}", unit.plan.settings.name),
        Action::Edit(unit, change) => format!("{}: {}", unit.plan.settings.name, change.what.join(", ")),
        Action::Remove(uid) => format!("-{uid}"),
    });
    each.collect()
}

fn refused(diff: &Diff) -> Vec<(String, bool)> {
    diff.refused.iter().map(|one| (one.object.clone(), one.kept)).collect()
}

#[test]
fn what_did_not_change_is_not_read_twice_and_gives_no_action() {
    let mut world = World::new(&[("a.yaml", ARCHIVE), ("b.yaml", &plain("jobs"))]);
    assert!(matches!(world.manifests.again(false), Reading::Same));
    let Reading::Read(read) = world.manifests.again(true) else { panic!("forced") };
    assert_eq!(diff(&world.running, &read), Diff::default());
    // Comments, order, and the file in which an object stands mean nothing.
    world.write("b.yaml", &format!("# moved\n{}---\n{ARCHIVE}", plain("jobs")));
    fs::remove_file(world.path("a.yaml")).unwrap();
    assert_eq!(world.turn(), Diff::default());
}

#[test]
fn pipelines_come_and_go_and_the_others_are_not_named() {
    let mut world = World::new(&[("a.yaml", ARCHIVE), ("b.yaml", &plain("jobs")), ("c.yaml", &plain("old"))]);
    fs::remove_file(world.path("c.yaml")).unwrap();
    world.write("d.yaml", &plain("new"));
    assert_eq!(short(&world.turn()), ["-default.old", "+new"]);
    world.write("d.yaml", "# nothing more\n");
    assert_eq!(short(&world.turn()), ["-default.new"]);
}

#[test]
fn an_edit_says_what_changes() {
    let mut world = World::new(&[
        ("a.yaml", &format!("{ARCHIVE}---\n{}", http(3))),
        ("b.yaml", &pipeline("jobs", "", &[("all", "", "archive"), ("bad", "match: event.ok == false,", "api")])),
        ("c.yaml", &plain("other")),
    ]);
    let edited = [("bad", "match: event.ok == 0,", "api"), ("more", "", "archive")];
    world.write("b.yaml", &pipeline("jobs", "suspend: true", &edited));
    world.write("a.yaml", &format!("{ARCHIVE}---\n{}", http(4)));
    let diff = world.turn();
    assert_eq!(
        short(&diff),
        ["jobs: condition of route bad changed, route more added, route all removed, backend api changed, suspended"]
    );
    let Action::Edit(_, change) = &diff.actions[0] else { panic!("{diff:?}") };
    assert_eq!(change.backends.iter().map(|uid| &**uid).collect::<Vec<_>>(), ["default.api"]);
    world.write("b.yaml", &pipeline("jobs", "durability: Process", &[("bad", "match: event.ok == 0,", "archive")]));
    assert_eq!(
        short(&world.turn()),
        ["jobs: backend archive added to route bad, backend api removed from route bad, route more removed, buffer, \
          durability or drain time changed, resumed"]
    );
}

#[test]
fn a_reference_that_says_something_else_is_bound_anew() {
    let mut world = World::new(&[("backend.yaml", ARCHIVE), ("jobs.yaml", &plain("jobs"))]);
    world.write("jobs.yaml", &pipeline("jobs", "", &[("all", "onUndeliverable: Drop,", "archive")]));
    let diff = world.turn();
    let [Action::Edit(_, change)] = &diff.actions[..] else { panic!("{diff:?}") };
    assert_eq!(change.what, ["reference to backend archive of route all changed"]);
    assert_eq!(change.backends.len(), 1);
}

#[test]
fn a_pipeline_with_errors_runs_on_as_it_was_and_harms_no_other() {
    let mut world = World::new(&[("a.yaml", ARCHIVE), ("b.yaml", &plain("jobs")), ("c.yaml", &plain("other"))]);
    world.write("b.yaml", &pipeline("jobs", "", &[("all", "match: evnt.x == 1,", "archive")]));
    world.write("c.yaml", &pipeline("other", "suspend: true", &[("all", "", "archive")]));
    let diff = world.turn();
    assert_eq!(short(&diff), ["other: suspended"]);
    assert_eq!(refused(&diff), [("MonitoringPipeline default/jobs".to_owned(), true)]);
    // A new one that is bad does not run at all.
    world.write("d.yaml", &pipeline("third", "", &[("all", "", "nobody")]));
    assert!(refused(&world.turn()).contains(&("MonitoringPipeline default/third".to_owned(), false)));
    world.write("b.yaml", &plain("jobs"));
    fs::remove_file(world.path("d.yaml")).unwrap();
    assert_eq!(world.turn(), Diff::default(), "mended");
}

#[test]
fn a_backend_that_goes_while_it_is_used_keeps_its_pipeline_as_it_was() {
    let mut world = World::new(&[("a.yaml", ARCHIVE), ("b.yaml", &plain("jobs"))]);
    world.write("a.yaml", "# archive is gone\n");
    let diff = world.turn();
    assert!(diff.actions.is_empty(), "{diff:?}");
    assert_eq!(refused(&diff), [("MonitoringPipeline default/jobs".to_owned(), true)]);
    assert!(diff.refused[0].errors[0].contains("no such backend"), "{:?}", diff.refused);
    // So does one that has errors.
    world.write("a.yaml", &ARCHIVE.replace("Filesystem", "Filesystm"));
    let diff = world.turn();
    assert!(diff.actions.is_empty() && refused(&diff).contains(&("MonitoringPipeline default/jobs".to_owned(), true)));
    // Both gone: the pipeline is not in the manifests any more.
    fs::remove_file(world.path("b.yaml")).unwrap();
    assert_eq!(short(&world.turn()), ["-default.jobs"]);
}

#[test]
fn a_file_that_cannot_be_read_is_no_deletion() {
    let both = format!("{}---\n{}", plain("jobs"), plain("other"));
    let mut world = World::new(&[("a.yaml", ARCHIVE), ("b.yaml", &both)]);
    for broken in [
        format!("{}---\n{{ not: [yaml\n", plain("jobs")),
        both.replace(
            "kind: MonitoringPipeline\nmetadata: {name: other}",
            "kind: MonitoringPipelin\nmetadata: {name: other}",
        ),
        both.replace("metadata: {name: other}", "metadata: {}"),
        "\t".to_owned(),
    ] {
        world.write("b.yaml", &broken);
        world.write("c.yaml", &plain(&format!("new-{}", broken.len())));
        let diff = world.turn();
        assert!(
            short(&diff).iter().all(|action| !action.contains("default.jobs") && !action.contains("default.other")),
            "{diff:?}"
        );
        assert!(short(&diff).iter().any(|action| action.starts_with("+new-")), "the other file counts: {diff:?}");
        assert!(!diff.refused.is_empty() && diff.refused.iter().all(|one| one.kept), "{diff:?}");
    }
    world.write("b.yaml", "");
    let diff = world.turn();
    assert!(short(&diff).is_empty() && diff.refused.len() == 1, "being written: {diff:?}");
    assert!(diff.refused[0].kept, "it runs as it was: {diff:?}");
    world.write("d.yaml", "{ never: [good\n");
    assert!(refused(&world.turn()).contains(&(world.path("d.yaml").display().to_string(), false)));
    fs::remove_file(world.path("d.yaml")).unwrap();
    fs::write(world.path("b.yaml"), b"\xff\xfe").unwrap();
    assert!(short(&world.turn()).is_empty(), "not text, and still no deletion");
    world.write("b.yaml", &plain("jobs"));
    assert_eq!(short(&world.turn()), ["-default.other"], "readable again: now it is one");
}

#[test]
fn what_a_file_said_last_counts_while_it_cannot_be_read() {
    let mut world = World::new(&[("a.yaml", &format!("{ARCHIVE}---\n{}", http(3))), ("b.yaml", &plain("jobs"))]);
    // The first document is good and changed, the second is not YAML: nothing of the file counts.
    world.write("a.yaml", &format!("{}---\n[\n", http(9)));
    world.write("b.yaml", &pipeline("jobs", "", &[("all", "", "archive"), ("bad", "", "api")]));
    let diff = world.turn();
    assert_eq!(short(&diff), ["jobs: route bad added"]);
    let Action::Edit(unit, _) = &diff.actions[0] else { panic!("{diff:?}") };
    assert_eq!(unit.backends["default.api"].delivery.timeout.as_secs(), 3);
    assert_eq!(diff.refused.len(), 1, "{:?}", diff.refused);
}

#[test]
fn a_folder_without_manifests_and_a_path_that_is_gone_change_nothing() {
    let mut world = World::new(&[("a.yaml", &format!("{ARCHIVE}---\n{}", plain("jobs")))]);
    fs::remove_file(world.path("a.yaml")).unwrap();
    assert!(matches!(world.manifests.again(false), Reading::Unbelievable(_)));
    assert!(matches!(world.manifests.again(false), Reading::Same), "told once");
    world.write("a.yaml", &format!("{ARCHIVE}---\n{}", plain("jobs")));
    assert_eq!(world.turn(), Diff::default());
    fs::rename(world.folder.path(), world.folder.path().with_extension("away")).unwrap();
    assert!(matches!(world.manifests.again(false), Reading::Unbelievable(_)));
    fs::rename(world.folder.path().with_extension("away"), world.folder.path()).unwrap();
}

#[test]
fn the_links_of_a_mounted_config_map_are_followed_over_their_swap() {
    let folder = tempfile::tempdir().unwrap();
    let mount = folder.path();
    let version = |name: &str, text: &str| {
        fs::create_dir(mount.join(name)).unwrap();
        fs::write(mount.join(name).join("all.yaml"), text).unwrap();
    };
    version("..1", &format!("{ARCHIVE}---\n{}", plain("jobs")));
    std::os::unix::fs::symlink("..1", mount.join("..data")).unwrap();
    std::os::unix::fs::symlink("..data/all.yaml", mount.join("all.yaml")).unwrap();
    let mut manifests = Manifests::new(vec![mount.to_owned()]);
    let running = units(&manifests.first().compiled);
    version("..2", &format!("{ARCHIVE}---\n{}", plain("more")));
    std::os::unix::fs::symlink("..2", mount.join("..new")).unwrap();
    fs::rename(mount.join("..new"), mount.join("..data")).unwrap();
    let Reading::Read(read) = manifests.again(false) else { panic!("it changed") };
    assert_eq!(short(&diff(&running, &read)), ["-default.jobs", "+more"]);
}

mod watching {
    use std::time::Duration;

    use super::super::watch::{RESCAN, Watch};
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn a_change_wakes_the_reading_long_before_the_rescan() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.yaml"), ARCHIVE).unwrap();
        let watch = Watch::new(vec![folder.path().to_owned()]);
        assert!(PATIENCE < RESCAN);
        for _ in 0..3 {
            fs::write(folder.path().join("new"), plain("jobs")).unwrap();
            fs::rename(folder.path().join("new"), folder.path().join("a.yaml")).unwrap();
            tokio::time::timeout(PATIENCE, watch.changed()).await.expect("woken by the event");
        }
        std::os::unix::fs::symlink("..2", folder.path().join("..data")).unwrap();
        tokio::time::timeout(PATIENCE, watch.changed()).await.expect("woken by the link");
    }

    #[tokio::test]
    async fn a_single_file_is_watched_over_its_replacement() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.yaml");
        fs::write(&path, ARCHIVE).unwrap();
        let watch = Watch::new(vec![path.clone()]);
        for _ in 0..3 {
            fs::write(folder.path().join("draft"), plain("jobs")).unwrap();
            fs::rename(folder.path().join("draft"), &path).unwrap();
            tokio::time::timeout(PATIENCE, watch.changed()).await.expect("woken by the event");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn without_events_the_rescan_comes() {
        let folder = tempfile::tempdir().unwrap();
        let watch = Watch::new(vec![folder.path().to_owned()]);
        tokio::time::timeout(RESCAN * 2, watch.changed()).await.expect("the rescan");
    }
}
