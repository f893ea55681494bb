//! For tests: what comes between two steps of a listing, whoever rotates, compresses and deletes, and errors of the kernel; and
//! how lines are joined.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use spillway_delivery::pattern::Pattern;
use spillway_delivery::transform::Multiline;
use spillway_delivery::transform::multiline::Begins;

use super::file::Step;

type Comes = Box<dyn FnMut(Step, &Path) -> io::Result<()> + Send>;

/// Is told of each step before it is done; nothing by default.
#[derive(Clone, Default)]
pub(in crate::sources) struct Between(Option<Arc<Mutex<Comes>>>);

impl fmt::Debug for Between {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Between").field(&self.0.is_some()).finish()
    }
}

impl Between {
    /// Returns what calls `comes` before each step; its error is that of the step.
    pub(in crate::sources) fn new(comes: impl FnMut(Step, &Path) -> io::Result<()> + Send + 'static) -> Self {
        Self(Some(Arc::new(Mutex::new(Box::new(comes)))))
    }

    /// Tells of a step.
    pub(in crate::sources) fn come(&self, step: Step, path: &Path) -> io::Result<()> {
        self.0.as_ref().map_or(Ok(()), |comes| comes.lock().unwrap()(step, path))
    }
}

/// Returns what joins lines up to the next one in which `pattern` is found, with the limits that are the default.
pub(in crate::sources) fn multiline(pattern: &str) -> Multiline {
    let begins = Begins::Pattern(Pattern::compile(pattern).unwrap());
    Multiline { begins, lines_max: 500, bytes_max: 64 << 10, wait: Duration::from_secs(1) }
}
