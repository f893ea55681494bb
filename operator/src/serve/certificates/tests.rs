//! Certificates over time, which stands still unless told.

use super::*;

const NOW: Timestamp = Timestamp::constant(1_800_000_000, 0);
const NAME: &str = "spillway-operator.spillway-system.svc";

fn at(now: Timestamp, after: Duration) -> Timestamp {
    now.checked_add(after).unwrap()
}

#[test]
fn a_leaf_is_trusted_by_who_trusts_the_authority_for_its_names_and_its_time_alone() {
    let authority = Authority::generate(NOW).unwrap();
    let leaf = authority.issue(&[NAME.into(), "localhost".into()], NOW).unwrap();
    assert_eq!(leaf.expires, at(NOW, LEAF_VALID));
    let takes = |name, now| authority.takes(&leaf.certificate, name, now);
    assert!(takes(NAME, NOW));
    assert!(takes("localhost", at(NOW, Duration::from_hours(29 * 24))));
    assert!(takes("localhost", NOW.checked_sub(Duration::from_mins(59)).unwrap()));
    assert!(!takes("example.test", NOW));
    assert!(!takes(NAME, at(NOW, Duration::from_hours(31 * 24))));
    assert!(!Authority::generate(NOW).unwrap().takes(&leaf.certificate, NAME, NOW));
}

#[test]
fn an_authority_that_was_stored_issues_what_the_first_one_did() {
    let first = Authority::generate(NOW).unwrap();
    let stored = Authority::from_pem(first.certificate_pem(), &first.key_pem(), NOW).unwrap();
    assert_eq!((stored.expires(), stored.certificate_pem()), (first.expires(), first.certificate_pem()));
    let leaf = stored.issue(&[NAME.into()], NOW).unwrap();
    assert!(first.takes(&leaf.certificate, NAME, NOW));
}

#[test]
fn a_leaf_does_not_outlive_its_authority() {
    let authority = Authority::generate(NOW).unwrap();
    let late = authority.expires().checked_sub(Duration::from_hours(24)).unwrap();
    assert_eq!(authority.issue(&[NAME.into()], late).unwrap().expires, authority.expires());
}

#[test]
fn a_leaf_of_another_process_is_of_use_until_ten_days_before_its_end() {
    let authority = Authority::generate(NOW).unwrap();
    let names = [NAME.to_owned(), "127.0.0.1".to_owned()];
    let leaf = authority.issue_pem(&names, NOW).unwrap();
    let is_of_use = |leaf: &LeafPem, names: &[String], at| authority.is_of_use(leaf, names, at);
    assert!(is_of_use(&leaf, &names, NOW));
    assert!(is_of_use(&leaf, &names[..1], at(NOW, Duration::from_hours(19 * 24))));
    assert!(!is_of_use(&leaf, &names, at(NOW, Duration::from_hours(21 * 24))));
    assert!(!is_of_use(&leaf, &["other.example.test".to_owned()], NOW));
    let other = Authority::generate(NOW).unwrap();
    assert!(!other.is_of_use(&leaf, &names, NOW));
    let of_another = authority.issue_pem(&names, NOW).unwrap();
    let mixed = LeafPem { key: of_another.key, ..leaf.clone() };
    assert!(!is_of_use(&mixed, &names, NOW), "the key is another one's");
    for text in ["", "hello", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        assert!(!is_of_use(&LeafPem { certificate: text.to_owned(), ..leaf.clone() }, &names, NOW));
    }
    assert!(!format!("{leaf:?}").contains(leaf.key.lines().nth(1).unwrap()));
}

#[test]
fn a_leaf_of_the_last_days_of_its_authority_is_not_issued_again_and_again() {
    let authority = Authority::generate(NOW).unwrap();
    let late = authority.expires().checked_sub(Duration::from_hours(24)).unwrap();
    let leaf = authority.issue_pem(&[NAME.into()], late).unwrap();
    assert!(authority.is_of_use(&leaf, &[NAME.into()], at(late, Duration::from_hours(1))));
}

#[test]
fn an_authority_of_no_use_is_refused_in_words() {
    let authority = Authority::generate(NOW).unwrap();
    let other = Authority::generate(NOW).unwrap();
    let (certificate, key) = (authority.certificate_pem(), authority.key_pem());
    let said = |certificate: &str, key: &str, now| Authority::from_pem(certificate, key, now).unwrap_err().to_string();
    assert_eq!(said(certificate, &other.key_pem(), NOW), "the private key is not the one of the certificate");
    let late = at(authority.expires(), Duration::from_secs(1));
    let expired = format!("the certificate of the authority expired at {}", authority.expires());
    assert_eq!(said(certificate, &key, late), expired);
    let early = Timestamp::constant(1_700_000_000, 0);
    let message = "the certificate of the authority is not valid before 2027-01-15T07:00:00Z";
    assert_eq!(said(certificate, &key, early), message);
    assert!(said(certificate, "", NOW).starts_with("the text holds no private key"));
    let none = "the text of at most 65536 bytes holds no certificate in PEM";
    let broken = certificate.replace("MII", "AAA");
    for text in ["", "hello", &key, &" ".repeat(PEM_BYTES_MAX + 1), &broken] {
        assert_eq!(said(text, &key, NOW), none);
    }
    let pair = KeyPair::generate().unwrap();
    let (leaf, _) = params(&[NAME.into()], NOW, LEAF_VALID, None).unwrap();
    let leaf = leaf.self_signed(&pair).unwrap().pem();
    let message = "the certificate is not one of an authority (`CA:TRUE`)";
    assert_eq!(said(&leaf, &pair.serialize_pem(), NOW), message);
}

#[test]
fn a_private_key_is_not_shown() {
    let authority = Authority::generate(NOW).unwrap();
    let key = authority.key_pem();
    let line = key.lines().nth(1).unwrap();
    assert!(!format!("{authority:?}").contains(line));
}

#[test]
fn a_renewal_and_another_authority_show_another_leaf() {
    let clock = Clock::manual(1_800_000_000_000_000_000);
    let first = Authority::generate(NOW).unwrap();
    let certificates = Certificates::new(first, vec![NAME.into()], clock.clone()).unwrap();
    let before = certificates.tls().get_inner();
    clock.set(1_800_043_200_000_000_000);
    certificates.renew().unwrap();
    let renewed = certificates.tls().get_inner();
    assert!(!Arc::ptr_eq(&renewed, &before));
    assert_eq!(certificates.leaf_expires(), at(NOW, LEAF_VALID + RENEW_EVERY));
    let second = Authority::generate(NOW).unwrap();
    let pem = second.certificate_pem().to_owned();
    certificates.replace(second).unwrap();
    assert_eq!(certificates.authority().certificate_pem(), pem);
    assert!(!Arc::ptr_eq(&certificates.tls().get_inner(), &renewed));
}

#[tokio::test(start_paused = true)]
async fn the_leaf_is_renewed_every_twelve_hours_until_the_stop() {
    let clock = Clock::manual(1_800_000_000_000_000_000);
    let certificates = Certificates::new(Authority::generate(NOW).unwrap(), vec![NAME.into()], clock.clone());
    let certificates = certificates.unwrap();
    let stop = CancellationToken::new();
    let watch = async {
        let before = certificates.leaf_expires();
        clock.set(1_800_043_200_000_000_000);
        tokio::time::advance(RENEW_EVERY.checked_sub(Duration::from_secs(1)).unwrap()).await;
        assert_eq!(certificates.leaf_expires(), before);
        while certificates.leaf_expires() == before {
            tokio::time::advance(Duration::from_millis(500)).await;
        }
        stop.cancel();
    };
    tokio::join!(certificates.keep(stop.clone()), watch);
}
