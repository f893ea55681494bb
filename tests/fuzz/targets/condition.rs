//! Fuzz target; what must hold is in `spillway_fuzz::condition`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| spillway_fuzz::condition::check(bytes));
