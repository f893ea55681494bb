//! The OpenTelemetry SDK for Python with its exporter over HTTP: a client of OTLP that is not ours.

use std::path::Path;
use std::process::Command;

use super::{Package, tools};

/// The package: modules of Python.
pub const PACKAGE: Package = Package {
    name: "opentelemetry-python",
    key: "1.45.2",
    hindrance: |_| None,
    install: |package, folder| {
        println!("      pip: opentelemetry-sdk and its exporter {}", package.key);
        tools::pip_install(
            folder,
            &[
                &format!("opentelemetry-exporter-otlp-proto-http=={}", package.key),
                &format!("opentelemetry-sdk=={}", package.key),
            ],
        )
    },
};

/// Returns a command that runs a program of Python with the modules in `folder`.
pub fn python(folder: &Path, program: &str) -> anyhow::Result<Command> {
    let mut command = Command::new(tools::program("python3", "python3")?);
    command.args(["-c", program]).env("PYTHONPATH", folder);
    Ok(command)
}
