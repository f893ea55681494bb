//! A reader that stands in a segment that goes.

use std::sync::Arc;

use spillway_delivery::event::{BatchBuilder, Origin};
use spillway_delivery::log::{Log, Masks, Pending, Progress};
use spillway_delivery::settings::{Durability, LogSettings};

use crate::model::ROUTES;
use crate::subject::{self, DIR, Subject};

/// Larger than what is read from a segment at once.
const EVENT_BYTES: usize = 300 << 10;

fn text(number: u64) -> String {
    format!("{{\"n\":{number},\"pad\":\"{}\"}}", "x".repeat(EVENT_BYTES))
}

async fn append(log: &Log, numbers: std::ops::Range<u64>) {
    for number in numbers {
        let mut builder = BatchBuilder::default();
        builder.push(text(number).as_bytes());
        let batch = builder.build(Arc::<Origin>::default(), 1);
        let pending = Pending { batch, masks: Masks::Uniform(0b111), unrouted: 0 };
        let reservation = log.reserve(pending.disk_bytes()).expect("there is room");
        log.append(reservation, pending).await.expect("nothing fails here");
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_in_a_segment_that_is_written_over_goes_on_behind_it() {
    let fs = subject::disk(1);
    // A segment has room for seven events.
    let settings =
        LogSettings { durability: Durability::Disk, bytes_max: 16 << 20, ..subject::settings(Durability::Disk) };
    let subject = Subject::open(&fs, settings, 1).unwrap();
    let log = &subject.log;
    append(log, 0..10).await;
    let mut reader = log.reader(0);
    let first = reader.read().await.unwrap();
    assert_eq!(first.len(), 1, "the reader is to stand within the segment");
    let mut progress = Progress::default();
    progress.resolve(0, first[0].end_seq() + 7);
    for route in 0..ROUTES.len() {
        assert!(subject.save(&subject::delivery(route), &progress, true).await.unwrap());
    }
    let spare = |path: &std::path::Path| path.extension().is_some_and(|extension| extension == "spare");
    assert!(fs.files().iter().any(|(path, _)| spare(path)), "nothing went: {:?}", fs.files());
    append(log, 10..20).await;
    assert!(!fs.files().iter().any(|(path, _)| path.starts_with(DIR) && spare(path)), "nothing was written over");
    let mut numbers = Vec::new();
    while reader.has_more() {
        for frame in reader.read().await.unwrap() {
            let (start, end) = frame.span(0);
            let number =
                (0..20).find(|number| frame.payload[start as usize..end as usize] == *text(*number).as_bytes());
            numbers.push((frame.first_seq - first[0].first_seq, number));
        }
    }
    assert!(numbers.iter().all(|(seq, number)| Some(*seq) == *number), "{numbers:?}");
    assert_eq!(numbers.last(), Some(&(19, Some(19))), "{numbers:?}");
    assert_eq!(log.damaged(), 0, "what went was delivered; it is no damage");
}
