//! Files and folders into documents, as `kubectl -f` takes them: a folder gives its `*.yaml`, `*.yml` and `*.json`, by
//! name, not those of folders inside it.
//!
//! What cannot be read is told and the rest is there. A file larger than [`TEXT_BYTES_MAX`] is never read whole.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::manifest::{Document, TEXT_BYTES_MAX};

/// Most files of one call; a folder of manifests has tens.
pub const FILES_MAX: usize = 4096;

/// What could be read and what could not.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The documents, in the order of the paths, those of a folder by name.
    pub documents: Vec<Document>,
    /// What could not be read.
    pub errors: Vec<LoadError>,
}

/// Why a path gave no documents.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file or folder could not be opened or read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The folder holds no manifest.
    #[error("no *.yaml, *.yml or *.json file in {}", path.display())]
    NoManifest {
        /// The folder.
        path: PathBuf,
    },
    /// A folder lists something that is no file: a pipe would be waited for without an end.
    #[error("{} is not a regular file", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// The file is too large.
    #[error("{} has more than {TEXT_BYTES_MAX} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The file is not text.
    #[error("{}:{line}:{column}: not UTF-8", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
        /// Line of the first wrong byte, from 1.
        line: usize,
        /// Column of the first wrong byte in characters, from 1.
        column: usize,
    },
    /// There are too many files.
    #[error("more than {FILES_MAX} files, the first left out is {}", path.display())]
    TooMany {
        /// The first file left out.
        path: PathBuf,
    },
}

/// Reads the documents of files and folders.
pub fn load(paths: &[PathBuf]) -> Loaded {
    let mut loaded = Loaded::default();
    for path in paths {
        let files = match files(path) {
            Ok(files) => files,
            Err(error) => {
                loaded.errors.push(error);
                continue;
            }
        };
        let is_folder = path.is_dir();
        for file in files {
            if loaded.documents.len() >= FILES_MAX {
                loaded.errors.push(LoadError::TooMany { path: file });
                return loaded;
            }
            if is_folder && fs::metadata(&file).is_ok_and(|metadata| !metadata.is_file()) {
                loaded.errors.push(LoadError::NotAFile { path: file });
                continue;
            }
            match document(&file) {
                Ok(document) => loaded.documents.push(document),
                Err(error) => loaded.errors.push(error),
            }
        }
    }
    loaded
}

/// Returns the files that a path stands for.
fn files(path: &Path) -> Result<Vec<PathBuf>, LoadError> {
    let read = |source| LoadError::Read { path: path.to_owned(), source };
    if !fs::metadata(path).map_err(read)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(read)? {
        let file = entry.map_err(read)?.path();
        // A link to a folder is a folder: `kubectl` skips it, too.
        if is_manifest(&file) && !file.is_dir() {
            files.push(file);
        }
    }
    if files.is_empty() {
        return Err(LoadError::NoManifest { path: path.to_owned() });
    }
    files.sort();
    Ok(files)
}

fn is_manifest(path: &Path) -> bool {
    path.extension().is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|known| extension == *known))
}

fn document(path: &Path) -> Result<Document, LoadError> {
    let read = |source| LoadError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let limit = TEXT_BYTES_MAX as u64 + 1;
    File::open(path).map_err(read)?.take(limit).read_to_end(&mut bytes).map_err(read)?;
    if bytes.len() > TEXT_BYTES_MAX {
        return Err(LoadError::TooLarge { path: path.to_owned() });
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let good = String::from_utf8_lossy(&error.as_bytes()[..error.utf8_error().valid_up_to()]).into_owned();
        let line = good.matches('\n').count() + 1;
        let column = good.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        LoadError::NotText { path: path.to_owned(), line, column }
    })?;
    Ok(Document::new(&path.to_string_lossy(), text))
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;
    use std::fs;

    use super::*;

    fn names(loaded: &Loaded) -> Vec<String> {
        let name = |document: &Document| document.file.rsplit('/').next().unwrap_or_default().to_owned();
        loaded.documents.iter().map(name).collect()
    }

    #[test]
    fn a_folder_gives_its_manifests_by_name_and_nothing_deeper() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.yml", "a.yaml", "c.json", "README.md", ".hidden.yaml.swp"] {
            fs::write(folder.path().join(name), name).unwrap();
        }
        fs::create_dir(folder.path().join("deeper.yaml")).unwrap();
        fs::write(folder.path().join("deeper.yaml/d.yaml"), "").unwrap();
        let loaded = load(&[folder.path().to_owned()]);
        assert_eq!(names(&loaded), ["a.yaml", "b.yml", "c.json"]);
        assert!(loaded.errors.is_empty());
        assert_eq!(loaded.documents[0].text, "a.yaml");
    }

    #[test]
    fn what_a_folder_lists_and_is_no_file_is_told_and_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("good.yaml"), "a: 1").unwrap();
        // A socket refuses to be opened; a pipe, of the same kind here, would wait for a writer.
        let _socket = std::os::unix::net::UnixListener::bind(folder.path().join("x.yaml")).unwrap();
        let loaded = load(&[folder.path().to_owned()]);
        assert_eq!(names(&loaded), ["good.yaml"]);
        let told: Vec<String> = loaded.errors.iter().map(ToString::to_string).collect();
        assert_eq!(told, [format!("{} is not a regular file", folder.path().join("x.yaml").display())]);
    }

    #[test]
    fn a_file_is_taken_whatever_its_name_is() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("pipeline.txt"), "x").unwrap();
        assert_eq!(names(&load(&[folder.path().join("pipeline.txt")])), ["pipeline.txt"]);
    }

    #[test]
    fn what_cannot_be_read_is_told_and_the_rest_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("good.yaml"), "a: 1").unwrap();
        fs::write(path("latin.yaml"), b"a: 1\nb: \xc3\xa4\xe4").unwrap();
        fs::write(path("large.yaml"), vec![b' '; TEXT_BYTES_MAX + 1]).unwrap();
        fs::create_dir(path("empty")).unwrap();
        let loaded =
            load(&[path("absent.yaml"), path("latin.yaml"), path("large.yaml"), path("empty"), path("good.yaml")]);
        assert_eq!(names(&loaded), ["good.yaml"]);
        let told: Vec<String> = loaded.errors.iter().map(ToString::to_string).collect();
        let at = |name: &str| path(name).display().to_string();
        assert_eq!(told[0], format!("cannot read {}", at("absent.yaml")));
        assert!(loaded.errors[0].source().is_some());
        assert_eq!(told[1], format!("{}:2:5: not UTF-8", at("latin.yaml")));
        assert_eq!(told[2], format!("{} has more than 3145728 bytes", at("large.yaml")));
        assert_eq!(told[3], format!("no *.yaml, *.yml or *.json file in {}", at("empty")));
    }
}
