//! Answers in the very form in which the servers write what the request asks for, read by comparing bytes.
//!
//! With the request's `filter_path` Elasticsearch and OpenSearch write
//! `{"errors":false,"items":[{"create":{"_id":"…","status":201}},…]}`, and for a refusal a member `error` behind the status.
//! Each item is compared with what was sent; only an `error` is parsed, and one that is an object and says what the one before
//! said is that one: an object ends where it ends, whatever stands behind. An answer of any other form, valid or not, is none of
//! this module's: the parser reads it from its beginning and says what is wrong.

use serde_json::value::RawValue;
use spillway_delivery::event::EventId;

use super::Found;

const BEGIN: [&[u8]; 2] = [b"{\"errors\":false,\"items\":[", b"{\"errors\":true,\"items\":["];
const ITEM: &[u8] = b"{\"create\":{\"_id\":\"";
const STATUS: &[u8] = b"\",\"status\":";
const ERROR: &[u8] = b",\"error\":";
const ITEM_END: &[u8] = b"}}";
const END: &[u8] = b"]}";

/// What an item begins with, up to the sequence in its id: the same for all events of an incarnation.
#[derive(Debug, Default)]
struct Beginning {
    incarnation: Option<u64>,
    text: Vec<u8>,
}

impl Beginning {
    fn of(&mut self, id: EventId) -> &[u8] {
        if self.incarnation.replace(id.incarnation) != Some(id.incarnation) {
            self.text.clear();
            self.text.extend_from_slice(ITEM);
            id.write_incarnation(&mut self.text);
        }
        &self.text
    }
}

/// Reads the answer to documents of `found`; `false` when it has another form, and then `found` is to be begun anew.
pub(super) fn read(body: &[u8], found: &mut Found<'_>) -> bool {
    let Some(rest) = BEGIN.iter().find_map(|begin| body.strip_prefix(*begin)) else {
        return false;
    };
    read_items(rest, found) == Some(END)
}

fn read_items<'b>(mut rest: &'b [u8], found: &mut Found<'_>) -> Option<&'b [u8]> {
    let (mut beginning, mut seq) = (Beginning::default(), Vec::with_capacity(EventId::TEXT_BYTES_MAX));
    let mut same: Option<&RawValue> = None;
    for (place, id) in found.ids.iter().enumerate() {
        if place > 0 {
            rest = rest.strip_prefix(b",")?;
        }
        seq.clear();
        EventId::write_seq(id.seq, &mut seq);
        rest = rest.strip_prefix(beginning.of(*id))?.strip_prefix(seq.as_slice())?.strip_prefix(STATUS)?;
        let (digits, behind) = rest.split_first_chunk::<3>()?;
        let status = digits
            .iter()
            .try_fold(0, |status, digit| digit.is_ascii_digit().then(|| status * 10 + u16::from(digit - b'0')))?;
        let error;
        (error, rest) = match behind.strip_prefix(ERROR) {
            Some(behind) => match same.and_then(|same| behind.strip_prefix(same.get().as_bytes())) {
                Some(rest) => (same, rest),
                None => read_error(behind)?,
            },
            None => (None, behind),
        };
        same = error.filter(|error| error.get().starts_with('{')).or(same);
        rest = rest.strip_prefix(ITEM_END)?;
        found.take(status, error).ok()?;
    }
    Some(rest)
}

fn read_error(behind: &[u8]) -> Option<(Option<&RawValue>, &[u8])> {
    let mut values = serde_json::Deserializer::from_slice(behind).into_iter::<&RawValue>();
    let error = values.next()?.ok()?;
    Some((Some(error).filter(|error| error.get() != "null"), behind.get(values.byte_offset()..)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::{Index, select};

    use super::super::parsed;
    use super::*;

    /// Statuses and errors as servers put them together, and as they do not.
    fn item() -> impl Strategy<Value = (u16, &'static str)> {
        let errors = vec![
            "",
            r#"{"type":"es_rejected_execution_exception","reason":"queue \"full\"}}"}"#,
            r#"{"type":"document_parsing_exception","reason":"no","caused_by":{"reason":"why"}}"#,
            r#""text only""#,
            "null",
        ];
        (select(vec![200, 201, 201, 201, 409, 429, 429, 400, 403, 500, 503, 100, 302]), select(errors))
    }

    fn answer(ids: &[EventId], items: &[(u16, &str)]) -> Vec<u8> {
        let item = |(id, (status, error)): (&EventId, &(u16, &str))| {
            let error = if error.is_empty() { String::new() } else { format!(",\"error\":{error}") };
            format!("{{\"create\":{{\"_id\":\"{id}\",\"status\":{status}{error}}}}}")
        };
        let items: Vec<String> = ids.iter().zip(items).map(item).collect();
        format!("{{\"errors\":{},\"items\":[{}]}}", items.len().is_multiple_of(2), items.join(",")).into_bytes()
    }

    fn ids(count: usize) -> Vec<EventId> {
        (0..count as u64).map(|n| EventId { incarnation: 7 + n / 3, seq: 13 * n }).collect()
    }

    proptest! {
        #[test]
        fn an_answer_means_what_its_parser_says(items in prop::collection::vec(item(), 1..8)) {
            let ids = ids(items.len());
            let mut found = Found::new(&ids);
            let body = answer(&ids, &items);
            prop_assert_eq!(read(&body, &mut found), items.iter().all(|(status, _)| *status != 100 && *status != 302));
            if found.outcomes.len() == ids.len() {
                prop_assert_eq!(found.verdict().map_err(|fault| fault.to_string()), parsed(&body, &ids).map_err(|fault| fault.to_string()));
            }
        }

        #[test]
        fn what_was_damaged_or_is_of_others_is_left_to_the_parser(
            items in prop::collection::vec(item(), 1..5),
            at in any::<Index>(), byte in select(b"\"{}[],:09afx \\\n".to_vec()), kind in 0..4_u8,
        ) {
            let ids = ids(items.len());
            let mut body = answer(&ids, &items);
            let at = at.index(body.len());
            match kind {
                0 => body[at] = byte,
                1 => body.insert(at, byte),
                2 => drop(body.remove(at)),
                _ => body.truncate(at),
            }
            let mut found = Found::new(&ids);
            if read(&body, &mut found) {
                prop_assert_eq!(found.verdict().map_err(|fault| fault.to_string()), parsed(&body, &ids).map_err(|fault| fault.to_string()));
            }
        }
    }

    #[test]
    fn what_servers_write_needs_no_parser() {
        let ids = ids(3);
        let body = answer(&ids, &[(201, ""), (429, r#"{"type":"t","reason":"r"}"#), (409, "null")]);
        let mut found = Found::new(&ids);
        assert!(read(&body, &mut found));
        assert!(!read(&body, &mut Found::new(&ids[..2])));
        assert!(!read(&body[..body.len() - 1], &mut Found::new(&ids)));
    }
}
