//! The messages of OTLP that are taken, one table each: how a field is numbered on the wire, called in OTLP's JSON, and called in
//! an event. The three are told once, so that protobuf and JSON cannot mean different things.
//!
//! Source: `opentelemetry-proto` 1.9 (`common`, `resource`, `logs`, `metrics`, `trace`, all `v1`). A field that is not listed is
//! passed over, as the protocol demands.

/// A message.
#[derive(Debug)]
pub(super) struct Message {
    /// Its fields.
    pub(super) fields: &'static [Field],
}

/// A field of a message.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) number: u32,
    /// Its name in OTLP's JSON.
    pub(super) json: &'static str,
    /// Its name in an event; empty where it is not a member by itself.
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) is_repeated: bool,
}

/// What a field holds.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Text,
    /// Bytes that are written as hexadecimal digits, by OTLP's JSON too.
    Hex,
    /// Bytes that are written in base64.
    Base64,
    Bool,
    /// `uint32` or `uint64`.
    Uint,
    /// `int64`.
    Int,
    /// `sint32`.
    Sint,
    Fixed32,
    Fixed64,
    Sfixed64,
    Double,
    /// Nanoseconds since 1970; 0 is none.
    Time,
    /// One of these, by number; the first is none.
    Enum(&'static [&'static str]),
    Message(&'static Message),
    /// An `AnyValue`.
    Any,
    /// Pairs of a key and an `AnyValue`.
    Attributes,
}

const fn one(number: u32, json: &'static str, name: &'static str, kind: Kind) -> Field {
    Field { number, json, name, kind, is_repeated: false }
}

const fn many(number: u32, json: &'static str, name: &'static str, kind: Kind) -> Field {
    Field { number, json, name, kind, is_repeated: true }
}

const fn attributes(number: u32) -> Field {
    many(number, "attributes", "attributes", Kind::Attributes)
}

const fn dropped(number: u32) -> Field {
    one(number, "droppedAttributesCount", "dropped_attributes_count", Kind::Uint)
}

pub(super) static ANY_VALUE: Message = Message {
    fields: &[
        one(1, "stringValue", "", Kind::Text),
        one(2, "boolValue", "", Kind::Bool),
        one(3, "intValue", "", Kind::Int),
        one(4, "doubleValue", "", Kind::Double),
        one(5, "arrayValue", "", Kind::Message(&ARRAY)),
        one(6, "kvlistValue", "", Kind::Message(&KEY_VALUES)),
        one(7, "bytesValue", "", Kind::Base64),
    ],
};

static ARRAY: Message = Message { fields: &[many(1, "values", "", Kind::Any)] };

static KEY_VALUES: Message = Message { fields: &[many(1, "values", "", Kind::Attributes)] };

pub(super) static KEY_VALUE: Message =
    Message { fields: &[one(1, "key", "", Kind::Text), one(2, "value", "", Kind::Any)] };

/// Of an event the member `resource`.
pub(super) static RESOURCE: Message = Message { fields: &[attributes(1), dropped(2)] };

/// Of an event the member `scope`.
pub(super) static SCOPE: Message = Message {
    fields: &[one(1, "name", "name", Kind::Text), one(2, "version", "version", Kind::Text), attributes(3), dropped(4)],
};

pub(super) static LOG_RECORD: Message = Message {
    fields: &[
        one(1, "timeUnixNano", "time", Kind::Time),
        one(11, "observedTimeUnixNano", "observed_time", Kind::Time),
        one(2, "severityNumber", "severity_number", Kind::Uint),
        one(3, "severityText", "severity", Kind::Text),
        one(5, "body", "body", Kind::Any),
        attributes(6),
        dropped(7),
        one(8, "flags", "flags", Kind::Fixed32),
        one(9, "traceId", "trace_id", Kind::Hex),
        one(10, "spanId", "span_id", Kind::Hex),
        one(12, "eventName", "event_name", Kind::Text),
    ],
};

pub(super) static SPAN: Message = Message {
    fields: &[
        one(1, "traceId", "trace_id", Kind::Hex),
        one(2, "spanId", "span_id", Kind::Hex),
        one(3, "traceState", "trace_state", Kind::Text),
        one(4, "parentSpanId", "parent_span_id", Kind::Hex),
        one(16, "flags", "flags", Kind::Fixed32),
        one(5, "name", "name", Kind::Text),
        one(6, "kind", "kind", Kind::Enum(&["", "internal", "server", "client", "producer", "consumer"])),
        one(7, "startTimeUnixNano", "time", Kind::Time),
        one(8, "endTimeUnixNano", "end_time", Kind::Time),
        attributes(9),
        dropped(10),
        many(11, "events", "events", Kind::Message(&SPAN_EVENT)),
        one(12, "droppedEventsCount", "dropped_events_count", Kind::Uint),
        many(13, "links", "links", Kind::Message(&SPAN_LINK)),
        one(14, "droppedLinksCount", "dropped_links_count", Kind::Uint),
        one(15, "status", "status", Kind::Message(&SPAN_STATUS)),
    ],
};

static SPAN_EVENT: Message = Message {
    fields: &[
        one(1, "timeUnixNano", "time", Kind::Time),
        one(2, "name", "name", Kind::Text),
        attributes(3),
        dropped(4),
    ],
};

static SPAN_LINK: Message = Message {
    fields: &[
        one(1, "traceId", "trace_id", Kind::Hex),
        one(2, "spanId", "span_id", Kind::Hex),
        one(3, "traceState", "trace_state", Kind::Text),
        attributes(4),
        dropped(5),
        one(6, "flags", "flags", Kind::Fixed32),
    ],
};

static SPAN_STATUS: Message = Message {
    fields: &[one(2, "message", "message", Kind::Text), one(3, "code", "code", Kind::Enum(&["", "ok", "error"]))],
};

const TEMPORALITY: Kind = Kind::Enum(&["", "delta", "cumulative"]);

static EXEMPLAR: Message = Message {
    fields: &[
        many(7, "filteredAttributes", "attributes", Kind::Attributes),
        one(2, "timeUnixNano", "time", Kind::Time),
        one(3, "asDouble", "value", Kind::Double),
        one(6, "asInt", "value", Kind::Sfixed64),
        one(4, "spanId", "span_id", Kind::Hex),
        one(5, "traceId", "trace_id", Kind::Hex),
    ],
};

const fn exemplars(number: u32) -> Field {
    many(number, "exemplars", "exemplars", Kind::Message(&EXEMPLAR))
}

const START: Field = one(2, "startTimeUnixNano", "start_time", Kind::Time);
const TIME: Field = one(3, "timeUnixNano", "time", Kind::Time);

pub(super) static NUMBER_POINT: Message = Message {
    fields: &[
        attributes(7),
        START,
        TIME,
        one(4, "asDouble", "value", Kind::Double),
        one(6, "asInt", "value", Kind::Sfixed64),
        exemplars(5),
        one(8, "flags", "flags", Kind::Uint),
    ],
};

pub(super) static HISTOGRAM_POINT: Message = Message {
    fields: &[
        attributes(9),
        START,
        TIME,
        one(4, "count", "count", Kind::Fixed64),
        one(5, "sum", "sum", Kind::Double),
        many(6, "bucketCounts", "bucket_counts", Kind::Fixed64),
        many(7, "explicitBounds", "explicit_bounds", Kind::Double),
        exemplars(8),
        one(10, "flags", "flags", Kind::Uint),
        one(11, "min", "min", Kind::Double),
        one(12, "max", "max", Kind::Double),
    ],
};

static BUCKETS: Message =
    Message { fields: &[one(1, "offset", "offset", Kind::Sint), many(2, "bucketCounts", "bucket_counts", Kind::Uint)] };

pub(super) static EXPONENTIAL_POINT: Message = Message {
    fields: &[
        attributes(1),
        START,
        TIME,
        one(4, "count", "count", Kind::Fixed64),
        one(5, "sum", "sum", Kind::Double),
        one(6, "scale", "scale", Kind::Sint),
        one(7, "zeroCount", "zero_count", Kind::Fixed64),
        one(8, "positive", "positive", Kind::Message(&BUCKETS)),
        one(9, "negative", "negative", Kind::Message(&BUCKETS)),
        one(10, "flags", "flags", Kind::Uint),
        exemplars(11),
        one(12, "min", "min", Kind::Double),
        one(13, "max", "max", Kind::Double),
        one(14, "zeroThreshold", "zero_threshold", Kind::Double),
    ],
};

static QUANTILE: Message =
    Message { fields: &[one(1, "quantile", "quantile", Kind::Double), one(2, "value", "value", Kind::Double)] };

pub(super) static SUMMARY_POINT: Message = Message {
    fields: &[
        attributes(7),
        START,
        TIME,
        one(4, "count", "count", Kind::Fixed64),
        one(5, "sum", "sum", Kind::Double),
        many(6, "quantileValues", "quantiles", Kind::Message(&QUANTILE)),
        one(8, "flags", "flags", Kind::Uint),
    ],
};

/// The data of a metric beside its points, whose field has the number 1.
macro_rules! data {
    ($point:ident) => {
        Message {
            fields: &[
                many(POINTS, "dataPoints", "", Kind::Message(&$point)),
                one(2, "aggregationTemporality", "temporality", TEMPORALITY),
                one(3, "isMonotonic", "monotonic", Kind::Bool),
            ],
        }
    };
}

/// The number of the points among the data of a metric.
pub(super) const POINTS: u32 = 1;

static GAUGE_OR_SUM: Message = data!(NUMBER_POINT);
static HISTOGRAM: Message = data!(HISTOGRAM_POINT);
static EXPONENTIAL: Message = data!(EXPONENTIAL_POINT);
static SUMMARY: Message = data!(SUMMARY_POINT);

/// What a metric may be: the number of its data, how an event calls it, its data and its points.
pub(super) static METRIC_TYPES: [(u32, &str, &Message, &Message); 5] = [
    (5, "gauge", &GAUGE_OR_SUM, &NUMBER_POINT),
    (7, "sum", &GAUGE_OR_SUM, &NUMBER_POINT),
    (9, "histogram", &HISTOGRAM, &HISTOGRAM_POINT),
    (10, "exponential_histogram", &EXPONENTIAL, &EXPONENTIAL_POINT),
    (11, "summary", &SUMMARY, &SUMMARY_POINT),
];

/// A metric without its data.
pub(super) static METRIC: Message = Message {
    fields: &[
        one(1, "name", "metric", Kind::Text),
        one(2, "description", "description", Kind::Text),
        one(3, "unit", "unit", Kind::Text),
        many(12, "metadata", "metadata", Kind::Attributes),
        one(5, "gauge", "", Kind::Message(&GAUGE_OR_SUM)),
        one(7, "sum", "", Kind::Message(&GAUGE_OR_SUM)),
        one(9, "histogram", "", Kind::Message(&HISTOGRAM)),
        one(10, "exponentialHistogram", "", Kind::Message(&EXPONENTIAL)),
        one(11, "summary", "", Kind::Message(&SUMMARY)),
    ],
};

/// Requests, what they hold of resources, and these of scopes: the same numbers for all three signals.
macro_rules! request {
    ($request:ident, $of_resource:ident, $of_scope:ident, $record:ident, $names:expr) => {
        pub(super) static $request: Message =
            Message { fields: &[many(1, $names[0], "", Kind::Message(&$of_resource))] };
        static $of_resource: Message = Message {
            fields: &[
                one(1, "resource", "", Kind::Message(&RESOURCE)),
                many(2, $names[1], "", Kind::Message(&$of_scope)),
                one(3, "schemaUrl", "", Kind::Text),
            ],
        };
        static $of_scope: Message = Message {
            fields: &[
                one(1, "scope", "", Kind::Message(&SCOPE)),
                many(2, $names[2], "", Kind::Message(&$record)),
                one(3, "schemaUrl", "", Kind::Text),
            ],
        };
    };
}

request!(LOGS, RESOURCE_LOGS, SCOPE_LOGS, LOG_RECORD, ["resourceLogs", "scopeLogs", "logRecords"]);
request!(METRICS, RESOURCE_METRICS, SCOPE_METRICS, METRIC, ["resourceMetrics", "scopeMetrics", "metrics"]);
request!(TRACES, RESOURCE_SPANS, SCOPE_SPANS, SPAN, ["resourceSpans", "scopeSpans", "spans"]);

impl Message {
    /// Returns the field of this number.
    pub(super) fn field(&self, number: u32) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.number == number)
    }
}
