//! What the engine logs for a test, to be counted.

use std::fmt::Debug;
use std::path::Path;
use std::sync::{Arc, Mutex, Once};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::DefaultGuard;
use tracing::{Event, Level, Metadata, Subscriber};

/// The lines that an operator sees by default, each as its level and its message.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lines(Arc<Mutex<Vec<String>>>);

impl Lines {
    /// Returns what came since the last look.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    fn note(&self, level: Level, message: &str) {
        self.0.lock().unwrap().push(format!("{level} {message}"));
    }
}

/// Who wants what other threads say of a folder: a log writes off the thread of its test.
static OF_FOLDERS: Mutex<Vec<(String, Lines)>> = Mutex::new(Vec::new());

/// Notes what this thread logs for as long as the guard lives, and what others log of what is below `dir`.
pub(crate) fn logged_to(lines: &Lines, dir: &Path) -> DefaultGuard {
    static OTHERS: Once = Once::new();
    OTHERS.call_once(|| tracing::subscriber::set_global_default(Recorder(None)).unwrap());
    OF_FOLDERS.lock().unwrap().push((dir.display().to_string(), lines.clone()));
    tracing::subscriber::set_default(Recorder(Some(lines.clone())))
}

/// Of one thread, or of all that have none of their own.
#[derive(Debug)]
struct Recorder(Option<Lines>);

/// What is looked at of a line.
#[derive(Default)]
struct Fields {
    message: String,
    dir: String,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            "dir" => self.dir = format!("{value:?}"),
            _ => {}
        }
    }
}

impl Subscriber for Recorder {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() <= Level::INFO && metadata.target().starts_with("spillway_delivery")
    }

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let (level, message) = (*event.metadata().level(), &fields.message);
        match &self.0 {
            Some(lines) => lines.note(level, message),
            None => {
                let wanted = OF_FOLDERS.lock().unwrap();
                let of = wanted.iter().filter(|(dir, _)| fields.dir.starts_with(dir));
                of.for_each(|(_, lines)| lines.note(level, message));
            }
        }
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}
