//! Patterns of paths, as an input of type `Files` names what it reads. Pure.
//!
//! A pattern is absolute. `*` stands for any characters of one name, `?` for one, `**` as a whole name for any number of
//! directories, none included. A name that begins with a dot is meant only by a name of the pattern that begins with one, and
//! `**` goes into no such directory. Everything else stands for itself; there is no way to write a `*` or a `?` that does.
//!
//! Limits: [`PATTERN_BYTES_MAX`], [`NAMES_MAX`] names. A name is compared in at most its length times that of its pattern steps.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Most bytes of a pattern.
pub const PATTERN_BYTES_MAX: usize = 1_024;

/// Most names of a pattern.
pub const NAMES_MAX: usize = 32;

/// A pattern that is well formed.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PathPattern {
    text: String,
    root: PathBuf,
    names: Vec<Name>,
}

/// One name of a pattern, below its root.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Name {
    /// Exactly this one.
    Literal(String),
    /// With `*` and `?`.
    Wild(String),
    /// `**`: any number of directories.
    Directories,
}

impl PathPattern {
    /// Reads a pattern; the error says what is wrong with it, and what is allowed.
    pub fn parse(text: &str) -> Result<Self, (&'static str, &'static str)> {
        const FORM: &str = "an absolute path like `/var/log/tool/*.log`";
        let Some(rest) = text.strip_prefix('/') else {
            return Err(("a pattern of files is not absolute", FORM));
        };
        if text.len() > PATTERN_BYTES_MAX || text.chars().any(char::is_control) {
            return Err(("a pattern of files is too long or has control characters", "at most 1024 bytes of text"));
        }
        let names: Vec<&str> = rest.split('/').collect();
        if names.len() > NAMES_MAX {
            return Err(("a pattern of files has too many names", "at most 32 names"));
        }
        if names.iter().any(|name| matches!(*name, "" | "." | "..")) {
            return Err(("a pattern of files has an empty name, `.` or `..`", FORM));
        }
        if names.iter().any(|name| name.contains("**") && *name != "**") {
            return Err(("`**` is part of a name", "`**` as a whole name, or `*` within one"));
        }
        if names.last() == Some(&"**") {
            return Err(("a pattern of files ends with `**`", "a name after it, such as `**/*.log`"));
        }
        let is_wild = |name: &&str| name.contains(['*', '?']);
        let literal = names.iter().position(is_wild).unwrap_or(names.len()).min(names.len() - 1);
        let mut root = PathBuf::from("/");
        root.extend(&names[..literal]);
        let names = names[literal..].iter().map(|name| Name::of(name)).collect();
        Ok(Self { text: text.to_owned(), root, names })
    }

    /// Returns it as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns the directory that everything it means is below; it holds neither `*` nor `?`.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns its names below the root, at least one.
    pub fn names(&self) -> &[Name] {
        &self.names
    }

    /// Returns whether it means `path`.
    pub fn matches(&self, path: &Path) -> bool {
        let Ok(below) = path.strip_prefix(&self.root) else { return false };
        let mut at = self.closure(vec![0]);
        let mut names = below.iter().peekable();
        while let Some(name) = names.next() {
            let is_last = names.peek().is_none();
            if is_last {
                return at.iter().any(|at| self.ends_with(*at, name));
            }
            at = self.enter(&at, name);
        }
        false
    }

    /// Returns where a walk begins that looks for what it means: in its root.
    pub fn begin(&self) -> Vec<usize> {
        self.closure(vec![0])
    }

    /// Returns where a walk is in the directory `name` that was at `at`; empty when nothing it means can be there.
    pub fn enter(&self, at: &[usize], name: &OsStr) -> Vec<usize> {
        let mut next = Vec::new();
        for at in at.iter().copied().filter(|at| self.names.get(*at).is_some_and(|one| one.is(name))) {
            next.push(if self.names[at] == Name::Directories { at } else { at + 1 });
        }
        next.retain(|at| *at < self.names.len());
        self.closure(next)
    }

    /// Returns whether it means the file `name` in a directory where a walk is at `at`.
    pub fn ends(&self, at: &[usize], name: &OsStr) -> bool {
        at.iter().any(|at| self.ends_with(*at, name))
    }

    fn ends_with(&self, at: usize, name: &OsStr) -> bool {
        at + 1 == self.names.len() && self.names[at].is(name)
    }

    /// `**` may stand for no directory at all.
    fn closure(&self, mut at: Vec<usize>) -> Vec<usize> {
        let mut index = 0;
        while let Some(one) = at.get(index).copied() {
            if self.names.get(one) == Some(&Name::Directories) && !at.contains(&(one + 1)) {
                at.push(one + 1);
            }
            index += 1;
        }
        at
    }
}

impl fmt::Debug for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PathPattern").field(&self.text).finish()
    }
}

impl Name {
    fn of(name: &str) -> Self {
        match name {
            "**" => Self::Directories,
            name if name.contains(['*', '?']) => Self::Wild(name.to_owned()),
            name => Self::Literal(name.to_owned()),
        }
    }

    fn is(&self, name: &OsStr) -> bool {
        let name = name.as_bytes();
        match self {
            Self::Literal(literal) => literal.as_bytes() == name,
            Self::Wild(pattern) => (!name.starts_with(b".") || pattern.starts_with('.')) && is_like(pattern, name),
            Self::Directories => !name.starts_with(b"."),
        }
    }
}

/// Goes back to the last `*` alone: what an earlier one could take more of, the last one can take as well.
fn is_like(pattern: &str, name: &[u8]) -> bool {
    let pattern = pattern.as_bytes();
    let (mut at, mut of) = (0, 0);
    let mut last = None;
    while at < name.len() {
        match pattern.get(of) {
            Some(b'*') => {
                last = Some((of, at));
                of += 1;
            }
            Some(b'?') => {
                at += character(&name[at..]);
                of += 1;
            }
            Some(byte) if *byte == name[at] => {
                at += 1;
                of += 1;
            }
            _ => {
                let Some((star, from)) = last else { return false };
                last = Some((star, from + 1));
                (of, at) = (star + 1, from + 1);
            }
        }
    }
    pattern[of..].iter().all(|byte| *byte == b'*')
}

/// Returns how many bytes the first character has; one where it is none.
fn character(name: &[u8]) -> usize {
    let length = match name.first() {
        Some(0xc2..=0xdf) => 2,
        Some(0xe0..=0xef) => 3,
        Some(0xf0..=0xf4) => 4,
        _ => 1,
    };
    let is_whole = name.get(1..length).is_some_and(|rest| rest.iter().all(|byte| byte & 0xc0 == 0x80));
    if is_whole { length } else { 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn means(pattern: &str, path: &str) -> bool {
        PathPattern::parse(pattern).unwrap().matches(Path::new(path))
    }

    #[test]
    fn a_pattern_means_what_a_shell_would_find() {
        for (pattern, path, expected) in [
            ("/var/log/tool/*.log", "/var/log/tool/a.log", true),
            ("/var/log/tool/*.log", "/var/log/tool/a.log.1", false),
            ("/var/log/tool/*.log", "/var/log/tool/deep/a.log", false),
            ("/var/log/tool/*.log", "/var/log/tool/.a.log", false),
            ("/var/log/tool/.*.log", "/var/log/tool/.a.log", true),
            ("/var/log/*/app.log", "/var/log/one/app.log", true),
            ("/var/log/*/app.log", "/var/log/app.log", false),
            ("/var/log/**/*.log", "/var/log/a.log", true),
            ("/var/log/**/*.log", "/var/log/one/two/a.log", true),
            ("/var/log/**/*.log", "/var/log/.git/a.log", false),
            ("/var/log/**/run/**/*.log", "/var/log/a/run/b/c/x.log", true),
            ("/var/log/**/run/**/*.log", "/var/log/a/b/c/x.log", false),
            ("/a/tool-?.log", "/a/tool-ü.log", true),
            ("/a/tool-?.log", "/a/tool-10.log", false),
            ("/a/**/*", "/a/x", true),
            ("/a/x.log", "/a/x.log", true),
            ("/a/x.log", "/a/y.log", false),
            ("/*", "/x", true),
        ] {
            assert_eq!(means(pattern, path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn the_root_holds_no_wildcards() {
        for (pattern, root) in
            [("/var/log/*.log", "/var/log"), ("/var/log/a.log", "/var/log"), ("/*/a", "/"), ("/a", "/")]
        {
            assert_eq!(PathPattern::parse(pattern).unwrap().root(), Path::new(root), "{pattern}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for bad in ["a.log", "", "/", "//a", "/a/", "/a/../b", "/./a", "/a**/b", "/a/**", "/a\0b", &"/a".repeat(33)] {
            assert!(PathPattern::parse(bad).is_err(), "{bad}");
        }
        assert!(PathPattern::parse(&format!("/{}", "a".repeat(PATTERN_BYTES_MAX))).is_err());
    }

    #[test]
    fn a_name_of_stars_is_compared_in_few_steps() {
        let pattern = format!("/{}b", "a*".repeat(300));
        assert!(!means(&pattern, &format!("/{}", "a".repeat(255))));
        assert!(means(&pattern, &format!("/{}b", "a".repeat(300))));
    }
}
