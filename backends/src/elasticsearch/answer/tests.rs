use super::*;

fn ids(count: usize) -> Vec<EventId> {
    (0..count as u64).map(|seq| EventId { incarnation: 1, seq }).collect()
}

/// Returns the verdict on an answer in which the ids are written `i0`, `i1`, ….
fn heard(status: u16, body: &str, ids: &[EventId]) -> Result<Verdict, Fault> {
    verdict(status, body.replace("\"_id\":\"i", "\"_id\":\"0000000000000001-").as_bytes(), ids)
}

fn ask(items: &[(&str, u16, &str)], documents: usize) -> Result<Items, Fault> {
    let items: Vec<String> = items
        .iter()
        .map(|(id, status, error)| {
            let error = if error.is_empty() { String::new() } else { format!(",\"error\":{error}") };
            format!("{{\"create\":{{\"_index\":\"x\",\"_id\":\"{id}\",\"status\":{status}{error}}}}}")
        })
        .collect();
    let body = format!("{{\"took\":1,\"errors\":false,\"items\":[{}]}}", items.join(","));
    heard(200, &body, &ids(documents)).map(|verdict| verdict.items)
}

fn each(items: &[(&str, u16, &str)]) -> Vec<Outcome> {
    match ask(items, items.len()) {
        Ok(Items::Each(outcomes)) => outcomes,
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_status_of_an_item_has_one_meaning() {
    for (status, kind, outcome) in [
        (409, "version_conflict_engine_exception", Outcome::Duplicate),
        (429, "es_rejected_execution_exception", Outcome::Retry),
        (429, "cluster_block_exception", Outcome::Retry),
        (503, "unavailable_shards_exception", Outcome::Retry),
        (500, "", Outcome::Retry),
        (408, "", Outcome::Retry),
        (400, "index_closed_exception", Outcome::Retry),
        (403, "cluster_block_exception", Outcome::Retry),
        (403, "security_exception", Outcome::Retry),
        (404, "index_not_found_exception", Outcome::Retry),
        (403, "index_create_block_exception", Outcome::Retry),
        (400, "document_parsing_exception", Outcome::Rejected("400 document_parsing_exception: no: why".into())),
        (400, "mapper_parsing_exception", Outcome::Rejected("400 mapper_parsing_exception: no: why".into())),
        (404, "", Outcome::Rejected("404 no: why".into())),
        (403, "other_exception", Outcome::Rejected("403 other_exception: no: why".into())),
    ] {
        let error = format!(r#"{{"type":"{kind}","reason":"no","caused_by":{{"type":"x","reason":"why"}}}}"#);
        assert_eq!(each(&[("i0", 201, ""), ("i1", status, &error)])[1], outcome, "{status} {kind}");
    }
    assert_eq!(ask(&[("i0", 201, ""), ("i1", 201, "")], 2), Ok(Items::All(Outcome::Delivered)));
}

#[test]
fn a_cluster_without_room_for_one_more_index_is_waited_for() {
    let full = "Validation Failed: 1: this action would add [2] shards, but this cluster currently has [1]/[1] maximum normal shards open;";
    let rejected = |reason: &str| Outcome::Rejected(reason.into());
    for (kind, reason, outcome) in [
        ("validation_exception", full, Outcome::Retry),
        ("illegal_argument_exception", full, Outcome::Retry),
        ("validation_exception", "no", rejected("400 validation_exception: no")),
        ("illegal_argument_exception", "no", rejected("400 illegal_argument_exception: no")),
        (
            "document_parsing_exception",
            "this action would add",
            rejected("400 document_parsing_exception: this action would add"),
        ),
    ] {
        let error = serde_json::json!({"type": kind, "reason": reason}).to_string();
        assert_eq!(each(&[("i0", 201, ""), ("i1", 400, &error)])[1], outcome, "{kind}: {reason}");
    }
}

#[test]
fn reasons_are_one_line_whatever_form_they_have() {
    for (error, reason) in [
        (r#""text\nonly""#, "400 text only"),
        ("7", "400 7"),
        ("null", "400 "),
        (r#"{"type":"t"}"#, "400 t"),
        (r#"{"type":"t","reason":null}"#, r#"400 {"type":"t","reason":null}"#),
        (r#"{"reason":"a\u001b[31mb"}"#, "400 a [31mb"),
    ] {
        let outcomes = each(&[("i0", 201, ""), ("i1", 400, error)]);
        assert_eq!(outcomes[1], Outcome::Rejected(reason.into()), "{error}");
    }
}

#[test]
fn all_refused_by_the_server_as_a_whole_is_a_fault_that_says_why() {
    for (status, kind, expected) in [
        (503, "unavailable_shards_exception", Some(FaultKind::Broken)),
        (500, "x", Some(FaultKind::Broken)),
        (403, "security_exception", Some(FaultKind::Unauthorized)),
        (429, "es_rejected_execution_exception", None),
        (400, "index_closed_exception", None),
    ] {
        let error = format!(r#"{{"type":"{kind}","reason":"because"}}"#);
        match (ask(&[("i0", status, &error), ("i1", status, &error)], 2), expected) {
            (Err(fault), Some(expected)) => {
                assert_eq!(fault.kind, expected, "{kind}");
                assert!(fault.message.contains("because"), "{fault}");
            }
            (Ok(items), None) => assert_eq!(items, Items::Each(vec![Outcome::Retry; 2]), "{kind}"),
            (other, _) => panic!("{kind}: {other:?}"),
        }
        let mixed = ask(&[("i0", status, &error), ("i1", 201, "")], 2);
        assert_eq!(mixed, Ok(Items::Each(vec![Outcome::Retry, Outcome::Delivered])), "{kind}");
    }
    let busy = |id: &str, reason: &str| {
        format!(r#"{{"create":{{"_id":"{id}","status":429,"error":{{"type":"t","reason":"{reason}"}}}}}}"#)
    };
    let answer = format!(r#"{{"items":[{},{}]}}"#, busy("i0", r"busy\nnow"), busy("i1", "later"));
    assert_eq!(heard(200, &answer, &ids(2)).unwrap().waiting.as_deref(), Some("429 t: busy now"));
}

#[test]
fn answers_that_lie_or_break_off_are_faults() {
    let two = ids(2);
    let good =
        r#"{"errors":false,"items":[{"create":{"_id":"i0","status":201}},{"create":{"_id":"i1","status":201}}]}"#;
    assert!(heard(200, good, &two).is_ok());
    for cut in 0..good.len() {
        assert!(heard(200, &good[..cut], &two).is_err(), "{cut}");
    }
    for body in [
        "",
        "OK",
        "[]",
        "{}",
        "null",
        r#"{"errors":false}"#,
        r#"{"items":{}}"#,
        r#"{"items":[]}"#,
        r#"{"items":[{"create":{"_id":"i0","status":201}}]}"#,
        r#"{"items":[{"create":{"_id":"i1","status":201}},{"create":{"_id":"i0","status":201}}]}"#,
        r#"{"items":[{"create":{"_id":"i0","status":201}},{"create":{"_id":"i0","status":201}}]}"#,
        r#"{"items":[{"create":{"_id":"i0"}},{"create":{"_id":"i1","status":201}}]}"#,
        r#"{"items":[{"create":{"_id":"i0","status":0}},{"create":{"_id":"i1","status":201}}]}"#,
        r#"{"items":[{"create":{"_id":"i0","status":"201"}},{"create":{"_id":"i1","status":201}}]}"#,
        r#"{"items":[{"create":{"status":201}},{"create":{"status":201}}]}"#,
        r#"{"items":[{},{}]}"#,
        r#"{"items":[{"a":{"_id":"i0","status":201},"b":{"_id":"i1","status":201}}]}"#,
        r#"{"items":[{"create":{"_id":"i0","status":201}},{"create":{"_id":"i1","status":201}}]} more"#,
    ] {
        let fault = heard(200, body, &two).unwrap_err();
        assert_eq!(fault.kind, FaultKind::Broken, "{body}");
        assert!(fault.message.contains("answer"), "{body}: {fault}");
    }
    let three = ask(&[("i0", 201, ""), ("i1", 201, ""), ("i2", 201, "")], 2).unwrap_err();
    assert!(three.message.contains("more than 2 items"), "{three}");
}

#[test]
fn every_status_of_a_request_has_one_meaning() {
    let own = br#"{"error":{"type":"illegal_argument_exception","reason":"bad\nline"},"status":400}"#;
    for (status, body, kind) in [
        (301, &b""[..], FaultKind::Broken),
        (400, own, FaultKind::TooLarge),
        (400, b"<html>plain HTTP request sent to HTTPS port</html>", FaultKind::Broken),
        (401, b"Unauthorized", FaultKind::Unauthorized),
        (403, own, FaultKind::Unauthorized),
        (404, b"", FaultKind::Broken),
        (408, b"", FaultKind::Timeout),
        (413, b"", FaultKind::TooLarge),
        (429, own, FaultKind::Throttled),
        (502, b"<html>", FaultKind::Broken),
        (503, b"", FaultKind::Throttled),
        (999, b"", FaultKind::Broken),
    ] {
        let fault = verdict(status, body, &ids(2)).unwrap_err();
        assert_eq!(fault.kind, kind, "{status}");
        assert!(fault.message.starts_with(&format!("http {status}")), "{fault}");
    }
    let reason = "HTTP 400: illegal_argument_exception: bad line";
    assert_eq!(verdict(400, own, &ids(1)), Ok(Verdict::all(Outcome::Rejected(reason.into()))));
    assert_eq!(verdict(400, b"", &ids(1)).unwrap_err().kind, FaultKind::Broken);
    // A wrong path: no document is at fault, so none becomes a dead letter.
    let flat = br#"{"error":"no handler found for uri [/search/_bulk] and method [POST]"}"#;
    for count in [1, 3] {
        let fault = verdict(400, flat, &ids(count)).unwrap_err();
        assert!(fault.kind == FaultKind::Broken && fault.message.contains("no handler"), "{fault}");
    }
}
