//! What a pipeline and a delivery can be told: plain values with defaults and bounds, already checked.
//!
//! `crds` turns manifests into these; nothing else makes them but tests and the SDK.

use std::time::Duration;

use crate::condition::Condition;
use crate::event::OriginBuilder;
use crate::transform::Transform;

/// How far an event must have come before its sender is told `accepted`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// Written and synced: survives power loss.
    #[default]
    Disk,
    /// Written to the page cache: survives SIGKILL of the process.
    Process,
    /// In memory: a process that ends by itself writes it, one that is killed loses it.
    Memory,
}

/// The log of one pipeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// The level an acknowledgement promises.
    pub durability: Durability,
    /// Most bytes of segments on disk. At this size intake is refused until a delivery frees some.
    pub bytes_max: u64,
    /// How long delivered data is kept for replay, in running time.
    pub retain: Duration,
    /// How long a removed route or reference may still deliver, in running time.
    pub drain: Duration,
    /// Most bytes of the pipeline's dead letters on disk; what comes then is dropped, counted.
    pub dead_letters_bytes_max: u64,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self {
            durability: Durability::Disk,
            bytes_max: 1 << 30,
            retain: Duration::ZERO,
            drain: Duration::from_secs(300),
            dead_letters_bytes_max: 64 << 20,
        }
    }
}

/// What becomes of an event that its backend refuses for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnUndeliverable {
    /// It is kept in the dead letters, with the reason.
    #[default]
    DeadLetter,
    /// It is dropped, counted `undeliverable`.
    Drop,
}

/// How batches are formed and sent. Every field is within the bounds `crds` documents.
#[derive(Debug, Clone, PartialEq)]
pub struct DeliverySettings {
    /// Most payload bytes of one batch.
    pub batch_bytes_max: usize,
    /// Most events of one batch.
    pub batch_events_max: usize,
    /// How long a batch may wait to fill up.
    pub batch_wait_max: Duration,
    /// Most batches under way at once, to which the number grows from one; 1 keeps the order.
    pub in_flight_max: usize,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// First back-off; doubles with full jitter.
    pub retry_initial: Duration,
    /// Longest back-off.
    pub retry_max: Duration,
    /// Attempts before the batch is given up; `None` is without limit.
    pub attempts_max: Option<u32>,
    /// What becomes of what is refused for good.
    pub on_undeliverable: OnUndeliverable,
    /// When a destination that fails is left alone.
    pub breaker: BreakerSettings,
    /// How much it is given in a second.
    pub rate: RateLimitSettings,
}

/// How much a destination is given in a second; `None` is without limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RateLimitSettings {
    /// Payload bytes, repeats counted; at least 1.
    pub bytes_per_second: Option<u64>,
    /// Events, repeats counted; at least 1.
    pub events_per_second: Option<u64>,
}

/// When a destination that fails is left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerSettings {
    /// Failures in a row that open it; at least 1.
    pub consecutive_failures: u32,
    /// Part of the last attempts that opens it when they failed, in percent; 1 to 100.
    pub failure_ratio_percent: u32,
    /// How long it stays open before one attempt may try.
    pub open: Duration,
}

impl Default for BreakerSettings {
    fn default() -> Self {
        Self { consecutive_failures: 5, failure_ratio_percent: 50, open: Duration::from_secs(30) }
    }
}

impl Default for DeliverySettings {
    fn default() -> Self {
        Self {
            batch_bytes_max: 4 << 20,
            batch_events_max: 10_000,
            batch_wait_max: Duration::from_millis(200),
            in_flight_max: 4,
            timeout: Duration::from_secs(30),
            retry_initial: Duration::from_millis(200),
            retry_max: Duration::from_secs(60),
            attempts_max: None,
            breaker: BreakerSettings::default(),
            rate: RateLimitSettings::default(),
            on_undeliverable: OnUndeliverable::DeadLetter,
        }
    }
}

/// What the delivered event carries besides itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Metadata {
    /// One member `_spillway` with `id`, `origin`, `pipeline`, `received`.
    #[default]
    Full,
    /// The event alone, byte for byte.
    None,
}

/// Names one pipeline for good: a namesake of a deleted one has another.
pub type PipelineUid = std::sync::Arc<str>;

/// One pipeline, compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PipelineSettings {
    /// Key of the log's directory: `[a-z0-9._-]`, 1 to 253 bytes.
    pub uid: PipelineUid,
    /// The namespace the manifest is in.
    pub namespace: std::sync::Arc<str>,
    /// The manifest's name.
    pub name: std::sync::Arc<str>,
    /// Its log.
    pub log: LogSettings,
    /// What is done to its events before their routes are decided, in this order.
    pub transforms: Vec<Transform>,
    /// Its routes, 1 to 64, in the order of the manifest; their index is the bit in the mask.
    pub routes: Vec<RouteSettings>,
    /// Fields the manifest adds to the origin; they never override what the agent knows: known fields win, absent ones are
    /// filled.
    pub origin: OriginBuilder,
    /// Stops intake and delivery, keeps what is held.
    pub suspend: bool,
}

/// One route of a pipeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteSettings {
    /// Unique within the pipeline.
    pub name: std::sync::Arc<str>,
    /// Which events go down it; `None` is every event.
    pub condition: Option<Condition>,
    /// How its backends share the work.
    pub strategy: Strategy,
    /// The backends it feeds, each with a cursor of its own; where the first healthy one sends, best first.
    pub backends: Vec<BackendRefSettings>,
}

/// How the backends of a route share the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Strategy {
    /// Each of them gets every event.
    #[default]
    All,
    /// The first of them that is healthy gets what none has.
    FirstHealthy(Failback),
}

/// What happens to the events that others got when the first backend is healthy again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Failback {
    /// They stay where they are.
    #[default]
    Leave,
    /// The first backend gets them too.
    Backfill,
}

/// What happens when a reader of a log is so far behind that the log is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhenBehind {
    /// Intake stops until it has caught up: nothing is lost.
    #[default]
    Block,
    /// It gives up its own oldest events, counted; intake goes on.
    DropOldest,
}

/// One reference from a route to a backend.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BackendRefSettings {
    /// Names the backend for good.
    pub uid: std::sync::Arc<str>,
    /// The name the manifest uses.
    pub name: std::sync::Arc<str>,
    /// What becomes of what the backend refuses for good.
    pub on_undeliverable: OnUndeliverable,
    /// What happens when it is so far behind that the log is full.
    pub when_behind: WhenBehind,
}
