//! The source on a real directory, driven step by step: what a log would have kept is compared with what was written.

mod engine;
mod lines;
mod links;
mod many;
mod model;
mod rotations;
mod start;
mod world;
