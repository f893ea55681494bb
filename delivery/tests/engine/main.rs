//! The engine as a whole, over destinations made for the tests: what is sent, kept, moved, given up and told.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so")]

mod breaking;
mod common;
mod damage;
mod down;
mod edits;
mod edits_unsaved;
mod failover;
mod in_and_out;
mod jobs_renewed;
mod letters;
mod letters_wait;
mod log;
mod memory;
mod saves;
mod sparse;
mod stuck;
mod transforms;
mod when_behind;
