//! How programs say things to people: an error on one line, and text to stdout and stderr.

use std::error::Error;
use std::io::{self, Write};
use std::iter;

/// Returns an error and its causes on one line, without what it repeats.
pub fn of_error(error: &dyn Error) -> String {
    let causes =
        iter::successors(error.source(), |cause: &&(dyn Error + 'static)| (*cause).source()).map(ToString::to_string);
    causes.fold(error.to_string(), |text, cause| if text.contains(&cause) { text } else { format!("{text}: {cause}") })
}

/// Writes `text` to stdout. A reader that went away (`| head`) is no failure.
pub fn to_stdout(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

/// Writes `text` to stderr; when even that fails there is nobody left to tell.
pub fn to_stderr(text: &str) {
    io::stderr().lock().write_all(text.as_bytes()).unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Told(&'static str, #[source] io::Error);

    #[test]
    fn an_error_has_each_cause_once() {
        let told = |words| of_error(&Told(words, io::Error::other("no such device")));
        assert_eq!(told("cannot be read"), "cannot be read: no such device");
        assert_eq!(told("cannot be read: no such device"), "cannot be read: no such device");
    }
}
