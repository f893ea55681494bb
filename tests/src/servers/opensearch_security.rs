//! OpenSearch's plugin for TLS and users, for 2.19.4 alone: that of 3.4.0 builds on another plugin, `rule-framework`, which
//! the test distribution leaves out ("Missing plugin [rule-framework], dependency of [opensearch-security]", seen).

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Context as _;

use super::search::USERS;
use super::{Package, tools};

/// The plugin, as the server's own program installs it.
pub const PACKAGE: Package = Package {
    name: "opensearch-security",
    key: "2.19.4.0",
    hindrance: |_| None,
    install: |package, folder| {
        let Package { name, key, .. } = package;
        tools::maven_file(&format!("org.opensearch.plugin:{name}:{key}:zip"), folder).map(drop)
    },
};

/// Where the archive lies below a server's folder, readable for the server's user.
pub(super) const ARCHIVE: &str = "security.zip";

/// What the server is told; the certificate is that of `conf`.
pub(super) const SETTINGS: &str = "
plugins.security.ssl.transport: {pemcert_filepath: cert.pem, pemkey_filepath: key.pem, pemtrustedcas_filepath: ca.pem}
plugins.security.ssl.transport.enforce_hostname_verification: false
plugins.security.ssl.http: {enabled: true, pemcert_filepath: cert.pem, pemkey_filepath: key.pem, pemtrustedcas_filepath: ca.pem}
plugins.security.allow_default_init_securityindex: true
plugins.security.nodes_dn: ['CN=rcgen self signed cert']
plugins.security.authcz.admin_dn: ['CN=nobody']
plugins.security.restapi.roles_enabled: [admin]
";

/// What those roles may do; `writer` has what the documentation says the agent needs.
const ROLES: &str = "
_meta: {type: roles, config_version: 2}
admin: {cluster_permissions: ['*'], index_permissions: [{index_patterns: ['*'], allowed_actions: ['*']}]}
writer:
  cluster_permissions: ['indices:data/write/bulk', 'indices:admin/index_template/*']
  index_permissions:
  - index_patterns: ['jobs-*']
    allowed_actions: ['indices:data/write/index', 'indices:data/write/bulk*', create_index, 'indices:admin/mapping/put']
";

/// Copies the archive to where the server's user may read it.
pub(super) fn prepare(dir: &Path) -> anyhow::Result<()> {
    let folder = PACKAGE.ensure()?;
    fs::copy(folder.join(format!("{}-{}.zip", PACKAGE.name, PACKAGE.key)), dir.join(ARCHIVE)).context("copying")?;
    Ok(())
}

/// Installs the plugin with `installer`, the server's own program, and gives every user a password and a role. `bash`
/// runs as the server's user.
pub(super) fn install(dir: &Path, mut installer: Command, bash: impl Fn() -> Command) -> anyhow::Result<()> {
    let archive = format!("file://{}", dir.join(ARCHIVE).display());
    tools::run(installer.args(["install", "--batch", &archive]))?;
    let hash = dir.join("home/plugins/opensearch-security/tools/hash.sh");
    let mut users = String::from("_meta: {type: internalusers, config_version: 2}\n");
    let mut mapping = String::from("_meta: {type: rolesmapping, config_version: 2}\n");
    for (name, password, role) in USERS {
        let output = bash().arg(&hash).args(["-p", password]).output()?;
        let text = String::from_utf8(output.stdout)?;
        let hash = text.lines().map(str::trim).find(|line| line.starts_with("$2")).context("no hash")?;
        writeln!(users, "{name}: {{hash: '{hash}'}}")?;
        writeln!(mapping, "{role}: {{users: [{name}]}}")?;
    }
    let conf = dir.join("conf/opensearch-security");
    for (name, text) in [("internal_users", &*users), ("roles_mapping", &mapping), ("roles", ROLES)] {
        fs::write(conf.join(format!("{name}.yml")), text).with_context(|| format!("writing {name}"))?;
    }
    Ok(())
}
