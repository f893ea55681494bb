//! The OpenTelemetry Collector with OTLP in and files out, for the benchmark: built from the module `tests/cluster/collector`, whose
//! `go.sum` pins every source. One of its own modules is not published; what stands in for it concerns the answers to what is refused.

use super::{Package, cache, tools};
use crate::cluster::package::go_build;

/// The package. The key counts recipes: another way to build is another number.
pub const PACKAGE: Package = Package {
    name: "opentelemetry-collector",
    key: "0.164.0-2",
    hindrance: |package| {
        let needs = package.installed().is_none() && tools::find("go").is_none();
        needs.then(|| "Go is not installed, and the Collector is built with it".to_owned())
    },
    install: |package, folder| {
        let caches = cache().join(".go-collector");
        println!("      go: the Collector {}, one or two minutes on two cores", package.key);
        let output = folder.join("otelcol").display().to_string();
        tools::run(go_build("collector", "", &output, &caches).arg("."))?;
        std::fs::remove_dir_all(&caches).map_err(Into::into)
    },
};
