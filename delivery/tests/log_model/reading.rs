//! A reader that stands in a segment that goes.

use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use spillway_delivery::event::{BatchBuilder, Origin};
use spillway_delivery::filesystem::{FaultyFs, Filesystem, RealFs};
use spillway_delivery::log::{Log, Masks, Pending, Progress, inspect};
use spillway_delivery::settings::{Durability, LogSettings};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::model::ROUTES;
use crate::subject::{self, DIR, Subject};

/// Larger than what is read from a segment at once.
const EVENT_BYTES: usize = 300 << 10;

fn text(number: u64) -> String {
    format!("{{\"n\":{number},\"pad\":\"{}\"}}", "x".repeat(EVENT_BYTES))
}

pub(crate) async fn append(log: &Log, numbers: std::ops::Range<u64>) {
    for number in numbers {
        let mut builder = BatchBuilder::default();
        builder.push(text(number).as_bytes());
        let batch = builder.build(Arc::<Origin>::default(), 1);
        let pending = Pending { batch, masks: Masks::Uniform(0b111), unrouted: 0, dropped: 0 };
        let reservation = log.reserve(pending.disk_bytes()).expect("there is room");
        log.append(reservation, pending).await.expect("nothing fails here");
    }
}

/// A log whose segments have room for seven events.
pub(crate) fn opened() -> (FaultyFs, Subject) {
    opened_for(16 << 20)
}

fn opened_for(bytes_max: u64) -> (FaultyFs, Subject) {
    let fs = subject::disk(1);
    let settings = LogSettings { durability: Durability::Disk, bytes_max, ..subject::settings(Durability::Disk) };
    let subject = Subject::open(&fs, settings, 1).expect("the directory can be made");
    (fs, subject)
}

/// Resolves everything below a sequence for every delivery, for good.
async fn deliver_all(subject: &Subject, end: u64) {
    let mut progress = Progress::default();
    progress.resolve(0, end);
    for route in 0..ROUTES.len() {
        assert!(subject.save(&subject::delivery(route), &progress, true).await.expect("an answer"));
    }
}

/// Returns how many files wait to be written over.
fn spares(fs: &FaultyFs) -> usize {
    let is_spare = |path: &Path| path.extension().is_some_and(|extension| extension == "spare");
    fs.files().iter().filter(|(path, _)| path.starts_with(DIR) && is_spare(path)).count()
}

#[tokio::test(start_paused = true)]
async fn a_reader_in_a_segment_that_is_written_over_goes_on_behind_it() {
    let (fs, subject) = opened();
    let log = &subject.log;
    append(log, 0..10).await;
    let mut reader = log.reader(0);
    let first = reader.read().await.unwrap();
    assert_eq!(first.len(), 1, "the reader is to stand within the segment");
    deliver_all(&subject, first[0].end_seq() + 7).await;
    assert_eq!(spares(&fs), 1, "nothing went: {:?}", fs.files());
    append(log, 10..20).await;
    assert_eq!(spares(&fs), 0, "nothing was written over");
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

#[tokio::test(start_paused = true)]
async fn an_inspection_while_segments_are_written_over_shows_no_wrong_event_and_no_damage() {
    let (fs, subject) = opened();
    append(&subject.log, 0..20).await;
    let begin = subject.log.visible_end() - 20;
    // It stands within the first segment until two of the three have gone and are written over.
    let ((met, first), (go_on, wait)) = (oneshot::channel(), mpsc::sync_channel::<()>(1));
    let below: Arc<dyn Filesystem> = Arc::new(fs.clone());
    // Paused time stands still while the runtime's own threads work.
    let inspection = std::thread::spawn(move || {
        let (mut met, mut shown) = (Some(met), Vec::new());
        let found = inspect(&below, Path::new(DIR), |id, event| {
            shown.push((id.seq - begin, (0..40).find(|number| event == text(*number).as_bytes())));
            if let Some(met) = met.take() {
                met.send(()).unwrap();
                wait.recv().unwrap();
            }
        });
        (found, shown)
    });
    first.await.unwrap();
    deliver_all(&subject, begin + 15).await;
    assert_eq!(spares(&fs), 2);
    append(&subject.log, 20..40).await;
    assert_eq!(spares(&fs), 0, "nothing was written over");
    go_on.send(()).unwrap();
    let (found, shown) = inspection.join().unwrap();
    let found = found.expect("a segment that goes while it is read is no error");
    assert!(shown.iter().all(|(seq, number)| Some(*seq) == *number), "{shown:?}");
    assert!(shown.iter().any(|(seq, _)| *seq == 19), "what is still there is shown: {shown:?}");
    assert!(found.segments.iter().all(|segment| segment.readable && segment.damaged == 0), "{found:#?}");
}

/// Returns how many segments below a folder this process has open, whether they have a name still or not.
fn open_segments(folder: &Path) -> usize {
    let open = std::fs::read_dir("/proc/self/fd")
        .expect("Linux tells")
        .filter_map(|one| std::fs::read_link(one.ok()?.path()).ok());
    open.filter(|path| path.starts_with(folder) && path.to_str().is_some_and(|path| path.contains(".log"))).count()
}

#[tokio::test]
async fn a_reader_that_has_caught_up_holds_no_segment_open() {
    let folder = tempfile::tempdir().unwrap();
    let fs: Arc<dyn Filesystem> = Arc::new(RealFs);
    let settings =
        LogSettings { durability: Durability::Disk, bytes_max: 64 << 20, ..subject::settings(Durability::Disk) };
    let subject = Subject::open_at(fs, folder.path(), settings, 1).expect("the directory can be made");
    let log = &subject.log;
    append(log, 0..20).await;
    let mut reader = log.reader(0);
    // At first from the disk, then from memory, over several segments.
    for number in 20..80 {
        while reader.has_more() {
            reader.read().await.unwrap();
        }
        append(log, number..number + 1).await;
    }
    let segments = std::fs::read_dir(folder.path()).unwrap().count();
    assert!(segments > 3, "{segments} files");
    assert_eq!(open_segments(folder.path()), 1, "the one that is written to");
}

/// How long a source waits for the readers of a log.
async fn wait_of(log: &Log) -> Duration {
    let begun = Instant::now();
    log.followed().await;
    begun.elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_source_waits_a_little_for_a_reader_that_keeps_up_and_for_no_other() {
    let (_fs, subject) = opened_for(64 << 20);
    let log = &subject.log;
    let mut reader = log.reader(log.visible_end());
    // 300 KiB each: below the bound, then above it.
    append(log, 0..15).await;
    assert_eq!(wait_of(log).await, Duration::ZERO);
    append(log, 15..30).await;
    assert!((15..40).contains(&wait_of(log).await.as_millis()), "for one that stands still it does not wait for ever");
    let reads = async {
        tokio::time::sleep(Duration::from_millis(5)).await;
        while reader.has_more() {
            reader.read().await.unwrap();
        }
        reader
    };
    let (waited, mut reader) = tokio::join!(wait_of(log), reads);
    assert_eq!(waited, Duration::from_millis(5), "it goes on as soon as that one has read");
    // More than is kept in memory: from then on it reads from the segments.
    append(log, 30..80).await;
    assert_eq!(wait_of(log).await, Duration::ZERO);
    assert!(reader.read().await.unwrap()[0].end_seq() > 0);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_keeps_up_reads_nothing_back_from_the_disk() {
    for level in [Durability::Disk, Durability::Process] {
        let fs = subject::disk(1);
        let settings = LogSettings { durability: level, bytes_max: 64 << 20, ..subject::settings(level) };
        let subject = Subject::open(&fs, settings, 1).expect("the directory can be made");
        let mut reader = subject.log.reader(subject.log.visible_end());
        let before = fs.counts();
        for number in 0..40 {
            append(&subject.log, number..number + 1).await;
            assert_eq!(reader.read().await.unwrap().len(), 1);
        }
        let after = fs.counts();
        assert_eq!(after.reads - before.reads, 0, "{level:?}");
        assert!(
            after.written_bytes - before.written_bytes > 40 * EVENT_BYTES as u64,
            "{level:?}: it is on the disk as well"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn requests_that_come_together_share_a_sync() {
    let (fs, subject) = opened_for(64 << 20);
    let before = fs.counts().syncs;
    let pending = |number: u64| {
        let mut builder = BatchBuilder::default();
        builder.push(format!("{{\"n\":{number}}}").as_bytes());
        Pending {
            batch: builder.build(Arc::<Origin>::default(), 1),
            masks: Masks::Uniform(0b111),
            unrouted: 0,
            dropped: 0,
        }
    };
    let answers = subject.append((0..200).map(pending).collect()).await.expect("an answer");
    assert!(answers.iter().all(Result::is_ok));
    let syncs = fs.counts().syncs - before;
    assert!((1..=4).contains(&syncs), "{syncs} syncs for 200 requests");
}
