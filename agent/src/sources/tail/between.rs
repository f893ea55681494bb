//! What comes between two steps of a listing: whoever rotates, compresses and deletes, and errors of the kernel.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

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
