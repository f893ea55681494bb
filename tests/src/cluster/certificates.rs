//! Certificates, keys and kubeconfigs of one cluster, made anew at each start.

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_RSA_SHA256, RsaKeySize,
};

use super::layout::{API_URL, NODES, Node, SERVICE_OF_API};

/// Clients of the API server: file name, common name, organization.
const CLIENTS: [(&str, &str, &str); 5] = [
    ("admin", "admin", "system:masters"),
    ("controller-manager", "system:kube-controller-manager", ""),
    ("scheduler", "system:kube-scheduler", ""),
    ("proxy", "system:kube-proxy", ""),
    ("to-kubelets", "kube-apiserver", "system:masters"),
];

/// Writes everything into `folder`.
pub(super) fn write(folder: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(folder)?;
    let mut params = CertificateParams::new([])?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    params.distinguished_name.push(DnType::CommonName, "spillway-cluster");
    let authority = Authority { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate()?)?, folder };
    fs::write(folder.join("ca.pem"), authority.issuer.pem())?;
    let api = ["", ".default", ".default.svc", ".default.svc.cluster.local"].map(|end| format!("kubernetes{end}"));
    let mut names = api.to_vec();
    names.extend(["localhost".to_owned(), "127.0.0.1".to_owned(), NODES[0].address.to_owned()]);
    names.push(SERVICE_OF_API.to_owned());
    authority.issue("api", ("kube-apiserver", ""), names)?;
    for (file, name, organization) in CLIENTS {
        authority.issue(file, (name, organization), Vec::new())?;
        kubeconfig(folder, file)?;
    }
    for Node { name, address, .. } in NODES {
        let names = vec![name.to_owned(), address.to_owned()];
        authority.issue(name, (&format!("system:node:{name}"), "system:nodes"), names)?;
        kubeconfig(folder, name)?;
    }
    let accounts = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)?;
    fs::write(folder.join("accounts-key.pem"), accounts.serialize_pem())?;
    fs::write(folder.join("accounts.pem"), accounts.public_key_pem())?;
    Ok(())
}

struct Authority<'a> {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: &'a Path,
}

impl Authority<'_> {
    /// Writes `<file>.pem` and `<file>-key.pem`, good for servers and clients.
    fn issue(&self, file: &str, subject: (&str, &str), names: Vec<String>) -> anyhow::Result<()> {
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, subject.0);
        if !subject.1.is_empty() {
            params.distinguished_name.push(DnType::OrganizationName, subject.1);
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate()?;
        fs::write(self.folder.join(format!("{file}.pem")), params.signed_by(&key, &self.issuer)?.pem())?;
        fs::write(self.folder.join(format!("{file}-key.pem")), key.serialize_pem()).context("writing a key")
    }
}

/// Writes `<name>.kubeconfig`.
fn kubeconfig(folder: &Path, name: &str) -> anyhow::Result<()> {
    let at = folder.display();
    let text = format!(
        "apiVersion: v1
kind: Config
clusters: [{{name: spillway, cluster: {{server: \"{API_URL}\", certificate-authority: \"{at}/ca.pem\"}}}}]
users:
- name: {name}
  user: {{client-certificate: \"{at}/{name}.pem\", client-key: \"{at}/{name}-key.pem\"}}
contexts: [{{name: spillway, context: {{cluster: spillway, user: {name}}}}}]
current-context: spillway
"
    );
    fs::write(folder.join(format!("{name}.kubeconfig")), text).context("writing a kubeconfig")
}
