//! What must hold for any bytes: one function for each place where bytes of strangers come in, which panics where it does not.
//!
//! | body | bytes are | what must hold |
//! | --- | --- | --- |
//! | [`json`] | a body | our check says what `serde_json` says; fields are found as it finds them; normalized means the same |
//! | [`splice`] | choices, and an event | transforms mean what they mean over trees |
//! | [`condition`] | a condition, a line break, and an event | nothing panics; negation, conjunction and disjunction are what they are |
//! | [`log`] | what to change in the files of a log | a start takes it; whatever is read was written, with its number |
//! | [`manifest`] | manifests | nothing panics; what is wrong is told at a place that is there |
//!
//! The same functions are the bodies of the property tests in `tests/bodies.rs`, which run always, and of the fuzz targets
//! in `targets/`, which need a nightly toolchain (`cargo xtask fuzz`). It must not know how bytes come about.

pub mod condition;
pub mod json;
pub mod log;
pub mod manifest;
pub mod splice;

/// A body.
#[derive(Debug, Clone, Copy)]
pub struct Body {
    /// Its name, that of its target and of its folder in `corpus/`.
    pub name: &'static str,
    /// Panics where something does not hold.
    pub check: fn(&[u8]),
}

/// All of them.
pub const BODIES: &[Body] = &[
    Body { name: "condition", check: condition::check },
    Body { name: "json", check: json::check },
    Body { name: "log", check: log::check },
    Body { name: "manifest", check: manifest::check },
    Body { name: "splice", check: splice::check },
];

/// Most bytes that a body looks at: more finds nothing more and takes longer.
pub const BYTES_MAX: usize = 16 << 10;
