use std::pin::pin;
use std::task::{Context, Waker};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderValue;
use serde_json::{Value, json};

use super::signing::{ED, FOREIGN, ISSUER, NOW, P256, P384, Pair, RSA, Signer, base64, claims, jwks};
use super::*;

/// Returns who verifies tokens of all the keys that are published.
fn verifier() -> Verifier {
    let keys = Keys::default();
    assert_eq!(keys.replace(&jwks()).unwrap(), 0);
    Verifier::new(Arc::new(keys), ISSUER, "spillway")
}

fn headers(value: &str) -> HeaderMap {
    HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_str(value).unwrap())])
}

fn verify(token: &str) -> Result<Identity, Refusal> {
    verifier().verify(&headers(&format!("Bearer {token}")), at_now())
}

fn at_now() -> Timestamp {
    Timestamp::from_second(NOW).unwrap()
}

/// Returns what is said to a token whose claim at `pointer` is `value`.
fn with(pointer: &str, value: Value) -> Result<Identity, Refusal> {
    let mut claims = claims("uid", "node-a");
    *claims.pointer_mut(pointer).unwrap() = value;
    verify(&P256.token(&claims))
}

fn reason(result: Result<Identity, Refusal>) -> &'static str {
    result.unwrap_err().reason()
}

#[test]
fn tokens_of_every_algorithm_that_clusters_sign_with_are_taken() {
    for signer in [&*RSA, &P256, &P384, &ED] {
        let identity = verify(&signer.token(&claims("uid", "node-a"))).unwrap();
        let expected = ("spillway-agent-x", "uid", "node-a", "spillway-system");
        let Identity { pod, pod_uid, node, namespace, issued } = &identity;
        assert_eq!((&**pod, &**pod_uid, &**node, &**namespace), expected);
        assert_eq!(*issued, NOW - 60);
    }
    assert!(with("/aud", json!("spillway")).is_ok());
    assert!(with("/aud", json!(["api", "spillway"])).is_ok());
}

#[test]
fn a_token_counts_from_its_beginning_to_its_end_a_minute_more_or_less() {
    for (claim, at, expected) in [
        ("/exp", NOW - 59, Ok(())),
        ("/exp", NOW - 60, Err("expired")),
        ("/exp", 0, Err("expired")),
        ("/exp", i64::MIN, Err("expired")),
        ("/nbf", NOW + 60, Ok(())),
        ("/nbf", NOW + 61, Err("not-yet-valid")),
        ("/nbf", i64::MAX, Err("not-yet-valid")),
    ] {
        assert_eq!(with(claim, json!(at)).map(drop).map_err(|refusal| refusal.reason()), expected, "{claim} {at}");
    }
    let text = with("/exp", json!(NOW - 3600)).unwrap_err().to_string();
    assert_eq!(text, "exp: 2027-01-15T07:00:00Z, it is 2027-01-15T08:00:00Z");
}

#[test]
fn a_token_for_somebody_else_is_refused_with_what_it_says_and_what_is_expected() {
    let text = with("/aud", json!(["https://kubernetes.default.svc"])).unwrap_err().to_string();
    assert_eq!(text, r#"aud: "https://kubernetes.default.svc", expected "spillway""#);
    assert_eq!(reason(with("/aud", json!([]))), "audience");
    assert_eq!(reason(with("/aud", json!("spillway-agent"))), "audience");
    let text = with("/iss", json!("https://evil.test")).unwrap_err().to_string();
    assert_eq!(text, format!(r#"iss: "https://evil.test", expected "{ISSUER}""#));
}

#[test]
fn the_pod_is_of_the_namespace_of_the_token() {
    let keys = Keys::default();
    keys.replace(&jwks()).unwrap();
    let verifier = Verifier::new(Arc::new(keys), ISSUER, "spillway-agent");
    let mut of_tenant = claims("uid", "node-a");
    of_tenant["kubernetes.io"]["namespace"] = json!("tenant");
    let shown = |claims: &Value| verifier.verify(&headers(&format!("Bearer {}", RSA.token(claims))), at_now());
    assert_eq!(reason(shown(&of_tenant)), "audience");
    of_tenant["aud"] = json!(["spillway-agent"]);
    assert_eq!(shown(&of_tenant).unwrap().namespace, "tenant");
}

#[test]
fn a_token_that_is_bound_to_no_pod_or_no_node_is_refused() {
    for (pointer, found) in
        [("/kubernetes.io", "absent"), ("/kubernetes.io/pod", "no pod"), ("/kubernetes.io/node", "no node")]
    {
        let refusal = with(pointer, Value::Null).unwrap_err();
        assert!(refusal.to_string().starts_with(&format!("kubernetes.io: {found}, ")), "{refusal}");
        assert_eq!(refusal.reason(), "not-bound");
    }
    assert_eq!(reason(with("/kubernetes.io/pod/uid", json!(""))), "not-bound");
    assert_eq!(reason(with("/kubernetes.io/node/name", json!(""))), "not-bound");
}

#[test]
fn a_signature_of_another_key_or_over_other_claims_is_refused() {
    let good = claims("uid", "node-a");
    assert_eq!(reason(verify(&FOREIGN.token(&good))), "signature");
    let token = P256.token(&good);
    let parts: Vec<&str> = token.split('.').collect();
    let other = base64(claims("uid", "node-b").to_string());
    assert_eq!(reason(verify(&format!("{}.{other}.{}", parts[0], parts[2]))), "signature");
    assert_eq!(reason(verify(&format!("{}.{}.", parts[0], parts[1]))), "signature");
    let under_other_id = json!({"alg": "ES256", "kid": "rsa"});
    assert_eq!(reason(verify(&P256.token_with(&under_other_id, &good))), "token-malformed");
}

#[test]
fn no_algorithm_and_a_symmetric_one_are_refused() {
    let good = claims("uid", "node-a");
    for header in [json!({"alg": "none", "kid": "rsa"}), json!({"alg": "none"}), json!({"kid": "rsa"})] {
        let token = format!("{}.{}.", base64(header.to_string()), base64(good.to_string()));
        assert_eq!(reason(verify(&token)), "token-malformed", "{header}");
    }
    // The public key, which everybody knows, as the secret of an HMAC: in the forms in which libraries took it.
    let Pair::Rsa(pair) = &RSA.pair else { panic!("not RSA") };
    let jwk = RSA.jwk();
    let modulus = URL_SAFE_NO_PAD.decode(jwk["n"].as_str().unwrap()).unwrap();
    for secret in [pair.public_key().as_ref(), &modulus, jwk.to_string().as_bytes()] {
        let header = base64(json!({"alg": "HS256", "kid": "rsa"}).to_string());
        let message = format!("{header}.{}", base64(good.to_string()));
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret);
        let tag = base64(aws_lc_rs::hmac::sign(&key, message.as_bytes()));
        assert_eq!(reason(verify(&format!("{message}.{tag}"))), "token-malformed");
    }
}

#[test]
fn what_is_no_token_is_refused_and_never_shown() {
    let at = at_now();
    let verifier = verifier();
    assert_eq!(verifier.verify(&HeaderMap::new(), at), Err(Refusal::Missing { audience: "spillway" }));
    for (value, expected) in [
        ("Basic dXNlcjpodW50ZXIy", "token-missing"),
        ("hunter2", "token-missing"),
        ("Bearer hunter2", "token-malformed"),
        ("Bearer ", "token-malformed"),
        ("Bearer hunter2.hunter2.hunter2", "token-malformed"),
        ("Bearer ..", "token-malformed"),
        ("Bearer a.b.c.d", "token-malformed"),
        (&format!("Bearer {}", "hunter2".repeat(TOKEN_BYTES_MAX)), "token-malformed"),
    ] {
        let refusal = verifier.verify(&headers(value), at).unwrap_err();
        assert_eq!(refusal.reason(), expected, "{value:.40}");
        assert!(!refusal.to_string().contains("hunter2"), "{refusal}");
    }
    let mut two = headers("Bearer a");
    two.append(AUTHORIZATION, HeaderValue::from_static("Bearer b"));
    assert_eq!(verifier.verify(&two, at).unwrap_err().reason(), "token-malformed");
    assert_eq!(reason(verify(&P256.token(&json!({"iss": 7})))), "token-malformed");
    assert_eq!(reason(verify(&P256.token(&json!([])))), "token-malformed");
    let lower = headers(&format!("bearer {}", P256.token(&claims("uid", "node-a"))));
    assert!(verifier.verify(&lower, at).is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_unknown_key_is_asked_for_once_in_a_while_and_counts_once_it_is_there() {
    let verifier = verifier();
    let is_wanted = || pin!(verifier.keys.wanted()).poll(&mut Context::from_waker(Waker::noop())).is_ready();
    let fresh = Signer { kid: "fresh\n", pair: Pair::Ed(Ed25519KeyPair::generate().unwrap()) };
    let token = headers(&format!("Bearer {}", fresh.token(&claims("uid", "node-a"))));
    let at = at_now();
    assert!(!is_wanted());
    let refusal = verifier.verify(&token, at).unwrap_err();
    assert_eq!(refusal.to_string(), r#"signed with a key that the cluster does not publish: "fresh\n""#);
    assert!(is_wanted());
    verifier.verify(&token, at).unwrap_err();
    assert!(!is_wanted(), "that was a moment ago");
    tokio::time::advance(WANTED_EVERY).await;
    verifier.verify(&token, at).unwrap_err();
    assert!(is_wanted());
    verifier.keys.replace(&json!({"keys": [fresh.jwk()]}).to_string()).unwrap();
    verifier.verify(&token, at).unwrap();
    let old = headers(&format!("Bearer {}", P256.token(&claims("uid", "node-a"))));
    assert_eq!(verifier.verify(&old, at).unwrap_err().reason(), "key-unknown");
}

#[test]
fn keys_of_no_use_are_left_out_and_a_set_without_any_other_changes_nothing() {
    let keys = Keys::default();
    let mut unnamed = P256.jwk();
    unnamed.as_object_mut().unwrap().remove("kid");
    let mut for_encryption = P384.jwk();
    for_encryption["use"] = json!("enc");
    let mut other_algorithm = RSA.jwk();
    other_algorithm["alg"] = json!("RS512");
    let symmetric = json!({"kty": "oct", "kid": "h", "alg": "HS256", "k": "aHVudGVyMg"});
    let p521 = json!({"kty": "EC", "crv": "P-521", "alg": "ES512", "kid": "p521", "x": "AA", "y": "AA"});
    let of_no_use = json!([unnamed, for_encryption, other_algorithm, symmetric, p521, 7, {"kty": "RSA"}]);
    let mut all = of_no_use.as_array().unwrap().clone();
    all.push(ED.jwk());
    assert_eq!(keys.replace(&json!({"keys": all}).to_string()).unwrap(), 7);
    let told = keys.replace(&json!({"keys": of_no_use}).to_string()).unwrap_err().to_string();
    assert!(told.starts_with("none of the 7 keys"), "{told}");
    assert!(matches!(keys.replace("{"), Err(KeysError::Read(_))));
    assert!(matches!(keys.replace(&" ".repeat(300_000)), Err(KeysError::TooLarge { bytes: 300_000 })));
    assert!(keys.find("ed").is_some());
    let mut without_algorithm = P256.jwk();
    without_algorithm.as_object_mut().unwrap().remove("alg");
    keys.replace(&json!({"keys": [without_algorithm]}).to_string()).unwrap();
    assert!(keys.find("p256").is_some());
}
