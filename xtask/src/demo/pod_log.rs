//! The log of one container as a kubelet lays it out and a container runtime writes it, rotated once while it grows.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::stopwatch::rfc3339_now;

const POD: &str = "default_etch-controller-7c9d5_0b9c2f6e-5d3a-4c55-9d0e-6f1b2a3c4d5e";
const CONTAINER: &str = "controller";
/// Lines of one tick.
const LINES: u64 = 4;
/// Every so many lines one is an error.
const ERROR_EVERY: u64 = 25;
/// Every so many lines one is so long that the runtime writes it in two parts.
const SPLIT_EVERY: u64 = 40;
/// Numbers of lines begin here, so that they are never those of job events.
const FIRST_NUMBER: u64 = 1_000_001;

/// One line as it should arrive.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) number: u64,
    pub(super) is_error: bool,
}

/// The growing log.
#[derive(Debug)]
pub(super) struct PodLog {
    path: PathBuf,
    file: File,
    written: u64,
    rotated: bool,
}

impl PodLog {
    /// Creates the folder of the pod and the first, empty file.
    pub(super) fn create(pods: &Path) -> anyhow::Result<Self> {
        let folder = pods.join(POD).join(CONTAINER);
        fs::create_dir_all(&folder).context("creating the pod's folder")?;
        let path = folder.join("0.log");
        Ok(Self { file: open(&path)?, path, written: 0, rotated: false })
    }

    /// Writes the next lines and returns them.
    pub(super) fn append(&mut self) -> anyhow::Result<Vec<Line>> {
        let mut text = String::new();
        let mut lines = Vec::new();
        for _ in 0..LINES {
            let line = Line { number: FIRST_NUMBER + self.written, is_error: self.written % ERROR_EVERY == 7 };
            text.push_str(&runtime_line(&line, self.written % SPLIT_EVERY == 3));
            self.written += 1;
            lines.push(line);
        }
        self.file.write_all(text.as_bytes()).context("writing the container's log")?;
        Ok(lines)
    }

    /// Renames the file and begins a new one, as a kubelet does; once.
    pub(super) fn rotate_once(&mut self) -> anyhow::Result<()> {
        if self.rotated {
            return Ok(());
        }
        let stamp: String = rfc3339_now().chars().take(19).filter(char::is_ascii_digit).collect();
        let (date, time) = stamp.split_at(8);
        fs::rename(&self.path, self.path.with_extension(format!("log.{date}-{time}"))).context("rotating the log")?;
        self.file = open(&self.path)?;
        self.rotated = true;
        println!("      (the container's log was rotated)");
        Ok(())
    }
}

fn open(path: &Path) -> anyhow::Result<File> {
    OpenOptions::new().create(true).append(true).open(path).with_context(|| format!("opening {}", path.display()))
}

/// Returns the line as the runtime writes it: time, stream, whole (`F`) or part (`P`), text.
fn runtime_line(line: &Line, split: bool) -> String {
    let now = rfc3339_now();
    let level = if line.is_error { "ERROR" } else { "INFO" };
    let text = format!("{level} number={} chamber pressure 12.4 mTorr", line.number);
    if split {
        let (head, tail) = text.split_at(text.len() / 2);
        return format!("{now} stdout P {head}\n{now} stdout F {tail}\n");
    }
    format!("{now} stdout F {text}\n")
}
