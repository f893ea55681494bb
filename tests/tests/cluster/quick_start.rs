//! What README.md says of Kubernetes: `cargo xtask cluster test` ran its commands as they stand there.

use std::fs;
use std::path::{Path, PathBuf};

use spillway_tests::cluster::layout::NODES;
use spillway_tests::eventually;
use spillway_tests::helm::NAMESPACE;

use crate::release::Release;

#[test]
fn the_quick_start_keeps_container_logs_of_both_nodes_in_files() {
    let release = Release::take();
    release.kubectl(&["wait", "--for=condition=Ready", "monitoringpipeline/pods", "--timeout=90s"]);
    // Controllers, of which each node has one, write when they start.
    for node in &NODES {
        let out = node.var_lib().join("spillway/out").join(NAMESPACE);
        // The webhook writes as well, and may be first.
        let text = eventually("a line of the controller in a file", || {
            Some(text_of(&out)).filter(|text| text.contains(r#""container":"controller""#))
        });
        assert!(!text.contains(r#""container":"agent""#), "{text}");
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let inside = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    inside.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn text_of(folder: &Path) -> String {
    files(folder).iter().filter_map(|file| fs::read_to_string(file).ok()).collect()
}
