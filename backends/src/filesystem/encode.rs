//! Where events go: templates rendered to places, places to names. No I/O.
//!
//! A *place* is the rendered path without owner, number and extension (`fab12/jobs/errors/2026-11-23`) and, with rotation
//! by time, the window of receipt. The file there is
//! `<path>.<owner>.<number><extension>`, and the owner is `<agent>-<hash of the delivery's names>`: two deliveries, or
//! two agents, never write the same file, whatever their templates say.
//!
//! Every rendered value is part of one component, of `[A-Za-z0-9._@+=:,~-]` alone, and no component begins with a dot;
//! an event whose values break that is rejected with the reason.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use spillway_delivery::backend::{DeliveryName, OutBatch, OutRun};
use spillway_delivery::clock::UnixNanos;
use spillway_delivery::event::Origin;

use super::path::{GRAMMAR, PathTemplate, without_packing};
use crate::settings::Compression;
use crate::template::{Piece, Values};

/// Most bytes of a place.
const PLACE_BYTES_MAX: usize = 1024;
/// Most bytes of one name.
const NAME_BYTES_MAX: usize = 255;
/// Most bytes that the agent's id takes in a name.
const AGENT_BYTES_MAX: usize = 32;
const HOUR_NANOS: i64 = 3_600_000_000_000;
const SECOND_NANOS: i64 = 1_000_000_000;

/// Who writes: one delivery of one agent. Part of every name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owner(String);

impl Owner {
    pub(super) fn new(name: &DeliveryName) -> Self {
        let DeliveryName { namespace, pipeline, route, backend, agent } = name;
        let delivery = format!("{namespace}\0{pipeline}\0{route}\0{backend}\0{agent}");
        let agent = agent.chars().filter(char::is_ascii_alphanumeric).take(AGENT_BYTES_MAX).collect::<String>();
        Self(format!("{agent}-{:016x}", xxhash_rust::xxh3::xxh3_64(delivery.as_bytes())))
    }

    /// Returns the path of the file `number` at `place`.
    pub(super) fn path(&self, place: &str, number: u64, extension: &str) -> String {
        format!("{place}.{}.{number:06}{extension}", self.0)
    }

    /// Returns the number of the file `name`, `None` when it is not one of ours.
    pub(super) fn number_of(&self, name: &str) -> Option<u64> {
        let at = name.rfind(&format!(".{}.", self.0))?;
        let rest = &name[at + self.0.len() + 2..];
        let digits = rest.find('.').unwrap_or(rest.len());
        let (number, extension) = rest.split_at(digits);
        // Behind our number comes an extension and no more: else the name is another owner's, whose place only looks so.
        let dots = without_packing(extension).matches('.').count();
        (dots <= 1 && number.bytes().all(|b| b.is_ascii_digit())).then(|| number.parse().ok())?
    }

    /// Returns the name of the file that says who the owner is, and that is locked as long as it writes.
    pub(super) fn lock_name(&self) -> String {
        format!(".spillway-{}", self.0)
    }

    /// Most bytes that owner and number add to a name.
    fn suffix_bytes_max(&self) -> usize {
        self.0.len() + 2 + 20
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A window of receipt in seconds since 1970: its first, and the one behind it.
pub(super) type Window = (i64, i64);

/// What of a time of receipt decides where an event goes: the hour, and the window.
type Time = (i64, Option<Window>);

/// Where events go.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Place {
    /// The rendered path.
    pub(super) path: String,
    /// The window of receipt; `None` without rotation by time.
    pub(super) window: Option<Window>,
}

/// Renders places for one delivery.
#[derive(Debug)]
pub(super) struct Places {
    template: PathTemplate,
    name: DeliveryName,
    /// What files end in, `.gz` or `.zst` included.
    extension: String,
    stem_bytes_max: usize,
    /// Seconds of a window of receipt.
    every: Option<u32>,
}

/// Which runs of a batch go where.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Place, and the indexes of its runs in the order of the log.
    pub(super) groups: Vec<(Place, Vec<usize>)>,
    /// Runs that cannot go anywhere, and why.
    pub(super) rejected: Vec<(usize, String)>,
}

impl Places {
    pub(super) fn new(template: PathTemplate, name: &DeliveryName, compression: Compression) -> Self {
        let mut extension = template.extension.clone();
        let packed = match compression {
            Compression::None => "",
            Compression::Gzip => ".gz",
            Compression::Zstd => ".zst",
        };
        if !extension.ends_with(packed) {
            extension.push_str(packed);
        }
        let suffix = Owner::new(name).suffix_bytes_max() + extension.len();
        let stem_bytes_max = NAME_BYTES_MAX.saturating_sub(suffix);
        Self { template, name: name.clone(), extension, stem_bytes_max, every: None }
    }

    /// Gives every window of `every` seconds of receipt a file of its own.
    pub(super) fn rotated(self, every: Option<u32>) -> Self {
        Self { every, ..self }
    }

    /// Returns the window of a time of receipt.
    fn window(&self, received: UnixNanos) -> Option<Window> {
        let every = i64::from(self.every.filter(|every| *every > 0)?);
        let from = received.div_euclid(SECOND_NANOS).div_euclid(every) * every;
        Some((from, from + every))
    }

    pub(super) fn extension(&self) -> &str {
        &self.extension
    }

    /// Returns whether an event's origin has a say in where it goes.
    pub(super) fn depends_on_origin(&self) -> bool {
        self.template.depends_on_origin()
    }

    /// Returns the directory below which every place lies: the fixed beginning of the template.
    pub(super) fn below(&self) -> String {
        let directories = self.template.components.split_last().map_or(&[][..], |(_, directories)| directories);
        let mut below = String::new();
        for component in directories.iter().take_while(|component| component.iter().all(Piece::is_fixed)) {
            let start = below.len();
            if start > 0 {
                below.push('/');
            }
            let rendered =
                component.iter().all(|piece| self.render_piece(piece, &Origin::default(), 0, &mut below).is_ok());
            if !rendered {
                below.truncate(start);
                break;
            }
        }
        below
    }

    /// Sorts the runs of a batch by place; runs of one place keep their order.
    pub(super) fn plan(&self, batch: &OutBatch) -> Plan {
        let mut plan = Plan::default();
        let mut known: HashMap<Place, usize> = HashMap::new();
        let mut last: Option<(&Arc<Origin>, Time, usize)> = None;
        for (index, run) in batch.runs().enumerate() {
            let time = (run.received().div_euclid(HOUR_NANOS), self.window(run.received()));
            if let Some((origin, last_time, group)) = last
                && last_time == time
                && (Arc::ptr_eq(origin, run.origin()) || !self.depends_on_origin())
            {
                plan.groups[group].1.push(index);
                continue;
            }
            match self.place(&run) {
                Ok(path) => {
                    let place = Place { path, window: time.1 };
                    let group = *known.entry(place).or_insert_with_key(|place| {
                        plan.groups.push((place.clone(), Vec::new()));
                        plan.groups.len() - 1
                    });
                    plan.groups[group].1.push(index);
                    last = Some((run.origin(), time, group));
                }
                Err(reason) => plan.rejected.push((index, reason)),
            }
        }
        plan
    }

    fn place(&self, run: &OutRun<'_>) -> Result<String, String> {
        let mut place = String::with_capacity(128);
        let last = self.template.components.len() - 1;
        for (index, component) in self.template.components.iter().enumerate() {
            if index > 0 {
                place.push('/');
            }
            let start = place.len();
            for piece in component {
                self.render_piece(piece, run.origin(), run.received(), &mut place)?;
            }
            let rendered = &place[start..];
            let bytes_max = if index == last { self.stem_bytes_max } else { NAME_BYTES_MAX };
            if rendered.is_empty() || rendered.starts_with('.') || rendered.len() > bytes_max {
                return Err("the file's name is empty, begins with a dot or is too long".into());
            }
        }
        if place.len() > PLACE_BYTES_MAX {
            return Err(format!("the file's path is longer than {PLACE_BYTES_MAX} bytes"));
        }
        Ok(place)
    }

    fn render_piece(
        &self,
        piece: &Piece,
        origin: &Origin,
        received: UnixNanos,
        out: &mut String,
    ) -> Result<(), String> {
        let DeliveryName { namespace, pipeline, route, .. } = &self.name;
        let values = Values { namespace, pipeline, route, id: "", origin, received, event: b"{}" };
        GRAMMAR.render(piece, &values, None, out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use spillway_delivery::backend::OutBatchBuilder;
    use spillway_delivery::event::OriginBuilder;

    fn name() -> DeliveryName {
        DeliveryName {
            namespace: "fab12".into(),
            pipeline: "jobs".into(),
            route: "errors".into(),
            backend: "archive".into(),
            agent: "00000000000000a1".into(),
        }
    }

    fn places(template: &str) -> Places {
        Places::new(PathTemplate::parse(template).unwrap(), &name(), Compression::None)
    }

    fn pod(pod: &str) -> Arc<Origin> {
        OriginBuilder { pod: Some(pod.into()), ..OriginBuilder::default() }.build()
    }

    fn batch(runs: &[(Arc<Origin>, UnixNanos)]) -> OutBatch {
        let mut builder = OutBatchBuilder::new(&"fab12".into(), &"jobs".into(), &"errors".into());
        for (seq, (origin, received)) in runs.iter().enumerate() {
            builder.begin_chunk(Bytes::from_static(b"{}\n"), origin.clone(), 1, *received);
            builder.push(seq as u64, 0, 2);
        }
        builder.build("k")
    }

    #[test]
    fn runs_are_sorted_by_place_in_the_order_of_the_log() {
        let (a, b) = (pod("a"), pod("b"));
        let late = 1_700_000_000_000_000_000;
        let runs = [(a.clone(), 0), (b.clone(), 0), (a.clone(), 0), (a.clone(), late), (b, 0)];
        let plan = places("{namespace}/{origin.pod}/{date}T{hour}.ndjson").plan(&batch(&runs));
        let place = |path: &str| Place { path: path.into(), window: None };
        let expected: Vec<(Place, Vec<usize>)> = vec![
            (place("fab12/a/1970-01-01T00"), vec![0, 2]),
            (place("fab12/b/1970-01-01T00"), vec![1, 4]),
            (place("fab12/a/2023-11-14T22"), vec![3]),
        ];
        assert_eq!(plan.groups, expected);
        assert!(plan.rejected.is_empty());
    }

    #[test]
    fn values_that_would_leave_their_component_are_rejected() {
        let long = "x".repeat(256);
        let stem = "x".repeat(250);
        for value in
            ["..", ".", "../../etc", "a/b", "/etc", "a\0b", "a\nb", ".hidden", "", "ä", "%2e%2e/", &long, &stem]
        {
            let plan = places("p/{origin.pod}.ndjson").plan(&batch(&[(pod(value), 0), (pod("fine"), 0)]));
            let fine = Place { path: "p/fine".into(), window: None };
            assert_eq!(plan.groups, [(fine, vec![1])], "{value:?}");
            assert_eq!(plan.rejected.len(), 1, "{value:?}");
            assert!(!plan.rejected[0].1.contains(['\0', '\n']), "{value:?}");
        }
        let plan = places("p/{origin.pod}").plan(&batch(&[(Arc::default(), 0)]));
        assert_eq!(plan.rejected, [(0, "{origin.pod} has no value".to_owned())]);
        let plan = places("p-{origin.pod}/x").plan(&batch(&[(pod(&"x".repeat(254)), 0)]));
        assert_eq!(plan.rejected.len(), 1);
    }

    #[test]
    fn runs_of_one_path_are_sorted_by_the_window_of_their_receipt() {
        let second = SECOND_NANOS;
        let runs = [0, 59, 60, 59, -1].map(|at| (Arc::default(), at * second + 5));
        let plan = places("x.ndjson").rotated(Some(60)).plan(&batch(&runs));
        let windows: Vec<_> = plan.groups.into_iter().map(|(place, runs)| (place.window.unwrap(), runs)).collect();
        assert_eq!(windows, [((0, 60), vec![0, 1, 3]), ((60, 120), vec![2]), ((-60, 0), vec![4])]);
    }

    #[test]
    fn the_fixed_beginning_is_known_without_an_event() {
        assert_eq!(places("{namespace}/{pipeline}-x/{route}/{date}.ndjson").below(), "fab12/jobs-x/errors");
        assert_eq!(places("a/{date}/{route}/x").below(), "a");
        assert_eq!(places("{date}.ndjson").below(), "");
        assert_eq!(places("a/b").below(), "a");
    }

    #[test]
    fn a_name_tells_its_owner_and_number() {
        let owner = Owner::new(&name());
        let other = Owner::new(&DeliveryName { route: "all".into(), ..name() });
        assert_ne!(owner, other);
        assert_ne!(owner, Owner::new(&DeliveryName { agent: "b".into(), ..name() }));
        for (number, extension) in [(1, ".ndjson"), (1_000_001, ".ndjson.gz"), (7, ""), (8, ".gz"), (9, ".ndjson.zst")]
        {
            let path = owner.path("d/2026-11-23", number, extension);
            assert_eq!(owner.number_of(path.strip_prefix("d/").unwrap()), Some(number), "{path}");
            assert_eq!(other.number_of(&path), None, "{path}");
        }
        let disguised = other.path(&owner.path("x", 9, ""), 1, ".ndjson");
        assert_eq!(owner.number_of(&disguised), None);
        assert_eq!(other.number_of(&disguised), Some(1));
        for name in ["x", "", ".", "x.000001.ndjson", &owner.lock_name(), &format!("x.{owner}.12a.ndjson")] {
            assert_eq!(owner.number_of(name), None, "{name}");
        }
    }
}
