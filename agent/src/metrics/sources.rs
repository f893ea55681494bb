//! What the sources count since the start.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Families, count};
use crate::overview::SourceStats;
use crate::sources::http::HttpStats;
use crate::sources::ndjson::{Figure, NdjsonStats};
use crate::sources::pushed::tally::{Listed, Named, Tally};
use crate::sources::syslog::{self, SyslogStats};
use crate::sources::tail::TailStats;

/// Writes every family of the sources that run.
pub(super) fn write(families: &mut Families<'_>, sources: &SourceStats) -> fmt::Result {
    if let Some(stats) = &sources.http {
        http(families, stats)?;
    }
    otlp(families, sources)?;
    if !sources.lines.is_empty() {
        lines(families, &sources.lines)?;
    }
    if !sources.syslog.is_empty() {
        syslog(families, &sources.syslog)?;
    }
    if let Some(stats) = &sources.door {
        door(families, stats)?;
    }
    if let Some(stats) = &sources.container_logs {
        container_logs(families, stats)?;
    }
    if let Some(stats) = &sources.files {
        files(families, stats)?;
    }
    Ok(())
}

fn container_logs(families: &mut Families<'_>, stats: &TailStats) -> fmt::Result {
    let counters = [
        ("container_log_lines", "Events made of lines; a line two pipelines read counts twice.", &stats.lines),
        ("container_log_bytes", "Bytes read, of compressed files after decompression.", &stats.bytes),
        ("container_log_malformed_lines", "Lines no container runtime writes, delivered whole.", &stats.malformed),
        ("container_log_joined_lines", "Lines joined from more than one part.", &stats.partial_joined),
        ("container_log_split_lines", "Lines too long for one event, delivered in pieces.", &stats.split_lines),
        ("container_log_invalid_utf8_events", "Events in which invalid UTF-8 was replaced.", &stats.invalid_utf8),
        ("container_log_truncated_files", "Files that were cut and begun anew.", &stats.truncated),
        ("container_log_rotated_files", "Files rotated away.", &stats.rotated),
        ("container_log_missed_files", "Files deleted before they were read to their end.", &stats.missed_files),
        (
            "container_log_missed_bytes",
            "Bytes deleted before they could be read, as far as known.",
            &stats.missed_bytes,
        ),
        (
            "container_log_lost_tail_bytes",
            "Bytes read and then gone from the end of their file.",
            &stats.lost_tail_bytes,
        ),
        ("container_log_read_errors", "Failures to open, read or decompress a file.", &stats.read_errors),
        ("container_log_refused_entries", "Entries not opened: links or no regular files.", &stats.refused_entries),
        ("container_log_refused_batches", "Batches a pipeline refused; they are tried again.", &stats.refusals),
        ("container_log_watch_overflows", "Overflows of the queue of file events; each made a scan.", &stats.overflows),
    ];
    for (name, help, counter) in counters {
        families.one_counter(name, help, counter.load(Ordering::Relaxed))?;
    }
    let gauges = [
        ("container_log_open_files", "Files held open now.", &stats.open_files),
        ("container_log_containers", "Containers followed now.", &stats.units),
        (
            "container_log_held_containers",
            "Containers not read until the operator tells of their pod, now.",
            &stats.held_units,
        ),
    ];
    for (name, help, gauge) in gauges {
        families.one_gauge(name, help, count(gauge.load(Ordering::Relaxed)))?;
    }
    Ok(())
}

fn files(families: &mut Families<'_>, stats: &TailStats) -> fmt::Result {
    let counters = [
        ("file_lines", "Events made of lines; a line two pipelines read counts twice.", &stats.lines),
        ("file_bytes", "Bytes read.", &stats.bytes),
        ("file_split_lines", "Lines too long for one event, delivered in pieces.", &stats.split_lines),
        ("file_invalid_utf8_events", "Events in which invalid UTF-8 was replaced.", &stats.invalid_utf8),
        ("file_truncated_files", "Files that were cut and begun anew.", &stats.truncated),
        ("file_renamed_files", "Files found under another name, as a rotation gives.", &stats.rotated),
        ("file_missed_files", "Files deleted before they were read to their end.", &stats.missed_files),
        ("file_missed_bytes", "Bytes deleted before they could be read, as far as known.", &stats.missed_bytes),
        ("file_lost_tail_bytes", "Bytes read and then gone from the end of their file.", &stats.lost_tail_bytes),
        ("file_read_errors", "Failures to list, open or read.", &stats.read_errors),
        ("file_refused_batches", "Batches a pipeline refused; they are tried again.", &stats.refusals),
        ("file_watch_overflows", "Overflows of the queue of file events; each made a scan.", &stats.overflows),
    ];
    for (name, help, counter) in counters {
        families.one_counter(name, help, counter.load(Ordering::Relaxed))?;
    }
    let gauges = [
        ("file_followed", "Files followed now.", &stats.units),
        ("file_open", "Files held open now.", &stats.open_files),
        ("file_left_out", "Files wanted and not followed now, since there are too many.", &stats.left_out_files),
        (
            "file_refused_entries",
            "Entries wanted and not opened now: links or no regular files.",
            &stats.refused_entries,
        ),
    ];
    for (name, help, gauge) in gauges {
        families.one_gauge(name, help, count(gauge.load(Ordering::Relaxed)))?;
    }
    Ok(())
}

fn http(families: &mut Families<'_>, stats: &HttpStats) -> fmt::Result {
    families.counter(
        "http_requests",
        "Requests answered, by status; 0 stands for any other.",
        stats.requests().map(|(status, requests)| ([("code", status.to_string())], requests)),
    )?;
    families.counter(
        "http_refused_events",
        "Events refused by themselves, by code.",
        stats.refused_events().map(|(code, events)| ([("code", code)], events)),
    )?;
    families.counter(
        "http_limits_hit",
        "How often a sender ran into a limit, by its name.",
        stats.limits().map(|(limit, times)| ([("limit", limit)], times)),
    )?;
    let counters = [
        ("http_accepted_events", "Events accepted, repeats under the same key included.", stats.accepted_events()),
        ("http_accepted_bytes", "Bytes of the accepted events.", stats.accepted_bytes()),
        ("http_wire_bytes", "Bytes of bodies read, as they travelled.", stats.wire_bytes()),
        ("http_connections", "Connections taken.", stats.connections()),
    ];
    for (name, help, value) in counters {
        families.one_counter(name, help, value)?;
    }
    families.one_gauge("http_open_connections", "Connections open now.", count(stats.connections_open()))
}

/// A counter: its name, what it is, and where it stands.
type Counter = (&'static str, &'static str, fn(&HttpStats) -> u64);

/// A listener for OTLP alone.
struct OtlpListener<'a> {
    name: &'static str,
    answers: Vec<(String, u64)>,
    limits: Vec<(&'static str, u64)>,
    http: &'a HttpStats,
}

fn otlp(families: &mut Families<'_>, sources: &SourceStats) -> fmt::Result {
    let over_http = sources.otlp_http.iter().map(|stats| OtlpListener {
        name: "http",
        answers: stats.requests().map(|(status, requests)| (status.to_string(), requests)).collect(),
        limits: stats.limits().collect(),
        http: stats,
    });
    let over_grpc = sources.otlp_grpc.iter().map(|stats| OtlpListener {
        name: "grpc",
        answers: stats.calls().map(|(code, calls)| (code.to_owned(), calls)).collect(),
        limits: stats.limits().collect(),
        http: stats.of_http(),
    });
    let listeners: Vec<_> = over_http.chain(over_grpc).collect();
    if listeners.is_empty() {
        return Ok(());
    }
    let answers = listeners.iter().flat_map(|one| {
        one.answers.iter().map(move |(code, n)| ([("listener", one.name.to_owned()), ("code", code.clone())], *n))
    });
    families.counter("otlp_requests", "Requests answered, by status.", answers)?;
    let refused = listeners
        .iter()
        .flat_map(|one| one.http.refused_events().map(move |(code, n)| ([("listener", one.name), ("code", code)], n)));
    families.counter("otlp_refused_events", "Records refused by themselves, by code.", refused)?;
    let limits = listeners
        .iter()
        .flat_map(|one| one.limits.iter().map(move |(limit, n)| ([("listener", one.name), ("limit", *limit)], *n)));
    families.counter("otlp_limits_hit", "How often a sender ran into a limit, by its name.", limits)?;
    let counters: [Counter; 4] = [
        ("otlp_accepted_events", "Events accepted, repeats under the same key included.", HttpStats::accepted_events),
        ("otlp_accepted_bytes", "Bytes of the accepted events.", HttpStats::accepted_bytes),
        ("otlp_wire_bytes", "Bytes of bodies read, as they travelled.", HttpStats::wire_bytes),
        ("otlp_connections", "Connections taken.", HttpStats::connections),
    ];
    for (name, help, figure) in counters {
        families.counter(name, help, listeners.iter().map(|one| ([("listener", one.name)], figure(one.http))))?;
    }
    let open = listeners.iter().map(|one| ([("listener", one.name)], count(one.http.connections_open())));
    families.gauge("otlp_open_connections", "Connections open now.", open)
}

/// A figure of a listener: its family, what it is, and which it is.
type FigureOf<F> = (&'static str, &'static str, F);

/// Counts by the name of what is counted.
type ByName = Vec<(&'static str, u64)>;

/// What a kind of listeners has in families besides limits: figures, events of each kind with the label of that, refusals.
struct Kept<'a, F> {
    counters: &'a [FigureOf<F>],
    gauges: &'a [FigureOf<F>],
    kinds: (&'static str, &'static str, &'static str),
    limits: (&'static str, &'static str),
    refusals: (&'static str, &'static str),
}

fn lines(families: &mut Families<'_>, listeners: &BTreeMap<&'static str, Arc<NdjsonStats>>) -> fmt::Result {
    let kept = Kept {
        counters: &[
            ("ndjson_connections", "Connections taken.", Figure::Connections),
            ("ndjson_wire_bytes", "Bytes read.", Figure::WireBytes),
            ("ndjson_batches", "Batches kept.", Figure::Batches),
            ("ndjson_accepted_events", "Events accepted, repeats under the same key included.", Figure::AcceptedEvents),
            ("ndjson_accepted_bytes", "Bytes of the accepted events.", Figure::AcceptedBytes),
            ("ndjson_lost_events", "Events read of who reads no answers, and not kept.", Figure::LostEvents),
            ("ndjson_cut_lines", "Lines whose connection ended in their midst.", Figure::CutLines),
        ],
        gauges: &[
            ("ndjson_open_connections", "Connections open now.", Figure::OpenConnections),
            (
                "ndjson_waiting_connections",
                "Connections that wait now until their pipelines take events again.",
                Figure::WaitingConnections,
            ),
        ],
        kinds: ("ndjson_refused_events", "Events refused by themselves, by code.", "code"),
        limits: ("ndjson_limits_hit", "How often a sender ran into a limit, by its name."),
        refusals: ("ndjson_refusals", "Batches not kept and connections closed for a reason, by code."),
    };
    tallies(families, listeners, &kept)
}

fn syslog(families: &mut Families<'_>, listeners: &BTreeMap<&'static str, Arc<SyslogStats>>) -> fmt::Result {
    use syslog::Figure;
    let kept = Kept {
        counters: &[
            ("syslog_connections", "Connections taken.", Figure::Connections),
            ("syslog_datagrams", "Datagrams read.", Figure::Datagrams),
            ("syslog_kernel_drops", "Datagrams that the kernel dropped, as it tells.", Figure::KernelDrops),
            ("syslog_wire_bytes", "Bytes read.", Figure::WireBytes),
            ("syslog_batches", "Batches kept.", Figure::Batches),
            ("syslog_accepted_events", "Events accepted.", Figure::AcceptedEvents),
            ("syslog_accepted_bytes", "Bytes of the accepted events.", Figure::AcceptedBytes),
            ("syslog_lost_events", "Events read, and not kept at a stop.", Figure::LostEvents),
        ],
        gauges: &[
            ("syslog_open_connections", "Connections open now.", Figure::OpenConnections),
            (
                "syslog_waiting_senders",
                "Connections that wait now until their pipelines take events again; all who send datagrams are one.",
                Figure::WaitingSenders,
            ),
        ],
        kinds: ("syslog_malformed_events", "Events of malformed messages, by what was wrong.", "reason"),
        limits: ("syslog_limits_hit", "How often a sender ran into a limit, by its name."),
        refusals: ("syslog_refusals", "Batches that waited or were lost, and connections ended, by reason."),
    };
    tallies(families, listeners, &kept)
}

fn tallies<F: Listed, L: Named, K: Named>(
    families: &mut Families<'_>,
    listeners: &BTreeMap<&'static str, Arc<Tally<F, L, K>>>,
    kept: &Kept<'_, F>,
) -> fmt::Result {
    let one =
        |figure: F| listeners.iter().map(move |(listener, stats)| ([("listener", *listener)], stats.figure(figure)));
    for (name, help, figure) in kept.counters {
        families.counter(name, help, one(*figure))?;
    }
    for (name, help, figure) in kept.gauges {
        families.gauge(name, help, one(*figure).map(|(labels, value)| (labels, count(value))))?;
    }
    let by = |label: &'static str, of: fn(&Tally<F, L, K>) -> ByName| {
        let labelled = listeners.iter().flat_map(move |(listener, stats)| {
            of(stats).into_iter().map(move |(what, times)| ([("listener", *listener), (label, what)], times))
        });
        labelled.collect::<Vec<_>>()
    };
    let (name, help, label) = kept.kinds;
    families.counter(name, help, by(label, |stats| stats.kinds().collect()))?;
    let (name, help) = kept.limits;
    families.counter(name, help, by("limit", |stats| stats.limits().collect()))?;
    let (name, help) = kept.refusals;
    families.counter(name, help, by("code", |stats| stats.refusals().into_iter().collect()))
}

fn door(families: &mut Families<'_>, stats: &HttpStats) -> fmt::Result {
    families.counter(
        "door_requests",
        "Requests of pods answered, by status; 0 stands for any other.",
        stats.requests().map(|(status, requests)| ([("code", status.to_string())], requests)),
    )?;
    families.counter(
        "door_turned_back",
        "Requests turned back for who sent them, by reason.",
        stats.senders_turned_back().into_iter().map(|(reason, requests)| ([("reason", reason)], requests)),
    )?;
    families.counter(
        "door_refused_events",
        "Events of pods refused by themselves, by code.",
        stats.refused_events().map(|(code, events)| ([("code", code)], events)),
    )?;
    families.counter(
        "door_limits_hit",
        "How often a pod ran into a limit, by its name.",
        stats.limits().map(|(limit, times)| ([("limit", limit)], times)),
    )?;
    let counters = [
        (
            "door_accepted_events",
            "Events of pods accepted, repeats under the same key included.",
            stats.accepted_events(),
        ),
        ("door_accepted_bytes", "Bytes of these events.", stats.accepted_bytes()),
        ("door_unverified_events", "Those of them that came without a token.", stats.unverified_events()),
        ("door_connections", "Connections of pods taken.", stats.connections()),
    ];
    for (name, help, value) in counters {
        families.one_counter(name, help, value)?;
    }
    if let Some(end) = stats.certificate_ends() {
        families.one_gauge(
            "door_certificate_expiry_timestamp_seconds",
            "When the certificate that the door shows is over, Unix time.",
            count(end),
        )?;
    }
    families.one_gauge("door_open_connections", "Connections of pods open now.", count(stats.connections_open()))
}
