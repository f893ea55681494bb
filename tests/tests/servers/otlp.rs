//! A real SDK of OpenTelemetry sends to the agent: logs, metrics and traces over HTTP.

use std::collections::BTreeMap;
use std::process::Stdio;

use serde_json::Value;
use spillway_tests::agent::Place;
use spillway_tests::output;
use spillway_tests::servers::opentelemetry::{PACKAGE, python};
use spillway_tests::servers::skip;

const MANIFEST: &str = "apiVersion: spillway.dev/v1alpha1
kind: Backend
metadata: {name: archive}
spec: {type: Filesystem, filesystem: {}}
---
apiVersion: spillway.dev/v1alpha1
kind: MonitoringPipeline
metadata: {name: telemetry}
spec:
  inputs:
  - {name: pushed, type: Events}
  routes:
  - {name: everything, backendRefs: [{name: archive}]}
";

/// Sends 500 log records, 50 spans and one count, and fails unless all was taken.
const PROGRAM: &str = r#"
import logging, sys
from opentelemetry import trace
from opentelemetry._logs import set_logger_provider
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

url = sys.argv[1]
resource = Resource.create({"service.name": "etcher", "wafers": [1, 2]})
logs = LoggerProvider(resource=resource)
logs.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter(url + "/v1/logs", compression=Compression.Gzip)))
log = logging.getLogger("jobs")
log.setLevel(logging.INFO)
log.propagate = False
log.addHandler(LoggingHandler(logger_provider=logs))
traces = TracerProvider(resource=resource)
traces.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(url + "/v1/traces")))
tracer = traces.get_tracer("tests", "1.0")
reader = PeriodicExportingMetricReader(OTLPMetricExporter(url + "/v1/metrics"), export_interval_millis=3600000)
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

#[test]
fn what_a_real_sdk_sends_is_there_with_its_resource_and_scope() {
    let Some(folder) = PACKAGE.installed() else {
        return skip(
            "otlp::what_a_real_sdk_sends",
            "the SDK is not installed: `cargo xtask servers opentelemetry-python`",
        );
    };
    let place = Place::new(MANIFEST);
    let agent = place.start();
    let mut program = python(&folder, PROGRAM).unwrap();
    let output = program.arg(format!("http://{}", agent.http)).stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !said.contains("Failed to export"), "{said}");
    agent.stop();
    let mut by_signal = BTreeMap::<String, Vec<Value>>::new();
    for line in output::lines_below(&place.path("out")) {
        let event: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(event["resource"]["attributes"]["service.name"], "etcher", "{event}");
        assert_eq!(event["resource"]["attributes"]["wafers"], serde_json::json!([1, 2]));
        assert_eq!(event["_spillway"]["pipeline"], "telemetry");
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
