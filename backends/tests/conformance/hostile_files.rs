//! Names and places that must not be written, and what happens to their events.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;

use spillway_backends::{BackendSettings, BuildError, build};
use spillway_delivery::backend::{Backend, DeliveryName, FaultKind, Items, Outcome};
use spillway_delivery::event::Origin;

use crate::batches::{batch, batch_of, context, lines, name, pod};
use crate::destinations::{files, parse, read};

fn filesystem(value: serde_json::Value) -> BackendSettings {
    BackendSettings::Filesystem(parse(value))
}

fn backend(settings: serde_json::Value, directory: &Path) -> Arc<dyn Backend> {
    build(&filesystem(settings), context(directory)).unwrap()
}

fn per_pod() -> serde_json::Value {
    serde_json::json!({"file": "pods/{origin.pod}/x.ndjson"})
}

#[tokio::test]
async fn hostile_values_are_rejected_and_their_siblings_delivered() {
    let directory = tempfile::tempdir().unwrap();
    let backend = backend(per_pod(), directory.path());
    backend.open(None).await.unwrap();
    let long = "x".repeat(300);
    let hostile =
        ["..", ".", "/", "../../../../tmp/x", "/etc/passwd", "a/b", "a\0b", "a\nb", ".x", "", "%2e%2e%2f", "é", &long];
    for value in hostile {
        let runs: [(Arc<Origin>, Vec<u64>); 3] =
            [(pod("fine"), vec![1]), (pod(value), vec![2, 3]), (pod("fine"), vec![4])];
        let Items::Each(outcomes) = backend.send(&batch_of(&runs, "k")).await.unwrap() else {
            panic!("{value:?} was taken");
        };
        assert_eq!(outcomes.len(), 4);
        assert_eq!((&outcomes[0], &outcomes[3]), (&Outcome::Delivered, &Outcome::Delivered));
        for outcome in &outcomes[1..3] {
            let Outcome::Rejected(reason) = outcome else { panic!("{value:?}: {outcome:?}") };
            assert!(reason.contains("origin.pod") && !reason.contains(['\n', '\0']), "{reason}");
        }
    }
    backend.commit().await.unwrap();
    let out = directory.path().join("out");
    let written = files(&out);
    assert!(written.iter().all(|path| path.parent().unwrap() == out.join("pods/fine")), "{written:?}");
    assert_eq!(written.iter().flat_map(|path| read(path)).count(), 2 * hostile.len());
}

#[tokio::test]
async fn links_on_the_way_are_not_followed() {
    let directory = tempfile::tempdir().unwrap();
    let (out, outside) = (directory.path().join("out"), directory.path().join("outside"));
    std::fs::create_dir_all(out.join("pods")).unwrap();
    std::fs::create_dir(&outside).unwrap();
    symlink(&outside, out.join("pods/evil")).unwrap();
    symlink("/dev", out.join("pods/dev")).unwrap();
    std::fs::write(out.join("pods/file"), "kept").unwrap();
    let backend = backend(per_pod(), directory.path());
    backend.open(None).await.unwrap();
    for bad in ["evil", "dev", "file"] {
        let alone = backend.send(&batch_of(&[(pod(bad), vec![1])], "k")).await.unwrap_err();
        assert_eq!(alone.kind, FaultKind::Local, "{bad}: {alone}");
        let both = backend.send(&batch_of(&[(pod(bad), vec![1]), (pod("fine"), vec![2])], "k")).await;
        assert_eq!(both, Ok(Items::Each(vec![Outcome::Retry, Outcome::Delivered])), "{bad}");
    }
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
    assert_eq!(std::fs::read(out.join("pods/file")).unwrap(), b"kept");
}

#[tokio::test]
async fn a_link_swapped_in_while_running_is_not_followed() {
    let directory = tempfile::tempdir().unwrap();
    let (out, outside) = (directory.path().join("out"), directory.path().join("outside"));
    std::fs::create_dir(&outside).unwrap();
    let settings = serde_json::json!({"file": "d/x.ndjson", "rotate": {"maxBytes": 4096}});
    let backend = backend(settings, directory.path());
    backend.open(None).await.unwrap();
    backend.send(&batch(0..10)).await.unwrap();
    std::fs::rename(out.join("d"), out.join("moved")).unwrap();
    symlink(&outside, out.join("d")).unwrap();
    // The next file would be begun behind the link.
    let fault = backend.send(&batch(10..1000)).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Local, "{fault}");
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
    std::fs::remove_file(out.join("d")).unwrap();
    std::fs::rename(out.join("moved"), out.join("d")).unwrap();
    backend.send(&batch(10..1000)).await.unwrap();
    backend.commit().await.unwrap();
    let found: Vec<String> = files(&out).iter().flat_map(|path| read(path)).collect();
    assert!(found == lines(0..1000), "the batch that failed half-way left nothing");
}

#[tokio::test]
async fn a_data_file_replaced_by_a_link_or_a_device_is_not_written() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("out");
    let settings = serde_json::json!({"file": "x.ndjson"});
    let first = backend(settings.clone(), directory.path());
    first.open(None).await.unwrap();
    first.send(&batch(0..3)).await.unwrap();
    let mark = first.commit().await.unwrap();
    first.close().await;
    let path = files(&out).remove(0);
    std::fs::remove_file(&path).unwrap();
    for target in ["/dev/full", "/etc/hostname", "../outside"] {
        std::fs::write(directory.path().join("outside"), "kept").unwrap();
        symlink(target, &path).unwrap();
        let fault = backend(settings.clone(), directory.path()).open(mark.clone()).await.unwrap_err();
        assert_eq!(fault.kind, FaultKind::Local, "{target}: {fault}");
        std::fs::remove_file(&path).unwrap();
    }
    assert_eq!(std::fs::read(directory.path().join("outside")).unwrap(), b"kept");
    std::fs::create_dir(&path).unwrap();
    assert!(backend(settings, directory.path()).open(mark).await.is_err(), "a directory is no data file");
}

#[tokio::test]
async fn two_deliveries_and_two_agents_never_share_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let settings = filesystem(serde_json::json!({"file": "all.ndjson"}));
    let names = [
        name(),
        DeliveryName { route: "all".into(), ..name() },
        DeliveryName { backend: "other".into(), ..name() },
        DeliveryName { pipeline: "other".into(), ..name() },
        DeliveryName { namespace: "other".into(), ..name() },
        DeliveryName { agent: "00000000000000a2".into(), ..name() },
    ];
    let mut backends = Vec::new();
    for name in names {
        let mut context = context(directory.path());
        context.name = name;
        let backend = build(&settings, context).unwrap();
        backend.open(None).await.unwrap();
        backend.send(&batch(0..5)).await.unwrap();
        backend.commit().await.unwrap();
        backends.push(backend);
    }
    let written = files(&directory.path().join("out"));
    assert_eq!(written.len(), backends.len());
    assert!(written.iter().all(|path| read(path) == lines(0..5)));
}

#[tokio::test]
async fn the_same_delivery_twice_at_once_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let first = backend(serde_json::json!({}), directory.path());
    first.open(None).await.unwrap();
    first.send(&batch(0..5)).await.unwrap();
    let second = backend(serde_json::json!({}), directory.path());
    let fault = second.open(None).await.unwrap_err();
    assert!(fault.message.contains("another process"), "{fault}");
    let mark = first.commit().await.unwrap();
    first.close().await;
    second.open(mark).await.unwrap();
    assert_eq!(files(&directory.path().join("out")).iter().flat_map(|path| read(path)).count(), 5);
}

#[tokio::test]
async fn a_lost_mark_destroys_nothing_that_was_delivered() {
    let directory = tempfile::tempdir().unwrap();
    let first = backend(serde_json::json!({}), directory.path());
    first.open(None).await.unwrap();
    first.send(&batch(0..5)).await.unwrap();
    first.commit().await.unwrap();
    first.commit().await.unwrap();
    first.close().await;
    let second = backend(serde_json::json!({}), directory.path());
    second.open(None).await.unwrap();
    second.send(&batch(5..9)).await.unwrap();
    second.commit().await.unwrap();
    let found: Vec<String> = files(&directory.path().join("out")).iter().flat_map(|path| read(path)).collect();
    assert!(found == lines(0..9));
}

#[tokio::test]
async fn a_committed_file_that_is_shorter_or_gone_is_left_and_a_new_one_begun() {
    for shorten in [true, false] {
        let directory = tempfile::tempdir().unwrap();
        let out = directory.path().join("out");
        let first = backend(serde_json::json!({"file": "x.ndjson"}), directory.path());
        first.open(None).await.unwrap();
        first.send(&batch(0..5)).await.unwrap();
        let mark = first.commit().await.unwrap();
        first.close().await;
        let path = files(&out).remove(0);
        if shorten {
            std::fs::write(&path, "{}\n").unwrap();
        } else {
            std::fs::remove_file(&path).unwrap();
        }
        let second = backend(serde_json::json!({"file": "x.ndjson"}), directory.path());
        second.open(mark).await.unwrap();
        second.send(&batch(5..7)).await.unwrap();
        second.commit().await.unwrap();
        let last = files(&out).pop().unwrap();
        assert_ne!(last, path);
        assert_eq!(read(&last), lines(5..7));
        assert!(!shorten || std::fs::read(&path).unwrap() == b"{}\n");
    }
}

#[tokio::test]
async fn a_file_removed_while_it_is_written_is_begun_anew() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("out");
    let backend = backend(serde_json::json!({"file": "x.ndjson"}), directory.path());
    backend.open(None).await.unwrap();
    backend.send(&batch(0..5)).await.unwrap();
    backend.commit().await.unwrap();
    std::fs::remove_file(files(&out).remove(0)).unwrap();
    backend.send(&batch(5..7)).await.unwrap();
    backend.commit().await.unwrap();
    assert_eq!(files(&out).iter().flat_map(|path| read(path)).collect::<Vec<_>>(), lines(5..7));
}

#[tokio::test]
async fn hundreds_of_places_need_few_descriptors_and_a_bounded_mark() {
    let directory = tempfile::tempdir().unwrap();
    let backend = backend(per_pod(), directory.path());
    backend.open(None).await.unwrap();
    let pods: Vec<String> = (0..700).map(|number| format!("pod-{number}-{}", "x".repeat(100))).collect();
    let mut mark = None;
    for round in 0..3 {
        let runs: Vec<_> = pods.iter().map(|name| (pod(name), vec![round])).collect();
        assert_eq!(backend.send(&batch_of(&runs, "k")).await, Ok(Items::All(Outcome::Delivered)));
        let out = directory.path().join("out/pods");
        let open = std::fs::read_dir("/proc/self/fd").unwrap();
        let open =
            open.filter(|fd| std::fs::read_link(fd.as_ref().unwrap().path()).is_ok_and(|path| path.starts_with(&out)));
        assert!(open.count() <= 64);
        mark = backend.commit().await.unwrap();
        assert!(mark.as_ref().unwrap().len() <= 64 << 10);
    }
    backend.close().await;
    backend.open(mark).await.unwrap();
    let out = directory.path().join("out");
    let found: usize = files(&out).iter().map(|path| read(path).len()).sum();
    assert_eq!(found, 3 * pods.len());
}

#[tokio::test]
async fn the_oldest_closed_files_go_beyond_keep() {
    let directory = tempfile::tempdir().unwrap();
    let backend = backend(serde_json::json!({"rotate": {"maxBytes": 4096, "keep": 2}}), directory.path());
    backend.open(None).await.unwrap();
    for round in 0..12 {
        backend.send(&batch(round * 60..round * 60 + 60)).await.unwrap();
        backend.commit().await.unwrap();
    }
    let kept = files(&directory.path().join("out"));
    assert_eq!(kept.len(), 3, "two closed and the growing one: {kept:?}");
    assert_eq!(read(kept.last().unwrap()).last(), lines(719..720).last());
}

#[tokio::test]
async fn a_window_of_receipt_has_its_own_file_and_what_comes_late_begins_another() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("out");
    let settings = serde_json::json!({"file": "x.ndjson", "rotate": {"everySeconds": 3600}});
    let mut backend = backend(settings.clone(), directory.path());
    backend.open(None).await.unwrap();
    // 10:00:00, 10:59:59, 11:00:00, then a clock that stepped back to 10:30.
    let mut mark = None;
    for number in [0, 3599, 3600, 1800, 3601] {
        backend.send(&batch(number..number + 1)).await.unwrap();
        mark = backend.commit().await.unwrap();
    }
    let contents = || files(&out).iter().map(|path| read(path)).collect::<Vec<_>>();
    let expected = [vec![0, 3599], vec![3600], vec![1800], vec![3601]];
    let expected: Vec<Vec<String>> = expected
        .into_iter()
        .map(|numbers: Vec<u64>| numbers.into_iter().map(crate::batches::event).collect())
        .collect();
    assert_eq!(contents(), expected);
    // Another process goes on with the file of the window, uncommitted lines cut off.
    backend.send(&batch(3602..3603)).await.unwrap();
    drop(backend);
    backend = super::hostile_files::backend(settings, directory.path());
    backend.open(mark.clone()).await.unwrap();
    assert_eq!(contents(), expected);
    backend.send(&batch(3603..3604)).await.unwrap();
    mark = backend.commit().await.unwrap();
    assert_eq!(contents()[3], lines(3601..3602).into_iter().chain(lines(3603..3604)).collect::<Vec<_>>());
    drop(backend);
    // Another length makes other windows, also where they begin alike.
    let settings = serde_json::json!({"file": "x.ndjson", "rotate": {"everySeconds": 60}});
    backend = super::hostile_files::backend(settings, directory.path());
    backend.open(mark).await.unwrap();
    backend.send(&batch(3604..3605)).await.unwrap();
    backend.commit().await.unwrap();
    assert_eq!(contents().len(), 5);
    assert_eq!(contents()[4], lines(3604..3605));
}

#[tokio::test]
async fn absolute_directories_are_for_standalone_runs() {
    let directory = tempfile::Builder::new().prefix("spillway").tempdir().unwrap();
    let path = directory.path().join("elsewhere").to_str().unwrap().to_owned();
    let settings = filesystem(serde_json::json!({"directory": path}));
    assert!(matches!(build(&settings, context(directory.path())), Err(BuildError::AbsoluteDirectory(_))));
    let mut standalone = context(directory.path());
    standalone.allow_absolute = true;
    let backend = build(&settings, standalone).unwrap();
    backend.open(None).await.unwrap();
    backend.send(&batch(0..2)).await.unwrap();
    assert_eq!(files(Path::new(&path)).len(), 1);
}

#[tokio::test]
async fn a_changed_directory_takes_the_committed_files_of_the_old_one_as_they_were() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("out");
    let old = backend(serde_json::json!({"directory": "old", "file": "{date}.ndjson"}), directory.path());
    old.open(None).await.unwrap();
    old.send(&batch(0..5)).await.unwrap();
    let mark = old.commit().await.unwrap();
    old.send(&batch(5..900)).await.unwrap();
    old.close().await;
    let new = backend(serde_json::json!({"directory": "new", "file": "{date}.ndjson"}), directory.path());
    new.open(mark).await.unwrap();
    new.send(&batch(5..900)).await.unwrap();
    let found = |part: &str| files(&out.join(part)).iter().flat_map(|path| read(path)).collect::<Vec<_>>();
    assert!(found("old") == lines(0..5) && found("new") == lines(5..900));
}

/// Runs as a user that may not mount: then the part on a full disk is in the scenarios that have a small one.
#[tokio::test]
async fn a_full_disk_is_a_local_fault_and_a_retry_does_not_double() {
    // The test runs itself once more as a child: a limit on the size of files holds for a whole process.
    if let Ok(directory) = std::env::var("SPILLWAY_TEST_DIRECTORY") {
        return write_beyond_a_limit(&directory).await;
    }
    let directory = tempfile::tempdir().unwrap();
    // No mount needed: a limit on the size of files fails the same write in the middle, with EFBIG instead of ENOSPC.
    // The signal that goes with it is ignored by a child, so the child does the work.
    let status = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "hostile_files::a_full_disk_is_a_local_fault_and_a_retry_does_not_double", "--nocapture"])
        .env("SPILLWAY_TEST_DIRECTORY", directory.path())
        .status()
        .unwrap();
    assert!(status.success());
}

async fn write_beyond_a_limit(directory: &str) {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let limit = |bytes| setrlimit(Resource::Fsize, Rlimit { current: Some(bytes), maximum: None }).unwrap();
    let signals = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::from_raw(25)).unwrap();
    for compression in ["None", "Gzip"] {
        let directory = Path::new(directory).join(compression);
        let settings = serde_json::json!({"file": "x.ndjson", "compression": compression});
        let backend = backend(settings, &directory);
        backend.open(None).await.unwrap();
        backend.send(&batch(0..50)).await.unwrap();
        backend.commit().await.unwrap();
        limit(6000);
        for _ in 0..3 {
            let fault = backend.send(&batch(50..50_000)).await.unwrap_err();
            assert_eq!(fault.kind, FaultKind::Local, "{fault}");
        }
        limit(1 << 30);
        backend.send(&batch(50..50_000)).await.unwrap();
        backend.commit().await.unwrap();
        let found: Vec<String> = files(&directory.join("out")).iter().flat_map(|path| read(path)).collect();
        assert!(found == lines(0..50_000));
    }
    drop(signals);
}
