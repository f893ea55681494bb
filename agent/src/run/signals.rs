//! What tells the process to stop.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::exit;

/// SIGTERM and SIGINT, from the moment this was made: none is missed.
#[derive(Debug)]
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

/// Which one came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// SIGTERM.
    Terminate,
    /// SIGINT.
    Interrupt,
}

/// Takes over the signal that asks for the manifests to be read again.
pub(super) fn hangup() -> io::Result<Signal> {
    signal(SignalKind::hangup())
}

impl Signals {
    /// Takes the two signals over from the system's default.
    pub(super) fn take() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Returns the next one.
    ///
    /// # Cancel safety
    /// A signal is not lost by a call that did not return.
    pub(super) async fn next(&mut self) -> Stop {
        tokio::select! {
            _ = self.terminate.recv() => Stop::Terminate,
            _ = self.interrupt.recv() => Stop::Interrupt,
        }
    }
}

impl Stop {
    /// Returns its name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Terminate => "SIGTERM",
            Self::Interrupt => "SIGINT",
        }
    }

    /// Returns the exit code of a process that it cut short.
    pub(super) fn exit_code(self) -> u8 {
        match self {
            Self::Terminate => exit::TERMINATED,
            Self::Interrupt => exit::INTERRUPTED,
        }
    }
}
