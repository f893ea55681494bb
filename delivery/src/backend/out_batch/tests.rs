use super::*;

fn batch() -> OutBatch {
    let name: Arc<str> = "p".into();
    let mut builder = OutBatchBuilder::new(&"ns".into(), &name, &"r".into());
    builder.begin_chunk(Bytes::from_static(b"{}\n{\"a\":1 }\n"), Arc::default(), 1, 0);
    builder.push(7, 0, 2);
    builder.push(9, 3, 11);
    builder.build("k")
}

#[test]
fn events_written_one_by_one_are_what_the_batch_writes() {
    for metadata in [Metadata::Full, Metadata::None] {
        let (mut whole, mut single) = (Vec::new(), Vec::new());
        let batch = batch();
        batch.write_ndjson(&mut whole, metadata);
        for run in batch.runs() {
            let tail = run.tail(metadata);
            run.events().for_each(|event| event.write_line(&mut single, &tail, b""));
        }
        assert_eq!(whole, single);
        let run = batch.runs().next().unwrap();
        for event in run.events() {
            let mut line = Vec::new();
            event.write_line(&mut line, &run.tail(metadata), b"\"x\":1");
            let line: serde_json::Value = serde_json::from_slice(&line).unwrap();
            assert_eq!((&line["x"], line.get("_spillway").is_some()), (&1.into(), metadata == Metadata::Full));
        }
    }
}

#[test]
fn a_part_has_the_events_it_was_told_as_they_were() {
    let mut builder = OutBatchBuilder::new(&"ns".into(), &"p".into(), &"r".into());
    for incarnation in 1..4_u64 {
        builder.begin_chunk(Bytes::from_static(b"{}\n{\"a\":1 }\n"), Arc::default(), incarnation, 7);
        builder.push(10 * incarnation, 0, 2);
        builder.push(10 * incarnation + 1, 3, 11);
    }
    let whole = builder.build("k");
    let part = whole.part(&[true, false, false, false, true, true], "other");
    let kept = [0, 4, 5];
    let expected: Vec<_> = whole.events().enumerate().filter(|(n, _)| kept.contains(n)).map(|(_, e)| e).collect();
    assert_eq!((part.key(), part.len(), part.payload_bytes(), part.runs().len()), ("other", 3, 12, 2));
    for (event, expected) in part.events().zip(&expected) {
        assert_eq!((event.id, event.bytes, event.received), (expected.id, expected.bytes, expected.received));
    }
}

#[test]
fn what_few_events_stand_in_is_let_go_of() {
    let payload = Bytes::from(format!("{{\"a\":1}}\n{{\"b\":2}}\n{}\n", "x".repeat(60)));
    for (held_bytes, is_copied) in [(payload.len(), true), (28, false), (29, true), (0, false)] {
        let mut builder = OutBatchBuilder::new(&"ns".into(), &"p".into(), &"r".into());
        builder.begin_chunk(payload.clone(), Arc::default(), 1, 7);
        builder.push(1, 0, 7);
        let before = builder.chunk_count();
        for incarnation in [1, 2] {
            builder.begin_chunk(payload.clone(), Arc::default(), incarnation, 7);
            builder.push(2, 8, 15);
        }
        builder.unpin(before, held_bytes);
        let batch = builder.build("k");
        let texts: Vec<&[u8]> = batch.events().map(|event| event.bytes).collect();
        assert_eq!(texts, [&b"{\"a\":1}"[..], b"{\"b\":2}", b"{\"b\":2}"]);
        let stands_in = |bytes: &[u8]| payload.as_ptr_range().contains(&bytes.as_ptr());
        let stand: Vec<bool> = texts.iter().map(|text| stands_in(text)).collect();
        assert_eq!(stand, [true, !is_copied, !is_copied], "{held_bytes}");
    }
}

#[test]
fn the_member_is_added_behind_the_last_one() {
    let mut out = Vec::new();
    batch().write_ndjson(&mut out, Metadata::Full);
    let lines: Vec<serde_json::Value> =
        out.split(|&b| b == b'\n').filter(|l| !l.is_empty()).map(|l| serde_json::from_slice(l).unwrap()).collect();
    assert_eq!(lines[0]["_spillway"]["id"], "0000000000000001-7");
    assert_eq!(lines[1]["a"], 1);
    assert_eq!(lines[1]["_spillway"]["received"], "1970-01-01T00:00:00.000000000Z");
    assert_eq!(lines[1]["_spillway"]["pipeline"], "p");
}

#[test]
fn an_array_holds_the_same_objects() {
    for metadata in [Metadata::Full, Metadata::None] {
        let (mut lines, mut array) = (Vec::new(), Vec::new());
        batch().write_ndjson(&mut lines, metadata);
        batch().write_json_array(&mut array, metadata);
        let joined = String::from_utf8(lines).unwrap().trim_end().replace('\n', ",");
        assert_eq!(String::from_utf8(array).unwrap(), format!("[{joined}]"));
    }
}

#[test]
fn without_metadata_the_event_is_the_event() {
    let mut out = Vec::new();
    batch().write_ndjson(&mut out, Metadata::None);
    assert_eq!(out, b"{}\n{\"a\":1 }\n");
}

#[test]
fn pieces_and_their_announced_length_are_the_whole() {
    let mut builder = OutBatchBuilder::new(&"ns".into(), &"p\"q".into(), &"r".into());
    let mut seq = 0x0f00;
    for (incarnation, events) in [(1, 1), (2, 400), (3, 0), (u64::MAX, 37)] {
        let lines = (0..events).map(|n| if n % 7 == 0 { "{}".to_owned() } else { format!("{{\"n\":{n} }}") });
        let lines: Vec<String> = lines.collect();
        builder.begin_chunk(lines.concat().into(), Arc::default(), incarnation, 1_700_000_000_000_000_001);
        let mut start = 0;
        for line in &lines {
            builder.push(seq, start, start + line.len() as u32);
            start += line.len() as u32;
            seq += 1;
        }
    }
    let batch = builder.build("k");
    for metadata in [Metadata::Full, Metadata::None] {
        let (mut whole, mut array) = (Vec::new(), Vec::new());
        batch.write_ndjson(&mut whole, metadata);
        batch.write_json_array(&mut array, metadata);
        for (form, whole) in [(Form::Lines, &whole), (Form::Array, &array)] {
            assert_eq!(batch.encoded_bytes(form, metadata), whole.len());
            for piece_bytes in [1, 100, 1000, 1 << 20] {
                let pieces: Vec<Bytes> = batch.pieces(form, piece_bytes, metadata, &Arenas::default()).collect();
                assert!(pieces.concat() == **whole);
                assert!(pieces.iter().rev().skip(1).all(|piece| piece.len() >= piece_bytes));
            }
        }
        let mut by_runs = Vec::new();
        for run in batch.runs() {
            let mut next = 0;
            while next < run.event_count() {
                let mut piece = Vec::new();
                next = run.write_ndjson(next..run.event_count(), 300, &mut piece, metadata);
                by_runs.extend(piece);
            }
        }
        assert!(by_runs == whole);
    }
}
