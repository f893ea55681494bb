//! A certificate authority made on the spot, for servers that speak TLS.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

/// A CA that only this run trusts.
#[derive(Debug)]
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// What is wrong with a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// Its time is over.
    Expired,
    /// It is that of another host.
    OtherName,
    /// No authority has signed it.
    SelfSigned,
}

impl Authority {
    /// Makes one.
    pub fn new() -> anyhow::Result<Self> {
        let mut params = CertificateParams::new([])?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // With the name that its certificates have, OpenSSL takes them for their own issuers.
        params.distinguished_name.push(rcgen::DnType::CommonName, "authority of the tests");
        Ok(Self(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?))
    }

    /// Returns its certificate in PEM.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// Returns a certificate for the loopback address and its key, both in PEM.
    pub fn certificate(&self) -> anyhow::Result<(String, String)> {
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new(["127.0.0.1".to_owned(), "localhost".to_owned()])?;
        Ok((certificate.signed_by(&key, &self.0)?.pem(), key.serialize_pem()))
    }

    /// Returns a certificate of a client and its key, both in PEM.
    pub fn client_certificate(&self, name: &str) -> anyhow::Result<(String, String)> {
        let key = KeyPair::generate()?;
        Ok((CertificateParams::new([name.to_owned()])?.signed_by(&key, &self.0)?.pem(), key.serialize_pem()))
    }

    /// Returns a certificate that a client must not trust, and its key, both in PEM.
    pub fn flawed(&self, flaw: Flaw) -> anyhow::Result<(String, String)> {
        let name = if flaw == Flaw::OtherName { "search.example.test" } else { "127.0.0.1" };
        let mut params = CertificateParams::new([name.to_owned()])?;
        if flaw == Flaw::Expired {
            params.not_before = rcgen::date_time_ymd(2020, 1, 1);
            params.not_after = rcgen::date_time_ymd(2020, 2, 1);
        }
        let key = KeyPair::generate()?;
        let certificate =
            if flaw == Flaw::SelfSigned { params.self_signed(&key)? } else { params.signed_by(&key, &self.0)? };
        Ok((certificate.pem(), key.serialize_pem()))
    }

    /// Returns the settings of a client that trusts this CA alone.
    pub fn client_config(&self) -> anyhow::Result<Arc<rustls::ClientConfig>> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.0.der().clone())?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
    }
}
