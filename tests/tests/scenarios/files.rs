//! Plain files followed by an agent: no line lost or repeated over rotation, restart and SIGKILL.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use spillway_tests::agent::Place;
use spillway_tests::manifests::to_archive;
use spillway_tests::{Random, output};

/// A manifest that keeps the lines of the files that a pattern means.
fn manifests(pattern: &Path) -> String {
    to_archive(&[&format!("{{name: tool, type: Files, files: {{include: [\"{}\"]}}}}", pattern.display())])
}

/// What a tool writes, and how its files are rotated.
struct Tool {
    folder: PathBuf,
    file: File,
    lines: u64,
    dated: u64,
    rotated: u64,
}

impl Tool {
    fn start(folder: PathBuf) -> Self {
        fs::create_dir_all(&folder).unwrap();
        let file = open(&folder);
        Self { folder, file, lines: 0, dated: 0, rotated: 0 }
    }

    fn line(&mut self) {
        writeln!(self.file, "line {} of the tool", self.lines).unwrap();
        self.lines += 1;
    }

    /// Renames as `logrotate` does, and writes one more line before the file is opened anew.
    fn rotate(&mut self) {
        for number in (1..=self.rotated).rev() {
            let name = |number| self.folder.join(format!("tool.log.{number}"));
            fs::rename(name(number), name(number + 1)).unwrap();
        }
        self.rotated += 1;
        fs::rename(self.folder.join("tool.log"), self.folder.join("tool.log.1")).unwrap();
        self.line();
        self.file = open(&self.folder);
    }

    /// Renames to a name that is wanted, too.
    fn rotate_dated(&mut self) {
        self.dated += 1;
        let dated = self.folder.join(format!("tool-{:04}.log", self.dated));
        fs::rename(self.folder.join("tool.log"), dated).unwrap();
        self.file = open(&self.folder);
    }
}

fn open(folder: &Path) -> File {
    OpenOptions::new().create(true).append(true).open(folder.join("tool.log")).unwrap()
}

#[test]
fn twenty_kills_and_rotations_lose_and_double_no_line_of_files() {
    let mut random = Random(7);
    let place = Place::new("");
    let folder = place.path("tool");
    place.write_manifests(&manifests(&folder.join("*.log")));
    let mut tool = Tool::start(folder);
    for round in 0..20 {
        let mut agent = place.start();
        if round == 0 {
            tool.line();
            agent.wait_until_delivered(1);
        }
        for _ in 0..5 + random.below(20) {
            for _ in 0..random.below(200) {
                tool.line();
            }
            match random.below(8) {
                0 => tool.rotate(),
                1 => tool.rotate_dated(),
                _ => {}
            }
            agent.moment(Duration::from_millis(1 + random.below(10)));
        }
        agent.kill();
        // While it is away: lines, and often more than one rotation.
        for _ in 0..random.below(4) {
            for _ in 0..random.below(50) {
                tool.line();
            }
            tool.rotate();
        }
    }
    let mut agent = place.start();
    agent.wait_until_delivered(tool.lines);
    let status = agent.status();
    let source = status["sources"].as_array().unwrap().iter().find(|source| source["name"] == "files").unwrap();
    assert_eq!(source["counts"]["missed bytes"], 0, "{source}");
    assert!(agent.metrics().contains("spillway_file_followed "), "{}", agent.metrics());
    agent.stop();
    let written: Vec<String> = (0..tool.lines).map(|line| format!("line {line} of the tool")).collect();
    let lines = output::lines_below(&place.path("out"));
    output::assert_exactly_once(&lines, "message", &written, &written);
    println!("{} lines, {} + {} rotations, each line once, over 20 kills", tool.lines, tool.rotated, tool.dated);
}

#[test]
fn kills_and_rotations_neither_divide_nor_double_what_lines_are_joined_to() {
    const JOINED: &str =
        "  transforms:\n  - {name: entries, type: Multiline, multiline: {startPattern: \"^entry \"}}\n  routes:";
    let mut random = Random(11);
    let place = Place::new("");
    let folder = place.path("tool");
    place.write_manifests(&manifests(&folder.join("*.log")).replace("  routes:", JOINED));
    let mut tool = Tool::start(folder);
    let mut entries: Vec<String> = Vec::new();
    for _ in 0..10 {
        let mut agent = place.start();
        for _ in 0..10 + random.below(10) {
            for _ in 0..random.below(40) {
                let number = entries.len();
                let more = (0..random.below(5)).map(|line| format!("\n  line {line} of entry {number}"));
                let entry = format!("entry {number} of the tool") + &more.collect::<String>();
                // Whole, as one write: what is written slower than the wait is another event, and rightly so.
                writeln!(tool.file, "{entry}").unwrap();
                entries.push(entry);
            }
            if random.below(6) == 0 {
                tool.rotate_dated();
            }
            agent.moment(Duration::from_millis(1 + random.below(10)));
        }
        agent.kill();
    }
    let mut agent = place.start();
    agent.wait_until_delivered(entries.len() as u64);
    agent.stop();
    let lines = output::lines_below(&place.path("out"));
    output::assert_exactly_once(&lines, "message", &entries, &entries);
    println!("{} entries, {} rotations, each entry whole and once, over 10 kills", entries.len(), tool.dated);
}

#[test]
fn a_large_file_that_appears_at_once_is_read_with_bounded_memory() {
    let place = Place::new("");
    let folder = place.path("tool");
    fs::create_dir_all(&folder).unwrap();
    place.write_manifests(&manifests(&folder.join("*.log")));
    let mut agent = place.start();
    let peak = agent.begin_peak();
    // Written where nobody looks, so that all of it is there at once.
    let draft = place.path("draft");
    let mut file = std::io::BufWriter::new(File::create(&draft).unwrap());
    let lines = 2_000_000_u64;
    for line in 0..lines {
        writeln!(
            file,
            "line {line} of a tool that has been writing for a long time, about a hundred bytes each, as they are"
        )
        .unwrap();
    }
    file.into_inner().unwrap();
    let bytes = fs::metadata(&draft).unwrap().len();
    fs::rename(&draft, folder.join("tool.log")).unwrap();
    agent.wait_until_delivered(lines);
    let grown = peak.grown_bytes();
    println!("{} MB in {lines} lines, memory grew by {} MB at most", bytes >> 20, grown >> 20);
    assert!(grown < 64 << 20, "{grown}");
    agent.stop();
}
