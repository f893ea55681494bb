//! What an inspection says of a log that was damaged, or whose disk failed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use spillway_delivery::event::{BatchBuilder, Origin};
use spillway_delivery::filesystem::{Call, Fault, FaultyFs, Filesystem};
use spillway_delivery::log::{Inspection, Masks, Pending, SegmentInspection, inspect};

use crate::reading::{append, opened};
use crate::subject::DIR;

/// Inspects; returns what was found and the sequences of the events that were shown.
fn inspected(fs: &FaultyFs) -> (Inspection, Vec<u64>) {
    let fs: Arc<dyn Filesystem> = Arc::new(fs.clone());
    let mut shown = Vec::new();
    let found = inspect(&fs, Path::new(DIR), |id, _| shown.push(id.seq)).expect("what fails is said of its segment");
    assert_eq!(found.segments.iter().map(|segment| segment.events).sum::<u64>(), shown.len() as u64);
    (found, shown)
}

/// The log's segments and their lengths.
fn segments(fs: &FaultyFs) -> Vec<(PathBuf, u64)> {
    let is_segment = |path: &Path| path.starts_with(DIR) && path.extension().is_some_and(|name| name == "log");
    fs.files().into_iter().filter(|(path, _)| is_segment(path)).collect()
}

fn damaged(found: &Inspection) -> Vec<bool> {
    found.segments.iter().map(SegmentInspection::is_damaged).collect()
}

#[tokio::test(start_paused = true)]
async fn a_segment_that_was_cut_is_damaged_unless_it_is_the_last() {
    let (fs, subject) = opened();
    append(&subject.log, 0..20).await;
    let whole = inspected(&fs.kill());
    assert_eq!((damaged(&whole.0), whole.1.len()), (vec![false; 3], 20));
    for cut in 0..3 {
        let fs = fs.kill();
        let (path, length) = &segments(&fs)[cut];
        assert!(fs.cut(path, length / 2));
        let (found, shown) = inspected(&fs);
        let expected: Vec<bool> = (0..3).map(|index| index == cut && cut < 2).collect();
        assert_eq!(damaged(&found), expected, "{found:#?}");
        assert!(found.segments[cut].torn_bytes > 0 && found.segments[cut].lacks_end == (cut < 2), "{found:#?}");
        assert!(shown.len() < 20 && shown.iter().all(|seq| whole.1.contains(seq)), "{shown:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_frame_of_a_sealed_segment_is_no_torn_tail() {
    let (fs, subject) = opened();
    append(&subject.log, 0..20).await;
    let fs = fs.kill();
    let content = fs.content(&segments(&fs)[0].0).unwrap();
    let last = content.windows(4).rposition(|bytes| bytes == b"xxxx").unwrap();
    assert!(fs.flip_bit(&segments(&fs)[0].0, last as u64, 3));
    let (found, shown) = inspected(&fs);
    assert_eq!((damaged(&found), shown.len()), (vec![true, false, false], 19), "{found:#?}");
    assert!(found.segments[0].sealed && found.segments[0].lacks_end, "{found:#?}");
}

#[tokio::test(start_paused = true)]
async fn what_was_written_again_after_a_failed_sync_is_shown_once() {
    let (fs, subject) = opened();
    append(&subject.log, 0..3).await;
    let begin = subject.log.visible_end() - 3;
    fs.fail(Call::Sync, 0, Fault::Io);
    let mut builder = BatchBuilder::default();
    builder.push(b"{\"n\":3}");
    let batch = builder.build(Arc::<Origin>::default(), 1);
    let pending = Pending { batch, masks: Masks::Uniform(0b111), unrouted: 0, dropped: 0 };
    let reservation = subject.log.reserve(pending.disk_bytes()).unwrap();
    subject.log.append(reservation, pending).await.expect("it is written again");
    append(&subject.log, 4..6).await;
    let (found, shown) = inspected(&fs);
    assert_eq!(shown.iter().copied().collect::<BTreeSet<u64>>(), (begin..begin + 6).collect(), "{found:#?}");
    assert_eq!(shown.len(), 6, "each once: {found:#?}");
    assert_eq!(damaged(&found), [false, false], "{found:#?}");
    assert!(found.segments[0].hidden_bytes > 0, "{found:#?}");
}

#[tokio::test(start_paused = true)]
async fn a_read_error_is_that_of_its_segment_and_the_others_are_shown() {
    let (fs, subject) = opened();
    append(&subject.log, 0..20).await;
    let whole = inspected(&fs).0;
    for (call, skip) in [Call::Open, Call::Read].into_iter().flat_map(|call| (0..3).map(move |skip| (call, skip))) {
        let fs = fs.kill();
        fs.fail(call, skip, Fault::Io);
        let (found, _) = inspected(&fs);
        for (index, (found, whole)) in found.segments.iter().zip(&whole.segments).enumerate() {
            let fails = index as u64 == skip;
            assert_eq!((found.error.is_some(), found.is_damaged()), (fails, fails), "{found:#?}");
            assert!(found.events == whole.events || fails && found.events == 0, "{found:#?}");
        }
    }
    // Within the first segment, behind the headers of all.
    let fs = fs.kill();
    fs.fail(Call::Read, 6, Fault::Io);
    let (found, shown) = inspected(&fs);
    assert_eq!(damaged(&found), [true, false, false], "{found:#?}");
    assert!((13..20).contains(&shown.len()) && found.segments[0].readable, "{found:#?}");
}
