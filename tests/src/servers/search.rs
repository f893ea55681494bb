//! Elasticsearch and OpenSearch, in the versions that the Java of this machine can run.

use std::path::Path;

use super::{Package, java, tools};

/// The oldest Java that the older versions take.
const JAVA_OLD: u32 = 17;

/// The oldest Java that the newer versions take.
const JAVA_NEW: u32 = 21;

/// The servers, unpacked as they come.
pub const PACKAGES: [Package; 4] = [
    Package {
        name: "elasticsearch",
        key: "8.19.9",
        hindrance: no_hindrance,
        install: |folder| {
            let artifact = "org.elasticsearch.distribution.integ-test-zip:elasticsearch:8.19.9:zip";
            unpack(artifact, JAVA_OLD, folder)
        },
    },
    Package {
        name: "opensearch",
        key: "2.19.4",
        hindrance: no_hindrance,
        install: |folder| {
            let artifact = "org.opensearch.distribution.integ-test-zip:opensearch:2.19.4:zip";
            unpack(artifact, JAVA_OLD, folder)
        },
    },
    Package {
        name: "elasticsearch",
        key: "9.2.4",
        hindrance: no_new_java,
        install: |folder| {
            let artifact = "org.elasticsearch.distribution.integ-test-zip:elasticsearch:9.2.4:zip";
            unpack(artifact, JAVA_NEW, folder)
        },
    },
    Package {
        name: "opensearch",
        key: "3.4.0",
        hindrance: no_new_java,
        install: |folder| {
            let artifact = "org.opensearch.distribution.integ-test-zip:opensearch:3.4.0:zip";
            unpack(artifact, JAVA_NEW, folder)
        },
    },
];

fn no_hindrance() -> Option<String> {
    None
}

fn no_new_java() -> Option<String> {
    java::find(JAVA_NEW).is_none().then(|| format!("no Java of at least {JAVA_NEW} on this machine"))
}

fn unpack(artifact: &str, java: u32, folder: &Path) -> anyhow::Result<()> {
    java::ensure(java)?;
    tools::maven_zip(artifact, folder)
}
