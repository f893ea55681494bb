//! A Rust file as the checks see it: comments and literals masked, test code marked.
//!
//! The masked text has the length and the line breaks of the original, so that a position in one is a position in the
//! other. What is inside comments and literals is blanked; the quotes stay. Test code is a file named `tests.rs`, a
//! file below a folder `tests` or `benches` of its crate, a module that its parent declares under `#[cfg(test)]`, and
//! every item under `#[cfg(test)]`. Not a parser: macros that produce braces out of nothing would deceive it.

use crate::tidy::has_extension;

/// One Rust file.
#[derive(Debug)]
pub(super) struct Source {
    /// Its path below the root.
    pub(super) path: String,
    /// What is written.
    pub(super) text: String,
    /// The same with comments and the insides of literals blanked.
    pub(super) masked: String,
    /// Whether all of it is test code.
    pub(super) is_test: bool,
    /// Whether its tests run on a clock that stands still until a test moves it, where sleeping costs no time.
    pub(super) clock_is_paused: bool,
    /// Byte ranges that are test code, in order.
    pub(super) tests: Vec<(usize, usize)>,
}

impl Source {
    fn new(path: &str, text: &str, is_test: bool) -> Self {
        let masked = mask(text);
        let tests = test_items(&masked);
        Self { path: path.to_owned(), text: text.to_owned(), masked, is_test, clock_is_paused: false, tests }
    }

    /// Returns the line, from 1, of a byte position.
    pub(super) fn line_of(&self, at: usize) -> usize {
        self.text.as_bytes()[..at].split(|byte| *byte == b'\n').count()
    }

    /// Returns whether a byte position is in test code.
    pub(super) fn in_test(&self, at: usize) -> bool {
        self.is_test || self.tests.iter().any(|(start, end)| (*start..*end).contains(&at))
    }

    /// Returns every position of `word` in the masked text that is not part of a longer name.
    pub(super) fn words<'a>(&'a self, word: &'a str) -> impl Iterator<Item = usize> + 'a {
        let begins_with_name = word.starts_with(is_name);
        let ends_with_name = word.ends_with(is_name);
        self.masked.match_indices(word).map(|(at, _)| at).filter(move |at| {
            let before = self.masked[..*at].chars().next_back();
            let after = self.masked[at + word.len()..].chars().next();
            let longer =
                begins_with_name && before.is_some_and(is_name) || ends_with_name && after.is_some_and(is_name);
            !longer
        })
    }
}

/// Returns every Rust file of `texts`.
pub(super) fn all(texts: &[(&str, String)], members: &[String]) -> Vec<Source> {
    let rust = || texts.iter().filter(|(path, _)| has_extension(path, "rs"));
    let mut declared = Vec::new();
    for (path, text) in rust() {
        declared.extend(test_modules(path, &mask(text)));
    }
    let new = |(path, text): &(&str, String)| Source::new(path, text, is_test_file(path, members, &declared));
    let mut sources: Vec<Source> = rust().map(new).collect();
    let is_paused = |source: &&Source| source.masked.contains("start_paused") || source.masked.contains("time::pause");
    let paused: Vec<String> = sources.iter().filter(is_paused).map(|source| program(&source.path).to_owned()).collect();
    for source in &mut sources {
        source.clock_is_paused = paused.iter().any(|paused| paused == program(&source.path));
    }
    sources
}

/// Returns what is the same for all files of one test program: `…/tests/NAME`; for any other file, the file.
fn program(path: &str) -> &str {
    let Some((folder, inside)) = path.split_once("/tests/") else {
        return path;
    };
    let name = inside.split(['/', '.']).next().unwrap_or(inside);
    &path[..folder.len() + "/tests/".len() + name.len()]
}

fn is_test_file(path: &str, members: &[String], declared: &[String]) -> bool {
    let inner = members
        .iter()
        .find_map(|member| path.strip_prefix(member.as_str()).and_then(|rest| rest.strip_prefix('/')))
        .unwrap_or(path);
    let named = inner.ends_with("/tests.rs") || inner.split('/').any(|part| part == "tests" || part == "benches");
    named || declared.iter().any(|stem| path.strip_prefix(stem).is_some_and(|r| r == ".rs" || r.starts_with('/')))
}

/// Returns the paths, without `.rs`, of the modules that `path` declares under `#[cfg(test)]`.
fn test_modules(path: &str, masked: &str) -> Vec<String> {
    let Some((folder, file)) = path.rsplit_once('/') else {
        return Vec::new();
    };
    let inside = match file {
        "lib.rs" | "main.rs" | "mod.rs" => folder.to_owned(),
        _ => path.trim_end_matches(".rs").to_owned(),
    };
    test_items(masked)
        .into_iter()
        .filter_map(|(start, end)| masked[start..end].strip_suffix(';')?.rsplit_once("mod ").map(|(_, name)| name))
        .map(|name| format!("{inside}/{}", name.trim()))
        .collect()
}

/// Returns the byte ranges of the items under `#[cfg(test)]`, from the attribute to the closing brace or semicolon.
fn test_items(masked: &str) -> Vec<(usize, usize)> {
    let mut items: Vec<(usize, usize)> = Vec::new();
    for (start, _) in masked.match_indices("#[cfg(test)]") {
        if items.last().is_some_and(|(_, end)| start < *end) {
            continue;
        }
        let open = masked[start..].find(['{', ';']).map(|offset| start + offset);
        let end = match open {
            Some(at) if masked.as_bytes()[at] == b'{' => closing_brace(masked, at),
            Some(at) => at + 1,
            None => masked.len(),
        };
        items.push((start, end));
    }
    items
}

/// Returns the position behind the brace that closes the one at `open`.
pub(super) fn closing_brace(masked: &str, open: usize) -> usize {
    let mut depth = 0_usize;
    for (offset, byte) in masked.as_bytes()[open..].iter().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return open + offset + 1;
        }
    }
    masked.len()
}

fn is_name(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

/// Returns `text` with comments and the insides of literals blanked, at the same length.
fn mask(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut masked = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let (inside, end) = token(bytes, at);
        for byte in &mut masked[inside.clone()] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end;
    }
    // Only whole comments and whole insides of literals were replaced, each byte by an ASCII one.
    String::from_utf8_lossy(&masked).into_owned()
}

/// Returns what to blank of the token at `at`, and where the next token starts.
fn token(bytes: &[u8], at: usize) -> (std::ops::Range<usize>, usize) {
    let rest = &bytes[at..];
    if rest.starts_with(b"//") {
        let end = at + rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
        return (at..end, end);
    }
    if rest.starts_with(b"/*") {
        let end = at + block_comment(rest);
        return (at..end, end);
    }
    let after_name = at > 0 && is_name(char::from(bytes[at - 1]));
    if let Some(hashes) = raw_string(rest).filter(|_| !after_name) {
        let open = at + rest.iter().position(|byte| *byte == b'"').unwrap_or(0) + 1;
        let close = [b"\"".as_slice(), &vec![b'#'; hashes]].concat();
        let end = find(&bytes[open..], &close).map_or(bytes.len(), |offset| open + offset);
        return (open..end, (end + close.len()).min(bytes.len()));
    }
    match rest[0] {
        b'"' => {
            let end = at + 1 + quoted(&rest[1..], b'"');
            (at + 1..end, (end + 1).min(bytes.len()))
        }
        b'\'' if is_char_literal(rest) => {
            let end = at + 1 + quoted(&rest[1..], b'\'');
            (at + 1..end, (end + 1).min(bytes.len()))
        }
        _ => (at..at, at + 1),
    }
}

/// Returns the number of hashes when a raw string (`r"`, `br#"`, `cr##"`) starts here.
fn raw_string(rest: &[u8]) -> Option<usize> {
    let prefix = if rest.starts_with(b"br") || rest.starts_with(b"cr") { 2 } else { 1 };
    if !rest.starts_with(b"r") && prefix == 1 {
        return None;
    }
    let hashes = rest[prefix..].iter().take_while(|byte| **byte == b'#').count();
    (rest.get(prefix + hashes) == Some(&b'"')).then_some(hashes)
}

fn is_char_literal(rest: &[u8]) -> bool {
    match rest.get(1) {
        Some(b'\\') => true,
        Some(first) => {
            let width = match first {
                0xf0.. => 4,
                0xe0.. => 3,
                0xc0.. => 2,
                _ => 1,
            };
            rest.get(1 + width) == Some(&b'\'')
        }
        None => false,
    }
}

/// Returns the offset of the closing quote of a literal whose inside starts here.
fn quoted(inside: &[u8], quote: u8) -> usize {
    let mut at = 0;
    while at < inside.len() {
        match inside[at] {
            b'\\' => at += 2,
            byte if byte == quote => return at,
            _ => at += 1,
        }
    }
    inside.len()
}

fn block_comment(rest: &[u8]) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < rest.len() {
        match rest.get(at..at + 2) {
            Some(b"/*") => (depth, at) = (depth + 1, at + 2),
            Some(b"*/") => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}
