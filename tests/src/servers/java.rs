//! Where Java is: found by looking, never by a fixed path.

use std::fs;
use std::path::{Path, PathBuf};

use super::tools;

/// Returns the home of the oldest Java of at least `version`: `JAVA_HOME`, the folders of the system, the search path.
pub fn find(version: u32) -> Option<PathBuf> {
    let mut homes: Vec<PathBuf> = std::env::var_os("JAVA_HOME").map(PathBuf::from).into_iter().collect();
    homes.extend(fs::read_dir("/usr/lib/jvm").into_iter().flatten().flatten().map(|entry| entry.path()));
    let on_path = tools::find("java").and_then(|java| fs::canonicalize(java).ok());
    homes.extend(on_path.and_then(|java| java.ancestors().nth(2).map(Path::to_owned)));
    let usable = homes.into_iter().filter(|home| home.join("bin/java").is_file());
    let known = usable.filter_map(|home| Some((major(&fs::read_to_string(home.join("release")).ok()?)?, home)));
    known.filter(|(found, _)| *found >= version).min().map(|(_, home)| home)
}

/// Returns a Java of at least `version`, installing the system's when there is none.
pub fn ensure(version: u32) -> anyhow::Result<PathBuf> {
    if let Some(home) = find(version) {
        return Ok(home);
    }
    tools::apt_install(&["default-jdk-headless"])?;
    find(version).ok_or_else(|| anyhow::anyhow!("the system's Java is older than {version}"))
}

/// Returns the major version that a `release` file tells.
fn major(release: &str) -> Option<u32> {
    let line = release.lines().find_map(|line| line.strip_prefix("JAVA_VERSION=\""))?;
    line.split(['.', '"', '-', '+']).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_the_release_file() {
        for (release, version) in [
            ("IMPLEMENTOR=\"Debian\"\nJAVA_VERSION=\"17.0.15\"\n", Some(17)),
            ("JAVA_VERSION=\"25\"\nOS_ARCH=\"x86_64\"", Some(25)),
            ("JAVA_VERSION=\"26-ea\"", Some(26)),
            ("OS_NAME=\"Linux\"", None),
        ] {
            assert_eq!(major(release), version, "{release}");
        }
    }
}
