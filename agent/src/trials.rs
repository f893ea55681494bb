//! `test`: tests of pipelines, read from files and tried on the manifests that these name.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use spillway_crds::load::load;
use spillway_crds::{ManifestError, check, trials};

use crate::cli::{Output, TestFlags};
use crate::exit::{self, Failure};

/// Prints what came of every test, and returns 1 when one failed or could not be tried.
pub fn run(flags: &TestFlags) -> Result<ExitCode, Failure> {
    let (mut outcomes, mut errors) = (Vec::new(), Vec::new());
    for path in &flags.files {
        outcomes.extend(tried(path, &flags.manifests, &mut errors));
    }
    let text = match flags.output {
        Output::Human => trials::human(&outcomes, &errors),
        Output::Json => trials::json(&outcomes, &errors),
    };
    exit::to_stdout(&text)?;
    let passed = errors.is_empty() && outcomes.iter().all(|outcome| outcome.failures.is_empty());
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::from(exit::FAILED) })
}

/// Tries the tests of one file. What is wrong with the file, or with the manifests that it names, is an error.
fn tried(path: &Path, others: &[PathBuf], errors: &mut Vec<ManifestError>) -> Vec<trials::Outcome> {
    let loaded = load(&[path.to_owned()]);
    errors.extend(loaded.errors.iter().map(check::unread));
    let mut outcomes = Vec::new();
    for document in &loaded.documents {
        let file = match trials::read(document) {
            Ok(file) => file,
            Err(wrong) => {
                errors.extend(wrong);
                continue;
            }
        };
        let beside = Path::new(&*document.file).parent().unwrap_or(Path::new(""));
        let named = file.manifests.iter().map(|manifest| beside.join(manifest));
        let manifests: Vec<PathBuf> = named.chain(others.iter().cloned()).collect();
        if manifests.is_empty() {
            errors.push(check::of_file(&path.to_string_lossy(), "no manifests: name them in `manifests`, or with -f"));
            continue;
        }
        let compiled = check::read(&manifests);
        errors.extend(compiled.errors.iter().filter(|error| !errors.contains(error)).cloned().collect::<Vec<_>>());
        outcomes.extend(trials::run(&file, &compiled, errors));
    }
    outcomes
}
