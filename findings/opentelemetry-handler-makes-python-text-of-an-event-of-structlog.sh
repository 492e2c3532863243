#!/usr/bin/env bash
# The handler of opentelemetry-instrumentation-logging makes Python text of a structlog event: "{'user': 'ann', 'error': None}".
#   The deprecated handler of the SDK, which names it as its successor, sends a map.
#
# A reader would expect: the same body from both; a body may be any value in the data model of OpenTelemetry.
# Guessed before running: nothing of the body; it was met while large integers were tried.
# Seen on 2026-11-29, Python 3.11.7, structlog 26.1.0, opentelemetry-sdk 1.45.2, opentelemetry-instrumentation-logging 0.66b2:
#   with ProcessorFormatter.wrap_for_formatter, structlog passes the event as the message of the record. The body is a map with
#   the old handler, and with the new one a text in which quotes, None and True are those of Python, so that it is no JSON.
#   There are no attributes for the fields.
# What follows: after the move that the deprecation asks for, no field can be searched in the backend, and no error tells. Pass
#   the fields as attributes, with structlog.stdlib.render_to_log_kwargs.
# Known for the old handler, which came to send maps: https://github.com/open-telemetry/opentelemetry-python/pull/4216; the
#   deprecation, #4919, does not mention it.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
"$work/venv/bin/pip" install -q --disable-pip-version-check \
  structlog==26.1.0 opentelemetry-sdk==1.45.2 opentelemetry-instrumentation-logging==0.66b2 || exit 2
"$work/venv/bin/python" - <<'PY'
import logging
import sys
import warnings
from importlib.metadata import version

import structlog
from opentelemetry.instrumentation.logging.handler import LoggingHandler as NewHandler
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs import LoggingHandler as OldHandler
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from structlog.stdlib import BoundLogger, LoggerFactory, ProcessorFormatter, render_to_log_kwargs

names = ("structlog", "opentelemetry-sdk", "opentelemetry-instrumentation-logging")
print("Python", sys.version.split()[0], *(f"{name} {version(name)}" for name in names))
warnings.simplefilter("ignore")
FIELDS = {"user": "ann", "error": None, "ids": [1, 2]}


def export(handler_class, processor):
    """Return the body and the fields among the attributes of one event."""
    exporter = InMemoryLogRecordExporter()
    provider = LoggerProvider()
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    logger = logging.getLogger(f"{handler_class.__module__}.{processor.__name__}")
    logger.setLevel("INFO")
    logger.propagate = False
    logger.addHandler(handler_class(logger_provider=provider))
    structlog.configure(processors=[processor], logger_factory=LoggerFactory(), wrapper_class=BoundLogger)
    structlog.get_logger(logger.name).info("document.read", **FIELDS)
    (exported,) = exporter.get_finished_logs()
    attributes = exported.log_record.attributes
    return exported.log_record.body, {name: attributes[name] for name in FIELDS if name in attributes}


seen = {}
for name, handler_class in {"sdk": OldHandler, "instrumentation": NewHandler}.items():
    for processor in (ProcessorFormatter.wrap_for_formatter, render_to_log_kwargs):
        seen[name, processor.__name__] = body, fields = export(handler_class, processor)
        print(f"{name}, {processor.__name__}: body {type(body).__name__} {body}, attributes {fields}")

event = FIELDS | {"event": "document.read"}
separate = "document.read", FIELDS | {"ids": (1, 2)}
expected = {
    ("sdk", "wrap_for_formatter"): (event, {}),
    ("sdk", "render_to_log_kwargs"): separate,
    ("instrumentation", "wrap_for_formatter"): (str(event), {}),
    ("instrumentation", "render_to_log_kwargs"): separate,
}
print("as seen before" if seen == expected else f"CHANGED: {seen}")
sys.exit(seen != expected)
PY
