//! What a backend was given in secret never shows in what it says: one place for every type.
//!
//! # Guarantees
//! - A backend gets secrets through [`Secrets`] alone, and that notes each value it hands out: whatever the backend says
//!   (faults, reasons of rejected events, log lines) is searched for the value itself and for the forms in which a server
//!   may repeat it: base64 with its user, percent-encoded, escaped for JSON or HTML, on one line.
//! - [`Redacting`] stands around every backend that `build` makes, so that no type can forget.
//! - A rotated secret stays known until it has been rotated [`VALUES_PER_SOURCE_MAX`] times more.
//! - A value that was cut off half-way, at the end of a text or before `…`, is found from its first four bytes on.
//!
//! # Must not know
//! What servers say, and to what.
//!
//! # Limits
//! A server that wants to tell can write a value backwards: this is against servers that repeat, not against those that
//! conspire. A value of fewer than [`FORM_BYTES_MIN`] bytes is found only where it stands alone, and not in other forms.
//! [`SOURCES_MAX`] sources of secrets per backend, far above what settings can name.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::BoxFuture;
use spillway_delivery::backend::{Backend, Fault, Items, Mark, OutBatch, Outcome, Traits};
use spillway_delivery::secret::Secret;

use crate::answer::CUT;
use crate::auth::{base64, from_base64};
use crate::secrets::{SecretError, SecretSource};
use crate::settings::SecretKeyRef;

/// What stands where a secret stood.
const HIDDEN: &str = "(secret)";

/// Values that are remembered of one source: the one in use, and the one before, which may still be on its way.
const VALUES_PER_SOURCE_MAX: usize = 2;

/// Sources that are remembered; at the bound the oldest is forgotten.
const SOURCES_MAX: usize = 32;

/// Parts of a URL that are remembered.
const URL_PARTS_MAX: usize = 16;

/// Least bytes of a part of a path that may be a key: shorter ones are words.
const PATH_KEY_BYTES_MIN: usize = 16;

/// Least bytes of a form that is looked for, and of a beginning of one that was cut off.
const FORM_BYTES_MIN: usize = 4;

/// The secrets of one backend: hands them out, and knows them again in any text.
#[derive(Clone)]
pub struct Secrets {
    source: Arc<dyn SecretSource>,
    given: Arc<Mutex<Given>>,
}

/// What was handed out or made of it, by where it is from.
#[derive(Default)]
struct Given {
    values: Vec<(Origin, Vec<Box<str>>)>,
    /// Of all values, longest first.
    forms: Vec<Box<str>>,
}

/// Where a value is from.
#[derive(Clone, PartialEq, Eq)]
enum Origin {
    Secret(SecretKeyRef),
    /// What was made of a secret to be sent.
    Header(SecretKeyRef),
    /// A part of a URL.
    Url(Box<str>, usize),
    /// Given to the backend in another way.
    Other(&'static str),
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Secrets").field(&self.source).finish()
    }
}

impl Secrets {
    /// Returns the secrets of one backend, which come from `source`.
    pub fn new(source: Arc<dyn SecretSource>) -> Self {
        Self { source, given: Arc::default() }
    }

    /// Returns a secret as it is now.
    pub(crate) fn get(&self, reference: &SecretKeyRef) -> Result<Secret, SecretError> {
        let secret = self.source.get(reference)?;
        self.lock().note(&Origin::Secret(reference.clone()), secret.reveal());
        Ok(secret)
    }

    /// Notes the value of a header that was made of the secret at `reference`.
    pub(crate) fn note_header(&self, reference: &SecretKeyRef, value: &str) {
        self.lock().note(&Origin::Header(reference.clone()), value);
    }

    /// Notes what of a URL may be a key: long parts of its path, and the values of its query.
    pub(crate) fn note_url(&self, url: &reqwest::Url) {
        let path = url.path().split('/').filter(|part| part.len() >= PATH_KEY_BYTES_MIN).map(str::to_owned);
        let query =
            url.query_pairs().map(|(_, value)| value.into_owned()).filter(|value| value.len() >= FORM_BYTES_MIN);
        for (index, value) in path.chain(query).take(URL_PARTS_MAX).enumerate() {
            self.lock().note(&Origin::Url(url.as_str().into(), index), &value);
        }
    }

    /// Notes a value that is secret and does not come from [`Secrets::get`]; `what` says what it is.
    pub(crate) fn note(&self, what: &'static str, value: &str) {
        self.lock().note(&Origin::Other(what), value);
    }

    /// Returns `text` without any of the values.
    pub(crate) fn redact(&self, text: &str) -> String {
        redact(text, &self.lock().forms)
    }

    fn redact_fault(&self, fault: Fault) -> Fault {
        let Fault { kind, message, retry_after, may_be_there } = fault;
        Fault { retry_after, may_be_there, ..Fault::new(kind, self.redact(&message)) }
    }

    fn redact_outcome(&self, outcome: Outcome) -> Outcome {
        match outcome {
            Outcome::Rejected(reason) => Outcome::Rejected(self.redact(&reason).into()),
            outcome => outcome,
        }
    }

    fn redact_items(&self, items: Items) -> Items {
        match items {
            Items::All(outcome) => Items::All(self.redact_outcome(outcome)),
            Items::Each(outcomes) => {
                Items::Each(outcomes.into_iter().map(|outcome| self.redact_outcome(outcome)).collect())
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Given> {
        self.given.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Given {
    fn note(&mut self, from: &Origin, value: &str) {
        let place = self.values.iter().position(|(other, _)| other == from);
        // What is asked for at each request is nearly always what it was.
        if value.is_empty() || place.is_some_and(|place| self.values[place].1.last().is_some_and(|old| **old == *value))
        {
            return;
        }
        let mut known = place.map(|place| self.values.remove(place).1).unwrap_or_default();
        known.retain(|old| **old != *value);
        if known.len() >= VALUES_PER_SOURCE_MAX {
            known.remove(0);
        }
        known.push(value.into());
        if self.values.len() >= SOURCES_MAX {
            self.values.remove(0);
        }
        self.values.push((from.clone(), known));
        let mut forms = BTreeSet::new();
        self.values.iter().flat_map(|(_, values)| values).for_each(|value| add_forms(value, &mut forms));
        self.forms = forms.into_iter().map(String::into_boxed_str).collect();
        self.forms.sort_by_key(|form| std::cmp::Reverse(form.len()));
    }
}

/// Adds the forms in which a server may repeat `value`.
fn add_forms(value: &str, forms: &mut BTreeSet<String>) {
    forms.insert(value.to_owned());
    let mut parts = BTreeSet::from([value.to_owned()]);
    // As a header has it, and what is in there.
    parts.extend(["ApiKey ", "Basic ", "Bearer "].iter().find_map(|way| value.strip_prefix(way)).map(str::to_owned));
    let decoded = |part: &String| from_base64(part).and_then(|bytes| String::from_utf8(bytes).ok());
    parts.extend(parts.iter().filter_map(decoded).filter(|part| part.contains(':')).collect::<Vec<_>>());
    // `<user>:<password>`, `<id>:<key>`: what is behind the colon is the secret.
    parts.extend(parts.iter().filter_map(|part| Some(part.split_once(':')?.1.to_owned())).collect::<Vec<_>>());
    for part in parts {
        let coded = base64(part.as_bytes());
        let coded = coded.trim_end_matches('=');
        let json = serde_json::Value::from(part.as_str()).to_string();
        let made = [
            coded.replace('+', "-").replace('/', "_"),
            coded.to_owned(),
            percent_encoded(&part, "%20", false),
            percent_encoded(&part, "%20", true),
            percent_encoded(&part, "+", false),
            json[1..json.len() - 1].replace('/', "\\/"),
            json[1..json.len() - 1].to_owned(),
            part.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;"),
            part.chars().map(|c| if c.is_control() { ' ' } else { c }).collect(),
            part,
        ];
        forms.extend(made.into_iter().map(|form| form.trim().to_owned()).filter(|form| form.len() >= FORM_BYTES_MIN));
    }
}

fn percent_encoded(text: &str, space: &str, lower: bool) -> String {
    let mut out = String::with_capacity(text.len() * 3);
    for byte in text.bytes() {
        // Writing to a String cannot fail.
        _ = match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.write_char(char::from(byte)),
            b' ' => out.write_str(space),
            _ if lower => write!(out, "%{byte:02x}"),
            _ => write!(out, "%{byte:02X}"),
        };
    }
    out
}

fn redact(text: &str, forms: &[Box<str>]) -> String {
    let mut text = text.to_owned();
    for form in forms {
        if form.len() < FORM_BYTES_MIN {
            text = without_word(&text, form);
        } else if text.contains(&**form) {
            text = text.replace(&**form, HIDDEN);
        }
    }
    let mut pieces: Vec<String> = text.split(CUT).map(str::to_owned).collect();
    for piece in &mut pieces {
        if let Some(start) = forms.iter().filter_map(|form| cut_off(piece, form)).min() {
            piece.replace_range(start.., HIDDEN);
        }
    }
    pieces.join(&CUT.to_string())
}

/// Returns `text` without `word` where it stands alone.
fn without_word(text: &str, word: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(word) {
        let end = at + word.len();
        let before = rest[..at].chars().next_back().or(out.chars().next_back());
        let joined = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
        out.push_str(&rest[..at]);
        out.push_str(if joined(before) || joined(rest[end..].chars().next()) { word } else { HIDDEN });
        rest = &rest[end..];
    }
    out + rest
}

/// Returns where the beginning of `form` stands at the end of `text`, when it does.
fn cut_off(text: &str, form: &str) -> Option<usize> {
    let longest = form.len().saturating_sub(1).min(text.len());
    (FORM_BYTES_MIN..=longest)
        .rev()
        .map(|len| text.len() - len)
        .find(|&start| form.as_bytes().starts_with(&text.as_bytes()[start..]) && text.is_char_boundary(start))
}

/// A backend that says nothing of its secrets.
pub(crate) struct Redacting {
    inner: Arc<dyn Backend>,
    secrets: Secrets,
}

impl Redacting {
    pub(crate) fn new(inner: Arc<dyn Backend>, secrets: Secrets) -> Self {
        Self { inner, secrets }
    }

    async fn clean<T>(&self, said: BoxFuture<'_, Result<T, Fault>>) -> Result<T, Fault> {
        said.await.map_err(|fault| self.secrets.redact_fault(fault))
    }
}

impl fmt::Debug for Redacting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.secrets.redact(&format!("{:?}", self.inner)))
    }
}

impl Backend for Redacting {
    /// # Cancel safety
    /// As the backend's own.
    fn send<'a>(&'a self, batch: &'a OutBatch) -> BoxFuture<'a, Result<Items, Fault>> {
        Box::pin(async { self.clean(self.inner.send(batch)).await.map(|items| self.secrets.redact_items(items)) })
    }

    fn traits(&self) -> Traits {
        self.inner.traits()
    }

    fn open(&self, mark: Option<Mark>) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(self.clean(self.inner.open(mark)))
    }

    fn commit(&self) -> BoxFuture<'_, Result<Option<Mark>, Fault>> {
        Box::pin(self.clean(self.inner.commit()))
    }

    fn checkpoint(&self) -> BoxFuture<'_, Result<Option<Mark>, Fault>> {
        Box::pin(self.clean(self.inner.checkpoint()))
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.inner.close()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(values: &[&str], text: &str) -> String {
        let mut given = Given::default();
        values.iter().for_each(|value| given.note(&Origin::Other("a test"), value));
        redact(text, &given.forms)
    }

    #[test]
    fn a_value_is_found_in_every_form_that_a_server_may_repeat() {
        let secret = "open \"sesame\"/ü&:x";
        for (form, text) in [
            ("as it is", "it was open \"sesame\"/ü&:x."),
            ("for JSON", "it was open \\\"sesame\\\"/ü&:x."),
            ("for JSON, slashes too", "it was open \\\"sesame\\\"\\/ü&:x."),
            ("for a URL", "it was open%20%22sesame%22%2F%C3%BC%26%3Ax."),
            ("for a URL, lower case", "it was open%20%22sesame%22%2f%c3%bc%26%3ax."),
            ("for a form", "it was open+%22sesame%22%2F%C3%BC%26%3Ax."),
            ("for HTML", "it was open &quot;sesame&quot;/ü&amp;:x."),
            ("base64", "it was b3BlbiAic2VzYW1lIi/DvCY6eA."),
            ("base64 for URLs", "it was b3BlbiAic2VzYW1lIi_DvCY6eA."),
        ] {
            assert_eq!(told(&[secret], text), "it was (secret).", "{form}");
        }
    }

    #[test]
    fn what_is_made_of_a_password_or_a_key_is_found_and_what_it_is_made_of() {
        // Aladdin:open sesame
        let header = "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==";
        for text in ["QWxhZGRpbjpvcGVuIHNlc2FtZQ==", "QWxhZGRpbjpvcGVuIHNlc2FtZQ", "Aladdin:open sesame", "open sesame"]
        {
            assert_eq!(told(&[header], text).trim_end_matches('='), "(secret)", "{text}");
        }
        // An API key as the server encodes it: id7:the-key.
        for text in ["aWQ3OnRoZS1rZXk=", "id7:the-key", "the-key"] {
            assert_eq!(told(&["aWQ3OnRoZS1rZXk="], text).trim_end_matches('='), "(secret)", "{text}");
        }
        assert_eq!(told(&["line one\nline two"], "it was line one line two"), "it was (secret)");
    }

    #[test]
    fn a_value_that_was_cut_off_is_found_by_its_beginning() {
        assert_eq!(told(&["canary-8c1f"], "it was canary-8"), "it was (secret)");
        assert_eq!(told(&["canary-8c1f"], "it was cana…: and more"), "it was (secret)…: and more");
        assert_eq!(told(&["canary-8c1f"], "it can"), "it can", "too little to tell");
        assert_eq!(told(&["ünary-8c1f"], "it was ünar"), "it was (secret)");
    }

    #[test]
    fn a_rotated_value_stays_known_and_an_old_one_is_forgotten() {
        assert_eq!(told(&["first-one", "other-one"], "first-one other-one"), "(secret) (secret)");
        assert_eq!(told(&["first-one", "other-one", "third-one"], "first-one third-one"), "first-one (secret)");
        let mut given = Given::default();
        for number in 0..100 {
            given.note(&Origin::Secret(SecretKeyRef { name: "a".into(), key: format!("k{number}") }), "value");
        }
        assert_eq!(given.values.len(), SOURCES_MAX);
    }

    #[test]
    fn a_text_without_secrets_stays_as_it_is() {
        assert_eq!(told(&[], "a b… c"), "a b… c");
        assert_eq!(told(&["", "x"], "HTTP 400: no"), "HTTP 400: no");
        assert_eq!(
            told(&["t"], "a t, not=t"),
            "a (secret), not=(secret)",
            "what is short is hidden where it stands alone"
        );
        assert_eq!(told(&["ab"], "abab ab"), "abab (secret)");
    }
}
