//! A real SDK of OpenTelemetry sends to the agent: logs, metrics and traces over HTTP and gRPC.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;

use serde_json::Value;
use spillway_tests::agent::{Agent, Place};
use spillway_tests::manifests::{EVENTS, to_archive};
use spillway_tests::output;
use spillway_tests::servers::opentelemetry::{PACKAGE, python};
use spillway_tests::servers::skip;

/// The exporters over HTTP.
const OVER_HTTP: &str = r#"
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
import sys
url = sys.argv[1]
log_exporter = OTLPLogExporter(url + "/v1/logs", compression=Compression.Gzip)
span_exporter = OTLPSpanExporter(url + "/v1/traces")
metric_exporter = OTLPMetricExporter(url + "/v1/metrics")
"#;

/// The exporters over gRPC, which find the agent in the environment.
const OVER_GRPC: &str = r"
from grpc import Compression
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
log_exporter = OTLPLogExporter(compression=Compression.Gzip)
span_exporter = OTLPSpanExporter()
metric_exporter = OTLPMetricExporter()
";

/// Sends 500 log records, 50 spans and one count, and fails unless all was taken.
const PROGRAM: &str = r#"
import logging
from opentelemetry import trace
from opentelemetry._logs import set_logger_provider
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

resource = Resource.create({"service.name": "etcher", "wafers": [1, 2]})
logs = LoggerProvider(resource=resource)
logs.add_log_record_processor(BatchLogRecordProcessor(log_exporter))
log = logging.getLogger("jobs")
log.setLevel(logging.INFO)
log.propagate = False
log.addHandler(LoggingHandler(logger_provider=logs))
traces = TracerProvider(resource=resource)
traces.add_span_processor(BatchSpanProcessor(span_exporter))
tracer = traces.get_tracer("tests", "1.0")
reader = PeriodicExportingMetricReader(metric_exporter, export_interval_millis=3600000)
metrics = MeterProvider([reader], resource=resource)
wafers = metrics.get_meter("tests").create_counter("wafers", unit="1", description="done")
for number in range(50):
    with tracer.start_as_current_span("etch", attributes={"number": number}) as span:
        span.add_event("opened", {"by": "robot"})
        for step in range(10):
            log.error("step %d of job %d \"x\"\n", step, number, extra={"step": step})
        wafers.add(1, {"tool": "etch-07"})
flushed = [logs.force_flush(), traces.force_flush()]
# The last collection of metrics is that of the shutdown.
logs.shutdown(); traces.shutdown(); metrics.shutdown()
assert all(flushed), flushed
"#;

/// Calls the agent by the stubs of the SDK, and prints what it is told.
const CALLS: &str = r#"
import json, sys
import grpc
from google.rpc import error_details_pb2, status_pb2
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2_grpc import LogsServiceStub

def request(*texts):
    message = ExportLogsServiceRequest()
    records = message.resource_logs.add().scope_logs.add().log_records
    for text in texts:
        records.add().body.string_value = text
    return message

def call(message, **words):
    try:
        partial = stub.Export(message, timeout=30, **words).partial_success
        return {"rejected": partial.rejected_log_records, "why": partial.error_message}
    except grpc.RpcError as error:
        told = {"code": error.code().name, "why": error.details()}
        trailers = dict(error.trailing_metadata())
        details = trailers.get("grpc-status-details-bin")
        if details is not None:
            status = status_pb2.Status.FromString(details)
            delay = error_details_pb2.RetryInfo()
            assert status.code == error.code().value[0] and status.details[0].Unpack(delay), status
            assert error_details_pb2.RetryInfo.FromString(trailers["google.rpc.retryinfo-bin"]) == delay
            told["retry"] = delay.retry_delay.seconds
        return told

with grpc.insecure_channel(sys.argv[1], options=[("grpc.max_send_message_length", -1)]) as channel:
    stub = LogsServiceStub(channel)
    print(json.dumps([
        call(request("a", "x" * (1 << 20), "b")),
        call(request("c"), compression=grpc.Compression.Gzip),
        call(request("d"), metadata=[("x-spillway-pipeline", "telemetrie")]),
        call(request(*["x" * 100000] * 200)),
        call(request("e"), compression=grpc.Compression.Deflate),
    ]))
"#;

#[test]
fn what_a_real_sdk_sends_is_there_with_its_resource_and_scope() {
    what_a_real_sdk_sends("over_http", OVER_HTTP);
}

#[test]
fn what_a_real_sdk_sends_over_grpc_is_the_same() {
    what_a_real_sdk_sends("over_grpc", OVER_GRPC);
}

#[test]
fn a_real_client_of_grpc_reads_what_was_refused_and_why() {
    let Some(folder) = PACKAGE.installed() else { return skip("otlp::a_real_client_of_grpc", ABSENT) };
    let place = Place::new(&to_archive(&[EVENTS])).flag("--otlp-grpc", "127.0.0.1:0");
    let agent = place.start();
    let told = told_to_a_real_client(&folder, &agent);
    let why = |index: usize| told[index]["why"].as_str().unwrap();
    assert_eq!(told[0]["rejected"], 1, "{told:#}");
    assert!(why(0).starts_with("1 larger than 1048576 bytes"), "{told:#}");
    assert_eq!((&told[1]["rejected"], why(1)), (&0.into(), ""), "{told:#}");
    for (index, code, words) in [
        (2, "NOT_FOUND", "\"jobs\""),
        (3, "RESOURCE_EXHAUSTED", "wire_bytes"),
        (4, "UNIMPLEMENTED", "unsupported_encoding"),
    ] {
        assert_eq!(told[index]["code"], code, "{told:#}");
        assert!(why(index).contains(words) && told[index]["retry"].is_null(), "{told:#}");
    }
    let metrics = agent.metrics();
    assert!(metrics.contains(r#"spillway_otlp_requests_total{listener="grpc",code="OK"} 2"#), "{metrics}");
    agent.stop();
    let kept = output::lines_below(&place.path("out"));
    let messages: Vec<Value> =
        kept.iter().map(|line| serde_json::from_str::<Value>(line).unwrap()["message"].clone()).collect();
    assert_eq!(messages, ["a", "b", "c"]);
}

#[test]
fn a_real_client_of_grpc_reads_when_to_come_again() {
    let Some(folder) = PACKAGE.installed() else { return skip("otlp::a_real_client_of_grpc", ABSENT) };
    let manifest = to_archive(&[EVENTS]).replace("  inputs:\n", "  suspend: true\n  inputs:\n");
    let place = Place::new(&manifest).flag("--otlp-grpc", "127.0.0.1:0");
    let agent = place.start();
    let told = told_to_a_real_client(&folder, &agent);
    for call in &told.as_array().unwrap()[..2] {
        assert_eq!(call["code"], "UNAVAILABLE", "{told:#}");
        assert!(
            call["why"].as_str().unwrap().starts_with("suspended: ") && call["retry"].as_u64() >= Some(1),
            "{told:#}"
        );
    }
    agent.stop();
    assert!(output::lines_below(&place.path("out")).is_empty());
}

/// Returns what the calls of a real client were told.
fn told_to_a_real_client(folder: &Path, agent: &Agent) -> Value {
    let mut program = python(folder, CALLS).unwrap();
    let output = program.arg(&agent.otlp_grpc).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Why these tests cannot run.
const ABSENT: &str = "the SDK is not installed: `cargo xtask servers opentelemetry-python`";

fn what_a_real_sdk_sends(test: &str, exporters: &str) {
    let Some(folder) = PACKAGE.installed() else {
        return skip(&format!("otlp::what_a_real_sdk_sends {test}"), ABSENT);
    };
    let place = Place::new(&to_archive(&[EVENTS])).flag("--otlp-grpc", "127.0.0.1:0");
    let agent = place.start();
    let mut program = python(&folder, &format!("{exporters}{PROGRAM}")).unwrap();
    program.env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{}", agent.otlp_grpc));
    let output = program.arg(format!("http://{}", agent.http)).stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !said.contains("Failed to export"), "{said}");
    agent.stop();
    let mut by_signal = BTreeMap::<String, Vec<Value>>::new();
    for line in output::lines_below(&place.path("out")) {
        let event: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(event["resource"]["attributes"]["service.name"], "etcher", "{event}");
        assert_eq!(event["resource"]["attributes"]["wafers"], serde_json::json!([1, 2]));
        assert_eq!(event["_spillway"]["pipeline"], "jobs");
        by_signal.entry(event["signal"].as_str().unwrap().to_owned()).or_default().push(event);
    }
    let counts: Vec<(&str, usize)> = by_signal.iter().map(|(signal, events)| (&**signal, events.len())).collect();
    assert_eq!(counts, [("log", 500), ("metric", 1), ("span", 50)]);
    let spans: BTreeMap<&str, &Value> =
        by_signal["span"].iter().map(|span| (span["span_id"].as_str().unwrap(), span)).collect();
    let mut messages: Vec<&str> = Vec::new();
    for log in &by_signal["log"] {
        messages.push(log["message"].as_str().unwrap());
        assert_eq!((&log["severity_number"], log["attributes"]["step"].is_u64()), (&17.into(), true), "{log}");
        let span = spans[log["span_id"].as_str().unwrap()];
        assert_eq!((&span["trace_id"], &span["name"]), (&log["trace_id"], &"etch".into()));
        assert_eq!((&span["events"][0]["name"], &span["scope"]["name"]), (&"opened".into(), &"tests".into()));
    }
    messages.sort_unstable();
    messages.dedup();
    assert_eq!(messages.len(), 500);
    let count = &by_signal["metric"][0];
    assert_eq!(
        (&count["metric"], &count["value"], &count["type"]),
        (&"wafers".into(), &50.into(), &"sum".into()),
        "{count}"
    );
    assert_eq!((&count["temporality"], &count["monotonic"]), (&"cumulative".into(), &true.into()));
    assert_eq!(count["attributes"]["tool"], "etch-07");
}
