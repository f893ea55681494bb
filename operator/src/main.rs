//! `spillway-operator`: parse, then do one thing. What each command does is in the library.

fn main() {}
