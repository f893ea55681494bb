//! The shapes of stack traces, line by line: of each language a small machine that says whether a line is more of what came before.
//!
//! A message of several lines has no shape: its second line begins a group. Whoever has such messages tells the pattern of a
//! beginning instead.

/// A language whose traces are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trace {
    /// Java, and what else runs on its machine.
    Java,
    /// Python.
    Python,
    /// Go.
    Go,
}

/// Where each language is in a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Traces {
    java: Java,
    python: Python,
    go: Go,
}

impl Traces {
    /// Returns whether one of `traces` takes the line for more of a group that has `lines`, and goes on behind it.
    pub(super) fn take(&mut self, traces: &[Trace], line: &[u8], lines: u32) -> bool {
        let line = line.trim_ascii_end();
        let mut next = Self::default();
        let mut follows = false;
        for trace in traces {
            follows |= match trace {
                Trace::Java => goes_on(self.java.next(line), &mut next.java),
                Trace::Python => goes_on(self.python.next(line), &mut next.python),
                Trace::Go => goes_on(self.go.next(line), &mut next.go),
            };
        }
        // At the very beginning nothing is known of what came before: what looks like more of a trace is a beginning.
        *self = if follows { next } else { Self::begin(line) };
        follows && lines > 0
    }

    fn begin(line: &[u8]) -> Self {
        Self { java: Java::begin(line), python: Python::begin(line), go: Go::begin(line) }
    }
}

fn goes_on<S>(next: Option<S>, state: &mut S) -> bool {
    let follows = next.is_some();
    if let Some(next) = next {
        *state = next;
    }
    follows
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Java {
    /// No trace.
    #[default]
    Outside,
    /// What was thrown, or its frames: another one that is thrown begins a group.
    Thrown,
}

impl Java {
    fn begin(line: &[u8]) -> Self {
        if is_thrown(line) || line.starts_with(b"Exception in thread ") { Self::Thrown } else { Self::Outside }
    }

    fn next(self, line: &[u8]) -> Option<Self> {
        let text = line.trim_ascii_start();
        let is_inner = text.len() < line.len();
        let is_frame = is_inner && (text.starts_with(b"at ") || text.starts_with(b"[CIRCULAR REFERENCE"));
        let is_cause = text.starts_with(b"Caused by: ") || is_inner && text.starts_with(b"Suppressed: ");
        let is_rest = text.strip_prefix(b"... ").is_some_and(|rest| rest.first().is_some_and(u8::is_ascii_digit));
        let is_first = self == Self::Outside && is_thrown(line);
        (is_frame || is_cause || is_rest || is_first).then_some(Self::Thrown)
    }
}

/// Returns whether a line is what was thrown: a class in a package whose name says so, and its message.
fn is_thrown(line: &[u8]) -> bool {
    let is_of_name = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | b'.');
    let (name, rest) = line.split_at(line.iter().take_while(|byte| is_of_name(byte)).count());
    let says_so = [b"Exception".as_slice(), b"Error", b"Throwable"].iter().any(|end| name.ends_with(end));
    says_so && name.contains(&b'.') && matches!(rest.first(), None | Some(b':'))
}

const TRACEBACK: &[u8] = b"Traceback (most recent call last):";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Python {
    #[default]
    Outside,
    /// Among its frames.
    Frames,
    /// Behind what was raised.
    Raised,
    /// Behind an empty line behind that.
    Gap,
    /// Behind what says that another trace follows.
    Between,
}

impl Python {
    fn begin(line: &[u8]) -> Self {
        if line.ends_with(TRACEBACK) || is_python_frame(line) { Self::Frames } else { Self::Outside }
    }

    fn next(self, line: &[u8]) -> Option<Self> {
        let is_inner = line.first().is_some_and(u8::is_ascii_whitespace);
        let is_traceback = line == TRACEBACK || is_inner && line.ends_with(TRACEBACK);
        match self {
            Self::Outside => (is_traceback || is_python_frame(line)).then_some(Self::Frames),
            Self::Frames if is_inner || line.is_empty() => Some(Self::Frames),
            Self::Frames => is_raised(line).then_some(Self::Raised),
            Self::Raised if line.is_empty() => Some(Self::Gap),
            Self::Raised => (is_inner && !is_traceback && !is_python_frame(line)).then_some(Self::Raised),
            Self::Gap => {
                let says_so = line == b"During handling of the above exception, another exception occurred:"
                    || line == b"The above exception was the direct cause of the following exception:";
                says_so.then_some(Self::Between)
            }
            Self::Between if line.is_empty() => Some(Self::Between),
            Self::Between => is_traceback.then_some(Self::Frames),
        }
    }
}

/// Returns whether a line is a frame, with which also a syntax error begins.
fn is_python_frame(line: &[u8]) -> bool {
    line.starts_with(b"  File \"")
}

/// Returns whether a line is what was raised: the name of a class, and its message.
fn is_raised(line: &[u8]) -> bool {
    let is_of_name = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.') || !byte.is_ascii();
    let (name, rest) = line.split_at(line.iter().take_while(|byte| is_of_name(byte)).count());
    let begins_as_name = name.first().is_some_and(|first| !first.is_ascii_digit() && *first != b'.');
    begins_as_name && (rest.is_empty() || rest.starts_with(b": ") || rest == b":")
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Go {
    #[default]
    Outside,
    /// Behind what the runtime says before the first goroutine.
    Panic,
    /// Where a function may stand: behind the head of a goroutine, or behind a place in a file.
    Goroutine,
    /// Behind a function: its place in a file follows.
    Function,
    /// Behind the empty line at the end of a goroutine.
    Gap,
}

impl Go {
    fn begin(line: &[u8]) -> Self {
        if is_panic(line) {
            Self::Panic
        } else if is_goroutine(line) {
            Self::Goroutine
        } else {
            Self::Outside
        }
    }

    fn next(self, line: &[u8]) -> Option<Self> {
        if is_goroutine(line) {
            return Some(Self::Goroutine);
        }
        if is_panic(line) {
            return None;
        }
        match self {
            Self::Outside | Self::Gap => None,
            Self::Panic => {
                let follows = line.is_empty() || line.starts_with(b"\t") || line.starts_with(b"[signal ");
                follows.then_some(Self::Panic)
            }
            Self::Goroutine if line.is_empty() => Some(Self::Gap),
            Self::Goroutine if line.starts_with(b"...") && line.ends_with(b"elided...") => Some(Self::Goroutine),
            Self::Goroutine => is_function(line).then_some(Self::Function),
            Self::Function => line.starts_with(b"\t").then_some(Self::Goroutine),
        }
    }
}

fn is_panic(line: &[u8]) -> bool {
    line.starts_with(b"panic: ") || line.starts_with(b"fatal error: ")
}

/// Returns whether a line is the head of a goroutine: `goroutine 7 [chan receive, 2 minutes]:`.
fn is_goroutine(line: &[u8]) -> bool {
    let Some(rest) = line.strip_prefix(b"goroutine ") else { return false };
    let number = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    number > 0 && rest[number..].starts_with(b" ") && rest.ends_with(b"]:")
}

/// Returns whether a line is a call, `main.(*Etcher).run(0xc000012345)`, or says what made the goroutine.
fn is_function(line: &[u8]) -> bool {
    let Some(parenthesis) = line.iter().position(|byte| *byte == b'(') else { return line.starts_with(b"created by ") };
    let name = &line[..parenthesis];
    let is_call = line.ends_with(b")") && !name.contains(&b' ') && (name.contains(&b'.') || name == b"panic");
    is_call || line.starts_with(b"created by ")
}
