//! Fuzz target; what must hold is in `spillway_fuzz::manifest`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| spillway_fuzz::manifest::check(bytes));
