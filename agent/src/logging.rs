//! How the process tells what it does: one line per change of state, on stderr (stdout belongs to `Stdout` backends).
//!
//! Text has colour only on a terminal and never says by colour alone; JSON is one object per line.

use std::io::{self, IsTerminal};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;

use crate::settings::{LogFormat, LogSettings};

/// Most bytes of the directives of `--log-level`.
const DIRECTIVES_BYTES_MAX: usize = 4096;

/// Returns the filter these directives describe, `None` when they are not understood.
pub fn filter(directives: &str) -> Option<EnvFilter> {
    if directives.is_empty() || directives.len() > DIRECTIVES_BYTES_MAX {
        return None;
    }
    // A lone word that is no level would be taken for a target and silence everything.
    let level = |word: &str| word.parse::<LevelFilter>().is_ok();
    let known = |directive: &str| !directive.is_empty() && (directive.contains('=') || level(directive));
    directives.split(',').all(known).then(|| EnvFilter::builder().parse(directives).ok()).flatten()
}

/// Starts the log lines of this process. Does nothing when something else already took them.
pub fn start(settings: &LogSettings) {
    let terminal = io::stderr().is_terminal();
    let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let format = settings.format.unwrap_or(if terminal { LogFormat::Text } else { LogFormat::Json });
    let builder =
        tracing_subscriber::fmt().with_writer(io::stderr).with_env_filter(filter(&settings.level).unwrap_or_default());
    let started = match format {
        LogFormat::Text => builder.with_ansi(colour).with_target(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(true).with_span_list(false).try_init(),
    };
    drop(started);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_directives_are_understood_and_typing_errors_are_not() {
        for good in ["error", "warn", "info", "debug", "trace", "off", "info,spillway_delivery=debug"] {
            assert!(filter(good).is_some(), "{good}");
        }
        for bad in ["", "inof", "loud", "info,spillway_delivery=verbose", "info,,debug"] {
            assert!(filter(bad).is_none(), "{bad}");
        }
    }
}
