"""Audit events as log records of OpenTelemetry, through its logging handler. ``pip install structlog-audit[opentelemetry]``.

Rules:

* The handler is OpenTelemetry's: ``opentelemetry.instrumentation.logging.handler.LoggingHandler``. As a second handler of the
  audit logger it sees every field, clear. As the ``target`` of an `AuditHandler` it sees the event as it was recorded:
  redacted, with its id.
* Records carry machinery of ours as attributes, which that handler would export. `AuditRecordProcessor` takes it out, and
  names the event: by its operation.
* That handler takes the span of the thread that it runs in. The thread that writes an event is not always the one that sent it:
  threads share writes, and queues have threads of their own. The event knows its span, and the processor sets it.
"""

from __future__ import annotations

import re
from typing import Any

from opentelemetry.sdk._logs import LogRecordProcessor, ReadWriteLogRecord

from structlog_audit.events.log_record import HANDOFF
from structlog_audit.recording.formatter import LINE

_TRACE_ID, _SPAN_ID = re.compile("[0-9a-f]{32}"), re.compile("[0-9a-f]{16}")


def _number(value: Any, form: re.Pattern[str]) -> int:
    """The id that *value* says; 0, which is no id, if it says none."""
    return int(value, 16) if isinstance(value, str) and form.fullmatch(value) else 0


class AuditRecordProcessor(LogRecordProcessor):
    """Tidies log records that come from audit events; leaves all others as they are.

    Add it to the ``LoggerProvider`` before the processor that exports.
    """

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        """Take out what is machinery, name the event, and set its span."""
        record = log_record.log_record
        attributes = dict(record.attributes or {})
        handoff, line = attributes.pop(HANDOFF, None), attributes.pop(LINE, None)
        if handoff is None and line is None:
            return
        record.attributes = attributes
        operation = attributes.get("operation")
        if record.event_name is None and isinstance(operation, str):
            record.event_name = operation
        details: Any = attributes if line is None else attributes.get("metadata", {})
        trace, span = _number(details.get("trace_id"), _TRACE_ID), _number(details.get("span_id"), _SPAN_ID)
        if (trace and span) or line is not None:
            record.trace_id, record.span_id = trace, span

    def shutdown(self) -> None:
        """Do nothing: nothing is held."""

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Do nothing: nothing is held."""
        return True
