use super::*;
use crate::settings::ConfigFile;

fn settings(dir: &tempfile::TempDir) -> Settings {
    let flags =
        RunFlags { manifests: vec!["/".into()], data_dir: dir.path().to_str().map(Into::into), ..RunFlags::default() };
    Settings::settle(&flags, &FromEnvironment::default(), &ConfigFile::default(), &Machine::read()).unwrap()
}

#[tokio::test]
async fn a_panic_in_a_part_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let parts = open(&settings(&dir), &Clock::system()).unwrap();
    parts.admin.spawn("bad", async { panic!("on purpose") });
    parts.panicked().await;
}

#[tokio::test]
async fn parts_that_rest_drain_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let parts = open(&settings(&dir), &Clock::system()).unwrap();
    parts.overview.beat(&parts.admin);
    assert!(parts.drain(Duration::from_secs(25)).await);
    assert!(!parts.overview.not_ready().is_empty());
}

#[tokio::test]
async fn a_data_directory_takes_one_agent() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(&settings(&dir), &Clock::system()).unwrap();
    let Err(second) = open(&settings(&dir), &Clock::system()) else { panic!("two in one directory") };
    let text = second.to_string();
    assert!(
        text.starts_with("error[data-dir]: data directory ") && text.contains("in use by another process"),
        "{text}"
    );
    assert!(text.ends_with("with --data-dir"), "{text}");
    drop(first);
}
