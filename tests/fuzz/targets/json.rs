//! Fuzz target; what must hold is in `spillway_fuzz::json`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| spillway_fuzz::json::check(bytes));
