"""What is known of the running task or thread: what structlog's contextvars hold, and the active span of OpenTelemetry.

The one place below the doors that knows structlog.

Rules:

* ``trace_id`` and ``span_id`` are there, in lower-case hexadecimal, while a span is active, and are called so as OpenTelemetry
  says ("Trace Context in non-OTLP Log Formats"). Where somebody else gave a field of one of these names, neither is added.
* OpenTelemetry is never imported here. Where nobody has imported it there is no span, and asking costs one look into a
  dictionary.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextvars import copy_context
from typing import Any

from structlog.contextvars import get_contextvars

OPENTELEMETRY_TRACE = "opentelemetry.trace"
_imported = sys.modules


def bound_context(given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that every event of the running task or thread has, as a new dictionary.

    The span is one thing: where what is *given* names a trace or a span itself, neither member of the active one is added.
    """
    fields = get_contextvars() if copy_context() else {}  # where nothing is set, this look takes a quarter of the time
    if OPENTELEMETRY_TRACE in _imported:
        try:
            span = _imported[OPENTELEMETRY_TRACE].get_current_span().get_span_context()
            if span.is_valid and not _names_span(fields) and not _names_span(given):
                fields |= {"trace_id": f"{span.trace_id:032x}", "span_id": f"{span.span_id:016x}"}
        except Exception:  # the package is just being imported, or a span of somebody's own raises
            pass  # an event goes without
    return fields


def _names_span(given: Mapping[str, Any]) -> bool:
    metadata = given.get("metadata")
    return any("trace_id" in one or "span_id" in one for one in (given, metadata) if type(one) is dict)
