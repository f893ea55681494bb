//! Messages as they are sent, and worse.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::*;
use crate::sources::testing::Random;

/// 2026-11-30T20:00:00Z.
const RECEIVED: UnixNanos = 1_796_068_800_000_000_000;

fn peer() -> Peer {
    Peer::new("127.0.0.1".parse().unwrap(), None)
}

/// Returns the event of a message without what all of them have, and what was wrong.
fn event(message: &[u8], end: End) -> (Value, Vec<&'static str>) {
    let mut out = b"before".to_vec();
    let peer = peer();
    let decoded = decode(message, &About { received: RECEIVED, peer: &peer, end }, &mut out);
    let line = &out[b"before".len()..];
    assert!(line.len() <= event_bytes_max(message.len().min(MESSAGE_BYTES_MAX)), "{} bytes", line.len());
    assert!(line.len() <= EVENT_BYTES_MAX);
    assert_eq!(memchr::memchr(b'\n', line), Some(line.len() - 1));
    assert!(json::validate_object(&line[..line.len() - 1]).is_ok_and(|info| info.is_plain()));
    let mut event: Value = serde_json::from_slice(line).unwrap();
    let members = event.as_object_mut().unwrap();
    assert_eq!(members.remove("peer"), Some(json!({"address": "127.0.0.1"})));
    let malformed: Vec<_> = decoded.malformed().map(Malformed::as_str).collect();
    assert_eq!(members.get("malformed").and_then(Value::as_str), malformed.first().copied());
    (event, malformed)
}

#[track_caller]
fn assert_event(message: &[u8], wanted: &Value) {
    let (found, malformed) = event(message, End::Whole);
    assert_eq!(&found, wanted, "{}", String::from_utf8_lossy(message));
    assert_eq!(malformed, [""; 0]);
}

#[track_caller]
fn assert_malformed(message: &[u8], why: &'static str, wanted: &Value) {
    let (mut found, malformed) = event(message, End::Whole);
    found.as_object_mut().unwrap().remove("malformed");
    assert_eq!(&found, wanted, "{}", String::from_utf8_lossy(message));
    assert_eq!(malformed, [why]);
}

#[test]
fn the_examples_of_rfc_5424_are_events() {
    assert_event(
        b"<34>1 2003-10-11T22:14:15.003Z mymachine.example.com su - ID47 - \xef\xbb\xbf'su root' failed for lonvick on /dev/pts/8",
        &json!({
            "message": "'su root' failed for lonvick on /dev/pts/8", "time": "2003-10-11T22:14:15.003000000Z",
            "format": "rfc5424", "facility": "auth", "severity": "crit", "facility_code": 4, "severity_code": 2,
            "hostname": "mymachine.example.com", "app_name": "su", "msg_id": "ID47",
        }),
    );
    assert_event(
        b"<165>1 2003-08-24T05:14:15.000003-07:00 192.0.2.1 myproc 8710 - - %% It's time to make the do-nuts.",
        &json!({
            "message": "%% It's time to make the do-nuts.", "time": "2003-08-24T12:14:15.000003000Z",
            "format": "rfc5424", "facility": "local4", "severity": "notice", "facility_code": 20, "severity_code": 5,
            "hostname": "192.0.2.1", "app_name": "myproc", "proc_id": "8710",
        }),
    );
    assert_event(
        b"<165>1 2003-10-11T22:14:15.003Z mymachine.example.com evntslog - ID47 [exampleSDID@32473 iut=\"3\" \
          eventSource=\"Application\" eventID=\"1011\"][examplePriority@32473 class=\"high\"]",
        &json!({
            "message": "", "time": "2003-10-11T22:14:15.003000000Z", "format": "rfc5424", "facility": "local4",
            "severity": "notice", "facility_code": 20, "severity_code": 5, "hostname": "mymachine.example.com",
            "app_name": "evntslog", "msg_id": "ID47",
            "structured_data": {
                "exampleSDID@32473": {"iut": "3", "eventSource": "Application", "eventID": "1011"},
                "examplePriority@32473": {"class": "high"},
            },
        }),
    );
    assert_event(
        b"<0>1 - - - - - -",
        &json!({
            "message": "", "time": "2026-11-30T20:00:00.000000000Z", "format": "rfc5424", "facility": "kern",
            "severity": "emerg", "facility_code": 0, "severity_code": 0,
        }),
    );
}

#[test]
fn what_is_sent_as_rfc_3164_is_taken_apart_as_far_as_it_is_sure() {
    let base = |message: &str| {
        json!({
            "message": message, "time": "2026-10-11T22:14:15.000000000Z", "format": "rfc3164", "facility": "auth",
            "severity": "crit", "facility_code": 4, "severity_code": 2, "timestamp": "Oct 11 22:14:15",
        })
    };
    let with = |message: &str, members: &[(&str, &str)]| {
        let mut event = base(message);
        members.iter().for_each(|(name, value)| event[*name] = json!(value));
        event
    };
    for (text, wanted) in [
        (
            "<34>Oct 11 22:14:15 mymachine su: 'su root' failed",
            with("'su root' failed", &[("hostname", "mymachine"), ("app_name", "su")]),
        ),
        (
            "<34>Oct 11 22:14:15 h postfix/smtpd[4711]: x: y",
            with("x: y", &[("hostname", "h"), ("app_name", "postfix/smtpd"), ("proc_id", "4711")]),
        ),
        // As a library writes to the socket of the machine: no host.
        ("<34>Oct 11 22:14:15 su[4711]: x", with("x", &[("app_name", "su"), ("proc_id", "4711")])),
        ("<34>Oct 11 22:14:15 su: x", with("x", &[("app_name", "su")])),
        // As rsyslog makes it of a message of RFC 5424.
        ("<34>Oct 11 22:14:15 h su[1] x", with("x", &[("hostname", "h"), ("app_name", "su"), ("proc_id", "1")])),
        ("<34>Oct 11 22:14:15 - - x", with("- x", &[])),
        // What is no tag is text.
        ("<34>Oct 11 22:14:15 h su x", with("su x", &[("hostname", "h")])),
        ("<34>Oct 11 22:14:15 h su[1]x", with("su[1]x", &[("hostname", "h")])),
        ("<34>Oct 11 22:14:15 h su[1 x", with("su[1 x", &[("hostname", "h")])),
        ("<34>Oct 11 22:14:15 h : x", with(": x", &[("hostname", "h")])),
        ("<34>Oct 11 22:14:15 h su[]:x", with("x", &[("hostname", "h"), ("app_name", "su")])),
        ("<34>Oct 11 22:14:15 h [a]: x", with("[a]: x", &[("hostname", "h")])),
        ("<34>Oct 11 22:14:15 hello", with("hello", &[])),
        ("<34>Oct 11 22:14:15", base("")),
        ("<34>Oct 11 22:14:15  two spaces", with(" two spaces", &[])),
        ("<34>Oct 11 22:14:15 fe80::1 su: x", with("x", &[("hostname", "fe80::1"), ("app_name", "su")])),
        (
            "<34>Oct 11 2003 22:14:15.5 h su: x",
            with(
                "x",
                &[
                    ("time", "2003-10-11T22:14:15.500000000Z"),
                    ("timestamp", "Oct 11 2003 22:14:15.5"),
                    ("hostname", "h"),
                    ("app_name", "su"),
                ],
            ),
        ),
    ] {
        assert_event(text.as_bytes(), &wanted);
    }
    // As rsyslog forwards by default: the time says all, so that its text adds nothing.
    let mut exact = with("x", &[("time", "2026-10-11T20:14:15.123456000Z"), ("hostname", "h"), ("app_name", "su")]);
    exact.as_object_mut().unwrap().remove("timestamp");
    assert_event(b"<34>2026-10-11T22:14:15.123456+02:00 h su: x", &exact);
    // Without a time nothing else is sure.
    for text in ["su: x", "", "Oct 11 22:14 h su: x", "Feb 30 22:14:15 h su: x", "2 - - - - - -", "1", " x"] {
        let mut wanted = with(text, &[("time", "2026-11-30T20:00:00.000000000Z")]);
        wanted.as_object_mut().unwrap().remove("timestamp");
        assert_event(format!("<34>{text}").as_bytes(), &wanted);
    }
}

#[test]
fn what_is_malformed_is_kept_as_it_came_and_says_why() {
    let raw = |message: &str| json!({"message": message, "time": "2026-11-30T20:00:00.000000000Z", "format": "raw"});
    for text in ["hello", "<", "<>x", "<192>x", "<1", "<1x", "<-1>x", "<01>x", "<0013>x", "< 1>x", "<1 >x", "{}", "\0x"]
    {
        assert_malformed(text.as_bytes(), "priority", &raw(text));
    }
    let prioritised = |message: &str, format: &str| {
        let mut event = raw(message);
        for (name, value) in [("facility", json!("user")), ("severity", json!("notice"))] {
            event[name] = value;
        }
        (event["facility_code"], event["severity_code"], event["format"]) = (json!(1), json!(5), json!(format));
        event
    };
    for text in ["<13>1 ", "<13>1 -", "<13>1 - - - - ", "<13>1 - - - -  -", "<13>1 - - - - -"] {
        assert_malformed(text.as_bytes(), "header", &prioritised(text, "raw"));
    }
    for text in ["1 of 25 wafers is late", "1", "12 wafers"] {
        assert_event(format!("<13>{text}").as_bytes(), &prioritised(text, "rfc3164"));
    }
    let mut wanted = prioritised("text", "rfc5424");
    (wanted["hostname"], wanted["timestamp"]) = (json!("h"), json!("2026-02-30T00:00:00Z"));
    assert_malformed(b"<13>1 2026-02-30T00:00:00Z h - - - - text", "time", &wanted);
    let mut wanted = prioritised("", "rfc5424");
    wanted["hostname"] = json!("h");
    let many = (0..65).map(|index| format!("[a{index}]")).collect::<Vec<_>>().concat();
    let params = format!("[a{}]", " b=\"\"".repeat(1025));
    for data in [
        "text",
        "",
        "-text",
        "--",
        "[",
        "[]",
        "[a",
        "[a b]",
        "[a b=c]",
        "[a b=\"c]",
        "[a b=\"c\"",
        "[a b=\"c\\\"]",
        "[a b=\"\\",
        "[a  b=\"c\"]",
        "[a b=\"c\"]text",
        "[a][a]",
        "[a=b]",
        "[a b=\"c\" ]",
        "[\u{e4}]",
        "[a ]",
        &many,
        &params,
    ] {
        wanted["message"] = json!(data);
        let message = format!("<13>1 - h - - - {data}");
        assert_malformed(message.as_bytes(), "structured_data", &wanted);
    }
}

#[test]
fn structured_data_keeps_every_value() {
    let data = |text: &str| event(format!("<13>1 - - - - - {text}").as_bytes(), End::Whole);
    let (found, malformed) = data(r#"[o@1 ip="1" a="x\"\\\]\n" ip="2" b=""][_spillway c="]["] text"#);
    assert_eq!(malformed, [""; 0]);
    let wanted = json!({"o@1": {"ip": ["1", "2"], "a": "x\"\\]\\n", "b": ""}, "_spillway": {"c": "]["}});
    assert_eq!((&found["structured_data"], &found["message"]), (&wanted, &json!("text")));
    let (found, _) = data(&format!("[a{}]", " b=\"c\"".repeat(1024)));
    assert_eq!(found["structured_data"]["a"]["b"].as_array().unwrap().len(), 1024);
}

#[test]
fn bytes_that_are_no_utf8_nuls_and_ends_are_told_apart() {
    let (found, malformed) = event(b"<13>1 - h\xff - - - [a b=\"\xc3\"] x\0y\xe2\x82z\r\n\0", End::Whole);
    assert_eq!(malformed, ["invalid_utf8"]);
    assert_eq!(found["hostname"], "h\u{fffd}");
    assert_eq!(found["structured_data"]["a"]["b"], "\u{fffd}");
    assert_eq!(found["message"], "x\0y\u{fffd}z");
    let (found, malformed) = event(b"<13>1 - - - - - - \xef\xbb\xbf\xef\xbb\xbf", End::Whole);
    assert_eq!((&found["message"], malformed), (&json!("\u{feff}"), vec![]), "one mark is none of the text");
    let (found, _) = event(b"<13>a\nb\x7f\x1b[0m\x0b", End::Whole);
    assert_eq!(found["message"], "a\nb\x7f\x1b[0m\x0b");
    assert_eq!((trimmed(b"\n\0\r"), trimmed(b""), trimmed(b"a\0\n")), (&b""[..], &b""[..], &b"a"[..]));
}

#[test]
fn a_message_that_is_cut_says_where() {
    let (found, malformed) = event(b"<13>hel", End::Half);
    assert_eq!((&found["message"], &found["malformed"], malformed), (&json!("hel"), &json!("half"), vec!["half"]));
    let (found, malformed) = event(b"no priority", End::TooLong(7));
    assert_eq!((&found["cut_bytes"], malformed), (&json!(7), vec!["too_long", "priority"]));
    // Whoever calls may give more than the most; the longest escapes to what an event has room for.
    let long = [b"<13>1 - - - - - - ".to_vec(), vec![1; MESSAGE_BYTES_MAX]].concat();
    let (found, malformed) = event(&long, End::Whole);
    assert_eq!((&found["cut_bytes"], malformed), (&json!(18), vec!["too_long"]));
    assert_eq!(found["message"].as_str().unwrap().len(), MESSAGE_BYTES_MAX - 18);
    event(&vec![0xff; MESSAGE_BYTES_MAX], End::Whole);
}

#[test]
fn a_peer_is_written_by_the_agent_alone() {
    let name = format!("a\"\u{1}{}", "\u{1}".repeat(300));
    let peer = Peer::new("::ffff:192.0.2.7".parse().unwrap(), Some(&name));
    assert!(peer.member.len() <= PEER_BYTES_MAX, "{}", peer.member.len());
    let mut out = Vec::new();
    decode(
        br#"<13>","peer":{"address":"1.2.3.4"},"x":""#,
        &About { received: RECEIVED, peer: &peer, end: End::Whole },
        &mut out,
    );
    let event: Value = serde_json::from_slice(&out).unwrap();
    assert_eq!(event["peer"]["address"], "192.0.2.7");
    assert!(event["peer"]["name"].as_str().unwrap().starts_with("a\"\u{1}"));
    assert_eq!(event["message"], "\",\"peer\":{\"address\":\"1.2.3.4\"},\"x\":\"");
}

impl Random {
    fn text(&mut self, alphabet: &[&str], most: usize) -> String {
        (0..self.place(most + 1)).map(|_| alphabet[self.place(alphabet.len())]).collect()
    }

    /// Returns a field of a header; `None` is `-`.
    fn field(&mut self) -> Option<String> {
        let text = self.text(&["a", "Z", "0", "-", "[", "]", "=", "\"", "<", ">", "%", "."], 12);
        Some(text).filter(|text| !text.is_empty() && text != "-")
    }
}

/// Writes what a sender of RFC 5424 means, and what its event is.
fn reference(random: &mut Random) -> (Vec<u8>, Value) {
    let priority = random.place(192);
    let nanos = RECEIVED + random.place(1 << 30) as i64 * 1_000_003_000;
    let time = jiff::Timestamp::from_nanosecond(nanos.into()).unwrap();
    let mut text = format!("<{priority}>1 {time}");
    let mut event = json!({
        "format": "rfc5424", "facility": FACILITIES[priority / 8], "severity": SEVERITIES[priority % 8],
        "facility_code": priority / 8, "severity_code": priority % 8, "time": format!("{time:.9}"),
    });
    for name in ["hostname", "app_name", "proc_id", "msg_id"] {
        let field = random.field();
        write!(text, " {}", field.as_deref().unwrap_or("-")).unwrap();
        if let Some(field) = field {
            event[name] = json!(field);
        }
    }
    let elements = random.place(4);
    text += if elements == 0 { " -" } else { " " };
    for index in 0..elements {
        let id = format!("{}{index}@32473", random.text(&["x", "\\", "[", "-"], 4));
        write!(text, "[{id}").unwrap();
        event["structured_data"][&id] = json!({});
        for _ in 0..random.place(5) {
            let name = ["ip", "a", "b\\", "c["][random.place(4)];
            let value = random.text(&["a", " ", "\"", "\\", "]", "[", "\u{e4}", "\n", "="], 8);
            let escaped = value.replace('\\', "\\\\").replace('"', "\\\"").replace(']', "\\]");
            write!(text, " {name}=\"{escaped}\"").unwrap();
            let known = &mut event["structured_data"][&id][name];
            match known.take() {
                Value::Null => *known = json!(value),
                Value::Array(mut values) => {
                    values.push(json!(value));
                    *known = Value::Array(values);
                }
                one => *known = json!([one, value]),
            }
        }
        text += "]";
    }
    let message = random.text(&["a", " ", "\"", "\\", "\u{e4}", "\u{1f600}", "\n", "\t", "\u{1}", "]", "x"], 40);
    let message = message.trim_end_matches('\n');
    match random.place(3) {
        0 if message.is_empty() => {}
        1 => write!(text, " \u{feff}{message}").unwrap(),
        _ => write!(text, " {message}").unwrap(),
    }
    event["message"] = json!(message);
    (text.into_bytes(), event)
}

#[test]
fn what_a_reference_encoder_writes_comes_back_whole() {
    let mut random = Random::new(11);
    for round in 0..10_000 {
        let (text, wanted) = reference(&mut random);
        let (found, malformed) = event(&text, End::Whole);
        assert_eq!((found, malformed), (wanted, vec![]), "round {round}: {}", String::from_utf8_lossy(&text));
    }
}

#[test]
fn whatever_the_bytes_are_an_event_comes_out_that_holds_their_text() {
    const PIECES: [&[u8]; 24] = [
        b"<13>",
        b"<",
        b">",
        b"1 ",
        b"- ",
        b"[",
        b"]",
        b"a",
        b"=\"",
        b"\"",
        b"\\",
        b" ",
        b"\n",
        b"\0",
        b"\xff",
        b"\xef\xbb\xbf",
        b"Oct 11 22:14:15 ",
        b"2026-10-11T22:14:15Z ",
        b"su[1]: ",
        b"h ",
        b":",
        b"9",
        b"\xf0\x9f\x98",
        b"{\"_spillway\":1}",
    ];
    let mut random = Random::new(12);
    for _ in 0..10_000 {
        let mut text = Vec::new();
        (0..random.place(24)).for_each(|_| text.extend_from_slice(PIECES[random.place(PIECES.len())]));
        let (found, _) = event(&text, End::Whole);
        let message = found["message"].as_str().unwrap();
        // Its end is that of the text, whatever was taken off its beginning.
        let lossy = String::from_utf8_lossy(trimmed(&text)).into_owned();
        assert!(lossy.ends_with(message), "{lossy:?}: {found}");
        if found["format"] == "raw" {
            assert_eq!(message, lossy);
        }
        for cut in 0..text.len().min(8) {
            event(&text[cut..], End::Half);
            event(&text[..cut], End::TooLong(1));
        }
    }
}
