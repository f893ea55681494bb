//! The OpenTelemetry SDK for Python with its exporters over HTTP and gRPC: clients of OTLP that are not ours.

use std::path::Path;
use std::process::Command;

use super::{Package, tools};

/// Of the SDK and its exporters.
const VERSION: &str = "1.45.2";

/// The package: modules of Python. The key counts recipes: another list of modules is another number.
pub const PACKAGE: Package = Package {
    name: "opentelemetry-python",
    key: "1.45.2-2",
    hindrance: |_| None,
    install: |_, folder| {
        println!("      pip: opentelemetry-sdk and its exporters {VERSION}");
        let modules = ["exporter-otlp-proto-http", "exporter-otlp-proto-grpc", "sdk"];
        let modules = modules.map(|module| format!("opentelemetry-{module}=={VERSION}"));
        tools::pip_install(folder, &modules.each_ref().map(|module| &**module))
    },
};

/// Returns a command that runs a program of Python with the modules in `folder`.
pub fn python(folder: &Path, program: &str) -> anyhow::Result<Command> {
    let mut command = Command::new(tools::program("python3", "python3")?);
    command.args(["-c", program]).env("PYTHONPATH", folder);
    Ok(command)
}
