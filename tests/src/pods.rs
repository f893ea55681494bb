//! Container logs as a kubelet and a container runtime write them.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

/// The log of one container.
#[derive(Debug)]
pub struct ContainerLog {
    folder: PathBuf,
    file: File,
    written: u64,
    rotations: u32,
}

impl ContainerLog {
    /// Makes the log of a container below `root`, in the kubelet's layout.
    pub fn create(root: &Path, pod: &str, container: &str) -> Self {
        Self::create_in(root, "default", pod, container)
    }

    /// The same for a pod of another namespace.
    pub fn create_in(root: &Path, namespace: &str, pod: &str, container: &str) -> Self {
        let folder = root.join(format!("{namespace}_{pod}_00000000-0000-4000-8000-{:012x}", fnv(pod))).join(container);
        fs::create_dir_all(&folder).expect("the pod's folder");
        let file = open(&folder.join("0.log"));
        Self { folder, file, written: 0, rotations: 0 }
    }

    /// Writes one line in the CRI format.
    pub fn line(&mut self, text: &str) {
        self.raw(&format!("2026-11-23T10:00:00.{:09}Z stdout F {text}\n", self.written));
    }

    /// Writes one line in so many parts.
    pub fn partial_line(&mut self, parts: &[&str]) {
        let (last, first) = parts.split_last().expect("a part");
        for part in first {
            self.raw(&format!("2026-11-23T10:00:00.{:09}Z stdout P {part}\n", self.written));
        }
        self.line(last);
    }

    /// Writes bytes as they are.
    pub fn raw(&mut self, text: &str) {
        self.file.write_all(text.as_bytes()).expect("the log is written");
        self.written += 1;
    }

    /// Rotates by rename, as the kubelet does: the old file keeps its content, a new one begins.
    pub fn rotate(&mut self) -> PathBuf {
        self.rotations += 1;
        let rotated = self.folder.join(format!("0.log.20261123-{:06}", self.rotations));
        fs::rename(self.folder.join("0.log"), &rotated).expect("the rotation");
        self.file = open(&self.folder.join("0.log"));
        rotated
    }

    /// Compresses a rotated file, as the kubelet does with all but the newest.
    pub fn compress(rotated: &Path) {
        let bytes = fs::read(rotated).expect("the rotated file");
        let target = PathBuf::from(format!("{}.gz", rotated.display()));
        let draft = PathBuf::from(format!("{}.tmp", rotated.display()));
        let mut encoder =
            flate2::write::GzEncoder::new(File::create(&draft).expect("a file"), flate2::Compression::fast());
        encoder.write_all(&bytes).expect("compressed");
        encoder.finish().expect("compressed");
        fs::rename(draft, target).expect("the compressed file");
        fs::remove_file(rotated).expect("the plain file goes");
    }

    /// Removes the pod's folder while the log may still be read, as the kubelet does at the pod's end.
    pub fn remove(self) {
        let pod = self.folder.parent().expect("the pod's folder").to_owned();
        fs::remove_dir_all(pod).expect("the folder goes");
    }
}

fn open(path: &Path) -> File {
    OpenOptions::new().create(true).append(true).open(path).expect("the log opens")
}

fn fnv(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)) >> 16
}
