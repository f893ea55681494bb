//! The kubelet's names: what a directory and a file under `/var/log/pods` say about themselves.

use std::sync::Arc;

use crate::sources::tail::order::{Age, FileKey, FileName, SUFFIX_BYTES_MAX};

/// What the kubelet's directory name says about a pod; nothing in a log line can change it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PodFacts {
    /// The pod's namespace.
    pub namespace: Arc<str>,
    /// The pod's name.
    pub pod: Arc<str>,
    /// The pod's UID; of a static pod the hash of its manifest.
    pub uid: Arc<str>,
}

impl PodFacts {
    /// Reads `<namespace>_<pod>_<uid>`; none of the three may hold an underscore, be empty or be hidden.
    pub fn from_directory(name: &str) -> Option<Self> {
        let mut parts = name.split('_');
        let (namespace, pod, uid) = (parts.next()?, parts.next()?, parts.next()?);
        let fits = |part: &str| !part.is_empty() && !part.starts_with('.');
        (parts.next().is_none() && fits(namespace) && fits(pod) && fits(uid)).then(|| Self {
            namespace: namespace.into(),
            pod: pod.into(),
            uid: uid.into(),
        })
    }
}

/// Reads `<n>.log`, `<n>.log.<stamp>` or `<n>.log.<stamp>.gz`. Others (`.tmp` while the kubelet compresses) are nobody's.
pub(super) fn file_name(name: &str) -> Option<FileName> {
    let (restart, rest) = name.split_once(".log")?;
    if !restart.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let restart = restart.parse().ok()?;
    if rest.is_empty() {
        return Some(FileName { key: FileKey { restart, age: Age::Live }, gzip: false });
    }
    let stamp = rest.strip_prefix('.')?;
    let (stamp, gzip) = match stamp.strip_suffix(".gz") {
        Some(stamp) => (stamp, true),
        None => (stamp, false),
    };
    let is_stamp = stamp.len() <= SUFFIX_BYTES_MAX
        && stamp.starts_with(|first: char| first.is_ascii_digit())
        && stamp.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'-' | b'.'));
    is_stamp.then(|| FileName { key: FileKey { restart, age: Age::Rotated(stamp.into()) }, gzip })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_directory_names_namespace_pod_and_uid() {
        let facts = PodFacts::from_directory("fab12_etch-0_6b1c").unwrap();
        assert_eq!((&*facts.namespace, &*facts.pod, &*facts.uid), ("fab12", "etch-0", "6b1c"));
        for odd in ["", "a_b", "a_b_c_d", "a__c", "_b_c", "..", "a_b_.", "lost+found"] {
            assert_eq!(PodFacts::from_directory(odd), None, "{odd}");
        }
    }

    #[test]
    fn files_sort_as_they_were_written() {
        let names = ["0.log.20260101-010101", "0.log.20260101-010102.gz", "0.log", "1.log.20250101-000000", "1.log"];
        let keys: Vec<_> = names.iter().map(|name| file_name(name).unwrap().key).collect();
        assert!(keys.is_sorted());
        assert!(keys.iter().map(FileKey::floor).is_sorted());
        assert!(file_name("10.log").unwrap().key > file_name("9.log").unwrap().key);
    }

    #[test]
    fn other_files_are_nobodys() {
        for odd in
            ["a.log", "0.log.20260101-010101.tmp", ".log", "0.log.gz", "0.txt", "+1.log", "0.log20260101", "0.log."]
        {
            assert_eq!(file_name(odd), None, "{odd}");
        }
    }
}
