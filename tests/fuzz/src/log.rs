//! The files of a log, changed at will, and a start with them.
//!
//! Each four bytes say one change: which file, what is done, and where.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use spillway_delivery::event::{BatchBuilder, Origin};
use spillway_delivery::filesystem::{FaultyFs, Filesystem};
use spillway_delivery::log::{LogCore, Masks, OpenOptions, Pending, inspect, scan};
use spillway_delivery::settings::Durability;

const DIR: &str = "/data/spool/fuzz";

/// Most changes of one run.
const CHANGES_MAX: usize = 64;

/// Batches, and events of each.
const BATCHES: u64 = 12;
const EVENTS: u64 = 5;

fn options(incarnation: u64) -> OpenOptions {
    OpenOptions {
        dir: DIR.into(),
        durability: Durability::Disk,
        bytes_max: 4 << 20,
        routes: vec!["all".into()],
        incarnation,
        seq_min: 0,
        now: 1,
    }
}

fn text(number: u64) -> String {
    format!("{{\"n\":{number}}}")
}

/// Returns a disk with a log of two segments, the second without its end, and the sequence of its first event.
fn written() -> (FaultyFs, u64) {
    let fs = FaultyFs::new(1);
    fs.put(Path::new("/data/lock"), b"");
    let (mut core, recovered) = LogCore::open(Arc::new(fs.clone()), options(1)).expect("nothing fails here");
    for batch in 0..BATCHES {
        let mut builder = BatchBuilder::default();
        (0..EVENTS).for_each(|event| builder.push(text(batch * EVENTS + event).as_bytes()));
        let batch_of_it = builder.build(Arc::<Origin>::default(), 1);
        let pending = Pending { batch: batch_of_it, masks: Masks::Uniform(1), unrouted: 0, dropped: 0 };
        assert!(core.commit(vec![pending], Duration::ZERO).error.is_none());
        if batch == BATCHES / 2 {
            core.seal(Duration::ZERO).expect("nothing fails here");
        }
    }
    drop(core);
    (fs.kill(), recovered.end_seq)
}

fn change(fs: &FaultyFs, four: [u8; 4]) {
    let files = fs.files();
    let Some((path, bytes)) = files.get(usize::from(four[0]) % files.len().max(1)) else { return };
    let at = u64::from(u16::from_le_bytes([four[2], four[3]])) % (bytes + 1);
    let mut content = fs.content(path).unwrap_or_default();
    match four[1] & 3 {
        0 | 1 => {
            fs.flip_bit(path, at, four[1] >> 2 & 7);
            return;
        }
        2 => content.truncate(at as usize),
        _ => content.extend(std::iter::repeat_n(four[1], usize::from(four[2]))),
    }
    fs.put(path, &content);
}

/// See the table of [the crate](crate).
///
/// # Panics
/// Where it does not hold.
pub fn check(bytes: &[u8]) {
    let (fs, begin) = written();
    bytes.as_chunks().0.iter().take(CHANGES_MAX).for_each(|four| change(&fs, *four));
    let written: BTreeSet<String> = (0..BATCHES * EVENTS).map(text).collect();
    let below: Arc<dyn Filesystem> = Arc::new(fs.clone());
    // A header may say that a later program wrote it.
    let looked = inspect(&below, Path::new(DIR), |_, event| {
        assert!(written.contains(&String::from_utf8_lossy(event).into_owned()), "{}", event.escape_ascii());
    });
    let opened = LogCore::open(below, options(2));
    assert_eq!(looked.is_ok(), opened.is_ok(), "{looked:?}");
    let Ok((mut core, _)) = opened else { return };
    let mut builder = BatchBuilder::default();
    builder.push(b"{\"new\":1}");
    let pending = Pending {
        batch: builder.build(Arc::<Origin>::default(), 1),
        masks: Masks::Uniform(1),
        unrouted: 0,
        dropped: 0,
    };
    assert!(core.commit(vec![pending], Duration::ZERO).error.is_none(), "a log that opened takes events");
    drop(core);
    let fs = fs.kill();
    let (mut numbers, mut is_new_there) = (Vec::new(), false);
    scan(&fs, Path::new(DIR), 0, |frame| {
        for event in 0..frame.len() {
            let (start, end) = frame.span(event);
            let text = String::from_utf8_lossy(&frame.payload[start as usize..end as usize]).into_owned();
            is_new_there |= text == "{\"new\":1}";
            numbers.extend(
                text.strip_prefix("{\"n\":")
                    .and_then(|rest| rest.trim_end_matches('}').parse::<u64>().ok())
                    .map(|number| (frame.first_seq + event as u64, number)),
            );
        }
        true
    })
    .expect("it can be read");
    assert!(is_new_there, "what was taken after the start is there");
    assert!(numbers.iter().all(|(seq, number)| *seq == begin + number), "{begin}: {numbers:?}");
    assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "{numbers:?}");
}
