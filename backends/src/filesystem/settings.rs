//! Settings of the `Filesystem` backend.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::path::{GRAMMAR, PathTemplate, is_plain_component};
use crate::settings::{Compression, Problem, Settings};

/// Most bytes of `directory`.
const DIRECTORY_BYTES_MAX: usize = 512;

/// Writes events as NDJSON files below a directory, each event exactly once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FilesystemSettings {
    /// Directory below the agent's filesystem root; the root itself when absent. An absolute path is taken in a
    /// standalone run only.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 512),
        regex(pattern = r"^/?[A-Za-z0-9_@+=:,~-][A-Za-z0-9._@+=:,~-]*(/[A-Za-z0-9_@+=:,~-][A-Za-z0-9._@+=:,~-]*)*$")
    )]
    pub directory: Option<String>,
    /// Template of the file below the directory: literals, `{date}` and `{hour}` of receipt in UTC, `{namespace}`,
    /// `{pipeline}`, `{route}`, and `{origin.…}` behind a prefix of the others. The written file also carries the
    /// delivery, the agent and a number before its extension.
    #[serde(default = "default_file")]
    #[schemars(length(min = 1, max = 512))]
    pub file: String,
    /// When a file is closed and the next one begun.
    #[serde(default)]
    pub rotate: RotateSettings,
    /// How files are compressed; `Gzip` adds `.gz` to their names, `Zstd` adds `.zst`.
    #[serde(default)]
    pub compression: Compression,
}

/// When a file is closed and the next one begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RotateSettings {
    /// Size in bytes at which the next file is begun; a file is only larger when one write is.
    #[serde(default = "default_max_bytes")]
    #[schemars(range(min = 4096, max = 1_099_511_627_776_u64))]
    pub max_bytes: u64,
    /// Length in seconds of the windows that have files of their own, by the time of receipt (windows begin at multiples of
    /// it since 1970, UTC); an event that comes late for a window begins another file of it. None when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 60, max = 31_622_400))]
    pub every_seconds: Option<u32>,
    /// How many closed files of this delivery are kept, the oldest go first; all when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub keep: Option<u32>,
}

fn default_file() -> String {
    "{namespace}/{pipeline}/{route}/{date}.ndjson".into()
}

fn default_max_bytes() -> u64 {
    256 << 20
}

impl Default for RotateSettings {
    fn default() -> Self {
        Self { max_bytes: default_max_bytes(), every_seconds: None, keep: None }
    }
}

impl Default for FilesystemSettings {
    fn default() -> Self {
        Self {
            directory: None,
            file: default_file(),
            rotate: RotateSettings::default(),
            compression: Compression::default(),
        }
    }
}

impl FilesystemSettings {
    /// Returns whether `directory` is absolute, which only a standalone run takes.
    pub fn is_absolute(&self) -> bool {
        self.directory.as_ref().is_some_and(|directory| directory.starts_with('/'))
    }
}

impl Settings for FilesystemSettings {
    fn type_name(&self) -> &'static str {
        "Filesystem"
    }

    fn member_name(&self) -> &'static str {
        "filesystem"
    }

    fn validate(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if let Some(directory) = &self.directory {
            let parts = directory.strip_prefix('/').unwrap_or(directory);
            if directory.len() > DIRECTORY_BYTES_MAX || !parts.split('/').all(is_plain_component) {
                problems.push(Problem::new(
                    "directory",
                    format!("{directory:?} is not a plain path"),
                    "components of letters, digits and ._@+=:,~- that do not begin with '.', joined by '/'",
                ));
            }
        }
        if let Err(error) = PathTemplate::parse(&self.file) {
            problems.push(Problem::new("file", error.to_string(), error.allowed(&GRAMMAR)));
        }
        if !(4096..=1 << 40).contains(&self.rotate.max_bytes) {
            let message = format!("is {}", self.rotate.max_bytes);
            problems.push(Problem::new("rotate.maxBytes", message, "4096 to 1099511627776"));
        }
        if self.rotate.every_seconds.is_some_and(|every| !(60..=31_622_400).contains(&every)) {
            problems.push(Problem::new("rotate.everySeconds", "is out of bounds", "60 to 31622400, or absent"));
        }
        if self.rotate.keep == Some(0) {
            problems.push(Problem::new("rotate.keep", "is 0", "1 to 100000, or absent to keep all"));
        }
        problems
    }

    #[cfg(feature = "client")]
    fn build(
        &self,
        context: crate::BuildContext,
    ) -> Result<std::sync::Arc<dyn spillway_delivery::backend::Backend>, crate::BuildError> {
        Ok(std::sync::Arc::new(super::Files::try_new(self, context)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_need_be_set() {
        let settings: FilesystemSettings = serde_json::from_str("{}").unwrap();
        assert_eq!(settings, FilesystemSettings::default());
        assert_eq!(settings.rotate.max_bytes, 268_435_456);
        assert_eq!(settings.validate(), []);
    }

    #[test]
    fn directories_that_climb_or_hide_are_refused() {
        for (directory, fine) in [
            ("team-a", true),
            ("team-a/x.y", true),
            ("/srv/out", true),
            ("..", false),
            ("a/../b", false),
            ("a//b", false),
            ("a/", false),
            ("", false),
            ("/", false),
            (".hidden", false),
            ("a\0b", false),
            ("a\nb", false),
            ("%2e%2e", false),
        ] {
            let settings = FilesystemSettings { directory: Some(directory.into()), ..FilesystemSettings::default() };
            assert_eq!(settings.validate().is_empty(), fine, "{directory:?}");
        }
    }

    #[test]
    fn the_schema_says_what_the_defaults_are() {
        let schema = serde_json::to_value(schemars::schema_for!(FilesystemSettings)).unwrap();
        assert_eq!(schema["properties"]["file"]["default"], "{namespace}/{pipeline}/{route}/{date}.ndjson");
        assert_eq!(schema["properties"]["rotate"]["default"]["maxBytes"], 268_435_456);
        assert_eq!(schema["properties"]["directory"]["maxLength"], 512);
    }
}
