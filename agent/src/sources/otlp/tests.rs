//! Requests in both encodings become the same events; what is no request changes nothing.

use serde_json::{Value as Json, json};
use spillway_delivery::event::EVENT_BYTES_MAX;
use spillway_delivery::json::validate_object;

use super::json::to_wire;
use super::wire::{put_bytes, put_fixed64};
use super::write::{DEPTH_MAX, Error, Refusal, Signal, Written, events, span};

/// Writes the events of a request in OTLP's JSON.
fn written(signal: Signal, request: &Json) -> Written {
    let wire = to_wire(signal.request(), request.to_string().as_bytes()).unwrap();
    events(signal, &wire, Vec::new(), 16 << 20).unwrap()
}

/// Returns the events as values, each of which is one line of JSON.
fn values(written: &Written) -> Vec<Json> {
    let event = |index| {
        let line = &written.payload[span(&written.ends, index)];
        assert_eq!(line.last(), Some(&b'\n'));
        validate_object(&line[..line.len() - 1]).unwrap();
        serde_json::from_slice(line).unwrap()
    };
    (0..written.ends.len()).map(event).collect()
}

fn logs(records: &Json) -> Json {
    json!({"resourceLogs": [{
        "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "etcher"}}]},
        "scopeLogs": [{"scope": {"name": "io.lib", "version": "1.2"}, "logRecords": records}],
        "schemaUrl": "https://opentelemetry.io/schemas/1.27.0",
    }]})
}

#[test]
fn a_log_record_is_an_event_with_its_resource_and_scope() {
    let request = logs(&json!([
        {
            "timeUnixNano": "1544712660300000000", "observedTimeUnixNano": "1544712661000000000",
            "severityNumber": 17, "severityText": "Error",
            "traceId": "5b8efff798038103d269b633813fc60c", "spanId": "EEE19B7EC3C1B174",
            "body": {"stringValue": "chamber \"3\"\n"},
            "attributes": [
                {"key": "int", "value": {"intValue": "-7"}}, {"key": "yes", "value": {"boolValue": true}},
                {"key": "double", "value": {"doubleValue": 1.5}}, {"key": "none", "value": {}},
                {"key": "bytes", "value": {"bytesValue": "AQI="}},
                {"key": "list", "value": {"arrayValue": {"values": [{"stringValue": "a"}, {"doubleValue": "NaN"}]}}},
                {"key": "map", "value": {"kvlistValue": {"values": [{"key": "k", "value": {"intValue": 1}}]}}},
                {"key": "empty", "value": {"arrayValue": {}}},
            ],
            "flags": 1, "eventName": "etch.done", "droppedAttributesCount": 2, "laterField": {"x": [1]},
        },
        {"body": {"kvlistValue": {"values": [{"key": "a", "value": {"intValue": 1}}]}}},
        {},
    ]));
    let around = json!({
        "signal": "log", "resource": {"attributes": {"service.name": "etcher"}},
        "scope": {"name": "io.lib", "version": "1.2"}, "schema_url": "https://opentelemetry.io/schemas/1.27.0",
    });
    let with = |more: Json| {
        let mut event = around.clone();
        event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        event
    };
    let first = with(json!({
        "time": "2018-12-13T14:51:00.300000000Z", "observed_time": "2018-12-13T14:51:01.000000000Z",
        "severity_number": 17, "severity": "Error", "message": "chamber \"3\"\n",
        "trace_id": "5b8efff798038103d269b633813fc60c", "span_id": "eee19b7ec3c1b174",
        "attributes": {
            "int": -7, "yes": true, "double": 1.5, "none": null, "bytes": "AQI=", "list": ["a", "NaN"], "map": {"k": 1},
            "empty": [],
        },
        "flags": 1, "event_name": "etch.done", "dropped_attributes_count": 2,
    }));
    let written = written(Signal::Logs, &request);
    assert_eq!(values(&written), [first, with(json!({"body": {"a": 1}})), around]);
    assert_eq!(written.refused, [0; 3]);
}

#[test]
fn each_point_of_a_metric_is_an_event() {
    let point = json!({"timeUnixNano": "1", "startTimeUnixNano": 2});
    let with = |more: Json| {
        let mut point = point.clone();
        point.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        point
    };
    let request = json!({"resourceMetrics": [{"scopeMetrics": [{"metrics": [
        {"name": "temperature", "unit": "Cel", "description": "of the chamber", "gauge": {"dataPoints": [
            with(json!({"asDouble": 21.5, "attributes": [{"key": "zone", "value": {"intValue": "1"}}]})),
            with(json!({"asInt": "-3"})),
        ]}},
        {"name": "wafers", "sum": {"aggregationTemporality": 2, "isMonotonic": true, "dataPoints": [with(json!({
            "asInt": 7, "exemplars": [{"asDouble": 1.0, "traceId": "5b8efff798038103d269b633813fc60c"}],
        }))]}},
        {"name": "duration", "histogram": {"aggregationTemporality": 1, "dataPoints": [with(json!({
            "count": "3", "sum": 6.0, "bucketCounts": ["1", 2, "0"], "explicitBounds": [1, 2.5], "min": 0.5, "max": 2.0,
        }))]}},
        {"name": "size", "exponentialHistogram": {"dataPoints": [with(json!({
            "count": 3, "scale": -2, "zeroCount": "1", "positive": {"offset": -1, "bucketCounts": ["2", 300]},
        }))]}},
        {"name": "old", "summary": {"dataPoints": [with(json!({
            "count": 1, "sum": 2, "quantileValues": [{"quantile": 0.5, "value": 2}],
        }))]}},
    ]}]}]});
    let written = written(Signal::Metrics, &request);
    let time = json!({
        "signal": "metric", "time": "1970-01-01T00:00:00.000000001Z", "start_time": "1970-01-01T00:00:00.000000002Z",
    });
    let event = |more: Json| {
        let mut event = time.clone();
        event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        event
    };
    let gauge = json!({"metric": "temperature", "unit": "Cel", "description": "of the chamber", "type": "gauge"});
    let gauge = |more: Json| {
        let mut event = event(gauge.clone());
        event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        event
    };
    let expected = [
        gauge(json!({"value": 21.5, "attributes": {"zone": 1}})),
        gauge(json!({"value": -3})),
        event(json!({
            "metric": "wafers", "type": "sum", "temporality": "cumulative", "monotonic": true, "value": 7,
            "exemplars": [{"value": 1.0, "trace_id": "5b8efff798038103d269b633813fc60c"}],
        })),
        event(json!({
            "metric": "duration", "type": "histogram", "temporality": "delta", "count": 3, "sum": 6.0,
            "bucket_counts": [1, 2, 0], "explicit_bounds": [1.0, 2.5], "min": 0.5, "max": 2.0,
        })),
        event(json!({
            "metric": "size", "type": "exponential_histogram", "count": 3, "scale": -2, "zero_count": 1,
            "positive": {"offset": -1, "bucket_counts": [2, 300]},
        })),
        event(json!({
            "metric": "old", "type": "summary", "count": 1, "sum": 2.0, "quantiles": [{"quantile": 0.5, "value": 2.0}],
        })),
    ];
    assert_eq!(values(&written), expected);
}

#[test]
fn a_span_is_an_event_with_what_happened_in_it() {
    let request = json!({"resourceSpans": [{"scopeSpans": [{"spans": [{
        "traceId": "5b8efff798038103d269b633813fc60c", "spanId": "eee19b7ec3c1b174", "parentSpanId": "eee19b7ec3c1b173",
        "name": "etch", "kind": 2, "startTimeUnixNano": "1000000000", "endTimeUnixNano": "3000000000",
        "events": [{"timeUnixNano": "2000000000", "name": "open"}, {"name": "close"}],
        "links": [{"spanId": "eee19b7ec3c1b172"}],
        "status": {"code": 2, "message": "no vacuum"},
    }, {"kind": 99}]}]}]});
    let expected = [
        json!({
            "signal": "span", "trace_id": "5b8efff798038103d269b633813fc60c", "span_id": "eee19b7ec3c1b174",
            "parent_span_id": "eee19b7ec3c1b173", "name": "etch", "kind": "server",
            "time": "1970-01-01T00:00:01.000000000Z", "end_time": "1970-01-01T00:00:03.000000000Z",
            "events": [{"time": "1970-01-01T00:00:02.000000000Z", "name": "open"}, {"name": "close"}],
            "links": [{"span_id": "eee19b7ec3c1b172"}], "status": {"code": "error", "message": "no vacuum"},
        }),
        json!({"signal": "span", "kind": 99}),
    ];
    assert_eq!(values(&written(Signal::Traces, &request)), expected);
}

#[test]
fn values_of_one_list_count_wherever_they_stand_and_packed_or_not() {
    // Of a histogram: a count, a time in between, two counts packed, and one more.
    let (mut point, mut data, mut metric) = (Vec::new(), Vec::new(), Vec::new());
    put_fixed64(&mut point, 6, 1);
    put_fixed64(&mut point, 3, 5);
    put_bytes(&mut point, 6, &[2_u64.to_le_bytes(), 3_u64.to_le_bytes()].concat());
    put_fixed64(&mut point, 6, 4);
    put_bytes(&mut data, 1, &point);
    put_bytes(&mut metric, 9, &data);
    put_bytes(&mut metric, 1, b"late name");
    let written = events(Signal::Metrics, &request(&metric), Vec::new(), 1 << 20).unwrap();
    let value = &values(&written)[0];
    assert_eq!((&value["bucket_counts"], &value["metric"]), (&json!([1, 2, 3, 4]), &json!("late name")));
}

/// Returns a request of one record.
fn request(record: &[u8]) -> Vec<u8> {
    let (mut of_scope, mut of_resource, mut request) = (Vec::new(), Vec::new(), Vec::new());
    put_bytes(&mut of_scope, 2, record);
    put_bytes(&mut of_resource, 2, &of_scope);
    put_bytes(&mut request, 1, &of_resource);
    request
}

#[test]
fn a_record_that_is_no_event_is_refused_alone() {
    let nested = |depth: u32| {
        let mut value = json!({"intValue": 1});
        for _ in 1..depth {
            value = json!({"arrayValue": {"values": [value]}});
        }
        json!({"body": value})
    };
    let large = "x".repeat(EVENT_BYTES_MAX);
    let request = logs(&json!([
        {"body": {"stringValue": "first"}},
        {"body": {"stringValue": large}},
        nested(20),
        {"timeUnixNano": "18446744073709551615"},
        {"body": {"stringValue": "\u{0}".repeat(EVENT_BYTES_MAX / 2)}},
        {"body": {"stringValue": "last"}},
    ]));
    // Where the limits of the JSON reader end, protobuf goes on.
    let mut wire = to_wire(Signal::Logs.request(), request.to_string().as_bytes()).unwrap();
    for depth in [DEPTH_MAX, DEPTH_MAX + 1] {
        let mut value = Vec::new();
        put_bytes(&mut value, 1, b"x");
        for _ in 1..depth {
            let (mut list, mut outer) = (Vec::new(), Vec::new());
            put_bytes(&mut list, 1, &value);
            put_bytes(&mut outer, 5, &list);
            value = outer;
        }
        let mut record = Vec::new();
        put_bytes(&mut record, 5, &value);
        wire.extend(self::request(&record));
    }
    let written = events(Signal::Logs, &wire, Vec::new(), 16 << 20).unwrap();
    let messages: Vec<Json> = values(&written).iter().map(|event| event["message"].clone()).collect();
    assert_eq!(messages, [json!("first"), Json::Null, json!("last"), Json::Null]);
    let mut refused = [0; 3];
    refused[Refusal::TooLarge as usize] = 2;
    refused[Refusal::TooDeep as usize] = 1;
    refused[Refusal::Time as usize] = 1;
    assert_eq!(written.refused, refused);
}

#[test]
fn the_room_of_all_events_has_a_bound_although_a_resource_is_told_once() {
    let records: Vec<Json> = (0..1000).map(|_| json!({})).collect();
    let mut request = logs(&json!(records));
    request["resourceLogs"][0]["resource"]["attributes"][0]["value"]["stringValue"] = json!("x".repeat(100_000));
    let wire = to_wire(Signal::Logs.request(), request.to_string().as_bytes()).unwrap();
    assert_eq!(events(Signal::Logs, &wire, Vec::new(), 16 << 20).err(), Some(Error::Room));
}

#[test]
fn no_bytes_make_it_panic_or_write_what_is_no_json() {
    let whole = to_wire(
        Signal::Traces.request(),
        json!({"resourceSpans": [{"scopeSpans": [{"spans": [
            {"name": "a", "attributes": [{"key": "k", "value": {"kvlistValue": {"values": [{"key": "k"}]}}}]},
        ]}]}]})
        .to_string()
        .as_bytes(),
    )
    .unwrap();
    let mut outcomes = [0, 0];
    for signal in [Signal::Logs, Signal::Metrics, Signal::Traces] {
        for at in 0..whole.len() {
            for byte in [0, 1, 8, 10, 0x7f, 0x80, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] = byte;
                let written = events(signal, &bytes, Vec::new(), 1 << 20);
                outcomes[usize::from(written.is_ok())] += 1;
                drop(written.map(|written| values(&written)));
            }
            drop(events(signal, &whole[..at], Vec::new(), 1 << 20).map(|written| values(&written)));
        }
    }
    assert!(outcomes.iter().all(|count| *count > 50), "{outcomes:?}");
}

#[test]
fn what_is_no_request_in_json_is_told_with_its_place() {
    for (body, why) in [
        (r#"{"resourceLogs": 5}"#, "`resourceLogs` cannot be a number at line 1 column 18"),
        (r#"{"resourceLogs": [[]]}"#, "`resourceLogs` cannot be a list"),
        (r#"{"resourceLogs": [{"scopeLogs": [{"logRecords": [{"timeUnixNano": "x"}]}]}]}"#, "`timeUnixNano` cannot be"),
        (r#"{"resourceLogs": [{"scopeLogs": [{"logRecords": [{"timeUnixNano": -1}]}]}]}"#, "-1 is out of the range"),
        (r#"{"resourceLogs": [{"scopeLogs": [{"logRecords": [{"traceId": "abc"}]}]}]}"#, "hexadecimal"),
        (r#"{"resourceLogs": [{"scopeLogs": [{"logRecords": [{"severityNumber": 1.5}]}]}]}"#, "no integer"),
        ("[]", "expected an object"),
        ("", "EOF"),
        ("{} {}", "trailing"),
    ] {
        let error = to_wire(Signal::Logs.request(), body.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(why), "{body}: {error}");
    }
    let nulls = r#"{"resourceLogs": [{"resource": null, "scopeLogs": [{"logRecords": [{"body": null}]}]}], "x": null}"#;
    let wire = to_wire(Signal::Logs.request(), nulls.as_bytes()).unwrap();
    assert_eq!(values(&events(Signal::Logs, &wire, Vec::new(), 1000).unwrap()), [json!({"signal": "log"})]);
    let unknown = format!("{}1{}", r#"{"x":"#.repeat(200), "}".repeat(200));
    assert_eq!(to_wire(Signal::Logs.request(), unknown.as_bytes()).unwrap(), b"", "passed over, however deep");
    let value = format!("{}{{}}{}", r#"{"arrayValue":{"values":["#.repeat(50), "]}}".repeat(50));
    let deep = format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{{"body":{value}}}]}}]}}]}}"#);
    assert!(to_wire(Signal::Logs.request(), deep.as_bytes()).unwrap_err().to_string().contains("recursion"));
}
