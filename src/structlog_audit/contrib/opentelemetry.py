"""Audit events as log records of OpenTelemetry. ``pip install structlog-audit[opentelemetry]``.

**Handler.** Use OpenTelemetry's ``opentelemetry.instrumentation.logging.handler.LoggingHandler``. As a second handler of the
audit logger it exports every field unredacted. As the ``target`` of an `AuditHandler` it exports the event as recorded:
redacted, with its id.

**Processor.** `AuditRecordProcessor` removes this library's internal attributes from a log record and names the record by the
operation. It also sets the span of the event. The handler takes the span of the thread that runs it, which may be another one
than the caller's: threads share writes, and queues have separate threads.
"""

from __future__ import annotations

import re
from typing import Any

try:
    from opentelemetry.sdk._logs import LogRecordProcessor, ReadWriteLogRecord
except ModuleNotFoundError as error:
    message = (
        "structlog_audit.contrib.opentelemetry needs OpenTelemetry's SDK: pip install 'structlog-audit[opentelemetry]'"
    )
    raise ModuleNotFoundError(message, name=error.name) from error

from structlog_audit.events.log_record import HANDOFF
from structlog_audit.recording.formatter import LINE

_TRACE_ID = re.compile("[0-9a-f]{32}")
_SPAN_ID = re.compile("[0-9a-f]{16}")


def _id_number(value: Any, form: re.Pattern[str]) -> int:
    """Return the number of the id *value*.

    It is 0, the invalid id, if the value does not have the *form*.
    """
    if isinstance(value, str) and form.fullmatch(value):
        return int(value, 16)
    return 0


class AuditRecordProcessor(LogRecordProcessor):
    """Removes internal attributes from log records of audit events; leaves all other records unchanged.

    Add it to the ``LoggerProvider`` before the processor that exports.
    """

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        """Remove the internal attributes, name the event, and set its span."""
        record = log_record.log_record
        attributes = dict(record.attributes or {})
        handoff = attributes.pop(HANDOFF, None)
        line = attributes.pop(LINE, None)
        if handoff is None and line is None:
            return

        record.attributes = attributes
        operation = attributes.get("operation")
        if record.event_name is None and isinstance(operation, str):
            record.event_name = operation

        # A recorded event holds the ids in its metadata; the record of another handler has them as attributes.
        details: Any = attributes if line is None else attributes.get("metadata", {})
        trace_id = _id_number(details.get("trace_id"), _TRACE_ID)
        span_id = _id_number(details.get("span_id"), _SPAN_ID)
        if (trace_id and span_id) or line is not None:
            record.trace_id, record.span_id = trace_id, span_id

    def shutdown(self) -> None:
        """Do nothing: the processor holds no records."""

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Do nothing: the processor holds no records."""
        return True
