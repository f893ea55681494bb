use super::*;

fn header(dropped: u64) -> SegmentHeader {
    let mut state = State::default();
    state.totals.dropped = dropped;
    SegmentHeader {
        incarnation: 1,
        ordinal: 2,
        base_seq: 3,
        running_ms: 4,
        created: 5,
        stale_end: 0,
        routes: Arc::from(["a".into()]),
        state,
        follows_seq: 3,
        in_memory: true,
    }
}

#[test]
fn what_was_dropped_is_stored_and_is_none_where_an_earlier_program_wrote() {
    let bytes = header(7).encode();
    assert_eq!(SegmentHeader::decode(&bytes), Some(header(7)));
    let mut earlier = bytes[..bytes.len() - 8].to_vec();
    let body = earlier.split_off(PREAMBLE_BYTES);
    earlier.truncate(8);
    earlier.put_u32(body.len() as u32);
    earlier.put_u32(crc32c::crc32c(&body));
    earlier.extend_from_slice(&body);
    assert_eq!(SegmentHeader::decode(&earlier), Some(header(0)));
}

#[test]
fn a_frame_and_a_footer_bring_what_was_dropped() {
    let segment = header(0);
    let place = Place { synced: 0, seed: segment.seed() };
    for dropped in [0, 9] {
        let frame = Frame {
            first_seq: 3,
            incarnation: segment.incarnation,
            received: 1,
            running_ms: 1,
            origin: Arc::default(),
            routes: segment.routes.clone(),
            masks: Masks::Uniform(1),
            ends: vec![3],
            payload: Bytes::from_static(b"{}\n"),
            unrouted: 2,
            dropped,
            position: Some(Position { source: "s".into(), value: None }),
            key: Some(IdempotencyKey { sender: "s".into(), key: "k".into(), body_hash: 1 }),
        };
        let mut bytes = Vec::new();
        encode_data(&mut bytes, &frame, 0, place);
        assert_eq!(bytes.len(), FRAME_HEADER_BYTES + 8 + 4 + 10 + 26 + if dropped > 0 { 4 } else { 0 });
        bytes.extend_from_slice(&frame.payload);
        let header = FrameHeader::decode(&bytes).unwrap();
        let Some(Decoded::Data { frame: read, .. }) = decode_frame(&bytes.into(), &header, &segment) else {
            panic!("no frame of data");
        };
        assert_eq!((read.dropped, read.unrouted, read.key.is_some()), (dropped, 2, true));
    }
    let mut state = State::default();
    state.totals.dropped = 11;
    let footer = Footer { summary: Summary::new(3, 1), origins: Vec::new(), running_ms: 1, state };
    let bytes = Bytes::from(footer.encode(place));
    let header = FrameHeader::decode(&bytes).unwrap();
    let Some(Decoded::Footer(read)) = decode_frame(&bytes, &header, &segment) else { panic!("no footer") };
    assert_eq!(*read, footer);
}
