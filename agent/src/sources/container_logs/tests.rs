//! The source on a real directory, driven step by step: what a log would have kept is compared with what was written.

mod engine;
mod faults;
mod groups;
mod lines;
mod log;
mod model;
mod pods;
mod races;
mod world;
