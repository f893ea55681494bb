use std::collections::BTreeSet;
use std::io::Read;

use bytes::Bytes;
use spillway_delivery::backend::OutBatchBuilder;
use spillway_delivery::clock::UnixNanos;
use spillway_delivery::event::OriginBuilder;

use super::*;
use crate::s3::key;

const NOON: UnixNanos = 1_700_049_600_000_000_000; // 2023-11-15T12:00:00Z

fn name() -> DeliveryName {
    DeliveryName {
        namespace: "fab12".into(),
        pipeline: "jobs".into(),
        route: "errors".into(),
        backend: "lake".into(),
        agent: "00000000000000a1".into(),
    }
}

fn keys(template: &str) -> Keys {
    Keys::new(&key::parse(template).unwrap(), name(), Compression::None)
}

fn pod(pod: &str) -> Arc<Origin> {
    OriginBuilder { pod: Some(pod.into()), ..OriginBuilder::default() }.build()
}

/// One run per entry; events are numbered over all of them.
fn batch(runs: &[(&Arc<Origin>, UnixNanos, &[&str])], key: &str) -> OutBatch {
    let mut builder = OutBatchBuilder::new(&"fab12".into(), &"jobs".into(), &"errors".into());
    let mut seq = 0;
    for (origin, received, events) in runs {
        let payload = events.join("\n");
        builder.begin_chunk(Bytes::from(payload), (*origin).clone(), 7, *received);
        let mut start = 0;
        for event in *events {
            builder.push(seq, start, start + event.len() as u32);
            start += event.len() as u32 + 1;
            seq += 1;
        }
    }
    builder.build(key)
}

fn text(batch: &OutBatch, object: &Object) -> String {
    String::from_utf8(body(batch, object, Metadata::None, Compression::None).unwrap()).unwrap()
}

#[test]
fn events_of_one_key_go_together_in_the_order_of_the_log() {
    let (a, b) = (pod("a"), pod("b"));
    let later = NOON + HOUR_NANOS;
    let runs: [(_, _, &[&str]); 4] = [
        (&a, NOON, &[r#"{"k":"x","n":0}"#, r#"{"k":"y","n":1}"#, r#"{"k":"x","n":2}"#]),
        (&b, NOON, &[r#"{"k":"x","n":3}"#]),
        (&a, NOON, &[r#"{"k":"x","n":4}"#]),
        (&a, later, &[r#"{"k":"x","n":5}"#]),
    ];
    let batch = batch(&runs, "p");
    let whole = |template: &str| {
        let sorted = keys(template).sort(&batch).unwrap();
        assert_eq!(sorted.rejected, []);
        let of = |object: &Object| {
            let numbers = text(&batch, object).lines().map(|line| line[line.len() - 2..][..1].to_owned()).collect();
            (object.key.replace(&object.id, "ID"), numbers)
        };
        sorted.objects.iter().map(of).collect::<Vec<(String, String)>>()
    };
    let expected = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(key, numbers)| ((*key).to_owned(), (*numbers).to_owned())).collect::<Vec<_>>()
    };
    assert_eq!(whole("{route}/{id}"), expected(&[("errors/ID", "012345")]));
    assert_eq!(
        whole("{date}T{hour}/{id}.x"),
        expected(&[("2023-11-15T12/ID.x", "01234"), ("2023-11-15T13/ID.x", "5")])
    );
    assert_eq!(whole("p/{origin.pod}/{id}"), expected(&[("p/a/ID", "01245"), ("p/b/ID", "3")]));
    assert_eq!(whole("p/{event.k}/{id}"), expected(&[("p/x/ID", "02345"), ("p/y/ID", "1")]));
}

#[test]
fn the_same_events_are_the_same_object_whatever_the_batch() {
    let a = pod("a");
    let runs: [(_, _, &[&str]); 1] = [(&a, NOON, &[r#"{"k":"x"}"#, r#"{"k":"y"}"#, r#"{"k":"x"}"#])];
    let keys = keys("p/{event.k}/{id}");
    let whole = keys.sort(&batch(&runs, "plan")).unwrap();
    assert_eq!(keys.sort(&batch(&runs, "another plan")).unwrap(), whole);
    // What is left when the object of x was taken and the one of y was not.
    let mut rest = OutBatchBuilder::new(&"fab12".into(), &"jobs".into(), &"errors".into());
    rest.begin_chunk(Bytes::from_static(br#"{"k":"y"}"#), a.clone(), 7, NOON);
    rest.push(1, 0, 9);
    let rest = keys.sort(&rest.build("planp1")).unwrap();
    assert_eq!((&rest.objects[0].key, &rest.objects[0].id), (&whole.objects[1].key, &whole.objects[1].id));
}

#[test]
fn other_events_or_another_delivery_are_another_object() {
    let a = pod("a");
    let some = batch(&[(&a, NOON, &["{}", "{}"])], "p");
    let template = key::parse("x/{id}").unwrap();
    let id = |name: DeliveryName, batch: &OutBatch| {
        Keys::new(&template, name, Compression::Gzip).sort(batch).unwrap().objects[0].id.clone()
    };
    let mut ids = vec![id(name(), &some), id(name(), &batch(&[(&a, NOON, &["{}", "{}", "{}"])], "p"))];
    ids.push(id(DeliveryName { route: "all".into(), ..name() }, &some));
    ids.push(id(DeliveryName { backend: "lak".into(), ..name() }, &some));
    ids.push(id(DeliveryName { pipeline: "jobse".into(), route: "rrors".into(), ..name() }, &some));
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len());
    assert!(ids.iter().all(|id| id.len() == 32));
}

#[test]
fn values_that_would_leave_their_place_are_rejected() {
    let long = format!(r#"{{"k":"{}"}}"#, "x".repeat(256));
    let events = [r#"{"k":"fine"}"#, r#"{"k":"../up"}"#, r#"{"k":".."}"#, r#"{"k":"a\nb"}"#, "{}", &long, r#"{"k":7}"#];
    let sorted = keys("p/{event.k}/{id}").sort(&batch(&[(&pod("a"), NOON, &events)], "p")).unwrap();
    let rejected: Vec<usize> = sorted.rejected.iter().map(|(number, _)| *number).collect();
    assert_eq!(rejected, [1, 2, 3, 4, 5]);
    assert!(sorted.rejected.iter().all(|(_, reason)| reason.starts_with("{event.k} ") && !reason.contains('\n')));
    let ranges: Vec<_> = sorted.objects.iter().flat_map(|object| object.ranges.clone()).collect();
    assert_eq!(ranges, [0..1, 6..7]);
    let pieces = "{event.a}-{event.b}-{event.c}-{event.d}-{event.e}";
    let event: Vec<String> = "abcde".chars().map(|name| format!("\"{name}\":\"{}\"", "x".repeat(250))).collect();
    let event = format!("{{{}}}", event.join(","));
    let sorted = keys(&format!("p/{pieces}/{{id}}")).sort(&batch(&[(&pod("a"), NOON, &[&event])], "p")).unwrap();
    assert_eq!(sorted.rejected, [(0, "the key is longer than 1024 bytes".to_owned())]);
}

#[test]
fn more_than_64_objects_are_too_many() {
    let events: Vec<String> = (0..65).map(|n| format!("{{\"k\":{n}}}")).collect();
    let events: Vec<&str> = events.iter().map(String::as_str).collect();
    let keys = keys("p/{event.k}/{id}");
    assert_eq!(keys.sort(&batch(&[(&pod("a"), NOON, &events[..64])], "p")).unwrap().objects.len(), 64);
    let fault = keys.sort(&batch(&[(&pod("a"), NOON, &events)], "p")).unwrap_err();
    assert_eq!(fault.kind, FaultKind::TooLarge);
}

#[test]
fn an_extension_is_added_where_it_is_not_there() {
    let batch = batch(&[(&pod("a"), NOON, &["{}"])], "p");
    for (template, compression, end) in [
        ("x/{id}.ndjson", Compression::Gzip, ".ndjson.gz"),
        ("x/{id}.ndjson.gz", Compression::Gzip, ".ndjson.gz"),
        ("x/{id}", Compression::Zstd, ".zst"),
        ("x/{id}.json.zst", Compression::Zstd, ".json.zst"),
        ("x/{id}.ndjson", Compression::None, ".ndjson"),
    ] {
        let keys = Keys::new(&key::parse(template).unwrap(), name(), compression);
        let object = &keys.sort(&batch).unwrap().objects[0];
        assert_eq!(object.key, format!("x/{}{end}", object.id));
    }
}

#[test]
fn every_compression_holds_the_events_and_is_the_same_each_time() {
    let (a, b) = (pod("a"), pod("b"));
    let many: Vec<String> = (0..3000).map(|n| format!("{{\"n\":{n},\"k\":{}}}", n % 3)).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let batch = batch(&[(&a, NOON, &many), (&b, NOON, &many[..10]), (&a, NOON, &many)], "p");
    for template in ["x/{id}", "x/{event.k}/{id}"] {
        for metadata in [Metadata::Full, Metadata::None] {
            let mut expected = Vec::new();
            batch.write_ndjson(&mut expected, metadata);
            let mut expected: Vec<&str> = std::str::from_utf8(&expected).unwrap().lines().collect();
            let sorted = keys(template).sort(&batch).unwrap();
            for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
                let mut found = String::new();
                for object in &sorted.objects {
                    let bytes = body(&batch, object, metadata, compression).unwrap();
                    assert!(bytes == body(&batch.clone(), object, metadata, compression).unwrap());
                    found.push_str(&unpacked(&bytes, compression));
                }
                let mut found: Vec<&str> = found.lines().collect();
                if sorted.objects.len() > 1 {
                    found.sort_unstable();
                    expected.sort_unstable();
                }
                assert!(found == expected, "{template} {compression:?}");
            }
        }
    }
}

fn unpacked(bytes: &[u8], compression: Compression) -> String {
    let mut text = String::new();
    match compression {
        Compression::None => text.push_str(std::str::from_utf8(bytes).unwrap()),
        Compression::Gzip => drop(flate2::read::GzDecoder::new(bytes).read_to_string(&mut text).unwrap()),
        Compression::Zstd => text = String::from_utf8(zstd::decode_all(bytes).unwrap()).unwrap(),
    }
    text
}
