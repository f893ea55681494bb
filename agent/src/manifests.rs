//! What of the manifests is not run, by object.

use spillway_crds::ManifestError;

use crate::status::Excluded;

/// Returns what is not run, errors of one object together, in the order of the errors.
pub fn excluded(errors: &[ManifestError]) -> Vec<Excluded> {
    let mut excluded: Vec<Excluded> = Vec::new();
    for error in errors {
        let object = object_of(error);
        match excluded.iter_mut().find(|known| known.object == object) {
            Some(known) => known.errors.push(error.to_string()),
            None => excluded.push(Excluded { object, errors: vec![error.to_string()], kept: false }),
        }
    }
    excluded
}

/// Returns what an error is about: its object, or the file where it has none.
pub(crate) fn object_of(error: &ManifestError) -> String {
    if error.object.is_empty() { error.file.to_string() } else { error.object.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spillway_crds::check;

    #[test]
    fn what_has_no_object_is_called_by_its_file() {
        let excluded = excluded(&check::read(&["/nowhere/at/all".into()]).errors);
        assert_eq!(excluded[0].object, "/nowhere/at/all");
    }

    #[test]
    fn errors_of_one_object_stand_together() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.yaml");
        let bad =
            "apiVersion: spillway.dev/v1alpha1\nkind: Backend\nmetadata: {name: bad}\nspec: {type: Stdou, x: 1}\n";
        std::fs::write(&path, bad).unwrap();
        let excluded = excluded(&check::read(&[path]).errors);
        assert_eq!(excluded.len(), 1, "{excluded:?}");
        assert_eq!(excluded[0].object, "Backend default/bad");
        assert!(excluded[0].errors[0].contains("did you mean `Stdout`?"), "{excluded:?}");
    }
}
