"""Context of the running task or thread: structlog's contextvars and the active OpenTelemetry span.

This is the only module below the entry points that imports structlog.

**Guarantees**

* While a span is active, ``trace_id`` and ``span_id`` are added in lower-case hexadecimal, named as in OpenTelemetry's "Trace
  Context in non-OTLP Log Formats". If the event has either field already, neither is added.
* OpenTelemetry is never imported here. Without it, the check costs one dictionary look-up.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextvars import copy_context
from typing import Any

from structlog.contextvars import get_contextvars

OPENTELEMETRY_TRACE = "opentelemetry.trace"
"""The name of the module that is imported wherever OpenTelemetry's tracing API is in use."""

_loaded_modules = sys.modules


def bound_context(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that the running task or thread adds to each event.

    Args:
        given: The other fields of the event. If these name a trace or a span, the active span adds nothing.
    """
    # An empty context is four times faster to detect than to convert.
    fields = get_contextvars() if copy_context() else {}

    if OPENTELEMETRY_TRACE in _loaded_modules:
        # The import may be incomplete, or a span of the application may raise: then the event has no span.
        try:
            span = _loaded_modules[OPENTELEMETRY_TRACE].get_current_span().get_span_context()
            if span.is_valid and not _names_span(fields) and not _names_span(given):
                fields |= {"trace_id": f"{span.trace_id:032x}", "span_id": f"{span.span_id:016x}"}
        except Exception:
            pass

    return fields


def _names_span(given: Mapping[str, Any]) -> bool:
    """Return whether *given*, or its metadata, has a trace id or a span id."""
    for mapping in (given, given.get("metadata")):
        if type(mapping) is dict and ("trace_id" in mapping or "span_id" in mapping):
            return True

    return False
