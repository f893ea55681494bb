//! Whom an agent trusts as its operator besides the file that is mounted, as the operator told it.
//!
//! # Guarantees
//! - What is taken are certificates that TLS can use, at most [`CERTIFICATES_MAX`]; one that is none refuses all.
//! - One that is over is not trusted, also when the agent does not hear of it.
//!
//! # Must not know
//! Who told it, and whether that one was trusted.
//!
//! # Limits
//! Whoever has the key of an authority that is trusted can tell of others: they are trusted until a true operator is met again.

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use spillway_crds::served::Authorities;
use spillway_delivery::clock::UnixNanos;

/// Most certificates that are taken.
pub const CERTIFICATES_MAX: usize = 16;

/// Most bytes of one, in PEM.
const PEM_BYTES_MAX: usize = 64 << 10;

/// Says what is wrong with what was told.
pub fn check(told: &Authorities) -> Result<(), String> {
    let count = told.certificates.len();
    if count == 0 || count > CERTIFICATES_MAX {
        return Err(format!("found {count} authorities, allowed: 1 to {CERTIFICATES_MAX}"));
    }
    let mut roots = RootCertStore::empty();
    for (place, certificate) in told.certificates.iter().enumerate() {
        let pem = Some(certificate.pem.as_bytes()).filter(|pem| pem.len() <= PEM_BYTES_MAX).unwrap_or_default();
        let read: Option<Vec<_>> = CertificateDer::pem_slice_iter(pem).map(Result::ok).collect();
        let read = read.filter(|read| !read.is_empty());
        if !read.is_some_and(|read| read.into_iter().all(|one| roots.add(one).is_ok())) {
            return Err(format!("authority {place} is no certificate in PEM"));
        }
    }
    Ok(())
}

/// Returns those that are not over, in one text.
pub fn pem(told: &Authorities, now: UnixNanos) -> String {
    let seconds = u64::try_from(now / 1_000_000_000).unwrap_or_default();
    let counts = told.certificates.iter().filter(|certificate| seconds < certificate.until_unix_seconds);
    counts.map(|certificate| certificate.pem.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use spillway_crds::served::AuthorityCertificate;

    use super::*;

    fn certificate(until_unix_seconds: u64) -> AuthorityCertificate {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        AuthorityCertificate { pem: made.cert.pem(), until_unix_seconds }
    }

    fn told(certificates: Vec<AuthorityCertificate>) -> Authorities {
        Authorities { hash: "h".into(), certificates }
    }

    #[test]
    fn what_is_over_is_not_trusted() {
        let told = told(vec![certificate(100), certificate(200)]);
        assert_eq!(check(&told), Ok(()));
        let texts = |second: i64| pem(&told, second * 1_000_000_000).matches("BEGIN CERTIFICATE").count();
        assert_eq!([99, 100, 199, 200].map(texts), [2, 1, 1, 0]);
    }

    #[test]
    fn one_that_is_no_certificate_refuses_all() {
        let broken =
            |pem: &str| told(vec![certificate(100), AuthorityCertificate { pem: pem.into(), ..certificate(1) }]);
        let damaged = certificate(1).pem.replace("MII", "AAA");
        let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
        for pem in ["", "hello", &damaged, &key, &" ".repeat(PEM_BYTES_MAX + 1)] {
            assert_eq!(check(&broken(pem)), Err("authority 1 is no certificate in PEM".to_owned()), "{pem:.40}");
        }
        let error = check(&told(Vec::new())).unwrap_err();
        assert_eq!(error, "found 0 authorities, allowed: 1 to 16");
        assert!(check(&told(vec![certificate(1); 17])).is_err());
    }
}
