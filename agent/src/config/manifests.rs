//! Manifests of files, read again and again, with a memory of what each file last said.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use spillway_crds::check::{of_file, unread};
use spillway_crds::load::{LoadError, Loaded, load};
use spillway_crds::served::Revoked;
use spillway_crds::{Compiled, Document, ManifestError, compile};
use xxhash_rust::xxh3::Xxh3;

/// The manifests of the paths that were named.
#[derive(Debug)]
pub struct Manifests {
    paths: Vec<PathBuf>,
    /// The last text of each file that could be read as objects.
    good: BTreeMap<Arc<str>, String>,
    /// Of everything that was read last.
    fingerprint: Option<u128>,
}

/// What a reading gave.
#[derive(Debug)]
pub enum Reading {
    /// The same as the reading before.
    Same,
    /// What the manifests say.
    Read(Arc<Read>),
    /// Nothing that could be believed: everything stays as it is.
    Unbelievable(Vec<ManifestError>),
}

/// What the manifests say.
#[derive(Debug, Default)]
pub struct Read {
    /// Plans and errors.
    pub compiled: Compiled,
    /// Files that could not be read as objects now; what came from them is no deletion.
    pub unread: BTreeSet<Arc<str>>,
    /// Files that count as they were: an older text of theirs is what was compiled.
    pub kept: BTreeSet<Arc<str>>,
    /// What pipelines may not deliver to any more, as an operator says.
    pub revoked: Vec<Revoked>,
}

impl Manifests {
    /// Returns the manifests of files and folders, not read yet.
    pub fn new(paths: Vec<PathBuf>) -> Self {
        Self { paths, good: BTreeMap::new(), fingerprint: None }
    }

    /// Returns the paths that were named.
    pub fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// Reads and compiles everything, whatever was there before. What cannot be read is among the errors.
    pub fn first(&mut self) -> Read {
        let loaded = load(&self.paths);
        self.fingerprint = Some(fingerprint(&loaded));
        self.compile(loaded)
    }

    /// Reads again; with `force` also what is the same.
    pub fn again(&mut self, force: bool) -> Reading {
        let loaded = load(&self.paths);
        let fingerprint = Some(fingerprint(&loaded));
        if !force && fingerprint == self.fingerprint {
            return Reading::Same;
        }
        self.fingerprint = fingerprint;
        let errors: Vec<ManifestError> =
            loaded.errors.iter().filter(|error| is_unbelievable(error, &self.paths)).map(unread).collect();
        if !errors.is_empty() {
            return Reading::Unbelievable(errors);
        }
        Reading::Read(Arc::new(self.compile(loaded)))
    }

    fn compile(&mut self, loaded: Loaded) -> Read {
        let mut errors: Vec<ManifestError> = loaded.errors.iter().map(unread).collect();
        let mut documents = loaded.documents;
        let unreadable: BTreeSet<Arc<str>> =
            loaded.errors.iter().filter(|error| !is_gone(error)).map(|error| name(path_of(error))).collect();
        let mut kept: BTreeSet<Arc<str>> =
            unreadable.iter().filter(|file| self.good.contains_key(*file)).cloned().collect();
        documents.extend(kept.iter().map(|file| Document::new(file, self.good[file].clone())));
        kept.extend(self.fill_in(&mut documents, &mut errors));
        let mut compiled = compile(&documents);
        let garbled: BTreeSet<Arc<str>> =
            compiled.errors.iter().filter(|e| is_of_the_file(e)).map(|e| e.file.clone()).collect();
        self.remember(&documents, &garbled, &unreadable);
        if documents.iter().any(|document| garbled.contains(&document.file) && self.good.contains_key(&document.file)) {
            let told: Vec<ManifestError> =
                compiled.errors.into_iter().filter(|error| self.is_replaced(error, &garbled)).collect();
            for document in documents.iter_mut().filter(|document| garbled.contains(&document.file)) {
                if let Some(good) = self.good.get(&document.file) {
                    kept.insert(document.file.clone());
                    *document = Document::new(&document.file, good.clone());
                }
            }
            compiled = compile(&documents);
            compiled.errors.retain(|error| !self.is_replaced(error, &garbled));
            compiled.errors.splice(0..0, told);
        }
        errors.append(&mut compiled.errors);
        compiled.errors = errors;
        Read { compiled, unread: garbled.union(&unreadable).cloned().collect(), kept, revoked: Vec::new() }
    }

    /// A file without a word that said something before is being written, or its disk is full: it counts as it was. Returns
    /// these files.
    fn fill_in(&self, documents: &mut [Document], errors: &mut Vec<ManifestError>) -> Vec<Arc<str>> {
        let mut filled = Vec::new();
        for document in documents.iter_mut().filter(|document| document.text.trim().is_empty()) {
            if let Some(good) = self.good.get(&document.file).filter(|good| !good.trim().is_empty()) {
                errors.push(of_file(
                    &document.file,
                    "empty, so it counts as it was; delete the file to remove its objects",
                ));
                *document = Document::new(&document.file, good.clone());
                filled.push(document.file.clone());
            }
        }
        filled
    }

    fn is_replaced(&self, error: &ManifestError, garbled: &BTreeSet<Arc<str>>) -> bool {
        garbled.contains(&error.file) && self.good.contains_key(&error.file)
    }

    /// Takes over what files say that could be read as objects, and forgets files that are gone.
    fn remember(&mut self, documents: &[Document], garbled: &BTreeSet<Arc<str>>, unreadable: &BTreeSet<Arc<str>>) {
        let there: BTreeSet<&Arc<str>> = documents.iter().map(|document| &document.file).collect();
        self.good.retain(|file, _| there.contains(file) || unreadable.contains(file));
        for document in documents.iter().filter(|document| !garbled.contains(&document.file)) {
            if self.good.get(&document.file) != Some(&document.text) {
                self.good.insert(document.file.clone(), document.text.clone());
            }
        }
    }
}

/// Whether an error is about a file and not about an object with a name.
pub(super) fn is_of_the_file(error: &ManifestError) -> bool {
    // `Backend default/archive`, `ClusterBackend archive`; `Backend` alone is one without a usable name.
    !error.object.contains(' ')
}

/// A path that was named and is not there, or a folder with nothing in it, is rather a mount that is away than a wish.
fn is_unbelievable(error: &LoadError, paths: &[PathBuf]) -> bool {
    match error {
        LoadError::NoManifest { .. } | LoadError::TooMany { .. } => true,
        LoadError::Read { path, .. } => paths.contains(path),
        LoadError::NotAFile { .. } | LoadError::TooLarge { .. } | LoadError::NotText { .. } => false,
    }
}

/// Whether a file went between the listing of its folder and its reading.
fn is_gone(error: &LoadError) -> bool {
    matches!(error, LoadError::Read { source, .. } if source.kind() == io::ErrorKind::NotFound)
}

fn path_of(error: &LoadError) -> &Path {
    match error {
        LoadError::Read { path, .. }
        | LoadError::NoManifest { path }
        | LoadError::NotAFile { path }
        | LoadError::TooLarge { path }
        | LoadError::NotText { path, .. }
        | LoadError::TooMany { path } => path,
    }
}

fn name(path: &Path) -> Arc<str> {
    path.to_string_lossy().into()
}

fn fingerprint(loaded: &Loaded) -> u128 {
    let mut hash = Xxh3::new();
    let mut add = |bytes: &[u8]| {
        hash.update(&(bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    for document in &loaded.documents {
        add(document.file.as_bytes());
        add(document.text.as_bytes());
    }
    loaded.errors.iter().for_each(|error| add(error.to_string().as_bytes()));
    hash.digest128()
}
