#!/usr/bin/env bash
# The exporter of OpenTelemetry for Azure Monitor drops attributes of events of a span by their names: enduser.id,
#   client.address, url.path, error.type, db.* and others are nowhere in what it sends.
#
# A reader would expect: what has a place of its own in Azure Monitor is moved there, and the rest are custom dimensions.
# Guessed before running: all attributes of an event are custom dimensions; those of the request are moved for spans.
# Seen on 2026-11-29, Python 3.11.7, azure-monitor-opentelemetry-exporter 1.0.0b58, opentelemetry-sdk 1.45.2: of eight attributes
#   of an event that is added to a span, two arrive. Of the same attributes of a span of the kind INTERNAL, enduser.id becomes
#   the user of the trace, and five are dropped. All of a log record arrive. Nothing is logged.
# What follows: an audit event that is added to the current span arrives without who did it, from where, and why it failed.
#   Export audit events as log records, or begin the names with a prefix of your own.
# The reason: the rule for the attributes of a span, _is_standard_attribute(), is applied to those of its events, which have no
#   other place. No issue was found.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
"$work/venv/bin/pip" install -q --disable-pip-version-check \
  azure-monitor-opentelemetry-exporter==1.0.0b58 opentelemetry-sdk==1.45.2 || exit 2
export APPLICATIONINSIGHTS_STATSBEAT_DISABLED_ALL=true
"$work/venv/bin/python" - <<'PY'
import gzip
import http.server
import json
import sys
import threading
from importlib.metadata import version

from azure.monitor.opentelemetry.exporter import AzureMonitorLogExporter, AzureMonitorTraceExporter
from opentelemetry._logs import LogRecord
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

packages = ("azure-monitor-opentelemetry-exporter", "opentelemetry-sdk")
print("Python", sys.version.split()[0], *(f"{name} {version(name)}" for name in packages))
ATTRIBUTES = {
    "audit.outcome": "denied",
    "client.address": "192.0.2.7",
    "db.namespace": "invoices",
    "document.id": "document_5",
    "enduser.id": "user_ann",
    "enduser.role": "auditor",
    "error.type": "quota",
    "url.path": "/export",
}
sent = []


class Endpoint(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        items = json.loads(gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)
        sent.extend(items)
        answer = json.dumps({"itemsReceived": len(items), "itemsAccepted": len(items), "errors": []}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


server = http.server.HTTPServer(("127.0.0.1", 0), Endpoint)
threading.Thread(target=server.serve_forever, daemon=True).start()
options = {
    "connection_string": f"InstrumentationKey={'0' * 8}-0000-4000-8000-{'0' * 12};"
    f"IngestionEndpoint=http://127.0.0.1:{server.server_port}/",
    "disable_offline_storage": True,
}
tracers, loggers = TracerProvider(), LoggerProvider()
tracers.add_span_processor(SimpleSpanProcessor(AzureMonitorTraceExporter(tracer_provider=tracers, **options)))
loggers.add_log_record_processor(SimpleLogRecordProcessor(AzureMonitorLogExporter(**options)))
with tracers.get_tracer("audit").start_as_current_span("request") as span:
    span.add_event("document.export", ATTRIBUTES)
with tracers.get_tracer("audit").start_as_current_span("span", attributes=ATTRIBUTES):
    pass
loggers.get_logger("audit").emit(LogRecord(body="log record", attributes=ATTRIBUTES))
server.shutdown()

seen = {}
for item in sent:
    data, text = item["data"]["baseData"], json.dumps(item)
    name = data.get("message") or data.get("name")
    if name in ("document.export", "span", "log record"):
        seen[name] = [key for key, value in ATTRIBUTES.items() if value not in text]
        print(f"{name}: dropped {seen[name]}")

lost = ["client.address", "db.namespace", "enduser.id", "enduser.role", "error.type", "url.path"]
expected = {"document.export": lost, "span": [key for key in lost if key != "enduser.id"], "log record": []}
print("as seen before" if seen == expected else f"CHANGED: {seen}")
sys.exit(seen != expected)
PY
